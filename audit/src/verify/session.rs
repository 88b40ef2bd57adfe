//! One session, followed record by record.

use std::collections::VecDeque;

use jumpgate_protocol::audit::Class;
use jumpgate_protocol::ident::SessionIdentity;
use jumpgate_protocol::machine::{Input, RowSide, State, TABLE, TransitionId};
use jumpgate_protocol::reason::Reason;

use super::Code;
use super::group::Group;
use super::limits::{Limits, SWITCH_WINDOW_MS, Timer};
use super::schema::{Complaint, Seen, SessionFields, state};
use crate::chain::Role;
use crate::text::Value;

/// How far two measurements of one age may lie apart: each is cut to milliseconds, and one is taken a tick later.
const AGE_TOLERANCE_MS: u64 = 2;

/// What a trace says of the active binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Active {
    /// That transport, or none.
    Known(Option<u64>),
    /// Records are missing.
    Unknown,
}

/// Whether somebody asked to move the session and got no answer yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// Nobody did.
    None,
    /// Somebody did.
    Open,
    /// Records are missing.
    Unknown,
}

/// One session as its records left it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionIdentity,
    pub(super) role: Role,
    pub(super) state: State,
    version: u64,
    epoch: u64,
    active: Active,
    limits: Option<Limits>,
    /// Which of its policies the last record was written under.
    policy: Option<u64>,
    /// Since its birth no record is missing.
    whole: bool,
    attached_ms: Option<u64>,
    lifetime: Option<Timer>,
    /// How long it may stay in its state.
    stay: Option<Timer>,
    transportless: Option<Timer>,
    cooldown: Option<Timer>,
    /// Calm that must pass before T07; only after T03, since nothing else makes a binding doubtful that is still there.
    calm: Option<Timer>,
    /// Times of the commits in the sliding minute.
    commits: VecDeque<u64>,
    last_commit_ms: Option<u64>,
    switches: u64,
    attempt: Attempt,
    group: Group,
    owner: String,
    /// The worker of the owner, if it is known.
    worker: Option<u64>,
    fencing_epoch: u64,
    /// A bound of time was passed and said so.
    overdue: bool,
    /// A sample or a refusal stands at that later version: a gap is to be declared before the session's next record.
    pub(super) ahead: Option<u64>,
    /// Gaps of rings before its last record.
    pub(super) gaps_before: u64,
}

/// What is to become of the session after a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes on.
    Lives,
    /// It has ended.
    Ends,
}

/// What the judgement of times allows beyond a bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slack {
    /// One tick, and what the user adds.
    pub(super) ms: u64,
}

impl Session {
    /// A session whose first record this is. `whole` if it is its SessionCreated.
    pub(super) fn adopt(seen: &Seen<'_>, fields: SessionFields, whole: bool) -> Self {
        let before = before(seen, fields);
        let limits = match seen.object.get("bounds") {
            Some(Value::Object(bounds)) => Limits::read(bounds),
            _ => None,
        };
        let mut session = Self {
            id: fields.id,
            role: seen.role,
            state: before.state,
            version: before.version,
            epoch: before.epoch,
            active: if whole { Active::Known(None) } else { Active::Unknown },
            limits,
            policy: None,
            whole,
            attached_ms: None,
            lifetime: None,
            stay: None,
            transportless: None,
            cooldown: None,
            calm: None,
            commits: VecDeque::new(),
            last_commit_ms: None,
            switches: 0,
            attempt: if whole { Attempt::None } else { Attempt::Unknown },
            group: Group::default(),
            owner: seen.object.text("owner").unwrap_or(seen.node_id).to_owned(),
            worker: seen.worker.filter(|_| whole),
            fencing_epoch: 0,
            overdue: false,
            ahead: None,
            gaps_before: 0,
        };
        session.lifetime = session.timer(seen.ts_ms, |limits| limits.handshake_timeout_ms);
        session
    }

    /// Records of it may be missing before this one: what they said is not known, and nobody is to blame.
    pub(super) fn skip_before(&mut self, seen: &Seen<'_>, fields: SessionFields) {
        self.skip_to(before(seen, fields));
    }

