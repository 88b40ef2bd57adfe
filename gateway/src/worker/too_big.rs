//! Tells the sender of a packet that does not fit into the tunnel how large it may be (MTU_EXCEEDED).
//!
//! The answer is built in the frame of the packet that caused it: the start of that packet stays where it is, as the
//! answer's payload, and the headers go in front.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{Icmpv4Header, Icmpv4Type, Icmpv6Type, IpNumber, Ipv4Header, Ipv6Header};
use jumpgate_common::Family;

use super::headers::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use crate::sys::{Frame, NoRoom, Umem};

/// Most bytes of an ICMP error (RFC 1812 §4.3.2.3), headers included.
const ICMPV4_ERROR_MAX: usize = 576;
/// Most bytes of an ICMPv6 error: what every IPv6 link carries (RFC 4443 §2.4 c).
const ICMPV6_ERROR_MAX: usize = 1280;
const ICMP_HEADER: usize = 8;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TTL: u8 = 64;

/// ICMP types that are errors themselves; an error is never answered by an error (RFC 1122 §3.2.2).
const ICMPV4_ERRORS: [u8; 5] = [3, 4, 5, 11, 12];
/// ICMPv6 types below this are errors (RFC 4443 §2.1).
const ICMPV6_INFORMATIONAL: u8 = 128;

/// The addresses that errors come from: the gateway's own in the pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sources {
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
}

/// Turns the packet in `frame`, an IP packet of that family that exceeds `mtu`, into the error that answers it. Gives
/// the EtherType, or nothing if the packet must not be answered; then the frame's content is of no further use.
pub(super) fn answer(memory: &Umem, frame: &mut Frame, family: Family, mtu: u16, sources: Sources) -> Option<u16> {
    let packet = memory.bytes(frame);
    match family {
        Family::V4 => {
            let sender = answerable_v4(packet)?;
            answer_v4(memory, frame, sources.v4?, sender, mtu).ok()?;
            Some(ETHERTYPE_IPV4)
        }
        Family::V6 => {
            let sender = answerable_v6(packet)?;
            answer_v6(memory, frame, sources.v6?, sender, mtu).ok()?;
            Some(ETHERTYPE_IPV6)
        }
    }
}

fn answer_v4(memory: &Umem, frame: &mut Frame, from: Ipv4Addr, to: Ipv4Addr, mtu: u16) -> Result<(), NoRoom> {
    frame.truncate(ICMPV4_ERROR_MAX - IPV4_HEADER - ICMP_HEADER);
    let unreachable = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
    let icmp = Icmpv4Header::with_checksum(Icmpv4Type::DestinationUnreachable(unreachable), memory.bytes(frame));
    let payload_len = (frame.len() + ICMP_HEADER) as u16;
    let mut ip = Ipv4Header::new(payload_len, TTL, IpNumber::ICMP, from.octets(), to.octets()).map_err(|_| NoRoom)?;
    ip.header_checksum = ip.calc_header_checksum();
    put_in_front(memory, frame, &icmp.to_bytes())?;
    put_in_front(memory, frame, &ip.to_bytes())
}

fn answer_v6(memory: &Umem, frame: &mut Frame, from: Ipv6Addr, to: Ipv6Addr, mtu: u16) -> Result<(), NoRoom> {
    frame.truncate(ICMPV6_ERROR_MAX - IPV6_HEADER - ICMP_HEADER);
    let icmp = Icmpv6Type::PacketTooBig { mtu: u32::from(mtu) }
        .to_header(from.octets(), to.octets(), memory.bytes(frame))
        .map_err(|_| NoRoom)?
        .to_bytes();
    let ip = Ipv6Header {
        payload_length: (frame.len() + ICMP_HEADER) as u16,
        next_header: IpNumber::IPV6_ICMP,
        hop_limit: TTL,
        source: from.octets(),
        destination: to.octets(),
        ..Ipv6Header::default()
    };
    put_in_front(memory, frame, &icmp)?;
    put_in_front(memory, frame, &ip.to_bytes())
}

fn put_in_front(memory: &Umem, frame: &mut Frame, header: &[u8]) -> Result<(), NoRoom> {
    frame.prepend(header.len())?;
    memory.bytes_mut(frame)[..header.len()].copy_from_slice(header);
    Ok(())
}

