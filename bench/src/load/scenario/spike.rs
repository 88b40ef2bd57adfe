//! Loss spikes on the path in use: who is healed, who switches, who has to live with it.

use super::*;
use crate::load::book::Times;
use crate::load::weather::{Outcome, Weather};

/// Share of the packets that a client loses: each its own between these two.
const LOSS: (f64, f64) = (0.2, 0.4);
/// Further delay of each way that makes 120 ms of a round trip.
const DELAY: Span = Span::from_millis(60);
/// Lengths of the spikes; those longer than the run's seconds are left out.
const LENGTHS: [u64; 2] = [3, 30];
/// Longest time to calm down after a spike: the longest stay in DEGRADED's way out, and the sliding minute of the switch
/// limit is not waited for.
const CALM: Span = Span::from_millis(15_000);
/// Shortest such time, for clients that have not noticed yet.
const SETTLED: Span = Span::from_millis(3_000);

/// Every spike, without and with delay.
pub(super) fn spike(engine: &mut Engine, measure: &Measure, findings: &mut Findings) -> Result<()> {
    arrive(engine, measure)?;
    let total = engine.crowd.len();
    for number in 0..total {
        engine.crowd.second_path(clock::now(), number)?;
    }
    engine.run(measure.pause, |_, _| Ok(false))?;
    let mut chance = Chance::new(measure.seed);
    let start = clock::now();
    for seconds in LENGTHS.into_iter().filter(|seconds| *seconds <= measure.seconds.max(LENGTHS[0])) {
        for (delay, suffix) in [(Span::ZERO, ""), (DELAY, "_delayed")] {
            let name = |what: &str| format!("{what}_{seconds}s{suffix}");
            engine.say(format!("loss for {seconds} s, {} ms later each way", delay.as_millis()));
            let requests = engine.crowd.book.requests;
            engine.crowd.book.detect = Times::new()?;
            for number in 0..total {
                let loss = chance.between(LOSS.0, LOSS.1);
                engine.crowd.spike(clock::now(), number, Weather { loss, delay });
            }
            let mut pulse = Pulse::new(measure, &engine.crowd, clock::now());
            engine.run(Span::from_millis(seconds * 1_000), |crowd, now| {
                pulse.beat(crowd, now)?;
                Ok(false)
            })?;
            engine.crowd.clear_up();
            let (calm, all) = (clock::now(), u64::from(total));
            engine.run(CALM, |crowd, now| {
                pulse.beat(crowd, now)?;
                Ok(now.since(calm) >= SETTLED && crowd.attached() == all)
            })?;
            for (outcome, count) in engine.crowd.outcomes() {
                let word = match outcome {
                    Outcome::Unmoved => "share_unmoved",
                    Outcome::Healed => "share_healed",
                    Outcome::Switched => "share_switched",
                    Outcome::Degraded => "share_degraded",
                    Outcome::Ended => "share_ended",
                };
                findings.figure(name(word), count as f64 / f64::from(total));
            }
            findings.figure(name("attempts"), (engine.crowd.book.requests - requests) as f64);
            let detect = std::mem::replace(&mut engine.crowd.book.detect, Times::new()?);
            findings.times.insert(detect_name(seconds, delay), detect);
        }
    }
    findings.duration = clock::now().since(start);
    findings.figure("packets_lost_by_weather", engine.crowd.lost_by_weather() as f64);
    findings.goals.push(Goal::at_least("sessions kept", engine.crowd.live() as f64, total.into(), "sessions"));
    Ok(())
}

/// Time from the begin of a spike until a client left ATTACHED.
fn detect_name(seconds: u64, delay: Span) -> &'static str {
    match (seconds == LENGTHS[0], delay == Span::ZERO) {
        (true, true) => "volatile_3s",
        (true, false) => "volatile_3s_delayed",
        (false, true) => "volatile_30s",
        (false, false) => "volatile_30s_delayed",
    }
}
