//! How sessions begin and end: handshakes over dying paths, sleep, replacement, termination.

use jumpgate_protocol::client::ClientEvent;
use jumpgate_protocol::gateway::ClientEntry;
use jumpgate_protocol::ident::Locator;
use jumpgate_protocol::machine::State;
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Span;
use jumpgate_protocol::wire::MessageType;
use jumpgate_sim::{Impairment, World, WorldConfig};

const MS: fn(u64) -> Span = Span::from_millis;
const DEAD: Impairment = Impairment::DEAD;

fn world(profile: Profile, paths: u16) -> World {
    World::new(&WorldConfig { seed: 5, workers: 2, policy: Policy::profile(profile) }, 1, paths)
}

fn connected(paths: u16) -> World {
    let mut world = world(Profile::Default, paths);
    world.connect_now(0);
    world.run_for(MS(3_000));
    world
}

/// Runs in steps of a millisecond until the client has a session.
fn run_until_connected(world: &mut World) {
    for _ in 0..5_000 {
        if world.client(0).client.is_connected() {
            return;
        }
        world.run_for(MS(1));
    }
    panic!("no session: {:?}", world.client(0).events);
}

fn locator(world: &mut World) -> Locator {
    let now = world.now();
    world.client(0).client.status(now).locator.unwrap()
}

fn state(world: &mut World) -> State {
    let now = world.now();
    world.client(0).client.status(now).state
}

fn ended(world: &mut World) -> Option<(Reason, Option<Reason>)> {
    world.client(0).events.iter().find_map(|(_, event)| match event {
        ClientEvent::Terminated { reason, detail } => Some((*reason, *detail)),
        _ => None,
    })
}

fn sessions_at_the_gateway(world: &World) -> usize {
    world.shards().iter().map(|shard| shard.len()).sum()
}

