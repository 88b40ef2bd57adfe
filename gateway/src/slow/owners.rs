//! The workers as the slow path sees them: who owns a slot, and how to tell them something.

use std::collections::VecDeque;

use jumpgate_protocol::gateway::{Birth, Parcel, Shard, Title};
use jumpgate_protocol::ident::Slot;

use crate::handover::{Command, SlowEnd};

/// Control messages that are held back for slots that are between two workers; those beyond it are dropped, and their
/// senders repeat them. A slot is under way for a millisecond or so, and a client sends a message or two in that.
const HELD_CONTROL: usize = 256;

/// The worker that owns a slot when a gateway starts (SL-3). Neighbouring slots go to different workers, so that a table
/// that is only partly in use still loads all of them.
pub fn worker_of(slot: Slot, workers: usize) -> usize {
    usize::from(slot.number()) % workers
}

/// The slot table (OW-12), and the command queues of all workers.
pub struct Owners {
    ends: Vec<SlowEnd<Shard>>,
    /// What did not fit into a worker's queue and must not be lost, in order. Its length is bounded by what fills it:
    /// births by the limits of the handshake desk, next hops by their table, the rest by operators' patience.
    waiting: Vec<VecDeque<Command<Birth>>>,
    slots: Vec<Holding>,
    /// What is for the owner of a slot that is under way, in order. Bounded as what waits, and control messages among it
    /// by a number.
    held: VecDeque<(Slot, Command<Birth>)>,
    held_control: usize,
}

/// One entry of the slot table.
#[derive(Clone, Copy)]
struct Holding {
    worker: usize,
    fencing_epoch: u64,
    /// It was told to give the slot up.
    leaving: bool,
}

impl Owners {
    /// The ends that the workers were linked to, in the order of their numbers.
    pub fn new(ends: Vec<SlowEnd<Shard>>) -> Self {
        let holding = |slot| Holding { worker: worker_of(slot, ends.len()), fencing_epoch: 1, leaving: false };
        Self {
            slots: Slot::all().map(holding).collect(),
            waiting: ends.iter().map(|_| VecDeque::new()).collect(),
            ends,
            held: VecDeque::new(),
            held_control: 0,
        }
    }

    /// How many workers there are.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// The worker that owns a slot; the former one while the slot is under way.
    pub fn of(&self, slot: Slot) -> usize {
        self.holding(slot).worker
    }

    /// Whether the slot is under way.
    pub fn is_leaving(&self, slot: Slot) -> bool {
        self.holding(slot).leaving
    }

    /// Tells a worker something that must not be lost.
    pub fn tell(&mut self, worker: usize, command: Command<Birth>) {
        self.waiting[worker].push_back(command);
        if self.waiting[worker].len() == 1 {
            self.flush();
        }
    }

    /// Tells every worker.
    pub fn tell_all(&mut self, command: impl Fn() -> Command<Birth>) {
        for worker in 0..self.ends.len() {
            self.tell(worker, command());
        }
    }

    /// Tells the owner of a slot something that must not be lost; the next one, if the slot is under way.
    pub fn tell_owner(&mut self, slot: Slot, command: Command<Birth>) {
        if self.is_leaving(slot) {
            self.held.push_back((slot, command));
        } else {
            self.tell(self.of(slot), command);
        }
    }

    /// Hands the owner of a slot something that its sender will send again if it is lost; false if there is no room. It
    /// never overtakes what waits: a birth comes before what its session says.
    pub fn offer_owner(&mut self, slot: Slot, command: Command<Birth>) -> bool {
        if self.is_leaving(slot) {
            let room = self.held_control < HELD_CONTROL;
            if room {
                self.held_control += 1;
                self.held.push_back((slot, command));
            }
            return room;
        }
        let worker = self.of(slot);
        self.waiting[worker].is_empty() && self.ends[worker].send(command).is_ok()
    }

    /// Has the owner of a slot give it up. What is for it is held back from now on.
    pub fn call_in(&mut self, slot: Slot) {
        let holding = &mut self.slots[usize::from(slot.number())];
        holding.leaving = true;
        let worker = holding.worker;
        self.tell(worker, Command::Release(slot));
    }

