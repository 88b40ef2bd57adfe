//! What happens to the clients of a run. Each scenario drives an [`Engine`] and says what it found in a [`Findings`].

mod again;
mod churn;
mod faults;
mod flood;
mod latency;
mod spike;
pub mod throughput;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use jumpgate::clock;
use jumpgate_protocol::time::{Span, Time};

use super::book::Times;
use super::chance::{Chance, Spread};
use super::crowd::{Crowd, Jump};
use super::engine::Engine;
use crate::report::Goal;
use throughput::Lengths;

/// Time after the last arrival for first heartbeats and confirmations to settle.
const SETTLE: Span = Span::from_millis(1_000);
/// Longest wait for all clients to arrive.
const ARRIVAL_PATIENCE: Span = Span::from_millis(120_000);
/// Longest wait for all clients to be back.
const STORM_PATIENCE: Span = Span::from_millis(30_000);
/// Clients that a storm takes in one turn, so that answers are heard meanwhile.
const STORM_SLICE: u32 = 16;
/// Time for the last packets to come back.
const TAIL: Span = Span::from_millis(500);
/// What happens to some may delay the data of others by, at the 99th percentile.
const OTHERS_DELAY_MS: f64 = 10.0;
/// Length of an echo packet, in bytes: a small request.
const ECHO_BYTES: usize = 128;

/// Limits that the clients of one machine would run into.
const MANY: &str = "limits.handshakes_per_source = [10_000, 10_000]\nlimits.handshakes_total = 1_000_000\n\
    limits.max_half_open = 100_000\nlimits.control_total = 10_000_000\n";
/// Clients that neither send nor hear heartbeats while packets are poured must not take it for a fault.
const SILENT: &str = "volatility.heartbeat_interval_ms = 2_000\nvolatility.heartbeat_volatile_ms = 30_000\n\
    volatility.transport_dead_ms = 60_000\nvolatility.max_consecutive_drops = 15\n\
    volatility.loss_volatile_threshold = 1.0\nvolatility.min_samples = 64\nsession.transport_lost_ttl_ms = 120_000\n";

/// What can happen to the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Every client arrives as fast as the gateway takes them
    Handshake,
    /// Links go down one client at a time, with notice and then silently, with a spare path
    Failover,
    /// The NAT of every client gives another port, again and again
    Rebind,
    /// Each client's links fail every second, then every five seconds
    Flap,
    /// All clients lose their path in the same instant
    Storm,
    /// Clients live, jump, sleep, die and are born for minutes
    Churn,
    /// Forged reattaches as fast as the generator can, beside clients that work
    ReattachFlood,
    /// Handshakes of strangers without cookies as fast as the generator can, beside clients that work
    HandshakeFlood,
    /// One captured request and one captured packet again and again, beside clients that work
    ReplayFlood,
    /// Packets sealed ahead, of several lengths and numbers of sessions, against the bare forwarder and AEAD
    Throughput,
    /// Requests and answers through the tunnel at half and nine tenths of the capacity
    Latency,
    /// The path in use loses packets for a time, with and without delay
    LossSpike,
    /// Clients jump again and again as fast as replies allow
    ReattachRate,
}

/// How much of it.
#[derive(Clone, Debug)]
pub struct Measure {
    /// Everything random follows from it.
    pub seed: u64,
    /// Arrivals per second, whatever becomes of those before them.
    pub arrivals: u64,
    /// Length of the measured part, where the scenario has no end of its own.
    pub seconds: u64,
    /// Churn: mean time between two jumps of one client.
    pub jump_every: Span,
    /// Churn: mean life of a session.
    pub lifetime: Span,
    /// Echo packets per second of all clients together.
    pub echoes: u64,
    /// How the times between arrivals, jumps and echoes spread, and lifetimes.
    pub spreads: Spreads,
    /// Pause between two faults of one client, where the scenario has one.
    pub pause: Span,
    /// Storm: clients that nothing happens to, beside the others.
    pub bystanders: u32,
    /// Throughput: numbers of sessions, rising.
    pub sessions: Vec<u32>,
    /// Throughput: lengths of packets.
    pub lengths: Vec<Lengths>,
    /// Throughput: packets of a round.
    pub packets: usize,
    /// Throughput: repetitions that count.
    pub repetitions: usize,
    /// CPU of the gateway.
    pub gateway_cpu: usize,
}

