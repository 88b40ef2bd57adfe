//! A WireGuard gateway between two pairs of virtual links, in the place where Jumpgate's stands in the other benchmarks.
//!
//! ```text
//! clients: AF_XDP on lg-far ----- lg-out | kernel's UDP, program, TUN, kernel's routing | lg-in ----- lg-host AF_XDP
//! ```
//!
//! Namespaces without a name for network and mounts: links, the TUN device and the control socket end with this thread.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use jumpgate::xdp::Steering;
use jumpgate_protocol::entropy::SeededEntropy;
use jumpgate_protocol::handshake::StaticSecret;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::programs::{Peer, descriptors};
use super::uapi;
use crate::links::{enter_namespace, ip, make_pair};
use crate::load::datagram::Ends;
use crate::load::line::Line;
use crate::load::member::{OUTER_BASE, OUTER_SPAN, PATHS};
use crate::load::plant::{CLIENTS_ROUTER, GATEWAY, INSIDE, NOBODY, SERVER, lead, mac_of, spawn_pinned, text_of};

/// The TUN device, in its own network namespace.
const DEVICE: &str = "wg-peer";
/// Where the programs put their control sockets.
const SOCKETS: &str = "/run/wireguard";
/// MTU of the TUN device: 1500 without outer headers and WireGuard's, as its tools set it.
const TUN_MTU: u32 = 1_420;
/// Packets that the TUN device keeps for the program: ten thousand peers that talk at once are not its usual load.
const TUN_QUEUE: u32 = 10_000;
/// First of the clients' inner addresses.
const INNER_BASE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);
/// How long a program may take to start or to stop.
const LIMIT: Duration = Duration::from_secs(10);

/// A running gateway with both lines to it.
pub(super) struct Lab {
    process: Child,
    socket: PathBuf,
    directory: TempDir,
    /// Leads what comes out of the gateway to the lines; none while nobody listens.
    far_ends: Option<[Steering; 2]>,
    /// The clients' line.
    pub(super) clients: Line,
    /// Link addresses of the clients' line.
    pub(super) clients_ends: Ends,
    /// The servers' line.
    pub(super) servers: Line,
    /// Link addresses of the servers' line.
    pub(super) servers_ends: Ends,
    /// The gateway's public key.
    pub(super) key: [u8; 32],
    /// The clients' secrets.
    pub(super) secrets: Vec<StaticSecret>,
}

