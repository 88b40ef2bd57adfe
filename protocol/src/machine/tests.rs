//! The table and the function, held together; priorities, edges and the chain.

use proptest::prelude::*;

use super::*;
use crate::ident::{TransportId, Tuple};
use crate::policy::{Policy, Profile};
use crate::reason::Reason;
use crate::time::{Span, Time};

fn policy() -> Policy {
    Policy::profile(Profile::Default)
}

fn ms(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn binding(id: u16, validated: bool) -> NewBinding {
    let peer = format!("198.51.100.7:{}", 1_000 + id).parse().unwrap();
    NewBinding {
        tuple: Tuple { local: "192.0.2.1:51900".parse().unwrap(), peer },
        transport: TransportId(id),
        validated,
    }
}

fn advance(record: &mut Record, input: Input, now: Time) -> Transition {
    let (after, transition) = step(record, &input, &policy(), now).unwrap();
    *record = after;
    transition
}

/// A record in that state with an active binding where the state can have one, entered at `now`.
fn record_in(state: State, side: Side, now: Time) -> Record {
    let mut record = Record::new(side, now);
    if state == State::Birth {
        return record;
    }
    advance(&mut record, Input::HandshakeComplete { binding: binding(1, true) }, now);
    if state == State::Attached {
        return record;
    }
    if state == State::Terminated {
        advance(&mut record, Input::OperatorTerminate, now);
        return record;
    }
    advance(&mut record, Input::Instability { generation: 1, reason: Reason::HeartbeatTimeout }, now);
    match state {
        State::Degraded => {
            let later = now + policy().volatility.volatile_to_degraded;
            advance(&mut record, Input::VolatileTimeout, later);
        }
        State::Recovering => {
            advance(&mut record, Input::RecoveryStart { exempt: false }, now);
        }
        _ => {}
    }
    record
}

/// One input of each kind whose guard holds for a record of [`record_in`] at the far end of every limit.
fn inputs(record: &Record) -> Vec<Input> {
    let generation = record.epoch();
    vec![
        Input::SessionTtl,
        Input::OwnershipConflict,
        Input::InvariantViolation { reason: Reason::InvariantViolation },
        Input::SecurityFailure,
        Input::OperatorTerminate,
        Input::PeerTerminate { detail: None },
        Input::KeyExpired,
        Input::PolicyHardLimit { admitted: false },
        Input::TransportTtl,
        Input::HandshakeFailed { detail: Some(Reason::PeerUnknown) },
        Input::HandshakeComplete { binding: binding(2, true) },
        Input::RecoveryTimeout,
        Input::ReattachValid { binding: binding(2, true), granted_epoch: Some(record.epoch() + 1) },
        Input::PeerReattach,
        Input::ReattachDeniedAuth { reason: Reason::PolicyDenied, detail: Reason::PolicyDenied },
        Input::AttemptsExhausted { reason: Reason::NoCandidateTransports },
        Input::TransportDead { generation, evidence: Evidence::Silence },
        Input::PolicyForceMove,
        Input::SwitchDeniedRate,
        Input::VolatileTimeout,
        Input::Instability { generation, reason: Reason::LossThresholdExceeded },
        Input::RecoveryStart { exempt: true },
        Input::StabilityRestored { generation, calm_since: Time::ZERO },
    ]
}

/// Far beyond every limit of the profile.
const LATE: Time = Time::from_millis(1_000_000_000);

#[test]
fn i11_every_listed_pair_gives_its_row_and_every_unlisted_one_is_refused_without_mutation() {
    for side in [Side::Gateway, Side::Client] {
        for state in State::ALL {
            let mut record = record_in(state, side, ms(10));
            if matches!(state, State::Volatile | State::Degraded | State::Recovering) {
                // Both need an object: a lost binding for T18, a full minute for T10.
                record.transportless_since = Some(ms(10));
            }
            for input in inputs(&record) {
                let mut record = record.clone();
                if matches!(input, Input::SwitchDeniedRate) {
                    record.commits.extend((0..60).map(|_| LATE));
                }
                let before = record.clone();
                let rows: Vec<_> = TABLE
                    .iter()
                    .filter(|row| row.from.contains(&state) && row.input_priority == input.priority())
                    .filter(|row| row.side == table::RowSide::Both || side == Side::Gateway)
                    .collect();
                let result = step(&record, &input, &policy(), LATE);
                assert_eq!(record, before, "step never changes its argument");
                match result {
                    Ok((after, transition)) => {
                        let row = transition.id.row();
                        assert!(rows.iter().any(|listed| listed.id == row.id), "{state} {}: {}", input.name(), row.id);
                        assert_eq!(transition.to, row.to.unwrap_or(state));
                        assert!(row.reasons.contains(&transition.reason), "{}: {}", row.id, transition.reason);
                        assert_eq!(after.version(), before.version() + 1, "INV-05");
                    }
                    Err(refusal) => {
                        assert!(rows.is_empty(), "{state} {} is listed but refused: {refusal:?}", input.name());
                        assert_eq!(refusal, Refusal(Reason::InvalidStateTransition));
                    }
                }
            }
        }
    }
}

#[test]
fn every_row_of_the_table_stands_at_the_place_of_its_id() {
    for (index, row) in TABLE.iter().enumerate() {
        assert_eq!(row.id as usize, index);
    }
}

#[test]
fn i16_the_order_of_simultaneous_inputs_does_not_matter() {
    for state in State::ALL {
        let record = record_in(state, Side::Gateway, ms(10));
        let all = inputs(&record);
        for first in &all {
            for second in &all {
                let (mut one, mut other) = (record.clone(), record.clone());
                let transitions = run(&mut one, &[*first, *second], &policy(), LATE);
                assert_eq!(transitions, run(&mut other, &[*second, *first], &policy(), LATE));
                assert_eq!(one, other);
            }
        }
    }
}

#[test]
fn tc29_at_the_same_time_a_limit_beats_a_valid_reattach() {
    let mut record = record_in(State::Recovering, Side::Gateway, ms(0));
    let dead = Input::TransportDead { generation: 1, evidence: Evidence::Silence };
    advance(&mut record, dead, ms(0));
    let limit = Time::ZERO + policy().session.transport_lost_ttl;
    let mut inputs: Vec<_> = due(&record, &policy(), limit).into_iter().collect();
    inputs.push(Input::ReattachValid { binding: binding(2, true), granted_epoch: None });
    let transitions = run(&mut record, &inputs, &policy(), limit);
    assert_eq!(transitions.len(), 1);
    assert_eq!(transitions[0].reason, Reason::TtlTransportLossExpired);
    assert_eq!(record.state(), State::Terminated);
}

#[test]
fn sm08_the_chain_of_a_valid_request_has_the_links_of_its_state() {
    use TransitionId::{T06, T08b, T11, T15b};
    let cases = [
        (State::Attached, vec![T06, T08b, T11]),
        (State::Volatile, vec![T08b, T11]),
        (State::Degraded, vec![T15b, T11]),
        (State::Recovering, vec![T11]),
    ];
    for (state, expected) in cases {
        let mut record = record_in(state, Side::Gateway, ms(0));
        let (version, epoch) = (record.version(), record.epoch());
        let done = reattach(&mut record, binding(2, true), &policy(), ms(5_000)).unwrap();
        assert_eq!(done.iter().map(|link| link.id).collect::<Vec<_>>(), expected);
        assert_eq!(record.state(), State::Attached);
        assert_eq!(record.epoch(), epoch + 1, "INV-06");
        assert_eq!(record.version(), version + expected.len() as u64, "INV-05");
        assert_eq!(record.active().unwrap().transport, TransportId(2));
    }
}

#[test]
fn inv13_a_chain_that_cannot_finish_leaves_the_record_as_it_was() {
    let mut record = record_in(State::Attached, Side::Gateway, ms(0));
    for n in 0..u64::from(policy().switching.max_switches_per_min) {
        reattach(&mut record, binding(n as u16, true), &policy(), ms(n)).unwrap();
    }
    let before = record.clone();
    let refusal = reattach(&mut record, binding(9, true), &policy(), ms(100)).unwrap_err();
    assert_eq!(refusal, Refusal(Reason::SwitchRateLimited));
    assert_eq!(record, before);
}

#[test]
fn p08_a_commit_exactly_sixty_seconds_old_is_out_of_the_window_and_a_cooldown_exactly_over_is_over() {
    let mut record = record_in(State::Attached, Side::Gateway, ms(0));
    reattach(&mut record, binding(2, true), &policy(), ms(1_000)).unwrap();
    assert_eq!(record.commits_in_window(ms(60_999)), 1);
    assert_eq!(record.commits_in_window(ms(61_000)), 0);
    let cooldown = policy().switching.switch_cooldown;
    assert!(record.cooldown_left(ms(999) + cooldown) > Span::ZERO);
    assert_eq!(record.cooldown_left(ms(1_000) + cooldown), Span::ZERO);
}

#[test]
fn i08_the_switch_after_the_last_allowed_one_is_denied_until_the_minute_has_passed() {
    let mut policy = policy();
    policy.switching.max_switches_per_min = 5;
    let mut record = record_in(State::Attached, Side::Gateway, ms(0));
    for n in 0..5 {
        reattach(&mut record, binding(n, true), &policy, ms(u64::from(n) * 1_000)).unwrap();
    }
    assert!(reattach(&mut record, binding(6, true), &policy, ms(59_999)).is_err());
    assert!(reattach(&mut record, binding(6, true), &policy, ms(60_000)).is_ok());
}

#[test]
fn a_commit_says_whether_it_is_the_same_path_a_rebound_nat_or_another_path() {
    let same = |id, port: u16| {
        let mut new = binding(id, true);
        new.tuple.peer.set_port(port);
        new
    };
    let cases = [
        (same(1, 1_001), Some(Reason::SamePathReproved)),
        (same(1, 2_000), Some(Reason::NatRebindDetected)),
        (same(2, 1_001), None),
        (same(2, 1_002), None),
    ];
    for (new, detail) in cases {
        let mut record = record_in(State::Attached, Side::Gateway, ms(0));
        let done = reattach(&mut record, new, &policy(), ms(5_000)).unwrap();
        assert_eq!(done.last().unwrap().detail, detail, "{new:?}");
    }
}

#[test]
fn pv5_an_unvalidated_binding_never_becomes_retiring() {
    let mut record = record_in(State::Attached, Side::Gateway, ms(0));
    reattach(&mut record, binding(2, false), &policy(), ms(1)).unwrap();
    assert!(record.retiring(ms(2)).is_some(), "the validated one before it drains");
    reattach(&mut record, binding(3, false), &policy(), ms(3)).unwrap();
    assert!(record.retiring(ms(4)).is_none());
}

#[test]
fn inv34_the_retiring_binding_ends_by_time() {
    let mut record = record_in(State::Attached, Side::Gateway, ms(0));
    reattach(&mut record, binding(2, true), &policy(), ms(100)).unwrap();
    let drain = policy().switching.old_path_drain;
    assert!(record.retiring(ms(99) + drain).is_some());
    assert!(record.retiring(ms(100) + drain).is_none());
}

#[test]
fn tc40_evidence_about_an_older_generation_never_touches_a_newer_binding() {
    let mut record = record_in(State::Attached, Side::Gateway, ms(0));
    reattach(&mut record, binding(2, true), &policy(), ms(1)).unwrap();
    let late = Input::TransportDead { generation: 1, evidence: Evidence::LinkDown };
    assert!(step(&record, &late, &policy(), ms(2)).is_err());
    assert!(!record.mark_validated(1));
    let unstable = Input::Instability { generation: 1, reason: Reason::HeartbeatTimeout };
    assert!(step(&record, &unstable, &policy(), ms(2)).is_err());
}

#[test]
fn i15_a_version_or_epoch_at_its_maximum_ends_the_session_and_never_wraps() {
    let mut record = record_in(State::Attached, Side::Gateway, ms(0));
    record.version = u64::MAX - 1;
    let (after, transition) = step(&record, &Input::PolicyForceMove, &policy(), ms(1)).unwrap();
    assert_eq!((after.state(), after.version()), (State::Terminated, u64::MAX));
    assert_eq!(transition.reason, Reason::InvariantViolation);
    record.version = 3;
    record.epoch = u64::MAX;
    let (after, _) = step(&record, &Input::PeerReattach, &policy(), ms(1)).unwrap();
    assert_eq!((after.state(), after.epoch()), (State::Terminated, u64::MAX));
}

#[test]
fn inv16_recovering_is_left_at_its_deadline_as_the_policy_says() {
    let deadline = Time::ZERO + policy().switching.recovery_window;
    let record = record_in(State::Recovering, Side::Gateway, ms(0));
    assert!(step(&record, &Input::RecoveryTimeout, &policy(), deadline - Span::from_micros(1)).is_err());
    let (after, _) = step(&record, &Input::RecoveryTimeout, &policy(), deadline).unwrap();
    assert_eq!(after.state(), State::Degraded);
    let mut strict = policy();
    strict.switching.on_recovery_timeout = crate::policy::OnRecoveryTimeout::Terminate;
    let (after, _) = step(&record, &Input::RecoveryTimeout, &strict, deadline).unwrap();
    assert_eq!(after.state(), State::Terminated);
}

fn any_input() -> impl Strategy<Value = (u8, u64, u16, bool)> {
    (0..Input::KINDS as u8, 0..4u64, 0..4u16, any::<bool>())
}

proptest! {
    #[test]
    fn i12_the_invariants_hold_over_any_sequence_of_inputs(
        gateway in any::<bool>(),
        script in prop::collection::vec((any_input(), 0..3_000u64), 1..80),
    ) {
        let policy = policy();
        let side = if gateway { Side::Gateway } else { Side::Client };
        let mut record = Record::new(side, Time::ZERO);
        let mut now = Time::ZERO;
        let mut commits: Vec<Time> = Vec::new();
        for ((kind, back, id, flag), wait) in script {
            now += Span::from_millis(wait);
            let generation = record.epoch().saturating_sub(back);
            let mut input = inputs(&record)[usize::from(kind)];
            match &mut input {
                Input::TransportDead { generation: of, .. }
                | Input::Instability { generation: of, .. }
                | Input::StabilityRestored { generation: of, .. } => *of = generation,
                Input::HandshakeComplete { binding: new } | Input::ReattachValid { binding: new, .. } => {
                    *new = binding(id, flag);
                }
                _ => {}
            }
            let before = record.clone();
            let Ok((after, transition)) = step(&record, &input, &policy, now) else {
                continue;
            };
            prop_assert_eq!(after.version(), before.version() + 1, "INV-05");
            prop_assert!(after.epoch() == before.epoch() || after.epoch() == before.epoch() + 1, "INV-06");
            let commit = matches!(transition.id, TransitionId::T01 | TransitionId::T11);
            prop_assert_eq!(after.epoch() != before.epoch(), commit, "INV-06, INV-11");
            prop_assert!(before.state().is_live(), "INV-10");
            match after.state() {
                State::Attached => prop_assert!(after.active().is_some(), "INV-02"),
                State::Birth | State::Terminated => prop_assert!(after.active().is_none(), "INV-02"),
                State::Volatile | State::Degraded | State::Recovering => {
                    prop_assert_eq!(after.active().is_none(), after.transportless_since().is_some(), "SM-17");
                }
            }
            if let Some(active) = after.active() {
                prop_assert_eq!(active.epoch, after.epoch(), "INV-01");
            }
            if transition.id == TransitionId::T11 && side == Side::Gateway {
                commits.push(now);
                let recent = commits.iter().filter(|at| now.since(**at) < SWITCH_WINDOW).count();
                prop_assert!(recent <= usize::from(policy.switching.max_switches_per_min), "INV-15");
            }
            record = after;
        }
    }
}

/// Half of every bound that a running timer can have.
fn halved() -> Policy {
    let mut policy = policy();
    let half = |span: &mut Span| *span = Span::from_millis(span.as_millis() / 2);
    half(&mut policy.session.max_lifetime);
    half(&mut policy.session.transport_lost_ttl);
    half(&mut policy.volatility.volatile_to_degraded);
    half(&mut policy.switching.switch_cooldown);
    half(&mut policy.switching.recovery_window);
    half(&mut policy.switching.path_validation);
    half(&mut policy.security.key_max_age);
    policy
}

#[test]
fn p05_what_runs_keeps_the_bound_that_it_began_with_whether_the_new_one_is_shorter_or_longer() {
    // RL-4, both ways: begun under one policy, judged under the other.
    for (old, new) in [(policy(), halved()), (halved(), policy())] {
        let go = |record: &Record, input, now| step(record, &input, &old, now).unwrap().0;
        let birth = Record::new(Side::Gateway, Time::ZERO);
        let attached = go(&birth, Input::HandshakeComplete { binding: binding(1, true) }, Time::ZERO);
        let bound = |record: &Record, input: Input, at: Span| {
            let before = Time::ZERO + at - Span::from_micros(1);
            assert!(step(record, &input, &new, before).is_err(), "{} fires too early", input.name());
            assert!(step(record, &input, &new, Time::ZERO + at).is_ok(), "{} fires too late", input.name());
            assert!(due(record, &new, Time::ZERO + at).contains(&input), "{} is not seen to be due", input.name());
            assert!(record.next_deadline(&new) <= Time::ZERO + at, "{} is not waited for", input.name());
        };
        bound(&attached, Input::SessionTtl, old.session.max_lifetime);
        let dead = Input::TransportDead { generation: 1, evidence: Evidence::LinkDown };
        let volatile = go(&attached, dead, Time::ZERO);
        bound(&volatile, Input::VolatileTimeout, old.volatility.volatile_to_degraded);
        bound(&volatile, Input::TransportTtl, old.session.transport_lost_ttl);
        let recovering = go(&volatile, Input::RecoveryStart { exempt: false }, Time::ZERO);
        bound(&recovering, Input::RecoveryTimeout, old.switching.recovery_window);
        let moved = Input::ReattachValid { binding: binding(2, false), granted_epoch: None };
        let moved = go(&recovering, moved, Time::ZERO);
        let cooldown = old.switching.switch_cooldown;
        assert_eq!(moved.cooldown_left(Time::ZERO), cooldown);
        let unvalidated = Input::TransportDead { generation: 2, evidence: Evidence::PathUnvalidated };
        let at = Time::ZERO + old.switching.path_validation;
        assert!(due(&moved, &new, at).contains(&unvalidated));
        let degraded = go(&recovering, Input::AttemptsExhausted { reason: Reason::NoCandidateTransports }, Time::ZERO);
        let start = Input::RecoveryStart { exempt: true };
        assert!(step(&degraded, &start, &new, Time::ZERO + cooldown - Span::from_micros(1)).is_err());
        assert!(step(&degraded, &start, &new, Time::ZERO + cooldown).is_ok(), "SM-15");
    }
}

#[test]
fn p05_a_timer_that_begins_under_the_new_policy_has_its_bound() {
    let attached = record_in(State::Attached, Side::Gateway, Time::ZERO);
    let instability = Input::Instability { generation: 1, reason: Reason::HeartbeatTimeout };
    let volatile = step(&attached, &instability, &halved(), Time::ZERO).unwrap().0;
    let bound = Time::ZERO + halved().volatility.volatile_to_degraded;
    assert!(step(&volatile, &Input::VolatileTimeout, &policy(), bound).is_ok());
    let mut rekeyed = attached;
    rekeyed.mark_rekeyed(&halved(), Time::ZERO);
    assert_eq!(rekeyed.expired(&policy(), Time::ZERO + halved().security.key_max_age), Some(Reason::KeyExpired));
}

#[test]
fn p05_a_smaller_switch_rate_counts_the_commits_that_were_made_and_undoes_none() {
    let mut record = record_in(State::Attached, Side::Gateway, Time::ZERO);
    for commit in 1..=5 {
        reattach(&mut record, binding(1 + commit % 2, true), &policy(), ms(u64::from(commit))).unwrap();
    }
    let mut tighter = policy();
    tighter.switching.max_switches_per_min = 4;
    assert_eq!(record.state(), State::Attached, "what was committed stays");
    assert!(!record.switch_rate_free(&tighter, ms(59_000)));
    let refused = reattach(&mut record, binding(1, true), &tighter, ms(59_000)).unwrap_err();
    assert_eq!(refused, Refusal(Reason::SwitchRateLimited));
    assert!(record.switch_rate_free(&tighter, ms(60_002)), "two of the five are old enough");
}
