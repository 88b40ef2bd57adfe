//! Starting and stopping: everything in one order, and undone in the other.
//!
//! Each step leaves behind a value whose `Drop` undoes it, so a start that fails half-way, for whatever reason, leaves
//! the host as it was: no program on an interface, no pair, no socket file.
//!
//! | step | what | undone by |
//! |---|---|---|
//! | 1 | kernel and privileges are looked at | |
//! | 2 | admin socket: also tells that no other gateway runs; metrics endpoint | its file is removed; closed |
//! | 3 | audit trace | ended by the last record |
//! | 4 | outside interface, kernel sockets on the tunnel's port | closed |
//! | 5 | inside port: the pair, or a NIC | the pair is removed |
//! | 6 | XDP programs loaded, slots steered, attached; DATA is dropped until there are sockets | detached |
//! | 7 | AF_XDP sockets of all queues and workers | closed with the workers |
//! | 8 | sessions that the run before handed over, if it did; workers | stopped and joined |
//! | 9 | slow path: next hops, handshakes | |

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jumpgate_metrics::Endpoint;
use jumpgate_protocol::entropy::{Entropy, SeededEntropy};
use jumpgate_protocol::gateway::{DeskConfig, HandshakeDesk, Heir, Shard, ShardConfig};
use jumpgate_protocol::policy::{Policy, Rate};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::admin::{AdminSocket, Pending, Question};
use crate::audit::{RunningTrace, Trace};
use crate::clock;
use crate::config::{Config, GATEWAY_INDEX, InsideKind, ZeroCopy};
use crate::doorbell::Doorbell;
use crate::fault::Fault;
use crate::handover::{SlowEnd, link};
use crate::hangup::HeldHangup;
use crate::host::{self, Device};
use crate::metrics::{PortLabels, scrape};
use crate::net::{InsideVeth, Netlink, NextHops, VethPlan, Watcher};
use crate::os_entropy::OsEntropy;
use crate::port::{FrameSize, PlaneConfig, PortConfig, Ports, RingSizes, Role};
use crate::restart::{Found, HandoverFile};
use crate::slow::{Filter, InsideHop, Parts, Roster, STOP_PATIENCE, SlowPath, Sockets, steer_slots, worker_of};
use crate::sys::ethtool;
use crate::worker::{self, WorkerConfig};
use crate::xdp::{Attached, Mode, Side, Steering, SteeringConfig};

/// Operators' questions that wait for the slow path.
const QUESTIONS: usize = 64;
/// How often a worker that was told to stop is looked at.
const STOP_POLL: Duration = Duration::from_millis(1);
/// HELLO_ACK names as many endpoints of the gateway.
const ENDPOINTS_MAX: usize = 4;

/// Runs a gateway until SIGINT or SIGTERM, with the configuration that `read` gives. A SIGHUP that is held back is let go
/// when there is somebody who listens.
pub fn run(read: impl FnOnce() -> Result<Config, Fault>, held: Option<HeldHangup>) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Fault::ours)?;
    runtime.block_on(async {
        // From here on a signal waits until the start is complete, and then stops what was started, or has the file read
        // again: whoever changed it and said so is heard, even if this start has read only half of the change.
        let (mut stop, hangup) = signals()?;
        // Before the first thread but the log's: others would inherit the hold.
        drop(held);
        let gateway = Gateway::start(read()?)?;
        gateway.serve(&mut stop, hangup).await?;
        announce("stopped");
        Ok(())
    })
}