    /// Records of it are missing from here on to `fields`.
    pub(super) fn skip_to(&mut self, fields: SessionFields) {
        if self.state == State::Birth || fields.state == State::Terminated {
            // When it was attached is not known; what has ended has no time to keep.
            self.lifetime = None;
        }
        self.state = fields.state;
        self.version = fields.version;
        self.epoch = fields.epoch;
        self.active = Active::Unknown;
        self.whole = false;
        self.group = Group::default();
        self.attempt = Attempt::Unknown;
        self.ahead = None;
        (self.stay, self.transportless, self.calm, self.cooldown) = (None, None, None, None);
        // It may have gone to another meanwhile.
        self.worker = None;
    }

    /// Whether the transition of its version is among the missing records: what stands beside it may have survived alone.
    const fn is_cut(&self) -> bool {
        !self.whole && self.group.transition.is_none()
    }

    /// The version that it is at.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// Judges the next record.
    pub(super) fn record(
        &mut self,
        seen: &Seen<'_>,
        fields: SessionFields,
        slack: Slack,
        complaints: &mut Vec<Complaint>,
    ) -> Fate {
        if seen.row.class == Class::Audit {
            self.caught_up(complaints);
            let policy = seen.object.number("policy_sequence");
            if policy != self.policy && !self.whole && seen.row.name != "PolicyEvent" {
                // Its bounds may be among the missing records.
                self.limits = None;
            }
            self.policy = policy;
        }
        self.owned(seen, complaints);
        if seen.is_change() {
            self.transition(seen, fields, slack, complaints);
            return Fate::Lives;
        }
        self.standing(seen, fields, complaints);
        if self.ahead.is_none() {
            self.in_time(seen.ts_ms, slack, complaints);
        }
        self.companion(seen, complaints)
    }

    /// The trace is over, or goes on without it: what its last version still owed.
    pub(super) fn close(&mut self, complaints: &mut Vec<Complaint>) {
        self.caught_up(complaints);
        self.group.close(complaints);
        if self.group.terminal {
            complaints.push(Complaint::new(Code::End, "SessionTerminated after the entry to TERMINATED", "none"));
        }
        self.group = Group::default();
    }

    /// Times at the end of an orderly trace: a session that is overdue was lost in silence.
    pub(super) fn in_time(&mut self, now_ms: u64, slack: Slack, complaints: &mut Vec<Complaint>) {
        // A client's machine may sleep, and its clock counts that: no bound of time can be held there.
        if self.overdue || self.role == Role::Client {
            return;
        }
        let timers =
            [(self.lifetime, "the session"), (self.stay, self.state.name()), (self.transportless, "no binding")];
        for (timer, what) in timers {
            if let Some((timer, age)) = timer.and_then(|timer| Some((timer, timer.overrun(now_ms, slack.ms)?))) {
                self.overdue = true;
                let expected = format!("{what}: at most {} ms and a tick", timer.bound_ms);
                complaints.push(Complaint::new(Code::Time, expected, format!("{age} ms")));
            }
        }
    }

    /// Its gateway was away and is back: what fell due meanwhile is due now.
    pub(super) fn thawed(&mut self, now_ms: u64) {
        let timers = [&mut self.lifetime, &mut self.stay, &mut self.transportless];
        timers.into_iter().flatten().for_each(|timer| timer.stretch(now_ms));
        // The next run has other workers, and counts the moves between them anew.
        (self.worker, self.fencing_epoch) = (None, 0);
    }

    /// No gap explains why something stood at a later version (V-VERSION).
    fn caught_up(&mut self, complaints: &mut Vec<Complaint>) {
        if let Some(ahead) = self.ahead.take() {
            let expected = "a gap before something stands at a version that no transition made".to_owned();
            complaints.push(Complaint::new(Code::Version, expected, format!("none before version {ahead}")));
        }
    }

