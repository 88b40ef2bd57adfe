//! Flapping and sleep: what is no attack, and has to be bounded all the same.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use super::Test;
use super::tunnel::Tunnel;
use crate::topology::{LTE, Lab, Uplink, WIFI};

pub(super) const TESTS: &[Test] = &[
    Test { name: "abuse: flapping ends at the switch limit, and the session lives on (TC19, T10)", run: flapping },
    Test { name: "abuse: a client that slept for a while takes its session up again (TC41, L-3)", run: sleep },
];

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
