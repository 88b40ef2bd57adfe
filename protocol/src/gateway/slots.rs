//! Slots change their shard (SL-4): what leaves one shard, and what enters the other.
//!
//! A slot leaves with all of its sessions, as one [`Parcel`]. It can be neither copied nor opened, only be handed to a
//! shard; so each record is in one shard or in one parcel, and whoever holds a parcel cannot write what is in it. What a
//! shard still has to say of the sessions (events, replies, records) stays in its queues and has to be taken before the
//! parcel is passed on (OB-07).

use std::cmp::Reverse;
use std::net::IpAddr;

use super::SessionKey;
use super::shard::{Holder, Seat, Shard};
use crate::ident::{Locator, SLOT_COUNT, Slot};
use crate::machine::State;
use crate::reason::Reason;
use crate::time::{Span, Time};

/// Fencing epoch of a slot that nobody has moved yet.
const FIRST_EPOCH: u64 = 1;
/// Slots in a word of the table.
const BITS: usize = u64::BITS as usize;
/// A record of the new owner is at least that much later than any of the old one: their order is by time.
const AFTER: Span = Span::from_micros(1);

/// Which slots a shard owns, and under which fencing epoch it last took each (OW-12).
pub(super) struct Slots {
    owned: [u64; SLOT_COUNT / BITS],
    epochs: Vec<u64>,
}

impl Slots {
    pub(super) fn all() -> Self {
        Self { owned: [u64::MAX; SLOT_COUNT / BITS], epochs: vec![FIRST_EPOCH; SLOT_COUNT] }
    }

    pub(super) fn owns(&self, slot: Slot) -> bool {
        let (word, bit) = place(slot);
        self.owned[word] & bit != 0
    }

    /// Why there is no session of that name here (C02, C03).
    pub(super) fn why_not(&self, locator: Locator) -> Reason {
        if self.owns(locator.slot()) { Reason::SessionNotFound } else { Reason::NotAuthoritativeOwner }
    }

    /// False if the slot is another's.
    fn give_up(&mut self, slot: Slot) -> bool {
        let owned = self.owns(slot);
        let (word, bit) = place(slot);
        self.owned[word] &= !bit;
        owned
    }

    /// Whether that epoch makes a new owner.
    fn admits(&self, slot: Slot, epoch: u64) -> bool {
        !self.owns(slot) && epoch > self.epochs[usize::from(slot.number())]
    }

    fn take(&mut self, slot: Slot, epoch: u64) {
        let (word, bit) = place(slot);
        self.owned[word] |= bit;
        self.epochs[usize::from(slot.number())] = epoch;
    }
}

fn place(slot: Slot) -> (usize, u64) {
    let number = usize::from(slot.number());
    (number / BITS, 1 << (number % BITS))
}

/// A slot on its way, with all of its sessions. Nobody owns them meanwhile: nothing is accepted, sent or timed.
pub struct Parcel {
    slot: Slot,
    released: Time,
    seats: Vec<Seat>,
}

impl Parcel {
    /// Which slot.
    pub const fn slot(&self) -> Slot {
        self.slot
    }

    /// The names of its sessions.
    pub fn sessions(&self) -> impl Iterator<Item = Locator> + '_ {
        self.seats.iter().map(|seat| seat.session.locator)
    }
}

impl std::fmt::Debug for Parcel {
    /// Without what is in it: that holds keys.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { slot, released, seats } = self;
        let (slot, sessions) = (slot.number(), seats.len());
        formatter
            .debug_struct("Parcel")
            .field("slot", &slot)
            .field("sessions", &sessions)
            .field("released", released)
            .finish()
    }
}

/// By what right a shard takes a slot over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Title {
    /// Of the slot table: above that of every owner before.
    pub fencing_epoch: u64,
    /// The worker that had it.
    pub previous_worker: u16,
}

