//! The kernel's side of the rings, played by tests: same memory layout and ordering, no device.

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::ring::{Consumer, Producer, Ring};
use super::{CompletionRing, FillRing, Frame, ReceiveRing, TransmitRing, Umem};

/// Memory of one ring, shared by its two ends.
#[derive(Debug)]
pub struct RingBlock {
    producer: AtomicU32,
    consumer: AtomicU32,
    flags: AtomicU32,
    size: u32,
    entries: UnsafeCell<Box<[u64]>>,
}

// SAFETY: the entries are reached through rings only, whose counters say which end may touch which entry.
unsafe impl Send for RingBlock {}
// SAFETY: as above.
unsafe impl Sync for RingBlock {}

impl RingBlock {
    /// A ring of `size` entries of type `T`, whose counters start at `start`.
    pub(super) fn new<T>(size: u32, start: u32) -> Arc<Self> {
        let words = size as usize * size_of::<T>() / size_of::<u64>();
        Arc::new(Self {
            producer: AtomicU32::new(start),
            consumer: AtomicU32::new(start),
            flags: AtomicU32::new(0),
            size,
            entries: UnsafeCell::new(vec![0; words].into_boxed_slice()),
        })
    }

    pub(super) fn counters(&self) -> (NonNull<AtomicU32>, NonNull<AtomicU32>, NonNull<AtomicU32>) {
        (NonNull::from(&self.producer), NonNull::from(&self.consumer), NonNull::from(&self.flags))
    }

    pub(super) fn entries(&self) -> NonNull<u64> {
        // SAFETY: the box is never replaced; the pointer to its content comes from its cell.
        let entries = unsafe { (*self.entries.get()).as_mut_ptr() };
        NonNull::new(entries).expect("a box is not null")
    }

    pub(super) fn size(&self) -> u32 {
        self.size
    }
}

/// The kernel's ends of the rings of one (device, queue), and of the sockets bound to it.
#[derive(Debug)]
pub struct FakeQueue {
    memory: Arc<Umem>,
    ring: u32,
    fill: Consumer<u64>,
    completion: Producer<u64>,
    receive: Vec<Producer<libc::xdp_desc>>,
    transmit: Consumer<libc::xdp_desc>,
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
    let descriptors = || RingBlock::new::<libc::xdp_desc>(ring, start(ring));
    let fill = RingBlock::new::<u64>(region, start(region));
    // As deep as the memory, for the test that completes late.
    let completions = memory.frames().next_power_of_two();
    let completion = RingBlock::new::<u64>(completions, start(completions));
    let transmit = descriptors();
    let receive: Vec<_> = (0..workers).map(|_| descriptors()).collect();

    let mut fill_ring = FillRing::new(Producer::new(Ring::on_heap(fill.clone())), memory.clone());
    frames.into_iter().for_each(|frame| fill_ring.give(frame).expect("room for the region"));
    fill_ring.publish();
    let user = UserEnds {
        own: Some((
            TransmitRing::new(Producer::new(Ring::on_heap(transmit.clone())), memory.clone()),
            CompletionRing::new(Consumer::new(Ring::on_heap(completion.clone())), memory.clone()),
            fill_ring,
        )),
        receive: receive
            .iter()
            .map(|block| ReceiveRing::new(Consumer::new(Ring::on_heap(block.clone())), memory.clone()))
            .collect(),
    };
    let kernel = FakeQueue {
        memory: memory.clone(),
        ring,
        fill: Consumer::new(Ring::on_heap(fill)),
        completion: Producer::new(Ring::on_heap(completion)),
        receive: receive.into_iter().map(|block| Producer::new(Ring::on_heap(block))).collect(),
        transmit: Consumer::new(Ring::on_heap(transmit)),
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
        let Some(address) = self.fill.pop() else { return false };
        // SAFETY: the address was taken off the fill ring just now.
        let mut frame = unsafe { self.memory.redeem(address, 0) };
        frame.place(RX_HEADROOM, packet.len()).expect("test packets fit");
        self.memory.bytes_mut(&mut frame).copy_from_slice(packet);
        let entry = libc::xdp_desc { addr: self.memory.address(&frame), len: packet.len() as u32, options: 0 };
        assert!(self.receive[worker].push(entry));
        self.receive[worker].publish();
        true
    }

    /// Sends at most `limit` packets of the transmit ring and returns them.
    pub fn transmit(&mut self, limit: usize) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        while sent.len() < limit {
            let Some(entry) = self.transmit.pop() else { break };
            // SAFETY: taken off the transmit ring just now.
            let frame: Frame = unsafe { self.memory.redeem(entry.addr, entry.len) };
            sent.push(self.memory.bytes(&frame).to_vec());
            assert!(self.completion.push(entry.addr), "the completion ring holds all frames");
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
