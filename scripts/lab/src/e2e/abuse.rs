//! Flapping and sleep: what is no attack, and has to be bounded all the same.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::wire::Cause;
use nix::sys::signal::Signal;

use super::Test;
use super::arena::Arena;
use super::tunnel::Tunnel;
use crate::attacker::Answer;
use crate::topology::{LTE, Lab, Uplink, WIFI};

pub(super) const TESTS: &[Test] = &[
    Test { name: "abuse: flapping ends at the switch limit, and the session lives on (TC19, T10)", run: flapping },
    Test {
        name: "abuse: a path that flaps every second, and then every five, ends at the limit, and nothing oscillates any more (TC19, INV-15)",
        run: flapping_periods,
    },
    Test {
        name: "abuse: a client that wants to go back before the cooldown is over is denied, and that is recorded (TC19, SM-16)",
        run: hasty,
    },
    Test { name: "abuse: a client that slept for a while takes its session up again (TC41, L-3)", run: sleep },
];

/// How long it may take until the limit is reached: several times as long as so many flaps.
const FLAPPING_LIMIT: Duration = Duration::from_secs(45);
/// Requests of a client that cannot wait.
const HASTY_REQUESTS: u16 = 8;
/// Flaps beyond the limit, within the same minute.
const AFTER_THE_LIMIT: usize = 3;

fn flapping(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::with_policy(lab, "mobile", "switching.max_switches_per_min = 2")?;
    let before = tunnel.session()?;
    let flap = |down: &Uplink, up: &Uplink| -> Result<()> {
        tunnel.wait_for_standby(up)?;
        lab.uplink_down(down)?;
        let there = |status: &crate::programs::Status| {
            status.state == "ATTACHED" && status.active_interface.as_deref() == Some(up.interface)
        };
        tunnel.client.wait_for("the flap to be followed", Duration::from_secs(5), there)?;
        lab.uplink_up(down)
    };
    flap(&WIFI, &LTE)?;
    flap(&LTE, &WIFI)?;
    // The third move within a minute is one too many.
    tunnel.wait_for_standby(&LTE)?;
    lab.uplink_down(&WIFI)?;
    tunnel.client.wait_for("the brake", Duration::from_secs(5), |status| status.state == "DEGRADED")?;
    let after = tunnel.session()?;
    ensure!(after.locator == before.locator && after.switches == 2, "the gateway says {after:?}");
    Ok(())
}

/// The path in use goes and comes with that period, half of it away, until the client is braked.
fn flapping_periods(lab: &Lab) -> Result<()> {
    for (period, limit) in [(Duration::from_secs(1), 4), (Duration::from_secs(5), 3)] {
        let policy = format!("switching.max_switches_per_min = {limit}\nswitching.switch_cooldown_ms = 1000");
        let tunnel = Tunnel::with_policy(lab, "mobile", &policy)?;
        tunnel.wait_for_standby(&LTE)?;
        let before = tunnel.session()?;
        let braked = || tunnel.client.log().contains("id=T10 reason=SWITCH_RATE_LIMITED");
        let started = Instant::now();
        let mut flaps = 0;
        while !braked() {
            ensure!(started.elapsed() < FLAPPING_LIMIT, "{flaps} flaps, and no brake: {:?}", tunnel.session()?);
            flap_once(lab, &tunnel, period)?;
            flaps += 1;
        }
        let limited = tunnel.session()?;
        let oscillations = || Ok::<_, anyhow::Error>(tunnel.gateway.metrics()?.sum("jumpgate_oscillations_total", &[]));
        let until_then = oscillations()?;
        // It goes on, and nothing comes of it while the minute lasts.
        for _ in 0..AFTER_THE_LIMIT {
            flap_once(lab, &tunnel, period)?;
        }
        let after = tunnel.session()?;
        ensure!(after.locator == before.locator, "another session: {before:?} became {after:?}");
        ensure!(after.switches == limit, "{} switches within a minute, {limit} are allowed", after.switches);
        ensure!(after.switches == limited.switches, "it moved on: {limited:?} became {after:?}");
        ensure!(oscillations()? == until_then, "it oscillates");
        ensure!(tunnel.gateway.metrics()?.sum("jumpgate_safety_violations_total", &[]) == 0.0, "a rule is broken");
        lab.note(format!(
            "period {period:?}: braked after {flaps} flaps and {limit} switches; {until_then} oscillations before, none after"
        ));
    }
    Ok(())
}

/// A client of its own making goes to and fro every second: the real one waits for the cooldown by itself.
fn hasty(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "switching.switch_cooldown_ms = 3000")?;
    let mut mallory = arena.join()?;
    let watch = arena.watch()?;
    let mut other = arena.socket()?;
    let (mut granted, mut denied) = (0_u32, 0_u32);
    for number in 0..HASTY_REQUESTS {
        other = mallory.move_to(other)?;
        match mallory.reattach(2 - number % 2, Cause::Quality)? {
            Answer::Bound(_) => granted += 1,
            Answer::Refused(reject) => {
                ensure!(reject.reason == Reason::CooldownActive, "refused as {}", reject.reason);
                ensure!((1..=3_000).contains(&reject.retry_after_ms), "{reject:?}");
                denied += 1;
                other = mallory.move_to(other)?;
            }
            answer => bail!("answered by {answer:?}"),
        }
        mallory.validate()?;
        thread::sleep(Duration::from_secs(1));
    }
    ensure!(granted > 0 && denied > granted, "{granted} granted, {denied} denied");
    let denials = arena.tunnel.gateway.metrics()?.sum("jumpgate_switch_denials_total", &["reason=\"COOLDOWN_ACTIVE\""]);
    ensure!(denials == f64::from(denied), "{denied} denials, {denials} counted");
    watch.counts(Reason::CooldownActive.name(), u64::from(denied))?;
    watch.is_undisturbed()
}

/// The path in use is away for half a period, and there for the other half.
fn flap_once(lab: &Lab, tunnel: &Tunnel<'_>, period: Duration) -> Result<()> {
    let active = tunnel.client.status()?.active_interface;
    let uplink = Uplink::ALL.iter().find(|uplink| Some(uplink.interface) == active.as_deref()).unwrap_or(&WIFI);
    lab.uplink_down(uplink)?;
    thread::sleep(period / 2);
    lab.uplink_up(uplink)?;
    thread::sleep(period / 2);
    Ok(())
}

fn sleep(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    let before = tunnel.session()?;
    tunnel.client.process().signal(Signal::SIGSTOP);
    // Longer than transport_dead_ms of the profile `mobile`, far less than its transport_lost_ttl_ms.
    thread::sleep(Duration::from_secs(3));
    let lost = tunnel.session()?;
    tunnel.client.process().signal(Signal::SIGCONT);
    ensure!(lost.state != "ATTACHED", "the gateway did not notice: {lost:?}");
    let awake = |status: &crate::programs::Status| status.state == "ATTACHED" && status.epoch > before.epoch;
    tunnel.client.wait_for("the session to be taken up again", Duration::from_secs(8), awake)?;
    let after = tunnel.session()?;
    ensure!(after.locator == before.locator && after.state == "ATTACHED", "the gateway says {after:?}");
    tunnel.probe(false).map(drop)
}
