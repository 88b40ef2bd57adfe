//! What a worker's user space costs per packet, against the bare AEAD of the same lengths.
//!
//! The real packet path of the gateway runs over real sessions, without rings and system calls: parse, find the
//! session, check tuple and epoch, AEAD, replay window, inner source, headers, next hop. The bound is the AEAD alone over
//! buffers of the same number and size, in turn with it, so that both see the same machine at the same time.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use jumpgate::handover::{INSIDE_HOP, NextHop};
use jumpgate::port::Role;
use jumpgate::sys::{Frame, Umem};
use jumpgate::worker::{DataPath, Verdict};
use jumpgate_protocol::gateway::Shard;
use jumpgate_protocol::time::Time;
use serde::Serialize;

use crate::aead::BareAead;
use crate::frames::{CHUNK, HEADROOM, check_inner, inside_len, outside_len, write_inside, write_sealed};
use crate::sessions::{INNER_MTU, Peer, Population, ROUTE};
use crate::stats::Summary;

/// Packets in one timed batch: their frames fit a second-level cache, as a worker's do.
const BATCH: usize = 256;

/// What was measured for one packet length.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Length of the inner IP packet in bytes.
    pub inner_bytes: usize,
    /// Sessions that the packets belong to, in turn.
    pub sessions: usize,
    /// From the network to the inside, in ns per packet.
    pub decapsulate: Summary,
    /// The AEAD's opening alone, in ns per packet.
    pub open: Summary,
    /// `decapsulate / open`, pair by pair.
    pub decapsulate_ratio: Summary,
    /// From the inside to the network, in ns per packet.
    pub encapsulate: Summary,
    /// The AEAD's sealing alone, in ns per packet.
    pub seal: Summary,
    /// `encapsulate / seal`, pair by pair.
    pub encapsulate_ratio: Summary,
    /// Allocations during all timed batches of both directions.
    pub allocations: u64,
    /// Packets in them.
    pub packets: u64,
}

/// Measures one packet length over that many sessions.
pub fn measure(sessions: usize, inner_bytes: usize, repetitions: usize) -> Result<Row> {
    let mut rig = Rig::new(sessions, inner_bytes)?;
    // Warm-up: caches, branch predictors, the session table, and every session's first packet, which makes its ciphers.
    for _ in 0..(repetitions / 10).max(3).max(sessions.div_ceil(BATCH)) {
        rig.round()?;
    }
    let mut rounds = Vec::with_capacity(repetitions);
    let mut allocations = 0;
    for _ in 0..repetitions {
        let round = rig.round()?;
        allocations += round.allocations;
        rounds.push(round);
    }
    let column = |pick: fn(&Round) -> f64| rounds.iter().map(pick).collect::<Vec<_>>();
    let (decapsulate, open) = (column(|round| round.decapsulate), column(|round| round.open));
    let (encapsulate, seal) = (column(|round| round.encapsulate), column(|round| round.seal));
    let summary = |values: &[f64]| Summary::of(values).context("no repetition was asked for");
    Ok(Row {
        inner_bytes,
        sessions,
        decapsulate_ratio: Summary::of_ratios(&decapsulate, &open).context("no repetition was asked for")?,
        encapsulate_ratio: Summary::of_ratios(&encapsulate, &seal).context("no repetition was asked for")?,
        decapsulate: summary(&decapsulate)?,
        open: summary(&open)?,
        encapsulate: summary(&encapsulate)?,
        seal: summary(&seal)?,
        allocations,
        packets: (2 * BATCH * repetitions) as u64,
    })
}

/// One repetition: each of the four once, in ns per packet.
struct Round {
    decapsulate: f64,
    open: f64,
    encapsulate: f64,
    seal: f64,
    allocations: u64,
}

/// The packet path with its sessions, and the bare AEAD with buffers of the same lengths.
struct Rig {
    path: DataPath<Shard>,
    memory: Arc<Umem>,
    frames: Vec<Frame>,
    peers: Vec<Peer>,
    /// Whose packet comes next from either side. They are half a turn apart: what one side left in the cache does not serve
    /// the other.
    next_outside: usize,
    next_inside: usize,
    inner_bytes: usize,
    now: Time,
    aead: BareAead,
}

