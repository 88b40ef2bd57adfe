//! The records of one session: transitions become records here, with what explains them, in the order of the catalogue.
//!
//! The session machine knows nothing of it. A session keeps a [`Trail`] beside its record and tells it of each
//! transition, request and answer; the trail remembers what a later record refers to (when ATTACHED was left, which
//! attempt this is) and closes every recovery exactly once (INV-25).

use super::checks::Checks;
use super::journal::{Context, Journal};
use super::outer::Outer;
use super::page::{Page, denial, is_policy_refusal};
use super::value::{KeyTrigger, LimitScope, Permille, PolicyAction, Status};
use super::{Bounds, Event, PolicyHash, PolicyRef, Record, Scores, Standing, millis};
use crate::health::Measurement;
use crate::ident::{SessionIdentity, TransportId};
use crate::limits::Bucket;
use crate::machine::{self, State, Transition, TransitionId};
use crate::policy::Policy;
use crate::reason::Reason;
use crate::stored::{Damaged, Reader, Stored, Writer, stored};
use crate::time::{Span, Time};
use crate::wire::Cause;

/// A session is sampled so often: ten thousand of them make a thousand samples a second.
const SAMPLE_EVERY: Span = Span::from_millis(10_000);

/// What an end knows at a transition besides the transition.
pub(crate) struct Scene<'a> {
    pub(crate) policy: &'a Policy,
    /// The record after the step.
    pub(crate) record: &'a machine::Record,
    /// The identity that the keys in use belong to.
    pub(crate) identity: SessionIdentity,
    /// Key epoch in use.
    pub(crate) key_epoch: u32,
    /// Whether the keys are used up by packets, not by age.
    pub(crate) keys_used_up: bool,
    /// Paths that could be tried instead of the active one.
    pub(crate) candidates: usize,
    /// When an authentic packet last came on the binding that was active before the step.
    pub(crate) last_authentic: Time,
    /// What was measured of that binding.
    pub(crate) measured: Option<Measurement>,
    /// Client: loss and round trip of the path that is bound now.
    pub(crate) new_path: (Option<Permille>, Option<Span>),
}

/// One request to move, as an attempt of a recovery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) candidate: TransportId,
    pub(crate) nonce: u64,
    /// The epoch that it names.
    pub(crate) epoch: u64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) candidate: TransportId,
    pub(crate) cause: Cause,
    /// Why it was refused; none if it was granted.
    pub(crate) refusal: Option<Reason>,
    /// A detail of a granted one.
    pub(crate) detail: Option<Reason>,
    /// Client: from the request to its answer, if only one copy was sent.
    pub(crate) round_trip: Option<Span>,
    pub(crate) retry_after: Option<Span>,
}

/// Totals of a session at its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Totals {
    pub(crate) age: Span,
    pub(crate) switches: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// A recovery that is not closed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recovery {
    pub(super) attempts: u16,
    pub(super) last_error: Option<Reason>,
}

/// Times of the last switch, until its probation is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeline {
    pub(super) detected: Span,
    pub(super) switched: Span,
    pub(super) attempts: u16,
}

/// What the records of a session need to know of its past.
pub(crate) struct Trail {
    pub(super) session: SessionIdentity,
    pub(super) born: Time,
    policy: PolicyRef,
    /// Where the session stood after the last transition, since when, and why.
    pub(super) last: Standing,
    pub(super) entered: Time,
    last_reasons: (Option<Reason>, Option<Reason>),
    /// When ATTACHED was left, and the last authentic packet before that.
    pub(super) left_attached: Time,
    pub(super) heard_before: Time,
    transportless_since: Option<Time>,
    /// The path that was bound last, also after its death.
    pub(super) last_transport: Option<TransportId>,
    pub(super) recovery: Option<Recovery>,
    /// A request that opens the chain of a commit: it is written with the link into RECOVERING.
    pub(super) request: Option<Request>,
    /// An answer that is written with the transition that follows from it, if one does.
    pub(super) answer: Option<Answer>,
    pub(super) timeline: Option<Timeline>,
    pub(super) draining: Option<(TransportId, Time)>,
    late_packets: u32,
    /// Its limiter refused the last request (PP79).
    limited: bool,
    /// Refusals that are found before that limiter is asked, so far as they are written as attempts.
    early_refusals: Bucket,
    /// The operator flagged its key (KY-10).
    pub(super) flagged: bool,
    next_sample: Time,
}

stored! {
    Recovery { attempts, last_error }
    Timeline { detected, switched, attempts }
}

