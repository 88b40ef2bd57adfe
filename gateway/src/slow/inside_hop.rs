//! The Ethernet addresses of the inside port: everything that clients send goes to one neighbour.

use std::net::IpAddr;

use crate::handover::NextHop;
use crate::net::{Link, Neighbour};

/// The one next hop of the inside port.
#[derive(Debug, Clone, Copy)]
pub struct InsideHop {
    interface: u32,
    own_mac: [u8; 6],
    router: Router,
}

#[derive(Debug, Clone, Copy)]
enum Router {
    /// The host's end of our own pair.
    Host([u8; 6]),
    /// A router on the network of a NIC, which the kernel resolves for us.
    Neighbour {
        address: IpAddr,
        mac: Option<[u8; 6]>,
        /// The kernel does not know it, or doubts it.
        open: bool,
    },
}

impl InsideHop {
    /// Into this host's kernel by our own pair.
    pub fn to_host(port: &Link, host: &Link) -> Self {
        Self { interface: port.index, own_mac: port.mac, router: Router::Host(host.mac) }
    }

    /// To a router on the network of a NIC.
    pub fn to_router(nic: &Link, router: IpAddr) -> Self {
        Self {
            interface: nic.index,
            own_mac: nic.mac,
            router: Router::Neighbour { address: router, mac: None, open: true },
        }
    }

    /// The next hop, once it is known.
    pub fn hop(&self) -> Option<NextHop> {
        let destination = match self.router {
            Router::Host(mac) => Some(mac),
            Router::Neighbour { mac, .. } => mac,
        };
        destination.map(|destination_mac| NextHop { source_mac: self.own_mac, destination_mac, vlan: None })
    }

    /// The router that the kernel should resolve or check, and its interface. Never one that is in order: the request makes
    /// an ordinary entry of a permanent one (`net/core/neighbour.c`, `__neigh_update`, NEIGH_UPDATE_F_USE).
    pub fn unresolved(&self) -> Option<(u32, IpAddr)> {
        match self.router {
            Router::Neighbour { address, open: true, .. } => Some((self.interface, address)),
            Router::Host(_) | Router::Neighbour { .. } => None,
        }
    }

    /// Takes news of a neighbour; true if it changed the next hop.
    pub fn neighbour(&mut self, news: &Neighbour) -> bool {
        match &mut self.router {
            Router::Neighbour { address, mac, open }
                if self.interface == news.interface && *address == news.address =>
            {
                *open = news.doubtful || news.mac.is_none();
                std::mem::replace(mac, news.mac) != news.mac
            }
            Router::Host(_) | Router::Neighbour { .. } => false,
        }
    }

    /// The kernel has forgotten a neighbour, as it does with those that it does not use itself. The way stays, and is to be
    /// checked: of changes the kernel tells only while it knows the neighbour.
    pub fn forgotten(&mut self, gone: &Neighbour) {
        if let Router::Neighbour { address, open, .. } = &mut self.router
            && self.interface == gone.interface
            && *address == gone.address
        {
            *open = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, last: u8) -> Link {
        Link { index, name: "x".into(), mac: [2, 0, 0, 0, 0, last], mtu: 1500, up: true, alias: None, xdp: false }
    }

    #[test]
    fn a_pair_leads_to_the_hosts_end() {
        let hop = InsideHop::to_host(&link(5, 1), &link(6, 2));
        let expected = NextHop { source_mac: [2, 0, 0, 0, 0, 1], destination_mac: [2, 0, 0, 0, 0, 2], vlan: None };
        assert_eq!(hop.hop(), Some(expected));
        assert_eq!(hop.unresolved(), None);
    }

    #[test]
    fn a_router_is_the_next_hop_once_it_is_resolved_and_no_other_neighbour_is() {
        let router: IpAddr = "10.1.0.1".parse().expect("address");
        let mut hop = InsideHop::to_router(&link(5, 1), router);
        assert_eq!((hop.hop(), hop.unresolved()), (None, Some((5, router))));
        let news = Neighbour { interface: 5, address: router, mac: Some([9; 6]), doubtful: false };
        assert!(!hop.neighbour(&Neighbour { interface: 4, ..news }));
        assert!(!hop.neighbour(&Neighbour { address: "10.1.0.2".parse().expect("address"), ..news }));
        assert!(hop.neighbour(&news));
        assert!(!hop.neighbour(&news), "the same again is no news");
        assert_eq!(hop.hop().map(|hop| hop.destination_mac), Some([9; 6]));
    }

    #[test]
    fn the_kernel_is_asked_for_a_router_that_is_unknown_or_doubtful_and_never_for_one_in_order() {
        let router: IpAddr = "10.1.0.1".parse().expect("address");
        let mut hop = InsideHop::to_router(&link(5, 1), router);
        let news = Neighbour { interface: 5, address: router, mac: Some([9; 6]), doubtful: false };
        hop.neighbour(&news);
        assert_eq!(hop.unresolved(), None, "permanent or reachable");
        hop.forgotten(&news);
        assert_eq!((hop.unresolved(), hop.hop().is_some()), (Some((5, router)), true), "forgotten, not failed");
        assert!(!hop.neighbour(&Neighbour { doubtful: true, ..news }), "the way is the same");
        assert_eq!(hop.unresolved(), Some((5, router)), "stale");
        assert!(hop.neighbour(&Neighbour { mac: None, ..news }));
        assert_eq!(hop.unresolved(), Some((5, router)), "failed");
    }
}
