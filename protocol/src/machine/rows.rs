//! Every row of the table, walked once: from which state, by which input, to which state, for which reason, with which
//! detail.

use super::{Evidence, Input, NewBinding, Record, Side, Transition, TransitionId, step};
use crate::ident::{TransportId, Tuple};
use crate::policy::{OnRecoveryTimeout, Policy, Profile};
use crate::reason::Reason;
use crate::time::Time;

/// A gateway's or client's record with the policy and time that its steps are taken under.
struct Walk {
    record: Record,
    policy: Policy,
    now: Time,
}

impl Walk {
    /// Attached since time zero, by a validated binding on path 1.
    fn attached(side: Side) -> Self {
        let mut walk = Self::new(side);
        walk.take(Input::HandshakeComplete { binding: binding(1) }, TransitionId::T01, Reason::HandshakeOk);
        walk
    }

    fn new(side: Side) -> Self {
        Self { record: Record::new(side, Time::ZERO), policy: Policy::profile(Profile::Default), now: Time::ZERO }
    }

    /// VOLATILE for a quality trigger, its binding still there.
    fn volatile(side: Side) -> Self {
        let mut walk = Self::attached(side);
        let reason = Reason::LossThresholdExceeded;
        walk.take(Input::Instability { generation: 1, reason }, TransitionId::T03, reason);
        walk
    }

    fn recovering(side: Side) -> Self {
        let mut walk = Self::volatile(side);
        walk.take(Input::RecoveryStart { exempt: false }, TransitionId::T08, Reason::LossRecovery);
        walk
    }

    fn degraded(side: Side) -> Self {
        let mut walk = Self::volatile(side);
        walk.now = Time::ZERO + walk.policy.volatility.volatile_to_degraded;
        walk.take(Input::VolatileTimeout, TransitionId::T09, Reason::VolatilePersisted);
        walk
    }

    /// Takes a step, which must be that row, for that reason, from and to the states that the table names.
    fn take(&mut self, input: Input, id: TransitionId, reason: Reason) -> Transition {
        let before = self.record.clone();
        let (after, transition) = step(&before, &input, &self.policy, self.now).expect("listed, and its guard holds");
        let row = id.row();
        assert_eq!((transition.id, transition.reason), (id, reason));
        assert!(row.from.contains(&transition.from) && row.reasons.contains(&reason), "{id} is not its row");
        assert_eq!(transition.to, row.to.unwrap_or(before.state()));
        assert_eq!(after.version(), before.version() + 1, "INV-05");
        self.record = after;
        transition
    }
}

fn binding(path: u16) -> NewBinding {
    let peer = std::net::SocketAddr::from(([198, 51, 100, 7], 1_000 + path));
    let tuple = Tuple { local: std::net::SocketAddr::from(([192, 0, 2, 1], 51_900)), peer };
    NewBinding { tuple, transport: TransportId(path), validated: true }
}

/// T02
#[test]
fn a_handshake_that_was_refused_or_took_too_long_ends_the_record_with_the_cause_as_detail() {
    let mut refused = Walk::new(Side::Gateway);
    let failed = Input::HandshakeFailed { detail: Some(Reason::PeerUnknown) };
    let transition = refused.take(failed, TransitionId::T02, Reason::HandshakeFail);
    assert_eq!(transition.detail, Some(Reason::PeerUnknown));
    let mut late = Walk::new(Side::Gateway);
    late.now = Time::ZERO + late.policy.session.handshake_timeout;
    let transition = late.take(Input::HandshakeFailed { detail: None }, TransitionId::T02, Reason::HandshakeFail);
    assert_eq!(transition.detail, Some(Reason::HandshakeTimeout));
}

/// T04, T08, T16
#[test]
fn the_death_of_a_transport_takes_the_binding_and_never_ends_the_session() {
    let dead = Input::TransportDead { generation: 1, evidence: Evidence::LinkDown };
    let mut walk = Walk::attached(Side::Client);
    let transition = walk.take(dead, TransitionId::T04, Reason::TransportDead);
    assert!(transition.active.is_none() && transition.retired.is_some_and(|old| old.epoch == 1));
    walk.take(Input::RecoveryStart { exempt: false }, TransitionId::T08, Reason::DeadTransportRecovery);
    let mut lossy = Walk::volatile(Side::Client);
    lossy.take(Input::RecoveryStart { exempt: false }, TransitionId::T08, Reason::LossRecovery);
    for mut walk in [Walk::volatile(Side::Client), Walk::degraded(Side::Client), Walk::recovering(Side::Client)] {
        walk.take(dead, TransitionId::T16, Reason::TransportDead);
        assert!(walk.record.state().is_live() && walk.record.active().is_none(), "INV-19");
    }
}