    /// Hands a slot that was given up to another worker, and what was held back behind it. Nobody else can have the slot:
    /// there is one parcel of it.
    pub fn hand_to(&mut self, worker: usize, parcel: Parcel) {
        let slot = parcel.slot();
        let holding = &mut self.slots[usize::from(slot.number())];
        let title = Title { fencing_epoch: holding.fencing_epoch + 1, previous_worker: holding.worker as u16 };
        *holding = Holding { worker, fencing_epoch: title.fencing_epoch, leaving: false };
        self.tell(worker, Command::Adopt { parcel, title });
        self.let_go(slot);
    }

    /// The owner keeps a slot that it was to give up.
    pub fn keep(&mut self, slot: Slot) {
        self.slots[usize::from(slot.number())].leaving = false;
        self.let_go(slot);
    }

    /// Slots of a worker, and how many of them are under way.
    pub fn holdings(&self, worker: usize) -> (usize, usize) {
        let own = self.slots.iter().filter(|holding| holding.worker == worker);
        own.fold((0, 0), |(slots, leaving), holding| (slots + 1, leaving + usize::from(holding.leaving)))
    }

    /// Tries again what waits; true if something still does.
    pub fn flush(&mut self) -> bool {
        for (end, waiting) in self.ends.iter_mut().zip(&mut self.waiting) {
            while let Some(command) = waiting.pop_front() {
                if let Err(command) = end.send(command) {
                    waiting.push_front(command);
                    break;
                }
            }
        }
        self.has_backlog()
    }

    /// Whether something waits for room in a worker's queue.
    pub fn has_backlog(&self) -> bool {
        self.waiting.iter().any(|waiting| !waiting.is_empty())
    }

    /// Takes the next report of a worker.
    pub fn receive(&mut self, worker: usize) -> Option<super::WorkerReport> {
        self.ends[worker].receive()
    }

    fn holding(&self, slot: Slot) -> &Holding {
        &self.slots[usize::from(slot.number())]
    }

