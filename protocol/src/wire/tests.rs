//! Tests of all messages together: round trips, arbitrary bytes, golden bytes, lengths, tables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use arrayvec::ArrayVec;
use proptest::prelude::*;

use super::outer::{HELLO_ACK_NOISE_MAX, HELLO_ACK_PREFIX, HELLO_NOISE_MAX};
use super::*;
use crate::crypto::{Aead, AwsLcChaCha, RustCryptoChaCha};
use crate::entropy::{Entropy, SeededEntropy};
use crate::ident::{Locator, SessionIdentity, TransportId};
use crate::wire::layout::Row;

/// A value drawn at random from all that its type can hold.
pub(crate) trait Sample: Sized {
    fn draw(source: &mut dyn Entropy) -> Self;
}

macro_rules! sample {
    ($($type:ty: |$source:ident| $value:expr;)+) => {
        $(impl Sample for $type {
            fn draw($source: &mut dyn Entropy) -> Self {
                $value
            }
        })+
    };
}

sample! {
    u8: |source| source.next_u64() as u8;
    u16: |source| source.next_u64() as u16;
    u32: |source| source.next_u64() as u32;
    u64: |source| source.next_u64();
    bool: |source| source.next_u64() & 1 == 1;
    Locator: |source| Self(source.next_u64());
    TransportId: |source| Self(u16::draw(source));
    SessionIdentity: |source| Self(Sample::draw(source));
    Reason: |source| Self::ALL[source.next_u64() as usize % Self::ALL.len()];
    Cause: |source| Self::read(&[source.next_u64() as u8 % 5 + 1]).expect("five causes");
    ReservedZero: |_source| Self;
    Ipv4Addr: |source| Self::from(u32::draw(source));
    Ipv6Addr: |source| Self::from(<[u8; 16]>::draw(source));
    SocketAddr: |source| {
        let v4 = bool::draw(source);
        let ip = if v4 { IpAddr::V4(Sample::draw(source)) } else { IpAddr::V6(Sample::draw(source)) };
        Self::new(ip, u16::draw(source))
    };
}

impl<const N: usize> Sample for [u8; N] {
    fn draw(source: &mut dyn Entropy) -> Self {
        let mut bytes = [0; N];
        source.fill(&mut bytes);
        bytes
    }
}

impl<T: Sample> Sample for Option<T> {
    fn draw(source: &mut dyn Entropy) -> Self {
        bool::draw(source).then(|| T::draw(source))
    }
}

impl<A: Sample, B: Sample> Sample for (A, B) {
    fn draw(source: &mut dyn Entropy) -> Self {
        (A::draw(source), B::draw(source))
    }
}

impl<T: Sample, const N: usize> Sample for ArrayVec<T, N> {
    fn draw(source: &mut dyn Entropy) -> Self {
        let count = source.next_u64() as usize % (N + 1);
        (0..count).map(|_| T::draw(source)).collect()
    }
}

/// Calls a generic function once for each body.
macro_rules! for_each_body {
    ($function:ident($($argument:expr),*)) => {
        $function::<HelloConfirm>($($argument),*);
        $function::<Heartbeat>($($argument),*);
        $function::<HeartbeatAck>($($argument),*);
        $function::<PathProbe>($($argument),*);
        $function::<PathProbeAck>($($argument),*);
        $function::<ReattachRequest>($($argument),*);
        $function::<ReattachAck>($($argument),*);
        $function::<ReattachReject>($($argument),*);
        $function::<ReattachHint>($($argument),*);
        $function::<RekeyInit>($($argument),*);
        $function::<RekeyAck>($($argument),*);
        $function::<PolicyUpdate>($($argument),*);
        $function::<Terminate>($($argument),*);
    };
}

fn header(counter: u64) -> Header {
    Header { kind: MessageType::Data, flags: 0, key_epoch: 7, tag: 0, locator: Locator(0x1234_5678_9abc_def0), counter }
}

fn key() -> AwsLcChaCha {
    AwsLcChaCha::new(&[7; 32])
}

