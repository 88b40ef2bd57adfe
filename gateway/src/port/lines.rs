//! One worker's share of both ports: what it receives from, sends through and returns frames by.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::errno::Errno;

use super::homes::Homes;
use super::{BATCH, FrameBatch, FrameLedger, Role};
use crate::doorbell::Doorbell;
use crate::sys::{CompletionRing, Frame, ReceiveRing, Socket, Statistics, TransmitRing, Umem};

/// Packets that one call is certain to send in copy mode (`TX_BATCH_SIZE` of net/xdp/xsk.c). A kernel since 6.17 sends
/// more, as the socket asks for it.
const SENT_PER_KICK_MIN: u32 = 32;

/// System calls on a socket, without which the kernel may not look at a ring.
pub trait Kick: AsFd {
    /// Has the kernel send what the transmit ring holds; `EAGAIN` if it left something.
    fn kick_transmit(&self) -> Result<(), Errno>;
    /// Has the driver look at the fill ring.
    fn kick_receive(&self);
    /// What the kernel counted.
    fn statistics(&self) -> Statistics;
}

impl Kick for Socket {
    fn kick_transmit(&self) -> Result<(), Errno> {
        Self::kick_transmit(self)
    }

    fn kick_receive(&self) {
        Self::kick_receive(self);
    }

    fn statistics(&self) -> Statistics {
        // The option exists on every kernel that let the socket be made.
        Self::statistics(self).unwrap_or_default()
    }
}

/// A socket that receives one queue's packets for one worker.
#[derive(Debug)]
pub(super) struct Receiver<S> {
    pub(super) socket: S,
    pub(super) ring: ReceiveRing,
}

/// Where a worker sends on a port: the transmit ring of the socket whose queue has the worker's number.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) ring: TransmitRing,
    pub(super) completion: CompletionRing,
}

/// One worker's share of one port.
#[derive(Debug)]
pub(super) struct Line<S> {
    /// By queue.
    pub(super) receivers: Vec<Receiver<S>>,
    pub(super) sender: Sender,
}

/// One worker's share of both ports.
#[derive(Debug)]
pub struct WorkerPorts<S = Socket> {
    pub(super) worker: u16,
    pub(super) outside: Line<S>,
    pub(super) inside: Line<S>,
    pub(super) homes: Homes,
    pub(super) bell: Arc<Doorbell>,
    pub(super) memory: Arc<Umem>,
}

/// What the kernel dropped on a port, as far as one worker's sockets saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStatistics {
    /// Packets dropped because a receive ring was full: the worker was too slow.
    pub ring_full: u64,
    /// Packets dropped for other reasons, mostly for want of an empty frame.
    pub dropped: u64,
    /// Times that a fill ring of a queue was empty. Each of a queue's workers sees the same number.
    pub fill_empty: u64,
    /// Packets that the kernel refused to send: a defect of ours.
    pub invalid_transmit: u64,
}

/// Entries in the rings of one worker, both ports together, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingLevels {
    /// Received packets that wait for the worker.
    pub receive: u64,
    /// Packets that wait for the kernel to send them.
    pub transmit: u64,
    /// Empty frames that the kernel may receive into.
    pub fill: u64,
    /// Frames whose packet was sent, on their way back.
    pub completion: u64,
}

impl<S: Kick> WorkerPorts<S> {
    /// Number of the worker that this share belongs to.
    pub fn worker(&self) -> u16 {
        self.worker
    }

    /// Wakes the worker.
    pub fn bell(&self) -> &Arc<Doorbell> {
        &self.bell
    }

    /// The memory of all frames.
    pub fn memory(&self) -> &Arc<Umem> {
        &self.memory
    }

    /// Queues of a port.
    pub fn queues(&self, role: Role) -> usize {
        self.line(role).receivers.len()
    }

    /// The sockets of a port, by queue.
    pub fn sockets(&self, role: Role) -> impl Iterator<Item = &S> {
        self.line(role).receivers.iter().map(|receiver| &receiver.socket)
    }

    /// What becomes readable when a packet arrives on either port.
    pub fn pollable(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        Role::ALL.into_iter().flat_map(|role| self.sockets(role)).map(AsFd::as_fd)
    }

    /// Takes received packets of one queue, at most a batch.
    pub fn receive(&mut self, role: Role, queue: usize, batch: &mut FrameBatch) {
        let ring = &mut self.line_mut(role).receivers[queue].ring;
        while batch.len() < BATCH
            && let Some(frame) = ring.take()
        {
            batch.push(frame);
        }
        ring.release();
        self.homes.ledger_mut().received += batch.len() as u64;
    }

