//! Fuzzing: by coverage where a nightly toolchain and cargo-fuzz are, else by blind mutation on stable Rust.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell::{self, root, step};
use crate::toolchain;

/// The package that names and runs the targets on stable Rust.
const HARNESS: &str = "jumpgate-fuzz";

/// Fuzzes one target or all, each for that long. With `keep`, what was found worth keeping goes into the corpus that is
/// checked in.
pub(crate) fn run(target: Option<&str>, seconds: u64, keep: bool) -> Result<()> {
    step("building the targets for stable Rust");
    shell::run(shell::cargo().args(["build", "--quiet", "--locked", "--package", HARNESS]))?;
    let known = shell::output(harness().arg("list")).context("cannot list the targets")?;
    let known: Vec<&str> = known.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let chosen = match target {
        None => known,
        Some(target) if known.contains(&target) => vec![target],
        Some(target) => bail!("no target {target}; there are {}", known.join(", ")),
    };
    let by_coverage = toolchain::nightly().and_then(|()| cargo_fuzz());
    if let Err(missing) = &by_coverage {
        println!("No coverage-guided fuzzing: {missing:#}");
        println!("Instead: mutations of seeds and corpus on stable Rust.");
        if keep {
            bail!("only coverage tells what is worth keeping");
        }
    }
    for target in chosen {
        if by_coverage.is_ok() {
            guided(target, seconds, keep)?;
        } else {
            let seconds = seconds.to_string();
            shell::run(harness().args(["random", target, "--seconds", &seconds]))?;
        }
    }
    Ok(())
}

/// One target under libFuzzer, from its seeds and its corpus; what is new goes into a directory of its own.
fn guided(target: &str, seconds: u64, keep: bool) -> Result<()> {
    let work = root().join("fuzz/target/corpus").join(target);
    let seeds = root().join("fuzz/target/seeds").join(target);
    let corpus = root().join("fuzz/corpus").join(target);
    for directory in [&work, &corpus] {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    shell::run(harness().args(["seeds", target]).arg(&seeds))?;
    step(&format!("fuzzing {target} for {seconds} s"));
    let limit = format!("-max_total_time={seconds}");
    let flags = ["-timeout=20", "-rss_limit_mb=4096", "-print_final_stats=1", "-verbosity=1"];
    shell::run(fuzzer(target).args([&work, &corpus, &seeds]).arg("--").arg(limit).args(flags))?;
    if keep {
        step(&format!("keeping what {target} found"));
        shell::run(fuzzer(target).args([&corpus, &work, &seeds]).args(["--", "-merge=1"]))?;
    }
    Ok(())
}

fn fuzzer(target: &str) -> Command {
    let mut command = toolchain::nightly_cargo();
    command.args(["fuzz", "run", target]);
    command
}

fn harness() -> Command {
    Command::new(program())
}

fn program() -> PathBuf {
    crate::build::program(HARNESS, crate::build::Profile::Debug)
}

/// Installs cargo-fuzz if it is missing.
fn cargo_fuzz() -> Result<()> {
    if shell::find("cargo-fuzz").is_some() {
        return Ok(());
    }
    step("installing cargo-fuzz from the registry");
    shell::run(shell::cargo().args(["install", "cargo-fuzz", "--locked"]))
        .context("cargo-fuzz is not there and could not be installed (cargo install cargo-fuzz)")
}
