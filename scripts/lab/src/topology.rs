//! The lab's network: a client with two uplinks, each behind a NAT router of its own, a core, a gateway and a server.
//!
//! ```text
//!            wifi0        lan0          wan0              wifi
//!          +--------------- wifi router ====== relay =========+          gw0 / outside0            inside
//!   client |                                                  core ====================== gateway -------- server
//!          +--------------- lte router  ====== relay =========+        veth, 2 queues              0 / uplink0
//!            lte0         lan0          wan0              lte
//! ```
//!
//! Everything exists in both address families. Links are made inside their namespaces, so that the machine's own
//! namespace never sees one; TAP devices of the relay go with its process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{setsockopt, sockopt};

use crate::namespace::Namespace;
use crate::relay::{Link, RelayControl};
use crate::run::{self, Process, Run, lock};

/// UDP port of the gateway.
pub const GATEWAY_PORT: u16 = 51_900;
/// The gateway's outside link; it has as many queues as [`crate::relay::QUEUES`].
pub const GATEWAY_OUTSIDE: &str = "outside0";
/// Addresses of the gateway's outside link.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// As [`GATEWAY_V4`].
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// Addresses of the server, reached through the gateway's host routing.
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// As [`SERVER_V4`].
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 2);
/// Address of the core on the gateway's link: where an attacker who is nobody's client would sit.
pub const CORE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
/// First two parts of the addresses that senders forge (RFC 2544). What is sent there is swallowed by the core, unless
/// a test makes one of them its own.
pub const FORGED: [u8; 2] = [198, 18];

/// How long the relay may take to create its devices.
const RELAY_START: Duration = Duration::from_secs(5);
/// How long a new network may take to carry its first packets; address resolution repeats after a second.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
/// How long one of the first packets may take.
const SETTLE_PAUSE: Duration = Duration::from_millis(50);
/// UDP port on which the gateway's side listens for them.
const SETTLE_PORT: u16 = 7;

/// One uplink of the client, with the numbers its addresses are made of.
#[derive(Clone, Copy, Debug)]
pub struct Uplink {
    /// Name of the path: that of its router and its lanes in the relay.
    pub path: &'static str,
    /// The client's interface.
    pub interface: &'static str,
    /// Metric of its default route; the lower one is used where nobody chooses.
    pub metric: u32,
    /// First three parts of its home network.
    home_v4: &'static str,
    /// First three parts of its router's public network.
    public_v4: &'static str,
    /// Number of its IPv6 networks.
    number: u8,
    /// Receive queue of the gateway on which its packets arrive; also its place in [`Uplink::ALL`].
    pub queue: usize,
}

/// The faster uplink.
pub const WIFI: Uplink = Uplink {
    path: "wifi",
    interface: "wifi0",
    metric: 100,
    home_v4: "192.168.1",
    public_v4: "198.51.100",
    number: 1,
    queue: 0,
};

/// The slower uplink. Its packets reach the gateway on another receive queue.
pub const LTE: Uplink = Uplink {
    path: "lte",
    interface: "lte0",
    metric: 200,
    home_v4: "10.20.0",
    public_v4: "203.0.113",
    number: 2,
    queue: 1,
};

impl Uplink {
    /// The client's IPv4 address on it, with its prefix length.
    pub fn home_address(&self) -> String {
        format!("{}.2/24", self.home_v4)
    }

    /// The IPv4 network that it shares with its router.
    pub fn home_network(&self) -> String {
        format!("{}.0/24", self.home_v4)
    }

    /// Both uplinks.
    pub const ALL: [Self; 2] = [WIFI, LTE];

