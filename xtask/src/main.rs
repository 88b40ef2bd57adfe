//! `cargo xtask`: the front door. Everything a newcomer, an operator or the CI does here starts with this command.
//!
//! It depends on no crate of the product: it runs cargo and the programs that cargo built, says what it does before it
//! does it, and does the set-up that a task misses.
#![forbid(unsafe_code)]

mod build;
mod docs;
mod doctor;
mod ebpf;
mod fuzz;
mod instrument;
mod netdev;
mod peers;
mod run;
mod setup;
mod shell;
mod toolchain;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use build::Profile;

/// Set-up, build, load, demo, test and measure Jumpgate.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, after_help = "Start with: cargo xtask demo")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the machine lacks (Debian packages; with --bpf the BPF toolchain too); says what it does
    Setup {
        /// Also what rebuilding the XDP programs needs; running and testing the gateway does not
        #[arg(long)]
        bpf: bool,
    },
    /// Build the gateway, the client and the laboratory
    Build {
        /// With optimisations
        #[arg(long)]
        release: bool,
    },
    /// Compile the XDP programs into ebpf/object/, and record from which sources and by which toolchain
    BuildEbpf {
        /// Change nothing; fail if the checked-in object is not byte for byte what the sources give
        #[arg(long)]
        check: bool,
    },
    /// Build what is stale, then attach to the interfaces that the configuration names and run the gateway on them
    Load {
        /// The gateway's configuration
        #[arg(long)]
        config: PathBuf,
    },
    /// Detach the XDP programs that a crashed gateway left on interfaces
    Unload {
        /// The interfaces
        #[arg(required = true)]
        interfaces: Vec<String>,
    },
    /// Watch a download through the tunnel survive five jumps between two uplinks (needs root)
    Demo {
        /// Passed on, for example --ipv6
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run all tests: unit, property, XDP programs in the kernel, laboratory end to end; names what it skips
    Test,
    /// Measure; arguments go to jumpgate-bench, --help too
    #[command(disable_help_flag = true)]
    Bench {
        /// Passed on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Simulate gateways and clients over bad networks, and check every invariant; arguments go to jumpgate-sim
    Sim {
        /// Passed on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Fuzz everything that reads what others wrote; without a nightly toolchain, mutate on stable Rust
    Fuzz {
        /// One target instead of all
        target: Option<String>,
        /// For how long, each
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Put what adds coverage into the corpus that is checked in
        #[arg(long)]
        keep: bool,
    },
    /// Explore every run of the protocol code within bounds, or hunt mutants; arguments go to jumpgate-model, --help too
    #[command(disable_help_flag = true)]
    Model {
        /// Passed on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run the lock-free protocols in every order that the memory model allows (also part of `test`)
    Loom {
        /// Preemptions in one run; each more multiplies the time by about ten
        #[arg(long)]
        preemptions: Option<u32>,
    },
    /// Run tests under AddressSanitizer (needs a nightly toolchain)
    Sanitize,
    /// Run what reaches through raw pointers under Miri (needs a nightly toolchain with the components miri and rust-src)
    Miri,
    /// Say whether this machine can run the gateway, one line for each question, with the cure
    Doctor {
        /// Interfaces to look at; all Ethernet devices if none is given
        interfaces: Vec<String>,
    },
    /// Write the documents that are generated from code
    Docs {
        /// Change nothing; fail if a document differs from what the code gives
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let result = run(Arguments::parse().task);
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Setup { bpf } => setup::run(bpf)?,
        Task::Build { release } => build::programs(if release { Profile::Release } else { Profile::Debug })?,
        Task::BuildEbpf { check: false } => ebpf::build()?,
        Task::BuildEbpf { check: true } => ebpf::check()?,
        Task::Load { config } => return run::load(&config),
        Task::Unload { interfaces } => return run::unload(&interfaces),
        Task::Demo { arguments } => return run::demo(&arguments),
        Task::Test => return run::test(),
        Task::Bench { arguments } => return run::bench(&arguments),
        Task::Sim { arguments } => return run::package("jumpgate-sim", &arguments),
        Task::Fuzz { target, seconds, keep } => fuzz::run(target.as_deref(), seconds, keep)?,
        Task::Model { arguments } => return run::package("jumpgate-model", &arguments),
        Task::Loom { preemptions } => instrument::loom(preemptions)?,
        Task::Sanitize => instrument::sanitize()?,
        Task::Miri => instrument::miri()?,
        Task::Doctor { interfaces } => return doctor::run(&interfaces),
        Task::Docs { check } => docs::run(check)?,
    }
    Ok(ExitCode::SUCCESS)
}
