//! How frames go home: every frame returns to the fill ring of the region it was cut from.
//!
//! A worker puts frames of its own regions back itself. Frames of another worker's regions it collects and hands over
//! in batches through that worker's inbox, a bounded lock-free queue. What the inbox does not take stays collected and
//! is offered again, so a frame is never lost on the way.

use std::sync::Arc;

use arrayvec::ArrayVec;
use crossbeam_queue::ArrayQueue;

use super::Role;
use crate::doorbell::Doorbell;
use crate::sys::{FillRing, Frame};

/// Frames handed over at a time: shares the cost of a queue operation and of moving cache lines between cores.
const PARCEL: usize = 32;
/// Parcels in an inbox after which its owner is woken, should it sleep: far fewer than a region has frames, so that
/// the queue never runs dry because its owner has nothing else to do.
const WAKE_AT: usize = 8;

/// Frames on the way from one worker to another.
type Parcel = ArrayVec<Frame, PARCEL>;

/// The workers' inboxes, by worker number.
#[derive(Debug)]
pub(super) struct Exchange {
    inboxes: Vec<Inbox>,
}

#[derive(Debug)]
struct Inbox {
    parcels: ArrayQueue<Parcel>,
    bell: Arc<Doorbell>,
}

impl Exchange {
    /// Inboxes for the workers whose bells these are; `frames` is the size of the whole memory.
    pub(super) fn new(bells: impl IntoIterator<Item = Arc<Doorbell>>, frames: u32) -> Self {
        // Room for all frames in full parcels. Parcels of few frames may fill it; then the rest waits with its sender.
        let capacity = (frames as usize).div_ceil(PARCEL);
        let inboxes = bells.into_iter().map(|bell| Inbox { parcels: ArrayQueue::new(capacity), bell }).collect();
        Self { inboxes }
    }
}

/// Counts of frames that one worker took in and gave out. It proves that none is lost: at the end of a round what came
/// in has gone out, or is held on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameLedger {
    /// In: with a received packet.
    pub received: u64,
    /// In: the packet in it was sent.
    pub completed: u64,
    /// In: handed over by another worker.
    pub collected: u64,
    /// Out: queued for sending.
    pub transmitted: u64,
    /// Out: put into a fill ring, the first filling included.
    pub filled: u64,
    /// Out: handed over to another worker.
    pub handed_over: u64,
    /// In, when the ports were opened: the worker's own regions.
    pub endowed: u64,
    /// Collected for other workers, not yet handed over.
    pub held: u64,
}

impl FrameLedger {
    /// Frames that came in and neither went out nor are held. Zero at the end of every round.
    pub fn missing(&self) -> i64 {
        let taken = self.endowed + self.received + self.completed + self.collected;
        let given = self.transmitted + self.filled + self.handed_over + self.held;
        taken as i64 - given as i64
    }

    /// Frames that wait in a transmit ring, a device or a completion ring.
    pub fn in_flight(&self) -> u64 {
        self.transmitted - self.completed
    }

    /// Over all workers: frames on their way from one to another.
    pub fn between_workers(&self) -> u64 {
        self.held + self.handed_over - self.collected
    }

    /// The ledger of several workers together.
    pub fn sum<'a>(ledgers: impl IntoIterator<Item = &'a Self>) -> Self {
        ledgers.into_iter().fold(Self::default(), |sum, one| Self {
            received: sum.received + one.received,
            completed: sum.completed + one.completed,
            collected: sum.collected + one.collected,
            transmitted: sum.transmitted + one.transmitted,
            filled: sum.filled + one.filled,
            handed_over: sum.handed_over + one.handed_over,
            endowed: sum.endowed + one.endowed,
            held: sum.held + one.held,
        })
    }

    /// Over all workers: frames that lie with the kernel, ready to be received into. Equal to the whole memory when
    /// nothing is under way.
    pub fn ready(&self) -> u64 {
        self.filled - self.received
    }
}

/// Who fills the queue of a region.
#[derive(Debug)]
enum Owner {
    /// This worker; index into `own`.
    Me(usize),
    /// Another worker.
    Worker(usize),
}

/// A fill ring that this worker owns.
#[derive(Debug)]
pub(super) struct OwnFill {
    pub(super) role: Role,
    pub(super) queue: u32,
    pub(super) ring: FillRing,
}

