//! `jumpgate-bench`: measures the gateway against a bound, in the same run.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use jumpgate::xdp::ModeChoice;
use jumpgate_bench::datapath::{self, Row};
use jumpgate_bench::environment::Environment;
use jumpgate_bench::forward::{self, Conditions, Forward, Plan};
use jumpgate_bench::frames::check_inner;
use jumpgate_bench::load::arguments::LoadArguments;
use jumpgate_bench::load::file;
use jumpgate_bench::load::run::run as run_load;
use jumpgate_bench::load::scenario::Scenario;
use jumpgate_bench::peers::{self, PeersArguments};
use jumpgate_bench::report::compare::compare;
use jumpgate_bench::report::{Verdict, page};
use jumpgate_bench::smoke;
use serde::Serialize;

/// What user space may cost at most at 1400 bytes, as a multiple of the bare AEAD.
const GOAL_RATIO: f64 = 1.5;
/// The length that the goal is stated for.
const GOAL_BYTES: usize = 1_400;

/// Measure Jumpgate; figures are ratios to a bound measured in the same run.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// User-space cost per packet, both ways, against the bare AEAD
    Datapath(DatapathArguments),
    /// Packets per second of a whole worker on veth, kernel included, against a forwarder without sessions (needs root)
    #[command(
        after_help = "Other work on the machine spoils the figures; the report counts how often it took the CPU away."
    )]
    Forward(ForwardArguments),
    /// Many real clients against a gateway on a CPU of its own (needs root, two CPUs)
    #[command(flatten)]
    Load(LoadBenchmark),
    /// Small versions of all, which fail on a safety counter or an empty result and never on a time
    Smoke,
    /// Jumpgate beside WireGuard gateways in user space, in the same run (needs root, two CPUs)
    Peers(PeersArguments),
    /// What changed between two reports of one benchmark
    Compare {
        /// The report before
        before: PathBuf,
        /// The report after
        after: PathBuf,
    },
}

#[derive(Subcommand)]
enum LoadBenchmark {
    /// Every client arrives as fast as the gateway takes them
    Handshake(LoadArguments),
    /// Paths die one client at a time, with notice and then silently, with a spare path up
    Failover(LoadArguments),
    /// The NAT of every client gives another port, again and again
    Rebind(LoadArguments),
    /// Each client's links fail every second, then every five seconds, then are calm
    Flap(LoadArguments),
    /// All clients lose their path in the same instant
    Storm(LoadArguments),
    /// Clients live, jump, sleep, go and come back for a time
    Churn(LoadArguments),
    /// Forged reattaches as fast as the generator can, beside clients that work
    ReattachFlood(LoadArguments),
    /// Handshakes of strangers without cookies as fast as the generator can, beside clients that work
    HandshakeFlood(LoadArguments),
    /// One captured request and one captured packet again and again, beside clients that work
    ReplayFlood(LoadArguments),
    /// Packets per second of the gateway's program, against the bare forwarder and the bare AEAD
    Throughput(LoadArguments),
    /// Requests and answers through the tunnel at half and nine tenths of the capacity that is measured first
    Latency(LoadArguments),
    /// The path in use loses 20 to 40 % for 3 and for 30 seconds, with and without delay, with a spare path up
    LossSpike(LoadArguments),
    /// Clients jump again and again as fast as replies allow, beside the CPU time of the slow path
    ReattachRate(LoadArguments),
}

