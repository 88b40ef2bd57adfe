//! One transition on its way into the journal: SessionStateChange first, then what explains it (order of the catalogue).

use super::checks::Checks;
use super::journal::Journal;
use super::outer::Outer;
use super::trail::{Answer, Recovery, Scene, Timeline, Trail};
use super::value::{
    Always, Check, CheckResult, CompromiseEvidence, KeyTrigger, Measured, ParameterKey, Permille, PolicyAction, Proto,
    Threshold, Trigger,
};
use super::{Event, PolicyHash, millis};
use crate::machine::{self, State, Transition, TransitionId};
use crate::policy::Policy;
use crate::reason::Reason;
use crate::time::{Span, Time};
use crate::wire::Cause;

/// Number of `session.max_degraded_ms` (PP14).
const MAX_DEGRADED: u16 = 14;

/// One transition on its way into the journal.
pub(super) struct Page<'a> {
    pub(super) trail: &'a mut Trail,
    pub(super) journal: &'a mut Journal,
    pub(super) transition: &'a Transition,
    pub(super) scene: &'a Scene<'a>,
    pub(super) checks: Option<Checks>,
}

impl Page<'_> {
    /// All records of the transition.
    pub(super) fn fill(&mut self, peer: Option<Outer>) {
        self.state_change();
        match self.transition.id {
            TransitionId::T01 => self.attached(peer),
            TransitionId::T03 => self.volatility_signal(),
            TransitionId::T04 | TransitionId::T16 => self.transport_dead(),
            TransitionId::T08 | TransitionId::T08b | TransitionId::T15 | TransitionId::T15b => self.recovery_opened(),
            TransitionId::T10 | TransitionId::T13 => self.denied(),
            TransitionId::T11 => self.switched(peer),
            TransitionId::T12 | TransitionId::T14 => self.failed(),
            TransitionId::T05 | TransitionId::T06 | TransitionId::T07 | TransitionId::T09 => {}
            TransitionId::T02
            | TransitionId::T12b
            | TransitionId::T17
            | TransitionId::T18
            | TransitionId::T19
            | TransitionId::T20
            | TransitionId::T21
            | TransitionId::T22
            | TransitionId::T23
            | TransitionId::T24
            | TransitionId::T25 => self.ended(),
        }
    }

    fn state_change(&mut self) {
        let transition = self.transition;
        self.write(
            (Some(transition.reason), transition.detail),
            Event::SessionStateChange {
                transition: transition.id,
                previous_state: transition.from,
                new_state: transition.to,
                active_transport: transition.active.map(|binding| binding.transport),
                candidate_count: self.candidates(),
                trigger_event: Trigger::of(transition.id),
            },
        );
    }

    fn attached(&mut self, peer: Option<Outer>) {
        if let (Some(active), Some(peer)) = (self.transition.active, peer) {
            self.trail.last_transport = Some(active.transport);
            let event = Event::TransportAttached { new_transport: active.transport, proto: Proto::Udp, peer };
            self.write((None, None), event);
        }
    }

    fn volatility_signal(&mut self) {
        let (policy, reason) = (self.scene.policy, self.transition.reason);
        let Some(measured) = self.scene.measured else { return };
        let volatility = &policy.volatility;
        let threshold = match reason {
            Reason::LossThresholdExceeded => Threshold::Ratio(permille(volatility.loss_volatile_threshold)),
            Reason::ConsecutiveDropExceeded => Threshold::Count(volatility.max_consecutive_drops),
            Reason::LatencyThresholdExceeded => Threshold::Millis(millis(volatility.latency_volatile_threshold)),
            Reason::JitterThresholdExceeded => Threshold::Millis(millis(volatility.jitter_threshold)),
            _ => Threshold::Millis(millis(volatility.heartbeat_volatile)),
        };
        let event = Event::VolatilitySignal {
            loss_ratio: Some(permille(measured.loss_permille)),
            drops: narrow(measured.drops),
            hb_age_ms: millis(measured.heartbeat_age),
            latency_ms: measured.latency.map(millis),
            jitter_ms: measured.jitter.map(millis),
            threshold,
            window_samples: Some(narrow(measured.samples)),
        };
        self.write((Some(reason), None), event);
    }

    fn transport_dead(&mut self) {
        let (Some(dead), Some(evidence)) = (self.transition.retired, self.transition.evidence) else {
            return;
        };
        let last_delivery_age_ms = millis(self.transition.at.since(self.scene.last_authentic));
        let event = Event::TransportDead { transport: dead.transport, evidence, last_delivery_age_ms };
        self.write((Some(Reason::TransportDead), None), event);
        let event = Event::TransportRetired { transport: dead.transport, late_packets: Some(0) };
        self.write((None, None), event);
    }

    fn recovery_opened(&mut self) {
        self.trail.recovery = Some(Recovery::default());
        if let Some(request) = self.trail.request.take() {
            let left = self.scene.policy.switching.recovery_window;
            self.trail.attempt(request, Some(left), self.transition.at, self.journal);
        }
    }

    /// T10, T13: what the answer says, and the limit that it met.
    fn denied(&mut self) {
        let answer = self.answer();
        let reason = answer.and_then(|answer| answer.refusal).unwrap_or(self.transition.reason);
        self.trail.recovery = None;
        let event = denial(reason, answer.as_ref(), self.scene.policy, self.scene.record, self.transition.at);
        self.write((Some(self.transition.reason), self.transition.detail), event);
    }

    /// T12, T14, and ends: without commit, and not by policy.
    fn failed(&mut self) {
        self.answer();
        if let Some(Recovery { attempts, last_error }) = self.trail.recovery.take() {
            let event = Event::TransportSwitchFailed { attempts, last_error };
            self.write((Some(self.transition.reason), self.transition.detail), event);
        }
    }

    fn switched(&mut self, peer: Option<Outer>) {
        let (transition, scene, at) = (self.transition, self.scene, self.transition.at);
        let answer = self.answer();
        let attempts = self.trail.recovery.take().map_or(0, |recovery| recovery.attempts);
        let (Some(active), Some(peer)) = (transition.active, peer) else { return };
        let (detected, switched) =
            (self.trail.left_attached.since(self.trail.heard_before), at.since(self.trail.left_attached));
        let event = Event::TransportSwitch {
            previous_transport: transition.retired.map(|binding| binding.transport),
            new_transport: active.transport,
            same_path: self.trail.last_transport == Some(active.transport),
            cause: answer.map_or(Cause::Quality, |answer| answer.cause),
            candidate_count: self.candidates(),
            loss_ratio: scene.new_path.0,
            latency_ms: scene.new_path.1.map(millis),
            switch_latency_us: switched.as_micros(),
            explicit: Always,
            peer,
        };
        self.trail.last_transport = Some(active.transport);
        let detail = transition.detail.or(answer.and_then(|answer| answer.detail));
        self.write((Some(Reason::ReattachSuccess), detail), event);
        if let Some(old) = transition.retired {
            let drains = scene.record.retiring(at).is_some_and(|retiring| retiring.epoch == old.epoch);
            let late_packets = if drains { None } else { Some(0) };
            self.trail.draining = drains.then(|| (old.transport, at + scene.policy.switching.old_path_drain));
            self.write((None, None), Event::TransportRetired { transport: old.transport, late_packets });
        }
        self.trail.timeline = Some(Timeline { detected, switched, attempts });
        if let Some(checks) = self.checks {
            self.check(Check::NoDualActiveBinding, Reason::AuditInvariantOkSingleActive, checks.single_binding);
            self.check(Check::NoIdentityReset, Reason::AuditInvariantOkNoReset, checks.same_identity);
        }
    }

    fn check(&mut self, check: Check, ok: Reason, holds: bool) {
        let (reason, result) =
            if holds { (ok, CheckResult::Pass) } else { (Reason::InvariantViolation, CheckResult::Fail) };
        self.write((Some(reason), None), Event::AuditCheck { check, result });
    }

    fn ended(&mut self) {
        match self.transition.id {
            TransitionId::T20 => {
                let evidence =
                    if self.trail.flagged { CompromiseEvidence::OperatorFlag } else { CompromiseEvidence::ProvenClone };
                let event = Event::SecurityKeyCompromiseSuspected { evidence };
                self.write((Some(Reason::KeyCompromiseSuspected), None), event);
            }
            TransitionId::T22 => self.hard_limit(),
            TransitionId::T25 => {
                let trigger = if self.scene.keys_used_up { KeyTrigger::Volume } else { KeyTrigger::TimeElapsed };
                let event = Event::KeyExpired { key_generation: self.scene.key_epoch, trigger };
                self.write((Some(Reason::KeyExpired), None), event);
            }
            _ => {}
        }
        self.failed();
    }

    /// T22: DEGRADED for too long, or the client is not admitted any more.
    fn hard_limit(&mut self) {
        let (policy, transition) = (self.scene.policy, self.transition);
        let stay = transition.at.since(self.trail.entered);
        let limit = policy.session.max_degraded;
        let too_long = transition.from == State::Degraded && limit > Span::ZERO && stay >= limit;
        let measured = |span: Span| too_long.then(|| Measured::new(span.as_millis()));
        let event = Event::PolicyEvent {
            action: PolicyAction::LimitTriggered,
            policy_name: policy.profile,
            parameter: if too_long { ParameterKey::new(MAX_DEGRADED) } else { None },
            threshold_value: measured(limit),
            observed_value: measured(stay),
            policy_hash: PolicyHash::of(policy),
            bounds: None,
        };
        self.write((Some(Reason::AuditPolicyLimitTriggered), Some(transition.reason)), event);
    }

    /// The answer that led here, written as the result of its attempt.
    fn answer(&mut self) -> Option<Answer> {
        let answer = self.trail.answer.take()?;
        self.trail.result(&answer, self.trail.last, self.transition.at, self.journal);
        Some(answer)
    }

    fn candidates(&self) -> u8 {
        u8::try_from(self.scene.candidates).unwrap_or(u8::MAX)
    }

    fn write(&mut self, reasons: (Option<Reason>, Option<Reason>), event: Event) {
        self.trail.put(self.journal, self.transition.at, self.trail.last, reasons, event);
    }
}

