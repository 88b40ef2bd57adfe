//! `jumpgate-sim`: runs of the simulator, each exactly repeatable by its arguments.

#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::time::Span;
use jumpgate_sim::{Cells, Churn, Outcome, Pace, Watch};
use signal_hook::consts::{SIGINT, SIGTERM};
use tempfile::TempDir;

/// Up to so many clients a run is a storm, if nothing else is asked for; with more the pace is steady.
const STORM_SESSIONS: u32 = 200;
/// Up to so many clients share one gateway, if nothing else is asked for.
const ONE_GATEWAY_SESSIONS: u32 = 1_000;
/// Gateways of larger runs: one for each core of a small machine.
const LARGE_RUN_CELLS: u16 = 2;
/// Clients and virtual minutes of a run under a fresh seed.
const FRESH: (u32, u32) = (12, 2);
/// Workers of the gateways of such runs, in turn.
const FRESH_WORKERS: [u16; 4] = [2, 3, 4, 1];

/// Simulates gateways and their clients over bad networks and checks every invariant after every step.
///
/// Equal arguments, equal run. What fails is printed together with the command that repeats it up to the first violation.
/// The gateway's audit trace is judged by `audit verify` at the end.
#[derive(Parser, Clone)]
#[command(name = "cargo xtask sim", version)]
struct Arguments {
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many clients
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sessions: u32,
    /// How much virtual time of trouble, in minutes; two more follow in which everything must come to rest
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_440))]
    minutes: u32,
    /// Profile of the policy
    #[arg(long, value_enum, default_value_t = ProfileName::Mobile)]
    profile: ProfileName,
    /// How much happens to each client [default: storm up to 200 clients, then steady]
    #[arg(long, value_enum)]
    pace: Option<PaceName>,
    /// Workers of each gateway
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    workers: u16,
    /// Gateways side by side, which share the clients; one thread each [default: 1 up to 1000 clients, then 2]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    cells: Option<u16>,
    /// Play only that one of them
    #[arg(long, value_name = "INDEX")]
    cell: Option<u16>,
    /// Stop after so much virtual time
    #[arg(long, value_name = "MILLISECONDS")]
    until_ms: Option<u64>,
    /// Print the transitions of that client, at both ends (of the cell, if there are several)
    #[arg(long, value_name = "CLIENT")]
    trace: Option<usize>,
    /// Where the gateway's audit trace is kept: a new or empty directory [default: a temporary one, kept if the trace is bad]
    #[arg(long, value_name = "DIRECTORY")]
    audit: Option<PathBuf>,
    /// Play fresh seeds for so long instead, each printed; all profiles, and 1 to 4 workers, in turn
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["seed", "cell", "until_ms", "trace"])]
    fresh_for: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProfileName {
    Default,
    Mobile,
    Fast,
}

#[derive(Clone, Copy, ValueEnum)]
enum PaceName {
    Storm,
    Steady,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The second one ends the program at once.
        let ready = signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)));
        if let Err(error) = ready {
            eprintln!("error: cannot handle signals: {error}");
            return ExitCode::FAILURE;
        }
    }
    if let Some(cell) = arguments.cell.filter(|cell| *cell >= arguments.cells()) {
        eprintln!("error: there is no cell {cell}: the run has {}, counted from 0", arguments.cells());
        return ExitCode::FAILURE;
    }
    let passed = match arguments.fresh_for {
        Some(seconds) => fresh(&mut arguments, Duration::from_secs(seconds), &stop),
        None => play(&arguments, &stop),
    };
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: cannot keep the audit trace: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Fresh seeds until the time is over, a run has failed, or somebody stops it.
fn fresh(arguments: &mut Arguments, time: Duration, stop: &Arc<AtomicBool>) -> io::Result<bool> {
    let begin = Instant::now();
    let profiles = [ProfileName::Mobile, ProfileName::Default, ProfileName::Fast];
    (arguments.sessions, arguments.minutes) = FRESH;
    let mut runs = 0;
    while begin.elapsed() < time && !stop.load(Ordering::Relaxed) {
        // The one number that is not given: the hasher of the standard library draws its keys from the system.
        arguments.seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), runs) >> 16;
        arguments.profile = profiles[runs % profiles.len()];
        arguments.workers = FRESH_WORKERS[runs % FRESH_WORKERS.len()];
        if !play(arguments, stop)? {
            return Ok(false);
        }
        runs += 1;
    }
    println!("{runs} runs under fresh seeds, no violation");
    Ok(true)
}

