//! Compiles the XDP programs, so that the same sources and toolchain give the same bytes on any machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell::{self, find, output, root, step};

#[path = "../../ebpf/object/fingerprint.rs"]
#[allow(unreachable_pub, reason = "a build script uses it as well")]
mod fingerprint;

use fingerprint::{OBJECT, RECORD, Record, source_hash};

/// BPF, little-endian.
const TARGET: &str = "bpfel-unknown-none";
/// Where Debian's package `rustc-web` has its compiler.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// Separator of CARGO_ENCODED_RUSTFLAGS.
const FLAG_SEPARATOR: &str = "\x1f";

/// A Rust compiler that has `core` for BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compiler {
    /// Debian's packages `rustc-web` and `libstd-rust-web-dev-bpf`.
    Debian,
    /// A nightly of rustup with `rust-src`.
    Nightly,
}

/// Compiles the programs and records what they were made of.
pub(crate) fn build() -> Result<()> {
    let (object, record) = compile()?;
    let path = root().join(OBJECT);
    if fs::read(&path).is_ok_and(|old| old == object) {
        step("the object is the same as before");
    }
    fs::write(&path, &object).with_context(|| format!("cannot write {OBJECT}"))?;
    fs::write(root().join(RECORD), text(&record)).with_context(|| format!("cannot write {RECORD}"))?;
    step(&format!("{OBJECT}: {} bytes, BLAKE3 {}", object.len(), record.object));
    Ok(())
}

/// Compiles the programs and compares them with the checked-in object.
pub(crate) fn check() -> Result<()> {
    let cure = "run `cargo xtask build-ebpf` and commit ebpf/object";
    let recorded = Record::read(root()).with_context(|| format!("cannot read {RECORD}; {cure}"))?;
    if source_hash(root())? != recorded.source {
        bail!("{OBJECT} is stale: its sources have changed; {cure}");
    }
    let (object, record) = compile()?;
    if record.toolchain != recorded.toolchain {
        bail!(
            "cannot compare: the object was built by another toolchain\n  recorded: {}\n  here:     {}\n{cure}, or use \
             the recorded one",
            recorded.toolchain,
            record.toolchain
        );
    }
    let checked_in = fs::read(root().join(OBJECT)).with_context(|| format!("cannot read {OBJECT}; {cure}"))?;
    if checked_in != object || record != recorded {
        bail!(
            "{OBJECT} is not what its sources give: BLAKE3 {} here, {} recorded; {cure}",
            record.object,
            recorded.object
        );
    }
    step(&format!("{OBJECT} is byte for byte what its sources give"));
    Ok(())
}

/// The compiler to use, if one is installed; Debian's first, because its version is the same on all machines.
pub(crate) fn compiler() -> Option<Compiler> {
    let libraries = output(Command::new(DEBIAN_RUSTC).args(["--print", "target-libdir", "--target", TARGET]));
    let has_core = |directory: String| {
        let files = fs::read_dir(directory).into_iter().flatten().flatten();
        files.map(|file| file.file_name()).any(|name| name.to_string_lossy().starts_with("libcore-"))
    };
    if libraries.is_some_and(has_core) {
        return Some(Compiler::Debian);
    }
    let sysroot = output(Command::new("rustc").args(["+nightly", "--print", "sysroot"]))?;
    let sources = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core");
    sources.is_dir().then_some(Compiler::Nightly)
}

/// The linker of BPF objects, if it is installed.
pub(crate) fn linker() -> Option<PathBuf> {
    find("bpf-linker")
}

impl Compiler {
    fn rustc(&self) -> Command {
        match self {
            Self::Debian => Command::new(DEBIAN_RUSTC),
            Self::Nightly => {
                let mut command = Command::new("rustc");
                command.arg("+nightly");
                command
            }
        }
    }

    fn cargo(&self) -> Command {
        match self {
            Self::Debian => {
                let mut command = shell::cargo();
                // Debian's compiler is a stable one; aya-ebpf wants nightly features, which this lets it have.
                command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                command
            }
            Self::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo"]).env_remove("RUSTC").env_remove("RUSTUP_TOOLCHAIN");
                command
            }
        }
    }

    /// Name and versions, as recorded beside the object.
    fn describe(&self, linker: &Path) -> Result<String> {
        let verbose = output(self.rustc().arg("-vV")).context("cannot run rustc -vV")?;
        let rustc = verbose.lines().next().unwrap_or_default();
        let llvm = verbose.lines().find(|line| line.starts_with("LLVM version")).unwrap_or_default();
        let linker = output(Command::new(linker).arg("--version")).context("cannot run bpf-linker --version")?;
        Ok(format!("{rustc}, {llvm}, {linker}"))
    }
}

fn compile() -> Result<(Vec<u8>, Record)> {
    let missing = "; `cargo xtask setup --bpf` installs it";
    let compiler = compiler().with_context(|| format!("no Rust compiler for BPF is installed{missing}"))?;
    let linker = linker().with_context(|| format!("bpf-linker is not installed{missing}"))?;
    let toolchain = compiler.describe(&linker)?;
    step(&format!("compiling the XDP programs with {toolchain}"));

    let source = source_hash(root())?;
    let target_dir = root().join("target/ebpf");
    let output_dir = target_dir.join(TARGET);
    // Cargo does not notice that the linker has changed.
    if output_dir.exists() {
        fs::remove_dir_all(&output_dir).with_context(|| format!("cannot remove {}", output_dir.display()))?;
    }
    let mut command = compiler.cargo();
    command
        .current_dir(root().join("ebpf/xdp"))
        .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", remaps()?.join(FLAG_SEPARATOR))
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    if compiler == Compiler::Nightly {
        command.arg("-Zbuild-std=core");
    }
    shell::run(&mut command)?;
    let path = output_dir.join("release/jumpgate-xdp");
    let object = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let record = Record { source, object: blake3::hash(&object).to_hex().to_string(), toolchain };
    Ok((object, record))
}

/// Flags that keep this machine's directories out of the object.
fn remaps() -> Result<Vec<String>> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(home?.join(".cargo")));
    let cargo_home = cargo_home.context("neither CARGO_HOME nor HOME is set")?;
    let remap = |from: &Path, to| format!("--remap-path-prefix={}={to}", from.display());
    Ok(vec![remap(root(), "jumpgate"), remap(&cargo_home, "cargo")])
}

fn text(record: &Record) -> String {
    let Record { source, object, toolchain } = record;
    format!(
        "# What jumpgate-xdp.bpf.o was built from and by. Written by `cargo xtask build-ebpf`; do not edit.\n\
         source {source}\nobject {object}\ntoolchain {toolchain}\n"
    )
}
