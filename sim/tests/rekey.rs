//! Fresh keys for a session that goes on (§6.8): nothing is lost over it, and nothing stops it but T25.

use jumpgate_protocol::client::ClientEvent;
use jumpgate_protocol::machine::{State, TransitionId};
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use jumpgate_protocol::wire::{Header, MessageType};
use jumpgate_sim::{Churn, Impairment, Pace, World, WorldConfig};

const MS: fn(u64) -> Span = Span::from_millis;
/// Age of keys at which a rekey is due in these tests.
const REKEY_AFTER: Span = Span::from_millis(10_000);
/// Life of old receiving keys in these tests.
const OVERLAP_MS: u64 = 2_000;

fn policy() -> Policy {
    let mut policy = Policy::profile(Profile::Default);
    policy.security.rekey_after = REKEY_AFTER;
    policy.security.rekey_overlap = MS(OVERLAP_MS);
    policy.security.rekey_min_interval = MS(1_000);
    policy.security.key_max_age = MS(60_000);
    policy
}

fn world_of(policy: Policy, paths: u16) -> World {
    let mut world = World::new(&WorldConfig { seed: 31, workers: 2, policy }, 1, paths);
    world.connect_now(0);
    assert!(world.client(0).client.is_connected());
    world
}

fn world(paths: u16) -> World {
    world_of(policy(), paths)
}

/// Rekeys completed at the client: key epoch and trigger.
fn rekeys(world: &mut World) -> Vec<(u32, Reason)> {
    let events = world.client(0).events.iter();
    events
        .filter_map(|(_, event)| match event {
            ClientEvent::Rekeyed { key_epoch, trigger } => Some((*key_epoch, *trigger)),
            _ => None,
        })
        .collect()
}

fn place(world: &mut World) -> (State, Option<u16>) {
    let now = world.now();
    let status = world.client(0).client.status(now);
    (status.state, status.active.map(|path| path.0))
}

fn ended(world: &mut World) -> Option<(Time, Reason)> {
    world.client(0).events.iter().find_map(|(at, event)| match event {
        ClientEvent::Terminated { reason, .. } => Some((*at, *reason)),
        _ => None,
    })
}

/// What the client has sent so far, newest first, of that kind.
fn captured(world: &World, kind: MessageType) -> Vec<(std::net::SocketAddr, Vec<u8>)> {
    let all = world.capture.iter().flatten().rev();
    all.filter(|(_, packet)| packet[0] == kind as u8).cloned().collect()
}

