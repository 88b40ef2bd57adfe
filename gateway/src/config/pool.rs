//! The address pool of the clients: client `i` owns address `base + i` of each family.

use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};
use jumpgate_protocol::gateway::{AddressPool, FIRST_CLIENT_INDEX};

/// Most addresses one gateway hands out: the steering table has one entry of 4 bytes for each. Larger networks are used
/// from their start up to this number.
pub const MAX_POOL: u32 = 1 << 20;
/// Index of the gateway's own inner address; index 0 is the network itself (and the subnet-router anycast of IPv6).
pub const GATEWAY_INDEX: u32 = 1;

/// Inner networks of the clients. At least one family is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    v4: Option<Ipv4Net>,
    v6: Option<Ipv6Net>,
    addresses: AddressPool,
}

/// Why two networks make no pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Neither family is given.
    #[error("no client address pool")]
    Empty,
    /// Fewer than one client address.
    #[error("the pool has no room for a single client beside network, gateway and broadcast")]
    TooSmall,
}

impl Pool {
    /// A pool over the networks of the given addresses (host bits are ignored).
    pub fn new(v4: Option<Ipv4Net>, v6: Option<Ipv6Net>) -> Result<Self, PoolError> {
        let (v4, v6) = (v4.map(|net| net.trunc()), v6.map(|net| net.trunc()));
        // The last IPv4 address is the broadcast address of the network: no client may have it.
        let v4_size = v4.map(|net| (1u64 << (32 - net.prefix_len())) - 1);
        let v6_size = v6.map(|net| 1u64.checked_shl(128 - u32::from(net.prefix_len())).unwrap_or(u64::MAX));
        let size = match (v4_size, v6_size) {
            (None, None) => return Err(PoolError::Empty),
            (Some(size), None) | (None, Some(size)) => size,
            (Some(v4), Some(v6)) => v4.min(v6),
        };
        if size <= u64::from(FIRST_CLIENT_INDEX) {
            return Err(PoolError::TooSmall);
        }
        let size = u32::try_from(size).unwrap_or(MAX_POOL).min(MAX_POOL);
        let addresses = AddressPool::new(v4.map(|net| net.network()), v6.map(|net| net.network()), size);
        Ok(Self { v4, v6, addresses })
    }

    /// The addresses by index.
    pub const fn addresses(&self) -> &AddressPool {
        &self.addresses
    }

    /// The IPv4 network.
    pub const fn v4(&self) -> Option<Ipv4Net> {
        self.v4
    }

    /// The IPv6 network.
    pub const fn v6(&self) -> Option<Ipv6Net> {
        self.v6
    }

    /// Index of an address that a client can have; none for reserved addresses and those of other networks.
    pub fn client_index(&self, address: IpAddr) -> Option<u32> {
        self.addresses.index_of(address).filter(|index| *index >= FIRST_CLIENT_INDEX)
    }

    /// Whether the address lies in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.is_some_and(|net| net.contains(&address)),
            IpAddr::V6(address) => self.v6.is_some_and(|net| net.contains(&address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn pool(v4: &str, v6: &str) -> Result<Pool, PoolError> {
        Pool::new(v4.parse().ok(), v6.parse().ok())
    }

    #[test]
    fn an_index_names_the_same_client_in_both_families() {
        let pool = pool("10.66.0.0/16", "fd66::/112").expect("pool");
        assert_eq!(pool.addresses().v4(5), Some(Ipv4Addr::new(10, 66, 0, 5)));
        assert_eq!(pool.addresses().v6(5), Some("fd66::5".parse().expect("address")));
        assert_eq!(pool.client_index("10.66.0.5".parse().expect("address")), Some(5));
        assert_eq!(pool.client_index("fd66::5".parse().expect("address")), Some(5));
        assert_eq!(pool.addresses().size(), 65_535, "the broadcast address belongs to nobody");
    }

    #[test]
    fn reserved_and_foreign_addresses_belong_to_no_client() {
        let pool = pool("10.66.0.0/24", "").expect("pool");
        for address in ["10.66.0.0", "10.66.0.1", "10.66.0.255", "10.66.1.2", "10.65.255.255", "fd66::5", "0.0.0.0"] {
            assert_eq!(pool.client_index(address.parse().expect("address")), None, "{address}");
        }
    }

    #[test]
    fn a_huge_network_is_used_up_to_the_limit_and_a_tiny_one_is_refused() {
        assert_eq!(pool("10.0.0.0/8", "fd66::/64").expect("pool").addresses().size(), MAX_POOL);
        assert_eq!(pool("0.0.0.0/0", "::/0").expect("pool").addresses().size(), MAX_POOL);
        assert_eq!(pool("10.66.0.0/30", "").expect("pool").addresses().size(), 3);
        assert_eq!(pool("10.66.0.0/31", ""), Err(PoolError::TooSmall));
        assert_eq!(pool("10.66.0.0/32", ""), Err(PoolError::TooSmall));
        assert_eq!(pool("", "fd66::/128"), Err(PoolError::TooSmall));
        assert_eq!(pool("", ""), Err(PoolError::Empty));
    }
}
