//! One run from the command line to the report.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use jumpgate::clock;
use jumpgate_protocol::time::Span;
use serde_json::{Value, json};

use super::MOST_CLIENTS;
use super::engine::Engine;
use super::gauge::Reading;
use super::plant::PlantConfig;
use super::scenario::{Findings, Measure, Scenario};
use crate::environment::Environment;
use crate::forward::cpus;
use crate::report::{Cost, Report, SCHEMA_VERSION, Verdict, Verifier};

/// A turn of the generator that took longer than that is said in the report: times below it were not told apart.
const LONG_GAP: Span = Span::from_millis(10);

/// How a scenario is run.
#[derive(Args, Clone, Debug)]
pub struct LoadArguments {
    /// Clients
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_CLIENTS)))]
    pub clients: u32,
    /// Arrivals per second, whatever becomes of those before them
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub arrivals: u64,
    /// Seconds of the measured part, where the scenario has no end of its own
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Churn: mean time between two jumps of one client, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub jump_every: u64,
    /// Churn: mean life of a session, in seconds
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub lifetime: u64,
    /// Echo packets per second of all clients together; 0 for none
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub echoes: u64,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Policy profile: default, mobile or fast
    #[arg(long, default_value = "default", value_parser = ["default", "mobile", "fast"])]
    pub profile: String,
    /// Policy values over the profile's, as volatility.heartbeat_interval_ms=1000
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// CPU of the gateway; the first by default
    #[arg(long)]
    pub gateway_cpu: Option<usize>,
    /// CPU of the generator; the last by default
    #[arg(long)]
    pub generator_cpu: Option<usize>,
    /// Write everything as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Runs a scenario and makes its report.
///
/// # Errors
/// The lab cannot be built here, or gateway or generator failed.
pub fn run(scenario: Scenario, arguments: &LoadArguments) -> Result<Report> {
    let environment = Environment::read();
    println!("{}", environment.line());
    let (gateway_cpu, generator_cpu) = choose_cpus(arguments)?;
    let policy = policy_lines(scenario, arguments)?;
    let config = PlantConfig {
        clients: arguments.clients,
        seed: arguments.seed,
        profile: arguments.profile.clone(),
        policy: policy.clone(),
        tables: String::new(),
        cpu: gateway_cpu,
        mode: "native",
    };
    let mut engine = Engine::start(&config, generator_cpu)?;
    let (empty, started_at) = (engine.reading()?, SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());
    let measure = Measure {
        seed: arguments.seed,
        arrivals: arguments.arrivals,
        seconds: arguments.seconds,
        jump_every: Span::from_millis(arguments.jump_every * 1_000),
        lifetime: Span::from_millis(arguments.lifetime * 1_000),
        echoes: arguments.echoes,
    };
    let began = clock::now();
    let outcome = scenario.run(&mut engine, &measure);
    let elapsed = clock::now().since(began);
    engine.quiet();
    let mut findings = outcome?;
    let full = engine.reading()?;
    let counters = engine.plant.ask("counters")?;
    let live = engine.crowd.live();
    engine.plant.stop()?;
    let verifier = verify(&engine)?;
    note_limits(&engine, &mut findings)?;
    let book = &engine.crowd.book;
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
            ("overrides", policy.trim().replace('\n', "; ")),
        ]),
        load: load_of(arguments, gateway_cpu, generator_cpu),
        summary: findings.summary,
        times: BTreeMap::from([
            ("handshake", book.handshake.distribution()),
            ("detect", book.detect.distribution()),
            ("reattach", book.reattach.distribution()),
            ("round_trip", book.round_trip.distribution()),
        ]),
        reasons: reasons(&engine, &counters),
        gateway: cost(&empty, &full, elapsed, live),
        safety: safety(&engine, &counters),
        verifier,
        goals: findings.goals,
        reproduce: reproduce(scenario, arguments),
        notes: findings.notes,
        course: std::mem::take(&mut engine.course.moments),
        curves: BTreeMap::from([
            ("handshake", book.handshake.curve()),
            ("reattach", book.reattach.curve()),
            ("round_trip", book.round_trip.curve()),
        ]),
    };
    report.curves.retain(|_, points| !points.is_empty());
    report.result = report.judge();
    Ok(report)
}

fn choose_cpus(arguments: &LoadArguments) -> Result<(usize, usize)> {
    let cpus = cpus()?;
    let (Some(&first), Some(&last)) = (cpus.first(), cpus.last()) else {
        anyhow::bail!("this process may use no CPU");
    };
    let chosen = (arguments.gateway_cpu.unwrap_or(first), arguments.generator_cpu.unwrap_or(last));
    for cpu in [chosen.0, chosen.1] {
        ensure!(cpus.contains(&cpu), "CPU {cpu} is none of those that this process may use: {cpus:?}");
    }
    ensure!(chosen.0 != chosen.1, "gateway and generator need a CPU each, and both have {}", chosen.0);
    Ok(chosen)
}

/// The lines of the `[policy]` table: what the scenario needs, then what the user wants.
fn policy_lines(scenario: Scenario, arguments: &LoadArguments) -> Result<String> {
    let mut lines = scenario.policy().to_owned();
    for assignment in &arguments.set {
        let (key, value) =
            assignment.split_once('=').with_context(|| format!("--set {assignment}: write KEY=VALUE"))?;
        lines.retain_lines(key);
        lines.push_str(&format!("{} = {}\n", key.trim(), value.trim()));
    }
    Ok(lines)
}

