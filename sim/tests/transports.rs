//! Transports that die, move and misbehave, at both ends at once or one after the other (scenarios 5.1, §5.2, §6.3).

use jumpgate_protocol::client::ClientEvent;
use jumpgate_protocol::gateway::SessionView;
use jumpgate_protocol::ident::Locator;
use jumpgate_protocol::machine::{State, Transition, TransitionId};
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use jumpgate_protocol::wire::{Header, MessageType};
use jumpgate_sim::{Burst, Flap, Impairment, World, WorldConfig};

const MS: fn(u64) -> Span = Span::from_millis;

fn world_of(profile: Profile, clients: usize, paths: u16) -> World {
    let config = WorldConfig { seed: 51, workers: 2, policy: Policy::profile(profile) };
    let mut world = World::new(&config, clients, paths);
    for client in 0..clients {
        world.connect_now(client);
        assert!(world.client(client).client.is_connected());
    }
    world.run_for(MS(3_000));
    world
}

fn world(paths: u16) -> World {
    world_of(Profile::Default, 1, paths)
}

fn locator(world: &mut World) -> Locator {
    let now = world.now();
    world.client(0).client.status(now).locator.expect("a session")
}

fn place(world: &mut World) -> (State, Option<u16>) {
    let now = world.now();
    let status = world.client(0).client.status(now);
    (status.state, status.active.map(|path| path.0))
}

fn view(world: &World) -> SessionView {
    world.shards().iter().flat_map(|shard| shard.views(world.now())).next().expect("a session at the gateway")
}

fn transitions(world: &mut World, since: Time) -> Vec<(TransitionId, State, Reason)> {
    let line = |transition: &Transition| (transition.id, transition.to, transition.reason);
    let events = world.client(0).events.iter().filter(|(at, _)| *at >= since);
    events
        .filter_map(|(_, event)| match event {
            ClientEvent::Transition { transition, .. } => Some(line(transition)),
            _ => None,
        })
        .collect()
}

fn handshakes(world: &mut World) -> usize {
    world.client(0).events.iter().filter(|(_, event)| matches!(event, ClientEvent::Connected { .. })).count()
}

fn switches(world: &mut World) -> Vec<(u16, Option<Reason>)> {
    let events = world.client(0).events.iter();
    events
        .filter_map(|(_, event)| match event {
            ClientEvent::Switched { to, detail, .. } => Some((to.0, *detail)),
            _ => None,
        })
        .collect()
}

fn carries(world: &mut World) -> bool {
    let before = (world.received.len(), world.client(0).delivered.len());
    let sent = world.send_up(0, b"up").is_ok() && world.send_down(0, b"down").is_ok();
    world.run_for(MS(100));
    sent && (world.received.len(), world.client(0).delivered.len()) == (before.0 + 1, before.1 + 1)
}

fn assert_clean(world: &mut World) {
    world.audit();
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

#[test]
fn tc01_a_transport_that_is_killed_hard_is_replaced_by_the_spare_without_a_handshake() {
    let mut world = world(2);
    let (session, cut) = (locator(&mut world), world.now());
    world.link_down(0, 1);
    world.run_for(MS(500));
    assert_eq!(
        transitions(&mut world, cut),
        [
            (TransitionId::T04, State::Volatile, Reason::TransportDead),
            (TransitionId::T08, State::Recovering, Reason::DeadTransportRecovery),
            (TransitionId::T11, State::Attached, Reason::ReattachSuccess),
        ]
    );
    assert_eq!(switches(&mut world), [(2, None)]);
    assert_eq!((handshakes(&mut world), locator(&mut world)), (1, session), "INV-04");
    assert!(carries(&mut world));
    assert_clean(&mut world);
}

#[test]
fn i01_after_death_and_reattach_the_old_binding_is_gone_and_the_new_one_is_the_only_one() {
    let mut world = world(2);
    let old = view(&world).tuple.expect("a binding");
    world.link_down(0, 1);
    world.run_for(MS(500));
    let new = view(&world);
    assert_ne!(new.tuple, Some(old));
    assert_eq!((new.state, new.epoch, new.switches), (State::Attached, 2, 1));
    let views: Vec<_> = world.shards().iter().flat_map(|shard| shard.views(world.now())).collect();
    assert_eq!(views.iter().filter(|view| view.tuple.is_some()).count(), 1);
    assert_clean(&mut world);
}

#[test]
fn i03_each_transition_adds_one_to_the_version_at_both_ends() {
    let mut world = world(2);
    let versions: [u64; 3] = std::array::from_fn(|_| {
        let _refused = world.move_to(0, 2).or_else(|_| world.move_to(0, 1));
        world.run_for(MS(2_000));
        view(&world).version
    });
    // T06, T08b, T11 at the gateway, each time.
    assert_eq!(versions, [4, 7, 10]);
    let ordinals: Vec<u64> = world
        .client(0)
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            ClientEvent::Transition { transition, .. } => Some(transition.version),
            _ => None,
        })
        .collect();
    assert_eq!(ordinals, (1..=ordinals.len() as u64).collect::<Vec<_>>(), "INV-05");
    assert_clean(&mut world);
}