fn round_trip<B: Body + Sample + PartialEq + core::fmt::Debug>(seed: u64) {
    let body = B::draw(&mut SeededEntropy::new(seed));
    let mut packet = seal(&key(), header(seed | 1), &body);
    let parsed = Header::parse(&packet).expect("a sealed message has a header");
    assert_eq!(parsed, Header { kind: B::KIND, ..header(seed | 1) });
    let plaintext = open(&key(), &parsed, &mut packet).expect("a sealed message opens under its key");
    assert_eq!(B::parse(plaintext).expect("a sealed message holds its body"), body);
    // Behind the known fields more may stand.
    let longer = [plaintext, &[0xff; 9]].concat();
    assert_eq!(B::parse(&longer), Ok(body));
}

/// Whatever is accepted means the same after it was written and read again; nothing panics.
fn parse_anything<B: Body + PartialEq + core::fmt::Debug>(bytes: &[u8]) {
    if let Ok(body) = B::parse(bytes) {
        let mut out = vec![0; B::PADDED_LEN];
        body.emit(&mut out);
        assert_eq!(B::parse(&out), Ok(body));
    }
}

proptest! {
    #[test]
    fn every_message_comes_back_as_it_was_sealed(seed: u64) {
        // Counters 0 and 2^64-1 are not counters (AR-2).
        prop_assume!(seed | 1 != u64::MAX);
        for_each_body!(round_trip(seed));
    }

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        for_each_body!(parse_anything(&bytes));
        let _ = (Header::parse(&bytes), MessageType::of(&bytes));
    }

    #[test]
    fn no_bytes_behind_a_valid_start_make_a_view_panic(
        kind in 0x10_u8..0x24,
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            prop::collection::vec(any::<u8>(), HELLO_LEN - 2),
            prop::collection::vec(any::<u8>(), 0..1500),
        ],
    ) {
        let packet = [&[kind, VERSION << 4], &bytes[..]].concat();
        if let Ok(header) = Header::parse(&packet) {
            prop_assert!(open(&key(), &header, &mut packet.clone()).is_err());
            prop_assert!(open_data(&key(), &header, &mut packet.clone()).is_err());
        }
        if let Ok(hello) = HelloInit::view(&packet) {
            prop_assert!(hello.noise().len() <= HELLO_NOISE_MAX);
        }
        if let Ok(ack) = HelloAck::parse(&packet) {
            prop_assert_eq!(ack.to_bytes(), packet);
        } else if let Ok(retry) = HelloRetry::parse(&packet) {
            prop_assert_eq!(&retry.to_bytes()[..], packet);
        } else if let Ok(reset) = SessionReset::parse(&packet) {
            prop_assert_eq!(&reset.to_bytes()[..], packet);
        }
    }

    #[test]
    fn a_header_comes_back_as_it_was_emitted(
        kind in 0..MessageType::ALL.len(), flags in 0_u8..16, key_epoch: u8, tag: u8, locator: u64, counter in 1..u64::MAX,
    ) {
        let kind = MessageType::ALL[kind];
        prop_assume!(kind.is_session());
        let tag = if kind == MessageType::Data { tag } else { 0 };
        let header = Header { kind, flags, key_epoch, tag, locator: Locator(locator), counter };
        let mut packet = [0; CONTROL_MAX];
        header.emit(&mut packet);
        prop_assert_eq!(Header::parse(&packet), Ok(header));
    }

    #[test]
    fn data_comes_back_as_it_was_sealed_and_both_ciphers_agree(
        secret: [u8; 32], counter in 1..u64::MAX, inner in prop::collection::vec(any::<u8>(), 0..1500),
    ) {
        let header = header(counter);
        let room = [&[0; HEADER_LEN], &inner[..], &[0; TAG_LEN]].concat();
        let (mut fast, mut oracle) = (room.clone(), room);
        seal_data(&AwsLcChaCha::new(&secret), &header, &mut fast);
        seal_data(&RustCryptoChaCha::new(&secret), &header, &mut oracle);
        prop_assert_eq!(&fast, &oracle);
        prop_assert_eq!(fast.len(), inner.len() + DATA_OVERHEAD);
        prop_assert_eq!(open_data(&AwsLcChaCha::new(&secret), &header, &mut oracle), Ok(&mut inner.clone()[..]));
        prop_assert_eq!(open_data(&RustCryptoChaCha::new(&secret), &header, &mut fast), Ok(&mut inner.clone()[..]));
    }
}

