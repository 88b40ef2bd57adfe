//! Strangers, thieves of packets and hostile neighbours: they change nothing, cost little, and reach nobody else.

use std::net::SocketAddr;

use jumpgate_protocol::gateway::SessionView;
use jumpgate_protocol::ident::{Locator, TransportId};
use jumpgate_protocol::machine::State;
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Span;
use jumpgate_protocol::wire::{Cause, MessageType, RequestedPolicy};
use jumpgate_sim::{Holder, World, WorldConfig};

const MS: fn(u64) -> Span = Span::from_millis;

fn world(clients: usize) -> World {
    let config = WorldConfig { seed: 61, workers: 2, policy: Policy::profile(Profile::Default) };
    let mut world = World::new(&config, clients, 2);
    world.capture = Some(Vec::new());
    for client in 0..clients {
        world.connect_now(client);
    }
    world
}

fn stranger() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 66], 6_666))
}

fn locator(world: &mut World, client: usize) -> Locator {
    let now = world.now();
    world.client(client).client.status(now).locator.expect("a session")
}

fn view(world: &World, locator: Locator) -> Option<SessionView> {
    world.shards()[world.owner(locator)].view(world.now(), locator)
}

/// What nobody but its own client may change of a session.
fn standing(world: &World, locator: Locator) -> impl PartialEq + std::fmt::Debug + use<> {
    view(world, locator)
        .map(|view| (view.state, view.version, view.epoch, view.tuple.map(|tuple| tuple.peer), view.received))
}

fn captured(world: &World, kind: MessageType) -> Vec<(SocketAddr, Vec<u8>)> {
    let all = world.capture.iter().flatten();
    all.filter(|(_, packet)| packet[0] == kind as u8).cloned().collect()
}

