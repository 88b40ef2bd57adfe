//! One session of the gateway as its transitions tell it: what each of them may do, and how long each state may last.

use std::collections::VecDeque;
use std::net::SocketAddr;

use jumpgate_protocol::ident::PublicKey;
use jumpgate_protocol::machine::{Binding, Evidence, SWITCH_WINDOW, State, Transition, TransitionId};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use jumpgate_protocol::wire::MessageType;

use super::bounds::{Bounds, within};
use super::findings::Safety;
use super::step::Work;

/// A session as its transitions have told it so far.
pub(super) struct Followed {
    pub(super) client: PublicKey,
    pub(super) worker: usize,
    pub(super) state: State,
    pub(super) version: u64,
    pub(super) epoch: u64,
    pub(super) active: Option<Binding>,
    pub(super) validated: bool,
    /// The former binding's peer, and when it is gone.
    retiring: Option<(SocketAddr, Time)>,
    attached: Time,
    entered: Time,
    keys_confirmed: Time,
    unbound_since: Option<Time>,
    commits: VecDeque<Time>,
    /// The last packet from the active tuple that was certainly accepted.
    heard: Time,
    /// The last one that may have counted, although it was refused.
    may_have_heard: Time,
    /// The newest request of its client.
    newest_request: u64,
    /// Requests whose client had nothing bound when it made them, so that they may say so (SM-16). The network and a worker
    /// that is not scheduled may bring an older one after the next is out: each counts until a commit passes it.
    hard_dead: Vec<u64>,
}

