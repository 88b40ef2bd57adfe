//! `jump`: the client's program. Everything is in the library.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    jump::cli::Cli::parse().run()
}
