//! Traces for tests: written by the real writer from records as the cores make them, and edited as text.

#![allow(dead_code)] // Every test program uses another part of it.

use std::fmt::Write as _;

use jumpgate_audit::chain::{Author, ChainLines, LineHash, Notice, Role, TimeAnchor};
use jumpgate_protocol::audit::{
    Always, Bounds, Check, CheckResult, Event, Outer, OwnNode, PolicyHash, PolicyRef, Proto, Record, Standing, Status,
    Threshold, Trigger,
};
use jumpgate_protocol::ident::{SessionIdentity, TransportId};
use jumpgate_protocol::machine::{Evidence, State, TransitionId};
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use jumpgate_protocol::wire::Cause;

/// Where the test's peers are, as records show them.
pub(crate) const PEER: Outer = Outer::Hash([0xaa; 8]);
/// The wall clock at the zero of the test's clock: 2026-01-01.
pub(crate) const EPOCH_MS: u64 = 1_767_225_600_000;

/// One session as the test leads it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) id: SessionIdentity,
    pub(crate) state: State,
    pub(crate) version: u64,
    pub(crate) epoch: u64,
    pub(crate) active: Option<u16>,
    pub(crate) attached: Time,
    pub(crate) switches: u32,
}

/// A trace that is being written.
pub(crate) struct Trace {
    pub(crate) lines: ChainLines,
    pub(crate) out: Vec<u8>,
    pub(crate) now: Time,
    pub(crate) worker: Option<u16>,
    pub(crate) policy: Policy,
    /// Every record that was written.
    pub(crate) records: Vec<Record>,
    begin: usize,
}

impl Trace {
    /// A trace of a gateway, begun.
    pub(crate) fn gateway() -> Self {
        Self::of(Role::Gateway, "node-1")
    }

    /// A trace of that author, begun.
    pub(crate) fn of(role: Role, node: &str) -> Self {
        let author = Author { role, node_id: node.to_owned() };
        let lines = ChainLines::new(author, "boot-1".to_owned(), TimeAnchor::new(Time::ZERO, EPOCH_MS));
        let now = Time::from_millis(1_000);
        let policy = Policy::profile(Profile::Default);
        let mut trace = Self { lines, out: Vec::new(), now, worker: Some(0), policy, records: Vec::new(), begin: 0 };
        trace.start();
        trace
    }

    /// Another file of the same chain, by a process of that name.
    pub(crate) fn next_file(&self, boot_id: &str, truncated_bytes: u64) -> Self {
        let author = self.lines.author().clone();
        let anchor = TimeAnchor::new(Time::ZERO, EPOCH_MS);
        let fresh = ChainLines::new(author, boot_id.to_owned(), anchor);
        let last_ts_ms = EPOCH_MS + self.now.as_millis();
        let lines = fresh.resuming(self.lines.head().expect("there are lines"), last_ts_ms, self.now);
        let policy = self.policy.clone();
        let mut trace =
            Self { lines, out: Vec::new(), now: self.now, worker: self.worker, policy, records: Vec::new(), begin: 0 };
        trace.lines.start(&mut trace.out, Some(trace.now), truncated_bytes);
        trace
    }

    pub(crate) fn start(&mut self) {
        self.begin = self.out.len();
        self.lines.start(&mut self.out, Some(self.now), 0);
    }

