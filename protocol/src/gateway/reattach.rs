//! REATTACH_REQUEST: the only message that moves a binding (INV-26). Checks C04 to C10, in this order, all before the
//! first mutation (INV-11).

use super::event::EventKind;
use super::lanes::{Mutation, digest};
use super::session::Session;
use super::shard::{Context, Outbox};
use crate::ident::{Arrival, TransportId};
use crate::machine::{Input, NewBinding, State, due, reattach};
use crate::reason::Reason;
use crate::time::Span;
use crate::wire::{Cause, Header, ReattachAck, ReattachReject, ReattachRequest, ReservedZero, UDP};

/// What the checks C06 to C09 found.
enum Verdict {
    /// The request asks for what is so (SM-09).
    AlreadyBound,
    /// The binding to commit.
    Commit(NewBinding),
}

/// A refusal, with how long the client shall wait.
struct Denied {
    reason: Reason,
    retry_after: Span,
}

impl From<Reason> for Denied {
    fn from(reason: Reason) -> Self {
        Self { reason, retry_after: Span::ZERO }
    }
}

impl Session {
    /// One REATTACH_REQUEST. Gives an error for what is refused; whatever is authentic and fresh was then answered
    /// (RF-2), AUTH_FAIL and replays were not.
    pub(super) fn reattach_request(
        &mut self,
        header: &Header,
        arrival: &Arrival,
        packet: &mut [u8],
        context: &mut Context<'_>,
    ) -> Result<(), Reason> {
        let received = packet.len();
        let digest = digest(packet);
        // C04: the proof.
        let request: ReattachRequest = self.open_proof(header, packet, context)?;
        // C05: the nonce. From here on it is used up, whatever becomes of the request.
        if let Mutation::Repeated = self.mutation(header, digest, arrival, context)? {
            return self.answer_again(arrival, context);
        }
        self.credit_unvalidated(&arrival.tuple, received as u64);
        self.heard_on(&arrival.tuple, context.now);
        match self.judge(&request, arrival, context) {
            Ok(Verdict::AlreadyBound) => {
                // Fresh, from that tuple, and it names the epoch: that validates too (PV-3).
                self.validate(request.binding_epoch, context);
                self.acknowledge(header, digest, arrival, Some(Reason::AlreadyBound), context)
            }
            Ok(Verdict::Commit(binding)) => {
                let now = context.now;
                let started = context.outbox.stopwatch.start();
                // C10: one step, whole or not at all (INV-13).
                match reattach(&mut self.record, binding, &self.policy, now) {
                    Ok(mut transitions) => {
                        self.record_grant(header, &request, context);
                        self.moved(arrival, received);
                        let detail = transitions.last_mut().and_then(|commit| {
                            let better = (request.cause == Cause::Quality).then_some(Reason::PreferredPathChanged);
                            commit.detail = commit.detail.or(better);
                            commit.detail
                        });
                        self.after_all(&transitions, context);
                        self.settle_records(context);
                        if !self.record.state().is_live() {
                            // A check failed: there is nothing to acknowledge any more.
                            return Err(Reason::InvariantViolation);
                        }
                        let Outbox { stopwatch, meter, .. } = context.outbox;
                        stopwatch.stop(started, &mut meter.commits);
                        self.acknowledge(header, digest, arrival, detail, context)
                    }
                    Err(refusal) => {
                        let reason = match refusal.0 {
                            Reason::SwitchRateLimited => Reason::SwitchRateLimited,
                            _ => Reason::AtomicityFailed,
                        };
                        Err(self.deny(header, digest, arrival, &request, reason.into(), context))
                    }
                }
            }
            Err(denied) => Err(self.deny(header, digest, arrival, &request, denied, context)),
        }
    }

