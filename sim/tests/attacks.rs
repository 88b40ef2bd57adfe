//! Forged, replayed and stolen packets change nothing and are counted (§5.3 of the scenarios).

use std::net::SocketAddr;

use jumpgate_protocol::client::ClientEvent;
use jumpgate_protocol::ident::TransportId;
use jumpgate_protocol::machine::State;
use jumpgate_protocol::policy::{Policy, Profile, Rate};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Span;
use jumpgate_protocol::wire::MessageType;
use jumpgate_sim::{Impairment, World, WorldConfig};

const MS: fn(u64) -> Span = Span::from_millis;
const ATTACKER: &str = "203.0.113.66:6666";

fn world(paths: u16) -> World {
    let config = WorldConfig { seed: 11, workers: 2, policy: Policy::profile(Profile::Default) };
    let mut world = World::new(&config, 1, paths);
    world.capture = Some(Vec::new());
    world.connect_now(0);
    world
}

fn captured(world: &mut World, kind: MessageType) -> Vec<(SocketAddr, Vec<u8>)> {
    let capture = world.capture.as_ref().unwrap();
    capture.iter().filter(|(_, packet)| packet[0] == kind as u8).cloned().collect()
}

fn attacker() -> SocketAddr {
    ATTACKER.parse().unwrap()
}

#[test]
fn a01_a_captured_request_sent_again_from_elsewhere_changes_nothing() {
    let mut world = world(2);
    world.run_for(MS(3_000));
    world.move_to(0, 2).unwrap();
    world.run_for(MS(500));
    let before = (world.checker().transitions(), world.checker().commits());
    for (_, packet) in captured(&mut world, MessageType::ReattachRequest) {
        world.inject(attacker(), &packet);
    }
    world.run_for(MS(500));
    assert_eq!((world.checker().transitions(), world.checker().commits()), before);
    assert_eq!(world.refused(Reason::ReplayDetected), 1);
}

#[test]
fn a03_nothing_is_revived_by_a_replay_after_the_end() {
    let mut world = world(2);
    world.run_for(MS(3_000));
    world.move_to(0, 2).unwrap();
    world.run_for(MS(500));
    let requests = captured(&mut world, MessageType::ReattachRequest);
    let now = world.now();
    let locator = world.client(0).client.status(now).locator.unwrap();
    world.terminate(locator, Reason::OperatorTerminated);
    world.run_for(MS(100));
    let before = world.checker().transitions();
    for (from, packet) in requests {
        world.inject(from, &packet);
    }
    world.run_for(MS(100));
    assert_eq!(world.checker().transitions(), before);
    assert_eq!(world.refused(Reason::SessionNotFound), 1);
}

#[test]
fn a06_ten_thousand_forged_requests_change_nothing_and_the_session_goes_on() {
    let mut world = world(2);
    world.run_for(MS(3_000));
    world.move_to(0, 2).unwrap();
    world.run_for(MS(500));
    let (_, genuine) = captured(&mut world, MessageType::ReattachRequest).remove(0);
    let before = world.checker().transitions();
    for n in 0..10_000u32 {
        let mut forged = genuine.clone();
        // A nonce above the last one, and a proof that cannot fit it.
        forged[12..20].copy_from_slice(&(1_000 + u64::from(n)).to_be_bytes());
        world.inject(attacker(), &forged);
    }
    world.run_for(MS(100));
    assert_eq!(world.checker().transitions(), before);
    assert_eq!(world.refused(Reason::AuthFail), 10_000);
    world.send_up(0, b"undisturbed").unwrap();
    world.run_for(MS(50));
    assert_eq!(world.received.len(), 1);
    let ended = world.client(0).events.iter().any(|(_, event)| matches!(event, ClientEvent::Terminated { .. }));
    assert!(!ended, "INV-14: garbage ends nothing");
}

#[test]
fn a17_authentic_data_from_a_tuple_that_is_not_bound_is_dropped_and_moves_nothing() {
    let mut world = world(1);
    world.send_up(0, b"one").unwrap();
    let (_, packet) = captured(&mut world, MessageType::Data).remove(0);
    world.inject(attacker(), &packet);
    world.run_for(MS(1));
    assert_eq!(world.refused(Reason::WrongTransport), 1);
    world.run_for(MS(50));
    assert_eq!(world.received.len(), 1, "the window was not touched: the genuine copy still counts");
    assert_eq!(world.checker().commits(), 0);
}

#[test]
fn i06_a_data_packet_counts_once() {
    let mut world = world(1);
    world.send_up(0, b"one").unwrap();
    world.run_for(MS(50));
    let (from, packet) = captured(&mut world, MessageType::Data).remove(0);
    for _ in 0..5 {
        world.inject(from, &packet);
    }
    world.run_for(MS(50));
    assert_eq!(world.received.len(), 1);
    assert_eq!(world.refused(Reason::DataReplay), 5);
}

