//! What this host must have before anything is changed on it: kernel, privileges, interface.

use std::fs;

use nix::sys::utsname::uname;

use crate::config::{Config, InsideKind};
use crate::fault::Fault;
use crate::net::{Link, Netlink};
use crate::sys::ethtool;

/// Oldest kernel that has all that the gateway uses: BPF links, XDP with fragments, AF_XDP with need_wakeup.
const OLDEST_KERNEL: (u32, u32) = (5, 18);
/// Bytes that the tunnel adds to an inner packet in the worst case: IPv6, UDP, header and tag.
pub const TUNNEL_OVERHEAD: u32 = 40 + 8 + jumpgate_protocol::wire::DATA_OVERHEAD as u32;
/// Smallest link MTU of IPv6 (RFC 8200): inner packets must have as much.
const INNER_MTU_MIN: u32 = 1280;

/// Capabilities that the gateway needs, with their bits (`linux/capability.h`). CAP_SYS_ADMIN stands for CAP_BPF.
const CAPABILITIES: [(&str, &[u32]); 3] = [("CAP_NET_ADMIN", &[12]), ("CAP_NET_RAW", &[13]), ("CAP_BPF", &[39, 21])];

/// An interface that packets shall come by.
#[derive(Debug, Clone)]
pub struct Device {
    /// Number, name, address, MTU.
    pub link: Link,
    /// Its driver.
    pub driver: String,
    /// Its receive queues.
    pub queues: u32,
}

/// Checks kernel and privileges.
pub fn check_kernel() -> Result<(), Fault> {
    let release = uname().map_err(Fault::ours)?.release().to_string_lossy().into_owned();
    if kernel_version(&release).is_some_and(|version| version < OLDEST_KERNEL) {
        let (major, minor) = OLDEST_KERNEL;
        return Err(Fault::operator(
            format!("kernel {release} is too old"),
            format!("use Linux {major}.{minor} or newer"),
        ));
    }
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let missing = missing_capabilities(&status);
    if missing.is_empty() {
        return Ok(());
    }
    let problem = format!("this process lacks {}", missing.join(", "));
    let program = std::env::current_exe().unwrap_or_else(|_| "jumpgate".into());
    let cure = format!(
        "run as root, or: setcap {}+ep {}, or AmbientCapabilities= in a systemd unit",
        CAPABILITIES.map(|(name, _)| name.to_lowercase()).join(","),
        program.display(),
    );
    Err(Fault::operator(problem, cure))
}

/// Finds an interface and checks that it can carry packets.
pub fn device(netlink: &mut Netlink, key: &str, name: &str) -> Result<Device, Fault> {
    let link = netlink.link(name)?.ok_or_else(|| {
        let cure = format!("correct {key}; `ip link` lists the interfaces of this network namespace");
        Fault::operator(format!("{key}: there is no interface {name}"), cure)
    })?;
    if link.mac == [0; 6] {
        let problem = format!("{key}: interface {name} has no Ethernet address");
        return Err(Fault::operator(problem, "name an Ethernet interface; `ip -brief link` shows their addresses"));
    }
    if !link.up {
        return Err(Fault::operator(format!("{key}: interface {name} is down"), format!("ip link set {name} up")));
    }
    let queues = match ethtool::channels(name) {
        Ok(channels) => channels.receive.max(1),
        // Devices without a choice of queues have one.
        Err(error) if error.errno == nix::errno::Errno::EOPNOTSUPP => 1,
        Err(error) => return Err(error.into()),
    };
    let driver = ethtool::driver(name).unwrap_or_else(|_| "unknown driver".to_owned());
    Ok(Device { link, driver, queues })
}

/// MTU inside the tunnel, given the outside interface.
pub fn inner_mtu(outside: &Device) -> Result<u32, Fault> {
    let inner = outside.link.mtu.saturating_sub(TUNNEL_OVERHEAD);
    if inner >= INNER_MTU_MIN {
        return Ok(inner);
    }
    let needed = INNER_MTU_MIN + TUNNEL_OVERHEAD;
    let problem =
        format!("an MTU of {} leaves {inner} bytes inside the tunnel; IPv6 needs {INNER_MTU_MIN}", outside.link.mtu);
    Err(Fault::operator(problem, format!("ip link set {} mtu {needed}, or more", outside.link.name)))
}

