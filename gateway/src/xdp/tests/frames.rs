//! Frames for the tests, built by etherparse, which shares nothing with our parser.

use std::net::IpAddr;

use etherparse::{
    IpFragOffset, IpHeaders, Ipv4Header, Ipv4Options, Ipv6Header, PacketBuilder, PacketBuilderStep, VlanId,
};

use super::{LOCAL_V4, LOCAL_V6, PORT, SLOT};

const PEER_V4: [u8; 4] = [198, 51, 100, 7];
const PEER_V6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const PEER_PORT: u16 = 40000;
/// Length of the UDP payloads.
pub(super) const PAYLOAD_LEN: usize = 84;

/// A frame in the making.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) tags: usize,
    pub(super) destination: IpAddr,
    pub(super) options: usize,
    pub(super) fragment: (bool, u16),
    pub(super) port: u16,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// A DATA packet for a slot that has a worker, over IPv4.
    pub(super) fn v4() -> Self {
        let payload = message(0x15, SLOT);
        Self { tags: 0, destination: LOCAL_V4.into(), options: 0, fragment: (false, 0), port: PORT, payload }
    }

    /// The same over IPv6.
    pub(super) fn v6() -> Self {
        Self { destination: LOCAL_V6.into(), ..Self::v4() }
    }

    /// As bytes.
    pub(super) fn build(&self) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let id = |n| VlanId::try_new(n).unwrap();
        let ip = match self.destination {
            IpAddr::V4(destination) => {
                let mut header =
                    Ipv4Header::new(0, 64, etherparse::IpNumber::UDP, PEER_V4, destination.octets()).unwrap();
                // No-operations, of which a header of any length can consist.
                header.options = Ipv4Options::try_from(&vec![1; self.options][..]).unwrap();
                (header.more_fragments, header.fragment_offset) =
                    (self.fragment.0, IpFragOffset::try_new(self.fragment.1).unwrap());
                IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
            }
            IpAddr::V6(destination) => {
                let header = Ipv6Header {
                    hop_limit: 64,
                    source: PEER_V6,
                    destination: destination.octets(),
                    ..Ipv6Header::default()
                };
                IpHeaders::Ipv6(header, etherparse::Ipv6Extensions::default())
            }
        };
        let with_ip: PacketBuilderStep<IpHeaders> = match self.tags {
            0 => ethernet.ip(ip),
            1 => ethernet.single_vlan(id(5)).ip(ip),
            _ => ethernet.double_vlan(id(5), id(6)).ip(ip),
        };
        let udp = with_ip.udp(PEER_PORT, self.port);
        let mut frame = Vec::with_capacity(udp.size(self.payload.len()));
        udp.write(&mut frame, &self.payload).unwrap();
        frame
    }

    /// Where the IP header starts.
    pub(super) fn l3(&self) -> usize {
        14 + 4 * self.tags
    }

    /// Where the UDP header starts.
    pub(super) fn l4(&self) -> usize {
        self.l3() + if self.destination.is_ipv4() { 20 + self.options } else { 40 }
    }
}

/// A message of that type, for that slot.
pub(super) fn message(kind: u8, slot: u16) -> Vec<u8> {
    let mut message = vec![0x5a; PAYLOAD_LEN];
    message[0] = kind;
    message[1] = 1 << 4;
    message[4..6].copy_from_slice(&(slot << 4 | 0xf).to_be_bytes());
    message
}
