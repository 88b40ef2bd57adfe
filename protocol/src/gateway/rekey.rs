//! REKEY_INIT: fresh keys for a session that goes on (§6.8). Identity, locator, epoch, state and binding stay (RK-2).

use super::event::EventKind;
use super::lanes::{Mutation, digest};
use super::session::Session;
use super::shard::Context;
use crate::ident::Arrival;
use crate::keys::EphemeralSecret;
use crate::machine::State;
use crate::reason::Reason;
use crate::time::{Span, Time};
use crate::wire::{Header, RekeyAck, RekeyInit};

impl Session {
    /// One REKEY_INIT. Only from the bound tuple: a copy that was raced from elsewhere must not use up its counter.
    pub(super) fn rekey_init(
        &mut self,
        header: &Header,
        arrival: &Arrival,
        packet: &mut [u8],
        context: &mut Context<'_>,
    ) -> Result<(), Reason> {
        let (received, digest) = (packet.len() as u64, digest(packet));
        let init: RekeyInit = self.open_control(header, packet, context)?;
        if self.record.state() == State::Birth {
            return Err(Reason::InvalidStateForReattach);
        }
        // A limit that is reached ends the session within the tick: keys too old stay too old (T25).
        if let Some(limit) = self.record.expired(&self.policy, context.now) {
            return Err(limit);
        }
        if self.record.active().is_none_or(|active| active.tuple != arrival.tuple) {
            return Err(Reason::WrongTransport);
        }
        if let Mutation::Repeated = self.mutation(header, digest, arrival, context)? {
            return self.answer_again(arrival, context);
        }
        self.health.heard(context.now);
        self.credit_unvalidated(&arrival.tuple, received);
        let (ack, denied) = match self.agree(header.counter, &init, context) {
            Ok(ack) => (ack, None),
            Err(retry_after) => {
                // Rounded up: a client that comes back then must not be too early.
                let wait = u32::try_from(retry_after.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX);
                let status = Some((Reason::RekeyDenied, wait));
                (
                    RekeyAck { echo: header.counter, next_epoch: init.next_epoch, ephemeral: [0; 32], status },
                    Some(retry_after),
                )
            }
        };
        let packet = self.seal_control(&ack);
        self.remember(header, digest, arrival, Some(packet.clone()));
        self.reply(arrival, packet, context)?;
        if let Some(retry_after) = denied {
            let journal = &mut context.outbox.journal;
            self.trail.rekey_denied(self.ring.epoch(), init.trigger, retry_after, context.now, journal);
            let (message, reason) = (header.kind, Reason::RekeyDenied);
            self.emit(EventKind::Refused { message, reason, tuple: arrival.tuple }, context);
            return Err(reason);
        }
        Ok(())
    }

    /// RK-4: what is too much, too soon, for another epoch or malformed is refused, with the time until it may be tried
    /// again; else the next keys wait for their first packet (RK-3).
    fn agree(&mut self, echo: u64, init: &RekeyInit, context: &mut Context<'_>) -> Result<RekeyAck, Span> {
        let (now, interval) = (context.now, self.policy.security.rekey_min_interval);
        self.attempts.take(self.policy.limits.reattach_per_session, now)?;
        if Some(init.next_epoch) != self.ring.epoch().checked_add(1) || !is_trigger(init.trigger) {
            return Err(interval);
        }
        let allowed_at = self.record.keys_confirmed() + interval;
        if now < allowed_at {
            return Err(allowed_at.since(now));
        }
        let secret = EphemeralSecret::generate(context.entropy);
        let ack = RekeyAck { echo, next_epoch: init.next_epoch, ephemeral: secret.public(), status: None };
        let shared = secret.agree(&init.ephemeral).map_err(|_| interval)?;
        self.ring.prepare(&shared, init, &ack);
        Ok(ack)
    }

    /// An authentic packet came with that key epoch; the first one under pending keys completes the rekey (RK-3, RK-5).
    #[inline]
    pub(super) fn heard_under(&mut self, key_epoch: u8, context: &mut Context<'_>) {
        if let Some(rekeyed) = self.ring.heard(key_epoch, self.policy.security.rekey_overlap, context.now) {
            self.record.mark_rekeyed(&self.policy, context.now);
            let journal = &mut context.outbox.journal;
            self.trail.key_rotated(rekeyed.key_epoch, rekeyed.trigger, context.now, journal);
            self.emit(EventKind::Rekeyed { key_epoch: rekeyed.key_epoch, trigger: rekeyed.trigger }, context);
        }
    }

    /// Whether the client shall start a rekey (RK-1, KY-7): it knows these bounds too, but counts on its own.
    pub(super) fn wants_rekey(&self, now: Time) -> bool {
        let security = &self.policy.security;
        let old = now.since(self.record.keys_confirmed()) >= security.rekey_after;
        let used = self.ring.volume() >= security.rekey_after_packets;
        !self.ring.is_pending() && (old || used || self.ring.is_under_attack())
    }
}

/// Whether that is a reason for a rekey (RK-1).
const fn is_trigger(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::RekeyTimeElapsed
            | Reason::RekeyVolume
            | Reason::RekeyTransportChange
            | Reason::RekeyPolicyTrigger
            | Reason::RekeySecurityEvent
    )
}
