//! The Jumpgate client: what stands between the machine and the protocol core.
//!
//! The core ([`jumpgate_protocol::client::Client`]) decides everything and touches nothing. This crate touches
//! everything and decides nothing: it makes the TUN, opens one socket per path (uplink x endpoint), watches links,
//! addresses and routes, keeps the clock, and carries packets and events between them.
//!
//! ```text
//!   applications            kernel: links, addresses, routes          jump status, move, down
//!        |                                |                                     |
//!      [tun] --read--> [batch] --seal--> core <--path up / down-- [uplinks]  [control]
//!        ^                                |  ^                      |  ^ [link::watch]
//!        +--------- inner packet ---------+  +---- datagram --- [socket] per path --> gateway
//! ```
//!
//! | Module | What is in it |
//! |---|---|
//! | [`driver`] | the loop that ties all of it together |
//! | [`uplinks`] | the paths: when a socket opens and closes |
//! | [`link`] | the kernel's tables by netlink, the routes this program adds |
//! | [`tun`], [`socket`], [`batch`] | packets in and out, in place and in batches |
//! | [`control`], [`report`], [`show`] | status and events: served, defined, printed |
//! | [`metrics`] | what a monitoring system gets |
//! | [`audit`] | the trace of what happened to its sessions |
//! | [`config`], [`keys`], [`state`] | the file, the keys, and what outlives a run |
//! | [`privilege`], [`signal`] | whether it may start, and when it must end |
//!
//! Whatever way the process ends, the kernel removes the TUN with its addresses and routes. The pinned routes to the
//! gateway are removed at a clean end; those of a killed run by the next one.

#![forbid(unsafe_code)]

pub mod audit;
pub mod batch;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod driver;
pub mod keys;
pub mod link;
pub mod metrics;
pub mod privilege;
pub mod report;
mod rp_filter;
pub mod show;
pub mod signal;
pub mod socket;
pub mod state;
pub mod tun;
pub mod uplinks;
