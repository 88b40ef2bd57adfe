//! Slots that move from worker to worker while their sessions carry traffic (SL-4, K08).

use jumpgate_protocol::audit::{Event, EventType};
use jumpgate_protocol::gateway::SessionView;
use jumpgate_protocol::ident::{Locator, SLOT_COUNT};
use jumpgate_protocol::machine::State;
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Span;
use jumpgate_protocol::wire::MessageType;
use jumpgate_sim::{Churn, Impairment, Pace, World, WorldConfig};

const MS: fn(u64) -> Span = Span::from_millis;
const WORKERS: usize = 3;

fn world(clients: usize) -> World {
    let mut policy = Policy::profile(Profile::Default);
    policy.security.rekey_after = MS(10_000);
    policy.security.rekey_min_interval = MS(1_000);
    let mut world = World::new(&WorldConfig { seed: 91, workers: WORKERS, policy }, clients, 2);
    (0..clients).for_each(|client| world.connect_now(client));
    world
}

fn locator(world: &mut World, client: usize) -> Locator {
    let now = world.now();
    world.client(client).client.status(now).locator.expect("a session")
}

/// The session wherever it is; none while it is between two workers.
fn view(world: &World, session: Locator) -> Option<SessionView> {
    let views: Vec<_> = world.shards().iter().filter_map(|shard| shard.view(world.now(), session)).collect();
    assert!(views.len() <= 1, "INV-01, INV-20: {session} is in two places");
    views.into_iter().next()
}

/// What a hand-over must not change.
fn standing(world: &World, session: Locator) -> impl PartialEq + std::fmt::Debug + use<> {
    let view = view(world, session).expect("somebody has it");
    let counts = (view.received, view.sent, view.switches, view.age);
    (view.identity, view.state, view.version, view.epoch, view.tuple, view.transport, view.validated, counts)
}

fn move_to(world: &mut World, session: Locator, to: usize, span: Span) {
    assert!(world.move_slot(session.slot(), to, span));
}