/// One run. Gives whether nothing was found.
fn play(arguments: &Arguments, stop: &Arc<AtomicBool>) -> io::Result<bool> {
    let cells = arguments.run();
    let temporary = if arguments.audit.is_none() { Some(TempDir::with_prefix("jumpgate-sim-")?) } else { None };
    let traces = arguments.audit.as_deref().or(temporary.as_ref().map(TempDir::path)).unwrap_or(Path::new("."));
    let chosen = arguments.cell.map_or(0..cells.count, |cell| usize::from(cell)..usize::from(cell) + 1);
    let watches: Vec<(usize, Watch)> = chosen.map(|index| (index, arguments.watch(index, traces))).collect();
    println!("{arguments}");
    let _says_its_seed = SaysItsSeed(arguments);
    let begin = Instant::now();
    let mut shown = Duration::ZERO;
    let outcomes = cells.run(&Policy::profile(cells.churn.profile), &watches, |passed| {
        if stop.load(Ordering::Relaxed) {
            watches.iter().for_each(|(_, watch)| watch.stop.store(true, Ordering::Relaxed));
        }
        shown = show(passed, begin.elapsed(), shown);
    });
    if arguments.fresh_for.is_some() {
        let found = outcomes.iter().map(|outcome| outcome.safety.total()).sum::<u64>();
        let commits = outcomes.iter().map(|outcome| outcome.commits).sum::<u64>();
        let records = outcomes.iter().flat_map(|outcome| &outcome.traces).map(|trace| trace.records).sum::<u64>();
        let seconds = begin.elapsed().as_secs_f64();
        println!("  {commits} switches, {records} audit records, {found} violations, {seconds:.1} s");
    }
    let mut again = Vec::new();
    for ((index, _), outcome) in watches.iter().zip(&outcomes) {
        if !outcome.is_good() {
            let cell = (cells.count > 1).then_some(*index as u16);
            // A trace is judged at its end.
            let until_ms = outcome.first_violation.map(|at| at.as_micros().div_ceil(1_000));
            again.push(Arguments { cell, until_ms, fresh_for: None, trace: None, ..arguments.clone() });
        }
    }
    let passed = again.is_empty();
    let bad_trace = outcomes.iter().flat_map(|outcome| &outcome.traces).any(|trace| !trace.is_good());
    if arguments.fresh_for.is_none() || !passed {
        let stopped = stop.load(Ordering::Relaxed);
        if let Some(whole) = outcomes.into_iter().reduce(Outcome::plus) {
            println!("{whole}");
        }
        println!("real time                   {:>10.1} s", begin.elapsed().as_secs_f64());
        if stopped {
            println!("stopped before the end: this is the state so far");
        }
    }
    if bad_trace && let Some(directory) = temporary {
        println!("the trace is kept in {}", directory.keep().display());
    }
    // Last, so that no log that keeps its end only loses it.
    for again in again {
        println!("to see it again: {again}");
    }
    Ok(passed)
}

/// A run that panics says how to see that again, after the panic has had its say.
struct SaysItsSeed<'a>(&'a Arguments);

impl Drop for SaysItsSeed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let again = Arguments { fresh_for: None, ..self.0.clone() };
            eprintln!("to see the panic again: {again}");
        }
    }
}

