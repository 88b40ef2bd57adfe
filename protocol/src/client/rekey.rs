//! Rekeys from the client's side (§6.8): when one is due, REKEY_INIT and its copies, REKEY_ACK.

use super::core::Shared;
use super::event::ClientEvent;
use super::live::Live;
use crate::ident::TransportId;
use crate::keys::EphemeralSecret;
use crate::machine::State;
use crate::reason::Reason;
use crate::time::{Span, Time};
use crate::wire::{ControlPacket, Header, RekeyAck, RekeyInit};

/// The one REKEY_INIT outstanding.
pub(super) struct Rekey {
    secret: EphemeralSecret,
    init: RekeyInit,
    packet: ControlPacket,
    counter: u64,
    path: TransportId,
    /// Another message of lane M went out after it: copies would be replays (AR-1).
    superseded: bool,
    rto: Span,
    next: Time,
}

/// What a client knows of its rekeys.
#[derive(Default)]
pub(super) struct Rekeying {
    outstanding: Option<Rekey>,
    /// Wanted for another reason than the age or use of the keys.
    wished: Option<Reason>,
    /// The gateway refused one: not before.
    not_before: Time,
}

impl Rekeying {
    /// A message of lane M goes out.
    pub(super) fn supersede(&mut self) {
        if let Some(rekey) = &mut self.outstanding {
            rekey.superseded = true;
        }
    }

    /// A rekey is wanted as soon as one may be.
    pub(super) fn wish(&mut self, trigger: Reason) {
        self.wished.get_or_insert(trigger);
    }
}

impl Live {
    /// Starts a rekey that is due, or sends a copy of REKEY_INIT. After a move, or another message of lane M, a fresh one
    /// takes its place: the gateway replaces the keys that wait (RK-4).
    pub(super) fn rekey(&mut self, shared: &mut Shared, now: Time) {
        self.ring.expire(now);
        let Some(path) = self.active_path().filter(|_| self.may_rekey()) else {
            return;
        };
        match &mut self.rekeying.outstanding {
            Some(rekey) if rekey.superseded || rekey.path != path => {
                let trigger = rekey.init.trigger;
                self.start_rekey(shared, trigger, path, now);
            }
            Some(rekey) if now >= rekey.next => {
                rekey.rto = rekey.rto.times(2).min(self.policy.security.rekey_min_interval);
                rekey.next = now + rekey.rto;
                shared.send(path, &rekey.packet);
            }
            Some(_) => {}
            None => {
                if let Some(trigger) = self.rekey_due(now) {
                    self.start_rekey(shared, trigger, path, now);
                }
            }
        }
    }

    /// When [`Live::rekey`] could do more than now.
    pub(super) fn rekey_timeout(&self, now: Time) -> Time {
        let erase = self.ring.erase_at();
        if !self.may_rekey() {
            return erase;
        }
        let next = match &self.rekeying.outstanding {
            Some(rekey) if rekey.superseded || Some(rekey.path) != self.active_path() => now,
            Some(rekey) => rekey.next,
            None if !self.ring.is_settled() => Time::NEVER,
            None if self.rekeying.wished.is_some() => self.rekey_allowed_at(),
            None => {
                let old_at = self.record.keys_confirmed() + self.policy.security.rekey_after;
                old_at.max(self.rekeying.not_before)
            }
        };
        next.min(erase)
    }

    /// One message of lane M at a time: while a request to move is outstanding, or HELLO_CONFIRM, there is no REKEY_INIT.
    fn may_rekey(&self) -> bool {
        self.active_path().is_some()
            && self.attempt.is_none()
            && self.confirm.is_none()
            && self.record.state() != State::Recovering
    }

    fn rekey_allowed_at(&self) -> Time {
        (self.record.keys_confirmed() + self.policy.security.rekey_min_interval).max(self.rekeying.not_before)
    }

    /// The gateway asks for a rekey (RK-1). If one is under way, or its old keys still live, that is the answer.
    pub(super) fn rekey_wanted(&mut self, forgeries: bool) {
        if self.rekeying.outstanding.is_none() && self.ring.is_settled() {
            self.rekeying.wish(if forgeries { Reason::RekeySecurityEvent } else { Reason::RekeyPolicyTrigger });
        }
    }

