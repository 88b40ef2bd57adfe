//! The planned restart of the gateway (K09): another process, the same sessions.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::tunnel::{Ends, Tunnel, quieten};
use super::{Test, wait_for};
use crate::http::{Content, ContentServer, Download};
use crate::programs::Gateway;
use crate::topology::{Lab, SERVER_V4};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "restart: the gateway is replaced under a running TCP download; session, epoch and keys go on (K09)",
        run: handed_over,
    },
    Test {
        name: "restart: a hand-over that was changed on the disk leaves no session, and a critical line (K11)",
        run: spoiled,
    },
];

/// The download: so long that all restarts lie well within it.
const CONTENT: Content = Content { bytes: 24_000_000, seed: 9, rate: 3_000_000 };
const PORT: u16 = 8_090;
/// A busy machine takes its time to start a gateway; no client shall have looked for another path meanwhile, since what is
/// tested is that none has to.
const POLICY: &str = "volatility.heartbeat_volatile_ms = 8000\nvolatility.transport_dead_ms = 12000\n\
                      volatility.max_consecutive_drops = 16\nsession.transport_lost_ttl_ms = 30000\n";
/// Bytes that the download flows before each replacement of the gateway. The last one follows so soon that neither end has
/// measured any loss since the one before.
const FLOWS: [u64; 3] = [2_000_000, 2_000_000, 100_000];

fn open(lab: &Lab) -> Result<Tunnel<'_>> {
    quieten(lab)?;
    let mut ends = Ends::new(lab, false)?;
    (ends.gateway.profile, ends.gateway.policy) = ("default", POLICY.to_owned());
    ends.open(lab)
}

fn handed_over(lab: &Lab) -> Result<()> {
    let Tunnel { client, mut gateway, gateway_options, programs, .. } = open(lab)?;
    let address = SocketAddr::new(IpAddr::V4(SERVER_V4), PORT);
    let server = ContentServer::start(&lab.server, address, CONTENT)?;
    let download = Download::start(&lab.client, address)?;
    for (restart, flow) in FLOWS.into_iter().enumerate() {
        let bytes = download.bytes();
        wait_for("the download to flow", Duration::from_secs(10), || Ok(download.bytes() > bytes + flow))?;
        let before = gateway.session()?;
        let status = client.status()?;
        let started = Instant::now();
        gateway.hand_over()?;
        let away = started.elapsed();
        gateway = Gateway::start(lab, &programs, &gateway_options)?;
        let after = gateway.session()?;
        lab.note(format!("handed over in {away:?}, the next one answered after {:?}", started.elapsed()));
        ensure!(after.is_as(&before), "restart {restart}: {before:?} became {after:?}");
        let bytes = download.bytes();
        wait_for("the download to go on", Duration::from_secs(20), || Ok(download.bytes() > bytes + 100_000))?;
        let now = client.status()?;
        ensure!(
            (now.session.as_deref(), now.sessions, now.epoch) == (Some(&*before.locator), 1, status.epoch),
            "the client noticed: {status:?} became {now:?}"
        );
    }
    let epoch = gateway.session()?.epoch;
    let result = download.finish()?;
    ensure!(result.checksum == CONTENT.checksum() && result.bytes == CONTENT.bytes, "not what was sent");
    ensure!(result.connections == 1 && server.peers().len() == 1, "more than one connection");
    lab.note(format!("longest stall of the download {:?}", result.longest_stall));
    // What was lost meanwhile is held against no path, at neither end.
    thread::sleep(Duration::from_secs(3));
    let last = gateway.session()?;
    ensure!(last.state == "ATTACHED" && last.epoch == epoch, "it did not stay where it was: {last:?}");
    for log in [gateway.log(), client.log()] {
        ensure!(!log.contains("HELLO") && !log.contains("SESSION_LOST"), "a handshake:\n{log}");
    }
    client.stop()?;
    gateway.stop()
}

fn spoiled(lab: &Lab) -> Result<()> {
    let Tunnel { client, gateway, gateway_options, programs, .. } = open(lab)?;
    let first = gateway.session()?;
    gateway.hand_over()?;
    let file = lab.run.directory().join("gateway.sock.handover/sessions");
    let mut bytes = fs::read(&file)?;
    let Some(last) = bytes.last_mut() else { bail!("nothing was handed over") };
    *last ^= 1;
    // Into the same file: its inode is what the seal names.
    fs::write(&file, bytes)?;
    let gateway = Gateway::start(lab, &programs, &gateway_options)?;
    ensure!(gateway.log().contains("CRITICAL"), "nobody is told:\n{}", gateway.log());
    ensure!(!file.exists(), "it could be used again");
    let status = client.wait_for("a second session", Duration::from_secs(60), |status| {
        status.phase == "connected" && status.sessions >= 2 && status.session.as_deref() != Some(&first.locator)
    })?;
    ensure!(status.session == Some(gateway.session()?.locator), "the ends differ");
    client.stop()?;
    gateway.stop()
}
