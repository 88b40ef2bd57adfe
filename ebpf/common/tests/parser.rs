//! The parser against frames that etherparse built, and against noise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{IpHeaders, Ipv4Header, Ipv4Options, Ipv6Header, PacketBuilder, VlanId};
use jumpgate_common::headers::{ETHERNET_LEN, UDP_LEN, VLAN_TAG_LEN};
use jumpgate_common::{Address, Family, HeaderError, InsideConfig, OutsideConfig, parse_inside, parse_outer, slot_of};
use proptest::prelude::*;

/// What a frame is made of.
#[derive(Clone, Debug)]
struct Spec {
    tags: usize,
    options: Vec<u8>,
    source: SocketAddr,
    destination: SocketAddr,
    payload: Vec<u8>,
}

impl Spec {
    fn build(&self) -> Vec<u8> {
        let ip = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header =
                    Ipv4Header::new(0, 64, etherparse::IpNumber::UDP, source.octets(), destination.octets()).unwrap();
                header.options = Ipv4Options::try_from(&self.options[..]).unwrap();
                IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header =
                    Ipv6Header { source: source.octets(), destination: destination.octets(), ..Ipv6Header::default() };
                IpHeaders::Ipv6(header, etherparse::Ipv6Extensions::default())
            }
            _ => unreachable!("the strategy makes both of one family"),
        };
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let tag = |id| VlanId::try_new(id).unwrap();
        let step = match self.tags {
            0 => ethernet.ip(ip),
            1 => ethernet.single_vlan(tag(1)).ip(ip),
            _ => ethernet.double_vlan(tag(1), tag(2)).ip(ip),
        };
        let udp = step.udp(self.source.port(), self.destination.port());
        let mut frame = Vec::new();
        udp.write(&mut frame, &self.payload).unwrap();
        frame
    }

    fn l3(&self) -> usize {
        ETHERNET_LEN + self.tags * VLAN_TAG_LEN
    }

    fn l4(&self) -> usize {
        self.l3() + if self.source.is_ipv4() { 20 + self.options.len() } else { 40 }
    }
}

fn spec() -> impl Strategy<Value = Spec> {
    // A mapped address never stands in an IPv6 header; see `an_ipv4_mapped_address_in_an_ipv6_header_is_malformed`.
    let v6 = any::<[u8; 16]>().prop_filter("mapped", |bytes| !Address(*bytes).is_v4());
    let addresses = prop_oneof![
        any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
        (v6.clone(), v6).prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
    ];
    let options = (0..=10_usize).prop_map(|words| vec![1; words * 4]);
    let payload = proptest::collection::vec(any::<u8>(), 0..200);
    (0..=2_usize, options, addresses, any::<(u16, u16)>(), payload).prop_map(
        |(tags, options, (source, destination), (from, to), payload)| Spec {
            tags,
            options,
            source: SocketAddr::new(source, from),
            destination: SocketAddr::new(destination, to),
            payload,
        },
    )
}

proptest! {
    #[test]
    fn everything_that_etherparse_wrote_is_found_whatever_padding_follows(spec in spec(), padding in 0..60_usize) {
        let mut frame = spec.build();
        frame.extend(vec![0; padding]);
        let outer = parse_outer(&frame).unwrap();
        prop_assert_eq!((outer.peer(), outer.local()), (spec.source, spec.destination));
        prop_assert_eq!((outer.l3, outer.l4, outer.payload), (spec.l3(), spec.l4(), spec.l4() + UDP_LEN));
        prop_assert_eq!(&frame[outer.payload..][..outer.payload_len], &spec.payload[..]);
        prop_assert_eq!(outer.family, if spec.source.is_ipv4() { Family::V4 } else { Family::V6 });

        let inside = parse_inside(&frame).unwrap();
        prop_assert_eq!(inside.destination.ip(), spec.destination.ip());
        prop_assert_eq!((inside.l3, inside.len), (spec.l3(), frame.len() - padding - spec.l3()));
        prop_assert_eq!(inside.header_len, spec.l4() - spec.l3());
    }

    #[test]
    fn no_cut_frame_is_whole(spec in spec(), cut in any::<prop::sample::Index>()) {
        let frame = spec.build();
        let cut = &frame[..cut.index(frame.len())];
        prop_assert_eq!(parse_outer(cut), Err(HeaderError::Truncated));
        prop_assert_eq!(parse_inside(cut).unwrap_err(), HeaderError::Truncated);
    }

    #[test]
    fn no_frame_makes_the_parser_panic_or_point_outside(frame in noise()) {
        if let Ok(outer) = parse_outer(&frame) {
            prop_assert!(outer.l3 < outer.l4 && outer.l4 + UDP_LEN == outer.payload);
            prop_assert!(outer.payload + outer.payload_len <= frame.len());
        }
        if let Ok(inside) = parse_inside(&frame) {
            prop_assert!(inside.header_len <= inside.len && inside.l3 + inside.len <= frame.len());
        }
    }

    #[test]
    fn an_address_survives_both_of_its_forms(v4 in any::<[u8; 4]>(), v6 in any::<[u8; 16]>()) {
        let v4 = IpAddr::from(v4);
        prop_assert_eq!(Address::from(v4).ip(), v4);
        prop_assert!(Address::from(v4).is_v4());
        prop_assert_eq!(Address(v6).ip(), IpAddr::from(v6).to_canonical());
    }

    #[test]
    fn configurations_survive_the_map(port in any::<u16>(), words in any::<[u32; 4]>(), v6_base in any::<u128>()) {
        let [workers, v4_size, v6_size, v4_base] = words;
        let outside = OutsideConfig { port, workers };
        prop_assert_eq!(OutsideConfig::decode(outside.encode()), outside);
        let inside = InsideConfig { workers, v4_size, v6_size, v4_base, v6_base };
        prop_assert_eq!(InsideConfig::decode(inside.encode()), inside);
    }

    #[test]
    fn a_pool_address_has_its_index_and_no_other_address_has_one(index in 0..2000_u32, other in any::<u32>()) {
        let config = InsideConfig {
            workers: 1,
            v4_size: 1000,
            v6_size: 1000,
            v4_base: Ipv4Addr::new(10, 66, 0, 0).to_bits(),
            v6_base: Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 0).to_bits(),
        };
        let v4 = |index: u32| Ipv4Addr::from_bits(config.v4_base.wrapping_add(index));
        let v6 = |index: u128| Address::from(IpAddr::from(Ipv6Addr::from_bits(config.v6_base.wrapping_add(index))));
        let expected = (index < 1000).then_some(index);
        prop_assert_eq!(config.v4_index(v4(index).into()), expected);
        prop_assert_eq!(config.v6_index(v6(index.into())), expected);
        prop_assert_eq!(config.v4_index(v4(other).into()), (other < 1000).then_some(other));
        // The same low bits under another prefix.
        prop_assert_eq!(config.v6_index(v6(u128::from(index) + (1 << 32))), None);
    }
}