    fn transition(&mut self, seen: &Seen<'_>, fields: SessionFields, slack: Slack, complaints: &mut Vec<Complaint>) {
        self.close(complaints);
        self.in_time(seen.ts_ms, slack, complaints);
        let text = |key| seen.object.text(key).unwrap_or_default();
        let (Some(from), Some(to)) = (state(text("previous_state")), state(text("new_state"))) else { return };
        let Some(row) = TABLE.iter().find(|row| row.id.name() == text("transition")) else { return };
        let mut wrong = |code, expected: String, found: String| {
            complaints.push(Complaint::new(code, expected, found));
        };
        if self.version.checked_add(1) != Some(fields.version) {
            wrong(Code::Version, format!("version {}", self.version.saturating_add(1)), fields.version.to_string());
        }
        if from != self.state {
            wrong(Code::State, format!("previous_state {}", self.state), from.to_string());
        }
        if fields.state != to {
            wrong(Code::State, format!("state {to}, the new one"), fields.state.to_string());
        }
        if !row.from.contains(&from) || row.to.unwrap_or(from) != to {
            wrong(Code::Edge, format!("an edge of {}", row.id), format!("{from} to {to}"));
        }
        if row.side == RowSide::Gateway && self.role == Role::Client {
            wrong(Code::Edge, "a transition of a client".to_owned(), row.id.to_string());
        }
        if text("trigger_event") != Input::name_of(row.input_priority) {
            wrong(Code::Edge, Input::name_of(row.input_priority).to_owned(), text("trigger_event").to_owned());
        }
        if let Some(reason) = seen.reason
            && !row.reasons.contains(&reason)
        {
            let allowed: Vec<_> = row.reasons.iter().map(|reason| reason.name()).collect();
            wrong(Code::Reason, format!("{} for {}", allowed.join(" or "), row.id), reason.to_string());
        }
        let active = seen.object.number("active_transport");
        self.binding(row.id, to, active, fields.epoch, complaints);
        self.times(row.id, from, to, seen.ts_ms, complaints);
        let before = match self.active {
            Active::Known(before) => before,
            Active::Unknown => None,
        };
        self.group = Group::open(row.id, from, to, before);
        // The transition itself closes what was tried in RECOVERING; a commit needs it once more.
        if self.group.closing_due && row.id != TransitionId::T11 {
            self.attempt = Attempt::None;
        }
        self.state = to;
        self.version = fields.version;
        self.epoch = fields.epoch;
        self.active = Active::Known(active);
    }

    /// Bindings and epochs over a transition (V-BIND).
    fn binding(
        &mut self,
        id: TransitionId,
        to: State,
        active: Option<u64>,
        epoch: u64,
        complaints: &mut Vec<Complaint>,
    ) {
        let show = |active: Option<u64>| active.map_or_else(|| "none".to_owned(), |path| format!("transport {path}"));
        let mut wrong = |expected: String, found: String| complaints.push(Complaint::new(Code::Bind, expected, found));
        let commits = matches!(id, TransitionId::T01 | TransitionId::T11);
        let loses = matches!(id, TransitionId::T04 | TransitionId::T16) || to == State::Terminated;
        match (commits, loses, self.active) {
            (true, _, _) if active.is_none() => wrong(format!("a binding after {id}"), show(active)),
            (_, true, _) if active.is_some() => wrong(format!("no binding after {id}"), show(active)),
            (false, false, Active::Known(before)) if before != active => {
                wrong(format!("{} as before {id}", show(before)), show(active));
            }
            _ if to == State::Attached && active.is_none() => wrong("a binding in ATTACHED".to_owned(), show(active)),
            _ => {}
        }
        // The mirror takes the epoch that the gateway granted, and may have missed some.
        let rises = match self.role {
            Role::Gateway => self.epoch.checked_add(1) == Some(epoch),
            Role::Client => epoch >= self.epoch,
        };
        if commits && !rises {
            wrong(format!("epoch {} after {id}", self.epoch.saturating_add(1)), epoch.to_string());
        } else if !commits && epoch != self.epoch {
            wrong(format!("epoch {} as before {id}", self.epoch), epoch.to_string());
        }
    }

