//! How frames go home: every frame returns to the fill ring of the region it was cut from.
//!
//! A worker puts frames of its own regions back itself. Frames of another worker's regions it collects and hands over
//! in batches through that worker's inbox, a bounded lock-free queue. What the inbox does not take stays collected and
//! is offered again, so a frame is never lost on the way.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::{BATCH, Role};
use crate::doorbell::Doorbell;
use crate::sync::inbox::Inbox;
use crate::sys::{FillRing, Frame};

/// Frames handed over at a time: shares the cost of a queue operation and of moving cache lines between cores.
const PARCEL: usize = 32;
/// Parcels in an inbox after which its owner is woken, should it sleep: far fewer than a region has frames, so that
/// the queue never runs dry because its owner has nothing else to do.
const WAKE_AT: usize = 4;
/// Fewest frames of a region: a quarter of them may wait for a sleeping owner.
pub(super) const REGION_MIN: u32 = (4 * WAKE_AT * PARCEL) as u32;

/// Frames of each worker for packets that no frame brought: more control messages than a round has to send.
pub(super) const SPARE: usize = BATCH;

/// Frames on the way from one worker to another.
type Parcel = ArrayVec<Frame, PARCEL>;

/// The workers' inboxes, by worker number.
#[derive(Debug)]
pub(super) struct Exchange {
    inboxes: Vec<Inbox<Parcel, Doorbell>>,
}

impl Exchange {
    /// Inboxes for the workers whose bells these are; `frames` is the size of the whole memory.
    pub(super) fn new(bells: impl IntoIterator<Item = Arc<Doorbell>>, frames: u32) -> Self {
        // Room for all frames in full parcels. Parcels of few frames may fill it; then the rest waits with its sender.
        let capacity = (frames as usize).div_ceil(PARCEL);
        let inboxes = bells.into_iter().map(|bell| Inbox::new(capacity, WAKE_AT, bell)).collect();
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
    /// In, when the ports were opened: the worker's own regions, and its spare frames.
    pub endowed: u64,
    /// Kept for a moment: not yet handed over to another worker, or waiting for a place in a fill ring.
    pub held: u64,
    /// Kept for packets that no frame brings.
    pub spare: u64,
}

impl FrameLedger {
    /// Frames that came in and neither went out nor are held. Zero at the end of every round.
    pub fn missing(&self) -> i64 {
        let taken = self.endowed + self.received + self.completed + self.collected;
        let given = self.transmitted + self.filled + self.handed_over + self.held + self.spare;
        taken as i64 - given as i64
    }

    /// Frames that wait in a transmit ring, a device or a completion ring.
    pub fn in_flight(&self) -> u64 {
        self.transmitted - self.completed
    }

    /// Over all workers: frames on their way from one to another, or kept for a moment.
    pub fn on_their_way(&self) -> u64 {
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
            spare: sum.spare + one.spare,
        })
    }

    /// Over all workers: frames that lie with the kernel, ready to be received into. Equal to all regions when nothing is
    /// under way.
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
    role: Role,
    queue: u32,
    ring: FillRing,
    /// Frames that found the ring full. It has a place for each frame of its region, but the kernel hands a received
    /// frame over a moment before it shows that the frame's old place is free (`xsk_flush` in net/xdp/xsk.c). Its
    /// capacity is the region's, so it never grows.
    waiting: Vec<Frame>,
}

impl OwnFill {
    /// A fill ring of a queue, filled with its region of that many frames.
    pub(super) fn new(role: Role, queue: u32, ring: FillRing, region: u32) -> Self {
        Self { role, queue, ring, waiting: Vec::with_capacity(region as usize) }
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    pub(super) fn queue(&self) -> u32 {
        self.queue
    }

    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }

    pub(super) fn occupancy(&self) -> u32 {
        self.ring.occupancy()
    }

    fn give(&mut self, frame: Frame, ledger: &mut FrameLedger) {
        match self.ring.give(frame) {
            Ok(()) => ledger.filled += 1,
            Err(frame) => {
                self.waiting.push(frame);
                ledger.held += 1;
            }
        }
    }

    /// Puts into the ring what found it full before, and shows the ring to the kernel.
    fn settle(&mut self, ledger: &mut FrameLedger) {
        while let Some(frame) = self.waiting.pop() {
            if let Err(frame) = self.ring.give(frame) {
                self.waiting.push(frame);
                break;
            }
            ledger.held -= 1;
            ledger.filled += 1;
        }
        self.ring.publish();
    }
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
    /// Frames that belong to no region and are received into by nobody. This worker sends them, so they come back to it.
    spare: ArrayVec<Frame, SPARE>,
    exchange: Arc<Exchange>,
    me: usize,
    ledger: FrameLedger,
}

impl Homes {
    /// Homes of worker `me`. `owners` names the worker that owns each region; `own` are the fill rings of this worker's
    /// regions in the order of the regions, already filled. `spare` are frames behind all regions.
    pub(super) fn new(
        me: usize,
        region: u32,
        owners: &[usize],
        own: Vec<OwnFill>,
        spare: impl IntoIterator<Item = Frame>,
        exchange: Arc<Exchange>,
    ) -> Self {
        assert!(region.is_power_of_two());
        let spare: ArrayVec<_, SPARE> = spare.into_iter().collect();
        let filled = u64::from(region) * own.len() as u64;
        let spares = spare.len() as u64;
        let ledger = FrameLedger { endowed: filled + spares, filled, spare: spares, ..FrameLedger::default() };
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
        Self { region_shift: region.trailing_zeros(), owners, own, collected, spare, exchange, me, ledger }
    }

