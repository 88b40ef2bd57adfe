//! The kernel's side of the rings, played by tests: same memory layout and ordering, no device.

use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use rustix::net::xdp::{XdpDesc, XdpDescOptions, XdpRingOffset};

use super::ring::{Consumer, Entry, Producer, Ring};
use super::{CompletionRing, FillRing, Frame, ReceiveRing, TransmitRing, Umem};

/// Where the parts of a ring are in its memory, each counter on a cache line of its own.
const LAYOUT: XdpRingOffset = XdpRingOffset { producer: 0, consumer: 64, flags: Some(128), desc: 192 };

/// Memory of one ring, shared by its two ends.
#[derive(Clone, Debug)]
pub(super) struct RingBlock {
    memory: Arc<MmapRaw>,
    size: u32,
}

impl RingBlock {
    /// A ring of `size` entries of type `T`, whose counters start at `start`.
    pub(super) fn new<T>(size: u32, start: u32) -> Self {
        let len = LAYOUT.desc as usize + size as usize * size_of::<T>();
        let mut memory = MmapOptions::new().len(len).map_anon().expect("anonymous memory");
        for counter in [LAYOUT.producer, LAYOUT.consumer] {
            memory[counter as usize..][..4].copy_from_slice(&start.to_ne_bytes());
        }
        Self { memory: Arc::new(memory.into()), size }
    }

    /// One end of it.
    pub(super) fn ring<T: Entry>(&self) -> Ring<T> {
        Ring::within(Arc::clone(&self.memory), &LAYOUT, self.size).expect("it has flags")
    }
}

/// The kernel's ends of the rings of one (device, queue), and of the sockets bound to it.
#[derive(Debug)]
pub struct FakeQueue {
    memory: Arc<Umem>,
    ring: u32,
    fill: Consumer<u64>,
    completion: Producer<u64>,
    receive: Vec<Producer<XdpDesc>>,
    transmit: Consumer<XdpDesc>,
}

/// The user's ends of the same rings.
#[derive(Debug)]
pub struct UserEnds {
    /// The queue's only transmit ring, its completion ring and its fill ring: all of the queue's owner.
    pub own: Option<(TransmitRing, CompletionRing, FillRing)>,
    /// Receive rings, by worker.
    pub receive: Vec<ReceiveRing>,
}

/// Headroom that XDP leaves before a received packet, in bytes (`XDP_PACKET_HEADROOM`).
pub const RX_HEADROOM: usize = 256;

/// The rings of one queue with `workers` sockets: `region` places for frames in the fill and completion ring, which is
/// filled from `frames`, and `ring` in the others.
pub fn queue(memory: &Arc<Umem>, workers: usize, frames: Vec<Frame>, ring: u32) -> (UserEnds, FakeQueue) {
    let region = frames.len() as u32;
    // Close below the wrap of the counters, so that every test crosses it.
    let start = |size: u32| u32::MAX - size;
    let descriptors = || RingBlock::new::<XdpDesc>(ring, start(ring));
    let fill = RingBlock::new::<u64>(region, start(region));
    // As deep as the memory, for the test that completes late.
    let completions = memory.frames().next_power_of_two();
    let completion = RingBlock::new::<u64>(completions, start(completions));
    let transmit = descriptors();
    let receive: Vec<_> = (0..workers).map(|_| descriptors()).collect();

    let mut fill_ring = FillRing::new(Producer::new(fill.ring()), memory.clone());
    frames.into_iter().for_each(|frame| fill_ring.give(frame).expect("room for the region"));
    fill_ring.publish();
    let user = UserEnds {
        own: Some((
            TransmitRing::new(Producer::new(transmit.ring()), memory.clone()),
            CompletionRing::new(Consumer::new(completion.ring()), memory.clone()),
            fill_ring,
        )),
        receive: receive.iter().map(|block| ReceiveRing::new(Consumer::new(block.ring()), memory.clone())).collect(),
    };
    let kernel = FakeQueue {
        memory: memory.clone(),
        ring,
        fill: Consumer::new(fill.ring()),
        completion: Producer::new(completion.ring()),
        receive: receive.into_iter().map(|block| Producer::new(block.ring())).collect(),
        transmit: Consumer::new(transmit.ring()),
    };
    (user, kernel)
}

impl FakeQueue {
    /// A packet arrives for `worker`; false if it is dropped because there is no empty frame or no place.
    ///
    /// As in the kernel, the packet is there before the place of its frame in the fill ring is shown to be free.
    pub fn deliver(&mut self, worker: usize, packet: &[u8]) -> bool {
        self.fill.release();
        if self.receive[worker].unconsumed() == self.ring {
            return false;
        }
        let Some(empty) = self.fill.pop() else { return false };
        let mut frame = self.memory.redeem(empty);
        frame.place(RX_HEADROOM, packet.len()).expect("test packets fit");
        self.memory.bytes_mut(&mut frame).copy_from_slice(packet);
        let entry =
            XdpDesc { addr: self.memory.address(&frame), len: packet.len() as u32, options: XdpDescOptions::empty() };
        assert!(self.receive[worker].push(entry));
        self.receive[worker].publish();
        true
    }

    /// Sends at most `limit` packets of the transmit ring and returns them.
    pub fn transmit(&mut self, limit: usize) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        while sent.len() < limit {
            let Some(packet) = self.transmit.pop() else { break };
            let frame = self.memory.redeem(packet);
            sent.push(self.memory.bytes(&frame).to_vec());
            assert!(self.completion.push(self.memory.address(&frame)), "the completion ring holds all frames");
        }
        self.transmit.release();
        self.completion.publish();
        sent
    }

    /// Shows the places of taken frames to be free.
    pub fn catch_up(&mut self) {
        self.fill.release();
    }

    /// Frames that the kernel holds for receiving.
    pub fn unused(&mut self) -> u32 {
        self.fill.waiting()
    }
}