    pub(crate) fn end(&mut self) {
        let records = self.out[self.begin..].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        self.lines.end(&mut self.out, Some(self.now), records);
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        self.now += Span::from_millis(millis);
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.out.clone()).expect("lines are text")
    }

    /// A session that was just created.
    pub(crate) fn create(&mut self, name: u8) -> Life {
        let life = Life {
            id: SessionIdentity([name; 16]),
            state: State::Birth,
            version: 0,
            epoch: 0,
            active: None,
            attached: self.now,
            switches: 0,
        };
        let event = Event::SessionCreated {
            owner: OwnNode,
            initial_transport: None,
            policy_hash: PolicyHash::of(&self.policy),
            bounds: Bounds::of(&self.policy),
        };
        self.write(&life, None, event);
        life
    }

    /// A session in ATTACHED over transport 1.
    pub(crate) fn attach(&mut self, name: u8) -> Life {
        let mut life = self.create(name);
        life.attached = self.now;
        self.go(&mut life, TransitionId::T01, Reason::HandshakeOk, Some(1));
        self.write(
            &life,
            None,
            Event::TransportAttached { new_transport: TransportId(1), proto: Proto::Udp, peer: PEER },
        );
        life
    }

    /// One transition, with the active transport after it.
    pub(crate) fn go(&mut self, life: &mut Life, id: TransitionId, reason: Reason, active: Option<u16>) {
        let previous = life.state;
        life.state = id.row().to.unwrap_or(previous);
        life.version += 1;
        life.epoch += u64::from(matches!(id, TransitionId::T01 | TransitionId::T11));
        life.active = active;
        let event = Event::SessionStateChange {
            transition: id,
            previous_state: previous,
            new_state: life.state,
            active_transport: active.map(TransportId),
            candidate_count: 1,
            trigger_event: Trigger::of(id),
        };
        self.write(life, Some(reason), event);
    }

    /// T03 by loss.
    pub(crate) fn unstable(&mut self, life: &mut Life) {
        self.go(life, TransitionId::T03, Reason::HeartbeatTimeout, life.active);
        let event = Event::VolatilitySignal {
            loss_ratio: None,
            drops: 0,
            hb_age_ms: 2_000,
            latency_ms: None,
            jitter_ms: None,
            threshold: Threshold::Millis(2_000),
            window_samples: None,
        };
        self.write(life, Some(Reason::HeartbeatTimeout), event);
    }

    /// T04 or T16.
    pub(crate) fn die(&mut self, life: &mut Life, id: TransitionId) {
        let transport = TransportId(life.active.expect("a session that loses its binding has one"));
        self.go(life, id, Reason::TransportDead, None);
        let dead = Event::TransportDead { transport, evidence: Evidence::LinkDown, last_delivery_age_ms: 10 };
        self.write(life, Some(Reason::TransportDead), dead);
        self.write(life, None, Event::TransportRetired { transport, late_packets: None });
    }

    pub(crate) fn attempt(&mut self, life: &Life, candidate: u16, attempt: u16) {
        let event = Event::ReattachAttempt {
            candidate_transport: TransportId(candidate),
            attempt,
            recovery_deadline_ms: None,
            nonce: life.version,
            in_reply_to_epoch: life.epoch,
        };
        self.write(life, None, event);
    }

    pub(crate) fn result(&mut self, life: &Life, status: Status, reason: Option<Reason>) {
        self.write(
            life,
            reason,
            Event::ReattachResult { status, attempt: 1, control_rtt_us: None, retry_after_ms: None },
        );
    }

    /// T11 onto that transport with all that stands beside it. The attempt is open already.
    pub(crate) fn commit(&mut self, life: &mut Life, to: u16, cause: Cause) {
        let before = life.active;
        life.switches += 1;
        self.go(life, TransitionId::T11, Reason::ReattachSuccess, Some(to));
        self.result(life, Status::Success, None);
        let switch = Event::TransportSwitch {
            previous_transport: before.map(TransportId),
            new_transport: TransportId(to),
            same_path: before == Some(to),
            cause,
            candidate_count: 1,
            loss_ratio: None,
            latency_ms: None,
            switch_latency_us: 1_000,
            explicit: Always,
            peer: PEER,
        };
        self.write(life, Some(Reason::ReattachSuccess), switch);
        if let Some(before) = before {
            self.write(life, None, Event::TransportRetired { transport: TransportId(before), late_packets: None });
        }
        for (check, reason) in [
            (Check::NoDualActiveBinding, Reason::AuditInvariantOkSingleActive),
            (Check::NoIdentityReset, Reason::AuditInvariantOkNoReset),
        ] {
            self.write(life, Some(reason), Event::AuditCheck { check, result: CheckResult::Pass });
        }
    }

    /// The gateway's chain of a valid request out of ATTACHED: T06, T08b, T11 in one tick (SM-08).
    pub(crate) fn peer_moves(&mut self, life: &mut Life, to: u16, cause: Cause) {
        if life.state == State::Attached {
            self.go(life, TransitionId::T06, Reason::PeerReattach, life.active);
        }
        let id = if life.state == State::Degraded { TransitionId::T15b } else { TransitionId::T08b };
        self.go(life, id, Reason::PeerReattach, life.active);
        self.attempt(life, to, 1);
        self.commit(life, to, cause);
    }

    pub(crate) fn denied(&mut self, life: &Life, reason: Reason) {
        let event = Event::TransportSwitchDenied {
            candidate_transport: Some(TransportId(2)),
            limit: None,
            observed: None,
            retry_after_ms: None,
        };
        self.write(life, Some(reason), event);
    }

    pub(crate) fn failed(&mut self, life: &Life, reason: Reason) {
        self.write(life, Some(reason), Event::TransportSwitchFailed { attempts: 1, last_error: None });
    }

    /// The end, by that transition, with the totals that are true.
    pub(crate) fn finish(&mut self, life: &mut Life, id: TransitionId, reason: Reason) {
        let recovering = life.state == State::Recovering;
        self.go(life, id, reason, None);
        if recovering {
            self.failed(life, reason);
        }
        let event = Event::SessionTerminated {
            session_age_ms: self.now.since(life.attached).as_millis() as u32,
            transportless_age_ms: None,
            total_switches: life.switches,
            packets: 7,
            bytes: 700,
            keys_erased: true,
        };
        self.write(life, Some(reason), event);
    }

    pub(crate) fn write(&mut self, life: &Life, reason: Option<Reason>, event: Event) {
        let standing = Standing { session: life.id, state: life.state, version: life.version, epoch: life.epoch };
        self.record(Some(standing), (reason, None), event);
    }

    pub(crate) fn record(
        &mut self,
        standing: Option<Standing>,
        reasons: (Option<Reason>, Option<Reason>),
        event: Event,
    ) {
        let policy = PolicyRef { version: self.policy.version, sequence: 1 };
        let record = Record::new(self.now, standing, policy, reasons, event);
        self.records.push(record);
        self.lines.record(&mut self.out, self.worker, &record);
    }

    pub(crate) fn notice(&mut self, notice: &Notice) {
        self.lines.notice(&mut self.out, self.worker, Some(self.now), notice);
    }
}

