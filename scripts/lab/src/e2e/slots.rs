//! Slots that move between the workers of a gateway while their sessions carry traffic (SL-4).

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jumpgate_protocol::ident::{Locator, SLOT_COUNT};
use jumpgate_protocol::reason::Reason;

use super::Test;
use super::trace;
use super::tunnel::Tunnel;
use crate::http::{Content, ContentServer, Download};
use crate::programs::Session;
use crate::topology::{LTE, Lab, SERVER_V4, WIFI};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "slots: a session goes to and fro between two workers under a download and stays what it is (SL-4, K08, INV-05, INV-36)",
        run: to_and_fro,
    },
    Test {
        name: "slots: a worker is drained, a jump arrives on the other queue, and all comes back (SL-4, TC42)",
        run: drained,
    },
    Test { name: "slots: an order that makes no sense is refused in words and moves nothing (SL-4)", run: refused },
];

/// How often the session moves under the download.
const MOVES: usize = 12;
/// Time between two moves.
const PAUSE: Duration = Duration::from_millis(150);
/// What is downloaded meanwhile: for longer than the moves take.
const CONTENT: Content = Content { bytes: 9_000_000, seed: 4, rate: 3_000_000 };

/// What a move must leave as it is: identity, state, version, epoch, binding; all but the worker.
fn standing(session: &Session) -> Session {
    Session { worker: 0, queue: 0, rx_packets: 0, ..session.clone() }
}

fn to_and_fro(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    let server = ContentServer::start(&lab.server, SocketAddr::new(IpAddr::V4(SERVER_V4), 0), CONTENT)?;
    let probe = tunnel.probe(false)?;
    let before = tunnel.session()?;
    let slot = Locator(u64::from_str_radix(&before.locator, 16)?).slot().number().to_string();
    let counted = tunnel.gateway.counters()?;
    let grown =
        |name: &str| -> Result<u64> { Ok(tunnel.gateway.counter(name)? - counted.get(name).copied().unwrap_or(0)) };
    let started = Instant::now();
    let download = Download::start(&lab.client, server.address())?;
    let mut worker = before.worker;
    let mut longest = Duration::ZERO;
    for _ in 0..MOVES {
        thread::sleep(PAUSE);
        worker = 1 - worker;
        let ordered = Instant::now();
        let said = tunnel.gateway.slots(&["move", &slot, "--to", &worker.to_string()])?;
        longest = longest.max(ordered.elapsed());
        ensure!(said.starts_with("1 slot(s) with 1 session(s) moved"), "the gateway said {said:?}");
        let now = tunnel.session()?;
        ensure!(now.worker == worker, "it is not at worker {worker}: {now:?}");
        ensure!(standing(&now) == standing(&before), "the session changed: {before:?} became {now:?}");
    }
    ensure!(!download.is_finished(), "the download was over before the moves were");
    let downloaded = download.finish()?;
    let end = Instant::now();
    probe.settle();
    let seen = probe.window(started, end);
    ensure!(downloaded.checksum == CONTENT.checksum(), "the download is damaged: {downloaded:?}");
    ensure!(downloaded.connections == 1, "the stream was opened anew: {downloaded:?}");
    let misdirected = grown(Reason::NotAuthoritativeOwner.name())?;
    ensure!(seen.lost as u64 <= misdirected, "lost {} probes, counted {misdirected} packets", seen.lost);
    ensure!(grown(Reason::OwnershipTransferred.name())? == MOVES as u64, "not every move was counted");
    for never in [Reason::InvariantViolation, Reason::Fenced, Reason::SessionNotFound, Reason::DataReplay] {
        ensure!(grown(never.name())? == 0, "{} was counted", never.name());
    }
    let page = tunnel.gateway.metrics()?;
    let moved = page.sum("jumpgate_owner_changes_total", &["outcome=\"moved\""]);
    ensure!(moved == MOVES as f64, "{moved} changes of owner on the page of metrics");
    ensure!(page.sum("jumpgate_owner_store_seconds_count", &[]) == moved, "not every move was timed");
    ensure!(page.sum("jumpgate_safety_violations_total", &[]) == 0.0, "an invariant broke");
    lab.note(format!(
        "{MOVES} moves: {misdirected} packets dropped and counted, {} of {} probes lost, longest outage {:?}, \
         an order took up to {longest:?}",
        seen.lost, seen.sent, seen.outage
    ));
    trace::tells(lab, [Reason::OwnershipTransferred.name().to_owned()])
}

fn drained(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    let before = tunnel.session()?;
    let (from, to) = (before.worker, 1 - before.worker);
    tunnel.gateway.slots(&["drain", &from.to_string()])?;
    ensure!(tunnel.gateway.slot_table()? == owning(to, SLOT_COUNT), "{:?}", tunnel.gateway.slot_table()?);
    let there = tunnel.jump(&LTE, || tunnel.client.move_to(LTE.interface))?;
    ensure!((there.before.worker, there.after.worker) == (to, to), "{:?}", there.after);
    ensure!((there.before.queue, there.after.queue) == (0, 1), "{:?}", there.after);
    tunnel.gateway.slots(&["balance"])?;
    ensure!(tunnel.gateway.slot_table()? == owning(0, SLOT_COUNT / 2), "{:?}", tunnel.gateway.slot_table()?);
    let back = tunnel.jump(&WIFI, || tunnel.client.move_to(WIFI.interface))?;
    ensure!(back.after.worker == from && back.after.locator == before.locator, "{:?}", back.after);
    ensure!(back.seen.lost == 0 && there.seen.lost == 0, "{:?}, {:?}", there.seen, back.seen);
    Ok(())
}

/// A table of two workers of which one owns that many slots.
fn owning(worker: u16, slots: usize) -> Vec<usize> {
    let mut table = vec![SLOT_COUNT - slots; 2];
    table[usize::from(worker)] = slots;
    table
}

fn refused(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    let before = tunnel.session()?;
    for (order, words) in [
        (&["move", "7", "--to", "2"][..], "there is no worker 2: they are 0 to 1"),
        (&["drain", "9"], "there is no worker 9"),
        (&["move", "9-3", "--to", "1"], "9-3 is no range of slots"),
        (&["move", "0-4096", "--to", "1"], "0-4096 is no range of slots"),
        (&["move", "1a3", "--to", "1"], "not a slot or a range of slots"),
    ] {
        let mut command = Command::new(&tunnel.programs.gateway);
        command.arg("slots").args(order).arg("--socket").arg(tunnel.gateway.socket());
        let output = lab.run.output(&mut command, "", Duration::from_secs(5))?;
        ensure!(output.status.code() == Some(2), "{order:?} ended with {:?}", output.status);
        ensure!(output.stderr.contains(words), "{order:?} said {}", output.stderr);
    }
    let said = tunnel.gateway.slots(&["balance"])?;
    ensure!(said.starts_with("nothing to move"), "{said}");
    let after = tunnel.session().context("the session is gone")?;
    ensure!(after.is_as(&before), "{before:?} became {after:?}");
    ensure!(tunnel.gateway.counter(Reason::OwnershipTransferred.name())? == 0, "something moved");
    tunnel.probe_flows()
}
