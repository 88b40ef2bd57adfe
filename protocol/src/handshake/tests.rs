//! Both halves against each other, and against whoever stands between them.

use std::net::SocketAddr;

use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::gate::GateKey;
use super::*;
use crate::crypto::{AwsLcChaCha, KEY_LEN};
use crate::entropy::SeededEntropy;
use crate::ident::{Locator, PublicKey, TransportId};
use crate::keys::{EpochKeys, Side};
use crate::reason::Reason;
use crate::time::{Span, Time};
use crate::wire::tests::Sample;
use crate::wire::{self, Body, HELLO_LEN, Header, HelloAck, HelloConfirm, HelloInit, MessageType};

const PSK: [u8; KEY_LEN] = [0x5a; KEY_LEN];
const ROTATE: Span = Span::from_millis(120_000);

/// A client and a gateway that know each other.
struct Pair {
    entropy: SeededEntropy,
    client: StaticSecret,
    responder: Responder,
    gateway: PublicKey,
    request: HelloRequest,
    reply: HelloReply,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let mut entropy = SeededEntropy::new(seed);
        let client = StaticSecret::generate(&mut entropy);
        let gateway = StaticSecret::generate(&mut entropy);
        let request = HelloRequest::draw(&mut entropy);
        let reply = HelloReply {
            binding_epoch: 1,
            suite: SUITE_CHACHA20_POLY1305,
            inner_v4: Some(([10, 66, 0, 2].into(), 16)),
            inner_v6: None,
            ..HelloReply::draw(&mut entropy)
        };
        Self { client, gateway: gateway.public(), responder: Responder::new(gateway), entropy, request, reply }
    }

    fn initiator(&mut self, psk: Option<&[u8; KEY_LEN]>) -> Initiator {
        Initiator::new(&self.client, &self.gateway, psk, &self.request, &mut self.entropy).expect("usable keys")
    }

    fn open(&self, hello: &[u8], psk: Option<[u8; KEY_LEN]>) -> Result<Opened, Reason> {
        self.responder.open(&self.responder.gate(hello)?, |client| {
            if *client == self.client.public() { Ok(psk) } else { Err(Reason::PeerUnknown) }
        })
    }

    fn ack(&mut self, hello: &[u8]) -> Vec<u8> {
        let opened = self.open(hello, None).expect("an honest client");
        opened.accept(&self.reply, &mut self.entropy).expect("a reply").0
    }
}

fn established(answer: Result<Answer, Reason>) -> Established {
    match answer {
        Ok(Answer::Established(established)) => *established,
        Ok(Answer::Refused(reason)) => panic!("refused: {reason}"),
        Err(reason) => panic!("ignored: {reason}"),
    }
}

/// The same message with the MAC made anew, as anybody can who knows the gateway's public key.
fn with_new_mac(gateway: &PublicKey, packet: &[u8]) -> Vec<u8> {
    let mut hello = HelloInit::read_from_bytes(packet).expect("the length of a HELLO_INIT");
    GateKey::new(gateway).seal(&mut hello);
    hello.as_bytes().to_vec()
}

#[test]
fn both_ends_come_to_the_same_keys_with_and_without_a_psk() {
    for psk in [None, Some(PSK)] {
        let mut pair = Pair::new(1);
        let mut initiator = pair.initiator(psk.as_ref());
        let opened = pair.open(initiator.packet(), psk).expect("an honest client");
        assert_eq!(opened.client, pair.client.public());
        assert_eq!(opened.request, pair.request);
        let (ack, root, hash) = opened.accept(&pair.reply, &mut pair.entropy).expect("a reply");
        let at_client = established(initiator.on_ack(&ack));
        assert_eq!(at_client.reply, pair.reply);
        assert_eq!(at_client.hash, hash);

        let identity = &pair.reply.identity;
        let client = EpochKeys::<AwsLcChaCha>::derive(&at_client.root, 0, identity, Side::Client);
        let gateway = EpochKeys::<AwsLcChaCha>::derive(&root, 0, identity, Side::Gateway);
        let header = Header {
            kind: MessageType::HelloConfirm,
            flags: 0,
            key_epoch: 0,
            tag: 0,
            locator: pair.reply.locator,
            counter: 1,
        };
        let confirm = HelloConfirm { binding_epoch: 1, handshake_hash: hash, transport_id: TransportId(3) };
        let mut packet = wire::seal(&client.control_seal, header, &confirm);
        let body = wire::open(&gateway.control_open, &header, &mut packet).expect("the same keys");
        assert_eq!(HelloConfirm::parse(body), Ok(confirm));
    }
}

