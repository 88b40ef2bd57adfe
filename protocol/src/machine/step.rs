//! One input, one transition or one refusal (SM-01).

use super::record::{Binding, Record, Retiring};
use super::run::{Refusal, Transition};
use super::{Evidence, Input, NewBinding, Side, State, TransitionId};
use crate::policy::{OnRecoveryTimeout, Policy};
use crate::reason::Reason;
use crate::time::{Span, Time};

/// The session machine: applies `input` to `record` under `policy` at `now`.
///
/// Gives the transition together with the record after it, or a refusal. It never changes its arguments, never
/// panics, and equal arguments give equal results (SM-01, INV-09).
///
/// # Errors
/// INVALID_STATE_TRANSITION if the pair (state, input) is not in the table (SM-05); another code if it is, but its
/// guard does not hold.
pub fn step(record: &Record, input: &Input, policy: &Policy, now: Time) -> Result<(Record, Transition), Refusal> {
    if !record.state.is_live() {
        return Err(Refusal::INVALID);
    }
    // SM-19: neither counter ever wraps. The transition out still gets the last version.
    let exhausted = record.version >= u64::MAX - 1 || record.epoch == u64::MAX;
    if exhausted && !matches!(input, Input::InvariantViolation { .. }) {
        return step(record, &Input::InvariantViolation { reason: Reason::InvariantViolation }, policy, now);
    }
    let gateway = record.side == Side::Gateway;
    let mut next = Draft::new(record, policy, now);
    match (record.state, *input) {
        (_, Input::SessionTtl) => {
            guard(record.is_over_age(policy, now))?;
            next.end(TransitionId::T17, Reason::TtlSessionExpired)
        }
        (_, Input::OwnershipConflict) if gateway => next.end(TransitionId::T21, Reason::OwnershipConflict),
        (_, Input::InvariantViolation { reason }) => {
            let fatal = reason == Reason::FatalProtocolError;
            next.end(TransitionId::T23, if fatal { reason } else { Reason::InvariantViolation })
        }
        (_, Input::SecurityFailure) => next.end(TransitionId::T20, Reason::SecurityFailure),
        (_, Input::OperatorTerminate) => next.end(TransitionId::T19, Reason::OperatorTerminated),
        (_, Input::PeerTerminate { detail }) => {
            next.detail = detail;
            next.end(TransitionId::T24, Reason::PeerTerminated)
        }
        (_, Input::KeyExpired) => next.end(TransitionId::T25, Reason::KeyExpired),
        (_, Input::PolicyHardLimit { admitted }) if gateway => {
            guard(!admitted || record.is_degraded_too_long(now))?;
            next.end(TransitionId::T22, Reason::PolicyTermination)
        }
        (State::Volatile | State::Degraded | State::Recovering, Input::TransportTtl) => {
            guard(record.is_transportless_too_long(now))?;
            next.end(TransitionId::T18, Reason::TtlTransportLossExpired)
        }
        (State::Birth, Input::HandshakeFailed { detail }) => {
            guard(detail.is_some() || now.since(record.created) >= policy.session.handshake_timeout)?;
            next.detail = Some(detail.unwrap_or(Reason::HandshakeTimeout));
            next.end(TransitionId::T02, Reason::HandshakeFail)
        }
        (State::Birth, Input::HandshakeComplete { binding }) => {
            next.record.attached = now;
            next.record.bounds.lifetime = policy.session.max_lifetime;
            next.record.mark_rekeyed(policy, now);
            next.bind(binding, 1);
            next.to(TransitionId::T01, State::Attached, Reason::HandshakeOk)
        }
        (State::Attached, Input::Instability { generation, reason }) => {
            guard(is_instability(reason) && is_active(record, generation))?;
            next.record.trigger = Some(reason);
            next.to(TransitionId::T03, State::Volatile, reason)
        }
        (State::Attached, Input::TransportDead { generation, evidence }) => {
            guard(is_active(record, generation))?;
            next.lose(evidence);
            next.to(TransitionId::T04, State::Volatile, Reason::TransportDead)
        }
        (State::Attached, Input::PolicyForceMove) => {
            next.record.trigger = Some(Reason::PolicyForcedRecovery);
            next.to(TransitionId::T05, State::Volatile, Reason::PolicyForcedRecovery)
        }
        (State::Attached, Input::PeerReattach) if gateway => {
            next.record.trigger = Some(Reason::PeerReattach);
            next.to(TransitionId::T06, State::Volatile, Reason::PeerReattach)
        }
        (State::Volatile, Input::StabilityRestored { generation, calm_since }) => {
            guard(is_active(record, generation) && now.since(calm_since) >= policy.volatility.stability_window)?;
            next.record.trigger = None;
            next.to(TransitionId::T07, State::Attached, Reason::HealthRecovered)
        }
        (State::Volatile, Input::RecoveryStart { exempt }) => {
            may_switch(record, exempt, policy, now)?;
            next.start();
            next.to(TransitionId::T08, State::Recovering, start_reason(record))
        }
        (State::Volatile, Input::PeerReattach) if gateway => {
            next.start();
            next.to(TransitionId::T08b, State::Recovering, Reason::PeerReattach)
        }
        (State::Volatile, Input::VolatileTimeout) => {
            guard(record.is_volatile_too_long(now))?;
            next.to(TransitionId::T09, State::Degraded, Reason::VolatilePersisted)
        }
        (State::Volatile, Input::SwitchDeniedRate) => {
            guard(!record.switch_rate_free(policy, now))?;
            next.to(TransitionId::T10, State::Degraded, Reason::SwitchRateLimited)
        }
        (State::Recovering, Input::ReattachValid { binding, granted_epoch }) => {
            let epoch = match record.side {
                // The mirror follows what the gateway granted; it never goes back (RS-7).
                Side::Client => granted_epoch.filter(|epoch| *epoch >= record.epoch).ok_or(Refusal::GUARD)?,
                Side::Gateway => {
                    // INV-15: the last look before the commit, whatever was checked before.
                    if !record.switch_rate_free(policy, now) {
                        return Err(Refusal(Reason::SwitchRateLimited));
                    }
                    record.epoch + 1
                }
            };
            next.commit(binding, epoch);
            next.to(TransitionId::T11, State::Attached, Reason::ReattachSuccess)
        }
        (State::Recovering, Input::RecoveryTimeout) => {
            guard(now >= record.deadline)?;
            match policy.switching.on_recovery_timeout {
                OnRecoveryTimeout::Degrade => {
                    next.to(TransitionId::T12, State::Degraded, Reason::RecoveryBoundsExceeded)
                }
                OnRecoveryTimeout::Terminate => next.end(TransitionId::T12b, Reason::RecoveryBoundsExceeded),
            }
        }
        (State::Recovering, Input::ReattachDeniedAuth { reason, detail }) => {
            guard(TransitionId::T13.row().reasons.contains(&reason))?;
            next.detail = Some(detail);
            next.to(TransitionId::T13, State::Degraded, reason)
        }
        (State::Recovering, Input::AttemptsExhausted { reason }) => {
            guard(TransitionId::T14.row().reasons.contains(&reason))?;
            next.to(TransitionId::T14, State::Degraded, reason)
        }
        (State::Degraded, Input::RecoveryStart { exempt }) => {
            // SM-15: the brake holds also if the path is dead.
            guard(now.since(record.entered) >= record.bounds.brake)?;
            may_switch(record, exempt, policy, now)?;
            next.start();
            next.detail = Some(Reason::ExitDegradedMode);
            next.to(TransitionId::T15, State::Recovering, Reason::RecoveryRetry)
        }
        (State::Degraded, Input::PeerReattach) if gateway => {
            next.start();
            next.detail = Some(Reason::ExitDegradedMode);
            next.to(TransitionId::T15b, State::Recovering, Reason::PeerReattach)
        }
        (State::Volatile | State::Degraded | State::Recovering, Input::TransportDead { generation, evidence }) => {
            guard(is_active(record, generation))?;
            next.lose(evidence);
            next.to(TransitionId::T16, record.state, Reason::TransportDead)
        }
        _ => Err(Refusal::INVALID),
    }
}