    /// Tells the owner of a slot what was held back for it.
    fn let_go(&mut self, slot: Slot) {
        let (own, others): (VecDeque<_>, _) =
            std::mem::take(&mut self.held).into_iter().partition(|(held, _)| *held == slot);
        self.held = others;
        for (_, command) in own {
            self.held_control -= usize::from(matches!(command, Command::Control { .. }));
            self.tell(self.of(slot), command);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jumpgate_protocol::entropy::SeededEntropy;
    use jumpgate_protocol::gateway::{AddressPool, ResetKey, ShardConfig};
    use jumpgate_protocol::ident::{Arrival, Locator, SLOT_COUNT, Tuple};
    use jumpgate_protocol::policy::Rate;
    use jumpgate_protocol::reason::Reason;
    use jumpgate_protocol::time::Time;
    use jumpgate_protocol::wire::ControlPacket;

    use super::*;
    use crate::doorbell::Doorbell;
    use crate::handover::{WorkerEnd, link};

    fn owners(workers: usize) -> (Owners, Vec<WorkerEnd<Shard>>) {
        let bell = || Arc::new(Doorbell::new().expect("eventfd"));
        let (slow, workers) = (0..workers).map(|_| link::<Shard>(&bell(), &bell())).unzip();
        (Owners::new(slow), workers)
    }

    fn slot(number: u16) -> Slot {
        Slot::new(number).expect("slot")
    }

    fn parcel(number: u16) -> Parcel {
        let pool = AddressPool::new(Some([10, 0, 0, 0].into()), None, 4);
        let config = ShardConfig { pool, reset_key: ResetKey::from_secret(&[1; 32]), resets: Rate::even(1) };
        let mut shard = Shard::new(config, Box::new(SeededEntropy::new(2)), Time::ZERO);
        shard.release(Time::ZERO, slot(number)).expect("every slot is its own")
    }

    fn control() -> Command<Birth> {
        let address = |port| ([192, 0, 2, 1], port).into();
        let tuple = Tuple { local: address(1), peer: address(2) };
        Command::Control { arrival: Arrival { tuple, route: 0, queue: 0 }, packet: ControlPacket::new() }
    }

    fn terminate(number: u16) -> Command<Birth> {
        Command::Terminate { locator: Locator::new(slot(number), 1), reason: Reason::OperatorTerminated }
    }

    fn commands(end: &WorkerEnd<Shard>) -> Vec<&'static str> {
        let name = |command| match command {
            Command::Terminate { .. } => "Terminate",
            Command::Control { .. } => "Control",
            Command::Release(_) => "Release",
            Command::Adopt { .. } => "Adopt",
            _ => "another",
        };
        std::iter::from_fn(|| end.receive()).map(name).collect()
    }

    #[test]
    fn every_slot_has_an_owner_and_all_workers_own_about_as_many() {
        for workers in 1..=7 {
            let (owners, _ends) = owners(workers);
            let owned: Vec<usize> = (0..workers).map(|worker| owners.holdings(worker).0).collect();
            assert_eq!(owned.iter().sum::<usize>(), SLOT_COUNT);
            assert!(owned.iter().max().expect("some") - owned.iter().min().expect("some") <= 1);
        }
    }

    #[test]
    fn sl4_what_is_for_a_slot_under_way_is_held_and_comes_after_it_in_order() {
        let (mut owners, ends) = owners(2);
        owners.tell_owner(slot(4), terminate(4));
        owners.call_in(slot(4));
        assert!(owners.offer_owner(slot(4), control()));
        owners.tell_owner(slot(4), terminate(4));
        owners.tell_owner(slot(6), terminate(6));
        assert_eq!(commands(&ends[0]), ["Terminate", "Release", "Terminate"], "the last is of another slot");
        assert_eq!((owners.of(slot(4)), owners.holdings(0)), (0, (SLOT_COUNT / 2, 1)));
        owners.hand_to(1, parcel(4));
        assert_eq!(commands(&ends[1]), ["Adopt", "Control", "Terminate"]);
        assert_eq!((owners.of(slot(4)), owners.holdings(1)), (1, (SLOT_COUNT / 2 + 1, 0)));
        owners.tell_owner(slot(4), terminate(4));
        assert_eq!(commands(&ends[1]), ["Terminate"]);
        assert!(commands(&ends[0]).is_empty());
    }

    #[test]
    fn ow12_every_owner_of_a_slot_has_a_higher_fencing_epoch_than_the_one_before() {
        let (mut owners, ends) = owners(2);
        let mut titles = Vec::new();
        for (from, to) in [(0, 1), (1, 0), (0, 1)] {
            owners.call_in(slot(4));
            owners.hand_to(to, parcel(4));
            commands(&ends[from]);
            while let Some(command) = ends[to].receive() {
                if let Command::Adopt { title, .. } = command {
                    titles.push((title.fencing_epoch, title.previous_worker));
                }
            }
        }
        assert_eq!(titles, [(2, 0), (3, 1), (4, 0)]);
    }

    #[test]
    fn ow7_a_slot_that_its_owner_keeps_gets_what_was_held_back() {
        let (mut owners, ends) = owners(2);
        owners.call_in(slot(4));
        owners.tell_owner(slot(4), terminate(4));
        owners.keep(slot(4));
        assert_eq!(commands(&ends[0]), ["Release", "Terminate"]);
        assert_eq!((owners.of(slot(4)), owners.is_leaving(slot(4))), (0, false));
    }

    #[test]
    fn sl4_control_messages_are_held_within_a_bound_and_beyond_it_refused() {
        let (mut owners, ends) = owners(2);
        owners.call_in(slot(4));
        let taken = (0..HELD_CONTROL + 10).filter(|_| owners.offer_owner(slot(4), control())).count();
        assert_eq!(taken, HELD_CONTROL);
        owners.hand_to(1, parcel(4));
        assert_eq!(commands(&ends[1]).len(), 1 + HELD_CONTROL);
        owners.call_in(slot(4));
        assert!(owners.offer_owner(slot(4), control()), "there is room again");
    }
}
