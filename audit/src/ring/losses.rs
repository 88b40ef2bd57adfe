//! What is known of records that found no room, in bounded memory (OB-06).

use std::collections::HashMap;

use jumpgate_protocol::audit::{Record, Standing};
use jumpgate_protocol::ident::SessionIdentity;
use jumpgate_protocol::time::Time;

use super::Item;

/// Most sessions whose losses are told one by one; those beyond are covered by the gap of the ring alone.
const SESSIONS_MAX: usize = 4_096;

/// Lost records that are not declared yet.
#[derive(Debug)]
pub(super) struct Losses {
    ring: Option<RingLoss>,
    sessions: HashMap<SessionIdentity, SessionLoss>,
    sessions_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct RingLoss {
    since: Time,
    first: u64,
    last: u64,
    count: u64,
}

#[derive(Clone, Copy, Debug)]
struct SessionLoss {
    from_version: u64,
    last: Standing,
    count: u64,
}

impl Losses {
    /// For a ring of that size: all of them must fit into it to be declared.
    pub(super) fn new(ring_size: usize) -> Self {
        let sessions_max = SESSIONS_MAX.min(ring_size / 2);
        // All memory is taken here: publishing must never allocate.
        Self { ring: None, sessions: HashMap::with_capacity(sessions_max), sessions_max }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.ring.is_none()
    }

    /// Items that [`Losses::take`] will give.
    pub(super) fn len(&self) -> usize {
        usize::from(self.ring.is_some()) + self.sessions.len()
    }

    /// One more record is lost.
    pub(super) fn add(&mut self, ordinal: u64, record: &Record) {
        let ring = self.ring.get_or_insert(RingLoss { since: record.at, first: ordinal, last: ordinal, count: 0 });
        ring.last = ordinal;
        ring.count += 1;
        let Some(standing) = record.standing() else { return };
        if let Some(loss) = self.sessions.get_mut(&standing.session) {
            loss.last = standing;
            loss.count += 1;
        } else if self.sessions.len() < self.sessions_max {
            let loss = SessionLoss { from_version: standing.version, last: standing, count: 1 };
            self.sessions.insert(standing.session, loss);
        }
    }

    /// Gives everything to `declare`: first the gap of the ring, then those of its sessions.
    pub(super) fn take(&mut self, at: Time, mut declare: impl FnMut(Item)) {
        if let Some(RingLoss { since, first, last, count }) = self.ring.take() {
            declare(Item::RingGap { at, since, lost: (first, last), count });
        }
        for (_, SessionLoss { from_version, last, count }) in self.sessions.drain() {
            declare(Item::SessionGap { at, standing: last, from_version, count });
        }
    }
}
