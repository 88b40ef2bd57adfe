//! The paths of this client and the state of their sockets: what follows from the kernel's tables, and what the kernel
//! said when something was sent.
//!
//! Hard evidence that a path is gone (SM-13 c) is acted on at once and apart from everything else: [`Uplinks::lose`]
//! only closes sockets. Paths that may be used again wait until their routes are pinned, and are opened by
//! [`Uplinks::gain`].

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use jumpgate_protocol::client::PathInfo;
use jumpgate_protocol::ident::TransportId;
use jumpgate_protocol::machine::Evidence;
use jumpgate_protocol::time::{Span, Time};
use nix::errno::Errno;

use crate::config::PathSpec;
use crate::link::{Attachment, Pin, Table, Unusable, choose};
use crate::socket::{Inbox, PathSocket, Sent};

/// First pause after a socket error, doubled with every further one: about the time a network manager needs to finish
/// what it is in the middle of.
const FIRST_PAUSE: Span = Span::from_millis(100);
/// Longest pause after socket errors.
const LONGEST_PAUSE: Span = Span::from_millis(10_000);
/// Bytes in front of an inner packet on the wire: IP, UDP, and what DATA adds.
const OVERHEAD_V4: u32 = 20 + 8 + jumpgate_protocol::wire::DATA_OVERHEAD as u32;
const OVERHEAD_V6: u32 = 40 + 8 + jumpgate_protocol::wire::DATA_OVERHEAD as u32;

/// One path: what the configuration says of it and what it is now.
#[derive(Debug)]
pub struct Uplink {
    /// From the configuration.
    pub spec: PathSpec,
    /// Why it is down, if it is.
    pub cause: Option<Unusable>,
    socket: Option<PathSocket>,
    attachment: Option<Attachment>,
    /// How it was attached when it last was.
    last: Option<Attachment>,
    /// Not to be opened again before, after a socket error.
    paused_until: Option<Time>,
    errors: u32,
}

/// A path that is no longer usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The path.
    pub id: TransportId,
    /// What the session is told.
    pub evidence: Evidence,
    /// What people are told.
    pub cause: String,
}

/// All paths, by transport id.
#[derive(Debug)]
pub struct Uplinks {
    uplinks: Vec<Uplink>,
}

impl Uplink {
    /// Whether its socket is open.
    pub fn is_up(&self) -> bool {
        self.socket.is_some()
    }

    /// Our address and port on it.
    pub fn local(&self) -> Option<SocketAddr> {
        self.socket.as_ref().map(PathSocket::local)
    }

    /// What the protocol core has to know of it.
    pub fn info(&self) -> PathInfo {
        PathInfo { gateway: self.spec.endpoint, class: self.spec.class, priority: self.spec.priority }
    }

    fn close(&mut self, cause: Unusable) {
        self.socket = None;
        self.attachment = None;
        self.cause = Some(cause);
    }

    fn is_paused(&self, now: Time) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    /// Closes it and keeps it closed for a while, longer with every error in a row.
    fn pause(&mut self, now: Time) {
        let pause = FIRST_PAUSE.times(1 << self.errors.min(16)).min(LONGEST_PAUSE);
        self.errors += 1;
        self.paused_until = Some(now + pause);
        self.close(Unusable::SocketError);
    }
}

impl fmt::Display for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PathSpec { interface, endpoint, .. } = &self.spec;
        write!(f, "{interface} to {endpoint}: {}", self.cause.map_or("usable", Unusable::text))
    }
}

impl Uplinks {
    /// All paths of the configuration, none of them open.
    pub fn new(specs: Vec<PathSpec>) -> Self {
        let closed = |spec| Uplink {
            spec,
            cause: Some(Unusable::NoInterface),
            socket: None,
            attachment: None,
            last: None,
            paused_until: None,
            errors: 0,
        };
        Self { uplinks: specs.into_iter().map(closed).collect() }
    }

    /// Every path.
    pub fn iter(&self) -> impl Iterator<Item = &Uplink> {
        self.uplinks.iter()
    }

