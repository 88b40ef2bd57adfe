//! What a holder of valid keys may say and what it gets for it: epochs, nonces, limits, drains (§6.3, §7).

use std::net::{Ipv4Addr, SocketAddr};

use jumpgate_protocol::gateway::SessionView;
use jumpgate_protocol::machine::{State, TransitionId};
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Span;
use jumpgate_protocol::wire::{Cause, MessageType};
use jumpgate_sim::{Holder, Verdict, World, WorldConfig};

const MS: fn(u64) -> Span = Span::from_millis;
const TERMINATE: u8 = MessageType::Terminate as u8;

/// Addresses of the holder.
fn place(number: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, number], 4_000))
}

/// A world with honest clients, and a holder of the key of the last one, bound at place 1.
fn world(honest: usize) -> (World, Holder) {
    let config = WorldConfig { seed: 31, workers: 2, policy: Policy::profile(Profile::Default) };
    let mut world = World::new(&config, honest + 1, 2);
    for client in 0..honest {
        world.connect_now(client);
    }
    let holder = Holder::connect(&mut world, honest, place(1));
    assert_eq!(view(&world, &holder).state, State::Attached);
    (world, holder)
}

fn view(world: &World, holder: &Holder) -> SessionView {
    let now = world.now();
    world.shards()[world.owner(holder.locator)].view(now, holder.locator).expect("a live session")
}

/// State, version, epoch and peer: what a refusal leaves as it was (INV-14).
fn standing(world: &World, holder: &Holder) -> (State, u64, u64, Option<SocketAddr>) {
    let view = view(world, holder);
    (view.state, view.version, view.epoch, view.tuple.map(|tuple| tuple.peer))
}

/// Sends from there and gives what the gateway answers.
fn ask(world: &mut World, holder: &Holder, from: u8, packet: &[u8]) -> Vec<Verdict> {
    world.take_mail(place(from));
    world.inject_genuine(place(from), packet);
    world.run_for(MS(1));
    holder.verdicts(world, place(from))
}

