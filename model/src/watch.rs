//! The watch: follows the events of both ends and says which law an action broke. It keeps its own account of states,
//! bindings and times, from what the specification says, and never asks the code under test.

use std::net::SocketAddr;

use jumpgate_protocol_woven::ident::TransportId;
use jumpgate_protocol_woven::machine::{SWITCH_WINDOW, State, Transition, TransitionId};
use jumpgate_protocol_woven::policy::Policy;
use jumpgate_protocol_woven::reason::Reason;
use jumpgate_protocol_woven::time::{Span, TICK_MS, Time};
use jumpgate_protocol_woven::wire::{Header, MessageType};

use crate::law::Law;
use crate::packet::{Asked, Sealer};

/// Bytes that may go to an unvalidated binding for each that came from it (INV-33).
const AMPLIFICATION: u64 = 3;
/// Sealed packets that the watch remembers, for copies sent again.
const REMEMBERED: usize = 48;

/// A law that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Violation {
    /// Which one.
    pub law: Law,
    /// By what.
    pub what: String,
}

/// A binding as the watch has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bound {
    /// The peer's address.
    pub peer: SocketAddr,
    /// The client's number for the path.
    pub transport: TransportId,
    /// Its generation.
    pub epoch: u64,
    /// The peer has shown that it receives there.
    pub validated: bool,
    /// When it was made.
    pub since: Time,
}

/// What the gateway works on while it makes transitions.
#[derive(Clone, Copy, Debug)]
pub struct Cause {
    /// The type of the datagram.
    pub kind: MessageType,
    /// Where it came from.
    pub from: SocketAddr,
    /// Its length in bytes.
    pub bytes: usize,
    /// An end of the session made it, and it was not taken before.
    pub fresh: bool,
    /// Of a REATTACH_REQUEST.
    pub asked: Option<Asked>,
}

/// One record followed through its transitions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Followed {
    /// The state after the last transition.
    pub state: State,
    /// `state_version`.
    pub version: u64,
    /// `binding_epoch`.
    pub epoch: u64,
    /// When the state was entered.
    pub entered: Time,
    /// When T01 was.
    pub attached: Time,
    /// Since when there is no binding.
    pub unbound_since: Option<Time>,
    /// Why it ended.
    pub ended: Option<Reason>,
    /// Since when its owner is not suspended: what ran out meanwhile is noticed then.
    pub awake_since: Time,
}

/// Everything that is watched.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The gateway's record.
    pub gateway: Followed,
    /// The client's mirror.
    pub mirror: Followed,
    /// The active binding at the gateway.
    pub active: Option<Bound>,
    /// The binding before it, and when it is gone.
    pub retiring: Option<(Bound, Time)>,
    /// Commits of T11 at the gateway.
    pub commits: Vec<Time>,
    /// What was broken so far.
    pub violations: Vec<Violation>,
    /// Where HELLO_INIT came from.
    hello_from: SocketAddr,
    /// How many fresh probes came from an address: a standby is validated by the second at the earliest (SP-3).
    probes: Vec<(SocketAddr, u8)>,
    /// Bytes from and to the unvalidated binding.
    account: (u64, u64),
    /// Highest counter sealed: client control, gateway control, client DATA, gateway DATA.
    highest: [u64; 4],
    /// The newest sealed packets that may be sent again: type, counter, bytes as one number. No part of the state: it
    /// can only tell a copy from a nonce used twice, and what is sent again stands in the state of its sender.
    sealed: Vec<(MessageType, u64, u64)>,
}

impl Followed {
    fn new(now: Time) -> Self {
        Self {
            state: State::Birth,
            version: 0,
            epoch: 0,
            entered: now,
            attached: now,
            unbound_since: None,
            ended: None,
            awake_since: now,
        }
    }
}

impl Watch {
    /// Before anything happened but a HELLO_INIT from there.
    pub fn new(hello_from: SocketAddr, now: Time) -> Self {
        Self {
            gateway: Followed::new(now),
            mirror: Followed::new(now),
            active: None,
            retiring: None,
            commits: Vec::new(),
            violations: Vec::new(),
            hello_from,
            probes: Vec::new(),
            account: (0, 0),
            highest: [0; 4],
            sealed: Vec::new(),
        }
    }

    /// Whether that law was broken.
    pub fn broke(&self, law: Law) -> bool {
        self.violations.iter().any(|violation| violation.law == law)
    }

