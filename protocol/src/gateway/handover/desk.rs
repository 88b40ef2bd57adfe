//! What the slow path keeps over a restart: whose session is which, what was promised to whom, and which hellos were used.
//!
//! Cookies, rate limits and counters are the run's own and begin anew.

use hashbrown::{HashMap, HashSet};
use zeroize::Zeroizing;

use super::{Circumstances, HandoverError, Heir, Part, sessions};
use crate::audit::RestartAction;
use crate::gateway::desk::{Entry, HalfOpen, HandshakeDesk, Known};
use crate::gateway::session::Session;
use crate::gateway::{AddressPool, Sources};
use crate::ident::{Locator, PublicKey};
use crate::machine::State;
use crate::reason::Reason;
use crate::stored::{Damaged, Reader, Stored, Writer, stored};
use crate::time::{Span, Time};
use crate::wire::RequestedPolicy;

/// Longest HELLO_ACK that is kept, in bytes: as long as a datagram gets.
const ACK_MAX: usize = 1_500;

/// A session as the desk writes it down.
struct Claim {
    locator: Locator,
    entry: Entry,
    /// Its place in the pool is its own.
    holds_place: bool,
}

/// A client as the desk writes it down.
#[derive(Clone, Copy)]
struct Acquaintance {
    client: PublicKey,
    confirmed_counter: Option<u64>,
    last_index: Option<u32>,
}

/// All that the desk writes down.
pub(super) struct Ledger {
    pool: AddressPool,
    claims: Vec<Claim>,
    known: Vec<Acquaintance>,
    tombstones: Vec<(Time, Locator)>,
    compromised: Vec<PublicKey>,
}

/// What a hand-over holds: the desk's share, each session with whether it holds its place, and its age.
type Opened = (Ledger, Vec<(Session, bool)>, Span);

stored! {
    Claim { locator, entry, holds_place }
    Acquaintance { client, confirmed_counter, last_index }
    Ledger { pool, claims, known, tombstones, compromised } => is_in_order
}

impl Stored for Entry {
    fn store(&self, out: &mut Writer) {
        let Self { client, requested, tombstone, inner_index, hello_counter, replaces, half_open } = self;
        (*client, *tombstone).store(out);
        out.count(requested.len());
        requested.iter().for_each(|pair| pair.store(out));
        (*inner_index, *hello_counter).store(out);
        replaces.store(out);
        half_open.store(out);
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let (client, tombstone) = Stored::load(from)?;
        let requested = RequestedPolicy::load(from)?.as_slice().into();
        let (inner_index, hello_counter) = Stored::load(from)?;
        let (replaces, half_open) = Stored::load(from)?;
        Ok(Self { client, requested, tombstone, inner_index, hello_counter, replaces, half_open })
    }
}

impl Stored for HalfOpen {
    fn store(&self, out: &mut Writer) {
        let Self { digest, from, ack } = self;
        (*digest, *from).store(out);
        out.count(ack.len());
        out.put(ack);
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let (digest, place) = Stored::load(from)?;
        let len = from.count(1)?;
        if len > ACK_MAX {
            return Err(Damaged);
        }
        Ok(Self { digest, from: place, ack: from.take(len)?.to_vec() })
    }
}

impl Ledger {
    /// Each list in the order of its names, none twice; each place within the pool, and with one holder at most.
    fn is_in_order(&self) -> bool {
        let mut held = HashSet::new();
        self.claims.is_sorted_by(|one, next| one.locator < next.locator)
            && self.claims.iter().all(|claim| claim.entry.inner_index < self.pool.size())
            && self.claims.iter().filter(|claim| claim.holds_place).all(|claim| held.insert(claim.entry.inner_index))
            && self.known.is_sorted_by(|one, next| one.client < next.client)
            && self.tombstones.is_sorted_by(|one, next| one < next)
            && self.compromised.is_sorted_by(|one, next| one < next)
    }

    /// Joins what the desk knows of each session with what its worker wrote: they must be the same sessions.
    fn join(self, sessions: Vec<Session>) -> Result<(Self, Vec<(Session, bool)>), Damaged> {
        let mut by_locator: HashMap<Locator, Session> = HashMap::with_capacity(sessions.len());
        for session in sessions {
            if by_locator.insert(session.locator, session).is_some() {
                return Err(Damaged);
            }
        }
        let joined = self.claims.iter().map(|claim| {
            let session = by_locator.remove(&claim.locator).ok_or(Damaged)?;
            let birth = session.record.state() == State::Birth;
            let same = session.client == claim.entry.client
                && session.inner_index == claim.entry.inner_index
                && birth == claim.entry.half_open.is_some()
                && !(birth && claim.holds_place);
            if same { Ok((session, claim.holds_place)) } else { Err(Damaged) }
        });
        let joined = joined.collect::<Result<Vec<_>, _>>()?;
        if by_locator.is_empty() { Ok((self, joined)) } else { Err(Damaged) }
    }
}

impl HandshakeDesk {
    /// Seals what the workers wrote down, with what the desk keeps. Nothing is to happen at this gateway any more, unless
    /// the seal is thrown away.
    pub fn hand_over(&mut self, circumstances: &Circumstances, parts: &[Part]) -> Vec<u8> {
        let mut out = Writer::default();
        self.ledger().store(&mut out);
        out.count(parts.len());
        for part in parts {
            out.count(part.bytes.len());
            out.put(&part.bytes);
        }
        circumstances.seal(&self.config.secret, &out.finish(), self.entropy.as_mut())
    }

