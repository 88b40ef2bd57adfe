//! What the slow path learns of sessions from their events, added up: births, ends, transitions, jumps, recoveries.
//!
//! Events are never lost and come in order (they wait at the worker while the queue is full), so these counters are
//! exact. One entry is kept for each session that lives.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jumpgate_metrics::Histogram;
use jumpgate_protocol::gateway::{EventKind, SessionEvent};
use jumpgate_protocol::ident::Locator;
use jumpgate_protocol::machine::{State, Transition, TransitionId};
use jumpgate_protocol::policy::Policy;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Time;
use jumpgate_protocol::wire::MessageType;

use super::conduct::{Conduct, Violation};

/// How a recovery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// By a jump.
    Switched,
    /// Without one: the path is well again.
    Healed,
    /// The session ended first.
    Ended,
}

impl Outcome {
    /// The label.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Switched => "switched",
            Self::Healed => "healed",
            Self::Ended => "ended",
        }
    }
}

/// A session that lives.
#[derive(Debug)]
struct Standing {
    worker: usize,
    state: State,
    since: Time,
    version: u64,
    /// Its first binding.
    bound_at: Option<Time>,
    /// When and why it left ATTACHED.
    trouble: Option<(Time, Reason)>,
    /// When its HELLO_INIT came, until its keys are confirmed.
    hello_at: Option<Time>,
    conduct: Conduct,
}

/// A handshake that a worker is being told of.
#[derive(Debug)]
struct Hello {
    at: Time,
    policy: Arc<Policy>,
}

/// Everything that events tell, added up since the start.
#[derive(Debug, Default)]
pub struct Tally {
    /// In boxes, since free places of a table take memory as well.
    standings: HashMap<Locator, Box<Standing>>,
    hellos: HashMap<Locator, Hello>,
    pub(super) created: u64,
    pub(super) ended: BTreeMap<Reason, u64>,
    pub(super) transitions: BTreeMap<(State, State, Reason), u64>,
    pub(super) residence: BTreeMap<State, Histogram>,
    pub(super) ages: BTreeMap<Reason, Histogram>,
    pub(super) recoveries: BTreeMap<(Reason, Outcome), Histogram>,
    pub(super) deaths: BTreeMap<&'static str, u64>,
    pub(super) switches: BTreeMap<(Reason, bool), u64>,
    pub(super) denials: BTreeMap<Reason, u64>,
    pub(super) failures: BTreeMap<Reason, u64>,
    pub(super) reattach_denied: u64,
    pub(super) oscillations: u64,
    pub(super) handshakes: Histogram,
    pub(super) confirmed: u64,
    pub(super) unconfirmed: u64,
    pub(super) rekeyed: BTreeMap<Reason, u64>,
    pub(super) rekeys_denied: u64,
    pub(super) validated: u64,
    pub(super) violations: [u64; Violation::ALL.len()],
}

impl Tally {
    /// A client was admitted; its worker hears of it next.
    pub fn hello(&mut self, now: Time, session: Locator, policy: Arc<Policy>) {
        self.hellos.insert(session, Hello { at: now, policy });
    }

    /// Looks at all sessions for what no event would tell.
    pub fn review(&mut self, now: Time) {
        let late = self.standings.values_mut().filter_map(|one| one.conduct.overstays(now).then_some(())).count();
        self.violations[Violation::UnboundedRecovery as usize] += late as u64;
    }

