//! UDP inside Ethernet frames: where it is, and how to give it another address without recomputing a checksum.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::PacketBuilder;

const ETHERNET_LEN: usize = 14;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const PROTOCOL_UDP: u8 = 17;
/// Hop limit of frames that the relay makes itself.
const HOP_LIMIT: u8 = 64;

/// Where the parts of a UDP datagram lie in a frame, and its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    /// Sender.
    pub(crate) source: SocketAddr,
    /// Receiver.
    pub(crate) destination: SocketAddr,
    udp_at: usize,
    end: usize,
}

/// One of the two address fields of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Source,
    Destination,
}

impl Datagram {
    /// The datagram of an unfragmented IPv4 or IPv6 frame (without extension headers), if it holds one.
    pub(crate) fn find(frame: &[u8]) -> Option<Self> {
        let ethertype: [u8; 2] = frame.get(12..ETHERNET_LEN)?.try_into().ok()?;
        let ip = &frame[ETHERNET_LEN..];
        let (source, destination, udp_at) = match ethertype {
            ETHERTYPE_IPV4 => {
                let header_len = usize::from(ip.first()? & 0x0f) * 4;
                let is_fragment = u16::from_be_bytes(ip.get(6..8)?.try_into().ok()?) & 0x3fff != 0;
                if *ip.get(9)? != PROTOCOL_UDP || is_fragment || header_len < 20 {
                    return None;
                }
                let address =
                    |at: usize| Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?)));
                (address(12)?, address(16)?, ETHERNET_LEN + header_len)
            }
            ETHERTYPE_IPV6 => {
                if *ip.get(6)? != PROTOCOL_UDP {
                    return None;
                }
                let address =
                    |at: usize| Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?)));
                (address(8)?, address(24)?, ETHERNET_LEN + IPV6_LEN)
            }
            _ => return None,
        };
        let udp = frame.get(udp_at..udp_at + UDP_LEN)?;
        let word = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
        let end = udp_at + usize::from(word(4));
        if usize::from(word(4)) < UDP_LEN || end > frame.len() {
            return None;
        }
        Some(Self {
            source: SocketAddr::new(source, word(0)),
            destination: SocketAddr::new(destination, word(2)),
            udp_at,
            end,
        })
    }

    /// What the datagram carries.
    pub(crate) fn payload<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        &frame[self.udp_at + UDP_LEN..self.end]
    }

    /// Gives the datagram another address of the same family, in place; IP and UDP checksum follow (RFC 1624).
    /// An address of the other family changes nothing.
    pub(crate) fn readdress(&mut self, frame: &mut [u8], field: Field, address: SocketAddr) {
        let (current, address_at, port_at) = match (field, self.source.is_ipv4()) {
            (Field::Source, true) => (&mut self.source, ETHERNET_LEN + 12, self.udp_at),
            (Field::Destination, true) => (&mut self.destination, ETHERNET_LEN + 16, self.udp_at + 2),
            (Field::Source, false) => (&mut self.source, ETHERNET_LEN + 8, self.udp_at),
            (Field::Destination, false) => (&mut self.destination, ETHERNET_LEN + 24, self.udp_at + 2),
        };
        let udp_checksum_at = self.udp_at + 6;
        // Zero means "no checksum" over IPv4; it stays so.
        let has_udp_checksum = frame[udp_checksum_at..udp_checksum_at + 2] != [0, 0];
        let mut replace = |at: usize, new: &[u8], in_ip_header: bool| {
            for (offset, word) in new.chunks_exact(2).enumerate() {
                let at = at + 2 * offset;
                let old = [frame[at], frame[at + 1]];
                let new = [word[0], word[1]];
                frame[at..at + 2].copy_from_slice(&new);
                if in_ip_header {
                    adjust(frame, ETHERNET_LEN + 10, old, new);
                }
                if has_udp_checksum {
                    adjust(frame, udp_checksum_at, old, new);
                }
            }
        };
        match (current.ip(), address.ip()) {
            (IpAddr::V4(_), IpAddr::V4(ip)) => replace(address_at, &ip.octets(), true),
            (IpAddr::V6(_), IpAddr::V6(ip)) => replace(address_at, &ip.octets(), false),
            _ => return,
        }
        replace(port_at, &address.port().to_be_bytes(), false);
        if has_udp_checksum && frame[udp_checksum_at..udp_checksum_at + 2] == [0, 0] {
            frame[udp_checksum_at..udp_checksum_at + 2].copy_from_slice(&[0xff, 0xff]);
        }
        *current = address;
    }
}

