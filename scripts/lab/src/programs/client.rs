//! `jump up` in the lab's client namespace.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use jumpgate_metrics::Readings;
use serde::Deserialize;

use super::{KeyPair, Programs, tail};
use crate::namespace::Namespace;
use crate::run::{Process, Run, lock};
use crate::topology::{Lab, Uplink};

/// How long the client may take to answer on its control socket.
const START_LIMIT: Duration = Duration::from_secs(5);
/// How long a first handshake may take on a good path.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How a client is configured.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Its name; its files and its TUN are called after it.
    pub name: String,
    /// Its key.
    pub key: KeyPair,
    /// The gateway's public key.
    pub gateway: String,
    /// Its pre-shared key's file.
    pub psk_file: Option<PathBuf>,
    /// Where the gateway listens.
    pub endpoints: Vec<SocketAddr>,
    /// Where it runs.
    pub namespace: Namespace,
    /// The interfaces that it may use, the preferred one first.
    pub interfaces: Vec<String>,
}

/// A running client. Dropping it stops it.
pub struct Client {
    run: Run,
    program: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    tun: String,
    process: Process,
}

/// What the lab looks at in `jump status --json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// What the program is doing.
    pub phase: String,
    /// The session id on the wire.
    pub session: Option<String>,
    /// State of the session.
    pub state: String,
    /// `binding_epoch`.
    pub epoch: u64,
    /// The interface in use.
    pub active_interface: Option<String>,
    /// Inner addresses, each with its prefix.
    pub addresses: Vec<String>,
    /// MTU of the tunnel.
    pub mtu: Option<u16>,
    /// Sessions since the program started.
    pub sessions: u64,
    /// Why the last handshake or session failed.
    pub last_error: Option<String>,
    /// Every path.
    pub paths: Vec<PathReport>,
    /// Committed switches of the present session.
    pub switches_total: u64,
    /// Packets dropped at the client, by reason.
    pub drops: BTreeMap<String, u64>,
}

/// A path in the status.
#[derive(Clone, Debug, Deserialize)]
pub struct PathReport {
    /// The interface.
    pub interface: String,
    /// `active`, `standby` or `down`.
    pub state: String,
    /// Whether the gateway has seen that it works both ways.
    pub validated: bool,
    /// The client's address as the gateway sees it.
    pub observed: Option<SocketAddr>,
}

/// A line of `jump events`, with the moment at which the lab read it.
#[derive(Clone, Debug)]
pub struct Heard {
    /// When the lab read it.
    pub at: Instant,
    /// When it happened, by the client: time since the machine started.
    pub boottime: Duration,
    /// What happened.
    pub event: Event,
}

/// The same as it is written.
#[derive(Deserialize)]
struct Line {
    boottime_us: u64,
    #[serde(flatten)]
    event: Event,
}

/// The events that the lab understands.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of `jump events`")]
pub enum Event {
    Connected {
        session: String,
        interface: Option<String>,
    },
    Transition {
        transition: String,
        from: String,
        to: String,
        reason: String,
        detail: Option<String>,
        epoch: u64,
    },
    Switched {
        switch: Switch,
    },
    Refused {
        reason: String,
        interface: String,
    },
    Terminated {
        reason: String,
        detail: Option<String>,
    },
    #[serde(other)]
    Other,
}

/// A committed switch.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of `jump events`")]
pub struct Switch {
    pub from_interface: Option<String>,
    pub to_interface: String,
    pub reason: Option<String>,
    pub detail: Option<String>,
    pub epoch: u64,
}

/// The events of a client, gathered while it runs.
pub struct Events {
    heard: Arc<Mutex<Vec<Heard>>>,
    _process: Process,
}

impl ClientOptions {
    /// A client that knows both uplinks and the gateway's address of one family.
    pub fn new(lab: &Lab, name: &str, key: KeyPair, gateway: &str, ipv6: bool) -> Self {
        Self {
            name: name.to_owned(),
            key,
            gateway: gateway.to_owned(),
            psk_file: None,
            endpoints: vec![lab.gateway_endpoint(ipv6)],
            namespace: lab.client.clone(),
            interfaces: Uplink::ALL.iter().map(|uplink| uplink.interface.to_owned()).collect(),
        }
    }

    /// Name of its TUN.
    pub fn tun(&self) -> String {
        format!("jg-{}", self.name)
    }

    fn config(&self, directory: &std::path::Path, socket: &std::path::Path) -> String {
        let endpoints: Vec<String> = self.endpoints.iter().map(|endpoint| format!("\"{endpoint}\"")).collect();
        let mut text = format!(
            "[client]\nprivate_key_file = {:?}\nstate_dir = {:?}\ncontrol_socket = {socket:?}\ninterface = {:?}\n\
             routes = [\"10.99.0.0/24\", \"10.66.0.0/16\", \"fd99::/64\", \"fd66::/112\"]\n\n\
             [gateway]\npublic_key = {:?}\nendpoints = [{}]\n",
            self.key.private_file,
            directory.join(format!("{}.state", self.name)),
            self.tun(),
            self.gateway,
            endpoints.join(", "),
        );
        if let Some(file) = &self.psk_file {
            text += &format!("psk_file = {file:?}\n");
        }
        for (rank, interface) in self.interfaces.iter().enumerate() {
            text += &format!("\n[[uplink]]\ninterface = {interface:?}\npriority = {}\n", 10 * (rank + 1));
        }
        text
    }
}

