//! What this program adds to the kernel: the tunnel's addresses and routes, and the pins that keep packets to the
//! gateway outside of the tunnel. All of it carries the origin 106 (`ip route show proto 106`).

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteMessage, RouteScope};
use nix::errno::Errno;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder, new_connection};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::PROTOCOL;
use super::table::Table;

/// Metric of a pin: below (stronger than) what DHCP clients and network managers give to routes of their own, above
/// what an operator sets by hand with metric 0.
const PIN_METRIC: u32 = 10;

/// Why the tunnel's addresses or routes could not be set.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// Not allowed.
    #[error("not allowed to {action}; run as root or with CAP_NET_ADMIN")]
    Privilege {
        /// What was to be done.
        action: String,
    },
    /// A route with the same destination is there already.
    #[error(
        "a route to {network} exists already; remove it (`ip route del {network}`) or take {network} out of client.routes"
    )]
    Taken {
        /// The destination.
        network: IpNet,
    },
    /// The kernel refused for another reason.
    #[error("cannot {action}: {source}")]
    Refused {
        /// What was to be done.
        action: String,
        /// What the kernel says.
        source: rtnetlink::Error,
    },
}

/// A host route to the gateway through one uplink, outside of the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin {
    /// The gateway's address.
    pub destination: IpAddr,
    /// Index of the uplink.
    pub link: u32,
    /// Router, if the gateway is not on the link.
    pub next_hop: Option<IpAddr>,
    /// Rank among the uplinks; smaller wins where a packet is bound to none.
    pub rank: u16,
}

