//! Ethernet, IPv4 and UDP around what clients and gateway say to each other, and the inner packets of the echo.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Ethernet header in bytes.
const ETHERNET: usize = 14;
/// IPv4 header without options, in bytes.
const IPV4: usize = 20;
/// UDP header in bytes.
const UDP: usize = 8;
/// Headers in front of a datagram, in bytes.
pub(crate) const HEADERS: usize = ETHERNET + IPV4 + UDP;
/// EtherType of IPv4.
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
/// IP protocol number of UDP.
const PROTOCOL_UDP: u8 = 17;
/// Port on which the servers behind the gateway echo (RFC 862).
const ECHO: u16 = 7;
/// What an inner packet carries: when it was sent, its number among those of its client, and whose it is.
const STAMP: usize = 20;
/// Shortest inner packet that carries a [`Stamp`], in bytes.
pub(crate) const INNER_MIN: usize = IPV4 + UDP + STAMP;

/// Link addresses of a point-to-point link: ours and the other end's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) ours: [u8; 6],
    pub(crate) theirs: [u8; 6],
}

/// Writes a frame around a UDP payload; gives its length. The payload must fit behind [`HEADERS`].
pub(crate) fn write(frame: &mut [u8], ends: Ends, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> usize {
    frame[HEADERS..HEADERS + payload.len()].copy_from_slice(payload);
    write_headers(frame, ends, from, to, payload.len())
}

/// Writes the headers in front of a UDP payload that is there already; gives the length of the frame.
pub(crate) fn write_headers(
    frame: &mut [u8],
    ends: Ends,
    from: SocketAddrV4,
    to: SocketAddrV4,
    payload: usize,
) -> usize {
    let length = HEADERS + payload;
    ethernet(frame, ends);
    ipv4(&mut frame[ETHERNET..], *from.ip(), *to.ip(), length - ETHERNET);
    let udp = &mut frame[ETHERNET + IPV4..];
    udp[..2].copy_from_slice(&from.port().to_be_bytes());
    udp[2..4].copy_from_slice(&to.port().to_be_bytes());
    udp[4..6].copy_from_slice(&((UDP + payload) as u16).to_be_bytes());
    // No checksum, which IPv4 allows (RFC 768): what is inside is authenticated.
    udp[6..8].fill(0);
    length
}

/// What a frame brings: whereto, and the UDP payload. None if it is no whole IPv4 UDP packet.
pub(crate) fn read(frame: &mut [u8]) -> Option<(SocketAddrV4, &mut [u8])> {
    let packet = ipv4_packet(frame)?;
    if packet[9] != PROTOCOL_UDP || packet.len() < IPV4 + UDP {
        return None;
    }
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(&packet[16..20]).ok()?);
    let port = u16::from_be_bytes([packet[22], packet[23]]);
    let length = usize::from(u16::from_be_bytes([packet[24], packet[25]]));
    let payload = packet.get_mut(IPV4 + UDP..IPV4 + length)?;
    Some((SocketAddrV4::new(address, port), payload))
}

/// When an inner packet was sent, in microseconds of the clock, its number among those of its client, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) at: u64,
    pub(crate) number: u64,
    pub(crate) client: u32,
}

/// Writes an inner packet from a client to the echoing server; it fills `packet`, of [`INNER_MIN`] bytes at least.
pub(crate) fn write_inner(packet: &mut [u8], from: Ipv4Addr, to: Ipv4Addr, stamp: Stamp) {
    packet.fill(0);
    let length = packet.len();
    ipv4(packet, from, to, length);
    packet[20..22].copy_from_slice(&ECHO.to_be_bytes());
    packet[22..24].copy_from_slice(&ECHO.to_be_bytes());
    packet[24..26].copy_from_slice(&((length - IPV4) as u16).to_be_bytes());
    packet[28..36].copy_from_slice(&stamp.at.to_be_bytes());
    packet[36..44].copy_from_slice(&stamp.number.to_be_bytes());
    packet[44..48].copy_from_slice(&stamp.client.to_be_bytes());
}

/// Writes a frame of the inside: a packet from a server to a client, of `bytes` bytes. Gives the length of the frame.
pub(crate) fn write_inside(frame: &mut [u8], ends: Ends, from: Ipv4Addr, to: Ipv4Addr, bytes: usize) -> usize {
    ethernet(frame, ends);
    write_inner(&mut frame[ETHERNET..ETHERNET + bytes], from, to, Stamp { at: 0, number: 0, client: 0 });
    ETHERNET + bytes
}

