//! Clients arrive, live, jump, sleep and go.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use jumpgate::port::FrameSize;

use super::*;
use crate::load::soak::{self, FLAT, Moment};

/// One in so many faults is a suspension.
const ONE_IN_SLEEPS: u32 = 20;
/// A suspension, shorter than any profile's time without transport.
const NAP: Span = Span::from_millis(4_000);
/// A client that jumps every ten seconds on average jumps more than eight times in some minutes, and the brake of the
/// default policy then costs it its session. With this limit every loss is a defect.
pub(super) const POLICY: &str = "switching.max_switches_per_min = 40\n";
/// Handshakes per second that a core is to serve.
const HANDSHAKES_PER_S: f64 = 8_000.0;
/// So many live sessions are to be held in less than [`HELD_MB`] above the packet memory.
const HELD: u32 = 100_000;
/// In 10^6 bytes, resident.
const HELD_MB: f64 = 400.0;

/// Something that is to happen to a client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Jump,
    Leave,
    Return,
    Wake,
}

/// As fast as the gateway takes them.
pub(super) fn handshake(engine: &mut Engine, measure: &Measure, findings: &mut Findings) -> Result<()> {
    let took = arrive(engine, measure)?;
    let count = engine.crowd.book.handshake.count();
    let rate = count as f64 / took.as_micros().max(1) as f64 * 1e6;
    findings.duration = took;
    findings.figure("handshakes_per_s", rate);
    if measure.arrivals as f64 >= HANDSHAKES_PER_S {
        findings.goals.push(Goal::at_least("handshakes per second", rate, HANDSHAKES_PER_S, "1/s"));
    }
    let packet_memory = engine.plant.metrics()?.sum("jumpgate_umem_frames", &[]) * FrameSize::Small.bytes() as f64;
    let above = (engine.reading()?.resident as f64 - packet_memory) / 1e6;
    findings.figure("resident_above_packet_memory_mb", above);
    if engine.crowd.len() >= HELD {
        findings.goals.push(Goal::at_most("memory above the packet memory, 100 000 sessions", above, HELD_MB, "MB"));
        findings.goals.push(Goal::at_least("sessions held", engine.crowd.live() as f64, HELD.into(), "sessions"));
    }
    findings.notes.push(format!(
        "offered: {} arrivals per second; each costs the generator five X25519 operations as well",
        measure.arrivals
    ));
    Ok(())
}

/// For the time that was asked for.
pub(super) fn churn(engine: &mut Engine, measure: &Measure, findings: &mut Findings) -> Result<()> {
    arrive(engine, measure)?;
    let total = engine.crowd.len();
    let mut chance = Chance::new(measure.seed);
    let start = clock::now();
    let mut agenda: BinaryHeap<Reverse<(Time, u32, Happening)>> = BinaryHeap::new();
    for number in 0..total {
        agenda.push(Reverse((start + chance.until(measure.spreads.jump, measure.jump_every), number, Happening::Jump)));
        agenda.push(Reverse((
            start + chance.until(measure.spreads.lifetime, measure.lifetime),
            number,
            Happening::Leave,
        )));
    }
    let mut pulse = Pulse::new(measure, &engine.crowd, start);
    let cost = engine.reading()?;
    let (mut left, mut slept) = (0_u64, 0_u64);
    let mut step = |crowd: &mut Crowd, now: Time| -> Result<bool> {
        while let Some(Reverse((at, number, what))) = agenda.peek().copied()
            && at <= now
        {
            agenda.pop();
            match what {
                Happening::Jump => {
                    if chance.below(ONE_IN_SLEEPS) == 0 {
                        crowd.sleep(number);
                        slept += 1;
                        agenda.push(Reverse((now + NAP, number, Happening::Wake)));
                    } else {
                        let kinds = [Jump::LinkDown, Jump::Rebind, Jump::BlackHole];
                        crowd.jump(now, number, kinds[chance.below(kinds.len() as u32) as usize])?;
                        agenda.push(Reverse((
                            now + chance.until(measure.spreads.jump, measure.jump_every),
                            number,
                            Happening::Jump,
                        )));
                    }
                }
                Happening::Wake => {
                    crowd.wake(now, number)?;
                    agenda.push(Reverse((
                        now + chance.until(measure.spreads.jump, measure.jump_every),
                        number,
                        Happening::Jump,
                    )));
                }
                Happening::Leave => {
                    crowd.leave(now, number)?;
                    left += 1;
                    agenda.push(Reverse((now + SETTLE, number, Happening::Return)));
                }
                Happening::Return => {
                    crowd.connect(now, number)?;
                    agenda.push(Reverse((
                        now + chance.until(measure.spreads.lifetime, measure.lifetime),
                        number,
                        Happening::Leave,
                    )));
                }
            }
        }
        pulse.beat(crowd, now)?;
        Ok(false)
    };
    let half = Span::from_millis(measure.seconds * 500);
    let beginning = Moment::of(&engine.plant)?;
    engine.run(half, &mut step)?;
    let middle = Moment::of(&engine.plant)?;
    engine.run(half, &mut step)?;
    let took = clock::now().since(start);
    let end = Moment::of(&engine.plant)?;
    let reading = engine.reading()?;
    let share = reading.share_since(&cost, std::time::Duration::from_micros(took.as_micros()));
    findings.duration = took;
    soak::judge([&beginning, &middle, &end], total, findings);
    findings.figure("left_on_purpose", left as f64);
    findings.figure("sleeps", slept as f64);
    findings.figure("cpu_share_per_1000_sessions", share / f64::from(total) * 1_000.0);
    let lost: u64 =
        engine.crowd.book.ended.iter().filter(|(name, _)| **name != "OPERATOR_TERMINATED").map(|(_, n)| n).sum();
    findings.goals.push(Goal::at_most("sessions lost outside of policy", lost as f64, 0.0, "sessions"));
    let course = &engine.course.moments;
    let half = &course[course.len() / 2..];
    if let (Some(first), Some(last)) = (half.first(), half.last()) {
        let growth = last.gateway_rss as f64 / first.gateway_rss.max(1) as f64 - 1.0;
        findings.goals.push(Goal::at_most("growth of memory in the second half", growth, FLAT, "share"));
    }
    Ok(())
}