/// Sets and removes addresses and routes.
#[derive(Debug)]
pub struct Routes {
    handle: Handle,
    driver: JoinHandle<()>,
    pins: BTreeSet<Pin>,
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Routes {
    /// Opens a connection to the kernel.
    pub fn open() -> Result<Self, RouteError> {
        let (driver, handle, _) = new_connection()?;
        Ok(Self { handle, driver: tokio::spawn(driver), pins: BTreeSet::new() })
    }

    /// Switches the tunnel's interface on with this MTU.
    pub async fn enable_tunnel(&self, link: u32, mtu: u16) -> Result<(), RouteError> {
        let message = LinkUnspec::new_with_index(link).mtu(u32::from(mtu)).up().build();
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(|error| explain(error, format!("switch the tunnel on with an MTU of {mtu}")))
    }

    /// Gives the tunnel's interface an address; it may have it already.
    pub async fn add_address(&self, link: u32, network: IpNet) -> Result<(), RouteError> {
        let request = self.handle.address().add(link, network.addr(), network.prefix_len()).replace();
        request.execute().await.map_err(|error| explain(error, format!("give the tunnel the address {network}")))
    }

    /// Takes an address from the tunnel's interface again.
    pub async fn remove_address(&self, link: u32, network: IpNet) {
        let mut message = netlink_packet_route::address::AddressMessage::default();
        message.header.index = link;
        message.header.prefix_len = network.prefix_len();
        message.header.family = match network {
            IpNet::V4(_) => AddressFamily::Inet,
            IpNet::V6(_) => AddressFamily::Inet6,
        };
        message.attributes.push(netlink_packet_route::address::AddressAttribute::Local(network.addr()));
        if let Err(error) = self.handle.address().del(message).execute().await {
            warn!(%network, %error, "cannot take the former address from the tunnel");
        }
    }

    /// Leads a network into the tunnel. The route lives as long as the interface.
    pub async fn add_tunnel_route(&self, link: u32, network: IpNet) -> Result<(), RouteError> {
        for part in without_default(network) {
            let message = route_message(part, link, None, 0);
            match self.handle.route().add(message).execute().await {
                Ok(()) => debug!(network = %part, "routed into the tunnel"),
                Err(error) if errno(&error) == Some(Errno::EEXIST) => return Err(RouteError::Taken { network: part }),
                Err(error) => return Err(explain(error, format!("route {part} into the tunnel"))),
            }
        }
        Ok(())
    }

    /// Makes the pins what is wanted. What the kernel has is taken from `table`, not remembered: a link that went down
    /// lost its pin, and a killed run may have left one behind for one of `destinations`.
    pub async fn set_pins(&mut self, table: &Table, destinations: &BTreeSet<IpAddr>, wanted: BTreeSet<Pin>) {
        let links: BTreeSet<u32> = table.link_indices().collect();
        let installed: BTreeSet<Pin> = links
            .iter()
            .flat_map(|link| table.routes(*link))
            .filter(|route| route.ours && route.destination.prefix_len() == route.destination.max_prefix_len())
            .filter(|route| destinations.contains(&route.destination.addr()))
            .map(|route| Pin {
                destination: route.destination.addr(),
                link: route.link,
                next_hop: route.next_hop,
                rank: u16::try_from(route.metric.saturating_sub(PIN_METRIC)).unwrap_or(u16::MAX),
            })
            .collect();
        for pin in installed.difference(&wanted) {
            self.remove_pin(pin).await;
        }
        for pin in wanted.difference(&installed) {
            match self.handle.route().add(pin.message()).replace().execute().await {
                Ok(()) => debug!(destination = %pin.destination, link = pin.link, "pinned outside of the tunnel"),
                Err(error) => {
                    warn!(destination = %pin.destination, link = pin.link, %error, "cannot pin the gateway's route outside of the tunnel")
                }
            }
        }
        self.pins = wanted;
    }

    /// Removes every pin of this run.
    pub async fn remove_pins(&mut self) {
        for pin in std::mem::take(&mut self.pins) {
            self.remove_pin(&pin).await;
        }
    }

    async fn remove_pin(&self, pin: &Pin) {
        match self.handle.route().del(pin.message()).execute().await {
            Ok(()) => debug!(destination = %pin.destination, link = pin.link, "pin removed"),
            // Gone with its link: that is what was wanted.
            Err(error) if matches!(errno(&error), Some(Errno::ESRCH | Errno::ENODEV | Errno::ENETDOWN)) => {}
            Err(error) => {
                warn!(destination = %pin.destination, link = pin.link, %error, "cannot remove the pinned route")
            }
        }
    }
}

impl Pin {
    fn message(&self) -> RouteMessage {
        route_message(IpNet::from(self.destination), self.link, self.next_hop, PIN_METRIC + u32::from(self.rank))
    }
}

fn route_message(network: IpNet, link: u32, next_hop: Option<IpAddr>, metric: u32) -> RouteMessage {
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(network.addr(), network.prefix_len())
        .expect("the length of a parsed network is legal")
        .output_interface(link)
        .protocol(PROTOCOL)
        .priority(metric);
    if let Some(hop) = next_hop {
        builder = builder.gateway(hop).expect("a next hop found for this network has its family");
    } else if network.addr().is_ipv4() {
        builder = builder.scope(RouteScope::Link);
    }
    builder.build()
}

/// A default route as its two halves: they win over the machine's own default route without touching it.
fn without_default(network: IpNet) -> Vec<IpNet> {
    let halves: Vec<IpNet> = match network {
        IpNet::V4(v4) if v4.prefix_len() == 0 => v4.subnets(1).into_iter().flatten().map(Ipv4Net::into).collect(),
        IpNet::V6(v6) if v6.prefix_len() == 0 => v6.subnets(1).into_iter().flatten().map(Ipv6Net::into).collect(),
        other => vec![other],
    };
    halves
}

fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| Errno::from_raw(code.get().abs())),
        _ => None,
    }
}

fn explain(source: rtnetlink::Error, action: String) -> RouteError {
    match errno(&source) {
        Some(Errno::EPERM | Errno::EACCES) => RouteError::Privilege { action },
        _ => RouteError::Refused { action, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_route_becomes_its_two_halves() {
        let show = |text: &str| without_default(text.parse().unwrap()).iter().map(IpNet::to_string).collect::<Vec<_>>();
        assert_eq!(show("0.0.0.0/0"), ["0.0.0.0/1", "128.0.0.0/1"]);
        assert_eq!(show("::/0"), ["::/1", "8000::/1"]);
        assert_eq!(show("10.0.0.0/8"), ["10.0.0.0/8"]);
    }
}
