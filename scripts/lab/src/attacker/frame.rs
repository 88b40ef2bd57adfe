//! Frames as an attacker writes them: tagged, in pieces, behind extension headers, or cut.

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;

/// Ethernet addresses of both ends of a link: receiver, then sender, as they stand at the front of a frame.
pub(crate) type Macs = [u8; 12];

/// Length of an Ethernet header.
const ETHERNET_LEN: usize = 14;
/// Length of an IPv4 header without options.
const IPV4_LEN: usize = 20;
/// Length of an IPv6 header without extensions.
const IPV6_LEN: usize = 40;
/// Length of the shortest IPv6 extension header.
const EXTENSION_LEN: usize = 8;
/// Payload of the first fragment of [`fragments`]: fragments are cut at multiples of 8 bytes.
const FRAGMENT_LEN: usize = 48;
const HOP_LIMIT: u8 = 64;
const MORE_FRAGMENTS: u8 = 0x20;

/// An IPv6 extension header, by its number (RFC 8200).
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Extension {
    HopByHop = 0,
    Routing = 43,
    Fragment = 44,
    Destination = 60,
}

/// A UDP datagram in a frame; `None` if the addresses are of two families.
pub(crate) fn udp(macs: &Macs, source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    let to: [u8; 6] = macs.first_chunk().copied()?;
    let from: [u8; 6] = macs.last_chunk().copied()?;
    let ethernet = PacketBuilder::ethernet2(from, to);
    let ip = match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ethernet.ipv4(source.octets(), destination.octets(), HOP_LIMIT)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ethernet.ipv6(source.octets(), destination.octets(), HOP_LIMIT)
        }
        _ => return None,
    };
    let udp = ip.udp(source.port(), destination.port());
    let mut frame = Vec::with_capacity(udp.size(payload.len()));
    udp.write(&mut frame, payload).ok()?;
    Some(frame)
}

/// The frame with VLAN tags in front of its EtherType, the outermost first.
pub(crate) fn with_vlan(frame: &[u8], tags: &[u16]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    let mut tagged = addresses.to_vec();
    for tag in tags {
        tagged.extend([0x81, 0x00]);
        tagged.extend(tag.to_be_bytes());
    }
    tagged.extend(rest);
    tagged
}

/// The IPv6 frame with an extension header between IPv6 and UDP. As a fragment header it says "the whole datagram"
/// (RFC 6946).
pub(crate) fn with_extension(frame: &[u8], extension: Extension) -> Vec<u8> {
    let mut extended = frame.to_vec();
    let next = std::mem::replace(&mut extended[ETHERNET_LEN + 6], extension as u8);
    // All but the next header's number is zero: no options but padding of one byte each, no segments left, offset 0.
    let header = [next, 0, 0, 0, 0, 0, 0, 0];
    let at = ETHERNET_LEN + IPV6_LEN;
    extended.splice(at..at, header);
    let length = u16::from_be_bytes([extended[ETHERNET_LEN + 4], extended[ETHERNET_LEN + 5]]);
    let length = length + u16::try_from(EXTENSION_LEN).unwrap_or_default();
    extended[ETHERNET_LEN + 4..ETHERNET_LEN + 6].copy_from_slice(&length.to_be_bytes());
    extended
}

/// The IPv4 frame cut into two fragments.
pub(crate) fn fragments(frame: &[u8]) -> [Vec<u8>; 2] {
    let (headers, payload) = frame.split_at(ETHERNET_LEN + IPV4_LEN);
    let (first, second) = payload.split_at(FRAGMENT_LEN.min(payload.len()));
    let piece = |part: &[u8], flags: u8, offset: usize| {
        let mut piece = [headers, part].concat();
        set_ipv4_length(&mut piece, IPV4_LEN + part.len());
        piece[ETHERNET_LEN + 6] = flags;
        piece[ETHERNET_LEN + 7] = u8::try_from(offset / 8).unwrap_or_default();
        fix_ipv4_checksum(&mut piece);
        piece
    };
    [piece(first, MORE_FRAGMENTS, 0), piece(second, 0, first.len())]
}

/// The IPv4 frame with a UDP length that says `extra` bytes more than there are.
pub(crate) fn with_udp_length(frame: &[u8], length: u16) -> Vec<u8> {
    let mut changed = frame.to_vec();
    let at = ETHERNET_LEN + IPV4_LEN + 4;
    changed[at..at + 2].copy_from_slice(&length.to_be_bytes());
    changed
}

