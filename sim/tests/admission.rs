//! Who gets in: names of other clients' sessions, and attempts to fill the tables.

use jumpgate_protocol::client::ClientEvent;
use jumpgate_protocol::ident::Locator;
use jumpgate_protocol::policy::{Policy, Profile, Rate};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Span;
use jumpgate_protocol::wire::{MessageType, RequestedPolicy};
use jumpgate_sim::{World, WorldConfig};

const MS: fn(u64) -> Span = Span::from_millis;
/// Where the locator stands in the header of a session's messages, in bytes.
const LOCATOR: std::ops::Range<usize> = 4..12;

/// And its counter.
const COUNTER: std::ops::Range<usize> = 12..20;

fn policy() -> Policy {
    Policy::profile(Profile::Default)
}

fn locator(world: &mut World, client: usize) -> Locator {
    let now = world.now();
    world.client(client).client.status(now).locator.expect("a session")
}

fn refusals(world: &mut World, client: usize) -> Vec<Reason> {
    let events = world.client(client).events.iter();
    events
        .filter_map(|(_, event)| match event {
            ClientEvent::ConnectFailed { reason } => Some(*reason),
            _ => None,
        })
        .collect()
}

fn assert_clean(world: &mut World) {
    world.audit();
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

#[test]
fn a08_whoever_names_the_session_of_another_client_gets_its_own_and_the_other_is_left_alone() {
    let mut world = World::new(&WorldConfig { seed: 61, workers: 2, policy: policy() }, 2, 1);
    world.connect_now(0);
    let victim = locator(&mut world, 0);
    world.replace_client(1, RequestedPolicy::new(), Some(victim));
    world.connect_now(1);
    assert!(world.client(1).client.is_connected());
    assert_eq!(world.refused(Reason::SecSessionFixationAttempt), 1, "HS-8: seen");
    assert_eq!(world.fixations(), [victim], "and told");
    assert_eq!(locator(&mut world, 0), victim);
    world.send_up(0, b"still mine").unwrap();
    world.run_for(MS(100));
    assert_eq!(world.received.len(), 1);
    assert_clean(&mut world);
}

#[test]
fn a07_messages_of_one_session_under_the_name_of_another_are_refused_and_change_neither() {
    let mut world = World::new(&WorldConfig { seed: 62, workers: 2, policy: policy() }, 2, 2);
    world.connect_now(0);
    world.connect_now(1);
    let victim = locator(&mut world, 0);
    world.capture = Some(Vec::new());
    world.run_for(MS(3_000));
    world.link_down(1, 1);
    world.run_for(MS(100));
    let captured = world.capture.take().unwrap();
    let attacker = locator(&mut world, 1);
    let own: Vec<_> = captured.iter().filter(|(_, packet)| packet[LOCATOR] == attacker.0.to_be_bytes()).collect();
    assert!(own.iter().any(|(_, packet)| packet[0] == MessageType::ReattachRequest as u8));
    let (transitions, before) = (world.checker().transitions(), world.refused(Reason::AuthFail));
    for (index, (from, packet)) in own.iter().enumerate() {
        let mut stolen = packet.clone();
        stolen[LOCATOR].copy_from_slice(&victim.0.to_be_bytes());
        // A counter that no window has seen: nothing but the key stands in the way.
        stolen[COUNTER].copy_from_slice(&(1_000_000 + index as u64).to_be_bytes());
        world.inject(*from, &stolen);
    }
    world.run_for(MS(100));
    assert_eq!(world.refused(Reason::AuthFail) - before, own.len() as u64, "every one of them");
    assert_eq!(world.checker().transitions(), transitions);
    assert_clean(&mut world);
}

#[test]
fn a12_the_table_of_sessions_fills_up_to_its_limit_and_those_inside_stay() {
    let mut limited = policy();
    limited.limits.max_half_open = 16;
    limited.limits.max_sessions = 16;
    let mut world = World::new(&WorldConfig { seed: 63, workers: 2, policy: limited }, 24, 1);
    for client in 0..16 {
        world.connect_now(client);
        assert!(world.client(client).client.is_connected(), "{client}");
    }
    for client in 16..24 {
        world.connect(client);
    }
    world.run_for(MS(6_000));
    for client in 16..24 {
        assert_eq!(refusals(&mut world, client), [Reason::CapacityExceeded], "explicit, since the client is known");
    }
    assert_eq!(world.desk().len(), 16);
    for client in 0..16 {
        world.send_up(client, b"kept").unwrap();
    }
    world.run_for(MS(100));
    assert_eq!(world.received.len(), 16, "running sessions are kept");
    let first = locator(&mut world, 0);
    world.terminate(first, Reason::OperatorTerminated);
    world.connect_now(16);
    assert!(world.client(16).client.is_connected(), "a place that is free can be taken");
    assert_clean(&mut world);
}

#[test]
fn a12_one_client_has_no_more_sessions_than_its_share() {
    let mut limited = policy();
    limited.limits.max_sessions_per_identity = 2;
    let mut world = World::new(&WorldConfig { seed: 64, workers: 2, policy: limited }, 2, 1);
    for _ in 0..2 {
        world.replace_client(0, RequestedPolicy::new(), None);
        world.connect_now(0);
        assert!(world.client(0).client.is_connected());
    }
    world.replace_client(0, RequestedPolicy::new(), None);
    world.connect(0);
    world.run_for(MS(1_000));
    assert_eq!(refusals(&mut world, 0), [Reason::CapacityExceeded]);
    world.connect_now(1);
    assert!(world.client(1).client.is_connected(), "others have theirs");
    assert_clean(&mut world);
}

#[test]
fn a12_one_source_opens_no_more_handshakes_than_its_rate_and_others_are_not_slowed_down() {
    let mut limited = policy();
    limited.limits.handshakes_per_source = Rate::new(1, 3);
    limited.limits.half_open_per_identity = 64;
    let mut world = World::new(&WorldConfig { seed: 65, workers: 2, policy: limited }, 2, 1);
    world.censored.push(MessageType::HelloAck);
    for _ in 0..10 {
        world.replace_client(0, RequestedPolicy::new(), None);
        world.connect(0);
        world.run_for(MS(20));
    }
    assert_eq!(world.refused(Reason::RateLimited), 7);
    assert_eq!(world.desk().len(), 3, "nothing is kept for the rest (INV-37)");
    world.censored.clear();
    world.connect_now(1);
    assert!(world.client(1).client.is_connected());
    world.run_for(MS(10_000));
    assert_clean(&mut world);
}
