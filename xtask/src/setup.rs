//! Installs what the machine lacks, and only that.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::ebpf;
use crate::shell::{self, find, output, step};

/// The linker's version that fits LLVM 22, which Debian's rustc-web uses.
const BPF_LINKER_VERSION: &str = "0.13.0";
/// Debian's LLVM 22, for the linker's build.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// The Debian packages with a Rust compiler and `core` for BPF, and the LLVM of that compiler.
const BPF_PACKAGES: [&str; 3] = ["rustc-web", "libstd-rust-web-dev-bpf", "llvm-22-dev"];

/// A program that some task runs, and the Debian package that has it.
struct Tool {
    program: &'static str,
    package: &'static str,
    purpose: &'static str,
}

const TOOLS: [Tool; 4] = [
    Tool { program: "cc", package: "build-essential", purpose: "compiles the C parts of aws-lc-rs, links everything" },
    Tool { program: "ip", package: "iproute2", purpose: "namespaces of the laboratory" },
    Tool { program: "nft", package: "nftables", purpose: "NAT routers of the laboratory" },
    Tool { program: "ethtool", package: "ethtool", purpose: "offloads and queues of its interfaces" },
];

/// What the load generator's C parts (libbpf and libxdp, below xsk-rs) are built with. Only `bench` and `test` build it.
const GENERATOR_TOOLS: [Tool; 4] = [
    Tool { program: "clang", package: "clang", purpose: "reads the C headers of libxdp" },
    Tool { program: "m4", package: "m4", purpose: "writes a part of libxdp" },
    Tool { program: "pkg-config", package: "pkg-config", purpose: "finds libelf and zlib" },
    Tool { program: "make", package: "make", purpose: "builds libbpf" },
];
/// The same for libraries: a header of each, and the Debian package that has it.
const GENERATOR_LIBRARIES: [(&str, &str); 2] =
    [("/usr/include/libelf.h", "libelf-dev"), ("/usr/include/zlib.h", "zlib1g-dev")];

/// The gateway in Go that `bench peers` compares with.
const WIREGUARD_GO: &str = "wireguard-go";

/// Installs Debian's wireguard-go if it is missing.
pub(crate) fn wireguard_go() -> Result<()> {
    if find(WIREGUARD_GO).is_some() {
        return Ok(());
    }
    step("wireguard-go is missing (compared with Jumpgate): package wireguard-go");
    install(&[WIREGUARD_GO])
}

/// Packages that building the load generator lacks here.
pub(crate) fn missing_for_generator() -> Vec<&'static str> {
    let tools = GENERATOR_TOOLS.iter().filter(|tool| find(tool.program).is_none()).map(|tool| tool.package);
    let libraries = GENERATOR_LIBRARIES.iter().filter(|(header, _)| !Path::new(header).exists());
    tools.chain(libraries.map(|(_, package)| *package)).collect()
}

/// Installs what building the load generator lacks.
pub(crate) fn generator() -> Result<()> {
    let missing = missing_for_generator();
    if missing.is_empty() {
        return Ok(());
    }
    step(&format!("the load generator needs {} to be built", missing.join(", ")));
    install(&missing)
}

/// Sets up what the tasks need; with `bpf`, also what compiling the XDP programs needs.
pub(crate) fn run(bpf: bool) -> Result<()> {
    if !tools()? {
        step("every program that build and demo need is there");
    }
    generator()?;
    if bpf {
        compiler()?;
        linker()?;
    }
    Ok(())
}

/// Installs missing programs; says whether there were any.
pub(crate) fn tools() -> Result<bool> {
    let missing: Vec<&Tool> = TOOLS.iter().filter(|tool| find(tool.program).is_none()).collect();
    for tool in &missing {
        step(&format!("{} is missing ({}): package {}", tool.program, tool.purpose, tool.package));
    }
    if missing.is_empty() {
        return Ok(false);
    }
    let packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    install(&packages)?;
    Ok(true)
}

fn compiler() -> Result<()> {
    match ebpf::compiler() {
        Some(ebpf::Compiler::Debian) => step("Rust compiler for BPF: Debian's rustc-web"),
        Some(ebpf::Compiler::Nightly) => step("Rust compiler for BPF: rustup's nightly with rust-src"),
        None if find("apt-get").is_some() && are_available(&BPF_PACKAGES) => install(&BPF_PACKAGES)?,
        None if find("rustup").is_some() => {
            step("installing rustup's nightly with rust-src");
            let arguments = ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"];
            shell::run(Command::new("rustup").args(arguments))?;
        }
        None => bail!(
            "neither Debian's {} nor rustup is here: install one, for example from https://rustup.rs, and repeat",
            BPF_PACKAGES.join(", ")
        ),
    }
    Ok(())
}

fn linker() -> Result<()> {
    if let Some(path) = ebpf::linker() {
        step(&format!("bpf-linker: {}", path.display()));
        return Ok(());
    }
    step("building bpf-linker (a minute or two)");
    let mut command = shell::cargo();
    command.args(["install", "bpf-linker", "--version", BPF_LINKER_VERSION]);
    if ebpf::compiler() == Some(ebpf::Compiler::Debian) {
        // The linker reads the compiler's bitcode, so both must have the same LLVM.
        command.args(["--no-default-features", "--features", "llvm-22"]).env("LLVM_PREFIX", LLVM_PREFIX);
    }
    shell::run(&mut command)
}

fn install(packages: &[&str]) -> Result<()> {
    if find("apt-get").is_none() {
        bail!(
            "this is no Debian: install what these Debian packages have with your package manager, then repeat: {}",
            packages.join(" ")
        );
    }
    step(&format!("apt-get install {}", packages.join(" ")));
    let install = || -> Result<Command> {
        let mut command = shell::as_root("apt-get")?;
        command.args(["install", "--yes", "--no-install-recommends"]).args(packages);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        Ok(command)
    };
    if shell::status(&mut install()?)?.success() {
        return Ok(());
    }
    step("that failed, perhaps because the package lists are old: apt-get update, and again");
    shell::run(shell::as_root("apt-get")?.arg("update"))?;
    shell::run(&mut install()?)
}

/// Whether apt knows a version of each of these packages to install.
fn are_available(packages: &[&str]) -> bool {
    let is_known =
        |package: &&str| output(Command::new("apt-cache").args(["show", "--no-all-versions", *package])).is_some();
    let all_known = || packages.iter().all(is_known);
    if all_known() {
        return true;
    }
    // A fresh machine may have no package lists at all, or only those of its installation.
    let updated = shell::as_root("apt-get").and_then(|mut apt| shell::run(apt.arg("update")));
    updated.is_ok() && all_known()
}
