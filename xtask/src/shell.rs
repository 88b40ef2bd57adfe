//! Running other programs, and saying so.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SigSet, Signal};

/// Where administrator's tools are, which a user's PATH may lack.
const SYSTEM_PATHS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Announces a step.
pub(crate) fn step(what: &str) {
    println!("==> {what}");
}

/// The cargo that started us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).env("PATH", search_path());
    command
}

/// Runs a command to its end, its output shown; an error unless it succeeded.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// Runs a command to its end, its output shown.
///
/// Ctrl-C reaches the command too, which may have to clean up: we die of it when the command has ended, not before.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    let mut child = command.spawn().with_context(|| format!("cannot run `{}`", line(command)))?;
    // Only now, because the command would inherit it.
    let interrupt = SigSet::from(Signal::SIGINT);
    interrupt.thread_block().context("cannot hold back SIGINT")?;
    let status = child.wait();
    interrupt.thread_unblock().context("cannot let SIGINT through")?;
    status.with_context(|| format!("cannot wait for `{}`", line(command)))
}

/// What a command prints, if it can be run and succeeds.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let program = command.get_program();
    // Rustup starts us with a long path to it.
    let program = if Path::new(program).ends_with("cargo") { OsStr::new("cargo") } else { program };
    let words = std::iter::once(program).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Where a program is, if it is installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&search_path()).map(|directory| directory.join(program)).find(|file| is_executable(file))
}

/// PATH with the administrator's tools, for us and for what we start: `su` without a dash keeps a user's PATH.
fn search_path() -> OsString {
    with_system_paths(&env::var_os("PATH").unwrap_or_default())
}

fn with_system_paths(path: &OsStr) -> OsString {
    let missing =
        SYSTEM_PATHS.map(PathBuf::from).into_iter().filter(|system| env::split_paths(path).all(|p| p != *system));
    // It fails only for directories with a colon, and these come from splitting at colons.
    env::join_paths(env::split_paths(path).chain(missing)).unwrap_or_else(|_| path.to_owned())
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// A command that runs as root: by itself if we are, by sudo otherwise.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root() {
        let mut command = Command::new(program);
        command.env("PATH", search_path());
        return Ok(command);
    }
    let Some(sudo) = find("sudo") else {
        bail!("`{}` needs root, and there is no sudo: run this as root", program.as_ref().to_string_lossy());
    };
    let mut command = Command::new(sudo);
    command.arg("--").arg(program);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_path_gets_the_directories_it_lacks_behind_its_own() {
        let path = with_system_paths("/home/me/bin:/usr/sbin:/usr/bin".as_ref());
        assert_eq!(path, "/home/me/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/sbin");
        assert_eq!(with_system_paths(&path), path);
    }

    #[test]
    fn a_command_can_be_interrupted_and_reports_its_end() {
        // SIGINT is bit 1 of the mask. Not by sending it: whoever runs the tests in the background has it ignored.
        let unblocked = "grep -q '^SigBlk:.*[014589cd]$' /proc/self/status && exit 3";
        let status = status(Command::new("sh").args(["-c", unblocked])).unwrap();
        assert_eq!(status.code(), Some(3), "the signal is held back from us, not from the command");
    }
}
