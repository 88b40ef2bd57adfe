//! What a worker's user space costs per packet, against the bare AEAD of the same lengths.
//!
//! The real packet path of the gateway runs over real sessions, without rings and system calls: parse, find the
//! session, check tuple and epoch, AEAD, replay window, inner source, headers, next hop. The bound is the AEAD alone over
//! buffers of the same number and size, in turn with it, so that both see the same machine at the same time.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use jumpgate::handover::{INSIDE_HOP, NextHop};
use jumpgate::port::Role;
use jumpgate::sys::{Frame, Umem};
use jumpgate::worker::{DataPath, Verdict};
use jumpgate_protocol::crypto::{Aead, DefaultAead, TAG_LEN};
use jumpgate_protocol::gateway::Shard;
use jumpgate_protocol::time::Time;
use jumpgate_protocol::wire::{DATA_OVERHEAD, HEADER_LEN};
use serde::Serialize;

use crate::alloc;
use crate::sessions::{GATEWAY, INNER_MTU, Peer, Population, ROUTE};
use crate::stats::Summary;

/// Packets in one timed batch: their frames fit a second-level cache, as a worker's do.
const BATCH: usize = 256;
/// Where the kernel puts a received frame in its chunk (XDP_PACKET_HEADROOM, include/uapi/linux/bpf.h).
const HEADROOM: usize = 256;
/// Size of a frame's chunk in bytes.
const CHUNK: u16 = 2_048;
/// Ethernet, IPv4 and UDP headers in front of a tunnel packet, in bytes.
const OUTER_LEN: usize = 14 + 20 + 8;
/// Ethernet header in bytes.
const ETHERNET_LEN: usize = 14;

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
    // Warm-up: caches, branch predictors and the session table.
    for _ in 0..(repetitions / 10).max(3) {
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
    next_peer: usize,
    inner_bytes: usize,
    now: Time,
    aead: DefaultAead,
    buffers: Vec<Vec<u8>>,
    nonce: u64,
}

impl Rig {
    fn new(sessions: usize, inner_bytes: usize) -> Result<Self> {
        ensure!((28..=usize::from(INNER_MTU)).contains(&inner_bytes), "an inner packet has 28 to {INNER_MTU} bytes");
        let Population { shard, peers, pool, now } = Population::new(sessions, 7)?;
        let (memory, frames) = Umem::new(BATCH as u32, CHUNK)?;
        let mut path = DataPath::new(shard, pool, INNER_MTU, now);
        let hop = NextHop { source_mac: [2; 6], destination_mac: [4; 6], vlan: None };
        path.set_hop(INSIDE_HOP, Some(hop));
        path.set_hop(ROUTE, Some(hop));
        let buffers = vec![vec![0x5a; inner_bytes + TAG_LEN]; BATCH];
        let aead = DefaultAead::new(&[7; 32]);
        Ok(Self { path, memory, frames, peers, next_peer: 0, inner_bytes, now, aead, buffers, nonce: 0 })
    }

    fn round(&mut self) -> Result<Round> {
        self.fill_outside()?;
        let before = alloc::count();
        let started = Instant::now();
        let mut sent = 0;
        for frame in &mut self.frames {
            sent += usize::from(self.path.from_outside(self.now, &self.memory, frame, 0) == Verdict::Send(Role::Inside));
        }
        let decapsulate = per_packet(started);
        let mut allocations = alloc::count() - before;
        ensure!(sent == BATCH, "{sent} of {BATCH} packets were decapsulated");

        let seal = self.seal_bare();
        let open = self.open_bare()?;

        self.fill_inside()?;
        let before = alloc::count();
        let started = Instant::now();
        let mut sent = 0;
        for frame in &mut self.frames {
            sent += usize::from(self.path.from_inside(self.now, &self.memory, frame) == Verdict::Send(Role::Outside));
        }
        let encapsulate = per_packet(started);
        allocations += alloc::count() - before;
        ensure!(sent == BATCH, "{sent} of {BATCH} packets were encapsulated");
        Ok(Round { decapsulate, open, encapsulate, seal, allocations })
    }