    /// A second public address of its router, for a NAT that changes its address.
    pub fn other_public_address(&self, ipv6: bool) -> IpAddr {
        let text = if ipv6 { format!("2001:db8:{}::77", self.number) } else { format!("{}.77", self.public_v4) };
        text.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
}

/// A lab that is up. Dropping it takes everything down.
pub struct Lab {
    /// Names, processes and files.
    pub run: Run,
    /// Runs the client; its uplinks are `wifi0` and `lte0`.
    pub client: Namespace,
    /// The routers between the relay's paths and the gateway's link.
    pub core: Namespace,
    /// Runs the gateway; its outside link is [`GATEWAY_OUTSIDE`].
    pub gateway: Namespace,
    /// Runs whatever the client wants to reach.
    pub server: Namespace,
    /// The NAT routers, in the order of [`Uplink::ALL`].
    routers: [Namespace; 2],
    /// Steers the impairments of the paths `wifi` and `lte`.
    pub relay: RelayControl,
    relay_process: Process,
    notes: Mutex<Vec<String>>,
    killed: AtomicBool,
}

/// What is missing to build a lab here, each with its cure; empty if it can be built.
pub fn missing_requirements() -> Vec<String> {
    if !nix::unistd::geteuid().is_root() {
        // Without it the rest cannot be told.
        return vec!["root is needed for network namespaces: run it with sudo".to_owned()];
    }
    let mut missing = Vec::new();
    for (program, package) in [("ip", "iproute2"), ("nft", "nftables"), ("ethtool", "ethtool")] {
        let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_err() {
            missing.push(format!("the program {program} is not found: apt-get install {package}"));
        }
    }
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        missing.push(format!("/dev/net/tun cannot be opened ({error}): load the module with `modprobe tun`"));
    }
    // On a thread of its own, which ends with the namespace that it made.
    let namespace = thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join();
    if let Ok(Err(error)) = namespace {
        missing.push(format!("network namespaces are refused ({error}): in a container, run it privileged"));
    }
    missing
}

impl Lab {
    /// Builds the lab; leftovers of dead runs are removed first. Equal seeds make the relay impair equal frames equally.
    pub fn build(seed: u64) -> Result<Self> {
        let missing = missing_requirements();
        if !missing.is_empty() {
            bail!("the lab cannot be built here:\n  {}", missing.join("\n  "));
        }
        run::clean();
        let run = Run::open()?;
        let client = Namespace::create(&run, "client")?;
        let core = Namespace::create(&run, "core")?;
        let gateway = Namespace::create(&run, "gateway")?;
        let server = Namespace::create(&run, "server")?;
        let routers = Uplink::ALL.map(|uplink| Namespace::create(&run, uplink.path));
        let [wifi_router, lte_router] = routers;
        let routers = [wifi_router?, lte_router?];

        let (relay_process, relay) = start_relay(&run, seed, &routers, &core)?;
        connect_gateway(&core, &gateway)?;
        connect_server(&gateway, &server)?;
        client.sysctl(&[("ipv6/conf/all/keep_addr_on_down", "1"), ("ipv6/conf/default/keep_addr_on_down", "1")])?;
        let (notes, killed) = (Mutex::default(), AtomicBool::default());
        let lab = Self { run, client, core, gateway, server, routers, relay, relay_process, notes, killed };
        for uplink in &Uplink::ALL {
            connect_uplink(uplink, &lab.client, lab.router(uplink), &lab.core)?;
            lab.add_default_routes(uplink)?;
        }
        lab.core.ip("route add blackhole 198.18.0.0/15")?;
        lab.core.forward()?;
        lab.settle()?;
        Ok(lab)
    }

    /// A gateway of this lab was killed: its trace has no end.
    pub fn note_killed(&self) {
        self.killed.store(true, Ordering::Relaxed);
    }

    /// Whether one was killed since the last time.
    pub fn take_killed(&self) -> bool {
        self.killed.swap(false, Ordering::Relaxed)
    }

    /// Keeps what a test measured but does not judge, to be shown beside its result.
    pub fn note(&self, text: String) {
        lock(&self.notes).push(text);
    }