#[test]
fn every_changed_bit_of_a_sealed_message_is_refused() {
    let body = ReattachRequest::draw(&mut SeededEntropy::new(1));
    let packet = seal(&key(), header(9), &body);
    for bit in 0..packet.len() * 8 {
        let mut changed = packet.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let refused = match Header::parse(&changed) {
            Ok(header) => open(&key(), &header, &mut changed).err() == Some(Reason::AuthFail),
            Err(_) => true,
        };
        assert!(refused, "bit {bit} does not matter");
    }
}

#[test]
fn every_changed_bit_of_a_data_packet_is_refused() {
    let mut packet = [0x45; 100];
    seal_data(&key(), &header(9), &mut packet);
    for bit in 0..packet.len() * 8 {
        let mut changed = packet;
        changed[bit / 8] ^= 1 << (bit % 8);
        let refused = match Header::parse(&changed) {
            Ok(header) => open_data(&key(), &header, &mut changed).err() == Some(Reason::DataAuthFail),
            Err(_) => true,
        };
        assert!(refused, "bit {bit} does not matter");
    }
}

#[test]
fn a_message_does_not_open_under_another_key() {
    let mut packet = seal(&key(), header(9), &Terminate { reason: Reason::OperatorTerminated });
    let header = Header::parse(&packet).expect("whole");
    assert_eq!(open(&AwsLcChaCha::new(&[8; 32]), &header, &mut packet), Err(Reason::AuthFail));
}

