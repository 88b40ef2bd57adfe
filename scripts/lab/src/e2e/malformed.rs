//! Packets that nobody should send: cut, oversized, tagged, fragmented, of types and versions that do not exist.

use std::net::{Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};
use jumpgate_protocol::wire::{CONTROL_MAX, HELLO_LEN, MessageType};

use super::Test;
use super::arena::{Arena, Watch, forged_source};
use crate::attacker::frame::{self, Extension};
use crate::relay::Direction;
use crate::topology::{Lab, WIFI};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "malformed: messages that are cut, oversized, or of an unknown type or version are counted drops (A14, C00)",
        run: messages,
    },
    Test {
        name: "malformed: headers that lie, fragments, tags and extension headers are counted, each by its fate (A14)",
        run: headers,
    },
];

/// A message of a session that is nothing but its header's first 12 bytes and zeros.
fn message(kind: MessageType, version: u8, locator: u64, len: usize) -> Vec<u8> {
    let mut packet = vec![0; len.max(20)];
    packet[0] = kind as u8;
    packet[1] = version << 4;
    packet[4..12].copy_from_slice(&locator.to_be_bytes());
    packet[19] = 1;
    packet.truncate(len);
    packet
}

fn messages(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let watch = arena.watch()?;
    let locator = u64::from_str_radix(&watch.before().locator, 16)?;
    let of = |kind, version, len| message(kind, version, locator, len);
    let cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("nothing at all", "outside_malformed", vec![]),
        ("an unknown type", "UNKNOWN_TYPE", vec![0xee; 40]),
        ("a type of WireGuard", "UNKNOWN_TYPE", vec![1; 148]),
        ("a message that only a gateway sends", "UNKNOWN_TYPE", of(MessageType::ReattachAck, 1, 160)),
        ("version 0", "UNSUPPORTED_VERSION", of(MessageType::ReattachRequest, 0, 160)),
        ("version 7", "UNSUPPORTED_VERSION", of(MessageType::ReattachRequest, 7, 160)),
        ("a request cut inside its header", "MALFORMED", of(MessageType::ReattachRequest, 1, 15)),
        ("a request cut inside its body", "MALFORMED", of(MessageType::ReattachRequest, 1, 60)),
        ("a request with more behind it", "MALFORMED", of(MessageType::ReattachRequest, 1, CONTROL_MAX + 1)),
        ("DATA shorter than its header and tag", "outside_malformed", of(MessageType::Data, 1, 35)),
        ("DATA of version 7", "outside_bad_version", of(MessageType::Data, 7, 100)),
        ("a HEARTBEAT cut inside its body", "MALFORMED", of(MessageType::Heartbeat, 1, 40)),
        ("a HELLO_INIT without gate MAC", "AUTH_FAIL", of(MessageType::HelloInit, 1, HELLO_LEN)),
        ("a HELLO_INIT one byte short", "MALFORMED", of(MessageType::HelloInit, 1, HELLO_LEN - 1)),
    ];
    for (number, (what, counter, packet)) in cases.into_iter().enumerate() {
        let before = watch.grown(counter)?;
        arena.wire.send_datagram(forged_source(u32::try_from(number)?), arena.endpoint(), &packet)?;
        watch.counts(counter, before + 1).with_context(|| what.to_owned())?;
    }
    // Garbage gets as far as decryption only from the bound address, and only with the epoch's tag (BD-1).
    let mut garbage = of(MessageType::Data, 1, 100);
    garbage[3] = u8::try_from(watch.before().epoch & 0xff)?;
    garbage[12..20].copy_from_slice(&(1_u64 << 40).to_be_bytes());
    lab.relay.inject(WIFI.path, Direction::Up, None, &garbage)?;
    watch.counts("DATA_AUTH_FAIL", 1)?;
    watch.is_undisturbed()
}

/// A frame that only has to be counted by `counter`.
fn counted(arena: &Arena<'_>, watch: &Watch<'_>, what: &str, counter: &str, frame: &[u8]) -> Result<()> {
    let before = watch.grown(counter)?;
    arena.wire.send(frame)?;
    watch.counts(counter, before + 1).with_context(|| what.to_owned())
}

fn headers(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let watch = arena.watch()?;
    // No session has it; its slot is one that a worker owns.
    let locator = u64::from_str_radix(&watch.before().locator, 16)? ^ 1;
    let data = message(MessageType::Data, 1, locator, 100);
    let request = message(MessageType::ReattachRequest, 1, locator, 160);
    let (v4, v6) = (arena.endpoint(), lab.gateway_endpoint(true));
    let source = |last| SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last), 4_444));
    let macs = arena.wire.macs();
    let over_v4 = frame::udp(macs, forged_source(3), v4, &data).context("two families")?;
    let over_v6 = frame::udp(macs, source(0x99), v6, &data).context("two families")?;
    let request_v6 = frame::udp(macs, source(0x98), v6, &request).context("two families")?;
    let [first, second] = frame::fragments(&over_v4);
    let not_found = "SESSION_NOT_FOUND";
    // Tags are looked through, up to two of them.
    counted(&arena, &watch, "DATA behind one VLAN tag", not_found, &frame::with_vlan(&over_v4, &[5]))?;
    counted(&arena, &watch, "DATA behind two VLAN tags", not_found, &frame::with_vlan(&over_v6, &[5, 6]))?;
    counted(&arena, &watch, "three VLAN tags", "outside_other", &frame::with_vlan(&over_v4, &[5, 6, 7]))?;
    counted(&arena, &watch, "a first fragment", "outside_fragment", &first)?;
    counted(&arena, &watch, "a later fragment", "outside_other", &second)?;
    counted(&arena, &watch, "an IP packet that is cut", "outside_truncated", &frame::cut(&over_v4, 30))?;
    counted(&arena, &watch, "a UDP length beyond", "outside_malformed", &frame::with_udp_length(&over_v4, 900))?;
    counted(&arena, &watch, "a UDP length of 3", "outside_malformed", &frame::with_udp_length(&over_v4, 3))?;
    // Behind extension headers it is the kernel's: DATA has no owner there, a request is refused like any other.
    for extension in [Extension::HopByHop, Extension::Destination, Extension::Fragment] {
        let what = format!("DATA behind {extension:?}");
        counted(&arena, &watch, &what, "NOT_AUTHORITATIVE_OWNER", &frame::with_extension(&over_v6, extension))?;
        let what = format!("a request behind {extension:?}");
        counted(&arena, &watch, &what, not_found, &frame::with_extension(&request_v6, extension))?;
    }
    // The kernel takes no routing header of type 0 (RFC 5095); it need only be counted.
    let routed = frame::with_extension(&over_v6, Extension::Routing);
    counted(&arena, &watch, "DATA behind a routing header", "outside_other", &routed)?;
    watch.is_undisturbed()
}
