//! POLICY_UPDATE: a changed policy on its way to its client, and into force (RL-3, PU-1).

use std::sync::Arc;

use super::event::{EventKind, Reply};
use super::session::Session;
use super::shard::Context;
use super::sources::Sources;
use crate::ident::Tuple;
use crate::machine::{Input, State, Transition, TransitionId};
use crate::policy::{ApplyMode, Policy};
use crate::stored::{Damaged, Reader, Stored, Writer};
use crate::time::{Span, Time};
use crate::wire::{ControlPacket, PolicySnapshot, PolicyUpdate};

/// First pause before a copy: the round trip is not measured at this end (HS-6).
const RTO: Span = Span::from_millis(250);
/// The pause doubles up to here (HS-6): a client that does not answer costs a packet a second.
const RTO_MAX: Span = Span::from_millis(1_000);

/// What becomes of a session when another policy is in force (RL-3).
#[derive(Clone, Debug)]
pub enum PolicyChange {
    /// It goes on under these terms.
    Apply {
        /// Its policy.
        policy: Arc<Policy>,
        /// Where its client may come from.
        sources: Sources,
    },
    /// The policy in force does not admit its client (T22).
    Withdraw,
    /// The key of its client is flagged as compromised (T20, KY-10).
    Compromised,
}

/// The newest policy of a session and how far it has come.
pub(super) struct Push {
    /// Its number within the session; 1 is the one of HELLO_ACK.
    sequence: u32,
    /// It is not in force yet: of mode grace, or the session is still in BIRTH.
    waiting: Option<Arc<Policy>>,
    /// The client has not told yet that it has it.
    unanswered: Option<Box<Unanswered>>,
    /// The same, but the copy is still to be sealed: the session came from another run of the gateway.
    owed: bool,
}

struct Unanswered {
    packet: ControlPacket,
    counter: u64,
    key_epoch: u32,
    rto: Span,
    next: Time,
}

impl Default for Push {
    fn default() -> Self {
        Self { sequence: 1, waiting: None, unanswered: None, owed: false }
    }
}

/// Of a policy that the client does not have yet, the hand-over says only that.
impl Push {
    pub(super) fn store(&self, out: &mut Writer) {
        let Self { sequence, waiting, unanswered, owed } = self;
        sequence.store(out);
        waiting.is_some().store(out);
        waiting.iter().for_each(|policy| out.policy(policy));
        (*owed || unanswered.is_some()).store(out);
    }

    pub(super) fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let sequence = Stored::load(from)?;
        let waiting = bool::load(from)?.then(|| from.policy()).transpose()?;
        Ok(Self { sequence, waiting, unanswered: None, owed: bool::load(from)? })
    }
}

impl Session {
    /// After a restart: a client that does not have the newest policy gets another copy of it.
    pub(super) fn push_again(&mut self, now: Time) {
        if std::mem::take(&mut self.push.owed) {
            self.push.unanswered = Some(self.seal_policy(RTO, now));
        }
    }

    /// Other terms from now on. A client that stands where it may not be any more is not admitted (T22).
    pub(super) fn change_policy(&mut self, policy: Arc<Policy>, sources: Sources, context: &mut Context<'_>) {
        let allowed = |tuple: &Tuple| sources.allow(tuple.peer.ip());
        let place = self.opening.as_ref().map(|opening| opening.from).or_else(|| self.active_tuple());
        let admitted = place.as_ref().is_none_or(allowed);
        self.standby.retain(allowed);
        self.sources = sources;
        if !admitted {
            return self.apply(&[Input::PolicyHardLimit { admitted: false }], context);
        }
        if self.newest_policy().hash() == policy.hash() {
            // What the client knows of it is the same; the rest is the gateway's own business.
            *self.push.waiting.as_mut().unwrap_or(&mut self.policy) = policy;
        } else if self.record.state() == State::Birth {
            self.push.waiting = Some(policy);
        } else {
            self.announce(policy, context);
        }
    }

