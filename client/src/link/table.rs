//! Links, addresses and routes of the kernel as plain data, kept current by netlink messages.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::PROTOCOL;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Name, as in the configuration.
    pub name: String,
    /// Switched on by the operator (IFF_UP).
    pub admin_up: bool,
    /// The lower layer is connected (IFF_LOWER_UP): cable in, radio associated.
    pub carrier: bool,
    /// Largest packet in bytes.
    pub mtu: u32,
}

/// An address of an interface that may be used as a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Index of the interface.
    pub link: u32,
    /// The address with the length of its prefix.
    pub network: IpNet,
    /// Valid for what exists, no first choice for what is new (RFC 4862 §5.5.4).
    pub deprecated: bool,
}

/// A unicast route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Index of the interface.
    pub link: u32,
    /// Where it leads.
    pub destination: IpNet,
    /// Next hop; none if the destination is on the link.
    pub next_hop: Option<IpAddr>,
    /// Source address that the route prefers.
    pub source: Option<IpAddr>,
    /// Smaller wins among routes of one prefix.
    pub metric: u32,
    /// Installed by this program.
    pub ours: bool,
}

/// Everything that decides whether an uplink can carry a path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    links: BTreeMap<u32, Link>,
    addresses: Vec<Address>,
    routes: Vec<Route>,
}

impl Table {
    /// The interface of that name, with its index.
    pub fn link(&self, name: &str) -> Option<(u32, &Link)> {
        self.links.iter().find(|(_, link)| link.name == name).map(|(index, link)| (*index, link))
    }

    /// Indices of all interfaces.
    pub fn link_indices(&self) -> impl Iterator<Item = u32> {
        self.links.keys().copied()
    }

    /// Addresses of an interface.
    pub fn addresses(&self, link: u32) -> impl Iterator<Item = &Address> {
        self.addresses.iter().filter(move |address| address.link == link)
    }

    /// Routes through an interface.
    pub fn routes(&self, link: u32) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(move |route| route.link == link)
    }

    /// Adds or replaces an interface.
    pub fn put_link(&mut self, index: u32, link: Link) {
        if !link.admin_up {
            // The kernel drops the routes of an interface that is switched off and tells nobody about those of IPv4.
            self.routes.retain(|route| route.link != index);
        }
        self.links.insert(index, link);
    }

    /// Removes an interface and all that hangs on it.
    pub fn remove_link(&mut self, index: u32) {
        self.links.remove(&index);
        self.addresses.retain(|address| address.link != index);
        self.routes.retain(|route| route.link != index);
    }

    /// Adds or replaces an address.
    pub fn put_address(&mut self, address: Address) {
        self.addresses.retain(|known| (known.link, known.network) != (address.link, address.network));
        self.addresses.push(address);
    }

    /// Removes an address, and the routes that would use it as source.
    pub fn remove_address(&mut self, link: u32, network: IpNet) {
        self.addresses.retain(|known| (known.link, known.network) != (link, network));
        self.routes.retain(|route| route.link != link || route.source != Some(network.addr()));
    }

    /// Adds a route.
    pub fn put_route(&mut self, route: Route) {
        if !self.routes.contains(&route) {
            self.routes.push(route);
        }
    }

    /// Removes a route.
    pub fn remove_route(&mut self, route: &Route) {
        self.routes.retain(|known| known != route);
    }

    /// Replaces all routes by a fresh dump.
    pub fn replace_routes(&mut self, routes: Vec<Route>) {
        self.routes = routes;
    }

    /// Takes in one message of the kernel. Routes may vanish or be replaced without a message of their own, so a fresh
    /// dump of them is due after every one.
    pub fn apply(&mut self, message: &RouteNetlinkMessage) {
        match message {
            RouteNetlinkMessage::NewLink(message) => {
                if let Some(link) = link(message) {
                    self.put_link(message.header.index, link);
                }
            }
            RouteNetlinkMessage::DelLink(message) => self.remove_link(message.header.index),
            RouteNetlinkMessage::NewAddress(message) => match address(message) {
                Some((address, true)) => self.put_address(address),
                Some((address, false)) => self.remove_address(address.link, address.network),
                None => {}
            },
            RouteNetlinkMessage::DelAddress(message) => {
                if let Some((address, _)) = address(message) {
                    self.remove_address(address.link, address.network);
                }
            }
            RouteNetlinkMessage::NewRoute(message) => {
                if let Some(route) = route(message) {
                    self.put_route(route);
                }
            }
            RouteNetlinkMessage::DelRoute(message) => {
                if let Some(route) = route(message) {
                    self.remove_route(&route);
                }
            }
            _ => {}
        }
    }
}

