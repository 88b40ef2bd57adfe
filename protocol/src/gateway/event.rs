//! What a shard tells its driver.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::health::Measurement;
use crate::ident::{Locator, PublicKey, SessionIdentity, TransportId, Tuple};
use crate::machine::{State, Transition};
use crate::policy::Policy;
use crate::reason::Reason;
use crate::time::{Span, Time};
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
    /// What its record says when it happened; none of a session that there is not.
    pub account: Option<Account>,
    /// What happened.
    pub kind: EventKind,
}

/// What a session gives account of with every event, so that who follows it can tell whether all of it fits together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// What audit records call it.
    pub identity: SessionIdentity,
    /// The key epoch that it sends with.
    pub key_epoch: u32,
    /// DATA packets sealed under it, or their counter where that is ahead.
    pub sealed: u64,
    /// DATA packets opened under it.
    pub opened: u64,
    /// The highest counter among these.
    pub highest: u64,
    /// DATA packets that passed into the inside network, over the session's life.
    pub received: u64,
    /// Whether packets of a former binding are still taken (TB-07).
    pub drains: bool,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// A record was made, in BIRTH, version 0.
    Created,
    /// The session goes on from the run of the gateway before (OW-8). Its first event in this one.
    TakenOver {
        /// Where it stands.
        state: State,
        /// Its `state_version`.
        version: u64,
        /// When it entered that state.
        since: Time,
        /// When its record was made.
        created: Time,
        /// Where its active binding leads to.
        peer: Option<SocketAddr>,
        /// Packets to its inner address are its own.
        holds_address: bool,
    },
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
    /// Another policy for the session (RL-3, POLICY_CHANGED). Of mode grace it comes twice: told to the client, then in
    /// force.
    PolicyChanged {
        /// Its number within the session.
        sequence: u32,
        /// The policy.
        policy: Arc<Policy>,
        /// Whether it is in force.
        in_force: bool,
    },
    /// The client has the policy of that number (PU-1).
    PolicyAcknowledged {
        /// The number.
        sequence: u32,
    },
    /// The operator's order to move was not taken (SM-05).
    MoveRefused {
        /// Why.
        reason: Reason,
    },
    /// KEY_COMPROMISE_SUSPECTED; T20 follows.
    CompromiseSuspected {
        /// What it is suspected for.
        evidence: CompromiseEvidence,
    },
    /// A key sealed as many packets as it may; T25 follows (KY-6, COUNTER_LIMIT_REACHED).
    KeysUsedUp {
        /// The key epoch.
        key_epoch: u32,
    },
    /// The worker did not take the session: its locator is in use. A defect of ours; whoever reserved anything for it frees
    /// that.
    BirthRefused {
        /// INVARIANT_VIOLATION.
        reason: Reason,
    },
}

/// Why a key is thought to be in other hands (KY-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompromiseEvidence {
    /// The operator says so.
    Operator,
    /// Two messages with one counter under one key, both authentic (AR-4).
    Clone,
}

/// One session as the operator sees it.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// What audit records call it.
    pub identity: SessionIdentity,
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