/// Between two steps: no request or answer is under way.
impl Stored for Trail {
    fn store(&self, out: &mut Writer) {
        let Self { session, born, policy, last, entered, last_reasons, left_attached, heard_before, .. } = self;
        let Self { transportless_since, last_transport, recovery, request: _, answer: _, timeline, draining, .. } =
            self;
        let Self { late_packets, limited, early_refusals, flagged, next_sample, .. } = self;
        ((*session, *born), (*policy, *last)).store(out);
        ((*entered, *last_reasons), (*left_attached, *heard_before)).store(out);
        ((*transportless_since, *last_transport), (*recovery, *timeline)).store(out);
        ((*draining, *late_packets), (*limited, *flagged)).store(out);
        early_refusals.store(out);
        next_sample.store(out);
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let ((session, born), (policy, last)): (_, (_, Standing)) = Stored::load(from)?;
        let ((entered, last_reasons), (left_attached, heard_before)) = Stored::load(from)?;
        let ((transportless_since, last_transport), (recovery, timeline)) = Stored::load(from)?;
        let ((draining, late_packets), (limited, flagged)) = Stored::load(from)?;
        // Its next record would stand under another name than its last one.
        if last.session != session {
            return Err(Damaged);
        }
        Ok(Self {
            session,
            born,
            policy,
            last,
            entered,
            last_reasons,
            left_attached,
            heard_before,
            transportless_since,
            last_transport,
            recovery,
            request: None,
            answer: None,
            timeline,
            draining,
            late_packets,
            limited,
            flagged,
            early_refusals: Stored::load(from)?,
            next_sample: Stored::load(from)?,
        })
    }
}

impl Trail {
    /// The trail of a record that was just made, with SessionCreated.
    pub(crate) fn begin(
        session: SessionIdentity,
        initial_transport: Option<TransportId>,
        policy: &Policy,
        sequence: u32,
        now: Time,
        journal: &mut Journal,
    ) -> Self {
        let standing = Standing { session, state: State::Birth, version: 0, epoch: 0 };
        let trail = Self {
            session,
            born: now,
            policy: PolicyRef { version: policy.version, sequence },
            last: standing,
            entered: now,
            last_reasons: (None, None),
            left_attached: now,
            heard_before: now,
            transportless_since: None,
            last_transport: None,
            recovery: None,
            request: None,
            answer: None,
            timeline: None,
            draining: None,
            late_packets: 0,
            limited: false,
            early_refusals: Bucket::full(policy.limits.reattach_per_session, now),
            flagged: false,
            next_sample: now + SAMPLE_EVERY,
        };
        if journal.is_open() {
            let (policy_hash, bounds) = (PolicyHash::of(policy), Bounds::of(policy));
            let event = Event::SessionCreated { owner: super::OwnNode, initial_transport, policy_hash, bounds };
            trail.put(journal, now, standing, (None, None), event);
        }
        trail
    }

    /// Where the session stands.
    pub(crate) const fn standing(&self) -> Standing {
        self.last
    }

    /// The policy in force for it.
    pub(crate) const fn policy(&self) -> PolicyRef {
        self.policy
    }

    /// One transition: SessionStateChange, and what explains it. Gives whether the checks after a commit hold; if not, the
    /// caller ends the session by T23.
    #[must_use]
    pub(crate) fn transition(
        &mut self,
        transition: &Transition,
        scene: &Scene<'_>,
        peer: Option<Outer>,
        journal: &mut Journal,
    ) -> bool {
        let at = transition.at;
        if transition.id == TransitionId::T11 || !transition.to.is_live() {
            self.drained(journal, at, true);
        }
        self.follow(transition, scene);
        let checks = Checks::of(transition, scene, self);
        Page { trail: self, journal, transition, scene, checks }.fill(peer);
        if transition.from != transition.to {
            self.entered = at;
        }
        checks.is_none_or(Checks::hold)
    }

    /// A request passed proof and freshness (gateway), or goes out (client): written at once.
    pub(crate) fn attempt(&mut self, request: Request, deadline_left: Option<Span>, now: Time, journal: &mut Journal) {
        let recovery = self.recovery.get_or_insert_default();
        recovery.attempts = recovery.attempts.saturating_add(1);
        let event = Event::ReattachAttempt {
            candidate_transport: request.candidate,
            attempt: recovery.attempts,
            recovery_deadline_ms: deadline_left.map(millis),
            nonce: request.nonce,
            in_reply_to_epoch: request.epoch,
        };
        self.put(journal, now, self.last, (None, None), event);
    }

    /// A request passed every check, and the chain to its commit follows in the same step.
    pub(crate) fn chain(&mut self, request: Request, deadline_left: Option<Span>, now: Time, journal: &mut Journal) {
        if self.last.state == State::Recovering {
            self.attempt(request, deadline_left, now, journal);
        } else {
            self.request = Some(request);
        }
    }

