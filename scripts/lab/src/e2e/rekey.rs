//! New keys under traffic: by age and after a switch.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use jumpgate_protocol::wire::{Header, MessageType};

use super::tunnel::Tunnel;
use super::{Test, wait_for};
use crate::attacker::{Overheard, Wire};
use crate::topology::{LTE, Lab, WIFI};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "rekey: keys that have grown old are replaced under traffic, without a pause and without a lost packet (TC32, RK-3)",
        run: by_age,
    },
    Test {
        name: "rekey: every switch brings new keys, nothing is lost, and no counter is used twice (TC32, A36, INV-36, PP67)",
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
    let wire = Wire::open(lab)?;
    let tunnel = Tunnel::with_policy(lab, "mobile", policy)?;
    let mut used = Counters::default();
    for (number, uplink) in [(1, LTE), (2, WIFI)] {
        let jumped = tunnel.jump(&uplink, || tunnel.client.move_to(uplink.interface))?;
        ensure!(jumped.seen.lost == 0, "lost {} of {} probes", jumped.seen.lost, jumped.seen.sent);
        wait_for("the keys to be replaced", Duration::from_secs(5), || Ok(rekeys(&tunnel) >= number))?;
        used.take(&wire)?;
    }
    ensure!(tunnel.gateway.counter("DATA_AUTH_FAIL")? == 0, "packets were refused over the new keys");
    tunnel.probe_flows()?;
    used.take(&wire)?;
    let epochs: BTreeSet<u8> = used.0.iter().map(|(_, key_epoch, _)| *key_epoch).collect();
    ensure!(epochs.len() >= 3, "data was seen under the key epochs {epochs:?} only");
    Ok(())
}

/// The data counters that were seen on the wire: direction, key epoch, counter.
#[derive(Default)]
struct Counters(BTreeSet<(bool, u8, u64)>);

impl Counters {
    /// Takes what passed since the last look; an error if a counter was used twice (INV-36).
    fn take(&mut self, wire: &Wire) -> Result<()> {
        for Overheard { from_gateway, payload, .. } in wire.overheard()? {
            if payload.first() != Some(&(MessageType::Data as u8)) {
                continue;
            }
            let header = Header::parse(&payload).map_err(|error| anyhow!("DATA on the wire: {error}"))?;
            let fresh = self.0.insert((from_gateway, header.key_epoch, header.counter));
            ensure!(fresh, "counter {} was used twice under key epoch {}", header.counter, header.key_epoch);
        }
        Ok(())
    }
}
