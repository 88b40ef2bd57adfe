//! What this program tells about itself: a status and a stream of events. One definition serves the table of
//! `jump status`, its `--json`, `jump events` and the log.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use ipnet::IpNet;
use jumpgate_protocol::client::PathRole;
use jumpgate_protocol::ident::TransportId;
use jumpgate_protocol::machine::Transition;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use serde::{Deserialize, Serialize};

use crate::clock;

/// Switches that the log keeps: with the default limit of switches a minute it covers at least several minutes of the
/// worst flapping.
pub const SWITCH_LOG: usize = 64;

/// What the program is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// No uplink is usable; waiting for one.
    NoUplink,
    /// A handshake is under way.
    Connecting,
    /// A session is live.
    Connected,
    /// The last handshake or session failed; the next handshake is due after a pause.
    Waiting,
    /// On the way out.
    Stopping,
}

/// Packets and inner bytes in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// DATA packets.
    pub packets: u64,
    /// Bytes inside of them.
    pub bytes: u64,
}

/// What a path is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathState {
    /// It carries the traffic.
    Active,
    /// Up and probed.
    Standby,
    /// Not usable; `cause` says why.
    Down,
}

/// One row of the path table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PathReport {
    /// Its transport id.
    pub id: u16,
    /// The interface.
    pub interface: String,
    /// Rank among equals, smaller first.
    pub priority: u8,
    /// Use.
    pub state: PathState,
    /// The gateway has seen that it works both ways.
    pub validated: bool,
    /// Why it is down.
    pub cause: Option<String>,
    /// Our address and port.
    pub local: Option<SocketAddr>,
    /// The gateway's address and port.
    pub gateway: SocketAddr,
    /// Our address and port as the gateway sees them.
    pub observed: Option<SocketAddr>,
    /// Smoothed round trip in microseconds.
    pub rtt_us: Option<u64>,
    /// Mean deviation of the round trip in microseconds.
    pub jitter_us: Option<u64>,
    /// Loss in permille.
    pub loss_permille: u32,
}

/// A committed switch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SwitchReport {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// Path before, also if it had died.
    pub from: Option<u16>,
    /// Its interface.
    pub from_interface: Option<String>,
    /// Path now.
    pub to: u16,
    /// Its interface.
    pub to_interface: String,
    /// Why the session left ATTACHED.
    pub reason: Option<String>,
    /// What the gateway said of it.
    pub detail: Option<String>,
    /// `binding_epoch` now.
    pub epoch: u64,
    /// From the last sign of life on the old path until the trouble was noticed.
    pub detect_us: u64,
    /// From then until the commit.
    pub switch_us: u64,
}

/// Everything that `jump status` shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// What the program is doing.
    pub phase: Phase,
    /// Name of the session on the wire (locator).
    pub session: Option<String>,
    /// State of the session.
    pub state: String,
    /// Reason of its last transition.
    pub reason: Option<String>,
    /// `binding_epoch`.
    pub epoch: u64,
    /// The active path.
    pub active: Option<u16>,
    /// Its interface.
    pub active_interface: Option<String>,
    /// Age of the session in milliseconds.
    pub age_ms: u64,
    /// The tunnel's interface.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Its MTU.
    pub mtu: Option<u16>,
    /// Sent to the gateway.
    pub tx: Traffic,
    /// Received from the gateway.
    pub rx: Traffic,
    /// Sessions since the program started.
    pub sessions: u64,
    /// Why a handshake or session failed last; it stays after the next one succeeded.
    pub last_error: Option<String>,
    /// Every path, by transport id.
    pub paths: Vec<PathReport>,
    /// Committed switches of the present session.
    pub switches_total: u64,
    /// The last [`SWITCH_LOG`] switches since the program started, oldest first.
    pub switches: VecDeque<SwitchReport>,
    /// Packets dropped here, by reason.
    pub drops: BTreeMap<String, u64>,
}

/// A line of `jump events`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventLine {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// Microseconds of CLOCK_BOOTTIME, which all processes of a machine share.
    pub boottime_us: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What can happen.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are those of the reports above and of the protocol's events")]
pub enum Event {
    /// A session came about.
    Connected { session: String, addresses: Vec<IpNet>, mtu: u16, path: Option<u16>, interface: Option<String> },
    /// A handshake failed.
    ConnectFailed { reason: String },
    /// A transition of the session.
    Transition {
        transition: String,
        from: String,
        to: String,
        reason: String,
        detail: Option<String>,
        epoch: u64,
        path: Option<u16>,
        interface: Option<String>,
    },
    /// The session moved.
    Switched { switch: SwitchReport },
    /// The gateway refused to move it.
    Refused { reason: String, path: u16, interface: String },
    /// The session ended.
    Terminated { reason: String, detail: Option<String> },
    /// A path became usable.
    PathUp { path: u16, interface: String, local: SocketAddr, gateway: SocketAddr },
    /// A path is not usable any more.
    PathDown { path: u16, interface: String, cause: String },
    /// The next handshake is due after a pause.
    Retry { delay_ms: u64 },
    /// The listener was too slow and missed that many events.
    Missed { count: u64 },
}

impl EventLine {
    /// Stamps an event with the present time.
    pub fn now(event: Event) -> Self {
        Self { time_ms: clock::unix_ms(), boottime_us: clock::now().as_micros(), event }
    }
}

impl Event {
    /// The event of a transition.
    pub fn transition(transition: &Transition, path: Option<TransportId>, interface: Option<String>) -> Self {
        Self::Transition {
            transition: transition.id.to_string(),
            from: transition.from.to_string(),
            to: transition.to.to_string(),
            reason: transition.reason.to_string(),
            detail: transition.detail.map(name),
            epoch: transition.epoch,
            path: path.map(|path| path.0),
            interface,
        }
    }
}

impl PathState {
    /// The state of a path that is up, from the role that the session gives it; and whether it is validated.
    pub fn of(role: PathRole) -> (Self, bool) {
        match role {
            PathRole::Active => (Self::Active, true),
            PathRole::Validated => (Self::Standby, true),
            PathRole::Standby | PathRole::Unknown => (Self::Standby, false),
            PathRole::Down => (Self::Down, false),
        }
    }
}

/// Stable name of a reason, as an owned text.
pub fn name(reason: Reason) -> String {
    reason.name().to_owned()
}

/// A span in milliseconds, for people.
pub fn milliseconds(micros: u64) -> String {
    Span::from_micros(micros).to_string()
}

/// How long ago `earlier` was, in milliseconds.
pub fn age_ms(now: Time, earlier: Time) -> u64 {
    now.since(earlier).as_millis()
}