    /// An attempt was answered; what follows from it comes next. [`Trail::settle`] ends it.
    pub(crate) fn answered(&mut self, answer: Answer) {
        self.answer = Some(answer);
        self.recovery.get_or_insert_default().last_error = answer.refusal;
    }

    /// Nothing more follows from the last answer. A refusal outside RECOVERING closes what its request opened.
    pub(crate) fn settle(&mut self, policy: &Policy, record: &machine::Record, now: Time, journal: &mut Journal) {
        self.request = None;
        let Some((answer, reason)) = self.answer.take().and_then(|answer| Some((answer, answer.refusal?))) else {
            return;
        };
        self.result(&answer, self.last, now, journal);
        if self.last.state == State::Recovering {
            return;
        }
        let Some(recovery) = self.recovery.take() else { return };
        let event = if is_policy_refusal(reason) {
            denial(reason, Some(&answer), policy, record, now)
        } else {
            Event::TransportSwitchFailed { attempts: recovery.attempts, last_error: Some(reason) }
        };
        self.put(journal, now, self.last, (Some(reason), None), event);
    }

    /// Another policy is in force for the session from now on (RL-3).
    pub(crate) fn policy_changed(&mut self, policy: &Policy, sequence: u32, now: Time, journal: &mut Journal) {
        self.policy = PolicyRef { version: policy.version, sequence };
        if journal.is_open() {
            let event = Event::PolicyEvent {
                action: PolicyAction::Changed,
                policy_name: policy.profile,
                parameter: None,
                threshold_value: None,
                observed_value: None,
                policy_hash: PolicyHash::of(policy),
                bounds: Some(Bounds::of(policy)),
            };
            self.put(journal, now, self.last, (Some(Reason::PolicyChanged), None), event);
        }
    }

    /// The operator flagged the key of the session: T20 follows.
    pub(crate) fn flagged(&mut self) {
        self.flagged = true;
    }

    /// The session asks too often (PP79).
    pub(crate) fn limited(&mut self) {
        self.limited = true;
    }

    /// A request was refused before the limiter of the session was asked: an old or a future epoch. Such refusals are no more
    /// often attempts of the audit than those behind it; gives how long until the next one is, if this one is not.
    pub(crate) fn early_refusal(&mut self, policy: &Policy, now: Time) -> Result<(), Span> {
        self.early_refusals.take(policy.limits.reattach_per_session, now)
    }

    /// A request of the session was not too much: if others were, its limiter admits again.
    pub(crate) fn admitted(&mut self, now: Time, journal: &mut Journal) {
        if std::mem::take(&mut self.limited) {
            let context = Context { standing: self.last, policy: self.policy, transport: None };
            journal.released(now, LimitScope::Session, Some(&context));
        }
    }

    /// A packet was accepted on the binding that drains.
    pub(crate) fn late_packet(&mut self) {
        self.late_packets = self.late_packets.saturating_add(1);
    }

    /// The drain of the former binding is over, or is cut short.
    pub(crate) fn drained(&mut self, journal: &mut Journal, now: Time, cut: bool) {
        if let Some((transport, _)) = self.draining.take_if(|(_, until)| cut || now >= *until) {
            let late_packets = std::mem::take(&mut self.late_packets);
            if late_packets > 0 {
                let event = Event::TransportRetired { transport, late_packets: Some(late_packets) };
                self.put(journal, now, self.last, (None, None), event);
            }
        }
    }

    /// When [`Trail::drained`] has something to do.
    pub(crate) fn drains_until(&self) -> Time {
        self.draining.map_or(Time::NEVER, |(_, until)| until)
    }

    /// A sample of the active path, if one is due. What is measured, and packets and bytes so far, are asked for only then.
    pub(crate) fn sample(
        &mut self,
        now: Time,
        journal: &mut Journal,
        measure: impl FnOnce() -> Option<(Measurement, u64, u64)>,
    ) {
        if now < self.next_sample || !journal.is_open() {
            return;
        }
        self.next_sample = now + SAMPLE_EVERY;
        let Some((measured, packets, bytes)) = measure() else { return };
        let event = Event::Telemetry {
            rtt_ms: measured.latency.map(millis),
            jitter_ms: measured.jitter.map(millis),
            loss_ratio: Some(Permille(u16::try_from(measured.loss_permille).unwrap_or(u16::MAX))),
            hb_age_ms: millis(measured.heartbeat_age),
            packets,
            bytes,
        };
        self.put(journal, now, self.last, (None, None), event);
    }

