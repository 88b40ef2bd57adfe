//! The one parser of outer and inside headers: Ethernet, up to two VLAN tags, IPv4 with options, IPv6, UDP.
//!
//! It works in two steps, because an XDP program must know *whose* a broken packet is before it may drop it:
//! [`Located`] finds addresses and ports and trusts no length; [`Located::validate`] then holds the lengths against each
//! other and the frame. Lengths come from the IP and UDP headers, never from the frame: a NIC pads short frames, a veth
//! does not.
//!
//! Checksums are not verified: a tunnel packet's payload is authenticated by its AEAD tag, and a source address that was
//! corrupted on the way is the address of no binding. (Local senders leave them unfinished anyway, for the NIC to fill.)

use core::net::SocketAddr;

use crate::frame::{Address, Family, Frame};

/// Ethernet header: two addresses and the type.
pub const ETHERNET_LEN: usize = 14;
/// An 802.1Q or 802.1ad tag.
pub const VLAN_TAG_LEN: usize = 4;
/// VLAN tags the parser looks behind: a service tag and a customer tag.
pub const VLAN_TAGS_MAX: usize = 2;
/// IPv4 header without options.
pub const IPV4_MIN_LEN: usize = 20;
/// IPv6 header; extension headers are not followed.
pub const IPV6_LEN: usize = 40;
/// UDP header.
pub const UDP_LEN: usize = 8;
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
/// "More fragments" in the flags-and-offset field of IPv4.
const IPV4_MORE_FRAGMENTS: u16 = 0x2000;
/// The offset in the flags-and-offset field of IPv4.
const IPV4_FRAGMENT_OFFSET: u16 = 0x1fff;

/// Why a frame is no whole UDP (or, inside, IP) packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderError {
    /// Neither IPv4 nor IPv6, or behind more than [`VLAN_TAGS_MAX`] tags.
    NotIp,
    /// IP, but what follows is not a UDP header: another protocol, an IPv6 extension header, a later fragment.
    NotUdp,
    /// The first fragment of a fragmented UDP datagram.
    Fragment,
    /// The frame ends before its headers do, or before the length that they promise.
    Truncated,
    /// A field contradicts another: version against EtherType, header length, UDP length against IP length; or an IPv6
    /// packet has an IPv4-mapped address, which never is on a wire.
    Malformed,
}

/// Where everything is in a UDP packet that passed all checks. Offsets count from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// IP version.
    pub family: Family,
    /// Start of the IP header: 14, 18 or 22.
    pub l3: usize,
    /// Start of the UDP header.
    pub l4: usize,
    /// Start of the UDP payload.
    pub payload: usize,
    /// Length of the UDP payload by the UDP header; the frame holds it whole.
    pub payload_len: usize,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

impl Outer {
    /// Sender of the packet.
    pub const fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.source.ip(), self.source_port)
    }

    /// Our address that it was sent to.
    pub const fn local(&self) -> SocketAddr {
        SocketAddr::new(self.destination.ip(), self.destination_port)
    }
}

/// Parses a frame that should be a UDP packet.
pub fn parse_outer(frame: &[u8]) -> Result<Outer, HeaderError> {
    Located::find(frame)?.validate(frame.length())
}

/// A UDP packet whose addresses and ports are known, but whose lengths are not believed yet.
#[derive(Clone, Copy, Debug)]
pub struct Located {
    family: Family,
    l3: usize,
    l4: usize,
    /// Length of IP header and payload, as the IP header claims it.
    ip_len: usize,
    /// Length of UDP header and payload, as the UDP header claims it.
    udp_len: usize,
    fragment: bool,
    source: Address,
    /// Where it was sent to.
    pub destination: Address,
    source_port: u16,
    /// The port it was sent to.
    pub destination_port: u16,
}

impl Located {
    /// Finds the UDP header. An error means that it cannot be known for whom the packet is.
    #[inline(always)]
    pub fn find<F: Frame + ?Sized>(frame: &F) -> Result<Self, HeaderError> {
        let (family, l3) = find_ip(frame)?;
        match family {
            Family::V4 => Self::find_in_v4(frame, l3),
            Family::V6 => Self::find_in_v6(frame, l3),
        }
    }

