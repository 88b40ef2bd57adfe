//! Outer addresses in records: a keyed short hash, or the address where policy allows it (PP87, OB-12).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::PolicyRef;
use super::value::{Kind, Recorded, Value};
use crate::policy::Policy;

/// The peer's outer address as a record holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// 64 bits of its keyed hash: equal addresses can be told to be equal, by nobody can the address be told.
    Hash([u8; 8]),
    /// IPv4 address and port in the clear.
    V4([u8; 4], u16),
    /// IPv6 address and port in the clear.
    V6([u8; 16], u16),
}

impl Recorded for Outer {
    const KIND: Kind = Kind::Address;
    fn value(self) -> Value {
        let address: (IpAddr, u16) = match self {
            Self::Hash(hash) => return Value::Hash(hash),
            Self::V4(ip, port) => (Ipv4Addr::from(ip).into(), port),
            Self::V6(ip, port) => (Ipv6Addr::from(ip).into(), port),
        };
        Value::Address(SocketAddr::from(address))
    }
}

/// What a core may write: addresses in the clear or hashed, security records or none.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Disclosure {
    /// Key of the address hashes (KY-4). From the long-term secret, so that hashes compare over restarts.
    address_key: [u8; 32],
    addresses_in_clear: bool,
    security_records: bool,
    /// The policy that stands in records which concern no session.
    #[zeroize(skip)]
    policy: PolicyRef,
}

/// Without its key.
impl core::fmt::Debug for Disclosure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Disclosure").finish_non_exhaustive()
    }
}

impl Disclosure {
    /// What the node with that long-term secret may write under that policy (PP87, PP89).
    /// It is the `sequence`-th policy of the node, from 1.
    pub fn new(secret: &[u8; 32], policy: &Policy, sequence: u32) -> Self {
        Self {
            policy: PolicyRef { version: policy.version, sequence },
            address_key: blake3::derive_key("jumpgate v1 address hash", secret),
            addresses_in_clear: policy.observability.record_outer_addresses,
            security_records: policy.observability.emit_security_events,
        }
    }

    /// An address as it may be written.
    pub fn outer(&self, address: SocketAddr) -> Outer {
        if self.addresses_in_clear {
            return match address {
                SocketAddr::V4(address) => Outer::V4(address.ip().octets(), address.port()),
                SocketAddr::V6(address) => Outer::V6(address.ip().octets(), address.port()),
            };
        }
        let mut hasher = blake3::Hasher::new_keyed(&self.address_key);
        match address.ip() {
            IpAddr::V4(ip) => hasher.update(&ip.octets()),
            IpAddr::V6(ip) => hasher.update(&ip.octets()),
        };
        hasher.update(&address.port().to_be_bytes());
        let mut hash = [0; 8];
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        Outer::Hash(hash)
    }

    /// The policy that stands in records which concern no session.
    pub(super) const fn policy(&self) -> PolicyRef {
        self.policy
    }

    /// Whether security records are written at all (PP89); their counters always run.
    pub const fn security_records(&self) -> bool {
        self.security_records
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Profile;

    #[test]
    fn ob12_an_address_is_hashed_with_the_nodes_key_unless_policy_allows_it_in_the_clear() {
        let mut policy = Policy::profile(Profile::Default);
        let address = "198.51.100.7:4500".parse().unwrap();
        let hashed = Disclosure::new(&[7; 32], &policy, 1);
        assert!(matches!(hashed.outer(address), Outer::Hash(_)));
        assert_eq!(hashed.outer(address), Disclosure::new(&[7; 32], &policy, 1).outer(address));
        assert_ne!(hashed.outer(address), Disclosure::new(&[8; 32], &policy, 1).outer(address));
        assert_ne!(hashed.outer(address), hashed.outer("198.51.100.7:4501".parse().unwrap()));
        policy.observability.record_outer_addresses = true;
        let clear = Disclosure::new(&[7; 32], &policy, 1);
        assert_eq!(clear.outer(address).value(), Value::Address(address));
    }
}
