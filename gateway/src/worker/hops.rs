//! Next hops by id, and by peer; and when to ask for one that is missing.

use std::net::IpAddr;

use hashbrown::HashMap;
use jumpgate_protocol::ident::Arrival;
use jumpgate_protocol::time::{Span, Time};

use crate::handover::{MAX_NEXT_HOPS, NextHop};

/// How often a missing next hop is asked for: resolving takes the kernel at most some seconds.
const ASK_AGAIN: Span = Span::from_millis(1_000);

/// The worker's copy of the next-hop table, which the slow path keeps up to date.
#[derive(Debug)]
pub(super) struct Hops {
    by_id: Vec<Entry>,
    /// For packets without an id.
    unknown: Entry,
    by_peer: HashMap<IpAddr, u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    hop: Option<NextHop>,
    /// When the slow path was last asked for it.
    asked: Option<Time>,
}

impl Hops {
    pub(super) fn new() -> Self {
        Self {
            by_id: vec![Entry::default(); MAX_NEXT_HOPS as usize],
            unknown: Entry::default(),
            by_peer: HashMap::new(),
        }
    }

    /// The next hop of that id, if its link address is known.
    pub(super) fn hop(&self, id: u32) -> Option<&NextHop> {
        self.by_id.get(id as usize)?.hop.as_ref()
    }

    /// Sets or clears a next hop; an id beyond the table is ignored, and its packets stay unresolved.
    pub(super) fn set(&mut self, id: u32, hop: Option<NextHop>) {
        if let Some(entry) = self.by_id.get_mut(id as usize) {
            *entry = Entry { hop, asked: None };
        }
    }

    /// Id of the next hop towards a peer.
    pub(super) fn route(&self, peer: IpAddr) -> u32 {
        self.by_peer.get(&peer).copied().unwrap_or(Arrival::NO_ROUTE)
    }

    /// Sets or, with [`Arrival::NO_ROUTE`], forgets a peer's next hop.
    pub(super) fn set_route(&mut self, peer: IpAddr, route: u32) {
        if route == Arrival::NO_ROUTE {
            self.by_peer.remove(&peer);
        } else {
            self.by_peer.insert(peer, route);
        }
    }

    /// Whether it is time to ask the slow path for that next hop.
    pub(super) fn should_ask(&mut self, id: u32, now: Time) -> bool {
        let entry = self.by_id.get_mut(id as usize).unwrap_or(&mut self.unknown);
        let due = entry.asked.is_none_or(|asked| now.since(asked) >= ASK_AGAIN);
        if due {
            entry.asked = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOP: NextHop = NextHop { source_mac: [1; 6], destination_mac: [2; 6], vlan: None };

    #[test]
    fn a_missing_hop_is_asked_for_once_a_second() {
        let mut hops = Hops::new();
        let at = |millis| Time::from_millis(millis);
        for id in [7, Arrival::NO_ROUTE] {
            assert!(hops.should_ask(id, at(5_000)));
            assert!(!hops.should_ask(id, at(5_999)));
            assert!(hops.should_ask(id, at(6_000)));
        }
        hops.set(7, Some(HOP));
        hops.set(7, None);
        assert!(hops.should_ask(7, at(6_001)), "it was known in between");
    }

    #[test]
    fn routes_are_set_changed_and_forgotten() {
        let mut hops = Hops::new();
        let peer = IpAddr::from([198, 51, 100, 7]);
        assert_eq!(hops.route(peer), Arrival::NO_ROUTE);
        hops.set_route(peer, 3);
        hops.set_route(peer, 4);
        assert_eq!(hops.route(peer), 4);
        hops.set_route(peer, Arrival::NO_ROUTE);
        assert_eq!(hops.route(peer), Arrival::NO_ROUTE);
    }

    #[test]
    fn an_id_beyond_the_table_is_never_known() {
        let mut hops = Hops::new();
        hops.set(MAX_NEXT_HOPS, Some(HOP));
        assert_eq!(hops.hop(MAX_NEXT_HOPS), None);
        assert_eq!(hops.hop(Arrival::NO_ROUTE), None);
    }
}