fn assert_clean(world: &mut World) {
    world.audit();
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

#[test]
fn tb01_silence_is_noticed_as_late_as_a_slot_was_under_way_to_a_worker_that_is_not_scheduled() {
    let mut world = world(1);
    let session = locator(&mut world, 0);
    world.run_for(MS(1_000));
    [1, 2].into_iter().for_each(|path| world.impair(0, path, Impairment::DEAD));
    // Two seconds of silence lead out of ATTACHED: 200 ms before that the slot leaves, for a worker that stops meanwhile.
    world.run_for(MS(1_800));
    let to = (session.slot().number() as usize + 1) % WORKERS;
    move_to(&mut world, session, to, MS(300));
    world.run_for(MS(250));
    world.pause_worker(to, MS(400));
    world.run_for(MS(2_000));
    assert_ne!(view(&world, session).map(|view| view.state), Some(State::Attached));
    assert_clean(&mut world);
}

#[test]
fn sl4_a_session_goes_through_all_workers_with_every_counter_and_without_a_transition() {
    let mut world = world(1);
    let session = locator(&mut world, 0);
    for round in 0..6 {
        world.send_up(0, &[round]).unwrap();
        world.send_down(0, &[round]).unwrap();
        world.run_for(MS(100));
        let before = standing(&world, session);
        let to = (world.owner(session) + 1) % WORKERS;
        move_to(&mut world, session, to, Span::ZERO);
        world.run_for(Span::ZERO);
        assert_eq!(world.owner(session), to);
        assert_eq!(standing(&world, session), before, "AR-2, INV-05: the record is the same");
    }
    assert_eq!(world.received.len(), 6, "nothing is lost if nothing comes in between");
    assert_eq!(world.client(0).delivered.len(), 6);
    assert_eq!(world.records().of_gateway(EventType::SessionOwnerTransferred), 6);
    assert_clean(&mut world);
}

#[test]
fn sl4_packets_in_between_are_dropped_and_counted_and_those_after_it_are_not() {
    let mut world = world(1);
    let session = locator(&mut world, 0);
    let to = (world.owner(session) + 1) % WORKERS;
    move_to(&mut world, session, to, MS(50));
    assert!(view(&world, session).is_none(), "nobody owns it now");
    for _ in 0..10 {
        world.send_up(0, b"early").unwrap();
        assert!(world.send_down(0, b"early").is_err());
    }
    world.run_for(MS(40));
    assert!(world.received.is_empty() && world.client(0).delivered.is_empty());
    assert!(world.refused(Reason::NotAuthoritativeOwner) >= 20, "every one of them is counted");
    world.run_for(MS(10));
    world.send_up(0, b"late").unwrap();
    world.send_down(0, b"late").unwrap();
    world.run_for(MS(100));
    assert_eq!((world.received.len(), world.client(0).delivered.len()), (1, 1));
    assert_clean(&mut world);
}

#[test]
fn k08_the_former_worker_takes_nothing_of_a_session_that_it_had() {
    let mut world = world(1);
    let session = locator(&mut world, 0);
    world.capture = Some(Vec::new());
    world.send_up(0, b"mine").unwrap();
    world.move_to(0, 2).unwrap();
    world.run_for(MS(3_000));
    let former = world.owner(session);
    move_to(&mut world, session, (former + 1) % WORKERS, Span::ZERO);
    world.run_for(MS(3_000));
    let (before, sealed) = (standing(&world, session), world.sealed());
    for (from, packet) in world.capture.take().unwrap() {
        assert!(world.misdeliver(former, from, &packet).is_err());
    }
    assert_eq!(world.sealed(), sealed, "AS-4: it has no key to answer with");
    assert_eq!(standing(&world, session), before);
    assert!(world.shards()[former].is_empty() && !world.shards()[former].owns(session.slot()));
    assert_clean(&mut world);
}

#[test]
fn sl4_a_request_to_jump_that_comes_in_between_is_held_and_answered_once_by_the_new_worker() {
    let mut world = world(1);
    let session = locator(&mut world, 0);
    let to = (world.owner(session) + 1) % WORKERS;
    move_to(&mut world, session, to, MS(100));
    world.move_to(0, 2).unwrap();
    world.run_for(MS(90));
    assert!(view(&world, session).is_none());
    world.run_for(MS(400));
    let view = view(&world, session).expect("the new worker has it");
    assert_eq!((view.state, view.switches, view.transport.map(|id| id.0)), (State::Attached, 1, Some(2)));
    assert!(world.client(0).client.is_connected());
    assert_clean(&mut world);
}

#[test]
fn inv36_no_nonce_is_used_twice_over_moves_jumps_and_rekeys() {
    let mut world = world(1);
    let session = locator(&mut world, 0);
    let (mut path, sealed) = (1, world.sealed());
    for round in 0_usize..60 {
        if round % 3 == 0 {
            let to = (world.owner(session) + 1 + round % 2) % WORKERS;
            move_to(&mut world, session, to, MS(round as u64 % 7));
        }
        if round % 20 == 10 {
            path = 3 - path;
            world.move_to(0, path).unwrap();
        }
        for _ in 0..5 {
            world.send_up(0, b"up").unwrap();
            // Between two workers there is nobody to send it.
            let _counted = world.send_down(0, b"down");
            world.run_for(MS(100));
        }
    }
    assert!(world.rekeyed.len() >= 2, "keys were replaced meanwhile");
    assert!(world.sealed() > sealed + 500);
    assert_eq!(view(&world, session).expect("it lives").switches, 3);
    assert_clean(&mut world);
}

#[test]
fn l2_a_path_that_dies_while_nobody_owns_its_session_is_found_dead_by_the_new_worker() {
    let mut world = world(1);
    let session = locator(&mut world, 0);
    world.link_down(0, 1);
    world.link_down(0, 2);
    let to = (world.owner(session) + 1) % WORKERS;
    move_to(&mut world, session, to, MS(200));
    world.run_for(MS(6_000));
    let view = view(&world, session).expect("its time without transport is not over");
    assert_eq!(view.tuple, None, "silence was noticed: {view:?}");
    world.link_up(0, 2);
    world.run_for(MS(20_000));
    assert_eq!(self::view(&world, session).expect("it lives").state, State::Attached);
    assert_clean(&mut world);
}

#[test]
fn sl4_a_handshake_that_is_under_way_goes_on_at_the_new_worker() {
    let mut world = world(1);
    world.censored = vec![MessageType::HelloConfirm];
    world.disconnect(0);
    world.run_for(MS(2_000));
    world.connect(0);
    world.run_for(MS(200));
    let half_open: Vec<_> = world.shards().iter().flat_map(|shard| shard.views(world.now())).collect();
    let [SessionView { locator: session, state: State::Birth, .. }] = half_open[..] else { panic!("{half_open:?}") };
    let to = (world.owner(session) + 1) % WORKERS;
    move_to(&mut world, session, to, MS(10));
    world.censored.clear();
    world.run_for(MS(3_000));
    assert_eq!(view(&world, session).expect("it lives").state, State::Attached);
    world.send_up(0, b"up").unwrap();
    world.send_down(0, b"down").unwrap();
    world.run_for(MS(100));
    assert_eq!((world.received.len(), world.client(0).delivered.len()), (1, 1));
    assert_clean(&mut world);
}

#[test]
fn hs8_a_session_that_is_replaced_on_its_way_ends_where_it_arrives() {
    let mut world = world(1);
    let old = locator(&mut world, 0);
    let to = (world.owner(old) + 1) % WORKERS;
    world.replace_client(0, Default::default(), Some(old));
    move_to(&mut world, old, to, MS(10_000));
    world.connect_now(0);
    let new = locator(&mut world, 0);
    assert_ne!(new, old);
    assert!(view(&world, old).is_none() && view(&world, new).is_some());
    world.send_down(0, b"down").unwrap();
    world.run_for(MS(100));
    assert_eq!(world.client(0).delivered.len(), 1, "the address is the successor's");
    assert_clean(&mut world);
}

#[test]
fn sl4_a_worker_is_drained_and_filled_again_under_traffic() {
    let mut world = world(40);
    let held = |world: &World| world.shards().iter().map(|shard| shard.len()).collect::<Vec<_>>();
    assert!(held(&world).iter().all(|sessions| *sessions > 0));
    for (to, span) in [(2, MS(3)), (0, MS(0)), (1, MS(20))] {
        assert!(world.drain_to(to, span) > SLOT_COUNT / WORKERS);
        (0..40).for_each(|client| world.send_up(client, b"up").unwrap());
        world.run_for(MS(500));
        let mut all = vec![0; WORKERS];
        all[to] = 40;
        assert_eq!(held(&world), all);
        let through = world.came_through().0;
        (0..40).for_each(|client| world.send_up(client, b"up").unwrap());
        world.run_for(MS(500));
        assert_eq!(world.came_through().0, through + 40);
        assert_clean(&mut world);
    }
}

#[test]
fn sl4_a_storm_moves_slots_among_all_else_and_breaks_no_rule() {
    let churn =
        Churn { seed: 7, sessions: 20, workers: 4, length: MS(120_000), profile: Profile::Mobile, pace: Pace::Storm };
    let (outcome, records) = churn.recorded(Policy::profile(Profile::Mobile));
    let moves = records.iter().filter(|(_, record)| matches!(record.event, Event::SessionOwnerTransferred { .. }));
    assert!(moves.count() > 5);
    assert_eq!(outcome.violations, &[] as &[String]);
}
