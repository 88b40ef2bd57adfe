//! Installs the WireGuard gateways of user space that `bench peers` compares Jumpgate with, where they are missing.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::build::{Profile, program};
use crate::setup;
use crate::shell::{self, find, step};

/// A program that comes as a crate.
struct Crate {
    name: &'static str,
    /// A figure is one of a version.
    version: &'static str,
    program: &'static str,
}

const CRATES: [Crate; 2] = [
    Crate { name: "boringtun-cli", version: "0.7.1", program: "boringtun-cli" },
    Crate { name: "gotatun-cli", version: "0.10.2", program: "gotatun" },
];

/// Whether these arguments of `bench` ask for the comparison itself, and not for its help.
pub(crate) fn are_wanted(arguments: &[OsString]) -> bool {
    let is_help = |argument: &OsString| argument == "--help" || argument == "-h";
    arguments.first().is_some_and(|first| first == "peers") && !arguments.iter().any(is_help)
}

/// Installs what is missing: Debian's wireguard-go, and the crates into a directory of the project's own.
pub(crate) fn install() -> Result<()> {
    setup::wireguard_go()?;
    let directory = directory();
    for Crate { name, version, program } in CRATES {
        if directory.join("bin").join(program).exists() {
            continue;
        }
        step(&format!(
            "{name} {version} is missing (compared with Jumpgate): building it into {}",
            directory.display()
        ));
        let mut command = idle_cargo();
        command.args(["install", name, "--version", &format!("={version}"), "--locked", "--root"]);
        command.arg(&directory).arg("--target-dir").arg(directory.join("build"));
        shell::run(&mut command).with_context(|| format!("{name} could not be installed"))?;
    }
    Ok(())
}

/// `target/peers`, beside the directories of the build.
fn directory() -> PathBuf {
    let mut directory = program("peers", Profile::Release);
    directory.pop();
    directory.set_file_name("peers");
    directory
}

/// Cargo at idle priority: the build takes minutes, and nobody waits for another's program.
fn idle_cargo() -> Command {
    let cargo = shell::cargo();
    if find("chrt").is_none() {
        return cargo;
    }
    let mut command = Command::new("chrt");
    command.args(["--idle", "0", "nice", "-n", "19"]).arg(cargo.get_program());
    command.current_dir(shell::root());
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::line;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn nothing_is_installed_for_another_benchmark_or_for_help() {
        assert!(are_wanted(&words("peers --quick")));
        assert!(!are_wanted(&words("peers --help")));
        assert!(!are_wanted(&words("storm --json peers")));
        assert!(!are_wanted(&[]));
    }

    #[test]
    fn programs_lie_beside_the_builds_directories() {
        assert!(
            directory().ends_with("peers") && directory().parent() == program("x", Profile::Release).ancestors().nth(2)
        );
    }

    #[test]
    fn a_build_of_anothers_program_has_the_lowest_priority() {
        if find("chrt").is_some() {
            assert!(line(&idle_cargo()).starts_with("chrt --idle 0 nice -n 19"));
        }
    }
}