#[test]
fn tc14_another_source_address_is_bound_by_a_request_only() {
    let mut world = world(1);
    let (session, old) = (locator(&mut world), view(&world).tuple.expect("a binding").peer);
    world.rebind_address(0, 1);
    world.send_up(0, b"from the new address").unwrap();
    world.run_for(MS(15));
    assert!(world.received.is_empty(), "INV-26");
    assert_eq!(world.refused(Reason::WrongTransport), 1);
    world.run_for(MS(1_500));
    let peer = view(&world).tuple.expect("a binding").peer;
    assert_ne!(peer.ip(), old.ip());
    assert_eq!(switches(&mut world), [(1, Some(Reason::NatRebindDetected))]);
    assert_eq!(locator(&mut world), session);
    assert!(carries(&mut world));
    assert_clean(&mut world);
}

#[test]
fn tc15_a_mapping_that_expires_while_nothing_is_sent_is_found_by_the_next_heartbeat() {
    let mut world = world(1);
    // Shorter than the pause between two heartbeats: each of them comes from another port.
    world.sleep(0);
    world.expire_mappings(0, 1, Some(MS(1_000)));
    world.run_for(MS(1_900));
    world.wake(0);
    world.expire_mappings(0, 1, Some(MS(30_000)));
    world.run_for(MS(3_000));
    assert_eq!(switches(&mut world), [(1, Some(Reason::NatRebindDetected))]);
    assert_eq!(world.checker().commits(), 1);
    assert!(carries(&mut world));
    assert_clean(&mut world);
}

#[test]
fn tc15_heartbeats_keep_a_mapping_alive_that_lives_longer_than_their_interval() {
    let mut world = world(1);
    world.expire_mappings(0, 1, Some(MS(5_000)));
    world.run_for(MS(120_000));
    assert_eq!(world.checker().commits(), 0);
    assert_clean(&mut world);
}

#[test]
fn tc23_corrupted_packets_are_refused_by_the_aead_and_deliver_nothing() {
    let mut world = world(1);
    world.impair(0, 1, Impairment { corrupt: 1_000, ..Impairment::GOOD });
    let before = view(&world).version;
    for _ in 0..100 {
        world.send_up(0, b"up").unwrap();
        world.send_down(0, b"down").unwrap();
        world.run_for(MS(5));
    }
    world.run_for(MS(50));
    assert!(world.received.is_empty() && world.client(0).delivered.is_empty());
    // A flipped bit in the header fails before: another session, another tag, another type.
    let refused = world.refused(Reason::DataAuthFail);
    assert!((50..=101).contains(&refused), "{refused}");
    assert_eq!(view(&world).version, before, "half a second of it is no reason to move");
    assert_clean(&mut world);
}

#[test]
fn tc24_while_a_request_is_under_way_the_old_binding_serves_and_what_is_lost_is_counted() {
    let mut world = world(2);
    world.impair(0, 2, Impairment { delay: MS(150), ..Impairment::GOOD });
    world.run_for(MS(3_000));
    world.move_to(0, 2).unwrap();
    let (mut sent, mut over_the_old) = (0, 0);
    for _ in 0..100 {
        world.send_up(0, b"up").unwrap();
        world.send_down(0, b"down").unwrap();
        sent += 1;
        over_the_old += usize::from(world.checker().commits() == 0);
        world.run_for(MS(5));
    }
    world.run_for(MS(400));
    assert!(over_the_old >= 29, "until the request has arrived: {over_the_old}");
    assert_eq!(place(&mut world), (State::Attached, Some(2)));
    assert_eq!((world.received.len(), world.client(0).delivered.len()), (sent, sent), "make before break");
    assert_eq!(world.refused(Reason::WrongTransport), 0);
    assert_clean(&mut world);
}