/// How many workers there will be, and on which CPUs. Each sends on a queue of its own, so no port that is there already
/// may have fewer queues; a pair gets as many as are needed.
pub fn workers(config: &Config, ports: &[Device]) -> Result<Vec<usize>, Fault> {
    let usable = usable_cpus()?;
    let Some(narrowest) = ports.iter().min_by_key(|device| device.queues) else { return Ok(usable) };
    let cpus = match &config.workers.cpus {
        Some(cpus) => {
            if let Some(cpu) = cpus.iter().find(|cpu| !usable.contains(cpu)) {
                let cure = format!("use some of {usable:?}, or leave workers.cpus out");
                return Err(Fault::operator(format!("workers.cpus: this process may not run on CPU {cpu}"), cure));
            }
            cpus.clone()
        }
        None => {
            let count = config.workers.count.unwrap_or_else(|| usable.len().min(narrowest.queues as usize));
            usable.iter().copied().cycle().take(count).collect()
        }
    };
    if cpus.len() <= narrowest.queues as usize {
        return Ok(cpus);
    }
    let (count, name) = (cpus.len(), &narrowest.link.name);
    let problem = format!("workers.count: {count} workers, but {name} has {} queue(s)", narrowest.queues);
    Err(Fault::operator(problem, format!("lower workers.count, or: ethtool -L {name} combined {count}")))
}

/// Sentences about settings of this host that are not wrong in themselves, but may keep packets from where they shall go.
pub fn advice(config: &Config, netlink: &mut Netlink) -> Vec<String> {
    let mut sentences = Vec::new();
    if netlink.has_policy_routing().unwrap_or(false) {
        sentences.push(
            "this host has policy routing (`ip rule`); tunnel packets follow the main table alone, so keep the routes to \
             clients there"
                .to_owned(),
        );
    }
    let pool = &config.inside.pool;
    let settings = [
        (pool.v4().is_some(), "net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        (pool.v6().is_some(), "net.ipv6.conf.all.forwarding", "/proc/sys/net/ipv6/conf/all/forwarding"),
    ];
    for (used, name, path) in settings {
        let by_this_host = used && config.inside.kind == InsideKind::Veth;
        if by_this_host && fs::read_to_string(path).is_ok_and(|value| value.trim() == "0") {
            sentences
                .push(format!("{name} is 0 on this host, so clients reach nothing but it; cure: sysctl -w {name}=1"));
        }
    }
    sentences
}

fn usable_cpus() -> Result<Vec<usize>, Fault> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).map_err(Fault::ours)?;
    Ok((0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok());
    // If /proc does not tell, the kernel will, at the first thing that it refuses.
    let Some(effective) = effective else { return Vec::new() };
    CAPABILITIES
        .iter()
        .filter(|(_, bits)| !bits.iter().any(|bit| effective >> bit & 1 == 1))
        .map(|(name, _)| *name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_read_from_releases_of_all_kinds() {
        assert_eq!(kernel_version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(kernel_version("5.15.0-105-generic"), Some((5, 15)));
        assert_eq!(kernel_version("7.0-rc1"), Some((7, 0)));
        assert_eq!(kernel_version("unknown"), None);
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing_capabilities("CapEff:\t000001ffffffffff\n"), Vec::<&str>::new());
        assert_eq!(missing_capabilities("CapEff:\t0000000000000000\n"), ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"]);
        assert_eq!(
            missing_capabilities("CapEff:\t0000000000203000\n"),
            Vec::<&str>::new(),
            "CAP_SYS_ADMIN includes BPF"
        );
        assert_eq!(missing_capabilities("Name: x\n"), Vec::<&str>::new());
    }
}