#[test]
fn every_hello_and_every_key_is_fresh() {
    let mut pair = Pair::new(1);
    let (a, b) = (pair.initiator(None), pair.initiator(None));
    assert_ne!(a.packet()[22..54], b.packet()[22..54], "the ephemeral keys are equal");
}

#[test]
fn hs_2_who_does_not_know_the_gateway_gets_silence() {
    let pair = Pair::new(1);
    let mut stranger = Pair::new(2);
    let hello = stranger.initiator(None);
    assert_eq!(pair.responder.gate(hello.packet()).err(), Some(Reason::AuthFail));
}

#[test]
fn an_unknown_client_is_refused_before_it_gets_an_answer() {
    let mut pair = Pair::new(1);
    pair.client = StaticSecret::generate(&mut pair.entropy);
    let hello = pair.initiator(None);
    pair.client = StaticSecret::generate(&mut pair.entropy);
    assert_eq!(pair.open(hello.packet(), None).err(), Some(Reason::PeerUnknown));
}

#[test]
fn a_wrong_psk_ends_at_the_client_and_a_missing_one_at_the_gateway() {
    let mut pair = Pair::new(1);
    let mut initiator = pair.initiator(Some(&PSK));
    let opened = pair.open(initiator.packet(), Some([0x11; KEY_LEN])).expect("the key is used by the answer only");
    let (ack, ..) = opened.accept(&pair.reply, &mut pair.entropy).expect("a reply");
    assert_eq!(initiator.on_ack(&ack).err(), Some(Reason::AuthFail));

    assert_eq!(pair.open(initiator.packet(), None).err(), Some(Reason::AuthFail));
    let without = pair.initiator(None);
    assert_eq!(pair.open(without.packet(), Some(PSK)).err(), Some(Reason::AuthFail));
}

#[test]
fn hs_4_a_refusal_is_told_and_carries_nothing_else() {
    let mut pair = Pair::new(1);
    let mut initiator = pair.initiator(None);
    let opened = pair.open(initiator.packet(), None).expect("an honest client");
    let ack = opened.refuse(Reason::CapacityExceeded, &mut pair.entropy).expect("a refusal");
    assert!(ack.len() < 100);
    assert!(matches!(initiator.on_ack(&ack), Ok(Answer::Refused(Reason::CapacityExceeded))));
}

#[test]
fn hs_1_a_suite_that_was_not_offered_is_refused() {
    let mut pair = Pair::new(1);
    pair.reply.suite = 2;
    let mut initiator = pair.initiator(None);
    let ack = pair.ack(initiator.packet());
    assert!(matches!(initiator.on_ack(&ack), Ok(Answer::Refused(Reason::SuiteUnsupported))));
}

#[test]
fn hs_2_no_reply_is_longer_than_the_hello() {
    let mut pair = Pair::new(1);
    pair.reply.policy = [0xff; crate::policy::SNAPSHOT_MAX].into();
    let initiator = pair.initiator(None);
    assert_eq!(initiator.packet().len(), HELLO_LEN);
    assert!(pair.ack(initiator.packet()).len() <= HELLO_LEN);
    let hello = pair.responder.gate(initiator.packet()).expect("honest");
    let mut jar = CookieJar::new(ROTATE, &mut pair.entropy, Time::ZERO);
    let peer = "192.0.2.1:4000".parse().expect("an address");
    assert!(jar.retry(Time::ZERO, peer, &hello, &mut pair.entropy).len() <= HELLO_LEN);
}

#[test]
fn a_forged_ack_does_not_keep_the_true_one_out() {
    let mut pair = Pair::new(1);
    let mut initiator = pair.initiator(None);
    let ack = pair.ack(initiator.packet());
    for at in [20, 24, 60, ack.len() - 1] {
        let mut forged = ack.clone();
        forged[at] ^= 1;
        assert!(initiator.on_ack(&forged).is_err());
    }
    assert_eq!(established(initiator.on_ack(&ack)).reply, pair.reply);
}

#[test]
fn every_changed_byte_of_the_ack_is_refused() {
    let mut pair = Pair::new(1);
    let mut initiator = pair.initiator(None);
    let ack = pair.ack(initiator.packet());
    for at in 0..ack.len() {
        let mut changed = ack.clone();
        changed[at] ^= 0x01;
        assert!(initiator.on_ack(&changed).is_err(), "byte {at} does not matter");
    }
    for len in 0..ack.len() {
        assert!(initiator.on_ack(&ack[..len]).is_err(), "{len} bytes are enough");
    }
}

#[test]
fn every_changed_byte_of_the_hello_is_refused_at_the_gate() {
    let mut pair = Pair::new(1);
    let initiator = pair.initiator(None);
    for at in 0..HELLO_LEN {
        let mut changed = initiator.packet().to_vec();
        changed[at] ^= 0x01;
        assert!(pair.responder.gate(&changed).is_err(), "byte {at} does not matter");
    }
    assert!(pair.responder.gate(&initiator.packet()[1..]).is_err());
}