/// Whether a refusal is policy's, and not that of a request which did not fit.
pub(super) const fn is_policy_refusal(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::PolicyDenied
            | Reason::SwitchRateLimited
            | Reason::CooldownActive
            | Reason::RateLimited
            | Reason::InvalidTransportCandidate
    )
}

/// TransportSwitchDenied with the limit that was met and what was observed (AF-5).
pub(super) fn denial(
    reason: Reason,
    answer: Option<&Answer>,
    policy: &Policy,
    record: &machine::Record,
    now: Time,
) -> Event {
    let (limit, observed) = match reason {
        Reason::SwitchRateLimited => {
            let commits = u32::try_from(record.commits_in_window(now)).unwrap_or(u32::MAX);
            (Some(u32::from(policy.switching.max_switches_per_min)), Some(commits))
        }
        Reason::CooldownActive => {
            let since = record.last_commit().map_or(Span::ZERO, |at| now.since(at));
            (Some(millis(policy.switching.switch_cooldown)), Some(millis(since)))
        }
        _ => (None, None),
    };
    let own_wait = (reason == Reason::SwitchRateLimited).then(|| record.switch_rate_wait(now));
    let retry_after = answer.and_then(|answer| answer.retry_after).or(own_wait);
    Event::TransportSwitchDenied {
        candidate_transport: answer.map(|answer| answer.candidate),
        limit,
        observed,
        retry_after_ms: retry_after.map(millis),
    }
}

/// Saturating.
fn narrow(number: impl TryInto<u16>) -> u16 {
    number.try_into().unwrap_or(u16::MAX)
}

fn permille(permille: u32) -> Permille {
    Permille(narrow(permille))
}
