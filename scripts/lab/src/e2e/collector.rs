//! A collector of records on another host, and slow: whoever ships the audit file only reads it, and nobody waits.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, SockAddr, Socket, Type};

use super::tunnel::{Jumped, Tunnel};
use super::{Test, trace, wait_for};
use crate::run::{Process, lock};
use crate::topology::{LTE, Lab, SERVER_V4, WIFI};

pub(super) const TESTS: &[Test] = &[Test {
    name: "collector: records shipped to a slow host delay no jump and no packet, and all arrive (O04, INV-23)",
    run: slow,
}];

/// What the collector takes at a time, and the time between: 80 bytes a second. One record has several hundred.
const SIP: usize = 8;
const PAUSE: Duration = Duration::from_millis(100);
/// Buffers of the connection as small as the kernel makes them, so that the shipper feels at once how slow it is.
const BUFFER: usize = 1;
/// What the kernel and the shipper hold at most between file and collector, whatever they were asked for.
const UNDER_WAY: usize = 16 * 1024;
/// Turns of four jumps: so many that what they record is more than can be under way.
const TURNS: usize = 2;
/// What a jump after a link that went down may cost (as without a collector).
const HARD: Duration = Duration::from_millis(500);
/// By how much the slowest jump may be slower than the slowest one before: what a busy machine does by itself.
const NOISE: Duration = Duration::from_millis(150);
/// What the gateway's memory may grow by from one round to the next, in bytes: a record that waited would be there.
const FLAT: u64 = 1 << 20;
/// How long the sink may take to be done with what was recorded.
const WRITTEN: Duration = Duration::from_secs(3);
/// How long the rest may take once the collector is quick.
const SHIPPED: Duration = Duration::from_secs(20);

/// A host that takes what is sent to it, slowly until it is told to hurry.
struct Collector {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    hurry: AtomicBool,
    stop: AtomicBool,
    taken: Mutex<Vec<u8>>,
}

impl Collector {
    /// Listens in the namespace of the server, for one sender.
    fn open(lab: &Lab) -> Result<Self> {
        let listener = lab.server.enter(|| -> Result<Socket> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            // Before it is bound: connections get theirs from here.
            socket.set_recv_buffer_size(BUFFER)?;
            socket.bind(&SockAddr::from(SocketAddr::new(IpAddr::V4(SERVER_V4), 0)))?;
            socket.listen(1)?;
            socket.set_read_timeout(Some(PAUSE))?;
            Ok(socket)
        })??;
        let address = listener.local_addr()?.as_socket().context("an address of another kind")?;
        let shared = Arc::new(Shared::default());
        let for_thread = shared.clone();
        thread::spawn(move || for_thread.collect(&listener));
        Ok(Self { address, shared })
    }

    fn taken(&self) -> usize {
        lock(&self.shared.taken).len()
    }

    fn hurry(&self) {
        self.shared.hurry.store(true, Ordering::Relaxed);
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn collect(&self, listener: &Socket) {
        while !self.stop.load(Ordering::Relaxed) {
            if let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.set_read_timeout(Some(PAUSE));
                self.take_from(&mut stream);
            }
        }
    }

    fn take_from(&self, stream: &mut Socket) {
        let mut bytes = [0; 4096];
        while !self.stop.load(Ordering::Relaxed) {
            let slowly = !self.hurry.load(Ordering::Relaxed);
            let most = if slowly { SIP } else { bytes.len() };
            match stream.read(&mut bytes[..most]) {
                Ok(0) => return,
                Ok(count) => lock(&self.taken).extend_from_slice(&bytes[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return,
            }
            if slowly {
                thread::sleep(PAUSE);
            }
        }
    }
}

/// Follows a file on the gateway's host as shippers of logs do, and waits whenever the collector makes it wait.
fn ship(lab: &Lab, file: &Path, to: SocketAddr) -> Result<Process> {
    let stream = lab.gateway.enter(|| -> Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_send_buffer_size(BUFFER)?;
        socket.connect(&SockAddr::from(to))?;
        Ok(socket.into())
    })??;
    let mut command = lab.gateway.command("tail");
    command.args(["--follow=name", "--retry", "--lines=+1"]).arg(file);
    command.stdin(Stdio::null()).stdout(Stdio::from(OwnedFd::from(stream))).stderr(Stdio::null());
    lab.run.spawn("the shipper", &mut command)
}

/// What a round of jumps cost.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    /// Longest outage by a planned move, and by a link that went down.
    outage: [Duration; 2],
    /// Lost by planned moves.
    lost: usize,
    /// From a request to be moved until its answer, by the client's clock: on average.
    answer: Duration,
}

