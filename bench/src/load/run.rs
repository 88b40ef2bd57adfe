//! One run from the command line to the report.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use jumpgate::admin::CounterRow;
use jumpgate::clock;
use jumpgate_protocol::time::Span;
use serde::Deserialize as _;
use serde_json::Value;

use super::arguments::LoadArguments;
use super::book::Times;
use super::engine::Engine;
use super::gauge::Reading;
use super::judge;
use super::scenario::{Findings, Scenario};
use crate::environment::Environment;
use crate::report::{Cost, Report, SCHEMA_VERSION, Verdict};

/// A turn of the generator that took longer than that is said in the report: times below it were not told apart.
const LONG_GAP: Span = Span::from_millis(10);

/// Runs a scenario and makes its report.
///
/// # Errors
/// The lab cannot be built here, or gateway or generator failed.
pub fn run(scenario: Scenario, arguments: &LoadArguments) -> Result<Report> {
    let environment = Environment::read();
    println!("{}", environment.line());
    let (gateway_cpu, generator_cpu) = arguments.cpus()?;
    let config = arguments.plant(scenario, gateway_cpu)?;
    let mut engine = Engine::start(&config, generator_cpu)?;
    let (empty, started_at) = (engine.reading()?, SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());
    let measure = arguments.measure(gateway_cpu);
    let began = clock::now();
    let outcome = scenario.run(&mut engine, &measure);
    let elapsed = clock::now().since(began);
    engine.quiet();
    let mut findings = outcome?;
    let full = engine.reading()?;
    let counters = engine.plant.counters()?;
    let live = engine.crowd.live();
    // Before the stop: of what the gateway says then nobody takes anything.
    note_limits(&engine, &mut findings)?;
    engine.plant.stop()?;
    let verifier = judge::verify(&engine.plant)?;
    let book = &engine.crowd.book;
    let mut times: BTreeMap<&'static str, &Times> = BTreeMap::from([
        ("handshake", &book.handshake),
        ("detect", &book.detect),
        ("reattach", &book.reattach),
        ("round_trip", &book.round_trip),
        ("round_trip_of_bystanders", &book.bystanders),
    ]);
    times.extend(findings.times.iter().map(|(name, times)| (*name, times)));
    let mut report = Report {
        schema_version: SCHEMA_VERSION,
        scenario: scenario.name(),
        result: Verdict::Fail,
        started_at,
        duration_s: seconds(findings.duration),
        interrupted: engine.is_interrupted(),
        environment,
        commit: commit(),
        policy: BTreeMap::from([
            ("profile", arguments.profile.clone()),
            ("overrides", config.policy.trim().replace('\n', "; ")),
        ]),
        load: arguments.load(gateway_cpu, generator_cpu),
        summary: findings.summary,
        times: times.iter().map(|(name, times)| (*name, times.distribution())).collect(),
        reasons: reasons(&engine, &counters),
        gateway: cost(&empty, &full, elapsed, live, &counters),
        safety: judge::safety(&engine.crowd.book, &counters, &verifier),
        verifier,
        goals: findings.goals,
        reproduce: arguments.reproduce(scenario),
        notes: findings.notes,
        rows: findings.rows,
        course: std::mem::take(&mut engine.course.moments),
        curves: times.iter().map(|(name, times)| (*name, times.curve())).collect(),
    };
    report.curves.retain(|_, points| !points.is_empty());
    report.result = report.judge();
    Ok(report)
}

fn reasons(engine: &Engine, counters: &Value) -> BTreeMap<&'static str, BTreeMap<String, u64>> {
    let book = &engine.crowd.book;
    let named = |table: &BTreeMap<&'static str, u64>| table.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
    let gateway = rows(counters).map(|row| (format!("{}: {}", row.place, row.name), row.value)).collect();
    let mut all = BTreeMap::from([
        ("handshakes failed", named(&book.failed)),
        ("sessions ended, as clients saw it", named(&book.ended)),
        ("requests refused", named(&book.refused)),
        ("datagrams dropped by clients", named(&book.dropped)),
        ("counters of the gateway", gateway),
    ]);
    all.retain(|_, table: &mut BTreeMap<String, u64>| !table.is_empty());
    all
}

