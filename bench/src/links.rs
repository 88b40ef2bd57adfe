//! The network of a run: four pairs of virtual links in a namespace without a name.
//!
//! Nobody else sees such a namespace, and it ends with the process that made it, however that ends. So there is nothing
//! to clean up, not even after SIGKILL.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};

/// Counters of every link, in the namespace of the thread that opens it.
const COUNTERS: &str = "/proc/thread-self/net/dev";

/// Puts the calling thread, and every thread that it starts from now on, into a new network namespace.
pub(crate) fn enter_namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)
        .context("cannot make a network namespace; this benchmark loads XDP programs as well: run it as root (sudo)")?;
    // No router solicitations among the packets that are counted. A kernel without IPv6 sends none anyway.
    let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    Ok(())
}

/// Makes a pair of links with one queue each, and switches both on.
pub(crate) fn make_pair(one: &str, other: &str) -> Result<()> {
    const QUEUES: &str = "numrxqueues 1 numtxqueues 1";
    ip(&format!(
        "link add {one} {QUEUES} type veth peer name {other} {QUEUES}\nlink set {one} up\nlink set {other} up\n"
    ))
}

pub(crate) fn ip(commands: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run `ip`: install the package iproute2")?;
    child.stdin.take().context("`ip` has no input")?.write_all(commands.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "`ip` refused:\n{commands}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What a link counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkCounters {
    /// Packets that arrived.
    pub(crate) received: u64,
    /// Packets that it dropped on their way in.
    pub(crate) receive_drops: u64,
    /// Packets that it dropped on their way out.
    pub(crate) transmit_drops: u64,
}

/// Reads links' counters.
pub(crate) struct Counters {
    file: File,
    text: String,
}

impl Counters {
    /// Of the calling thread's namespace.
    pub(crate) fn open() -> Result<Self> {
        let file = File::open(COUNTERS).with_context(|| format!("cannot read {COUNTERS}"))?;
        Ok(Self { file, text: String::new() })
    }

    /// Of that link, now.
    pub(crate) fn of(&mut self, link: &str) -> Result<LinkCounters> {
        let read = |counters: &mut Self| -> io::Result<()> {
            counters.file.rewind()?;
            counters.text.clear();
            counters.file.read_to_string(&mut counters.text).map(drop)
        };
        read(self).with_context(|| format!("cannot read {COUNTERS}"))?;
        parse(&self.text, link).with_context(|| format!("{COUNTERS} has no counters of the link {link}"))
    }
}

/// The counters of one link: its name, a colon, eight numbers of receiving, eight of sending.
fn parse(text: &str, link: &str) -> Option<LinkCounters> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(link)?.strip_prefix(':'))?;
    let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
    let mut skip_to = |n| numbers.nth(n)?.ok();
    Some(LinkCounters { received: skip_to(1)?, receive_drops: skip_to(1)?, transmit_drops: skip_to(7)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
 a-out: 6000000  100000    0   17    0     0          0         0     5400      60    0    3    0     0       0          0
a-out2:       1       2    3    4    5     6          7         8        9      10   11   12   13    14      15         16
";

    #[test]
    fn the_counters_of_a_link_are_found_by_its_whole_name() {
        let expected = LinkCounters { received: 100_000, receive_drops: 17, transmit_drops: 3 };
        assert_eq!(parse(TEXT, "a-out"), Some(expected));
        let expected = LinkCounters { received: 2, receive_drops: 4, transmit_drops: 12 };
        assert_eq!(parse(TEXT, "a-out2"), Some(expected));
    }

    #[test]
    fn a_link_that_is_not_there_has_no_counters() {
        assert_eq!(parse(TEXT, "a"), None);
        assert_eq!(parse(TEXT, "out"), None);
        assert_eq!(parse("", "lo"), None);
    }
}
