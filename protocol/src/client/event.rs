//! What the client tells its driver.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::health::Measurement;
use crate::ident::{Locator, TransportId};
use crate::machine::{State, Transition};
use crate::policy::Version;
use crate::reason::Reason;
use crate::time::Span;

/// A datagram to send on a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The path, which also says to which gateway address.
    pub path: TransportId,
    /// The UDP payload.
    pub packet: Vec<u8>,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum ClientEvent {
    /// A session is there; inner packets may flow.
    Connected {
        /// Its name on the wire.
        locator: Locator,
        /// Inner IPv4 address and prefix length.
        inner_v4: Option<(Ipv4Addr, u8)>,
        /// Inner IPv6 address and prefix length.
        inner_v6: Option<(Ipv6Addr, u8)>,
        /// MTU inside the tunnel, in bytes.
        mtu: u16,
    },
    /// No session came about.
    ConnectFailed {
        /// The gateway's refusal, or HANDSHAKE_TIMEOUT if nothing answered.
        reason: Reason,
    },
    /// A transition of the mirror.
    Transition {
        /// What happened.
        transition: Transition,
        /// The active path after it.
        path: Option<TransportId>,
    },
    /// The session moved.
    Switched {
        /// The path before; none if it was dead.
        from: Option<TransportId>,
        /// The path now.
        to: TransportId,
        /// `binding_epoch` now.
        epoch: u64,
        /// What the gateway says of it: NAT_REBIND_DETECTED, SAME_PATH_REPROVED, ALREADY_BOUND.
        detail: Option<Reason>,
        /// From the last authentic packet of the old binding until the session left ATTACHED.
        detected_after: Span,
        /// From leaving ATTACHED until the commit.
        switched_after: Span,
    },
    /// A rekey is complete: both ends use the keys (RK-5).
    Rekeyed {
        /// The key epoch now.
        key_epoch: u32,
        /// Why (1211 to 1215).
        trigger: Reason,
    },
    /// Another policy is in force (RL-3).
    PolicyChanged {
        /// Its number within the session.
        sequence: u32,
        /// Its version, as its author chose it.
        version: Version,
    },
    /// A request was refused.
    Refused {
        /// Why.
        reason: Reason,
        /// The path that was asked for.
        path: TransportId,
    },
    /// The session is over; another needs a new handshake.
    Terminated {
        /// Primary reason.
        reason: Reason,
        /// Detail, as SESSION_LOST.
        detail: Option<Reason>,
    },
}

/// What a path is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathRole {
    /// It carries the traffic.
    Active,
    /// Probed, and the gateway has seen that it works both ways.
    Validated,
    /// Probed, not yet validated.
    Standby,
    /// Up, but nothing is known of it.
    Unknown,
    /// Not usable now.
    Down,
}

/// One path as the user sees it.
#[derive(Clone, Debug)]
pub struct PathStatus {
    /// Its number.
    pub id: TransportId,
    /// The gateway address that it leads to.
    pub gateway: SocketAddr,
    /// What it is used for.
    pub role: PathRole,
    /// Smoothed round trip.
    pub rtt: Option<Span>,
    /// Mean deviation of the round trip over the last answers.
    pub jitter: Span,
    /// Loss in permille over the last probes or heartbeats; of the active path, of DATA if that is more.
    pub loss_permille: u32,
    /// Our address as the gateway sees it.
    pub observed: Option<SocketAddr>,
}

/// The client as the user sees it.
#[derive(Clone, Debug)]
pub struct ClientStatus {
    /// Name of the session on the wire.
    pub locator: Option<Locator>,
    /// Where the session stands; BIRTH while connecting.
    pub state: State,
    /// Primary reason of the last transition.
    pub reason: Option<Reason>,
    /// `binding_epoch`.
    pub epoch: u64,
    /// The active path.
    pub active: Option<TransportId>,
    /// Every path.
    pub paths: Vec<PathStatus>,
    /// DATA packets and inner bytes sent.
    pub sent: (u64, u64),
    /// DATA packets and inner bytes received.
    pub received: (u64, u64),
    /// Committed switches.
    pub switches: u64,
    /// Age of the session.
    pub age: Span,
    /// What is measured of the active path; nothing without one.
    pub measurement: Option<Measurement>,
}
