//! `jumpgate run` in the lab's gateway namespace.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use jumpgate_metrics::Readings;
use serde::Deserialize;

use super::{KeyPair, Programs, tail};
use crate::run::{Process, Run};
use crate::topology::{GATEWAY_OUTSIDE, Lab};

/// How long the gateway may take to answer on its admin socket.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Where the gateway's metrics are, on its own host.
pub const METRICS: &str = "127.0.0.1:9464";
/// The gateway's inside link, as its configuration names it.
pub(super) const INSIDE: &str = "jg0";

/// How a gateway is configured.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Its key.
    pub key: KeyPair,
    /// Who may connect.
    pub peers: Vec<Peer>,
    /// How its programs attach: `native`, `generic` or `auto`.
    pub mode: &'static str,
    /// Whether it listens on all addresses of its interface, whatever they become, instead of its two.
    pub any_address: bool,
    /// Policy profile.
    pub profile: &'static str,
    /// Further lines of the `[policy]` table.
    pub policy: String,
}

/// A client that a gateway knows.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its public key.
    pub public: String,
    /// Its pre-shared key's file.
    pub psk_file: Option<PathBuf>,
}

/// A running gateway. Dropping it stops it.
pub struct Gateway {
    run: Run,
    program: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    process: Process,
}

/// A row of `jumpgate sessions --json`: what the lab looks at.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Session {
    /// The session id on the wire.
    pub locator: String,
    /// Name of the client.
    pub client: String,
    /// State of the machine.
    pub state: String,
    /// `binding_epoch`.
    pub epoch: u64,
    /// `state_version`: one more with every transition.
    pub version: u64,
    /// Outer address of the client.
    pub peer: Option<SocketAddr>,
    /// The client's number of the path.
    pub transport_id: Option<u16>,
    /// Whether its binding is validated.
    pub validated: bool,
    /// The worker that owns the session.
    pub worker: u16,
    /// The receive queue by which its last packet came.
    pub queue: u16,
    /// Inner address.
    pub inner_v4: Option<Ipv4Addr>,
    /// Inner address.
    pub inner_v6: Option<Ipv6Addr>,
    /// Packets from the client.
    pub rx_packets: u64,
    /// Committed switches.
    pub switches: u64,
}

#[derive(Deserialize)]
struct CounterRow {
    name: String,
    value: u64,
}

#[derive(Deserialize)]
struct SlotRow {
    slots: usize,
}

impl Session {
    /// Whether nothing happened to it: same identity, state, version, epoch and binding. Traffic may have.
    pub fn is_as(&self, before: &Self) -> bool {
        let what = |session: &Self| {
            let Self { locator, state, epoch, version, peer, transport_id, validated, switches, worker, .. } =
                session.clone();
            (locator, state, epoch, version, peer, transport_id, validated, switches, worker)
        };
        what(self) == what(before)
    }
}

impl GatewayOptions {
    /// A gateway with that key and those clients: native mode, profile `mobile`.
    pub fn new(key: KeyPair, peers: Vec<Peer>) -> Self {
        Self { key, peers, mode: "native", any_address: false, profile: "mobile", policy: String::new() }
    }

    /// The text of the configuration file.
    pub fn config(&self, lab: &Lab, socket: &std::path::Path) -> String {
        let listen = [false, true].map(|ipv6| {
            let endpoint = lab.gateway_endpoint(ipv6);
            let any: IpAddr = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
            if self.any_address { SocketAddr::new(any, endpoint.port()) } else { endpoint }
        });
        let mut text = format!(
            "[gateway]\nprivate_key_file = {key:?}\nadmin_socket = {socket:?}\n\n\
             [outside]\ninterface = {GATEWAY_OUTSIDE:?}\nlisten = [\"{v4}\", \"{v6}\"]\nmode = {mode:?}\n\n\
             [inside]\nkind = \"veth\"\ninterface = {INSIDE:?}\npool_v4 = \"10.66.0.0/16\"\npool_v6 = \"fd66::/112\"\n\n\
             [workers]\ncount = 2\n\n\
             [audit]\npath = {audit:?}\n\n\
             [metrics]\nlisten = {METRICS:?}\n\n\
             [policy]\nversion = \"1.0\"\nprofile = {profile:?}\n{policy}\n",
            key = self.key.private_file,
            audit = socket.with_file_name("audit"),
            v4 = listen[0],
            v6 = listen[1],
            mode = self.mode,
            profile = self.profile,
            policy = self.policy,
        );
        for Peer { name, public, psk_file } in &self.peers {
            text += &format!("\n[[client]]\nname = {name:?}\npublic_key = {public:?}\n");
            if let Some(file) = psk_file {
                text += &format!("psk_file = {file:?}\n");
            }
        }
        text
    }
}

impl Gateway {
    /// Starts a gateway and waits until it answers.
    pub fn start(lab: &Lab, programs: &Programs, options: &GatewayOptions) -> Result<Self> {
        let gateway = Self::launch(lab, programs, options)?;
        gateway.wait_until_ready()?;
        Ok(gateway)
    }