    /// Follows one event of a session, told by that worker, while `owner` has the session's slot.
    pub fn follow(&mut self, worker: usize, owner: usize, event: &SessionEvent) {
        if worker != owner {
            self.violated(Violation::AmbiguousOwner);
        }
        if let Some(standing) = self.standings.get_mut(&event.locator) {
            // Its slot may have moved: whoever speaks for it has it.
            standing.worker = worker;
            let violations = &mut self.violations;
            if let Some(account) = &event.account {
                standing.conduct.hear(account, |violation| violations[violation as usize] += 1);
            }
        }
        match &event.kind {
            EventKind::Created => self.birth(worker, event.locator),
            EventKind::TakenOver { state, version, since, created, .. } => {
                let bound_at = (*state != State::Birth).then_some(*created);
                let conduct = Conduct::new(None, false);
                let (state, since, version) = (*state, *since, *version);
                let standing =
                    Standing { worker, state, since, version, bound_at, trouble: None, hello_at: None, conduct };
                self.standings.insert(event.locator, Box::new(standing));
            }
            EventKind::Transition(transition) => self.transition(event.locator, transition),
            EventKind::Validated { .. } => self.validated += 1,
            EventKind::Rekeyed { trigger, .. } => *self.rekeyed.entry(*trigger).or_default() += 1,
            EventKind::Refused { message: MessageType::RekeyInit, .. } => self.rekeys_denied += 1,
            EventKind::Refused { message: MessageType::ReattachRequest, reason, .. } => {
                self.reattach_denied += 1;
                if is_denial(*reason) {
                    *self.denials.entry(*reason).or_default() += 1;
                }
            }
            EventKind::PolicyChanged { policy, in_force: true, .. } => {
                if let Some(standing) = self.standings.get_mut(&event.locator) {
                    standing.conduct.policy = Some(policy.clone());
                }
            }
            EventKind::BirthRefused { .. } => {
                self.hellos.remove(&event.locator);
                self.violated(Violation::CheckFailed);
            }
            _ => {}
        }
    }

    /// A session is another worker's now (SL-4).
    pub fn handed_over(&mut self, locator: Locator, worker: usize) {
        if let Some(standing) = self.standings.get_mut(&locator) {
            standing.worker = worker;
        }
    }

    /// Sessions of each worker and state.
    pub(super) fn sessions(&self, workers: usize) -> BTreeMap<(usize, State), u64> {
        let live = State::ALL.into_iter().filter(|state| state.is_live());
        let mut counts: BTreeMap<_, u64> =
            live.flat_map(|state| (0..workers).map(move |worker| ((worker, state), 0))).collect();
        for standing in self.standings.values() {
            *counts.entry((standing.worker, standing.state)).or_default() += 1;
        }
        counts
    }

    fn birth(&mut self, worker: usize, locator: Locator) {
        self.created += 1;
        // When it was born is not told, and nobody asks how long BIRTH lasts.
        let hello = self.hellos.remove(&locator);
        let hello_at = hello.as_ref().map(|hello| hello.at);
        let standing = Standing {
            worker,
            state: State::Birth,
            since: Time::ZERO,
            version: 0,
            bound_at: None,
            trouble: None,
            hello_at,
            conduct: Conduct::new(hello.map(|hello| hello.policy), true),
        };
        if self.standings.insert(locator, Box::new(standing)).is_some() {
            self.violated(Violation::SilentReset);
        }
    }

    fn transition(&mut self, locator: Locator, transition: &Transition) {
        let Transition { id, from, to, reason, evidence, version, at, .. } = *transition;
        *self.transitions.entry((from, to, reason)).or_default() += 1;
        if let Some(evidence) = evidence {
            *self.deaths.entry(evidence.name()).or_default() += 1;
        }
        match id {
            TransitionId::T01 => self.confirmed += 1,
            TransitionId::T21 => self.violated(Violation::AmbiguousOwner),
            TransitionId::T10 => *self.denials.entry(reason).or_default() += 1,
            TransitionId::T12 | TransitionId::T12b | TransitionId::T13 | TransitionId::T14 => {
                *self.failures.entry(reason).or_default() += 1;
            }
            _ => {}
        }
        if reason == Reason::InvariantViolation {
            self.violated(Violation::CheckFailed);
        }
        let Some(mut standing) = self.standings.remove(&locator) else {
            return self.violated(Violation::PostEndActivity);
        };
        if version != standing.version + 1 || from != standing.state {
            self.violated(Violation::VersionRegression);
        }
        standing.version = version;
        let violations = &mut self.violations;
        standing.conduct.follow(transition, |violation| violations[violation as usize] += 1);
        if matches!(id, TransitionId::T01 | TransitionId::T11) && standing.conduct.oscillates(transition) {
            self.oscillations += 1;
        }
        if from != to {
            if from != State::Birth {
                self.residence.entry(from).or_default().observe(between(standing.since, at));
            }
            (standing.state, standing.since) = (to, at);
        }
        self.follow_recovery(&mut standing, transition);
        if to.is_live() {
            if id == TransitionId::T01 {
                standing.bound_at = Some(at);
                if let Some(hello_at) = standing.hello_at.take() {
                    self.handshakes.observe(between(hello_at, at));
                }
            }
            self.standings.insert(locator, standing);
            return;
        }
        *self.ended.entry(reason).or_default() += 1;
        match standing.bound_at {
            Some(bound_at) => self.ages.entry(reason).or_default().observe(between(bound_at, at)),
            None => self.unconfirmed += 1,
        }
    }