    /// Queues a packet for sending, to leave at the next [`push_out`](Self::push_out). If the port is congested, the
    /// frame goes home and the packet is lost: false.
    #[must_use = "a packet that found no place is a drop to be counted"]
    pub fn send(&mut self, role: Role, frame: Frame) -> bool {
        match self.line_mut(role).sender.ring.give(frame) {
            Ok(()) => {
                self.homes.ledger_mut().transmitted += 1;
                true
            }
            Err(frame) => {
                self.homes.give(frame);
                false
            }
        }
    }

    /// An empty frame for a packet that no frame brought, and that is to leave by that port: if one of the few is left, and
    /// the port is not congested.
    pub fn spare(&mut self, role: Role) -> Option<Frame> {
        if self.line_mut(role).sender.ring.has_room() { self.homes.spare() } else { None }
    }

    /// Gives up a packet; its frame goes home.
    pub fn discard(&mut self, frame: Frame) {
        self.homes.give(frame);
    }

    /// Lets queued packets of a port leave: one system call for all of them, or none if the driver needs none.
    pub fn push_out(&mut self, role: Role) {
        let worker = usize::from(self.worker);
        let Line { receivers, sender } = self.line_mut(role);
        sender.ring.publish();
        let unsent = sender.ring.unsent();
        if unsent == 0 || !sender.ring.needs_wakeup() {
            return;
        }
        let socket = &receivers[worker].socket;
        for _ in 0..=unsent / SENT_PER_KICK_MIN {
            // EAGAIN: sent as many as a call may, or the device is congested. Anything else passes or shows in the
            // link's state; the packets stay queued, and a full ring is counted by `send`.
            if socket.kick_transmit() != Err(Errno::EAGAIN) || sender.ring.unsent() == 0 {
                break;
            }
        }
    }

    /// Brings frames home: those of sent packets, and those that other workers handed over.
    pub fn settle(&mut self) {
        for role in Role::ALL {
            let completion = match role {
                Role::Outside => &mut self.outside.sender.completion,
                Role::Inside => &mut self.inside.sender.completion,
            };
            let before = self.homes.ledger().completed;
            let mut completed = 0;
            while let Some(frame) = completion.take() {
                completed += 1;
                self.homes.give(frame);
            }
            completion.release();
            self.homes.ledger_mut().completed = before + completed;
        }
        self.homes.settle();
        for fill in self.homes.own().iter().filter(|fill| fill.needs_wakeup()) {
            self.line(fill.role()).receivers[fill.queue() as usize].socket.kick_receive();
        }
        debug_assert_eq!(self.homes.ledger().missing(), 0, "a frame was lost: {:?}", self.homes.ledger());
    }

    /// Keeps no frame of others back: before a sleep.
    pub fn flush(&mut self) {
        self.homes.flush();
    }

    /// Whether sent packets still hold frames, or wait to be sent.
    pub fn has_packets_in_flight(&self) -> bool {
        self.homes.ledger().in_flight() > 0
    }

    /// Whether another worker handed frames over.
    pub fn has_mail(&self) -> bool {
        self.homes.has_mail()
    }

    /// Where this worker's frames went.
    pub fn ledger(&self) -> &FrameLedger {
        self.homes.ledger()
    }

    /// What the kernel dropped, summed over this worker's sockets of a port.
    pub fn statistics(&self, role: Role) -> PortStatistics {
        self.sockets(role).map(Kick::statistics).fold(PortStatistics::default(), |sum, one| PortStatistics {
            ring_full: sum.ring_full + one.ring_full,
            dropped: sum.dropped + one.dropped,
            fill_empty: sum.fill_empty + one.fill_empty,
            invalid_transmit: sum.invalid_transmit + one.invalid_transmit,
        })
    }

    /// How full the rings are.
    pub fn levels(&self) -> RingLevels {
        let mut levels = RingLevels::default();
        for line in Role::ALL.map(|role| self.line(role)) {
            levels.receive += line.receivers.iter().map(|receiver| u64::from(receiver.ring.occupancy())).sum::<u64>();
            levels.transmit += u64::from(line.sender.ring.occupancy());
            levels.completion += u64::from(line.sender.completion.occupancy());
        }
        levels.fill = self.homes.own().iter().map(|fill| u64::from(fill.occupancy())).sum();
        levels
    }

    fn line(&self, role: Role) -> &Line<S> {
        match role {
            Role::Outside => &self.outside,
            Role::Inside => &self.inside,
        }
    }

    fn line_mut(&mut self, role: Role) -> &mut Line<S> {
        match role {
            Role::Outside => &mut self.outside,
            Role::Inside => &mut self.inside,
        }
    }
}
