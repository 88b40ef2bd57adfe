//! Network interfaces and their addresses.

use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, LinkXdp, XdpAttached};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, NetlinkError};

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; zero for interfaces that have none.
    pub mac: [u8; 6],
    /// Largest IP packet.
    pub mtu: u32,
    /// Whether an operator has switched it on.
    pub up: bool,
    /// The mark that an operator or program left on it.
    pub alias: Option<String>,
    /// Whether an XDP program is attached to it.
    pub xdp: bool,
}

impl Link {
    pub(super) fn from_message(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: [0; 6],
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            alias: None,
            xdp: false,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(address) => link.mac = address.as_slice().try_into().unwrap_or_default(),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
                LinkAttribute::Xdp(attributes) => {
                    let is_mode = |attribute: &LinkXdp| matches!(attribute, LinkXdp::Attached(mode) if *mode != XdpAttached::None);
                    link.xdp = attributes.iter().any(is_mode);
                }
                _ => {}
            }
        }
        link
    }
}

impl Netlink {
    /// The interface of that name, if there is one.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let answer = self.ask(&format!("look up {name}"), RouteNetlinkMessage::GetLink(message))?;
        Ok(match answer {
            Some(RouteNetlinkMessage::NewLink(message)) => Some(Link::from_message(&message)),
            _ => None,
        })
    }

    /// Removes an interface.
    pub fn remove_link(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.change(&format!("remove interface {index}"), RouteNetlinkMessage::DelLink(message), 0)
    }

    /// Unicast addresses of an interface, or of the whole host, that peers can send to (no tentative ones).
    pub fn addresses(&mut self, of: Option<u32>) -> Result<Vec<IpAddr>, NetlinkError> {
        let mut found = Vec::new();
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump("list addresses", request, &mut |answer| {
            let RouteNetlinkMessage::NewAddress(message) = answer else { return };
            let tentative = message.header.flags.contains(AddressHeaderFlags::Tentative);
            let ours = of.is_none_or(|index| index == message.header.index);
            if ours && !tentative && message.header.scope != AddressScope::Host {
                found.extend(local_address(&message));
            }
        })?;
        Ok(found)
    }
}

/// The own address in a message: `Local` on point-to-point links, where `Address` is the peer's.
fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => return Some(*local),
            AddressAttribute::Address(other) => address = Some(*other),
            _ => {}
        }
    }
    address.filter(|_| matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6))
}