/// The record after the transition, while it is being put together.
struct Draft<'a> {
    record: Record,
    policy: &'a Policy,
    from: State,
    now: Time,
    retired: Option<Binding>,
    evidence: Option<Evidence>,
    detail: Option<Reason>,
}

impl<'a> Draft<'a> {
    fn new(record: &Record, policy: &'a Policy, now: Time) -> Self {
        Self { record: record.clone(), policy, from: record.state, now, retired: None, evidence: None, detail: None }
    }

    /// Takes the session to `state` (SM-02: the only place that writes state and version).
    fn to(mut self, id: TransitionId, state: State, reason: Reason) -> Result<(Record, Transition), Refusal> {
        if state != self.from {
            self.record.entered = self.now;
            self.record.bounds.stay = match state {
                State::Volatile => self.policy.volatility.volatile_to_degraded,
                State::Degraded => self.policy.session.max_degraded,
                _ => Span::ZERO,
            };
            self.record.bounds.brake = self.policy.switching.switch_cooldown;
        }
        if state != State::Recovering {
            self.record.deadline = Time::NEVER;
        }
        if state != State::Attached {
            self.record.probation_until = None;
        }
        self.record.state = state;
        self.record.version += 1;
        let transition = Transition {
            id,
            from: self.from,
            to: state,
            reason,
            detail: self.detail,
            evidence: self.evidence,
            version: self.record.version,
            epoch: self.record.epoch,
            at: self.now,
            retired: self.retired,
            active: self.record.active,
        };
        Ok((self.record, transition))
    }

