//! New keys under traffic: by age and after a switch.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::tunnel::Tunnel;
use super::{Test, wait_for};
use crate::topology::{LTE, Lab, WIFI};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "rekey: keys that have grown old are replaced under traffic, without a pause and without a lost packet (TC32, A36, RK-3)",
        run: by_age,
    },
    Test {
        name: "rekey: every switch brings new keys, and old packets of both ends still count (TC32, A36, PP67)",
        run: by_switch,
    },
];

/// Longest pause that is none: a scheduler's, not a protocol's.
const PAUSE: Duration = Duration::from_millis(500);

/// How often the gateway says that a session was rekeyed.
fn rekeys(tunnel: &Tunnel<'_>) -> usize {
    tunnel.gateway.log().lines().filter(|line| line.contains("rekeyed")).count()
}

fn by_age(lab: &Lab) -> Result<()> {
    // The shortest age that the policy knows.
    let policy =
        "security.rekey_after_ms = 10000\nsecurity.rekey_min_interval_ms = 1000\nsecurity.rekey_overlap_ms = 1000";
    let tunnel = Tunnel::with_policy(lab, "default", policy)?;
    let watch = super::arena::Watch::begin(&tunnel)?;
    wait_for("the keys to be replaced", Duration::from_secs(16), || Ok(rekeys(&tunnel) >= 1))?;
    // Beyond the overlap: from here on only the new keys are known.
    std::thread::sleep(Duration::from_millis(1_500));
    let seen = watch.seen();
    ensure!(seen.lost == 0, "lost {} of {} probes", seen.lost, seen.sent);
    ensure!(seen.outage <= PAUSE, "a pause of {:?}", seen.outage);
    for refused in ["DATA_AUTH_FAIL", "AUTH_FAIL", "KEY_EPOCH_UNKNOWN", "DATA_REPLAY", "REKEY_DENIED"] {
        ensure!(watch.grown(refused)? == 0, "{refused} was counted during the rekey");
    }
    watch.is_undisturbed()
}

fn by_switch(lab: &Lab) -> Result<()> {
    let policy = "security.rekey_on_switch = true\nsecurity.rekey_min_interval_ms = 1000";
    let tunnel = Tunnel::with_policy(lab, "mobile", policy)?;
    for (number, uplink) in [(1, LTE), (2, WIFI)] {
        let jumped = tunnel.jump(&uplink, || tunnel.client.move_to(uplink.interface))?;
        ensure!(jumped.seen.lost == 0, "lost {} of {} probes", jumped.seen.lost, jumped.seen.sent);
        wait_for("the keys to be replaced", Duration::from_secs(5), || Ok(rekeys(&tunnel) >= number))?;
    }
    ensure!(tunnel.gateway.counter("DATA_AUTH_FAIL")? == 0, "packets were refused over the new keys");
    tunnel.probe_flows()
}
