//! Floods beside clients that work: what is left of their goodput, and how late it comes.

use jumpgate_protocol::wire::MessageType;

use super::*;
use crate::load::flood::Flood;

/// Packets of the flood in one turn of the generator, beside the clients' own.
const POUR: usize = 64;
/// Share of its goodput that a flood must leave to the others.
const GOODPUT: f64 = 0.9;

/// Forged requests for live sessions.
pub(super) fn reattach(engine: &mut Engine, measure: &Measure, findings: &mut Findings) -> Result<()> {
    arrive(engine, measure)?;
    let victims = engine.crowd.locators(clock::now());
    compare(engine, measure, Flood::reattach(&victims, measure.seed), findings)
}

/// Handshakes of strangers without cookies.
pub(super) fn handshake(engine: &mut Engine, measure: &Measure, findings: &mut Findings) -> Result<()> {
    arrive(engine, measure)?;
    let flood = Flood::handshake(&engine.plant.key, measure.seed)?;
    compare(engine, measure, flood, findings)
}

/// One request and one packet of one client, again and again.
pub(super) fn replay(engine: &mut Engine, measure: &Measure, findings: &mut Findings) -> Result<()> {
    arrive(engine, measure)?;
    engine.crowd.capture = Some(Vec::new());
    let now = clock::now();
    engine.crowd.jump(now, 0, Jump::LinkDown)?;
    engine.run(STORM_PATIENCE, |crowd, _| Ok(!crowd.is_waiting(0)))?;
    engine.crowd.echo(clock::now(), 0, ECHO_BYTES)?;
    engine.run(SETTLE, |_, _| Ok(false))?;
    let mut captured = engine.crowd.capture.take().unwrap_or_default();
    captured.retain(|packet| matches!(MessageType::of(packet), Ok(MessageType::ReattachRequest | MessageType::Data)));
    ensure!(captured.len() >= 2, "nothing to replay was captured");
    let from = engine.crowd.outer_of(0, clock::now());
    compare(engine, measure, Flood::replay(captured, from), findings)
}

/// The same traffic with and without the flood, one after the other.
fn compare(engine: &mut Engine, measure: &Measure, mut flood: Flood, findings: &mut Findings) -> Result<()> {
    let half = Span::from_millis(measure.seconds * 1_000 / 2);
    let start = clock::now();
    engine.say("without the flood");
    let calm = phase(engine, measure, half, None)?;
    let usual = std::mem::replace(&mut engine.crowd.book.round_trip, Times::new()?);
    engine.say("with the flood");
    let before = engine.reading()?;
    let sent = flood.sent;
    let flooded = phase(engine, measure, half, Some(&mut flood))?;
    let elapsed = std::time::Duration::from_micros(half.as_micros());
    findings.duration = clock::now().since(start);
    let rate = |count: u64| count as f64 / elapsed.as_secs_f64();
    findings.figure("flood_packets_per_s", rate(flood.sent - sent));
    findings.figure("goodput_calm_per_s", rate(calm));
    findings.figure("goodput_flooded_per_s", rate(flooded));
    findings.figure("gateway_cpu_share_flooded", engine.reading()?.share_since(&before, elapsed));
    let total = engine.crowd.len();
    let share = flooded as f64 / calm.max(1) as f64;
    findings.goals.push(Goal::at_least("goodput left under the flood", share, GOODPUT, "share"));
    findings.goals.push(Goal::at_least("sessions kept", engine.crowd.live() as f64, total.into(), "sessions"));
    findings.goals.push(others_delayed(&usual, &engine.crowd.book.round_trip));
    findings.times.insert("round_trip_without_the_flood", usual);
    Ok(())
}

/// Echo packets that came back in a time.
fn phase(engine: &mut Engine, measure: &Measure, length: Span, mut flood: Option<&mut Flood>) -> Result<u64> {
    let before = engine.crowd.book.echo.returned;
    let mut pulse = Pulse::new(measure, &engine.crowd, clock::now());
    engine.run(length, |crowd, now| {
        pulse.beat(crowd, now)?;
        if let Some(flood) = flood.as_deref_mut() {
            crowd.pour(flood, POUR)?;
        }
        Ok(false)
    })?;
    let returned = engine.crowd.book.echo.returned - before;
    engine.run(TAIL, |_, _| Ok(false))?;
    Ok(returned)
}