    /// A recovery begins when ATTACHED is left and ends when it is reached again, or with the session.
    fn follow_recovery(&mut self, standing: &mut Standing, transition: &Transition) {
        let Transition { id, from, to, reason, detail, at, .. } = *transition;
        if from == State::Attached && to.is_live() && to != from {
            standing.trouble = Some((at, reason));
        }
        if matches!(to, State::Attached | State::Terminated)
            && let Some((since, cause)) = standing.trouble.take()
        {
            let outcome = match (id, to) {
                (TransitionId::T11, _) => Outcome::Switched,
                (_, State::Terminated) => Outcome::Ended,
                _ => Outcome::Healed,
            };
            self.recoveries.entry((cause, outcome)).or_default().observe(between(since, at));
            if outcome == Outcome::Switched {
                let same_path = detail == Some(Reason::SamePathReproved);
                *self.switches.entry((cause, same_path)).or_default() += 1;
            }
        }
    }

    fn violated(&mut self, violation: Violation) {
        self.violations[violation as usize] += 1;
    }
}

/// Refusals of an authentic request by a limit or by policy; others say that the request itself was wrong.
const fn is_denial(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::PolicyDenied
            | Reason::SwitchRateLimited
            | Reason::CooldownActive
            | Reason::RateLimited
            | Reason::InvalidTransportCandidate
    )
}

fn between(since: Time, at: Time) -> Duration {
    Duration::from_micros(at.since(since).as_micros())
}

#[cfg(test)]
mod tests {
    use jumpgate_protocol::gateway::Account;
    use jumpgate_protocol::ident::{PublicKey, SessionIdentity, Slot};
    use jumpgate_protocol::machine::Evidence;

    use super::*;

    fn event(session: u64, kind: EventKind) -> SessionEvent {
        let locator = Locator::new(Slot::new(1).expect("slot"), session);
        SessionEvent { locator, client: PublicKey([5; 32]), account: None, kind }
    }

    fn transition(
        id: TransitionId,
        (from, to): (State, State),
        reason: Reason,
        (version, at): (u64, u64),
    ) -> EventKind {
        EventKind::Transition(Transition {
            id,
            from,
            to,
            reason,
            detail: (id == TransitionId::T11).then_some(Reason::SamePathReproved),
            evidence: (id == TransitionId::T04).then_some(Evidence::Silence),
            version,
            epoch: 1,
            at: Time::from_millis(at),
            retired: None,
            active: None,
        })
    }

    /// A session that is confirmed, loses its transport, jumps, and ends.
    fn life() -> Vec<EventKind> {
        use State::{Attached, Birth, Recovering, Terminated, Volatile};
        use TransitionId::{T01, T04, T08b, T11, T19};
        vec![
            EventKind::Created,
            transition(T01, (Birth, Attached), Reason::HandshakeOk, (1, 1_000)),
            transition(T04, (Attached, Volatile), Reason::TransportDead, (2, 3_000)),
            transition(T08b, (Volatile, Recovering), Reason::PeerReattach, (3, 3_200)),
            transition(T11, (Recovering, Attached), Reason::ReattachSuccess, (4, 3_250)),
            transition(T19, (Attached, Terminated), Reason::OperatorTerminated, (5, 9_000)),
        ]
    }

    #[test]
    fn a_life_is_added_up_from_birth_to_end() {
        let mut tally = Tally::default();
        let mut standing = Vec::new();
        for kind in life() {
            tally.follow(1, 1, &event(7, kind));
            standing.push(tally.sessions(2).into_iter().find(|(_, count)| *count > 0).map(|((_, state), _)| state));
        }
        let states = [State::Attached, State::Volatile, State::Recovering, State::Attached].map(Some);
        assert_eq!(standing[1..5], states);
        assert_eq!(standing[5], None, "it is forgotten with its end");
        assert_eq!((tally.created, tally.confirmed, tally.unconfirmed), (1, 1, 0));
        assert_eq!(tally.ended[&Reason::OperatorTerminated], 1);
        assert_eq!(tally.transitions[&(State::Attached, State::Volatile, Reason::TransportDead)], 1);
        assert_eq!(tally.deaths["silence"], 1);
        assert_eq!(tally.switches[&(Reason::TransportDead, true)], 1);
        let recovery = &tally.recoveries[&(Reason::TransportDead, Outcome::Switched)];
        assert!((recovery.sum() - 0.25).abs() < 1e-9, "from leaving ATTACHED to the jump");
        assert!((tally.ages[&Reason::OperatorTerminated].sum() - 8.0).abs() < 1e-9);
        assert!((tally.residence[&State::Attached].sum() - 7.75).abs() < 1e-9, "twice there");
        assert_eq!(tally.violations, [0; Violation::ALL.len()]);
    }