/// Checks whether a gateway with that configuration could run here, and changes nothing.
pub fn check(config: &Config) -> Result<(), Fault> {
    host::check_kernel()?;
    let mut netlink = Netlink::open()?;
    let outside = host::device(&mut netlink, "outside.interface", &config.outside.interface)?;
    let inner_mtu = host::inner_mtu(&outside)?;
    let ports = existing_ports(config, &mut netlink, &outside)?;
    for port in &ports {
        FrameSize::for_mtu(port.link.mtu)?;
    }
    let cpus = host::workers(config, &ports)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Fault::ours)?;
    runtime.block_on(async { Sockets::open(&config.outside.listen).map(drop) })?;
    announce(&format!(
        "{}: driver {}, {} queue(s), MTU {}, {inner_mtu} inside; {} worker(s)",
        config.outside.interface,
        outside.driver,
        outside.queues,
        outside.link.mtu,
        cpus.len(),
    ));
    host::advice(config, &mut netlink).iter().for_each(|sentence| announce(sentence));
    announce("a gateway could run here");
    Ok(())
}

/// A gateway that is up. Fields are dropped in their order: the reverse of the start.
struct Gateway {
    slow: SlowPath,
    workers: Workers,
    /// Removed when the gateway is.
    _pair: Option<InsideVeth>,
    admin: AdminSocket,
    trace: RunningTrace,
    metrics: Option<Endpoint>,
}

/// The worker threads; stopped and joined when dropped.
struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// For a start that fails before the slow path has taken the ends over.
    ends: Vec<SlowEnd<Shard>>,
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Who gives up the last end to a worker stops it.
        self.ends.clear();
        let deadline = Instant::now() + STOP_PATIENCE;
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && Instant::now() < deadline {
                thread::sleep(STOP_POLL);
            }
            if !thread.is_finished() {
                tracing::error!("a worker does not stop; the kernel takes its sockets back with the process");
            } else if thread.join().is_err() {
                tracing::error!("a worker ended by a panic: this is a defect of jumpgate, please report it");
            }
        }
    }
}

/// The inside port before it is opened.
struct Inside {
    pair: Option<InsideVeth>,
    device: Device,
    hop: InsideHop,
}

impl Gateway {
    fn start(mut owned: Config) -> Result<Self, Fault> {
        let config = &owned;
        host::check_kernel()?;
        let admin = AdminSocket::open(&config.admin_socket)?;
        let metrics = open_metrics(config)?;
        let mut netlink = Netlink::open()?;
        let watcher = Watcher::open()?;
        let outside = host::device(&mut netlink, "outside.interface", &config.outside.interface)?;
        let inner_mtu = host::inner_mtu(&outside)?;
        let cpus = host::workers(config, &existing_ports(config, &mut netlink, &outside)?)?;
        let mut trace = Trace::open(config, sessions_of_a_worker(config, cpus.len()))?;
        let sockets = Sockets::open(&config.outside.listen)?;
        let inside = start_inside(config, &mut netlink, cpus.len() as u32, inner_mtu)?;

        let (mut steering, wildcard) = load_steering(config, &mut netlink, &outside, &inside.device, cpus.len())?;
        let attached = [
            steering.attach(Side::Outside, &outside.link.name, config.outside.mode)?,
            steering.attach(Side::Inside, &inside.device.link.name, config.outside.mode)?,
        ];
        let ports = open_ports(config, &outside, &inside.device, cpus.len(), &attached)?;
        let port_labels = port_labels(&ports, [&outside, &inside.device], &attached);
        for (role, side) in [(Role::Outside, Side::Outside), (Role::Inside, Side::Inside)] {
            for (key, socket) in ports.sockets(role) {
                let (queue, worker) = (key / cpus.len() as u32, key % cpus.len() as u32);
                steering.set_socket(side, queue, worker, socket)?;
            }
        }
        report_ports(config, &ports, [&outside, &inside.device], &attached);

        for sentence in host::advice(config, &mut netlink) {
            tracing::warn!("{sentence}");
        }
        let policy = Arc::new(config.policy.clone());
        let endpoints = endpoints(config, &mut netlink, &outside)?;
        let mut desk = new_desk(config, &policy, inner_mtu, &endpoints);
        let bell = Arc::new(Doorbell::new().map_err(Fault::ours)?);
        let now = clock::now();
        announce(&format!("{} worker(s) on CPUs {}", cpus.len(), list(&cpus)));
        announce(&format!("listening at {}, inner MTU {inner_mtu}", list(&config.outside.listen)));
        let (profile, version) = (config.policy.profile, config.policy.version);
        announce(&format!("{} client(s), policy {profile} {version}", config.clients.len()));
        if config.audit.is_some() {
            desk.keep_records(now);
        }
        let mut roster = Roster::new(&config.clients, policy.observability.record_outer_addresses);
        // As late as possible: what could fail before has not failed, and from here on the sessions are ours.
        let mut crew: Vec<(usize, Vec<Heir>)> = cpus.iter().map(|cpu| (*cpu, Vec::new())).collect();
        for heir in take_over(config, &mut desk) {
            let worker = worker_of(heir.locator().slot(), crew.len());
            roster.take_over(&heir);
            crew[worker].1.push(heir);
        }
        let mut workers = spawn_workers(config, ports, crew, inner_mtu, &desk, &bell, &mut trace)?;
        let (trace, records) = trace.start()?;
        // Desk and roster have what they need of them.
        owned.clients = Vec::new();
        let slow = SlowPath::new(Parts {
            sockets,
            filter: Filter::new(&policy.limits, now),
            desk,
            workers: std::mem::take(&mut workers.ends),
            bell,
            roster,
            netlink,
            watcher,
            next_hops: NextHops::new(outside.link.index, outside.link.mac),
            outside: outside.link.index,
            inside: inside.device.link.index,
            inside_hop: inside.hop,
            wildcard,
            steering,
            config: owned,
            records,
            ports: port_labels,
        })
        .map_err(Fault::ours)?;
        announce("ready");
        Ok(Self { slow, workers, _pair: inside.pair, admin, metrics, trace })
    }

