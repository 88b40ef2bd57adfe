//! A path between a client and the gateway, with the NAT on it.

use std::net::{IpAddr, SocketAddr};

use jumpgate_protocol::time::{Span, Time};

use super::{Impairment, WayState};

/// The first port that a NAT gives.
pub(crate) const FIRST_PORT: u16 = 1_024;

/// One path between a client and the gateway: both directions and the NAT between them.
#[derive(Clone, Debug)]
pub struct Link {
    /// Client to gateway.
    pub up: Impairment,
    /// Gateway to client.
    pub down: Impairment,
    /// The client's address as the gateway sees it. A rebinding NAT gives another one; the old one leads nowhere.
    pub external: SocketAddr,
    /// The NAT forgets a mapping that no datagram from inside used for so long; the next one gets another port.
    pub mapping_life: Option<Span>,
    pub(crate) last_out: Time,
    pub(crate) up_state: WayState,
    pub(crate) down_state: WayState,
}

impl Link {
    pub(crate) fn new(external: SocketAddr, now: Time) -> Self {
        Self {
            up: Impairment::GOOD,
            down: Impairment::GOOD,
            external,
            mapping_life: None,
            last_out: now,
            up_state: WayState::default(),
            down_state: WayState::default(),
        }
    }

    /// Whether the NAT still knows its mapping.
    pub(crate) fn is_mapped(&self, now: Time) -> bool {
        self.mapping_life.is_none_or(|life| now.since(self.last_out) < life)
    }

    /// Another port of the same address.
    pub(crate) fn next_port(&self) -> SocketAddr {
        SocketAddr::new(self.external.ip(), self.external.port().checked_add(1).unwrap_or(FIRST_PORT))
    }

    /// Another address, as after a change of the uplink behind the NAT.
    pub(crate) const fn at_address(&self, ip: IpAddr) -> SocketAddr {
        SocketAddr::new(ip, self.external.port())
    }
}
