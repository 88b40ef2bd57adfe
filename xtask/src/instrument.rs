//! Tests under instruments: loom for orders of events, sanitizers and Miri for memory.

use anyhow::{Context as _, Result, bail};

use crate::shell::{self, line, step};
use crate::toolchain;

/// The only target that Jumpgate is built for where sanitizers are shipped ready-made.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Cases of each property test under Miri, which is some hundred times slower.
const MIRI_PROPTEST_CASES: &str = "8";
/// What runs under Miri: no foreign code, no sockets, no threads by the thousand. Package, then filters for its tests.
const MIRI_TESTS: [(&str, &[&str]); 2] = [
    ("jumpgate", &["sys::ring::tests", "--skip", "two_threads"]),
    ("jumpgate-protocol", &["replay::", "limits::", "machine::", "no_bytes_make_a_parser_panic"]),
];

/// Runs the models of `gateway/tests/interleavings.rs`, with that bound on preemptions if one is given.
pub(crate) fn loom(preemptions: Option<u32>) -> Result<()> {
    let mut command = shell::cargo();
    command.args(["test", "--locked", "--package", "jumpgate", "--test", "interleavings"]);
    if let Some(preemptions) = preemptions {
        command.env("LOOM_MAX_PREEMPTIONS", preemptions.to_string());
    }
    step(&line(&command));
    shell::run(&mut command)
}

/// Runs the tests of the protocol, the gateway and the fuzz targets under AddressSanitizer. ThreadSanitizer would need
/// a standard library built with it, which is not shipped.
pub(crate) fn sanitize() -> Result<()> {
    toolchain::nightly().context("AddressSanitizer needs a nightly compiler")?;
    let mut command = toolchain::nightly_cargo();
    command.args(["test", "--locked", "--target", TARGET, "--target-dir", "target/sanitize"]);
    command.args(["--package", "jumpgate-protocol", "--package", "jumpgate-common", "--package", "jumpgate", "--lib"]);
    command.env("RUSTFLAGS", "-Zsanitizer=address -Cforce-frame-pointers=yes");
    // The programs end with memory that the system takes back; looking for leaks needs ptrace, which containers forbid.
    command.env("ASAN_OPTIONS", "detect_leaks=0");
    step(&line(&command));
    shell::run(&mut command)
}

/// Runs under Miri what it can run.
pub(crate) fn miri() -> Result<()> {
    toolchain::nightly().context("Miri is a component of nightly toolchains")?;
    if shell::output(toolchain::nightly_cargo().args(["miri", "--version"])).is_none() {
        bail!("the nightly toolchain has no Miri; cure: rustup component add --toolchain nightly miri rust-src");
    }
    for (package, filters) in MIRI_TESTS {
        let mut command = toolchain::nightly_cargo();
        command.args(["miri", "test", "--package", package, "--lib", "--"]).args(filters);
        // The clock seeds property tests and failing cases go to a file: both are outside of Miri's island.
        command.env("MIRIFLAGS", "-Zmiri-disable-isolation").env("PROPTEST_CASES", MIRI_PROPTEST_CASES);
        step(&line(&command));
        shell::run(&mut command)?;
    }
    Ok(())
}