/// The IPv4 frame without its last `cut` bytes, whose IP header still promises them.
pub(crate) fn cut(frame: &[u8], cut: usize) -> Vec<u8> {
    frame[..frame.len().saturating_sub(cut)].to_vec()
}

/// Gives the IPv4 frame another sender without touching the rest; the UDP checksum is given up, as IPv4 allows.
pub(crate) fn set_ipv4_source(frame: &mut [u8], source: [u8; 4], port: u16) {
    frame[ETHERNET_LEN + 12..ETHERNET_LEN + 16].copy_from_slice(&source);
    fix_ipv4_checksum(frame);
    let udp = ETHERNET_LEN + IPV4_LEN;
    frame[udp..udp + 2].copy_from_slice(&port.to_be_bytes());
    frame[udp + 6..udp + 8].copy_from_slice(&[0, 0]);
}

/// What the IPv4 or IPv6 UDP datagram in a frame carries, with its receiver; `None` if it is none.
pub(crate) fn datagram(frame: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let packet = etherparse::SlicedPacket::from_ethernet(frame).ok()?;
    let Some(etherparse::TransportSlice::Udp(udp)) = &packet.transport else { return None };
    let destination = match &packet.net {
        Some(etherparse::NetSlice::Ipv4(ip)) => IpAddr::V4(ip.header().destination_addr()),
        Some(etherparse::NetSlice::Ipv6(ip)) => IpAddr::V6(ip.header().destination_addr()),
        _ => return None,
    };
    Some((SocketAddr::new(destination, udp.destination_port()), udp.payload()))
}

fn set_ipv4_length(frame: &mut [u8], length: usize) {
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    frame[ETHERNET_LEN + 2..ETHERNET_LEN + 4].copy_from_slice(&length.to_be_bytes());
}

/// RFC 1071, over the IPv4 header.
fn fix_ipv4_checksum(frame: &mut [u8]) {
    let header = &mut frame[ETHERNET_LEN..ETHERNET_LEN + IPV4_LEN];
    header[10..12].copy_from_slice(&[0, 0]);
    let mut sum: u32 = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits above")]
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, SlicedPacket};

    const MACS: Macs = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];

    fn frame(ipv6: bool) -> Vec<u8> {
        let (source, destination) =
            if ipv6 { ("[fd00::1]:4000", "[fd00::2]:51900") } else { ("10.0.0.1:4000", "10.0.0.2:51900") };
        udp(&MACS, source.parse().unwrap(), destination.parse().unwrap(), &[7; 100]).unwrap()
    }

    #[test]
    fn a_datagram_is_found_behind_tags_and_extension_headers() {
        for frame in [
            with_vlan(&frame(false), &[5]),
            with_vlan(&frame(true), &[5, 6]),
            with_extension(&frame(true), Extension::HopByHop),
            with_extension(&frame(true), Extension::Destination),
        ] {
            let (to, payload) = datagram(&frame).unwrap();
            assert_eq!((to.port(), payload), (51_900, &[7; 100][..]));
        }
    }

    #[test]
    fn fragments_hold_the_whole_payload_and_their_headers_are_right() {
        let whole = frame(false);
        let pieces = fragments(&whole);
        let mut joined = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            let packet = SlicedPacket::from_ethernet(piece).unwrap();
            let Some(NetSlice::Ipv4(ip)) = packet.net else { panic!("no IPv4") };
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(header.more_fragments, number == 0);
            assert_eq!(usize::from(header.fragment_offset.value()) * 8, joined.len());
            joined.extend_from_slice(&piece[ETHERNET_LEN + IPV4_LEN..]);
        }
        assert_eq!(joined, whole[ETHERNET_LEN + IPV4_LEN..]);
    }

    #[test]
    fn another_source_keeps_the_header_right() {
        let mut forged = frame(false);
        set_ipv4_source(&mut forged, [198, 18, 3, 4], 99);
        let packet = SlicedPacket::from_ethernet(&forged).unwrap();
        let Some(NetSlice::Ipv4(ip)) = packet.net else { panic!("no IPv4") };
        let header = ip.header().to_header();
        assert_eq!((header.source, header.header_checksum), ([198, 18, 3, 4], header.calc_header_checksum()));
    }
}
