//! The report of the comparison: everything in one JSON, and the words for a terminal.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use super::figure::{Figure, Figures, Footnotes};
use super::forward::Row;
use super::programs::descriptors;
use super::{PeersArguments, Setup};
use crate::environment::Environment;
use crate::forward::Way;
use crate::load::run::commit;
use crate::report::Goal;

/// Version of the JSON; a changed meaning gets a new one.
const SCHEMA_VERSION: u32 = 1;
/// Whom the others are compared with.
const OURS: &str = "jumpgate";
/// How many times the best peer's packets per second are wanted, by the length of the inner packets.
const FORWARDING: [(usize, f64); 2] = [(64, 8.0), (1_400, 4.0)];
/// How many times faster than the best peer's recovery by handshake a jump storm is to be over.
const STORM: f64 = 5.0;
/// How peers recover by handshake: as their clients do, and the kindest way.
const BY_HANDSHAKE: [&str; 2] = ["handshake_at_once_last_ms", "handshake_paced_last_ms"];
/// How they recover by the next packet from the new address.
const BY_ROAMING: [&str; 2] = ["roam_at_once_last_ms", "roam_paced_last_ms"];

/// Figures of a crowd: name in the JSON, what it is, unit.
pub(super) const FIGURES: [(&str, &str, &str); 15] = [
    ("reattach_storm_last_ms", "all lose their path at once: last one back by reattach", "ms"),
    ("reattach_storm_p50_ms", "the same: half are back", "ms"),
    ("roam_at_once_last_ms", "all send from a new address at once: last one that hears there", "ms"),
    ("roam_at_once_p50_ms", "the same: half hear", "ms"),
    ("roam_paced_last_ms", "the same, 128 at a time: last", "ms"),
    ("roam_paced_p50_ms", "the same: half", "ms"),
    ("handshake_at_once_last_ms", "all shake hands anew at once: last one with a session", "ms"),
    ("handshake_at_once_p50_ms", "the same: half", "ms"),
    ("handshake_paced_last_ms", "the same, 128 at a time, cookies in hand: last", "ms"),
    ("handshake_paced_p50_ms", "the same: half", "ms"),
    ("handshakes_per_s", "handshakes", "1/s"),
    ("cpu_us_per_handshake", "CPU of the gateway's process per handshake", "us"),
    ("memory_per_peer_bytes", "memory per peer with a session, over a gateway that knows nobody", "B"),
    ("memory_per_configured_peer_bytes", "memory per peer that is only known", "B"),
    ("generator_busy_share", "generator computing during handshakes; near 1 it was the limit", "share"),
];

/// A part of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Packets poured through the gateway
    Forwarding,
    /// Many clients at once
    Crowd,
}

/// One gateway.
#[derive(Clone, Debug, Serialize)]
pub struct SubjectReport {
    /// Its name.
    pub name: &'static str,
    /// What it calls its version.
    pub version: String,
    /// How it was set up.
    pub settings: &'static str,
    /// Figures of the crowd by name, each measured or missing for a reason.
    pub figures: Figures,
}

impl SubjectReport {
    pub(super) fn new(name: &'static str, version: String, settings: &'static str) -> Self {
        Self { name, version, settings, figures: Figures::new() }
    }

    fn value(&self, name: &str) -> Option<f64> {
        self.figures.get(name)?.value()
    }

    fn best(&self, names: &[&str]) -> Option<f64> {
        names.iter().filter_map(|name| self.value(name)).reduce(f64::min)
    }
}

/// Everything about one run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// `peers`.
    pub benchmark: &'static str,
    /// When it began, seconds since 1970 in UTC.
    pub started_at: u64,
    /// Whether the user ended it before its time.
    pub interrupted: bool,
    /// Machine, kernel and build.
    pub environment: Environment,
    /// Commit of the tree that was built, and whether it had changes; unknown outside of a repository.
    pub commit: Option<String>,
    /// How it was measured, in numbers and words.
    pub conditions: BTreeMap<&'static str, serde_json::Value>,
    /// The gateways and what their crowds gave.
    pub subjects: Vec<SubjectReport>,
    /// What forwarding gave: one row for each gateway, length and way.
    pub rows: Vec<Row>,
    /// Ours over the best peer's, or the best peer's time over ours: above 1 is better.
    pub ratios: BTreeMap<String, f64>,
    /// Goals and what became of them.
    pub goals: Vec<Goal>,
    /// What a reader must know.
    pub notes: Vec<String>,
    /// The command that makes this run again.
    pub reproduce: String,
}