/// One worker's knowledge of where frames belong.
#[derive(Debug)]
pub struct Homes {
    /// `frame >> region_shift` is the frame's region.
    region_shift: u32,
    owners: Vec<Owner>,
    own: Vec<OwnFill>,
    /// Frames collected for other workers, by worker number. Their capacity is that worker's share of the memory, so
    /// they never grow.
    collected: Vec<Vec<Frame>>,
    exchange: Arc<Exchange>,
    me: usize,
    ledger: FrameLedger,
}

impl Homes {
    /// Homes of worker `me`. `owners` names the worker that owns each region; `own` are the fill rings of this worker's
    /// regions in the order of the regions, already filled.
    pub(super) fn new(me: usize, region: u32, owners: &[usize], own: Vec<OwnFill>, exchange: Arc<Exchange>) -> Self {
        assert!(region.is_power_of_two());
        let endowed = u64::from(region) * own.len() as u64;
        let ledger = FrameLedger { endowed, filled: endowed, ..FrameLedger::default() };
        let collected = (0..exchange.inboxes.len())
            .map(|worker| {
                let regions = owners.iter().filter(|&&owner| owner == worker && worker != me).count();
                Vec::with_capacity(regions * region as usize)
            })
            .collect();
        let mut next = 0..own.len();
        let owners = owners
            .iter()
            .map(|&owner| if owner == me { Owner::Me(next.next().expect("a ring each")) } else { Owner::Worker(owner) })
            .collect();
        Self { region_shift: region.trailing_zeros(), owners, own, collected, exchange, me, ledger }
    }

    /// Sends a frame on its way home.
    pub fn give(&mut self, frame: Frame) {
        match self.owners[(frame.index() >> self.region_shift) as usize] {
            Owner::Me(ring) => {
                self.own[ring].ring.give(frame).expect("a fill ring holds all frames of its region");
                self.ledger.filled += 1;
            }
            Owner::Worker(worker) => {
                self.collected[worker].push(frame);
                self.ledger.held += 1;
                if self.collected[worker].len() >= PARCEL {
                    self.hand_over(worker);
                }
            }
        }
    }

    /// Puts frames that other workers handed over into their fill rings, and shows all fill rings to the kernel.
    pub fn settle(&mut self) {
        while let Some(parcel) = self.exchange.inboxes[self.me].parcels.pop() {
            self.ledger.collected += parcel.len() as u64;
            parcel.into_iter().for_each(|frame| self.give(frame));
        }
        self.own.iter_mut().for_each(|fill| fill.ring.publish());
    }

    /// Hands over everything that is collected, however little: before a sleep.
    pub fn flush(&mut self) {
        (0..self.collected.len()).for_each(|worker| while self.hand_over(worker) {});
    }

    /// Whether another worker left frames here.
    pub fn has_mail(&self) -> bool {
        !self.exchange.inboxes[self.me].parcels.is_empty()
    }

    /// The counts.
    pub fn ledger(&self) -> &FrameLedger {
        &self.ledger
    }

    /// The counts, for those who take frames in and give them out.
    pub(super) fn ledger_mut(&mut self) -> &mut FrameLedger {
        &mut self.ledger
    }

    /// The fill rings of this worker.
    pub(super) fn own(&self) -> &[OwnFill] {
        &self.own
    }

    /// Hands at most one parcel over to `worker`; false if there is nothing, or no room.
    fn hand_over(&mut self, worker: usize) -> bool {
        let collected = &mut self.collected[worker];
        let inbox = &self.exchange.inboxes[worker];
        if collected.is_empty() || inbox.parcels.is_full() {
            return false;
        }
        let parcel: Parcel = collected.drain(collected.len().saturating_sub(PARCEL)..).collect();
        let count = parcel.len() as u64;
        match inbox.parcels.push(parcel) {
            Ok(()) => {
                self.ledger.held -= count;
                self.ledger.handed_over += count;
                if inbox.parcels.len() >= WAKE_AT {
                    inbox.bell.ring();
                }
                true
            }
            // Another worker was faster to the last place.
            Err(parcel) => {
                collected.extend(parcel);
                false
            }
        }
    }
}