    /// Where a UDP packet's payload is, once its lengths agree with each other and with the frame.
    #[inline(always)]
    pub fn validate(&self, frame_len: usize) -> Result<Outer, HeaderError> {
        if self.fragment {
            return Err(HeaderError::Fragment);
        }
        if self.l3 + self.ip_len > frame_len {
            return Err(HeaderError::Truncated);
        }
        // The kernel's rule as well: a UDP length below the IP payload cuts, one above it is an error.
        if self.udp_len < UDP_LEN || self.l4 + self.udp_len > self.l3 + self.ip_len {
            return Err(HeaderError::Malformed);
        }
        Ok(Outer {
            family: self.family,
            l3: self.l3,
            l4: self.l4,
            payload: self.l4 + UDP_LEN,
            payload_len: self.udp_len - UDP_LEN,
            source: self.source,
            destination: self.destination,
            source_port: self.source_port,
            destination_port: self.destination_port,
        })
    }

    #[inline(always)]
    fn find_in_v4<F: Frame + ?Sized>(frame: &F, l3: usize) -> Result<Self, HeaderError> {
        let ip = frame.chunk::<IPV4_MIN_LEN>(l3).ok_or(HeaderError::Truncated)?;
        let header_len = v4_header_len(ip)?;
        let fragment = u16::from_be_bytes([ip[6], ip[7]]);
        if ip[9] != PROTOCOL_UDP || fragment & IPV4_FRAGMENT_OFFSET != 0 {
            return Err(HeaderError::NotUdp);
        }
        let l4 = l3 + header_len;
        let udp = frame.chunk::<UDP_LEN>(l4).ok_or(HeaderError::Truncated)?;
        Ok(Self {
            family: Family::V4,
            l3,
            l4,
            ip_len: u16::from_be_bytes([ip[2], ip[3]]) as usize,
            udp_len: u16::from_be_bytes([udp[4], udp[5]]) as usize,
            fragment: fragment & IPV4_MORE_FRAGMENTS != 0,
            source: Address::v4([ip[12], ip[13], ip[14], ip[15]]),
            destination: Address::v4([ip[16], ip[17], ip[18], ip[19]]),
            source_port: u16::from_be_bytes([udp[0], udp[1]]),
            destination_port: u16::from_be_bytes([udp[2], udp[3]]),
        })
    }

    #[inline(always)]
    fn find_in_v6<F: Frame + ?Sized>(frame: &F, l3: usize) -> Result<Self, HeaderError> {
        let ip = frame.chunk::<IPV6_LEN>(l3).ok_or(HeaderError::Truncated)?;
        check_v6_version(ip)?;
        if ip[6] != PROTOCOL_UDP {
            return Err(HeaderError::NotUdp);
        }
        let source = Address(v6_source(ip));
        let destination = Address(v6_destination(ip));
        if source.is_v4() || destination.is_v4() {
            return Err(HeaderError::Malformed);
        }
        let l4 = l3 + IPV6_LEN;
        let udp = frame.chunk::<UDP_LEN>(l4).ok_or(HeaderError::Truncated)?;
        Ok(Self {
            family: Family::V6,
            l3,
            l4,
            ip_len: IPV6_LEN + u16::from_be_bytes([ip[4], ip[5]]) as usize,
            udp_len: u16::from_be_bytes([udp[4], udp[5]]) as usize,
            fragment: false,
            source,
            destination,
            source_port: u16::from_be_bytes([udp[0], udp[1]]),
            destination_port: u16::from_be_bytes([udp[2], udp[3]]),
        })
    }
}

/// Where the IP packet is in a frame of the inside port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// IP version.
    pub family: Family,
    /// Start of the IP packet in the frame.
    pub l3: usize,
    /// Length of the IP packet by its header; the frame holds it whole.
    pub len: usize,
    /// Length of the IP header: with options for IPv4, the fixed part for IPv6.
    pub header_len: usize,
    /// Destination address.
    pub destination: Address,
    /// What follows the IP header: protocol or next header.
    pub protocol: u8,
    /// First byte behind the fixed IPv6 header (the ICMPv6 type, if `protocol` is that); 0 for IPv4 and if there is none.
    pub first_byte: u8,
}

