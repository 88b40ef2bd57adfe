//! One session at one end, put together from its records.

use serde::Serialize;

use crate::text::{Object, Value};

/// The life of a session at one end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Story {
    /// Identity of the session.
    pub session: String,
    /// Which end tells: "gateway" or "client".
    pub role: String,
    /// Which node.
    pub node: String,
    /// Version of the policy that it began with.
    pub policy: Option<String>,
    /// When it was created, in Unix milliseconds; none if earlier records are missing.
    pub born_ms: Option<u64>,
    /// Its last record.
    pub last_ms: u64,
    /// Why it ended.
    pub end: Option<String>,
    /// Every transition.
    pub changes: Vec<Change>,
    /// Every state that it was in.
    pub stays: Vec<Stay>,
    /// Every committed switch.
    pub switches: Vec<Switch>,
    /// Times without any transport.
    pub outages: Vec<Outage>,
    /// From leaving ATTACHED until it was reached again or the session ended.
    pub windows: Vec<Window>,
    /// Everything else that is worth a line: deaths, refusals, keys, policy, security, gaps.
    pub facts: Vec<Fact>,
    /// DATA packets and inner bytes of its whole life.
    pub traffic: Option<(u64, u64)>,
}

/// One transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// When.
    pub at_ms: u64,
    /// `state_version` after it.
    pub version: u64,
    /// Row of the transition table.
    pub transition: String,
    /// State before.
    pub from: String,
    /// State after.
    pub to: String,
    /// Primary reason.
    pub reason: String,
    /// Transport that is bound after it.
    pub transport: Option<u64>,
}

/// A state, from its entry on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stay {
    /// Which state.
    pub state: String,
    /// Since when.
    pub from_ms: u64,
    /// Until when; none if it lasts to the end of the trace.
    pub until_ms: Option<u64>,
    /// Why it was entered: transition and reason.
    pub why: String,
}

/// A committed switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Switch {
    /// When.
    pub at_ms: u64,
    /// Transport before; none after its death.
    pub from: Option<u64>,
    /// Transport now.
    pub to: Option<u64>,
    /// Why it was asked for.
    pub cause: String,
    /// From leaving ATTACHED to the commit, in microseconds.
    pub latency_us: u64,
    /// `binding_epoch` now.
    pub epoch: u64,
}

/// A time without any transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outage {
    /// Since when.
    pub from_ms: u64,
    /// Until when; none if it lasts to the end of the trace.
    pub until_ms: Option<u64>,
}

/// A recovery window (OB-14).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    /// When ATTACHED was left.
    pub from_ms: u64,
    /// When it was over; none if it lasts to the end of the trace.
    pub until_ms: Option<u64>,
    /// Why ATTACHED was left.
    pub cause: String,
    /// "switched", "healed", or the reason that ended the session; none while it lasts.
    pub outcome: Option<String>,
    /// Requests to be bound.
    pub attempts: u64,
    /// Of them refused.
    pub rejects: u64,
    /// From the last request to its answer, in microseconds; only the client knows.
    pub ack_us: Option<u64>,
    /// Times that a rate or a cooldown refused.
    pub rate_hits: u64,
    /// Replays that were seen meanwhile.
    pub replays: u64,
}

/// Something else that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// When.
    pub at_ms: u64,
    /// `event_type`.
    pub event: String,
    /// The reason, if it has one.
    pub reason: Option<String>,
    /// Its own fields that are not null, as `key value`.
    pub fields: Vec<String>,
}

impl Story {
    /// A session of which nothing is known yet.
    pub(super) fn new(session: &str, record: &Object<'_>) -> Self {
        let text = |key| record.text(key).unwrap_or_default().to_owned();
        Self {
            session: session.to_owned(),
            role: text("role"),
            node: text("node_id"),
            policy: record.text("policy_version").map(str::to_owned),
            ..Self::default()
        }
    }

    /// Age from its creation to its last record; none if either is not known.
    pub fn age_ms(&self) -> Option<u64> {
        self.born_ms.map(|born| self.last_ms.saturating_sub(born))
    }

    /// The state after its last record.
    pub fn state(&self) -> &str {
        self.stays.last().map_or("BIRTH", |stay| &stay.state)
    }

