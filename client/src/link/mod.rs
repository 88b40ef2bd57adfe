//! The machine's links, addresses and routes: what the kernel has, and what this client adds to it.
//!
//! [`Table`] is plain data and [`choose`] a pure function over it, so both are tested without a kernel; [`Watcher`]
//! keeps a table up to date by netlink; [`Routes`] installs what the tunnel needs and takes it away again.

mod choose;
mod routes;
mod table;
mod watch;

pub use self::choose::{Attachment, Unusable, choose};
pub use self::routes::{Pin, RouteError, Routes};
pub use self::table::{Address, Link, Route, Table};
pub use self::watch::{WatchError, Watcher};

use netlink_packet_route::route::RouteProtocol;

/// Origin that marks the routes of this program (`ip route show proto 106`), 'j' in ASCII. Outside of the numbers that
/// iproute2 names. By it a later run finds what a killed one left behind.
pub(crate) const PROTOCOL: RouteProtocol = RouteProtocol::Other(106);