    /// The bare AEAD's sealing of as many buffers; [`Rig::open_bare`] opens what it sealed.
    fn seal_bare(&mut self) -> f64 {
        let first = self.nonce;
        let started = Instant::now();
        for (buffer, counter) in self.buffers.iter_mut().zip(first..) {
            let (plaintext, tag) = buffer.split_at_mut(self.inner_bytes);
            tag.copy_from_slice(&self.aead.seal_in_place(&nonce(counter), &[0; HEADER_LEN], plaintext));
        }
        black_box(&mut self.buffers);
        per_packet(started)
    }

    fn open_bare(&mut self) -> Result<f64> {
        let first = self.nonce;
        self.nonce += BATCH as u64;
        let started = Instant::now();
        let mut opened = 0;
        for (buffer, counter) in self.buffers.iter_mut().zip(first..) {
            opened += usize::from(self.aead.open_in_place(&nonce(counter), &[0; HEADER_LEN], buffer).is_ok());
        }
        black_box(&mut self.buffers);
        let elapsed = per_packet(started);
        ensure!(opened == BATCH, "the bare AEAD opened {opened} of {BATCH} buffers");
        Ok(elapsed)
    }

    /// Puts a fresh DATA packet of the next client into every frame, as it would come from the network.
    fn fill_outside(&mut self) -> Result<()> {
        let total = OUTER_LEN + self.inner_bytes + DATA_OVERHEAD;
        for frame in &mut self.frames {
            let number = self.next_peer;
            self.next_peer = (number + 1) % self.peers.len().max(1);
            let peer = &mut self.peers[number];
            frame.place(HEADROOM, total)?;
            let bytes = self.memory.bytes_mut(frame);
            let tunnel = &mut bytes[OUTER_LEN..];
            let gateway = Ipv4Addr::new(10, 0, 0, 1);
            write_inner(&mut tunnel[HEADER_LEN..HEADER_LEN + self.inner_bytes], peer.inner, gateway);
            peer.client.data_out(tunnel)?;
            write_outer(bytes, peer.outer)?;
        }
        Ok(())
    }

    /// Puts an inner packet for the next client into every frame, as it would come from the inside.
    fn fill_inside(&mut self) -> Result<()> {
        for frame in &mut self.frames {
            let peer = &self.peers[self.next_peer];
            self.next_peer = (self.next_peer + 1) % self.peers.len().max(1);
            frame.place(HEADROOM, ETHERNET_LEN + self.inner_bytes)?;
            let bytes = self.memory.bytes_mut(frame);
            write_ethernet(bytes);
            write_inner(&mut bytes[ETHERNET_LEN..], Ipv4Addr::new(10, 0, 0, 1), peer.inner);
        }
        Ok(())
    }
}

fn per_packet(started: Instant) -> f64 {
    started.elapsed().as_nanos() as f64 / BATCH as f64
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

fn write_ethernet(bytes: &mut [u8]) {
    bytes[..12].fill(2);
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
}

/// An IPv4 and UDP header around nothing in particular.
fn write_inner(packet: &mut [u8], source: Ipv4Addr, destination: Ipv4Addr) {
    packet.fill(0);
    packet[0] = 0x45;
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[8] = 64;
    packet[9] = 17;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    packet[24..26].copy_from_slice(&(length - 20).to_be_bytes());
}

/// Ethernet, IPv4 and UDP headers in front of a tunnel packet from that client.
fn write_outer(frame: &mut [u8], peer: SocketAddr) -> Result<()> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (peer.ip(), GATEWAY.ip()) else {
        bail!("the packets of this benchmark are IPv4");
    };
    let total = (frame.len() - ETHERNET_LEN) as u16;
    write_ethernet(frame);
    let ip = &mut frame[ETHERNET_LEN..];
    ip[..20].fill(0);
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[6] = 0x40;
    ip[8] = 64;
    ip[9] = 17;
    ip[12..16].copy_from_slice(&source.octets());
    ip[16..20].copy_from_slice(&destination.octets());
    ip[20..22].copy_from_slice(&peer.port().to_be_bytes());
    ip[22..24].copy_from_slice(&GATEWAY.port().to_be_bytes());
    ip[24..26].copy_from_slice(&(total - 20).to_be_bytes());
    ip[26..28].fill(0);
    Ok(())
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
    fn a_packet_beyond_the_mtu_is_no_measurement() {
        assert!(measure(1, 1_417, 1).is_err());
    }
}