impl Rig {
    fn new(sessions: usize, inner_bytes: usize) -> Result<Self> {
        check_inner(inner_bytes)?;
        let Population { shard, peers, pool, now } = Population::new(sessions, 7, Time::from_millis(1_000))?;
        let (memory, frames) = Umem::new(BATCH as u32, CHUNK)?;
        let mut path = DataPath::new(shard, pool, INNER_MTU, now);
        let hop = NextHop { source_mac: [2; 6], destination_mac: [4; 6], vlan: None };
        path.set_hop(INSIDE_HOP, Some(hop));
        path.set_hop(ROUTE, Some(hop));
        let aead = BareAead::new(BATCH, inner_bytes);
        let next_inside = peers.len() / 2;
        Ok(Self { path, memory, frames, peers, next_outside: 0, next_inside, inner_bytes, now, aead })
    }

    fn round(&mut self) -> Result<Round> {
        self.fill_outside()?;
        let Self { path, memory, frames, now, .. } = self;
        let inwards =
            Timed::of(frames, |frame| path.from_outside(*now, memory, frame, 0) == Verdict::Send(Role::Inside));
        ensure!(inwards.sent == BATCH, "{} of {BATCH} packets were decapsulated", inwards.sent);

        let seal = self.aead.seal();
        let open = self.aead.open()?;

        self.fill_inside()?;
        let Self { path, memory, frames, now, .. } = self;
        let outwards = Timed::of(frames, |frame| path.from_inside(*now, memory, frame) == Verdict::Send(Role::Outside));
        ensure!(outwards.sent == BATCH, "{} of {BATCH} packets were encapsulated", outwards.sent);
        let allocations = inwards.allocations + outwards.allocations;
        Ok(Round { decapsulate: inwards.per_packet, open, encapsulate: outwards.per_packet, seal, allocations })
    }

    /// Puts a fresh DATA packet of the next client into every frame, as it would come from the network.
    fn fill_outside(&mut self) -> Result<()> {
        for frame in &mut self.frames {
            let number = self.next_outside;
            self.next_outside = (number + 1) % self.peers.len();
            frame.place(HEADROOM, outside_len(self.inner_bytes))?;
            write_sealed(self.memory.bytes_mut(frame), &mut self.peers[number])?;
        }
        Ok(())
    }

    /// Puts an inner packet for the next client into every frame, as it would come from the inside.
    fn fill_inside(&mut self) -> Result<()> {
        for frame in &mut self.frames {
            let peer = &self.peers[self.next_inside];
            self.next_inside = (self.next_inside + 1) % self.peers.len();
            frame.place(HEADROOM, inside_len(self.inner_bytes))?;
            write_inside(self.memory.bytes_mut(frame), peer);
        }
        Ok(())
    }
}

/// One batch through the path.
struct Timed {
    sent: usize,
    per_packet: f64,
    allocations: u64,
}

impl Timed {
    fn of(frames: &mut [Frame], mut send: impl FnMut(&mut Frame) -> bool) -> Self {
        let (mut sent, mut per_packet) = (0, 0.0);
        let allocated = allocation_counter::measure(|| {
            let started = Instant::now();
            sent = frames.iter_mut().filter_map(|frame| send(frame).then_some(())).count();
            per_packet = started.elapsed().as_nanos() as f64 / BATCH as f64;
        });
        Self { sent, per_packet, allocations: allocated.count_total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_of_a_round_goes_through_both_ways() {
        let row = measure(3, 64, 2).unwrap();
        assert_eq!(row.packets, 4 * BATCH as u64);
        assert!(row.decapsulate.median > 0.0 && row.encapsulate.median > 0.0);
    }

    #[test]
    fn a_session_allocates_for_its_first_packet_of_either_way_and_for_none_after_it() {
        let mut rig = Rig::new(1_000, 64).unwrap();
        assert!(rig.round().unwrap().allocations > 0, "the counter counts");
        for _ in 0..4 {
            rig.round().unwrap();
        }
        assert_eq!(rig.round().unwrap().allocations, 0);
        assert_eq!(measure(1_000, 64, 2).unwrap().allocations, 0);
    }

    #[test]
    fn a_packet_beyond_the_mtu_is_no_measurement() {
        assert!(measure(1, 1_417, 1).is_err());
    }
}
