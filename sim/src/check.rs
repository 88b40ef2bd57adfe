//! Checkers that follow every transition of a run: what they find is a defect, whatever the seed.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use jumpgate_protocol::gateway::SessionView;
use jumpgate_protocol::ident::Locator;
use jumpgate_protocol::machine::{SWITCH_WINDOW, State, Transition, TransitionId};
use jumpgate_protocol::policy::Policy;
use jumpgate_protocol::time::{Span, TICK_MS, Time};

/// Follows every session of the gateway, and every client's mirror, through its transitions.
pub struct Checker {
    sessions: HashMap<Locator, Followed>,
    mirrors: HashMap<usize, Mirrored>,
    bounds: Bounds,
    violations: Vec<String>,
    transitions: u64,
    commits: u64,
    /// Most commits that one session made within a sliding minute.
    busiest_minute: usize,
    /// Everything that happened, folded into one number: equal for equal runs.
    digest: u64,
}

/// The temporal bounds of §5.3, as the policy of the run has them.
struct Bounds {
    recovering: Span,
    volatile: Span,
    transportless: Span,
    switches: usize,
}

struct Followed {
    state: State,
    version: u64,
    epoch: u64,
    bound: bool,
    entered: Time,
    unbound_since: Option<Time>,
    commits: Vec<Time>,
}

/// A client's mirror: the same function, its own ordinals.
struct Mirrored {
    state: State,
    version: u64,
}

impl Checker {
    /// A checker of sessions under that policy.
    pub fn new(policy: &Policy) -> Self {
        let tick = |span: Span| Span::from_micros(span.as_micros() + TICK_MS * 1_000);
        Self {
            sessions: HashMap::new(),
            mirrors: HashMap::new(),
            bounds: Bounds {
                recovering: tick(policy.switching.recovery_window),
                volatile: tick(policy.volatility.volatile_to_degraded),
                transportless: tick(policy.session.transport_lost_ttl),
                switches: usize::from(policy.switching.max_switches_per_min),
            },
            violations: Vec::new(),
            transitions: 0,
            commits: 0,
            busiest_minute: 0,
            digest: 0,
        }
    }

    /// Everything that was wrong, in words.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Transitions seen at the gateway.
    pub const fn transitions(&self) -> u64 {
        self.transitions
    }

    /// Commits of T11 seen at the gateway.
    pub const fn commits(&self) -> u64 {
        self.commits
    }

    /// Most commits that one session made within a sliding minute.
    pub const fn busiest_minute(&self) -> usize {
        self.busiest_minute
    }

    /// A number over all transitions of both ends, with their times: equal for equal runs.
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// Something is wrong that was found elsewhere.
    pub fn violated(&mut self, what: String) {
        self.violations.push(what);
    }

    /// Takes what an oracle found, if it found anything.
    pub fn found(&mut self, violation: Option<String>) {
        self.violations.extend(violation);
    }

    /// Another policy is in force from now on. What runs keeps its bound (RL-4), so of both the wider one is judged by.
    pub(crate) fn also_allow(&mut self, policy: &Policy) {
        let other = Self::new(policy).bounds;
        let own = &mut self.bounds;
        own.recovering = own.recovering.max(other.recovering);
        own.volatile = own.volatile.max(other.volatile);
        own.transportless = own.transportless.max(other.transportless);
        own.switches = own.switches.max(other.switches);
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

    /// INV-28: every session that has not ended is still there, as its last transition left it, and no other is.
    pub fn audit(&mut self, views: &[SessionView], known_at_desk: usize) {
        let live = self.sessions.values().filter(|session| session.state.is_live()).count();
        // A session in BIRTH has made no transition yet.
        let born = views.iter().filter(|view| view.state == State::Birth).count();
        if views.len() != live + born {
            self.violations.push(format!("INV-28: {live} sessions live and {born} born, but {} held", views.len()));
        }
        if known_at_desk != views.len() {
            self.violations.push(format!("the desk knows {known_at_desk} sessions, the workers {}", views.len()));
        }
        for view in views.iter().filter(|view| view.state != State::Birth) {
            let same = self.sessions.get(&view.locator).is_some_and(|session| {
                session.state == view.state && session.version == view.version && session.epoch == view.epoch
            });
            if !same {
                self.violations.push(format!("INV-07: session {} changed in silence: {view:?}", view.locator));
            }
        }
    }

    /// A transition of a client's mirror.
    pub fn mirrored(&mut self, client: usize, transition: &Transition) {
        self.fold((1, client, transition.id, transition.version, transition.epoch, transition.at));
        let fresh = Mirrored { state: State::Birth, version: 0 };
        let mirror = self.mirrors.entry(client).or_insert(Mirrored { ..fresh });
        if transition.id == TransitionId::T01 {
            *mirror = fresh;
        }
        let listed = transition.id.row().from.contains(&transition.from);
        if transition.from != mirror.state || transition.version != mirror.version + 1 || !listed {
            self.violations.push(format!("INV-05, INV-07: mirror of client {client}, {transition:?}"));
        }
        if transition.to == State::Attached && transition.active.is_none() {
            self.violations.push(format!("INV-02: mirror of client {client}, {transition:?}"));
        }
        mirror.state = transition.to;
        mirror.version = transition.version;
    }

    /// A transition at the gateway.
    pub fn transition(&mut self, locator: Locator, transition: &Transition) {
        self.fold((0, locator, transition.id, transition.version, transition.epoch, transition.at));
        self.transitions += 1;
        let fresh = Followed {
            state: State::Birth,
            version: 0,
            epoch: 0,
            bound: false,
            entered: transition.at,
            unbound_since: None,
            commits: Vec::new(),
        };
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
        let stay = transition.at.since(session.entered);
        match (session.state, transition.to) {
            (from, to) if from == to => {}
            (State::Recovering, _) => check(stay <= self.bounds.recovering, "INV-16 RECOVERING is bounded"),
            (State::Volatile, _) => check(stay <= self.bounds.volatile, "TB-08 VOLATILE is bounded"),
            _ => {}
        }
        let unbound = session.unbound_since.map_or(Span::ZERO, |since| transition.at.since(since));
        check(unbound <= self.bounds.transportless, "INV-17 no session is transportless for longer");
        if transition.id == TransitionId::T11 {
            self.commits += 1;
            session.commits.retain(|at| transition.at.since(*at) < SWITCH_WINDOW);
            session.commits.push(transition.at);
            check(session.commits.len() <= self.bounds.switches, "INV-15 the switch rate holds");
            self.busiest_minute = self.busiest_minute.max(session.commits.len());
        }
        if transition.to != session.state {
            session.entered = transition.at;
        }
        session.unbound_since = match (bound, transition.to) {
            (true, _) | (_, State::Terminated) => None,
            (false, _) => session.unbound_since.or(Some(transition.at)),
        };
        session.state = transition.to;
        session.version = transition.version;
        session.epoch = transition.epoch;
        session.bound = bound;
        self.violations.extend(wrong);
    }

    fn fold(&mut self, what: impl Hash) {
        let mut hasher = DefaultHasher::new();
        (self.digest, what).hash(&mut hasher);
        self.digest = hasher.finish();
    }
}
