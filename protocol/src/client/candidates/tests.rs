//! The filter and the order of §10.6, one rule each.

use super::*;
use crate::client::PathInfo;
use crate::ident::Tuple;
use crate::keys::Side;
use crate::machine::{Evidence, Input, NewBinding, State, run};
use crate::policy::{Priorities, Profile, TransportClass};

/// When a test looks; long after everything that led there.
const NOW: Time = Time::from_millis(100_000);
/// The path in use.
const ACTIVE: TransportId = TransportId(1);

fn ms(millis: u64) -> Time {
    Time::from_millis(millis)
}

/// A session that left ATTACHED for that input a moment ago.
fn volatile(policy: &Policy, input: Input) -> Record {
    let mut record = Record::new(Side::Client, ms(0));
    let address = "192.0.2.1:51900".parse().unwrap();
    let binding = NewBinding { tuple: Tuple { local: address, peer: address }, transport: ACTIVE, validated: true };
    run(&mut record, &[Input::HandshakeComplete { binding }], policy, ms(0));
    run(&mut record, &[input], policy, ms(99_000));
    assert_eq!(record.state(), State::Volatile);
    record
}

fn unstable(reason: Reason) -> Input {
    Input::Instability { generation: 1, reason }
}

fn degraded(policy: &Policy, input: Input) -> Record {
    let mut record = volatile(policy, input);
    run(&mut record, &[Input::VolatileTimeout], policy, ms(103_000));
    assert_eq!(record.state(), State::Degraded);
    record
}

/// A path that answered `answers` probes a second apart until now, with that round trip, and let `lost` go unanswered
/// before.
fn measured(id: u16, round_trip: u64, lost: u64, answers: u64) -> Path {
    let class = TransportClass::Other;
    let info = PathInfo { gateway: "192.0.2.1:51900".parse().unwrap(), class, priority: 10 };
    let mut path = Path::new(TransportId(id), info, ms(0));
    let policy = Policy::profile(Profile::Default);
    for counter in 0..lost {
        path.probed(counter, ms(0));
    }
    path.echoes.age(&policy, ms(60_000));
    for counter in lost..lost + answers {
        let answered = ms(100_000 - 1_000 * (lost + answers - counter - 1));
        path.probed(counter, answered - Span::from_millis(round_trip));
        path.answered(counter, answered).unwrap();
    }
    path
}

fn validated(id: u16, round_trip: u64) -> Path {
    Path { validated: true, ..measured(id, round_trip, 0, 10) }
}

fn choice<'a>(record: &'a Record, policy: &'a Policy) -> Choice<'a> {
    let quality = record.trigger().is_some_and(crate::health::is_quality);
    Choice {
        record,
        policy,
        now: NOW,
        current: Some(ACTIVE),
        active_loss: 0,
        quality,
        unbound: false,
        calm: false,
        braked: record.state() == State::Degraded,
        anew: true,
        target: None,
    }
}

fn best(choice: &Choice<'_>, paths: &[Path]) -> Option<u16> {
    let found = choice.best(paths);
    let reversed: Vec<Path> = paths.iter().rev().cloned().collect();
    assert_eq!(choice.best(&reversed), found, "the order of the table does not matter");
    let best = found.map(|id| id.0);
    // What is recorded of the choice is the choice.
    let recorded = choice.scores(paths);
    let first = recorded.iter().find(|score| score.rank == 1);
    assert_eq!(first.map(|score| score.transport_id.0), best, "{recorded:?}");
    assert!(recorded.iter().all(|score| (score.rank == 0) == score.excluded_by.is_some()), "{recorded:?}");
    best
}

#[test]
fn p10_of_candidates_equal_in_all_ranks_the_lowest_number_wins() {
    let policy = Policy::profile(Profile::Default);
    let record = volatile(&policy, unstable(Reason::HeartbeatTimeout));
    let paths = [validated(1, 20), validated(7, 20), validated(3, 20), validated(5, 20)];
    assert_eq!(best(&choice(&record, &policy), &paths), Some(3));
}

