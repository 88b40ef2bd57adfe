//! The gateway under load: the product's own program as a process of its own, on a CPU of its own, between two pairs of
//! virtual links.
//!
//! ```text
//! clients: AF_XDP on lg-far ----- lg-out | jumpgate run | lg-in ----- lg-host AF_XDP: servers
//! ```
//!
//! All in a network namespace without a name, which ends with this process: there is nothing to clean up.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jumpgate::xdp::{ModeChoice, Side, Steering, SteeringConfig};
use jumpgate_metrics::Readings;
use jumpgate_protocol::entropy::SeededEntropy;
use jumpgate_protocol::handshake::StaticSecret;
use jumpgate_protocol::ident::PublicKey;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::datagram::Ends;
use super::line::Line;
use super::member::{OUTER_BASE, OUTER_SPAN, PATHS};
use crate::links::{ip, make_pair};

/// Where the gateway listens.
pub(crate) const GATEWAY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 51_900);
/// The router that stands for all clients' networks.
pub(crate) const CLIENTS_ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
/// Whom clients talk to.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 80);
/// The gateway's address on the inside, and its router there.
pub(crate) const INSIDE: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 254));
/// The link address of both routers, which no link has. The XDP programs of the generator lead packets to it all the same;
/// without them, the kernel throws such packets away on arrival.
pub(crate) const NOBODY: [u8; 6] = [4; 6];
/// How long the gateway may take to start; a hundred thousand clients are a long file.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a busy one may take to answer its operator.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What a gateway is started with.
#[derive(Clone, Debug)]
pub struct PlantConfig {
    /// How many clients it knows.
    pub clients: u32,
    /// Their keys follow from it.
    pub seed: u64,
    /// Policy profile.
    pub profile: String,
    /// Further lines of its `[policy]` table.
    pub policy: String,
    /// Further tables of its configuration.
    pub tables: String,
    /// CPU of all its threads.
    pub cpu: usize,
    /// How its XDP programs run.
    pub mode: &'static str,
    /// Packets that can be laid ahead on each of the generator's lines.
    pub ahead: u32,
}

/// A running gateway with both lines to it.
pub struct Plant {
    process: Child,
    directory: TempDir,
    program: PathBuf,
    known: u32,
    /// Leads the answers to the clients and to the servers to their lines; none while nobody listens.
    far_ends: Option<[Steering; 2]>,
    /// The clients' secrets.
    pub secrets: Vec<StaticSecret>,
    /// The gateway's public key.
    pub key: PublicKey,
}

/// The generator's two lines.
pub(super) struct Lines {
    pub(super) clients: Line,
    pub(super) clients_ends: Ends,
    pub(super) servers: Line,
    pub(super) servers_ends: Ends,
}

impl Plant {
    /// Makes the links, starts the gateway on its CPU and waits until it answers.
    pub(super) fn start(config: &PlantConfig) -> Result<(Self, Lines)> {
        make_pair("lg-out", "lg-far")?;
        make_pair("lg-in", "lg-host")?;
        let [out, far, inside, host] = ["lg-out", "lg-far", "lg-in", "lg-host"].map(mac_of);
        let (out, far, inside, host) = (out?, far?, inside?, host?);
        // Not permanent: a kernel that is asked to check a permanent neighbour (NTF_USE) forgets it.
        ip(&format!(
            "link set lo up\naddr add {}/24 dev lg-out\naddr add {}/24 dev lg-in\n\
             neigh add {CLIENTS_ROUTER} lladdr {} nud noarp dev lg-out\n\
             neigh add {} lladdr {} nud noarp dev lg-in\n\
             route add {OUTER_BASE}/10 via {CLIENTS_ROUTER}\n",
            GATEWAY.ip(),
            INSIDE.0,
            text_of(NOBODY),
            INSIDE.1,
            text_of(NOBODY),
        ))?;
        let clients = Line::open("lg-far", config.ahead)?;
        let servers = Line::open("lg-host", config.ahead)?;

        let mut entropy = SeededEntropy::new(config.seed);
        let secret = StaticSecret::generate(&mut entropy);
        let key = secret.public();
        let secrets: Vec<_> = (0..config.clients).map(|_| StaticSecret::generate(&mut entropy)).collect();
        let directory = tempfile::Builder::new().prefix("jumpgate-bench-").tempdir()?;
        write_config(directory.path(), config, &secret, &secrets)?;
        let program = program("jumpgate")?;
        let process = spawn(&program, directory.path(), config.cpu)?;
        let mut plant = Self { process, directory, program, known: config.clients, far_ends: None, secrets, key };
        plant.listen(&clients, &servers)?;
        plant.wait_until_ready()?;
        let clients_ends = Ends { ours: far, theirs: out };
        let servers_ends = Ends { ours: host, theirs: inside };
        Ok((plant, Lines { clients, clients_ends, servers, servers_ends }))
    }

