//! Ethernet and outer headers, written in front of a packet, in place.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use jumpgate_common::headers::{ETHERNET_LEN, IPV4_MIN_LEN, IPV6_LEN, PROTOCOL_UDP, UDP_LEN, VLAN_TAG_LEN};
use jumpgate_protocol::ident::Tuple;
use jumpgate_protocol::reason::Reason;

use super::checksum::Sum;
use crate::handover::NextHop;
use crate::sys::{Frame, NoRoom, Umem};

/// EtherType of IPv4.
pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
/// Hops that a tunnel packet may take; what hosts use.
const TTL: u8 = 64;
/// "Don't fragment": a tunnel packet's size is ours to choose, and routers are to say so when it does not fit. Such a
/// packet needs no identification (RFC 6864).
const IPV4_DONT_FRAGMENT: u16 = 0x4000;

/// Puts an Ethernet header in front of the packet, to its next hop.
pub(super) fn prepend_link(memory: &Umem, frame: &mut Frame, hop: &NextHop, ethertype: u16) -> Result<(), NoRoom> {
    frame.prepend(link_len(hop))?;
    write_link(memory.bytes_mut(frame), hop, ethertype);
    Ok(())
}

/// Puts UDP, IP and Ethernet headers in front of the packet, which is a UDP payload.
pub(super) fn prepend_outer(memory: &Umem, frame: &mut Frame, hop: &NextHop, tuple: &Tuple) -> Result<(), Reason> {
    let link = link_len(hop);
    match (tuple.local, tuple.peer) {
        (SocketAddr::V4(local), SocketAddr::V4(peer)) => {
            frame.prepend(link + IPV4_MIN_LEN + UDP_LEN).map_err(|NoRoom| Reason::MtuExceeded)?;
            let bytes = memory.bytes_mut(frame);
            write_link(bytes, hop, ETHERTYPE_IPV4);
            write_ipv4_udp(&mut bytes[link..], local, peer);
        }
        (SocketAddr::V6(local), SocketAddr::V6(peer)) => {
            frame.prepend(link + IPV6_LEN + UDP_LEN).map_err(|NoRoom| Reason::MtuExceeded)?;
            let bytes = memory.bytes_mut(frame);
            write_link(bytes, hop, ETHERTYPE_IPV6);
            write_ipv6_udp(&mut bytes[link..], local, peer);
        }
        // Refused when the binding was made (C09).
        (SocketAddr::V4(_), SocketAddr::V6(_)) | (SocketAddr::V6(_), SocketAddr::V4(_)) => {
            return Err(Reason::InvalidTransportCandidate);
        }
    }
    Ok(())
}

fn link_len(hop: &NextHop) -> usize {
    ETHERNET_LEN + if hop.vlan.is_some() { VLAN_TAG_LEN } else { 0 }
}

fn write_link(bytes: &mut [u8], hop: &NextHop, ethertype: u16) {
    bytes[..6].copy_from_slice(&hop.destination_mac);
    bytes[6..12].copy_from_slice(&hop.source_mac);
    match hop.vlan {
        None => put(bytes, 12, ethertype),
        Some(vlan) => {
            put(bytes, 12, ETHERTYPE_VLAN);
            put(bytes, 14, vlan);
            put(bytes, 16, ethertype);
        }
    }
}

/// `packet` is room for both headers, and the payload. A UDP checksum of zero says that there is none (RFC 768); the
/// AEAD tag protects more than it would.
fn write_ipv4_udp(packet: &mut [u8], local: SocketAddrV4, peer: SocketAddrV4) {
    // At most a frame, far below 64 KB.
    let len = packet.len() as u16;
    let (ip, udp) = packet.split_at_mut(IPV4_MIN_LEN);
    ip[0] = 0x45;
    ip[1] = 0;
    put(ip, 2, len);
    put(ip, 4, 0);
    put(ip, 6, IPV4_DONT_FRAGMENT);
    ip[8] = TTL;
    ip[9] = PROTOCOL_UDP;
    put(ip, 10, 0);
    ip[12..16].copy_from_slice(&local.ip().octets());
    ip[16..20].copy_from_slice(&peer.ip().octets());
    let checksum = Sum::default().bytes(ip).finish();
    put(ip, 10, checksum);
    write_udp(udp, local.port(), peer.port());
}