    /// Timers that a transition ends and begins (V-TIME, V-RATE).
    fn times(&mut self, id: TransitionId, from: State, to: State, now_ms: u64, complaints: &mut Vec<Complaint>) {
        if id == TransitionId::T07 && self.calm.is_some_and(|calm| calm.is_running(now_ms)) {
            let calm = self.calm.map_or(0, |calm| now_ms.saturating_sub(calm.since_ms));
            let bound = self.calm.map_or(0, |calm| calm.bound_ms);
            complaints.push(Complaint::new(Code::Time, format!("{bound} ms of calm before T07"), format!("{calm} ms")));
        }
        match id {
            TransitionId::T01 => {
                self.attached_ms = Some(now_ms);
                self.lifetime = self.timer(now_ms, |limits| limits.max_lifetime_ms);
            }
            TransitionId::T04 | TransitionId::T16 => {
                self.transportless = self.timer(now_ms, |limits| limits.transport_lost_ttl_ms);
            }
            TransitionId::T11 => self.commit(now_ms, complaints),
            _ => {}
        }
        if from != to {
            self.calm =
                if id == TransitionId::T03 { self.timer(now_ms, |limits| limits.stability_window_ms) } else { None };
            self.stay = match to {
                State::Volatile => self.timer(now_ms, |limits| limits.volatile_to_degraded_ms),
                State::Degraded => self.timer(now_ms, |limits| limits.max_degraded_ms),
                State::Recovering => self.timer(now_ms, |limits| limits.recovery_window_ms),
                State::Birth | State::Attached | State::Terminated => None,
            }
            .filter(|timer| timer.bound_ms > 0);
        }
        if to == State::Terminated {
            (self.lifetime, self.transportless) = (None, None);
        }
    }

    fn commit(&mut self, now_ms: u64, complaints: &mut Vec<Complaint>) {
        self.transportless = None;
        self.switches += 1;
        self.commits.retain(|at| now_ms.saturating_sub(*at) < SWITCH_WINDOW_MS);
        self.commits.push_back(now_ms);
        if let Some(limits) = self.limits
            && self.commits.len() as u64 > limits.max_switches_per_min
        {
            let expected = format!("at most {} commits in 60 s", limits.max_switches_per_min);
            complaints.push(Complaint::new(Code::Rate, expected, self.commits.len().to_string()));
        }
    }

    /// A record beside a transition: it stands where its session stands.
    fn standing(&mut self, seen: &Seen<'_>, fields: SessionFields, complaints: &mut Vec<Complaint>) {
        let mut wrong = |code, expected: String, found: String| {
            complaints.push(Complaint::new(code, expected, found));
        };
        // Samples and refusals may come late; they come early only where all records before them are lost.
        if seen.row.class != Class::Audit && fields.version != self.version {
            self.ahead = Some(fields.version).filter(|version| *version > self.version).or(self.ahead);
            return;
        }
        if fields.version != self.version {
            wrong(Code::Version, format!("version {}", self.version), fields.version.to_string());
        } else if fields.state != self.state {
            wrong(Code::State, format!("state {}", self.state), fields.state.to_string());
        }
        if fields.epoch != self.epoch && !seen.row.name.starts_with("SessionOwner") {
            wrong(Code::Bind, format!("epoch {}", self.epoch), fields.epoch.to_string());
        }
        self.epoch = self.epoch.max(fields.epoch);
    }

