//! Paths that live and are bad: loss, delay and jitter, by chance or by somebody's will.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jumpgate_protocol::wire::MessageType;

use super::deaths::states;
use super::tunnel::{LTE_PATH, Tunnel, WIFI_PATH, quieten};
use super::{Test, wait_for};
use crate::programs::{Event, Heard, Status};
use crate::relay::Profile;
use crate::topology::{LTE, Lab, SERVER_V4, Uplink, WIFI};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "quality: loss of 6 % and jitter are no reason to move in the profile `default` (TC05, SM-14)",
        run: below_the_threshold,
    },
    Test {
        name: "quality: loss of 12 % and jitter move a session of the profile `mobile`, which minds (TC05, T03)",
        run: above_the_threshold,
    },
    Test {
        name: "quality: loss of 40 % on all paths brakes the session and never ends it (TC06, T09, INV-15)",
        run: bad_everywhere,
    },
    Test {
        name: "quality: loss of 30 % for three seconds is healed or left by one switch (TC07, T07)",
        run: bad_for_a_while,
    },
    Test {
        name: "quality: payments over one TCP connection survive a failover by loss and jitter, without another login (TC36)",
        run: payments,
    },
    Test {
        name: "quality: whoever kills each path in turn gets a few switches and then the brake, not the session (A19, T10, INV-15)",
        run: forced_switches,
    },
    Test {
        name: "quality: a path that loses data and lets heartbeats through does not hold the victim (A21)",
        run: bad_but_alive,
    },
];

/// What somebody hears of a session.
fn reasons(heard: &[Heard]) -> Vec<String> {
    let reason = |heard: &Heard| match &heard.event {
        Event::Transition { transition, reason, .. } => Some(format!("{transition} {reason}")),
        _ => None,
    };
    heard.iter().filter_map(reason).collect()
}

/// A session of that profile with traffic on it, and its events.
fn tunnel<'lab>(lab: &'lab Lab, profile: &'static str, policy: &str) -> Result<Tunnel<'lab>> {
    let tunnel = Tunnel::with_policy(lab, profile, policy)?;
    tunnel.wait_for_standby(&LTE)?;
    Ok(tunnel)
}

fn below_the_threshold(lab: &Lab) -> Result<()> {
    let tunnel = tunnel(lab, "default", "")?;
    let watch = super::arena::Watch::begin(&tunnel)?;
    lab.relay.set(WIFI.path, Profile { loss: 0.06, jitter_ms: 4.0, ..WIFI_PATH })?;
    thread::sleep(Duration::from_secs(5));
    lab.relay.set(WIFI.path, WIFI_PATH)?;
    ensure!(watch.seen().lost > 0, "nothing was lost");
    watch.is_undisturbed()
}

fn above_the_threshold(lab: &Lab) -> Result<()> {
    let tunnel = tunnel(lab, "mobile", "")?;
    let events = tunnel.client.events()?;
    let bad = Profile { loss: 0.12, jitter_ms: 4.0, ..WIFI_PATH };
    let moved = tunnel.jump(&LTE, || lab.relay.set(WIFI.path, bad))?;
    ensure!(moved.after.switches == moved.before.switches + 1, "{} switches", moved.after.switches);
    let (states, reasons) = (states(&events.from(0)), reasons(&events.from(0)));
    ensure!(states == ["VOLATILE", "RECOVERING", "ATTACHED"], "the states were {states:?}: {reasons:?}");
    ensure!(reasons[0] == "T03 LOSS_THRESHOLD_EXCEEDED", "it moved because of {:?}", reasons[0]);
    Ok(())
}

fn bad_everywhere(lab: &Lab) -> Result<()> {
    let tunnel = tunnel(lab, "mobile", "")?;
    let before = tunnel.session()?;
    let probe = tunnel.probe(false)?;
    let events = tunnel.client.events()?;
    for uplink in Uplink::ALL {
        lab.relay.set(uplink.path, Profile { loss: 0.4, jitter_ms: 3.0, ..WIFI_PATH })?;
    }
    tunnel.client.wait_for("the brake", Duration::from_secs(20), |status| status.state == "DEGRADED")?;
    ensure!(states(&events.from(0)).contains(&"VOLATILE".to_owned()), "{:?}", reasons(&events.from(0)));
    quieten(lab)?;
    tunnel.client.wait_for("calm", Duration::from_secs(20), |status| status.state == "ATTACHED")?;
    wait_for("the traffic to flow", Duration::from_secs(5), || Ok(probe.flows(10)))?;
    let after = tunnel.session()?;
    ensure!(after.locator == before.locator, "another session");
    // PP40 of the profile `mobile`.
    ensure!(after.switches - before.switches <= 12, "{} switches", after.switches - before.switches);
    ensure!(tunnel.client.status()?.sessions == 1, "there was another handshake");
    Ok(())
}