fn assert_clean(world: &mut World) {
    world.audit();
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

#[test]
fn a02_a_captured_request_at_another_worker_is_refused_and_changes_nothing() {
    let mut world = world(1);
    let session = locator(&mut world, 0);
    world.move_to(0, 2).unwrap();
    world.run_for(MS(500));
    let before = standing(&world, session);
    let (from, request) = captured(&world, MessageType::ReattachRequest).remove(0);
    let other = 1 - world.owner(session);
    assert_eq!(world.misdeliver(other, from, &request), Err(Reason::NotAuthoritativeOwner));
    assert_eq!(world.misdeliver(other, stranger(), &request), Err(Reason::NotAuthoritativeOwner));
    world.run_for(MS(100));
    assert_eq!(standing(&world, session), before);
    assert!(world.shards()[other].is_empty());
    assert_clean(&mut world);
}

#[test]
fn k08_a_second_worker_neither_reads_nor_answers_nor_writes_what_the_first_owns() {
    let mut world = world(1);
    let session = locator(&mut world, 0);
    world.send_up(0, b"mine").unwrap();
    world.move_to(0, 2).unwrap();
    world.run_for(MS(3_000));
    let before = standing(&world, session);
    let other = 1 - world.owner(session);
    let all: Vec<_> = world.capture.take().unwrap();
    let sealed = world.sealed();
    for (from, packet) in &all {
        assert!(world.misdeliver(other, *from, packet).is_err());
    }
    assert_eq!(world.sealed(), sealed, "it has no key to answer with");
    assert!(world.shards()[other].is_empty(), "AS-4, INV-20: one writer");
    assert_eq!(standing(&world, session), before);
    assert_clean(&mut world);
}

#[test]
fn a07_a_valid_proof_of_one_session_is_worth_nothing_for_another() {
    let mut world = world(2);
    let (mine, theirs) = (locator(&mut world, 0), locator(&mut world, 1));
    world.censored = vec![MessageType::ReattachRequest];
    world.move_to(0, 2).unwrap();
    world.run_for(MS(1));
    let (from, mut request) = captured(&world, MessageType::ReattachRequest).remove(0);
    let before = (standing(&world, mine), standing(&world, theirs));
    request[4..12].copy_from_slice(&theirs.0.to_be_bytes());
    world.inject(from, &request);
    world.run_for(MS(1));
    assert_eq!(world.refused(Reason::AuthFail), 1);
    assert_eq!((standing(&world, mine), standing(&world, theirs)), before);
    assert_clean(&mut world);
}

#[test]
fn a08_a_session_of_another_client_cannot_be_replaced_by_naming_it() {
    let mut world = world(2);
    let (theirs, before) = (locator(&mut world, 1), world.received.len());
    let mine = locator(&mut world, 0);
    world.disconnect(0);
    world.run_for(MS(100));
    world.replace_client(0, RequestedPolicy::new(), Some(theirs));
    world.connect_now(0);
    assert_eq!(world.refused(Reason::SecSessionFixationAttempt), 1);
    assert_ne!(locator(&mut world, 0), mine, "INV-03");
    assert_eq!(view(&world, theirs).map(|view| view.state), Some(State::Attached), "HS-8: left alone");
    world.send_up(1, b"still here").unwrap();
    world.run_for(MS(50));
    assert_eq!(world.received.len(), before + 1);
    assert_clean(&mut world);
}

#[test]
fn a09_a_flood_of_requests_with_random_ids_leaves_no_trace_but_counters() {
    let mut world = world(1);
    let session = locator(&mut world, 0);
    world.move_to(0, 2).unwrap();
    world.run_for(MS(500));
    let (_, request) = captured(&world, MessageType::ReattachRequest).remove(0);
    let (before, sealed) = (standing(&world, session), world.sealed());
    for n in 0..20_000u64 {
        let mut packet = request.clone();
        packet[4..12].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        world.inject(stranger(), &packet);
        if n % 1_000 == 0 {
            world.run_for(MS(1));
        }
    }
    world.run_for(MS(1));
    assert_eq!(world.refused(Reason::SessionNotFound), 20_000);
    // RF-3: answered under one limiter, each answer shorter than the request.
    let answers = world.take_mail(stranger());
    assert!(answers.len() <= 2 * 1_000 + 100, "{}", answers.len());
    assert!(answers.iter().all(|answer| answer.len() < request.len()));
    let held: usize = world.shards().iter().map(|shard| shard.len()).sum();
    assert_eq!((held, world.desk().len(), world.sealed()), (1, 1, sealed), "INV-22: memory is what it was");
    assert_eq!(standing(&world, session), before);
    assert_clean(&mut world);
}

#[test]
fn a26_a_flood_of_replays_is_refused_unanswered_and_the_windows_stay_as_they_are() {
    let mut world = world(1);
    let session = locator(&mut world, 0);
    for n in 0..50u8 {
        world.send_up(0, &[n]).unwrap();
        world.run_for(MS(100));
    }
    world.move_to(0, 2).unwrap();
    world.run_for(MS(2_000));
    world.send_up(0, b"here").unwrap();
    world.run_for(MS(100));
    let bound = view(&world, session).unwrap().tuple.unwrap().peer;
    let all: Vec<_> = world.capture.take().unwrap();
    let replayed: Vec<_> =
        all.iter().filter(|(from, packet)| *from == bound && packet[0] != MessageType::ReattachRequest as u8).collect();
    let (before, sealed, timers) = (standing(&world, session), world.sealed(), world.timer_calls());
    for _ in 0..200 {
        for (from, packet) in &replayed {
            world.inject(*from, packet);
        }
    }
    world.run_for(Span::from_micros(1));
    assert_eq!(standing(&world, session), before, "INV-12");
    assert_eq!((world.sealed(), world.timer_calls()), (sealed, timers), "AR-6: no answer, no timer");
    let counted = [Reason::DataReplay, Reason::ReplayDetected, Reason::DataStaleEpoch].map(|why| world.refused(why));
    assert_eq!(counted.iter().sum::<u64>(), 200 * replayed.len() as u64, "{counted:?}");
    assert_clean(&mut world);
}

#[test]
fn i05_a_live_client_takes_no_other_id_from_anybody() {
    let mut world = world(2);
    let (mine, theirs) = (locator(&mut world, 0), locator(&mut world, 1));
    // Everything that the gateway ever said to anybody, also answers to handshakes, told to the wrong client.
    world.disconnect(1);
    world.run_for(MS(100));
    world.overhear_answers();
    world.connect_now(1);
    world.run_for(MS(3_000));
    let told = world.overheard_answers();
    assert!(told.iter().any(|packet| packet[0] == MessageType::HelloAck as u8));
    for packet in &told {
        world.inject_to_client(0, 1, packet);
        world.inject_to_client(0, 2, packet);
    }
    world.run_for(MS(50));
    assert_eq!(locator(&mut world, 0), mine, "INV-03");
    assert_ne!(mine, theirs);
    assert_clean(&mut world);
}

#[test]
fn a32_nothing_that_a_stranger_says_adds_a_path_or_moves_a_client() {
    let mut world = world(1);
    world.run_for(MS(3_000));
    let status = |world: &mut World| {
        let now = world.now();
        let status = world.client(0).client.status(now);
        let paths: Vec<_> = status.paths.iter().map(|path| (path.id, path.gateway, path.role)).collect();
        (status.locator, status.state, status.epoch, status.active, paths)
    };
    let before = status(&mut world);
    let session = locator(&mut world, 0);
    for kind in MessageType::ALL {
        let mut packet = vec![0x5a; 300];
        packet[0] = *kind as u8;
        packet[1] = 0x10;
        packet[2] = 0;
        packet[3] = 0;
        packet[4..12].copy_from_slice(&session.0.to_be_bytes());
        for path in [1, 2] {
            world.inject_to_client(0, path, &packet);
        }
    }
    world.run_for(MS(1));
    assert_eq!(status(&mut world), before, "SP-1: endpoints come from protected messages only");
    assert!(before.4.iter().all(|(id, ..)| [TransportId(1), TransportId(2)].contains(id)));
    assert_clean(&mut world);
}

#[test]
fn s06_a_hostile_session_takes_nothing_from_the_others() {
    // The same run with and without it: the others send, receive and move exactly as often.
    let run = |hostile: bool| {
        let config = WorldConfig { seed: 62, workers: 2, policy: Policy::profile(Profile::Default) };
        let mut world = World::new(&config, 9, 2);
        for client in 0..8 {
            world.connect_now(client);
        }
        let from = stranger();
        let mut holder = Holder::connect(&mut world, 8, from);
        for step in 0..600u16 {
            if hostile {
                for n in 0..20u8 {
                    let garbage = holder.data(0xee, &[n; 100]);
                    world.inject_genuine(from, &garbage);
                    let request = holder.request(&world, u64::from(n), Cause::HardDead, u16::from(n));
                    world.inject_genuine(from, &request);
                    world.inject(from, &[0x16; 60]);
                }
            }
            for client in 0..8 {
                world.send_up(client, &step.to_be_bytes()).unwrap();
                world.send_down(client, &step.to_be_bytes()).unwrap();
                if step % 97 == client as u16 {
                    let _denied = world.move_to(client, 1 + step % 2);
                }
            }
            world.run_for(MS(10));
        }
        world.run_for(MS(500));
        let others: Vec<_> = (0..8)
            .map(|client| {
                let session = locator(&mut world, client);
                let view = view(&world, session).unwrap();
                (view.state, view.version, view.epoch, view.received, view.sent, world.client(client).delivered.len())
            })
            .collect();
        assert_clean(&mut world);
        others
    };
    assert_eq!(run(true), run(false), "INV-27");
}
