//! Why a rekey runs (RK-1, RK-5): the gateway's wish alone, a policy, and packets that do not open.

use jumpgate_protocol::client::ClientEvent;
use jumpgate_protocol::gateway::{ClientEntry, EventKind};
use jumpgate_protocol::keys::KeyLimits;
use jumpgate_protocol::policy::{ApplyMode, Policy, Profile};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Span;
use jumpgate_protocol::wire::MessageType;
use jumpgate_sim::{Impairment, World, WorldConfig};

const MS: fn(u64) -> Span = Span::from_millis;
/// Failures before fresh keys are wanted, in these tests.
const FORGERIES: u64 = 50;

fn world() -> World {
    let policy = Policy::profile(Profile::Default);
    let mut world = World::new(&WorldConfig { seed: 71, workers: 1, policy }, 1, 1);
    world.lower_key_limits(KeyLimits { forgeries: FORGERIES, ..KeyLimits::SUITE_1 });
    world.connect_now(0);
    world.run_for(MS(6_000));
    world
}

fn rekeys(world: &mut World) -> Vec<Reason> {
    let events = world.client(0).events.iter();
    events
        .filter_map(|(_, event)| match event {
            ClientEvent::Rekeyed { trigger, .. } => Some(*trigger),
            _ => None,
        })
        .collect()
}

/// Keys are old after ten seconds instead of five minutes.
fn young_keys_only(mode: ApplyMode) -> Policy {
    let mut policy = Policy::profile(Profile::Default);
    policy.apply_mode = mode;
    policy.security.rekey_after = MS(10_000);
    policy
}

fn assert_clean(world: &mut World) {
    world.audit();
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

#[test]
fn rk1_the_wish_of_the_gateway_alone_starts_a_rekey() {
    let mut world = world();
    // The client never hears of the policy: for it the keys are good for five minutes. Nothing but the flag is left.
    world.censored.push(MessageType::PolicyUpdate);
    world.run_for(MS(20_000));
    assert_eq!(rekeys(&mut world), [], "without the wish there is none");
    world.reload(&young_keys_only(ApplyMode::Strict), |_| Some(ClientEntry::default()));
    world.run_for(MS(2_000));
    assert_eq!(rekeys(&mut world), [Reason::RekeyPolicyTrigger]);
    world.run_for(MS(8_000));
    assert_eq!(rekeys(&mut world).len(), 1, "once for each time that the keys are old");
    assert_clean(&mut world);
}

#[test]
fn rk1_a_policy_that_both_know_starts_a_rekey_by_age() {
    let mut world = world();
    world.run_for(MS(20_000));
    world.reload(&young_keys_only(ApplyMode::Strict), |_| Some(ClientEntry::default()));
    world.run_for(MS(4_000));
    assert_eq!(rekeys(&mut world), [Reason::RekeyTimeElapsed], "REKEY_TIME_ELAPSED, by the bound of the new policy");
    assert_clean(&mut world);
}

#[test]
fn rk5_packets_that_do_not_open_at_the_gateway_lead_to_fresh_keys_and_never_to_the_end() {
    let mut world = world();
    world.capture = Some(Vec::new());
    world.send_up(0, b"a packet to forge from").unwrap();
    let (from, mut packet) = world.capture.take().unwrap().pop().expect("sent");
    let last = packet.len() - 1;
    packet[last] ^= 1;
    // Counters that were never used: the window does not stop them before the AEAD.
    for counter in 1..FORGERIES {
        packet[12..20].copy_from_slice(&(counter + 10).to_be_bytes());
        world.inject(from, &packet);
    }
    world.run_for(MS(3_000));
    assert_eq!(rekeys(&mut world), [], "one fewer than it takes");
    packet[12..20].copy_from_slice(&1_000_u64.to_be_bytes());
    world.inject(from, &packet);
    world.run_for(MS(3_000));
    assert_eq!(rekeys(&mut world), [Reason::RekeySecurityEvent]);
    assert_eq!(world.refused(Reason::DataAuthFail), FORGERIES);
    world.run_for(MS(20_000));
    assert_eq!(rekeys(&mut world).len(), 1, "the fresh keys begin with a clean slate");
    assert!(world.client(0).client.is_connected());
    assert_clean(&mut world);
}

#[test]
fn rk5_packets_that_do_not_open_at_the_client_lead_to_fresh_keys_too() {
    let mut world = world();
    world.client(0).links.get_mut(&1).unwrap().down = Impairment { corrupt: 1_000, ..Impairment::default() };
    for _ in 0..FORGERIES {
        world.send_down(0, b"damaged on the way").unwrap();
    }
    world.run_for(MS(20));
    world.client(0).links.get_mut(&1).unwrap().down = Impairment::default();
    world.run_for(MS(5_000));
    // A flipped bit may hit the header as well; then the packet is refused before it is opened.
    let more_damage = rekeys(&mut world).is_empty();
    if more_damage {
        world.client(0).links.get_mut(&1).unwrap().down = Impairment { corrupt: 1_000, ..Impairment::default() };
        (0..4 * FORGERIES).for_each(|_| world.send_down(0, b"damaged on the way").unwrap());
        world.run_for(MS(20));
        world.client(0).links.get_mut(&1).unwrap().down = Impairment::default();
        world.run_for(MS(5_000));
    }
    assert_eq!(rekeys(&mut world), [Reason::RekeySecurityEvent]);
    assert_clean(&mut world);
}

#[test]
fn rk5_a_refused_rekey_is_told() {
    let mut policy = Policy::profile(Profile::Default);
    policy.security.rekey_min_interval = MS(5_000);
    policy.security.rekey_on_switch = true;
    let mut world = World::new(&WorldConfig { seed: 72, workers: 1, policy }, 1, 2);
    world.connect_now(0);
    world.run_for(MS(6_000));
    world.capture = Some(Vec::new());
    world.move_to(0, 2).unwrap();
    world.run_for(MS(3_000));
    assert_eq!(rekeys(&mut world), [Reason::RekeyTransportChange]);
    // What the policy forbids the client does not ask for: a gateway with a longer interval is what refuses.
    let mut longer = Policy::profile(Profile::Default);
    longer.apply_mode = ApplyMode::Strict;
    longer.security.rekey_on_switch = true;
    longer.security.rekey_min_interval = MS(60_000);
    world.censored.push(MessageType::PolicyUpdate);
    world.reload(&longer, |_| Some(ClientEntry::default()));
    world.run_for(MS(6_000));
    world.move_to(0, 1).unwrap();
    world.run_for(MS(5_000));
    let denied = world.noted.iter().any(|(_, _, kind)| {
        matches!(kind, EventKind::Refused { message: MessageType::RekeyInit, reason: Reason::RekeyDenied, .. })
    });
    assert!(denied, "RekeyDenied");
    assert_eq!(rekeys(&mut world).len(), 1);
    assert_clean(&mut world);
}