    /// What was noted since the last time.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.notes))
    }

    /// Waits until the gateway can be reached over every uplink and family: addresses become usable and neighbours known
    /// some time after they were asked for.
    pub fn settle(&self) -> Result<()> {
        for ipv6 in [false, true] {
            let address = SocketAddr::new(self.gateway_endpoint(ipv6).ip(), SETTLE_PORT);
            let gateway = self.gateway.enter(|| UdpSocket::bind(address))??;
            gateway.set_read_timeout(Some(SETTLE_PAUSE))?;
            for uplink in &Uplink::ALL {
                let client = self.socket_on(uplink, address)?;
                let deadline = Instant::now() + SETTLE_LIMIT;
                while !echoes(&client, &gateway) {
                    if Instant::now() > deadline {
                        bail!("the gateway is not reached over {}, address {address}", uplink.interface);
                    }
                }
            }
        }
        Ok(())
    }

    /// A UDP socket of the client that uses one uplink and talks to `peer`.
    pub fn socket_on(&self, uplink: &Uplink, peer: SocketAddr) -> Result<UdpSocket> {
        let any = if peer.is_ipv6() { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        let socket = self.client.enter(|| -> Result<UdpSocket> {
            let socket = UdpSocket::bind((any, 0))?;
            setsockopt(&socket, sockopt::BindToDevice, &uplink.interface.into())?;
            socket.connect(peer)?;
            Ok(socket)
        })??;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok(socket)
    }

    /// The NAT router of an uplink.
    pub fn router(&self, uplink: &Uplink) -> &Namespace {
        &self.routers[uplink.queue]
    }

    /// The gateway's address and port.
    pub fn gateway_endpoint(&self, ipv6: bool) -> SocketAddr {
        let ip = if ipv6 { IpAddr::V6(GATEWAY_V6) } else { IpAddr::V4(GATEWAY_V4) };
        SocketAddr::new(ip, GATEWAY_PORT)
    }

    /// Takes the client's interface of an uplink down, as somebody who pulls a plug.
    pub fn uplink_down(&self, uplink: &Uplink) -> Result<()> {
        self.client.ip(&format!("link set {} down", uplink.interface))
    }

    /// Takes it up again, with the routes that it lost.
    pub fn uplink_up(&self, uplink: &Uplink) -> Result<()> {
        self.client.ip(&format!("link set {} up", uplink.interface))?;
        self.add_default_routes(uplink)
    }

    /// Packets that the gateway's outside link received on each queue, as the driver counts them. It counts only while
    /// an XDP program is attached.
    pub fn received_per_queue(&self) -> Result<Vec<u64>> {
        let text = self.run.check(self.gateway.command("ethtool").args(["-S", GATEWAY_OUTSIDE]), "")?;
        let count = |queue: usize| {
            let key = format!("rx_queue_{queue}_xdp_packets:");
            text.lines().find_map(|line| line.trim().strip_prefix(&key)?.trim().parse().ok()).unwrap_or(0)
        };
        Ok((0..crate::relay::QUEUES).map(count).collect())
    }

    /// The processor time that the relay has used.
    pub fn relay_cpu(&self) -> Result<Duration> {
        cpu_time(self.relay_process.id())
    }

    fn add_default_routes(&self, uplink: &Uplink) -> Result<()> {
        let Uplink { interface, metric, home_v4, number, .. } = uplink;
        self.client.ip(&format!(
            "route replace default via {home_v4}.1 dev {interface} metric {metric}\n\
             route replace ::/0 via fd0{number}::1 dev {interface} metric {metric}\n"
        ))
    }
}

/// Whether a datagram comes back soon.
fn echoes(client: &UdpSocket, gateway: &UdpSocket) -> bool {
    let mut buffer = [0; 16];
    let mut exchange = || -> std::io::Result<()> {
        client.set_read_timeout(Some(SETTLE_PAUSE))?;
        client.send(b"settled?")?;
        let (len, from) = gateway.recv_from(&mut buffer)?;
        gateway.send_to(&buffer[..len], from)?;
        client.recv(&mut buffer).map(drop)
    };
    exchange().is_ok()
}

/// The processor time, in user and kernel, that a process has used.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("reading times of {pid}"))?;
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    // Fields 14 and 15 of the line; the kernel counts them in hundredths of a second.
    Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
}