/// How random times spread about their means.
#[derive(Clone, Copy, Debug)]
pub struct Spreads {
    /// Between two arrivals.
    pub arrival: Spread,
    /// Lives of sessions.
    pub lifetime: Spread,
    /// Between two jumps of one client.
    pub jump: Spread,
    /// Between two echoes.
    pub echo: Spread,
}

/// What a scenario found beyond what the book holds.
#[derive(Default)]
pub struct Findings {
    /// Scalars.
    pub summary: BTreeMap<String, f64>,
    /// Distributions of times.
    pub times: BTreeMap<&'static str, Times>,
    /// Goals and what became of them.
    pub goals: Vec<Goal>,
    /// What a reader must know.
    pub notes: Vec<String>,
    /// How long the measured part took.
    pub duration: Span,
    /// Throughput: what was measured for each length, way and number of sessions.
    pub rows: Vec<throughput::Row>,
}

impl Findings {
    /// Takes a scalar.
    pub(super) fn figure(&mut self, name: impl Into<String>, value: f64) {
        self.summary.insert(name.into(), value);
    }
}

impl Scenario {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Failover => "failover",
            Self::Rebind => "rebind",
            Self::Flap => "flap",
            Self::Storm => "storm",
            Self::Churn => "churn",
            Self::ReattachFlood => "reattach-flood",
            Self::HandshakeFlood => "handshake-flood",
            Self::ReplayFlood => "replay-flood",
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::LossSpike => "loss-spike",
            Self::ReattachRate => "reattach-rate",
        }
    }

    /// Policy values that it needs beyond those of the profile, and why: limits against strangers that the generator,
    /// one machine with many clients, would run into.
    pub fn policy(self) -> String {
        let own = match self {
            Self::Throughput => SILENT,
            Self::ReattachRate => again::POLICY,
            Self::Churn => churn::POLICY,
            _ => "",
        };
        format!("{MANY}{own}")
    }

    /// Runs it.
    ///
    /// # Errors
    /// The gateway or the generator failed; what clients suffer is a finding and no error.
    pub fn run(self, engine: &mut Engine, measure: &Measure) -> Result<Findings> {
        let mut findings = Findings::default();
        match self {
            Self::Handshake => churn::handshake(engine, measure, &mut findings)?,
            Self::Failover => faults::failover(engine, measure, &mut findings)?,
            Self::Rebind => faults::rebind(engine, measure, &mut findings)?,
            Self::Flap => faults::flap(engine, measure, &mut findings)?,
            Self::Storm => faults::storm(engine, measure, &mut findings)?,
            Self::Churn => churn::churn(engine, measure, &mut findings)?,
            Self::ReattachFlood => flood::reattach(engine, measure, &mut findings)?,
            Self::HandshakeFlood => flood::handshake(engine, measure, &mut findings)?,
            Self::ReplayFlood => flood::replay(engine, measure, &mut findings)?,
            Self::Throughput => throughput::throughput(engine, measure, &mut findings)?,
            Self::Latency => latency::latency(engine, measure, &mut findings)?,
            Self::LossSpike => spike::spike(engine, measure, &mut findings)?,
            Self::ReattachRate => again::again(engine, measure, &mut findings)?,
        }
        Ok(findings)
    }
}

/// Lets clients arrive at a fixed rate, whatever becomes of those before them, and waits until all have a session and
/// nothing left to do but to live. Gives the time from the first HELLO_INIT to the last session.
fn arrive(engine: &mut Engine, measure: &Measure) -> Result<Span> {
    arrive_up_to(engine, measure, engine.crowd.len())
}

/// As [`arrive`], until that many have a session; those who have one already stay.
fn arrive_up_to(engine: &mut Engine, measure: &Measure, total: u32) -> Result<Span> {
    let agenda = Agenda::new(measure.seed ^ ARRIVALS, measure.spreads.arrival, measure.arrivals, clock::now());
    arrive_by(engine, agenda, total)
}