/// Numbers and chains lines anew, as somebody would who can write the file.
pub(crate) fn rechain(lines: &[String]) -> String {
    let mut out = String::new();
    let mut prev = LineHash::NONE;
    for (seq, line) in lines.iter().enumerate() {
        let rest = line.find(",\"ts_ms\"").map_or(line.as_str(), |at| &line[at..]);
        let mut line = format!("{{\"seq\":{seq},\"prev_hash\":\"{prev}\"{rest}");
        for (key, value) in [("\"previous_hash\":\"", prev.to_string()), ("\"records\":", (seq + 1).to_string())] {
            if let Some(begin) = line.find(key).map(|at| at + key.len()) {
                let end = begin + line[begin..].find(['"', '}', ',']).expect("a value ends");
                line.replace_range(begin..end, &value);
            }
        }
        prev = LineHash::of(line.as_bytes());
        let _ = writeln!(out, "{line}");
    }
    out
}

/// The lines of a trace.
pub(crate) fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// A life with everything in it that must be accepted, in a trace that is closed.
pub(crate) fn full_life() -> Trace {
    let mut trace = Trace::gateway();
    let mut life = trace.attach(1);
    // Trouble that heals by itself, without a switch.
    trace.wait(5_000);
    trace.unstable(&mut life);
    trace.wait(2_500);
    trace.go(&mut life, TransitionId::T07, Reason::HealthRecovered, Some(1));
    // A chain of three versions in one tick.
    trace.wait(1_000);
    trace.peer_moves(&mut life, 2, Cause::Quality);
    // Refused in the cooldown, without a recovery.
    trace.wait(500);
    trace.attempt(&life, 1, 1);
    trace.result(&life, Status::Denied, Some(Reason::CooldownActive));
    trace.denied(&life, Reason::CooldownActive);
    // Death, a recovery with two attempts, and a commit.
    trace.wait(10_000);
    trace.die(&mut life, TransitionId::T04);
    trace.go(&mut life, TransitionId::T08b, Reason::PeerReattach, None);
    trace.attempt(&life, 1, 1);
    trace.attempt(&life, 1, 2);
    trace.commit(&mut life, 1, Cause::HardDead);
    // A recovery that fails, death in DEGRADED, and the same path proved again.
    trace.wait(60_000);
    trace.unstable(&mut life);
    trace.wait(4_000);
    trace.go(&mut life, TransitionId::T09, Reason::VolatilePersisted, Some(1));
    trace.wait(2_000);
    trace.go(&mut life, TransitionId::T15, Reason::RecoveryRetry, Some(1));
    trace.die(&mut life, TransitionId::T16);
    trace.wait(8_000);
    trace.go(&mut life, TransitionId::T12, Reason::RecoveryBoundsExceeded, None);
    trace.failed(&life, Reason::RecoveryBoundsExceeded);
    trace.wait(3_000);
    trace.peer_moves(&mut life, 1, Cause::Reproof);
    // The switch rate.
    trace.wait(3_000);
    trace.unstable(&mut life);
    trace.wait(1_000);
    trace.go(&mut life, TransitionId::T10, Reason::SwitchRateLimited, Some(1));
    trace.denied(&life, Reason::SwitchRateLimited);
    trace.wait(4_000);
    trace.finish(&mut life, TransitionId::T19, Reason::OperatorTerminated);
    trace.end();
    trace
}