/// T05, T06, T08b, T11, T15b
#[test]
fn whoever_asks_and_whoever_wants_it_moves_a_healthy_session_and_nothing_else_does() {
    let mut forced = Walk::attached(Side::Client);
    forced.take(Input::PolicyForceMove, TransitionId::T05, Reason::PolicyForcedRecovery);
    forced.take(Input::RecoveryStart { exempt: true }, TransitionId::T08, Reason::PolicyForcedRecovery);
    let granted = Input::ReattachValid { binding: binding(2), granted_epoch: Some(2) };
    forced.take(granted, TransitionId::T11, Reason::ReattachSuccess);
    let mut asked = Walk::attached(Side::Gateway);
    asked.take(Input::PeerReattach, TransitionId::T06, Reason::PeerReattach);
    asked.take(Input::PeerReattach, TransitionId::T08b, Reason::PeerReattach);
    let valid = Input::ReattachValid { binding: binding(2), granted_epoch: None };
    let transition = asked.take(valid, TransitionId::T11, Reason::ReattachSuccess);
    // INV-13: one step retires the old binding and activates the new one, with the next epoch (INV-06).
    assert_eq!((transition.retired.map(|old| old.epoch), transition.active.map(|new| new.epoch)), (Some(1), Some(2)));
    let mut degraded = Walk::degraded(Side::Gateway);
    let transition = degraded.take(Input::PeerReattach, TransitionId::T15b, Reason::PeerReattach);
    assert_eq!(transition.detail, Some(Reason::ExitDegradedMode));
}

/// T07, T15
#[test]
fn calm_heals_without_a_switch_and_the_brake_lets_go_after_its_hold() {
    let mut walk = Walk::volatile(Side::Client);
    walk.now = Time::ZERO + walk.policy.volatility.stability_window;
    let calm = Input::StabilityRestored { generation: 1, calm_since: Time::ZERO };
    walk.take(calm, TransitionId::T07, Reason::HealthRecovered);
    assert_eq!((walk.record.epoch(), walk.record.total_switches()), (1, 0));
    let mut walk = Walk::degraded(Side::Client);
    let start = Input::RecoveryStart { exempt: true };
    assert!(step(&walk.record, &start, &walk.policy, walk.now).is_err(), "SM-15: the hold");
    walk.now += walk.policy.switching.switch_cooldown;
    let transition = walk.take(start, TransitionId::T15, Reason::RecoveryRetry);
    assert_eq!(transition.detail, Some(Reason::ExitDegradedMode));
}

/// T10, T12, T12b, T13, T14
#[test]
fn what_was_refused_or_failed_leads_into_the_brake_or_to_the_end_that_the_policy_names() {
    let mut limited = Walk::volatile(Side::Client);
    limited.policy.switching.max_switches_per_min = 0;
    limited.take(Input::SwitchDeniedRate, TransitionId::T10, Reason::SwitchRateLimited);
    let deadline = |walk: &Walk| walk.now + walk.policy.switching.recovery_window;
    let mut late = Walk::recovering(Side::Client);
    assert!(step(&late.record, &Input::RecoveryTimeout, &late.policy, late.now).is_err(), "INV-16: not before");
    late.now = deadline(&late);
    late.take(Input::RecoveryTimeout, TransitionId::T12, Reason::RecoveryBoundsExceeded);
    let mut last = Walk::recovering(Side::Client);
    last.policy.switching.on_recovery_timeout = OnRecoveryTimeout::Terminate;
    last.now = deadline(&last);
    last.take(Input::RecoveryTimeout, TransitionId::T12b, Reason::RecoveryBoundsExceeded);
    for reason in [Reason::PolicyDenied, Reason::InvalidTransportCandidate, Reason::ReattachValidationFailed] {
        let mut denied = Walk::recovering(Side::Client);
        let input = Input::ReattachDeniedAuth { reason, detail: Reason::FutureStateVersion };
        let transition = denied.take(input, TransitionId::T13, reason);
        assert_eq!(transition.detail, Some(Reason::FutureStateVersion));
    }
    for reason in [Reason::NoCandidateTransports, Reason::ReattachValidationFailed] {
        let mut exhausted = Walk::recovering(Side::Client);
        exhausted.take(Input::AttemptsExhausted { reason }, TransitionId::T14, reason);
    }
}

