//! What the desk records: policy, refused handshakes, and floods of them (`crate::audit`).

use std::net::SocketAddr;

use crate::audit::{
    Bounds, Disclosure, Event, Journal, LimitAction, LimitScope, Pattern, PolicyAction, PolicyHash, Record, Refused,
    RestartAction, SecurityCounts,
};
use crate::policy::Policy;
use crate::reason::Reason;
use crate::time::{Span, Time};
use crate::wire::MessageType;

/// While the gateway asks for cookies it looks so often whether the flood is over.
const LOAD_REVIEW: Span = Span::from_millis(1_000);

/// The records of the desk.
#[derive(Default)]
pub(super) struct Vigil {
    journal: Journal,
    /// A flood of handshakes that is not over.
    flood: Option<Flood>,
}

/// Handshakes come faster than the gateway takes them without cookies (HS-7).
struct Flood {
    since: Time,
    last_review: Time,
    /// Handshakes that were not served since then.
    refused: u64,
}

impl Vigil {
    /// Keeps records from now on.
    pub(super) fn keep(&mut self, disclosure: Disclosure, now: Time) {
        self.journal.keep(disclosure, now);
    }

    /// If records are kept, they may disclose that from now on.
    pub(super) fn disclose(&mut self, disclosure: Disclosure, now: Time) {
        if self.journal.is_open() {
            self.journal.keep(disclosure, now);
        }
    }

    pub(super) fn security(&self) -> SecurityCounts {
        self.journal.security()
    }

    pub(super) fn poll(&mut self) -> Option<Record> {
        self.journal.poll()
    }

    /// What happened to the policy of the gateway. `in_force` is the one that holds from now on.
    pub(super) fn policy(&mut self, action: PolicyAction, reason: Reason, in_force: &Policy, now: Time) {
        if !self.journal.is_open() {
            return;
        }
        let event = Event::PolicyEvent {
            action,
            policy_name: in_force.profile,
            parameter: None,
            threshold_value: None,
            observed_value: None,
            policy_hash: PolicyHash::of(in_force),
            bounds: Some(Bounds::of(in_force)),
        };
        self.journal.write_of_node(now, reason, None, event);
    }

    /// Sessions went to the next run of the gateway, or came from the one before.
    pub(super) fn restart(&mut self, now: Time, action: RestartAction, reason: Reason, sessions: usize) {
        let sessions = u32::try_from(sessions).unwrap_or(u32::MAX);
        self.journal.write_of_node(now, reason, None, Event::GatewayRestart { action, sessions });
    }

    /// A datagram was refused; `limit` if by a limiter.
    pub(super) fn refused(
        &mut self,
        now: Time,
        peer: SocketAddr,
        packet: &[u8],
        reason: Reason,
        limit: Option<(LimitScope, Span)>,
    ) {
        let limit = limit.or((reason == Reason::RateLimited).then_some((LimitScope::Source, Span::ZERO)));
        let refused = Refused { reason, message: MessageType::of(packet).ok(), marker: 0, peer, limit };
        self.journal.refused(now, &refused, || None);
    }

    /// A client names a session of another client as the one to be replaced (HS-8).
    pub(super) fn fixation(&mut self, now: Time, peer: SocketAddr) {
        let (reason, message) = (Reason::SecSessionFixationAttempt, Some(MessageType::HelloInit));
        self.journal.refused(now, &Refused { reason, message, marker: 0, peer, limit: None }, || None);
    }

    /// Whether cookies are asked for now, and whether a handshake was just turned away for the lack of one. The begin of
    /// a flood and its end, with what it came to, are recorded.
    pub(super) fn load(&mut self, now: Time, under_load: bool, turned_away: bool) {
        match &mut self.flood {
            None if under_load && turned_away => {
                self.flood = Some(Flood { since: now, last_review: now, refused: 1 });
                let action = LimitAction::Engaged;
                let event =
                    Event::RateLimitEvent { action, scope: LimitScope::Handshake, retry_after_ms: 0, peer: None };
                self.journal.write_of_node(now, Reason::CookieRequired, None, event);
            }
            Some(flood) if under_load => {
                flood.last_review = now;
                flood.refused += u64::from(turned_away);
            }
            Some(Flood { since, refused, .. }) => {
                let interval_ms = u32::try_from(now.since(*since).as_millis()).unwrap_or(u32::MAX);
                let event =
                    Event::SecurityAbuse { pattern: Pattern::HandshakeFlood, suppressed: *refused, interval_ms };
                self.flood = None;
                self.journal.write_of_node(now, Reason::SecAbuseControlPlane, Some(Reason::CookieRequired), event);
                self.journal.released(now, LimitScope::Handshake, None);
            }
            None => {}
        }
    }

    /// Writes what was left out.
    pub(super) fn summarise(&mut self, now: Time) {
        self.journal.summarise(now);
    }

    /// When there is something to look at.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        let review = self.flood.as_ref().map(|flood| flood.last_review + LOAD_REVIEW);
        review.into_iter().chain(self.journal.next_summary()).min()
    }
}
