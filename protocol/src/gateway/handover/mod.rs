//! A planned restart (OW-8, KY-9): the sessions of a gateway that ends go on in the next one on the same machine.
//!
//! The old gateway freezes its workers, and each writes its sessions down as a [`Part`]. Its desk adds what the slow path
//! keeps and seals the whole ([`HandshakeDesk::hand_over`]). The new gateway's desk opens it, whole or not at all
//! ([`HandshakeDesk::take_over`]), and gives each [`Heir`] to the worker that owns its slot now
//! ([`Shard::take_over`]). State, version, binding, epoch, keys, windows and timers are as they were; every sending counter
//! is far ahead. Where the bytes are meanwhile is the driver's business, and that they are used once.
//!
//! What is written is one format: a gateway that does not know it refuses it, and then has no session.

mod desk;
mod seal;
mod session;
#[cfg(test)]
mod tests;

use zeroize::Zeroizing;

use super::event::EventKind;
use super::session::Session;
use super::shard::Shard;
use super::{AddressPool, Sources};
use crate::ident::{Locator, PublicKey};
use crate::keys::KeyLimits;
use crate::stored::{Damaged, Reader, Writer};
use crate::time::{Span, Time};

pub use seal::{Circumstances, HandoverError};

/// Fewest bytes of a session: its keys, its names and its smallest windows take more.
const SESSION_LEAST: usize = 256;

/// The sessions of one worker, written down. They hold their keys in the clear: for [`HandshakeDesk::hand_over`] alone.
///
/// [`HandshakeDesk::hand_over`]: super::HandshakeDesk::hand_over
pub struct Part {
    bytes: Zeroizing<Vec<u8>>,
    sessions: usize,
}

/// A session that came from the run of the gateway before.
pub struct Heir {
    session: Session,
    sources: Sources,
    /// For so long nobody ran.
    away: Span,
    /// Packets to its inner address are its own: it was confirmed last of those that share it.
    holds_address: bool,
}

impl Part {
    /// How many sessions it holds.
    pub const fn sessions(&self) -> usize {
        self.sessions
    }
}

impl Default for Part {
    /// That of a worker without sessions.
    fn default() -> Self {
        let mut out = Writer::default();
        out.count(0);
        Self { bytes: out.finish(), sessions: 0 }
    }
}

impl core::fmt::Debug for Part {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Part({} sessions)", self.sessions)
    }
}

impl Heir {
    /// Its name; the owner of its slot takes it over.
    pub const fn locator(&self) -> Locator {
        self.session.locator
    }

    /// Whose it is.
    pub const fn client(&self) -> PublicKey {
        self.session.client
    }

    /// Its place in the address pool.
    pub const fn inner_index(&self) -> u32 {
        self.session.inner_index
    }
}

impl core::fmt::Debug for Heir {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Heir({})", self.session.locator)
    }
}

impl Shard {
    /// Writes all sessions down. The driver lets none of them do anything from here on, or throws the part away.
    pub fn hand_over(&self) -> Part {
        let mut sessions: Vec<&Session> = self.sessions().collect();
        sessions.sort_unstable_by_key(|session| session.locator);
        let mut out = Writer::default();
        out.count(sessions.len());
        sessions.iter().for_each(|session| session.store(&mut out));
        Part { bytes: out.finish(), sessions: sessions.len() }
    }

    /// Takes over a session of the run before; what fell due while nobody ran happens now. A locator that is known already, or
    /// of a slot that is another's, is a defect of ours: refused, as in [`Shard::birth`].
    pub fn take_over(&mut self, now: Time, heir: Heir) {
        let Heir { mut session, sources, away, holds_address } = heir;
        let (locator, client) = (session.locator, session.client);
        if self.by_locator.contains_key(&locator) || !self.owns(locator.slot()) {
            return self.refuse_birth(locator, client);
        }
        session.resume(now, away, sources);
        let event = EventKind::TakenOver {
            state: session.record.state(),
            version: session.record.version(),
            since: session.record.entered(),
            created: session.record.created(),
            peer: session.active_tuple().map(|tuple| tuple.peer),
            holds_address,
        };
        let key = self.settle(session, holds_address);
        self.with(now, key, |session, context| {
            session.emit(event, context);
            session.timeout(context);
        });
    }
}

/// The sessions of one part, in the order of their names.
fn sessions(bytes: &[u8], pool: &AddressPool) -> Result<Vec<Session>, Damaged> {
    let mut from = Reader::new(bytes)?;
    let count = from.count(SESSION_LEAST)?;
    let sessions =
        (0..count).map(|_| Session::load(&mut from, pool, KeyLimits::SUITE_1)).collect::<Result<Vec<_>, _>>()?;
    from.end()?;
    if sessions.is_sorted_by(|one, next| one.locator < next.locator) { Ok(sessions) } else { Err(Damaged) }
}