fn assert_clean(world: &mut World) {
    world.audit();
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

/// Sends a numbered packet each way every five milliseconds; gives how many it sent each way.
fn traffic(world: &mut World, span: Span) -> usize {
    let steps = span.as_millis() / 5;
    for step in 0..steps {
        world.send_up(0, &step.to_be_bytes()).unwrap();
        world.send_down(0, &step.to_be_bytes()).unwrap();
        world.run_for(MS(5));
    }
    steps as usize
}

/// Both directions carry data, under the keys of now.
fn assert_carries(world: &mut World) {
    let before = (world.received.len(), world.client(0).delivered.len());
    world.send_up(0, b"up").unwrap();
    world.send_down(0, b"down").unwrap();
    world.run_for(MS(100));
    assert_eq!((world.received.len(), world.client(0).delivered.len()), (before.0 + 1, before.1 + 1));
}

#[test]
fn rk3_no_packet_is_lost_over_rekeys_by_time() {
    let mut world = world(1);
    // Reordering on the way, so that packets of both key epochs come mixed.
    world.impair(0, 1, Impairment { jitter: MS(40), ..Impairment::default() });
    let sent = traffic(&mut world, MS(65_000));
    world.run_for(MS(100));
    assert_eq!((world.received.len(), world.client(0).delivered.len()), (sent, sent));
    let done = rekeys(&mut world);
    assert!(done.len() >= 5, "{done:?}");
    // Over a way with so much jitter the gateway's wish may come before the client's own timer (RK-1).
    let by_time = done.iter().filter(|(_, trigger)| *trigger == Reason::RekeyTimeElapsed).count();
    assert!(by_time * 2 > done.len(), "{done:?}");
    assert_eq!(done.iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>(), (1..=done.len() as u32).collect::<Vec<_>>());
    assert_eq!(
        world.rekeyed.iter().map(|(_, epoch)| *epoch).collect::<Vec<_>>(),
        (1..=done.len() as u32).collect::<Vec<_>>()
    );
    assert_eq!(world.refused(Reason::KeyEpochUnknown), 0);
    assert_clean(&mut world);
}

#[test]
fn rk1_volume_in_either_direction_starts_a_rekey_and_nothing_is_lost() {
    for up in [true, false] {
        let mut policy = policy();
        policy.security.rekey_after = MS(30_000);
        policy.security.rekey_after_packets = 1 << 16;
        let mut world = world_of(policy, 1);
        world.run_for(MS(1_500));
        for step in 0..70_000_u32 {
            if up { world.send_up(0, b"volume") } else { world.send_down(0, b"volume") }.unwrap();
            if step % 32 == 0 {
                world.run_for(MS(1));
            }
        }
        world.run_for(MS(2_000));
        let through = if up { world.received.len() } else { world.client(0).delivered.len() };
        assert_eq!(through, 70_000);
        assert_eq!(rekeys(&mut world), [(1, Reason::RekeyVolume)], "up: {up}");
        assert_clean(&mut world);
    }
}

#[test]
fn rk1_a_switch_starts_a_rekey_where_the_policy_says_so() {
    let mut policy = policy();
    policy.security.rekey_after = MS(30_000);
    policy.security.rekey_on_switch = true;
    let mut world = world_of(policy, 2);
    world.run_for(MS(3_000));
    world.move_to(0, 2).unwrap();
    world.run_for(MS(1_000));
    assert_eq!(place(&mut world), (State::Attached, Some(2)));
    assert_eq!(rekeys(&mut world), [(1, Reason::RekeyTransportChange)]);
    assert_carries(&mut world);
    assert_clean(&mut world);
}

#[test]
fn rk1_the_gateway_asks_when_its_own_bounds_are_reached() {
    let mut world = world(1);
    // The client's clock stands still: for it the keys are young, for the gateway they are not.
    world.run_for(MS(8_000));
    world.censored = vec![MessageType::RekeyInit];
    world.run_for(MS(4_000));
    assert_eq!(rekeys(&mut world), []);
    world.censored.clear();
    world.run_for(MS(3_000));
    assert_eq!(rekeys(&mut world).len(), 1, "an answer with REKEY_WANTED does not start a second one");
    world.run_for(MS(OVERLAP_MS + 2_000));
    assert_eq!(rekeys(&mut world).len(), 1);
    assert_clean(&mut world);
}

#[test]
fn rk4_a_lost_rekey_init_is_sent_again() {
    let mut world = world(1);
    world.censored = vec![MessageType::RekeyInit];
    world.run_for(MS(11_500));
    assert_eq!(rekeys(&mut world), []);
    world.censored.clear();
    world.run_for(MS(3_000));
    assert_eq!(rekeys(&mut world), [(1, Reason::RekeyTimeElapsed)]);
    assert_carries(&mut world);
    assert_clean(&mut world);
}

#[test]
fn rk4_a_lost_rekey_ack_comes_again_byte_for_byte_and_no_packet_is_lost() {
    let mut world = world(1);
    world.run_for(MS(9_000));
    world.capture = Some(Vec::new());
    world.censored = vec![MessageType::RekeyAck];
    let mut sent = traffic(&mut world, MS(2_000));
    assert_eq!(rekeys(&mut world), []);
    let asked = captured(&world, MessageType::RekeyInit);
    assert!(asked.len() >= 2 && asked.windows(2).all(|pair| pair[0] == pair[1]), "copies, and nothing fresh");
    world.censored.clear();
    sent += traffic(&mut world, MS(4_000));
    world.run_for(MS(100));
    assert_eq!(rekeys(&mut world), [(1, Reason::RekeyTimeElapsed)]);
    assert_eq!((world.received.len(), world.client(0).delivered.len()), (sent, sent));
    assert_clean(&mut world);
}

#[test]
fn rk3_a_reattach_works_at_every_moment_of_a_rekey() {
    // From before REKEY_INIT until after the old keys are gone, in steps of less than a message takes.
    let moments = (0..60).map(|step| MS(9_700 + step * 5)).chain((0..24).map(|step| MS(10_000 + step * 125)));
    for moment in moments {
        let mut world = world(2);
        let reference = world.now();
        world.capture = Some(Vec::new());
        while world.now().since(reference) < moment {
            world.run_for(MS(1));
        }
        world.move_to(0, 2).unwrap();
        world.run_for(MS(100));
        assert_eq!(place(&mut world), (State::Attached, Some(2)), "after {moment}");
        assert_carries(&mut world);
        world.run_for(MS(3_000));
        assert_eq!(rekeys(&mut world), [(1, Reason::RekeyTimeElapsed)], "after {moment}");
        assert_eq!(world.checker().commits(), 1, "after {moment}");
        assert_carries(&mut world);
        assert_clean(&mut world);
    }
}

#[test]
fn rk3_a_path_that_dies_at_any_moment_of_a_rekey_is_left_and_the_rekey_ends_on_the_other() {
    for blocked in [MessageType::RekeyInit, MessageType::RekeyAck] {
        for (up, down) in [(true, true), (true, false), (false, true)] {
            let mut world = world(2);
            world.run_for(MS(9_000));
            world.censored = vec![blocked];
            world.run_for(MS(1_500));
            let dead = Impairment { blackhole: true, ..Impairment::default() };
            let link = world.client(0).links.get_mut(&1).unwrap();
            if up {
                link.up = dead;
            }
            if down {
                link.down = dead;
            }
            world.run_for(MS(1));
            world.censored.clear();
            world.run_for(MS(8_000));
            let context = format!("{blocked}, up {up}, down {down}");
            assert_eq!(place(&mut world), (State::Attached, Some(2)), "{context}");
            assert_eq!(rekeys(&mut world), [(1, Reason::RekeyTimeElapsed)], "{context}");
            assert_carries(&mut world);
            assert_clean(&mut world);
        }
    }
}

#[test]
fn rk3_new_keys_that_the_gateway_never_heard_of_in_use_open_the_reattach_long_after_the_overlap() {
    let mut world = world(2);
    world.run_for(MS(9_000));
    // REKEY_ACK arrives; from then on nothing goes up on that path.
    while captured_init(&mut world).is_none() {
        world.run_for(MS(1));
    }
    world.run_for(MS(10));
    world.client(0).links.get_mut(&1).unwrap().up = Impairment { blackhole: true, ..Impairment::default() };
    world.client(0).links.get_mut(&2).unwrap().up = Impairment { blackhole: true, ..Impairment::default() };
    world.run_for(MS(OVERLAP_MS + 3_000));
    assert_eq!(rekeys(&mut world), []);
    world.client(0).links.get_mut(&2).unwrap().up = Impairment::default();
    world.run_for(MS(8_000));
    assert_eq!(place(&mut world), (State::Attached, Some(2)));
    assert_eq!(rekeys(&mut world), [(1, Reason::RekeyTimeElapsed)]);
    assert_carries(&mut world);
    assert_clean(&mut world);
}

/// The REKEY_INIT that was sent, once one was.
fn captured_init(world: &mut World) -> Option<Vec<u8>> {
    world.capture.get_or_insert_with(Vec::new);
    captured(world, MessageType::RekeyInit).into_iter().next().map(|(_, packet)| packet)
}

#[test]
fn rk3_old_keys_open_nothing_after_the_overlap() {
    let mut world = world(1);
    world.run_for(MS(8_000));
    // Sealed under key epoch 0, and kept back.
    world.capture = Some(Vec::new());
    world.client(0).links.get_mut(&1).unwrap().up.blackhole = true;
    for _ in 0..2 {
        world.send_up(0, b"late").unwrap();
    }
    let kept = captured(&world, MessageType::Data);
    world.client(0).links.get_mut(&1).unwrap().up.blackhole = false;
    while world.rekeyed.is_empty() {
        world.run_for(MS(5));
    }
    world.inject(kept[0].0, &kept[0].1);
    world.run_for(MS(1));
    assert_eq!(world.received.len(), 1, "within the overlap they do");
    world.run_for(MS(OVERLAP_MS + 100));
    world.inject(kept[1].0, &kept[1].1);
    world.run_for(MS(1));
    assert_eq!(world.received.len(), 1);
    assert_eq!(world.refused(Reason::KeyEpochUnknown), 1);
    assert_clean(&mut world);
}

#[test]
fn ar3_data_of_an_old_key_epoch_is_no_less_a_replay_after_the_rekey() {
    let mut world = world(1);
    world.capture = Some(Vec::new());
    traffic(&mut world, MS(9_000));
    while world.rekeyed.is_empty() {
        traffic(&mut world, MS(5));
    }
    world.run_for(MS(50));
    let (delivered, refused) = (world.received.len(), world.refused(Reason::DataReplay));
    let data = captured(&world, MessageType::Data);
    let old: Vec<_> = data.iter().filter(|(_, packet)| Header::parse(packet).unwrap().key_epoch == 0).collect();
    let new: Vec<_> = data.iter().filter(|(_, packet)| Header::parse(packet).unwrap().key_epoch == 1).collect();
    assert!(old.len() > 100 && !new.is_empty());
    assert_eq!(Header::parse(&new.last().unwrap().1).unwrap().counter, 1, "counters start anew under new keys");
    for (from, packet) in old.iter().take(100).chain(&new) {
        world.inject(*from, packet);
    }
    world.run_for(MS(1));
    assert_eq!(world.received.len(), delivered);
    assert_eq!(world.refused(Reason::DataReplay) - refused, 100 + new.len() as u64);
    assert_clean(&mut world);
}

#[test]
fn ar2_control_counters_rise_over_a_rekey() {
    let mut world = world(1);
    world.capture = Some(Vec::new());
    world.run_for(MS(35_000));
    let control = |packet: &[u8]| Header::parse(packet).ok().filter(|header| header.kind != MessageType::Data);
    let headers: Vec<_> = world.capture.iter().flatten().filter_map(|(_, packet)| control(packet)).collect();
    assert!(headers.windows(2).all(|pair| pair[0].counter < pair[1].counter));
    assert!(headers.last().unwrap().key_epoch >= 2);
}

#[test]
fn rk4_a_rekey_init_sent_again_from_elsewhere_changes_nothing_and_spoils_nothing() {
    let mut world = world(1);
    world.censored = vec![MessageType::RekeyInit];
    let init = loop {
        world.run_for(MS(1));
        if let Some(init) = captured_init(&mut world) {
            break init;
        }
    };
    let replies = world.sealed();
    world.inject("203.0.113.66:6666".parse().unwrap(), &init);
    world.run_for(MS(1));
    assert_eq!(world.refused(Reason::WrongTransport), 1);
    assert_eq!(world.sealed(), replies, "not answered");
    world.censored.clear();
    world.run_for(MS(2_000));
    assert_eq!(rekeys(&mut world), [(1, Reason::RekeyTimeElapsed)]);
    for _ in 0..50 {
        world.inject("203.0.113.66:6666".parse().unwrap(), &init);
    }
    world.run_for(MS(3_000));
    assert_eq!(rekeys(&mut world).len(), 1);
    assert_carries(&mut world);
    assert_clean(&mut world);
}

#[test]
fn rk4_rekeys_are_never_closer_than_the_shortest_interval_however_often_the_session_moves() {
    let mut policy = policy();
    policy.security.rekey_on_switch = true;
    policy.security.rekey_overlap = MS(1_000);
    policy.security.rekey_min_interval = MS(4_000);
    policy.switching.switch_cooldown = MS(500);
    let mut world = world_of(policy, 2);
    for step in 0..120 {
        // Refused where the rate or the cooldown says so.
        let _refused = world.move_to(0, 1 + (step % 2));
        world.run_for(MS(500));
    }
    assert!(world.checker().commits() >= 5);
    let times: Vec<Time> = world.rekeyed.iter().map(|(at, _)| *at).collect();
    assert!(times.len() >= 4, "{times:?}");
    assert!(times.windows(2).all(|pair| pair[1].since(pair[0]) >= MS(4_000)), "{times:?}");
    assert_clean(&mut world);
}

#[test]
fn rk4_a_storm_of_unanswered_rekeys_is_bounded() {
    let mut world = world(1);
    world.run_for(MS(9_000));
    world.capture = Some(Vec::new());
    world.censored = vec![MessageType::RekeyAck];
    let calls = world.timer_calls();
    world.run_for(MS(31_000));
    let copies = captured(&world, MessageType::RekeyInit).len();
    assert!((10..45).contains(&copies), "{copies} copies in 30 seconds");
    assert!(world.timer_calls() - calls < 400, "no timer spins");
    assert_clean(&mut world);
}

#[test]
fn ky7_a_session_lives_longer_than_its_keys_may_because_of_rekeys() {
    let mut policy = policy();
    policy.security.key_max_age = MS(60_000);
    let mut world = world_of(policy, 2);
    world.run_for(MS(600_000));
    assert_eq!(ended(&mut world), None);
    assert!(rekeys(&mut world).len() > 45);
    assert_eq!(world.rekeyed.len(), rekeys(&mut world).len());
    assert_carries(&mut world);
    assert_clean(&mut world);
}

#[test]
fn more_rekeys_than_the_byte_on_the_wire_counts_are_no_trouble() {
    let mut world = world(1);
    for _ in 0..280 {
        world.run_for(REKEY_AFTER);
        assert_carries(&mut world);
    }
    assert_eq!(ended(&mut world), None);
    assert!(rekeys(&mut world).len() > 260, "{}", rekeys(&mut world).len());
    assert_clean(&mut world);
}

#[test]
fn t25_ends_the_session_if_the_rekey_never_completes() {
    for blocked in [MessageType::RekeyInit, MessageType::RekeyAck] {
        let mut world = world(1);
        let start = world.now();
        world.censored = vec![blocked];
        world.run_for(MS(61_000));
        let (at, reason) = ended(&mut world).unwrap();
        assert_eq!(reason, Reason::KeyExpired);
        assert!(at.since(start) <= MS(60_010) && at.since(start) >= MS(59_000), "{}", at.since(start));
        assert!(world.shards().iter().all(|shard| shard.is_empty()), "at the gateway too");
        let last = world.client(0).events.iter().rev().find_map(|(_, event)| match event {
            ClientEvent::Transition { transition, .. } => Some(transition.id),
            _ => None,
        });
        assert_eq!(last, Some(TransitionId::T25));
        assert_clean(&mut world);
    }
}

#[test]
fn rk4_a_rekey_that_comes_too_soon_is_denied_and_done_when_it_may_be() {
    let mut policy = policy();
    policy.security.rekey_after = MS(30_000);
    policy.security.rekey_on_switch = true;
    policy.security.rekey_min_interval = MS(1_000);
    let mut world = world_of(policy, 2);
    // The gateway's keys are younger by the way of HELLO_CONFIRM; over a shorter way the request comes too soon.
    world.impair(0, 2, Impairment { delay: MS(1), ..Impairment::default() });
    world.run_for(MS(300));
    world.move_to(0, 2).unwrap();
    world.run_for(MS(2_000));
    assert_eq!(place(&mut world), (State::Attached, Some(2)));
    assert_eq!(world.refused(Reason::RekeyDenied), 1);
    assert_eq!(rekeys(&mut world), [(1, Reason::RekeyTransportChange)]);
    assert_carries(&mut world);
    assert_clean(&mut world);
}

#[test]
fn the_invariants_hold_over_many_rekeys_on_bad_networks() {
    let mut rekeyed = 0;
    for seed in 100..106 {
        let profile = [Profile::Mobile, Profile::Default, Profile::Fast][(seed % 3) as usize];
        let mut policy = Policy::profile(profile);
        policy.security.rekey_after = REKEY_AFTER;
        policy.security.rekey_overlap = if seed % 2 == 0 { MS(1_000) } else { MS(9_000) };
        policy.security.rekey_min_interval = MS(1_000);
        policy.security.rekey_on_switch = seed % 3 != 0;
        policy.security.key_max_age = MS(60_000);
        let outcome =
            Churn { seed, sessions: 8, workers: 2, length: MS(60_000), profile, pace: Pace::Storm }.run_under(policy);
        assert_eq!(outcome.violations, [] as [String; 0], "seed {seed}");
        assert!(outcome.commits > 0 && outcome.received > 0, "seed {seed} tested nothing: {outcome:?}");
        rekeyed += outcome.rekeys;
    }
    assert!(rekeyed > 300, "{rekeyed}");
}
