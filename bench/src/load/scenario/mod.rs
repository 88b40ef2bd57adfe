//! What happens to the clients of a run. Each scenario drives an [`Engine`] and says what it found in a [`Findings`].

mod churn;
mod faults;
mod flood;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use jumpgate::clock;
use jumpgate_protocol::time::{Span, Time};

use super::chance::Chance;
use super::crowd::{Crowd, Jump};
use super::engine::Engine;
use crate::report::Goal;

/// Time after the last arrival for first heartbeats and confirmations to settle.
const SETTLE: Span = Span::from_millis(1_000);
/// Longest wait for all clients to arrive.
const ARRIVAL_PATIENCE: Span = Span::from_millis(120_000);
/// Longest wait for all clients to be back.
const STORM_PATIENCE: Span = Span::from_millis(30_000);
/// Clients that a storm takes in one turn, so that answers are heard meanwhile.
const STORM_SLICE: u32 = 64;
/// Pause between two faults of one client, for switch rate and cooldown of every profile.
const BETWEEN: Span = Span::from_millis(8_000);
/// Length of an echo packet, in bytes: a small request.
const ECHO_BYTES: usize = 128;

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
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
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
}

/// What a scenario found beyond what the book holds.
#[derive(Debug, Default)]
pub struct Findings {
    /// Scalars.
    pub summary: BTreeMap<&'static str, f64>,
    /// Goals and what became of them.
    pub goals: Vec<Goal>,
    /// What a reader must know.
    pub notes: Vec<String>,
    /// How long the measured part took.
    pub duration: Span,
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
        }
    }

    /// Policy values that it needs beyond those of the profile, and why: limits against strangers that the generator,
    /// one machine with many clients, would run into.
    pub const fn policy(self) -> &'static str {
        "limits.handshakes_per_source = [10_000, 10_000]\nlimits.handshakes_total = 1_000_000\n\
         limits.max_half_open = 100_000\nlimits.control_total = 10_000_000\n"
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
        }
        Ok(findings)
    }
}

/// Lets clients arrive at a fixed rate, whatever becomes of those before them, and waits until all have a session and
/// nothing left to do but to live. Gives the time from the first HELLO_INIT to the last session.
fn arrive(engine: &mut Engine, measure: &Measure) -> Result<Span> {
    let total = engine.crowd.len();
    engine.say(format!("{total} clients arrive"));
    let (mut begun, start, rate) = (0, clock::now(), measure.arrivals);
    let took = engine.run(ARRIVAL_PATIENCE, |crowd, now| {
        let due = (now.since(start).as_micros() * rate / 1_000_000 + 1).min(total.into()) as u32;
        while begun < due {
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

/// Echo packets at a steady rate, of one client after the other.
struct Pulse {
    every: Option<u64>,
    start: Time,
    sent: u64,
}

impl Pulse {
    fn new(measure: &Measure, now: Time) -> Self {
        Self { every: (measure.echoes > 0).then(|| 1_000_000 / measure.echoes.min(1_000_000)), start: now, sent: 0 }
    }

    fn beat(&mut self, crowd: &mut Crowd, now: Time) -> Result<()> {
        let Some(every) = self.every else { return Ok(()) };
        while now.since(self.start).as_micros() >= self.sent * every {
            let number = (self.sent % u64::from(crowd.len())) as u32;
            self.sent += 1;
            crowd.echo(now, number, ECHO_BYTES)?;
        }
        Ok(())
    }
}