impl Report {
    pub(super) fn new(environment: Environment, started_at: u64, setup: &Setup, arguments: &PeersArguments) -> Self {
        use serde_json::json;
        let conditions = BTreeMap::from([
            ("gateway_cpu", json!(setup.gateway_cpu)),
            ("generator_cpu", json!(setup.generator_cpu)),
            ("peers", json!(setup.peers)),
            ("sessions_forwarding", json!(setup.sessions)),
            ("packets_of_a_round", json!(setup.packets)),
            ("rounds", json!(setup.rounds)),
            ("seed", json!(setup.seed)),
            ("descriptors_of_a_program", json!(descriptors())),
            (
                "links",
                json!("veth with one queue; receiving softirqs run on the sender's CPU, for every gateway alike"),
            ),
            ("generator", json!("AF_XDP by xsk-rs, one thread; WireGuard by the library boringtun 0.7, sealed ahead")),
            ("kernel", json!("routes between TUN device and links, no packet filter, no reverse path filter")),
        ]);
        Self {
            schema_version: SCHEMA_VERSION,
            benchmark: "peers",
            started_at,
            interrupted: false,
            environment,
            commit: commit(),
            conditions,
            subjects: Vec::new(),
            rows: Vec::new(),
            ratios: BTreeMap::new(),
            goals: Vec::new(),
            notes: Vec::new(),
            reproduce: reproduce(setup, arguments),
        }
    }

    /// Forms ratios and goals from what was measured.
    pub(super) fn finish(&mut self, interrupted: bool) {
        self.interrupted = interrupted;
        self.compare_forwarding();
        self.compare_storm();
    }

    fn compare_forwarding(&mut self) {
        let best = |way: Way, bytes: usize| {
            let peers =
                self.rows.iter().filter(|row| row.subject != OURS && row.way == way && row.inner_bytes == bytes);
            peers.map(|row| row.forwarded.median).reduce(f64::max)
        };
        let mut found = Vec::new();
        for row in self.rows.iter().filter(|row| row.subject == OURS) {
            let Some(best) = best(row.way, row.inner_bytes) else { continue };
            let name = format!("forwarding {} bytes {:?}", row.inner_bytes, row.way).to_lowercase();
            found.push((name.clone(), row.inner_bytes, row.forwarded.median / best));
            if let Some(alone) = &row.alone {
                found.push((format!("{name}, the worker alone"), row.inner_bytes, alone.median / best));
            }
        }
        for (name, bytes, ratio) in found {
            if let Some((_, wanted)) = FORWARDING.iter().find(|(length, _)| *length == bytes) {
                self.goals.push(Goal::at_least(&name, ratio, *wanted, "x the best peer"));
            }
            self.ratios.insert(name, ratio);
        }
    }

    fn compare_storm(&mut self) {
        let ours = self.subjects.iter().find(|subject| subject.name == OURS);
        let Some(ours) = ours.and_then(|subject| subject.value("reattach_storm_last_ms")) else { return };
        let peers = || self.subjects.iter().filter(|subject| subject.name != OURS);
        let by_handshake = peers().filter_map(|peer| peer.best(&BY_HANDSHAKE)).reduce(f64::min);
        let by_roaming = peers().filter_map(|peer| peer.best(&BY_ROAMING)).reduce(f64::min);
        if let Some(theirs) = by_handshake {
            let name = "jump storm against the peers' recovery by handshake";
            self.goals.push(Goal::at_least(name, theirs / ours, STORM, "x faster"));
            self.ratios.insert(name.to_owned(), theirs / ours);
        }
        if let Some(theirs) = by_roaming {
            self.ratios.insert("jump storm against the peers' roaming by a data packet".to_owned(), theirs / ours);
        }
    }

    /// The crowd's figures as a table: a head, and for each figure its name and a cell for each gateway.
    pub(super) fn crowd_table(&self, notes: &mut Footnotes) -> Vec<(String, Vec<String>)> {
        let measured =
            FIGURES.iter().filter(|(name, ..)| self.subjects.iter().any(|one| one.figures.contains_key(name)));
        let never = Figure::missing("not part of this run");
        measured
            .map(|(name, title, unit)| {
                let cells = self.subjects.iter().map(|one| notes.cell(one.figures.get(name).unwrap_or(&never)));
                (format!("{title}, {unit}"), cells.collect())
            })
            .collect()
    }
}