    /// A transition was made. What waited for it is in force from now on: the step that made it was the last one under the
    /// old policy. A session that is out of BIRTH has a client to tell.
    pub(super) fn policy_after(&mut self, transition: &Transition, context: &mut Context<'_>) {
        let bound = matches!(transition.id, TransitionId::T01 | TransitionId::T11);
        if let Some(unanswered) = self.push.unanswered.as_mut().filter(|_| bound) {
            unanswered.next = context.now;
        }
        match self.push.waiting.take() {
            Some(policy) if transition.id == TransitionId::T01 => self.announce(policy, context),
            Some(policy) if transition.to.is_live() => self.put_in_force(policy, context),
            _ => {}
        }
    }

    /// The client reported the number of the policy that it has (PU-1).
    pub(super) fn policy_acknowledged(&mut self, sequence: u32, context: &mut Context<'_>) {
        if sequence == self.push.sequence && self.push.unanswered.take().is_some() {
            self.emit(EventKind::PolicyAcknowledged { sequence }, context);
        }
    }

    /// Sends the copy that is due: the same bytes, unless the client could not take those any more, since another message
    /// of lane M or fresh keys came after them (AR-1, RK-3).
    pub(super) fn repeat_policy(&mut self, context: &mut Context<'_>) {
        let Some(due) = self.push.unanswered.as_ref().filter(|unanswered| context.now >= unanswered.next) else {
            return;
        };
        let rto = due.rto.times(2).min(RTO_MAX);
        let stale = due.counter != self.mutation_sent || due.key_epoch != self.ring.epoch();
        if stale {
            self.push.unanswered = Some(self.seal_policy(rto, context.now));
        }
        self.send_policy(rto, context);
    }

    /// When a copy is due.
    pub(super) fn next_policy(&self) -> Time {
        self.push.unanswered.as_ref().map_or(Time::NEVER, |unanswered| unanswered.next)
    }

    fn announce(&mut self, policy: Arc<Policy>, context: &mut Context<'_>) {
        // A counter that cannot rise any more would need four thousand million reloads within one session.
        self.push.sequence = self.push.sequence.saturating_add(1);
        match policy.apply_mode {
            ApplyMode::Strict => {
                self.push.waiting = None;
                self.put_in_force(policy, context);
            }
            ApplyMode::Grace => {
                let changed =
                    EventKind::PolicyChanged { sequence: self.push.sequence, policy: policy.clone(), in_force: false };
                self.push.waiting = Some(policy);
                self.emit(changed, context);
            }
        }
        self.push.unanswered = Some(self.seal_policy(RTO, context.now));
        self.send_policy(RTO, context);
    }

    fn put_in_force(&mut self, policy: Arc<Policy>, context: &mut Context<'_>) {
        self.policy = policy.clone();
        let sequence = self.push.sequence;
        self.trail.policy_changed(&policy, sequence, context.now, &mut context.outbox.journal);
        self.emit(EventKind::PolicyChanged { sequence, policy, in_force: true }, context);
    }

    fn newest_policy(&self) -> &Arc<Policy> {
        self.push.waiting.as_ref().unwrap_or(&self.policy)
    }

    fn seal_policy(&mut self, rto: Span, now: Time) -> Box<Unanswered> {
        let policy = self.newest_policy();
        let update = PolicyUpdate {
            sequence: self.push.sequence,
            hash: policy.hash(),
            mode: policy.apply_mode as u8,
            // Every snapshot fits (`SNAPSHOT_LEN` is a constant below the room for it).
            snapshot: PolicySnapshot::try_from(policy.encode_snapshot().as_slice()).unwrap_or_default(),
        };
        let packet = self.seal_mutation(&update);
        Box::new(Unanswered { packet, counter: self.mutation_sent, key_epoch: self.ring.epoch(), rto, next: now })
    }

    /// To the active binding, if there is one and its budget allows (PV-2); else when the next binding is made, or later.
    fn send_policy(&mut self, rto: Span, context: &mut Context<'_>) {
        let Some(tuple) = self.active_tuple() else {
            if let Some(unanswered) = &mut self.push.unanswered {
                unanswered.next = Time::NEVER;
            }
            return;
        };
        let Some(unanswered) = &mut self.push.unanswered else {
            return;
        };
        unanswered.rto = rto;
        unanswered.next = context.now + rto;
        let packet = unanswered.packet.clone();
        if self.pay(&tuple, packet.len()).is_ok() {
            context.outbox.replies.push_back(Reply { tuple, route: self.route, packet });
        }
    }
}
