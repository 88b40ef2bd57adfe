//! Next hops: the number that stands beside a binding, and the Ethernet addresses behind it.
//!
//! Pure: the tables come in, the changes that workers must hear of go out. A number stands for one neighbour on the
//! outside link (a router, or a peer on the link itself), so a router that answers from another Ethernet address costs
//! one command, and not one for each session.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use jumpgate_protocol::ident::Arrival;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, NetlinkError, RouteTable, Via};
use crate::handover::{INSIDE_HOP, MAX_NEXT_HOPS, NextHop};

/// First number of an outside next hop; the one below is the inside link.
pub const FIRST_HOP: u32 = INSIDE_HOP + 1;
/// Numbers there are, so that the workers' table has a fixed size.
pub const MAX_HOPS: u32 = MAX_NEXT_HOPS;
/// Most peers whose route is followed. Beyond it the one known longest is forgotten: should its route change, its
/// client finds the path dead and reattaches, which makes it known again.
const MAX_PEERS: usize = 1 << 17;

/// A neighbour on some link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Number of the interface.
    pub interface: u32,
    /// Its IP address.
    pub address: IpAddr,
    /// Its Ethernet address, while packets may be sent there.
    pub mac: Option<[u8; 6]>,
    /// Whether the kernel doubts it and should be asked to check again.
    pub doubtful: bool,
}

/// What others must do after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A number means another next hop now; none: it cannot be reached.
    Hop {
        /// The number.
        id: u32,
        /// Its Ethernet addresses.
        hop: Option<NextHop>,
    },
    /// A peer is reached by another number now; [`Arrival::NO_ROUTE`] if by none.
    Peer {
        /// Address of the peer.
        peer: IpAddr,
        /// The number.
        route: u32,
    },
    /// A peer made room for another: its number is not kept up to date any more, whoever uses it now may go on.
    Forget(IpAddr),
    /// The kernel shall resolve this neighbour of the outside link.
    Resolve(IpAddr),
}

/// The next hops of the outside link.
#[derive(Debug)]
pub struct NextHops {
    interface: u32,
    mac: [u8; 6],
    routes: RouteTable,
    neighbours: HashMap<IpAddr, Neighbour>,
    ids: HashMap<IpAddr, u32>,
    free: Vec<u32>,
    peers: HashMap<IpAddr, u32>,
    oldest_peers: VecDeque<IpAddr>,
}

impl NextHops {
    /// Next hops on the interface with that number and Ethernet address; empty until [`NextHops::load`].
    pub fn new(interface: u32, mac: [u8; 6]) -> Self {
        Self {
            interface,
            mac,
            routes: RouteTable::default(),
            neighbours: HashMap::new(),
            ids: HashMap::new(),
            free: (FIRST_HOP..MAX_HOPS).rev().collect(),
            peers: HashMap::new(),
            oldest_peers: VecDeque::new(),
        }
    }

    /// The number for packets to `peer`, for a peer that has proved nothing: it may use what is known, but fills no
    /// table and makes the kernel resolve nothing.
    pub fn route_to(&mut self, peer: IpAddr, changes: &mut Vec<Change>) -> u32 {
        if let Some(id) = self.peers.get(&peer) {
            return *id;
        }
        match self.neighbour_towards(peer) {
            Some(neighbour) if self.mac_of(neighbour).is_some() => self.id_of(neighbour, changes),
            _ => Arrival::NO_ROUTE,
        }
    }

    /// The number for packets to `peer`, which has an authentic session: from now on its route is followed.
    pub fn follow(&mut self, peer: IpAddr, changes: &mut Vec<Change>) -> u32 {
        if let Some(neighbour) = self.neighbour_towards(peer)
            && self.mac_of(neighbour).is_none()
        {
            changes.push(Change::Resolve(neighbour));
        }
        if let Some(id) = self.peers.get(&peer).copied()
            && id != Arrival::NO_ROUTE
        {
            return id;
        }
        let id = self.locate(peer, changes);
        if self.peers.insert(peer, id).is_none() {
            self.oldest_peers.push_back(peer);
            if self.oldest_peers.len() > MAX_PEERS
                && let Some(oldest) = self.oldest_peers.pop_front()
            {
                self.peers.remove(&oldest);
                changes.push(Change::Forget(oldest));
            }
        }
        changes.push(Change::Peer { peer, route: id });
        id
    }

    /// Takes new tables from the kernel and tells what they change.
    pub fn load(&mut self, routes: RouteTable, neighbours: Vec<Neighbour>, changes: &mut Vec<Change>) {
        self.routes = routes;
        let mut before = std::mem::take(&mut self.neighbours);
        self.neighbours =
            neighbours.into_iter().filter(|n| n.interface == self.interface).map(|n| (n.address, n)).collect();
        for (address, id) in &self.ids {
            let known = before.remove(address);
            match self.neighbours.get(address) {
                Some(neighbour) if neighbour.mac == known.and_then(|known| known.mac) => {}
                Some(neighbour) => changes.push(Change::Hop { id: *id, hop: self.hop(neighbour.mac) }),
                // Forgotten, not failed: see `forgotten`.
                None => self.neighbours.extend(known.map(|known| (*address, Neighbour { doubtful: true, ..known }))),
            }
        }
        let peers: Vec<_> = self.peers.iter().map(|(peer, id)| (*peer, *id)).collect();
        for (peer, old) in peers {
            let id = self.locate(peer, changes);
            if id != old {
                self.peers.insert(peer, id);
                changes.push(Change::Peer { peer, route: id });
            }
        }
        changes.extend(self.doubtful());
    }

