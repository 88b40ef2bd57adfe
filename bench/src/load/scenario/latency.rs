//! How long a request and its answer take through the tunnel, at a share of what gateway and generator can do together.
//!
//! Requests are sealed ahead and sent by a schedule, whatever becomes of those before them; a time counts from when the
//! request was due.

use std::time::Duration;

use anyhow::ensure;

use super::*;
use crate::load::book::Times;
use crate::load::crowd::Schedule;
use crate::load::gauge::Reading;

/// Length of a request and of its answer, in bytes.
const REQUEST: usize = 128;
/// Requests under way while the capacity is measured: more than what a round trip lasts, less than any ring holds.
const WINDOW: u64 = 512;
/// Requests that are sent at once at most, so that answers are heard meanwhile.
const SLICE: u64 = 64;
/// Packets of one client that may lie ready: a quarter of the smallest replay window, so that heartbeats sealed after them
/// may overtake them.
const LAID_PER_CLIENT: u64 = 2_048;
/// Shares of the capacity at which the times are taken.
const SHARES: [(f64, &str, &str, &str); 2] = [
    (0.5, "round_trip_at_50_percent", "gateway_cpu_share_at_50_percent", "requests_lost_at_50_percent"),
    (0.9, "round_trip_at_90_percent", "gateway_cpu_share_at_90_percent", "requests_lost_at_90_percent"),
];
/// Share of its CPU from which on the gateway is called the limit.
const BUSY: f64 = 0.9;

/// Capacity first, then both shares of it.
pub(super) fn latency(engine: &mut Engine, measure: &Measure, findings: &mut Findings) -> Result<()> {
    arrive(engine, measure)?;
    let clients = u64::from(engine.crowd.len());
    let round = (measure.packets as u64).min(clients * LAID_PER_CLIENT);
    let start = clock::now();
    engine.say("what gateway and generator can do");
    let before = engine.reading()?;
    let (mut answered, mut took_us) = (0, 0);
    for _ in 0..measure.repetitions {
        let (answers, time) = capacity(engine, round)?;
        (answered, took_us) = (answered + answers, took_us + time.as_micros());
    }
    let capacity = answered as f64 / took_us.max(1) as f64 * 1e6;
    let busy = share(&before, engine, took_us)?;
    findings.figure("capacity_requests_per_s", capacity);
    findings.figure("gateway_cpu_share_at_capacity", busy);
    if busy < BUSY {
        findings.notes.push(format!(
            "THE GENERATOR limits the capacity: at {capacity:.0} requests per second the gateway used {:.0} % of its CPU",
            busy * 100.0
        ));
    }
    for (part, name, cpu, lost) in SHARES {
        engine.say(format!("{:.0} % of it", part * 100.0));
        let before = engine.reading()?;
        // Taken out and put aside: these times are of this rate alone.
        engine.crowd.book.round_trip = Times::new()?;
        let (mut missing, mut took_us) = (0, 0);
        for _ in 0..measure.repetitions {
            let (answers, time) = steady(engine, round, capacity * part)?;
            (missing, took_us) = (missing + round.saturating_sub(answers), took_us + time.as_micros());
        }
        findings.figure(cpu, share(&before, engine, took_us)?);
        findings.figure(lost, missing as f64);
        let times = std::mem::replace(&mut engine.crowd.book.round_trip, Times::new()?);
        findings.times.insert(name, times);
    }
    engine.crowd.schedule = None;
    findings.duration = clock::now().since(start);
    Ok(())
}

/// Sends a round with a bounded number under way; gives how many were answered, and in what time.
fn capacity(engine: &mut Engine, round: u64) -> Result<(u64, Span)> {
    engine.crowd.schedule = None;
    engine.crowd.lay(&[REQUEST], round as usize)?;
    let before = engine.crowd.book.echo.returned;
    let mut sent = 0;
    let took = engine.run(STORM_PATIENCE, |crowd, _| {
        let back = crowd.book.echo.returned - before;
        let room = (WINDOW + back).saturating_sub(sent).min(SLICE).min(round - sent);
        crowd.pour_laid(room as usize)?;
        crowd.book.echo.sent += room;
        sent += room;
        Ok(back >= round || (sent == round && back + WINDOW / 8 >= round))
    })?;
    let answers = engine.crowd.book.echo.returned - before;
    rest(engine, round - sent)?;
    ensure!(answers > 0, "no request was answered");
    Ok((answers, took))
}

/// Sends a round at a steady rate; gives how many were answered, and the time from the first to the last request.
fn steady(engine: &mut Engine, round: u64, rate: f64) -> Result<(u64, Span)> {
    let first = engine.crowd.next_number;
    engine.crowd.lay(&[REQUEST], round as usize)?;
    let before = engine.crowd.book.echo.returned;
    let schedule = Schedule { start: clock::now(), first, rate };
    engine.crowd.schedule = Some(schedule);
    let mut sent = 0;
    let took = engine.run(STORM_PATIENCE, |crowd, now| {
        let due = (now.since(schedule.start).as_micros() as f64 * rate / 1e6) as u64;
        let slice = due.min(round).saturating_sub(sent).min(SLICE);
        crowd.pour_laid(slice as usize)?;
        crowd.book.echo.sent += slice;
        sent += slice;
        Ok(sent == round)
    })?;
    rest(engine, round - sent)?;
    engine.run(TAIL, |crowd, _| Ok(crowd.book.echo.returned - before >= round))?;
    Ok((engine.crowd.book.echo.returned - before, took))
}

/// Sends what an interrupted round left, so that the next begins with nothing laid, and lets it come back.
fn rest(engine: &mut Engine, left: u64) -> Result<()> {
    if left > 0 {
        engine.crowd.pour_laid(left as usize)?;
        engine.crowd.book.echo.sent += left;
    }
    engine.run(TAIL, |_, _| Ok(false)).map(drop)
}

/// Share of one CPU that the gateway used since a reading.
fn share(before: &Reading, engine: &Engine, took_us: u64) -> Result<f64> {
    Ok(engine.reading()?.share_since(before, Duration::from_micros(took_us)))
}
