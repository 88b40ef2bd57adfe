//! The inside port as a pair of virtual interfaces into this host's kernel.
//!
//! ```text
//!   workers == AF_XDP == jg0-port <------ pair ------> jg0   10.66.0.1/16, routing, nftables, NAT of the host
//! ```
//!
//! The host's end carries the gateway's inner addresses and does no ARP: whatever it sends to a client goes down the
//! pair with its own Ethernet address, and the steering looks at the inner address alone. The other end has no address
//! at all. Both ends go when the value is dropped, also when a later step of start-up fails.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Link, Netlink, NetlinkError};
use crate::config::{GATEWAY_INDEX, Pool};

/// Added to the host's end's name, it names the gateway's end.
pub const PORT_SUFFIX: &str = "-port";
/// Mark on interfaces that are ours: only those may be removed as left over.
const MARK: &str = "jumpgate inside port";

/// What to build.
#[derive(Debug, Clone)]
pub struct VethPlan {
    /// Name of the host's end.
    pub host_name: String,
    /// Queues of both ends; as many as workers.
    pub queues: u32,
    /// Largest inner packet.
    pub mtu: u32,
    /// Client addresses, routed to the pair by the gateway's own address in them.
    pub pool: Pool,
}

/// A pair that exists as long as this value.
#[derive(Debug)]
pub struct InsideVeth {
    host: Link,
    port: Link,
}

/// Why there is no pair.
#[derive(Debug, thiserror::Error)]
pub enum VethError {
    /// The name belongs to an interface that is not ours.
    #[error("there is an interface {0} already, and jumpgate did not make it")]
    NameTaken(String),
    /// A running gateway has its program on the pair.
    #[error("the pair {0} belongs to a gateway that is running")]
    InUse(String),
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// What was just made cannot be found.
    #[error("interface {0} vanished while it was set up")]
    Vanished(String),
}

impl InsideVeth {
    /// Makes the pair, gives the host's end its addresses and switches both on.
    pub fn create(netlink: &mut Netlink, plan: &VethPlan) -> Result<Self, VethError> {
        Self::remove_leftover(netlink, &plan.host_name)?;
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        netlink.change(&format!("make the pair {}", plan.host_name), new_pair(plan), flags)?;
        let find =
            |netlink: &mut Netlink, name: &str| netlink.link(name)?.ok_or_else(|| VethError::Vanished(name.to_owned()));
        // From here on the pair exists: `pair` removes it if anything below fails.
        let host = find(netlink, &plan.host_name)?;
        let mut pair = Self { port: host.clone(), host };
        pair.port = find(netlink, &format!("{}{PORT_SUFFIX}", plan.host_name))?;
        for link in [&pair.host, &pair.port] {
            let mut message = LinkMessage::default();
            message.header.index = link.index;
            message.attributes.push(LinkAttribute::IfAlias(MARK.to_owned()));
            netlink.change(&format!("mark {}", link.name), RouteNetlinkMessage::SetLink(message), 0)?;
        }
        if let Err(error) = netlink.change("switch IPv6 addresses off", without_link_local(&pair.port), 0) {
            tracing::debug!(%error, "the port end keeps its link-local address; nothing listens there");
        }
        netlink.change(&format!("switch {} on", pair.port.name), switch_on(&pair.port, false), 0)?;
        netlink.change(&format!("switch {} on", pair.host.name), switch_on(&pair.host, true), 0)?;
        for (address, prefix) in gateway_addresses(&plan.pool) {
            let operation = format!("give {} the address {address}/{prefix}", pair.host.name);
            netlink.change(&operation, new_address(&pair.host, address, prefix), flags)?;
        }
        // Queue counts, addresses and flags are final now.
        pair.host = find(netlink, &pair.host.name)?;
        pair.port = find(netlink, &pair.port.name)?;
        Ok(pair)
    }

    /// The host's end.
    pub const fn host(&self) -> &Link {
        &self.host
    }

    /// The gateway's end, which gets the XDP program and the AF_XDP sockets.
    pub const fn port(&self) -> &Link {
        &self.port
    }

    /// Removes a pair that a crash left; says whether there was one. An interface of that name that is not ours stays
    /// and is an error, and so does the pair of a running gateway: its program is on the port end, and goes with it.
    pub fn remove_leftover(netlink: &mut Netlink, host_name: &str) -> Result<bool, VethError> {
        let port = netlink.link(&format!("{host_name}{PORT_SUFFIX}"))?;
        if port.is_some_and(|port| port.xdp && port.alias.as_deref() == Some(MARK)) {
            return Err(VethError::InUse(host_name.to_owned()));
        }
        for name in [host_name.to_owned(), format!("{host_name}{PORT_SUFFIX}")] {
            match netlink.link(&name)? {
                Some(link) if link.alias.as_deref() == Some(MARK) => {
                    netlink.remove_link(link.index)?;
                    return Ok(true);
                }
                Some(_) => return Err(VethError::NameTaken(name)),
                None => {}
            }
        }
        Ok(false)
    }
}

impl Drop for InsideVeth {
    fn drop(&mut self) {
        let removed = Netlink::open().and_then(|mut netlink| netlink.remove_link(self.host.index));
        match removed {
            // Somebody removed it before us, by hand or with its network namespace.
            Err(error) if error.errno() == Some(nix::errno::Errno::ENODEV) => {}
            Err(error) => tracing::warn!(
                %error,
                "the pair {} is left over; remove it: ip link delete {}", self.host.name, self.host.name
            ),
            Ok(()) => {}
        }
    }
}

fn new_pair(plan: &VethPlan) -> RouteNetlinkMessage {
    let end = |name: String| {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name),
            LinkAttribute::Mtu(plan.mtu),
            LinkAttribute::NumTxQueues(plan.queues),
            LinkAttribute::NumRxQueues(plan.queues),
        ];
        message
    };
    let peer = end(format!("{}{PORT_SUFFIX}", plan.host_name));
    let mut host = end(plan.host_name.clone());
    host.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    RouteNetlinkMessage::NewLink(host)
}

fn without_link_local(link: &Link) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
        In6AddrGenMode::None,
    )])]));
    RouteNetlinkMessage::SetLink(message)
}

fn switch_on(link: &Link, without_arp: bool) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    if without_arp {
        message.header.flags |= LinkFlags::Noarp;
        message.header.change_mask |= LinkFlags::Noarp;
    }
    RouteNetlinkMessage::SetLink(message)
}

fn gateway_addresses(pool: &Pool) -> impl Iterator<Item = (IpAddr, u8)> {
    let v4 = pool.v4().and_then(|net| Some((IpAddr::V4(pool.addresses().v4(GATEWAY_INDEX)?), net.prefix_len())));
    let v6 = pool.v6().and_then(|net| Some((IpAddr::V6(pool.addresses().v6(GATEWAY_INDEX)?), net.prefix_len())));
    v4.into_iter().chain(v6)
}

fn new_address(link: &Link, address: IpAddr, prefix: u8) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.index = link.index;
    message.header.prefix_len = prefix;
    message.header.scope = AddressScope::Universe;
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    if address.is_ipv6() {
        // Nobody else is on this link, so nobody can have the address already.
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    RouteNetlinkMessage::NewAddress(message)
}
