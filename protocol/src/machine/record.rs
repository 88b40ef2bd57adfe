//! The record of one session: what the machine reads and writes, and nobody else writes.

use super::{Side, State};
use crate::ident::{TransportId, Tuple};
use crate::policy::Policy;
use crate::reason::Reason;
use crate::stored::stored;
use crate::time::{Span, Time};

/// The sliding window in which commits are counted (SM-07, INV-15).
pub const SWITCH_WINDOW: Span = Span::from_millis(60_000);
/// Most commits that a policy can allow in the window (range of PP40), so the ring is of fixed size (INV-22).
pub const MAX_SWITCHES_IN_WINDOW: usize = 60;

/// The attachment of a transport to the session (§1, "binding").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Outer addresses.
    pub tuple: Tuple,
    /// The client's number for the path.
    pub transport: TransportId,
    /// `binding_epoch`: the generation of this binding.
    pub epoch: u64,
    /// Whether the peer has shown that it receives there (§6.6).
    pub validated: bool,
    /// When it was committed.
    pub committed_at: Time,
}

/// The previous binding: receive-only and short-lived (INV-34).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retiring {
    /// The binding as it was.
    pub binding: Binding,
    /// From then on it is gone.
    pub until: Time,
}

/// The bounds of the timers that run, each as the policy had it when its timer began. A policy that changes later neither
/// stretches nor cuts what runs (RL-4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Of the session's life, from T01 (T17).
    pub(super) lifetime: Span,
    /// Of the age of keys, from T01 or the last rekey (T25).
    pub(super) keys: Span,
    /// Of the time without a binding, from its loss (T18).
    pub(super) transportless: Span,
    /// Of the stay in VOLATILE (T09) or DEGRADED (T22), from its begin; zero: none.
    pub(super) stay: Span,
    /// Of the brake in DEGRADED, from its begin (SM-15).
    pub(super) brake: Span,
    /// Of the cooldown, from the last commit (SM-16).
    pub(super) cooldown: Span,
    /// Of the validation of the active binding, from its commit (PV-4).
    pub(super) validation: Span,
}

/// State, version, epoch, binding and timers of one session. Fields are private to the machine (INV-07).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub(super) side: Side,
    pub(super) state: State,
    pub(super) version: u64,
    pub(super) epoch: u64,
    pub(super) active: Option<Binding>,
    pub(super) retiring: Option<Retiring>,
    pub(super) created: Time,
    pub(super) attached: Time,
    pub(super) entered: Time,
    pub(super) keys_confirmed: Time,
    pub(super) transportless_since: Option<Time>,
    pub(super) deadline: Time,
    pub(super) attempts: u16,
    pub(super) trigger: Option<Reason>,
    pub(super) last_commit: Option<Time>,
    /// At most [`MAX_SWITCHES_IN_WINDOW`]; few sessions ever have more than one or two.
    pub(super) commits: Vec<Time>,
    pub(super) total_switches: u64,
    pub(super) probation_until: Option<Time>,
    pub(super) bounds: Bounds,
}

stored! {
    Binding { tuple, transport, epoch, validated, committed_at }
    Retiring { binding, until }
    Bounds { lifetime, keys, transportless, stay, brake, cooldown, validation }
    Record {
        side, state, version, epoch, active, retiring, created, attached, entered, keys_confirmed, transportless_since,
        deadline, attempts, trigger, last_commit, commits, total_switches, probation_until, bounds
    } => is_coherent
}

impl Record {
    /// A record in BIRTH, version 0, epoch 0, without binding.
    pub fn new(side: Side, now: Time) -> Self {
        Self {
            side,
            state: State::Birth,
            version: 0,
            epoch: 0,
            active: None,
            retiring: None,
            created: now,
            attached: now,
            entered: now,
            keys_confirmed: now,
            transportless_since: None,
            deadline: Time::NEVER,
            attempts: 0,
            trigger: None,
            last_commit: None,
            commits: Vec::new(),
            total_switches: 0,
            probation_until: None,
            bounds: Bounds::default(),
        }
    }