    async fn serve(self, stop: &mut mpsc::Receiver<()>, hangup: Signal) -> Result<(), Fault> {
        let Self { slow, workers, _pair: pair, admin, metrics, trace } = self;
        let (sender, questions) = mpsc::channel(QUESTIONS);
        let reloads = tokio::spawn(reload_on(hangup, sender.clone()));
        let asks = sender.clone();
        let scrapers = metrics.map(|endpoint| tokio::spawn(endpoint.serve(move || scrape(asks.clone()))));
        let operators = tokio::spawn(admin.serve(sender));
        let served = slow.run(questions, stop).await;
        reloads.abort();
        operators.abort();
        scrapers.inspect(|scrapers| scrapers.abort());
        // Whether it was aborted or had ended: its socket is closed and the file gone when this returns.
        let _ = operators.await;
        drop(workers);
        drop(pair);
        // Nobody publishes any more: now the last records can be waited for.
        trace.stop();
        served
    }
}

/// Sessions that one worker can have at most, by policy, addresses and clients; slots spread them evenly.
fn sessions_of_a_worker(config: &Config, workers: usize) -> usize {
    let limits = &config.policy.limits;
    let of_clients = config.clients.len().saturating_mul(limits.max_sessions_per_identity as usize);
    let addresses = config.inside.pool.addresses().size() as usize;
    of_clients.min(limits.max_sessions as usize).min(addresses).div_ceil(workers.max(1))
}

/// The endpoint for scrapers, if there is to be one.
fn open_metrics(config: &Config) -> Result<Option<Endpoint>, Fault> {
    let Some(address) = config.metrics_listen else { return Ok(None) };
    let endpoint = Endpoint::open(address)?;
    let address = endpoint.address().map_err(Fault::ours)?;
    announce(&format!("metrics at http://{address}/metrics"));
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "whoever can reach this address can read the metrics: there is no password and no TLS");
    }
    Ok(Some(endpoint))
}