#[test]
fn hs_1_who_makes_the_mac_anew_still_cannot_change_the_offer_or_the_noise() {
    let mut pair = Pair::new(1);
    let initiator = pair.initiator(None);
    let noise_len = HelloInit::view(initiator.packet()).expect("whole").noise().len();
    // Type, version, flags, suites; then the length and every byte of the Noise message.
    for at in (0..4).chain(20..22 + noise_len) {
        let mut changed = initiator.packet().to_vec();
        changed[at] ^= 0x01;
        let changed = with_new_mac(&pair.gateway, &changed);
        assert!(pair.open(&changed, None).is_err(), "byte {at} does not matter");
    }
}

#[test]
fn an_ack_for_another_hello_is_ignored() {
    let mut pair = Pair::new(1);
    let (first, mut second) = (pair.initiator(None), pair.initiator(None));
    let ack = pair.ack(first.packet());
    assert_eq!(second.on_ack(&ack).err(), Some(Reason::AuthFail));
}

/// A gateway under load, and one HELLO_INIT at it.
struct UnderLoad {
    pair: Pair,
    jar: CookieJar,
    initiator: Initiator,
}

const PEER: &str = "192.0.2.1:4000";

impl UnderLoad {
    fn new() -> Self {
        let mut pair = Pair::new(1);
        let jar = CookieJar::new(ROTATE, &mut pair.entropy, Time::ZERO);
        let initiator = pair.initiator(None);
        Self { pair, jar, initiator }
    }

    fn retry(&mut self, now: Time, peer: &str) -> Vec<u8> {
        let hello = self.pair.responder.gate(self.initiator.packet()).expect("honest");
        self.jar.retry(now, peer.parse().expect("an address"), &hello, &mut self.pair.entropy)
    }

    fn check(&mut self, now: Time, peer: &str) -> bool {
        let hello = self.pair.responder.gate(self.initiator.packet()).expect("honest");
        self.jar.check(now, peer.parse().expect("an address"), &hello, &mut self.pair.entropy)
    }
}

#[test]
fn hs_7_with_the_cookie_of_a_retry_the_hello_is_let_in_and_the_handshake_completes() {
    let mut under_load = UnderLoad::new();
    assert!(!under_load.check(Time::ZERO, PEER));
    let before = under_load.initiator.packet().to_vec();
    let retry = under_load.retry(Time::ZERO, PEER);
    assert_eq!(under_load.initiator.on_retry(&retry), Ok(()));
    assert_ne!(under_load.initiator.packet(), before);
    assert!(under_load.check(Time::ZERO, PEER));
    let UnderLoad { mut pair, mut initiator, .. } = under_load;
    let ack = pair.ack(initiator.packet());
    assert_eq!(established(initiator.on_ack(&ack)).reply, pair.reply);
}

#[test]
fn hs_7_a_late_ack_to_the_hello_before_the_cookie_is_as_good() {
    let mut under_load = UnderLoad::new();
    let before = under_load.initiator.packet().to_vec();
    let retry = under_load.retry(Time::ZERO, PEER);
    assert_eq!(under_load.initiator.on_retry(&retry), Ok(()));
    let UnderLoad { mut pair, mut initiator, .. } = under_load;
    let ack = pair.ack(&before);
    assert_eq!(established(initiator.on_ack(&ack)).reply, pair.reply);
}

#[test]
fn hs_7_a_cookie_is_good_from_its_own_address_only() {
    let mut under_load = UnderLoad::new();
    let retry = under_load.retry(Time::ZERO, PEER);
    assert_eq!(under_load.initiator.on_retry(&retry), Ok(()));
    for other in ["192.0.2.1:4001", "192.0.2.2:4000", "[2001:db8::1]:4000"] {
        assert!(!under_load.check(Time::ZERO, other), "good from {other}");
    }
}

#[test]
fn hs_7_a_cookie_is_good_for_its_own_hello_only() {
    let mut under_load = UnderLoad::new();
    let retry = under_load.retry(Time::ZERO, PEER);
    assert_eq!(under_load.initiator.on_retry(&retry), Ok(()));
    let mut stolen = HelloInit::read_from_bytes(under_load.pair.initiator(None).packet()).expect("whole");
    stolen.set_cookie(*HelloInit::view(under_load.initiator.packet()).expect("whole").cookie().expect("a cookie"));
    let stolen = with_new_mac(&under_load.pair.gateway, stolen.as_bytes());
    let hello = under_load.pair.responder.gate(&stolen).expect("a good MAC");
    let peer: SocketAddr = PEER.parse().expect("an address");
    assert!(!under_load.jar.check(Time::ZERO, peer, &hello, &mut under_load.pair.entropy));
}

