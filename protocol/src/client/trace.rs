//! What the records of the mirror are made from (`crate::audit`): hooks, called where things happen.

use super::core::Shared;
use super::live::Live;
use super::path::Path;
use crate::audit::{self, Permille, Refused, Request, Scene, Totals, Trail};
use crate::health::RoundTrips;
use crate::ident::TransportId;
use crate::machine::{State, Transition};
use crate::reason::Reason;
use crate::time::Time;
use crate::wire::{Header, MessageType, ReattachRequest};

impl Live {
    /// One transition of the mirror. Gives whether the checks after a commit hold.
    pub(super) fn record_transition(&mut self, shared: &mut Shared, transition: &Transition) -> bool {
        // `current` is still the path that was bound before the step.
        let former = self.current.and_then(|id| shared.path(id));
        let measured =
            former.map(|path| self.health.measurement(&self.policy, RoundTrips::Client(&path.echoes), transition.at));
        let new_path = transition.active.and_then(|binding| shared.path(binding.transport));
        let others = shared.paths.iter().filter(|path| path.up && Some(path.id) != self.active_path()).count();
        let scene = Scene {
            policy: &self.policy,
            record: &self.record,
            identity: self.ring.identity(),
            key_epoch: self.ring.epoch(),
            keys_used_up: self.ring.is_used_up(),
            candidates: others,
            last_authentic: self.health.last_authentic(),
            measured,
            new_path: (new_path.map(loss), new_path.and_then(|path| path.echoes.rtt().smoothed())),
        };
        let peer = transition.active.and_then(|binding| shared.journal.outer(binding.tuple.peer));
        self.trail.transition(transition, &scene, peer, &mut shared.journal)
    }

    /// The active path is as it is now.
    pub(super) fn record_sample(&mut self, shared: &mut Shared, now: Time) {
        let active = self.active_path();
        let Self { trail, policy, health, received, sent, .. } = self;
        let Shared { paths, journal, .. } = shared;
        trail.sample(now, journal, || {
            let path = paths.iter().find(|path| Some(path.id) == active)?;
            let measured = health.measurement(policy, RoundTrips::Client(&path.echoes), now);
            Some((measured, received.packets + sent.packets, received.bytes + sent.bytes))
        });
    }

    /// The candidates are ranked for the next attempt.
    pub(super) fn record_ranking(&self, shared: &mut Shared, now: Time) {
        if shared.journal.is_open() {
            let scores = self.choice(shared, now, false).scores(&shared.paths);
            self.trail.ranked(scores, now, &mut shared.journal);
        }
    }

    /// A request goes out: an attempt.
    pub(super) fn record_attempt(&mut self, shared: &mut Shared, nonce: u64, request: &ReattachRequest, now: Time) {
        let (candidate, epoch) = (request.transport_id, request.binding_epoch);
        let left = (self.record.state() == State::Recovering).then(|| self.record.deadline().since(now));
        self.trail.attempt(Request { candidate, nonce, epoch }, left, now, &mut shared.journal);
    }

    /// Nothing more follows from an answer.
    pub(super) fn settle_records(&mut self, shared: &mut Shared, now: Time) {
        self.trail.settle(&self.policy, &self.record, now, &mut shared.journal);
    }

    /// Input of this session, or of none, was refused.
    pub(super) fn record_refusal(
        &self,
        shared: &mut Shared,
        path: TransportId,
        packet: &[u8],
        reason: Reason,
        now: Time,
    ) {
        let Some(peer) = shared.path(path).map(|path| path.info.gateway) else {
            return;
        };
        let marker = Header::parse(packet).map_or(0, |header| header.counter);
        let refused = Refused { reason, message: MessageType::of(packet).ok(), marker, peer, limit: None };
        let (standing, policy) = (self.trail.standing(), self.trail.policy());
        let transport = Some(path).filter(|path| self.active_path() == Some(*path));
        shared.journal.refused(now, &refused, || Some(audit::Context { standing, policy, transport }));
    }

    /// Drops the session with all of its keys (KY-9); what is left is what its last record says.
    pub(super) fn bury(self, now: Time) -> (Trail, Totals) {
        let Self { trail, ring, rekeying, record, sent, received, .. } = self;
        drop((ring, rekeying));
        let totals = Totals {
            age: record.age(now),
            switches: record.total_switches(),
            packets: received.packets + sent.packets,
            bytes: received.bytes + sent.bytes,
        };
        (trail, totals)
    }
}

fn loss(path: &Path) -> Permille {
    Permille(u16::try_from(path.echoes.loss_permille()).unwrap_or(u16::MAX))
}
