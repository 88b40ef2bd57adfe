//! Whether an uplink can carry a path to an endpoint, and how: source address, next hop, MTU. A pure function.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::table::{Address, Route, Table};

/// How a path is attached to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment {
    /// Index of the interface.
    pub link: u32,
    /// Our address, with its prefix.
    pub source: IpNet,
    /// Router towards the endpoint; none if it is on the link.
    pub next_hop: Option<IpAddr>,
    /// MTU of the interface.
    pub mtu: u32,
}

/// Why a path cannot be used now; shown by `jump status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// No interface of that name.
    NoInterface,
    /// Switched off.
    AdminDown,
    /// Cable out, radio not associated.
    NoCarrier,
    /// No usable address of the endpoint's family.
    NoAddress,
    /// No route to the endpoint through this interface.
    NoRoute,
    /// The kernel refused to send on the path; tried again after a pause.
    SocketError,
}

impl Unusable {
    /// What it means, in words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoInterface => "no such interface",
            Self::AdminDown => "interface is switched off",
            Self::NoCarrier => "no carrier",
            Self::NoAddress => "no address of the endpoint's family",
            Self::NoRoute => "no route to the endpoint",
            Self::SocketError => "socket error",
        }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// How the interface can reach the endpoint now. `last` is how it did before: its source address is kept while it is
/// valid, and its next hop stands in for a route that the kernel dropped when the link went down and nobody restored,
/// provided that the same address is back and the next hop is still a neighbour.
pub fn choose(
    table: &Table,
    interface: &str,
    endpoint: SocketAddr,
    last: Option<&Attachment>,
) -> Result<Attachment, Unusable> {
    let (index, link) = table.link(interface).ok_or(Unusable::NoInterface)?;
    if !link.admin_up {
        return Err(Unusable::AdminDown);
    }
    if !link.carrier {
        return Err(Unusable::NoCarrier);
    }
    let addresses: Vec<&Address> = table.addresses(index).filter(|address| is_source(address, endpoint)).collect();
    if addresses.is_empty() {
        return Err(Unusable::NoAddress);
    }
    let last = last.filter(|last| last.link == index && last.source.addr().is_ipv4() == endpoint.is_ipv4());
    let kept = last.map(|last| last.source).filter(|source| addresses.iter().any(|address| address.network == *source));
    match best_route(table, index, endpoint.ip()) {
        Some(route) => {
            let source = kept.filter(|source| route.source.is_none_or(|wanted| wanted == source.addr()));
            let source = source.or_else(|| pick_source(&addresses, route)).ok_or(Unusable::NoAddress)?;
            Ok(Attachment { link: index, source, next_hop: route.next_hop, mtu: link.mtu })
        }
        None => {
            let (source, last) = kept.zip(last).ok_or(Unusable::NoRoute)?;
            let neighbour = last.next_hop.is_some_and(|hop| is_neighbour(hop, table, index));
            if neighbour { Ok(Attachment { source, mtu: link.mtu, ..*last }) } else { Err(Unusable::NoRoute) }
        }
    }
}

/// A source for packets that leave the link: right family, and not of link scope.
fn is_source(address: &Address, endpoint: SocketAddr) -> bool {
    match (address.network.addr(), endpoint) {
        (IpAddr::V4(_), SocketAddr::V4(_)) => true,
        (IpAddr::V6(ip), SocketAddr::V6(endpoint)) => {
            !ip.is_unicast_link_local() || endpoint.ip().is_unicast_link_local()
        }
        _ => false,
    }
}

/// The route that the kernel takes for a socket bound to the interface: longest prefix, then smallest metric. Routes of
/// this program are left out: they copy what this function found.
fn best_route(table: &Table, link: u32, destination: IpAddr) -> Option<&Route> {
    table
        .routes(link)
        .filter(|route| !route.ours && route.destination.contains(&destination))
        .min_by_key(|route| (u8::MAX - route.destination.prefix_len(), route.metric))
}

/// The route's own choice, else an address of the next hop's network, else the first that is not deprecated.
fn pick_source(addresses: &[&Address], route: &Route) -> Option<IpNet> {
    if let Some(wanted) = route.source {
        return addresses.iter().map(|address| address.network).find(|network| network.addr() == wanted);
    }
    let near = |address: &Address| route.next_hop.is_some_and(|hop| address.network.contains(&hop));
    addresses.iter().min_by_key(|address| (address.deprecated, !near(address))).map(|address| address.network)
}

/// Whether the interface itself has a route to the hop, without a router between.
fn is_neighbour(hop: IpAddr, table: &Table, link: u32) -> bool {
    table.routes(link).any(|route| !route.ours && route.next_hop.is_none() && route.destination.contains(&hop))
}

#[cfg(test)]
mod tests {
    use super::super::table::Link;
    use super::*;

    const WIFI: u32 = 2;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn route(destination: &str, next_hop: Option<&str>, metric: u32) -> Route {
        Route {
            link: WIFI,
            destination: net(destination),
            next_hop: next_hop.map(|hop| hop.parse().unwrap()),
            source: None,
            metric,
            ours: false,
        }
    }