    /// Sends a frame on its way home.
    pub fn give(&mut self, frame: Frame) {
        match self.owners.get((frame.index() >> self.region_shift) as usize) {
            Some(&Owner::Me(ring)) => self.own[ring].give(frame, &mut self.ledger),
            None => {
                self.spare.push(frame);
                self.ledger.spare += 1;
            }
            Some(&Owner::Worker(worker)) => {
                self.collected[worker].push(frame);
                self.ledger.held += 1;
                if self.collected[worker].len() >= PARCEL {
                    self.hand_over(worker);
                }
            }
        }
    }

    /// An empty frame for a packet that no frame brought, if one is left.
    pub(super) fn spare(&mut self) -> Option<Frame> {
        let frame = self.spare.pop()?;
        self.ledger.spare -= 1;
        Some(frame)
    }

    /// Puts frames that other workers handed over into their fill rings, and shows all fill rings to the kernel.
    pub fn settle(&mut self) {
        while let Some(parcel) = self.exchange.inboxes[self.me].take() {
            self.ledger.collected += parcel.len() as u64;
            parcel.into_iter().for_each(|frame| self.give(frame));
        }
        self.own.iter_mut().for_each(|fill| fill.settle(&mut self.ledger));
    }

    /// Hands over everything that is collected, however little: before a sleep.
    pub fn flush(&mut self) {
        (0..self.collected.len()).for_each(|worker| while self.hand_over(worker) {});
    }

    /// Whether another worker left frames here.
    pub fn has_mail(&self) -> bool {
        self.exchange.inboxes[self.me].has_mail()
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
        if collected.is_empty() || inbox.is_full() {
            return false;
        }
        let parcel: Parcel = collected.drain(collected.len().saturating_sub(PARCEL)..).collect();
        let count = parcel.len() as u64;
        match inbox.put(parcel) {
            Ok(()) => {
                self.ledger.held -= count;
                self.ledger.handed_over += count;
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

#[cfg(test)]
mod tests {
    use super::super::fake::plane;
    use super::super::{FrameBatch, FrameLedger, Role};
    use super::REGION_MIN;

    /// Frames that an inbox does not take stay with their sender, and go home when there is room again.
    #[test]
    fn a_full_inbox_loses_no_frame() {
        let (mut shares, mut kernel) = plane(2, 256, 64);
        // 1024 frames make an inbox of 32 parcels; here each parcel holds one frame of worker 1's region.
        let mut batch = FrameBatch::new();
        for _ in 0..40 {
            assert!(kernel.deliver(Role::Outside, 1, 0, &[0; 60]));
            shares[0].receive(Role::Outside, 1, &mut batch);
            batch.drain(..).for_each(|frame| shares[0].discard(frame));
            shares[0].flush();
        }
        let ledger = *shares[0].ledger();
        assert_eq!((ledger.handed_over, ledger.held, ledger.missing()), (32, 8, 0));
        kernel.catch_up();
        for _ in 0..2 {
            shares[1].settle();
            shares[0].flush();
        }
        assert_eq!(kernel.ready(), [256; 4]);
        let ledgers: Vec<_> = shares.iter().map(|share| *share.ledger()).collect();
        let all = FrameLedger::sum(&ledgers);
        assert_eq!((all.ready(), all.on_their_way()), (1024, 0));
    }

    #[test]
    fn a_frame_that_returns_before_its_place_is_free_waits_for_it() {
        let (mut shares, mut kernel) = plane(1, 256, 64);
        let mut batch = FrameBatch::new();
        assert!(kernel.deliver(Role::Outside, 0, 0, &[0; 60]));
        shares[0].receive(Role::Outside, 0, &mut batch);
        batch.drain(..).for_each(|frame| shares[0].discard(frame));
        shares[0].settle();
        assert_eq!((kernel.ready()[0], shares[0].ledger().held), (255, 1));
        kernel.catch_up();
        shares[0].settle();
        assert_eq!((kernel.ready()[0], shares[0].ledger().held), (256, 0));
    }

    #[test]
    fn a_sleeping_owner_is_woken_before_its_queue_runs_dry() {
        use std::os::fd::AsFd;

        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

        let (mut shares, mut kernel) = plane(2, REGION_MIN, 64);
        let bell = shares[1].bell().clone();
        bell.arm();
        let mut batch = FrameBatch::new();
        let mut rang_after = None;
        for count in 1..=REGION_MIN {
            assert!(kernel.deliver(Role::Outside, 1, 0, &[0; 60]), "the queue ran dry after {count} packets");
            shares[0].receive(Role::Outside, 1, &mut batch);
            batch.drain(..).for_each(|frame| shares[0].discard(frame));
            let mut fds = [PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::ZERO).expect("poll") > 0 {
                rang_after = Some(count);
                break;
            }
        }
        assert_eq!(rang_after, Some(REGION_MIN / 4), "four parcels of 32");
        kernel.catch_up();
        shares[1].settle();
        assert_eq!(kernel.ready(), [REGION_MIN; 4]);
    }
}
