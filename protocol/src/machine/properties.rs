//! Laws of the machine over random scripts of inputs, pauses and requests, and over commits that are cut short. A script
//! that breaks one shrinks to the shortest that does.

use proptest::prelude::*;

use super::{Input, NewBinding, Record, Side, State, Transition, TransitionId, due, reattach, run, step};
use crate::ident::{TransportId, Tuple};
use crate::machine::{Evidence, SWITCH_WINDOW};
use crate::policy::{Policy, Profile};
use crate::reason::Reason;
use crate::time::{Span, Time};

/// One thing that happens, after a pause.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Every timer that is due runs.
    Timers,
    /// The active binding is dead, on evidence about a generation so many before the present one.
    Dead(u64),
    /// It is unstable.
    Unstable(u64),
    /// It has been calm for that long, in milliseconds.
    Calm(u64),
    /// A candidate could be tried.
    Start(bool),
    /// A valid request for that path (gateway), or the answer to one (client).
    Move(u16, bool),
    /// The operator wants a move.
    Forced,
    /// No candidate is left.
    Exhausted,
    /// The peer shows that it receives at a binding so many generations old.
    Validated(u64),
    /// The session is ended.
    End,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => Just(Deed::Timers),
        3 => (0..3u64).prop_map(Deed::Dead),
        3 => (0..3u64).prop_map(Deed::Unstable),
        2 => (0..5_000u64).prop_map(Deed::Calm),
        4 => any::<bool>().prop_map(Deed::Start),
        6 => (1..4u16, any::<bool>()).prop_map(|(path, validated)| Deed::Move(path, validated)),
        2 => Just(Deed::Forced),
        2 => Just(Deed::Exhausted),
        3 => (0..3u64).prop_map(Deed::Validated),
        1 => Just(Deed::End),
    ]
}

fn binding(path: u16, validated: bool) -> NewBinding {
    let peer = std::net::SocketAddr::from(([198, 51, 100, 7], 1_000 + path));
    let tuple = Tuple { local: std::net::SocketAddr::from(([192, 0, 2, 1], 51_900)), peer };
    NewBinding { tuple, transport: TransportId(path), validated }
}

fn attached(side: Side) -> Record {
    let mut record = Record::new(side, Time::ZERO);
    let first = Input::HandshakeComplete { binding: binding(1, true) };
    run(&mut record, &[first], &Policy::profile(Profile::Fast), Time::ZERO);
    record
}

/// Does one deed. Gives the transitions that it made.
fn perform(record: &mut Record, deed: Deed, policy: &Policy, now: Time) -> Vec<Transition> {
    let of = |back: u64| record.epoch().saturating_sub(back);
    let input = match deed {
        Deed::Timers => {
            let inputs = due(record, policy, now);
            return run(record, &inputs, policy, now).into_iter().collect();
        }
        Deed::Move(path, validated) if record.side() == Side::Gateway => {
            return reattach(record, binding(path, validated), policy, now).map_or(Vec::new(), |links| links.to_vec());
        }
        Deed::Move(path, validated) => {
            Input::ReattachValid { binding: binding(path, validated), granted_epoch: Some(record.epoch() + 1) }
        }
        Deed::Validated(back) => {
            let generation = of(back);
            record.mark_validated(generation);
            return Vec::new();
        }
        Deed::Dead(back) => Input::TransportDead { generation: of(back), evidence: Evidence::Silence },
        Deed::Unstable(back) => Input::Instability { generation: of(back), reason: Reason::HeartbeatTimeout },
        Deed::Calm(millis) => {
            let calm_since = Time::from_millis(now.as_millis().saturating_sub(millis));
            Input::StabilityRestored { generation: record.epoch(), calm_since }
        }
        Deed::Start(exempt) => Input::RecoveryStart { exempt },
        Deed::Forced => Input::PolicyForceMove,
        Deed::Exhausted => Input::AttemptsExhausted { reason: Reason::NoCandidateTransports },
        Deed::End => Input::OperatorTerminate,
    };
    run(record, &[input], policy, now).into_iter().collect()
}

