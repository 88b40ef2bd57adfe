//! What is measured while clients live: distributions of times, counts, and both over time.

use std::collections::BTreeMap;

use anyhow::Result;
use hdrhistogram::Histogram;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use serde::Serialize;

/// Longest time that a distribution tells apart, in microseconds: an hour.
const LONGEST_US: u64 = 3_600_000_000;
/// Significant digits of a distribution.
const DIGITS: u8 = 3;
/// Samples that the 99th percentile needs, and the 99.9th: fewer say nothing about so rare a thing.
const SAMPLES_P99: u64 = 1_000;
/// As [`SAMPLES_P99`].
const SAMPLES_P999: u64 = 10_000;

/// A distribution of times.
pub struct Times(Histogram<u64>);

impl Times {
    /// An empty one.
    pub fn new() -> Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, LONGEST_US, DIGITS)?))
    }

    /// Takes one time.
    pub fn record(&mut self, time: Span) {
        self.0.saturating_record(time.as_micros());
    }

    /// How many were taken.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// What it says; percentiles that the samples do not carry are left out.
    pub fn distribution(&self) -> Distribution {
        let count = self.0.len();
        let at =
            |quantile: f64, needed: u64| (count >= needed).then(|| self.0.value_at_quantile(quantile) as f64 / 1_000.0);
        Distribution {
            count,
            min_ms: at(0.0, 1),
            p50_ms: at(0.5, 1),
            p90_ms: at(0.9, 10),
            p95_ms: at(0.95, 20),
            p99_ms: at(0.99, SAMPLES_P99),
            p999_ms: at(0.999, SAMPLES_P999),
            max_ms: at(1.0, 1),
        }
    }

    /// Share of the samples up to each of these times, for a plot: (milliseconds, share).
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let total = self.0.len().max(1) as f64;
        let mut below = 0;
        let points = self.0.iter_recorded().map(|value| {
            below += value.count_since_last_iteration();
            (value.value_iterated_to() as f64 / 1_000.0, below as f64 / total)
        });
        thin(points.collect())
    }
}

/// Points of a curve that a plot can show apart.
const CURVE_POINTS: usize = 400;

fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(CURVE_POINTS).max(1);
    let last = points.last().copied();
    let mut kept: Vec<_> = points.into_iter().step_by(step).collect();
    if kept.last() != last.as_ref() {
        kept.extend(last);
    }
    kept
}

/// A distribution in numbers, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, serde::Deserialize)]
pub struct Distribution {
    /// Samples.
    pub count: u64,
    /// Shortest.
    pub min_ms: Option<f64>,
    /// Half of them took no longer.
    pub p50_ms: Option<f64>,
    /// Nine of ten took no longer.
    pub p90_ms: Option<f64>,
    /// 19 of 20 took no longer.
    pub p95_ms: Option<f64>,
    /// 99 of 100 took no longer; none with fewer than 1000 samples.
    pub p99_ms: Option<f64>,
    /// 999 of 1000 took no longer; none with fewer than 10 000 samples.
    pub p999_ms: Option<f64>,
    /// Longest.
    pub max_ms: Option<f64>,
}

/// Everything that is measured at the clients.
pub struct Book {
    /// From HELLO_INIT to a session.
    pub handshake: Times,
    /// From the fault to the new binding.
    pub reattach: Times,
    /// From the fault until the client left ATTACHED.
    pub detect: Times,
    /// From a client through the tunnel to the echo and back.
    pub round_trip: Times,
    /// The same of clients to whom nothing happens while it happens to others.
    pub bystanders: Times,
    /// Handshakes that ended without a session, by reason.
    pub failed: BTreeMap<&'static str, u64>,
    /// Sessions that ended, by reason.
    pub ended: BTreeMap<&'static str, u64>,
    /// Requests that were refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Datagrams that clients dropped, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Echo packets sent and returned.
    pub echo: Echo,
    /// How many handshakes were begun.
    pub begun: u64,
    /// How many jumps were made.
    pub jumps: u64,
    /// Requests to reattach that clients sent.
    pub requests: u64,
    /// What should not be: safety counters by kind.
    pub violations: BTreeMap<&'static str, u64>,
    /// The first of each kind, in words.
    pub first_violations: BTreeMap<&'static str, String>,
}

/// Echo packets.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Echo {
    /// Sent by clients.
    pub sent: u64,
    /// Not sent because there was no binding to send on.
    pub held: u64,
    /// Come to the servers.
    pub reached: u64,
    /// Come back.
    pub returned: u64,
    /// Come back after one that was sent later.
    pub late: u64,
}

impl Book {
    /// An empty one.
    pub fn new() -> Result<Self> {
        Ok(Self {
            handshake: Times::new()?,
            reattach: Times::new()?,
            detect: Times::new()?,
            round_trip: Times::new()?,
            bystanders: Times::new()?,
            failed: BTreeMap::new(),
            ended: BTreeMap::new(),
            refused: BTreeMap::new(),
            dropped: BTreeMap::new(),
            echo: Echo::default(),
            begun: 0,
            jumps: 0,
            requests: 0,
            violations: BTreeMap::new(),
            first_violations: BTreeMap::new(),
        })
    }

    /// Counts something that should not be.
    pub(crate) fn violated(&mut self, kind: &'static str, what: impl FnOnce() -> String) {
        *self.violations.entry(kind).or_default() += 1;
        self.first_violations.entry(kind).or_insert_with(what);
    }

    /// Counts one in a table by reason.
    pub(crate) fn count(table: &mut BTreeMap<&'static str, u64>, reason: Reason) {
        *table.entry(reason.name()).or_default() += 1;
    }
}

/// One line of the course of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Moment {
    /// Seconds since the start of the measurement.
    pub at_s: f64,
    /// Clients with a session and a binding.
    pub attached: u64,
    /// Clients with a session that are on their way to another binding.
    pub moving: u64,
    /// Handshakes completed since the moment before.
    pub handshakes: u64,
    /// Reattaches completed since the moment before.
    pub reattaches: u64,
    /// Frames sent and received by the generator since the moment before.
    pub frames: (u64, u64),
    /// Memory of the gateway, in bytes.
    pub gateway_rss: u64,
    /// CPU seconds of the gateway since the moment before, per second.
    pub gateway_cpu: f64,
}

/// Says when the next moment is due.
pub struct Course {
    start: Time,
    next: Time,
    every: Span,
    /// The moments so far.
    pub moments: Vec<Moment>,
}

impl Course {
    /// A course that begins now, with a moment every so often.
    pub fn new(now: Time, every: Span) -> Self {
        Self { start: now, next: now + every, every, moments: Vec::new() }
    }

    /// Seconds since its begin, if a moment is due.
    pub fn due(&mut self, now: Time) -> Option<f64> {
        if now < self.next {
            return None;
        }
        self.next = now + self.every;
        Some(now.since(self.start).as_micros() as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_that_the_samples_do_not_carry_are_left_out() {
        let mut times = Times::new().unwrap();
        (1..1_000).for_each(|ms| times.record(Span::from_millis(ms)));
        assert_eq!((times.distribution().p99_ms, times.distribution().p999_ms), (None, None));
        times.record(Span::from_millis(1_000));
        let p99 = times.distribution().p99_ms.unwrap();
        assert!((985.0..995.0).contains(&p99), "{p99}");
        assert_eq!(times.distribution().p999_ms, None);
    }
}
