//! Against the kernel, in network namespaces of the tests' own.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::thread;
use std::time::{Duration, Instant};

use jumpgate_protocol::ident::Arrival;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::namespace::Namespace;
use super::*;
use crate::config::Pool;

/// ARP on a veth pair takes microseconds; a loaded machine gets this long.
const PATIENCE: Duration = Duration::from_secs(10);

fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn plan(queues: u32) -> VethPlan {
    let pool = Pool::new("10.66.0.0/16".parse().ok(), "fd66::/112".parse().ok()).expect("pool");
    VethPlan { host_name: "jg0".into(), queues, mtu: 1416, pool }
}

/// Runs a test on a thread of its own, whose namespace is gone afterwards.
fn in_namespace(test: fn(&mut Netlink)) {
    let run = move || {
        if Namespace::new().is_some() {
            test(&mut Netlink::open().expect("netlink"));
        }
    };
    thread::spawn(run).join().expect("the test passes");
}

fn make_veth(netlink: &mut Netlink, name: &str, peer: &str, peer_namespace: RawFd) {
    let mut other = LinkMessage::default();
    other.attributes = vec![LinkAttribute::IfName(peer.into()), LinkAttribute::NetNsFd(peer_namespace)];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.into()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
        ]),
    ];
    netlink.change("make a pair", RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).expect("pair");
}

fn set_up(netlink: &mut Netlink, name: &str, ip: [u8; 4]) -> Link {
    let link = netlink.link(name).expect("asked").expect("there");
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    netlink.change("up", RouteNetlinkMessage::SetLink(message), 0).expect("up");
    let mut message = AddressMessage::default();
    message.header.index = link.index;
    message.header.prefix_len = 24;
    message.header.family = AddressFamily::Inet;
    message.attributes = vec![AddressAttribute::Local(ip.into()), AddressAttribute::Address(ip.into())];
    netlink.change("address", RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL).expect("address");
    link
}

fn add_default_route(netlink: &mut Netlink, router: [u8; 4], interface: u32) {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = 254;
    message.header.kind = RouteType::Unicast;
    message.attributes =
        vec![RouteAttribute::Gateway(RouteAddress::Inet(router.into())), RouteAttribute::Oif(interface)];
    netlink.change("route", RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE).expect("route");
}