impl Shard {
    /// Gives up all slots but those: for a shard without sessions, one of several workers.
    pub fn keep_slots(&mut self, keep: impl Fn(Slot) -> bool) {
        debug_assert!(self.is_empty(), "sessions leave in parcels");
        for slot in Slot::all().filter(|slot| !keep(*slot)) {
            self.slots.give_up(slot);
        }
    }

    /// Whether the slot is this shard's.
    pub fn owns(&self, slot: Slot) -> bool {
        self.slots.owns(slot)
    }

    /// Gives up a slot with all of its sessions; none if it is another's. Packets for them are refused from now on
    /// (NOT_AUTHORITATIVE_OWNER). What was to be said of them so far is in the queues, and comes before the parcel.
    ///
    /// Looks at the names of all sessions.
    pub fn release(&mut self, now: Time, slot: Slot) -> Option<Parcel> {
        if !self.slots.give_up(slot) {
            return None;
        }
        let of_slot = self.by_locator.iter().filter(|(locator, _)| locator.slot() == slot);
        let mut keys: Vec<SessionKey> = of_slot.map(|(_, key)| *key).collect();
        // The map has an order of its own in every run.
        keys.sort_by_key(|key| key.0);
        let seats = keys.into_iter().map(|key| self.unseat(key)).collect();
        Some(Parcel { slot, released: now, seats })
    }

    /// Takes a slot over. Sessions go on where they stopped: same state, version, epoch, keys, counters and timers (AR-2,
    /// INV-36), no transition. `route` says by which next hop a peer is reached, if that is known here: it may have
    /// changed while nobody owned the session.
    ///
    /// # Errors
    /// FENCED, counted: the slot is this shard's already, or was after the title was given. The parcel comes back whole.
    pub fn adopt(
        &mut self,
        now: Time,
        parcel: Parcel,
        title: Title,
        route: impl Fn(IpAddr) -> Option<u32>,
    ) -> Result<(), Parcel> {
        if !self.slots.admits(parcel.slot, title.fencing_epoch) {
            self.outbox.counters.count(Reason::Fenced);
            return Err(parcel);
        }
        let Parcel { slot, released, seats } = parcel;
        let now = now.max(released + AFTER);
        for mut seat in seats {
            if let Some(peer) = seat.session.peer()
                && let Some(route) = route(peer)
            {
                seat.session.set_route(peer, route);
            }
            let Title { fencing_epoch, previous_worker } = title;
            seat.session.trail.handed_over(fencing_epoch, previous_worker, now, &mut self.outbox.journal);
            self.seat(seat);
        }
        self.slots.take(slot, title.fencing_epoch);
        Ok(())
    }

    /// Takes a session out, as it is. Timers that stand for it are for nobody, and fall away when they are due.
    fn unseat(&mut self, key: SessionKey) -> Seat {
        let seat = self.sessions.remove(key.0 as usize);
        if let Some(peer) = seat.session.peer() {
            self.by_peer.remove(&(peer, key));
        }
        self.by_locator.remove(&seat.session.locator);
        if let Some(entry) = self.by_inner.get_mut(seat.session.inner_index as usize)
            && *entry == Holder::Here(key)
        {
            *entry = Holder::Elsewhere;
        }
        seat
    }

    fn seat(&mut self, seat: Seat) {
        let (locator, scheduled, born) = (seat.session.locator, seat.scheduled, seat.session.born);
        let (peer, inner_index) = (seat.session.peer(), seat.session.inner_index as usize);
        let has_address = seat.session.record.state() != State::Birth;
        let key = SessionKey(self.sessions.insert(seat) as u32);
        self.by_locator.insert(locator, key);
        if let Some(peer) = peer {
            self.by_peer.insert((peer, key));
        }
        if scheduled != Time::NEVER {
            self.timers.push(Reverse((scheduled, locator)));
        }
        if let Some(entry) = self.by_inner.get_mut(inner_index).filter(|_| has_address) {
            // HS-8: a session that replaces another has its address; the older one is about to end.
            let newer = matches!(*entry, Holder::Here(other) if self.sessions[other.0 as usize].session.born > born);
            if !newer {
                *entry = Holder::Here(key);
            }
        }
    }
}
