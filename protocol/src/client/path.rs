//! One path: a local interface towards one gateway address, with what probes and heartbeats told of it.

use std::net::SocketAddr;

use crate::health::{RTO_UNKNOWN, Rtt};
use crate::ident::{TransportId, Tuple};
use crate::time::{Span, Time};

/// What the driver knows of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathInfo {
    /// The gateway address that it leads to.
    pub gateway: SocketAddr,
    /// Rank among usable paths, lower is preferred (PP55).
    pub priority: u8,
}

/// Answers that the loss of a path is judged over.
const LOSS_MEMORY: u32 = 32;

/// One path of the client.
#[derive(Clone, Debug)]
pub(super) struct Path {
    pub(super) id: TransportId,
    pub(super) info: PathInfo,
    pub(super) up: bool,
    pub(super) rtt: Rtt,
    pub(super) observed: Option<SocketAddr>,
    /// The token that the gateway sent last to this path (SP-3).
    pub(super) token: u64,
    pub(super) validated: bool,
    /// Counter and time of the probe that is under way.
    pub(super) probe: Option<(u64, Time)>,
    pub(super) next_probe: Time,
    pub(super) last_answer: Option<Time>,
    /// Start of the unbroken run of answers.
    pub(super) answering_since: Option<Time>,
    pub(super) answers: u32,
    /// One bit a probe, 1 = lost, newest lowest.
    losses: u32,
    asked: u32,
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
            rtt: Rtt::default(),
            observed: None,
            token: 0,
            validated: false,
            probe: None,
            next_probe: now,
            last_answer: None,
            answering_since: None,
            answers: 0,
            losses: 0,
            asked: 0,
            unanswered: false,
            tried: false,
            left_at: None,
        }
    }

    /// The tuple as this end knows it: its own address behind a NAT means nothing to the mirror.
    pub(super) fn tuple(&self) -> Tuple {
        let local = match self.info.gateway {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0u16; 8], 0).into(),
        };
        Tuple { local, peer: self.info.gateway }
    }

    /// A probe with that counter went out; one that was still unanswered is lost.
    pub(super) fn probe_sent(&mut self, counter: u64, now: Time) {
        if self.probe.is_some() {
            self.lost();
        }
        self.probe = Some((counter, now));
    }

    /// A probe was answered. Gives whether it was the one under way (lane R: once, and only if asked).
    pub(super) fn probe_answered(&mut self, counter: u64, now: Time) -> bool {
        let Some((_, at)) = self.probe.take_if(|(sent, _)| *sent == counter) else {
            return false;
        };
        self.answered(now.since(at), now);
        true
    }

    /// One more answer on this path, from a probe or a heartbeat.
    pub(super) fn answered(&mut self, round_trip: Span, now: Time) {
        self.rtt.sample(round_trip);
        self.unanswered = false;
        self.last_answer = Some(now);
        self.answering_since.get_or_insert(now);
        self.answers = self.answers.saturating_add(1);
        self.losses <<= 1;
        self.asked = (self.asked + 1).min(LOSS_MEMORY);
    }

    /// The retransmission timeout (HS-6). Of a path that let a request go unanswered the round trip counts as unknown: a
    /// timeout that was too short would stay too short for ever (L-1).
    pub(super) fn rto(&self) -> Span {
        if self.unanswered { self.rtt.rto().max(RTO_UNKNOWN) } else { self.rtt.rto() }
    }

    /// One more question without an answer.
    pub(super) fn lost(&mut self) {
        self.losses = (self.losses << 1) | 1;
        self.asked = (self.asked + 1).min(LOSS_MEMORY);
        self.answering_since = None;
        self.answers = 0;
    }

    /// Lost questions in permille over the last [`LOSS_MEMORY`].
    pub(super) fn loss_permille(&self) -> u32 {
        if self.asked == 0 {
            return 0;
        }
        let mask = if self.asked == LOSS_MEMORY { u32::MAX } else { (1 << self.asked) - 1 };
        (self.losses & mask).count_ones() * 1_000 / self.asked
    }

    /// Whether it answered within `ttl`.
    pub(super) fn seen_within(&self, ttl: Span, now: Time) -> bool {
        self.last_answer.is_some_and(|at| now.since(at) < ttl)
    }

    /// Everything that was measured before belongs to another tuple: the link went, or came with another address.
    pub(super) fn forget(&mut self, now: Time) {
        *self = Self { up: self.up, left_at: self.left_at, ..Self::new(self.id, self.info, now) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> Path {
        let info = PathInfo { gateway: "192.0.2.1:51900".parse().unwrap(), priority: 10 };
        Path::new(TransportId(1), info, Time::ZERO)
    }

    #[test]
    fn an_answer_counts_once_and_only_for_the_probe_under_way() {
        let mut path = path();
        path.probe_sent(7, Time::ZERO);
        assert!(!path.probe_answered(6, Time::from_millis(5)));
        assert!(path.probe_answered(7, Time::from_millis(20)));
        assert!(!path.probe_answered(7, Time::from_millis(21)));
        assert_eq!(path.rtt.smoothed(), Some(Span::from_millis(20)));
    }

    #[test]
    fn loss_is_judged_over_the_questions_asked() {
        let mut path = path();
        assert_eq!(path.loss_permille(), 0);
        for counter in 0..4 {
            path.probe_sent(counter, Time::ZERO);
        }
        assert_eq!(path.loss_permille(), 1_000);
        path.probe_answered(3, Time::ZERO);
        assert_eq!(path.loss_permille(), 750);
        for _ in 0..40 {
            path.answered(Span::from_millis(1), Time::ZERO);
        }
        assert_eq!(path.loss_permille(), 0);
    }
}
