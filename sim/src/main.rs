//! `jumpgate-sim`: one run of the simulator, exactly repeatable by its seed.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use jumpgate_protocol::policy::Profile;
use jumpgate_protocol::time::Span;
use jumpgate_sim::Churn;

/// Simulates a gateway and its clients over bad networks and checks every invariant. Equal arguments, equal run.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many clients
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    sessions: u32,
    /// How much virtual time, in minutes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_440))]
    minutes: u32,
    /// Profile of the policy
    #[arg(long, value_enum, default_value_t = ProfileName::Mobile)]
    profile: ProfileName,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProfileName {
    Default,
    Mobile,
    Fast,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let profile = match arguments.profile {
        ProfileName::Default => Profile::Default,
        ProfileName::Mobile => Profile::Mobile,
        ProfileName::Fast => Profile::Fast,
    };
    let churn = Churn {
        seed: arguments.seed,
        sessions: arguments.sessions as usize,
        length: Span::from_millis(u64::from(arguments.minutes) * 60_000),
        profile,
    };
    println!("seed {}, {} sessions, {} virtual minutes", arguments.seed, arguments.sessions, arguments.minutes);
    let outcome = churn.run();
    println!("{outcome}");
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
