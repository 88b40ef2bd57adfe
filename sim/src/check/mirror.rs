//! A client's mirror: the same function with ordinals and a clock of its own.

use jumpgate_protocol::ident::Locator;
use jumpgate_protocol::machine::{State, Transition, TransitionId};
use jumpgate_protocol::time::{Span, Time};

use super::bounds::{Bounds, within};
use super::findings::Safety;

/// The mirror of one client's present session.
pub(super) struct Mirror {
    pub(super) locator: Option<Locator>,
    state: State,
    version: u64,
    epoch: u64,
    bound: bool,
    entered: Time,
    unbound_since: Option<Time>,
    /// How long the client slept since it was ATTACHED last.
    slept: Span,
}

impl Mirror {
    pub(super) const fn new() -> Self {
        Self {
            locator: None,
            state: State::Terminated,
            version: 0,
            epoch: 0,
            bound: false,
            entered: Time::ZERO,
            unbound_since: None,
            slept: Span::ZERO,
        }
    }

    /// A handshake brought a session. Gives whether there may be one: the former must have ended (INV-04, I05).
    pub(super) fn connected(&mut self, locator: Locator, now: Time) -> bool {
        let former_ended = !self.state.is_live() && self.locator != Some(locator);
        *self = Self { locator: Some(locator), state: State::Birth, entered: now, ..Self::new() };
        former_ended
    }

    /// Takes a transition, and gives every rule that it breaks.
    pub(super) fn take(&mut self, transition: &Transition, bounds: &Bounds) -> Vec<(Safety, &'static str)> {
        let (at, row) = (transition.at, transition.id.row());
        let stay = at.since(self.entered);
        let left = transition.to != self.state;
        let commit = matches!(transition.id, TransitionId::T01 | TransitionId::T11);
        let epoch = if commit { transition.epoch >= self.epoch } else { transition.epoch == self.epoch };
        let unbound = self.unbound_since.map_or(Span::ZERO, |since| at.since(since));
        let in_time = |state: State, bound: Span| !left || self.state != state || within(stay, bound, self.slept);
        let unbounded = Safety::UnboundedRecovery;
        let rules = [
            (self.state.is_live(), Safety::PostEndActivity, "INV-10 TERMINATED is final"),
            (transition.from == self.state, Safety::SilentReset, "INV-07 no state is left that was not entered"),
            (transition.version == self.version + 1, Safety::VersionRegression, "INV-05 the version rises by one"),
            (epoch, Safety::VersionRegression, "INV-06, RS-7 the epoch never goes back"),
            (row.from.contains(&transition.from), Safety::Other, "INV-07 the edge is in the table"),
            (row.reasons.contains(&transition.reason), Safety::Other, "INV-07 the reason is one of its edge"),
            (
                transition.active.is_some() == (transition.to == State::Attached)
                    || matches!(transition.to, State::Volatile | State::Degraded | State::Recovering),
                Safety::DualBinding,
                "INV-02 the state says whether there is a binding",
            ),
            (in_time(State::Recovering, bounds.recovering), unbounded, "INV-16, TB-05 RECOVERING is bounded"),
            (in_time(State::Volatile, bounds.volatile), unbounded, "TB-08 VOLATILE is bounded"),
            (within(unbound, bounds.transportless, self.slept), unbounded, "INV-17 transportless time is bounded"),
        ];
        if left {
            self.entered = at;
        }
        if transition.to == State::Attached {
            self.slept = Span::ZERO;
        }
        self.bound = transition.active.is_some();
        self.unbound_since = if self.bound { None } else { self.unbound_since.or(Some(at)) };
        self.state = transition.to;
        self.version = transition.version;
        self.epoch = transition.epoch;
        rules.into_iter().filter(|(holds, ..)| !holds).map(|(_, kind, words)| (kind, words)).collect()
    }

    /// Whether the client has nothing bound.
    pub(super) const fn is_unbound(&self) -> bool {
        !self.bound
    }

    /// The client was suspended for so long: its timers did not run.
    pub(super) fn slept(&mut self, span: Span) {
        self.slept = Span::from_micros(self.slept.as_micros() + span.as_micros());
    }
}
