//! Faults of the network: of one client at a time, and of all at once.

use super::*;

/// Faults of each kind in the scenarios that take clients one at a time.
const SINGLE_FAULTS: u32 = 1_000;
/// Rebindings of each client.
const REBINDS: u32 = 5;
/// Periods of flapping, one after the other, and how long each lasts.
const FLAPS: [Span; 2] = [Span::from_millis(1_000), Span::from_millis(5_000)];
const FLAPPING: Span = Span::from_millis(20_000);

/// All clients lose their path in the same instant, with notice.
pub(super) fn storm(engine: &mut Engine, measure: &Measure, findings: &mut Findings) -> Result<()> {
    arrive(engine, measure)?;
    let total = engine.crowd.len();
    let mut next = 0;
    let mut pulse = Pulse::new(measure, clock::now());
    let frames = engine.crowd.frames;
    let took = engine.run(STORM_PATIENCE, |crowd: &mut Crowd, now: Time| {
        let end = (next + STORM_SLICE).min(total);
        while next < end {
            crowd.jump(now, next, Jump::LinkDown)?;
            next += 1;
        }
        pulse.beat(crowd, now)?;
        Ok(next == total && crowd.book.reattach.count() >= u64::from(total))
    })?;
    let (back, ms) = (engine.crowd.book.reattach.count(), |span: Span| span.as_micros() as f64 / 1e3);
    let times = engine.crowd.book.reattach.distribution();
    findings.duration = took;
    findings.summary.insert("back", back as f64);
    findings.summary.insert("last_back_ms", ms(took));
    findings.summary.insert("reattaches_per_s", back as f64 / took.as_micros().max(1) as f64 * 1e6);
    findings.summary.insert("frames_per_jump", (engine.crowd.frames.0 - frames.0) as f64 / f64::from(total));
    findings.goals = vec![
        Goal::at_least("sessions back", back as f64, total.into(), "sessions"),
        Goal::at_most("the last one back", ms(took), 1_000.0, "ms"),
        Goal::at_most("p99 of a reattach", times.p99_ms.unwrap_or(f64::NAN), 100.0, "ms"),
        Goal::at_least("reattaches per second", back as f64 / took.as_micros().max(1) as f64 * 1e6, 50_000.0, "1/s"),
    ];
    Ok(())
}

/// One client at a time: first with notice of a dead link, then a silent black hole.
pub(super) fn failover(engine: &mut Engine, measure: &Measure, findings: &mut Findings) -> Result<()> {
    arrive(engine, measure)?;
    for number in 0..engine.crowd.len() {
        engine.crowd.second_path(clock::now(), number)?;
    }
    // Time for probes to validate the second path of everybody.
    engine.run(BETWEEN, |_, _| Ok(false))?;
    let start = clock::now();
    for (jump, name) in [(Jump::LinkDown, "notice_p50_ms"), (Jump::BlackHole, "silent_p50_ms")] {
        let before = engine.crowd.book.reattach.count();
        one_at_a_time(engine, jump)?;
        let times = engine.crowd.book.reattach.distribution();
        findings.summary.insert(name, times.p50_ms.unwrap_or(f64::NAN));
        findings.notes.push(format!("{jump:?}: {} faults", engine.crowd.book.reattach.count() - before));
        engine.run(BETWEEN, |_, _| Ok(false))?;
    }
    findings.duration = clock::now().since(start);
    Ok(())
}

fn one_at_a_time(engine: &mut Engine, jump: Jump) -> Result<()> {
    let total = engine.crowd.len();
    let faults = total.min(SINGLE_FAULTS);
    let (start, spread) = (clock::now(), BETWEEN.as_micros() / u64::from(faults));
    let (mut done, target) = (0, engine.crowd.book.reattach.count() + u64::from(faults));
    engine.run(STORM_PATIENCE, |crowd, now| {
        while done < faults && now.since(start).as_micros() >= spread * u64::from(done) {
            crowd.jump(now, done, jump)?;
            done += 1;
        }
        Ok(done == faults && crowd.book.reattach.count() >= target)
    })?;
    Ok(())
}

/// The NAT of every client gives another port, several times.
pub(super) fn rebind(engine: &mut Engine, measure: &Measure, findings: &mut Findings) -> Result<()> {
    arrive(engine, measure)?;
    let total = engine.crowd.len();
    let start = clock::now();
    for round in 1..=REBINDS {
        let wanted = u64::from(round) * u64::from(total);
        let (began, spread) = (clock::now(), BETWEEN.as_micros() / u64::from(total));
        let mut next = 0;
        engine.run(STORM_PATIENCE, |crowd, now| {
            while next < total && now.since(began).as_micros() >= spread * u64::from(next) {
                crowd.jump(now, next, Jump::Rebind)?;
                next += 1;
            }
            Ok(next == total && crowd.book.reattach.count() >= wanted)
        })?;
        engine.run(BETWEEN, |_, _| Ok(false))?;
    }
    findings.duration = clock::now().since(start);
    let wanted = f64::from(REBINDS) * f64::from(total);
    findings.goals.push(Goal::at_least(
        "rebindings survived",
        engine.crowd.book.reattach.count() as f64,
        wanted,
        "jumps",
    ));
    Ok(())
}

/// Every client's links fail in turn with a short period, then a longer one; then they are calm.
pub(super) fn flap(engine: &mut Engine, measure: &Measure, findings: &mut Findings) -> Result<()> {
    arrive(engine, measure)?;
    let total = engine.crowd.len();
    let start = clock::now();
    for period in FLAPS {
        let (began, mut round) = (clock::now(), 0);
        engine.run(FLAPPING, |crowd, now| {
            if now.since(began).as_micros() >= period.as_micros() * round {
                round += 1;
                for number in 0..total {
                    crowd.jump(now, number, Jump::LinkDown)?;
                }
            }
            Ok(false)
        })?;
    }
    // The sliding minute must pass before a limited session may move again.
    let all = u64::from(total);
    engine.run(Span::from_millis(90_000), |crowd, _| Ok(crowd.attached() == all))?;
    findings.duration = clock::now().since(start);
    findings.goals.push(Goal::at_least("attached when calm", engine.crowd.attached() as f64, total.into(), "sessions"));
    Ok(())
}