/// An application that sends numbered records, each until it was acknowledged, as TCP would.
fn transfer(world: &mut World, records: usize, mut at: impl FnMut(&mut World, usize)) -> Span {
    let begin = world.now();
    let (mut done, mut asked) = (0, Time::ZERO);
    while done < records {
        assert!(world.now().since(begin) < MS(60_000), "stuck at record {done}");
        if world.now().since(asked) >= MS(200) {
            let _unbound = world.send_up(0, &(done as u32).to_be_bytes());
            asked = world.now();
        }
        world.run_for(MS(5));
        if world.received.iter().any(|(_, payload)| *payload == (done as u32).to_be_bytes()) {
            let _unbound = world.send_down(0, &(done as u32).to_be_bytes());
            world.run_for(MS(20));
            if world.client(0).delivered.iter().any(|payload| *payload == (done as u32).to_be_bytes()) {
                done += 1;
                asked = Time::ZERO;
                at(world, done);
            }
        }
    }
    world.now().since(begin)
}

#[test]
fn tc36_a_transfer_over_a_lossy_failover_ends_in_the_session_in_which_it_began() {
    let mut world = world_of(Profile::Fast, 1, 2);
    let session = locator(&mut world);
    let lossy = Impairment { loss: 100, jitter: MS(20), ..Impairment::GOOD };
    world.impair(0, 1, lossy);
    world.impair(0, 2, lossy);
    let took = transfer(&mut world, 60, |world, done| {
        if done == 30 {
            world.impair(0, 1, Impairment::DEAD);
        }
    });
    assert!(took < MS(20_000), "{took}");
    assert_eq!((handshakes(&mut world), locator(&mut world)), (1, session), "no login again");
    assert!(!switches(&mut world).is_empty());
    let distinct: std::collections::BTreeSet<_> = world.received.iter().map(|(_, payload)| payload.clone()).collect();
    assert_eq!(distinct.len(), 60);
    assert_clean(&mut world);
}

#[test]
fn a_rebinding_in_the_middle_of_a_reattach_is_one_more_reattach() {
    for moment in [1, 5, 9, 11, 15, 19, 21, 35] {
        let mut world = world(2);
        world.link_down(0, 1);
        world.run_for(MS(moment));
        world.rebind(0, 2);
        world.run_for(MS(8_000));
        assert_eq!(place(&mut world), (State::Attached, Some(2)), "{moment} ms");
        let bound = view(&world).tuple.map(|tuple| tuple.peer);
        assert_eq!(bound, Some(world.client(0).links[&2].external), "{moment} ms");
        assert!(carries(&mut world), "{moment} ms");
        assert_clean(&mut world);
    }
}

#[test]
fn rs6_every_acknowledgement_lost_for_seconds_and_the_session_still_comes_back() {
    let mut world = world(2);
    world.censored = vec![MessageType::ReattachAck];
    world.link_down(0, 1);
    world.run_for(MS(6_000));
    assert!(world.checker().commits() > 0, "the gateway bound it, and the client does not know");
    world.censored.clear();
    world.run_for(MS(6_000));
    assert_eq!(place(&mut world), (State::Attached, Some(2)), "L-3");
    assert!(carries(&mut world));
    assert_clean(&mut world);
}

#[test]
fn control_messages_that_come_twice_and_out_of_order_count_once() {
    let mut world = world(2);
    for path in 1..=2 {
        world.impair(0, path, Impairment { duplicate: 1_000, reorder: 500, jitter: MS(5), ..Impairment::GOOD });
    }
    for round in 0..20u16 {
        world.run_for(MS(8_000));
        world.move_to(0, 1 + (round + 1) % 2).unwrap();
    }
    world.run_for(MS(2_000));
    assert_eq!(switches(&mut world).len(), 20);
    assert_eq!(world.checker().commits(), 20, "INV-12: a copy is no second switch");
    assert!(carries(&mut world));
    assert_clean(&mut world);
}

