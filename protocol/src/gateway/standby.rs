//! Standby paths: probed, validated, never bound (§6.7). Make before break.

use crate::ident::{TransportId, Tuple};
use crate::stored::{Damaged, Reader, Stored, Writer, stored};
use crate::time::{Span, Time};

/// The range of PP51 ends at 8: the table is bounded (INV-22).
pub(super) const MAX_STANDBY: usize = 8;

/// A tuple that must still show that it receives: a token was sent there.
#[derive(Clone, Copy, Debug)]
struct Claim {
    tuple: Tuple,
    token: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    transport: TransportId,
    tuple: Tuple,
    token: u64,
    validated: bool,
    seen: Time,
    /// Another tuple under the same id waits here and takes over once it is validated itself (SP-2).
    claim: Option<Claim>,
}

/// What a probe did to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probed {
    /// The token to send back to that tuple.
    pub(super) token: u64,
    /// The path is in the table.
    pub(super) stored: bool,
    /// The tuple is validated.
    pub(super) validated: bool,
}

/// The standby paths of one session, keyed by transport id.
#[derive(Clone, Debug, Default)]
pub(super) struct StandbyTable(Vec<Entry>);

stored! {
    Claim { tuple, token }
    Entry { transport, tuple, token, validated, seen, claim }
}

impl Stored for StandbyTable {
    fn store(&self, out: &mut Writer) {
        self.0.store(out);
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let entries: Vec<Entry> = Stored::load(from)?;
        if entries.len() <= MAX_STANDBY { Ok(Self(entries)) } else { Err(Damaged) }
    }
}

impl StandbyTable {
    /// Bytes of its places, beside the table itself.
    pub(super) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Entry>()
    }

    /// Takes a fresh authenticated PATH_PROBE. `fresh_token` is used where the tuple has no token yet. A full table
    /// evicts nobody (SP-2).
    pub(super) fn probe(
        &mut self,
        transport: TransportId,
        tuple: Tuple,
        returned_token: u64,
        fresh_token: u64,
        capacity: usize,
        now: Time,
    ) -> Probed {
        if let Some(entry) = self.0.iter_mut().find(|entry| entry.transport == transport) {
            return entry.probe(tuple, returned_token, fresh_token, now);
        }
        if self.0.len() >= capacity.min(MAX_STANDBY) {
            return Probed { token: 0, stored: false, validated: false };
        }
        // Most clients have one or two: room for eight beside every session would be most of its record.
        self.0.reserve_exact(1);
        self.0.push(Entry { transport, tuple, token: fresh_token, validated: false, seen: now, claim: None });
        Probed { token: fresh_token, stored: true, validated: false }
    }

    /// Whether that path is a validated standby at exactly that tuple (PV-1, SP-6).
    pub(super) fn is_validated(&self, transport: TransportId, tuple: &Tuple) -> bool {
        self.0.iter().any(|entry| entry.transport == transport && entry.tuple == *tuple && entry.validated)
    }

    /// Whether any path but that one is validated.
    pub(super) fn has_validated_besides(&self, active: Option<TransportId>) -> bool {
        self.0.iter().any(|entry| entry.validated && Some(entry.transport) != active)
    }

    /// Validated paths.
    pub(super) fn validated(&self) -> usize {
        self.0.iter().filter(|entry| entry.validated).count()
    }

    /// Forgets what was not seen for that long (SP-2).
    pub(super) fn expire(&mut self, ttl: Span, now: Time) {
        self.0.retain(|entry| now.since(entry.seen) < ttl);
    }

    /// Forgets every tuple that may not be used any more.
    pub(super) fn retain(&mut self, allowed: impl Fn(&Tuple) -> bool) {
        for entry in &mut self.0 {
            entry.claim = entry.claim.filter(|claim| allowed(&claim.tuple));
        }
        self.0.retain(|entry| allowed(&entry.tuple));
    }

    /// The path is bound now: it is no standby any more.
    pub(super) fn remove(&mut self, transport: TransportId) {
        self.0.retain(|entry| entry.transport != transport);
    }
}

impl Entry {
    fn probe(&mut self, tuple: Tuple, returned_token: u64, fresh_token: u64, now: Time) -> Probed {
        if self.tuple == tuple {
            self.seen = now;
            self.validated |= returned_token != 0 && returned_token == self.token;
            return Probed { token: self.token, stored: true, validated: self.validated };
        }
        match self.claim {
            Some(claim) if claim.tuple == tuple && returned_token != 0 && returned_token == claim.token => {
                *self = Self { tuple, token: claim.token, validated: true, seen: now, claim: None, ..*self };
                Probed { token: self.token, stored: true, validated: true }
            }
            Some(claim) if claim.tuple == tuple => Probed { token: claim.token, stored: true, validated: false },
            _ => {
                self.claim = Some(Claim { tuple, token: fresh_token });
                Probed { token: fresh_token, stored: true, validated: false }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(port: u16) -> Tuple {
        Tuple { local: "192.0.2.1:51900".parse().unwrap(), peer: format!("198.51.100.7:{port}").parse().unwrap() }
    }

    #[test]
    fn sp3_the_token_sent_to_a_tuple_and_returned_from_it_validates() {
        let mut table = StandbyTable::default();
        let first = table.probe(TransportId(2), tuple(1), 0, 77, 3, Time::ZERO);
        assert_eq!(first, Probed { token: 77, stored: true, validated: false });
        assert!(!table.is_validated(TransportId(2), &tuple(1)));
        table.probe(TransportId(2), tuple(1), 76, 0, 3, Time::ZERO);
        assert!(!table.is_validated(TransportId(2), &tuple(1)), "a wrong token validates nothing");
        table.probe(TransportId(2), tuple(1), 77, 0, 3, Time::ZERO);
        assert!(table.is_validated(TransportId(2), &tuple(1)));
        assert!(!table.is_validated(TransportId(2), &tuple(2)));
    }

    #[test]
    fn sp2_another_tuple_waits_beside_the_entry_until_it_is_validated_itself() {
        let mut table = StandbyTable::default();
        table.probe(TransportId(2), tuple(1), 0, 77, 3, Time::ZERO);
        table.probe(TransportId(2), tuple(1), 77, 0, 3, Time::ZERO);
        table.probe(TransportId(2), tuple(9), 77, 88, 3, Time::ZERO);
        assert!(table.is_validated(TransportId(2), &tuple(1)), "a copied token from elsewhere moves nothing");
        table.probe(TransportId(2), tuple(9), 88, 0, 3, Time::ZERO);
        assert!(table.is_validated(TransportId(2), &tuple(9)));
        assert!(!table.is_validated(TransportId(2), &tuple(1)));
    }

    #[test]
    fn sp2_a_full_table_evicts_nobody_and_time_makes_room() {
        let mut table = StandbyTable::default();
        for id in 0..3 {
            assert!(table.probe(TransportId(id), tuple(id), 0, 5, 3, Time::ZERO).stored);
        }
        assert!(!table.probe(TransportId(3), tuple(3), 0, 5, 3, Time::ZERO).stored);
        table.expire(Span::from_millis(100), Time::from_millis(100));
        assert!(table.probe(TransportId(3), tuple(3), 0, 5, 3, Time::from_millis(100)).stored);
    }
}