    /// Notes a violation unless `holds`.
    pub fn demand(&mut self, holds: bool, law: Law, what: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(Violation { law, what: what() });
        }
    }

    /// A transition of the client's mirror, made by a datagram that came by that path, if by one.
    pub fn mirrored(&mut self, transition: &Transition, by: Option<TransportId>, policy: &Policy) {
        if transition.id == TransitionId::T11 {
            let bound = transition.active.map(|binding| binding.transport);
            self.demand(bound == by, Law::Mirror, || format!("path {bound:?} bound by an answer on path {by:?}"));
        }
        let mut mirror = self.mirror.clone();
        let broken = mirror.follow(transition, policy);
        self.mirror = mirror;
        self.violations
            .extend(broken.into_iter().map(|(law, what)| Violation { law, what: format!("mirror: {what}") }));
        // RS-7: the epoch of the mirror is one that the gateway gave.
        let (mirror, gateway) = (self.mirror.epoch, self.gateway.epoch.max(1));
        self.demand(mirror <= gateway, Law::Mirror, || {
            format!("the mirror is at epoch {mirror}, the gateway at {gateway}")
        });
    }

    /// A transition at the gateway, made while it worked on `cause`, or by a timer.
    pub fn transition(&mut self, transition: &Transition, cause: Option<&Cause>, policy: &Policy) {
        let before = self.gateway.clone();
        let mut gateway = before.clone();
        let broken = gateway.follow(transition, policy);
        self.gateway = gateway;
        self.violations.extend(broken.into_iter().map(|(law, what)| Violation { law, what }));
        let commit = matches!(transition.id, TransitionId::T01 | TransitionId::T11);
        let step = u64::from(commit);
        self.demand(transition.epoch == before.epoch + step, Law::Epoch, || {
            format!("{}: epoch {} after {}", transition.id, transition.epoch, before.epoch)
        });
        if let Some(retired) = transition.retired {
            let current = self.active.is_some_and(|active| active.epoch == retired.epoch);
            self.demand(current, Law::Generation, || format!("{} took epoch {} out", transition.id, retired.epoch));
        }
        if commit {
            self.committed(transition, cause, policy);
        } else {
            let moved = transition.active.is_some_and(|new| self.active.is_none_or(|old| old.epoch != new.epoch));
            self.demand(!moved, Law::MadeByCommit, || format!("{} has made a binding", transition.id));
            if transition.active.is_none() {
                self.active = None;
            }
            if transition.to == State::Terminated {
                self.retiring = None;
            }
        }
    }

    /// T01 or T11 at the gateway: what made it, whether it may be, and what is bound from now on.
    fn committed(&mut self, transition: &Transition, cause: Option<&Cause>, policy: &Policy) {
        let now = transition.at;
        let Some(new) = transition.active else {
            self.demand(false, Law::Attached, || format!("{} without a binding", transition.id));
            return;
        };
        let wanted = match transition.id {
            TransitionId::T01 => MessageType::HelloConfirm,
            _ => MessageType::ReattachRequest,
        };
        let right = cause.is_some_and(|cause| cause.kind == wanted && cause.from == new.tuple.peer);
        self.demand(right, Law::MadeByCommit, || format!("{} by {cause:?}", transition.id));
        self.demand(!right || cause.is_some_and(|cause| cause.fresh), Law::Replay, || {
            format!("{} by {cause:?}", transition.id)
        });
        let old = self.active;
        if transition.id == TransitionId::T01 {
            let (from, peer) = (self.hello_from, new.tuple.peer);
            self.demand(peer == from, Law::MadeByCommit, || format!("HELLO_INIT from {from}, bound to {peer}"));
        } else {
            let probed = self.probes.iter().any(|(from, count)| *from == new.tuple.peer && *count >= 2);
            let proved = old.is_some_and(|old| old.validated && old.peer == new.tuple.peer);
            self.demand(!new.validated || probed || proved, Law::Validation, || format!("{new:?} starts validated"));
        }
        if transition.id == TransitionId::T11 {
            let asked = cause.and_then(|cause| cause.asked);
            let current = self.gateway.epoch - 1;
            self.demand(asked.is_some_and(|asked| asked.epoch == current), Law::Epoch, || {
                format!("a request that names {asked:?} moved epoch {current}")
            });
            self.judge_rate(new.tuple.peer, asked, policy, now);
            let drain = policy.switching.old_path_drain;
            self.retiring = old.filter(|old| old.validated && drain > Span::ZERO).map(|old| (old, now + drain));
        }
        self.active = Some(Bound {
            peer: new.tuple.peer,
            transport: new.transport,
            epoch: new.epoch,
            validated: new.validated,
            since: now,
        });
        self.account = (cause.map_or(0, |cause| cause.bytes as u64), 0);
    }

    /// INV-15: the sliding minute, and the cooldown for what is not exempt (SM-16).
    fn judge_rate(&mut self, peer: SocketAddr, asked: Option<Asked>, policy: &Policy, now: Time) {
        let last = self.commits.last().copied();
        let exempt = self.active.is_none_or(|old| !old.validated || old.peer == peer)
            || asked.is_some_and(|asked| asked.hard_dead);
        let since = last.map_or(policy.switching.switch_cooldown, |last| now.since(last));
        self.demand(exempt || since >= policy.switching.switch_cooldown, Law::SwitchRate, || {
            format!("a commit {since} after the last one, within the cooldown")
        });
        self.commits.retain(|at| now.since(*at) < SWITCH_WINDOW);
        self.commits.push(now);
        let count = self.commits.len();
        self.demand(count <= usize::from(policy.switching.max_switches_per_min), Law::SwitchRate, || {
            format!("{count} commits within a minute")
        });
    }

    /// The gateway says that the binding of that epoch is validated.
    pub fn validated(&mut self, epoch: u64, cause: Option<&Cause>) {
        let active = self.active.filter(|active| active.epoch == epoch);
        let shown = active.is_some_and(|active| cause.is_some_and(|cause| cause.fresh && cause.from == active.peer));
        self.demand(shown, Law::Validation, || format!("epoch {epoch} validated by {cause:?}"));
        if let Some(active) = &mut self.active {
            active.validated = true;
        }
    }

    /// A datagram that is fresh and authentic is about to reach the gateway.
    pub fn received(&mut self, from: SocketAddr, kind: MessageType, bytes: usize) {
        if kind == MessageType::PathProbe {
            match self.probes.iter_mut().find(|(known, _)| *known == from) {
                Some((_, count)) => *count = 2,
                None => self.probes.push((from, 1)),
            }
        }
        if self.active.is_some_and(|active| active.peer == from) {
            self.account.0 += bytes as u64;
        }
    }

    /// The gateway sends a datagram.
    pub fn sent(&mut self, to: SocketAddr, bytes: usize) {
        let Some(active) = self.active.filter(|active| active.peer == to && !active.validated) else {
            return;
        };
        self.account.1 += bytes as u64;
        let (received, sent) = self.account;
        self.demand(sent <= received * AMPLIFICATION, Law::Amplification, || {
            format!("{sent} bytes for {received} to {}, which is not validated", active.peer)
        });
    }

    /// INV-36: a counter seals one message; the same counter again is the same message again.
    pub fn sealed(&mut self, by: Sealer, packet: &[u8]) {
        let Ok(header) = Header::parse(packet) else {
            return;
        };
        let series = by as usize + 2 * usize::from(header.kind == MessageType::Data);
        let print = crate::world::fingerprint(packet);
        if header.counter > self.highest[series] {
            self.highest[series] = header.counter;
            let answers = self.sealed.iter().any(|(kind, ..)| *kind == MessageType::HeartbeatAck);
            if !is_ever_repeated(header.kind) || (answers && header.kind == MessageType::HeartbeatAck) {
                return;
            }
            if self.sealed.len() == REMEMBERED {
                self.sealed.remove(0);
            }
            self.sealed.push((header.kind, header.counter, print));
        } else {
            let copy = self.sealed.contains(&(header.kind, header.counter, print));
            self.demand(copy, Law::Nonces, || format!("{by:?} sealed counter {} twice: {header:?}", header.counter));
        }
    }

    /// What must hold at any instant, not only when something happens.
    pub fn at(&mut self, now: Time, policy: &Policy) {
        for (who, followed) in [("gateway", self.gateway.clone()), ("mirror", self.mirror.clone())] {
            if !followed.state.is_live() {
                continue;
            }
            for (law, what) in followed.overdue(Time::ZERO, now, policy) {
                self.violations.push(Violation { law, what: format!("{who}: {what}") });
            }
        }
        if let Some(active) = self.active.filter(|active| !active.validated) {
            let age = now.since(active.since);
            self.demand(age <= tick(policy.switching.path_validation), Law::Validation, || {
                format!("epoch {} is not validated after {age}", active.epoch)
            });
        }
    }

    /// Everything of it that belongs to the state.
    pub fn key(&self) -> impl std::hash::Hash + '_ {
        (
            (&self.gateway, &self.mirror, &self.active, &self.retiring),
            (&self.commits, &self.violations, &self.probes, &self.account, &self.highest),
        )
    }
}