    /// One path.
    pub fn get(&self, id: TransportId) -> Option<&Uplink> {
        self.uplinks.get(position(id)?)
    }

    /// Name of a path's interface; empty for a number that no path has.
    pub fn interface(&self, id: TransportId) -> &str {
        self.get(id).map_or("", |uplink| uplink.spec.interface.as_str())
    }

    /// Closes every path that the kernel's tables no longer support, or support only from another address.
    pub fn lose(&mut self, table: &Table) -> Vec<Lost> {
        let mut lost = Vec::new();
        for uplink in &mut self.uplinks {
            let found = choose(table, &uplink.spec.interface, uplink.spec.endpoint, uplink.last.as_ref());
            let cause = match (&uplink.attachment, found) {
                (Some(old), Ok(new)) if (old.link, old.source.addr()) == (new.link, new.source.addr()) => {
                    // Router or MTU may change under a living path.
                    (uplink.attachment, uplink.last) = (Some(new), Some(new));
                    continue;
                }
                (Some(old), Ok(new)) => {
                    let cause = format!("address changed from {} to {}", old.source.addr(), new.source.addr());
                    uplink.close(Unusable::NoAddress);
                    cause
                }
                (Some(_), Err(unusable)) => {
                    uplink.close(unusable);
                    unusable.to_string()
                }
                (None, Err(unusable)) => {
                    uplink.cause = Some(unusable);
                    // Whatever the socket complained of is over with the link; its return deserves a fresh start.
                    (uplink.paused_until, uplink.errors) = (None, 0);
                    continue;
                }
                (None, Ok(_)) => continue,
            };
            let evidence = match uplink.cause {
                Some(Unusable::NoRoute) => Evidence::Unreachable,
                _ => Evidence::LinkDown,
            };
            lost.push(Lost { id: uplink.spec.id, evidence, cause });
        }
        lost
    }

    /// The pins that the usable paths need: for endpoints that the tunnel's routes would swallow, and for paths whose
    /// own route is only remembered.
    pub fn pins(&self, table: &Table, tunnel_covers: impl Fn(IpAddr) -> bool) -> BTreeSet<Pin> {
        let mut pins: BTreeSet<Pin> = BTreeSet::new();
        for uplink in &self.uplinks {
            let PathSpec { interface, endpoint, id, .. } = &uplink.spec;
            let Ok(found) = choose(table, interface, *endpoint, uplink.last.as_ref()) else { continue };
            let remembered = choose(table, interface, *endpoint, None).is_err();
            let known = pins.iter().any(|pin| (pin.destination, pin.link) == (endpoint.ip(), found.link));
            if !known && (remembered || tunnel_covers(endpoint.ip())) {
                let Attachment { link, next_hop, .. } = found;
                pins.insert(Pin { destination: endpoint.ip(), link, next_hop, rank: id.0 });
            }
        }
        pins
    }

    /// The gateway's addresses.
    pub fn destinations(&self) -> BTreeSet<IpAddr> {
        self.uplinks.iter().map(|uplink| uplink.spec.endpoint.ip()).collect()
    }

    /// Opens every path that can be used and is not open. Gives those that came up.
    pub fn gain(&mut self, table: &Table, now: Time) -> Vec<TransportId> {
        let mut gained = Vec::new();
        for uplink in self.uplinks.iter_mut().filter(|uplink| !uplink.is_up() && !uplink.is_paused(now)) {
            let PathSpec { interface, endpoint, id, .. } = &uplink.spec;
            let Ok(attachment) = choose(table, interface, *endpoint, uplink.last.as_ref()) else { continue };
            match PathSocket::open(interface, attachment.source.addr(), *endpoint) {
                Ok(socket) => {
                    gained.push(*id);
                    uplink.socket = Some(socket);
                    (uplink.attachment, uplink.last) = (Some(attachment), Some(attachment));
                    (uplink.cause, uplink.paused_until) = (None, None);
                }
                Err(error) => {
                    tracing::warn!(%interface, %error, "cannot open a socket on this uplink");
                    uplink.pause(now);
                }
            }
        }
        gained
    }