#[test]
fn inv_36_no_two_types_share_a_nonce_at_one_counter() {
    let mut nonces: Vec<_> = MessageType::ALL
        .iter()
        .filter(|kind| kind.is_session())
        .map(|kind| Header { kind: *kind, ..header(5) }.nonce())
        .collect();
    let count = nonces.len();
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), count);
    assert_eq!(header(0x0102_0304_0506_0708).nonce(), [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn rf_2_no_answer_is_longer_than_its_request() {
    let len = |kind| body::padded_len(kind).expect("a control message");
    for (request, answers) in [
        (MessageType::HelloConfirm, &[MessageType::HeartbeatAck][..]),
        (MessageType::Heartbeat, &[MessageType::HeartbeatAck]),
        (MessageType::PathProbe, &[MessageType::PathProbeAck]),
        (MessageType::ReattachRequest, &[MessageType::ReattachAck, MessageType::ReattachReject]),
        (MessageType::RekeyInit, &[MessageType::RekeyAck]),
    ] {
        for answer in answers {
            assert!(len(*answer) <= len(request), "{answer} is longer than {request}");
        }
    }
    // RF-3: a reset is shorter than what it answers.
    assert!(SessionReset::LEN < HEADER_LEN + len(MessageType::ReattachRequest) + TAG_LEN);
    const { assert!(HelloRetry::LEN <= HELLO_LEN && HELLO_ACK_PREFIX + HELLO_ACK_NOISE_MAX <= HELLO_LEN) };
}

#[test]
fn rf_2_an_unpadded_request_is_not_parsed() {
    let request = ReattachRequest::draw(&mut SeededEntropy::new(1));
    let mut bytes = [0; ReattachRequest::PADDED_LEN];
    request.emit(&mut bytes);
    const { assert!(ReattachRequest::LEN < ReattachRequest::PADDED_LEN) };
    assert_eq!(ReattachRequest::parse(&bytes[..ReattachRequest::PADDED_LEN - 1]), Err(WireError::Truncated));
}

#[test]
fn c00_length_type_version_and_reserved_fields_are_checked() {
    let packet = seal(&key(), header(9), &Terminate { reason: Reason::OperatorTerminated });
    let changed = |at: usize, value: u8| {
        let mut packet = packet.clone();
        packet[at] = value;
        Header::parse(&packet)
    };
    assert!(Header::parse(&packet).is_ok());
    assert_eq!(Header::parse(&packet[..packet.len() - 1]), Err(WireError::Truncated));
    assert_eq!(Header::parse(&[&packet[..], &[0; CONTROL_MAX]].concat()), Err(WireError::Oversized));
    assert_eq!(changed(0, 0x23), Err(WireError::UnknownType));
    assert_eq!(changed(0, 0x04), Err(WireError::UnknownType), "types of WireGuard are not ours");
    assert_eq!(changed(0, MessageType::HelloInit as u8), Err(WireError::UnknownType), "not a message of a session");
    assert_eq!(changed(1, 0x20), Err(WireError::UnsupportedVersion));
    assert_eq!(changed(3, 1), Err(WireError::Malformed), "only DATA has an epoch tag");
    for counter in [0, u64::MAX] {
        let packet = seal(&key(), header(counter), &Terminate { reason: Reason::OperatorTerminated });
        assert_eq!(Header::parse(&packet), Err(WireError::Malformed), "AR-2: {counter} is no counter");
    }
}

#[test]
fn sl_5_another_locator_is_refused() {
    let ack = ReattachAck::draw(&mut SeededEntropy::new(3));
    let mut bytes = [0; ReattachAck::LEN];
    ack.emit(&mut bytes);
    bytes[ReattachAck::LEN - 1] = 1;
    assert_eq!(ReattachAck::parse(&bytes), Err(WireError::Malformed));
}

#[test]
fn golden_bytes_of_a_header_and_of_bodies() {
    let mut out = [0; HEADER_LEN];
    let header = Header {
        kind: MessageType::Data,
        flags: 0,
        key_epoch: 2,
        tag: 3,
        locator: Locator(0x0405_0607_0809_0a0b),
        counter: 0x0c0d_0e0f_1011_1213,
    };
    header.emit(&mut out);
    assert_eq!(out, *b"\x15\x10\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13");

    let mut out = [0; ReattachRequest::LEN];
    let request = ReattachRequest {
        binding_epoch: 0x0102_0304_0506_0708,
        client_time_ms: 0x1112_1314_1516_1718,
        cause: Cause::HardDead,
        transport_id: TransportId(0x2122),
        protocol: UDP,
    };
    request.emit(&mut out);
    assert_eq!(out, *b"\x01\x02\x03\x04\x05\x06\x07\x08\x11\x12\x13\x14\x15\x16\x17\x18\x03\x21\x22\x01");

    let mut out = [0; PathProbeAck::LEN];
    let ack = PathProbeAck {
        echo: 1,
        transport_id: TransportId(2),
        observed: "192.0.2.3:4660".parse().expect("an address"),
        token: 4,
        flags: PathProbeAck::STORED,
    };
    ack.emit(&mut out);
    let expected = b"\0\0\0\0\0\0\0\x01\0\x02\x04\xc0\0\x02\x03\0\0\0\0\0\0\0\0\0\0\0\0\x12\x34\0\0\0\0\0\0\0\x04\x01";
    assert_eq!(out, *expected);

    let mut out = [0; ReattachReject::LEN];
    let reject = ReattachReject {
        nonce: 1,
        reason: Reason::StaleStateVersion,
        retry_after_ms: 2,
        gateway_time_ms: 3,
        current: Some((4, TransportId::NONE)),
    };
    reject.emit(&mut out);
    assert_eq!(out, *b"\0\0\0\0\0\0\0\x01\x02\xc2\0\0\0\x02\0\0\0\0\0\0\0\x03\x01\0\0\0\0\0\0\0\x04\xff\xff");
}

/// The bytes of a field, found by the table alone.
fn by_table<'a>(rows: &[Row], field: &str, packet: &'a [u8]) -> &'a [u8] {
    let index = rows.iter().position(|row| row.field == field).expect("the table has the field");
    let start = rows[..index].iter().map(|row| row.len).sum();
    let len = rows[index].len;
    if len == 0 { &packet[start..] } else { &packet[start..start + len] }
}