/// Each counter, as `jumpgate counters --json` gives them.
pub(super) fn rows(counters: &Value) -> impl Iterator<Item = CounterRow> + '_ {
    counters.as_array().into_iter().flatten().filter_map(|row| CounterRow::deserialize(row).ok())
}

fn note_limits(engine: &Engine, findings: &mut Findings) -> Result<()> {
    let (stalled, missed) = engine.crowd.missed()?;
    if stalled > 0 {
        findings
            .notes
            .push(format!("THE GENERATOR limits: {stalled} frames could not be sent because all were on their way"));
    }
    if missed > 0 {
        findings.notes.push(format!("THE GENERATOR limits: {missed} frames arrived faster than it took them"));
    }
    if engine.longest_gap > LONG_GAP {
        findings.notes.push(format!(
            "the longest pause between two turns of the generator was {} ms: times below that include it",
            engine.longest_gap.as_millis()
        ));
    }
    for (kind, first) in &engine.crowd.book.first_violations {
        findings.notes.push(format!("the first {kind}: {first}"));
    }
    let (echo, jumps) = (engine.crowd.book.echo, engine.crowd.book.jumps);
    let lost = echo.sent.saturating_sub(echo.returned);
    findings.figure("echo_sent", echo.sent as f64);
    findings.figure("echo_lost", lost as f64);
    findings.figure("echo_lost_up", echo.sent.saturating_sub(echo.reached) as f64);
    findings.figure("echo_lost_down", echo.reached.saturating_sub(echo.returned) as f64);
    findings.figure("echo_late", echo.late as f64);
    findings.figure("echo_held", echo.held as f64);
    findings.figure("jumps", jumps as f64);
    findings.figure("requests_to_reattach", engine.crowd.book.requests as f64);
    if jumps > 0 && echo.sent > 0 {
        findings.figure("packets_lost_per_jump", lost as f64 / jumps as f64);
    }
    Ok(())
}

fn cost(empty: &Reading, full: &Reading, elapsed: Span, live: u64, counters: &Value) -> Cost {
    let elapsed_s = seconds(elapsed).max(f64::EPSILON);
    let (cpu_s, softirq_s) = (full.run_s - empty.run_s, full.softirq_s - empty.softirq_s);
    let per = |value: f64, unit: f64| (live > 0).then(|| value / live as f64 * unit);
    let received =
        |row: &CounterRow| matches!(row.name.as_str(), "outside_received_packets" | "inside_received_packets");
    let packets = rows(counters).filter(received).map(|row| row.value).sum::<u64>();
    let per_packet = |seconds: f64| (packets > 0).then(|| seconds * 1e9 / packets as f64);
    Cost {
        cpu_s,
        softirq_s,
        cpu_share: cpu_s / elapsed_s,
        cpu_share_per_1000_sessions: per(cpu_s / elapsed_s, 1_000.0),
        softirq_share_per_1000_sessions: per(softirq_s / elapsed_s, 1_000.0),
        packets,
        cpu_ns_per_packet: per_packet(cpu_s),
        softirq_ns_per_packet: per_packet(softirq_s),
        resident: full.resident,
        resident_empty: empty.resident,
        memory_per_session: per(full.resident.saturating_sub(empty.resident) as f64, 1.0),
    }
}

pub(crate) fn commit() -> Option<String> {
    let git = |arguments: &[&str]| -> Option<String> {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let hash = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(if changed { format!("{hash} with changes") } else { hash })
}

fn seconds(span: Span) -> f64 {
    span.as_micros() as f64 / 1e6
}