/// Frames with a few wrong bytes, and frames of nothing but those.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let changed = (spec(), proptest::collection::vec((0..100_usize, any::<u8>()), 1..6)).prop_map(|(spec, changes)| {
        let mut frame = spec.build();
        for (position, value) in changes {
            if let Some(byte) = frame.get_mut(position) {
                *byte = value;
            }
        }
        frame
    });
    prop_oneof![changed, proptest::collection::vec(any::<u8>(), 0..150)]
}

fn v4_frame() -> Vec<u8> {
    let source = "198.51.100.7:1000".parse().unwrap();
    let destination = "192.0.2.1:51900".parse().unwrap();
    Spec { tags: 0, options: Vec::new(), source, destination, payload: vec![7; 50] }.build()
}

#[test]
fn each_broken_field_of_ipv4_has_its_own_error() {
    let with = |position: usize, bytes: &[u8]| {
        let mut frame = v4_frame();
        frame[position..position + bytes.len()].copy_from_slice(bytes);
        parse_outer(&frame).unwrap_err()
    };
    assert_eq!(with(12, &[0x08, 0x06]), HeaderError::NotIp);
    assert_eq!(with(14, &[0x65]), HeaderError::Malformed, "version 6 under the EtherType of IPv4");
    assert_eq!(with(14, &[0x44]), HeaderError::Malformed, "a header of 16 bytes");
    assert_eq!(with(16, &[0, 27]), HeaderError::Malformed, "an IP packet that ends inside the UDP header");
    assert_eq!(with(16, &[0xff, 0xff]), HeaderError::Truncated);
    assert_eq!(with(20, &[0x20, 0]), HeaderError::Fragment);
    assert_eq!(with(20, &[0, 1]), HeaderError::NotUdp, "a later fragment has no UDP header");
    assert_eq!(with(23, &[6]), HeaderError::NotUdp);
    assert_eq!(with(38, &[0, 7]), HeaderError::Malformed, "a UDP length below its own header");
    assert_eq!(with(38, &[0, 59]), HeaderError::Malformed, "a UDP length beyond the IP packet");
}

#[test]
fn a_udp_length_below_the_ip_payload_cuts() {
    let mut frame = v4_frame();
    frame[38..40].copy_from_slice(&[0, 18]);
    assert_eq!(parse_outer(&frame).unwrap().payload_len, 10);
}

#[test]
fn an_ipv4_mapped_address_in_an_ipv6_header_is_malformed() {
    let good: SocketAddr = "[2001:db8::1]:51900".parse().unwrap();
    let mapped: SocketAddr = "[::ffff:192.0.2.1]:51900".parse().unwrap();
    for (source, destination) in [(good, mapped), (mapped, good)] {
        let frame = Spec { tags: 0, options: Vec::new(), source, destination, payload: vec![7; 50] }.build();
        assert_eq!(parse_outer(&frame), Err(HeaderError::Malformed));
    }
}

#[test]
fn the_slot_is_the_high_twelve_bits() {
    assert_eq!(slot_of([0xab, 0xcd]), 0xabc);
    assert_eq!(slot_of([0xff, 0xff]), 4095);
    assert_eq!(slot_of([0, 0x0f]), 0);
}