/// Takes out the line of a key that the user sets otherwise.
trait RetainLines {
    fn retain_lines(&mut self, key: &str);
}

impl RetainLines for String {
    fn retain_lines(&mut self, key: &str) {
        let kept = self.lines().filter(|line| line.split('=').next().map(str::trim) != Some(key.trim()));
        *self = kept.map(|line| format!("{line}\n")).collect();
    }
}

fn load_of(arguments: &LoadArguments, gateway_cpu: usize, generator_cpu: usize) -> BTreeMap<&'static str, Value> {
    BTreeMap::from([
        ("clients", json!(arguments.clients)),
        ("arrivals_per_s", json!(arguments.arrivals)),
        ("seconds", json!(arguments.seconds)),
        ("jump_every_s", json!(arguments.jump_every)),
        ("lifetime_s", json!(arguments.lifetime)),
        ("echoes_per_s", json!(arguments.echoes)),
        ("seed", json!(arguments.seed)),
        ("gateway_cpu", json!(gateway_cpu)),
        ("generator_cpu", json!(generator_cpu)),
        ("workers", json!(1)),
        ("queues", json!(1)),
        ("links", json!("veth, XDP native, AF_XDP copy")),
        ("generator", json!("product client code over xsk-rs, one thread")),
    ])
}

fn reasons(engine: &Engine, counters: &Value) -> BTreeMap<&'static str, BTreeMap<String, u64>> {
    let book = &engine.crowd.book;
    let named = |table: &BTreeMap<&'static str, u64>| table.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
    let gateway = rows(counters).filter(|(_, value)| *value > 0).collect();
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

/// Name and value of each counter, as `jumpgate counters --json` gives them.
fn rows(counters: &Value) -> impl Iterator<Item = (String, u64)> + '_ {
    counters
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| Some((row.get("name")?.as_str()?.to_owned(), row.get("value")?.as_u64()?)))
}

/// What must be zero.
fn safety(engine: &Engine, counters: &Value) -> BTreeMap<&'static str, u64> {
    let of = |name: &str| rows(counters).filter(|(found, _)| found == name).map(|(_, value)| value).sum();
    let mut safety = BTreeMap::from([
        ("invariant_violation", of("INVARIANT_VIOLATION")),
        ("ambiguous_owner", of("OWNERSHIP_CONFLICT")),
        ("epoch_not_rising", 0),
    ]);
    for (kind, count) in &engine.crowd.book.violations {
        safety.insert(kind, *count);
    }
    safety
}

/// Has the product's own verifier judge the run's log.
fn verify(engine: &Engine) -> Result<Verifier> {
    let directory = engine.plant.directory().join("audit");
    if !directory.exists() {
        return Ok(Verifier { verdict: "no audit log was written".to_owned(), ..Verifier::default() });
    }
    let mut files: Vec<_> = std::fs::read_dir(&directory)?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let arguments: Vec<&str> =
        ["audit", "verify", "--json"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let output = engine.plant.tool(&arguments)?;
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    let number = |name: &str| said.get(name).and_then(Value::as_u64).unwrap_or(0);
    let verdict = match output.status.code() {
        Some(0) => "VALID",
        Some(1) => "INVALID",
        Some(2) => "UNREADABLE",
        Some(3) => "INCOMPLETE",
        _ => "the verifier failed",
    };
    let first = said.pointer("/violations/0").map(Value::to_string);
    Ok(Verifier {
        verdict: verdict.to_owned(),
        records: number("records"),
        gaps: number("gaps"),
        first_violation: first,
    })
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
    let echo = engine.crowd.book.echo;
    findings.summary.insert("echo_sent", echo.sent as f64);
    findings.summary.insert("echo_lost", echo.sent.saturating_sub(echo.returned) as f64);
    findings.summary.insert("echo_held", echo.held as f64);
    Ok(())
}

fn cost(empty: &Reading, full: &Reading, elapsed: Span, live: u64) -> Cost {
    let share = full.share_since(empty, Duration::from_micros(elapsed.as_micros()));
    let per = |value: f64, unit: f64| (live > 0).then(|| value / live as f64 * unit);
    Cost {
        cpu_s: full.cpu_since(empty),
        softirq_s: full.softirq_s - empty.softirq_s,
        cpu_share: share,
        cpu_share_per_1000_sessions: per(share, 1_000.0),
        resident: full.resident,
        resident_empty: empty.resident,
        memory_per_session: per(full.resident.saturating_sub(empty.resident) as f64, 1.0),
    }
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| -> Option<String> {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let hash = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(if changed { format!("{hash} with changes") } else { hash })
}

fn reproduce(scenario: Scenario, arguments: &LoadArguments) -> String {
    let LoadArguments { clients, arrivals, seconds, jump_every, lifetime, echoes, seed, profile, set, .. } = arguments;
    let sets: String = set.iter().map(|assignment| format!(" --set '{assignment}'")).collect();
    format!(
        "cargo xtask bench {} --clients {clients} --arrivals {arrivals} --seconds {seconds} --jump-every {jump_every} \
         --lifetime {lifetime} --echoes {echoes} --seed {seed} --profile {profile}{sets}",
        scenario.name()
    )
}

fn seconds(span: Span) -> f64 {
    span.as_micros() as f64 / 1e6
}
