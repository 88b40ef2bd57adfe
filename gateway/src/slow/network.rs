//! What the kernel tells of the network: neighbours, routes and links, and what workers must know of it.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::{Parts, SlowPath};
use crate::fault::Fault;
use crate::handover::{Command, INSIDE_HOP};
use crate::net::{Change, Neighbour, Netlink, NetlinkError, News, RouteTable};

/// Time from news of routes to reading them again, so that a burst of changes costs one reading.
const TABLES_SETTLE: Duration = Duration::from_millis(20);
/// Reading a table of the whole Internet takes long: never more than one part in so many of the time goes into it.
const TABLES_SHARE: u32 = 8;

impl SlowPath {
    pub(super) fn take_news(&mut self) -> Result<(), Fault> {
        let mut changes = Vec::new();
        let mut stale = false;
        let Self { parts, .. } = self;
        let Parts { watcher, next_hops, inside_hop, outside, inside, .. } = parts;
        let mut inside_changed = false;
        let mut gone = None;
        let mut tell = |news| match news {
            News::Neighbour(neighbour) => {
                next_hops.neighbour(neighbour, &mut changes);
                inside_changed |= inside_hop.neighbour(&neighbour);
            }
            News::NeighbourForgotten(neighbour) => {
                inside_hop.forgotten(&neighbour);
                next_hops.forgotten(neighbour, &mut changes);
            }
            News::Link(link) => {
                if link.index == *outside {
                    next_hops.own_mac(link.mac, &mut changes);
                    if !link.up {
                        tracing::warn!(interface = link.name, "the outside interface was switched off");
                    }
                }
                stale = true;
            }
            News::LinkGone(link) => {
                if [*outside, *inside].contains(&link.index) {
                    gone = Some(link.name);
                }
                stale = true;
            }
            News::Tables => stale = true,
        };
        while watcher.read(&mut tell).map_err(Fault::ours)? {}
        if let Some(interface) = gone {
            // Its sockets never come back, not even with an interface of the same name.
            let problem = format!("interface {interface} is gone, and no packet can pass without it");
            return Err(Fault::operator(problem, "bring it back, and start the gateway again"));
        }
        if stale && self.tables_due.is_none() {
            self.tables_due = Some(Instant::now() + TABLES_SETTLE.max(self.tables_cost * TABLES_SHARE));
        }
        self.apply(changes);
        if inside_changed {
            self.tell_inside_hop();
        }
        Ok(())
    }

    /// Reads routes, neighbours and, for wildcard listen addresses, own addresses again.
    pub(super) fn read_tables(&mut self) {
        let started = Instant::now();
        let read = |netlink: &mut Netlink| -> Result<_, NetlinkError> {
            Ok((RouteTable::read(netlink)?, Neighbour::read_all(netlink)?))
        };
        let mut changes = Vec::new();
        match read(&mut self.parts.netlink) {
            Ok((routes, neighbours)) => {
                if neighbours.iter().fold(false, |changed, n| self.parts.inside_hop.neighbour(n) | changed) {
                    self.tell_inside_hop();
                }
                self.parts.next_hops.load(routes, neighbours, &mut changes);
            }
            Err(error) => tracing::warn!(%error, "routes and neighbours stay as they were"),
        }
        self.apply(changes);
        self.resolve_inside();
        if let Err(error) = self.follow_own_addresses() {
            tracing::warn!(%error, "own addresses stay as they were");
        }
        self.tables_cost = started.elapsed();
    }

    fn follow_own_addresses(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        let Parts { wildcard, netlink, outside, steering, .. } = &mut self.parts;
        let Some(known) = wildcard else { return Ok(()) };
        let current: HashSet<IpAddr> = netlink.addresses(Some(*outside))?.into_iter().collect();
        for address in known.difference(&current) {
            steering.remove_local(*address)?;
        }
        for address in current.difference(known) {
            steering.add_local(*address)?;
        }
        *known = current;
        Ok(())
    }

    pub(super) fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Hop { id, hop } => self.owners.tell_all(|| Command::NextHop { id, hop }),
                Change::Peer { peer, route } => self.owners.tell_all(|| Command::Route { peer, route }),
                Change::Forget(peer) => self.owners.tell_all(|| Command::ForgetPeer { peer }),
                Change::Resolve(address) => {
                    if let Err(error) = self.parts.netlink.resolve(self.parts.outside, address) {
                        tracing::debug!(%error, "cannot be resolved now");
                    }
                }
            }
        }
    }

    pub(super) fn tell_inside_hop(&mut self) {
        let (id, hop) = (INSIDE_HOP, self.parts.inside_hop.hop());
        self.owners.tell_all(|| Command::NextHop { id, hop });
    }

    pub(super) fn resolve_inside(&mut self) {
        if let Some((interface, router)) = self.parts.inside_hop.unresolved()
            && let Err(error) = self.parts.netlink.resolve(interface, router)
        {
            tracing::debug!(%error, "the inside router cannot be resolved now");
        }
    }
}