impl Client {
    /// Starts a client and waits for its session.
    pub fn start(lab: &Lab, programs: &Programs, options: &ClientOptions) -> Result<Self> {
        let client = Self::launch(lab, programs, options)?;
        client.wait_until_connected()?;
        Ok(client)
    }

    /// Starts a client and does not wait.
    pub fn launch(lab: &Lab, programs: &Programs, options: &ClientOptions) -> Result<Self> {
        let directory = lab.run.directory();
        let file = |kind: &str| directory.join(format!("{}.{kind}", options.name));
        let (config, socket, log) = (file("toml"), file("sock"), file("log"));
        fs::write(&config, options.config(directory, &socket)).context("writing the client's configuration")?;
        let mut command = options.namespace.command(&programs.client);
        command.arg("up").arg("--config").arg(&config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let process = lab.run.spawn("the client", &mut command)?;
        Ok(Self { run: lab.run.clone(), program: programs.client.clone(), socket, log, tun: options.tun(), process })
    }

    /// Waits until it has a session.
    pub fn wait_until_connected(&self) -> Result<()> {
        self.wait_for("a session", CONNECT_LIMIT, |status| status.phase == "connected").map(drop)
    }

    /// Waits until its status satisfies `condition`, and returns that status.
    pub fn wait_for(&self, what: &str, limit: Duration, condition: impl Fn(&Status) -> bool) -> Result<Status> {
        let started = Instant::now();
        loop {
            let status = self.status();
            if let Ok(status) = &status
                && condition(status)
            {
                return Ok(status.clone());
            }
            if let Some(exit) = self.process.exited()? {
                bail!("the client ended ({exit}) while the lab waited for {what}:\n      | {}", tail(&self.log));
            }
            let elapsed = started.elapsed();
            if elapsed > limit || (status.is_err() && elapsed > START_LIMIT) {
                let last = status.map_or_else(|error| error.to_string(), |status| format!("{status:?}"));
                bail!(
                    "waited {limit:?} in vain for {what}; the client's last word: {last}\n      | {}",
                    tail(&self.log)
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its status.
    pub fn status(&self) -> Result<Status> {
        let text = self.run.check(self.order("status").arg("--json"), "")?;
        serde_json::from_str(&text).with_context(|| format!("reading the client's status from {text:?}"))
    }

    /// Its metrics.
    pub fn metrics(&self) -> Result<Readings> {
        Ok(Readings::parse(&self.metrics_text()?)?)
    }

    /// The same as they are printed.
    pub fn metrics_text(&self) -> Result<String> {
        self.run.check(&mut self.order("metrics"), "")
    }

    /// Moves the session to another uplink.
    pub fn move_to(&self, interface: &str) -> Result<()> {
        self.run.check(self.order("move").args(["--to", interface]), "").map(drop)
    }

    /// Begins to gather its events.
    pub fn events(&self) -> Result<Events> {
        let mut command = self.order("events");
        let process = self.run.spawn("jump events", command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let output = process.take_stdout().ok_or_else(|| anyhow!("jump events has no output"))?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let sink = heard.clone();
        thread::spawn(move || gather(output, &sink));
        Ok(Events { heard, _process: process })
    }

    /// Name of its TUN.
    pub fn tun(&self) -> &str {
        &self.tun
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Stops it as a user would (SIGTERM); an error if it does not end well.
    pub fn stop(self) -> Result<()> {
        let status = self.process.stop().ok_or_else(|| anyhow!("the client cannot be waited for"))?;
        if !status.success() {
            bail!("the client ended with {status}:\n      | {}", tail(&self.log));
        }
        Ok(())
    }

    fn order(&self, what: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args([what, "--socket"]).arg(&self.socket);
        command
    }
}

impl Events {
    /// What was heard so far, from the event with that number on.
    pub fn from(&self, number: usize) -> Vec<Heard> {
        lock(&self.heard).get(number..).map(<[Heard]>::to_vec).unwrap_or_default()
    }

    /// How many events were heard so far.
    pub fn len(&self) -> usize {
        lock(&self.heard).len()
    }

    /// Whether nothing was heard so far.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn gather(output: ChildStdout, heard: &Mutex<Vec<Heard>>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if let Ok(Line { boottime_us, event }) = serde_json::from_str(&line) {
            let boottime = Duration::from_micros(boottime_us);
            lock(heard).push(Heard { at: Instant::now(), boottime, event });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_line_of_the_client_is_understood() {
        let line = r#"{"time_ms":1,"boottime_us":2,"event":"transition","transition":"T05","from":"ATTACHED",
            "to":"VOLATILE","reason":"POLICY_FORCED_RECOVERY","detail":null,"epoch":1,"path":1,"interface":"wifi0"}"#;
        let Ok(Event::Transition { transition, to, .. }) = serde_json::from_str(line) else { panic!("{line}") };
        assert_eq!((transition.as_str(), to.as_str()), ("T05", "VOLATILE"));
        assert!(matches!(serde_json::from_str(r#"{"event":"retry","delay_ms":5}"#), Ok(Event::Other)));
    }
}