    /// What holds in every record of a live session, whatever led to it: no other one is taken over (INV-29).
    fn is_coherent(&self) -> bool {
        let bound = self.active.is_none_or(|binding| binding.epoch == self.epoch);
        let older = self.retiring.is_none_or(|retiring| retiring.binding.epoch < self.epoch);
        let by_state = match self.state {
            State::Birth => self.version == 0 && self.epoch == 0 && self.active.is_none(),
            State::Attached => self.active.is_some(),
            State::Volatile | State::Degraded | State::Recovering => true,
            State::Terminated => false,
        };
        let begun = self.state == State::Birth || (self.epoch >= 1 && self.epoch <= self.version);
        let loss = self.state == State::Birth || self.active.is_none() == self.transportless_since.is_some();
        let deadline = (self.state == State::Recovering) == (self.deadline != Time::NEVER);
        let few = self.commits.len() <= MAX_SWITCHES_IN_WINDOW;
        bound && older && by_state && begun && loss && deadline && few
    }

    /// Which end keeps this record.
    pub const fn side(&self) -> Side {
        self.side
    }

    /// Where the session stands.
    pub const fn state(&self) -> State {
        self.state
    }

    /// `state_version`: the number of transitions so far.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// `binding_epoch` of the last binding made.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The one binding in use.
    pub const fn active(&self) -> Option<&Binding> {
        self.active.as_ref()
    }

    /// The previous binding, if it is still within its drain at `now`.
    pub fn retiring(&self, now: Time) -> Option<&Binding> {
        self.retiring.as_ref().filter(|retiring| now < retiring.until).map(|retiring| &retiring.binding)
    }

    /// When the record was made.
    pub const fn created(&self) -> Time {
        self.created
    }

    /// Age of the session: its lifetimes start with T01, before that with the record.
    pub fn age(&self, now: Time) -> Span {
        now.since(if self.state == State::Birth { self.created } else { self.attached })
    }

    /// When the state was entered; a self-edge (T16) does not count.
    pub const fn entered(&self) -> Time {
        self.entered
    }

    /// Since when there is no active binding (SM-17).
    pub const fn transportless_since(&self) -> Option<Time> {
        self.transportless_since
    }

    /// When RECOVERING must be left (T12); [`Time::NEVER`] elsewhere.
    pub const fn deadline(&self) -> Time {
        self.deadline
    }

    /// Reattach attempts in this stay in RECOVERING.
    pub const fn attempts(&self) -> u16 {
        self.attempts
    }

    /// Why the session last left ATTACHED; decides the reason of T08 and which candidates may be tried.
    pub const fn trigger(&self) -> Option<Reason> {
        self.trigger
    }

    /// When the last switch was committed.
    pub const fn last_commit(&self) -> Option<Time> {
        self.last_commit
    }

    /// Committed switches over the whole life.
    pub const fn total_switches(&self) -> u64 {
        self.total_switches
    }

    /// End of probation (SM-12), while it runs.
    pub const fn probation_until(&self) -> Option<Time> {
        self.probation_until
    }

    /// Commits younger than the window; one exactly as old as the window is out (SM-07).
    pub fn commits_in_window(&self, now: Time) -> usize {
        self.commits.iter().filter(|at| now.since(**at) < SWITCH_WINDOW).count()
    }

    /// Whether another commit fits into the sliding minute (INV-15).
    pub fn switch_rate_free(&self, policy: &Policy, now: Time) -> bool {
        self.commits_in_window(now) < usize::from(policy.switching.max_switches_per_min)
    }

    /// How long until a commit leaves the window and another one fits.
    pub fn switch_rate_wait(&self, now: Time) -> Span {
        let oldest = self.commits.iter().filter(|at| now.since(**at) < SWITCH_WINDOW).min();
        oldest.map_or(SWITCH_WINDOW, |at| (*at + SWITCH_WINDOW).since(now))
    }

    /// What is left of the cooldown (SM-16); zero when it is over.
    pub fn cooldown_left(&self, now: Time) -> Span {
        self.last_commit.map_or(Span::ZERO, |at| (at + self.bounds.cooldown).since(now))
    }

    /// When a recovery may start at the earliest (T08, T15): switch rate, cooldown while a binding is there (SM-16), and
    /// the brake of DEGRADED (SM-15).
    pub fn earliest_start(&self, policy: &Policy, now: Time) -> Time {
        let mut at = now;
        if !self.switch_rate_free(policy, now) {
            at += self.switch_rate_wait(now);
        }
        if self.active.is_some() {
            at = at.max(now + self.cooldown_left(now));
        }
        if self.state == State::Degraded {
            at = at.max(self.entered + self.bounds.brake);
        }
        at
    }