    fn companion(&mut self, seen: &Seen<'_>, complaints: &mut Vec<Complaint>) -> Fate {
        let number = |key| seen.object.number(key);
        let mut wrong = |code, expected: &str, found: String| complaints.push(Complaint::new(code, expected, found));
        match seen.row.name {
            "SessionCreated" => wrong(Code::Birth, "one SessionCreated", "a second one".to_owned()),
            "TransportAttached" => {
                if self.is_cut() && !self.group.attached {
                    self.active = Active::Known(number("new_transport"));
                } else if self.group.transition != Some(TransitionId::T01) || self.group.attached {
                    wrong(Code::Bind, "a first binding with T01 only", "another one".to_owned());
                } else if Active::Known(number("new_transport")) != self.active {
                    wrong(Code::Bind, "the transport of T01", format!("{:?}", number("new_transport")));
                }
                self.group.attached = true;
            }
            "TransportDead" => self.group.dead = true,
            "ReattachAttempt" => self.attempt = Attempt::Open,
            "ReattachResult" => self.result(seen, complaints),
            "TransportSwitch" => self.switch(seen, complaints),
            "TransportSwitchFailed" => {
                let closes = self.group.closing_due && !self.group.closes_otherwise();
                let refused = self.attempt != Attempt::None && self.state != State::Recovering;
                if closes {
                    self.group.closing_due = false;
                } else if refused {
                    self.attempt = Attempt::None;
                } else {
                    wrong(Code::Attempt, "one closing of each attempt", "another TransportSwitchFailed".to_owned());
                }
            }
            "TransportSwitchDenied" => {
                self.group.denied = true;
                if self.state != State::Recovering {
                    self.attempt = Attempt::None;
                }
                if self.group.transition == Some(TransitionId::T13) {
                    self.group.closing_due = false;
                }
            }
            "AuditCheck" => {
                if seen.object.text("result") != Some("PASS") {
                    wrong(Code::Check, "PASS", seen.object.text("result").unwrap_or_default().to_owned());
                }
                match seen.object.text("check") {
                    Some("NO_DUAL_ACTIVE_BINDING") => self.group.single_active = true,
                    _ => self.group.no_reset = true,
                }
            }
            "PolicyEvent" => {
                if let Some(Value::Object(bounds)) = seen.object.get("bounds") {
                    self.limits = Limits::read(bounds).or(self.limits);
                }
            }
            "SessionTerminated" => {
                self.terminated(seen, complaints);
                return Fate::Ends;
            }
            _ => {}
        }
        let claims_handshake = [seen.reason, seen.detail].contains(&Some(Reason::HandshakeOk));
        if claims_handshake && self.version > 1 {
            complaints.push(Complaint::new(Code::Marker, "no handshake in a live session", "HANDSHAKE_OK"));
        }
        Fate::Lives
    }

    fn result(&mut self, seen: &Seen<'_>, complaints: &mut Vec<Complaint>) {
        let nothing_to_do = matches!(seen.detail, Some(Reason::AlreadyBound | Reason::RetransmitAnswered));
        if seen.object.text("status") == Some("DENIED") {
            if seen.reason.is_none() {
                complaints.push(Complaint::new(Code::Attempt, "a reason of the denial", "none"));
            }
        } else if self.group.transition == Some(TransitionId::T11) && self.group.switches == 0 {
            self.group.succeeded = true;
        } else if !nothing_to_do && !self.is_cut() {
            complaints.push(Complaint::new(Code::Attempt, "a TransportSwitch with SUCCESS", "no commit"));
        }
    }

    /// A committed switch (V-BIND, V-ATTEMPT, V-RATE).
    fn switch(&mut self, seen: &Seen<'_>, complaints: &mut Vec<Complaint>) {
        let mut wrong = |code, expected: String, found: String| complaints.push(Complaint::new(code, expected, found));
        let show = |path: Option<u64>| path.map_or_else(|| "null".to_owned(), |path| path.to_string());
        let (previous, new) = (seen.object.number("previous_transport"), seen.object.number("new_transport"));
        self.group.switches = self.group.switches.saturating_add(1);
        self.group.closing_due = false;
        if self.group.transition.is_some_and(|id| id != TransitionId::T11) {
            wrong(Code::Bind, "T11 for a switch".to_owned(), "another transition".to_owned());
        } else if self.group.switches > 1 {
            wrong(Code::Attempt, "one closing of one recovery".to_owned(), "another TransportSwitch".to_owned());
        }
        if self.whole && self.group.transition.is_some() && self.group.active_before != previous {
            wrong(Code::Bind, format!("previous_transport {}", show(self.group.active_before)), show(previous));
        }
        if self.active != Active::Known(new) && self.active != Active::Unknown {
            wrong(Code::Bind, "new_transport as in the transition".to_owned(), show(new));
        }
        if self.attempt == Attempt::None && self.whole {
            wrong(Code::Attempt, "a ReattachAttempt before the switch".to_owned(), "none".to_owned());
        }
        self.attempt = Attempt::None;
        let exempt = previous.is_none()
            || seen.object.text("cause") == Some("HARD_DEAD")
            || seen.object.get("same_path") == Some(&Value::Bool(true));
        // A binding that was not validated yet may be replaced at once (SM-16); the trace does not say whether it was. Once
        // the time for it is over, it was, or it is dead.
        let validated = self.last_commit_ms.zip(self.limits).is_none_or(|(since_ms, limits)| {
            Timer { since_ms, bound_ms: limits.path_validation_ms }.is_over(seen.ts_ms)
        });
        if let Some(cooldown) = self.cooldown.filter(|timer| !exempt && validated && timer.is_running(seen.ts_ms)) {
            let age = seen.ts_ms.saturating_sub(cooldown.since_ms);
            wrong(Code::Rate, format!("no switch within {} ms of the last", cooldown.bound_ms), format!("{age} ms"));
        }
        self.cooldown = self.timer(seen.ts_ms, |limits| limits.switch_cooldown_ms);
        self.last_commit_ms = Some(seen.ts_ms);
    }

