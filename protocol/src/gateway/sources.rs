//! Networks that a client may come from.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// Networks that a client's outer address must lie in; none stated: any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(Option<Arc<[IpNet]>>);

impl Sources {
    /// From anywhere.
    pub const ANY: Self = Self(None);

    /// From these networks and no other.
    pub fn only(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(Some(networks.into_iter().collect()))
    }

    /// Whether a client may be at that address.
    pub fn allow(&self, address: IpAddr) -> bool {
        // A dual-stack socket shows IPv4 peers as ::ffff:0:0/96.
        let address = address.to_canonical();
        self.0.as_ref().is_none_or(|networks| networks.iter().any(|network| network.contains(&address)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_come_from_the_networks_listed_and_from_anywhere_if_none_is() {
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        let sources = Sources::only(["198.51.100.0/24", "2001:db8:7::/48"].map(|text| text.parse().unwrap()));
        for inside in ["198.51.100.7", "::ffff:198.51.100.7", "2001:db8:7:1::9"] {
            assert!(sources.allow(at(inside)), "{inside}");
        }
        for outside in ["198.51.101.7", "::ffff:203.0.113.1", "2001:db8:8::9"] {
            assert!(!sources.allow(at(outside)) && Sources::ANY.allow(at(outside)), "{outside}");
        }
        assert!(!Sources::only([]).allow(at("198.51.100.7")));
    }
}