/// What each port turned out to be, for the metrics.
fn port_labels(ports: &Ports, devices: [&Device; 2], attached: &[Attached; 2]) -> [PortLabels; 2] {
    let of = |(role, port): (Role, &'static str), device: &Device, attached: &Attached| PortLabels {
        port,
        driver: device.driver.clone(),
        xdp_mode: attached.mode.name(),
        zero_copy: ports.info(role).zero_copy,
    };
    let [outside, inside] = devices;
    [of((Role::Outside, "outside"), outside, &attached[0]), of((Role::Inside, "inside"), inside, &attached[1])]
}

/// The ports that are there before the gateway makes anything.
fn existing_ports(config: &Config, netlink: &mut Netlink, outside: &Device) -> Result<Vec<Device>, Fault> {
    let mut ports = vec![outside.clone()];
    if config.inside.kind == InsideKind::Nic {
        ports.push(host::device(netlink, "inside.interface", &config.inside.interface)?);
    }
    Ok(ports)
}

fn start_inside(config: &Config, netlink: &mut Netlink, queues: u32, mtu: u32) -> Result<Inside, Fault> {
    let name = &config.inside.interface;
    if let (InsideKind::Nic, Some(router)) = (config.inside.kind, config.inside.router) {
        let device = host::device(netlink, "inside.interface", name)?;
        let hop = InsideHop::to_router(&device.link, router);
        return Ok(Inside { pair: None, device, hop });
    }
    let plan = VethPlan { host_name: name.clone(), queues, mtu, pool: config.inside.pool };
    let pair = InsideVeth::create(netlink, &plan)?;
    // No hardware follows: checksums that the host leaves open would never be filled in.
    ethtool::finish_packets_in_software(&pair.host().name)?;
    let device = host::device(netlink, "inside.interface", &pair.port().name)?;
    let hop = InsideHop::to_host(pair.port(), pair.host());
    Ok(Inside { pair: Some(pair), device, hop })
}

/// Loads the programs and fills their tables. The second value is there if a wildcard address is listened on: the own
/// addresses, which then follow the interface's.
fn load_steering(
    config: &Config,
    netlink: &mut Netlink,
    outside: &Device,
    inside: &Device,
    workers: usize,
) -> Result<(Steering, Option<HashSet<IpAddr>>), Fault> {
    let pool = &config.inside.pool;
    let mut steering = Steering::load(&SteeringConfig {
        port: config.outside.listen[0].port(),
        workers: workers as u32,
        outside_queues: outside.queues,
        inside_queues: inside.queues,
        pool_v4: pool.v4().map(|net| net.network()),
        pool_v6: pool.v6().map(|net| net.network()),
        pool_size: pool.addresses().size(),
    })?;
    steer_slots(&mut steering, workers)?;
    if config.inside.kind == InsideKind::Veth {
        steering.set_host(GATEWAY_INDEX)?;
    }
    let listen = config.outside.listen.iter().map(SocketAddr::ip);
    let wildcard = listen.clone().any(|ip| ip.is_unspecified());
    let own: HashSet<IpAddr> =
        if wildcard { netlink.addresses(Some(outside.link.index))?.into_iter().collect() } else { listen.collect() };
    for address in &own {
        steering.add_local(*address)?;
    }
    Ok((steering, wildcard.then_some(own)))
}

fn open_ports(
    config: &Config,
    outside: &Device,
    inside: &Device,
    workers: usize,
    attached: &[Attached; 2],
) -> Result<Ports, Fault> {
    let generic = attached.iter().any(|attached| attached.mode == Mode::Generic);
    if generic && config.outside.zero_copy == ZeroCopy::Require {
        return Err(Fault::operator(
            "zero-copy is required, but the XDP programs run in generic mode, which always copies",
            "set outside.zero_copy = \"auto\", or use an interface whose driver runs XDP natively",
        ));
    }
    let zero_copy = match config.outside.zero_copy {
        _ if generic => crate::port::ZeroCopy::Off,
        ZeroCopy::Auto => crate::port::ZeroCopy::Auto,
        ZeroCopy::Off => crate::port::ZeroCopy::Off,
        ZeroCopy::Require => crate::port::ZeroCopy::Require,
    };
    if generic {
        // The kernel would merge packets into one that fits into no frame.
        ethtool::disable_receive_merging(&outside.link.name)?;
    }
    let port = |device: &Device| PortConfig { interface: device.link.name.clone(), queues: device.queues };
    Ok(Ports::open(&PlaneConfig {
        outside: port(outside),
        inside: port(inside),
        workers: workers as u16,
        zero_copy,
        frame_size: FrameSize::for_mtu(outside.link.mtu.max(inside.link.mtu))?,
        rings: RingSizes::default(),
    })?)
}

