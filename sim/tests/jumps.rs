//! Jumps of one client, on the real protocol code and virtual time: planned, link down, black hole, NAT rebinding.

use jumpgate_protocol::client::{ClientEvent, PathRole};
use jumpgate_protocol::ident::TransportId;
use jumpgate_protocol::machine::State;
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use jumpgate_sim::{Impairment, World, WorldConfig};

const MS: fn(u64) -> Span = Span::from_millis;

fn world(profile: Profile, paths: u16) -> World {
    let config = WorldConfig { seed: 7, workers: 2, policy: Policy::profile(profile) };
    let mut world = World::new(&config, 1, paths);
    world.connect_now(0);
    assert!(world.client(0).client.is_connected());
    world
}

/// The switches that the client saw: when, to which path, under which epoch, with which detail.
fn switches(world: &mut World) -> Vec<(Time, u16, u64, Option<Reason>)> {
    let events = &world.client(0).events;
    events
        .iter()
        .filter_map(|(at, event)| match event {
            ClientEvent::Switched { to, epoch, detail, .. } => Some((*at, to.0, *epoch, *detail)),
            _ => None,
        })
        .collect()
}

fn assert_clean(world: &World) {
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

fn role(world: &mut World, path: u16) -> PathRole {
    let now = world.now();
    let status = world.client(0).client.status(now);
    status.paths.iter().find(|found| found.id == TransportId(path)).unwrap().role
}

#[test]
fn tc35_data_flows_both_ways_after_the_handshake_and_after_a_move() {
    let mut world = world(Profile::Default, 2);
    let locator = {
        let now = world.now();
        world.client(0).client.status(now).locator
    };
    for n in 0..3u8 {
        world.send_up(0, &[n]).unwrap();
        world.send_down(0, &[n, n]).unwrap();
    }
    world.run_for(MS(50));
    assert_eq!(world.received.len(), 3);
    assert_eq!(world.client(0).delivered.len(), 3);
    world.move_to(0, 2).unwrap();
    world.run_for(MS(100));
    for n in 3..6u8 {
        world.send_up(0, &[n]).unwrap();
        world.send_down(0, &[n, n]).unwrap();
    }
    world.run_for(MS(50));
    assert_eq!(world.received.len(), 6);
    assert_eq!(world.client(0).delivered.len(), 6);
    let now = world.now();
    assert_eq!(world.client(0).client.status(now).locator, locator, "INV-03");
    assert_eq!(world.checker().commits(), 1);
    assert_clean(&world);
}

#[test]
fn sp6_a_planned_move_over_a_validated_standby_loses_no_packet() {
    let mut world = world(Profile::Default, 2);
    world.run_for(MS(100));
    assert_eq!(role(&mut world, 2), PathRole::Validated);
    let mut sent = 0u32;
    for step in 0..200 {
        if step == 100 {
            world.move_to(0, 2).unwrap();
        }
        world.send_up(0, &sent.to_be_bytes()).unwrap();
        world.send_down(0, &sent.to_be_bytes()).unwrap();
        sent += 1;
        world.run_for(MS(2));
    }
    world.run_for(MS(100));
    assert_eq!(world.received.len() as u32, sent, "upwards");
    assert_eq!(world.client(0).delivered.len() as u32, sent, "downwards");
    let switches = switches(&mut world);
    assert_eq!(switches.len(), 1);
    assert_eq!((switches[0].1, switches[0].2), (2, 2));
    assert_clean(&world);
}

#[test]
fn tc18_a_link_down_moves_the_session_within_one_round_trip() {
    let mut world = world(Profile::Default, 2);
    world.run_for(MS(3_000));
    let cut = world.now();
    world.link_down(0, 1);
    world.run_for(MS(500));
    let switches = switches(&mut world);
    assert_eq!(switches.len(), 1);
    assert_eq!(switches[0].0.since(cut), MS(20), "TB-02, TB-04: one round trip of 20 ms");
    assert_clean(&world);
}

#[test]
fn tc04_a_silent_black_hole_is_found_within_the_objective_of_the_profile() {
    for (profile, objective) in [(Profile::Default, 2_000), (Profile::Mobile, 1_000), (Profile::Fast, 300)] {
        let mut world = world(profile, 2);
        world.run_for(MS(5_000));
        let cut = world.now();
        world.impair(0, 1, Impairment { blackhole: true, ..Impairment::default() });
        world.run_for(MS(objective + 20 + 30));
        let switches = switches(&mut world);
        assert_eq!(switches.len(), 1, "{profile:?}");
        let outage = switches[0].0.since(cut);
        assert!(outage <= MS(objective + 20 + 10), "{profile:?}: {outage}");
        assert_clean(&world);
    }
}

#[test]
fn tc13_a_nat_rebinding_is_found_by_a_heartbeat_and_moves_only_by_a_request() {
    let mut world = world(Profile::Default, 1);
    world.run_for(MS(3_000));
    world.rebind(0, 1);
    world.send_up(0, b"from the new port").unwrap();
    world.run_for(MS(15));
    assert!(world.received.is_empty(), "INV-26: data from the new port is refused until then");
    assert_eq!(world.refused(Reason::WrongTransport), 1);
    world.run_for(MS(1_000));
    let switches = switches(&mut world);
    assert_eq!(switches.len(), 1);
    assert_eq!((switches[0].1, switches[0].3), (1, Some(Reason::NatRebindDetected)));
    world.send_up(0, b"again").unwrap();
    world.run_for(MS(15));
    assert_eq!(world.received.len(), 1);
    assert_clean(&world);
}

#[test]
fn tc16_ten_rotations_of_a_nat_are_ten_reattaches() {
    let mut world = world(Profile::Default, 1);
    for _ in 0..10 {
        world.run_for(MS(60_000));
        world.rebind(0, 1);
    }
    world.run_for(MS(60_000));
    assert_eq!(switches(&mut world).len(), 10);
    assert_eq!(world.checker().commits(), 10);
    assert_clean(&world);
}

#[test]
fn tc02_without_a_spare_the_session_ends_at_the_transport_limit_and_not_before() {
    let mut world = world(Profile::Default, 1);
    world.run_for(MS(1_000));
    world.link_down(0, 1);
    world.run_for(MS(14_900));
    assert!(world.client(0).client.is_connected());
    world.run_for(MS(200));
    assert!(!world.client(0).client.is_connected());
    let ended = world
        .client(0)
        .events
        .iter()
        .any(|(_, event)| matches!(event, ClientEvent::Terminated { reason: Reason::TtlTransportLossExpired, .. }));
    assert!(ended);
    world.run_for(MS(20_000));
    assert!(world.shards().iter().all(|shard| shard.is_empty()), "the gateway's record ended too");
    assert_clean(&world);
}

#[test]
fn tc03_a_spare_that_appears_before_the_transport_limit_saves_the_session() {
    let mut world = world(Profile::Default, 2);
    world.link_down(0, 2);
    world.run_for(MS(1_000));
    world.link_down(0, 1);
    world.run_for(MS(13_000));
    world.link_up(0, 2);
    world.run_for(MS(2_000));
    assert_eq!(switches(&mut world).len(), 1);
    let now = world.now();
    assert_eq!(world.client(0).client.status(now).state, State::Attached);
    assert_clean(&world);
}

#[test]
fn rs6_a_lost_acknowledgement_is_given_again_and_is_no_second_switch() {
    let mut world = world(Profile::Default, 2);
    world.run_for(MS(3_000));
    let deaf = Impairment { blackhole: true, ..Impairment::default() };
    world.client(0).links.get_mut(&2).unwrap().down = deaf;
    world.move_to(0, 2).unwrap();
    world.run_for(MS(45));
    assert_eq!(world.checker().commits(), 1, "the gateway has committed");
    world.client(0).links.get_mut(&2).unwrap().down = Impairment::default();
    world.run_for(MS(200));
    assert_eq!(world.checker().commits(), 1);
    assert_eq!(switches(&mut world).len(), 1);
    assert_clean(&world);
}

#[test]
fn rs7_a_client_that_lost_every_acknowledgement_learns_the_epoch_and_comes_back() {
    let mut world = world(Profile::Default, 2);
    world.run_for(MS(3_000));
    let deaf = Impairment { blackhole: true, ..Impairment::default() };
    world.client(0).links.get_mut(&2).unwrap().down = deaf;
    world.move_to(0, 2).unwrap();
    world.run_for(MS(2_500));
    world.client(0).links.get_mut(&2).unwrap().down = Impairment::default();
    world.run_for(MS(8_000));
    world.send_up(0, b"still here").unwrap();
    world.send_down(0, b"and back").unwrap();
    world.run_for(MS(100));
    assert_eq!(world.received.len(), 1, "L-3");
    assert_eq!(world.client(0).delivered.len(), 1);
    assert_clean(&world);
}

#[test]
fn tc25_late_packets_from_the_old_path_are_taken_while_it_drains_and_not_after() {
    let mut world = world(Profile::Default, 2);
    world.run_for(MS(3_000));
    let slow = Impairment { delay: MS(200), ..Impairment::default() };
    world.client(0).links.get_mut(&1).unwrap().up = slow;
    world.send_up(0, b"late but in time").unwrap();
    world.run_for(MS(1));
    world.move_to(0, 2).unwrap();
    world.run_for(MS(300));
    assert_eq!(world.received.len(), 1);
    world.client(0).links.get_mut(&1).unwrap().up.delay = MS(10);
    world.run_for(MS(3_000));
    world.client(0).links.get_mut(&2).unwrap().up.delay = MS(400);
    world.send_up(0, b"too late").unwrap();
    world.client(0).links.get_mut(&2).unwrap().up.delay = MS(10);
    world.move_to(0, 1).unwrap();
    world.run_for(MS(1_000));
    assert_eq!(world.received.len(), 1);
    assert_eq!(world.refused(Reason::WrongTransport), 1);
    assert_clean(&world);
}