#[test]
fn the_first_difference_decides_class_priority_loss_latency_steadiness() {
    let policy = Policy::profile(Profile::Default);
    let record = volatile(&policy, unstable(Reason::HeartbeatTimeout));
    let choice = choice(&record, &policy);
    let active = || validated(1, 20);
    let prefer = |better: Path, worse: Path| {
        let (id, paths) = (better.id.0, [active(), better, worse]);
        assert_eq!(best(&choice, &paths), Some(id));
    };
    let priority = |priority: u8, path: Path| Path { info: PathInfo { priority, ..path.info }, ..path };
    prefer(priority(99, validated(9, 400)), measured(2, 20, 0, 10));
    prefer(measured(9, 400, 0, 10), measured(2, 0, 0, 0));
    prefer(measured(9, 0, 0, 0), Path { up: false, ..validated(2, 20) });
    prefer(priority(9, validated(9, 400)), validated(2, 20));
    prefer(validated(9, 400), Path { validated: true, ..measured(2, 20, 1, 10) });
    prefer(validated(9, 20), validated(2, 30));
    // Both 2x ms: equal in rank, so the longer run of answers decides.
    prefer(Path { validated: true, ..measured(9, 29, 0, 20) }, Path { validated: true, ..measured(2, 20, 0, 10) });
    // 39 permille and 0 differ in L / 10; 9 would not.
    prefer(Path { validated: true, ..measured(9, 20, 0, 30) }, Path { validated: true, ..measured(2, 20, 1, 24) });
}

#[test]
fn pp55_policy_ranks_the_kinds_of_paths_and_the_user_those_that_it_ranks_alike() {
    let of = |class, priority, path: Path| Path { info: PathInfo { class, priority, ..path.info }, ..path };
    let wifi = || of(TransportClass::Wifi, 10, validated(2, 20));
    let cellular = || of(TransportClass::Cellular, 20, validated(3, 20));
    let asked = |priorities: Priorities| {
        let mut policy = Policy::profile(Profile::Default);
        policy.transport.priority = priorities;
        let record = volatile(&policy, unstable(Reason::HeartbeatTimeout));
        best(&choice(&record, &policy), &[validated(1, 20), wifi(), cellular()])
    };
    let alike = Priorities::all(100);
    assert_eq!(asked(alike), Some(2), "the user's order");
    assert_eq!(asked(alike.with(TransportClass::Cellular, 99)), Some(3), "the operator's goes before it");
    assert_eq!(asked(alike.with(TransportClass::Wifi, 101)), Some(3));
    assert_eq!(asked(alike.with(TransportClass::Wired, 0)), Some(2), "a kind that is not there");
}

#[test]
fn the_same_path_comes_last_and_after_unbound_first() {
    let policy = Policy::profile(Profile::Default);
    let record = volatile(&policy, unstable(Reason::HeartbeatTimeout));
    let choice = choice(&record, &policy);
    assert_eq!(best(&choice, &[validated(1, 20), measured(2, 0, 0, 0)]), Some(2), "SM-15");
    assert_eq!(best(&choice, &[validated(1, 20)]), Some(1), "want of another");
    let unbound = Choice { unbound: true, ..choice };
    assert_eq!(best(&unbound, &[validated(1, 20), validated(2, 20)]), Some(1), "it has just answered");
}

#[test]
fn af1_after_a_quality_trigger_a_candidate_must_beat_the_active_path_by_the_factor() {
    let mut policy = Policy::profile(Profile::Default);
    for reason in [Reason::LossThresholdExceeded, Reason::LatencyThresholdExceeded, Reason::JitterThresholdExceeded] {
        let record = volatile(&policy, unstable(reason));
        // 1000 - 2 * 250 - 20 = 480 for the active path; a factor of 1.10 wants 528.
        let choice = Choice { active_loss: 250, ..choice(&record, &policy) };
        assert_eq!(best(&choice, &[validated(1, 20), validated(2, 472)]), Some(2), "528");
        assert_eq!(best(&choice, &[validated(1, 20), validated(2, 473)]), None, "527");
    }
    policy.switching.switch_improvement_factor = 100;
    let record = volatile(&policy, unstable(Reason::LossThresholdExceeded));
    let choice = Choice { active_loss: 250, ..choice(&record, &policy) };
    assert_eq!(best(&choice, &[validated(1, 20), validated(2, 520)]), None, "as good is not better");
    assert_eq!(best(&choice, &[validated(1, 20), validated(2, 519)]), Some(2));
}

