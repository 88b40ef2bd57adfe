//! A WireGuard gateway as a subject of the comparison.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::figure::{Figure, Figures};
use super::forward::{Frames, Lane, Rounds, Row, measure};
use super::lab::inner_of;
use super::programs::Peer;
use super::tunnel::OVERHEAD;
use super::wave::{Company, Errand, Outcome, PORT, Pace};
use super::{Setup, Subject, Watch};
use crate::forward::Way;
use crate::load::datagram::{self, Stamp};
use crate::load::gauge::Gauge;
use crate::load::line::Line;
use crate::load::plant::{GATEWAY, SERVER};

/// Ethernet, IPv4 and UDP headers in front of a sealed packet, in bytes.
const OUTER_HEADERS: usize = 42;
/// Ethernet header in front of a plain one, in bytes.
const LINK_HEADER: usize = 14;
/// Age at which sessions are made anew: long before WireGuard's 120 s, after which a client renews its keys.
const RENEW: Duration = Duration::from_secs(60);
/// Packets of one client in a row, as a window of its flow would come: a program with GRO takes them as one.
const RUN: u32 = 16;
/// Pause of WireGuard before an initiation is repeated (REKEY_TIMEOUT).
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// When a client that has moved and hears nothing sends again: TCP's smallest pause.
const RESEND: Duration = Duration::from_millis(200);
/// Clients that wait at a time where a wave is paced: they fit the smallest socket buffer.
const WINDOW: usize = 128;
/// Repetition in a paced wave, where an answer comes within milliseconds or not at all.
const PACED_RETRY: Duration = Duration::from_millis(500);
/// When clients that are not back are given up: WireGuard's REKEY_ATTEMPT_TIME.
const PATIENCE: Duration = Duration::from_secs(90);
/// Everybody at the same moment.
const AT_ONCE: usize = usize::MAX;

/// One of the programs, found.
pub(super) struct WireGuard {
    pub(super) peer: Peer,
    pub(super) program: PathBuf,
}

impl Subject for WireGuard {
    fn name(&self) -> &'static str {
        self.peer.name()
    }

    fn version(&self) -> String {
        self.peer.version(&self.program)
    }

    fn settings(&self) -> &'static str {
        self.peer.settings()
    }

    fn forward(&self, setup: &Setup, watch: &Watch, each: &mut dyn FnMut(Row)) -> Result<()> {
        let company = Company::start(self.peer, &self.program, setup.sessions, setup.seed, setup.gateway_cpu)?;
        company.lab.introduce()?;
        setup.take_generator_cpu()?;
        let mut road = Road { company, renewed: None };
        let rounds = Rounds { packets: setup.packets as usize, rounds: setup.rounds as usize };
        for &bytes in &setup.bytes {
            for way in [Way::Inwards, Way::Outwards] {
                watch.say(&format!("forwards {bytes} bytes {way:?}"));
                let row = measure(self.name(), &mut road, (way, bytes), rounds, &|| watch.is_interrupted())?;
                row.into_iter().for_each(&mut *each);
                watch.check()?;
            }
        }
        Ok(())
    }

    fn crowd(&self, setup: &Setup, watch: &Watch, figures: &mut Figures) -> Result<()> {
        let mut company = Company::start(self.peer, &self.program, setup.peers, setup.seed, setup.gateway_cpu)?;
        setup.take_generator_cpu()?;
        let gauge = Gauge::new(company.lab.pid(), setup.gateway_cpu);
        let resident = || -> Result<f64> { Ok(gauge.read()?.resident as f64) };
        let nobody = resident()?;
        watch.say("tells it of its peers");
        company.lab.introduce()?;
        let known = resident()?;
        let per_peer = |bytes: f64| Figure::Measured((bytes - nobody) / f64::from(setup.peers));
        figures.insert("memory_per_configured_peer_bytes", per_peer(known));

        let stop = || watch.is_interrupted();
        let at_once = |retry| Pace { window: AT_ONCE, retry, patience: PATIENCE };
        let paced = Pace { window: WINDOW, retry: PACED_RETRY, patience: PATIENCE };
        watch.say("all shake hands at once");
        let first = company.wave(Errand::Handshake, at_once(REKEY_TIMEOUT), &stop)?;
        note(figures, ["handshake_at_once_last_ms", "handshake_at_once_p50_ms"], &first);
        watch.check()?;
        company.demand_all(&first)?;
        figures.insert("memory_per_peer_bytes", per_peer(resident()?));
        // First away and back again, so that cookies, which are bound to an address, hold for the handshakes below.
        watch.say("all roam at once");
        let roam = company.wave(Errand::Roam { path: 1, port: PORT }, at_once(RESEND), &stop)?;
        note(figures, ["roam_at_once_last_ms", "roam_at_once_p50_ms"], &roam);
        watch.check()?;
        watch.say("all roam, some at a time");
        let roam = company.wave(Errand::Roam { path: 0, port: PORT }, Pace { retry: RESEND, ..paced }, &stop)?;
        note(figures, ["roam_paced_last_ms", "roam_paced_p50_ms"], &roam);
        watch.check()?;
        watch.say("all shake hands, some at a time");
        let again = company.wave(Errand::Handshake, paced, &stop)?;
        note(figures, ["handshake_paced_last_ms", "handshake_paced_p50_ms"], &again);
        let seconds = again.took.as_secs_f64().max(f64::EPSILON);
        figures.insert("handshakes_per_s", Figure::Measured(again.back as f64 / seconds));
        let cpu = again.cpu.as_secs_f64() * 1e6 / again.back.max(1) as f64;
        figures.insert("cpu_us_per_handshake", Figure::Measured(cpu));
        figures.insert("handshakes_sent_again", Figure::Measured((first.resent + again.resent) as f64));
        figures.insert("cookies_asked_for", Figure::Measured((first.cookies + again.cookies) as f64));
        figures.insert("generator_busy_share", Figure::Measured(first.generator_busy.max(again.generator_busy)));
        for name in ["reattach_storm_last_ms", "reattach_storm_p50_ms"] {
            let why = "WireGuard has no message by which a client moves its session: it roams by its next packet, \
                       without an answer, or shakes hands anew";
            figures.insert(name, Figure::missing(why));
        }
        Ok(())
    }
}

