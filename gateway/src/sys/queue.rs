//! The four rings of AF_XDP in terms of frames: what goes in is a frame, what comes out is a frame.

use std::sync::Arc;

use rustix::net::xdp::{XdpDesc, XdpDescOptions};

use super::ring::{Consumer, Producer};
use super::{Frame, Umem};

/// Received packets of one socket, in order.
#[derive(Debug)]
pub struct ReceiveRing {
    entries: Consumer<XdpDesc>,
    memory: Arc<Umem>,
}

/// Packets that one socket has to send.
#[derive(Debug)]
pub struct TransmitRing {
    entries: Producer<XdpDesc>,
    memory: Arc<Umem>,
}

/// Empty frames into which the kernel receives from one queue of a device, for whatever socket.
#[derive(Debug)]
pub struct FillRing {
    entries: Producer<u64>,
    memory: Arc<Umem>,
}

/// Frames whose packet left through one queue of a device.
#[derive(Debug)]
pub struct CompletionRing {
    entries: Consumer<u64>,
    memory: Arc<Umem>,
}

impl ReceiveRing {
    pub(super) fn new(entries: Consumer<XdpDesc>, memory: Arc<Umem>) -> Self {
        Self { entries, memory }
    }

    /// The next received packet, if there is one.
    pub fn take(&mut self) -> Option<Frame> {
        self.entries.pop().map(|packet| self.memory.redeem(packet))
    }

    /// Lets the kernel use the places of all taken packets again; once per batch.
    pub fn release(&mut self) {
        self.entries.release();
    }

    /// Packets that wait.
    pub fn waiting(&mut self) -> u32 {
        self.entries.waiting()
    }

    /// Packets that wait, for those who watch.
    pub fn occupancy(&self) -> u32 {
        self.entries.filled()
    }
}

impl TransmitRing {
    pub(super) fn new(entries: Producer<XdpDesc>, memory: Arc<Umem>) -> Self {
        Self { entries, memory }
    }

    /// Queues a packet, which leaves after [`publish`](Self::publish); gives it back if the ring is full.
    pub fn give(&mut self, frame: Frame) -> Result<(), Frame> {
        let addr = self.memory.address(&frame);
        // A frame's length is a u16.
        let entry = XdpDesc { addr, len: frame.len() as u32, options: XdpDescOptions::empty() };
        if self.entries.push(entry) { Ok(()) } else { Err(frame) }
    }

    /// Whether another packet finds a place.
    pub fn has_room(&mut self) -> bool {
        self.entries.has_room()
    }

    /// Shows all queued packets to the kernel; once per batch.
    pub fn publish(&mut self) {
        self.entries.publish();
    }

    /// Packets that the kernel has not taken yet.
    pub fn unsent(&mut self) -> u32 {
        self.entries.unconsumed()
    }

    /// Whether the kernel must be called to send. Always true in copy mode.
    pub fn needs_wakeup(&self) -> bool {
        self.entries.needs_wakeup()
    }

    /// Packets that wait for the kernel, for those who watch.
    pub fn occupancy(&self) -> u32 {
        self.entries.filled()
    }
}

impl FillRing {
    pub(super) fn new(entries: Producer<u64>, memory: Arc<Umem>) -> Self {
        Self { entries, memory }
    }

    /// Gives the kernel an empty frame, visible to it after [`publish`](Self::publish); gives it back if the ring is
    /// full. The frame's packet is forgotten.
    pub fn give(&mut self, mut frame: Frame) -> Result<(), Frame> {
        frame.place(0, 0).expect("an empty packet fits everywhere");
        let address = self.memory.address(&frame);
        if self.entries.push(address) { Ok(()) } else { Err(frame) }
    }

    /// Shows all given frames to the kernel; once per batch.
    pub fn publish(&mut self) {
        self.entries.publish();
    }

    /// Frames that the kernel has not taken off the ring yet.
    pub fn unused(&mut self) -> u32 {
        self.entries.unconsumed()
    }

    /// Whether the driver ran out of frames and must be called to look again.
    pub fn needs_wakeup(&self) -> bool {
        self.entries.needs_wakeup()
    }

    /// Empty frames that the kernel has, for those who watch.
    pub fn occupancy(&self) -> u32 {
        self.entries.filled()
    }
}

impl CompletionRing {
    pub(super) fn new(entries: Consumer<u64>, memory: Arc<Umem>) -> Self {
        Self { entries, memory }
    }

    /// The next frame whose packet was sent. It comes back empty.
    pub fn take(&mut self) -> Option<Frame> {
        self.entries.pop().map(|sent| self.memory.redeem(sent))
    }

    /// Lets the kernel use the places of all taken frames again; once per batch.
    pub fn release(&mut self) {
        self.entries.release();
    }

    /// Frames that wait to be taken, for those who watch.
    pub fn occupancy(&self) -> u32 {
        self.entries.filled()
    }
}