#[test]
fn af1_silence_death_and_forced_moves_want_no_better_path() {
    let policy = Policy::profile(Profile::Default);
    let dead = Input::TransportDead { generation: 1, evidence: Evidence::Silence };
    for input in
        [unstable(Reason::HeartbeatTimeout), unstable(Reason::ConsecutiveDropExceeded), dead, Input::PolicyForceMove]
    {
        let record = volatile(&policy, input);
        assert_eq!(best(&choice(&record, &policy), &[validated(1, 20), validated(2, 900)]), Some(2), "{input:?}");
    }
    let record = volatile(&policy, unstable(Reason::LossThresholdExceeded));
    let wished = Choice { quality: false, target: Some(TransportId(2)), ..choice(&record, &policy) };
    assert_eq!(best(&wished, &[validated(1, 20), validated(2, 900), validated(3, 20)]), Some(2));
}

#[test]
fn p11_very_bad_scores_on_both_sides_invert_nothing() {
    let policy = Policy::profile(Profile::Default);
    let record = volatile(&policy, unstable(Reason::LossThresholdExceeded));
    let choice = Choice { active_loss: 900, ..choice(&record, &policy) };
    assert_eq!(score(900, &validated(1, 20), NOW), 0, "clamped");
    assert_eq!(best(&choice, &[validated(1, 20), validated(2, 1_000)]), None, "0 is not more than 0");
    assert_eq!(best(&choice, &[validated(1, 20), validated(2, 5_000)]), None, "nor does it wrap");
    assert_eq!(best(&choice, &[validated(1, 20), validated(2, 999)]), Some(2), "1 is more than 0");
}

#[test]
fn a_perfect_path_is_never_left_for_its_quality() {
    let policy = Policy::profile(Profile::Default);
    let record = volatile(&policy, unstable(Reason::LossThresholdExceeded));
    assert_eq!(best(&choice(&record, &policy), &[measured(1, 0, 0, 0), validated(2, 0)]), None);
}

#[test]
fn after_a_quality_trigger_a_candidate_is_measured_and_within_every_bound() {
    let mut policy = Policy::profile(Profile::Default);
    policy.volatility.latency_volatile_threshold = Span::from_millis(200);
    policy.volatility.jitter_threshold = Span::from_millis(30);
    let record = volatile(&policy, unstable(Reason::LossThresholdExceeded));
    let choice = Choice { active_loss: 900, ..choice(&record, &policy) };
    let passes = |path: Path| best(&choice, &[validated(1, 20), path]).is_some();
    assert!(!passes(measured(2, 20, 0, 0)), "never measured");
    assert!(!passes(measured(2, 20, 0, 2)), "two answers");
    assert!(passes(measured(2, 20, 0, 3)), "three answers");
    assert!(passes(measured(2, 20, 5, 20)), "200 permille is the bound");
    assert!(!passes(measured(2, 20, 6, 20)), "more is not");
    assert!(passes(measured(2, 200, 0, 10)));
    assert!(!passes(measured(2, 201, 0, 10)), "too slow");
    let mut unsteady = measured(2, 20, 0, 10);
    for n in 0..20 {
        unsteady.measured(Span::from_millis(20 + 100 * (n % 2)), NOW);
    }
    assert!(!passes(unsteady), "too much jitter");
}

