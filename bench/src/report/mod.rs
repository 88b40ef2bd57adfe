//! The report of a run under load: one JSON that says everything, and one page that shows it.

pub mod compare;
pub mod page;
mod plot;
mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::load::book::{Distribution, Moment};
use crate::load::scenario::throughput::Row;

/// Version of the JSON; a changed meaning gets a new one.
pub const SCHEMA_VERSION: u32 = 2;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Every safety counter is zero, the audit log is valid, every goal is met.
    Pass,
    /// Every safety counter is zero, but a goal is missed or the trace is incomplete.
    Conditional,
    /// A safety counter moved or the audit log is not valid: the figures must not be quoted.
    Fail,
}

/// A goal and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    /// What is to be reached, in words.
    pub name: String,
    /// What was measured.
    pub measured: f64,
    /// The bound.
    pub bound: f64,
    /// Unit of both.
    pub unit: String,
    /// Whether the bound is a floor; else it is a ceiling.
    pub at_least: bool,
}

impl Goal {
    /// At least that much is wanted.
    pub fn at_least(name: &str, measured: f64, bound: f64, unit: &str) -> Self {
        Self { name: name.to_owned(), measured, bound, unit: unit.to_owned(), at_least: true }
    }

    /// At most that much is allowed.
    pub fn at_most(name: &str, measured: f64, bound: f64, unit: &str) -> Self {
        Self { name: name.to_owned(), measured, bound, unit: unit.to_owned(), at_least: false }
    }

    /// Whether it was reached. What could not be measured was not.
    pub fn is_met(&self) -> bool {
        if self.at_least { self.measured >= self.bound } else { self.measured <= self.bound }
    }
}

/// What the audit verifier says of the run's own log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verifier {
    /// VALID, INVALID, UNREADABLE, INCOMPLETE, or why it was not asked.
    pub verdict: String,
    /// Records in the log.
    pub records: u64,
    /// Declared gaps.
    pub gaps: u64,
    /// Violations by code.
    pub violations: BTreeMap<String, u64>,
    /// The first violation, if there is one.
    pub first_violation: Option<String>,
}

/// What the gateway's process cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// CPU seconds of its process.
    pub cpu_s: f64,
    /// Softirq seconds of its CPU, whoever caused them.
    pub softirq_s: f64,
    /// Its share of one CPU while the scenario ran.
    pub cpu_share: f64,
    /// CPU share per 1000 sessions.
    pub cpu_share_per_1000_sessions: Option<f64>,
    /// Softirq share of its CPU per 1000 sessions.
    pub softirq_share_per_1000_sessions: Option<f64>,
    /// Packets that came to its workers.
    pub packets: u64,
    /// CPU time of its process for each of them, in ns, whatever else it did.
    pub cpu_ns_per_packet: Option<f64>,
    /// Softirq time of its CPU for each of them, in ns.
    pub softirq_ns_per_packet: Option<f64>,
    /// Resident memory at the end, in bytes.
    pub resident: u64,
    /// Resident memory before there was a session, in bytes; the packet memory is part of it, whole and pinned.
    pub resident_empty: u64,
    /// Their difference per session, in bytes.
    pub memory_per_session: Option<f64>,
}

/// Everything about one run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Name of the scenario.
    pub scenario: &'static str,
    /// How it ended.
    pub result: Verdict,
    /// When it began, seconds since 1970 in UTC.
    pub started_at: u64,
    /// How long the measured part took.
    pub duration_s: f64,
    /// Whether the user ended it before its time.
    pub interrupted: bool,
    /// Machine, kernel and build.
    pub environment: Environment,
    /// Commit of the tree that was built, and whether it had changes; unknown outside of a repository.
    pub commit: Option<String>,
    /// Policy profile and overrides.
    pub policy: BTreeMap<&'static str, String>,
    /// What was done to the gateway, in numbers: clients, rates, seed, CPUs, mode.
    pub load: BTreeMap<&'static str, serde_json::Value>,
    /// Scalars that were measured.
    pub summary: BTreeMap<String, f64>,
    /// Distributions of times.
    pub times: BTreeMap<&'static str, Distribution>,
    /// Counts by reason: sessions ended, requests refused, drops at clients and gateway.
    pub reasons: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// What the gateway cost.
    pub gateway: Cost,
    /// Counters that must be zero.
    pub safety: BTreeMap<&'static str, u64>,
    /// What the audit verifier says.
    pub verifier: Verifier,
    /// Goals and what became of them.
    pub goals: Vec<Goal>,
    /// The command that makes this run again.
    pub reproduce: String,
    /// What a reader must know: limits of the generator, noise, what was not measured.
    pub notes: Vec<String>,
    /// Throughput: one for each length, way and number of sessions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Row>,
    /// The course of the run.
    pub course: Vec<Moment>,
    /// Cumulative curves of the times: (milliseconds, share).
    pub curves: BTreeMap<&'static str, Vec<(f64, f64)>>,
}

impl Report {
    /// How the run ended, by its own figures.
    pub fn judge(&self) -> Verdict {
        let unsafe_run = self.safety.values().any(|count| *count > 0);
        match self.verifier.verdict.as_str() {
            _ if unsafe_run => Verdict::Fail,
            "INVALID" | "UNREADABLE" => Verdict::Fail,
            "VALID" if self.goals.iter().all(Goal::is_met) && !self.interrupted => Verdict::Pass,
            _ => Verdict::Conditional,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_measured_is_not_met() {
        assert!(!Goal::at_least("back", f64::NAN, 1.0, "s").is_met());
        assert!(!Goal::at_most("back", f64::NAN, 1.0, "s").is_met());
        assert!(Goal::at_most("back", 1.0, 1.0, "s").is_met());
        assert!(Goal::at_least("rate", 2.0, 1.0, "1/s").is_met());
    }
}