fn bad_for_a_while(lab: &Lab) -> Result<()> {
    let tunnel = tunnel(lab, "default", "")?;
    let before = tunnel.session()?;
    let probe = tunnel.probe(false)?;
    let events = tunnel.client.events()?;
    lab.relay.set(WIFI.path, Profile { loss: 0.3, ..WIFI_PATH })?;
    thread::sleep(Duration::from_secs(3));
    lab.relay.set(WIFI.path, WIFI_PATH)?;
    tunnel.client.wait_for("calm", Duration::from_secs(10), |status| status.state == "ATTACHED")?;
    wait_for("the traffic to flow", Duration::from_secs(5), || Ok(probe.flows(10)))?;
    let after = tunnel.session()?;
    let switches = after.switches - before.switches;
    let reasons = reasons(&events.from(0));
    ensure!(after.locator == before.locator && switches <= 1, "{switches} switches: {reasons:?}");
    let healed = reasons.iter().any(|reason| reason.starts_with("T07"));
    ensure!(reasons.is_empty() || healed || switches == 1, "neither healed nor moved: {reasons:?}");
    lab.note(format!("{switches} switches; {}", reasons.join(", ")));
    Ok(())
}

/// A server that takes payments from whoever has logged in on the same connection.
struct Bank {
    address: SocketAddr,
    logins: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Bank {
    fn open(lab: &Lab) -> Result<Self> {
        let listener = lab.server.enter(|| TcpListener::bind((SERVER_V4, 0)))??;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let (logins, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, stopped) = (logins.clone(), stop.clone());
        thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let seen = seen.clone();
                        // The connection ends with its client.
                        thread::spawn(move || Self::serve(&stream, &seen).ok());
                    }
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Ok(Self { address, logins, stop })
    }

