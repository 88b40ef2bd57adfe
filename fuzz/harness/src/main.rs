//! Fuzzing without a fuzzer: replays, mutates, writes seeds. `cargo xtask fuzz` is the front door.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};
use jumpgate_fuzz::{TARGETS, Target, corpus, mutate};
use jumpgate_sim::Dice;

/// Runs the fuzz targets on stable Rust.
#[derive(Parser)]
#[command(name = "jumpgate-fuzz", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Name the targets
    List,
    /// Write the seeds of a target into a directory, for a fuzzer to start from
    Seeds {
        /// The target
        target: String,
        /// Where to
        directory: PathBuf,
    },
    /// Run single inputs
    Run {
        /// The target
        target: String,
        /// Bytes in hexadecimal digits
        #[arg(long)]
        hex: Vec<String>,
        /// Files
        files: Vec<PathBuf>,
    },
    /// Run seeds, corpus, and mutations of both for a while
    Random {
        /// The target
        target: String,
        /// For how long
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// What the mutations follow from; another each time if not given
        #[arg(long)]
        seed: Option<u64>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<(), String> {
    match task {
        Task::List => TARGETS.iter().for_each(|target| println!("{:16}{}", target.name, target.about)),
        Task::Seeds { target, directory } => seeds(find(&target)?, &directory)?,
        Task::Run { target, hex, files } => {
            let target = find(&target)?;
            for digits in &hex {
                mutate::run(target, &bytes(digits)?, "given");
            }
            for file in &files {
                let input = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
                mutate::run(target, &input, &file.display().to_string());
            }
        }
        Task::Random { target, seconds, seed } => {
            let seed = seed.unwrap_or_else(|| {
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
            });
            random(find(&target)?, Duration::from_secs(seconds), seed);
        }
    }
    Ok(())
}

fn find(name: &str) -> Result<&'static Target, String> {
    let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    TARGETS.iter().find(|target| target.name == name).ok_or_else(|| format!("no target {name}; there are {}", names()))
}

fn seeds(target: &Target, directory: &Path) -> Result<(), String> {
    fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    for (number, seed) in (target.seeds)().iter().enumerate() {
        let file = directory.join(format!("seed-{number:02}"));
        fs::write(&file, seed).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

fn random(target: &Target, length: Duration, seed: u64) {
    let known = corpus::known(target);
    println!("target {}: {} inputs known, seed {seed}", target.name, known.len());
    for (origin, input) in &known {
        mutate::run(target, input, origin);
    }
    let known: Vec<_> = known.into_iter().map(|(_, input)| input).collect();
    let (mut dice, start, mut runs) = (Dice::new(seed), Instant::now(), 0_u64);
    while start.elapsed() < length {
        mutate::run(target, &mutate::mutate(&known, &mut dice, target.longest), &format!("seed {seed}, run {runs}"));
        runs += 1;
    }
    println!("target {}: {runs} mutations in {} s, nothing found", target.name, length.as_secs());
}

fn bytes(digits: &str) -> Result<Vec<u8>, String> {
    let odd = || format!("not pairs of hexadecimal digits: {digits}");
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).map_err(|_| odd()));
    pairs.map(|pair| u8::from_str_radix(pair?, 16).map_err(|_| odd())).collect()
}