/// Parses a frame that should be an IP packet for a client.
pub fn parse_inside(frame: &[u8]) -> Result<Inside, HeaderError> {
    let inside = Inside::find(frame)?;
    inside.validate(frame.length())?;
    Ok(inside)
}

impl Inside {
    /// Finds the destination. An error means that it cannot be known for whom the packet is.
    #[inline(always)]
    pub fn find<F: Frame + ?Sized>(frame: &F) -> Result<Self, HeaderError> {
        let (family, l3) = find_ip(frame)?;
        match family {
            Family::V4 => {
                let ip = frame.chunk::<IPV4_MIN_LEN>(l3).ok_or(HeaderError::Truncated)?;
                Ok(Self {
                    family,
                    l3,
                    len: u16::from_be_bytes([ip[2], ip[3]]) as usize,
                    header_len: v4_header_len(ip)?,
                    destination: Address::v4([ip[16], ip[17], ip[18], ip[19]]),
                    protocol: ip[9],
                    first_byte: 0,
                })
            }
            Family::V6 => {
                let ip = frame.chunk::<IPV6_LEN>(l3).ok_or(HeaderError::Truncated)?;
                check_v6_version(ip)?;
                Ok(Self {
                    family,
                    l3,
                    len: IPV6_LEN + u16::from_be_bytes([ip[4], ip[5]]) as usize,
                    header_len: IPV6_LEN,
                    destination: Address(v6_destination(ip)),
                    protocol: ip[6],
                    first_byte: frame.chunk::<1>(l3 + IPV6_LEN).map_or(0, |byte| byte[0]),
                })
            }
        }
    }

    /// Holds the length against the frame.
    #[inline(always)]
    pub fn validate(&self, frame_len: usize) -> Result<(), HeaderError> {
        if self.len < self.header_len {
            return Err(HeaderError::Malformed);
        }
        if self.l3 + self.len > frame_len {
            return Err(HeaderError::Truncated);
        }
        Ok(())
    }
}

/// Looks behind Ethernet and VLAN tags: IP version and start of the IP header.
#[inline(always)]
fn find_ip<F: Frame + ?Sized>(frame: &F) -> Result<(Family, usize), HeaderError> {
    let ethernet = frame.chunk::<ETHERNET_LEN>(0).ok_or(HeaderError::Truncated)?;
    let mut ethertype = u16::from_be_bytes([ethernet[12], ethernet[13]]);
    let mut l3 = ETHERNET_LEN;
    for _ in 0..VLAN_TAGS_MAX {
        if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_SERVICE_VLAN {
            break;
        }
        let tag = frame.chunk::<VLAN_TAG_LEN>(l3).ok_or(HeaderError::Truncated)?;
        ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        l3 += VLAN_TAG_LEN;
    }
    match ethertype {
        ETHERTYPE_IPV4 => Ok((Family::V4, l3)),
        ETHERTYPE_IPV6 => Ok((Family::V6, l3)),
        _ => Err(HeaderError::NotIp),
    }
}

/// Length of an IPv4 header with its options.
#[inline(always)]
fn v4_header_len(ip: &[u8; IPV4_MIN_LEN]) -> Result<usize, HeaderError> {
    let header_len = (ip[0] & 0x0f) as usize * 4;
    if ip[0] >> 4 != 4 || header_len < IPV4_MIN_LEN {
        return Err(HeaderError::Malformed);
    }
    Ok(header_len)
}

#[inline(always)]
fn check_v6_version(ip: &[u8; IPV6_LEN]) -> Result<(), HeaderError> {
    if ip[0] >> 4 == 6 { Ok(()) } else { Err(HeaderError::Malformed) }
}

#[inline(always)]
fn v6_source(ip: &[u8; IPV6_LEN]) -> [u8; 16] {
    let mut address = [0; 16];
    address.copy_from_slice(&ip[8..24]);
    address
}

#[inline(always)]
fn v6_destination(ip: &[u8; IPV6_LEN]) -> [u8; 16] {
    let mut address = [0; 16];
    address.copy_from_slice(&ip[24..40]);
    address
}