/// The sender, if it may be answered: one host, and neither an error nor a later fragment (RFC 1812 §4.3.2.7).
fn answerable_v4(packet: &[u8]) -> Option<Ipv4Addr> {
    let header: &[u8; IPV4_HEADER] = packet.first_chunk()?;
    let sender = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    let is_later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let is_error =
        header[9] == IpNumber::ICMP.0 && packet.get(header_len).is_none_or(|kind| ICMPV4_ERRORS.contains(kind));
    let is_host = !(sender.is_unspecified() || sender.is_multicast() || sender.is_broadcast() || sender.is_loopback());
    (is_host && !is_later_fragment && !is_error).then_some(sender)
}

/// As for IPv4 (RFC 4443 §2.4 e).
fn answerable_v6(packet: &[u8]) -> Option<Ipv6Addr> {
    let header: &[u8; IPV6_HEADER] = packet.first_chunk()?;
    let sender: [u8; 16] = header[8..24].try_into().ok()?;
    let IpAddr::V6(sender) = IpAddr::from(sender) else { return None };
    let is_error =
        header[6] == IpNumber::IPV6_ICMP.0 && packet.get(IPV6_HEADER).is_none_or(|&kind| kind < ICMPV6_INFORMATIONAL);
    let is_host = !(sender.is_unspecified() || sender.is_multicast() || sender.is_loopback());
    (is_host && !is_error).then_some(sender)
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

    use super::*;

    const SOURCES: Sources =
        Sources { v4: Some(Ipv4Addr::new(10, 66, 0, 1)), v6: Some(Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 1)) };

    fn answer_to(packet: &[u8], family: Family) -> Option<Vec<u8>> {
        let (memory, mut frames) = Umem::new(1, 2048).expect("anonymous memory");
        let mut frame = frames.pop().expect("one frame");
        frame.place(270, packet.len()).expect("fits");
        memory.bytes_mut(&mut frame).copy_from_slice(packet);
        answer(&memory, &mut frame, family, 1416, SOURCES).map(|_| memory.bytes(&frame).to_vec())
    }

    fn v4(len: usize) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([192, 0, 2, 9], [10, 66, 0, 5], 64)
            .udp(53, 40000)
            .write(&mut packet, &vec![7; len])
            .expect("a vector takes it");
        packet
    }

    fn v6(len: usize) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv6([0x20; 16], [0xfd; 16], 64)
            .udp(53, 40000)
            .write(&mut packet, &vec![7; len])
            .expect("a vector takes it");
        packet
    }

    #[test]
    fn the_sender_of_an_ipv4_packet_learns_the_mtu() {
        let packet = v4(1460);
        let bytes = answer_to(&packet, Family::V4).expect("answered");
        assert_eq!(bytes.len(), ICMPV4_ERROR_MAX);
        let sliced = SlicedPacket::from_ip(&bytes).expect("an IP packet");
        let Some(NetSlice::Ipv4(ip)) = sliced.net else { panic!("IPv4") };
        let header = ip.header().to_header();
        assert_eq!((header.source, header.destination), ([10, 66, 0, 1], [192, 0, 2, 9]));
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else { panic!("ICMP") };
        let unreachable = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1416 };
        assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(unreachable));
        assert!(packet.starts_with(icmp.payload()));
        assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
    }

    #[test]
    fn the_sender_of_an_ipv6_packet_learns_the_mtu() {
        let packet = v6(1452);
        let bytes = answer_to(&packet, Family::V6).expect("answered");
        assert_eq!(bytes.len(), ICMPV6_ERROR_MAX);
        let sliced = SlicedPacket::from_ip(&bytes).expect("an IP packet");
        let Some(NetSlice::Ipv6(ip)) = sliced.net else { panic!("IPv6") };
        let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!("ICMPv6") };
        assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: 1416 });
        assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
        assert!(packet.starts_with(icmp.payload()));
    }

    #[test]
    fn errors_fragments_and_groups_are_not_answered() {
        let mut error = v4(1460);
        error[9] = IpNumber::ICMP.0;
        error[IPV4_HEADER] = 3;
        assert_eq!(answer_to(&error, Family::V4), None);
        error[IPV4_HEADER] = 8;
        assert!(answer_to(&error, Family::V4).is_some(), "an echo request is");

        let mut fragment = v4(1460);
        fragment[7] = 1;
        assert_eq!(answer_to(&fragment, Family::V4), None);

        let mut group = v4(1460);
        group[12] = 224;
        assert_eq!(answer_to(&group, Family::V4), None);

        let mut error = v6(1452);
        error[6] = IpNumber::IPV6_ICMP.0;
        error[IPV6_HEADER] = 2;
        assert_eq!(answer_to(&error, Family::V6), None);
        let mut group = v6(1452);
        group[8] = 0xff;
        assert_eq!(answer_to(&group, Family::V6), None);
    }
}