    /// The last record: everything adds up (V-END).
    fn terminated(&mut self, seen: &Seen<'_>, complaints: &mut Vec<Complaint>) {
        self.group.close(complaints);
        let mut wrong = |code, expected: String, found: String| complaints.push(Complaint::new(code, expected, found));
        if self.state != State::Terminated {
            wrong(Code::End, "TERMINATED before SessionTerminated".to_owned(), self.state.to_string());
        }
        if self.attempt == Attempt::Open {
            wrong(Code::Attempt, "every attempt closed".to_owned(), "one is open at the end".to_owned());
        }
        if seen.object.get("keys_erased") != Some(&Value::Bool(true)) {
            wrong(Code::End, "keys_erased true".to_owned(), "false".to_owned());
        }
        if !self.whole {
            return;
        }
        let switches = seen.object.number("total_switches").unwrap_or(0);
        if switches != self.switches {
            wrong(Code::End, format!("total_switches {}", self.switches), switches.to_string());
        }
        if let Some(attached_ms) = self.attached_ms {
            let age = seen.ts_ms.saturating_sub(attached_ms);
            let told = seen.object.number("session_age_ms").unwrap_or(0);
            if told.abs_diff(age) > AGE_TOLERANCE_MS {
                wrong(Code::End, format!("session_age_ms {age}"), told.to_string());
            }
        }
    }

    /// Owners (V-OWNER): one at a time, with a fencing epoch that only rises; and one worker of it at a time.
    fn owned(&mut self, seen: &Seen<'_>, complaints: &mut Vec<Complaint>) {
        let mut wrong = |expected: String, found: String| complaints.push(Complaint::new(Code::Owner, expected, found));
        // The control thread is no worker. Records of other classes come in another order.
        if let Some(writer) = seen.worker.filter(|_| seen.row.class == Class::Audit) {
            let before = match seen.row.name {
                "SessionOwnerTransferred" => seen.object.number("previous_worker"),
                _ => Some(writer),
            };
            if let (Some(worker), Some(before)) = (self.worker, before)
                && worker != before
            {
                wrong(format!("worker {worker} has the session"), format!("worker {before}"));
            }
            self.worker = Some(writer);
        }
        if matches!(seen.row.name, "SessionOwnerAcquired" | "SessionOwnerTransferred") {
            let epoch = seen.object.number("fencing_epoch").unwrap_or(0);
            if epoch <= self.fencing_epoch {
                wrong(format!("a fencing epoch above {}", self.fencing_epoch), epoch.to_string());
            }
            self.fencing_epoch = epoch;
            self.owner = seen.object.text("owner_node_id").unwrap_or_default().to_owned();
        } else if seen.node_id != self.owner {
            wrong(format!("records of the owner {}", self.owner), format!("one of {}", seen.node_id));
        }
    }

    fn timer(&self, since_ms: u64, bound: impl Fn(&Limits) -> u64) -> Option<Timer> {
        self.limits.as_ref().map(|limits| Timer { since_ms, bound_ms: bound(limits) })
    }
}

/// Where a session stood before a record, as far as the record says.
fn before(seen: &Seen<'_>, after: SessionFields) -> SessionFields {
    if !seen.is_change() {
        return after;
    }
    let text = |key| seen.object.text(key).unwrap_or_default();
    let commits = [TransitionId::T01, TransitionId::T11].iter().any(|id| id.name() == text("transition"));
    SessionFields {
        state: state(text("previous_state")).unwrap_or(after.state),
        version: after.version.saturating_sub(1),
        epoch: after.epoch.saturating_sub(u64::from(commits)),
        ..after
    }
}
