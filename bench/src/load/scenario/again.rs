//! Clients that jump again and again, as fast as replies allow: what the slow path can do.

use std::collections::VecDeque;

use super::*;

/// Jumps of one client: below the most switches in a minute that any policy allows.
const JUMPS: u8 = 58;
/// Clients under way at once: as many as keep the slow path busy, and few enough that no queue of the gateway overflows.
const WINDOW: usize = 256;
/// Jumps begun in one turn, so that answers are heard meanwhile.
const SLICE: usize = 64;
/// Time in front of what counts.
const WARM_UP: Span = Span::from_millis(300);
/// What the slow path is to sustain.
const GOAL: f64 = 50_000.0;

/// Limits of one session that would end this run before the slow path's do.
pub(super) const POLICY: &str = "switching.max_switches_per_min = 60\nswitching.switch_cooldown_ms = 50\n\
    switching.old_path_drain_ms = 50\nlimits.reattach_per_session = [50, 50]\nlimits.control_per_source = [100_000, 100_000]\n";

/// For the seconds that were asked for, or until every client has used up its jumps.
pub(super) fn again(engine: &mut Engine, measure: &Measure, findings: &mut Findings) -> Result<()> {
    arrive(engine, measure)?;
    let total = engine.crowd.len();
    let mut carousel = Carousel { left: vec![JUMPS; total as usize], ready: (0..total).collect(), under_way: 0 };
    engine.crowd.returned = Some(Vec::new());
    engine.run(WARM_UP, |crowd, now| carousel.turn(crowd, now))?;
    let (cost, threads, before) = (engine.reading()?, engine.threads(), engine.crowd.book.reattach.count());
    let took = engine.run(Span::from_millis(measure.seconds * 1_000), |crowd, now| carousel.turn(crowd, now))?;
    let count = engine.crowd.book.reattach.count() - before;
    let seconds = took.as_micros().max(1) as f64 / 1e6;
    let rate = count as f64 / seconds;
    let spent = engine.threads();
    findings.duration = took;
    findings.figure("reattaches_per_s", rate);
    findings.figure("gateway_cpu_share", (engine.reading()?.run_s - cost.run_s) / seconds);
    let since = |name: &String, now: f64| now - threads.get(name).copied().unwrap_or(0.0);
    let mut slow = 0.0;
    for (name, now) in &spent {
        if name == SLOW_PATH {
            slow += since(name, *now);
        } else {
            findings.figure(format!("cpu_share_of_{name}"), since(name, *now) / seconds);
        }
    }
    findings.figure("slow_path_cpu_share", slow / seconds);
    findings.figure("slow_path_us_per_reattach", slow * 1e6 / count.max(1) as f64);
    findings.figure("reattaches_per_slow_path_cpu_s", count as f64 / slow.max(1e-9));
    findings.figure("still_under_way", carousel.under_way as f64);
    findings.goals.push(Goal::at_least("reattaches per second, sustained", rate, GOAL, "1/s"));
    findings.goals.push(Goal::at_least("sessions kept", engine.crowd.live() as f64, total.into(), "sessions"));
    if slow / seconds < BUSY {
        findings.notes.push(format!(
            "the slow path used {:.0} % of a CPU at {rate:.0} reattaches per second: the generator, or another thread on the \
             gateway's CPU, was the limit",
            slow / seconds * 100.0
        ));
    }
    Ok(())
}

/// Share of a CPU from which on the slow path is called the limit.
const BUSY: f64 = 0.9;
/// Name of the slow path's thread: it is the program's first.
const SLOW_PATH: &str = "jumpgate";

/// Who may jump next.
struct Carousel {
    /// Jumps that each client has left.
    left: Vec<u8>,
    ready: VecDeque<u32>,
    under_way: usize,
}

impl Carousel {
    /// Has clients jump that may, as many as the window allows. True once nobody has a jump left.
    fn turn(&mut self, crowd: &mut Crowd, now: Time) -> Result<bool> {
        for number in crowd.returned.iter_mut().flat_map(|returned| returned.drain(..)) {
            self.under_way -= 1;
            if self.left[number as usize] > 0 {
                self.ready.push_back(number);
            }
        }
        for _ in 0..SLICE.min(WINDOW.saturating_sub(self.under_way)).min(self.ready.len()) {
            let Some(number) = self.ready.pop_front() else { break };
            if crowd.jump(now, number, Jump::LinkDown)? {
                self.under_way += 1;
                self.left[number as usize] -= 1;
            } else {
                self.ready.push_back(number);
            }
        }
        Ok(self.ready.is_empty() && self.under_way == 0)
    }
}