    /// What became of the hand-over, for the record: that many sessions will go on elsewhere, or go on here.
    pub fn record_hand_over(&mut self, now: Time, written: bool, sessions: usize) {
        let (action, reason) = match written {
            true => (RestartAction::HandedOver, Reason::OwnershipOk),
            false => (RestartAction::Aborted, Reason::StoreUnavailable),
        };
        self.vigil.restart(now, action, reason, sessions);
    }

    /// There is a hand-over, but the driver cannot get at it, or does not trust it: for the record.
    pub fn record_lost_hand_over(&mut self, now: Time) {
        self.vigil.restart(now, RestartAction::Refused, Reason::StoreUnavailable, 0);
    }

    /// Opens the hand-over of the run before, whole or not at all, and takes over what it says; for a desk that has no
    /// session yet. Each heir belongs to the owner of its slot. Every session is to hear of the policy that is in force now
    /// ([`HandshakeDesk::poll_change`]).
    ///
    /// # Errors
    /// Why not: then there is no session, and the record says so (OW-10).
    pub fn take_over(
        &mut self,
        circumstances: &Circumstances,
        sealed: Zeroizing<Vec<u8>>,
    ) -> Result<Vec<Heir>, HandoverError> {
        let (now, opened) = (circumstances.now, self.open(circumstances, sealed));
        match opened {
            Ok((ledger, sessions, away)) => {
                self.vigil.restart(now, RestartAction::TakenOver, Reason::OwnershipOk, sessions.len());
                self.adopt(now, ledger);
                Ok(sessions.into_iter().map(|(session, holds)| self.heir(session, holds, away)).collect())
            }
            Err(error) => {
                self.vigil.restart(now, RestartAction::Refused, error.reason(), 0);
                Err(error)
            }
        }
    }

    /// What is in it, and how old it is.
    fn open(&self, circumstances: &Circumstances, mut sealed: Zeroizing<Vec<u8>>) -> Result<Opened, HandoverError> {
        // After that time every client has ended its session by itself (T18).
        let max_age = self.config.policy.session.transport_lost_ttl;
        let (plain, age) = circumstances.open(&self.config.secret, max_age, &mut sealed)?;
        let mut from = Reader::new(plain)?;
        let ledger = Ledger::load(&mut from)?;
        if ledger.pool != self.config.pool {
            return Err(HandoverError::OtherPool);
        }
        let mut all = Vec::new();
        for _ in 0..from.count(1)? {
            let len = from.count(1)?;
            all.extend(sessions(from.take(len)?, &ledger.pool)?);
        }
        from.end()?;
        let (ledger, sessions) = ledger.join(all)?;
        Ok((ledger, sessions, age))
    }

    fn heir(&self, session: Session, holds_address: bool, away: Span) -> Heir {
        let client = self.config.clients.get(&session.client);
        // Whoever is not a client any more is withdrawn when it hears of the policy; until then it may move nowhere.
        let sources = client.map_or_else(|| Sources::only([]), |client| client.sources.clone());
        Heir { session, sources, away, holds_address }
    }

    pub(super) fn ledger(&self) -> Ledger {
        let mut claims: Vec<Claim> = self
            .entries
            .iter()
            .map(|(locator, entry)| {
                let holds_place = self.places.owner(entry.inner_index) == Some(*locator);
                Claim { locator: *locator, entry: entry.clone(), holds_place }
            })
            .collect();
        claims.sort_unstable_by_key(|claim| claim.locator);
        let acquaintance = |(client, known): (&PublicKey, &Known)| Acquaintance {
            client: *client,
            confirmed_counter: known.confirmed_counter,
            last_index: known.last_index,
        };
        let mut known: Vec<_> = self.known.iter().map(acquaintance).collect();
        known.sort_unstable_by_key(|one| one.client);
        let mut compromised: Vec<_> = self.compromised.iter().copied().collect();
        compromised.sort_unstable();
        Ledger { pool: self.config.pool, claims, known, tombstones: self.tombstones.iter().collect(), compromised }
    }

    fn adopt(&mut self, now: Time, ledger: Ledger) {
        let Ledger { pool: _, claims, known, tombstones, compromised } = ledger;
        for Acquaintance { client, confirmed_counter, last_index } in known {
            self.known.insert(client, Known { confirmed_counter, last_index, ..Known::default() });
        }
        for Claim { locator, entry, holds_place } in claims {
            let known = self.known.entry(entry.client).or_default();
            if let Some(half_open) = &entry.half_open {
                known.half_open += 1;
                self.half_open.insert(half_open.digest, locator);
            } else {
                known.open += 1;
            }
            self.places.take(entry.inner_index, entry.client);
            if holds_place {
                self.places.confirm(entry.inner_index, locator);
            }
            self.changes.push_back(locator);
            self.entries.insert(locator, entry);
        }
        let configured = &self.config.clients;
        self.known.retain(|client, known| configured.contains_key(client) || known.has_sessions());
        self.compromised.extend(compromised.into_iter().filter(|client| configured.contains_key(client)));
        let capacity = self.config.policy.limits.max_sessions as usize;
        for (until, locator) in tombstones {
            self.tombstones.bury(locator, until, capacity, now);
        }
    }
}
