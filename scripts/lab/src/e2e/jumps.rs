//! Jumps: what is done to the paths, and what the session makes of it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Test;
use super::tunnel::{Ends, Jumped, LTE_PATH, Tunnel, WIFI_PATH};
use crate::relay::Profile;
use crate::topology::{GATEWAY_OUTSIDE, LTE, Lab, WIFI};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "jump: a planned move to a validated standby path loses nothing (SP-6), over IPv4",
        run: |lab| planned(lab, false),
    },
    Test {
        name: "jump: a planned move to a validated standby path loses nothing (SP-6), over IPv6",
        run: |lab| planned(lab, true),
    },
    Test {
        name: "jump: there and back, and each path arrives on its own queue at the same worker (TC17, TC42)",
        run: there_and_back,
    },
    Test { name: "jump: link down is followed within 500 ms (TC18, TB-02)", run: |lab| link_down(lab, false) },
    Test {
        name: "jump: link down is followed within 500 ms (TC18, TB-02), over IPv6",
        run: |lab| link_down(lab, true),
    },
    Test {
        name: "jump: a silent black hole is found by silence and left (TC04, TB-11)",
        run: |lab| black_hole(lab, false),
    },
    Test {
        name: "jump: a silent black hole is found by silence and left (TC04, TB-11), over IPv6",
        run: |lab| black_hole(lab, true),
    },
    Test {
        name: "jump: a new source port behind the NAT is reattached explicitly (TC13)",
        run: |lab| rebinding(lab, false),
    },
    Test {
        name: "jump: a new source port behind the NAT is reattached explicitly (TC13), over IPv6",
        run: |lab| rebinding(lab, true),
    },
    Test { name: "jump: a new source address of the NAT is reattached explicitly (TC14)", run: new_address },
    Test { name: "jump: a path that is lost one way only is left (TC12)", run: one_way },
    Test { name: "jump: planned move and rebinding work in generic mode too (TC37)", run: generic },
];

/// What a hard jump may cost: noticing, cooldown of the profile `mobile` (500 ms), and round trips on a busy machine.
const HARD: Duration = Duration::from_millis(500);
/// Silence until VOLATILE (1 000 ms in the profile `mobile`), cooldown, and round trips.
const SILENT: Duration = Duration::from_millis(2_500);

fn planned(lab: &Lab, ipv6: bool) -> Result<()> {
    let tunnel = Tunnel::open(lab, ipv6)?;
    let Jumped { before, after, seen } = tunnel.jump(&LTE, || tunnel.client.move_to(LTE.interface))?;
    ensure!(after.epoch == before.epoch + 1, "epoch {} became {}", before.epoch, after.epoch);
    ensure!(after.peer.map(|peer| peer.ip()) != before.peer.map(|peer| peer.ip()), "it is where it was: {after:?}");
    ensure!(seen.lost == 0, "lost {} of {} probes", seen.lost, seen.sent);
    Ok(())
}

fn there_and_back(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    let per_queue = lab.received_per_queue()?;
    let there = tunnel.jump(&LTE, || tunnel.client.move_to(LTE.interface))?;
    let back = tunnel.jump(&WIFI, || tunnel.client.move_to(WIFI.interface))?;
    let queues = [there.before.queue, there.after.queue, back.after.queue];
    ensure!(queues == [0, 1, 0], "the gateway saw queues {queues:?}");
    let workers = [there.before.worker, there.after.worker, back.after.worker];
    ensure!(workers.iter().all(|worker| *worker == workers[0]), "the session wandered over workers {workers:?}");
    let now = lab.received_per_queue()?;
    ensure!(now.iter().zip(&per_queue).all(|(now, before)| now > before), "the driver counted {per_queue:?}, {now:?}");
    Ok(())
}

fn link_down(lab: &Lab, ipv6: bool) -> Result<()> {
    let tunnel = Tunnel::open(lab, ipv6)?;
    let Jumped { seen, .. } = tunnel.jump(&LTE, || lab.uplink_down(&WIFI))?;
    ensure!(seen.outage <= HARD, "an outage of {:?}", seen.outage);
    Ok(())
}

fn black_hole(lab: &Lab, ipv6: bool) -> Result<()> {
    let tunnel = Tunnel::open(lab, ipv6)?;
    let hole = Profile { blackhole: true, ..WIFI_PATH };
    let Jumped { seen, .. } = tunnel.jump(&LTE, || lab.relay.set(WIFI.path, hole))?;
    ensure!(seen.outage <= SILENT, "an outage of {:?}", seen.outage);
    Ok(())
}

fn one_way(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    let hole = Profile { blackhole: true, ..WIFI_PATH };
    let disturb = || lab.relay.set_direction(WIFI.path, crate::relay::Direction::Down, hole);
    let Jumped { seen, .. } = tunnel.jump(&LTE, disturb)?;
    ensure!(seen.outage <= SILENT, "an outage of {:?}", seen.outage);
    Ok(())
}

fn rebinding(lab: &Lab, ipv6: bool) -> Result<()> {
    let tunnel = Tunnel::open(lab, ipv6)?;
    let unbound = tunnel.gateway.counter("WRONG_TRANSPORT")?;
    let Jumped { before, after, seen } = tunnel.jump(&WIFI, || lab.relay.rebind(WIFI.path, None))?;
    let (Some(old), Some(new)) = (before.peer, after.peer) else { anyhow::bail!("no peer: {after:?}") };
    ensure!(old.ip() == new.ip() && old.port() != new.port(), "{old} became {new}");
    ensure!(seen.outage <= SILENT, "an outage of {:?}", seen.outage);
    // DATA came from the new port before the reattach did, and must not have moved anything (INV-26).
    tunnel.wait_for_count("WRONG_TRANSPORT", unbound, 1)
}

fn new_address(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    let address = WIFI.other_public_address(false);
    let Jumped { after, seen, .. } = tunnel.jump(&WIFI, || lab.relay.rebind(WIFI.path, Some(address)))?;
    ensure!(after.peer.map(|peer| peer.ip()) == Some(address), "the peer is {:?}", after.peer);
    ensure!(seen.outage <= SILENT, "an outage of {:?}", seen.outage);
    Ok(())
}

fn generic(lab: &Lab) -> Result<()> {
    lab.relay.set(WIFI.path, WIFI_PATH)?;
    lab.relay.set(LTE.path, LTE_PATH)?;
    let mut ends = Ends::new(lab, false)?;
    ends.gateway.mode = "generic";
    let tunnel = ends.open(lab)?;
    let mut show = Command::new("ip");
    let links = lab.run.check(show.args(["-n", lab.gateway.name(), "link", "show", GATEWAY_OUTSIDE]), "")?;
    ensure!(links.contains("xdpgeneric"), "no program is attached in generic mode: {links}");
    let planned = tunnel.jump(&LTE, || tunnel.client.move_to(LTE.interface))?;
    ensure!(planned.seen.lost == 0, "lost {} of {} probes", planned.seen.lost, planned.seen.sent);
    tunnel.jump(&LTE, || lab.relay.rebind(LTE.path, None)).map(drop)
}
