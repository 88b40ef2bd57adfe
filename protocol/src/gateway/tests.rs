//! Desk and shard together, where one goes wrong.

use std::net::IpAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;
use hashbrown::HashMap;

use super::*;
use crate::entropy::SeededEntropy;
use crate::handshake::{HelloRequest, Initiator, StaticSecret};
use crate::ident::{Arrival, Tuple};
use crate::policy::{Policy, Profile, Rate};
use crate::reason::Reason;
use crate::time::Time;

struct Stage {
    desk: HandshakeDesk,
    shard: Shard,
    gateway: StaticSecret,
    client: StaticSecret,
    entropy: SeededEntropy,
}

fn stage() -> Stage {
    let mut entropy = SeededEntropy::new(1);
    let (gateway, client) = (StaticSecret::generate(&mut entropy), StaticSecret::generate(&mut entropy));
    // One client address: a leak shows at once.
    let pool = AddressPool::new(Some([10, 0, 0, 0].into()), None, FIRST_CLIENT_INDEX + 1);
    let config = DeskConfig {
        secret: gateway.clone(),
        clients: HashMap::from_iter([(client.public(), ClientEntry::default())]),
        policy: Arc::new(Policy::profile(Profile::Default)),
        pool,
        prefixes: (24, 0),
        mtu: 1_400,
        endpoints: ArrayVec::new(),
    };
    let desk = HandshakeDesk::new(config, Box::new(SeededEntropy::new(2)), Time::ZERO);
    let shard = ShardConfig { pool, reset_key: desk.reset_key(), resets: Rate::even(10) };
    let shard = Shard::new(shard, Box::new(SeededEntropy::new(3)), Time::ZERO);
    Stage { desk, shard, gateway, client, entropy }
}

fn arrival() -> Arrival {
    let address = |ip: [u8; 4], port| (IpAddr::from(ip), port).into();
    let tuple = Tuple { local: address([192, 0, 2, 1], 51_900), peer: address([198, 51, 100, 7], 4_000) };
    Arrival { tuple, route: 0, queue: 0 }
}

impl Stage {
    fn hello(&mut self, hello_counter: u64) -> Outcome {
        let request = HelloRequest {
            hello_counter,
            client_time_ms: 0,
            replaces: None,
            capabilities: 0,
            requested_policy: Default::default(),
        };
        let public = self.gateway.public();
        let initiator = Initiator::new(&self.client, &public, None, &request, &mut self.entropy).expect("initiator");
        self.desk.hello(Time::ZERO, &arrival(), initiator.packet())
    }

    fn events(&mut self) -> Vec<SessionEvent> {
        let events: Vec<_> = std::iter::from_fn(|| self.shard.poll_event()).collect();
        for event in &events {
            assert_eq!(self.desk.session_event(event), None);
        }
        events
    }
}

#[test]
fn inv03_a_birth_under_a_name_that_lives_is_refused_and_told_and_the_one_that_lives_stays() {
    let mut stage = stage();
    let first = stage.hello(1).birth.expect("a session");
    let name = first.locator;
    stage.shard.birth(Time::ZERO, first);
    stage.events();
    // A defect as it could be: the desk forgets a session that lives, and gives its name away again.
    let ended = SessionEvent {
        locator: name,
        client: stage.client.public(),
        kind: EventKind::BirthRefused { reason: Reason::InvariantViolation },
    };
    stage.desk.session_event(&ended);
    let second = Birth { locator: name, ..stage.hello(2).birth.expect("the address is free") };
    stage.shard.birth(Time::ZERO, second);
    let events = stage.events();
    assert!(matches!(
        events[..],
        [SessionEvent { kind: EventKind::BirthRefused { reason: Reason::InvariantViolation }, .. }]
    ));
    assert_eq!(events[0].locator, name);
    assert_eq!(
        (stage.shard.len(), stage.shard.counters().value(Reason::InvariantViolation)),
        (1, 1),
        "INV-03: the first"
    );
}

#[test]
fn inv22_after_refused_births_the_only_address_can_be_given_out_again() {
    let mut stage = stage();
    for round in 1..=20 {
        let birth = stage.hello(round).birth.unwrap_or_else(|| panic!("round {round}: something was kept"));
        let refused = EventKind::BirthRefused { reason: Reason::InvariantViolation };
        let event = SessionEvent { locator: birth.locator, client: birth.client, kind: refused };
        stage.desk.session_event(&event);
        assert!(stage.desk.is_empty());
    }
}
