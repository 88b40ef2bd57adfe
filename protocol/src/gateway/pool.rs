//! Inner addresses: client index <-> IPv4 base + index, IPv6 base + index.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::reason::Reason;
use crate::stored::stored;

/// Index 0 is the network's own address, index 1 the gateway's; clients begin here.
pub const FIRST_CLIENT_INDEX: u32 = 2;

/// The address pool of the clients. Steering, admission and the source check all read it the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPool {
    v4: Option<u32>,
    v6: Option<u128>,
    size: u32,
}

stored! { AddressPool { v4, v6, size } }

impl AddressPool {
    /// A pool of `size` indices over the given base addresses.
    pub fn new(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>, size: u32) -> Self {
        Self { v4: v4.map(u32::from), v6: v6.map(u128::from), size }
    }

    /// How many indices there are, the reserved ones included.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// The IPv4 address of an index.
    pub fn v4(&self, index: u32) -> Option<Ipv4Addr> {
        let base = self.v4.filter(|_| index < self.size)?;
        base.checked_add(index).map(Ipv4Addr::from)
    }

    /// The IPv6 address of an index.
    pub fn v6(&self, index: u32) -> Option<Ipv6Addr> {
        let base = self.v6.filter(|_| index < self.size)?;
        base.checked_add(u128::from(index)).map(Ipv6Addr::from)
    }

    /// The index of an address, if it belongs to the pool.
    pub fn index_of(&self, address: IpAddr) -> Option<u32> {
        let offset = match address {
            IpAddr::V4(ip) => u128::from(u32::from(ip).checked_sub(self.v4?)?),
            IpAddr::V6(ip) => u128::from(ip).checked_sub(self.v6?)?,
        };
        u32::try_from(offset).ok().filter(|index| *index < self.size)
    }

    /// Whether an address belongs to the pool.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.index_of(address).is_some()
    }

    /// The source check of BD-1: an inner packet may only carry the addresses of its own session.
    pub(super) fn check_source(&self, inner: &[u8], v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Result<(), Reason> {
        let own = match addresses(inner) {
            Some((IpAddr::V4(source), _)) => v4 == Some(source),
            Some((IpAddr::V6(source), _)) => v6 == Some(source),
            None => false,
        };
        if own { Ok(()) } else { Err(Reason::InnerSourceInvalid) }
    }

    /// Whether an inner packet goes to another client rather than through the gateway (PP85).
    pub(super) fn is_other_client(&self, inner: &[u8]) -> bool {
        addresses(inner)
            .and_then(|(_, destination)| self.index_of(destination))
            .is_some_and(|index| index >= FIRST_CLIENT_INDEX)
    }
}

/// Source and destination of an IP packet, if it is one.
fn addresses(inner: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match inner.first()? >> 4 {
        4 => {
            let source: [u8; 4] = inner.get(12..16)?.try_into().ok()?;
            let destination: [u8; 4] = inner.get(16..20)?.try_into().ok()?;
            Some((IpAddr::V4(source.into()), IpAddr::V4(destination.into())))
        }
        6 => {
            let source: [u8; 16] = inner.get(8..24)?.try_into().ok()?;
            let destination: [u8; 16] = inner.get(24..40)?.try_into().ok()?;
            Some((IpAddr::V6(source.into()), IpAddr::V6(destination.into())))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> AddressPool {
        AddressPool::new(Some([10, 66, 0, 0].into()), Some("fd66::".parse().unwrap()), 65_536)
    }

    #[test]
    fn an_index_and_its_addresses_find_each_other() {
        for index in [0, 1, 2, 255, 256, 65_535] {
            assert_eq!(pool().index_of(pool().v4(index).unwrap().into()), Some(index));
            assert_eq!(pool().index_of(pool().v6(index).unwrap().into()), Some(index));
        }
        assert_eq!(pool().v4(65_536), None);
        assert_eq!(pool().index_of("10.67.0.0".parse().unwrap()), None);
        assert_eq!(pool().index_of("10.65.255.255".parse().unwrap()), None);
    }

    #[test]
    fn a34_a_source_that_is_not_the_sessions_own_is_refused() {
        let mut packet = [0u8; 20];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&[10, 66, 0, 5]);
        let own = Some([10, 66, 0, 5].into());
        assert_eq!(pool().check_source(&packet, own, None), Ok(()));
        packet[15] = 6;
        assert_eq!(pool().check_source(&packet, own, None), Err(Reason::InnerSourceInvalid));
        assert_eq!(pool().check_source(&[0x45; 10], own, None), Err(Reason::InnerSourceInvalid));
        assert_eq!(pool().check_source(&[], own, None), Err(Reason::InnerSourceInvalid));
    }
}
