//! A network namespace of a run: commands inside it, and sockets made inside it.

use std::fs::{self, File};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::run::Run;

/// A named network namespace. It is deleted with its run.
#[derive(Clone)]
pub struct Namespace {
    run: Run,
    name: String,
}

impl std::fmt::Debug for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Namespace({})", self.name)
    }
}

impl Namespace {
    /// Creates `<tag>-<role>` with its loopback up and no duplicate address detection, which would only cost a second.
    pub fn create(run: &Run, role: &str) -> Result<Self> {
        let name = format!("{}-{role}", run.tag());
        run.check(Command::new("ip").args(["netns", "add", &name]), "")?;
        let namespace = Self { run: run.clone(), name };
        namespace.sysctl(&[
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
        ])?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its full name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The run it belongs to.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// `program` inside this namespace, ready for arguments.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs lines of `ip` commands, written without the word `ip`.
    pub fn ip(&self, lines: &str) -> Result<()> {
        self.run
            .check(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), lines)
            .map(drop)
            .with_context(|| format!("in namespace {}: {lines}", self.name))
    }

    /// Makes this namespace forward packets of both families between its links.
    pub fn forward(&self) -> Result<()> {
        self.sysctl(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])
    }

    /// Writes settings below `/proc/sys/net`.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            for (key, value) in settings {
                fs::write(format!("/proc/sys/net/{key}"), value).with_context(|| format!("setting {key} = {value}"))?;
            }
            Ok(())
        })?
    }

    /// Calls `work` inside this namespace, on a thread of its own. Sockets opened there stay in the namespace, whichever
    /// thread uses them afterwards.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        enter(&self.name, work)
    }
}

/// As [`Namespace::enter`], by name: for a process that did not make the namespace.
pub fn enter<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let path = format!("/run/netns/{name}");
    let file = File::open(&path).with_context(|| format!("opening {path}"))?;
    thread::scope(|scope| {
        let inside = scope.spawn(|| setns(&file, CloneFlags::CLONE_NEWNET).map(|()| work()));
        match inside.join() {
            Ok(result) => result.with_context(|| format!("entering namespace {name}; this needs root")),
            Err(_) => Err(anyhow!("the work inside namespace {name} panicked")),
        }
    })
}
