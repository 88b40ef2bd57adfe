//! The planned restart of the gateway, K09 to K12: everything goes on, or nothing does.

use jumpgate_protocol::audit::EventType;
use jumpgate_protocol::gateway::{HandoverError, SessionView};
use jumpgate_protocol::machine::State;
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use jumpgate_sim::{Churn, Impairment, Pace, World, WorldConfig};

const MS: fn(u64) -> Span = Span::from_millis;
const CLIENTS: usize = 4;

fn policy() -> Policy {
    Policy::profile(Profile::Default)
}

/// Connected clients with traffic each way.
fn world() -> World {
    let mut world = World::new(&WorldConfig { seed: 9, workers: 3, policy: policy() }, CLIENTS, 2);
    (0..CLIENTS).for_each(|client| world.connect_now(client));
    world.run_for(MS(3_000));
    assert_eq!(traffic(&mut world, 10), (CLIENTS * 10, CLIENTS * 10));
    world
}

/// Packets each way, and how many of them came through.
fn traffic(world: &mut World, packets: usize) -> (usize, usize) {
    let before = world.came_through();
    for _ in 0..packets {
        for client in 0..CLIENTS {
            let _lost = (world.send_up(client, b"up"), world.send_down(client, b"down"));
        }
        world.run_for(MS(20));
    }
    world.run_for(MS(100));
    let after = world.came_through();
    ((after.0 - before.0) as usize, (after.1 - before.1) as usize)
}

fn views(world: &World) -> Vec<SessionView> {
    let mut views: Vec<_> = world.shards().iter().flat_map(|shard| shard.views(world.now())).collect();
    views.sort_by_key(|view| view.locator);
    views
}

/// What a planned restart keeps.
fn kept(world: &World) -> Vec<impl PartialEq + std::fmt::Debug + use<>> {
    let keep = |view: SessionView| (view.identity, view.locator, view.state, view.version, view.epoch, view.tuple);
    views(world).into_iter().map(keep).collect()
}

fn assert_clean(world: &mut World) {
    world.audit();
    assert_eq!(world.checker().violations(), [] as [String; 0]);
}

#[test]
fn k09_a_planned_restart_keeps_sessions_epochs_and_nonces_and_nobody_notices() {
    let mut world = world();
    let before = kept(&world);
    for _ in 0..3 {
        world.hand_over(&policy(), MS(400));
        assert_eq!(kept(&world), before, "state, version, epoch and binding as they were");
        assert_eq!(traffic(&mut world, 150), (CLIENTS * 150, CLIENTS * 150));
    }
    world.run_for(MS(20_000));
    assert_eq!(kept(&world), before, "what was lost meanwhile is held against no path, at neither end");
    let handshakes = views(&world).len() as u64;
    assert_eq!(world.records().of_gateway(EventType::SessionCreated), handshakes, "no second birth");
    assert_eq!(world.records().of_gateway(EventType::GatewayRestart), 6);
    assert_clean(&mut world);
}

#[test]
fn k09_ky9_restarts_that_follow_each_other_at_any_distance_show_no_loss() {
    let mut world = world();
    let before = kept(&world);
    for packets in (5..60).step_by(5) {
        for _ in 0..2 {
            world.hand_over(&policy(), MS(400));
            assert_eq!(traffic(&mut world, packets), (CLIENTS * packets, CLIENTS * packets));
        }
        // Long enough for both ends to judge what they measured.
        traffic(&mut world, 200);
        assert_eq!(kept(&world), before, "{packets} packets between two restarts");
    }
    assert_clean(&mut world);
}

#[test]
fn ow8_sm13_silence_does_not_count_while_the_gateway_was_away() {
    let mut world = world();
    let before = kept(&world);
    let dead = policy().volatility.transport_dead;
    world.hand_over(&policy(), MS(dead.as_millis() + 500));
    assert_eq!(kept(&world), before, "nobody could be heard meanwhile");
    assert_clean(&mut world);
}

#[test]
fn k09_a_client_that_was_moving_meanwhile_moves_on_the_gateway_that_is_back() {
    let mut world = world();
    let sealed = world.freeze();
    world.run_for(MS(50));
    world.move_to(0, 2).expect("it may move");
    world.link_down(1, 1);
    world.run_for(MS(150));
    world.thaw(&policy(), sealed).expect("as it was written");
    world.run_for(MS(15_000));
    let moved = views(&world).iter().filter(|view| view.epoch == 2).count();
    assert_eq!(moved, 2, "by their own requests, once each");
    assert!(views(&world).iter().all(|view| view.state == State::Attached));
    assert_eq!(traffic(&mut world, 10), (CLIENTS * 10, CLIENTS * 10));
    assert_clean(&mut world);
}

