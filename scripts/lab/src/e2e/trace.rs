//! The audit trace of the gateway under test: after every test it has to be whole and keep the rules, and during an
//! attack it has to name what was refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::wait_for;
use crate::programs::Programs;
use crate::topology::Lab;

/// What a busy machine may add to the bounds of time that the verifier judges by, besides their tick: the trace has the
/// time of the step, and a late step is late.
pub(super) const SLACK: &str = "500";
/// How long the sink may take to write what was recorded.
const WRITTEN: Duration = Duration::from_secs(3);
/// How long the verifier may take; it reads a few hundred lines.
const VERIFY_LIMIT: Duration = Duration::from_secs(20);
/// Exit codes of `jumpgate audit verify`.
const VALID: i32 = 0;
const INCOMPLETE: i32 = 3;

/// Where the gateways of a lab keep their traces.
pub(super) fn directory(lab: &Lab) -> PathBuf {
    lab.run.directory().join("audit")
}

/// The files of every chain below a directory.
pub(super) fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let below = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    below.filter(|path| path.extension().is_some_and(|kind| kind == "jsonl")).collect()
}

/// Whether a trace has a record with that reason code, as its reason or in its details.
fn names(lab: &Lab, reason: &str) -> bool {
    let wanted = format!("\"{reason}\"");
    files(&directory(lab)).iter().any(|file| fs::read_to_string(file).is_ok_and(|text| text.contains(&wanted)))
}

/// Waits until the trace names each of those reason codes.
pub(super) fn tells(lab: &Lab, reasons: impl IntoIterator<Item = String>) -> Result<()> {
    reasons.into_iter().try_for_each(|reason| {
        wait_for(&format!("the audit trace to name {reason}"), WRITTEN, || Ok(names(lab, &reason)))
    })
}

/// Judges what the gateways of a test wrote, and removes it, so that the next test begins without a trace. A gateway
/// that was killed leaves a trace without an end; that is the only thing that may be missing.
pub(super) fn judge(lab: &Lab) -> Result<()> {
    let traces = directory(lab);
    let killed = lab.take_killed();
    let chains = chains(&traces);
    if chains.is_empty() {
        return Ok(());
    }
    let mut command = Command::new(&Programs::find()?.gateway);
    command.args(["audit", "verify", "--slack", SLACK]).args(chains);
    let output = lab.run.output(&mut command, "", VERIFY_LIMIT)?;
    match output.status.code() {
        Some(VALID) => {}
        Some(INCOMPLETE) if killed => {}
        code => bail!("the audit trace is not VALID (exit {code:?}):\n{}{}", output.stdout, output.stderr),
    }
    fs::remove_dir_all(&traces).with_context(|| format!("removing {}", traces.display()))
}

/// One directory for each chain, so for each key of a gateway. One that was refused its start has written nothing.
fn chains(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !files(path).is_empty()).collect()
}