/// There and back as planned, and away from a link that goes down, several times.
fn round(tunnel: &Tunnel<'_>) -> Result<Round> {
    let lab = tunnel.lab;
    let answers = || -> Result<(f64, f64)> {
        let page = tunnel.client.metrics()?;
        let part = |name: &str| page.sum(&format!("jumpgate_client_reattach_rtt_seconds_{name}"), &[]);
        Ok((part("sum"), part("count")))
    };
    let before = answers()?;
    let mut worst = Round::default();
    for _ in 0..TURNS {
        for to in [&LTE, &WIFI] {
            let Jumped { seen, .. } = tunnel.jump(to, || tunnel.client.move_to(to.interface))?;
            worst.outage[0] = worst.outage[0].max(seen.outage);
            worst.lost += seen.lost;
        }
        let Jumped { seen, .. } = tunnel.jump(&LTE, || lab.uplink_down(&WIFI))?;
        worst.outage[1] = worst.outage[1].max(seen.outage);
        lab.uplink_up(&WIFI)?;
        let Jumped { seen, .. } = tunnel.jump(&WIFI, || tunnel.client.move_to(WIFI.interface))?;
        worst.outage[0] = worst.outage[0].max(seen.outage);
        worst.lost += seen.lost;
    }
    let after = answers()?;
    ensure!(after.1 > before.1, "no request was answered before it was repeated");
    worst.answer = Duration::from_secs_f64((after.0 - before.0) / (after.1 - before.1));
    Ok(worst)
}

/// Checks that everything recorded is in the file, and nothing waits or was lost.
fn is_written(tunnel: &Tunnel<'_>) -> Result<()> {
    let lag = || Ok::<_, anyhow::Error>(tunnel.gateway.metrics()?.sum("jumpgate_audit_sink_lag_records", &[]));
    wait_for("the sink to have written all", WRITTEN, || Ok(lag()? == 0.0))?;
    let page = tunnel.gateway.metrics()?;
    for name in ["jumpgate_audit_gaps_total", "jumpgate_obs_ring_lost_total", "jumpgate_audit_sink_errors_total"] {
        ensure!(page.sum(name, &[]) == 0.0, "{name} is {}", page.sum(name, &[]));
    }
    Ok(())
}

fn slow(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::with_policy(lab, "mobile", "switching.max_switches_per_min = 60")?;
    let without = round(&tunnel)?;
    is_written(&tunnel)?;
    let memory = tunnel.gateway.memory()?;

    let file = only_file(lab)?;
    let collector = Collector::open(lab)?;
    let shipper = ship(lab, &file, collector.address)?;
    wait_for("the first bytes to arrive", WRITTEN, || Ok(collector.taken() > 0))?;
    let started = Instant::now();
    let with = round(&tunnel)?;
    let (taken, written) = (collector.taken(), fs::metadata(&file)?.len() as usize);
    ensure!(shipper.exited()?.is_none(), "the shipper ended");
    ensure!(written > taken + UNDER_WAY, "the collector was quick enough: {taken} of {written} bytes");
    is_written(&tunnel)?;
    let grown = tunnel.gateway.memory()?.saturating_sub(memory);
    ensure!(grown <= FLAT, "the gateway's memory grew by {grown} bytes");

    ensure!(with.lost == 0, "planned moves lost {} packets; without a collector {}", with.lost, without.lost);
    ensure!(with.outage[1] <= HARD, "a link down cost {:?}", with.outage[1]);
    for (what, with, without) in [
        ("outage of a planned move", with.outage[0], without.outage[0]),
        ("outage by a link that went down", with.outage[1], without.outage[1]),
        ("time to an answer", with.answer, without.answer),
    ] {
        ensure!(with <= without + NOISE, "{what}: {with:?} with a slow collector, {without:?} without");
    }
    lab.note(format!(
        "{taken} of {written} bytes collected after {:.0} s; an answer took {:?}, and {:?} without",
        started.elapsed().as_secs_f64(),
        with.answer,
        without.answer
    ));

    // It ends while the collector is far behind, and whoever is patient has all of it in the end.
    let Tunnel { client, gateway, programs, .. } = tunnel;
    client.stop()?;
    let stopping = Instant::now();
    gateway.stop()?;
    ensure!(stopping.elapsed() < WRITTEN, "the end of the gateway took {:?}", stopping.elapsed());
    let whole = fs::read(&file)?;
    ensure!(collector.taken() < whole.len(), "the collector has all of it already");
    collector.hurry();
    wait_for("the rest to arrive", SHIPPED, || Ok(collector.taken() >= whole.len()))?;
    ensure!(*lock(&collector.shared.taken) == whole, "what arrived is not what was written");
    let copy = lab.run.directory().join("collected.jsonl");
    fs::write(&copy, &whole)?;
    let mut verify = Command::new(&programs.gateway);
    verify.args(["audit", "verify", "--closed", "--slack", trace::SLACK]).arg(&copy);
    lab.run.check(&mut verify, "").context("the trace that arrived").map(drop)
}

/// The trace of the gateway, which is one file.
fn only_file(lab: &Lab) -> Result<PathBuf> {
    let files = trace::files(&trace::directory(lab));
    let [file] = &files[..] else { anyhow::bail!("the trace has {} files", files.len()) };
    Ok(file.clone())
}
