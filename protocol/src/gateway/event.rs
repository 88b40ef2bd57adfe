//! What a shard tells its driver.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::health::Measurement;
use crate::ident::{Locator, PublicKey, TransportId, Tuple};
use crate::machine::{State, Transition};
use crate::reason::Reason;
use crate::time::Span;
use crate::wire::{ControlPacket, MessageType};

/// A control packet to send.
#[derive(Clone, Debug)]
pub struct Reply {
    /// From which of our addresses to which peer.
    pub tuple: Tuple,
    /// The next hop, [`crate::ident::Arrival::NO_ROUTE`] if unknown.
    pub route: u32,
    /// The UDP payload.
    pub packet: ControlPacket,
}

/// Something that happened to a session.
#[derive(Clone, Debug)]
pub struct SessionEvent {
    /// Which session.
    pub locator: Locator,
    /// Whose session.
    pub client: PublicKey,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// A record was made, in BIRTH, version 0.
    Created,
    /// A transition; exactly one event for each (INV-08).
    Transition(Transition),
    /// The active binding is validated now (PV-3).
    Validated {
        /// Its epoch.
        epoch: u64,
    },
    /// Probation after a switch ended well (SM-12).
    RecoveryComplete {
        /// The epoch that held.
        epoch: u64,
    },
    /// A rekey is complete: the client uses the keys (RK-5).
    Rekeyed {
        /// The key epoch now.
        key_epoch: u32,
        /// Why (1211 to 1215).
        trigger: Reason,
    },
    /// An authenticated request was refused.
    Refused {
        /// What was asked.
        message: MessageType,
        /// Why not.
        reason: Reason,
        /// From where it was asked.
        tuple: Tuple,
    },
}

/// One session as the operator sees it.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// Its name on the wire.
    pub locator: Locator,
    /// Whose it is.
    pub client: PublicKey,
    /// Where it stands.
    pub state: State,
    /// Primary reason of its last transition.
    pub reason: Option<Reason>,
    /// `binding_epoch`.
    pub epoch: u64,
    /// `state_version`.
    pub version: u64,
    /// Tuple of the active binding.
    pub tuple: Option<Tuple>,
    /// Transport id of the active binding.
    pub transport: Option<TransportId>,
    /// Whether the active binding is validated.
    pub validated: bool,
    /// Receive queue of the last packet on it.
    pub queue: u16,
    /// Inner addresses.
    pub inner_v4: Option<Ipv4Addr>,
    /// Inner addresses.
    pub inner_v6: Option<Ipv6Addr>,
    /// DATA packets and inner bytes from the client.
    pub received: (u64, u64),
    /// DATA packets and inner bytes to the client.
    pub sent: (u64, u64),
    /// Committed switches.
    pub switches: u64,
    /// Age since T01.
    pub age: Span,
    /// What is measured of the active path.
    pub measurement: Measurement,
}
