//! The nightly toolchain: fuzzers, sanitizers and Miri want one; nothing else does.

use std::process::Command;

use anyhow::{Result, bail};

use crate::shell::{self, root};

/// Whether there is a nightly toolchain.
pub(crate) fn nightly() -> Result<()> {
    if shell::find("rustup").is_none() {
        bail!("no rustup, which chooses between toolchains; cure: https://rustup.rs");
    }
    if shell::output(nightly_cargo().arg("--version")).is_none() {
        bail!("no nightly toolchain; cure: rustup toolchain install nightly");
    }
    Ok(())
}

/// The cargo of the nightly toolchain, at the root.
pub(crate) fn nightly_cargo() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).current_dir(root());
    // What the stable cargo that started us has set would lead the nightly one astray.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
    command
}
