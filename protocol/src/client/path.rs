//! One path: a local interface towards one gateway address, with what probes and heartbeats told of it.

use std::net::SocketAddr;

use crate::health::{Echoes, RTO_UNKNOWN};
use crate::ident::{TransportId, Tuple};
use crate::policy::{Policy, TransportClass};
use crate::time::{Span, Time};

/// What the driver knows of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathInfo {
    /// The gateway address that it leads to.
    pub gateway: SocketAddr,
    /// What kind of network it leads through: policy ranks the kinds (PP55).
    pub class: TransportClass,
    /// Rank among paths of kinds that policy ranks alike, lower is preferred.
    pub priority: u8,
}

/// One path of the client.
#[derive(Clone, Debug)]
pub(super) struct Path {
    pub(super) id: TransportId,
    pub(super) info: PathInfo,
    pub(super) up: bool,
    /// Answers to probes, and to heartbeats while it is the active one.
    pub(super) echoes: Echoes,
    pub(super) observed: Option<SocketAddr>,
    /// The token that the gateway sent last to this path (SP-3).
    pub(super) token: u64,
    pub(super) validated: bool,
    pub(super) next_probe: Time,
    /// When it was probed first without an answer since.
    pub(super) silent_since: Option<Time>,
    /// A request on it went unanswered since it answered last: its round trip is not what it was.
    pub(super) unanswered: bool,
    /// Refused or failed in this recovery.
    pub(super) tried: bool,
    /// When the session left it (AF-2).
    pub(super) left_at: Option<Time>,
}

impl Path {
    pub(super) fn new(id: TransportId, info: PathInfo, now: Time) -> Self {
        Self {
            id,
            info,
            up: true,
            echoes: Echoes::default(),
            observed: None,
            token: 0,
            validated: false,
            next_probe: now,
            silent_since: None,
            unanswered: false,
            tried: false,
            left_at: None,
        }
    }

    /// Its place by what operator (PP55) and user want of it; the smaller is preferred.
    pub(super) fn preference(&self, policy: &Policy) -> (u8, u8) {
        (policy.transport.priority.of(self.info.class), self.info.priority)
    }

    /// The tuple as this end knows it: its own address behind a NAT means nothing to the mirror.
    pub(super) fn tuple(&self) -> Tuple {
        let local = match self.info.gateway {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0u16; 8], 0).into(),
        };
        Tuple { local, peer: self.info.gateway }
    }

    /// A probe with that counter went out.
    pub(super) fn probed(&mut self, counter: u64, now: Time) {
        self.echoes.asked(counter, now);
        self.silent_since.get_or_insert(now);
    }

    /// A probe or heartbeat with that counter was answered on this path. Gives the round trip, once and only if it was
    /// asked here (AR-1, lane R).
    pub(super) fn answered(&mut self, counter: u64, now: Time) -> Option<Span> {
        let round_trip = self.echoes.answered(counter, now)?;
        self.heard_from();
        Some(round_trip)
    }

    /// A round trip measured by an answer to a handshake or to a request to move.
    pub(super) fn measured(&mut self, round_trip: Span, now: Time) {
        self.echoes.measured(round_trip, now);
        self.heard_from();
    }

    fn heard_from(&mut self) {
        self.unanswered = false;
        self.silent_since = None;
    }

    /// The retransmission timeout (HS-6). Of a path that let a request go unanswered the round trip counts as unknown: a
    /// timeout that was too short would stay too short for ever (L-1).
    pub(super) fn rto(&self) -> Span {
        let rto = self.echoes.rtt().rto();
        if self.unanswered { rto.max(RTO_UNKNOWN) } else { rto }
    }

    /// Whether it answered within `ttl`.
    pub(super) fn seen_within(&self, ttl: Span, now: Time) -> bool {
        self.echoes.last_answer().is_some_and(|at| now.since(at) < ttl)
    }

    /// Whether it has let probes go unanswered for `ttl`.
    pub(super) fn is_stale(&self, ttl: Span, now: Time) -> bool {
        self.silent_since.is_some_and(|since| now.since(since) >= ttl)
    }

    /// A session begins. Its counters start anew, so no question of the former one may be answered now; and what the
    /// gateway knew of the path, it knew of that session.
    pub(super) fn begin_session(&mut self, now: Time) {
        self.echoes.start_afresh();
        self.token = 0;
        self.validated = false;
        self.next_probe = now;
        self.silent_since = None;
        self.tried = false;
        self.left_at = None;
    }

    /// Everything that was measured before belongs to another tuple: the link went, or came with another address.
    pub(super) fn forget(&mut self, now: Time) {
        *self = Self { up: self.up, left_at: self.left_at, ..Self::new(self.id, self.info, now) };
    }
}
