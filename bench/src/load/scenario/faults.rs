//! Faults of the network: of one client at a time, and of all at once.

use super::*;

/// Faults of each kind in the scenarios that take clients one at a time.
const SINGLE_FAULTS: u32 = 1_000;
/// Rebindings of each client.
const REBINDS: u32 = 5;
/// Periods of flapping, one after the other.
const FLAPS: [Span; 2] = [Span::from_millis(1_000), Span::from_millis(5_000)];
/// Echoes of the bystanders of a storm per second, if no more were asked for: a storm of a tenth of a second then gives the
/// thousand samples that a 99th percentile needs.
const STORM_ECHOES: u64 = 10_000;
/// How long bystanders are listened to before a storm.
const LULL: Span = Span::from_millis(1_000);

/// All clients but the bystanders lose their path in the same instant, with notice.
pub(super) fn storm(engine: &mut Engine, measure: &Measure, findings: &mut Findings) -> Result<()> {
    arrive(engine, measure)?;
    let (total, bystanders) = (engine.crowd.len(), measure.bystanders);
    let jumpers = total - bystanders;
    engine.crowd.bystanders = bystanders;
    let rate = if bystanders > 0 { measure.echoes.max(STORM_ECHOES) } else { 0 };
    let mut pulse = Pulse::of(measure, bystanders, rate, clock::now());
    engine.run(LULL, |crowd, now| {
        pulse.beat(crowd, now)?;
        Ok(false)
    })?;
    engine.run(TAIL, |_, _| Ok(false))?;
    let lull = std::mem::replace(&mut engine.crowd.book.bystanders, Times::new()?);
    let validated = validations(engine)?;
    engine.say("the storm");
    let mut next = bystanders;
    let mut pulse = Pulse::of(measure, bystanders, rate, clock::now());
    let (frames, echoes) = (engine.crowd.frames.0, engine.crowd.book.echo.sent);
    let (began, mut all_gone) = (clock::now(), None);
    let took = engine.run(STORM_PATIENCE, |crowd: &mut Crowd, now: Time| {
        if next == total {
            all_gone.get_or_insert(now);
        }
        // Clients of their own would hear their answers meanwhile: none jumps while answers wait in this one thread.
        let slice = if crowd.behind { 0 } else { STORM_SLICE };
        let end = (next + slice).min(total);
        while next < end {
            crowd.jump(now, next, Jump::LinkDown)?;
            next += 1;
        }
        pulse.beat(crowd, now)?;
        Ok(next == total && crowd.book.reattach.count() >= u64::from(jumpers))
    })?;
    let frames = (engine.crowd.frames.0 - frames) - (engine.crowd.book.echo.sent - echoes);
    engine.run(TAIL, |_, _| Ok(false))?;
    let (back, ms) = (engine.crowd.book.reattach.count(), |span: Span| span.as_micros() as f64 / 1e3);
    let times = engine.crowd.book.reattach.distribution();
    findings.duration = took;
    findings.figure("back", back as f64);
    findings.figure("last_back_ms", ms(took));
    let spread = all_gone.map_or(took, |at| at.since(began));
    findings.figure("jumps_begun_within_ms", ms(spread));
    findings.notes.push(format!(
        "the generator had its {jumpers} clients jump within {:.0} ms; each time counts from its client's own jump",
        ms(spread)
    ));
    findings.figure("validations", validations(engine)? - validated);
    findings.figure("reattaches_per_s", back as f64 / took.as_micros().max(1) as f64 * 1e6);
    findings.figure("frames_per_jump", frames as f64 / f64::from(jumpers.max(1)));
    findings.goals = vec![
        Goal::at_least("sessions back", back as f64, jumpers.into(), "sessions"),
        Goal::at_least("sessions kept", engine.crowd.live() as f64, total.into(), "sessions"),
        Goal::at_most("the last one back", ms(took), 1_000.0, "ms"),
        Goal::at_most("p99 of a reattach", times.p99_ms.unwrap_or(f64::NAN), 100.0, "ms"),
    ];
    if bystanders > 0 {
        findings.goals.push(others_delayed(&lull, &engine.crowd.book.bystanders));
        findings.times.insert("round_trip_before_the_storm", lull);
    }
    Ok(())
}

/// Bindings whose address was proved so far.
fn validations(engine: &Engine) -> Result<f64> {
    Ok(engine.plant.metrics()?.sum("jumpgate_path_validations_total", &["result=\"ok\""]))
}

/// One client at a time: first with notice of a dead link, then a silent black hole.
pub(super) fn failover(engine: &mut Engine, measure: &Measure, findings: &mut Findings) -> Result<()> {
    arrive(engine, measure)?;
    for number in 0..engine.crowd.len() {
        engine.crowd.second_path(clock::now(), number)?;
    }
    // Time for probes to validate the second path of everybody.
    engine.run(measure.pause, |_, _| Ok(false))?;
    let start = clock::now();
    for (jump, name) in [(Jump::LinkDown, "notice_p50_ms"), (Jump::BlackHole, "silent_p50_ms")] {
        let before = engine.crowd.book.reattach.count();
        one_at_a_time(engine, measure.pause, jump)?;
        let times = engine.crowd.book.reattach.distribution();
        findings.figure(name, times.p50_ms.unwrap_or(f64::NAN));
        findings.notes.push(format!("{jump:?}: {} faults", engine.crowd.book.reattach.count() - before));
        engine.run(measure.pause, |_, _| Ok(false))?;
    }
    findings.duration = clock::now().since(start);
    Ok(())
}

fn one_at_a_time(engine: &mut Engine, pause: Span, jump: Jump) -> Result<()> {
    let total = engine.crowd.len();
    let faults = total.min(SINGLE_FAULTS);
    let (start, spread) = (clock::now(), pause.as_micros() / u64::from(faults));
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
        let (began, spread) = (clock::now(), measure.pause.as_micros() / u64::from(total));
        let mut next = 0;
        engine.run(STORM_PATIENCE, |crowd, now| {
            while next < total && now.since(began).as_micros() >= spread * u64::from(next) {
                crowd.jump(now, next, Jump::Rebind)?;
                next += 1;
            }
            Ok(next == total && crowd.book.reattach.count() >= wanted)
        })?;
        engine.run(measure.pause, |_, _| Ok(false))?;
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
    let flapping = Span::from_millis(measure.seconds * 1_000 / FLAPS.len() as u64);
    for period in FLAPS {
        let (began, mut round) = (clock::now(), 0);
        engine.run(flapping, |crowd, now| {
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