    /// Takes news of one neighbour.
    pub fn neighbour(&mut self, neighbour: Neighbour, changes: &mut Vec<Change>) {
        if neighbour.interface != self.interface {
            return;
        }
        let before = self.mac_of(neighbour.address);
        if neighbour.mac.is_some() {
            self.neighbours.insert(neighbour.address, neighbour);
        } else {
            self.neighbours.remove(&neighbour.address);
        }
        if let Some(id) = self.ids.get(&neighbour.address)
            && before != neighbour.mac
        {
            changes.push(Change::Hop { id: *id, hop: self.hop(neighbour.mac) });
            if neighbour.mac.is_none() {
                changes.push(Change::Resolve(neighbour.address));
            }
        }
    }

    /// The kernel has forgotten a neighbour, as it does with those that it does not use itself. That says nothing about
    /// the neighbour: while we use it, its address holds until a new resolution fails.
    pub fn forgotten(&mut self, neighbour: Neighbour, changes: &mut Vec<Change>) {
        if neighbour.interface != self.interface {
            return;
        }
        if self.ids.contains_key(&neighbour.address) {
            changes.push(Change::Resolve(neighbour.address));
        } else {
            self.neighbours.remove(&neighbour.address);
        }
    }

    /// The outside interface has this Ethernet address now.
    pub fn own_mac(&mut self, mac: [u8; 6], changes: &mut Vec<Change>) {
        if mac != self.mac {
            self.mac = mac;
            for (address, id) in &self.ids {
                changes.push(Change::Hop { id: *id, hop: self.hop(self.mac_of(*address)) });
            }
        }
    }

    /// Neighbours in use that the kernel should check again: it cannot see that AF_XDP sends to them, and would forget
    /// them one day.
    pub fn doubtful(&self) -> impl Iterator<Item = Change> + '_ {
        self.ids
            .keys()
            .filter(|address| self.neighbours.get(address).is_none_or(|neighbour| neighbour.doubtful))
            .map(|address| Change::Resolve(*address))
    }

    /// The number of the neighbour towards `peer`, resolved or not.
    fn locate(&mut self, peer: IpAddr, changes: &mut Vec<Change>) -> u32 {
        match self.neighbour_towards(peer) {
            Some(neighbour) => self.id_of(neighbour, changes),
            None => Arrival::NO_ROUTE,
        }
    }

    /// The neighbour on the outside link that packets to `peer` go to.
    fn neighbour_towards(&self, peer: IpAddr) -> Option<IpAddr> {
        match self.routes.lookup(peer) {
            Via::Router { interface, address } if interface == self.interface => Some(address),
            Via::OnLink { interface } if interface == self.interface => Some(peer),
            _ => None,
        }
    }

    fn id_of(&mut self, neighbour: IpAddr, changes: &mut Vec<Change>) -> u32 {
        if let Some(id) = self.ids.get(&neighbour) {
            return *id;
        }
        if self.free.is_empty() {
            self.free_unused();
        }
        let Some(id) = self.free.pop() else { return Arrival::NO_ROUTE };
        self.ids.insert(neighbour, id);
        changes.push(Change::Hop { id, hop: self.hop(self.mac_of(neighbour)) });
        id
    }

    /// Takes back the numbers that no followed peer uses.
    fn free_unused(&mut self) {
        let used: std::collections::HashSet<u32> = self.peers.values().copied().collect();
        self.ids.retain(|_, id| {
            let keep = used.contains(id);
            if !keep {
                self.free.push(*id);
            }
            keep
        });
    }

    fn mac_of(&self, neighbour: IpAddr) -> Option<[u8; 6]> {
        self.neighbours.get(&neighbour).and_then(|neighbour| neighbour.mac)
    }

    fn hop(&self, destination: Option<[u8; 6]>) -> Option<NextHop> {
        destination.map(|destination_mac| NextHop { source_mac: self.mac, destination_mac, vlan: None })
    }
}

impl Neighbour {
    /// Reads the kernel's table.
    pub fn read_all(netlink: &mut Netlink) -> Result<Vec<Self>, NetlinkError> {
        let mut found = Vec::new();
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        netlink.dump("list neighbours", request, &mut |answer| {
            if let RouteNetlinkMessage::NewNeighbour(message) = answer {
                found.extend(Self::from_message(&message));
            }
        })?;
        Ok(found)
    }

    pub(super) fn from_message(message: &NeighbourMessage) -> Option<Self> {
        if !matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6) {
            return None;
        }
        let mut address = None;
        let mut mac = None;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
                _ => {}
            }
        }
        let (usable, doubtful) = match message.header.state {
            NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp => (true, false),
            NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => (true, true),
            _ => (false, true),
        };
        Some(Self { interface: message.header.ifindex, address: address?, mac: mac.filter(|_| usable), doubtful })
    }
}

impl Netlink {
    /// Has the kernel resolve a neighbour, or check it again, as if it had a packet to send there.
    pub fn resolve(&mut self, interface: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = interface;
        message.header.flags = NeighbourFlags::Use;
        let destination = match address {
            IpAddr::V4(ip) => {
                message.header.family = AddressFamily::Inet;
                NeighbourAddress::Inet(ip)
            }
            IpAddr::V6(ip) => {
                message.header.family = AddressFamily::Inet6;
                NeighbourAddress::Inet6(ip)
            }
        };
        message.attributes.push(NeighbourAttribute::Destination(destination));
        let flags = netlink_packet_core::NLM_F_CREATE;
        self.change(&format!("resolve {address}"), RouteNetlinkMessage::NewNeighbour(message), flags)
    }
}

#[cfg(test)]
mod tests;