    /// Closes a path on which the kernel refused to send.
    pub fn fail(&mut self, id: TransportId, errno: Errno, now: Time) -> Option<Lost> {
        let uplink = self.uplinks.get_mut(position(id)?).filter(|uplink| uplink.is_up())?;
        uplink.pause(now);
        let evidence = match errno {
            Errno::ENETUNREACH | Errno::EHOSTUNREACH => Evidence::Unreachable,
            _ => Evidence::SocketClosed,
        };
        Some(Lost { id, evidence, cause: format!("cannot send: {}", errno.desc()) })
    }

    /// A packet came in on the path: whatever its socket complained of before is over.
    pub fn heard(&mut self, id: TransportId) {
        if let Some(uplink) = position(id).and_then(|position| self.uplinks.get_mut(position)) {
            uplink.errors = 0;
        }
    }

    /// When the first paused path may be opened again.
    pub fn next_retry(&self) -> Option<Time> {
        self.uplinks.iter().filter_map(|uplink| uplink.paused_until).min()
    }

    /// The largest inner packet that fits every open path.
    pub fn inner_mtu(&self) -> Option<u16> {
        let fits = |uplink: &Uplink| {
            let overhead = if uplink.spec.endpoint.is_ipv4() { OVERHEAD_V4 } else { OVERHEAD_V6 };
            uplink.attachment.map(|attachment| attachment.mtu.saturating_sub(overhead))
        };
        let smallest = self.uplinks.iter().filter_map(fits).min()?;
        Some(u16::try_from(smallest).unwrap_or(u16::MAX))
    }

    /// How many datagrams one send on the path may carry.
    pub fn max_segments(&self, id: TransportId) -> usize {
        self.socket(id).map_or(1, PathSocket::max_segments)
    }

    /// Sends datagrams of `segment` bytes on the path.
    pub fn send(&self, id: TransportId, packets: &[u8], segment: usize) -> Sent {
        self.socket(id).map_or(Sent::Dropped(Errno::ENOTCONN), |socket| socket.send(packets, segment))
    }

    /// Receives one batch on the path.
    pub fn receive(&self, id: TransportId, inbox: &mut Inbox) -> std::io::Result<usize> {
        self.socket(id).map_or(Ok(0), |socket| socket.receive(inbox))
    }

    /// Whether a datagram that came in on the path is the gateway's.
    pub fn is_from_gateway(&self, id: TransportId, sender: SocketAddr) -> bool {
        self.socket(id).is_some_and(|socket| socket.is_from_gateway(sender))
    }

    /// Waits, without allocating, until a path has something to read.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<TransportId> {
        for uplink in &self.uplinks {
            if let Some(socket) = &uplink.socket
                && socket.poll_readable(context).is_ready()
            {
                return Poll::Ready(uplink.spec.id);
            }
        }
        Poll::Pending
    }

    /// Waits until the path can take packets again, or is gone.
    pub fn poll_writable(&self, id: TransportId, context: &mut Context<'_>) -> Poll<()> {
        self.socket(id).map_or(Poll::Ready(()), |socket| socket.poll_writable(context))
    }

    fn socket(&self, id: TransportId) -> Option<&PathSocket> {
        self.get(id)?.socket.as_ref()
    }
}