    fn serve(stream: &TcpStream, logins: &AtomicUsize) -> Result<()> {
        stream.set_nonblocking(false)?;
        let mut known = false;
        for line in BufReader::new(stream).lines() {
            let line = line?;
            let answer = match line.split_once(' ') {
                Some(("login", _)) => {
                    known = true;
                    logins.fetch_add(1, Ordering::Relaxed);
                    "welcome\n".to_owned()
                }
                Some(("pay", number)) if known => format!("paid {number}\n"),
                _ => "who are you?\n".to_owned(),
            };
            (&*stream).write_all(answer.as_bytes())?;
        }
        Ok(())
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One line to the bank and its answer; an error if the connection was reset or stood still for too long.
fn ask(stream: &TcpStream, reader: &mut impl BufRead, question: &str) -> Result<String> {
    let mut writer = stream;
    writer.write_all(format!("{question}\n").as_bytes()).with_context(|| format!("sending {question:?}"))?;
    let mut answer = String::new();
    reader.read_line(&mut answer).with_context(|| format!("waiting for the answer to {question:?}"))?;
    Ok(answer.trim_end().to_owned())
}

fn payments(lab: &Lab) -> Result<()> {
    let tunnel = tunnel(lab, "mobile", "")?;
    let before = tunnel.session()?;
    let events = tunnel.client.events()?;
    // Other traffic beside it, as on every machine.
    let probe = tunnel.probe(false)?;
    let bank = Bank::open(lab)?;
    let stream = lab.client.enter(|| TcpStream::connect_timeout(&bank.address, Duration::from_secs(5)))??;
    stream.set_nodelay(true)?;
    // Far beyond a recovery window: a connection that stands still for so long is lost to its user.
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(&stream);
    ensure!(ask(&stream, &mut reader, "login alice")? == "welcome", "the bank does not know Alice");
    let (mut number, mut slowest) = (0, Duration::ZERO);
    let mut pay = || -> Result<()> {
        number += 1;
        let asked = Instant::now();
        let answer = ask(&stream, &mut reader, &format!("pay {number}"))?;
        ensure!(answer == format!("paid {number}"), "payment {number} was answered by {answer:?}");
        slowest = slowest.max(asked.elapsed());
        Ok(())
    };
    (0..20).try_for_each(|_| pay())?;
    lab.relay.set(WIFI.path, Profile { loss: 0.3, jitter_ms: 40.0, delay_ms: 60.0, ..WIFI_PATH })?;
    let moved =
        |status: &Status| status.state == "ATTACHED" && status.active_interface.as_deref() == Some(LTE.interface);
    let started = Instant::now();
    while !moved(&tunnel.client.status()?) {
        ensure!(started.elapsed() < Duration::from_secs(15), "it never moved: {:?}", reasons(&events.from(0)));
        pay()?;
    }
    (0..50).try_for_each(|_| pay())?;
    ensure!(bank.logins.load(Ordering::Relaxed) == 1, "{} logins", bank.logins.load(Ordering::Relaxed));
    let after = tunnel.session()?;
    ensure!(after.locator == before.locator && after.switches == before.switches + 1, "{before:?} became {after:?}");
    let states = states(&events.from(0));
    ensure!(states == ["VOLATILE", "RECOVERING", "ATTACHED"], "the states were {states:?}");
    ensure!(probe.flows(10), "the other traffic stands still");
    lab.note(format!("{number} payments over one connection, the slowest in {slowest:?}"));
    Ok(())
}

fn forced_switches(lab: &Lab) -> Result<()> {
    let tunnel = tunnel(lab, "mobile", "switching.max_switches_per_min = 3")?;
    let before = tunnel.session()?;
    let hole = |path: Profile| Profile { blackhole: true, ..path };
    // Whichever path it is on is the one that dies, and the other one is well again.
    let attack = |status: &Status| -> Result<()> {
        let on_wifi = status.active_interface.as_deref() == Some(WIFI.interface);
        lab.relay.set(WIFI.path, if on_wifi { hole(WIFI_PATH) } else { WIFI_PATH })?;
        lab.relay.set(LTE.path, if on_wifi { LTE_PATH } else { hole(LTE_PATH) })
    };
    let (started, mut kills, mut status) = (Instant::now(), 0, tunnel.client.status()?);
    while status.state != "DEGRADED" {
        ensure!(started.elapsed() < Duration::from_secs(30), "the brake never came: {status:?}");
        let on = status.active_interface.clone();
        attack(&status)?;
        kills += 1;
        let reacted = |now: &Status| now.state == "DEGRADED" || (now.state == "ATTACHED" && now.active_interface != on);
        status = tunnel.client.wait_for("what comes of it", Duration::from_secs(10), reacted)?;
    }
    quieten(lab)?;
    let after = tunnel.session()?;
    ensure!(after.locator == before.locator, "another session");
    ensure!(after.switches - before.switches == 3, "{} switches for {kills} kills", after.switches - before.switches);
    ensure!(tunnel.client.status()?.sessions == 1, "there was another handshake");
    Ok(())
}

fn bad_but_alive(lab: &Lab) -> Result<()> {
    // Below the threshold of `default` nothing moves by itself, and a word of the user's does.
    let held = tunnel(lab, "default", "")?;
    let lossy = |loss: f64| Profile { loss, loss_only: Some(MessageType::Data as u8), ..WIFI_PATH };
    let watch = super::arena::Watch::begin(&held)?;
    lab.relay.set(WIFI.path, lossy(0.10))?;
    thread::sleep(Duration::from_secs(3));
    ensure!(held.session()?.is_as(watch.before()), "a tenth of the data moved it: {:?}", held.session()?);
    held.jump(&LTE, || held.client.move_to(LTE.interface))?;
    drop(watch);
    drop(held);
    // Above the threshold it is left, though every heartbeat comes through.
    let victim = tunnel(lab, "mobile", "")?;
    let events = victim.client.events()?;
    victim.jump(&LTE, || lab.relay.set(WIFI.path, lossy(0.4)))?;
    let reasons = reasons(&events.from(0));
    ensure!(reasons[0] == "T03 LOSS_THRESHOLD_EXCEEDED", "it moved because of {:?}", reasons[0]);
    Ok(())
}
