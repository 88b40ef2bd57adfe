//! Tasks that run what was built: gateway, demo, tests, benchmarks.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::build::{self, Profile, program};
use crate::peers;
use crate::setup;
use crate::shell::{self, is_root, line, step};

/// How a user runs all tests: sudo has a PATH and a home of its own, and files of root must not mix with the user's.
const AS_ROOT: &str = r#"sudo env "PATH=$PATH" "HOME=$HOME" CARGO_TARGET_DIR=target/root cargo xtask test"#;

/// Runs the gateway in the foreground. It attaches the XDP programs itself, and detaches them when it ends.
pub(crate) fn load(config: &Path) -> Result<ExitCode> {
    let config = config.canonicalize().with_context(|| format!("no configuration {}", config.display()))?;
    build::build(&["jumpgate"], Profile::Release)?;
    let mut command = shell::as_root(program("jumpgate", Profile::Release))?;
    command.args(["run", "--config"]).arg(config);
    replace(command)
}

/// Detaches what a crashed gateway left.
pub(crate) fn unload(interfaces: &[String]) -> Result<ExitCode> {
    build::build(&["jumpgate"], Profile::Release)?;
    let mut command = shell::as_root(program("jumpgate", Profile::Release))?;
    command.args(unload_arguments(interfaces));
    replace(command)
}

fn unload_arguments(interfaces: &[String]) -> Vec<&str> {
    let named = interfaces.iter().flat_map(|interface| ["--interface", interface]);
    std::iter::once("unload").chain(named).collect()
}

/// Builds everything and runs the demo.
pub(crate) fn demo(arguments: &[OsString]) -> Result<ExitCode> {
    setup::tools()?;
    build::programs(Profile::Release)?;
    let mut command = shell::as_root(program("jumpgate-lab", Profile::Release))?;
    command.arg("demo").args(arguments);
    replace(command)
}

/// Runs all tests, and says at the end what was not run and why.
pub(crate) fn test() -> Result<ExitCode> {
    // What it installs is for the laboratory, which runs as root only.
    let missing_tools = if is_root() { setup::tools().err() } else { None };
    if is_root()
        && let Err(error) = setup::generator()
    {
        eprintln!("{error:#}");
    }
    let mut skipped = Vec::new();
    if !is_root() {
        skipped.push("tests that load XDP programs or make network namespaces: they need root");
    }
    let mut command = shell::cargo();
    command.args(["test", "--locked", "--workspace"]);
    let lacking = setup::missing_for_generator();
    let generator = format!("the load generator: building it needs the packages {}", lacking.join(" "));
    if !lacking.is_empty() {
        command.args(["--exclude", "jumpgate-bench"]);
        skipped.push(&generator);
    }
    step(&line(&command));
    let mut passed = shell::status(&mut command)?.success();

    match &missing_tools {
        None if is_root() => passed &= laboratory()?,
        None => skipped.push("the laboratory, end to end: it needs root"),
        Some(error) => {
            eprintln!("{error:#}");
            skipped.push("the laboratory, end to end: programs are missing that could not be installed");
        }
    }
    for what in &skipped {
        println!("SKIPPED {what}");
    }
    if !is_root() {
        println!("To run them too: {AS_ROOT}");
    }
    step(if passed { "all tests that ran have passed" } else { "FAILED" });
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Measures; the gateway that is measured under load is the program of the same build.
pub(crate) fn bench(arguments: &[OsString]) -> Result<ExitCode> {
    setup::tools()?;
    setup::generator()?;
    if peers::are_wanted(arguments) {
        peers::install()?;
    }
    build::build(&["jumpgate"], Profile::Release)?;
    package("jumpgate-bench", arguments)
}

/// Runs a program of the workspace, optimised.
pub(crate) fn package(package: &str, arguments: &[OsString]) -> Result<ExitCode> {
    build::build(&[package], Profile::Release)?;
    let mut command = Command::new(program(package, Profile::Release));
    command.args(arguments);
    replace(command)
}

fn laboratory() -> Result<bool> {
    build::programs(Profile::Debug)?;
    let mut command = shell::as_root(program("jumpgate-lab", Profile::Debug))?;
    command.arg("e2e");
    step(&line(&command));
    Ok(shell::status(&mut command)?.success())
}

/// Becomes the command, so that signals of terminals and service managers reach the program itself.
fn replace(mut command: Command) -> Result<ExitCode> {
    step(&line(&command));
    Err(command.exec()).with_context(|| format!("cannot run `{}`", line(&command)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumpgate_wants_every_interface_named_as_one() {
        let interfaces = ["eth1".to_owned(), "jg0".to_owned()];
        assert_eq!(unload_arguments(&interfaces), ["unload", "--interface", "eth1", "--interface", "jg0"]);
    }
}