    /// Whether the session may live on at `now` as far as its own limits go; the first limit that does not hold
    /// is returned (C06).
    pub fn expired(&self, policy: &Policy, now: Time) -> Option<Reason> {
        if self.is_over_age(policy, now) {
            return Some(Reason::TtlSessionExpired);
        }
        if self.is_transportless_too_long(now) {
            return Some(Reason::TtlTransportLossExpired);
        }
        self.has_expired_keys(now).then_some(Reason::KeyExpired)
    }

    /// T17. The life begins with T01; a record in BIRTH, which ends by its handshake long before, has no bound of its own.
    pub(super) fn is_over_age(&self, policy: &Policy, now: Time) -> bool {
        let birth = self.state == State::Birth;
        self.age(now) >= if birth { policy.session.max_lifetime } else { self.bounds.lifetime }
    }

    /// T18.
    pub(super) fn is_transportless_too_long(&self, now: Time) -> bool {
        self.transportless_since.is_some_and(|since| now.since(since) >= self.bounds.transportless)
    }

    /// T25, by age (KY-7).
    pub(super) fn has_expired_keys(&self, now: Time) -> bool {
        self.state != State::Birth && now.since(self.keys_confirmed) >= self.bounds.keys
    }

    /// T22, by time.
    pub(super) fn is_degraded_too_long(&self, now: Time) -> bool {
        let limit = self.bounds.stay;
        self.state == State::Degraded && limit > Span::ZERO && now.since(self.entered) >= limit
    }

    /// T09.
    pub(super) fn is_volatile_too_long(&self, now: Time) -> bool {
        self.state == State::Volatile && now.since(self.entered) >= self.bounds.stay
    }

    /// PV-4: the active binding that was not validated in time.
    pub(super) fn unvalidated_too_long(&self, now: Time) -> Option<&Binding> {
        let late = |binding: &&Binding| now.since(binding.committed_at) >= self.bounds.validation;
        self.active.as_ref().filter(|binding| !binding.validated).filter(late)
    }

    /// The peer has shown that it receives at the binding of that generation (PV-3). An older generation, or one
    /// that is not active, is left alone (SM-10). Returns whether anything changed.
    pub fn mark_validated(&mut self, generation: u64) -> bool {
        match &mut self.active {
            Some(binding) if binding.epoch == generation && !binding.validated => {
                binding.validated = true;
                true
            }
            _ => false,
        }
    }

    /// One more reattach attempt in this stay in RECOVERING (RS-1, RF-4).
    pub fn count_attempt(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Since when the present keys are confirmed: T01, or the last rekey (KY-7).
    pub const fn keys_confirmed(&self) -> Time {
        self.keys_confirmed
    }

    /// A rekey was completed: the age of keys counts from now, within the bound of the policy of now (KY-7).
    pub fn mark_rekeyed(&mut self, policy: &Policy, now: Time) {
        self.keys_confirmed = now;
        self.bounds.keys = policy.security.key_max_age;
    }

    /// Takes the end of probation if it was reached in ATTACHED (SM-12).
    pub fn take_probation(&mut self, now: Time) -> bool {
        match self.probation_until {
            Some(until) if now >= until => {
                self.probation_until = None;
                self.state == State::Attached
            }
            _ => false,
        }
    }

    /// When the next timer of the record itself runs out; the limits of its state, not the health of its path.
    pub fn next_deadline(&self, policy: &Policy) -> Time {
        let mut next = Time::NEVER;
        let mut take = |at: Time| next = next.min(at);
        match self.state {
            State::Terminated => return Time::NEVER,
            State::Birth => take(self.created + policy.session.handshake_timeout),
            State::Attached => {}
            State::Volatile => take(self.entered + self.bounds.stay),
            State::Degraded if self.bounds.stay > Span::ZERO => take(self.entered + self.bounds.stay),
            State::Degraded => {}
            State::Recovering => take(self.deadline),
        }
        if self.state != State::Birth {
            take(self.attached + self.bounds.lifetime);
            take(self.keys_confirmed + self.bounds.keys);
        }
        if let Some(since) = self.transportless_since {
            take(since + self.bounds.transportless);
        }
        if let Some(until) = self.probation_until {
            take(until);
        }
        if let Some(binding) = self.active.filter(|binding| !binding.validated) {
            take(binding.committed_at + self.bounds.validation);
        }
        next
    }
}
