//! Building the programs of the product.

use std::path::PathBuf;

use anyhow::Result;

use crate::shell::{self, root, step};

/// The gateway, the client and the laboratory that runs both.
const PACKAGES: [&str; 3] = ["jumpgate", "jump", "jumpgate-lab"];

/// How to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// For tests.
    Debug,
    /// For use.
    Release,
}

impl Profile {
    const fn directory(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Release => "release",
        }
    }
}

/// Builds all programs.
pub(crate) fn programs(profile: Profile) -> Result<()> {
    build(&PACKAGES, profile)
}

/// Builds the programs of these packages.
pub(crate) fn build(packages: &[&str], profile: Profile) -> Result<()> {
    step(&format!("building {} ({})", packages.join(", "), profile.directory()));
    let mut command = shell::cargo();
    command.args(["build", "--locked", "--bins"]);
    for package in packages {
        command.args(["--package", package]);
    }
    if profile == Profile::Release {
        command.arg("--release");
    }
    shell::run(&mut command)
}

/// Where a built program is.
pub(crate) fn program(name: &str, profile: Profile) -> PathBuf {
    // Cargo runs in the root, so that it takes a relative directory from there.
    let target = root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
    target.join(profile.directory()).join(name)
}