fn new_desk(config: &Config, policy: &Arc<Policy>, inner_mtu: u32, endpoints: &[SocketAddr]) -> HandshakeDesk {
    let pool = &config.inside.pool;
    let clients = config.clients.iter().map(|client| (client.public_key, client.entry()));
    let desk = DeskConfig {
        secret: config.secret.clone(),
        clients: clients.collect(),
        policy: Arc::clone(policy),
        pool: *pool.addresses(),
        prefixes: (pool.v4().map_or(0, |net| net.prefix_len()), pool.v6().map_or(0, |net| net.prefix_len())),
        mtu: u16::try_from(inner_mtu).unwrap_or(u16::MAX),
        endpoints: endpoints.iter().copied().take(ENDPOINTS_MAX).collect(),
    };
    HandshakeDesk::new(desk, Box::new(OsEntropy), clock::now())
}

/// Starts a worker on each CPU, with the sessions that it goes on with.
fn spawn_workers(
    config: &Config,
    ports: Ports,
    crew: Vec<(usize, Vec<Heir>)>,
    inner_mtu: u32,
    desk: &HandshakeDesk,
    bell: &Arc<Doorbell>,
    trace: &mut Trace,
) -> Result<Workers, Fault> {
    let pool = config.inside.pool.addresses();
    let count = crew.len();
    let resets = resets_share(&config.policy, count);
    let mut workers = Workers { threads: Vec::new(), ends: Vec::new() };
    for ((cpu, heirs), ports) in crew.into_iter().zip(ports.into_workers()) {
        let mut shard = Shard::new(
            ShardConfig { pool: *pool, reset_key: desk.reset_key(), resets },
            Box::new(seeded()),
            clock::now(),
        );
        shard.keep_slots(|slot| worker_of(slot, count) == usize::from(ports.worker()));
        shard.lend_stopwatch(clock::nanoseconds);
        let records = trace.attach_worker(ports.worker());
        if records.is_some() {
            shard.keep_records(clock::now(), desk.disclosure());
        }
        heirs.into_iter().for_each(|heir| shard.take_over(clock::now(), heir));
        let (slow_end, worker_end) = link::<Shard>(bell, ports.bell());
        let inner_mtu = u16::try_from(inner_mtu).unwrap_or(u16::MAX);
        let worker = WorkerConfig { cpu: Some(cpu), pool: *pool, inner_mtu };
        workers.threads.push(worker::spawn(worker, ports, shard, worker_end, records).map_err(Fault::ours)?);
        workers.ends.push(slow_end);
    }
    Ok(workers)
}

/// The sessions of the run before, if it handed them over; whole or not at all (OW-10). A gateway without them runs all
/// the same: their clients learn by SESSION_RESET that they are gone.
fn take_over(config: &Config, desk: &mut HandshakeDesk) -> Vec<Heir> {
    let place = HandoverFile::beside(&config.admin_socket);
    let refused = |problem: &dyn std::fmt::Display| {
        let file = place.path();
        tracing::error!(file = %file.display(), %problem, "CRITICAL: the sessions of the run before are lost");
        Vec::new()
    };
    match place.take() {
        Ok(None) => Vec::new(),
        Ok(Some(Found { sealed, circumstances })) => match desk.take_over(&circumstances, sealed) {
            Ok(heirs) => {
                announce(&format!("{} session(s) go on from the run before", heirs.len()));
                heirs
            }
            Err(error) => refused(&error),
        },
        Err(error) => {
            desk.record_lost_hand_over(clock::now());
            refused(&error)
        }
    }
}