impl Followed {
    /// Takes one transition, and gives the laws that it broke.
    fn follow(&mut self, transition: &Transition, policy: &Policy) -> Vec<(Law, String)> {
        use TransitionId::{T11, T12, T12b, T13, T14};
        let mut broken = Vec::new();
        let mut demand = |holds: bool, law: Law| {
            if !holds {
                broken.push((law, format!("{transition:?}")));
            }
        };
        let row = transition.id.row();
        demand(self.state.is_live(), Law::Final);
        demand(transition.version == self.version + 1, Law::Version);
        demand(transition.from == self.state && row.from.contains(&transition.from), Law::Explicit);
        demand(row.reasons.contains(&transition.reason), Law::Explicit);
        demand(transition.epoch >= self.epoch, Law::Epoch);
        let was_bound = self.unbound_since.is_none() && self.state != State::Birth;
        let bound = transition.active.is_some();
        demand(
            match transition.to {
                State::Attached => bound,
                State::Birth | State::Terminated => !bound,
                State::Volatile | State::Degraded | State::Recovering => {
                    bound == (was_bound && transition.retired.is_none())
                }
            },
            Law::Attached,
        );
        let closes = transition.from == State::Recovering && transition.to != State::Recovering;
        let closing = matches!(transition.id, T11 | T12 | T12b | T13 | T14) || transition.to == State::Terminated;
        demand(!closes || closing, Law::Attempts);
        let now = transition.at;
        if transition.to == State::Terminated {
            let reached = match transition.reason {
                Reason::TtlSessionExpired => now.since(self.attached) >= policy.session.max_lifetime,
                Reason::TtlTransportLossExpired => {
                    self.unbound_since.is_some_and(|since| now.since(since) >= policy.session.transport_lost_ttl)
                }
                Reason::HandshakeFail => self.state == State::Birth,
                Reason::RecoveryBoundsExceeded | Reason::InvariantViolation | Reason::SecurityFailure => false,
                _ => true,
            };
            demand(reached, Law::NoDeath);
            self.ended = Some(transition.reason);
        }
        for (law, what) in self.overdue(self.awake_since, now, policy) {
            broken.push((law, what));
        }
        if transition.id == TransitionId::T01 {
            self.attached = now;
        }
        if transition.to != self.state {
            self.entered = now;
        }
        self.unbound_since = match (bound, transition.to) {
            (true, _) | (_, State::Terminated) => None,
            (false, _) => self.unbound_since.or(Some(now)),
        };
        self.state = transition.to;
        self.version = transition.version;
        self.epoch = transition.epoch;
        broken
    }

