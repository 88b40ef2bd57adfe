//! Holes that were found once: sessions that got stuck, switched for nothing, or moved by mistake.

use jumpgate_protocol::audit::EventType;
use jumpgate_protocol::client::ClientEvent;
use jumpgate_protocol::ident::TransportId;
use jumpgate_protocol::machine::{State, TransitionId};
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Span;
use jumpgate_protocol::wire::MessageType;
use jumpgate_sim::{Impairment, World, WorldConfig};

const MS: fn(u64) -> Span = Span::from_millis;

fn good() -> Impairment {
    Impairment::default()
}

fn dead() -> Impairment {
    Impairment { blackhole: true, ..good() }
}

fn world(profile: Profile, paths: u16) -> World {
    let config = WorldConfig { seed: 9, workers: 2, policy: Policy::profile(profile) };
    let mut world = World::new(&config, 1, paths);
    world.connect_now(0);
    assert!(world.client(0).client.is_connected());
    world
}

fn place(world: &mut World) -> (State, Option<u16>) {
    let now = world.now();
    let status = world.client(0).client.status(now);
    (status.state, status.active.map(|path| path.0))
}

fn gateway_state(world: &World) -> State {
    world.shards().iter().flat_map(|shard| shard.views(world.now())).next().unwrap().state
}

fn transitions(world: &mut World) -> Vec<TransitionId> {
    let events = &world.client(0).events;
    events
        .iter()
        .filter_map(|(_, event)| match event {
            ClientEvent::Transition { transition, .. } => Some(transition.id),
            _ => None,
        })
        .collect()
}

