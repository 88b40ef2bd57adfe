//! A forwarder without sessions: it strips and prepends the 36 bytes of DATA, and echoes control packets.
//!
//! What a worker does with it is the least that any gateway of this shape can do. Benchmarks measure against it, tests
//! of ports and workers run on it.

use std::net::IpAddr;

use jumpgate_protocol::audit::{Disclosure, Record};
use jumpgate_protocol::gateway::{Inner, Outbound, Part, PolicyChange, Reply, SessionKey};
use jumpgate_protocol::ident::{Arrival, Locator, Tuple};
use jumpgate_protocol::policy::Rate;
use jumpgate_protocol::reason::{Reason, ReasonCounters};
use jumpgate_protocol::time::Time;
use jumpgate_protocol::wire::{ControlPacket, DATA_OVERHEAD, HEADER_LEN, MessageType};

use super::Sessions;

/// Forwards everything, to one peer, in the clear.
#[derive(Debug)]
pub struct Bare {
    outbound: Outbound,
    echo: Option<Reply>,
    drops: ReasonCounters,
}

impl Bare {
    /// A forwarder that sends every inner packet along `tuple` by the next hop `route`.
    pub fn new(tuple: Tuple, route: u32) -> Self {
        let outbound = Outbound { tuple, route, session: SessionKey(0) };
        Self { outbound, echo: None, drops: ReasonCounters::default() }
    }
}

impl Sessions for Bare {
    type Birth = ();
    type Event = ();
    type View = ();

    fn birth(&mut self, _: Time, (): ()) {}

    fn data_in(&mut self, _: Time, _: &Arrival, packet: &mut [u8]) -> Result<Inner, Reason> {
        match packet.len().checked_sub(DATA_OVERHEAD) {
            Some(len) => Ok(Inner { start: HEADER_LEN, len, session: self.outbound.session }),
            None => {
                self.drops.count(Reason::Malformed);
                Err(Reason::Malformed)
            }
        }
    }

    fn data_out(&mut self, _: u32, packet: &mut [u8]) -> Result<Outbound, Reason> {
        packet[..HEADER_LEN].fill(0);
        packet[0] = MessageType::Data as u8;
        Ok(self.outbound)
    }

    fn control_in(&mut self, _: Time, arrival: &Arrival, packet: &mut [u8]) -> Result<(), Reason> {
        let packet = ControlPacket::try_from(&packet[..]).map_err(|_| Reason::Malformed)?;
        self.echo = Some(Reply { tuple: arrival.tuple, route: arrival.route, packet });
        Ok(())
    }

    fn set_route(&mut self, peer: IpAddr, route: u32) {
        if self.outbound.tuple.peer.ip() == peer {
            self.outbound.route = route;
        }
    }

    fn timeout(&mut self, _: Time) {}

    fn next_timeout(&self) -> Option<Time> {
        None
    }

    fn poll_reply(&mut self) -> Option<Reply> {
        self.echo.take()
    }

    fn poll_event(&mut self) -> Option<()> {
        None
    }

    fn poll_record(&mut self) -> Option<Record> {
        None
    }

    fn terminate(&mut self, _: Time, _: Locator, _: Reason) -> bool {
        false
    }

    fn change_policy(&mut self, _: Time, _: Locator, _: PolicyChange) -> bool {
        false
    }

    fn force_move(&mut self, _: Time, _: Locator, _: bool) -> bool {
        false
    }

    fn keep_records(&mut self, _: Time, _: Disclosure) {}

    fn set_resets(&mut self, _: Rate) {}

    fn terminate_all(&mut self, _: Time, _: Reason) {}

    fn hand_over(&self) -> Part {
        Part::default()
    }

    fn views(&self, _: Time) -> Vec<()> {
        Vec::new()
    }

    fn drops(&self) -> &ReasonCounters {
        &self.drops
    }
}