fn start_relay(run: &Run, seed: u64, routers: &[Namespace; 2], core: &Namespace) -> Result<(Process, RelayControl)> {
    let socket = run.directory().join("relay.sock");
    let log_path = run.directory().join("relay.log");
    let log = fs::File::create(&log_path)?;
    let mut command = Command::new(std::env::current_exe().context("finding this program's own file")?);
    command.arg("relay").arg("--control").arg(&socket).args(["--seed", &seed.to_string()]);
    for (uplink, router) in Uplink::ALL.iter().zip(routers) {
        let link = Link {
            path: uplink.path.to_owned(),
            near: (router.name().to_owned(), "wan0".to_owned()),
            far: (core.name().to_owned(), uplink.path.to_owned()),
            queue: uplink.queue,
        };
        command.args(["--link", &link.to_string()]);
    }
    let process = run.spawn("the relay", command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log))?;
    let control = RelayControl::new(&socket);
    let deadline = Instant::now() + RELAY_START;
    while !control.is_up() {
        if process.exited()?.is_some() || Instant::now() > deadline {
            bail!("the relay did not start: {}", fs::read_to_string(&log_path).unwrap_or_default().trim());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok((process, control))
}

fn connect_uplink(uplink: &Uplink, client: &Namespace, router: &Namespace, core: &Namespace) -> Result<()> {
    let Uplink { path, interface, home_v4, public_v4, number, .. } = uplink;
    let (near_mac, far_mac) = (format!("02:6a:67:00:0{number}:01"), format!("02:6a:67:00:0{number}:02"));
    client.ip(&format!(
        "link add {interface} type veth peer name lan0 netns {}\n\
         addr add {home_v4}.2/24 dev {interface}\n\
         addr add fd0{number}::2/64 dev {interface}\n\
         link set {interface} up\n",
        router.name()
    ))?;
    // The neighbours are permanent: a black hole has to swallow packets, not to provoke address resolution.
    router.ip(&format!(
        "addr add {home_v4}.1/24 dev lan0\n\
         addr add fd0{number}::1/64 dev lan0\n\
         link set lan0 up\n\
         link set wan0 address {near_mac}\n\
         link set wan0 up\n\
         addr add {public_v4}.2/24 dev wan0\n\
         addr add 2001:db8:{number}::2/64 dev wan0\n\
         neigh replace {public_v4}.1 lladdr {far_mac} dev wan0 nud permanent\n\
         neigh replace 2001:db8:{number}::1 lladdr {far_mac} dev wan0 nud permanent\n\
         route add default via {public_v4}.1\n\
         route add ::/0 via 2001:db8:{number}::1\n"
    ))?;
    router.forward()?;
    router.run().check(
        router.command("nft").args(["-f", "-"]),
        "table inet nat {\nchain out {\ntype nat hook postrouting priority srcnat\noifname \"wan0\" masquerade\n}\n}\n",
    )?;
    core.ip(&format!(
        "link set {path} address {far_mac}\n\
         link set {path} up\n\
         addr add {public_v4}.1/24 dev {path}\n\
         addr add 2001:db8:{number}::1/64 dev {path}\n\
         neigh replace {public_v4}.2 lladdr {near_mac} dev {path} nud permanent\n\
         neigh replace {public_v4}.77 lladdr {near_mac} dev {path} nud permanent\n\
         neigh replace 2001:db8:{number}::2 lladdr {near_mac} dev {path} nud permanent\n\
         neigh replace 2001:db8:{number}::77 lladdr {near_mac} dev {path} nud permanent\n"
    ))
}

fn connect_gateway(core: &Namespace, gateway: &Namespace) -> Result<()> {
    let queues = crate::relay::QUEUES;
    core.ip(&format!(
        "link add gw0 numrxqueues {queues} numtxqueues {queues} type veth peer name {GATEWAY_OUTSIDE} netns {} \
         numrxqueues {queues} numtxqueues {queues}\n\
         addr add {CORE_V4}/24 dev gw0\n\
         addr add 2001:db8::fe/64 dev gw0\n\
         link set gw0 up\n",
        gateway.name()
    ))?;
    // A veth hands over packets with unfinished checksums and of 64 KB unless told not to; a wire would not.
    core.run().check(
        core.command("ethtool").args(["-K", "gw0", "tx", "off", "tso", "off", "gso", "off", "gro", "off"]),
        "",
    )?;
    gateway.ip(&format!(
        "addr add {GATEWAY_V4}/24 dev {GATEWAY_OUTSIDE}\n\
         addr add {GATEWAY_V6}/64 dev {GATEWAY_OUTSIDE}\n\
         link set {GATEWAY_OUTSIDE} up\n\
         route add default via {CORE_V4}\n\
         route add ::/0 via 2001:db8::fe\n"
    ))?;
    gateway.forward()
}

fn connect_server(gateway: &Namespace, server: &Namespace) -> Result<()> {
    gateway.ip(&format!(
        "link add lan0 type veth peer name uplink0 netns {}\n\
         addr add 10.99.0.1/24 dev lan0\n\
         addr add fd99::1/64 dev lan0\n\
         link set lan0 up\n",
        server.name()
    ))?;
    server.ip(&format!(
        "addr add {SERVER_V4}/24 dev uplink0\n\
         addr add {SERVER_V6}/64 dev uplink0\n\
         link set uplink0 up\n\
         route add default via 10.99.0.1\n\
         route add ::/0 via fd99::1\n"
    ))
}