fn assert_clean(world: &mut World) {
    world.audit();
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

#[test]
fn a04_a_valid_proof_over_an_old_epoch_is_refused_and_told_the_present_one() {
    let (mut world, mut holder) = world(0);
    world.run_for(MS(100));
    let move_there = holder.request(&world, 1, Cause::HardDead, 2);
    assert_eq!(ask(&mut world, &holder, 2, &move_there), [Verdict::Bound(2)]);
    let before = standing(&world, &holder);
    let old = holder.request(&world, 1, Cause::HardDead, 3);
    assert_eq!(ask(&mut world, &holder, 3, &old), [Verdict::Refused(Reason::StaleStateVersion, Some(2))]);
    assert_eq!(standing(&world, &holder), before, "INV-06");
    assert_eq!(world.refused(Reason::StaleStateVersion), 1);
    assert_clean(&mut world);
}

#[test]
fn a05_a_valid_proof_over_a_future_epoch_is_refused_and_changes_nothing() {
    let (mut world, mut holder) = world(0);
    let before = standing(&world, &holder);
    for epoch in [2, 3, u64::MAX] {
        world.run_for(MS(100));
        let future = holder.request(&world, epoch, Cause::HardDead, 2);
        assert_eq!(ask(&mut world, &holder, 2, &future), [Verdict::Refused(Reason::FutureStateVersion, None)]);
    }
    assert_eq!(standing(&world, &holder), before);
    assert_eq!(world.refused(Reason::FutureStateVersion), 3);
    assert_clean(&mut world);
}

#[test]
fn i04_neither_an_older_nor_a_future_epoch_mutates_anything() {
    let (mut world, mut holder) = world(0);
    let there = holder.request(&world, 1, Cause::HardDead, 2);
    ask(&mut world, &holder, 2, &there);
    let before = standing(&world, &holder);
    for epoch in [0, 1, 3, 4] {
        world.run_for(MS(100));
        let wrong = holder.request(&world, epoch, Cause::HardDead, 3);
        let [Verdict::Refused(reason, _)] = ask(&mut world, &holder, 3, &wrong)[..] else {
            panic!("epoch {epoch} was not refused");
        };
        let expected = if epoch < 2 { Reason::StaleStateVersion } else { Reason::FutureStateVersion };
        assert_eq!(reason, expected, "epoch {epoch}");
        assert_eq!(standing(&world, &holder), before, "epoch {epoch}");
    }
    assert_clean(&mut world);
}

#[test]
fn i06_a_nonce_counts_once_and_a_lower_one_never() {
    let (mut world, mut holder) = world(0);
    let there = holder.request(&world, 1, Cause::HardDead, 2);
    assert_eq!(ask(&mut world, &holder, 2, &there), [Verdict::Bound(2)]);
    let before = standing(&world, &holder);
    // The same bytes from where they were accepted: the cached answer, and no second switch (RS-6).
    assert_eq!(ask(&mut world, &holder, 2, &there), [Verdict::Bound(2)]);
    // From elsewhere they are a replay; and so is any lower nonce, whoever seals it.
    assert_eq!(ask(&mut world, &holder, 3, &there), []);
    let lower = holder.request_under(&world, holder.counter - 1, 2, Cause::HardDead, 3);
    assert_eq!(ask(&mut world, &holder, 3, &lower), []);
    assert_eq!(world.refused(Reason::ReplayDetected), 2);
    assert_eq!(standing(&world, &holder), before, "INV-12: the version is the same");
    assert_eq!(world.checker().commits(), 1);
    assert_clean(&mut world);
}

#[test]
fn a15_nonces_that_no_counter_has_are_malformed_and_a_million_burned_ones_do_no_harm() {
    let (mut world, mut holder) = world(0);
    let before = standing(&world, &holder);
    for nonce in [0, u64::MAX] {
        let packet = holder.request_under(&world, nonce, 1, Cause::HardDead, 2);
        assert_eq!(ask(&mut world, &holder, 2, &packet), []);
    }
    assert_eq!(world.refused(Reason::Malformed), 2);
    assert_eq!(standing(&world, &holder), before);
    // L-3: lane M has no forward limit.
    holder.counter += 1_000_000;
    let packet = holder.request(&world, 1, Cause::HardDead, 2);
    assert_eq!(ask(&mut world, &holder, 2, &packet), [Verdict::Bound(2)]);
    assert_clean(&mut world);
}

#[test]
fn a24_two_holders_of_one_key_end_the_session_and_never_bind_it_twice() {
    let (mut world, mut holder) = world(0);
    let mine = holder.request(&world, 1, Cause::HardDead, 2);
    let theirs = holder.request_under(&world, holder.counter, 1, Cause::HardDead, 3);
    assert_eq!(ask(&mut world, &holder, 2, &mine), [Verdict::Bound(2)]);
    world.inject_genuine(place(3), &theirs);
    world.run_for(MS(1));
    // AR-4: the same nonce under a valid proof, other bytes.
    assert_eq!(world.refused(Reason::KeyCompromiseSuspected), 1);
    assert_eq!(world.ends(), [(holder.locator, TransitionId::T20, Reason::SecurityFailure)]);
    assert_clean(&mut world);
}

#[test]
fn a24_holders_who_take_turns_share_one_binding_within_the_switch_rate() {
    let (mut world, mut holder) = world(0);
    let mut epoch = 1;
    for turn in 0..40 {
        world.run_for(MS(1_600));
        let from = 2 + turn % 2;
        let packet = holder.request(&world, epoch, Cause::HardDead, u16::from(from));
        if let [Verdict::Bound(granted)] = ask(&mut world, &holder, from, &packet)[..] {
            assert_eq!(granted, epoch + 1);
            epoch = granted;
            // Whoever is bound shows that it receives (PV-3).
            let data = holder.data(granted as u8, b"mine");
            world.inject_genuine(place(from), &data);
        }
    }
    assert!(world.checker().busiest_minute() <= 8, "INV-15");
    assert!(world.refused(Reason::SwitchRateLimited) > 0);
    assert_clean(&mut world);
}

#[test]
fn i02_of_two_requests_at_once_one_commits_and_the_other_is_refused_unchanged() {
    let (mut world, mut holder) = world(0);
    let one = holder.request(&world, 1, Cause::HardDead, 2);
    let other = holder.request(&world, 1, Cause::HardDead, 3);
    // In the same instant, in either order of arrival: the first is bound, the second names an epoch that is over.
    world.inject_genuine(place(2), &one);
    world.inject_genuine(place(3), &other);
    world.run_for(MS(1));
    assert_eq!(holder.verdicts(&mut world, place(2)), [Verdict::Bound(2)]);
    assert_eq!(holder.verdicts(&mut world, place(3)), [Verdict::Refused(Reason::StaleStateVersion, Some(2))]);
    assert_eq!(world.checker().commits(), 1);
    assert_eq!(standing(&world, &holder).3, Some(place(2)));
    assert_clean(&mut world);
}

#[test]
fn i02_of_two_requests_that_overtake_each_other_the_older_is_a_replay() {
    let (mut world, mut holder) = world(0);
    let older = holder.request(&world, 1, Cause::HardDead, 2);
    let newer = holder.request(&world, 1, Cause::HardDead, 3);
    world.inject_genuine(place(3), &newer);
    world.inject_genuine(place(2), &older);
    world.run_for(MS(1));
    assert_eq!(holder.verdicts(&mut world, place(3)), [Verdict::Bound(2)]);
    assert_eq!(holder.verdicts(&mut world, place(2)), []);
    assert_eq!(world.refused(Reason::ReplayDetected), 1);
    assert_clean(&mut world);
}

#[test]
fn a10_a_hundred_requests_a_second_meet_the_limiter_of_their_session_and_no_other() {
    let (mut world, mut holder) = world(2);
    let mut answered = 0;
    for n in 0..1_000u64 {
        let from = 2 + (n % 2) as u8;
        let epoch = view(&world, &holder).epoch;
        let packet = holder.request(&world, epoch, Cause::HardDead, u16::from(from));
        answered += ask(&mut world, &holder, from, &packet).len();
        world.run_for(MS(9));
        if n % 10 == 0 {
            for client in 0..2 {
                world.send_up(client, b"undisturbed").unwrap();
            }
        }
    }
    assert_eq!(answered, 1_000, "RF-2: each fresh nonce has its answer");
    // From where it is bound it asks for what is so (SM-09); of the other half 2 a second pass after a burst of 5.
    let limited = world.refused(Reason::RateLimited);
    assert!((460..=490).contains(&limited), "{limited}");
    assert!(world.checker().busiest_minute() <= 8, "INV-15: no added switches");
    world.run_for(MS(50));
    assert_eq!(world.received.len(), 200, "INV-27: the others lost nothing");
    assert_clean(&mut world);
}

#[test]
fn a18_data_with_the_previous_epoch_is_taken_from_the_retiring_tuple_while_it_drains_and_else_dropped() {
    let (mut world, mut holder) = world(0);
    let there = holder.request(&world, 1, Cause::HardDead, 2);
    assert_eq!(ask(&mut world, &holder, 2, &there), [Verdict::Bound(2)]);
    let send = |world: &mut World, packet: Vec<u8>, from: u8| {
        let before = world.received.len();
        world.inject_genuine(place(from), &packet);
        world.run_for(MS(1));
        world.received.len() - before
    };
    let packet = holder.data(1, b"late");
    assert_eq!(send(&mut world, packet, 1), 1, "the old tuple under the old epoch");
    let packet = holder.data(2, b"wrong place");
    assert_eq!(send(&mut world, packet, 1), 0, "the old tuple under the new epoch");
    assert_eq!(world.refused(Reason::DataFutureEpoch), 1);
    let packet = holder.data(1, b"wrong tag");
    assert_eq!(send(&mut world, packet, 2), 0, "the new tuple under the old epoch");
    assert_eq!(world.refused(Reason::DataStaleEpoch), 1);
    world.run_for(MS(250));
    let packet = holder.data(1, b"too late");
    assert_eq!(send(&mut world, packet, 1), 0, "TB-07");
    assert_eq!(world.refused(Reason::WrongTransport), 1);
    let packet = holder.data(2, b"here");
    assert_eq!(send(&mut world, packet, 2), 1);
    assert_clean(&mut world);
}

#[test]
fn a34_valid_keys_carry_no_packet_from_or_to_the_inner_address_of_another() {
    let (mut world, mut holder) = world(1);
    let (mine, server) = (holder.inner, Ipv4Addr::new(10, 0, 0, 1));
    let neighbour = world.inner_address(0).expect("a client that is connected");
    let before = world.received.len();
    let cases = [
        (neighbour, server, Reason::InnerSourceInvalid),
        (server, neighbour, Reason::InnerSourceInvalid),
        (Ipv4Addr::new(203, 0, 113, 9), server, Reason::InnerSourceInvalid),
        (mine, neighbour, Reason::PeerToPeerDenied),
    ];
    for (from, to, reason) in cases {
        let refused = world.refused(reason);
        let packet = holder.data_between(from, to, 1, b"under a false name");
        world.inject_genuine(place(1), &packet);
        world.run_for(MS(1));
        assert_eq!(world.refused(reason), refused + 1, "{from} to {to}");
    }
    assert_eq!(world.received.len(), before);
    let packet = holder.data(1, b"under my own");
    world.inject_genuine(place(1), &packet);
    world.run_for(MS(1));
    assert_eq!(world.received.last(), Some(&(mine, b"under my own".to_vec())), "INV-27");
    assert_clean(&mut world);
}

#[test]
fn pv4_a_binding_that_nothing_validates_dies_when_its_time_is_over_and_never_retires() {
    let (mut world, mut holder) = world(0);
    let there = holder.request(&world, 1, Cause::HardDead, 2);
    assert_eq!(ask(&mut world, &holder, 2, &there), [Verdict::Bound(2)]);
    assert!(!view(&world, &holder).validated);
    world.run_for(MS(980));
    assert_eq!(standing(&world, &holder).3, Some(place(2)));
    world.run_for(MS(30));
    let (state, _, epoch, peer) = standing(&world, &holder);
    assert_eq!((state, epoch, peer), (State::Volatile, 2, None), "TB-06");
    // PV-5: it was not validated, so nothing is taken from it any more.
    let late = holder.data(2, b"late");
    world.inject_genuine(place(2), &late);
    world.run_for(MS(1));
    assert!(world.received.is_empty());
    assert_clean(&mut world);
}

#[test]
fn tc28_a_valid_proof_does_not_outlive_the_session() {
    let mut policy = Policy::profile(Profile::Default);
    policy.session.max_lifetime = MS(60_000);
    let config = WorldConfig { seed: 31, workers: 1, policy };
    let mut world = World::new(&config, 1, 1);
    let mut holder = Holder::connect(&mut world, 0, place(1));
    for _ in 0..59 {
        world.run_for(MS(1_000));
        let data = holder.data(1, b"alive");
        world.inject_genuine(place(1), &data);
    }
    // In flight while the life ends.
    let request = holder.request(&world, 1, Cause::HardDead, 2);
    world.run_for(MS(1_010));
    world.inject_genuine(place(2), &request);
    world.run_for(MS(1));
    assert_eq!(world.ends(), [(holder.locator, TransitionId::T17, Reason::TtlSessionExpired)]);
    assert_eq!(world.checker().commits(), 0);
    assert_eq!(world.refused(Reason::SessionNotFound), 1);
    assert_clean(&mut world);
}

#[test]
fn inv34_a_session_that_ends_without_a_binding_says_no_farewell_to_the_one_that_retires() {
    let mut policy = Policy::profile(Profile::Default);
    (policy.switching.old_path_drain, policy.switching.path_validation) = (MS(1_000), MS(100));
    for dies in [false, true] {
        let mut world = World::new(&WorldConfig { seed: 31, workers: 1, policy: policy.clone() }, 1, 1);
        let mut holder = Holder::connect(&mut world, 0, place(1));
        let there = holder.request(&world, 1, Cause::HardDead, 2);
        assert_eq!(ask(&mut world, &holder, 2, &there), [Verdict::Bound(2)]);
        if dies {
            // Nothing validates it, while the former one drains.
            world.run_for(MS(200));
            assert_eq!(standing(&world, &holder).3, None);
        }
        world.terminate(holder.locator, Reason::OperatorTerminated);
        world.run_for(MS(2_000));
        assert_eq!(world.take_mail(place(1)), [] as [Vec<u8>; 0], "nothing goes to what retires");
        let farewells = world.take_mail(place(2)).iter().filter(|packet| packet[0] == TERMINATE).count();
        assert_eq!(farewells > 0, !dies);
        assert_clean(&mut world);
    }
}
