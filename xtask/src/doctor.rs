//! Whether this machine can run the gateway: one line for each question, with the cure.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::ebpf;
use crate::netdev::{self, Features};
use crate::shell::{find, output};

/// The first kernel whose XDP programs may see frames of several buffers (`xdp.frags`).
const KERNEL_MIN: (u32, u32) = (5, 18);
/// The first kernel that tells what a driver can do with XDP.
const KERNEL_TELLS: &str = "6.3";
/// Largest MTU of a native program on drivers that hand it one page only; measured on veth.
const ONE_BUFFER_MTU: u32 = 3506;
/// Capabilities by their number in `CapEff`: for maps and programs, for attaching, for AF_XDP sockets.
const CAPABILITIES: [(&str, u32); 3] = [("CAP_BPF", 39), ("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13)];
/// Includes CAP_BPF.
const CAP_SYS_ADMIN: u32 = 21;
/// The device type of Ethernet in sysfs (ARPHRD_ETHER).
const ARPHRD_ETHER: &str = "1";

/// How good an answer is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grade {
    Good,
    /// It works, but less well than it could.
    Warning,
    Bad,
}

/// Answers printed so far.
struct Report {
    bad: u32,
}

impl Report {
    /// One line; `cure` is shown unless the answer is good.
    fn say(&mut self, grade: Grade, question: &str, answer: &str, cure: &str) {
        let mark = match grade {
            Grade::Good => "ok  ",
            Grade::Warning => "warn",
            Grade::Bad => "BAD ",
        };
        self.bad += u32::from(grade == Grade::Bad);
        let cure = if grade == Grade::Good { String::new() } else { format!(" -> {cure}") };
        println!("{mark}  {question:<18} {answer}{cure}");
    }
}

/// Asks about the machine and the interfaces; all Ethernet devices if none is named.
pub(crate) fn run(interfaces: &[String]) -> Result<ExitCode> {
    let mut report = Report { bad: 0 };
    machine(&mut report);
    let features = netdev::features();
    let interfaces = if interfaces.is_empty() { ethernet_devices() } else { interfaces.to_vec() };
    for interface in &interfaces {
        if !sysfs(interface).is_dir() {
            bail!("there is no interface {interface}: `ip link` lists them");
        }
        let index = read(&sysfs(interface).join("ifindex")).parse().unwrap_or(0);
        let known = features.as_ref().ok().map(|devices| devices.get(&index).copied().unwrap_or_default());
        device(&mut report, interface, known);
    }
    Ok(if report.bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn machine(report: &mut Report) {
    let release = read(Path::new("/proc/sys/kernel/osrelease"));
    let grade = if version(&release) >= KERNEL_MIN { Grade::Good } else { Grade::Bad };
    report.say(grade, "kernel", &release, "the XDP programs need Linux 5.18 or newer");

    let missing = missing_capabilities(&read(Path::new("/proc/self/status")));
    match &missing[..] {
        [] => report.say(Grade::Good, "capabilities", "all that the gateway needs", ""),
        missing => {
            let answer = format!("this user lacks {}", missing.join(", "));
            report.say(Grade::Bad, "capabilities", &answer, "run as root, or give the service AmbientCapabilities=");
        }
    }

    let protocols = read(Path::new("/proc/net/protocols"));
    let (grade, answer) = match protocols.lines().any(|line| line.starts_with("XDP ")) {
        true => (Grade::Good, "the kernel has it; sockets sleep by need_wakeup (Linux 5.4)"),
        false => (Grade::Bad, "missing"),
    };
    report.say(grade, "AF_XDP", answer, "use a kernel with CONFIG_XDP_SOCKETS");

    match &*read(Path::new("/proc/sys/net/core/bpf_jit_enable")) {
        "1" | "2" => report.say(Grade::Good, "BPF JIT", "on", ""),
        "0" => report.say(Grade::Warning, "BPF JIT", "off", "sysctl net.core.bpf_jit_enable=1"),
        _ => report.say(Grade::Warning, "BPF JIT", "unknown: only root may ask", "sudo cargo xtask doctor"),
    }

    let (grade, answer) = match Path::new("/dev/net/tun").exists() {
        true => (Grade::Good, "/dev/net/tun is there, for the client"),
        false => (Grade::Warning, "no /dev/net/tun; only the client needs it"),
    };
    report.say(grade, "TUN", answer, "modprobe tun");

    let huge = read(Path::new("/sys/kernel/mm/transparent_hugepage/enabled"));
    let (grade, answer) = match huge.contains("[always]") || huge.contains("[madvise]") {
        true => (Grade::Good, "the kernel gives them to packet memory by itself"),
        false => (Grade::Warning, "off: packet memory has small pages, which costs TLB misses"),
    };
    report.say(grade, "huge pages", answer, "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled");

    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let grade = if cpus > 1 { Grade::Good } else { Grade::Warning };
    report.say(
        grade,
        "processors",
        &format!("{cpus}"),
        "one is shared by workers, slow path and all else: expect little",
    );

    for (program, package) in [("ip", "iproute2"), ("nft", "nftables"), ("ethtool", "ethtool")] {
        match find(program) {
            Some(path) => report.say(Grade::Good, program, &path.display().to_string(), ""),
            None => report.say(Grade::Warning, program, &format!("missing (package {package})"), "cargo xtask setup"),
        }
    }

    match (ebpf::compiler(), ebpf::linker()) {
        (Some(_), Some(_)) => report.say(Grade::Good, "BPF toolchain", "the XDP programs can be rebuilt", ""),
        _ => report.say(
            Grade::Good,
            "BPF toolchain",
            "none; only changing the XDP programs needs it (cargo xtask setup --bpf)",
            "",
        ),
    }
}

fn device(report: &mut Report, interface: &str, features: Option<Features>) {
    let question = |what: &str| format!("{interface}: {what}");
    let queues = fs::read_dir(sysfs(interface).join("queues")).into_iter().flatten().flatten();
    let queues = queues.filter(|queue| queue.file_name().to_string_lossy().starts_with("rx-")).count();
    let mtu: u32 = read(&sysfs(interface).join("mtu")).parse().unwrap_or(0);
    let driver = driver(interface).unwrap_or_else(|| "unknown driver".into());
    report.say(Grade::Good, &question("device"), &format!("{driver}, {queues} receive queues, MTU {mtu}"), "");

    let Some(features) = features else {
        let answer = format!("unknown: kernels before {KERNEL_TELLS} do not tell");
        let cure = "`jumpgate run` tries native mode and zero-copy, and says what it got";
        report.say(Grade::Warning, &question("native XDP"), &answer, cure);
        return;
    };
    if !features.native() {
        let cure = "generic mode works, slower; mode = \"auto\" takes it and says so";
        report.say(Grade::Warning, &question("native XDP"), "the driver has none", cure);
        return;
    }
    if mtu > ONE_BUFFER_MTU && !features.several_buffers() {
        let answer = "not with this MTU: the driver gives XDP one buffer";
        report.say(
            Grade::Warning,
            &question("native XDP"),
            answer,
            &format!("ip link set {interface} mtu {ONE_BUFFER_MTU}"),
        );
    } else {
        report.say(Grade::Good, &question("native XDP"), "the driver has it", "");
    }
    match features.zero_copy() {
        true => report.say(
            Grade::Good,
            &question("zero-copy"),
            "the driver has it; some devices refuse all the same, and `jumpgate run` says what it got",
            "",
        ),
        false => report.say(
            Grade::Warning,
            &question("zero-copy"),
            "the driver has none",
            "copy mode works; zero_copy = \"auto\" takes it and says so",
        ),
    }
}

fn driver(interface: &str) -> Option<String> {
    if let Ok(link) = fs::read_link(sysfs(interface).join("device/driver")) {
        return Some(link.file_name()?.to_string_lossy().into_owned());
    }
    // Virtual devices have none in sysfs.
    let text = output(Command::new(find("ethtool")?).args(["-i", interface]))?;
    text.lines().find_map(|line| line.strip_prefix("driver: ")).map(str::to_owned)
}

fn ethernet_devices() -> Vec<String> {
    let devices = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut names: Vec<_> = devices.map(|device| device.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name != "lo" && read(&sysfs(name).join("type")) == ARPHRD_ETHER);
    names.sort();
    names
}

fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).map_or("", str::trim);
    let effective = u64::from_str_radix(effective, 16).unwrap_or(0);
    let has = |number: u32| effective & 1 << number != 0;
    let missing =
        CAPABILITIES.iter().filter(|(name, number)| !(has(*number) || *name == "CAP_BPF" && has(CAP_SYS_ADMIN)));
    missing.map(|(name, _)| *name).collect()
}

/// Major and minor number of a kernel's release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn sysfs(interface: &str) -> std::path::PathBuf {
    Path::new("/sys/class/net").join(interface)
}

/// A small file without the newline at its end; empty if it cannot be read.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_compared_by_number() {
        assert_eq!(version("6.18.44-fc-v595"), (6, 18));
        assert_eq!(version("5.9-rc1"), (5, 9));
        assert!(version("5.9") < KERNEL_MIN && version("5.18.0") >= KERNEL_MIN && version("") < KERNEL_MIN);
    }

    #[test]
    fn an_old_administrator_capability_stands_for_bpf_but_not_for_the_network() {
        assert_eq!(missing_capabilities("Name:\tx\nCapEff:\t0000000000200000\n"), ["CAP_NET_ADMIN", "CAP_NET_RAW"]);
        assert!(missing_capabilities("CapEff:\t000001ffffffffff\n").is_empty());
        assert_eq!(missing_capabilities("").len(), CAPABILITIES.len());
    }
}
