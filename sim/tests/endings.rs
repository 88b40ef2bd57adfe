//! How sessions end: by bounds, by keys, by order of either end, and what comes after the end.

use jumpgate_protocol::client::ClientEvent;
use jumpgate_protocol::gateway::EventKind;
use jumpgate_protocol::ident::Locator;
use jumpgate_protocol::keys::KeyLimits;
use jumpgate_protocol::machine::{State, Transition, TransitionId};
use jumpgate_protocol::policy::{OnRecoveryTimeout, Policy, Profile};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Span;
use jumpgate_protocol::wire::{MessageType, RequestedPolicy};
use jumpgate_sim::{Impairment, World, WorldConfig};

const MS: fn(u64) -> Span = Span::from_millis;
/// The live states in which a session can be told to end.
const LIVE: [State; 4] = [State::Attached, State::Volatile, State::Degraded, State::Recovering];

fn policy() -> Policy {
    Policy::profile(Profile::Default)
}

fn black_hole() -> Impairment {
    Impairment { blackhole: true, ..Impairment::default() }
}

fn delayed(millis: u64) -> Impairment {
    Impairment { delay: MS(millis), ..Impairment::default() }
}

fn world_of(policy: Policy, clients: usize, paths: u16) -> World {
    let mut world = World::new(&WorldConfig { seed: 51, workers: 2, policy }, clients, paths);
    world.course = Some(Vec::new());
    for client in 0..clients {
        world.connect_now(client);
        assert!(world.client(client).client.is_connected());
    }
    world
}

fn locator(world: &mut World) -> Locator {
    let now = world.now();
    world.client(0).client.status(now).locator.expect("a session")
}

fn state(world: &mut World) -> State {
    let now = world.now();
    world.client(0).client.status(now).state
}

/// State and version of the session at the gateway.
fn at_gateway(world: &World, session: Locator) -> Option<(State, u64)> {
    let view = world.shards().iter().find_map(|shard| shard.view(world.now(), session));
    view.map(|view| (view.state, view.version))
}

/// Transitions of the mirror.
fn mirrored(world: &mut World) -> Vec<Transition> {
    let events = world.client(0).events.iter();
    events
        .filter_map(|(_, event)| match event {
            ClientEvent::Transition { transition, .. } => Some(*transition),
            _ => None,
        })
        .collect()
}

/// Transitions at the gateway.
fn traced(world: &World, session: Locator) -> Vec<Transition> {
    let trace = world.course.iter().flatten();
    trace.filter(|(of, _)| *of == session).map(|(_, transition)| *transition).collect()
}

fn ended(world: &mut World) -> Option<(Reason, Option<Reason>)> {
    world.client(0).events.iter().find_map(|(_, event)| match event {
        ClientEvent::Terminated { reason, detail } => Some((*reason, *detail)),
        _ => None,
    })
}