    fn wifi(admin_up: bool, carrier: bool) -> Link {
        Link { name: "wifi0".into(), admin_up, carrier, mtu: 1500 }
    }

    fn put_address(table: &mut Table, network: &str) {
        table.put_address(Address { link: WIFI, network: net(network), deprecated: false });
    }

    fn usable_table() -> Table {
        let mut table = Table::default();
        table.put_link(WIFI, wifi(true, true));
        put_address(&mut table, "10.0.0.5/24");
        table.put_route(route("10.0.0.0/24", None, 0));
        table.put_route(route("0.0.0.0/0", Some("10.0.0.1"), 100));
        table
    }

    fn ask(table: &Table, last: Option<&Attachment>) -> Result<Attachment, Unusable> {
        choose(table, "wifi0", "192.0.2.1:51900".parse().unwrap(), last)
    }

    #[test]
    fn an_uplink_with_link_address_and_route_is_usable() {
        let attachment = ask(&usable_table(), None).unwrap();
        assert_eq!(attachment.source, net("10.0.0.5/24"));
        assert_eq!(attachment.next_hop, Some("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn each_missing_piece_has_its_name() {
        let mut table = Table::default();
        assert_eq!(ask(&table, None), Err(Unusable::NoInterface));
        table.put_link(WIFI, wifi(false, false));
        assert_eq!(ask(&table, None), Err(Unusable::AdminDown));
        table.put_link(WIFI, wifi(true, false));
        assert_eq!(ask(&table, None), Err(Unusable::NoCarrier));
        table.put_link(WIFI, wifi(true, true));
        put_address(&mut table, "2001:db8::5/64");
        assert_eq!(ask(&table, None), Err(Unusable::NoAddress));
        put_address(&mut table, "10.0.0.5/24");
        table.put_route(route("10.0.0.0/24", None, 0));
        assert_eq!(ask(&table, None), Err(Unusable::NoRoute));
    }

    #[test]
    fn the_longest_prefix_wins_then_the_smallest_metric() {
        let mut table = usable_table();
        table.put_route(route("0.0.0.0/0", Some("10.0.0.2"), 50));
        assert_eq!(ask(&table, None).unwrap().next_hop, Some("10.0.0.2".parse().unwrap()));
        table.put_route(route("192.0.2.0/24", Some("10.0.0.3"), 500));
        assert_eq!(ask(&table, None).unwrap().next_hop, Some("10.0.0.3".parse().unwrap()));
    }

    #[test]
    fn routes_of_this_program_do_not_count_as_evidence() {
        let mut table = usable_table();
        table.put_route(Route { ours: true, ..route("192.0.2.1/32", Some("10.0.0.9"), 0) });
        assert_eq!(ask(&table, None).unwrap().next_hop, Some("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_valid_source_is_kept_when_another_address_appears() {
        let mut table = usable_table();
        let first = ask(&table, None).unwrap();
        table.remove_address(WIFI, net("10.0.0.5/24"));
        put_address(&mut table, "10.0.0.4/24");
        put_address(&mut table, "10.0.0.5/24");
        assert_eq!(ask(&table, Some(&first)).unwrap().source, first.source);
        table.remove_address(WIFI, net("10.0.0.5/24"));
        assert_eq!(ask(&table, Some(&first)).unwrap().source, net("10.0.0.4/24"));
    }

    #[test]
    fn after_a_link_flap_the_last_next_hop_stands_in_for_the_lost_route() {
        let mut table = usable_table();
        let first = ask(&table, None).unwrap();
        table.put_link(WIFI, wifi(false, false));
        table.put_link(WIFI, wifi(true, true));
        assert_eq!(ask(&table, Some(&first)), Err(Unusable::NoRoute));
        table.put_route(route("10.0.0.0/24", None, 0));
        assert_eq!(ask(&table, None), Err(Unusable::NoRoute));
        assert_eq!(ask(&table, Some(&first)), Ok(first));
        // Another network: the remembered router is not there.
        table.remove_address(WIFI, net("10.0.0.5/24"));
        put_address(&mut table, "172.16.0.9/24");
        assert_eq!(ask(&table, Some(&first)), Err(Unusable::NoRoute));
    }

    #[test]
    fn ipv6_sources_are_not_of_link_scope() {
        let mut table = Table::default();
        table.put_link(WIFI, wifi(true, true));
        put_address(&mut table, "fe80::5/64");
        table.put_route(route("::/0", Some("fe80::1"), 1024));
        let endpoint = "[2001:db8::1]:51900".parse().unwrap();
        assert_eq!(choose(&table, "wifi0", endpoint, None), Err(Unusable::NoAddress));
        put_address(&mut table, "2001:db8:1::5/64");
        let attachment = choose(&table, "wifi0", endpoint, None).unwrap();
        assert_eq!(attachment.source, net("2001:db8:1::5/64"));
        assert_eq!(attachment.next_hop, Some("fe80::1".parse().unwrap()));
    }
}
