use super::*;
use crate::net::Route;

const OUTSIDE: u32 = 7;
const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn routes(router: &str) -> RouteTable {
    let mut table = RouteTable::default();
    let via = Via::Router { interface: OUTSIDE, address: address(router) };
    table.insert(Route { prefix: "0.0.0.0/0".parse().expect("prefix"), metric: 0, via });
    let link = Via::OnLink { interface: OUTSIDE };
    table.insert(Route { prefix: "192.0.2.0/24".parse().expect("prefix"), metric: 0, via: link });
    let elsewhere = Via::OnLink { interface: OUTSIDE + 1 };
    table.insert(Route { prefix: "10.0.0.0/8".parse().expect("prefix"), metric: 0, via: elsewhere });
    table
}

fn neighbour(text: &str, mac: Option<[u8; 6]>) -> Neighbour {
    Neighbour { interface: OUTSIDE, address: address(text), mac, doubtful: false }
}

fn hop(mac: [u8; 6]) -> Option<NextHop> {
    Some(NextHop { source_mac: OWN_MAC, destination_mac: mac, vlan: None })
}

fn loaded() -> NextHops {
    let mut hops = NextHops::new(OUTSIDE, OWN_MAC);
    let mut changes = Vec::new();
    hops.load(routes("192.0.2.254"), vec![neighbour("192.0.2.254", Some(ROUTER_MAC))], &mut changes);
    assert!(changes.is_empty(), "nobody follows anything yet: {changes:?}");
    hops
}

#[test]
fn peers_behind_one_router_share_its_number() {
    let mut hops = loaded();
    let mut changes = Vec::new();
    let first = hops.follow(address("198.51.100.1"), &mut changes);
    let second = hops.follow(address("203.0.113.9"), &mut changes);
    assert_eq!(first, second);
    assert_eq!(
        changes,
        [
            Change::Hop { id: first, hop: hop(ROUTER_MAC) },
            Change::Peer { peer: address("198.51.100.1"), route: first },
            Change::Peer { peer: address("203.0.113.9"), route: first },
        ]
    );
}

#[test]
fn a_router_that_answers_from_another_ethernet_address_costs_one_change() {
    let mut hops = loaded();
    let mut changes = Vec::new();
    let id = hops.follow(address("198.51.100.1"), &mut changes);
    hops.follow(address("198.51.100.2"), &mut changes);
    changes.clear();
    hops.neighbour(neighbour("192.0.2.254", Some([9; 6])), &mut changes);
    assert_eq!(changes, [Change::Hop { id, hop: hop([9; 6]) }]);
    changes.clear();
    hops.neighbour(neighbour("192.0.2.254", Some([9; 6])), &mut changes);
    assert!(changes.is_empty(), "the same again is no news");
    hops.neighbour(neighbour("192.0.2.254", None), &mut changes);
    assert_eq!(changes, [Change::Hop { id, hop: None }, Change::Resolve(address("192.0.2.254"))]);
}

#[test]
fn a_neighbour_that_the_kernel_forgot_is_used_on_and_resolved_again() {
    let mut hops = loaded();
    let peer = address("198.51.100.1");
    hops.follow(peer, &mut Vec::new());
    let resolve = Change::Resolve(address("192.0.2.254"));
    let mut changes = Vec::new();
    hops.forgotten(neighbour("192.0.2.254", Some(ROUTER_MAC)), &mut changes);
    assert_eq!(changes, [resolve]);
    changes.clear();
    hops.load(routes("192.0.2.254"), Vec::new(), &mut changes);
    assert_eq!(changes, [resolve], "also when a new reading of the tables does not have it");
    changes.clear();
    hops.neighbour(neighbour("192.0.2.254", Some(ROUTER_MAC)), &mut changes);
    assert!(changes.is_empty(), "the resolution confirms what was used all the time: {changes:?}");
}

#[test]
fn another_default_route_moves_the_peers_that_used_it() {
    let mut hops = loaded();
    let mut changes = Vec::new();
    let peer = address("198.51.100.1");
    let before = hops.follow(peer, &mut changes);
    changes.clear();
    let neighbours = vec![neighbour("192.0.2.254", Some(ROUTER_MAC)), neighbour("192.0.2.253", Some([5; 6]))];
    hops.load(routes("192.0.2.253"), neighbours, &mut changes);
    let after = hops.follow(peer, &mut Vec::new());
    assert_ne!(before, after);
    assert_eq!(changes, [Change::Hop { id: after, hop: hop([5; 6]) }, Change::Peer { peer, route: after }]);
}

