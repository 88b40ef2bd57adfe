//! The consuming end.

use std::sync::{Arc, Mutex, PoisonError};

use jumpgate_protocol::audit::Class;
use jumpgate_protocol::time::Time;
use rtrb::Consumer;

use super::{Counters, Entry, Item};

/// What one thread published, in its order.
#[derive(Debug)]
pub struct Feed {
    worker: Option<u16>,
    rings: [Consumer<Entry>; Class::ALL.len()],
    counters: Arc<Counters>,
    leftover: Arc<Mutex<Vec<Item>>>,
    high_water: [usize; Class::ALL.len()],
}

impl Feed {
    pub(super) fn new(
        worker: Option<u16>,
        rings: [Consumer<Entry>; Class::ALL.len()],
        counters: Arc<Counters>,
        leftover: Arc<Mutex<Vec<Item>>>,
    ) -> Self {
        Self { worker, rings, counters, leftover, high_water: [0; Class::ALL.len()] }
    }

    /// Number of the thread, none for the control thread.
    pub const fn worker(&self) -> Option<u16> {
        self.worker
    }

    /// What it lost.
    pub const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// When the next entry happened, if there is one.
    pub fn next_at(&mut self) -> Option<Time> {
        let ring = self.next_ring()?;
        self.rings[ring].peek().ok().map(|entry| entry.item.at())
    }

    /// The next entry.
    pub fn pop(&mut self) -> Option<Entry> {
        let ring = self.next_ring()?;
        self.rings[ring].pop().ok()
    }

    /// Losses that the thread could not declare before it ended; only after everything else was taken.
    pub fn take_leftover(&mut self) -> Vec<Item> {
        if !self.is_over() {
            return Vec::new();
        }
        std::mem::take(&mut *self.leftover.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the thread has ended and everything was taken.
    pub fn is_over(&self) -> bool {
        self.rings.iter().all(|ring| ring.is_abandoned() && ring.is_empty())
    }

    /// Entries that wait in the ring of that class.
    pub fn waiting(&self, class: Class) -> usize {
        self.rings[class as usize].slots()
    }

    /// Most entries that waited in the ring of that class when somebody looked.
    pub fn high_water(&mut self, class: Class) -> usize {
        let waiting = self.waiting(class);
        let high = &mut self.high_water[class as usize];
        *high = waiting.max(*high);
        *high
    }

    /// The ring whose next entry was published first.
    ///
    /// The thread pushes in the order of the ordinals. So once an entry is seen, all with lower ordinals are there to be
    /// seen: a second look finds the true minimum, whatever was pushed between the two.
    fn next_ring(&self) -> Option<usize> {
        let ordinal = |ring: &Consumer<Entry>| ring.peek().ok().map(|entry| entry.ordinal);
        self.rings.iter().filter_map(ordinal).min()?;
        let heads = self.rings.iter().enumerate().filter_map(|(index, ring)| Some((ordinal(ring)?, index)));
        heads.min().map(|(_, index)| index)
    }
}