/// Reads news until `wanted` has seen what it waits for.
fn wait_for(watcher: &Watcher, mut wanted: impl FnMut(&News) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    let mut found = false;
    while !found {
        assert!(Instant::now() < deadline, "the news never came");
        if !watcher.read(&mut |news| found |= wanted(&news)).expect("read") {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn the_pair_has_queues_mtu_and_addresses_and_goes_with_its_value() {
    in_namespace(|netlink| {
        let pair = InsideVeth::create(netlink, &plan(3)).expect("pair");
        assert_eq!(pair.host().name, "jg0");
        assert_eq!(pair.port().name, "jg0-port");
        for link in [pair.host(), pair.port()] {
            assert_eq!((link.mtu, link.up), (1416, true));
            let mut query = LinkMessage::default();
            query.header.index = link.index;
            let answer = netlink.ask("link", RouteNetlinkMessage::GetLink(query)).expect("asked");
            let Some(RouteNetlinkMessage::NewLink(answer)) = answer else { panic!("no link") };
            assert!(answer.attributes.contains(&LinkAttribute::NumRxQueues(3)), "{answer:?}");
            assert!(answer.attributes.contains(&LinkAttribute::NumTxQueues(3)));
        }
        let mut addresses = netlink.addresses(Some(pair.host().index)).expect("addresses");
        addresses.retain(|ip| matches!(ip, IpAddr::V4(_)) || ip.to_string().starts_with("fd66"));
        assert_eq!(addresses, [address("10.66.0.1"), address("fd66::1")]);
        assert!(netlink.addresses(Some(pair.port().index)).expect("addresses").is_empty());
        let routes = RouteTable::read(netlink).expect("routes");
        let to_pair = Via::OnLink { interface: pair.host().index };
        assert_eq!(routes.lookup(address("10.66.200.7")), to_pair);
        assert_eq!(routes.lookup(address("fd66::200")), to_pair);
        drop(pair);
        assert_eq!(netlink.link("jg0").expect("asked"), None);
        assert_eq!(netlink.link("jg0-port").expect("asked"), None);
    });
}

#[test]
fn a_pair_that_a_crash_left_is_replaced() {
    in_namespace(|netlink| {
        let left = InsideVeth::create(netlink, &plan(1)).expect("pair");
        let left_index = left.host().index;
        std::mem::forget(left);
        let pair = InsideVeth::create(netlink, &plan(2)).expect("a pair again");
        assert_ne!(pair.host().index, left_index);
        assert!(InsideVeth::remove_leftover(netlink, "jg0").expect("removed"));
        assert!(!InsideVeth::remove_leftover(netlink, "jg0").expect("nothing left"));
    });
}

#[test]
fn an_interface_that_is_not_ours_is_never_removed() {
    in_namespace(|netlink| {
        let here = std::fs::File::open("/proc/thread-self/ns/net").expect("own namespace");
        make_veth(netlink, "jg0", "somebody-else", here.as_raw_fd());
        assert!(matches!(InsideVeth::create(netlink, &plan(1)), Err(VethError::NameTaken(name)) if name == "jg0"));
        assert!(matches!(InsideVeth::remove_leftover(netlink, "jg0"), Err(VethError::NameTaken(_))));
        assert!(netlink.link("jg0").expect("asked").is_some());
    });
}

#[test]
fn policy_routing_is_noticed() {
    in_namespace(|netlink| {
        assert!(!netlink.has_policy_routing().expect("asked"));
        let mut rule = RuleMessage::default();
        rule.header.family = AddressFamily::Inet;
        rule.header.action = RuleAction::ToTable;
        rule.header.table = 100;
        rule.attributes.push(RuleAttribute::Priority(500));
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        netlink.change("add a rule", RouteNetlinkMessage::NewRule(rule), flags).expect("added");
        assert!(netlink.has_policy_routing().expect("asked"));
    });
}

#[test]
fn the_kernel_resolves_a_neighbour_for_us_and_its_loss_is_heard_too() {
    let run = || {
        let Some(far) = Namespace::new() else { return };
        let mut far_netlink = Netlink::open().expect("netlink");
        let _near = Namespace::new().expect("a second namespace");
        let mut netlink = Netlink::open().expect("netlink");
        make_veth(&mut netlink, "near", "far", far.as_fd().as_raw_fd());
        let far_link = set_up(&mut far_netlink, "far", [192, 0, 2, 254]);
        let watcher = Watcher::open().expect("watcher");
        let link = set_up(&mut netlink, "near", [192, 0, 2, 1]);
        add_default_route(&mut netlink, [192, 0, 2, 254], link.index);
        wait_for(&watcher, |news| *news == News::Tables);

        let mut hops = NextHops::new(link.index, link.mac);
        let mut changes = Vec::new();
        let read = |netlink: &mut Netlink| {
            (RouteTable::read(netlink).expect("routes"), Neighbour::read_all(netlink).expect("neighbours"))
        };
        let (routes, neighbours) = read(&mut netlink);
        hops.load(routes, neighbours, &mut changes);
        let id = hops.follow(address("198.51.100.1"), &mut changes);
        assert_ne!(id, Arrival::NO_ROUTE);
        assert!(changes.contains(&Change::Resolve(address("192.0.2.254"))), "{changes:?}");

        changes.clear();
        netlink.resolve(link.index, address("192.0.2.254")).expect("asked to resolve");
        wait_for(&watcher, |news| {
            if let News::Neighbour(neighbour) = news {
                hops.neighbour(*neighbour, &mut changes);
            }
            !changes.is_empty()
        });
        let Change::Hop { id: changed, hop: Some(hop) } = changes[0] else { panic!("{changes:?}") };
        assert_eq!((changed, hop.source_mac, hop.destination_mac), (id, link.mac, far_link.mac));

        changes.clear();
        netlink.remove_link(link.index).expect("removed");
        wait_for(&watcher, |news| matches!(news, News::LinkGone(gone) if gone.name == "near"));
        let (routes, neighbours) = read(&mut netlink);
        hops.load(routes, neighbours, &mut changes);
        assert!(
            changes.contains(&Change::Peer { peer: address("198.51.100.1"), route: Arrival::NO_ROUTE }),
            "{changes:?}"
        );
    };
    thread::spawn(run).join().expect("the test passes");
}
