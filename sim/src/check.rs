//! Checkers that look at every step of a run: what they find is a defect, whatever the seed.

use std::collections::HashMap;

use jumpgate_protocol::ident::Locator;
use jumpgate_protocol::machine::{SWITCH_WINDOW, State, Transition, TransitionId};
use jumpgate_protocol::time::Time;

/// Follows every session of the gateway through its transitions.
#[derive(Default)]
pub struct Checker {
    sessions: HashMap<Locator, Followed>,
    violations: Vec<String>,
    transitions: u64,
    commits: u64,
    /// Most commits that one session made within a sliding minute.
    busiest_minute: usize,
}

struct Followed {
    state: State,
    version: u64,
    epoch: u64,
    bound: bool,
    commits: Vec<Time>,
}

impl Checker {
    /// Everything that was wrong, in words.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Transitions seen.
    pub const fn transitions(&self) -> u64 {
        self.transitions
    }

    /// Commits of T11 seen.
    pub const fn commits(&self) -> u64 {
        self.commits
    }

    /// Most commits that one session made within a sliding minute.
    pub const fn busiest_minute(&self) -> usize {
        self.busiest_minute
    }

    /// The gateway lost its sessions; what it opens from now on is new.
    pub(crate) fn forget_gateway(&mut self) {
        self.sessions.clear();
    }

    /// INV-31: whatever is not authenticated gets no longer answer than it was itself.
    pub(crate) fn answered(&mut self, request: usize, reply: usize) {
        if reply > request {
            self.violations.push(format!("INV-31: {reply} bytes in answer to {request}"));
        }
    }

    pub(crate) fn transition(&mut self, locator: Locator, transition: &Transition) {
        self.transitions += 1;
        let fresh = Followed { state: State::Birth, version: 0, epoch: 0, bound: false, commits: Vec::new() };
        let session = self.sessions.entry(locator).or_insert(fresh);
        let mut wrong = Vec::new();
        let mut check = |holds: bool, invariant: &str| {
            if !holds {
                wrong.push(format!("{invariant}: session {locator}, {transition:?}"));
            }
        };
        let commit = matches!(transition.id, TransitionId::T01 | TransitionId::T11);
        check(session.state.is_live(), "INV-10 TERMINATED is final");
        check(transition.from == session.state, "INV-07 no state is left that was not entered");
        check(transition.version == session.version + 1, "INV-05 the version rises by one");
        check(transition.epoch == session.epoch + u64::from(commit), "INV-06 the epoch changes by a commit only");
        let bound = transition.active.is_some();
        let expected = match transition.to {
            State::Attached => true,
            State::Birth | State::Terminated => false,
            State::Volatile | State::Degraded | State::Recovering => session.bound && transition.retired.is_none(),
        };
        check(bound == expected, "INV-02 the state says whether there is a binding");
        let row = transition.id.row();
        check(row.from.contains(&transition.from), "INV-07 the edge is in the table");
        check(row.reasons.contains(&transition.reason), "INV-07 the reason is one of its edge");
        if transition.id == TransitionId::T11 {
            self.commits += 1;
            session.commits.retain(|at| transition.at.since(*at) < SWITCH_WINDOW);
            session.commits.push(transition.at);
            self.busiest_minute = self.busiest_minute.max(session.commits.len());
        }
        session.state = transition.to;
        session.version = transition.version;
        session.epoch = transition.epoch;
        session.bound = bound;
        self.violations.extend(wrong);
    }
}