#[test]
fn a_route_that_goes_leaves_its_peers_without_one() {
    let mut hops = loaded();
    let peer = address("198.51.100.1");
    hops.follow(peer, &mut Vec::new());
    let mut changes = Vec::new();
    hops.load(RouteTable::default(), Vec::new(), &mut changes);
    assert!(changes.contains(&Change::Peer { peer, route: Arrival::NO_ROUTE }), "{changes:?}");
}

#[test]
fn an_unresolved_neighbour_of_an_authentic_peer_is_resolved() {
    let mut hops = loaded();
    let mut changes = Vec::new();
    let peer = address("192.0.2.77");
    let id = hops.follow(peer, &mut changes);
    assert!(changes.contains(&Change::Resolve(peer)), "{changes:?}");
    assert!(changes.contains(&Change::Hop { id, hop: None }));
    changes.clear();
    hops.neighbour(neighbour("192.0.2.77", Some([7; 6])), &mut changes);
    assert_eq!(changes, [Change::Hop { id, hop: hop([7; 6]) }]);
}

#[test]
fn a_peer_that_proved_nothing_fills_no_table_and_starts_no_resolution() {
    let mut hops = loaded();
    let mut changes = Vec::new();
    for last in 1..=100 {
        assert_eq!(hops.route_to(address(&format!("192.0.2.{last}")), &mut changes), Arrival::NO_ROUTE);
    }
    assert!(changes.is_empty());
    assert_ne!(hops.route_to(address("198.51.100.1"), &mut changes), Arrival::NO_ROUTE, "the router is known");
    assert!(hops.peers.is_empty());
}

#[test]
fn a_peer_behind_another_interface_has_no_outside_route() {
    let mut hops = loaded();
    assert_eq!(hops.follow(address("10.1.2.3"), &mut Vec::new()), Arrival::NO_ROUTE);
    assert_eq!(hops.follow(address("2001:db8::1"), &mut Vec::new()), Arrival::NO_ROUTE);
}

#[test]
fn numbers_that_no_peer_uses_are_given_out_again() {
    let mut hops = loaded();
    let mut changes = Vec::new();
    let kept = hops.follow(address("198.51.100.1"), &mut changes);
    // More neighbours than numbers, none of them a followed peer's.
    for index in 0..MAX_HOPS + 10 {
        let [_, _, high, low] = index.to_be_bytes();
        let peer = IpAddr::from([100, 64, high, low]);
        hops.neighbours
            .insert(peer, Neighbour { interface: OUTSIDE, address: peer, mac: Some([1; 6]), doubtful: false });
        let via = Via::OnLink { interface: OUTSIDE };
        hops.routes.insert(Route { prefix: peer.into(), metric: 0, via });
        let id = hops.route_to(peer, &mut changes);
        assert_ne!(id, Arrival::NO_ROUTE);
        assert_ne!(id, kept, "the number of a followed peer never changes its meaning");
    }
}

#[test]
fn the_kernel_is_asked_to_check_doubtful_neighbours_in_use() {
    let mut hops = loaded();
    hops.follow(address("198.51.100.1"), &mut Vec::new());
    assert_eq!(hops.doubtful().count(), 0);
    let router = Neighbour { doubtful: true, ..neighbour("192.0.2.254", Some(ROUTER_MAC)) };
    hops.neighbour(router, &mut Vec::new());
    let unused = Neighbour { doubtful: true, ..neighbour("192.0.2.4", Some([4; 6])) };
    hops.neighbour(unused, &mut Vec::new());
    assert_eq!(hops.doubtful().collect::<Vec<_>>(), [Change::Resolve(address("192.0.2.254"))]);
}

#[test]
fn a_new_ethernet_address_of_our_own_reaches_every_hop() {
    let mut hops = loaded();
    let id = hops.follow(address("198.51.100.1"), &mut Vec::new());
    let mut changes = Vec::new();
    hops.own_mac([3; 6], &mut changes);
    let hop = NextHop { source_mac: [3; 6], destination_mac: ROUTER_MAC, vlan: None };
    assert_eq!(changes, [Change::Hop { id, hop: Some(hop) }]);
}

#[test]
fn inv22_a_peer_that_makes_room_is_forgotten_by_the_workers_too() {
    let mut hops = loaded();
    let mut changes = Vec::new();
    let peer = |index: usize| IpAddr::from((0xc800_0000 + index as u32).to_be_bytes());
    for index in 0..MAX_PEERS {
        hops.follow(peer(index), &mut changes);
    }
    assert!(!changes.iter().any(|change| matches!(change, Change::Forget(_))));
    changes.clear();
    let route = hops.follow(peer(MAX_PEERS), &mut changes);
    assert_eq!(changes, [Change::Forget(peer(0)), Change::Peer { peer: peer(MAX_PEERS), route }]);
    assert_eq!(hops.peers.len(), MAX_PEERS);
}
