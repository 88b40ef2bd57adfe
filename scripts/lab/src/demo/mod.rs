//! The demonstration: one download over one TCP connection, five jumps under it, and proof that nothing was reset.

mod screen;
mod verdict;

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use self::screen::{Row, Screen};
use self::verdict::{Evidence, Sighting};
use crate::http::{Content, ContentServer, Download};
use crate::ping::ping;
use crate::probe::Probe;
use crate::programs::{Client, ClientOptions, Event, Events, Gateway, GatewayOptions, Heard, Peer, Programs, Status};
use crate::relay::Profile;
use crate::topology::{LTE, Lab, SERVER_V4, Uplink, WIFI};

/// How long the download lasts, whatever its size: five jumps with some quiet before and after each.
const DOWNLOAD_SECONDS: u64 = 45;
/// Seed of the relay's dice and of the content.
const SEED: u64 = 7;
/// TCP port of the download and UDP port of the probe.
const PORT: u16 = 8080;
/// Echoes before the download.
const PINGS: usize = 3;
/// How long a standby path may take to be validated again after it was disturbed.
const STANDBY_LIMIT: Duration = Duration::from_secs(10);
/// How long a jump may take, from the disturbance to the commit.
const JUMP_LIMIT: Duration = Duration::from_secs(12);
/// What is watched after a commit before a jump is measured: late packets, and the client's probation.
const AFTERMATH: Duration = Duration::from_millis(1_000);

/// How the demo is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// IPv6 between client and gateway.
    pub ipv6: bool,
    /// Size of the download.
    pub megabytes: u64,
}

/// A jump: what is done to the session, and how the world is put in order again.
struct Jump {
    /// Share of the download, in percent, at which it begins.
    at_percent: u64,
    title: &'static str,
    /// The uplink in use afterwards.
    to: Uplink,
    disturb: fn(&Stage) -> Result<()>,
    restore: fn(&Stage) -> Result<()>,
}

/// The actors, in the order in which they leave: the client says goodbye to a gateway that can still be reached.
struct Stage {
    events: Events,
    client: Client,
    gateway: Gateway,
    lab: Lab,
}

const JUMPS: [Jump; 5] = [
    Jump {
        at_percent: 8,
        title: "1  planned move to lte0, a standby path proved beforehand",
        to: LTE,
        disturb: |stage| stage.client.move_to(LTE.interface),
        restore: |_| Ok(()),
    },
    Jump {
        at_percent: 24,
        title: "2  lte0 is set down under the session",
        to: WIFI,
        disturb: |stage| stage.lab.uplink_down(&LTE),
        restore: |stage| stage.lab.uplink_up(&LTE),
    },
    Jump {
        at_percent: 42,
        title: "3  wifi0 becomes a silent black hole: no error, no answer",
        to: LTE,
        disturb: |stage| stage.lab.relay.set(WIFI.path, Profile { blackhole: true, ..wifi() }),
        restore: |stage| stage.lab.relay.set(WIFI.path, wifi()),
    },
    Jump {
        at_percent: 62,
        title: "4  the NAT of lte0 forgets its mappings: new source port",
        to: LTE,
        disturb: |stage| stage.lab.relay.rebind(LTE.path, None),
        restore: |_| Ok(()),
    },
    Jump {
        at_percent: 80,
        title: "5  planned move back to wifi0",
        to: WIFI,
        disturb: |stage| stage.client.move_to(WIFI.interface),
        restore: |_| Ok(()),
    },
];

/// A home network.
fn wifi() -> Profile {
    Profile { delay_ms: 8.0, jitter_ms: 1.0, ..Profile::default() }
}

/// A mobile network.
fn lte() -> Profile {
    Profile { delay_ms: 22.0, jitter_ms: 3.0, ..Profile::default() }
}

