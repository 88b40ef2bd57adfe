//! How the parser reads bytes, and the two small types it speaks in.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A received frame, readable in pieces of a size known at compile time.
///
/// The const size is what makes the parser acceptable to the BPF verifier: one comparison with the end of the packet
/// proves all `N` bytes.
pub trait Frame {
    /// The `N` bytes from `offset` on, if the frame holds them all.
    fn chunk<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;

    /// Length of the whole frame. In a multi-buffer XDP frame this is more than [`Frame::chunk`] can reach.
    fn length(&self) -> usize;
}

impl Frame for [u8] {
    fn chunk<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.get(offset..)?.first_chunk()
    }

    fn length(&self) -> usize {
        self.len()
    }
}

/// IP version of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// An IP address of either family in 16 bytes: IPv4 is written in its mapped form `::ffff:a.b.c.d`.
///
/// So the local addresses of the gateway are one hash map with one key size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address(pub [u8; 16]);

impl Address {
    /// The mapped form of the IPv4 address with these bytes.
    #[inline(always)]
    pub const fn v4([a, b, c, d]: [u8; 4]) -> Self {
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// Whether it is an IPv4 address in its mapped form.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        matches!(self.0, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..])
    }

    /// As the standard library's type; a mapped address becomes IPv4.
    pub const fn ip(self) -> IpAddr {
        Ipv6Addr::from_octets(self.0).to_canonical()
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => Self(ip.octets()),
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(ip: Ipv4Addr) -> Self {
        Self::v4(ip.octets())
    }
}
