//! Limits under pressure: floods of handshakes and requests, full minutes, bounded answers.

use jumpgate_protocol::machine::State;
use jumpgate_protocol::policy::{Policy, Profile, Rate};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Span;
use jumpgate_protocol::wire::MessageType;
use jumpgate_sim::{Impairment, World, WorldConfig};

const MS: fn(u64) -> Span = Span::from_millis;

fn state(world: &mut World, client: usize) -> State {
    let now = world.now();
    world.client(client).client.status(now).state
}

#[test]
fn hs7_clients_get_in_with_cookies_over_two_lossy_paths() {
    let mut policy = Policy::profile(Profile::Default);
    policy.limits.handshakes_total = Rate::even(10);
    let mut world = World::new(&WorldConfig { seed: 21, workers: 2, policy }, 60, 2);
    for client in 0..60 {
        for path in 1..=2 {
            world.impair(client, path, Impairment { loss: 200, duplicate: 100, ..Impairment::default() });
        }
    }
    for _ in 0..300 {
        for client in 0..60 {
            if world.client(client).client.is_idle() {
                world.connect(client);
            }
        }
        world.run_for(MS(100));
    }
    let connected = (0..60).filter(|client| world.client(*client).client.is_connected()).count();
    assert_eq!(connected, 60);
    assert!(world.refused(Reason::CookieRequired) > 0);
    world.run_for(MS(10_000));
    world.audit();
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

#[test]
fn a29_copies_of_a_request_get_no_more_than_the_binding_may_be_sent() {
    let config = WorldConfig { seed: 22, workers: 1, policy: Policy::profile(Profile::Default) };
    let mut world = World::new(&config, 1, 2);
    let deaf = Impairment { blackhole: true, ..Impairment::default() };
    world.client(0).links.get_mut(&2).unwrap().down = deaf;
    world.connect_now(0);
    world.run_for(MS(3_000));
    world.capture = Some(Vec::new());
    world.move_to(0, 2).unwrap();
    world.run_for(MS(15));
    assert_eq!(world.checker().commits(), 1);
    let capture = world.capture.take().unwrap();
    let request = capture.iter().find(|(_, packet)| packet[0] == MessageType::ReattachRequest as u8).unwrap().clone();
    for _ in 0..50 {
        world.inject(request.0, &request.1);
    }
    world.run_for(MS(1));
    assert!(world.refused(Reason::AmplificationLimit) >= 45, "INV-33: a copy adds nothing to the budget");
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

#[test]
fn a31_whoever_races_a_copy_of_a_request_loses_to_the_holder_of_the_key() {
    let config = WorldConfig { seed: 23, workers: 1, policy: Policy::profile(Profile::Default) };
    let mut world = World::new(&config, 1, 2);
    world.connect_now(0);
    world.run_for(MS(3_000));
    world.capture = Some(Vec::new());
    world.link_down(0, 1);
    let capture = world.capture.take().unwrap();
    let (_, request) = capture.iter().find(|(_, packet)| packet[0] == MessageType::ReattachRequest as u8).unwrap();
    // The copy arrives at once, the request itself 10 ms later.
    world.inject("203.0.113.66:6666".parse().unwrap(), request);
    world.run_for(MS(1));
    assert_eq!(world.checker().commits(), 1, "the copy was taken, unvalidated");
    // The request fails, and with it the only candidate; the brake of DEGRADED holds for a cooldown (SM-15).
    world.run_for(MS(2_500));
    assert_eq!(state(&mut world, 0), State::Attached);
    world.send_up(0, b"mine again").unwrap();
    world.send_down(0, b"and back").unwrap();
    world.run_for(MS(50));
    assert_eq!((world.received.len(), world.client(0).delivered.len()), (1, 1), "L-4");
    world.audit();
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

#[test]
fn a19_moves_by_force_are_bounded_by_the_minute_and_then_go_on() {
    let config = WorldConfig { seed: 24, workers: 1, policy: Policy::profile(Profile::Default) };
    let mut world = World::new(&config, 1, 2);
    world.connect_now(0);
    for round in 0..400u16 {
        // Refused while the brake holds.
        let _refused = world.move_to(0, 1 + round % 2);
        world.run_for(MS(300));
        world.send_up(0, b"up").unwrap();
    }
    world.run_for(MS(90_000));
    assert!(world.checker().busiest_minute() <= 8);
    assert!(world.checker().commits() >= 8);
    assert_eq!(world.received.len(), 400, "the old binding serves all the while");
    assert_eq!(state(&mut world, 0), State::Attached);
    world.audit();
    assert_eq!(world.checker().violations(), &[] as &[String]);
}