/// Transport ids count from 1.
fn position(id: TransportId) -> Option<usize> {
    usize::from(id.0).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use jumpgate_protocol::policy::TransportClass;

    use super::*;
    use crate::link::{Address, Link, Route};

    const WIFI: TransportId = TransportId(1);
    /// The loopback exists everywhere, so that sockets can be bound to it.
    const INTERFACE: &str = "lo";
    const INDEX: u32 = 1;

    fn spec() -> PathSpec {
        let endpoint = "127.0.0.1:51900".parse().unwrap();
        PathSpec { id: WIFI, interface: INTERFACE.into(), endpoint, class: TransportClass::Wifi, priority: 10 }
    }

    fn table(carrier: bool, address: &str) -> Table {
        let mut table = Table::default();
        table.put_link(INDEX, Link { name: INTERFACE.into(), admin_up: true, carrier, mtu: 1500 });
        table.put_address(Address { link: INDEX, network: address.parse().unwrap(), deprecated: false });
        table.put_route(Route {
            link: INDEX,
            destination: "127.0.0.0/8".parse().unwrap(),
            next_hop: None,
            source: None,
            metric: 0,
            ours: false,
        });
        table
    }

    /// Uplinks with their one path open; none where sockets cannot be bound to a device.
    fn opened() -> Option<Uplinks> {
        let mut uplinks = Uplinks::new(vec![spec()]);
        let gained = uplinks.gain(&table(true, "127.0.0.1/8"), Time::ZERO);
        if gained.is_empty() {
            println!("SKIPPED: cannot bind a socket to a device");
        }
        (gained == [WIFI]).then_some(uplinks)
    }

    #[tokio::test]
    async fn a_lost_carrier_closes_the_path_at_once() {
        let Some(mut uplinks) = opened() else { return };
        let lost = uplinks.lose(&table(false, "127.0.0.1/8"));
        assert_eq!(lost, [Lost { id: WIFI, evidence: Evidence::LinkDown, cause: "no carrier".into() }]);
        assert!(!uplinks.get(WIFI).unwrap().is_up());
        assert!(uplinks.lose(&table(false, "127.0.0.1/8")).is_empty());
        assert_eq!(uplinks.gain(&table(true, "127.0.0.1/8"), Time::ZERO), [WIFI]);
    }

    #[tokio::test]
    async fn another_address_is_another_socket() {
        let Some(mut uplinks) = opened() else { return };
        let before = uplinks.get(WIFI).unwrap().local().unwrap();
        let moved = table(true, "127.0.0.2/8");
        assert_eq!(uplinks.lose(&moved).len(), 1);
        assert_eq!(uplinks.gain(&moved, Time::ZERO), [WIFI]);
        let after = uplinks.get(WIFI).unwrap().local().unwrap();
        assert_ne!(before.ip(), after.ip());
    }

    #[tokio::test]
    async fn a_socket_error_pauses_the_path_longer_each_time() {
        let Some(mut uplinks) = opened() else { return };
        let healthy = table(true, "127.0.0.1/8");
        let lost = uplinks.fail(WIFI, Errno::ENETUNREACH, Time::ZERO).unwrap();
        assert_eq!(lost.evidence, Evidence::Unreachable);
        assert!(uplinks.gain(&healthy, Time::from_millis(99)).is_empty());
        assert_eq!(uplinks.next_retry(), Some(Time::from_millis(100)));
        assert_eq!(uplinks.gain(&healthy, Time::from_millis(100)), [WIFI]);
        uplinks.fail(WIFI, Errno::ENODEV, Time::ZERO);
        assert!(uplinks.gain(&healthy, Time::from_millis(199)).is_empty());
        assert_eq!(uplinks.gain(&healthy, Time::from_millis(200)), [WIFI]);
        uplinks.heard(WIFI);
        uplinks.fail(WIFI, Errno::ENODEV, Time::ZERO);
        assert_eq!(uplinks.next_retry(), Some(Time::from_millis(100)));
    }

    #[test]
    fn pins_are_wanted_only_where_the_tunnel_would_swallow_the_gateway() {
        let uplinks = Uplinks::new(vec![spec()]);
        let table = table(true, "127.0.0.1/8");
        assert!(uplinks.pins(&table, |_| false).is_empty());
        let pins = uplinks.pins(&table, |_| true);
        assert_eq!(pins.iter().map(|pin| (pin.link, pin.next_hop)).collect::<Vec<_>>(), [(INDEX, None)]);
    }

    #[tokio::test]
    async fn the_inner_mtu_follows_the_smallest_open_path() {
        let Some(uplinks) = opened() else { return };
        assert_eq!(uplinks.inner_mtu(), Some(1500 - 64));
        assert_eq!(Uplinks::new(vec![spec()]).inner_mtu(), None);
    }
}