impl LoadBenchmark {
    fn parts(&self) -> (Scenario, &LoadArguments) {
        match self {
            Self::Handshake(arguments) => (Scenario::Handshake, arguments),
            Self::Failover(arguments) => (Scenario::Failover, arguments),
            Self::Rebind(arguments) => (Scenario::Rebind, arguments),
            Self::Flap(arguments) => (Scenario::Flap, arguments),
            Self::Storm(arguments) => (Scenario::Storm, arguments),
            Self::Churn(arguments) => (Scenario::Churn, arguments),
            Self::ReattachFlood(arguments) => (Scenario::ReattachFlood, arguments),
            Self::HandshakeFlood(arguments) => (Scenario::HandshakeFlood, arguments),
            Self::ReplayFlood(arguments) => (Scenario::ReplayFlood, arguments),
            Self::Throughput(arguments) => (Scenario::Throughput, arguments),
            Self::Latency(arguments) => (Scenario::Latency, arguments),
            Self::LossSpike(arguments) => (Scenario::LossSpike, arguments),
            Self::ReattachRate(arguments) => (Scenario::ReattachRate, arguments),
        }
    }
}

#[derive(Args)]
struct DatapathArguments {
    /// Lengths of the inner packets, in bytes
    #[arg(long, value_delimiter = ',', default_values_t = [64, GOAL_BYTES])]
    bytes: Vec<usize>,
    /// Numbers of sessions that the packets belong to
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1_000, 10_000],
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sessions: Vec<u32>,
    /// Repetitions of each measurement
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    repetitions: u32,
    /// Also write the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct ForwardArguments {
    /// Lengths of the inner packets, in bytes
    #[arg(long, value_delimiter = ',', default_values_t = [64, GOAL_BYTES])]
    bytes: Vec<usize>,
    /// Sessions that the packets belong to
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    sessions: u32,
    /// Packets of a burst under load; each takes 2 KiB of memory
    #[arg(long, default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(1_000..=2_000_000))]
    packets: u32,
    /// Repetitions of each measurement
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repetitions: u32,
    /// How the XDP programs run
    #[arg(long, value_enum, default_value_t = XdpMode::Native)]
    mode: XdpMode,
    /// CPU of the worker; the first by default
    #[arg(long)]
    worker_cpu: Option<usize>,
    /// CPU of the generator; the last by default
    #[arg(long)]
    generator_cpu: Option<usize>,
    /// Also write the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum XdpMode {
    /// In the driver
    Native,
    /// In the kernel's receive path
    Generic,
}

#[derive(Serialize)]
struct Report<R> {
    benchmark: &'static str,
    environment: Environment,
    #[serde(skip_serializing_if = "Option::is_none")]
    conditions: Option<Conditions>,
    rows: Vec<R>,
}

impl<R: Serialize> Report<R> {
    fn write(&self, file: Option<File>) -> Result<()> {
        let Some(mut file) = file else { return Ok(()) };
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n").context("cannot write the JSON file")
    }
}

/// Makes the file before anything is measured: what cannot be written is said at once.
fn create(path: Option<&Path>) -> Result<Option<File>> {
    let create = |path: &Path| File::create(path).with_context(|| format!("cannot write {}", path.display()));
    path.map(create).transpose()
}

