//! The host's network as the gateway needs it: links, addresses, the inside veth pair, and next hops.
//!
//! Packets that leave by AF_XDP pass no routing and no ARP, so the gateway keeps its own small copy of both: routes in
//! a prefix trie, neighbours by address, joined in [`NextHops`], which turns a peer's address into a number that
//! workers keep beside a binding. [`Watcher`] hears of every change in the kernel and the numbers' meaning follows.
//! Resolution itself (ARP, neighbour discovery) stays the kernel's: we only ask it to start.
//!
//! Requests are synchronous ([`Netlink`]), so that whatever start-up made can be unmade in `Drop`, where nothing can be
//! awaited; only notifications are read by the slow path's event loop.

mod link;
mod netlink;
mod next_hops;
mod routes;
mod veth;
mod watch;

pub use link::Link;
pub use netlink::{Netlink, NetlinkError};
pub use next_hops::{Change, FIRST_HOP, MAX_HOPS, Neighbour, NextHops};
pub use routes::{Route, RouteTable, Via};
pub use veth::{InsideVeth, PORT_SUFFIX, VethError, VethPlan};
pub use watch::{News, Watcher};

#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
mod namespace;
