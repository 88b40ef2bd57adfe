//! `jumpgate-bench`: measures the gateway against a bound, in the same run.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use jumpgate_bench::alloc::Counting;
use jumpgate_bench::datapath::{self, Row};
use jumpgate_bench::environment::Environment;
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What user space may cost at most at 1400 bytes, as a multiple of the bare AEAD.
const GOAL_RATIO: f64 = 1.5;
/// The length that the goal is stated for.
const GOAL_BYTES: usize = 1_400;

/// Measure Jumpgate; figures are ratios to a bound measured in the same run.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// User-space cost per packet, both ways, against the bare AEAD
    Datapath(DatapathArguments),
}

#[derive(Args)]
struct DatapathArguments {
    /// Lengths of the inner packets, in bytes
    #[arg(long, value_delimiter = ',', default_values_t = [64, GOAL_BYTES])]
    bytes: Vec<usize>,
    /// Numbers of sessions that the packets belong to
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1_000, 10_000])]
    sessions: Vec<usize>,
    /// Repetitions of each measurement
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    repetitions: u32,
    /// Also write the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    benchmark: &'static str,
    environment: Environment,
    rows: Vec<Row>,
}

fn main() -> ExitCode {
    let Benchmark::Datapath(arguments) = Arguments::parse().benchmark;
    match run_datapath(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_datapath(arguments: &DatapathArguments) -> Result<ExitCode> {
    let environment = Environment::read();
    println!("{}", environment.line());
    println!(
        "method: batches of 256 packets through the gateway's packet path and through the bare AEAD in turn; \
         {} repetitions, median (min to max) in ns per packet; ratios pair by pair\n",
        arguments.repetitions
    );
    println!(
        "{:>6} {:>9}  {:>24} {:>24} {:>6}  {:>24} {:>24} {:>6}  {:>12}",
        "bytes", "sessions", "decapsulate", "AEAD open", "ratio", "encapsulate", "AEAD seal", "ratio", "allocations"
    );
    let cases: Vec<_> = arguments
        .bytes
        .iter()
        .flat_map(|bytes| arguments.sessions.iter().map(move |sessions| (*bytes, *sessions)))
        .collect();
    let progress = ProgressBar::new(cases.len() as u64);
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")?);
    let mut rows = Vec::new();
    for (bytes, sessions) in cases {
        progress.set_message(format!("{bytes} bytes, {sessions} sessions"));
        let row = datapath::measure(sessions, bytes, arguments.repetitions as usize)?;
        progress.suspend(|| print_row(&row));
        progress.inc(1);
        rows.push(row);
    }
    progress.finish_and_clear();
    print_goal(&rows);
    let allocations: u64 = rows.iter().map(|row| row.allocations).sum();
    let report = Report { benchmark: "datapath", environment, rows };
    if let Some(path) = &arguments.json {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        serde_json::to_writer_pretty(file, &report)?;
    }
    if allocations > 0 {
        eprintln!("error: the packet path allocated {allocations} times; it must not allocate at all");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn print_row(row: &Row) {
    let cell = |summary: &jumpgate_bench::stats::Summary| {
        format!("{:.0} ({:.0} to {:.0})", summary.median, summary.min, summary.max)
    };
    println!(
        "{:>6} {:>9}  {:>24} {:>24} {:>6.2}  {:>24} {:>24} {:>6.2}  {:>12}",
        row.inner_bytes,
        row.sessions,
        cell(&row.decapsulate),
        cell(&row.open),
        row.decapsulate_ratio.median,
        cell(&row.encapsulate),
        cell(&row.seal),
        row.encapsulate_ratio.median,
        row.allocations
    );
}

fn print_goal(rows: &[Row]) {
    let at_goal = rows.iter().filter(|row| row.inner_bytes == GOAL_BYTES);
    let worst = at_goal.flat_map(|row| [row.decapsulate_ratio.median, row.encapsulate_ratio.median]).reduce(f64::max);
    if let Some(worst) = worst {
        let verdict = if worst <= GOAL_RATIO { "met" } else { "NOT MET" };
        println!("\ngoal: at most {GOAL_RATIO} x the AEAD at {GOAL_BYTES} bytes; worst here {worst:.2} x: {verdict}");
    }
}
