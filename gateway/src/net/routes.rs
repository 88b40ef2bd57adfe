//! The kernel's main routing table as a prefix trie.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteType, RouteVia,
};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use prefix_trie::PrefixMap;

use super::{Netlink, NetlinkError};

/// Most routes that are kept: a full Internet table of both families with room to grow.
const MAX_ROUTES: usize = 2_000_000;

/// Priorities of the rules that every host has: tables local, main, default.
const USUAL_RULES: [u32; 3] = [0, 32_766, 32_767];

/// Where packets for a destination go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// To a router on that interface.
    Router {
        /// Number of the interface.
        interface: u32,
        /// Address of the router; of another family than the destination at times.
        address: IpAddr,
    },
    /// Straight to the destination, which is on that interface's link.
    OnLink {
        /// Number of the interface.
        interface: u32,
    },
    /// Nowhere: blackhole, unreachable, prohibited.
    Nowhere,
}

/// A route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Destinations.
    pub prefix: IpNet,
    /// Smaller wins among routes for one prefix.
    pub metric: u32,
    /// Where to.
    pub via: Via,
}

/// Longest prefix match over the routes of both families.
#[derive(Debug, Default)]
pub struct RouteTable {
    v4: PrefixMap<Ipv4Net, (u32, Via)>,
    v6: PrefixMap<Ipv6Net, (u32, Via)>,
}

impl RouteTable {
    /// Reads the kernel's main table.
    pub fn read(netlink: &mut Netlink) -> Result<Self, NetlinkError> {
        let mut table = Self::default();
        let mut count = 0;
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            netlink.dump("list routes", RouteNetlinkMessage::GetRoute(request), &mut |answer| {
                if let RouteNetlinkMessage::NewRoute(message) = answer
                    && count < MAX_ROUTES
                    && let Some(route) = Route::from_message(&message)
                {
                    table.insert(route);
                    count += 1;
                }
            })?;
        }
        Ok(table)
    }

    /// Adds a route; of several for one prefix the smallest metric stays, and the first of equals.
    pub fn insert(&mut self, route: Route) {
        let new = (route.metric, route.via);
        let keep_smaller = |old: &mut (u32, Via)| {
            if new.0 < old.0 {
                *old = new;
            }
        };
        match route.prefix {
            IpNet::V4(prefix) => match self.v4.get_mut(&prefix) {
                Some(old) => keep_smaller(old),
                None => drop(self.v4.insert(prefix, new)),
            },
            IpNet::V6(prefix) => match self.v6.get_mut(&prefix) {
                Some(old) => keep_smaller(old),
                None => drop(self.v6.insert(prefix, new)),
            },
        }
    }

    /// Where packets to `destination` go.
    pub fn lookup(&self, destination: IpAddr) -> Via {
        let found = match destination {
            IpAddr::V4(address) => self.v4.get_lpm(&Ipv4Net::from(address)).map(|(_, route)| route),
            IpAddr::V6(address) => self.v6.get_lpm(&Ipv6Net::from(address)).map(|(_, route)| route),
        };
        found.map_or(Via::Nowhere, |(_, via)| *via)
    }
}

impl Netlink {
    /// Whether this host has routing rules beside the three that every host has: packets of workers do not follow them.
    pub fn has_policy_routing(&mut self) -> Result<bool, NetlinkError> {
        let mut found = false;
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RuleMessage::default();
            request.header.family = family;
            self.dump("list routing rules", RouteNetlinkMessage::GetRule(request), &mut |answer| {
                if let RouteNetlinkMessage::NewRule(rule) = answer {
                    let priority = rule.attributes.iter().find_map(|attribute| match attribute {
                        RuleAttribute::Priority(priority) => Some(*priority),
                        _ => None,
                    });
                    found |= !USUAL_RULES.contains(&priority.unwrap_or_default());
                }
            })?;
        }
        Ok(found)
    }
}

impl Route {
    fn from_message(message: &RouteMessage) -> Option<Self> {
        let mut table = u32::from(message.header.table);
        let mut destination = match message.header.address_family {
            AddressFamily::Inet => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let mut metric = 0;
        let mut interface = None;
        let mut router = None;
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Destination(address) => destination = ip(address)?,
                RouteAttribute::Priority(priority) => metric = *priority,
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::Gateway(address) => router = ip(address),
                RouteAttribute::Via(via) => router = via_ip(via),
                // All packets of a session take one path; spreading them would reorder them.
                RouteAttribute::MultiPath(hops) => (interface, router) = first_hop(hops)?,
                _ => {}
            }
        }
        if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
            return None;
        }
        let via = match (message.header.kind, interface, router) {
            (RouteType::Unicast, Some(interface), Some(address)) => Via::Router { interface, address },
            (RouteType::Unicast, Some(interface), None) => Via::OnLink { interface },
            (RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit, _, _) => Via::Nowhere,
            _ => return None,
        };
        let prefix = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
        Some(Self { prefix, metric, via })
    }
}

fn first_hop(hops: &[RouteNextHop]) -> Option<(Option<u32>, Option<IpAddr>)> {
    let hop = hops.first()?;
    let router = hop.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(via) => via_ip(via),
        _ => None,
    });
    Some((Some(hop.interface_index), router))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn via_ip(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(address) => Some(IpAddr::V4(*address)),
        RouteVia::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: Via = Via::Router { interface: 2, address: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 254)) };
    const LINK: Via = Via::OnLink { interface: 2 };

    fn route(prefix: &str, metric: u32, via: Via) -> Route {
        Route { prefix: prefix.parse().expect("prefix"), metric, via }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn the_longest_prefix_wins_whatever_the_order() {
        let mut table = RouteTable::default();
        table.insert(route("192.0.2.0/24", 0, LINK));
        table.insert(route("0.0.0.0/0", 0, ROUTER));
        table.insert(route("192.0.2.128/25", 900, Via::Nowhere));
        assert_eq!(table.lookup(address("198.51.100.1")), ROUTER);
        assert_eq!(table.lookup(address("192.0.2.1")), LINK);
        assert_eq!(table.lookup(address("192.0.2.129")), Via::Nowhere);
    }

    #[test]
    fn among_routes_for_one_prefix_the_smallest_metric_wins() {
        for order in [[100, 50, 200], [50, 100, 200], [200, 100, 50]] {
            let mut table = RouteTable::default();
            for metric in order {
                table.insert(route("::/0", metric, Via::OnLink { interface: metric }));
            }
            assert_eq!(table.lookup(address("2001:db8::1")), Via::OnLink { interface: 50 });
        }
    }

    #[test]
    fn without_a_route_there_is_nowhere_to_send() {
        let mut table = RouteTable::default();
        assert_eq!(table.lookup(address("192.0.2.1")), Via::Nowhere);
        table.insert(route("10.0.0.0/8", 0, LINK));
        assert_eq!(table.lookup(address("192.0.2.1")), Via::Nowhere);
        assert_eq!(table.lookup(address("2001:db8::1")), Via::Nowhere);
    }
}