#[test]
fn tb01_the_time_of_a_restart_is_no_silence_and_a_pause_behind_it_adds_to_what_is_late() {
    let mut world = world();
    [1, 2].into_iter().for_each(|path| world.impair(0, path, Impairment::DEAD));
    world.run_for(MS(1_500));
    world.hand_over(&policy(), MS(300));
    // Two seconds of silence, without those of the restart, are over while no worker is scheduled.
    world.run_for(MS(300));
    (0..3).for_each(|worker| world.pause_worker(worker, MS(250)));
    world.run_for(MS(2_000));
    let now = world.now();
    let session = world.client(0).client.status(now).locator.expect("a session");
    let view = views(&world).into_iter().find(|view| view.locator == session);
    assert_ne!(view.map(|view| view.state), Some(State::Attached));
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

#[test]
fn tb08_a_limit_that_falls_due_in_a_pause_which_a_restart_prolongs_is_as_late_as_both_together() {
    // One path: without another one a session stays VOLATILE until that is too long.
    let mut world = World::new(&WorldConfig { seed: 9, workers: 3, policy: policy() }, 1, 1);
    world.connect_now(0);
    world.impair(0, 1, Impairment::DEAD);
    let volatile = |world: &World| views(world).iter().any(|view| view.state == State::Volatile);
    while !volatile(&world) {
        assert!(world.now() < Time::from_millis(10_000), "SM-14: silence makes VOLATILE");
        world.run_for(MS(10));
    }
    world.run_for(MS(policy().volatility.volatile_to_degraded.as_millis() - 100));
    (0..3).for_each(|worker| world.pause_worker(worker, MS(200)));
    world.run_for(MS(180));
    world.hand_over(&policy(), MS(300));
    world.run_for(MS(1_000));
    assert!(!volatile(&world));
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

#[test]
fn ar6_a03_a15_what_was_overheard_before_the_restart_is_refused_after_it() {
    let mut world = World::new(&WorldConfig { seed: 9, workers: 3, policy: policy() }, CLIENTS, 2);
    world.capture = Some(Vec::new());
    (0..CLIENTS).for_each(|client| world.connect_now(client));
    world.run_for(MS(3_000));
    world.move_to(0, 2).expect("it may move");
    traffic(&mut world, 20);
    let overheard = world.capture.take().expect("kept");
    world.hand_over(&policy(), MS(300));
    let before = kept(&world);
    let received = world.came_through().0;
    for (index, (from, packet)) in overheard.iter().enumerate() {
        let elsewhere = ([203, 0, 113, 7], 4_000).into();
        world.inject(if index % 2 == 0 { *from } else { elsewhere }, packet);
    }
    world.run_for(MS(50));
    assert_eq!(world.came_through().0, received, "no packet twice");
    assert_eq!(kept(&world), before);
    assert!(world.refused(Reason::ReplayDetected) > 0 && world.refused(Reason::DataReplay) > 0);
    assert_clean(&mut world);
}

#[test]
fn k11_k12_what_cannot_be_read_whole_leaves_no_session_and_clients_learn_it_by_reset() {
    type Spoil = fn(&mut Vec<u8>);
    let cases: [(Spoil, HandoverError); 3] = [
        (|sealed| sealed.truncate(sealed.len() / 2), HandoverError::Seal),
        (|sealed| *sealed.last_mut().expect("not empty") ^= 1, HandoverError::Seal),
        (Vec::clear, HandoverError::NotOne),
    ];
    for (spoil, expected) in cases {
        let mut world = world();
        let mut sealed = world.freeze();
        spoil(&mut sealed);
        assert_eq!(world.thaw(&policy(), sealed), Err(expected));
        assert!(views(&world).is_empty(), "fail closed");
        for client in 0..CLIENTS {
            world.link_down(client, 1);
        }
        world.run_for(MS(10_000));
        (0..CLIENTS)
            .filter(|client| !world.client(*client).client.is_connected())
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|client| world.connect_now(client));
        assert_eq!(views(&world).len(), CLIENTS, "an explicit new handshake, as after a crash (K10)");
        assert_clean(&mut world);
    }
}

#[test]
fn ky9_a_hand_over_is_good_for_one_run() {
    let mut world = world();
    let sealed = world.freeze();
    world.thaw(&policy(), sealed.clone()).expect("as it was written");
    traffic(&mut world, 5);
    // Somebody kept a copy, and the gateway crashes: with the copy, counters would come again.
    assert_eq!(world.thaw(&policy(), sealed), Err(HandoverError::Copy));
    assert!(views(&world).is_empty());
}

#[test]
fn rl3_the_next_run_may_have_another_policy_and_every_session_hears_of_it() {
    let mut world = world();
    let mut other = policy();
    other.version.minor += 1;
    other.switching.max_switches_per_min += 1;
    world.hand_over(&other, MS(200));
    world.run_for(MS(3_000));
    assert_eq!(world.policy_updates().len(), CLIENTS, "each told once, and it answered");
    assert!(views(&world).iter().all(|view| view.state == State::Attached));
    assert_clean(&mut world);
}

#[test]
fn inv36_under_churn_three_planned_restarts_and_a_crash_change_nothing_that_may_not_change() {
    // Odd seeds are restarted.
    for seed in [1, 3, 5] {
        let profile = [Profile::Mobile, Profile::Default, Profile::Fast][(seed % 3) as usize];
        let churn = Churn { seed, sessions: 8, workers: 2, length: MS(60_000), profile, pace: Pace::Storm };
        let (outcome, records) = churn.recorded(Policy::profile(profile));
        assert_eq!(outcome.violations, [] as [String; 0], "seed {seed}");
        let restarts = records.iter().filter(|(_, record)| record.event.event_type() == EventType::GatewayRestart);
        assert_eq!(restarts.count(), 6, "seed {seed}: written and read three times");
    }
}
