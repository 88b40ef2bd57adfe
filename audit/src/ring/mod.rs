//! From a producing thread to the sink: one bounded ring for each class (OB-02 to OB-06).
//!
//! A [`Publisher`] belongs to one thread and never waits: a record that finds no room is counted and gone. Publishing is
//! a copy of at most [`jumpgate_protocol::audit::RECORD_MAX`] bytes and two atomics; no lock, no allocation, no system
//! call. The [`Feed`] at the other end gives the records of all classes back in the order in which they were published.

mod feed;
mod losses;
mod publisher;

use std::sync::{Arc, Mutex};

use jumpgate_protocol::audit::{Class, Record, Standing};
use jumpgate_protocol::time::Time;
use rtrb::{Consumer, Producer, RingBuffer};

pub use feed::Feed;
pub use publisher::{Counters, Publisher};

/// Records in the rings of one producing thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSizes {
    /// Class A. 12 records of a full recovery for each session outlast a sink that stands still (OB-04).
    pub audit: usize,
    /// Class S: what is left of a flood after its limits.
    pub security: usize,
    /// Class T: dropped freely.
    pub telemetry: usize,
}

impl Default for RingSizes {
    fn default() -> Self {
        Self { audit: 131_072, security: 8_192, telemetry: 8_192 }
    }
}

/// Records of class A that one full recovery of a session makes (OB-04).
pub const RECORDS_PER_RECOVERY: usize = 12;

impl RingSizes {
    /// Whether a full recovery of so many sessions fits into the ring while the sink stands still.
    pub const fn outlast(&self, sessions: usize) -> bool {
        self.audit >= sessions.saturating_mul(RECORDS_PER_RECOVERY)
    }

    const fn of(&self, class: Class) -> usize {
        match class {
            Class::Audit => self.audit,
            Class::Security => self.security,
            Class::Telemetry => self.telemetry,
        }
    }
}

/// What stands in a ring.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// Counts what the thread published, in all classes together, lost or not.
    pub ordinal: u64,
    /// What was published.
    pub item: Item,
}

/// A record, or what is known of records that are gone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item {
    /// A record.
    Record(Record),
    /// Records of class A found no room.
    RingGap {
        /// When they were declared.
        at: Time,
        /// When the first one was lost.
        since: Time,
        /// Ordinals of the first and the last.
        lost: (u64, u64),
        /// How many.
        count: u64,
    },
    /// Those of one session among them.
    SessionGap {
        /// When they were declared.
        at: Time,
        /// Where the session stood after the last one.
        standing: Standing,
        /// The version that the first one carried.
        from_version: u64,
        /// How many.
        count: u64,
    },
}

impl Item {
    /// When it happened.
    pub const fn at(&self) -> Time {
        match self {
            Self::Record(record) => record.at,
            Self::RingGap { at, .. } | Self::SessionGap { at, .. } => *at,
        }
    }
}

/// The rings of one producing thread; `worker` is its number, none for the control thread. Those of a worker take all
/// their memory now: the kernel gives none page by page while packets wait, and the process does not grow for minutes
/// until every place was used once.
pub fn rings(worker: Option<u16>, sizes: RingSizes) -> (Publisher, Feed) {
    let [audit, security, telemetry] = Class::ALL.map(|class| {
        let mut ring = RingBuffer::new(sizes.of(class));
        if worker.is_some() {
            use_every_place(&mut ring);
        }
        ring
    });
    let counters = Arc::new(Counters::default());
    let leftover = Arc::new(Mutex::new(Vec::new()));
    let publisher = Publisher::new([audit.0, security.0, telemetry.0], Arc::clone(&counters), Arc::clone(&leftover));
    let feed = Feed::new(worker, [audit.1, security.1, telemetry.1], counters, leftover);
    (publisher, feed)
}

fn use_every_place((producer, consumer): &mut (Producer<Entry>, Consumer<Entry>)) {
    let nothing = Item::RingGap { at: Time::ZERO, since: Time::ZERO, lost: (0, 0), count: 0 };
    while producer.push(Entry { ordinal: 0, item: nothing }).is_ok() {}
    while consumer.pop().is_ok() {}
}
