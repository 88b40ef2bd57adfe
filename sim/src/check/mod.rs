//! Checkers that follow every transition and every packet of a run. What they find is a defect, whatever the seed.
//!
//! They know the rules by the specification and share no code with what they check, but for the table of transitions.
//! A step costs what it touches: the session of the packet or timer. [`Checker::audit`] looks at all of them.

mod bounds;
mod findings;
mod followed;
mod mirror;
mod step;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use jumpgate_protocol::gateway::SessionView;
use jumpgate_protocol::ident::{Locator, PublicKey};
use jumpgate_protocol::machine::{Transition, TransitionId};
use jumpgate_protocol::policy::Policy;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use jumpgate_protocol::wire::{Header, MessageType};

pub use findings::{Safety, SafetyCounters};
pub use step::{Incoming, Work};

use bounds::Bounds;
use findings::Findings;
use followed::Followed;
use mirror::Mirror;

/// Follows every session of the gateway, and every client's mirror, through its transitions.
pub struct Checker {
    sessions: HashMap<Locator, Followed>,
    ended: HashSet<Locator>,
    mirrors: Vec<Mirror>,
    /// Nothing may come later.
    latest: Bounds,
    /// Nothing may come earlier.
    earliest: Bounds,
    findings: Findings,
    /// The longest time that a session's timers were not run.
    slack: Span,
    /// When each worker last ran nothing: from then until then.
    idle: Vec<(Time, Time)>,
    work: Work,
    /// The last transition of the step, and whose it was.
    last: Option<(Locator, TransitionId)>,
    transitions: u64,
    commits: u64,
    ends: HashMap<Reason, u64>,
    /// Most commits that one session made within a sliding minute.
    busiest_minute: usize,
    /// Everything that happened, folded into one number: equal for equal runs.
    digest: u64,
}

impl Checker {
    /// A checker of sessions under that policy.
    pub fn new(policy: &Policy) -> Self {
        Self {
            sessions: HashMap::new(),
            ended: HashSet::new(),
            mirrors: Vec::new(),
            latest: Bounds::new(policy),
            earliest: Bounds::new(policy),
            findings: Findings::default(),
            slack: Span::ZERO,
            idle: Vec::new(),
            work: Work::Timer,
            last: None,
            transitions: 0,
            commits: 0,
            ends: HashMap::new(),
            busiest_minute: 0,
            digest: 0,
        }
    }

    /// Everything that was wrong, in words; the first ones if there was much.
    pub fn violations(&self) -> &[String] {
        &self.findings.words
    }

    /// How much was wrong, by kind.
    pub const fn safety(&self) -> &SafetyCounters {
        &self.findings.counters
    }

    /// When the first thing was wrong.
    pub const fn first_violation_at(&self) -> Option<Time> {
        self.findings.first_at
    }

    /// Transitions seen at the gateway.
    pub const fn transitions(&self) -> u64 {
        self.transitions
    }

    /// Commits of T11 seen at the gateway.
    pub const fn commits(&self) -> u64 {
        self.commits
    }