#[test]
fn the_tables_of_the_document_are_what_is_emitted() {
    let total = |rows: &[Row]| rows.iter().map(|row| row.len).sum::<usize>();
    let lengths = [
        (layout::HEADER, HEADER_LEN),
        (layout::HELLO_INIT, HELLO_LEN),
        (layout::HELLO_RETRY, HelloRetry::LEN),
        (layout::HELLO_ACK, HELLO_ACK_PREFIX),
        (layout::SESSION_RESET, SessionReset::LEN),
    ];
    for (rows, len) in lengths {
        assert_eq!(total(rows), len);
    }

    let mut packet = [0; HEADER_LEN];
    Header { tag: 0x44, ..header(0x55) }.emit(&mut packet);
    let found = |field| by_table(layout::HEADER, field, &packet);
    assert_eq!(found("type"), [0x15]);
    assert_eq!(found("version, flags"), [0x10]);
    assert_eq!(found("key_epoch"), [7]);
    assert_eq!(found("epoch_tag"), [0x44]);
    assert_eq!(found("locator"), 0x1234_5678_9abc_def0_u64.to_be_bytes());
    assert_eq!(found("counter"), 0x55_u64.to_be_bytes());

    let mut hello = HelloInit::new(0x0102, true, &[0xaa; 100]);
    hello.set_cookie([0xbb; COOKIE_LEN]);
    hello.set_gate_mac([0xcc; outer::GATE_MAC_LEN]);
    let packet = zerocopy::IntoBytes::as_bytes(&hello);
    let found = |field| by_table(layout::HELLO_INIT, field, packet);
    assert_eq!(found("type"), [0x11]);
    assert_eq!(found("version, flags"), [0x11]);
    assert_eq!(found("suites"), [1, 2]);
    assert_eq!(found("cookie"), [0xbb; COOKIE_LEN]);
    assert_eq!(found("noise_len"), [0, 100]);
    assert_eq!(found("noise")[..101], [&[0xaa; 100][..], &[0]].concat());
    assert_eq!(found("gate_mac"), [0xcc; outer::GATE_MAC_LEN]);

    let packet = HelloRetry::new([0xdd; DIGEST_LEN], [0xbb; COOKIE_LEN]).to_bytes();
    assert_eq!(packet[..4], [0x12, 0x10, 0, 0]);
    assert_eq!(by_table(layout::HELLO_RETRY, "digest", &packet), [0xdd; DIGEST_LEN]);
    assert_eq!(by_table(layout::HELLO_RETRY, "cookie", &packet), [0xbb; COOKIE_LEN]);

    let packet = HelloAck { digest: [0xdd; DIGEST_LEN], noise: &[0xaa; 300] }.to_bytes();
    assert_eq!(packet[..4], [0x13, 0x10, 0, 0]);
    assert_eq!(by_table(layout::HELLO_ACK, "digest", &packet), [0xdd; DIGEST_LEN]);
    assert_eq!(by_table(layout::HELLO_ACK, "noise_len", &packet), [1, 44]);
    assert_eq!(by_table(layout::HELLO_ACK, "noise", &packet), [0xaa; 300]);

    let packet = SessionReset { locator: Locator(0x0102_0304_0506_0708), token: [0xee; RESET_TOKEN_LEN] }.to_bytes();
    assert_eq!(packet[..4], [0x22, 0x10, 0, 0]);
    assert_eq!(by_table(layout::SESSION_RESET, "locator", &packet), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(by_table(layout::SESSION_RESET, "token", &packet), [0xee; RESET_TOKEN_LEN]);
}

#[test]
fn the_table_of_a_body_says_where_its_fields_are() {
    let mut bytes = [0; HeartbeatAck::LEN];
    let ack = HeartbeatAck {
        echo: 0x11,
        binding_epoch: 0x22,
        gateway_time_ms: 0x33,
        sent: 0x44,
        received: 0x55,
        highest: 0x66,
        state: 0x77,
        flags: 0x88,
    };
    ack.emit(&mut bytes);
    for (field, value) in [
        ("echo", 0x11_u64),
        ("binding_epoch", 0x22),
        ("gateway_time_ms", 0x33),
        ("sent", 0x44),
        ("received", 0x55),
        ("highest", 0x66),
        ("state", 0x77),
        ("flags", 0x88),
    ] {
        let found = by_table(HeartbeatAck::ROWS, field, &bytes).iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        assert_eq!(found, value, "{field}");
    }
}

#[test]
fn the_document_names_every_message() {
    let document = layout::render_markdown();
    for kind in MessageType::ALL {
        assert!(document.contains(&format!("### {kind} ({})", kind.id())), "{kind} is missing");
    }
    assert!(document.contains("| 12 | 8 | counter |"));
}

#[test]
fn a_reset_ends_only_its_own_session() {
    let reset = SessionReset { locator: Locator(5), token: [9; RESET_TOKEN_LEN] };
    let reset = SessionReset::parse(&reset.to_bytes()).expect("whole");
    assert!(reset.ends(Locator(5), &[9; RESET_TOKEN_LEN]));
    assert!(!reset.ends(Locator(6), &[9; RESET_TOKEN_LEN]));
    assert!(!reset.ends(Locator(5), &[8; RESET_TOKEN_LEN]));
}