/// RF-3 wants one limiter for the gateway; each worker gets its share of it.
pub(crate) fn resets_share(policy: &Policy, workers: usize) -> Rate {
    Rate::even(policy.limits.resets_total.per_second.div_ceil(workers as u32))
}

/// Where clients can reach the gateway: the listen addresses, wildcards replaced by those of the interface.
fn endpoints(config: &Config, netlink: &mut Netlink, outside: &Device) -> Result<Vec<SocketAddr>, Fault> {
    let own = netlink.addresses(Some(outside.link.index))?;
    let mut found: Vec<SocketAddr> = Vec::new();
    for listen in &config.outside.listen {
        let expanded: Vec<SocketAddr> = if listen.ip().is_unspecified() {
            let reachable = own.iter().filter(|ip| ip.is_ipv4() == listen.is_ipv4() && !is_link_local(**ip));
            reachable.map(|ip| SocketAddr::new(*ip, listen.port())).collect()
        } else {
            vec![*listen]
        };
        found.extend(expanded.into_iter().filter(|address| !found.contains(address)).collect::<Vec<_>>());
    }
    Ok(found)
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// SIGINT and SIGTERM as messages; and SIGHUP, which asks for a reload.
fn signals() -> Result<(mpsc::Receiver<()>, Signal), Fault> {
    let (sender, receiver) = mpsc::channel(1);
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut signal = signal(kind).map_err(Fault::ours)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                // If one waits already, this one adds nothing.
                let _ = sender.try_send(());
            }
        });
    }
    Ok((receiver, signal(SignalKind::hangup()).map_err(Fault::ours)?))
}

/// Each SIGHUP is a question whose answer nobody reads: the log has it. One that comes from a closing terminal does no
/// harm, since the file is most likely what it was.
async fn reload_on(mut hangup: Signal, questions: mpsc::Sender<Pending>) {
    while hangup.recv().await.is_some() {
        let (answer, _) = oneshot::channel();
        if questions.send(Pending { question: Question::Reload, answer }).await.is_err() {
            return;
        }
    }
}

/// What each port turned out to be: an operator must be able to see a fallback.
fn report_ports(config: &Config, ports: &Ports, devices: [&Device; 2], attached: &[Attached; 2]) {
    for ((role, device), attached) in Role::ALL.into_iter().zip(devices).zip(attached) {
        let info = ports.info(role);
        let side = match role {
            Role::Outside => "outside",
            Role::Inside => "inside",
        };
        let copy = if info.zero_copy { "zero-copy" } else { "copy" };
        announce(&format!(
            "{side} {}: XDP {}, driver {}, MTU {}, {} queue(s) x {} worker(s), {copy}, need_wakeup",
            info.interface, attached.mode, device.driver, device.link.mtu, info.queues, info.workers,
        ));
        if let Some(cause) = &attached.fallback {
            tracing::warn!(interface = info.interface, cause, "XDP runs in generic mode: slower, but correct");
        }
    }
    if config.outside.zero_copy == ZeroCopy::Auto
        && let Some(cause) = ports.zero_copy_refused()
    {
        tracing::info!(%cause, "packets are copied");
    }
}

fn seeded() -> SeededEntropy {
    let mut seed = [0; 32];
    OsEntropy.fill(&mut seed);
    SeededEntropy::from_bytes(&seed)
}

/// One line of the start-up report, on standard output, where service managers and tests read it.
fn announce(text: &str) {
    let mut stdout = io::stdout().lock();
    // Nobody reading it is no reason to stop.
    let _ = writeln!(stdout, "jumpgate: {text}").and_then(|()| stdout.flush());
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
