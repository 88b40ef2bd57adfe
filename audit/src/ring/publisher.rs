//! The producing end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jumpgate_protocol::audit::{Class, Record};
use jumpgate_protocol::time::Time;
use rtrb::Producer;

use super::losses::Losses;
use super::{Entry, Item};

/// What one producing thread lost, by class. Written by that thread alone.
#[derive(Debug, Default)]
#[repr(align(128))] // Nobody else's counters on its cache lines.
pub struct Counters {
    lost: [AtomicU64; Class::ALL.len()],
}

/// Takes the records of one thread. Never waits, never fails, never tells: nothing may depend on what becomes of a
/// record (INV-23).
#[derive(Debug)]
pub struct Publisher {
    rings: [Producer<Entry>; Class::ALL.len()],
    ordinal: u64,
    losses: Losses,
    counters: Arc<Counters>,
    /// Where losses go that could not be declared before the thread ended.
    leftover: Arc<Mutex<Vec<Item>>>,
}

impl Counters {
    /// Records of that class that found no room.
    pub fn lost(&self, class: Class) -> u64 {
        self.lost[class as usize].load(Ordering::Relaxed)
    }

    fn count(&self, class: Class) {
        // One writer: no read-modify-write needed.
        let counter = &self.lost[class as usize];
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

impl Publisher {
    pub(super) fn new(
        rings: [Producer<Entry>; Class::ALL.len()],
        counters: Arc<Counters>,
        leftover: Arc<Mutex<Vec<Item>>>,
    ) -> Self {
        let losses = Losses::new(rings[Class::Audit as usize].buffer().capacity());
        Self { rings, ordinal: 0, losses, counters, leftover }
    }

    /// Takes one record.
    pub fn publish(&mut self, record: &Record) {
        let class = record.class();
        let entry = Entry { ordinal: self.ordinal, item: Item::Record(*record) };
        self.ordinal += 1;
        if class == Class::Audit {
            self.declare(record.at, 1);
        }
        // While a gap is not declared, nothing may overtake it.
        let overtakes = class == Class::Audit && !self.losses.is_empty();
        if overtakes || self.rings[class as usize].push(entry).is_err() {
            self.counters.count(class);
            if class == Class::Audit {
                self.losses.add(entry.ordinal, record);
            }
        }
    }

    /// Declares losses if there is room again. To be called now and then by a thread that may have nothing to publish.
    pub fn settle(&mut self, now: Time) {
        self.declare(now, 0);
    }

    /// Whether losses wait for room to be declared.
    pub fn is_settled(&self) -> bool {
        self.losses.is_empty()
    }

    /// Declares all losses at once, if they and `more` entries find room.
    fn declare(&mut self, at: Time, more: usize) {
        if self.losses.is_empty() {
            return;
        }
        let ring = &mut self.rings[Class::Audit as usize];
        if ring.slots() < self.losses.len() + more {
            return;
        }
        let ordinal = self.ordinal.saturating_sub(more as u64);
        self.losses.take(at, |item| {
            let pushed = ring.push(Entry { ordinal, item });
            debug_assert!(pushed.is_ok(), "there was room, and nobody else pushes");
        });
    }
}

impl Drop for Publisher {
    /// The thread ends: what could not be declared is left for the sink.
    fn drop(&mut self) {
        let mut leftover = self.leftover.lock().unwrap_or_else(PoisonError::into_inner);
        self.losses.take(Time::ZERO, |item| leftover.push(item));
    }
}
