//! A policy that changes while sessions run (RL-2 to RL-5, PU-1), and what a policy can say of switches.

use jumpgate_protocol::client::ClientEvent;
use jumpgate_protocol::gateway::{ClientEntry, EventKind, Sources};
use jumpgate_protocol::ident::Locator;
use jumpgate_protocol::machine::{State, Transition, TransitionId};
use jumpgate_protocol::policy::{ApplyMode, Policy, Priorities, Profile, TransportClass, Version};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use jumpgate_protocol::wire::{MessageType, RequestedPolicy};
use jumpgate_sim::{Impairment, World, WorldConfig};

const MS: fn(u64) -> Span = Span::from_millis;

fn black_hole() -> Impairment {
    Impairment { blackhole: true, ..Impairment::default() }
}

fn policy() -> Policy {
    Policy::profile(Profile::Default)
}

/// The default policy as version 1.1, with a change, in that mode.
fn changed(mode: ApplyMode, change: impl FnOnce(&mut Policy)) -> Policy {
    let mut policy = policy();
    policy.version = Version { major: 1, minor: 1 };
    policy.apply_mode = mode;
    change(&mut policy);
    policy
}

fn world_of(policy: Policy, clients: usize, paths: u16) -> World {
    let mut world = World::new(&WorldConfig { seed: 41, workers: 2, policy }, clients, paths);
    for client in 0..clients {
        world.connect_now(client);
        assert!(world.client(client).client.is_connected());
    }
    world.run_for(MS(2_000));
    world
}

fn world(paths: u16) -> World {
    world_of(policy(), 1, paths)
}

fn everybody(_: usize) -> Option<ClientEntry> {
    Some(ClientEntry::default())
}

fn locator(world: &mut World, client: usize) -> Locator {
    let now = world.now();
    world.client(client).client.status(now).locator.expect("a session")
}

fn state(world: &mut World, client: usize) -> State {
    let now = world.now();
    world.client(client).client.status(now).state
}

/// Transitions of a client's mirror since then.
fn transitions(world: &mut World, client: usize, since: Time) -> Vec<Transition> {
    let events = world.client(client).events.iter().filter(|(at, _)| *at >= since);
    events
        .filter_map(|(_, event)| match event {
            ClientEvent::Transition { transition, .. } => Some(*transition),
            _ => None,
        })
        .collect()
}

/// Policies that came in force at a client: their numbers within the session.
fn in_force(world: &mut World, client: usize) -> Vec<u32> {
    let events = world.client(client).events.iter();
    events
        .filter_map(|(_, event)| match event {
            ClientEvent::PolicyChanged { sequence, .. } => Some(*sequence),
            _ => None,
        })
        .collect()
}

/// What the gateway told of policies: number, and whether it is in force.
fn told(world: &World) -> Vec<(u32, bool)> {
    let changed = world.noted.iter().filter_map(|(_, _, kind)| match kind {
        EventKind::PolicyChanged { sequence, in_force, .. } => Some((*sequence, *in_force)),
        _ => None,
    });
    changed.collect()
}

fn acknowledged(world: &World) -> Vec<u32> {
    let told = world.noted.iter().filter_map(|(_, _, kind)| match kind {
        EventKind::PolicyAcknowledged { sequence } => Some(*sequence),
        _ => None,
    });
    told.collect()
}

fn ended(world: &mut World, client: usize) -> Option<(Reason, Option<Reason>)> {
    world.client(client).events.iter().find_map(|(_, event)| match event {
        ClientEvent::Terminated { reason, detail } => Some((*reason, *detail)),
        _ => None,
    })
}

fn connect_failed(world: &mut World, client: usize) -> Option<Reason> {
    world.client(client).events.iter().rev().find_map(|(_, event)| match event {
        ClientEvent::ConnectFailed { reason } => Some(*reason),
        _ => None,
    })
}