fn assert_clean(world: &mut World) {
    world.audit();
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

/// A session whose record at the gateway is in that state, with a bound path where the state can have one. No request to
/// move gets through.
fn session_in(state: State, policy: Policy) -> (World, Locator) {
    // A validated standby is what the gateway starts a recovery for (T08); without one it brakes (T09).
    let paths = if state == State::Recovering { 2 } else { 1 };
    let mut world = world_of(policy, 1, paths);
    world.run_for(MS(4_000));
    let session = locator(&mut world);
    if state != State::Attached {
        world.censored.push(MessageType::ReattachRequest);
        world.client(0).links.get_mut(&1).unwrap().up = black_hole();
    }
    for _ in 0..10_000 {
        if at_gateway(&world, session).is_some_and(|(now, _)| now == state) {
            return (world, session);
        }
        world.run_for(MS(1));
    }
    panic!("the gateway never was in {state}");
}

#[test]
fn tc26_a_recovery_in_vain_ends_at_its_bound_in_degraded_or_terminated_as_the_policy_says() {
    for (mode, id, to) in [
        (OnRecoveryTimeout::Degrade, TransitionId::T12, State::Degraded),
        (OnRecoveryTimeout::Terminate, TransitionId::T12b, State::Terminated),
    ] {
        let mut policy = policy();
        policy.switching.on_recovery_timeout = mode;
        let bound = policy.switching.recovery_window;
        // Each attempt lasts four seconds (RS-1: 4 RTO of at most 1 s), so the bound is reached before the candidates are.
        let mut world = world_of(policy, 1, 4);
        (2..=4).for_each(|path| world.impair(0, path, delayed(600)));
        world.run_for(MS(8_000));
        let session = locator(&mut world);
        world.censored.push(MessageType::ReattachRequest);
        world.link_down(0, 1);
        world.run_for(MS(20_000));
        let seen = mirrored(&mut world);
        let begun = seen.iter().find(|one| one.id == TransitionId::T08).expect("T08").at;
        let left = seen.iter().find(|one| one.from == State::Recovering).expect("left RECOVERING");
        assert_eq!((left.id, left.to, left.reason), (id, to, Reason::RecoveryBoundsExceeded));
        assert_eq!(left.at.since(begun), bound, "INV-16");
        let gateway = traced(&world, session);
        let left = gateway.iter().find(|one| one.from == State::Recovering && one.to != State::Recovering);
        let left = left.expect("the gateway tried as well");
        assert_eq!((left.id, left.reason), (id, Reason::RecoveryBoundsExceeded));
        assert_clean(&mut world);
    }
}

#[test]
fn tc27_within_the_recovery_window_a_reattach_succeeds_and_after_it_the_bound_has_fired() {
    for (one_way, in_time) in [(250, true), (1_000, false)] {
        let mut policy = policy();
        policy.switching.recovery_window = MS(1_000);
        policy.security.reattach_proof_max_age = MS(1_000);
        let mut world = world_of(policy, 1, 2);
        world.impair(0, 2, delayed(one_way));
        world.run_for(MS(8_000));
        let session = locator(&mut world);
        world.link_down(0, 1);
        world.run_for(MS(2 * one_way));
        let seen = mirrored(&mut world);
        let begun = seen.iter().find(|one| one.id == TransitionId::T08).expect("T08").at;
        let left = *seen.iter().find(|one| one.from == State::Recovering).expect("left RECOVERING");
        if in_time {
            assert_eq!((left.id, left.at.since(begun)), (TransitionId::T11, MS(500)));
        } else {
            assert_eq!((left.id, left.at.since(begun)), (TransitionId::T12, MS(1_000)), "before the answer came");
        }
        assert_eq!(locator(&mut world), session);
        world.run_for(MS(20_000));
        assert_clean(&mut world);
    }
}

#[test]
fn tc28_the_life_of_a_session_ends_in_every_live_state() {
    for live in LIVE {
        let mut policy = policy();
        policy.session.max_lifetime = MS(60_000);
        let mut world = world_of(policy, 1, if live == State::Recovering { 2 } else { 1 });
        let session = locator(&mut world);
        let attached = traced(&world, session)[0].at;
        let ago = match live {
            State::Attached => Span::ZERO,
            // Silence leads to VOLATILE after 2 s, and without a standby to DEGRADED 4 s later.
            State::Volatile | State::Recovering => MS(3_000),
            _ => MS(8_000),
        };
        world.run_for((attached + MS(60_000) - ago).since(world.now()));
        if live != State::Attached {
            world.censored.push(MessageType::ReattachRequest);
            world.client(0).links.get_mut(&1).unwrap().up = black_hole();
        }
        world.run_for(MS(12_000));
        let last = *traced(&world, session).last().expect("an end");
        assert_eq!((last.id, last.from, last.reason), (TransitionId::T17, live, Reason::TtlSessionExpired));
        assert_eq!(last.at.since(attached), MS(60_000), "INV-18");
        assert_eq!(ended(&mut world), Some((Reason::TtlSessionExpired, None)));
        assert_clean(&mut world);
    }
}

#[test]
fn tc28_a_valid_request_that_arrives_with_the_end_of_life_is_refused_by_it() {
    let mut policy = policy();
    policy.session.max_lifetime = MS(60_000);
    let mut world = world_of(policy, 1, 2);
    let session = locator(&mut world);
    let end = traced(&world, session)[0].at + MS(60_000);
    let way = MS(500);
    world.client(0).links.get_mut(&2).unwrap().up = delayed(500);
    world.run_for((end - way).since(world.now()));
    let before = at_gateway(&world, session).expect("live");
    world.link_down(0, 1);
    world.run_for(MS(510));
    assert_eq!(world.refused(Reason::TtlSessionExpired), 1, "C06: at equal time the limit comes first (SM-07)");
    let last = *traced(&world, session).last().expect("an end");
    assert_eq!((last.id, last.version, last.at), (TransitionId::T17, before.1 + 1, end));
    assert_eq!(world.checker().commits(), 0);
    assert_clean(&mut world);
}

#[test]
fn a23_a_valid_request_after_the_transport_limit_is_refused_by_it_and_changes_nothing() {
    let mut world = world_of(policy(), 1, 1);
    world.run_for(MS(4_000));
    let session = locator(&mut world);
    world.capture = Some(Vec::new());
    world.client(0).links.get_mut(&1).unwrap().up = black_hole();
    world.run_for(MS(10_000));
    let lost = traced(&world, session).iter().find(|one| one.reason == Reason::TransportDead).expect("lost").at;
    let end = lost + policy().session.transport_lost_ttl;
    world.run_for((end - MS(5)).since(world.now()));
    let before = at_gateway(&world, session).expect("live");
    // The last thing that the client asked for comes through after all, in the very instant of the limit.
    let asked = world.capture.take().unwrap();
    let asked = asked.iter().rev().find(|(_, packet)| packet[0] == MessageType::ReattachRequest as u8);
    let (from, request) = asked.expect("the client asks again and again");
    world.inject_in(MS(5), *from, request);
    world.run_for(MS(5));
    assert_eq!(world.refused(Reason::TtlTransportLossExpired), 1, "C06");
    world.run_for(MS(1));
    let last = *traced(&world, session).last().expect("an end");
    assert_eq!((last.id, last.reason), (TransitionId::T18, Reason::TtlTransportLossExpired));
    assert_eq!((last.version, last.epoch, last.at), (before.1 + 1, 1, end), "no link of a chain ran (INV-14)");
    world.run_for(MS(1_000));
    assert_clean(&mut world);
}

#[test]
fn tc30_the_operator_of_the_gateway_ends_a_session_in_each_state() {
    for live in LIVE {
        let (mut world, session) = session_in(live, policy());
        world.terminate(session, Reason::OperatorTerminated);
        let last = *traced(&world, session).last().expect("an end");
        assert_eq!((last.id, last.from, last.reason), (TransitionId::T19, live, Reason::OperatorTerminated));
        assert_eq!(at_gateway(&world, session), None, "record and keys are gone (INV-10)");
        assert_eq!(world.send_down(0, b"nobody").err(), Some(Reason::NoActiveBinding));
        world.run_for(MS(1_000));
        if last.retired.is_some() {
            assert_eq!(ended(&mut world), Some((Reason::PeerTerminated, Some(Reason::OperatorTerminated))), "{live}");
        }
        world.run_for(MS(20_000));
        assert!(ended(&mut world).is_some());
        assert_clean(&mut world);
    }
}

/// A session whose mirror at the client is in that state.
fn mirror_in(state_wanted: State) -> (World, Locator) {
    let mut world = world_of(policy(), 1, 2);
    world.run_for(MS(4_000));
    let session = locator(&mut world);
    if state_wanted != State::Attached {
        world.censored.push(MessageType::ReattachRequest);
        if state_wanted != State::Recovering {
            // Nowhere to go.
            world.link_down(0, 2);
        }
        world.link_down(0, 1);
    }
    for _ in 0..10_000 {
        if state(&mut world) == state_wanted {
            return (world, session);
        }
        world.run_for(MS(1));
    }
    panic!("the client never was in {state_wanted}");
}

#[test]
fn tc30_the_operator_of_the_client_ends_a_session_in_each_state() {
    for live in LIVE {
        let (mut world, session) = mirror_in(live);
        world.hang_up(0);
        let last = *mirrored(&mut world).last().expect("an end");
        assert_eq!((last.id, last.from, last.reason), (TransitionId::T19, live, Reason::OperatorTerminated));
        assert_eq!(world.send_up(0, b"nobody").err(), Some(Reason::NoActiveBinding));
        world.run_for(MS(100));
        if live == State::Attached {
            let gateway = *traced(&world, session).last().expect("an end");
            let expected = (TransitionId::T24, Reason::PeerTerminated, Some(Reason::OperatorTerminated));
            assert_eq!((gateway.id, gateway.reason, gateway.detail), expected);
        }
        // What could not be told ends by its bounds (TM-1).
        world.run_for(MS(25_000));
        assert_eq!(at_gateway(&world, session), None);
        assert_clean(&mut world);
    }
}

#[test]
fn tc31_whatever_comes_after_the_end_is_refused_and_a_further_session_has_another_id() {
    let mut world = world_of(policy(), 1, 2);
    world.capture = Some(Vec::new());
    for round in 0..40u16 {
        world.send_up(0, &round.to_be_bytes()).unwrap();
        world.run_for(MS(100));
    }
    world.move_to(0, 2).unwrap();
    world.run_for(MS(1_000));
    let first = locator(&mut world);
    world.terminate(first, Reason::OperatorTerminated);
    world.run_for(MS(1_000));
    let captured = world.capture.take().unwrap();
    let kinds: std::collections::BTreeSet<u8> = captured.iter().map(|(_, packet)| packet[0]).collect();
    assert!(kinds.len() >= 4, "{kinds:?}");
    let (transitions, received) = (world.checker().transitions(), world.received.len());
    let of_session = captured.iter().filter(|(_, packet)| packet[0] != MessageType::HelloInit as u8);
    let of_session: Vec<_> = of_session.cloned().collect();
    let before = world.refused(Reason::SessionNotFound);
    for (from, packet) in &of_session {
        world.inject(*from, packet);
    }
    world.run_for(MS(100));
    assert_eq!(world.refused(Reason::SessionNotFound) - before, of_session.len() as u64);
    assert_eq!((world.checker().transitions(), world.received.len()), (transitions, received));
    assert!(world.desk().is_empty());
    world.replace_client(0, RequestedPolicy::new(), Some(first));
    world.connect_now(0);
    assert_ne!(locator(&mut world), first, "INV-03, INV-04");
    assert_eq!(world.desk().tombstones(), 1, "TM-2: the name rests");
    assert_clean(&mut world);
}

#[test]
fn tm2_a_locator_rests_for_its_time_and_the_memory_for_it_is_bounded() {
    let mut policy = policy();
    policy.session.tombstone = MS(10_000);
    policy.limits.max_sessions = 16;
    policy.limits.max_half_open = 16;
    let mut world = world_of(policy, 1, 1);
    for _ in 0..40 {
        let session = locator(&mut world);
        world.terminate(session, Reason::OperatorTerminated);
        world.run_for(MS(300));
        world.connect_now(0);
        assert!(world.desk().tombstones() <= 16, "INV-22");
    }
    assert_eq!(world.desk().tombstones(), 16, "the limit was reached");
    world.run_for(MS(11_000));
    let session = locator(&mut world);
    world.terminate(session, Reason::OperatorTerminated);
    assert_eq!(world.desk().tombstones(), 1, "the others had their time");
    assert_clean(&mut world);
}

#[test]
fn tc32_keys_that_are_never_renewed_end_the_session_in_each_state_and_a_reattach_does_not_save_it() {
    for live in [State::Attached, State::Recovering] {
        let mut policy = policy();
        policy.security.rekey_after = MS(30_000);
        policy.security.key_max_age = MS(60_000);
        let mut world = world_of(policy, 1, 2);
        world.censored.push(MessageType::RekeyInit);
        let session = locator(&mut world);
        let confirmed = traced(&world, session)[0].at;
        world.run_for((confirmed + MS(57_000)).since(world.now()));
        if live == State::Recovering {
            world.censored.push(MessageType::ReattachRequest);
            world.client(0).links.get_mut(&1).unwrap().up = black_hole();
        }
        world.run_for(MS(4_000));
        let last = *traced(&world, session).last().expect("an end");
        assert_eq!((last.id, last.from, last.reason), (TransitionId::T25, live, Reason::KeyExpired));
        assert_eq!(last.at.since(confirmed), MS(60_000));
        assert_eq!(ended(&mut world), Some((Reason::KeyExpired, None)));
        assert_clean(&mut world);
    }
}

#[test]
fn ky6_at_the_hard_limit_of_a_key_sending_stops_and_the_session_ends_at_either_end() {
    let limits = KeyLimits { packets: 100, ..KeyLimits::SUITE_1 };
    for up in [true, false] {
        let mut world = World::new(&WorldConfig { seed: 52, workers: 1, policy: policy() }, 1, 1);
        world.course = Some(Vec::new());
        world.lower_key_limits(limits);
        world.connect_now(0);
        let session = locator(&mut world);
        let send = |world: &mut World| if up { world.send_up(0, b"one") } else { world.send_down(0, b"one") };
        for _ in 0..100 {
            send(&mut world).expect("within the limit");
        }
        assert_eq!(send(&mut world), Err(Reason::CounterLimitReached));
        // The gateway ends it in the next round; the client when its next timer runs, a heartbeat's at the latest.
        world.run_for(if up { policy().volatility.heartbeat_interval } else { MS(1) });
        let id = if up {
            mirrored(&mut world).last().map(|one| (one.id, one.reason))
        } else {
            let told = world.noted.iter().any(|(_, _, kind)| matches!(kind, EventKind::KeysUsedUp { key_epoch: 0 }));
            assert!(told);
            traced(&world, session).last().map(|one| (one.id, one.reason))
        };
        assert_eq!(id, Some((TransitionId::T25, Reason::KeyExpired)));
        world.run_for(MS(60_000));
        assert_eq!(at_gateway(&world, session), None);
        assert_clean(&mut world);
    }
}

#[test]
fn tc33_handshakes_that_are_never_confirmed_leave_no_record_and_no_memory() {
    let mut world = World::new(&WorldConfig { seed: 53, workers: 2, policy: policy() }, 30, 1);
    world.course = Some(Vec::new());
    world.censored.push(MessageType::HelloConfirm);
    for round in 0..5 {
        for client in 0..30 {
            world.replace_client(client, RequestedPolicy::new(), None);
            world.connect(client);
        }
        world.run_for(MS(100));
        assert!(world.desk().len() <= 30 * 4, "PP73 holds");
        assert!(!world.desk().is_empty(), "round {round}");
        world.run_for(MS(6_000));
        assert!(world.desk().is_empty() && world.shards().iter().all(|shard| shard.is_empty()));
        // None ever was live, so no name has to rest longer than any other; all of them do.
        assert!(world.desk().tombstones() <= 30 * 5);
    }
    let births = world
        .course
        .iter()
        .flatten()
        .all(|(_, one)| one.id == TransitionId::T02 && one.reason == Reason::HandshakeFail);
    assert!(births, "T02 and nothing else");
    world.censored.clear();
    world.connect_now(0);
    assert!(world.client(0).client.is_connected(), "places and limits are free again");
    assert_clean(&mut world);
}

#[test]
fn a25_all_sessions_under_a_flagged_key_end_at_once_and_nobody_else_is_touched() {
    let mut world = world_of(policy(), 2, 2);
    let first = locator(&mut world);
    world.replace_client(0, RequestedPolicy::new(), None);
    world.connect_now(0);
    let second = locator(&mut world);
    assert_ne!(first, second);
    world.flag_compromised(0);
    let mut ends: Vec<_> = world.ends().to_vec();
    ends.sort_unstable_by_key(|(session, ..)| *session);
    let mut expected = [first, second].map(|session| (session, TransitionId::T20, Reason::SecurityFailure));
    expected.sort_unstable_by_key(|(session, ..)| *session);
    assert_eq!(ends, expected, "in the same step (KY-10)");
    let told = world.noted.iter().filter(|(_, _, kind)| matches!(kind, EventKind::CompromiseSuspected { .. })).count();
    assert_eq!(told, 2);
    world.run_for(MS(30_000));
    assert!(!world.client(0).client.is_connected(), "it learns of the end by SESSION_RESET");
    world.connect(0);
    world.run_for(MS(10_000));
    assert!(!world.client(0).client.is_connected() && world.refused(Reason::PeerUnknown) > 0, "and is let in no more");
    world.send_up(1, b"untouched").unwrap();
    world.run_for(MS(100));
    assert_eq!(world.received.len(), 1);
    assert_clean(&mut world);
}