#[test]
fn both_ends_notice_at_different_times_and_agree_in_the_end() {
    // One direction dies, then the other: the gateway knows before the client, or after it.
    for (first_up, gap) in [(true, 200), (true, 1_500), (false, 200), (false, 1_500)] {
        let mut world = world(2);
        let link = world.client(0).links.get_mut(&1).unwrap();
        if first_up {
            link.up = Impairment::DEAD
        } else {
            link.down = Impairment::DEAD
        };
        world.run_for(MS(gap));
        world.impair(0, 1, Impairment::DEAD);
        world.run_for(MS(12_000));
        assert_eq!(place(&mut world), (State::Attached, Some(2)), "up first {first_up}, {gap} ms");
        let view = view(&world);
        assert_eq!((view.state, view.transport.map(|path| path.0)), (State::Attached, Some(2)));
        assert!(carries(&mut world));
        assert_clean(&mut world);
    }
}

#[test]
fn l2_in_a_total_blackout_every_session_ends_by_time_alone_at_both_ends() {
    let mut world = world_of(Profile::Default, 4, 2);
    for client in 0..4 {
        for path in 1..=2 {
            world.impair(client, path, Impairment::DEAD);
        }
    }
    // Silence, then the longest time without a transport (TB-01, TB-09).
    world.run_for(MS(3_000 + 15_000 + 100));
    assert!(world.shards().iter().all(|shard| shard.is_empty()));
    assert_eq!(world.checker().ended_by(Reason::TtlTransportLossExpired), 4);
    assert!((0..4).all(|client| !world.client(client).client.is_connected()));
    assert!(world.desk().is_empty(), "INV-22");
    assert_clean(&mut world);
}

#[test]
fn l1_whatever_a_path_does_as_long_as_it_works_a_recovery_ends_attached() {
    let paths = [
        Impairment { loss: 150, ..Impairment::GOOD },
        Impairment { burst: Some(Burst { enter: 50, leave: 300, loss: 900 }), ..Impairment::GOOD },
        Impairment { delay: MS(300), jitter: MS(100), ..Impairment::GOOD },
        Impairment { duplicate: 500, reorder: 500, corrupt: 50, ..Impairment::GOOD },
        Impairment { rate: Some(64), ..Impairment::GOOD },
        Impairment { mtu: Some(600), ..Impairment::GOOD },
        Impairment { flap: Some(Flap { up: MS(900), down: MS(100) }), ..Impairment::GOOD },
    ];
    for path in paths {
        let mut world = world(2);
        world.impair(0, 2, path);
        let cut = world.now();
        world.link_down(0, 1);
        world.run_for(MS(8_000));
        let reached = transitions(&mut world, cut).iter().any(|(id, ..)| *id == TransitionId::T11);
        assert!(reached, "L-1, TB-05: {path:?}: {:?}", transitions(&mut world, cut));
        assert_eq!(handshakes(&mut world), 1);
        assert_clean(&mut world);
    }
}

#[test]
fn tb11_a_silent_death_is_over_within_detection_cooldown_and_one_recovery_window() {
    for profile in [Profile::Default, Profile::Mobile, Profile::Fast] {
        let policy = Policy::profile(profile);
        let bound = policy.volatility.heartbeat_volatile.as_millis()
            + policy.switching.switch_cooldown.as_millis()
            + policy.switching.recovery_window.as_millis();
        let mut world = world_of(profile, 1, 2);
        // Just switched, so that the cooldown runs; and the other path is dead too.
        world.move_to(0, 2).unwrap();
        world.run_for(MS(100));
        world.impair(0, 1, Impairment::DEAD);
        world.impair(0, 2, Impairment::DEAD);
        let cut = world.now();
        world.run_for(MS(bound + 100));
        let since = transitions(&mut world, cut);
        let over = since.iter().any(|(_, to, _)| matches!(to, State::Attached | State::Degraded));
        assert!(over, "{profile:?}: {since:?}");
        assert_clean(&mut world);
    }
}

#[test]
fn a_worker_that_is_not_scheduled_for_a_while_loses_no_session() {
    for pause in [50, 500, 1_500, 2_500] {
        let mut world = world_of(Profile::Default, 6, 2);
        world.pause_worker(0, MS(pause));
        world.pause_worker(1, MS(pause / 2));
        world.run_for(MS(20_000));
        let ended = (0..6).filter(|client| !world.client(*client).client.is_connected()).count();
        assert_eq!(ended, 0, "{pause} ms");
        assert!(carries(&mut world));
        assert_clean(&mut world);
    }
}