fn link(message: &LinkMessage) -> Option<Link> {
    let flags = message.header.flags;
    let mut name = None;
    let mut mtu = 0;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Mtu(value) => mtu = *value,
            _ => {}
        }
    }
    let (admin_up, carrier) = (flags.contains(LinkFlags::Up), flags.contains(LinkFlags::LowerUp));
    Some(Link { name: name?, admin_up, carrier, mtu })
}

/// The address, and whether it may be used: not while its uniqueness is still being tested, nor after that failed.
fn address(message: &AddressMessage) -> Option<(Address, bool)> {
    let mut flags = AddressFlags::empty();
    let (mut local, mut peer) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => peer = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let network = IpNet::new(local.or(peer)?, message.header.prefix_len).ok()?;
    let usable = !flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
    let deprecated = flags.contains(AddressFlags::Deprecated);
    Some((Address { link: message.header.index, network, deprecated }, usable))
}

/// The route, if it is one that can lead to a gateway: unicast, main table, one next hop.
pub(super) fn route(message: &RouteMessage) -> Option<Route> {
    let mut table = u32::from(message.header.table);
    let (mut link, mut destination, mut next_hop, mut source, mut metric) = (None, None, None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::Gateway(address) => next_hop = ip(address),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Priority(value) => metric = *value,
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) || message.header.kind != RouteType::Unicast {
        return None;
    }
    let any = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let destination = IpNet::new(destination.unwrap_or(any), message.header.destination_prefix_length).ok()?;
    Some(Route { link: link?, destination, next_hop, source, metric, ours: message.header.protocol == PROTOCOL })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn populated() -> Table {
        let mut table = Table::default();
        table.put_link(2, Link { name: "wifi0".into(), admin_up: true, carrier: true, mtu: 1500 });
        table.put_address(Address { link: 2, network: "10.0.0.5/24".parse().unwrap(), deprecated: false });
        table.put_route(Route {
            link: 2,
            destination: "0.0.0.0/0".parse().unwrap(),
            next_hop: Some("10.0.0.1".parse().unwrap()),
            source: None,
            metric: 100,
            ours: false,
        });
        table
    }

    #[test]
    fn a_link_that_is_switched_off_loses_its_routes_at_once() {
        let mut table = populated();
        table.put_link(2, Link { name: "wifi0".into(), admin_up: false, carrier: false, mtu: 1500 });
        assert_eq!(table.routes(2).count(), 0);
        assert_eq!(table.addresses(2).count(), 1);
    }

    #[test]
    fn a_link_that_only_lost_its_carrier_keeps_its_routes() {
        let mut table = populated();
        table.put_link(2, Link { name: "wifi0".into(), admin_up: true, carrier: false, mtu: 1500 });
        assert_eq!(table.routes(2).count(), 1);
    }

    #[test]
    fn a_removed_link_takes_everything_with_it() {
        let mut table = populated();
        table.remove_link(2);
        assert_eq!(table, Table::default());
    }

    #[test]
    fn an_address_is_replaced_not_doubled() {
        let mut table = populated();
        table.put_address(Address { link: 2, network: "10.0.0.5/24".parse().unwrap(), deprecated: true });
        assert_eq!(table.addresses(2).map(|address| address.deprecated).collect::<Vec<_>>(), [true]);
    }
}