    /// Sessions of the gateway that ended for that reason.
    pub fn ended_by(&self, reason: Reason) -> u64 {
        self.ends.get(&reason).copied().unwrap_or(0)
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
    pub fn violated(&mut self, now: Time, kind: Safety, what: &str) {
        self.findings.add(now, kind, what);
    }

    /// The gateway lost its sessions; what it opens from now on is new.
    pub(crate) fn forget_gateway(&mut self) {
        self.ended.extend(self.sessions.drain().map(|(locator, _)| locator));
    }

    /// Sessions live under that policy from now on.
    pub(crate) fn under(&mut self, policy: &Policy) {
        (self.latest, self.earliest) = (Bounds::new(policy), Bounds::new(policy));
    }

    /// Another policy is in force from now on. What runs keeps its bound (RL-4), so nothing may come before the earlier
    /// of both, nor after the later.
    pub(crate) fn also_allow(&mut self, policy: &Policy) {
        let other = Bounds::new(policy);
        self.latest = self.latest.merged(&other, Span::max);
        self.earliest = self.earliest.merged(&other, Span::min);
    }

    /// A client starts anew, without what it had.
    pub(crate) fn forget_mirror(&mut self, client: usize) {
        *self.mirror(client) = Mirror::new();
    }

    /// Nobody runs the timers of some sessions for so long: they may be that late.
    pub(crate) fn unattended(&mut self, span: Span) {
        self.slack = self.slack.max(span);
    }

    /// A worker runs nothing from then until then. What adjoins the last such time makes one with it.
    pub(crate) fn idle(&mut self, worker: usize, from: Time, until: Time) {
        if self.idle.len() <= worker {
            self.idle.resize(worker + 1, (Time::ZERO, Time::ZERO));
        }
        let (since, end) = &mut self.idle[worker];
        if from > *end {
            *since = from;
        }
        *end = until.max(*end);
        let span = end.since(*since);
        self.unattended(span);
    }

    /// The gateway begins to work. Gives what it worked on before: one step may lie within another.
    pub const fn begin(&mut self, work: Work) -> Work {
        self.last = None;
        std::mem::replace(&mut self.work, work)
    }

    /// From where the datagram came that the gateway works on, and its length.
    pub(crate) const fn arriving(&self) -> Option<(SocketAddr, usize)> {
        match self.work {
            Work::Datagram(packet) => Some((packet.from, packet.bytes)),
            Work::Timer | Work::Operator => None,
        }
    }

    /// Whether the step brought a transition that was due anyway.
    pub(crate) fn moved_by_time(&self) -> bool {
        self.last.is_some_and(|(_, id)| is_by_time(id))
    }

    /// A record was made in BIRTH.
    pub fn created(&mut self, locator: Locator, client: PublicKey, worker: usize, now: Time) {
        if self.ended.contains(&locator) || self.sessions.contains_key(&locator) {
            self.findings.add(now, Safety::SilentReset, &format!("INV-03: session {locator} was there before"));
        }
        self.sessions.insert(locator, Followed::new(client, worker, now));
    }

    /// Another worker has the session now (SL-4).
    pub fn handed_over(&mut self, locator: Locator, worker: usize) {
        if let Some(session) = self.sessions.get_mut(&locator) {
            session.worker = worker;
        }
    }

    /// A session's gateway was away for so long: nothing could be heard meanwhile, and that is no silence of its path.
    pub(crate) fn was_away(&mut self, locator: Locator, span: Span) {
        if let Some(session) = self.sessions.get_mut(&locator) {
            session.was_away(span);
        }
    }

    /// A transition at the gateway.
    pub fn transition(&mut self, locator: Locator, client: PublicKey, worker: usize, transition: &Transition) {
        self.fold((0, locator, transition.id, transition.version, transition.epoch, transition.at));
        self.transitions += 1;
        self.last = Some((locator, transition.id));
        let now = transition.at;
        let Some(session) = self.sessions.get_mut(&locator) else {
            self.findings.add(now, Safety::PostEndActivity, &format!("INV-10: {locator} is not live: {transition:?}"));
            return;
        };
        for (kind, rule) in session.take(transition, &self.work, (&self.earliest, &self.latest), self.slack) {
            self.findings.add(now, kind, &format!("{rule}: session {locator}, {transition:?}"));
        }
        if (session.client, session.worker) != (client, worker) {
            let words = format!("INV-20: {locator} has another client or worker now: {transition:?}");
            self.findings.add(now, Safety::AmbiguousOwner, &words);
        }
        if transition.id == TransitionId::T11 {
            self.commits += 1;
            self.busiest_minute = self.busiest_minute.max(session.commits_in_window());
        }
        if let Work::Datagram(packet) = self.work {
            let another = packet.locator != locator && packet.kind != Some(MessageType::HelloConfirm);
            if another {
                let words = format!("INV-27: a packet of {} moved {locator}: {transition:?}", packet.locator);
                self.findings.add(now, Safety::CrossSessionEffect, &words);
            }
            if !packet.is_fresh() && !is_by_time(transition.id) {
                let kind = if packet.forged { Safety::Other } else { Safety::ReplayAccepted };
                let words = format!("INV-12, INV-31: {packet:?} made {transition:?}");
                self.findings.add(now, kind, &words);
            }
        }
        if !transition.to.is_live() {
            self.sessions.remove(&locator);
            self.ended.insert(locator);
            *self.ends.entry(transition.reason).or_default() += 1;
        }
    }

    /// The active binding is validated now (PV-3).
    pub fn validated(&mut self, locator: Locator, epoch: u64, now: Time) {
        let fresh = matches!(self.work, Work::Datagram(packet) if packet.is_fresh());
        match self.sessions.get_mut(&locator) {
            Some(session) if session.epoch == epoch && fresh => session.mark_validated(),
            _ => {
                let words = format!("PV-3: {locator} validated epoch {epoch} by {:?}", self.work);
                self.findings.add(now, Safety::UnboundAccepted, &words);
            }
        }
    }

    /// A rekey is complete.
    pub fn rekeyed(&mut self, locator: Locator, now: Time) {
        if let Some(session) = self.sessions.get_mut(&locator) {
            session.rekeyed(now);
        }
    }

    /// The gateway has done with a datagram. Gives what the step broke.
    pub fn end(&mut self, packet: &Incoming, result: Result<(), Reason>, now: Time) {
        if let Some((locator, id @ (TransitionId::T06 | TransitionId::T08b | TransitionId::T15b))) = self.last {
            self.findings.add(now, Safety::DualBinding, &format!("INV-13: {locator} stopped half way, at {id}"));
        }
        if let (Err(reason), Some((locator, id))) = (result, self.last)
            && !is_by_time(id)
            && !matches!(id, TransitionId::T10 | TransitionId::T13 | TransitionId::T14 | TransitionId::T20)
        {
            let words = format!("INV-14: {reason} for {packet:?}, and yet {locator} made {id}");
            self.findings.add(now, Safety::Other, &words);
        }
        let probe = packet.kind == Some(MessageType::PathProbe);
        if let Some((locator, id)) = self.last
            && probe
            && matches!(id, TransitionId::T01 | TransitionId::T05 | TransitionId::T07 | TransitionId::T11)
        {
            self.findings.add(now, Safety::UnboundAccepted, &format!("INV-35: a probe led {locator} to {id}"));
        }
        if packet.is_fresh()
            && let Some(session) = self.sessions.get_mut(&packet.locator)
        {
            // DATA of a binding that retires refreshes nothing, also not on the same tuple (INV-34).
            let counts = packet.kind != Some(MessageType::Data) || packet.tag == session.epoch as u8;
            session.heard_from(packet.from, result.is_ok() && counts, now);
        }
        if packet.forged && result.is_ok() {
            self.findings.add(now, Safety::UnboundAccepted, &format!("INV-31: accepted {packet:?}"));
        }
        let once = matches!(
            packet.kind,
            Some(MessageType::Data | MessageType::Heartbeat | MessageType::PathProbe | MessageType::RekeyInit)
        );
        // A copy of REKEY_INIT may have its cached answer again (RK-4).
        if packet.replay && result.is_ok() && once && packet.kind != Some(MessageType::RekeyInit) {
            self.findings.add(now, Safety::ReplayAccepted, &format!("INV-12: accepted {packet:?}"));
        }
        self.work = Work::Timer;
    }

    /// DATA came out of the tunnel at the gateway, from that tuple, by the inner address that this client has in this session;
    /// of nobody if it is another one.
    pub(crate) fn data_accepted(&mut self, locator: Locator, from: SocketAddr, whose: Option<&PublicKey>, now: Time) {
        let Some(session) = self.sessions.get(&locator) else {
            self.findings.add(now, Safety::PostEndActivity, &format!("INV-10: DATA of {locator}, which is over"));
            return;
        };
        if !session.may_receive_from(from, now) {
            self.findings.add(now, Safety::UnboundAccepted, &format!("INV-26: DATA of {locator} from {from}"));
        }
        if whose != Some(&session.client) {
            self.findings.add(now, Safety::CrossSessionEffect, &format!("INV-27: DATA of {locator} as another client"));
        }
    }

    /// The gateway sends a packet of a session.
    pub(crate) fn sent(&mut self, to: SocketAddr, header: &Header, now: Time) {
        let locator = header.locator;
        let Some(session) = self.sessions.get(&locator) else {
            if header.kind != MessageType::Terminate {
                let words = format!("INV-10: a {} of {locator}, which is over", header.kind);
                self.findings.add(now, Safety::PostEndActivity, &words);
            }
            return;
        };
        if header.kind == MessageType::Data && session.active_peer() != Some(to) {
            self.findings.add(now, Safety::DualBinding, &format!("BD-2: DATA of {locator} to {to}"));
        }
        // What came from there may be answered there; nothing else goes to a binding that retires.
        let answer = matches!(self.work, Work::Datagram(packet) if packet.from == to);
        if session.retiring_peer(now) == Some(to) && !answer {
            self.findings.add(now, Safety::DualBinding, &format!("INV-34: a {} of {locator} to {to}", header.kind));
        }
    }

    /// INV-31: whatever is not authenticated gets no longer answer than it was itself.
    pub(crate) fn answered(&mut self, request: usize, reply: usize, now: Time) {
        if reply > request {
            self.findings.add(now, Safety::Other, &format!("INV-31: {reply} bytes in answer to {request}"));
        }
    }

    /// A client sends a request to move, or a copy of one.
    pub fn asked(&mut self, client: usize, locator: Locator, counter: u64) {
        let unbound = self.mirrors.get(client).is_none_or(Mirror::is_unbound);
        if let Some(session) = self.sessions.get_mut(&locator) {
            session.asked(counter, unbound);
        }
    }

    /// A holder of the keys asks to move. Why, is sealed in the request: it may say that nothing is bound (HARD_DEAD, SM-16).
    pub fn may_be_unbound(&mut self, locator: Locator, counter: u64) {
        if let Some(session) = self.sessions.get_mut(&locator) {
            session.may_be_unbound(counter);
        }
    }

    /// A client has a session.
    pub fn connected(&mut self, client: usize, locator: Locator, local: Time, now: Time) {
        if !self.mirror(client).connected(locator, local) {
            let words = format!("INV-04: client {client} has {locator} before its former session ended");
            self.findings.add(now, Safety::SilentReset, &words);
        }
    }

    /// A transition of a client's mirror.
    pub fn mirrored(&mut self, client: usize, transition: &Transition, now: Time) {
        self.fold((1, client, transition.id, transition.version, transition.epoch, transition.at));
        let bounds = self.latest;
        for (kind, rule) in self.mirror(client).take(transition, &bounds) {
            self.findings.add(now, kind, &format!("{rule}: mirror of client {client}, {transition:?}"));
        }
    }

    /// A client was suspended for so long, by its own clock.
    pub(crate) fn slept(&mut self, client: usize, span: Span) {
        self.mirror(client).slept(span);
    }

    /// INV-28: every session that has not ended is still there, as its last transition left it, in one place, and no
    /// bound of it has passed (L-2).
    pub fn audit(&mut self, views: &[(usize, SessionView)], known_at_desk: usize, now: Time) {
        let live = self.sessions.len();
        if views.len() != live || known_at_desk != live {
            let words = format!("INV-28: {live} live, {} held by workers, {known_at_desk} at the desk", views.len());
            self.findings.add(now, Safety::SilentReset, &words);
        }
        for (worker, view) in views {
            let Some(session) = self.sessions.get(&view.locator) else {
                self.findings.add(now, Safety::SilentReset, &format!("INV-28: {} was never made", view.locator));
                continue;
            };
            if session.worker != *worker {
                let words = format!("INV-20: worker {worker} has {}, too", view.locator);
                self.findings.add(now, Safety::AmbiguousOwner, &words);
            }
            let followed = (session.state, session.version, session.epoch, session.active.map(|found| found.tuple));
            if followed != (view.state, view.version, view.epoch, view.tuple) || session.client != view.client {
                self.findings.add(now, Safety::SilentReset, &format!("INV-07: changed in silence: {view:?}"));
            }
            if let Some(rule) = session.overdue(now, &self.latest, self.slack) {
                self.findings.add(now, Safety::UnboundedRecovery, &format!("{rule}: {view:?}"));
            }
        }
    }

    fn mirror(&mut self, client: usize) -> &mut Mirror {
        if self.mirrors.len() <= client {
            self.mirrors.resize_with(client + 1, Mirror::new);
        }
        &mut self.mirrors[client]
    }

    fn fold(&mut self, what: impl Hash) {
        let mut hasher = DefaultHasher::new();
        (self.digest, what).hash(&mut hasher);
        self.digest = hasher.finish();
    }
}

/// Transitions that time alone brings: they may fall into the step of any packet, because whatever is due is judged
/// before the packet (SM-03).
const fn is_by_time(id: TransitionId) -> bool {
    use TransitionId as T;
    matches!(
        id,
        T::T02
            | T::T03
            | T::T04
            | T::T07
            | T::T08
            | T::T09
            | T::T10
            | T::T12
            | T::T12b
            | T::T15
            | T::T16
            | T::T17
            | T::T18
            | T::T22
            | T::T25
    )
}
