//! A15, A16: nonces at their limits, and versions and suites that somebody changed, against a live session.

use std::net::SocketAddr;

use jumpgate_fuzz::gateway::{GATEWAY, Gateway, Guest};
use jumpgate_fuzz::seal::{plaintext, seal};
use jumpgate_protocol::crypto::DefaultAead;
use jumpgate_protocol::gateway::SessionView;
use jumpgate_protocol::handshake::{Answer, HelloReply, Initiator, Responder};
use jumpgate_protocol::ident::{Arrival, TransportId, Tuple};
use jumpgate_protocol::keys::{EpochKeys, Side};
use jumpgate_protocol::machine::State;
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Span;
use jumpgate_protocol::wire::{
    Body, Cause, HEADER_LEN, Header, Heartbeat, HelloConfirm, MessageType, ReattachRequest, UDP, VERSION,
};

/// A client's end of a session that is ATTACHED at the gateway.
struct Live {
    gateway: Gateway,
    guest: Guest,
    keys: EpochKeys<DefaultAead>,
}

impl Live {
    fn new() -> Self {
        let mut gateway = Gateway::new(Policy::profile(Profile::Default), 1);
        let guest = gateway.handshake(0, path(1));
        let keys = EpochKeys::derive(&guest.root, 0, &guest.identity, Side::Client);
        let mut live = Self { gateway, guest, keys };
        let handshake_hash = live.guest.handshake_hash;
        let confirm = HelloConfirm { binding_epoch: 1, handshake_hash, transport_id: TransportId(1) };
        let packet = live.control(1, &confirm);
        assert_eq!(live.deliver(1, &packet), (Ok(()), 1));
        live
    }

    fn header(&self, kind: MessageType, counter: u64) -> Header {
        Header { kind, flags: 0, key_epoch: 0, tag: 0, locator: self.guest.locator, counter }
    }

    fn control<B: Body>(&self, counter: u64, body: &B) -> Vec<u8> {
        seal(&self.keys.control_seal, &self.header(B::KIND, counter), &plaintext(body))
    }

    /// A request to move to a path; HARD_DEAD, which no cooldown holds up.
    fn request(&self, nonce: u64, path: u16) -> Vec<u8> {
        let request = ReattachRequest {
            binding_epoch: self.view().epoch,
            client_time_ms: 0,
            cause: Cause::HardDead,
            transport_id: TransportId(path),
            protocol: UDP,
        };
        seal(&self.keys.proof, &self.header(MessageType::ReattachRequest, nonce), &plaintext(&request))
    }

    /// What the gateway makes of a packet, and how many answers it gives.
    fn deliver(&mut self, from: u16, packet: &[u8]) -> (Result<(), Reason>, usize) {
        let arrival = Arrival { tuple: Tuple { local: GATEWAY, peer: path(from) }, route: 1, queue: 0 };
        let result = self.gateway.shard.control_in(self.gateway.now, &arrival, &mut packet.to_vec());
        while self.gateway.poll_event().is_some() {}
        let answers = std::iter::from_fn(|| self.gateway.shard.poll_reply()).count();
        (result, answers)
    }

    fn view(&self) -> SessionView {
        self.gateway.shard.view(self.gateway.now, self.guest.locator).expect("the session lives")
    }

    fn bound_to(&self) -> (State, u64, Option<SocketAddr>) {
        let view = self.view();
        (view.state, view.epoch, view.tuple.map(|tuple| tuple.peer))
    }
}

fn path(number: u16) -> SocketAddr {
    SocketAddr::from(([100, 64, 0, 1], 1_024 + number))
}

#[test]
fn a15_a_request_without_a_whole_nonce_or_with_one_that_is_none_is_malformed_and_unanswered() {
    let mut live = Live::new();
    let whole = live.request(2, 2);
    for len in 0..HEADER_LEN {
        let (result, answers) = live.deliver(2, &whole[..len]);
        assert!(matches!(result, Err(Reason::Malformed)), "{len} bytes: {result:?}");
        assert_eq!(answers, 0);
    }
    for nonce in [0, u64::MAX] {
        let packet = live.request(nonce, 2);
        assert_eq!(live.deliver(2, &packet), (Err(Reason::Malformed), 0), "nonce {nonce}");
    }
    assert_eq!(live.bound_to(), (State::Attached, 1, Some(path(1))));
    assert_eq!(live.deliver(2, &whole), (Ok(()), 1), "the session still moves by a request as it should be");
}

#[test]
fn a15_the_highest_nonce_is_good_once_and_after_it_there_is_none() {
    let mut live = Live::new();
    let packet = live.request(u64::MAX - 1, 2);
    assert_eq!(live.deliver(2, &packet), (Ok(()), 1));
    assert_eq!(live.bound_to(), (State::Attached, 2, Some(path(2))));
    let below = live.request(u64::MAX - 2, 3);
    assert_eq!(live.deliver(3, &below), (Err(Reason::ReplayDetected), 0));
    assert_eq!(live.bound_to(), (State::Attached, 2, Some(path(2))));
}

