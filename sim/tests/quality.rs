//! Loss, latency and jitter on the active path: what moves a session, what does not, and where to (SM-14, T03, T07, AF-1).

use jumpgate_protocol::client::ClientEvent;
use jumpgate_protocol::machine::{State, Transition, TransitionId};
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use jumpgate_protocol::wire::MessageType;
use jumpgate_sim::{Impairment, World, WorldConfig};

const MS: fn(u64) -> Span = Span::from_millis;
/// Pace of the inner traffic, each way.
const PACE: u64 = 10;
/// Pace for loss near its threshold: a thousand packets in two seconds, so that chance decides nothing.
const DENSE: u64 = 2;
/// Seeds of every case that depends on chance.
const SEEDS: u64 = 5;

fn good() -> Impairment {
    Impairment::default()
}

fn lossy(loss: u32) -> Impairment {
    Impairment { loss, ..good() }
}

fn world(policy: Policy, paths: u16, seed: u64) -> World {
    let mut world = World::new(&WorldConfig { seed, workers: 2, policy }, 1, paths);
    world.connect_now(0);
    assert!(world.client(0).client.is_connected());
    run(&mut world, 5_000);
    world
}

fn of(profile: Profile, paths: u16, seed: u64) -> World {
    world(Policy::profile(profile), paths, seed)
}

/// Inner traffic both ways for that long.
fn run(world: &mut World, millis: u64) {
    run_at(world, PACE, millis);
}

fn run_at(world: &mut World, pace: u64, millis: u64) {
    for _ in 0..millis / pace {
        // While nothing is bound there is nothing to send on.
        let _dropped = world.send_up(0, b"up");
        let _dropped = world.send_down(0, b"down");
        world.run_for(MS(pace));
    }
}

fn place(world: &mut World) -> (State, Option<u16>) {
    let now = world.now();
    let status = world.client(0).client.status(now);
    (status.state, status.active.map(|path| path.0))
}

fn gateway_state(world: &World) -> State {
    world.shards().iter().flat_map(|shard| shard.views(world.now())).next().unwrap().state
}

/// The transitions of the client's mirror since `since`.
fn transitions(world: &mut World, since: Time) -> Vec<Transition> {
    let events = &world.client(0).events;
    events
        .iter()
        .filter(|(at, _)| *at >= since)
        .filter_map(|(_, event)| match event {
            ClientEvent::Transition { transition, .. } => Some(*transition),
            _ => None,
        })
        .collect()
}

fn ids(transitions: &[Transition]) -> Vec<TransitionId> {
    transitions.iter().map(|transition| transition.id).collect()
}