    /// What the gateway sends reaches these lines from now on.
    pub(super) fn listen(&mut self, clients: &Line, servers: &Line) -> Result<()> {
        let span = OUTER_SPAN * PATHS as u32;
        let outside = lead(clients, "lg-far", OUTER_BASE, span, self.known, OUTER_SPAN)?;
        let inside = lead(servers, "lg-host", SERVER, 1, 1, 1)?;
        self.far_ends = Some([outside, inside]);
        Ok(())
    }

    /// What the gateway sends is thrown away where it arrives, at the least cost, and only counted there: it is addressed
    /// to [`NOBODY`].
    pub(super) fn turn_deaf(&mut self) {
        self.far_ends = None;
    }

    /// Stops the program where it is, with all its threads, or lets it go on.
    pub(super) fn hold(&self, still: bool) -> Result<()> {
        let pid = Pid::from_raw(self.process.id() as i32);
        kill(pid, if still { Signal::SIGSTOP } else { Signal::SIGCONT })?;
        let deadline = Instant::now() + STOP_LIMIT;
        while still && !self.stands_still()? {
            ensure!(Instant::now() < deadline, "the gateway does not stand still");
        }
        Ok(())
    }

    /// Whether every thread is stopped: state T, behind the name in brackets (proc(5)).
    fn stands_still(&self) -> Result<bool> {
        for thread in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let stat = fs::read_to_string(thread?.path().join("stat"))?;
            if !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T')) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The process that is measured.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Where it keeps its files: configuration, log, audit.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What it answers to an operator's question, as JSON.
    pub fn ask(&self, question: &str) -> Result<serde_json::Value> {
        let socket = self.directory.path().join("admin.sock");
        let output = Command::new(&self.program).args([question, "--json", "--socket"]).arg(socket).output()?;
        ensure!(output.status.success(), "jumpgate {question}: {}", String::from_utf8_lossy(&output.stderr).trim());
        serde_json::from_slice(&output.stdout).with_context(|| format!("jumpgate {question} did not answer in JSON"))
    }

    /// All its counters.
    pub fn counters(&self) -> Result<serde_json::Value> {
        patiently(|| self.ask("counters"))
    }

    /// Its metrics.
    pub fn metrics(&self) -> Result<Readings> {
        let socket = self.directory.path().join("admin.sock");
        patiently(|| {
            let output = Command::new(&self.program).args(["metrics", "--socket"]).arg(&socket).output()?;
            ensure!(output.status.success(), "jumpgate metrics: {}", String::from_utf8_lossy(&output.stderr).trim());
            Ok(Readings::parse(&String::from_utf8_lossy(&output.stdout))?)
        })
    }

    /// Runs the product's program with these arguments, its output captured.
    pub fn tool(&self, arguments: &[&str]) -> Result<std::process::Output> {
        Command::new(&self.program).args(arguments).output().context("cannot run jumpgate")
    }

    /// Stops it as an operator would, so that its records are whole.
    pub fn stop(&mut self) -> Result<()> {
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM)?;
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(status) = self.process.try_wait()? {
                ensure!(status.success(), "the gateway ended with {status}:\n{}", self.log_tail());
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the gateway did not stop within {STOP_LIMIT:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while self.ask("counters").is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("the gateway ended at its start with {status}:\n{}", self.log_tail());
            }
            ensure!(Instant::now() < deadline, "the gateway does not answer:\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let mut text = String::new();
        let _ = File::open(self.directory.path().join("log")).and_then(|mut file| file.read_to_string(&mut text));
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Asks a gateway that may have no time just now, again if need be.
fn patiently<T>(question: impl Fn() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + ANSWER_LIMIT;
    loop {
        match question() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
            answer => return answer,
        }
    }
}

/// The program beside this one: both come from the same build.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.exists(), "{} is not built; `cargo xtask bench` builds it", path.display());
    Ok(path)
}

fn spawn(program: &Path, directory: &Path, cpu: usize) -> Result<Child> {
    let log = File::create(directory.join("log"))?;
    let mut command = Command::new(program);
    command.args(["run", "--config"]).arg(directory.join("gateway.toml"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    spawn_pinned(&mut command, cpu)
}

/// Starts a program on one CPU, in a process group of its own: Ctrl-C is for us.
pub(crate) fn spawn_pinned(command: &mut Command, cpu: usize) -> Result<Child> {
    use std::os::unix::process::CommandExt as _;
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    // Inherited: the threads of this process keep theirs, the child begins with the one of the thread that makes it.
    let before = nix::sched::sched_getaffinity(Pid::from_raw(0))?;
    sched_setaffinity(Pid::from_raw(0), &cpus)?;
    let child = command.process_group(0).spawn();
    sched_setaffinity(Pid::from_raw(0), &before)?;
    child.with_context(|| format!("cannot start {}", command.get_program().display()))
}

/// Has the XDP program of a plain inside port lead every packet to these addresses to that line.
pub(crate) fn lead(line: &Line, link: &str, base: Ipv4Addr, span: u32, used: u32, stride: u32) -> Result<Steering> {
    let mut steering = Steering::load(&SteeringConfig {
        port: GATEWAY.port(),
        workers: 1,
        outside_queues: 1,
        inside_queues: 1,
        pool_v4: Some(base),
        pool_v6: None,
        pool_size: span,
    })?;
    steering.set_socket(Side::Inside, 0, 0, line)?;
    for path in (0..span).step_by(stride as usize) {
        for number in 0..used.min(stride) {
            steering.set_client(path + number, Some(0))?;
        }
    }
    steering.attach(Side::Inside, link, ModeChoice::Native)?;
    Ok(steering)
}

fn write_config(directory: &Path, config: &PlantConfig, secret: &StaticSecret, clients: &[StaticSecret]) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let key = directory.join("private.key");
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&key)?;
    std::io::Write::write_all(&mut file, BASE64.encode(secret.as_bytes()).as_bytes())?;
    let mut text = format!(
        "[gateway]\nprivate_key_file = {key:?}\nadmin_socket = {:?}\n\n\
         [outside]\ninterface = \"lg-out\"\nlisten = [\"{GATEWAY}\"]\nmode = {:?}\n\n\
         [inside]\nkind = \"nic\"\ninterface = \"lg-in\"\nrouter = \"{}\"\npool_v4 = \"10.0.0.0/15\"\n\n\
         [workers]\ncount = 1\ncpus = [{}]\n\n\
         [audit]\npath = {:?}\n\n\
         [policy]\nversion = \"1.0\"\nprofile = {:?}\n{}\n{}\n",
        directory.join("admin.sock"),
        config.mode,
        INSIDE.1,
        config.cpu,
        directory.join("audit"),
        config.profile,
        config.policy,
        config.tables,
    );
    for (number, client) in clients.iter().enumerate() {
        let public = BASE64.encode(client.public().0);
        // Writing to a String cannot fail.
        let _ = write!(text, "\n[[client]]\nname = \"c{number}\"\npublic_key = \"{public}\"\n");
    }
    fs::write(directory.join("gateway.toml"), text).context("cannot write the gateway's configuration")
}

/// The link-layer address of a link of this namespace, asked by netlink through `ip`: /sys shows another namespace's.
pub(crate) fn mac_of(link: &str) -> Result<[u8; 6]> {
    let output = Command::new("ip").args(["-json", "link", "show", link]).output().context("cannot run `ip`")?;
    let links: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let text = links[0]["address"].as_str().with_context(|| format!("{link} has no address"))?;
    let mut mac = [0; 6];
    for (byte, part) in mac.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(part, 16)?;
    }
    Ok(mac)
}

pub(crate) fn text_of(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