#[test]
fn clocks_that_run_apart_by_half_a_thousandth_move_nothing_for_an_hour() {
    let mut world = world_of(Profile::Default, 3, 2);
    for (client, ppm) in [(0, 500), (1, -500), (2, 37)] {
        world.skew_clock(client, ppm);
    }
    world.run_for(MS(3_600_000));
    assert_eq!(world.checker().commits(), 0);
    for client in 0..3 {
        world.move_to(client, 2).unwrap();
    }
    world.run_for(MS(1_000));
    assert_eq!(world.checker().commits(), 3, "AR-5: requests are as fresh as ever");
    assert_eq!(world.refused(Reason::FreshnessInvalid), 0);
    assert_clean(&mut world);
}

#[test]
fn sp4_standby_paths_whose_probes_are_lost_lower_nothing_in_use() {
    let mut world = world(3);
    let before = (view(&world).version, view(&world).epoch);
    for path in 2..=3 {
        world.impair(0, path, Impairment::DEAD);
    }
    world.run_for(MS(60_000));
    assert_eq!((view(&world).version, view(&world).epoch), before, "INV-35");
    assert_eq!(place(&mut world), (State::Attached, Some(1)));
    assert!(carries(&mut world));
    assert_clean(&mut world);
}

#[test]
fn sp5_a_standby_path_hears_nothing_but_answers_to_its_probes() {
    let mut world = world(2);
    world.client(0).links.get_mut(&1).unwrap().down = Impairment::DEAD;
    world.overhear_answers();
    let started = world.now();
    // Before the client gives up path 1: whatever is delivered came by path 2, the standby.
    for _ in 0..10 {
        world.send_down(0, b"down").unwrap();
        world.run_for(MS(50));
    }
    assert!(world.now().since(started) < MS(1_000));
    assert!(world.client(0).delivered.is_empty(), "DATA goes to the active binding only (BD-2)");
    let said = world.overheard_answers();
    let kinds: std::collections::BTreeSet<u8> = said.iter().map(|packet| packet[0]).collect();
    let allowed = [MessageType::Data, MessageType::HeartbeatAck, MessageType::PathProbeAck].map(|kind| kind as u8);
    assert!(kinds.iter().all(|kind| allowed.contains(kind)), "{kinds:?}");
    assert_clean(&mut world);
}

/// Requests and probes that the client sends from the moment that its path died and path 2 came up, until it is bound
/// again, for at most that time.
fn asked_in_a_jump(world: &mut World, at_most: Span) -> Vec<MessageType> {
    world.link_down(0, 2);
    world.run_for(MS(500));
    world.capture = Some(Vec::new());
    world.link_down(0, 1);
    world.link_up(0, 2);
    let end = world.now() + at_most;
    while world.now() < end && place(world) != (State::Attached, Some(2)) {
        world.run_for(MS(1));
    }
    let sent = world.capture.take().unwrap();
    let kinds = sent.iter().map(|(_, packet)| Header::parse(packet).unwrap().kind);
    kinds.filter(|kind| matches!(kind, MessageType::ReattachRequest | MessageType::PathProbe)).collect()
}

#[test]
fn sp1_a_path_that_is_asked_for_is_not_probed_before_the_answer() {
    // An answer at once, and one that comes after all copies of the request.
    for (delay, requests) in [(10, 1), (300, 3)] {
        let mut world = world(2);
        world.impair(0, 2, Impairment { delay: MS(delay), ..Impairment::GOOD });
        let asked = asked_in_a_jump(&mut world, MS(1_000));
        assert_eq!(asked, vec![MessageType::ReattachRequest; requests], "{delay} ms");
        assert_eq!(place(&mut world), (State::Attached, Some(2)), "{delay} ms");
        assert_clean(&mut world);
    }
}

#[test]
fn sp1_a_path_that_left_a_request_unanswered_is_probed_again() {
    let mut world = world(2);
    world.impair(0, 2, Impairment::DEAD);
    // RS-1: three copies, and the attempt has failed after 4 RTO of 250 ms each.
    let asked = asked_in_a_jump(&mut world, MS(1_100));
    let (request, probe) = (MessageType::ReattachRequest, MessageType::PathProbe);
    assert_eq!(asked, [request, request, request, probe]);
    world.impair(0, 2, Impairment::GOOD);
    world.run_for(MS(5_000));
    assert_eq!(place(&mut world), (State::Attached, Some(2)));
    assert!(carries(&mut world));
    assert_clean(&mut world);
}