    /// Starts a gateway and does not wait.
    pub fn launch(lab: &Lab, programs: &Programs, options: &GatewayOptions) -> Result<Self> {
        let directory = lab.run.directory();
        let (config, socket, log) =
            (directory.join("gateway.toml"), directory.join("gateway.sock"), directory.join("gateway.log"));
        fs::write(&config, options.config(lab, &socket)).context("writing the gateway's configuration")?;
        let mut command = lab.gateway.command(&programs.gateway);
        command.arg("run").arg("--config").arg(&config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let process = lab.run.spawn("the gateway", &mut command)?;
        Ok(Self { run: lab.run.clone(), program: programs.gateway.clone(), socket, log, process })
    }

    /// Waits until it answers operators.
    pub fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while self.sessions().is_err() {
            if let Some(status) = self.process.exited()? {
                bail!("the gateway ended ({status}):\n      | {}", tail(&self.log));
            }
            if Instant::now() > deadline {
                bail!("the gateway does not answer after {START_LIMIT:?}:\n      | {}", tail(&self.log));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Its sessions.
    pub fn sessions(&self) -> Result<Vec<Session>> {
        let text = self.ask("sessions")?;
        serde_json::from_str(&text).with_context(|| format!("reading the gateway's sessions from {text:?}"))
    }

    /// Its one session; an error if it has none or more.
    pub fn session(&self) -> Result<Session> {
        let mut sessions = self.sessions()?;
        match (sessions.pop(), sessions.is_empty()) {
            (Some(session), true) => Ok(session),
            (None, _) => bail!("the gateway has no session"),
            (Some(_), false) => bail!("the gateway has {} sessions", sessions.len() + 1),
        }
    }

    /// The one session of a client; an error if it has none or more.
    pub fn session_of(&self, client: &str) -> Result<Session> {
        let mut sessions = self.sessions()?;
        sessions.retain(|session| session.client == client);
        match <[Session; 1]>::try_from(sessions) {
            Ok([session]) => Ok(session),
            Err(sessions) => bail!("{client} has {} sessions", sessions.len()),
        }
    }

    /// A counter by name, summed over all who count.
    pub fn counter(&self, name: &str) -> Result<u64> {
        Ok(self.counters()?.get(name).copied().unwrap_or(0))
    }

    /// All counters that are not zero, each summed over all who count.
    pub fn counters(&self) -> Result<BTreeMap<String, u64>> {
        let text = self.ask("counters")?;
        let rows: Vec<CounterRow> = serde_json::from_str(&text).with_context(|| format!("reading {text:?}"))?;
        let mut sums = BTreeMap::new();
        for row in rows {
            *sums.entry(row.name).or_default() += row.value;
        }
        Ok(sums)
    }

    /// Its metrics.
    pub fn metrics(&self) -> Result<Readings> {
        let mut command = std::process::Command::new(&self.program);
        let page = self.run.check(command.args(["metrics", "--socket"]).arg(&self.socket), "")?;
        Ok(Readings::parse(&page)?)
    }

    /// Has it read policy and clients again.
    pub fn reload(&self) -> Result<()> {
        let mut command = std::process::Command::new(&self.program);
        self.run.check(command.args(["reload", "--socket"]).arg(&self.socket), "").map(drop)
    }

    /// Wants a session to move, as an operator would.
    pub fn force_move(&self, locator: &str) -> Result<()> {
        let mut command = std::process::Command::new(&self.program);
        self.run.check(command.args(["move", locator, "--socket"]).arg(&self.socket), "").map(drop)
    }

    /// Ends a session, as an operator would.
    pub fn terminate(&self, locator: &str) -> Result<()> {
        let mut command = std::process::Command::new(&self.program);
        self.run.check(command.args(["terminate", locator, "--socket"]).arg(&self.socket), "").map(drop)
    }

    /// Orders something of its slots, as an operator would; gives what it said.
    pub fn slots(&self, order: &[&str]) -> Result<String> {
        let mut command = std::process::Command::new(&self.program);
        self.run.check(command.arg("slots").args(order).arg("--socket").arg(&self.socket), "")
    }

    /// How many slots each worker owns.
    pub fn slot_table(&self) -> Result<Vec<usize>> {
        let text = self.ask("slots")?;
        let rows: Vec<SlotRow> = serde_json::from_str(&text).with_context(|| format!("reading {text:?}"))?;
        Ok(rows.into_iter().map(|row| row.slots).collect())
    }

    /// Where it answers operators.
    pub fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// Memory that its process has resident, in bytes.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let kilobytes: u64 = kilobytes.and_then(|text| text.parse().ok()).context("reading the gateway's memory")?;
        Ok(kilobytes * 1024)
    }

    /// All counters, as the gateway prints them for people.
    pub fn counters_text(&self) -> Result<String> {
        let mut command = std::process::Command::new(&self.program);
        self.run.check(command.args(["counters", "--socket"]).arg(&self.socket), "")
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Stops it as an operator would (SIGTERM); an error if it does not end well.
    pub fn stop(self) -> Result<()> {
        let status = self.process.stop().ok_or_else(|| anyhow!("the gateway cannot be waited for"))?;
        if !status.success() {
            bail!("the gateway ended with {status}:\n      | {}", tail(&self.log));
        }
        Ok(())
    }

    /// Hands its sessions over to the next one, and waits for its end.
    pub fn hand_over(self) -> Result<()> {
        let mut command = std::process::Command::new(&self.program);
        self.run.check(command.args(["handover", "--socket"]).arg(&self.socket), "")?;
        match self.process.wait(START_LIMIT)? {
            Some(status) if status.success() => Ok(()),
            status => bail!("the gateway ended with {status:?}:\n      | {}", tail(&self.log)),
        }
    }

    /// Kills it, as a power cut would.
    pub fn kill(self) {
        self.process.signal(nix::sys::signal::Signal::SIGKILL);
    }

    fn ask(&self, what: &str) -> Result<String> {
        let mut command = std::process::Command::new(&self.program);
        self.run.check(command.args([what, "--json", "--socket"]).arg(&self.socket), "")
    }
}