/// The stamp of an inner packet, if it is one of ours.
pub(crate) fn stamp_of(packet: &[u8]) -> Option<Stamp> {
    if packet.len() < INNER_MIN || packet[9] != PROTOCOL_UDP || packet[22..24] != ECHO.to_be_bytes() {
        return None;
    }
    let word = |at: usize| Some(u64::from_be_bytes(packet[at..at + 8].try_into().ok()?));
    let client = u32::from_be_bytes(packet[44..48].try_into().ok()?);
    Some(Stamp { at: word(28)?, number: word(36)?, client })
}

/// Turns a frame that came to a server into its answer: link and IP addresses change places. False if it is no IPv4.
pub(crate) fn turn_round(frame: &mut [u8]) -> bool {
    if ipv4_packet(frame).is_none() {
        return false;
    }
    let (first, second) = frame[..12].split_at_mut(6);
    first.swap_with_slice(second);
    let (source, destination) = frame[ETHERNET + 12..ETHERNET + 20].split_at_mut(4);
    source.swap_with_slice(destination);
    true
}

/// The IPv4 packet in a frame, without padding.
fn ipv4_packet(frame: &mut [u8]) -> Option<&mut [u8]> {
    if frame.len() < ETHERNET + IPV4 || frame[12..14] != ETHERTYPE_IPV4 || frame[ETHERNET] != 0x45 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    frame[ETHERNET..].get_mut(..length).filter(|packet| packet.len() >= IPV4)
}

fn ethernet(frame: &mut [u8], ends: Ends) {
    frame[..6].copy_from_slice(&ends.theirs);
    frame[6..12].copy_from_slice(&ends.ours);
    frame[12..14].copy_from_slice(&ETHERTYPE_IPV4);
}

/// An IPv4 header (RFC 791) with its checksum: the kernel looks at it.
fn ipv4(packet: &mut [u8], from: Ipv4Addr, to: Ipv4Addr, length: usize) {
    let header = &mut packet[..IPV4];
    header.fill(0);
    header[0] = 0x45;
    header[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    header[6] = 0x40;
    header[8] = 64;
    header[9] = PROTOCOL_UDP;
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    let words = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: Ends = Ends { ours: [2, 0, 0, 0, 0, 1], theirs: [2, 0, 0, 0, 0, 2] };

    #[test]
    fn what_was_written_is_read_again_and_padding_is_not_part_of_it() {
        let (from, to) = ("100.64.0.9:4000".parse().unwrap(), "192.0.2.1:51900".parse().unwrap());
        let mut frame = [0; 128];
        let length = write(&mut frame, ENDS, from, to, b"hello");
        let parsed = etherparse::PacketHeaders::from_ethernet_slice(&frame[..length]).unwrap();
        assert!(matches!(parsed.net, Some(etherparse::NetHeaders::Ipv4(header, _))
            if header.header_checksum == header.calc_header_checksum()));
        let (whereto, payload) = read(&mut frame).unwrap();
        assert_eq!((whereto, &payload[..]), (to, &b"hello"[..]));
    }

    #[test]
    fn broken_frames_are_nothing() {
        let mut frame = [0; 64];
        write(&mut frame, ENDS, "10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap(), b"x");
        assert!(read(&mut frame[..30]).is_none(), "cut");
        frame[16] = 0xff;
        assert!(read(&mut frame).is_none(), "longer than the frame");
        assert!(read(&mut []).is_none());
    }

    #[test]
    fn an_echo_comes_back_with_its_stamp() {
        let stamp = Stamp { at: 123_456, number: 7, client: 9 };
        let mut frame = [0; ETHERNET + 64];
        ethernet(&mut frame, ENDS);
        let (client, server) = (Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(198, 51, 100, 80));
        write_inner(&mut frame[ETHERNET..], client, server, stamp);
        assert!(turn_round(&mut frame));
        assert_eq!(frame[..6], ENDS.ours);
        assert_eq!(frame[ETHERNET + 16..ETHERNET + 20], client.octets());
        assert_eq!(stamp_of(&frame[ETHERNET..]), Some(stamp));
    }
}