#[test]
fn hs_7_a_cookie_lives_for_one_rotation_and_not_for_two() {
    let at = |millis| Time::from_millis(millis);
    let mut under_load = UnderLoad::new();
    let retry = under_load.retry(at(0), PEER);
    assert_eq!(under_load.initiator.on_retry(&retry), Ok(()));
    assert!(under_load.check(at(119_999), PEER));
    assert!(under_load.check(at(120_000), PEER), "the secret is the previous one now");
    assert!(!under_load.check(at(240_000), PEER));

    let mut idle = UnderLoad::new();
    let retry = idle.retry(at(0), PEER);
    assert_eq!(idle.initiator.on_retry(&retry), Ok(()));
    assert!(!idle.check(at(240_000), PEER), "nobody asked in between, but two rotations are over");
}

#[test]
fn hs_7_one_cookie_an_attempt_and_only_for_the_outstanding_hello() {
    let mut under_load = UnderLoad::new();
    let retry = under_load.retry(Time::ZERO, PEER);
    let mut other = under_load.pair.initiator(None);
    assert_eq!(other.on_retry(&retry), Err(Reason::CookieInvalid));
    for at in 0..20 {
        let mut changed = retry.clone();
        changed[at] ^= 1;
        assert!(under_load.initiator.on_retry(&changed).is_err(), "byte {at} does not matter");
    }
    assert_eq!(under_load.initiator.on_retry(&retry), Ok(()));
    let again = under_load.retry(Time::ZERO, PEER);
    assert_eq!(under_load.initiator.on_retry(&again), Err(Reason::CookieInvalid));
}

proptest! {
    #[test]
    fn payloads_come_back_as_they_were_written(seed: u64) {
        let mut entropy = SeededEntropy::new(seed);
        let request = HelloRequest::draw(&mut entropy);
        prop_assert_eq!(HelloRequest::parse(&request.to_bytes()), Ok(request));
        let reply = HelloReply { binding_epoch: 1, inner_v4: None, inner_v6: None, ..HelloReply::draw(&mut entropy) };
        prop_assert_eq!(HelloReply::parse(&reply.to_bytes()), Ok(Ok(reply)));
        let reason = Reason::draw(&mut entropy);
        prop_assert_eq!(HelloReply::parse(&HelloReply::refusal(reason)), Ok(Err(reason)));
    }

    #[test]
    fn no_payload_makes_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..900), ok: bool) {
        let _ = HelloRequest::parse(&bytes);
        let with_status = [if ok { &[0; 2][..] } else { &[] }, &bytes].concat();
        let _ = HelloReply::parse(&with_status);
    }

    #[test]
    fn nothing_on_the_wire_makes_an_end_panic_or_be_believed(
        head in prop_oneof![Just([0x11, 0x10]), Just([0x12, 0x10]), Just([0x13, 0x10]), any::<[u8; 2]>()],
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), HELLO_LEN - 2),
            prop::collection::vec(any::<u8>(), 34),
            prop::collection::vec(any::<u8>(), 0..1300),
        ],
    ) {
        let mut pair = Pair::new(1);
        let mut initiator = pair.initiator(None);
        let mut packet = [&head, &bytes[..]].concat();
        prop_assert!(initiator.on_retry(&packet).is_err());
        prop_assert!(initiator.on_ack(&packet).is_err());
        prop_assert!(pair.responder.gate(&packet).is_err());
        // With the right digest, and with the right MAC, it is still refused.
        if let Ok(ack) = HelloAck::parse(&packet) {
            let digest = HelloInit::view(initiator.packet()).expect("whole").digest();
            let ack = HelloAck { digest, ..ack }.to_bytes();
            prop_assert_eq!(initiator.on_ack(&ack).err(), Some(Reason::AuthFail));
        }
        if packet.len() == HELLO_LEN {
            packet[..2].copy_from_slice(&[0x11, 0x10]);
            packet[20..22].copy_from_slice(&500_u16.to_be_bytes());
            let packet = with_new_mac(&pair.gateway, &packet);
            prop_assert_eq!(pair.open(&packet, None).err(), Some(Reason::AuthFail));
        }
    }
}

#[test]
fn a_locator_to_replace_is_optional() {
    let mut pair = Pair::new(1);
    for replaces in [None, Some(Locator(0)), Some(Locator(u64::MAX))] {
        pair.request.replaces = replaces;
        assert_eq!(HelloRequest::parse(&pair.request.to_bytes()).map(|request| request.replaces), Ok(replaces));
    }
}