fn assert_clean(world: &mut World) {
    world.audit();
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

/// Loses the only path for good and gives how long the mirror stays in VOLATILE then, in milliseconds.
fn stay_in_volatile(world: &mut World) -> u64 {
    let start = world.now();
    world.impair(0, 1, black_hole());
    world.run_for(MS(10_000));
    let seen = transitions(world, 0, start);
    let entered = seen.iter().find(|one| one.to == State::Volatile).expect("VOLATILE").at;
    let left = seen.iter().find(|one| one.from == State::Volatile && one.to != State::Volatile).expect("left").at;
    left.since(entered).as_millis()
}

#[test]
fn p05_strict_is_in_force_at_both_ends_from_the_next_step_on() {
    let mut world = world(1);
    let tighter = changed(ApplyMode::Strict, |policy| policy.volatility.heartbeat_interval = MS(250));
    world.reload(&tighter, everybody);
    assert_eq!(told(&world), [(2, true)]);
    assert_eq!(in_force(&mut world, 0), [] as [u32; 0], "still on its way");
    world.run_for(MS(200));
    assert_eq!(in_force(&mut world, 0), [2]);
    assert_eq!(acknowledged(&world), [2], "PU-1: a heartbeat with its number came at once");
    world.capture = Some(Vec::new());
    world.run_for(MS(5_000));
    let beats =
        world.capture.take().unwrap().iter().filter(|(_, packet)| packet[0] == MessageType::Heartbeat as u8).count();
    assert!((19..=21).contains(&beats), "{beats} heartbeats in 5 s");
    assert_clean(&mut world);
}

#[test]
fn p05_grace_waits_for_the_next_transition_and_is_in_force_after_it() {
    let mut world = world(2);
    let longer = changed(ApplyMode::Grace, |policy| policy.switching.switch_cooldown = MS(5_000));
    world.reload(&longer, everybody);
    world.run_for(MS(60_000));
    assert_eq!((told(&world), in_force(&mut world, 0)), (vec![(2, false)], vec![]), "no transition, no new policy");
    assert_eq!(acknowledged(&world), [2], "it has it all the same, so that no more copies come");
    let before = world.now();
    world.move_to(0, 2).unwrap();
    world.run_for(MS(100));
    assert_eq!(in_force(&mut world, 0), [2]);
    assert_eq!(told(&world), [(2, false), (2, true)]);
    // The step of the first transition (T05 at the client) was the last one under the old policy; the commit was not.
    let ids: Vec<_> = transitions(&mut world, 0, before).iter().map(|one| one.id).collect();
    assert_eq!(ids, [TransitionId::T05, TransitionId::T08, TransitionId::T11]);
    world.run_for(MS(2_000));
    assert_eq!(world.move_to(0, 1).err(), None, "asked for, and not before the new cooldown is over");
    world.run_for(MS(1_500));
    assert_eq!(world.checker().commits(), 1);
    world.run_for(MS(10_000));
    assert_clean(&mut world);
}

#[test]
fn p05_a_stay_that_has_begun_keeps_its_bound_and_the_next_one_has_the_new() {
    let bound = MS(3_000);
    let shorter = changed(ApplyMode::Strict, |policy| policy.volatility.volatile_to_degraded = bound);
    let mut begun = world(1);
    begun.impair(0, 1, black_hole());
    let start = begun.now();
    while state(&mut begun, 0) == State::Attached {
        begun.run_for(MS(10));
    }
    begun.impair(0, 1, Impairment::default());
    begun.reload(&shorter, everybody);
    begun.run_for(MS(60));
    assert_eq!(in_force(&mut begun, 0), [2]);
    begun.impair(0, 1, black_hole());
    begun.run_for(MS(10_000));
    let first = transitions(&mut begun, 0, start)[0];
    assert_eq!(first.to, State::Volatile);
    // A new session under the new policy, as the measure.
    let mut fresh = world_of(shorter, 1, 1);
    assert!(stay_in_volatile(&mut fresh) <= bound.as_millis() + 10);
    assert_clean(&mut begun);
    assert_clean(&mut fresh);
}

#[test]
fn p05_a_life_that_has_begun_is_neither_cut_nor_stretched() {
    for (old, new) in [(60_000, 3_600_000), (120_000, 60_000)] {
        for mode in [ApplyMode::Strict, ApplyMode::Grace] {
            let mut first = policy();
            first.session.max_lifetime = MS(old);
            let mut world = world_of(first, 2, 1);
            let session = locator(&mut world, 0);
            world.reload(&changed(mode, |policy| policy.session.max_lifetime = MS(new)), everybody);
            world.run_for(MS(1_000));
            world.replace_client(1, RequestedPolicy::new(), None);
            world.connect_now(1);
            world.run_for(MS(old.min(new) - 10_000));
            assert_eq!(locator(&mut world, 0), session);
            world.run_for(MS(15_000 + old.saturating_sub(new)));
            assert_eq!(ended(&mut world, 0), Some((Reason::TtlSessionExpired, None)), "{mode}: {old} stays {old}");
            let stays = new > old;
            assert_eq!(ended(&mut world, 1).is_none(), stays, "{mode}: a new session has {new}");
        }
    }
}

#[test]
fn pu1_the_same_bytes_are_repeated_until_a_heartbeat_has_their_number() {
    let mut world = world(1);
    world.censored.push(MessageType::PolicyUpdate);
    world.reload(&changed(ApplyMode::Strict, |policy| policy.switching.max_switches_per_min = 4), everybody);
    world.run_for(MS(3_000));
    let copies = world.policy_updates().to_vec();
    assert!((4..=6).contains(&copies.len()), "250, 500, then every 1000 ms: {}", copies.len());
    assert!(copies.windows(2).all(|pair| pair[0] == pair[1]), "byte-identical");
    world.censored.clear();
    world.run_for(MS(1_200));
    assert_eq!((in_force(&mut world, 0), acknowledged(&world)), (vec![2], vec![2]));
    let copies = world.policy_updates().len();
    world.run_for(MS(10_000));
    assert_eq!(world.policy_updates().len(), copies, "no more of them");
    assert_clean(&mut world);
}

#[test]
fn pu1_a_copy_that_the_client_could_not_take_any_more_is_sealed_anew() {
    let mut world = world(2);
    world.censored.push(MessageType::PolicyUpdate);
    world.reload(&changed(ApplyMode::Grace, |policy| policy.switching.max_switches_per_min = 4), everybody);
    world.run_for(MS(100));
    // A hint has a later counter on the same lane: the client would refuse the old bytes as a replay (AR-1).
    let session = locator(&mut world, 0);
    assert!(world.force_move(session, false));
    world.run_for(MS(1_000));
    assert_eq!(world.checker().commits(), 1, "T05: the client followed the hint");
    world.censored.clear();
    world.run_for(MS(2_000));
    assert_eq!(acknowledged(&world), [2]);
    assert_clean(&mut world);
}

#[test]
fn p05_the_last_of_several_reloads_wins_also_if_the_client_heard_of_none_before() {
    let mut world = world(1);
    world.censored.push(MessageType::PolicyUpdate);
    for switches in [7, 6, 5] {
        world.reload(&changed(ApplyMode::Strict, |policy| policy.switching.max_switches_per_min = switches), everybody);
        world.run_for(MS(100));
    }
    world.censored.clear();
    world.run_for(MS(1_500));
    assert_eq!((in_force(&mut world, 0), acknowledged(&world)), (vec![4], vec![4]));
    world.reload(&changed(ApplyMode::Strict, |policy| policy.switching.max_switches_per_min = 5), everybody);
    world.run_for(MS(1_500));
    assert_eq!(in_force(&mut world, 0), [4], "the same policy again is no news");
    assert_clean(&mut world);
}

#[test]
fn p05_what_a_client_asked_for_stays_in_force_under_the_new_base() {
    let mut world = world(1);
    let asked: RequestedPolicy = [(40, 3), (41, 3_000)].into_iter().collect();
    world.replace_client(0, asked, None);
    world.connect_now(0);
    world.run_for(MS(3_000));
    let wider = changed(ApplyMode::Strict, |policy| {
        policy.switching.max_switches_per_min = 10;
        policy.switching.switch_cooldown = MS(1_000);
    });
    world.reload(&wider, everybody);
    world.run_for(MS(1_000));
    let session = locator(&mut world, 0);
    let mine = world.noted.iter().rev().find_map(|(_, of, kind)| match kind {
        EventKind::PolicyChanged { policy, .. } if *of == session => Some(policy.clone()),
        _ => None,
    });
    let mine = mine.expect("told");
    assert_eq!(mine.switching.max_switches_per_min, 3);
    assert_eq!(mine.switching.switch_cooldown, MS(3_000));
}

#[test]
fn rl3_a_session_whose_terms_cannot_be_kept_ends_by_policy_and_its_client_is_told() {
    let mut world = world(1);
    // Heartbeats every 660 ms go with the silence of 2 s of `default`, and not with the one of `fast`.
    world.replace_client(0, [(20, 660)].into_iter().collect(), None);
    world.connect_now(0);
    world.run_for(MS(1_000));
    world.reload(&Policy::profile(Profile::Fast), everybody);
    world.run_for(MS(100));
    assert_eq!(ended(&mut world, 0), Some((Reason::PeerTerminated, Some(Reason::PolicyTermination))));
    world.connect(0);
    world.run_for(MS(1_000));
    assert_eq!(connect_failed(&mut world, 0), Some(Reason::PolicyDenied), "RL-5");
}

#[test]
fn p04_after_an_invalid_reload_running_sessions_go_on_and_new_ones_are_denied_until_a_valid_one() {
    let mut world = world_of(policy(), 2, 1);
    let first = locator(&mut world, 0);
    let second = locator(&mut world, 1);
    world.terminate(second, Reason::OperatorTerminated);
    world.fail_reload();
    world.run_for(MS(1_000));
    world.replace_client(1, RequestedPolicy::new(), None);
    world.connect(1);
    world.run_for(MS(1_000));
    assert_eq!(connect_failed(&mut world, 1), Some(Reason::PolicyInvalid), "HS-4: told, since it is known");
    assert_eq!(world.refused(Reason::PolicyInvalid), 1);
    world.send_up(0, b"still here").unwrap();
    world.send_down(0, b"and back").unwrap();
    world.run_for(MS(60_000));
    assert_eq!((locator(&mut world, 0), world.received.len(), told(&world).len()), (first, 1, 0), "RL-2");
    world.reload(&changed(ApplyMode::Grace, |policy| policy.switching.max_switches_per_min = 4), everybody);
    world.connect_now(1);
    assert!(world.client(1).client.is_connected());
    assert_eq!(locator(&mut world, 0), first);
    assert_clean(&mut world);
}

#[test]
fn t22_a_client_that_is_taken_out_is_ended_and_told_and_the_others_go_on() {
    let mut world = world_of(policy(), 2, 2);
    let (gone, stays) = (locator(&mut world, 0), locator(&mut world, 1));
    world.reload(&policy(), |client| (client == 1).then(ClientEntry::default));
    world.run_for(MS(100));
    assert_eq!(ended(&mut world, 0), Some((Reason::PeerTerminated, Some(Reason::PolicyTermination))));
    assert_eq!(world.ends(), [(gone, TransitionId::T22, Reason::PolicyTermination)]);
    world.connect(0);
    world.run_for(MS(10_000));
    assert!(!world.client(0).client.is_connected(), "PEER_UNKNOWN: silence (HS-4)");
    assert_eq!(locator(&mut world, 1), stays);
    assert_clean(&mut world);
}

#[test]
fn t22_a_half_open_session_of_a_client_that_is_taken_out_never_opens() {
    let mut world = World::new(&WorldConfig { seed: 42, workers: 2, policy: policy() }, 1, 1);
    world.censored.push(MessageType::HelloConfirm);
    world.connect(0);
    world.run_for(MS(50));
    assert_eq!(world.desk().len(), 1);
    world.reload(&policy(), |_| None);
    world.censored.clear();
    world.run_for(MS(1_000));
    assert_eq!(world.desk().len(), 0);
    assert_clean(&mut world);
}

#[test]
fn rl3_a_reload_during_birth_is_told_when_the_session_is_there() {
    let mut world = World::new(&WorldConfig { seed: 43, workers: 2, policy: policy() }, 1, 1);
    world.censored.push(MessageType::HelloConfirm);
    world.connect(0);
    world.run_for(MS(50));
    world.reload(&changed(ApplyMode::Strict, |policy| policy.switching.max_switches_per_min = 4), everybody);
    world.censored.clear();
    world.run_for(MS(2_000));
    assert_eq!((in_force(&mut world, 0), acknowledged(&world)), (vec![2], vec![2]));
    assert_clean(&mut world);
}

/// Only addresses of that path may be used.
fn only(world: &mut World, path: u16) -> ClientEntry {
    let network = ipnet::IpNet::from(world.client(0).links[&path].external.ip());
    ClientEntry { sources: Sources::only([network]), ..ClientEntry::default() }
}

#[test]
fn t22_a_session_from_a_network_that_is_not_allowed_any_more_ends_and_one_from_an_allowed_network_does_not() {
    for (allowed, survives) in [(1, true), (2, false)] {
        let mut world = world(2);
        let entry = only(&mut world, allowed);
        world.reload(&policy(), |_| Some(entry.clone()));
        world.run_for(MS(100));
        let end = ended(&mut world, 0);
        let expected = (!survives).then_some((Reason::PeerTerminated, Some(Reason::PolicyTermination)));
        assert_eq!(end, expected);
        assert_clean(&mut world);
    }
}

#[test]
fn c09_a_path_from_a_network_that_is_not_allowed_is_neither_probed_nor_bound() {
    let mut world = world(2);
    let entry = only(&mut world, 1);
    world.reload(&policy(), |_| Some(entry.clone()));
    world.run_for(MS(100));
    let before = (world.refused(Reason::InvalidTransportCandidate), locator(&mut world, 0));
    world.run_for(MS(10_000));
    assert!(world.refused(Reason::InvalidTransportCandidate) > before.0, "probes are refused");
    world.capture = Some(Vec::new());
    let _no_candidate_is_known = world.move_to(0, 2);
    world.run_for(MS(100));
    let asked = world.capture.take().unwrap();
    let asked = asked.iter().any(|(_, packet)| packet[0] == MessageType::ReattachRequest as u8);
    let refused = world.noted.iter().any(|(_, _, kind)| {
        matches!(kind, EventKind::Refused { message: MessageType::ReattachRequest, reason, .. }
            if *reason == Reason::InvalidTransportCandidate)
    });
    assert_eq!(asked, refused, "whatever was asked was refused");
    assert!(asked, "the request was made");
    world.run_for(MS(20_000));
    assert_eq!((world.checker().commits(), locator(&mut world, 0)), (0, before.1), "the session stays where it may be");
    assert_clean(&mut world);
}

#[test]
fn hs4_a_handshake_from_a_network_that_is_not_allowed_is_denied_and_told() {
    let mut world = World::new(&WorldConfig { seed: 44, workers: 1, policy: policy() }, 1, 1);
    let nowhere = ClientEntry { sources: Sources::only([]), ..ClientEntry::default() };
    world.reload(&policy(), |_| Some(nowhere.clone()));
    world.connect(0);
    world.run_for(MS(1_000));
    assert_eq!(connect_failed(&mut world, 0), Some(Reason::PolicyDenied));
    assert!(world.desk().is_empty());
}

#[test]
fn t22_too_long_in_degraded_ends_the_session_and_the_client_is_told() {
    let mut limited = policy();
    limited.session.max_degraded = MS(9_000);
    limited.volatility.stability_window = MS(4_000);
    let mut world = world_of(limited, 1, 1);
    let session = locator(&mut world, 0);
    // Silent for longer than `heartbeat_volatile_ms`, never for as long as `transport_dead_ms`: never calm, never dead.
    world.censored.push(MessageType::ReattachRequest);
    for _ in 0..10 {
        world.client(0).links.get_mut(&1).unwrap().up = black_hole();
        world.run_for(MS(2_050));
        world.client(0).links.get_mut(&1).unwrap().up = Impairment::default();
        world.run_for(MS(600));
    }
    assert_eq!(world.ends(), [(session, TransitionId::T22, Reason::PolicyTermination)]);
    assert_eq!(ended(&mut world, 0), Some((Reason::PeerTerminated, Some(Reason::PolicyTermination))));
    assert_clean(&mut world);
}

#[test]
fn p07_with_no_switch_allowed_there_is_none_and_every_denial_is_explicit() {
    let mut never = policy();
    never.switching.max_switches_per_min = 0;
    let mut world = world_of(never, 1, 2);
    let session = locator(&mut world, 0);
    assert_eq!(world.move_to(0, 2), Err(Reason::SwitchRateLimited));
    world.run_for(MS(10_000));
    world.link_down(0, 1);
    world.run_for(MS(10_000));
    assert_eq!(state(&mut world, 0), State::Degraded);
    let last =
        transitions(&mut world, 0, Time::ZERO).into_iter().rev().find(|one| one.from == State::Volatile).unwrap();
    assert_eq!((last.id, last.reason), (TransitionId::T10, Reason::SwitchRateLimited));
    world.run_for(MS(20_000));
    assert_eq!(world.checker().commits(), 0, "no switch, whatever happens");
    assert_eq!(ended(&mut world, 0), Some((Reason::TtlTransportLossExpired, None)));
    assert_eq!(world.ends(), [(session, TransitionId::T18, Reason::TtlTransportLossExpired)]);
    assert_clean(&mut world);
}

/// Five switches within a minute, then the sixth is needed: the path in use dies.
fn sixth_switch(policy: Policy) -> World {
    let mut world = world_of(policy, 1, 2);
    for step in 0..5u16 {
        world.run_for(MS(2_500));
        world.move_to(0, 2 - step % 2).unwrap();
        world.run_for(MS(500));
    }
    assert_eq!(world.checker().commits(), 5);
    world.run_for(MS(2_500));
    world.link_down(0, 2);
    world.run_for(MS(3_500));
    assert_eq!(world.checker().commits(), 5, "INV-15");
    assert_eq!(state(&mut world, 0), State::Degraded);
    let denied = transitions(&mut world, 0, Time::ZERO)
        .into_iter()
        .any(|one| one.id == TransitionId::T10 && one.reason == Reason::SwitchRateLimited);
    assert!(denied, "T10");
    world
}

#[test]
fn i08_the_sixth_switch_of_a_minute_is_denied_and_the_session_is_degraded_or_ended_as_the_policy_says() {
    let mut five = policy();
    five.switching.max_switches_per_min = 5;
    let mut longer = five.clone();
    longer.session.transport_lost_ttl = MS(120_000);
    let mut world = sixth_switch(longer);
    let session = locator(&mut world, 0);
    world.run_for(MS(60_000));
    assert_eq!((state(&mut world, 0), world.checker().commits()), (State::Attached, 6), "once the minute has room");
    assert_eq!(locator(&mut world, 0), session);
    assert_clean(&mut world);

    let mut ends = five;
    ends.session.transport_lost_ttl = MS(120_000);
    ends.session.max_degraded = MS(9_000);
    let mut world = sixth_switch(ends);
    let session = locator(&mut world, 0);
    world.run_for(MS(20_000));
    assert_eq!(world.ends(), [(session, TransitionId::T22, Reason::PolicyTermination)], "TE, if the policy says so");
    assert_clean(&mut world);
}

#[test]
fn pp55_the_gateways_policy_sends_a_client_to_the_kind_of_network_that_it_prefers() {
    // Path 2 is a wireless LAN and the user's first choice, path 3 a mobile network.
    for (cellular, expected) in [(100, 2), (99, 3), (101, 2)] {
        let mut policy = policy();
        policy.transport.priority = Priorities::all(100).with(TransportClass::Cellular, cellular);
        let mut world = world_of(policy, 1, 3);
        world.run_for(MS(3_000));
        world.link_down(0, 1);
        world.run_for(MS(1_000));
        let now = world.now();
        let active = world.client(0).client.status(now).active.map(|path| path.0);
        assert_eq!(active, Some(expected), "cellular {cellular}");
        assert_clean(&mut world);
    }
}
