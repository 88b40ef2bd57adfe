//! Lowers the segment size that a TCP SYN announces to what fits into the tunnel.
//!
//! A path through the tunnel is narrower than both its ends know, and not every path lets ICMP tell them. Both ends
//! announce their size in the SYN; lowering it on both ways spares them the discovery.

use super::checksum;

const PROTOCOL_TCP: u8 = 6;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
/// Where the flags are in the TCP header, and the SYN among them.
const FLAGS: usize = 13;
const SYN: u8 = 0x02;
/// Where the checksum is in the TCP header.
const CHECKSUM: usize = 16;
const OPTION_END: u8 = 0;
const OPTION_NONE: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_MSS_LEN: u8 = 4;

/// Lowers the segment size in `packet`, an IP packet, if it is a SYN that announces more than an MTU of `mtu` carries.
///
/// Packets with IPv6 extension headers and later fragments are left alone: no SYN in practice has either.
pub(super) fn clamp(packet: &mut [u8], mtu: u16) {
    let Some((header, tcp)) = tcp_segment(packet) else { return };
    if tcp.len() < TCP_HEADER || tcp[FLAGS] & SYN == 0 {
        return;
    }
    let limit = mtu.saturating_sub((header + TCP_HEADER) as u16);
    let header_len = (usize::from(tcp[12] >> 4) * 4).min(tcp.len());
    let mut at = TCP_HEADER;
    while at < header_len {
        let kind = tcp[at];
        if kind == OPTION_END {
            return;
        }
        if kind == OPTION_NONE {
            at += 1;
            continue;
        }
        let Some(&len) = tcp.get(at + 1) else { return };
        if kind == OPTION_MSS && len == OPTION_MSS_LEN && at + 4 <= header_len {
            lower(tcp, at + 2, limit);
            return;
        }
        if len < 2 {
            return;
        }
        at += usize::from(len);
    }
}

/// The fixed size of the IP header and the TCP segment behind it, if that is what `packet` has.
fn tcp_segment(packet: &mut [u8]) -> Option<(usize, &mut [u8])> {
    match packet.first()? >> 4 {
        4 => {
            let header_len = usize::from(packet[0] & 0x0f) * 4;
            let fragment_offset = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x1fff;
            if *packet.get(9)? != PROTOCOL_TCP || fragment_offset != 0 {
                return None;
            }
            Some((IPV4_HEADER, packet.get_mut(header_len..)?))
        }
        6 if *packet.get(6)? == PROTOCOL_TCP => Some((IPV6_HEADER, packet.get_mut(IPV6_HEADER..)?)),
        _ => None,
    }
}

/// Lowers the 16-bit number at `at` to `limit`, and corrects the checksum.
fn lower(tcp: &mut [u8], at: usize, limit: u16) {
    let announced = u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    if announced <= limit {
        return;
    }
    tcp[at..at + 2].copy_from_slice(&limit.to_be_bytes());
    // At an odd offset the two bytes fall into two words of the sum, each on the other's side.
    let (old, new) =
        if at.is_multiple_of(2) { (announced, limit) } else { (announced.swap_bytes(), limit.swap_bytes()) };
    let checksum = u16::from_be_bytes([tcp[CHECKSUM], tcp[CHECKSUM + 1]]);
    tcp[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum::updated(checksum, old, new).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket, TcpOptionElement, TransportSlice};
    use proptest::prelude::*;

    use super::*;

    fn syn_v4(options: &[TcpOptionElement]) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([10, 66, 0, 5], [192, 0, 2, 1], 64)
            .tcp(40000, 80, 1, 65535)
            .syn()
            .options(options)
            .expect("options fit")
            .write(&mut packet, &[])
            .expect("a vector takes it");
        packet
    }

    fn syn_v6(options: &[TcpOptionElement]) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv6([0xfd; 16], [0x20; 16], 64)
            .tcp(40000, 80, 1, 65535)
            .syn()
            .options(options)
            .expect("options fit")
            .write(&mut packet, &[])
            .expect("a vector takes it");
        packet
    }

    /// The announced size, after the checksum has been verified by another implementation.
    fn announced(packet: &[u8]) -> Option<u16> {
        let sliced = SlicedPacket::from_ip(packet).expect("an IP packet");
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("a TCP segment") };
        let checksum = match sliced.net.expect("an IP header") {
            etherparse::NetSlice::Ipv4(ip) => tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()),
            etherparse::NetSlice::Ipv6(ip) => tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()),
            etherparse::NetSlice::Arp(_) => panic!("an IP packet"),
        };
        assert_eq!(tcp.checksum(), checksum.expect("not too long"), "the checksum was kept right");
        tcp.options_iterator().find_map(|option| match option {
            Ok(TcpOptionElement::MaximumSegmentSize(size)) => Some(size),
            _ => None,
        })
    }

    #[test]
    fn a_syn_that_announces_too_much_is_lowered() {
        let options = [TcpOptionElement::MaximumSegmentSize(1460), TcpOptionElement::WindowScale(7)];
        let mut packet = syn_v4(&options);
        clamp(&mut packet, 1416);
        assert_eq!(announced(&packet), Some(1376));
        let mut packet = syn_v6(&options);
        clamp(&mut packet, 1416);
        assert_eq!(announced(&packet), Some(1356));
    }

    #[test]
    fn a_size_at_an_odd_offset_keeps_the_checksum_right() {
        let options = [TcpOptionElement::Noop, TcpOptionElement::MaximumSegmentSize(0x05b4)];
        let mut packet = syn_v4(&options);
        clamp(&mut packet, 1416);
        assert_eq!(announced(&packet), Some(1376));
    }

    #[test]
    fn a_small_size_a_missing_one_and_other_segments_are_left_alone() {
        for packet in [syn_v4(&[TcpOptionElement::MaximumSegmentSize(1376)]), syn_v4(&[TcpOptionElement::Noop])] {
            let mut clamped = packet.clone();
            clamp(&mut clamped, 1416);
            assert_eq!(clamped, packet);
        }
        let mut data = syn_v4(&[TcpOptionElement::MaximumSegmentSize(1460)]);
        data[IPV4_HEADER + FLAGS] = 0x10;
        let before = data.clone();
        clamp(&mut data, 1416);
        assert_eq!(data, before);
        let mut fragment = syn_v4(&[TcpOptionElement::MaximumSegmentSize(1460)]);
        fragment[7] = 1;
        let before = fragment.clone();
        clamp(&mut fragment, 1416);
        assert_eq!(fragment, before);
    }

    proptest! {
        #[test]
        fn no_packet_makes_it_panic(mut packet in prop::collection::vec(any::<u8>(), 0..120), mtu: u16) {
            clamp(&mut packet, mtu);
        }

        #[test]
        fn no_options_make_it_panic(options in prop::collection::vec(any::<u8>(), 40), v6: bool, mtu: u16) {
            let mut packet = if v6 { syn_v6(&[]) } else { syn_v4(&[]) };
            let tcp = packet.len() - TCP_HEADER;
            packet[tcp + 12] = 0xf0;
            packet.extend_from_slice(&options);
            for len in tcp..=packet.len() {
                clamp(&mut packet[..len], mtu);
            }
        }
    }
}