fn assert_clean(world: &mut World) {
    world.audit();
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

#[test]
fn a_round_trip_longer_than_the_heartbeat_interval_is_no_trouble() {
    for (profile, delay) in [(Profile::Default, 300), (Profile::Mobile, 200), (Profile::Fast, 70)] {
        let config = WorldConfig { seed: 9, workers: 1, policy: Policy::profile(profile) };
        let mut world = World::new(&config, 1, 1);
        world.impair(0, 1, Impairment { delay: MS(delay), ..good() });
        world.connect_now(0);
        world.run_for(MS(30_000));
        assert_eq!(transitions(&mut world), [TransitionId::T01], "{profile:?}");
        assert_eq!(world.checker().commits(), 0, "{profile:?}");
        assert_clean(&mut world);
    }
}

#[test]
fn unanswered_heartbeats_are_no_quality_trigger_so_a_path_without_a_history_will_do() {
    let mut world = world(Profile::Default, 2);
    world.link_down(0, 2);
    world.run_for(MS(2_000));
    world.link_up(0, 2);
    world.run_for(MS(30));
    world.client(0).links.get_mut(&1).unwrap().up = dead();
    for _ in 0..25 {
        let _dropped = world.send_down(0, b"one way only");
        world.run_for(MS(100));
    }
    assert_eq!(place(&mut world), (State::Attached, Some(2)), "{:?}", transitions(&mut world));
    assert_clean(&mut world);
}

#[test]
fn a_forced_move_to_a_dead_path_ends_where_it_began() {
    let mut world = world(Profile::Default, 2);
    world.impair(0, 2, dead());
    world.run_for(MS(3_000));
    world.move_to(0, 2).unwrap();
    world.run_for(MS(15_000));
    assert_eq!(place(&mut world), (State::Attached, Some(1)), "{:?}", transitions(&mut world));
    assert_eq!(gateway_state(&world), State::Attached);
    assert_clean(&mut world);
}

#[test]
fn a_wish_for_a_path_does_not_keep_a_session_from_another_one_once_its_own_is_gone() {
    let mut world = world(Profile::Default, 3);
    world.run_for(MS(3_000));
    world.impair(0, 2, dead());
    world.move_to(0, 2).unwrap();
    world.run_for(MS(20));
    world.link_down(0, 1);
    world.run_for(MS(1_500));
    assert_eq!(place(&mut world), (State::Attached, Some(3)), "{:?}", transitions(&mut world));
    assert_clean(&mut world);
}

#[test]
fn a_wish_that_cannot_be_fulfilled_in_degraded_is_refused_and_not_kept() {
    let mut world = world(Profile::Default, 2);
    world.impair(0, 2, dead());
    world.run_for(MS(3_000));
    world.move_to(0, 2).unwrap();
    while place(&mut world).0 != State::Degraded {
        world.run_for(MS(10));
    }
    assert!(world.move_to(0, 2).is_err());
    world.run_for(MS(5_000));
    assert_eq!(place(&mut world), (State::Attached, Some(1)), "{:?}", transitions(&mut world));
}

#[test]
fn l1_a_path_whose_round_trip_grew_can_still_be_proved() {
    let mut world = world(Profile::Default, 1);
    world.run_for(MS(5_000));
    world.impair(0, 1, Impairment { delay: MS(300), ..good() });
    world.rebind(0, 1);
    world.run_for(MS(12_000));
    assert_eq!(place(&mut world), (State::Attached, Some(1)), "{:?}", transitions(&mut world));
    assert_eq!(gateway_state(&world), State::Attached);
    assert_clean(&mut world);
}

#[test]
fn rs6_a_cached_acknowledgement_is_not_given_again_once_its_binding_is_gone() {
    let config = WorldConfig { seed: 9, workers: 2, policy: Policy::profile(Profile::Default) };
    let mut world = World::new(&config, 1, 2);
    // Path 2 is deaf from the start, so nothing validates it.
    world.client(0).links.get_mut(&2).unwrap().down = dead();
    world.connect_now(0);
    world.run_for(MS(3_000));
    world.capture = Some(Vec::new());
    world.move_to(0, 2).unwrap();
    world.run_for(MS(20));
    assert_eq!(world.checker().commits(), 1);
    let capture = world.capture.take().unwrap();
    let request = capture.iter().find(|(_, packet)| packet[0] == MessageType::ReattachRequest as u8).unwrap().clone();
    // The path was never validated, so the binding died (PV-4).
    world.impair(0, 1, dead());
    world.impair(0, 2, dead());
    world.run_for(MS(1_100));
    let before = world.refused(Reason::ReplayDetected);
    world.inject(request.0, &request.1);
    world.run_for(MS(1));
    assert_eq!(world.refused(Reason::ReplayDetected), before + 1);
}

#[test]
fn ar5_a_client_whose_clock_jumped_corrects_itself_and_reattaches() {
    for jump in [2_000, 60_000] {
        let mut world = world(Profile::Default, 2);
        world.run_for(MS(1_000));
        world.step_clock(0, MS(jump));
        world.link_down(0, 1);
        world.run_for(MS(300));
        let attached = place(&mut world) == (State::Attached, Some(2));
        let ended = !world.client(0).client.is_connected();
        assert!(attached || (jump > 15_000 && ended), "{jump}: {:?}", transitions(&mut world));
        assert_clean(&mut world);
    }
}

#[test]
fn sm18_a_gateway_in_trouble_that_its_client_did_not_see_comes_to_rest() {
    for outage in (950..1_300).step_by(25) {
        let mut world = world(Profile::Mobile, 2);
        world.run_for(MS(3_000));
        world.client(0).links.get_mut(&1).unwrap().up = dead();
        world.run_for(MS(outage));
        world.client(0).links.get_mut(&1).unwrap().up = good();
        world.run_for(MS(20_000));
        assert_eq!(place(&mut world).0, State::Attached, "{outage}");
        assert_eq!(gateway_state(&world), State::Attached, "{outage}");
        let before = world.checker().transitions();
        world.run_for(MS(60_000));
        assert_eq!(world.checker().transitions(), before, "{outage}: nothing moves any more");
        assert_clean(&mut world);
    }
}

#[test]
fn sm18_a_gateway_that_misses_the_data_of_a_busy_client_comes_to_rest() {
    for outage in (300..600).step_by(25) {
        let mut world = world(Profile::Fast, 2);
        let run = |world: &mut World, millis: u64| {
            for _ in 0..millis / 5 {
                let _dropped = world.send_up(0, b"up");
                let _dropped = world.send_down(0, b"down");
                world.run_for(MS(5));
            }
        };
        run(&mut world, 3_000);
        // Heartbeats are left out while data flows both ways, so the client notices later than its gateway.
        world.client(0).links.get_mut(&1).unwrap().up = dead();
        run(&mut world, outage);
        world.client(0).links.get_mut(&1).unwrap().up = good();
        run(&mut world, 10_000);
        assert_eq!((place(&mut world).0, gateway_state(&world)), (State::Attached, State::Attached), "{outage}");
        assert_clean(&mut world);
    }
}

#[test]
fn sm18_without_a_standby_too() {
    for outage in (1_000..1_800).step_by(50) {
        let mut world = world(Profile::Mobile, 1);
        world.run_for(MS(3_000));
        world.client(0).links.get_mut(&1).unwrap().up = dead();
        world.run_for(MS(outage));
        world.client(0).links.get_mut(&1).unwrap().up = good();
        world.run_for(MS(20_000));
        assert_eq!((place(&mut world).0, gateway_state(&world)), (State::Attached, State::Attached), "{outage}");
        assert_clean(&mut world);
    }
}

#[test]
fn tc19_flapping_paths_end_in_peace_once_they_are_calm() {
    for period in [1_000, 5_000] {
        let mut world = world(Profile::Default, 2);
        world.run_for(MS(3_000));
        for round in 0..(60_000 / period) {
            let (down, up) = if round % 2 == 0 { (1, 2) } else { (2, 1) };
            world.link_up(0, up);
            world.link_down(0, down);
            world.run_for(MS(period));
            if world.client(0).client.is_idle() {
                world.connect(0);
            }
        }
        assert!(world.checker().busiest_minute() <= 8, "INV-15");
        world.link_up(0, 1);
        world.link_up(0, 2);
        for _ in 0..900 {
            if world.client(0).client.is_idle() {
                world.connect(0);
            }
            world.run_for(MS(100));
        }
        assert_eq!((place(&mut world).0, gateway_state(&world)), (State::Attached, State::Attached), "{period}");
        assert_clean(&mut world);
    }
}

#[test]
fn degraded_with_a_full_minute_and_a_waiting_standby_does_not_spin() {
    let mut world = world(Profile::Default, 2);
    for round in 0..8 {
        world.run_for(MS(2_600));
        world.move_to(0, 2 - (round % 2)).unwrap();
    }
    world.run_for(MS(1_000));
    assert_eq!(world.checker().commits(), 8);
    let (_, active) = place(&mut world);
    world.impair(0, active.unwrap(), dead());
    world.run_for(MS(7_000));
    let before = world.timer_calls();
    world.run_for(MS(5_000));
    let calls = world.timer_calls() - before;
    assert!(calls < 100, "{calls} timers in five seconds");
}

#[test]
fn rs7_after_a_lost_acknowledgement_the_path_that_the_gateway_names_comes_first() {
    let mut world = world(Profile::Default, 3);
    world.run_for(MS(3_000));
    world.client(0).links.get_mut(&2).unwrap().down = dead();
    world.link_down(0, 1);
    // All copies of the request arrive, all answers are lost; the next candidate is asked, and refused.
    world.run_for(MS(195));
    assert_eq!(world.checker().commits(), 1, "the gateway is on path 2, and nobody knows");
    world.client(0).links.get_mut(&2).unwrap().down = good();
    world.run_for(MS(1_000));
    let status = place(&mut world);
    assert_eq!(status, (State::Attached, Some(2)), "{:?}", transitions(&mut world));
    assert_eq!(world.checker().commits(), 1, "SM-09: no second switch");
    assert_clean(&mut world);
}

#[test]
fn inv33_heartbeats_of_an_old_epoch_do_not_lift_the_limit_of_an_unvalidated_binding() {
    let mut world = world(Profile::Default, 1);
    world.run_for(MS(3_000));
    world.client(0).links.get_mut(&1).unwrap().up = dead();
    world.run_for(MS(3_050));
    world.client(0).links.get_mut(&1).unwrap().up = good();
    world.client(0).links.get_mut(&1).unwrap().down = dead();
    for _ in 0..1_000 {
        let _dropped = world.send_down(0, b"x");
        world.run_for(MS(5));
    }
    assert!(world.refused(Reason::AmplificationLimit) > 0, "the limit was never reached");
    assert_clean(&mut world);
}

#[test]
fn a_client_on_a_path_that_left_is_not_moved_back_by_a_late_answer() {
    let mut world = world(Profile::Default, 2);
    world.run_for(MS(3_000));
    world.client(0).links.get_mut(&1).unwrap().down.delay = MS(400);
    world.run_for(MS(600));
    world.move_to(0, 2).unwrap();
    world.run_for(MS(3_000));
    assert_eq!(place(&mut world), (State::Attached, Some(2)));
    assert_eq!(world.checker().commits(), 1);
    let now = world.now();
    let id = TransportId(2);
    assert_eq!(world.client(0).client.status(now).active, Some(id));
    assert_clean(&mut world);
}

#[test]
fn af2_a_path_that_was_left_in_good_health_is_a_candidate_again_after_the_stability_window() {
    let mut world = world(Profile::Default, 2);
    world.run_for(MS(3_000));
    world.move_to(0, 2).unwrap();
    world.run_for(MS(10_000));
    world.impair(0, 2, dead());
    world.run_for(MS(2_050));
    let back = world.client(0).events.iter().rev().find_map(|(_, event)| match event {
        ClientEvent::Switched { to: TransportId(1), switched_after, .. } => Some(*switched_after),
        _ => None,
    });
    assert_eq!(back, Some(MS(20)), "one round trip, without a try of the dead path first");
}

#[test]
fn tb02_a_link_that_goes_down_while_it_is_proved_again_gives_way_to_the_other_path_at_once() {
    let mut world = world(Profile::Default, 2);
    world.run_for(MS(3_000));
    world.link_down(0, 2);
    world.impair(0, 1, dead());
    // The same path is being proved, for want of another one.
    while place(&mut world).0 != State::Recovering {
        world.run_for(MS(10));
    }
    world.link_up(0, 2);
    world.link_down(0, 1);
    let start = world.now();
    while place(&mut world) != (State::Attached, Some(2)) {
        world.run_for(MS(10));
        assert!(world.now().since(start) < MS(300), "{:?}", transitions(&mut world));
    }
    assert_clean(&mut world);
}

#[test]
fn a_changed_route_moves_the_sessions_at_that_address_and_no_other() {
    let config = WorldConfig { seed: 9, workers: 2, policy: Policy::profile(Profile::Mobile) };
    let mut world = World::new(&config, 2, 2);
    (0..2).for_each(|client| world.connect_now(client));
    let peers = |world: &World| -> Vec<_> {
        let views = world.shards().iter().flat_map(|shard| shard.views(world.now()));
        views.map(|view| (view.inner_v4, view.tuple.unwrap().peer.ip())).collect()
    };
    let peer_of = |world: &mut World, client: usize| {
        let inner = world.client(client).events.iter().find_map(|(_, event)| match event {
            ClientEvent::Connected { inner_v4, .. } => inner_v4.map(|(address, _)| address),
            _ => None,
        });
        peers(world).into_iter().find(|(address, _)| *address == inner).unwrap().1
    };
    let (first, second) = (peer_of(&mut world, 0), peer_of(&mut world, 1));
    assert_ne!(first, second);
    world.set_route(first, 7);
    world.set_route(second, 8);
    assert_eq!((world.route_down(0), world.route_down(1)), (Ok(7), Ok(8)));

    world.run_for(MS(3_000));
    world.move_to(0, 2).unwrap();
    world.run_for(MS(1_000));
    let moved = peer_of(&mut world, 0);
    assert_ne!(moved, first, "it jumped");
    world.set_route(first, 9);
    assert_ne!(world.route_down(0), Ok(9), "nobody is there any more");
    world.set_route(moved, 10);
    assert_eq!((world.route_down(0), world.route_down(1)), (Ok(10), Ok(8)));
    assert_clean(&mut world);
}

#[test]
fn bd3_a_probe_from_the_active_tuple_shows_that_the_path_lives() {
    let mut world = world(Profile::Default, 2);
    world.capture = Some(Vec::new());
    world.censored = vec![MessageType::PathProbe];
    world.run_for(MS(3_000));
    let captured = world.capture.take().unwrap();
    let (from, probe) = captured.iter().rfind(|(_, packet)| packet[0] == MessageType::PathProbe as u8).unwrap();
    // The probe that the network held back is of path 2, which is bound by the time it arrives.
    world.move_to(0, 2).unwrap();
    world.run_for(MS(100));
    world.sleep(0);
    world.run_for(MS(1_500));
    world.inject(*from, probe);
    world.run_for(MS(1_900));
    assert_eq!(gateway_state(&world), State::Attached);
    world.run_for(MS(130));
    assert_eq!(gateway_state(&world), State::Volatile);
    assert_clean(&mut world);
}

#[test]
fn ar1_a_question_of_the_former_session_is_not_answered_in_the_next_one() {
    let mut world = world(Profile::Default, 2);
    world.run_for(MS(3_000));
    // Heartbeats and probes that are never answered, under counters that the next session uses as well.
    (1..=2).for_each(|path| world.client(0).links.get_mut(&path).unwrap().down = dead());
    world.run_for(MS(1_900));
    world.disconnect(0);
    (1..=2).for_each(|path| world.impair(0, path, Impairment { duplicate: 1_000, ..good() }));
    world.connect_now(0);
    let now = world.now();
    assert!(world.client(0).client.status(now).paths.iter().all(|path| path.loss_permille == 0));
    world.run_for(MS(10_000));
    assert_clean(&mut world);
}

#[test]
fn sm16_a_request_that_a_stopped_worker_takes_up_after_the_next_one_is_out_is_exempt_all_the_same() {
    let mut world = world(Profile::Mobile, 3);
    world.run_for(MS(3_000));
    world.move_to(0, 2).unwrap();
    world.run_for(MS(100));
    assert_eq!(place(&mut world), (State::Attached, Some(2)));
    // The path dies inside the cooldown of 500 ms. The first request is given up after 200 ms, and the worker then finds
    // both of them.
    (0..2).for_each(|worker| world.pause_worker(worker, MS(250)));
    world.link_down(0, 2);
    world.run_for(MS(249));
    let attempts = world.records().of_clients(EventType::ReattachAttempt);
    assert_eq!((attempts, world.checker().commits()), (3, 1), "two are out, and nothing is committed yet");
    world.run_for(MS(50));
    assert_eq!(world.checker().commits(), 2, "inside the cooldown");
    world.run_for(MS(3_000));
    assert_eq!((place(&mut world).0, gateway_state(&world)), (State::Attached, State::Attached));
    assert_clean(&mut world);
}

#[test]
fn inv27_an_answer_of_a_gateway_that_has_crashed_names_an_address_that_is_another_clients_by_now() {
    let policy = Policy::profile(Profile::Default);
    let mut world = World::new(&WorldConfig { seed: 9, workers: 2, policy: policy.clone() }, 2, 1);
    world.client(0).links.get_mut(&1).unwrap().down = Impairment { delay: MS(1_500), ..good() };
    world.connect(0);
    world.run_for(MS(100));
    world.restart_gateway(&policy);
    world.connect_now(1);
    world.run_for(MS(1_500));
    assert!((0..2).all(|client| world.client(client).client.is_connected()), "both were told that it is theirs");
    world.send_up(1, b"the one whose it is").unwrap();
    world.run_for(MS(100));
    assert_eq!(world.came_through().0, 1);
    assert_clean(&mut world);
}
