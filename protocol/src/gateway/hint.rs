//! REATTACH_HINT: a gateway cannot move a session, it can only ask its client to (SM-18).

use super::event::Reply;
use super::session::Session;
use super::shard::Context;
use crate::machine::State;
use crate::reason::Reason;
use crate::stored::stored;
use crate::time::{Span, Time};
use crate::wire::{ControlPacket, ReattachHint};

/// The copy goes out one RTO after the first: the round trip is not measured at this end (HS-6).
const HINT_RTO: Span = Span::from_millis(250);
/// A hint is two packets.
const COPIES: usize = 2;

/// What was hinted.
#[derive(Default)]
pub(super) struct Hints {
    /// The second copy, and when it is due.
    copy: Option<Box<(ControlPacket, Time)>>,
    /// Not before then the same stay in DEGRADED gives another hint.
    quiet_until: Option<Time>,
}

stored! { Hints { copy, quiet_until } }

impl Session {
    /// Asks the client to move, if there is a binding to ask it on: to another path, or to prove the same one again.
    pub(super) fn hint(&mut self, reason: Reason, same_path_ok: bool, context: &mut Context<'_>) {
        let Some(active) = self.record.active().copied() else {
            return;
        };
        let deadline = self.policy.switching.recovery_window;
        let hint = ReattachHint {
            binding_epoch: active.epoch,
            reason,
            same_path_ok,
            deadline_ms: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX),
        };
        let packet = self.seal_mutation(&hint);
        // A binding that is not validated yet may have no budget left for it (PV-2).
        if self.pay(&active.tuple, packet.len() * COPIES).is_ok() {
            let reply = Reply { tuple: active.tuple, route: self.route, packet: packet.clone() };
            context.outbox.replies.push_back(reply);
            self.hints.copy = Some(Box::new((packet, context.now + HINT_RTO)));
            self.hints.quiet_until = Some(context.now + deadline);
        }
    }

    /// The client may not know that its session is in DEGRADED here; once the path is calm it is told. While it stays
    /// there it is told again: the one hint may have been lost, and nothing else would lead out.
    pub(super) fn hint_if_calm(&mut self, context: &mut Context<'_>) {
        let calm = self.health.calm_for(context.now) >= self.policy.volatility.stability_window;
        let quiet = self.hints.quiet_until.is_some_and(|until| context.now < until);
        if self.record.state() == State::Degraded && self.record.active().is_some() && calm && !quiet {
            self.hint(Reason::HealthRecovered, true, context);
        }
    }

    /// Sends the copy that is due.
    pub(super) fn repeat_hint(&mut self, context: &mut Context<'_>) {
        if let Some(copy) = self.hints.copy.take_if(|copy| context.now >= copy.1)
            && let Some(active) = self.record.active()
        {
            let reply = Reply { tuple: active.tuple, route: self.route, packet: copy.0 };
            context.outbox.replies.push_back(reply);
        }
    }

    /// Another binding, or none: what was hinted is settled.
    pub(super) fn forget_hints(&mut self) {
        self.hints = Hints::default();
    }

    /// DEGRADED was entered anew: it is worth a hint of its own.
    pub(super) fn renew_hints(&mut self) {
        self.hints.quiet_until = None;
    }

    /// When a copy or another hint is due.
    pub(super) fn next_hint(&self) -> Time {
        let copy = self.hints.copy.as_ref().map_or(Time::NEVER, |copy| copy.1);
        let degraded = self.record.state() == State::Degraded && self.record.active().is_some();
        self.hints.quiet_until.filter(|_| degraded).map_or(copy, |until| copy.min(until))
    }
}
