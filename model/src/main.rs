//! `cargo xtask model`: explores the protocol within bounds, or hunts mutants.

use std::process::ExitCode;

use clap::Parser;
use jumpgate_model::explore::{Effort, Outcome, explore, explore_machine, hunt};
use jumpgate_model::jump::{SCOPES, Scope};
use jumpgate_model::machine::Machine;
use jumpgate_protocol_woven::mutant::{self, MUTANTS, STALE};

/// Blackouts are tried in one state of so many, unless all are asked for.
const BLACKOUTS: u64 = 8;

/// Explore every run of the real protocol code within bounds, and show the shortest one that breaks a law
///
/// A run is a sequence of actions: time passes, an interface goes, a NAT forgets, the operator moves the session, the
/// attacker blocks a way, delivers late what it saw, from where it likes. Exit status: 0 if every law holds, 1 if one is
/// broken, or, with --mutants, if a mutant survives.
#[derive(Parser)]
#[command(name = "cargo xtask model", bin_name = "cargo xtask model", version)]
struct Arguments {
    /// Only this scope (or machine-gateway, machine-client); may be repeated
    #[arg(long, value_name = "NAME")]
    scope: Vec<String>,
    /// Actions of a run, instead of the bounds of each scope
    #[arg(long, value_name = "N")]
    depth: Option<u8>,
    /// Put that defect into the code first
    #[arg(long, value_name = "NAME", conflicts_with = "mutants")]
    mutant: Option<String>,
    /// Hunt every mutant; each must break a law
    #[arg(long)]
    mutants: bool,
    /// Try a blackout in every state, not in one of eight
    #[arg(long)]
    thorough: bool,
    /// Threads; all cores if not given
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Say which scopes and mutants there are
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool, String> {
    if arguments.list {
        list();
        return Ok(true);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let effort = Effort {
        threads: arguments.threads.unwrap_or(cores).max(1),
        blackouts: if arguments.thorough { 1 } else { BLACKOUTS },
        progress: !arguments.mutants,
    };
    let (scopes, machines) = chosen(arguments)?;
    if arguments.mutants {
        return Ok(hunt_all(&scopes, effort));
    }
    if let Some(name) = &arguments.mutant {
        let known = MUTANTS.iter().position(|mutant| mutant.name == name);
        mutant::choose(Some(known.ok_or_else(|| format!("no mutant `{name}`; --list names them"))?));
    }
    let mut holds = true;
    for scope in scopes {
        println!("{}: {}\n  {}", scope.name, scope.about, scope.budget);
        holds &= show(&explore(scope, effort));
    }
    for machine in machines {
        println!("{}: every input to a depth of {}", machine.name(), machine.depth);
        holds &= show(&explore_machine(machine, effort));
    }
    Ok(holds)
}

/// The scopes and machines that were asked for, with their bounds.
fn chosen(arguments: &Arguments) -> Result<(Vec<Scope>, Vec<Machine>), String> {
    let wanted = |name: &str| arguments.scope.is_empty() || arguments.scope.iter().any(|wanted| wanted == name);
    let mut scopes: Vec<Scope> = SCOPES.iter().copied().filter(|scope| wanted(scope.name)).collect();
    let mut machines: Vec<Machine> = Machine::BOTH.into_iter().filter(|machine| wanted(machine.name())).collect();
    if scopes.is_empty() && machines.is_empty() {
        return Err(format!("no scope `{}`; --list names them", arguments.scope.join("`, `")));
    }
    if let Some(depth) = arguments.depth {
        scopes.iter_mut().for_each(|scope| scope.budget = scope.budget.deepened(depth));
        machines.iter_mut().for_each(|machine| machine.depth = depth);
    }
    Ok((scopes, machines))
}

fn show(outcome: &Outcome) -> bool {
    println!("{outcome}");
    if let Some(broken) = &outcome.broken {
        println!("{broken}");
    }
    outcome.broken.is_none()
}

fn hunt_all(scopes: &[Scope], effort: Effort) -> bool {
    let mut survivors = Vec::new();
    for (index, mutant) in MUTANTS.iter().enumerate() {
        match hunt(index, scopes, effort) {
            Some((scope, broken)) => println!("killed    {:<24} {scope:<16} {}", mutant.name, broken.law),
            None => {
                println!("SURVIVES  {:<24} {}", mutant.name, mutant.does);
                survivors.push(mutant.name);
            }
        }
    }
    if !STALE.is_empty() {
        println!("STALE     not woven in, the sources have moved on: {}", STALE.join(", "));
    }
    println!("{} of {} mutants killed", MUTANTS.len() - survivors.len(), MUTANTS.len());
    survivors.is_empty() && STALE.is_empty()
}

fn list() {
    println!("Scopes:");
    for scope in SCOPES {
        println!("  {:<24} {}\n{:26} {}", scope.name, scope.about, "", scope.budget);
    }
    for machine in Machine::BOTH {
        println!("  {:<24} the session machine alone, every input", machine.name());
    }
    println!("Mutants:");
    for mutant in MUTANTS {
        println!("  {:<24} {}", mutant.name, mutant.does);
    }
}