    /// The temporal bounds that it is beyond, each plus one tick (§5.3), as far as they ran after `from`.
    fn overdue(&self, from: Time, now: Time, policy: &Policy) -> Vec<(Law, String)> {
        let stay = now.since(self.entered.max(from));
        let unbound = self.unbound_since.map_or(Span::ZERO, |since| now.since(since.max(from)));
        let age = if self.state == State::Birth { Span::ZERO } else { now.since(self.attached.max(from)) };
        let bounds = [
            (Law::Recovering, self.state == State::Recovering, stay, policy.switching.recovery_window),
            (Law::Volatile, self.state == State::Volatile, stay, policy.volatility.volatile_to_degraded),
            (Law::Transportless, true, unbound, policy.session.transport_lost_ttl),
            (Law::Lifetime, true, age, policy.session.max_lifetime),
        ];
        bounds
            .into_iter()
            .filter(|(_, applies, value, bound)| *applies && *value > tick(*bound))
            .map(|(law, _, value, _)| (law, format!("{} for {value}", self.state)))
            .collect()
    }
}

/// Whether the same bytes may be sent again. Of the answers to heartbeats only the first, which answers HELLO_CONFIRM.
const fn is_ever_repeated(kind: MessageType) -> bool {
    !matches!(kind, MessageType::Data | MessageType::Heartbeat | MessageType::PathProbe | MessageType::PathProbeAck)
}

fn tick(span: Span) -> Span {
    Span::from_micros(span.as_micros() + TICK_MS * 1_000)
}