/// T17, T18, T19, T20, T21, T22, T23, T24, T25
#[test]
fn every_end_is_final_keeps_no_binding_and_says_why() {
    let lost = |detail| Input::PeerTerminate { detail };
    let flaw = |reason| Input::InvariantViolation { reason };
    let ends = [
        (Input::SessionTtl, TransitionId::T17, Reason::TtlSessionExpired),
        (Input::OperatorTerminate, TransitionId::T19, Reason::OperatorTerminated),
        (Input::SecurityFailure, TransitionId::T20, Reason::SecurityFailure),
        (Input::OwnershipConflict, TransitionId::T21, Reason::OwnershipConflict),
        (Input::PolicyHardLimit { admitted: false }, TransitionId::T22, Reason::PolicyTermination),
        (flaw(Reason::InvariantViolation), TransitionId::T23, Reason::InvariantViolation),
        (flaw(Reason::FatalProtocolError), TransitionId::T23, Reason::FatalProtocolError),
        (lost(Some(Reason::SessionLost)), TransitionId::T24, Reason::PeerTerminated),
        (lost(Some(Reason::SessionReplaced)), TransitionId::T24, Reason::PeerTerminated),
        (Input::KeyExpired, TransitionId::T25, Reason::KeyExpired),
    ];
    for (input, id, reason) in ends {
        let mut walk = Walk::attached(Side::Gateway);
        walk.now = Time::ZERO + walk.policy.session.max_lifetime;
        let transition = walk.take(input, id, reason);
        assert!(transition.active.is_none() && transition.retired.is_some(), "INV-02");
        // INV-10: nothing leads out, and a refusal changes nothing (INV-14).
        let again = step(&walk.record, &Input::PeerReattach, &walk.policy, walk.now);
        assert_eq!(again.map_err(|refusal| refusal.0).err(), Some(Reason::InvalidStateTransition));
    }
    let mut walk = Walk::volatile(Side::Gateway);
    let dead = Input::TransportDead { generation: 1, evidence: Evidence::Silence };
    walk.take(dead, TransitionId::T16, Reason::TransportDead);
    walk.now = Time::ZERO + walk.policy.session.transport_lost_ttl;
    walk.take(Input::TransportTtl, TransitionId::T18, Reason::TtlTransportLossExpired);
}

/// INV-15, SM-16: the refusals of a start say which of the two bounds was in the way.
#[test]
fn a_start_inside_the_cooldown_or_beyond_the_rate_is_refused_with_that_reason() {
    let mut walk = Walk::recovering(Side::Client);
    let granted = Input::ReattachValid { binding: binding(2), granted_epoch: Some(2) };
    walk.take(granted, TransitionId::T11, Reason::ReattachSuccess);
    let reason = Reason::LossThresholdExceeded;
    walk.take(Input::Instability { generation: 2, reason }, TransitionId::T03, reason);
    let refusal = |walk: &Walk, exempt| {
        step(&walk.record, &Input::RecoveryStart { exempt }, &walk.policy, walk.now).map_err(|refusal| refusal.0).err()
    };
    assert_eq!(refusal(&walk, false), Some(Reason::CooldownActive));
    assert_eq!(refusal(&walk, true), None);
    walk.policy.switching.max_switches_per_min = 1;
    assert_eq!(refusal(&walk, true), Some(Reason::SwitchRateLimited));
}

/// SM-10, INV-32: what is about an older generation is refused for its guard, and not as a pair that does not exist.
#[test]
fn evidence_about_another_generation_is_refused_by_its_guard() {
    let walk = Walk::attached(Side::Client);
    let dead = Input::TransportDead { generation: 0, evidence: Evidence::Silence };
    let refusal = step(&walk.record, &dead, &walk.policy, walk.now).map_err(|refusal| refusal.0).err();
    assert_eq!(refusal, Some(Reason::InternalError));
}