/// `packet` is room for both headers, and the payload. IPv6 wants a UDP checksum (RFC 8200 §8.1); receivers drop
/// packets without one unless they were told otherwise (RFC 6935).
fn write_ipv6_udp(packet: &mut [u8], local: SocketAddrV6, peer: SocketAddrV6) {
    let (ip, udp) = packet.split_at_mut(IPV6_LEN);
    let len = udp.len() as u16;
    ip[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    put(ip, 4, len);
    ip[6] = PROTOCOL_UDP;
    ip[7] = TTL;
    ip[8..24].copy_from_slice(&local.ip().octets());
    ip[24..40].copy_from_slice(&peer.ip().octets());
    write_udp(udp, local.port(), peer.port());
    // The pseudo header: both addresses, length, protocol. Zero would say "none", and is sent as its other form.
    let sum = Sum::default().bytes(&ip[8..40]).word(len).word(u16::from(PROTOCOL_UDP)).bytes(udp);
    put(
        udp,
        6,
        match sum.finish() {
            0 => 0xffff,
            checksum => checksum,
        },
    );
}

/// The UDP header without its checksum.
fn write_udp(udp: &mut [u8], source: u16, destination: u16) {
    let len = udp.len() as u16;
    put(udp, 0, source);
    put(udp, 2, destination);
    put(udp, 4, len);
    put(udp, 6, 0);
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice, VlanSlice};
    use jumpgate_common::parse_outer;
    use proptest::prelude::*;

    use super::*;

    const HOP: NextHop = NextHop { source_mac: [2, 0, 0, 0, 0, 1], destination_mac: [2, 0, 0, 0, 0, 2], vlan: None };

    fn frame_with(payload: &[u8]) -> (std::sync::Arc<Umem>, Frame) {
        let (memory, mut frames) = Umem::new(1, 2048).expect("anonymous memory");
        let mut frame = frames.pop().expect("one frame");
        frame.place(256, payload.len()).expect("fits");
        memory.bytes_mut(&mut frame).copy_from_slice(payload);
        (memory, frame)
    }

    fn tuple(local: &str, peer: &str) -> Tuple {
        Tuple { local: local.parse().expect("address"), peer: peer.parse().expect("address") }
    }

    proptest! {
        /// Whatever the payload, two other parsers read back what was asked for, and the checksums hold.
        #[test]
        fn an_ipv4_packet_is_read_back_by_others(payload in prop::collection::vec(any::<u8>(), 0..1500), vlan in prop::option::of(1u16..4095)) {
            let (memory, mut frame) = frame_with(&payload);
            let tuple = tuple("192.0.2.1:51900", "198.51.100.7:40001");
            prepend_outer(&memory, &mut frame, &NextHop { vlan, ..HOP }, &tuple).expect("fits");
            let bytes = memory.bytes(&frame);

            let outer = parse_outer(bytes).expect("our own parser reads it");
            prop_assert_eq!((outer.peer(), outer.local()), (tuple.local, tuple.peer));
            prop_assert_eq!(&bytes[outer.payload..][..outer.payload_len], &payload[..]);

            let sliced = SlicedPacket::from_ethernet(bytes).expect("etherparse reads it");
            prop_assert_eq!(sliced.vlan().map(|tag| match tag {
                VlanSlice::SingleVlan(tag) => tag.vlan_identifier().value(),
                VlanSlice::DoubleVlan(_) => 0,
            }), vlan);
            let Some(NetSlice::Ipv4(ip)) = sliced.net else { panic!("IPv4") };
            let header = ip.header().to_header();
            prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
            prop_assert!(header.dont_fragment);
            let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("UDP") };
            prop_assert_eq!((udp.source_port(), udp.destination_port(), udp.checksum()), (51900, 40001, 0));
            prop_assert_eq!(udp.payload(), &payload[..]);
        }

        #[test]
        fn an_ipv6_packet_is_read_back_by_others(payload in prop::collection::vec(any::<u8>(), 0..1500)) {
            let (memory, mut frame) = frame_with(&payload);
            let tuple = tuple("[2001:db8::1]:51900", "[2001:db8:1::7]:40001");
            prepend_outer(&memory, &mut frame, &HOP, &tuple).expect("fits");
            let bytes = memory.bytes(&frame);

            let outer = parse_outer(bytes).expect("our own parser reads it");
            prop_assert_eq!((outer.peer(), outer.local()), (tuple.local, tuple.peer));

            let sliced = SlicedPacket::from_ethernet(bytes).expect("etherparse reads it");
            let Some(NetSlice::Ipv6(ip)) = sliced.net else { panic!("IPv6") };
            let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("UDP") };
            let expected = udp
                .to_header()
                .calc_checksum_ipv6(&ip.header().to_header(), udp.payload())
                .expect("not too long");
            prop_assert_eq!(udp.checksum(), expected);
            prop_assert_eq!(udp.payload(), &payload[..]);
        }
    }

    #[test]
    fn addresses_of_two_families_make_no_packet() {
        let (memory, mut frame) = frame_with(&[0; 64]);
        let mixed = tuple("192.0.2.1:51900", "[2001:db8::7]:1");
        assert_eq!(prepend_outer(&memory, &mut frame, &HOP, &mixed), Err(Reason::InvalidTransportCandidate));
    }

    #[test]
    fn a_frame_without_headroom_is_refused() {
        let (memory, mut frame) = frame_with(&[0; 64]);
        frame.place(20, 64).expect("fits");
        let tuple = tuple("192.0.2.1:51900", "198.51.100.7:40001");
        assert_eq!(prepend_outer(&memory, &mut frame, &HOP, &tuple), Err(Reason::MtuExceeded));
        assert_eq!((frame.start(), frame.len()), (20, 64));
    }
}