fn assert_clean(world: &mut World) {
    world.audit();
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

#[test]
fn hs5_a_move_before_the_confirmation_was_answered_ends_its_repetition() {
    let mut world = world(Profile::Default, 2);
    world.connect(0);
    run_until_connected(&mut world);
    // HELLO_CONFIRM is on its way and will arrive; its answer will not.
    world.client(0).links.get_mut(&1).unwrap().down = DEAD;
    world.run_for(MS(11));
    world.impair(0, 1, DEAD);
    world.run_for(MS(40_000));
    assert_eq!(world.checker().commits(), 1, "one move, and the new binding is kept alive by heartbeats");
    assert_eq!(state(&mut world), State::Attached);
    assert_clean(&mut world);
}

#[test]
fn an_unanswered_confirmation_does_not_spin_a_timer() {
    let mut world = world(Profile::Default, 1);
    world.connect(0);
    run_until_connected(&mut world);
    world.client(0).links.get_mut(&1).unwrap().down = DEAD;
    let before = world.timer_calls();
    world.run_for(MS(1_900));
    let calls = world.timer_calls() - before;
    assert!(calls < 60, "{calls} timers in two seconds");
}

#[test]
fn a_session_that_the_gateway_never_confirmed_is_given_up_for_a_new_one_at_once() {
    let mut world = world(Profile::Default, 2);
    world.connect(0);
    world.run_for(MS(11));
    // HELLO_INIT has arrived; HELLO_CONFIRM never will.
    world.client(0).links.get_mut(&1).unwrap().up = DEAD;
    run_until_connected(&mut world);
    world.link_down(0, 1);
    world.run_for(MS(100));
    assert_eq!(ended(&mut world), Some((Reason::PeerTerminated, Some(Reason::SessionLost))));
    world.connect_now(0);
    world.send_up(0, b"over the other path").unwrap();
    world.run_for(MS(50));
    assert_eq!(world.received.len(), 1);
    assert_clean(&mut world);
}

#[test]
fn a_client_with_a_place_of_its_own_gets_in_over_the_next_path_when_the_first_answer_is_lost() {
    let mut world = world(Profile::Default, 2);
    let entry = |_| ClientEntry { inner_index: Some(7), ..ClientEntry::default() };
    world.boot_with(&Policy::profile(Profile::Default), entry);
    world.client(0).links.get_mut(&1).unwrap().down = DEAD;
    world.connect(0);
    world.run_for(MS(3_000));
    let failed = world.client(0).events.iter().any(|(_, event)| matches!(event, ClientEvent::ConnectFailed { .. }));
    assert!(!failed, "{:?}", world.client(0).events);
    assert!(world.client(0).client.is_connected());
    world.run_for(MS(6_000));
    assert_eq!(sessions_at_the_gateway(&world), 1, "the record in BIRTH is gone");
    world.send_up(0, b"up").unwrap();
    world.send_down(0, b"down").unwrap();
    world.run_for(MS(50));
    assert_eq!((world.received.len(), world.client(0).delivered.len()), (1, 1));
    assert_clean(&mut world);
}

#[test]
fn t19_the_operator_ends_a_session_that_has_no_transport() {
    let mut world = connected(1);
    let session = locator(&mut world);
    world.link_down(0, 1);
    world.run_for(MS(4_000));
    world.terminate(session, Reason::OperatorTerminated);
    assert_eq!(sessions_at_the_gateway(&world), 0);
    assert!(world.desk().is_empty());
    assert_clean(&mut world);
}

#[test]
fn t19_the_operator_ends_a_session_in_birth() {
    let mut world = world(Profile::Default, 1);
    world.client(0).links.get_mut(&1).unwrap().down = DEAD;
    world.connect(0);
    world.run_for(MS(15));
    let born = world.shards().iter().flat_map(|shard| shard.views(world.now())).next().unwrap().locator;
    world.terminate(born, Reason::OperatorTerminated);
    assert_eq!(sessions_at_the_gateway(&world), 0);
    assert!(world.desk().is_empty());
}

#[test]
fn hs8_a_successor_ends_a_session_that_has_no_transport_and_keeps_its_address() {
    let mut world = connected(1);
    let (old, policy) = (locator(&mut world), Policy::profile(Profile::Default));
    world.send_up(0, b"old").unwrap();
    world.run_for(MS(50));
    world.link_down(0, 1);
    world.run_for(policy.session.transport_lost_ttl);
    world.run_for(MS(50));
    assert!(world.client(0).client.is_idle());
    assert_eq!(sessions_at_the_gateway(&world), 1, "the gateway noticed later and still holds it");
    world.link_up(0, 1);
    world.connect_now(0);
    assert_ne!(locator(&mut world), old, "INV-04");
    assert_eq!(sessions_at_the_gateway(&world), 1);
    world.send_up(0, b"new").unwrap();
    world.run_for(MS(50));
    assert_eq!(world.received[0].0, world.received[1].0, "the same inner address");
    assert_clean(&mut world);
}

#[test]
fn tc41_a_client_that_slept_less_than_the_transport_limit_reattaches() {
    let mut world = connected(1);
    let session = locator(&mut world);
    world.sleep(0);
    world.run_for(MS(9_000));
    world.wake(0);
    world.run_for(MS(500));
    assert_eq!((state(&mut world), locator(&mut world)), (State::Attached, session));
    world.send_up(0, b"awake").unwrap();
    world.run_for(MS(50));
    assert_eq!(world.received.len(), 1);
    assert_clean(&mut world);
}

#[test]
fn tc41_a_client_that_slept_longer_knows_at_once_and_handshakes_anew() {
    for minutes in [1, 10] {
        let mut world = connected(1);
        world.sleep(0);
        world.run_for(MS(minutes * 60_000));
        // Nothing is heard at first: the session must not live on for another transport limit.
        world.impair(0, 1, DEAD);
        world.wake(0);
        world.run_for(MS(20));
        assert_eq!(ended(&mut world), Some((Reason::TtlTransportLossExpired, None)));
        world.impair(0, 1, Impairment::default());
        world.connect_now(0);
        world.send_up(0, b"awake").unwrap();
        world.run_for(MS(50));
        assert_eq!(world.received.len(), 1);
        assert_clean(&mut world);
    }
}

#[test]
fn hs4_a_hello_sent_again_from_elsewhere_gets_nothing_and_makes_nothing() {
    let mut world = world(Profile::Default, 1);
    world.capture = Some(Vec::new());
    world.client(0).links.get_mut(&1).unwrap().down = DEAD;
    world.connect(0);
    world.run_for(MS(15));
    let capture = world.capture.as_ref().unwrap();
    let (_, hello) = capture.iter().find(|(_, packet)| packet[0] == MessageType::HelloInit as u8).unwrap().clone();
    world.inject("203.0.113.66:6666".parse().unwrap(), &hello);
    world.run_for(MS(5));
    assert_eq!(world.refused(Reason::HelloReplayed), 1);
    assert_eq!(world.desk().len(), 1);
}

#[test]
fn fifty_sessions_of_one_client_leave_nothing_behind() {
    let mut world = world(Profile::Default, 1);
    for _ in 0..50 {
        world.connect_now(0);
        let now = world.now();
        world.client(0).client.terminate(now, Reason::OperatorTerminated);
        // The driver sends what is left.
        world.link_up(0, 1);
        world.run_for(MS(50));
    }
    assert!(world.desk().is_empty());
    assert_eq!(sessions_at_the_gateway(&world), 0);
    assert_clean(&mut world);
}

#[test]
fn hs6_an_answer_that_comes_after_the_next_path_had_its_turn_still_makes_the_session() {
    let mut world = world(Profile::Default, 2);
    world.impair(0, 1, Impairment { delay: MS(900), ..Impairment::default() });
    world.impair(0, 2, DEAD);
    world.connect(0);
    world.run_for(MS(5_000));
    assert!(world.client(0).client.is_connected(), "{:?}", world.client(0).events);
    world.send_up(0, b"slow").unwrap();
    world.run_for(MS(1_000));
    assert_eq!(world.received.len(), 1);
}

#[test]
fn a_quiet_session_costs_a_heartbeat_and_a_probe_and_no_timers_besides() {
    let mut world = connected(2);
    let before = world.timer_calls();
    let sealed = world.sealed();
    world.run_for(MS(60_000));
    // 120 heartbeats and 24 probes, each with its answer.
    let packets = world.sealed() - sealed;
    assert!((280..300).contains(&packets), "{packets} packets a minute");
    let calls = world.timer_calls() - before;
    assert!(calls < 400, "{calls} timers a minute");
    assert_clean(&mut world);
}