/// Notes the last and the median of a wave; a dash if somebody never came back.
fn note(figures: &mut Figures, [last, median]: [&'static str; 2], outcome: &Outcome) {
    if outcome.back == outcome.total {
        figures.insert(last, Figure::Measured(outcome.took.as_secs_f64() * 1e3));
    } else {
        let why = format!("only {} of {} were back within {} s", outcome.back, outcome.total, PATIENCE.as_secs());
        figures.insert(last, Figure::missing(why));
    }
    let p50 = outcome.times.p50_ms.map_or_else(|| Figure::missing("nobody came back"), Figure::Measured);
    figures.insert(median, p50);
}

/// Sessions that packets are poured through.
struct Road {
    company: Company,
    renewed: Option<Instant>,
}

impl Lane for Road {
    fn rest(&mut self) -> Result<()> {
        self.company.lab.check()?;
        if self.renewed.is_some_and(|since| since.elapsed() < RENEW) {
            return Ok(());
        }
        self.company.lab.listen()?;
        let pace = Pace { window: WINDOW, retry: PACED_RETRY, patience: PATIENCE };
        let outcome = self.company.wave(Errand::Handshake, pace, &|| false)?;
        self.company.demand_all(&outcome)?;
        // One packet each way: a gateway seals for a client only once that has confirmed its session.
        let outcome = self.company.wave(Errand::Roam { path: 0, port: PORT }, pace, &|| false)?;
        self.company.demand_all(&outcome).context("no packet comes through its tunnel and back")?;
        self.renewed = Some(Instant::now());
        Ok(())
    }

    fn load(&mut self, way: Way, inner_bytes: usize, packets: usize, frames: &mut Frames) -> Result<()> {
        let Self { company, .. } = self;
        company.lab.turn_deaf();
        let mut inner = vec![0; inner_bytes];
        let mut sealed = vec![0; inner_bytes + OVERHEAD];
        let clients = company.len();
        match way {
            Way::Inwards => frames.clear(OUTER_HEADERS + sealed.len()),
            Way::Outwards => frames.clear(LINK_HEADER + inner.len()),
        }
        for count in 0..packets as u32 {
            let number = count / RUN % clients;
            match way {
                Way::Inwards => {
                    let stamp = Stamp { at: 0, number: count.into(), client: number };
                    datagram::write_inner(&mut inner, inner_of(number), SERVER, stamp);
                    company.tunnel(number).seal(&inner, &mut sealed)?;
                    let (ends, from) = (company.lab.clients_ends, company.at(number));
                    frames.push(|frame| {
                        datagram::write(frame, ends, from, GATEWAY, &sealed);
                        Ok(())
                    })?;
                }
                Way::Outwards => {
                    let ends = company.lab.servers_ends;
                    frames.push(|frame| {
                        datagram::write_inside(frame, ends, SERVER, inner_of(number), inner_bytes);
                        Ok(())
                    })?;
                }
            }
        }
        Ok(())
    }

    fn line(&mut self, way: Way) -> &mut Line {
        let lab = &mut self.company.lab;
        match way {
            Way::Inwards => &mut lab.clients,
            Way::Outwards => &mut lab.servers,
        }
    }

    fn pid(&self) -> u32 {
        self.company.lab.pid()
    }
}