/// L-3: whatever was sealed and never came counts for nothing; there is no forward limit (AR-1).
#[test]
fn a15_a_client_that_burned_a_million_nonces_offline_still_reattaches() {
    let mut live = Live::new();
    const BURNED: u64 = 1_000_000;
    let mut lost = Vec::new();
    for nonce in 2..2 + BURNED {
        lost = live.request(nonce, 2);
    }
    let packet = live.request(2 + BURNED, 2);
    assert_eq!(live.deliver(2, &packet), (Ok(()), 1));
    assert_eq!(live.bound_to(), (State::Attached, 2, Some(path(2))));
    assert_eq!(live.deliver(2, &lost), (Err(Reason::ReplayDetected), 0), "a late one of them changes nothing");
    assert_eq!(live.bound_to(), (State::Attached, 2, Some(path(2))));
}

/// Lane Q as well: a heartbeat far ahead is taken, and what the window has left behind is a replay.
#[test]
fn a15_heartbeats_may_skip_a_million_counters_but_not_come_back() {
    let mut live = Live::new();
    let body = Heartbeat { binding_epoch: 1, client_time_ms: 0, sent: 0, received: 0, highest: 0, policy_sequence: 1 };
    let ahead = live.control(1_000_000, &body);
    assert_eq!(live.deliver(1, &ahead), (Ok(()), 1));
    let behind = live.control(10, &body);
    assert_eq!(live.deliver(1, &behind), (Err(Reason::ReplayDetected), 0));
}

#[test]
fn a16_a_message_of_another_version_is_refused_though_its_seal_is_good() {
    let mut live = Live::new();
    for version in (0..16).filter(|version| *version != VERSION) {
        let mut packet = live.request(2, 2);
        packet[1] = version << 4;
        assert_eq!(live.deliver(2, &packet), (Err(Reason::UnsupportedVersion), 0), "version {version}");
    }
    assert_eq!(live.bound_to(), (State::Attached, 1, Some(path(1))));
}

/// The gate MAC is no secret to who knows the gateway's public key; the prologue is what holds (HS-1).
#[test]
fn a16_a_hello_whose_version_or_suites_were_changed_on_the_way_gets_silence_and_no_session() {
    let mut gateway = Gateway::new(Policy::profile(Profile::Default), 1);
    let request = gateway.request();
    let key = gateway.secret.public();
    let hello = Initiator::new(&gateway.clients[0], &key, None, &request, &mut jumpgate_fuzz::entropy(5));
    let hello = hello.expect("a handshake").packet().to_vec();
    for (offset, value, reason) in [
        (1, 0x00, Reason::UnsupportedVersion),
        (1, 0x20, Reason::UnsupportedVersion),
        (1, 0x11, Reason::AuthFail),
        (2, 0xff, Reason::AuthFail),
        (3, 0x00, Reason::AuthFail),
        (3, 0x02, Reason::AuthFail),
        (3, 0x03, Reason::AuthFail),
    ] {
        let mut changed = hello.clone();
        changed[offset] = value;
        gateway.gate(&mut changed);
        let outcome = gateway.hello(path(1), &changed);
        assert_eq!((outcome.refused, outcome.reply), (Some(reason), None), "byte {offset} = {value:#04x}");
        assert!(gateway.desk.is_empty() && gateway.shard.is_empty());
        gateway.now += Span::from_millis(1_000);
    }
    assert!(gateway.hello(path(1), &hello).reply.is_some(), "as it was sent, it is answered");
}

/// A gateway that was made to answer with a suite that was not offered, or does so by itself.
#[test]
fn a16_a_client_takes_no_suite_that_it_did_not_offer() {
    let mut gateway = Gateway::new(Policy::profile(Profile::Default), 1);
    let (key, request) = (gateway.secret.public(), gateway.request());
    for suite in [0, 2, 255] {
        let mut entropy = jumpgate_fuzz::entropy(6);
        let mut client = Initiator::new(&gateway.clients[0], &key, None, &request, &mut entropy).expect("a handshake");
        let responder = Responder::new(gateway.secret.clone());
        let view = responder.gate(client.packet()).expect("a HELLO_INIT");
        let opened = responder.open(&view, |_| Ok(None)).expect("a client");
        let reply = HelloReply { suite, ..jumpgate_fuzz::gateway::reply(&Policy::profile(Profile::Default)) };
        let (ack, ..) = opened.accept(&reply, &mut jumpgate_fuzz::entropy(7)).expect("an answer");
        assert!(matches!(client.on_ack(&ack), Ok(Answer::Refused(Reason::SuiteUnsupported))), "suite {suite}");
    }
}