/// Runs the demo; true if every claim of its verdict holds.
pub fn run(options: Options) -> Result<bool> {
    ensure!(options.megabytes > 0, "--megabytes must be at least 1");
    let mut screen = Screen::new();
    let family = if options.ipv6 { "IPv6" } else { "IPv4" };
    screen.title(&format!("Jumpgate: one TCP download, five jumps, over {family}"));
    let programs = Programs::find()?;
    let lab = Lab::build(SEED)?;
    screen.fact("lab", "client with wifi0 and lte0, a NAT router behind each, gateway with 2 queues and 2 workers");
    let stage = Stage::open(lab, &programs, options.ipv6)?;
    let first = stage.client.status()?;
    let session = first.session.clone().context("the client has no session")?;
    screen.fact("session", &format!("{session}, inner addresses {}", first.addresses.join(" and ")));
    screen.fact("ping", &ping_all(&stage)?);

    let bytes = options.megabytes * 1_000_000;
    let content = Content { bytes, seed: SEED, rate: bytes.div_ceil(DOWNLOAD_SECONDS) };
    let address = SocketAddr::new(IpAddr::V4(SERVER_V4), PORT);
    let server = ContentServer::start(&stage.lab.server, address, content)?;
    let probe = Probe::start(&stage.lab.client, &stage.lab.server, address)?;
    let download = Download::start(&stage.lab.client, address)?;
    screen.fact("download", &format!("{} MB over one TCP connection, and 200 probes a second", options.megabytes));
    screen.begin(bytes);

    let mut sightings = vec![stage.sighting(WIFI.interface)?];
    let mut jumps_during_download = 0;
    for jump in &JUMPS {
        while download.bytes() < bytes / 100 * jump.at_percent && !download.is_finished() {
            screen.progress(download.bytes());
            thread::sleep(Duration::from_millis(50));
        }
        stage.perform(jump, &probe, &download, &mut screen)?;
        jumps_during_download += usize::from(!download.is_finished());
        sightings.push(stage.sighting(jump.to.interface)?);
    }
    while !download.is_finished() {
        screen.progress(download.bytes());
        thread::sleep(Duration::from_millis(50));
    }
    screen.progress(bytes);
    screen.end();
    let downloaded = download.finish().context("the download failed")?;
    let last = stage.client.status()?;
    let evidence = Evidence {
        sightings,
        client_sessions: (session, last.session.unwrap_or_default(), last.sessions),
        jumps_wanted: JUMPS.len(),
        jumps_during_download,
        content,
        downloaded,
        connections_at_server: server.peers().len(),
        per_queue: stage.lab.received_per_queue()?,
    };
    Ok(verdict::print(&evidence.claims()))
}

impl Stage {
    fn open(lab: Lab, programs: &Programs, ipv6: bool) -> Result<Self> {
        lab.relay.set(WIFI.path, wifi())?;
        lab.relay.set(LTE.path, lte())?;
        let (gateway_key, client_key) =
            (programs.key_pair(&lab.run, "gateway")?, programs.key_pair(&lab.run, "alice")?);
        let peer = Peer { name: "alice".to_owned(), public: client_key.public.clone(), psk_file: None };
        let options = ClientOptions::new(&lab, "alice", client_key, &gateway_key.public, ipv6);
        let gateway = Gateway::start(&lab, programs, &GatewayOptions::new(gateway_key, vec![peer]))?;
        let client = Client::start(&lab, programs, &options)?;
        let events = client.events()?;
        let stage = Self { events, client, gateway, lab };
        stage.wait_for_standby(&LTE)?;
        Ok(stage)
    }

