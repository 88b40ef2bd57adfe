//! Runs a crowd against a gateway in real time: packets, timers, what a scenario does, progress, and the way out by
//! Ctrl-C with what was measured so far.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};
use jumpgate::clock;
use jumpgate_protocol::time::{Span, Time};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::book::{Course, Moment};
use super::crowd::{Crowd, CrowdConfig};
use super::datagram::{self, Ends};
use super::gauge::{Gauge, Reading};
use super::line::Line;
use super::plant::{GATEWAY, Plant, PlantConfig, SERVER};
use crate::links::enter_namespace;

/// How often the course of a run is noted.
const MOMENT: Span = Span::from_millis(100);
/// How many such there are in a second.
const MOMENTS_PER_S: u64 = 10;
/// Packets of the echo that are turned round in one turn.
const ECHOES: usize = 64;
/// A turn without anything to do ends with a nap of at most that long; half a tick of the protocol's timers.
const NAP: Duration = Duration::from_micros(200);

/// A crowd, the gateway under load and the clock.
pub struct Engine {
    /// The gateway.
    pub plant: Plant,
    /// The clients.
    pub crowd: Crowd,
    pub(super) servers: Line,
    pub(super) servers_ends: Ends,
    gauge: Gauge,
    last: Reading,
    last_handshakes: u64,
    last_reattaches: u64,
    last_frames: (u64, u64),
    /// The course of the run.
    pub course: Course,
    interrupted: Arc<AtomicBool>,
    progress: ProgressBar,
    /// What is going on, for the display.
    saying: String,
    /// Longest time between two turns: while it lasts, nothing is sent or heard, so no time below it was measured.
    pub longest_gap: Span,
    last_turn: Time,
}

impl Engine {
    /// Starts a gateway on one CPU and takes another for the crowd.
    pub fn start(config: &PlantConfig, generator_cpu: usize) -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        enter_namespace()?;
        let (plant, lines) = Plant::start(config)?;
        let mut cpus = CpuSet::new();
        cpus.set(generator_cpu)?;
        sched_setaffinity(Pid::from_raw(0), &cpus).context("cannot pin the generator to its CPU")?;
        let crowd_config = CrowdConfig { seed: config.seed, gateway_key: plant.key, gateway: GATEWAY, server: SERVER };
        let crowd = Crowd::new(crowd_config, &plant.secrets, lines.clients, lines.clients_ends)?;
        let gauge = Gauge::new(plant.pid(), config.cpu);
        let now = clock::now();
        let progress = ProgressBar::new_spinner();
        progress.set_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
        Ok(Self {
            last: gauge.read()?,
            plant,
            crowd,
            servers: lines.servers,
            servers_ends: lines.servers_ends,
            gauge,
            last_handshakes: 0,
            last_reattaches: 0,
            last_frames: (0, 0),
            course: Course::new(now, MOMENT),
            interrupted,
            progress,
            saying: String::new(),
            longest_gap: Span::ZERO,
            last_turn: now,
        })
    }

    /// Whether the user wants the report now.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// What the gateway costs so far.
    pub fn reading(&self) -> Result<Reading> {
        self.gauge.read()
    }

    /// CPU seconds of each of the gateway's threads so far, by name.
    pub fn threads(&self) -> BTreeMap<String, f64> {
        self.gauge.threads()
    }

    /// Says what is going on.
    pub fn say(&mut self, text: impl Into<String>) {
        self.saying = text.into();
        self.progress.set_message(self.saying.clone());
    }

    /// Prints a result beside the display.
    pub fn print(&self, text: &impl std::fmt::Display) {
        self.progress.suspend(|| println!("{text}"));
    }

    /// Ends the display.
    pub fn quiet(&self) {
        self.progress.finish_and_clear();
    }

    /// Runs for a time, or until `step` says that it is done. `step` is called in every turn with the time.
    /// Gives the time that passed.
    pub fn run(&mut self, limit: Span, mut step: impl FnMut(&mut Crowd, Time) -> Result<bool>) -> Result<Span> {
        let start = clock::now();
        self.last_turn = start;
        loop {
            let now = clock::now();
            self.longest_gap = self.longest_gap.max(now.since(self.last_turn));
            self.last_turn = now;
            let mut busy = self.crowd.turn(now)?;
            busy |= self.echo()?;
            if step(&mut self.crowd, now)? || now.since(start) >= limit || self.is_interrupted() {
                return Ok(now.since(start));
            }
            self.note(now)?;
            if !busy {
                let next = self.crowd.next_timer().unwrap_or(Time::NEVER).since(clock::now());
                std::thread::sleep(NAP.min(Duration::from_micros(next.as_micros())));
            }
        }
    }

    /// The servers send back what came to them.
    fn echo(&mut self) -> Result<bool> {
        // Received and sent by the same line: what arrived is written down first.
        let mut answers: Vec<Vec<u8>> = Vec::new();
        let received = self.servers.receive(ECHOES, |frame| {
            if datagram::turn_round(frame) {
                answers.push(frame.to_vec());
            }
        })?;
        self.crowd.book.echo.reached += answers.len() as u64;
        for answer in &answers {
            self.servers.send(|room| {
                room[..answer.len()].copy_from_slice(answer);
                answer.len()
            })?;
        }
        self.servers.flush()?;
        Ok(received > 0)
    }

    /// Notes the course of the run, if a moment has passed since the last time.
    pub(super) fn note(&mut self, now: Time) -> Result<()> {
        let Some(at_s) = self.course.due(now) else { return Ok(()) };
        let before_s = self.course.moments.last().map_or(0.0, |moment| moment.at_s);
        let elapsed = Duration::from_secs_f64((at_s - before_s).max(f64::EPSILON));
        let reading = self.gauge.read()?;
        let book = &self.crowd.book;
        let (handshakes, reattaches) = (book.handshake.count(), book.reattach.count());
        let frames = self.crowd.frames;
        let (shaken, reattached) = (handshakes - self.last_handshakes, reattaches - self.last_reattaches);
        self.course.moments.push(Moment {
            at_s,
            attached: self.crowd.attached(),
            moving: self.crowd.live().saturating_sub(self.crowd.attached()),
            handshakes: shaken,
            reattaches: reattached,
            frames: (frames.0 - self.last_frames.0, frames.1 - self.last_frames.1),
            gateway_rss: reading.resident,
            gateway_cpu: reading.share_since(&self.last, elapsed),
        });
        (self.last, self.last_frames) = (reading, frames);
        (self.last_handshakes, self.last_reattaches) = (handshakes, reattaches);
        let (live, attached, rate) = (self.crowd.live(), self.crowd.attached(), MOMENTS_PER_S * (reattached + shaken));
        self.progress.set_message(format!("{}: {attached} of {live} sessions attached, {rate}/s", self.saying));
        Ok(())
    }
}
