//! The WireGuard gateways that Jumpgate is compared with, and how each is started at its best on one CPU.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Where `cargo xtask bench peers` puts the programs that it builds, beside the directory of this program.
const BUILT: &str = "peers/bin";
/// Descriptors that a program may open at most, where this machine allows so many.
const DESCRIPTORS: u32 = 65_536;
/// Descriptors that boringtun has for each peer that it has heard: a connected socket, twice.
const DESCRIPTORS_PER_PEER: u32 = 2;
/// Descriptors that a program needs besides.
const DESCRIPTORS_BESIDES: u32 = 256;

/// One of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// The reference in Go
    WireguardGo,
    /// Cloudflare's, in Rust
    Boringtun,
    /// Mullvad's, in Rust
    Gotatun,
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::WireguardGo, Self::Boringtun, Self::Gotatun];

    /// Its name in reports and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun",
            Self::Gotatun => "gotatun",
        }
    }

    /// Its program's name.
    const fn program(self) -> &'static str {
        match self {
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun-cli",
            Self::Gotatun => "gotatun",
        }
    }

    /// What is set for it, and what it has by itself, for the report.
    pub const fn settings(self) -> &'static str {
        match self {
            Self::WireguardGo => {
                "GOMAXPROCS=1; socket buffers of the system's default size, as it leaves them; no UDP GRO and no \
                 segmentation offload on the TUN device, which versions before 2023 do not have"
            }
            Self::Boringtun => {
                "one thread; a connected socket for each peer, its default, unless this machine allows fewer descriptors \
                 than two for each (then --disable-connected-udp: it would end); socket buffers of the system's default \
                 size, as it leaves them; no UDP GRO, which it does not have"
            }
            Self::Gotatun => {
                "one worker thread of its runtime; it asks for socket buffers of 7 MiB and gets what the system \
                 allows; UDP GRO, with GRO switched on at its link"
            }
        }
    }

    /// Whether it takes several packets of one flow from the kernel as one.
    pub(super) const fn uses_gro(self) -> bool {
        matches!(self, Self::Gotatun)
    }

    /// Finds its program: the given one, else what was built for this benchmark, else what is installed.
    pub(super) fn find(self, given: Option<&Path>) -> Result<PathBuf> {
        if let Some(path) = given {
            ensure!(path.exists(), "{}: there is no {}", self.name(), path.display());
            return Ok(path.to_owned());
        }
        let built = std::env::current_exe()?
            .parent()
            .and_then(Path::parent)
            .map(|target| target.join(BUILT).join(self.program()));
        let installed = std::env::var_os("PATH")
            .map(|path| std::env::split_paths(&path).map(|place| place.join(self.program())).collect::<Vec<_>>());
        built
            .into_iter()
            .chain(installed.unwrap_or_default())
            .find(|path| path.is_file())
            .with_context(|| format!("{} is not here; `cargo xtask bench peers` installs it", self.program()))
    }

    /// What the program calls itself.
    pub(super) fn version(self, program: &Path) -> String {
        let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
        // The Go program says it in several lines, with a sentence about kernel modules around it.
        text.lines().next().filter(|line| !line.is_empty()).unwrap_or("unknown").to_owned()
    }

    /// The command that starts it in the foreground with that TUN device, for so many clients, with so many descriptors.
    /// It dies with the thread that started it, whatever becomes of that.
    pub(super) fn command(self, program: &Path, device: &str, clients: u32, descriptors: u32) -> Command {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={descriptors}")).args(["setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
        let arguments: &[&str] = match self {
            Self::WireguardGo => &["-f"],
            Self::Boringtun => &["-f", "--disable-drop-privileges", "--threads", "1", "--verbosity", "error"],
            Self::Gotatun => &["-f", "--disable-drop-privileges", "--verbosity", "error"],
        };
        command.args(arguments);
        if self == Self::Boringtun && clients * DESCRIPTORS_PER_PEER + DESCRIPTORS_BESIDES > descriptors {
            command.arg("--disable-connected-udp");
        }
        command.arg(device);
        command.env("GOMAXPROCS", "1").env("TOKIO_WORKER_THREADS", "1").env("LOG_LEVEL", "error");
        // It warns of the kernel's own WireGuard otherwise, and waits.
        command.env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1").env("WG_PROCESS_FOREGROUND", "1");
        command
    }
}

/// How many descriptors a program may be given here.
pub(super) fn descriptors() -> u32 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    hard_limit(&limits).map_or(DESCRIPTORS, |limit| limit.min(DESCRIPTORS))
}

/// The hard limit of open files in /proc/PID/limits; none if there is no limit.
fn hard_limit(limits: &str) -> Option<u32> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// A program that the user names instead of the one that is found: `boringtun=/opt/boringtun-cli`.
pub(super) fn parse_given(text: &str) -> Result<(Peer, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or_else(|| format!("{text}: write NAME=PATH"))?;
    let peer = Peer::ALL.into_iter().find(|peer| peer.name() == name);
    let peer = peer.ok_or_else(|| format!("{name} is none of {}", Peer::ALL.map(Peer::name).join(", ")))?;
    if AsRef::<OsStr>::as_ref(path).is_empty() {
        return Err(format!("{text}: write NAME=PATH"));
    }
    Ok((peer, PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boringtun_gets_no_socket_for_each_peer_where_it_would_run_out_of_descriptors() {
        let has_switch = |peer: Peer, clients| {
            let command = peer.command(Path::new("/p"), "tun9", clients, 20_000);
            command.get_args().any(|word| word == "--disable-connected-udp")
        };
        assert!(!has_switch(Peer::Boringtun, 9_000));
        assert!(has_switch(Peer::Boringtun, 10_000));
        assert!(!has_switch(Peer::Gotatun, 10_000));
    }

    #[test]
    fn the_hard_limit_of_descriptors_is_the_second_number() {
        let text = "Max processes  1  2  processes\nMax open files            1024                 20000                files\n";
        assert_eq!(hard_limit(text), Some(20_000));
        assert_eq!(hard_limit("Max open files 1024 unlimited files\n"), None);
        assert_eq!(hard_limit(""), None);
    }

    #[test]
    fn a_given_program_is_read_with_its_name() {
        assert_eq!(parse_given("boringtun=/opt/b"), Ok((Peer::Boringtun, PathBuf::from("/opt/b"))));
        assert!(parse_given("boringtun").is_err());
        assert!(parse_given("boringtun=").is_err());
        assert!(parse_given("openvpn=/opt/o").unwrap_err().contains("wireguard-go, boringtun, gotatun"));
    }

    #[test]
    fn a_program_that_is_not_there_is_said_by_name() {
        let error = Peer::Gotatun.find(Some(Path::new("/nowhere/gotatun"))).unwrap_err().to_string();
        assert!(error.contains("gotatun") && error.contains("/nowhere"), "{error}");
    }

    #[test]
    fn every_program_is_started_with_one_thread_and_dies_with_us() {
        for peer in Peer::ALL {
            let command = peer.command(Path::new("/p"), "tun9", 16, 20_000);
            let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
            assert!(words.windows(2).any(|two| two == ["--pdeathsig", "KILL"]), "{words:?}");
            assert_eq!(words.last().map(String::as_str), Some("tun9"));
            assert!(command.get_envs().any(|(name, value)| name == "GOMAXPROCS" && value == Some("1".as_ref())));
        }
    }
}