    /// Does what a jump is about, prints what follows from it, and puts the world in order.
    fn perform(&self, jump: &Jump, probe: &Probe, download: &Download, screen: &mut Screen) -> Result<()> {
        let before = self.client.status()?;
        if before.active_interface.as_deref() != Some(jump.to.interface) {
            self.wait_for_standby(&jump.to)?;
        }
        let mut heard = self.events.len();
        let started = Instant::now();
        screen.headline(started, jump.title);
        (jump.disturb)(self)?;
        let (mut commit, mut committed) = (None, None);
        while committed.is_none_or(|at: Instant| at.elapsed() < AFTERMATH) {
            for event in self.events.from(heard) {
                heard += 1;
                if show(screen, &event, before.active_interface.as_deref(), &mut commit) {
                    committed = Some(event.at);
                }
            }
            if committed.is_none() && started.elapsed() > JUMP_LIMIT {
                bail!("no jump within {JUMP_LIMIT:?}; the client says {:?}", self.client.status()?);
            }
            screen.progress(download.bytes());
            thread::sleep(Duration::from_millis(20));
        }
        let end = Instant::now();
        (jump.restore)(self)?;
        probe.settle();
        let seen = probe.window(started, end);
        screen.row(
            end,
            &Row { event: "   carried on", outage: Some(seen.outage), lost: Some(seen.lost), ..Row::default() },
        );
        Ok(())
    }

    /// Waits until the gateway has seen that an uplink which carries nothing would work.
    fn wait_for_standby(&self, uplink: &Uplink) -> Result<()> {
        let validated = |status: &Status| {
            status.state == "ATTACHED"
                && status.paths.iter().any(|path| path.interface == uplink.interface && path.validated)
        };
        let what = format!("a validated standby path over {}", uplink.interface);
        self.client.wait_for(&what, STANDBY_LIMIT, validated).map(drop)
    }

    fn sighting(&self, interface: &str) -> Result<Sighting> {
        Ok(Sighting { interface: interface.to_owned(), session: self.gateway.session()? })
    }
}

/// Prints an event; true if it is the commit of a switch. The transition of a commit waits for what the switch tells
/// about it, so that both make one line.
fn show(screen: &Screen, heard: &Heard, from: Option<&str>, commit: &mut Option<Event>) -> bool {
    match (&heard.event, commit.take()) {
        (Event::Transition { transition, .. }, _) if transition == "T11" => *commit = Some(heard.event.clone()),
        (Event::Transition { transition, from, to, reason, epoch, .. }, _) => {
            let (event, state) = (format!("   {transition}"), format!("{from} -> {to}"));
            screen.row(heard.at, &Row { event: &event, state: &state, reason, epoch: Some(*epoch), ..Row::default() });
        }
        (Event::Switched { switch }, commit) => {
            let detail = switch.detail.as_deref().unwrap_or_default().to_lowercase().replace('_', " ");
            let event = format!("   T11 {detail}");
            let path = format!("{} -> {}", from.unwrap_or("none"), switch.to_interface);
            let (state, reason) = match &commit {
                Some(Event::Transition { from, to, reason, .. }) => (format!("{from} -> {to}"), reason.as_str()),
                _ => (String::new(), ""),
            };
            let epoch = Some(switch.epoch);
            screen.row(heard.at, &Row { event: &event, state: &state, reason, epoch, path: &path, ..Row::default() });
            return true;
        }
        (Event::Refused { reason, interface }, _) => {
            screen.row(heard.at, &Row { event: "   refused", reason, path: interface, ..Row::default() });
        }
        (Event::Terminated { reason, .. }, _) => {
            screen.row(heard.at, &Row { event: "   terminated", reason, ..Row::default() });
        }
        (Event::Connected { .. } | Event::Other, kept) => *commit = kept,
    }
    false
}

fn ping_all(stage: &Stage) -> Result<String> {
    let mut best: Option<Duration> = None;
    for _ in 0..PINGS {
        let time = ping(&stage.lab.client, IpAddr::V4(SERVER_V4), 56, Duration::from_secs(2))?;
        best = Some(best.map_or(time, |best| best.min(time)));
    }
    let millis = best.unwrap_or_default().as_secs_f64() * 1_000.0;
    Ok(format!("{PINGS} of {PINGS} echoes from the server {SERVER_V4} through the tunnel, {millis:.1} ms"))
}