    #[test]
    fn inv08_a_version_that_is_left_out_or_comes_again_is_a_violation() {
        for (left_out, again) in [(true, false), (false, true)] {
            let mut tally = Tally::default();
            let mut events = life();
            if left_out {
                events.remove(3);
            }
            if again {
                events.insert(3, events[2].clone());
            }
            events.into_iter().for_each(|kind| tally.follow(0, 0, &event(7, kind)));
            assert!(tally.violations[Violation::VersionRegression as usize] > 0, "{:?}", tally.violations);
        }
    }

    #[test]
    fn inv20_inv38_a_worker_that_speaks_for_another_ones_slot_is_a_violation() {
        let mut tally = Tally::default();
        tally.follow(1, 1, &event(7, EventKind::Created));
        tally.follow(0, 0, &event(7, EventKind::Validated { epoch: 1 }));
        assert_eq!(tally.violations, [0; Violation::ALL.len()], "its slot has moved");
        tally.follow(1, 0, &event(7, EventKind::Validated { epoch: 1 }));
        assert_eq!(tally.violations[Violation::AmbiguousOwner as usize], 1);
    }

    #[test]
    fn inv36_what_an_event_gives_account_of_is_judged() {
        let mut tally = Tally::default();
        let identity = SessionIdentity([1; 16]);
        for sealed in [5, 4] {
            let (received, drains) = (0, false);
            let account = Account { identity, key_epoch: 0, sealed, opened: 0, highest: 0, received, drains };
            tally.follow(0, 0, &SessionEvent { account: Some(account), ..event(7, EventKind::Created) });
            tally.follow(0, 0, &SessionEvent { account: Some(account), ..event(7, EventKind::Validated { epoch: 1 }) });
        }
        assert_eq!(tally.violations[Violation::SilentReset as usize], 1, "born twice");
        assert_eq!(tally.violations[Violation::NonceReuse as usize], 1);
    }

    #[test]
    fn inv10_whatever_follows_the_end_is_a_violation_and_makes_no_session() {
        let mut tally = Tally::default();
        life().into_iter().for_each(|kind| tally.follow(0, 0, &event(7, kind)));
        let (from, to) = (State::Terminated, State::Attached);
        tally.follow(0, 0, &event(7, transition(TransitionId::T11, (from, to), Reason::ReattachSuccess, (6, 9_500))));
        assert_eq!(tally.violations[Violation::PostEndActivity as usize], 1);
        assert!(tally.sessions(1).values().all(|count| *count == 0));
    }

    #[test]
    fn refusals_by_a_limit_are_denials_and_others_are_not() {
        let mut tally = Tally::default();
        let tuple =
            "192.0.2.1:1".parse().map(|peer| jumpgate_protocol::ident::Tuple { local: peer, peer }).expect("tuple");
        for reason in [Reason::CooldownActive, Reason::StaleStateVersion] {
            tally.follow(0, 0, &event(7, EventKind::Refused { message: MessageType::ReattachRequest, reason, tuple }));
        }
        assert_eq!(tally.reattach_denied, 2);
        assert_eq!(tally.denials.into_iter().collect::<Vec<_>>(), [(Reason::CooldownActive, 1)]);
    }

    #[test]
    fn a_handshake_that_nobody_confirmed_ends_without_an_age() {
        let mut tally = Tally::default();
        let (from, to) = (State::Birth, State::Terminated);
        tally.follow(0, 0, &event(7, EventKind::Created));
        assert_eq!(tally.sessions(1)[&(0, State::Birth)], 1);
        tally.follow(0, 0, &event(7, transition(TransitionId::T02, (from, to), Reason::HandshakeFail, (1, 5_000))));
        assert_eq!((tally.confirmed, tally.unconfirmed), (0, 1));
        assert!(tally.ages.is_empty() && tally.sessions(1).values().all(|count| *count == 0));
    }
}