    /// Takes the session to TERMINATED: no binding of any kind is left (INV-10).
    fn end(mut self, id: TransitionId, reason: Reason) -> Result<(Record, Transition), Refusal> {
        self.retired = self.record.active.take();
        self.record.retiring = None;
        self.record.transportless_since = None;
        self.to(id, State::Terminated, reason)
    }

    fn start(&mut self) {
        self.record.deadline = self.now + self.policy.switching.recovery_window;
        self.record.attempts = 0;
    }

    fn lose(&mut self, evidence: Evidence) {
        self.retired = self.record.active.take();
        self.evidence = Some(evidence);
        self.record.trigger = Some(Reason::TransportDead);
        self.record.transportless_since = Some(self.now);
        self.record.bounds.transportless = self.policy.session.transport_lost_ttl;
    }

    fn bind(&mut self, new: NewBinding, epoch: u64) {
        self.record.epoch = epoch;
        self.record.active = Some(Binding {
            tuple: new.tuple,
            transport: new.transport,
            epoch,
            validated: new.validated,
            committed_at: self.now,
        });
        self.record.bounds.validation = self.policy.switching.path_validation;
        self.record.transportless_since = None;
        self.record.trigger = None;
    }

    /// The commit of T11: retire the old binding and activate the new one in one step (INV-13, RS-3).
    fn commit(&mut self, new: NewBinding, epoch: u64) {
        let policy = self.policy;
        self.retired = self.record.active.take();
        let drain = policy.switching.old_path_drain;
        // PV-5: an unvalidated binding never becomes retiring. INV-34: at most one retires.
        self.record.retiring = self
            .retired
            .filter(|old| old.validated && drain > Span::ZERO)
            .map(|binding| Retiring { binding, until: self.now + drain });
        self.detail = self.retired.and_then(|old| {
            // The mirror of the client sees the same tuple on all of its paths: only the number tells them apart.
            match (old.transport == new.transport, old.tuple == new.tuple) {
                (true, true) => Some(Reason::SamePathReproved),
                (true, false) => Some(Reason::NatRebindDetected),
                (false, _) => None,
            }
        });
        self.bind(new, epoch);
        self.record.last_commit = Some(self.now);
        self.record.bounds.cooldown = policy.switching.switch_cooldown;
        self.record.total_switches += 1;
        let now = self.now;
        self.record.commits.retain(|at| now.since(*at) < super::SWITCH_WINDOW);
        if self.record.commits.len() >= super::MAX_SWITCHES_IN_WINDOW {
            self.record.commits.remove(0);
        }
        self.record.commits.push(now);
        self.record.probation_until = Some(now + policy.volatility.stability_window);
    }
}

fn guard(holds: bool) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(Refusal::GUARD) }
}

fn is_active(record: &Record, generation: u64) -> bool {
    record.active.is_some_and(|binding| binding.epoch == generation)
}

fn is_instability(reason: Reason) -> bool {
    TransitionId::T03.row().reasons.contains(&reason)
}

/// Switch rate and cooldown (SM-16); a cooldown is over at elapsed >= cooldown (SM-07).
fn may_switch(record: &Record, exempt: bool, policy: &Policy, now: Time) -> Result<(), Refusal> {
    if !record.switch_rate_free(policy, now) {
        return Err(Refusal(Reason::SwitchRateLimited));
    }
    let exempt = exempt || record.active.is_none();
    if !exempt && record.cooldown_left(now) > Span::ZERO {
        return Err(Refusal(Reason::CooldownActive));
    }
    Ok(())
}

fn start_reason(record: &Record) -> Reason {
    if record.active.is_none() {
        return Reason::DeadTransportRecovery;
    }
    match record.trigger {
        Some(Reason::PolicyForcedRecovery) => Reason::PolicyForcedRecovery,
        _ => Reason::LossRecovery,
    }
}
