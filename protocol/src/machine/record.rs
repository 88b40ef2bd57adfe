//! The record of one session: what the machine reads and writes, and nobody else writes.

use arrayvec::ArrayVec;

use super::{Side, State};
use crate::ident::{TransportId, Tuple};
use crate::policy::Policy;
use crate::reason::Reason;
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
    pub(super) commits: ArrayVec<Time, MAX_SWITCHES_IN_WINDOW>,
    pub(super) total_switches: u64,
    pub(super) probation_until: Option<Time>,
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
            commits: ArrayVec::new(),
            total_switches: 0,
            probation_until: None,
        }
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
    pub fn cooldown_left(&self, policy: &Policy, now: Time) -> Span {
        self.last_commit.map_or(Span::ZERO, |at| (at + policy.switching.switch_cooldown).since(now))
    }

    /// When a recovery may start at the earliest (T08, T15): switch rate, cooldown while a binding is there (SM-16), and
    /// the brake of DEGRADED (SM-15).
    pub fn earliest_start(&self, policy: &Policy, now: Time) -> Time {
        let mut at = now;
        if !self.switch_rate_free(policy, now) {
            at += self.switch_rate_wait(now);
        }
        if self.active.is_some() {
            at = at.max(now + self.cooldown_left(policy, now));
        }
        if self.state == State::Degraded {
            at = at.max(self.entered + policy.switching.switch_cooldown);
        }
        at
    }

    /// Whether the session may live on at `now` as far as its own limits go; the first limit that does not hold
    /// is returned (C06).
    pub fn expired(&self, policy: &Policy, now: Time) -> Option<Reason> {
        if self.age(now) >= policy.session.max_lifetime {
            return Some(Reason::TtlSessionExpired);
        }
        if self.transportless_since.is_some_and(|since| now.since(since) >= policy.session.transport_lost_ttl) {
            return Some(Reason::TtlTransportLossExpired);
        }
        if now.since(self.keys_confirmed) >= policy.security.key_max_age {
            return Some(Reason::KeyExpired);
        }
        None
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

    /// A rekey was completed: the age of keys counts from now (KY-7).
    pub fn mark_rekeyed(&mut self, now: Time) {
        self.keys_confirmed = now;
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
            State::Volatile => take(self.entered + policy.volatility.volatile_to_degraded),
            State::Degraded => {
                if policy.session.max_degraded > Span::ZERO {
                    take(self.entered + policy.session.max_degraded);
                }
            }
            State::Recovering => take(self.deadline),
        }
        if self.state != State::Birth {
            take(self.attached + policy.session.max_lifetime);
            take(self.keys_confirmed + policy.security.key_max_age);
        }
        if let Some(since) = self.transportless_since {
            take(since + policy.session.transport_lost_ttl);
        }
        if let Some(until) = self.probation_until {
            take(until);
        }
        if let Some(binding) = self.active.filter(|binding| !binding.validated) {
            take(binding.committed_at + policy.switching.path_validation);
        }
        next
    }
}