/// What a rule has to say: its name, and what it means for safety.
type Rule = (bool, Safety, &'static str);

impl Followed {
    pub(super) fn new(client: PublicKey, worker: usize, now: Time) -> Self {
        Self {
            client,
            worker,
            state: State::Birth,
            version: 0,
            epoch: 0,
            active: None,
            validated: false,
            retiring: None,
            attached: now,
            entered: now,
            keys_confirmed: now,
            unbound_since: None,
            commits: VecDeque::new(),
            heard: now,
            may_have_heard: now,
            newest_request: 0,
            hard_dead: Vec::new(),
        }
    }

    /// Takes a transition, and gives every rule that it breaks.
    pub(super) fn take(
        &mut self,
        transition: &Transition,
        work: &Work,
        (earliest, latest): (&Bounds, &Bounds),
        slack: Span,
    ) -> Vec<(Safety, &'static str)> {
        let rules: [&[Rule]; 5] = [
            &self.edge_rules(transition),
            &self.binding_rules(transition, work),
            &self.early_rules(transition, earliest),
            &self.late_rules(transition, latest, slack),
            &self.commit_rules(transition, work, earliest),
        ];
        let broken = rules.into_iter().flatten().filter(|(holds, ..)| !holds);
        let broken = broken.map(|(_, kind, words)| (*kind, *words)).collect();
        self.follow(transition, latest);
        if transition.id == TransitionId::T11
            && let Work::Datagram(packet) = work
        {
            // Nonces rise: no older one is ever accepted after it (AR-1).
            self.hard_dead.retain(|counter| *counter > packet.counter);
        }
        broken
    }

    fn edge_rules(&self, transition: &Transition) -> [Rule; 6] {
        let row = transition.id.row();
        let commit = matches!(transition.id, TransitionId::T01 | TransitionId::T11);
        [
            (self.state.is_live(), Safety::PostEndActivity, "INV-10 TERMINATED is final"),
            (transition.from == self.state, Safety::SilentReset, "INV-07 no state is left that was not entered"),
            (row.from.contains(&transition.from), Safety::Other, "INV-07 the edge is in the table"),
            (row.reasons.contains(&transition.reason), Safety::Other, "INV-07 the reason is one of its edge"),
            (
                transition.version == self.version + 1,
                Safety::VersionRegression,
                "INV-05 the version rises by one, INV-08 and each transition has its event",
            ),
            (
                transition.epoch == self.epoch + u64::from(commit),
                Safety::VersionRegression,
                "INV-06 the epoch changes by a commit only",
            ),
        ]
    }

    fn binding_rules(&self, transition: &Transition, work: &Work) -> [Rule; 4] {
        let bound = transition.active.is_some();
        let expected = match transition.to {
            State::Attached => true,
            State::Birth | State::Terminated => false,
            State::Volatile | State::Degraded | State::Recovering => {
                self.active.is_some() && transition.retired.is_none()
            }
        };
        let dead = matches!(transition.id, TransitionId::T04 | TransitionId::T16);
        let lost = transition.retired.map(|binding| binding.epoch);
        let made_by = |kind: MessageType| match work {
            Work::Datagram(packet) => {
                packet.kind == Some(kind)
                    && packet.is_fresh()
                    && transition.active.is_some_and(|binding| binding.tuple.peer == packet.from)
            }
            Work::Timer | Work::Operator => false,
        };
        let made = match transition.id {
            TransitionId::T01 => made_by(MessageType::HelloConfirm),
            TransitionId::T11 => made_by(MessageType::ReattachRequest),
            _ => transition.active.map(|binding| binding.epoch) == self.active.map(|binding| binding.epoch) || !bound,
        };
        [
            (bound == expected, Safety::DualBinding, "INV-02 the state says whether there is a binding"),
            (!dead || lost == Some(self.epoch), Safety::Other, "INV-32 only the present generation dies"),
            (made, Safety::UnboundAccepted, "INV-11, INV-26 a binding is made by a fresh request from there only"),
            (
                transition.active.is_none_or(|binding| binding.epoch == transition.epoch),
                Safety::DualBinding,
                "INV-01 the active binding is the one of the present epoch",
            ),
        ]
    }

    fn early_rules(&self, transition: &Transition, earliest: &Bounds) -> [Rule; 3] {
        let at = transition.at;
        let stay = at.since(self.entered);
        let unbound = self.unbound_since.map_or(Span::ZERO, |since| at.since(since));
        let silence = at.since(self.heard);
        let silent_enough = match (transition.id, transition.reason, transition.evidence) {
            (TransitionId::T03, Reason::HeartbeatTimeout, _) => silence > earliest.heartbeat_volatile,
            (TransitionId::T04 | TransitionId::T16, _, Some(Evidence::Silence)) => silence >= earliest.transport_dead,
            (TransitionId::T04 | TransitionId::T16, _, Some(Evidence::PathUnvalidated)) => !self.validated,
            _ => true,
        };
        let due = match transition.id {
            TransitionId::T02 => transition.detail != Some(Reason::HandshakeTimeout) || stay >= earliest.birth,
            TransitionId::T09 => stay >= earliest.volatile,
            TransitionId::T12 | TransitionId::T12b => stay >= earliest.recovering,
            TransitionId::T17 => at.since(self.attached) >= earliest.lifetime,
            TransitionId::T18 => unbound >= earliest.transportless,
            _ => true,
        };
        [
            (silent_enough, Safety::Other, "SM-13, SM-14 no path is given up that was heard"),
            (due, Safety::Other, "INV-19 no limit fires early"),
            (at >= self.entered, Safety::Other, "INV-07 time does not run backwards"),
        ]
    }

    fn late_rules(&self, transition: &Transition, latest: &Bounds, slack: Span) -> [Rule; 6] {
        let at = transition.at;
        let stay = at.since(self.entered);
        let left = transition.to != self.state;
        let unbound = self.unbound_since.map_or(Span::ZERO, |since| at.since(since));
        let recovering = !left || self.state != State::Recovering || within(stay, latest.recovering, slack);
        let volatile = !left || self.state != State::Volatile || within(stay, latest.volatile, slack);
        let noticed = self.state != State::Attached
            || !left
            || within(at.since(self.may_have_heard), latest.heartbeat_volatile, slack);
        let unbounded = Safety::UnboundedRecovery;
        [
            (recovering, unbounded, "INV-16, TB-05 RECOVERING is bounded"),
            (volatile, unbounded, "TB-08 VOLATILE is bounded"),
            (within(unbound, latest.transportless, slack), unbounded, "INV-17, TB-09 transportless time is bounded"),
            (within(at.since(self.attached), latest.lifetime, slack), unbounded, "INV-18, TB-10 life is bounded"),
            (noticed, unbounded, "TB-01 silence leads out of ATTACHED in time"),
            (self.unvalidated_in_time(at, latest, slack), unbounded, "TB-06 an unvalidated binding is bounded"),
        ]
    }

    fn commit_rules(&self, transition: &Transition, work: &Work, bounds: &Bounds) -> [Rule; 2] {
        if transition.id != TransitionId::T11 {
            return [(true, Safety::Other, ""); 2];
        }
        let at = transition.at;
        let recent = self.commits.iter().filter(|commit| at.since(**commit) < SWITCH_WINDOW).count();
        let (from, counter) = match work {
            Work::Datagram(packet) => (Some(packet.from), packet.counter),
            Work::Timer | Work::Operator => (None, 0),
        };
        let exempt = match self.active {
            None => true,
            Some(active) => !self.validated || Some(active.tuple.peer) == from || self.hard_dead.contains(&counter),
        };
        let cool = self.commits.back().is_none_or(|last| at.since(*last) >= bounds.cooldown);
        [
            (recent < bounds.switches, Safety::SwitchLimitExceeded, "INV-15 the switch rate holds"),
            (exempt || cool, Safety::SwitchLimitExceeded, "INV-15 no quality switch falls inside the cooldown"),
        ]
    }

    fn follow(&mut self, transition: &Transition, bounds: &Bounds) {
        let at = transition.at;
        if matches!(transition.id, TransitionId::T01 | TransitionId::T11) {
            let draining = self.active.filter(|_| self.validated && bounds.drain > Span::ZERO);
            self.retiring = draining.map(|binding| (binding.tuple.peer, at + bounds.drain));
            self.validated = transition.active.is_some_and(|binding| binding.validated);
            self.heard = at;
            self.may_have_heard = at;
        }
        match transition.id {
            TransitionId::T01 => {
                self.attached = at;
                self.keys_confirmed = at;
            }
            TransitionId::T11 => {
                self.commits.retain(|commit| at.since(*commit) < SWITCH_WINDOW);
                self.commits.push_back(at);
            }
            _ => {}
        }
        if transition.to != self.state {
            self.entered = at;
        }
        self.unbound_since = match (transition.active, transition.to) {
            (Some(_), _) | (_, State::Terminated) => None,
            (None, _) => self.unbound_since.or(Some(at)),
        };
        self.state = transition.to;
        self.version = transition.version;
        self.epoch = transition.epoch;
        self.active = transition.active;
    }

    /// Bounds that must hold at any time, also if no transition comes (L-2).
    pub(super) fn overdue(&self, now: Time, bounds: &Bounds, slack: Span) -> Option<&'static str> {
        let stay = now.since(self.entered);
        let unbound = self.unbound_since.map_or(Span::ZERO, |since| now.since(since));
        let rules = [
            (self.state != State::Birth || within(stay, bounds.birth, slack), "TB-10 BIRTH is bounded"),
            (self.state != State::Recovering || within(stay, bounds.recovering, slack), "INV-16 RECOVERING is bounded"),
            (self.state != State::Volatile || within(stay, bounds.volatile, slack), "TB-08 VOLATILE is bounded"),
            (within(unbound, bounds.transportless, slack), "INV-17 transportless time is bounded"),
            (within(now.since(self.attached), bounds.lifetime, slack), "INV-18 life is bounded"),
            (within(now.since(self.keys_confirmed), bounds.key_age, slack), "KY-7 the age of keys is bounded"),
            (
                self.state != State::Attached
                    || within(now.since(self.may_have_heard), bounds.heartbeat_volatile, slack),
                "TB-01 silence leads out of ATTACHED in time",
            ),
            (self.unvalidated_in_time(now, bounds, slack), "TB-06 an unvalidated binding is bounded"),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map(|(_, words)| words)
    }

    fn unvalidated_in_time(&self, now: Time, bounds: &Bounds, slack: Span) -> bool {
        self.validated
            || self.active.is_none_or(|binding| within(now.since(binding.committed_at), bounds.validation, slack))
    }

    /// Commits younger than a minute.
    pub(super) fn commits_in_window(&self) -> usize {
        self.commits.len()
    }

    /// Whether DATA may be taken from there (BD-1, INV-26).
    pub(super) fn may_receive_from(&self, peer: SocketAddr, now: Time) -> bool {
        self.active_peer() == Some(peer) || self.retiring.is_some_and(|(old, until)| old == peer && now < until)
    }

    /// The peer of the retiring binding, if nothing else is bound to it.
    pub(super) fn retiring_peer(&self, now: Time) -> Option<SocketAddr> {
        let old = self.retiring.filter(|(_, until)| now < *until).map(|(old, _)| old);
        old.filter(|old| self.active_peer() != Some(*old))
    }

    pub(super) fn active_peer(&self) -> Option<SocketAddr> {
        self.active.map(|binding| binding.tuple.peer)
    }

    /// Its gateway was away for so long.
    pub(super) fn was_away(&mut self, span: Span) {
        self.heard += span;
        self.may_have_heard += span;
    }

    /// A fresh packet came from there, and was accepted or not.
    pub(super) fn heard_from(&mut self, peer: SocketAddr, accepted: bool, now: Time) {
        if self.active_peer() == Some(peer) {
            self.may_have_heard = now;
            if accepted {
                self.heard = now;
            }
        }
    }

    pub(super) const fn mark_validated(&mut self) {
        self.validated = true;
    }

    pub(super) const fn rekeyed(&mut self, now: Time) {
        self.keys_confirmed = now;
    }

    /// Its client asks to move, with something bound at its end or not. A copy says what the first one said, whatever the
    /// client knows by then.
    pub(super) fn asked(&mut self, counter: u64, unbound: bool) {
        if counter > self.newest_request {
            self.newest_request = counter;
            self.hard_dead.extend(unbound.then_some(counter));
        }
    }

    /// Somebody who holds its keys asks to move, under any nonce, and may say that nothing is bound.
    pub(super) fn may_be_unbound(&mut self, counter: u64) {
        self.hard_dead.push(counter);
    }
}
