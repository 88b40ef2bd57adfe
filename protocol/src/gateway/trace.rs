//! What the records of a session are made from at this end (`crate::audit`): hooks, called where things happen.

use super::session::Session;
use super::shard::Context;
use crate::audit::{self, Answer, Refused, Request, Scene, Totals, Trail};
use crate::health::RoundTrips;
use crate::ident::{TransportId, Tuple};
use crate::machine::{State, Transition};
use crate::reason::Reason;
use crate::time::{Span, Time};
use crate::wire::{Header, ReattachRequest};

impl Session {
    /// One transition. Gives whether the checks after a commit hold.
    pub(super) fn record_transition(&mut self, transition: &Transition, context: &mut Context<'_>) -> bool {
        let journal = &mut context.outbox.journal;
        let scene = Scene {
            policy: &self.policy,
            record: &self.record,
            identity: self.ring.identity(),
            key_epoch: self.ring.epoch(),
            keys_used_up: self.ring.is_used_up(),
            candidates: self.standby.validated(),
            last_authentic: self.health.last_authentic(),
            measured: Some(self.measurement(transition.at)),
            new_path: (None, None),
        };
        let peer = transition.active.and_then(|binding| journal.outer(binding.tuple.peer));
        self.trail.transition(transition, &scene, peer, journal)
    }

    /// The path of the session is as it is now.
    pub(super) fn record_sample(&mut self, context: &mut Context<'_>) {
        let Self { trail, policy, health, rtt, received, sent, .. } = self;
        trail.sample(context.now, &mut context.outbox.journal, || {
            let measured = health.measurement(policy, RoundTrips::Gateway(rtt), context.now);
            Some((measured, received.packets + sent.packets, received.bytes + sent.bytes))
        });
    }

    /// A request passed every check: an attempt, and its answer. The transitions of its chain follow.
    pub(super) fn record_grant(&mut self, header: &Header, request: &ReattachRequest, context: &mut Context<'_>) {
        let left = self.deadline_left(context.now);
        let journal = &mut context.outbox.journal;
        self.trail.admitted(context.now, journal);
        self.trail.chain(attempt(header, request), left, context.now, journal);
        self.trail.answered(answer(request, None, Span::ZERO));
    }

    /// A request was refused after proof and freshness. An attempt with its answer, but for what could drown the audit:
    /// a session that asks too often (PP79) makes security records, which are limited.
    pub(super) fn record_denial(
        &mut self,
        header: &Header,
        request: &ReattachRequest,
        from: &Tuple,
        (reason, retry_after): (Reason, Span),
        context: &mut Context<'_>,
    ) {
        let now = context.now;
        let known = self.audit_context(from);
        let left = self.deadline_left(now);
        let journal = &mut context.outbox.journal;
        if reason == Reason::FutureStateVersion {
            journal.anomaly(now, &known, request.binding_epoch);
        }
        let excess = match reason {
            Reason::RateLimited => Some(retry_after),
            Reason::StaleStateVersion | Reason::FutureStateVersion | Reason::InvalidStateForReattach => {
                self.trail.early_refusal(&self.policy, now).err()
            }
            _ => None,
        };
        if let Some(wait) = excess {
            let limit = Some((audit::LimitScope::Session, wait));
            let (message, marker, peer) = (Some(header.kind), header.counter, from.peer);
            let refused = Refused { reason: Reason::RateLimited, message, marker, peer, limit };
            journal.refused(now, &refused, || Some(known));
            self.trail.limited();
            return;
        }
        if reason != Reason::FreshnessInvalid && self.record.state().is_live() {
            self.trail.attempt(attempt(header, request), left, now, journal);
            self.trail.answered(answer(request, Some(reason), retry_after));
        }
    }

    /// Nothing more follows from a request.
    pub(super) fn settle_records(&mut self, context: &mut Context<'_>) {
        self.trail.settle(&self.policy, &self.record, context.now, &mut context.outbox.journal);
    }

    /// What a security record says of this session.
    pub(super) fn audit_context(&self, from: &Tuple) -> audit::Context {
        let bound = self.record.active().filter(|binding| binding.tuple == *from);
        audit::Context {
            standing: self.trail.standing(),
            policy: self.trail.policy(),
            transport: bound.map(|binding| binding.transport),
        }
    }

    /// Drops the session with all of its keys (KY-9); what is left is what its last record says.
    pub(super) fn bury(self, now: Time) -> (Trail, Totals) {
        let Self { trail, ring, record, received, sent, .. } = self;
        drop(ring);
        let totals = Totals {
            age: record.age(now),
            switches: record.total_switches(),
            packets: received.packets + sent.packets,
            bytes: received.bytes + sent.bytes,
        };
        (trail, totals)
    }

    fn deadline_left(&self, now: Time) -> Option<Span> {
        (self.record.state() == State::Recovering).then(|| self.record.deadline().since(now))
    }
}

fn attempt(header: &Header, request: &ReattachRequest) -> Request {
    Request { candidate: request.transport_id, nonce: header.counter, epoch: request.binding_epoch }
}

fn answer(request: &ReattachRequest, refusal: Option<Reason>, retry_after: Span) -> Answer {
    let (candidate, cause): (TransportId, _) = (request.transport_id, request.cause);
    let retry_after = refusal.map(|_| retry_after);
    Answer { candidate, cause, refusal, detail: None, round_trip: None, retry_after }
}
