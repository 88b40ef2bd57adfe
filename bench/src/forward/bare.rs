//! The forwarder without sessions by itself: half of the bound for a gateway that is measured as a whole program.

use anyhow::{Context as _, Result};
use jumpgate::clock;
use jumpgate::worker::Bare;
use jumpgate::xdp::ModeChoice;

use super::generator::Generator;
use super::lane::{Lane, Load, Range};
use super::plant::{Plant, Setup};
use super::{ALONE_PACKETS, Way};
use crate::sessions::{Population, ROUTE, arrival};

/// It, its links, and packets for it.
pub(crate) struct BareForwarder {
    lane: Lane<Bare>,
    range: Range,
}

impl BareForwarder {
    /// Starts it on that CPU, in the calling thread's network namespace, for bursts of at most that many packets.
    pub(crate) fn start(worker_cpu: usize, packets: usize) -> Result<Self> {
        let Population { peers, pool, .. } = Population::new(1, 7, clock::now())?;
        let outer = peers.first().context("there is one session")?.outer;
        let clients: Vec<u32> = peers.iter().map(|peer| peer.index).collect();
        let mut generator = Generator::new(packets.max(ALONE_PACKETS))?;
        let setup = Setup { mode: ModeChoice::Native, worker_cpu };
        let plant = Plant::start("bare", Bare::new(arrival(outer).tuple, ROUTE), pool, clients, setup)?;
        let lane = Lane::new(plant, false, &mut generator)?;
        Ok(Self { lane, range: Range::new(generator, peers)? })
    }

    /// Packets per second with nobody else at work, of packets of these lengths in turn; none if they could not be timed.
    pub(crate) fn drained(&mut self, way: Way, lengths: &[usize]) -> Result<Option<f64>> {
        self.lane.drained(&mut self.range, way, lengths)
    }

    /// A burst as fast as its generator can.
    pub(crate) fn under_load(&mut self, way: Way, lengths: &[usize], packets: usize) -> Result<Load> {
        self.lane.under_load(&mut self.range, way, lengths, packets)
    }
}