impl Lab {
    /// Makes namespaces and links, and starts the program on its CPU with a key and a port, without peers.
    pub(super) fn start(peer: Peer, program: &Path, clients: u32, seed: u64, cpu: usize) -> Result<Self> {
        enter_namespace()?;
        own_sockets()?;
        // Before there are links: they begin with what is the default then.
        route_packets()?;
        make_pair("lg-out", "lg-far")?;
        make_pair("lg-in", "lg-host")?;
        let [out, far, inside, host] = ["lg-out", "lg-far", "lg-in", "lg-host"].map(mac_of);
        let (out, far, inside, host) = (out?, far?, inside?, host?);
        ip(&format!(
            "link set lo up\naddr add {}/24 dev lg-out\naddr add {}/24 dev lg-in\n\
             neigh add {CLIENTS_ROUTER} lladdr {nobody} nud permanent dev lg-out\n\
             neigh add {SERVER} lladdr {nobody} nud permanent dev lg-in\n\
             route add {OUTER_BASE}/10 via {CLIENTS_ROUTER}\n",
            GATEWAY.ip(),
            INSIDE.0,
            nobody = text_of(NOBODY),
        ))?;
        if peer.uses_gro() {
            receive_offload()?;
        }
        let clients_line = Line::open("lg-far", 0)?;
        let servers = Line::open("lg-host", 0)?;

        let mut entropy = SeededEntropy::new(seed);
        let secret = StaticSecret::generate(&mut entropy);
        let secrets = (0..clients).map(|_| StaticSecret::generate(&mut entropy)).collect();
        let directory = tempfile::Builder::new().prefix("jumpgate-bench-").tempdir()?;
        let mut command = peer.command(program, DEVICE, clients, descriptors());
        let log = fs::File::create(directory.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = spawn_pinned(&mut command, cpu)?;
        let mut lab = Self {
            process,
            socket: Path::new(SOCKETS).join(format!("{DEVICE}.sock")),
            directory,
            far_ends: None,
            clients: clients_line,
            clients_ends: Ends { ours: far, theirs: out },
            servers,
            servers_ends: Ends { ours: host, theirs: inside },
            key: secret.public().0,
            secrets,
        };
        lab.listen()?;
        lab.wait_until_ready()?;
        uapi::ask(&lab.socket, &uapi::identity(secret.as_bytes(), GATEWAY.port()))?;
        ip(&format!(
            "link set {DEVICE} mtu {TUN_MTU} txqueuelen {TUN_QUEUE} up\nroute add {INNER_BASE}/8 dev {DEVICE}\n"
        ))?;
        Ok(lab)
    }

    /// What the gateway sends reaches the lines from now on.
    pub(super) fn listen(&mut self) -> Result<()> {
        if self.far_ends.is_none() {
            let span = OUTER_SPAN * PATHS as u32;
            let clients = lead(&self.clients, "lg-far", OUTER_BASE, span, self.secrets.len() as u32, OUTER_SPAN)?;
            let servers = lead(&self.servers, "lg-host", SERVER, 1, 1, 1)?;
            self.far_ends = Some([clients, servers]);
        }
        Ok(())
    }

    /// What the gateway sends is thrown away where it arrives, at the least cost, and only counted there.
    pub(super) fn turn_deaf(&mut self) {
        self.far_ends = None;
    }

    /// Tells the gateway of all clients.
    pub(super) fn introduce(&self) -> Result<()> {
        let entries = self
            .secrets
            .iter()
            .zip(0..)
            .map(|(secret, number)| uapi::Entry { key: secret.public().0, inner: inner_of(number) });
        uapi::ask(&self.socket, &uapi::peers(entries)).with_context(|| self.log_tail())?;
        Ok(())
    }

    /// The process that is measured.
    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// An error if the program is gone.
    pub(super) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("the program ended with {status}:\n{}", self.log_tail());
        }
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !(self.socket.exists() && uapi::is_there(&self.socket)) {
            self.check()?;
            ensure!(Instant::now() < deadline, "the program does not answer:\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // As a service manager would, then by force; it may have ended already.
        let _ = kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM);
        let deadline = Instant::now() + LIMIT / 5;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The inner address of a client.
pub(super) fn inner_of(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(INNER_BASE) + 1 + number)
}

/// Where a client's packets come from: on its first path or its second, and behind that port.
pub(super) fn outer_of(number: u32, path: u32, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(u32::from(OUTER_BASE) + OUTER_SPAN * path + number), port)
}

/// A directory for control sockets that nobody else sees: another WireGuard on this machine is left alone.
fn own_sockets() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("cannot make mounts private")?;
    fs::create_dir_all(SOCKETS).with_context(|| format!("cannot make {SOCKETS}"))?;
    mount(Some("tmpfs"), SOCKETS, Some("tmpfs"), MsFlags::empty(), none)
        .with_context(|| format!("cannot mount on {SOCKETS}"))
}

/// The kernel of this namespace routes between the TUN device and the inside; no filter is in the way.
fn route_packets() -> Result<()> {
    for (name, value) in [("ip_forward", "1"), ("conf/all/rp_filter", "0"), ("conf/default/rp_filter", "0")] {
        let path = format!("/proc/sys/net/ipv4/{name}");
        fs::write(&path, value).with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}

/// GRO at the gateway's outer link. A veth does it only for packets of a sender that does not segment by itself.
fn receive_offload() -> Result<()> {
    for arguments in [["-K", "lg-far", "tso", "off"], ["-K", "lg-out", "gro", "on"]] {
        let output = Command::new("ethtool").args(arguments).output().context("cannot run `ethtool`")?;
        ensure!(
            output.status.success(),
            "`ethtool {}` failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::member::owner_of;

    #[test]
    fn every_clients_outer_addresses_lead_back_to_it() {
        for number in [0, 1, 9_999] {
            for path in 0..PATHS as u32 {
                assert_eq!(owner_of(*outer_of(number, path, 1_024).ip()), Some((number, path as usize)));
            }
        }
    }

    #[test]
    fn inner_addresses_are_told_apart_and_none_is_that_of_the_network() {
        assert_eq!(inner_of(0), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(inner_of(9_999), Ipv4Addr::new(10, 0, 39, 16));
    }
}
