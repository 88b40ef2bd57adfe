//! Slots of the virtual gateway that move from worker to worker (SL-4).

use jumpgate_protocol::gateway::{Parcel, Title};
use jumpgate_protocol::ident::{Locator, SLOT_COUNT, Slot};
use jumpgate_protocol::time::{Span, Time};
use jumpgate_protocol::wire::MessageType;

use super::{Happening, World};
use crate::check::Safety;

/// Who owns which slot, and which slots nobody owns for the moment.
pub(crate) struct SlotTable {
    owners: Vec<(usize, u64)>,
    under_way: Vec<UnderWay>,
}

struct UnderWay {
    parcel: Parcel,
    to: usize,
    since: Time,
    at: Time,
}

impl SlotTable {
    /// The table of a gateway that starts.
    pub(super) fn new(workers: usize) -> Self {
        let owners = Slot::all().map(|slot| (Self::at_start(slot, workers), 1)).collect();
        Self { owners, under_way: Vec::new() }
    }

    /// The first owner of a slot.
    pub(super) fn at_start(slot: Slot, workers: usize) -> usize {
        usize::from(slot.number()) % workers
    }

    /// The owner of a slot, also while it is under way: its steering does not know yet.
    pub(super) fn owner(&self, slot: Slot) -> usize {
        self.owners[usize::from(slot.number())].0
    }

    fn arrives_at(&self, slot: Slot) -> Option<Time> {
        self.under_way.iter().find(|one| one.parcel.slot() == slot).map(|one| one.at)
    }
}

impl World {
    /// A slot leaves its worker, and reaches another one that much later. Meanwhile DATA and heartbeats reach the old one;
    /// the slow path holds back everything else. Gives whether it left: a worker that is not scheduled gives nothing up.
    pub fn move_slot(&mut self, slot: Slot, to: usize, span: Span) -> bool {
        let from = self.slots.owner(slot);
        if from == to || self.slots.arrives_at(slot).is_some() || self.paused_until[from] > self.now {
            return false;
        }
        let Some(parcel) = self.shards[from].release(self.now, slot) else {
            self.checker.violated(self.now, Safety::AmbiguousOwner, "OW-12: a slot is not where the table says");
            return false;
        };
        self.flush_shard(from);
        self.checker.unattended(span);
        self.slots.under_way.push(UnderWay { parcel, to, since: self.now, at: self.now + span });
        self.queue.plan(self.now + span, Happening::SlotArrives { slot });
        true
    }

    /// Every slot goes to that worker, as when the others are drained.
    pub fn drain_to(&mut self, to: usize, span: Span) -> usize {
        (0..SLOT_COUNT as u16).filter_map(Slot::new).filter(|slot| self.move_slot(*slot, to, span)).count()
    }

    /// A slot reaches its new worker; one that is not scheduled takes it when it is.
    pub(crate) fn slot_arrives(&mut self, slot: Slot) {
        let Some(index) = self.slots.under_way.iter().position(|one| one.parcel.slot() == slot) else { return };
        let one = &mut self.slots.under_way[index];
        let paused = self.paused_until[one.to];
        if paused > self.now {
            one.at = paused;
            // Longer than the way and the pause each: nobody runs its timers in either.
            self.checker.unattended(paused.since(one.since));
            self.queue.plan(paused, Happening::SlotArrives { slot });
            return;
        }
        self.land(index);
    }

    /// All slots reach their workers now.
    pub(crate) fn land_all(&mut self) {
        while !self.slots.under_way.is_empty() {
            self.land(0);
        }
    }

    /// The worker that is to get an order for a session. The order waits until somebody owns the session, which is the
    /// same as if its slot came at once.
    pub(crate) fn worker_for_order(&mut self, locator: Locator) -> usize {
        if let Some(index) = self.slots.under_way.iter().position(|one| one.parcel.slot() == locator.slot()) {
            self.land(index);
        }
        self.worker_of(locator)
    }

    /// Until when the slow path holds a message back.
    pub(crate) fn held_until(&self, locator: Locator, kind: Option<MessageType>) -> Option<Time> {
        let by_socket = !matches!(kind, None | Some(MessageType::Data | MessageType::Heartbeat));
        self.slots.arrives_at(locator.slot()).filter(|_| by_socket)
    }

    fn land(&mut self, index: usize) {
        let UnderWay { parcel, to, .. } = self.slots.under_way.swap_remove(index);
        let (slot, sessions) = (parcel.slot(), parcel.sessions().collect::<Vec<_>>());
        let entry = &mut self.slots.owners[usize::from(slot.number())];
        let title = Title { fencing_epoch: entry.1 + 1, previous_worker: entry.0 as u16 };
        *entry = (to, title.fencing_epoch);
        if self.shards[to].adopt(self.now, parcel, title, |_| None).is_err() {
            self.checker.violated(self.now, Safety::AmbiguousOwner, "OW-12: a new owner was refused");
        }
        sessions.into_iter().for_each(|session| self.checker.handed_over(session, to));
        self.flush_shard(to);
    }
}