fn reproduce(setup: &Setup, arguments: &PeersArguments) -> String {
    let list = |words: &mut dyn Iterator<Item = String>| words.collect::<Vec<_>>().join(",");
    format!(
        "cargo xtask bench peers --only {} --bytes {} --peers {} --sessions {} --packets {} --rounds {} --seed {}",
        list(&mut arguments.only.iter().map(|peer| peer.name().to_owned())),
        list(&mut setup.bytes.iter().map(ToString::to_string)),
        setup.peers,
        setup.sessions,
        setup.packets,
        setup.rounds,
        setup.seed
    )
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "peers{}", if self.interrupted { ", ended by the user" } else { "" })?;
        self.rows.iter().try_for_each(|row| writeln!(f, "  {row}"))?;
        let mut notes = Footnotes::default();
        let table = self.crowd_table(&mut notes);
        if !table.is_empty() {
            let names: String = self.subjects.iter().map(|subject| format!(" {:>13}", subject.name)).collect();
            writeln!(f, "  {:<76}{names}", "")?;
        }
        for (title, cells) in table {
            let cells: String = cells.iter().map(|cell| format!(" {cell:>13}")).collect();
            writeln!(f, "  {title:<76}{cells}")?;
        }
        write!(f, "{notes}")?;
        for (name, ratio) in &self.ratios {
            writeln!(f, "  ratio: {name}: {ratio:.2}")?;
        }
        for goal in &self.goals {
            let verdict = if goal.is_met() { "met" } else { "NOT MET" };
            writeln!(f, "  goal: {}: {:.2}, wanted {} {}: {verdict}", goal.name, goal.measured, goal.bound, goal.unit)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  note: {note}"))?;
        write!(f, "  again: {}", self.reproduce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::forward::Offer;
    use crate::stats::Summary;

    fn row(subject: &str, pps: f64, alone: Option<f64>) -> Row {
        let once = |value| Summary { median: value, min: value, max: value, repetitions: 1 };
        let offer = Offer { offered: once(1e6), forwarded: once(pps), lost: once(0.1), cpu_ns_per_packet: once(1e3) };
        Row {
            subject: subject.to_owned(),
            way: Way::Inwards,
            inner_bytes: 64,
            flat_out: offer,
            paced: None,
            forwarded: once(pps),
            bits_per_s: pps * 512.0,
            cpu_ns_per_packet: once(1e3),
            generator_limits: false,
            alone: alone.map(once),
            bound: None,
        }
    }

    fn subject(name: &'static str, figures: &[(&'static str, Figure)]) -> SubjectReport {
        let mut report = SubjectReport::new(name, "1".to_owned(), "as it is");
        report.figures.extend(figures.iter().cloned());
        report
    }

    fn report(rows: Vec<Row>, subjects: Vec<SubjectReport>) -> Report {
        let mut report = Report {
            schema_version: SCHEMA_VERSION,
            benchmark: "peers",
            started_at: 0,
            interrupted: false,
            environment: Environment::read(),
            commit: None,
            conditions: BTreeMap::new(),
            subjects,
            rows,
            ratios: BTreeMap::new(),
            goals: Vec::new(),
            notes: Vec::new(),
            reproduce: String::new(),
        };
        report.finish(false);
        report
    }

    #[test]
    fn forwarding_is_compared_with_the_best_peer_and_not_with_the_worst() {
        let report =
            report(vec![row(OURS, 9e5, Some(12e5)), row("slow", 1e4, None), row("fast", 1e5, None)], Vec::new());
        assert_eq!(report.ratios["forwarding 64 bytes inwards"], 9.0);
        assert_eq!(report.ratios["forwarding 64 bytes inwards, the worker alone"], 12.0);
        assert!(report.goals.len() == 2 && report.goals.iter().all(Goal::is_met));
    }

    #[test]
    fn a_storm_is_compared_with_the_kindest_recovery_by_handshake_and_roaming_stands_beside_it() {
        let measured = Figure::Measured;
        let peer = [
            ("handshake_at_once_last_ms", measured(9_000.0)),
            ("handshake_paced_last_ms", measured(2_000.0)),
            ("roam_at_once_last_ms", measured(300.0)),
            ("roam_paced_last_ms", Figure::missing("it died")),
        ];
        let ours = [("reattach_storm_last_ms", measured(200.0))];
        let report = report(Vec::new(), vec![subject(OURS, &ours), subject("peer", &peer)]);
        assert_eq!(report.ratios["jump storm against the peers' recovery by handshake"], 10.0);
        assert_eq!(report.ratios["jump storm against the peers' roaming by a data packet"], 1.5);
        let text = report.to_string();
        assert!(text.contains("–[2]") && text.contains("[2] it died"), "{text}");
        let page = crate::peers::render(&report).unwrap();
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>"), "{page}");
        assert!(page.contains("–[2]") && page.contains("[2] it died"), "{page}");
    }

    #[test]
    fn without_a_peer_there_is_no_ratio() {
        let report = report(vec![row(OURS, 1e6, None)], vec![subject(OURS, &[])]);
        assert!(report.ratios.is_empty() && report.goals.is_empty());
    }
}
