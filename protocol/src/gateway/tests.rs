//! Desk and shard together, where one goes wrong.

use std::net::IpAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;
use hashbrown::HashMap;

use super::*;
use crate::crypto::DefaultAead;
use crate::entropy::SeededEntropy;
use crate::handshake::{Answer, HelloRequest, Initiator, StaticSecret};
use crate::ident::{Arrival, Locator, TransportId, Tuple};
use crate::keys::{EpochKeys, Side};
use crate::machine::TransitionId;
use crate::policy::{Policy, Profile, Rate};
use crate::reason::Reason;
use crate::time::Time;
use crate::wire::{self, Cause, Header, HelloConfirm, MessageType, ReattachRequest, UDP};

struct Stage {
    desk: HandshakeDesk,
    shard: Shard,
    gateway: StaticSecret,
    client: StaticSecret,
    entropy: SeededEntropy,
}

/// One client address: a leak shows at once.
fn stage() -> Stage {
    stage_with(1)
}

fn stage_with(addresses: u32) -> Stage {
    let mut entropy = SeededEntropy::new(1);
    let (gateway, client) = (StaticSecret::generate(&mut entropy), StaticSecret::generate(&mut entropy));
    let pool = AddressPool::new(Some([10, 0, 0, 0].into()), None, FIRST_CLIENT_INDEX + addresses);
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

/// A session as its client knows it.
struct Peer {
    locator: Locator,
    keys: EpochKeys<DefaultAead>,
}

impl Peer {
    fn header(&self, counter: u64) -> Header {
        // The kind is taken from the body.
        Header { kind: MessageType::Heartbeat, flags: 0, key_epoch: 0, tag: 0, locator: self.locator, counter }
    }
}

impl Stage {
    /// A session that is confirmed at that time.
    fn attach(&mut self, hello_counter: u64, now: Time) -> Peer {
        let mut initiator = self.initiator(hello_counter);
        let outcome = self.desk.hello(now, &arrival(), initiator.packet());
        self.shard.birth(now, outcome.birth.expect("a session"));
        let Ok(Answer::Established(session)) = initiator.on_ack(&outcome.reply.expect("HELLO_ACK")) else {
            panic!("no session");
        };
        let keys = EpochKeys::derive(&session.root, 0, &session.reply.identity, Side::Client);
        let peer = Peer { locator: session.reply.locator, keys };
        let confirm = HelloConfirm { binding_epoch: 1, handshake_hash: session.hash, transport_id: TransportId(1) };
        let mut packet = wire::seal(&peer.keys.control_seal, peer.header(1), &confirm).to_vec();
        assert_eq!(self.shard.control_in(now, &arrival(), &mut packet), Ok(()));
        self.events();
        while self.shard.poll_reply().is_some() {}
        peer
    }

    fn initiator(&mut self, hello_counter: u64) -> Initiator {
        let request = HelloRequest {
            hello_counter,
            client_time_ms: 0,
            replaces: None,
            capabilities: 0,
            requested_policy: Default::default(),
        };
        let public = self.gateway.public();
        Initiator::new(&self.client, &public, None, &request, &mut self.entropy).expect("initiator")
    }

    fn hello(&mut self, hello_counter: u64) -> Outcome {
        let initiator = self.initiator(hello_counter);
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

/// Where the answer to a heartbeat goes.
fn answer_to_heartbeat(stage: &mut Stage, peer: &Peer, counter: u64, arrival: &Arrival) -> (Tuple, u32) {
    let heartbeat =
        wire::Heartbeat { binding_epoch: 1, client_time_ms: 0, sent: 0, received: 0, highest: 0, policy_sequence: 0 };
    let mut packet = wire::seal(&peer.keys.control_seal, peer.header(counter), &heartbeat).to_vec();
    assert_eq!(stage.shard.control_in(Time::ZERO, arrival, &mut packet), Ok(()));
    let reply = stage.shard.poll_reply().expect("HEARTBEAT_ACK");
    (reply.tuple, reply.route)
}

#[test]
fn an_answer_to_the_active_binding_takes_the_way_that_is_known_for_it_if_its_question_came_without_one() {
    let mut stage = stage();
    let peer = stage.attach(1, Time::ZERO);
    for (counter, asked, answered) in [(2, Arrival::NO_ROUTE, arrival().route), (3, 7, 7)] {
        let arrival = Arrival { route: asked, ..arrival() };
        assert_eq!(answer_to_heartbeat(&mut stage, &peer, counter, &arrival), (arrival.tuple, answered));
    }
}

#[test]
fn an_answer_to_another_tuple_never_takes_the_way_of_the_active_binding() {
    let mut stage = stage();
    let peer = stage.attach(1, Time::ZERO);
    let elsewhere = Tuple { peer: (IpAddr::from([203, 0, 113, 9]), 4_000).into(), ..arrival().tuple };
    for (counter, asked) in [(2, Arrival::NO_ROUTE), (3, 7)] {
        let arrival = Arrival { tuple: elsewhere, route: asked, ..arrival() };
        assert_eq!(answer_to_heartbeat(&mut stage, &peer, counter, &arrival), (elsewhere, asked));
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
        account: None,
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
        let event = SessionEvent { locator: birth.locator, client: birth.client, account: None, kind: refused };
        stage.desk.session_event(&event);
        assert!(stage.desk.is_empty());
    }
}

#[test]
fn t23_a_check_that_fails_after_a_commit_ends_the_session_and_nothing_is_acknowledged() {
    for corrupt in [false, true] {
        let mut stage = stage_with(2);
        let peer = stage.attach(1, Time::from_millis(1_000));
        let other = stage.attach(2, Time::from_millis(2_000));
        let now = Time::from_millis(2_500);
        let (mine, theirs) = (SessionKey(0), SessionKey(1));
        if corrupt {
            // A record is written over by that of another session, which says in every field what is allowed.
            let record = stage.shard.with(now, theirs, |session, _| session.record.clone());
            stage.shard.with(now, mine, |session, _| session.record = record);
        }
        let request = ReattachRequest {
            binding_epoch: 1,
            client_time_ms: 1_500,
            cause: Cause::Silence,
            transport_id: TransportId(2),
            protocol: UDP,
        };
        let mut packet = wire::seal(&peer.keys.proof, peer.header(2), &request).to_vec();
        let mut from = arrival();
        from.tuple.peer.set_port(4_001);
        let result = stage.shard.control_in(now, &from, &mut packet);
        let told: Vec<_> = stage
            .events()
            .into_iter()
            .filter_map(|event| match event.kind {
                EventKind::Transition(transition) => Some((event.locator, transition.id, transition.reason)),
                _ => None,
            })
            .collect();
        let last = *told.last().expect("a commit");
        assert!(told.iter().any(|(_, id, _)| *id == TransitionId::T11), "{told:?}");
        let replies = std::iter::from_fn(|| stage.shard.poll_reply()).count();
        if corrupt {
            assert_eq!((result, replies), (Err(Reason::InvariantViolation), 0));
            assert_eq!(last, (peer.locator, TransitionId::T23, Reason::InvariantViolation));
            assert!(stage.shard.view(now, peer.locator).is_none(), "INV-10: gone, with its keys");
        } else {
            assert_eq!((result, replies, last.1), (Ok(()), 1, TransitionId::T11));
        }
        assert!(stage.shard.view(now, other.locator).is_some(), "INV-27: the other one lives");
    }
}