/// How far it is, every ten seconds, on a terminal twice a second. Gives when it was shown.
fn show(passed: Span, elapsed: Duration, shown: Duration) -> Duration {
    let terminal = std::io::stderr().is_terminal();
    let every = if terminal { Duration::from_millis(500) } else { Duration::from_secs(10) };
    if elapsed < shown + every {
        return shown;
    }
    let seconds = passed.as_millis() / 1_000;
    let words = format!("{:>3} min {:02} s virtual, {:.0} s real", seconds / 60, seconds % 60, elapsed.as_secs_f64());
    if terminal {
        eprint!("\r{words} ");
        // Without a terminal to show it on there is nothing to flush.
        let _ = std::io::stderr().flush();
    } else {
        eprintln!("{words}");
    }
    elapsed
}

impl Arguments {
    fn cells(&self) -> u16 {
        self.cells.unwrap_or(if self.sessions > ONE_GATEWAY_SESSIONS { LARGE_RUN_CELLS } else { 1 })
    }

    fn pace(&self) -> PaceName {
        self.pace.unwrap_or(if self.sessions > STORM_SESSIONS { PaceName::Steady } else { PaceName::Storm })
    }

    fn run(&self) -> Cells {
        let profile = match self.profile {
            ProfileName::Default => Profile::Default,
            ProfileName::Mobile => Profile::Mobile,
            ProfileName::Fast => Profile::Fast,
        };
        let pace = match self.pace() {
            PaceName::Storm => Pace::Storm,
            PaceName::Steady => Pace::Steady,
        };
        let (sessions, length) = (self.sessions as usize, Span::from_millis(u64::from(self.minutes) * 60_000));
        let workers = usize::from(self.workers);
        let churn = Churn { seed: self.seed, sessions, workers, length, profile, pace };
        Cells { churn, count: usize::from(self.cells()) }
    }

    /// How that cell is watched, with its trace below that directory: each gateway has a chain of its own.
    fn watch(&self, cell: usize, traces: &Path) -> Watch {
        let mut audit = traces.to_owned();
        if self.fresh_for.is_some() {
            audit.push(format!("seed-{}", self.seed));
        }
        if self.cells() > 1 {
            audit.push(format!("cell-{cell}"));
        }
        Watch {
            until: self.until_ms.map(Span::from_millis),
            traced: self.trace,
            audit: Some(audit),
            ..Watch::default()
        }
    }
}

/// The command of a run, whole: also what was left to the defaults, which may change.
impl fmt::Display for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
        let profile = name(self.profile.to_possible_value()).unwrap_or_default();
        let pace = name(self.pace().to_possible_value()).unwrap_or_default();
        write!(f, "cargo xtask sim --seed {} --sessions {} --minutes {}", self.seed, self.sessions, self.minutes)?;
        write!(f, " --profile {profile} --pace {pace} --workers {} --cells {}", self.workers, self.cells())?;
        if let Some(cell) = self.cell {
            write!(f, " --cell {cell}")?;
        }
        if let Some(until) = self.until_ms {
            write!(f, " --until-ms {until}")?;
        }
        if let Some(trace) = self.trace {
            write!(f, " --trace {trace}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_command_is_the_run() {
        let given = "cargo xtask sim --seed 7 --sessions 3000 --minutes 2 --profile fast --pace steady --workers 3 --cells 2 \
                     --cell 1 --until-ms 1234";
        let arguments = Arguments::parse_from(given.split_whitespace().skip(2));
        assert_eq!(arguments.to_string(), given);
    }

    #[test]
    fn what_is_not_given_is_printed_all_the_same() {
        let few = Arguments::parse_from(["sim"]).to_string();
        assert!(few.ends_with("--profile mobile --pace storm --workers 2 --cells 1"), "{few}");
        let many = Arguments::parse_from(["sim", "--sessions", "10000"]).to_string();
        assert!(many.ends_with("--pace steady --workers 2 --cells 2"), "{many}");
    }
}