    /// C05 (age) to C09. Nothing but the attempt bucket and the clock estimate moves here, and both only for what is
    /// authentic and fresh (RF-6).
    fn judge(
        &mut self,
        request: &ReattachRequest,
        arrival: &Arrival,
        context: &mut Context<'_>,
    ) -> Result<Verdict, Denied> {
        let now = context.now;
        self.check_age(request.client_time_ms, now)?;
        // C06
        if let Some(limit) = self.record.expired(&self.policy, now) {
            return Err(limit.into());
        }
        // What else is due comes before a request of the same instant (SM-03): a deadline, a path never validated.
        self.apply(&due(&self.record, &self.policy, now), context);
        if !self.record.state().is_live() || self.record.state() == State::Birth {
            return Err(Reason::InvalidStateForReattach.into());
        }
        // C07
        if request.binding_epoch < self.record.epoch() {
            return Err(Reason::StaleStateVersion.into());
        }
        if request.binding_epoch > self.record.epoch() {
            return Err(Reason::FutureStateVersion.into());
        }
        // C08
        let active = self.record.active().copied();
        let same_tuple = active.is_some_and(|binding| binding.tuple == arrival.tuple);
        let same_path = same_tuple && active.is_some_and(|binding| binding.transport == request.transport_id);
        // A request for another path that comes by this one, as a NAT or an attacker may have it, asks for a change.
        if self.record.state() == State::Attached && same_path {
            return Ok(Verdict::AlreadyBound);
        }
        self.attempts
            .take(self.policy.limits.reattach_per_session, now)
            .map_err(|retry_after| Denied { reason: Reason::RateLimited, retry_after })?;
        // SM-16: what may move inside the cooldown.
        let exempt = active.is_none_or(|binding| !binding.validated) || request.cause == Cause::HardDead || same_tuple;
        let cooldown = self.record.cooldown_left(now);
        if !exempt && cooldown > Span::ZERO {
            return Err(Denied { reason: Reason::CooldownActive, retry_after: cooldown });
        }
        if !self.record.switch_rate_free(&self.policy, now) {
            return Err(Denied { reason: Reason::SwitchRateLimited, retry_after: self.record.switch_rate_wait(now) });
        }
        // C09
        let peer = arrival.tuple.peer.ip();
        if request.protocol != UDP || request.transport_id == TransportId::NONE {
            return Err(Reason::InvalidTransportCandidate.into());
        }
        if !self.sources.allow(peer) {
            return Err(Reason::InvalidTransportCandidate.into());
        }
        if !arrival.tuple.is_plausible() || peer == arrival.tuple.local.ip() || context.pool.contains(peer) {
            return Err(Reason::InvalidTransportCandidate.into());
        }
        // PV-1
        self.standby.expire(self.policy.transport.candidate_ttl, now);
        let validated = self.standby.is_validated(request.transport_id, &arrival.tuple)
            || active.is_some_and(|binding| binding.validated && same_tuple);
        Ok(Verdict::Commit(NewBinding { tuple: arrival.tuple, transport: request.transport_id, validated }))
    }

    fn acknowledge(
        &mut self,
        header: &Header,
        digest: [u8; 16],
        arrival: &Arrival,
        detail: Option<Reason>,
        context: &mut Context<'_>,
    ) -> Result<(), Reason> {
        let ack = ReattachAck {
            nonce: header.counter,
            binding_epoch: self.record.epoch(),
            observed: arrival.tuple.peer,
            gateway_time_ms: self.session_ms(context.now),
            detail: detail.map_or(0, Reason::number),
            flags: 0,
            next_locator: ReservedZero,
        };
        let packet = self.seal_control(&ack);
        self.remember(header, digest, arrival, Some(packet.clone()));
        self.last.granted = Some(self.record.epoch());
        self.reply(arrival, packet, context)
    }

    /// Answers a refusal, and takes the step that RF-5 asks for.
    fn deny(
        &mut self,
        header: &Header,
        digest: [u8; 16],
        arrival: &Arrival,
        request: &ReattachRequest,
        denied: Denied,
        context: &mut Context<'_>,
    ) -> Reason {
        let Denied { reason, retry_after } = denied;
        self.record_denial(header, request, &arrival.tuple, (reason, retry_after), context);
        // RS-7: the epoch that the client lost, also while nothing is bound.
        let active = self.record.active().map_or(TransportId::NONE, |binding| binding.transport);
        let current = (reason == Reason::StaleStateVersion).then(|| (self.record.epoch(), active));
        let reject = ReattachReject {
            nonce: header.counter,
            reason,
            // Rounded up: a client that comes back then must not be too early.
            retry_after_ms: u32::try_from(retry_after.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX),
            gateway_time_ms: self.session_ms(context.now),
            current,
        };
        let packet = self.seal_control(&reject);
        self.remember(header, digest, arrival, Some(packet.clone()));
        if let Err(limit) = self.reply(arrival, packet, context) {
            self.settle_records(context);
            return limit;
        }
        self.emit(EventKind::Refused { message: header.kind, reason, tuple: arrival.tuple }, context);
        if let Some(input) = self.consequence(reason) {
            self.apply(&[input], context);
        }
        self.settle_records(context);
        reason
    }

    /// RF-5: final refusals brake a session that is already in trouble; a healthy one is left alone.
    fn consequence(&self, reason: Reason) -> Option<Input> {
        match (reason, self.record.state()) {
            (Reason::SwitchRateLimited, State::Volatile) => Some(Input::SwitchDeniedRate),
            (Reason::InvalidTransportCandidate, State::Recovering) => {
                Some(Input::ReattachDeniedAuth { reason, detail: reason })
            }
            (Reason::PolicyDenied | Reason::SwitchRateLimited, State::Recovering) => {
                Some(Input::ReattachDeniedAuth { reason: Reason::PolicyDenied, detail: reason })
            }
            _ => None,
        }
    }
}
