//! What was said once and is said again: copies, races and late deliveries of genuine messages.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::wire::{Cause, MessageType};

use super::Test;
use super::arena::{Arena, forged_source};
use super::tunnel::Tunnel;
use crate::attacker::Answer;
use crate::relay::Direction;
use crate::topology::{LTE, Lab, WIFI};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "replay: a captured reattach sent again from elsewhere changes nothing (A01, I06, INV-12)",
        run: captured_reattach,
    },
    Test { name: "replay: captured data is dropped (I06, AR-3)", run: captured_data },
    Test {
        name: "replay: whoever races a copy of a fresh reattach gets little, and loses to the key holder (A31, A29, L-4, INV-33)",
        run: race,
    },
    Test { name: "replay: a genuine reattach that was held back is not fresh (A33, AR-5)", run: held_back },
];

/// Somebody who is nobody's client, somewhere behind the core.
const ATTACKER: &str = "198.18.0.66:4444";

fn attacker() -> Result<SocketAddr> {
    Ok(ATTACKER.parse()?)
}

/// Moves the victim to lte0 and gives the request that moved it.
pub(super) fn moved_by(lab: &Lab, tunnel: &Tunnel<'_>) -> Result<Vec<u8>> {
    lab.relay.capture(LTE.path, Direction::Up, Some(MessageType::ReattachRequest as u8), 1, false)?;
    tunnel.jump(&LTE, || tunnel.client.move_to(LTE.interface))?;
    let captured = lab.relay.captured(LTE.path, Direction::Up)?;
    Ok(captured.into_iter().next().context("no reattach request was seen")?.payload.0)
}

/// One DATA packet of the victim, which the gateway has too.
pub(super) fn data_of(lab: &Lab, path: &str) -> Result<Vec<u8>> {
    lab.relay.capture(path, Direction::Up, Some(MessageType::Data as u8), 1, false)?;
    thread::sleep(Duration::from_millis(100));
    let captured = lab.relay.captured(path, Direction::Up)?;
    Ok(captured.into_iter().next().context("no data was seen")?.payload.0)
}

fn captured_reattach(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let request = moved_by(lab, &arena.tunnel)?;
    let watch = arena.watch()?;
    // From the path that it left, from a stranger, and from the stranger's neighbour.
    lab.relay.inject(WIFI.path, Direction::Up, None, &request)?;
    lab.relay.inject(WIFI.path, Direction::Up, Some(attacker()?), &request)?;
    arena.wire.send_datagram(forged_source(1), arena.endpoint(), &request)?;
    watch.counts(Reason::ReplayDetected.name(), 3)?;
    watch.is_undisturbed()
}

fn captured_data(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let watch = arena.watch()?;
    let data = data_of(lab, WIFI.path)?;
    lab.relay.inject(WIFI.path, Direction::Up, None, &data)?;
    watch.counts(Reason::DataReplay.name(), 1)?;
    watch.is_undisturbed()
}

fn race(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let tunnel = &arena.tunnel;
    tunnel.wait_for_standby(&LTE)?;
    let watch = arena.watch()?;
    // On the path: the request and its two copies (RS-1) are kept back, the attacker's own copy goes first.
    lab.relay.capture(LTE.path, Direction::Up, Some(MessageType::ReattachRequest as u8), 3, true)?;
    tunnel.client.move_to(LTE.interface)?;
    super::wait_for("a request to copy", Duration::from_secs(2), || {
        Ok(lab.relay.counters()?[LTE.path].up.withheld > 0)
    })?;
    let copy = lab.relay.captured(LTE.path, Direction::Up)?.remove(0).payload.0;
    let _ = arena.wire.answers()?;
    let attacker = attacker()?;
    arena.wire.send_datagram(attacker, arena.endpoint(), &copy)?;

    // The key holder's next request has a fresh nonce, and wins it back.
    let home = |peer: Option<SocketAddr>| peer.is_some_and(|peer| peer != attacker);
    let mut stolen = false;
    super::wait_for("the binding to be won back", Duration::from_secs(8), || {
        let session = tunnel.session()?;
        stolen |= session.peer == Some(attacker);
        Ok(session.state == "ATTACHED" && session.epoch > watch.before().epoch && home(session.peer))
    })?;
    let after = tunnel.session()?;
    ensure!(after.locator == watch.before().locator, "another session: {after:?}");
    tunnel.probe_flows()?;
    // PV-2: three times the request that came from there, and only messages that cannot be read without the keys.
    let sent: usize =
        arena.wire.answers()?.iter().filter(|answer| answer.to == attacker).map(|answer| answer.payload.len()).sum();
    ensure!(sent <= 3 * copy.len(), "{sent} bytes went to an unvalidated binding for {} bytes", copy.len());
    let outcome = if sent > 0 || stolen { "bound for a moment" } else { "never bound" };
    lab.note(format!("the attacker was {outcome} and got {sent} bytes for {} of its own", copy.len()));
    if sent == 0 && !stolen {
        bail!("the copy was not taken first: nothing was raced");
    }
    Ok(())
}

fn held_back(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "security.reattach_proof_max_age_ms = 1000")?;
    let mut mallory = arena.join()?;
    let watch = arena.watch()?;
    let request = mallory.request(2, Cause::HardDead);
    let late = mallory.prove(&request);
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(250));
        mallory.validate()?;
    }
    let before = arena.mallory()?;
    let home = mallory.move_to(arena.socket()?)?;
    mallory.send(&late)?;
    match mallory.answer()? {
        Answer::Refused(reject) => ensure!(reject.reason == Reason::FreshnessInvalid, "refused as {}", reject.reason),
        other => bail!("a request of two seconds ago was answered by {other:?}"),
    }
    ensure!(arena.mallory()?.is_as(&before), "a request of two seconds ago changed the session");
    watch.counts(Reason::FreshnessInvalid.name(), 1)?;
    // The same thing said now is fine: it was the age.
    match mallory.reattach(2, Cause::HardDead)? {
        Answer::Bound(_) => {}
        other => bail!("a fresh request was answered by {other:?}"),
    }
    drop(home);
    watch.is_undisturbed()
}