#[test]
fn a13_answers_that_nobody_asked_for_change_nothing_at_the_client() {
    let mut world = world(2);
    world.run_for(MS(3_000));
    let now = world.now();
    let before = format!("{:?}", world.client(0).client.status(now).state);
    for kind in MessageType::ALL {
        let mut packet = vec![0; 120];
        packet[0] = *kind as u8;
        packet[1] = 0x10;
        let result = world.client(0).client.datagram_in(now, jumpgate_protocol::ident::TransportId(1), &mut packet);
        assert!(result.is_err(), "{kind}");
    }
    assert_eq!(format!("{:?}", world.client(0).client.status(now).state), before);
}

#[test]
fn k10_a_gateway_that_lost_its_sessions_proves_it_and_the_client_starts_anew() {
    let mut world = world(2);
    world.run_for(MS(3_000));
    let policy = Policy::profile(Profile::Default);
    world.restart_gateway(&policy);
    world.run_for(MS(6_000));
    let lost = world.client(0).events.iter().any(|(_, event)| {
        matches!(event, ClientEvent::Terminated { reason: Reason::PeerTerminated, detail: Some(Reason::SessionLost) })
    });
    assert!(lost, "{:?}", world.client(0).events);
    world.connect_now(0);
    assert!(world.client(0).client.is_connected());
    world.send_up(0, b"anew").unwrap();
    world.run_for(MS(50));
    assert_eq!(world.received.len(), 1);
}

#[test]
fn a30_a_reset_with_a_wrong_token_ends_nothing() {
    let mut world = world(2);
    let now = world.now();
    let locator = world.client(0).client.status(now).locator.unwrap();
    let reset = jumpgate_protocol::wire::SessionReset { locator, token: [9; 16] };
    let mut packet = reset.to_bytes().to_vec();
    let id = jumpgate_protocol::ident::TransportId(1);
    assert!(world.client(0).client.datagram_in(now, id, &mut packet).is_err());
    assert!(world.client(0).client.is_connected());
}

#[test]
fn a11_beyond_the_handshake_rate_nothing_is_kept_without_a_cookie_and_clients_still_get_in() {
    let mut policy = Policy::profile(Profile::Default);
    policy.limits.handshakes_total = Rate::even(10);
    let config = WorldConfig { seed: 3, workers: 1, policy };
    let mut world = World::new(&config, 40, 1);
    for client in 0..40 {
        world.connect(client);
    }
    world.run_for(MS(3_000));
    assert!(world.refused(Reason::CookieRequired) > 0);
    let connected = (0..40).filter(|client| world.client(*client).client.is_connected()).count();
    assert_eq!(connected, 40);
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

#[test]
fn tc30_the_operator_ends_a_session_and_the_client_knows_why() {
    let mut world = world(1);
    let now = world.now();
    let locator = world.client(0).client.status(now).locator.unwrap();
    world.terminate(locator, Reason::GatewayShutdown);
    world.run_for(MS(50));
    let told = world.client(0).events.iter().any(|(_, event)| {
        matches!(
            event,
            ClientEvent::Terminated { reason: Reason::PeerTerminated, detail: Some(Reason::GatewayShutdown) }
        )
    });
    assert!(told);
    assert!(world.shards().iter().all(|shard| shard.is_empty()));
}

#[test]
fn a31_a_request_for_one_path_that_is_delivered_from_another_leaves_both_ends_on_one_path() {
    let mut world = world(2);
    world.client(0).links.get_mut(&2).unwrap().up = Impairment { blackhole: true, ..Impairment::default() };
    world.move_to(0, 2).unwrap();
    world.run_for(MS(1));
    let (_, request) = captured(&mut world, MessageType::ReattachRequest).remove(0);
    let bound = world.client(0).links[&1].external;
    world.inject(bound, &request);
    world.run_for(MS(30));
    let now = world.now();
    let status = world.client(0).client.status(now);
    assert_ne!(status.active, Some(TransportId(2)), "RS-4: an answer that comes by another path binds nothing");
    // L-4: whoever moved it by mistake loses it to the next request.
    world.client(0).links.get_mut(&2).unwrap().up = Impairment::default();
    world.run_for(MS(12_000));
    let now = world.now();
    let status = world.client(0).client.status(now);
    let views: Vec<_> = world.shards().iter().flat_map(|shard| shard.views(now)).collect();
    assert_eq!((status.state, views[0].state), (State::Attached, State::Attached));
    assert_eq!((status.active, status.epoch), (views[0].transport, views[0].epoch));
    assert_eq!(world.checker().violations(), &[] as &[String]);
}