#[test]
fn af2_a_path_left_a_moment_ago_rests_unless_no_other_is_left() {
    let policy = Policy::profile(Profile::Default);
    let record = volatile(&policy, unstable(Reason::HeartbeatTimeout));
    let choice = choice(&record, &policy);
    let left = |millis: u64| Path { left_at: Some(NOW - Span::from_millis(millis)), ..validated(2, 20) };
    assert_eq!(best(&choice, &[validated(1, 20), left(1_999), validated(3, 400)]), Some(3));
    assert_eq!(best(&choice, &[validated(1, 20), left(2_000), validated(3, 400)]), Some(2), "rested");
    assert_eq!(best(&choice, &[left(1_999)]), Some(2), "no other is left");
}

#[test]
fn af4_the_brake_admits_only_what_is_validated_while_a_binding_carries_traffic() {
    let policy = Policy::profile(Profile::Default);
    let record = degraded(&policy, unstable(Reason::HeartbeatTimeout));
    let bound = choice(&record, &policy);
    assert_eq!(best(&bound, &[measured(2, 20, 0, 10)]), None);
    assert_eq!(best(&bound, &[validated(2, 20)]), Some(2));
    let mut dead = record.clone();
    run(&mut dead, &[Input::TransportDead { generation: 1, evidence: Evidence::Silence }], &policy, ms(104_000));
    assert_eq!(best(&choice(&dead, &policy), &[measured(2, 20, 0, 10)]), Some(2), "nothing is bound any more");
}

#[test]
fn sm15_after_a_quality_trigger_the_same_path_is_a_candidate_in_degraded_once_it_is_calm() {
    let policy = Policy::profile(Profile::Default);
    let lossy = unstable(Reason::LossThresholdExceeded);
    let (volatile, degraded) = (volatile(&policy, lossy), degraded(&policy, lossy));
    let paths = [validated(1, 20)];
    assert_eq!(best(&Choice { calm: true, ..choice(&volatile, &policy) }, &paths), None, "T07 is the way back");
    assert_eq!(best(&choice(&degraded, &policy), &paths), None);
    assert_eq!(best(&Choice { calm: true, ..choice(&degraded, &policy) }, &paths), Some(1));
}

#[test]
fn the_floor_of_the_policy_holds_whatever_the_trigger() {
    let mut policy = Policy::profile(Profile::Default);
    policy.transport.candidate_min_score = 900;
    let record = volatile(&policy, unstable(Reason::HeartbeatTimeout));
    assert_eq!(best(&choice(&record, &policy), &[validated(2, 100)]), Some(2), "900");
    assert_eq!(best(&choice(&record, &policy), &[validated(2, 101)]), None, "899");
}

#[test]
fn what_was_not_seen_for_the_candidate_ttl_is_no_candidate() {
    let policy = Policy::profile(Profile::Default);
    let record = volatile(&policy, unstable(Reason::HeartbeatTimeout));
    let later = |millis: u64| Choice { now: NOW + Span::from_millis(millis), ..choice(&record, &policy) };
    assert_eq!(best(&later(14_999), &[validated(2, 20)]), Some(2));
    assert_eq!(best(&later(15_000), &[validated(2, 20)]), None);
}

#[test]
fn t09_says_whether_all_were_too_bad_or_none_was_there() {
    let policy = Policy::profile(Profile::Default);
    let record = volatile(&policy, unstable(Reason::LossThresholdExceeded));
    let choice = Choice { active_loss: 250, ..choice(&record, &policy) };
    let shortfall = |paths: &[Path]| choice.shortfall(paths);
    assert_eq!(shortfall(&[validated(1, 20), validated(2, 20)]), None);
    assert_eq!(shortfall(&[validated(1, 20), measured(2, 20, 10, 10)]), Some(Reason::QualityFloorViolation));
    assert_eq!(shortfall(&[validated(1, 20)]), Some(Reason::NoCandidateTransports));
    let down = Path { up: false, ..validated(2, 20) };
    assert_eq!(shortfall(&[validated(1, 20), down]), Some(Reason::NoCandidateTransports));
}