    /// Why a rekey is to be started now, if it is (RK-1).
    fn rekey_due(&self, now: Time) -> Option<Reason> {
        // One at a time: the old keys of the last one must be gone.
        if !self.ring.is_settled() || now < self.rekey_allowed_at() {
            return None;
        }
        let security = &self.policy.security;
        if now.since(self.record.keys_confirmed()) >= security.rekey_after {
            return Some(Reason::RekeyTimeElapsed);
        }
        if self.ring.volume() >= security.rekey_after_packets {
            return Some(Reason::RekeyVolume);
        }
        if self.ring.is_under_attack() {
            return Some(Reason::RekeySecurityEvent);
        }
        self.rekeying.wished
    }

    fn start_rekey(&mut self, shared: &mut Shared, trigger: Reason, path: TransportId, now: Time) {
        let Some(next_epoch) = self.ring.epoch().checked_add(1) else {
            return;
        };
        let secret = EphemeralSecret::generate(shared.entropy.as_mut());
        let init = RekeyInit { next_epoch, ephemeral: secret.public(), trigger };
        let packet = self.seal_mutation(&init);
        shared.send(path, &packet);
        let (counter, rto) = (self.control_sent, shared.rto(path));
        let next = now + rto;
        let rekey = Rekey { secret, init, packet, counter, path, superseded: false, rto, next };
        self.rekeying.outstanding = Some(rekey);
        self.rekeying.wished = None;
    }

    /// REKEY_ACK: from now on this end sends with the next keys; or the gateway refused them (RK-3, RK-4).
    pub(super) fn rekey_ack(
        &mut self,
        shared: &mut Shared,
        header: &Header,
        path: TransportId,
        packet: &mut [u8],
        now: Time,
    ) -> Result<(), Reason> {
        let ack: RekeyAck = self.open_control(header, packet, now)?;
        // Lane R: once, and only what was asked last. The keys of an earlier question wait no more.
        let rekey = self.rekeying.outstanding.take_if(|rekey| rekey.counter == ack.echo);
        let Rekey { secret, init, .. } = rekey.ok_or(Reason::ReplayDetected)?;
        if self.active_path() == Some(path) {
            self.health.heard(now);
            self.received_since = true;
        }
        if let Some((reason, retry_after_ms)) = ack.status {
            self.rekeying.not_before = now + Span::from_millis(u64::from(retry_after_ms).max(1));
            self.rekeying.wish(init.trigger);
            let retry_after = Span::from_millis(u64::from(retry_after_ms));
            self.trail.rekey_denied(self.ring.epoch(), init.trigger, retry_after, now, &mut shared.journal);
            return Err(reason);
        }
        let shared_secret = if ack.next_epoch == init.next_epoch { secret.agree(&ack.ephemeral).ok() } else { None };
        let Some(shared_secret) = shared_secret else {
            self.rekeying.not_before = now + self.policy.security.rekey_min_interval;
            return Err(Reason::Malformed);
        };
        self.ring.prepare(&shared_secret, &init, &ack);
        self.ring.adopt();
        // Shows the gateway at once that the keys are here, if nothing else does.
        self.next_heartbeat = now;
        self.heartbeat(shared, now);
        Ok(())
    }

    /// An authentic packet came with that key epoch: the first one under the next keys completes the rekey (RK-5).
    pub(super) fn heard_under(&mut self, shared: &mut Shared, key_epoch: u8, now: Time) {
        if let Some(rekeyed) = self.ring.heard(key_epoch, self.policy.security.rekey_overlap, now) {
            self.record.mark_rekeyed(&self.policy, now);
            let (key_epoch, trigger) = (rekeyed.key_epoch, rekeyed.trigger);
            self.trail.key_rotated(key_epoch, trigger, now, &mut shared.journal);
            shared.events.push_back(ClientEvent::Rekeyed { key_epoch, trigger });
        }
    }
}