/// What must hold after every deed, whatever it was.
fn check(before: &Record, after: &Record, links: &[Transition], now: Time) -> Result<(), TestCaseError> {
    let policy = Policy::profile(Profile::Fast);
    let commits = links.iter().filter(|link| link.id == TransitionId::T11).count() as u64;
    prop_assert_eq!(after.version(), before.version() + links.len() as u64, "INV-05, INV-08");
    prop_assert_eq!(after.epoch(), before.epoch() + commits, "INV-06");
    prop_assert!(links.is_empty() || before.state().is_live(), "INV-10");
    if links.is_empty() {
        prop_assert_eq!(before.state(), after.state(), "INV-07");
        let same = before.active().map(|old| old.epoch) == after.active().map(|new| new.epoch);
        prop_assert!(same, "INV-07, INV-11");
    }
    match after.state() {
        State::Attached => prop_assert!(after.active().is_some(), "INV-02"),
        State::Birth | State::Terminated => {
            prop_assert!(after.active().is_none() && after.retiring(now).is_none(), "INV-02, INV-10");
        }
        State::Volatile | State::Degraded | State::Recovering => {
            prop_assert_eq!(after.active().is_none(), after.transportless_since().is_some(), "INV-17");
        }
    }
    if let Some(active) = after.active() {
        prop_assert_eq!(active.epoch, after.epoch(), "INV-01");
    }
    if let Some(retiring) = after.retiring(now) {
        prop_assert!(retiring.validated, "PV-5");
        prop_assert!(Some(retiring.epoch) != after.active().map(|active| active.epoch), "INV-34");
    }
    if let (Some(was), Some(is)) = (before.transportless_since(), after.transportless_since()) {
        prop_assert_eq!(was, is, "SM-17: the time without a transport never starts anew");
    }
    if commits > 0 {
        let limit = usize::from(policy.switching.max_switches_per_min);
        prop_assert!(after.commits_in_window(now) <= limit || after.side() == Side::Client, "INV-15");
        prop_assert!(after.last_commit().is_some_and(|at| now.since(at) < SWITCH_WINDOW), "INV-15");
    }
    for link in links {
        let row = link.id.row();
        prop_assert!(row.from.contains(&link.from) && row.reasons.contains(&link.reason), "INV-07");
        if link.to == State::Terminated {
            prop_assert!(link.id != TransitionId::T04 && link.id != TransitionId::T16, "INV-19");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn i12_the_invariants_hold_over_any_script_of_timers_moves_and_failures(
        gateway in any::<bool>(),
        script in prop::collection::vec((0..2_500u64, deed()), 1..60),
    ) {
        let policy = Policy::profile(Profile::Fast);
        let mut record = attached(if gateway { Side::Gateway } else { Side::Client });
        let mut now = Time::ZERO;
        for (pause, deed) in script {
            now += Span::from_millis(pause);
            let before = record.clone();
            let links = perform(&mut record, deed, &policy, now);
            check(&before, &record, &links, now)?;
        }
        // INV-16 to INV-18: whoever runs its timers leaves every bounded state, and ends.
        for (state, bound) in [
            (State::Recovering, policy.switching.recovery_window),
            (State::Volatile, policy.volatility.volatile_to_degraded),
        ] {
            let entered = record.entered();
            perform(&mut record, Deed::Timers, &policy, now.max(entered + bound));
            prop_assert!(record.state() != state || record.entered() > entered, "INV-16, TB-08");
        }
        perform(&mut record, Deed::Timers, &policy, now + policy.session.max_lifetime);
        prop_assert_eq!(record.state(), State::Terminated, "INV-18, L-2");
    }

    #[test]
    fn inv09_equal_arguments_give_equal_results(
        script in prop::collection::vec((0..2_500u64, deed()), 1..30),
    ) {
        let policy = Policy::profile(Profile::Fast);
        let (mut one, mut other) = (attached(Side::Gateway), attached(Side::Gateway));
        let mut now = Time::ZERO;
        for (pause, deed) in script {
            now += Span::from_millis(pause);
            let same = perform(&mut one, deed, &policy, now) == perform(&mut other, deed, &policy, now);
            prop_assert!(same && one == other);
        }
    }
}

#[test]
fn i14_a_commit_that_is_cut_short_at_any_link_leaves_the_old_binding_whole() {
    let policy = Policy::profile(Profile::Fast);
    let late = Time::ZERO + policy.volatility.volatile_to_degraded;
    let unstable = Input::Instability { generation: 1, reason: Reason::HeartbeatTimeout };
    let roads: [&[Input]; 4] =
        [&[], &[unstable], &[unstable, Input::VolatileTimeout], &[unstable, Input::RecoveryStart { exempt: true }]];
    for road in roads {
        let mut record = attached(Side::Gateway);
        for (nth, input) in road.iter().enumerate() {
            let at = if nth == 0 { Time::ZERO } else { late };
            record = step(&record, input, &policy, at).unwrap().0;
        }
        let whole = reattach(&mut record.clone(), binding(2, true), &policy, late).unwrap();
        for cut in 0..whole.len() as u64 {
            // The versions run out at that link, so it cannot run.
            let mut cut_short = record.clone();
            cut_short.version = u64::MAX - 1 - cut;
            let old = cut_short.clone();
            let refused = reattach(&mut cut_short, binding(2, true), &policy, late);
            assert!(refused.is_err(), "link {cut} of {:?}", record.state());
            assert_eq!(cut_short, old, "link {cut} of {:?}: neither half a chain nor half a binding", record.state());
        }
        let mut done = record.clone();
        reattach(&mut done, binding(2, true), &policy, late).unwrap();
        let (active, retiring) = (*done.active().unwrap(), *done.retiring(late).unwrap());
        assert_eq!((active.transport, active.epoch), (TransportId(2), 2), "the new one whole");
        assert_eq!((retiring.transport, retiring.epoch), (TransportId(1), 1), "and the old one whole, to drain");
    }
}

#[test]
fn i14_a_commit_that_the_policy_stops_at_its_last_link_leaves_the_record_as_it_was() {
    let mut policy = Policy::profile(Profile::Fast);
    policy.switching.max_switches_per_min = 0;
    let mut record = attached(Side::Gateway);
    let old = record.clone();
    assert!(reattach(&mut record, binding(2, true), &policy, Time::from_millis(500)).is_err());
    assert_eq!(record, old);
}
