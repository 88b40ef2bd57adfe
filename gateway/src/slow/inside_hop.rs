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
    Neighbour { address: IpAddr, mac: Option<[u8; 6]> },
}

impl InsideHop {
    /// Into this host's kernel by our own pair.
    pub fn to_host(port: &Link, host: &Link) -> Self {
        Self { interface: port.index, own_mac: port.mac, router: Router::Host(host.mac) }
    }

    /// To a router on the network of a NIC.
    pub fn to_router(nic: &Link, router: IpAddr) -> Self {
        Self { interface: nic.index, own_mac: nic.mac, router: Router::Neighbour { address: router, mac: None } }
    }

    /// The next hop, once it is known.
    pub fn hop(&self) -> Option<NextHop> {
        let destination = match self.router {
            Router::Host(mac) => Some(mac),
            Router::Neighbour { mac, .. } => mac,
        };
        destination.map(|destination_mac| NextHop { source_mac: self.own_mac, destination_mac, vlan: None })
    }

    /// The router that the kernel should resolve or check, and its interface.
    pub fn unresolved(&self) -> Option<(u32, IpAddr)> {
        match self.router {
            Router::Host(_) => None,
            Router::Neighbour { address, .. } => Some((self.interface, address)),
        }
    }

    /// Takes news of a neighbour; true if it changed the next hop.
    pub fn neighbour(&mut self, news: &Neighbour) -> bool {
        match &mut self.router {
            Router::Neighbour { address, mac }
                if self.interface == news.interface && *address == news.address && *mac != news.mac =>
            {
                *mac = news.mac;
                true
            }
            _ => false,
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
}