    /// Candidates were ranked.
    pub(crate) fn ranked(&self, candidates: Scores, now: Time, journal: &mut Journal) {
        self.put(journal, now, self.last, (None, None), Event::CandidateScores { candidates });
    }

    /// Probation after the last switch ended well (SM-12).
    pub(crate) fn recovery_complete(&mut self, now: Time, journal: &mut Journal) {
        let Some(Timeline { detected, switched, attempts }) = self.timeline.take() else {
            return;
        };
        let event = Event::RecoveryComplete {
            duration_ms: millis(Span::from_micros(detected.as_micros() + switched.as_micros())),
            attempts,
            detect_us: detected.as_micros(),
            switch_us: switched.as_micros(),
        };
        self.put(journal, now, self.last, (Some(Reason::AuditRecoveryTimeline), None), event);
    }

    /// A rekey is complete.
    pub(crate) fn key_rotated(&self, key_generation: u32, trigger: Reason, now: Time, journal: &mut Journal) {
        let event = Event::KeyRotated { key_generation, trigger: key_trigger(trigger) };
        self.put(journal, now, self.last, (Some(Reason::KeyRotated), Some(trigger)), event);
    }

    /// A rekey was refused.
    pub(crate) fn rekey_denied(
        &self,
        key_generation: u32,
        trigger: Reason,
        retry_after: Span,
        now: Time,
        journal: &mut Journal,
    ) {
        let (trigger, retry_after_ms) = (key_trigger(trigger), millis(retry_after));
        let event = Event::RekeyDenied { key_generation, trigger, retry_after_ms };
        self.put(journal, now, self.last, (Some(Reason::RekeyDenied), None), event);
    }

    /// The slot of the session went from one worker to another (SL-4); written by the one that has it now.
    pub(crate) fn handed_over(&self, fencing_epoch: u64, previous_worker: u16, now: Time, journal: &mut Journal) {
        let event = Event::SessionOwnerTransferred {
            owner_node_id: super::OwnNode,
            previous_owner: super::OwnNode,
            fencing_epoch,
            previous_worker: Some(previous_worker),
        };
        self.put(journal, now, self.last, (Some(Reason::OwnershipTransferred), None), event);
    }

    /// The last record of the session: its keys are out of memory.
    pub(crate) fn end(self, totals: &Totals, now: Time, journal: &mut Journal) {
        let event = Event::SessionTerminated {
            session_age_ms: millis(totals.age),
            transportless_age_ms: self.transportless_since.map(|since| millis(now.since(since))),
            total_switches: u32::try_from(totals.switches).unwrap_or(u32::MAX),
            packets: totals.packets,
            bytes: totals.bytes,
            keys_erased: true,
        };
        self.put(journal, now, self.last, self.last_reasons, event);
    }

    /// Takes over what later records refer to.
    fn follow(&mut self, transition: &Transition, scene: &Scene<'_>) {
        self.last = Standing {
            session: self.session,
            state: transition.to,
            version: transition.version,
            epoch: transition.epoch,
        };
        self.last_reasons = (Some(transition.reason), transition.detail);
        if transition.from == State::Attached {
            self.left_attached = transition.at;
            self.heard_before = scene.last_authentic;
        }
        match transition.id {
            TransitionId::T01 | TransitionId::T11 => self.transportless_since = None,
            TransitionId::T04 | TransitionId::T16 => self.transportless_since = Some(transition.at),
            _ => {}
        }
    }

    pub(super) fn result(&self, answer: &Answer, standing: Standing, now: Time, journal: &mut Journal) {
        let event = Event::ReattachResult {
            status: if answer.refusal.is_some() { Status::Denied } else { Status::Success },
            attempt: self.recovery.map_or(1, |recovery| recovery.attempts),
            control_rtt_us: answer.round_trip.map(|span| u32::try_from(span.as_micros()).unwrap_or(u32::MAX)),
            retry_after_ms: answer.retry_after.map(millis),
        };
        let reason = answer.refusal.unwrap_or(Reason::ReattachSuccess);
        self.put(journal, now, standing, (Some(reason), answer.detail), event);
    }

    pub(super) fn put(
        &self,
        journal: &mut Journal,
        at: Time,
        standing: Standing,
        reasons: (Option<Reason>, Option<Reason>),
        event: Event,
    ) {
        journal.write(Record::new(at, Some(standing), self.policy, reasons, event));
    }
}

fn key_trigger(reason: Reason) -> KeyTrigger {
    KeyTrigger::of(reason).unwrap_or(KeyTrigger::PolicyTrigger)
}
