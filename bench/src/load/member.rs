//! One client of the crowd: the product's own client code, and where it is in the network.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use jumpgate_protocol::client::{Client, PathInfo};
use jumpgate_protocol::ident::TransportId;
use jumpgate_protocol::machine::State;
use jumpgate_protocol::policy::TransportClass;
use jumpgate_protocol::time::Time;

use super::weather::Weather;

/// Paths of every client: two interfaces, as a phone has.
pub(crate) const PATHS: usize = 2;
/// First source port of a path; each rebinding takes the next.
const FIRST_PORT: u16 = 1_024;

/// Where clients' outer addresses begin: the shared address space of RFC 6598.
pub(crate) const OUTER_BASE: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
/// Outer addresses of one path number: more than there can be clients.
pub(crate) const OUTER_SPAN: u32 = 1 << 17;
/// Most clients of one crowd.
pub const MOST_CLIENTS: u32 = 100_000;

/// Which of the last 64 echo packets came back: one that comes twice was accepted twice by somebody.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Echoes {
    /// One past the highest that came back.
    end: u64,
    /// The 64 below, the highest in the lowest bit.
    seen: u64,
}

/// How an echo packet came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// After all that were sent before it.
    Next,
    /// After one that was sent later.
    Late,
    /// Once more.
    Twice,
}

impl Echoes {
    pub(crate) fn take(&mut self, number: u64) -> Order {
        if number >= self.end {
            let ahead = u32::try_from(number - self.end + 1).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.end = number + 1;
            return Order::Next;
        }
        let Some(bit) = 1_u64.checked_shl(u32::try_from(self.end - 1 - number).unwrap_or(u32::MAX)) else {
            return Order::Late;
        };
        let twice = self.seen & bit != 0;
        self.seen |= bit;
        if twice { Order::Twice } else { Order::Late }
    }
}

/// A path of a client in the virtual network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    address: Ipv4Addr,
    port: u16,
    /// The interface is up, as the client sees it.
    pub(crate) up: bool,
    /// Packets on it vanish, and nobody tells.
    pub(crate) black: bool,
    /// What happens to packets on it otherwise.
    pub(crate) weather: Weather,
}

/// What a loss spike did to a client so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spike {
    pub(crate) began: Time,
    /// It left ATTACHED.
    pub(crate) left: bool,
    pub(crate) degraded: bool,
    pub(crate) switched: bool,
}

/// A client.
pub(crate) struct Member {
    pub(crate) core: Client,
    pub(crate) links: [Link; PATHS],
    /// Its address inside the tunnel.
    pub(crate) inner: Option<Ipv4Addr>,
    /// When its timer is set for; an entry of the queue for another time is stale.
    pub(crate) timer: Time,
    /// Suspended: it hears nothing and does nothing.
    pub(crate) asleep: bool,
    /// The machine's state as its transitions told.
    pub(crate) state: Option<State>,
    pub(crate) began: Time,
    /// When the network failed it last, until it is back.
    pub(crate) fault: Option<Time>,
    /// The loss spike that it is in.
    pub(crate) spike: Option<Spike>,
    /// It left ATTACHED after that fault.
    pub(crate) detected: bool,
    /// Epoch of the last switch: epochs only rise.
    pub(crate) epoch: u64,
    /// Number of its next echo packet.
    pub(crate) next_echo: u64,
    /// Those that came back.
    pub(crate) echoes: Echoes,
    /// Wants a session again when the present one ends.
    pub(crate) stays: bool,
}

impl Link {
    fn new(number: u32, path: usize) -> Self {
        let address = Ipv4Addr::from(u32::from(OUTER_BASE) + OUTER_SPAN * path as u32 + number);
        Self { address, port: FIRST_PORT, up: path == 0, black: false, weather: Weather::FAIR }
    }

    /// Its outer address now.
    pub(crate) const fn outer(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, self.port)
    }

    /// The NAT on the way gives another port; the old mapping is gone.
    pub(crate) fn rebind(&mut self) {
        self.port = self.port.checked_add(1).unwrap_or(FIRST_PORT);
    }
}

impl Member {
    /// The client with that number, without a session.
    pub(crate) fn new(core: Client, number: u32) -> Self {
        Self {
            core,
            links: [Link::new(number, 0), Link::new(number, 1)],
            inner: None,
            timer: Time::NEVER,
            asleep: false,
            state: None,
            began: Time::ZERO,
            fault: None,
            spike: None,
            detected: false,
            epoch: 0,
            next_echo: 0,
            echoes: Echoes::default(),
            stays: true,
        }
    }

    /// An interface comes up, with another address than it had, as interfaces do.
    pub(crate) fn come_up(&mut self, now: Time, gateway: SocketAddr, path: usize) {
        let link = &mut self.links[path];
        (link.up, link.black) = (true, false);
        link.rebind();
        self.core.path_up(now, transport(path), path_info(gateway, path));
    }
}

/// What a client knows of its path of that number.
pub(crate) const fn path_info(gateway: SocketAddr, path: usize) -> PathInfo {
    PathInfo { gateway, class: TransportClass::Other, priority: path as u8 }
}

/// The number of a path in the protocol; 0 is none.
pub(crate) const fn transport(path: usize) -> TransportId {
    TransportId(path as u16 + 1)
}

/// Which client and path an outer address belongs to.
pub(crate) fn owner_of(address: Ipv4Addr) -> Option<(u32, usize)> {
    let offset = u32::from(address).checked_sub(u32::from(OUTER_BASE))?;
    let path = (offset / OUTER_SPAN) as usize;
    (path < PATHS).then_some((offset % OUTER_SPAN, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_that_comes_twice_is_told_from_one_that_comes_late() {
        let mut echoes = Echoes::default();
        let orders: Vec<_> = [0, 2, 1, 1, 2, 200, 3, 199, 199].map(|number| echoes.take(number)).into();
        use Order::{Late, Next, Twice};
        assert_eq!(orders, [Next, Next, Late, Twice, Twice, Next, Late, Late, Twice]);
    }

    #[test]
    fn every_outer_address_leads_back_to_its_client_and_path() {
        for number in [0, 1, MOST_CLIENTS - 1] {
            for path in 0..PATHS {
                assert_eq!(owner_of(*Link::new(number, path).outer().ip()), Some((number, path)));
            }
        }
        assert_eq!(owner_of(Ipv4Addr::new(100, 63, 255, 255)), None);
        assert_eq!(owner_of(Ipv4Addr::new(192, 0, 2, 1)), None);
    }
}