fn main() -> ExitCode {
    let arguments = match file::expand(std::env::args_os().collect()) {
        Ok(arguments) => Arguments::parse_from(arguments),
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let result = match arguments.benchmark {
        Benchmark::Datapath(arguments) => run_datapath(&arguments),
        Benchmark::Forward(arguments) => run_forward(&arguments),
        Benchmark::Load(benchmark) => run_scenario(&benchmark),
        Benchmark::Smoke => smoke::run(),
        Benchmark::Peers(arguments) => run_peers(&arguments),
        Benchmark::Compare { before, after } => run_compare(&before, &after),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_scenario(benchmark: &LoadBenchmark) -> Result<ExitCode> {
    let (scenario, arguments) = benchmark.parts();
    let (json, html) = (create(arguments.json.as_deref())?, create(arguments.html.as_deref())?);
    let report = run_load(scenario, arguments)?;
    println!("{report}");
    if let Some(mut file) = json {
        serde_json::to_writer_pretty(&mut file, &report)?;
        file.write_all(b"\n").context("cannot write the JSON file")?;
    }
    if let Some(mut file) = html {
        file.write_all(page::render(&report)?.as_bytes()).context("cannot write the page")?;
    }
    Ok(if report.result == Verdict::Fail { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn run_peers(arguments: &PeersArguments) -> Result<ExitCode> {
    let (json, html) = (create(arguments.json.as_deref())?, create(arguments.html.as_deref())?);
    let report = peers::run(arguments)?;
    println!("{report}");
    if let Some(mut file) = json {
        serde_json::to_writer_pretty(&mut file, &report)?;
        file.write_all(b"\n").context("cannot write the JSON file")?;
    }
    if let Some(mut file) = html {
        file.write_all(peers::render(&report)?.as_bytes()).context("cannot write the page")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn run_compare(before: &Path, after: &Path) -> Result<ExitCode> {
    let read = |path: &Path| -> Result<serde_json::Value> {
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", path.display()))
    };
    let (figures, others) = compare(&read(before)?, &read(after)?)?;
    for other in &others {
        println!("differs: {other}");
    }
    for figure in figures.iter().filter(|figure| figure.before != 0.0 || figure.after != 0.0) {
        let mark = if figure.is_clear() { "" } else { "  (within noise)" };
        println!(
            "{:<60} {:>14.3} -> {:>14.3}  x {:.3}{mark}",
            figure.name,
            figure.before,
            figure.after,
            figure.ratio()
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn run_forward(arguments: &ForwardArguments) -> Result<ExitCode> {
    arguments.bytes.iter().try_for_each(|&bytes| check_inner(bytes))?;
    let json = create(arguments.json.as_deref())?;
    let environment = Environment::read();
    println!("{}", environment.line());
    let cpus = forward::cpus()?;
    let (Some(&first), Some(&last)) = (cpus.first(), cpus.last()) else { bail!("this process may use no CPU") };
    let mut forward = Forward::new(Plan {
        sessions: arguments.sessions as usize,
        packets: arguments.packets as usize,
        repetitions: arguments.repetitions as usize,
        mode: match arguments.mode {
            XdpMode::Native => ModeChoice::Native,
            XdpMode::Generic => ModeChoice::Generic,
        },
        worker_cpu: arguments.worker_cpu.unwrap_or(first),
        generator_cpu: arguments.generator_cpu.unwrap_or(last),
    })?;
    let conditions = forward.conditions();
    println!("{conditions}\n\n{}", forward::report::header());
    let progress = progress_bar((arguments.bytes.len() * (forward::WARM_UP + arguments.repetitions as usize)) as u64)?;
    let mut rows = Vec::new();
    for &bytes in &arguments.bytes {
        progress.set_message(format!("{bytes} bytes"));
        let measured = forward.measure(bytes, || progress.inc(1))?;
        progress.suspend(|| measured.iter().for_each(|row| println!("{row}")));
        rows.extend(measured);
    }
    progress.finish_and_clear();
    Report { benchmark: "forward", environment, conditions: Some(conditions), rows }.write(json)?;
    Ok(ExitCode::SUCCESS)
}

fn progress_bar(steps: u64) -> Result<ProgressBar> {
    let progress = ProgressBar::new(steps);
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")?);
    Ok(progress)
}

fn run_datapath(arguments: &DatapathArguments) -> Result<ExitCode> {
    arguments.bytes.iter().try_for_each(|&bytes| check_inner(bytes))?;
    let json = create(arguments.json.as_deref())?;
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
    let progress = progress_bar(cases.len() as u64)?;
    let mut rows = Vec::new();
    for (bytes, sessions) in cases {
        progress.set_message(format!("{bytes} bytes, {sessions} sessions"));
        let row = datapath::measure(sessions as usize, bytes, arguments.repetitions as usize)?;
        progress.suspend(|| print_row(&row));
        progress.inc(1);
        rows.push(row);
    }
    progress.finish_and_clear();
    print_goal(&rows);
    let allocations: u64 = rows.iter().map(|row| row.allocations).sum();
    Report { benchmark: "datapath", environment, conditions: None, rows }.write(json)?;
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