fn assert_clean(world: &mut World) {
    world.audit();
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

#[test]
fn tc05_loss_of_5_to_15_percent_with_jitter_moves_nothing_under_default() {
    for (loss, seed) in [50, 100, 150].into_iter().flat_map(|loss| (1..=SEEDS).map(move |seed| (loss, seed))) {
        let mut world = of(Profile::Default, 2, seed);
        let before = world.checker().transitions();
        let start = world.now();
        world.client(0).links.get_mut(&1).unwrap().down = Impairment { jitter: MS(30), ..lossy(loss) };
        world.client(0).links.get_mut(&1).unwrap().up = Impairment { jitter: MS(30), ..good() };
        run_at(&mut world, DENSE, 10_000);
        assert_eq!(transitions(&mut world, start), [], "{loss} permille, seed {seed}");
        assert_eq!(world.checker().transitions(), before, "{loss} permille, seed {seed}");
        assert_clean(&mut world);
    }
}

#[test]
fn tc05_mobile_leaves_a_path_beyond_its_threshold_for_a_better_one_and_not_below_it() {
    for seed in 1..=SEEDS {
        let mut world = of(Profile::Mobile, 2, seed);
        let start = world.now();
        world.impair(0, 1, lossy(15));
        run_at(&mut world, DENSE, 10_000);
        assert_eq!(transitions(&mut world, start), [], "1.5 %, seed {seed}");
        world.impair(0, 1, lossy(120));
        run(&mut world, 6_000);
        let seen = transitions(&mut world, start);
        assert_eq!(place(&mut world), (State::Attached, Some(2)), "seed {seed}: {:?}", ids(&seen));
        // Its own measure, or that of the gateway, which hints.
        let reasons = [Reason::LossThresholdExceeded, Reason::PolicyForcedRecovery];
        assert!(seen[0].to == State::Volatile && reasons.contains(&seen[0].reason), "seed {seed}: {:?}", seen[0]);
        assert_eq!(world.checker().commits(), 1, "one switch, seed {seed}");
        assert_eq!(seen.last().unwrap().detail, Some(Reason::PreferredPathChanged));
        assert_clean(&mut world);
    }
}

#[test]
fn tc06_loss_of_20_to_60_percent_on_every_path_ends_in_degraded_within_the_limits() {
    for (loss, seed) in [300, 450, 600].into_iter().flat_map(|loss| (1..=SEEDS).map(move |seed| (loss, seed))) {
        let mut world = of(Profile::Default, 2, seed);
        let start = world.now();
        (1..=2).for_each(|path| world.impair(0, path, lossy(loss)));
        run(&mut world, 60_000);
        let seen = transitions(&mut world, start);
        let states = [State::Volatile, State::Degraded];
        assert!(states.iter().all(|state| seen.iter().any(|t| t.to == *state)), "{loss}, {seed}: {:?}", ids(&seen));
        assert!(world.checker().busiest_minute() <= 8, "INV-15");
        if let Some(end) = seen.iter().find(|transition| transition.to == State::Terminated) {
            // Five of six round trips are lost: no request came through for the whole transport limit.
            assert_eq!((loss, end.reason), (600, Reason::TtlTransportLossExpired), "seed {seed}");
            continue;
        }
        (1..=2).for_each(|path| world.impair(0, path, good()));
        run(&mut world, 70_000);
        assert_eq!((place(&mut world).0, gateway_state(&world)), (State::Attached, State::Attached), "{loss}, {seed}");
        assert_clean(&mut world);
    }
}

#[test]
fn tc07_thirty_percent_for_three_seconds_heals_or_costs_one_switch() {
    for seed in 1..=4 * SEEDS {
        let mut world = of(Profile::Default, 2, seed);
        let start = world.now();
        world.impair(0, 1, lossy(300));
        run(&mut world, 3_000);
        world.impair(0, 1, good());
        run(&mut world, 20_000);
        let seen = transitions(&mut world, start);
        let healed = seen.iter().filter(|transition| transition.id == TransitionId::T07).count();
        let switched = seen.iter().filter(|transition| transition.id == TransitionId::T11).count();
        assert!(seen.is_empty() || healed + switched >= 1, "seed {seed}: {:?}", ids(&seen));
        assert!(switched <= 1, "seed {seed}: {:?}", ids(&seen));
        assert!(world.checker().commits() <= 1, "seed {seed}: the gateway agrees");
        assert_eq!((place(&mut world).0, gateway_state(&world)), (State::Attached, State::Attached), "seed {seed}");
        assert_clean(&mut world);
    }
}

#[test]
fn tc08_loss_and_latency_beyond_the_floor_degrade_the_only_path_and_calm_brings_it_back() {
    let mut policy = Policy::profile(Profile::Default);
    policy.volatility.latency_volatile_threshold = MS(150);
    for seed in 1..=SEEDS {
        let mut world = world(policy.clone(), 1, seed);
        let start = world.now();
        world.client(0).links.get_mut(&1).unwrap().up = Impairment { delay: MS(100), ..lossy(400) };
        world.client(0).links.get_mut(&1).unwrap().down = Impairment { delay: MS(100), ..good() };
        run(&mut world, 20_000);
        assert_eq!(place(&mut world).0, State::Degraded, "{:?}", ids(&transitions(&mut world, start)));
        let gave_up = transitions(&mut world, start).into_iter().find(|t| t.id == TransitionId::T09).unwrap();
        assert_eq!((gave_up.reason, gave_up.detail), (Reason::VolatilePersisted, Some(Reason::NoCandidateTransports)));
        let locator = {
            let now = world.now();
            world.client(0).client.status(now).locator
        };
        world.impair(0, 1, good());
        run(&mut world, 20_000);
        assert_eq!((place(&mut world).0, gateway_state(&world)), (State::Attached, State::Attached));
        let now = world.now();
        assert_eq!(world.client(0).client.status(now).locator, locator, "the same session (INV-03)");
        assert_clean(&mut world);
    }
}

#[test]
fn t09_names_the_floor_when_the_spare_is_no_better() {
    let mut world = of(Profile::Default, 2, 3);
    // The spare shows its loss in probes before it is needed.
    world.impair(0, 2, lossy(500));
    run(&mut world, 60_000);
    let start = world.now();
    world.client(0).links.get_mut(&1).unwrap().down = lossy(350);
    run(&mut world, 12_000);
    let seen = transitions(&mut world, start);
    let gave_up = seen.iter().find(|transition| transition.id == TransitionId::T09);
    assert_eq!(gave_up.map(|t| t.detail), Some(Some(Reason::QualityFloorViolation)), "{:?}", ids(&seen));
    assert_clean(&mut world);
}

#[test]
fn tc10_one_spike_or_one_lost_packet_moves_nothing_and_lasting_latency_does() {
    let mut policy = Policy::profile(Profile::Mobile);
    policy.volatility.latency_volatile_threshold = MS(150);
    let mut world = world(policy, 1, 1);
    let start = world.now();
    for _ in 0..10 {
        // As long as one heartbeat is under way.
        world.impair(0, 1, Impairment { delay: MS(150), ..good() });
        run(&mut world, 200);
        world.impair(0, 1, good());
        run(&mut world, 2_800);
    }
    for _ in 0..10 {
        world.impair(0, 1, Impairment { blackhole: true, ..good() });
        run(&mut world, PACE);
        world.impair(0, 1, good());
        run(&mut world, 1_000);
    }
    assert_eq!(transitions(&mut world, start), []);
    world.impair(0, 1, Impairment { delay: MS(90), ..good() });
    run(&mut world, 4_000);
    let seen = transitions(&mut world, start);
    assert_eq!(seen[0].reason, Reason::LatencyThresholdExceeded);
    assert_eq!((seen[0].id, seen[0].to), (TransitionId::T03, State::Volatile));
    world.impair(0, 1, good());
    run(&mut world, 20_000);
    assert_eq!((place(&mut world).0, gateway_state(&world)), (State::Attached, State::Attached));
    assert_clean(&mut world);
}

#[test]
fn tc11_jitter_beyond_its_threshold_over_a_full_window_is_seen_as_what_it_is() {
    for seed in 1..=SEEDS {
        let mut world = of(Profile::Mobile, 1, seed);
        let start = world.now();
        world.impair(0, 1, Impairment { jitter: MS(40), ..good() });
        run(&mut world, 10_000);
        assert_eq!(transitions(&mut world, start), [], "40 ms each way is within 80 ms, seed {seed}");
        world.impair(0, 1, Impairment { jitter: MS(350), ..good() });
        run(&mut world, 10_000);
        let seen = transitions(&mut world, start);
        assert_eq!(seen[0].reason, Reason::JitterThresholdExceeded, "seed {seed}: {:?}", ids(&seen));
        assert!(seen[0].at.since(start) >= MS(10_000 + 500), "not by the first samples, seed {seed}");
        assert_clean(&mut world);
    }
}

#[test]
fn reordering_by_jitter_is_no_loss_under_the_strictest_profile() {
    for seed in 1..=SEEDS {
        let mut policy = Policy::profile(Profile::Mobile);
        policy.volatility.loss_volatile_threshold = 1;
        policy.volatility.jitter_threshold = Span::ZERO;
        let mut world = world(policy, 2, seed);
        let start = world.now();
        world.impair(0, 1, Impairment { jitter: MS(60), duplicate: 100, ..good() });
        run(&mut world, 30_000);
        assert_eq!(transitions(&mut world, start), [], "seed {seed}");
        let now = world.now();
        let measured = world.client(0).client.status(now).measurement.unwrap();
        assert_eq!(measured.loss_permille, 0, "seed {seed}: {measured:?}");
        assert!(measured.samples > 100, "seed {seed}: {measured:?}");
        assert_clean(&mut world);
    }
}

#[test]
fn tc12_loss_in_one_direction_moves_the_session_by_a_proof_and_by_nothing_else() {
    for up in [true, false] {
        let mut world = of(Profile::Default, 2, 4);
        let start = world.now();
        let link = world.client(0).links.get_mut(&1).unwrap();
        *if up { &mut link.up } else { &mut link.down } = lossy(400);
        world.capture = Some(Vec::new());
        run(&mut world, 8_000);
        let seen = transitions(&mut world, start);
        assert_eq!(place(&mut world), (State::Attached, Some(2)), "up {up}: {:?}", ids(&seen));
        assert!(seen.iter().any(|transition| transition.id == TransitionId::T11), "by a request");
        assert_eq!(world.checker().commits(), 1, "up {up}");
        let (epoch, refused) = (seen.last().unwrap().epoch, world.refused(Reason::WrongTransport));
        // Authentic packets by another way in: refused, and nothing moves (INV-26).
        let capture = world.capture.take().unwrap();
        let data = capture.iter().rev().find(|(_, packet)| packet[0] == MessageType::Data as u8).unwrap();
        world.inject("203.0.113.9:4242".parse().unwrap(), &data.1);
        world.run_for(MS(5));
        assert_eq!(world.refused(Reason::WrongTransport), refused + 1);
        let now = world.now();
        assert_eq!(world.client(0).client.status(now).epoch, epoch);
        assert_clean(&mut world);
    }
}

#[test]
fn tc21_the_only_path_recovers_by_itself_and_keeps_its_binding() {
    for seed in 1..=SEEDS {
        let mut world = of(Profile::Default, 1, seed);
        let start = world.now();
        world.client(0).links.get_mut(&1).unwrap().down = lossy(450);
        while place(&mut world).0 != State::Volatile {
            run(&mut world, 100);
            assert!(world.now().since(start) < MS(10_000), "seed {seed}");
        }
        world.impair(0, 1, good());
        run(&mut world, 10_000);
        let seen = transitions(&mut world, start);
        assert_eq!(ids(&seen), [TransitionId::T03, TransitionId::T07], "seed {seed}");
        let lasted = seen[1].at.since(seen[0].at);
        assert!(lasted >= MS(2_000), "calm for the whole stability window, seed {seed}: {lasted}");
        assert_eq!((seen[1].epoch, seen[1].reason), (1, Reason::HealthRecovered));
        assert_eq!((gateway_state(&world), world.checker().commits()), (State::Attached, 0), "seed {seed}");
        assert_clean(&mut world);
    }
}

#[test]
fn tc22_from_degraded_the_same_path_is_proved_again() {
    let mut world = of(Profile::Default, 1, 2);
    let start = world.now();
    world.client(0).links.get_mut(&1).unwrap().down = lossy(450);
    while place(&mut world).0 != State::Degraded {
        run(&mut world, 100);
        assert!(world.now().since(start) < MS(20_000));
    }
    world.impair(0, 1, good());
    run(&mut world, 10_000);
    let seen = transitions(&mut world, start);
    let tail = &seen[seen.len() - 2..];
    assert_eq!(ids(tail), [TransitionId::T15, TransitionId::T11], "{:?}", ids(&seen));
    assert_eq!((tail[1].epoch, tail[1].detail), (2, Some(Reason::SamePathReproved)));
    assert_eq!((place(&mut world), gateway_state(&world)), ((State::Attached, Some(1)), State::Attached));
    assert_clean(&mut world);
}

#[test]
fn a_switch_takes_no_loss_of_the_old_path_to_the_new_one() {
    for profile in [Profile::Default, Profile::Mobile, Profile::Fast] {
        for seed in 1..=SEEDS {
            let mut world = of(profile, 2, seed);
            world.impair(0, 1, Impairment { blackhole: true, ..good() });
            run(&mut world, 20_000);
            assert_eq!(place(&mut world), (State::Attached, Some(2)), "{profile:?}, seed {seed}");
            assert_eq!(world.checker().commits(), 1, "{profile:?}, seed {seed}: AF-3");
            let now = world.now();
            let measured = world.client(0).client.status(now).measurement.unwrap();
            assert_eq!(measured.loss_permille, 0, "{profile:?}, seed {seed}");
            assert_clean(&mut world);
        }
    }
}

#[test]
fn a_rekey_under_traffic_shows_no_loss() {
    let mut policy = Policy::profile(Profile::Mobile);
    policy.security.rekey_after = MS(10_000);
    policy.volatility.loss_volatile_threshold = 1;
    let mut world = world(policy, 2, 1);
    let start = world.now();
    run(&mut world, 60_000);
    assert!(world.rekeyed.len() >= 4, "{:?}", world.rekeyed);
    assert_eq!(transitions(&mut world, start), []);
    assert_clean(&mut world);
}

#[test]
fn what_the_user_sees_of_a_path_is_what_the_path_does() {
    let mut world = of(Profile::Default, 2, 6);
    let bad = Impairment { delay: MS(40), jitter: MS(30), ..lossy(60) };
    (1..=2).for_each(|path| world.impair(0, path, bad));
    run(&mut world, 90_000);
    let now = world.now();
    for path in world.client(0).client.status(now).paths {
        let round_trip = path.rtt.unwrap();
        assert!((MS(80)..MS(140)).contains(&round_trip), "{path:?}");
        assert!((MS(3)..MS(30)).contains(&path.jitter), "{path:?}");
        assert!((20..300).contains(&path.loss_permille), "6 % each way: {path:?}");
    }
}

#[test]
fn af1_a_hint_for_loss_moves_nobody_to_a_path_that_is_no_better() {
    let mut world = of(Profile::Default, 2, 1);
    world.impair(0, 2, Impairment { delay: MS(450), ..good() });
    run(&mut world, 60_000);
    let start = world.now();
    // The gateway measures what comes up, and hints; the other path would cost more than the loss does.
    world.client(0).links.get_mut(&1).unwrap().up = lossy(260);
    let mut noticed = false;
    for _ in 0..120 {
        run(&mut world, 100);
        noticed |= gateway_state(&world) == State::Volatile;
    }
    assert!(noticed, "the gateway has noticed");
    let seen = transitions(&mut world, start);
    assert!(!ids(&seen).contains(&TransitionId::T11), "{seen:?}");
    assert_eq!(world.checker().commits(), 0);
    assert_clean(&mut world);
}

#[test]
fn a_path_left_for_loss_that_falls_silent_gives_way_to_one_that_is_hardly_known() {
    let mut world = of(Profile::Default, 2, 5);
    world.link_down(0, 2);
    let start = world.now();
    world.client(0).links.get_mut(&1).unwrap().down = lossy(450);
    while place(&mut world).0 != State::Volatile {
        run(&mut world, 100);
        assert!(world.now().since(start) < MS(10_000));
    }
    world.link_up(0, 2);
    world.impair(0, 1, Impairment { blackhole: true, ..good() });
    run(&mut world, 2_200);
    assert_eq!(place(&mut world), (State::Attached, Some(2)), "{:?}", ids(&transitions(&mut world, start)));
    assert_clean(&mut world);
}