fn arrive_by(engine: &mut Engine, mut agenda: Agenda, total: u32) -> Result<Span> {
    engine.say(format!("{total} clients arrive"));
    let first = engine.crowd.live() as u32;
    let mut begun = first;
    let took = engine.run(ARRIVAL_PATIENCE, |crowd, now| {
        while begun < total && agenda.is_due(now) {
            crowd.connect(now, begun)?;
            begun += 1;
        }
        Ok(crowd.attached() == u64::from(total))
    })?;
    let attached = engine.crowd.attached();
    ensure!(
        attached == u64::from(total) || engine.is_interrupted(),
        "only {attached} of {total} clients got a session within {} s; failed: {:?}",
        ARRIVAL_PATIENCE.as_millis() / 1_000,
        engine.crowd.book.failed
    );
    engine.run(SETTLE, |_, _| Ok(false))?;
    engine.say("the scenario runs");
    Ok(took)
}

/// The share of the seed that arrivals have, and that of echoes.
const ARRIVALS: u64 = 0x6172_7269;
const ECHOES: u64 = 0x6563_686f;

/// Events at a rate, whatever becomes of those before them.
struct Agenda {
    chance: Chance,
    spread: Spread,
    mean: Span,
    next: Time,
    /// What whole microseconds leave over of a mean, so that the rate is kept: nanoseconds of the next event's time.
    rest: u64,
    mean_rest: u64,
}

impl Agenda {
    fn new(seed: u64, spread: Spread, rate: u64, start: Time) -> Self {
        let mean_ns = 1_000_000_000 / rate.max(1);
        Self {
            chance: Chance::new(seed),
            spread,
            mean: Span::from_micros(mean_ns / 1_000),
            next: start,
            rest: 0,
            mean_rest: mean_ns % 1_000,
        }
    }

    /// Whether the next event has come; then it is over.
    fn is_due(&mut self, now: Time) -> bool {
        if now < self.next {
            return false;
        }
        self.rest += self.mean_rest;
        self.next += self.chance.until(self.spread, self.mean);
        self.next += Span::from_micros(self.rest / 1_000);
        self.rest %= 1_000;
        true
    }
}

/// Echo packets of one client after the other.
struct Pulse {
    agenda: Option<Agenda>,
    /// Clients below this number take part.
    among: u32,
    next: u32,
}

impl Pulse {
    fn new(measure: &Measure, crowd: &Crowd, now: Time) -> Self {
        Self::of(measure, crowd.len(), measure.echoes, now)
    }

    /// Of the first clients only, at another rate.
    fn of(measure: &Measure, among: u32, rate: u64, now: Time) -> Self {
        let agenda = (rate > 0).then(|| Agenda::new(measure.seed ^ ECHOES, measure.spreads.echo, rate, now));
        Self { agenda, among: among.max(1), next: 0 }
    }

    fn beat(&mut self, crowd: &mut Crowd, now: Time) -> Result<()> {
        let Some(agenda) = &mut self.agenda else { return Ok(()) };
        while agenda.is_due(now) {
            let number = self.next % self.among;
            self.next = number + 1;
            crowd.echo(now, number, ECHO_BYTES)?;
        }
        Ok(())
    }
}

/// Judges the round trips of others while something happens, by those before it.
fn others_delayed(before: &Times, meanwhile: &Times) -> Goal {
    let usual = before.distribution().p50_ms.unwrap_or(f64::NAN);
    let delay = meanwhile.distribution().p99_ms.unwrap_or(f64::NAN) - usual;
    Goal::at_most("data of others delayed, p99", delay, OTHERS_DELAY_MS, "ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_of_others_is_their_slowest_hundredth_less_what_is_usual() {
        let times = |count: u64, ms: u64, slow: u64| {
            let mut times = Times::new().unwrap();
            (0..count).for_each(|number| times.record(Span::from_millis(if number % 50 == 0 { slow } else { ms })));
            times
        };
        let usual = times(1_000, 4, 4);
        let delayed = |meanwhile: &Times| others_delayed(&usual, meanwhile);
        assert!(delayed(&times(1_000, 4, 13)).is_met());
        assert!(!delayed(&times(1_000, 4, 15)).is_met());
        // Too few to say so are no success.
        assert!(!delayed(&times(999, 4, 4)).is_met());
    }

    #[test]
    fn events_keep_their_rate_even_where_a_mean_is_no_whole_number_of_microseconds() {
        let start = Time::from_millis(1_000);
        let mut agenda = Agenda::new(1, Spread::Fixed, 300_000, start);
        let mut events = 0_u32;
        while agenda.is_due(start + Span::from_millis(1_000)) {
            events += 1;
        }
        assert!((299_900..=300_100).contains(&events), "{events}");
        assert!(!agenda.is_due(start + Span::from_millis(1_000)));
    }
}