/// A new frame from `source` to `destination` with the Ethernet addresses of `template`; `None` if the families differ.
pub(crate) fn build(template: &[u8], source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    let to: [u8; 6] = template.get(..6)?.try_into().ok()?;
    let from: [u8; 6] = template.get(6..12)?.try_into().ok()?;
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

/// RFC 1624, equation 3: the checksum at `at` after one word of what it covers went from `old` to `new`.
fn adjust(frame: &mut [u8], at: usize, old: [u8; 2], new: [u8; 2]) {
    let checksum = u16::from_be_bytes([frame[at], frame[at + 1]]);
    let mut sum = u32::from(!checksum) + u32::from(!u16::from_be_bytes(old)) + u32::from(u16::from_be_bytes(new));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits above")]
    frame[at..at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEMPLATE: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_built_frame_is_found_again() {
        for (source, destination) in [("10.0.0.1:40000", "192.0.2.1:51900"), ("[fd00::1]:40000", "[2001:db8::1]:51900")]
        {
            let frame = build(&TEMPLATE, socket(source), socket(destination), b"hello").unwrap();
            let datagram = Datagram::find(&frame).unwrap();
            assert_eq!(datagram.source, socket(source));
            assert_eq!(datagram.destination, socket(destination));
            assert_eq!(datagram.payload(&frame), b"hello");
            assert_eq!(frame[..12], TEMPLATE);
        }
    }

    #[test]
    fn an_address_of_the_other_family_changes_nothing() {
        let mut frame = build(&TEMPLATE, socket("10.0.0.1:1"), socket("10.0.0.2:2"), b"x").unwrap();
        let before = frame.clone();
        Datagram::find(&frame).unwrap().readdress(&mut frame, Field::Source, socket("[fd00::1]:9"));
        assert_eq!(frame, before);
    }

    proptest! {
        #[test]
        fn a_readdressed_datagram_equals_one_built_that_way(
            payload in proptest::collection::vec(any::<u8>(), 0..100),
            port in 1u16.., host in any::<u16>(), v6 in any::<bool>(), source in any::<bool>(),
        ) {
            let (a, b, new) = if v6 {
                (socket("[fd00::1]:7"), socket("[fd00::2]:8"), SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, host)), port))
            } else {
                let [high, low] = host.to_be_bytes();
                (socket("10.0.0.1:7"), socket("10.0.0.2:8"), SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, high, low)), port))
            };
            let mut frame = build(&TEMPLATE, a, b, &payload).unwrap();
            let (field, expected) = if source {
                (Field::Source, build(&TEMPLATE, new, b, &payload).unwrap())
            } else {
                (Field::Destination, build(&TEMPLATE, a, new, &payload).unwrap())
            };
            Datagram::find(&frame).unwrap().readdress(&mut frame, field, new);
            prop_assert_eq!(frame, expected);
        }

        #[test]
        fn no_frame_makes_the_search_panic(frame in proptest::collection::vec(any::<u8>(), 0..80), v6 in any::<bool>()) {
            let mut frame = frame;
            if frame.len() > 24 {
                frame[12..14].copy_from_slice(if v6 { &ETHERTYPE_IPV6 } else { &ETHERTYPE_IPV4 });
                frame[if v6 { 20 } else { 23 }] = PROTOCOL_UDP;
            }
            if let Some(datagram) = Datagram::find(&frame) {
                let _ = datagram.payload(&frame);
            }
        }
    }
}
