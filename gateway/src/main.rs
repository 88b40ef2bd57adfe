//! The `jumpgate` program.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    jumpgate::cli::main()
}
