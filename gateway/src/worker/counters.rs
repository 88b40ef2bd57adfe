//! What a worker counted since its start.

use jumpgate_protocol::distribution::Distribution;
use jumpgate_protocol::gateway::Meter;
use jumpgate_protocol::reason::ReasonCounters;

use super::PathCounters;
use crate::port::{FrameLedger, PortStatistics, RingLevels};

/// Packets and bytes of one port, Ethernet headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets received.
    pub received: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Packets queued for sending.
    pub sent: u64,
    /// Bytes queued for sending.
    pub sent_bytes: u64,
}

/// What a worker counted since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerCounters {
    /// Number of the worker.
    pub worker: u16,
    /// Traffic of the outside port.
    pub outside: Traffic,
    /// Traffic of the inside port.
    pub inside: Traffic,
    /// Packets received on the outside port, by queue.
    pub outside_queues: Vec<u64>,
    /// What its packet path dropped and answered.
    pub path: PathCounters,
    /// What its sessions dropped, by reason.
    pub sessions: ReasonCounters,
    /// What the kernel dropped on the outside port.
    pub outside_kernel: PortStatistics,
    /// What the kernel dropped on the inside port.
    pub inside_kernel: PortStatistics,
    /// Where its frames went.
    pub frames: FrameLedger,
    /// Times that it had nothing to do and slept.
    pub sleeps: u64,
    /// Packets that it found at a time, where it found any.
    pub batches: Distribution,
    /// How full its rings were when it was asked.
    pub rings: RingLevels,
    /// What its sessions counted beside drops.
    pub meter: Meter,
}

impl WorkerCounters {
    /// All drops, whoever made them, by reason.
    pub fn drops(&self) -> ReasonCounters {
        let mut sum = self.sessions.clone();
        self.path.drops.iter().for_each(|(reason, n)| sum.add(reason, n));
        sum
    }

    /// Everything as names and numbers, for an operator. What is normal is always there, what is not only if it happened.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let always = [
            ("outside_received", self.outside.received),
            ("outside_received_bytes", self.outside.received_bytes),
            ("outside_sent", self.outside.sent),
            ("outside_sent_bytes", self.outside.sent_bytes),
            ("inside_received", self.inside.received),
            ("inside_received_bytes", self.inside.received_bytes),
            ("inside_sent", self.inside.sent),
            ("inside_sent_bytes", self.inside.sent_bytes),
            ("control_answered", self.path.answered),
            ("sleeps", self.sleeps),
            ("frames_in_flight", self.frames.in_flight()),
        ];
        let (outside, inside) = (self.outside_kernel, self.inside_kernel);
        let sometimes = [
            ("no_next_hop", self.path.no_next_hop),
            ("too_big_answers", self.path.too_big_answers),
            ("outside_kernel_ring_full", outside.ring_full),
            ("outside_kernel_dropped", outside.dropped),
            ("outside_kernel_fill_empty", outside.fill_empty),
            ("outside_kernel_invalid_transmit", outside.invalid_transmit),
            ("inside_kernel_ring_full", inside.ring_full),
            ("inside_kernel_dropped", inside.dropped),
            ("inside_kernel_fill_empty", inside.fill_empty),
            ("inside_kernel_invalid_transmit", inside.invalid_transmit),
            ("frames_missing", self.frames.missing().unsigned_abs()),
        ];
        let drops: Vec<_> = self.drops().iter().map(|(reason, value)| (reason.name(), value)).collect();
        always.into_iter().chain(sometimes.into_iter().filter(|(_, value)| *value > 0)).chain(drops)
    }
}