    /// Takes the next record of the session.
    pub(super) fn record(&mut self, event: &str, record: &Object<'_>) {
        let at_ms = record.number("ts_ms").unwrap_or(self.last_ms);
        self.last_ms = at_ms;
        match event {
            "SessionCreated" => self.created(at_ms),
            "SessionStateChange" => self.change(at_ms, record),
            "TransportSwitch" => self.switch(at_ms, record),
            "ReattachAttempt" => self.count(|window| window.attempts += 1),
            "ReattachResult" => self.answer(record),
            "SecurityReplayDetected" => {
                self.count(|window| window.replays += 1);
                self.fact(at_ms, event, record);
            }
            "TransportSwitchDenied" => {
                let limited = matches!(record.text("reason_code"), Some("SWITCH_RATE_LIMITED" | "COOLDOWN_ACTIVE"));
                self.count(|window| window.rate_hits += u64::from(limited));
                self.fact(at_ms, event, record);
            }
            "RateLimitEvent" => {
                let engaged = record.text("action") == Some("engaged");
                self.count(|window| window.rate_hits += u64::from(engaged));
                self.fact(at_ms, event, record);
            }
            "SessionTerminated" => {
                self.end = record.text("reason_code").map(str::to_owned);
                self.traffic = record.number("packets").zip(record.number("bytes"));
            }
            // Told by the transition itself, or too many to be read.
            "TransportAttached" | "TransportRetired" | "AuditCheck" | "RecoveryComplete" | "Telemetry"
            | "CandidateScores" => {}
            _ => self.fact(at_ms, event, record),
        }
    }

    fn created(&mut self, at_ms: u64) {
        self.born_ms = Some(at_ms);
        let why = "SessionCreated".to_owned();
        self.stays.push(Stay { state: "BIRTH".to_owned(), from_ms: at_ms, until_ms: None, why });
    }

    fn change(&mut self, at_ms: u64, record: &Object<'_>) {
        let text = |key| record.text(key).unwrap_or_default().to_owned();
        let change = Change {
            at_ms,
            version: record.number("state_version").unwrap_or(0),
            transition: text("transition"),
            from: text("previous_state"),
            to: text("new_state"),
            reason: text("reason_code"),
            transport: record.number("active_transport"),
        };
        if change.from != change.to {
            if let Some(stay) = self.stays.last_mut() {
                stay.until_ms = Some(at_ms);
            }
            let why = format!("{} {}", change.transition, change.reason);
            self.stays.push(Stay { state: change.to.clone(), from_ms: at_ms, until_ms: None, why });
        }
        self.window(&change);
        self.outage(&change);
        self.changes.push(change);
    }

    fn window(&mut self, change: &Change) {
        let open = self.windows.last_mut().filter(|window| window.until_ms.is_none());
        let over = matches!(change.to.as_str(), "ATTACHED" | "TERMINATED");
        match open {
            Some(window) if over => {
                window.until_ms = Some(change.at_ms);
                window.outcome = Some(match change.transition.as_str() {
                    "T11" => "switched".to_owned(),
                    "T07" => "healed".to_owned(),
                    _ => change.reason.clone(),
                });
            }
            None if change.from == "ATTACHED" && !over => self.windows.push(Window {
                from_ms: change.at_ms,
                until_ms: None,
                cause: change.reason.clone(),
                outcome: None,
                attempts: 0,
                rejects: 0,
                ack_us: None,
                rate_hits: 0,
                replays: 0,
            }),
            _ => {}
        }
    }

    fn outage(&mut self, change: &Change) {
        let open = self.outages.last_mut().filter(|outage| outage.until_ms.is_none());
        let over = change.transport.is_some() || change.to == "TERMINATED";
        match open {
            Some(outage) if over => outage.until_ms = Some(change.at_ms),
            None if !over && change.to != "BIRTH" => {
                self.outages.push(Outage { from_ms: change.at_ms, until_ms: None });
            }
            _ => {}
        }
    }

    fn switch(&mut self, at_ms: u64, record: &Object<'_>) {
        self.switches.push(Switch {
            at_ms,
            from: record.number("previous_transport"),
            to: record.number("new_transport"),
            cause: record.text("cause").unwrap_or_default().to_owned(),
            latency_us: record.number("switch_latency_us").unwrap_or(0),
            epoch: record.number("binding_epoch").unwrap_or(0),
        });
    }

    fn answer(&mut self, record: &Object<'_>) {
        let (denied, ack_us) = (record.text("status") == Some("DENIED"), record.number("control_rtt_us"));
        self.count(|window| {
            window.rejects += u64::from(denied);
            window.ack_us = ack_us.or(window.ack_us);
        });
    }

    /// Counts in the window that is open, or in the one that was closed at this very time: the records of a commit follow
    /// its transition.
    fn count(&mut self, count: impl FnOnce(&mut Window)) {
        let now = Some(self.last_ms);
        let present = self.windows.last_mut().filter(|window| window.until_ms.is_none() || window.until_ms == now);
        if let Some(window) = present {
            count(window);
        }
    }

    fn fact(&mut self, at_ms: u64, event: &str, record: &Object<'_>) {
        // What every record has comes first; the event's own fields follow.
        let own = record.iter().skip_while(|(key, _)| *key != "details").skip(1);
        let fields = own.filter(|(_, value)| !matches!(value, Value::Null | Value::Object(_) | Value::Array(_)));
        let detail = record.text("details").map(|detail| format!("details {detail}"));
        self.facts.push(Fact {
            at_ms,
            event: event.to_owned(),
            reason: record.text("reason_code").map(str::to_owned),
            fields: detail.into_iter().chain(fields.map(|(key, value)| format!("{key} {value}"))).collect(),
        });
    }
}
