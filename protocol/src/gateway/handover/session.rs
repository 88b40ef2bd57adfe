//! One session as it is written down, read, and let go on.

use crate::audit::{Standing, Trail};
use crate::gateway::push::Push;
use crate::gateway::session::{Opening, Session};
use crate::gateway::{AddressPool, Sources};
use crate::ident::Arrival;
use crate::key_ring::{COUNTER_ADVANCE, KeyRing};
use crate::keys::KeyLimits;
use crate::machine::{Record, State};
use crate::stored::{Damaged, Reader, Stored, Writer};
use crate::time::{Span, Time};

impl Session {
    /// Everything of it that outlives its gateway's run; the rest belongs to the run (KY-9, OW-8).
    pub(in crate::gateway) fn store(&self, out: &mut Writer) {
        let Self { record, locator, client, inner_index, inner_v4: _, inner_v6: _, opening, .. } = self;
        let Self { policy, push, sources: _, ring, born, query_window, control_sent, mutation_sent, last, .. } = self;
        let Self { offset, health, rtt, hints, standby, attempts, credit, same_path_ok, farewell: _, .. } = self;
        let Self { told_used_up, route: _, queue, received, sent, last_reason, trail, .. } = self;
        (*locator, *client).store(out);
        (*inner_index, *queue).store(out);
        opening.store(out);
        out.policy(policy);
        push.store(out);
        ring.store(out);
        (*born, (*control_sent, *mutation_sent)).store(out);
        query_window.store(out);
        last.store(out);
        offset.store(out);
        health.store(out);
        rtt.store(out);
        hints.store(out);
        standby.store(out);
        (*attempts, *credit).store(out);
        (*same_path_ok, *told_used_up).store(out);
        (*received, *sent).store(out);
        last_reason.store(out);
        record.store(out);
        trail.store(out);
    }

    /// What [`Session::store`] wrote, as it was; [`Session::resume`] lets it go on. Whoever hears of its client says where
    /// that may come from.
    pub(in crate::gateway) fn load(
        from: &mut Reader<'_>,
        pool: &AddressPool,
        limits: KeyLimits,
    ) -> Result<Self, Damaged> {
        let (locator, client) = Stored::load(from)?;
        let (inner_index, queue) = Stored::load(from)?;
        let opening: Option<Box<Opening>> = Stored::load(from)?;
        let policy = from.policy()?;
        let push = Push::load(from)?;
        let ring = KeyRing::load(from, limits)?;
        let (born, (control_sent, mutation_sent)) = Stored::load(from)?;
        let query_window = Stored::load(from)?;
        let last = Stored::load(from)?;
        let offset = Stored::load(from)?;
        let health = Stored::load(from)?;
        let rtt = Stored::load(from)?;
        let hints = Stored::load(from)?;
        let standby = Stored::load(from)?;
        let (attempts, credit) = Stored::load(from)?;
        let (same_path_ok, told_used_up) = Stored::load(from)?;
        let (received, sent) = Stored::load(from)?;
        let last_reason = Stored::load(from)?;
        let record: Record = Stored::load(from)?;
        let trail: Trail = Stored::load(from)?;
        let standing = Standing {
            session: ring.identity(),
            state: record.state(),
            version: record.version(),
            epoch: record.epoch(),
        };
        let opens = opening.is_some() == (record.state() == State::Birth);
        if trail.standing() != standing || inner_index >= pool.size() || !opens {
            return Err(Damaged);
        }
        let (inner_v4, inner_v6) = (pool.v4(inner_index), pool.v6(inner_index));
        Ok(Self {
            record,
            locator,
            client,
            inner_index,
            inner_v4,
            inner_v6,
            opening,
            policy,
            push,
            sources: Sources::only([]),
            ring,
            born,
            query_window,
            control_sent,
            mutation_sent,
            last,
            offset,
            health,
            rtt,
            hints,
            standby,
            attempts,
            credit,
            same_path_ok,
            farewell: None,
            told_used_up,
            route: Arrival::NO_ROUTE,
            queue,
            received,
            sent,
            last_reason,
            trail,
        })
    }

    /// Goes on in another run of the gateway, after nobody ran for so long: every sending counter far ahead (KY-9). What its
    /// path was silent meanwhile does not count; its own limits ran on and fire now, if they are due (OW-4).
    pub(in crate::gateway) fn resume(&mut self, now: Time, away: Span, sources: Sources) {
        self.sources = sources;
        self.ring.advance();
        self.control_sent = self.control_sent.saturating_add(COUNTER_ADVANCE);
        self.push_again(now);
        self.health.resume(away);
    }
}
