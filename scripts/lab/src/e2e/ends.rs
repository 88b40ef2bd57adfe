//! How sessions end, and that nothing of them lives on: the operator's word, limits, and what is said after the end.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::wire::{Cause, MessageType};
use nix::sys::signal::Signal;

use super::arena::{Arena, MALLORY};
use super::bindings::{heard, inner, listener};
use super::tunnel::{Ends, Tunnel};
use super::{Test, wait_for};
use crate::attacker::{Answer, Member, request};
use crate::programs::Event;
use crate::relay::{Direction, Profile};
use crate::topology::{LTE, Lab, Uplink, WIFI};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "end: the operator ends a session in whatever state it is, and the client learns it (TC30, T19)",
        run: operator,
    },
    Test {
        name: "end: in the middle of a recovery the operator ends the session, and so does its client (TC30, T19, T24)",
        run: recovering,
    },
    Test {
        name: "end: nothing that is said after the end revives a session, and the next one is another (TC31, INV-10, INV-03)",
        run: afterwards,
    },
    Test {
        name: "end: without any path the session ends at the transport limit, not before (TC02, T18, INV-17)",
        run: no_path,
    },
    Test {
        name: "end: a client that slept beyond the transport limit says so and handshakes anew (TC41, INV-04)",
        run: long_sleep,
    },
    Test {
        name: "session: three echoes, another port, a reattach, three echoes: one session and one switch (TC35)",
        run: another_port,
    },
];

/// A policy whose transport limit is the shortest there is, so that a test can wait for it.
const SHORT_LIMIT: &str = "session.transport_lost_ttl_ms = 3000";
/// The same as a time.
const LIMIT: Duration = Duration::from_millis(3_000);
/// What may pass between a step of the machine and its line in `jump events`, which has the time of the line.
const REPORTED: Duration = Duration::from_millis(100);
/// What a busy machine may add to a timer: the rule is one tick of 10 ms.
const LATE: Duration = Duration::from_millis(250);
/// Requests that are kept back: more than a client sends in a recovery.
const WITHHELD: usize = 200;
/// Both uplinks swallow everything.
const HOLE: Profile = Profile { blackhole: true, ..super::tunnel::WIFI_PATH };

/// Makes all paths swallow everything, or quiet again.
fn black_out(lab: &Lab, dark: bool) -> Result<()> {
    if !dark {
        return super::tunnel::quieten(lab);
    }
    Uplink::ALL.iter().try_for_each(|uplink| lab.relay.set(uplink.path, HOLE))
}

fn operator(lab: &Lab) -> Result<()> {
    super::tunnel::quieten(lab)?;
    let mut ends = Ends::new(lab, false)?;
    // With one uplink there is no candidate, and a session in trouble stays in it for a while.
    ends.client.interfaces.truncate(1);
    ends.gateway.policy = "volatility.volatile_to_degraded_ms = 2000".to_owned();
    let tunnel = ends.open(lab)?;
    let mut seen = Vec::new();
    for state in ["ATTACHED", "VOLATILE", "DEGRADED"] {
        tunnel.client.wait_until_connected()?;
        wait_for("the gateway to have the session", Duration::from_secs(3), || {
            Ok(tunnel.session().is_ok_and(|session| session.state == "ATTACHED"))
        })?;
        let events = tunnel.client.events()?;
        black_out(lab, state != "ATTACHED")?;
        wait_for(&format!("the state {state}"), Duration::from_secs(8), || Ok(tunnel.session()?.state == state))?;
        let locator = tunnel.session()?.locator;
        ensure!(!seen.contains(&locator), "a session id was given twice");
        tunnel.gateway.terminate(&locator)?;
        wait_for("the record to go", Duration::from_secs(2), || {
            Ok(tunnel.gateway.sessions()?.iter().all(|session| session.locator != locator))
        })?;
        black_out(lab, false)?;
        let told = || {
            events.from(0).into_iter().find_map(|heard| match heard.event {
                Event::Terminated { reason, .. } => Some(reason),
                _ => None,
            })
        };
        wait_for("the client to learn it", Duration::from_secs(10), || Ok(told().is_some()))?;
        ensure!(told().as_deref() == Some("PEER_TERMINATED"), "in {state} the client was told {:?}", told());
        seen.push(locator);
    }
    tunnel.client.wait_until_connected()?;
    ensure!(!seen.contains(&tunnel.session()?.locator), "a session was revived");
    Ok(())
}

/// Both ends are in RECOVERING: the operator wants the session to move, and what its client asks for never arrives.
fn recovering(lab: &Lab) -> Result<()> {
    for by_operator in [true, false] {
        super::tunnel::quieten(lab)?;
        let Tunnel { client, gateway, .. } = {
            let tunnel = Tunnel::with_policy(lab, "default", "")?;
            tunnel.wait_for_standby(&LTE)?;
            tunnel
        };
        let locator = gateway.session()?.locator;
        let events = client.events()?;
        for uplink in Uplink::ALL {
            lab.relay.capture(uplink.path, Direction::Up, Some(MessageType::ReattachRequest as u8), WITHHELD, true)?;
        }
        gateway.force_move(&locator)?;
        wait_for("the gateway to wait for a request", Duration::from_secs(3), || {
            Ok(gateway.session()?.state == "RECOVERING")
        })?;
        client.wait_for("the client to ask", Duration::from_secs(3), |status| status.state == "RECOVERING")?;
        let asked = |path: &str| Ok::<_, anyhow::Error>(lab.relay.counters()?[path].up.withheld > 0);
        wait_for("a request that never arrives", Duration::from_secs(3), || Ok(asked(LTE.path)? || asked(WIFI.path)?))?;
        let reason = if by_operator {
            gateway.terminate(&locator)?;
            let told = || {
                events.from(0).into_iter().any(
                    |heard| matches!(&heard.event, Event::Terminated { reason, .. } if reason == "PEER_TERMINATED"),
                )
            };
            wait_for("the client to learn it", Duration::from_secs(3), || Ok(told()))?;
            "OPERATOR_TERMINATED"
        } else {
            client.stop()?;
            "PEER_TERMINATED"
        };
        let labels = ["from=\"RECOVERING\"", "to=\"TERMINATED\"", &format!("reason=\"{reason}\"")];
        wait_for("the session to end as it stood", Duration::from_secs(3), || {
            Ok(gateway.metrics()?.sum("jumpgate_state_transitions_total", &labels) == 1.0)
        })?;
        ensure!(gateway.sessions()?.iter().all(|session| session.locator != locator), "its record is left");
        lab.relay.reset()?;
    }
    Ok(())
}

fn afterwards(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let listener = listener(lab)?;
    let mut mallory = arena.join()?;
    let watch = arena.watch()?;
    let old = mallory.locator();
    let greeting = mallory.data(&inner(&mallory, b"alive")?);
    mallory.send(&greeting)?;
    ensure!(heard(&listener).as_deref() == Some("alive"), "the session does not work");
    arena.tunnel.gateway.terminate(&old.to_string())?;
    match mallory.answer()? {
        Answer::Ended(end) => ensure!(end.reason == Reason::OperatorTerminated, "ended as {}", end.reason),
        other => bail!("the end was told by {other:?}"),
    }
    // All under keys that were right a moment ago, from where the session was bound and from elsewhere.
    let refused = watch.grown(Reason::SessionNotFound.name())?;
    let said = [
        mallory.data(&inner(&mallory, b"dead")?),
        mallory.heartbeat(),
        mallory.prove(&mallory.request(1, Cause::HardDead)),
    ];
    for packet in &said {
        mallory.send(packet)?;
        arena.wire.send_datagram(super::arena::forged_source(31), arena.endpoint(), packet)?;
    }
    watch.counts(Reason::SessionNotFound.name(), refused + 2 * said.len() as u64)?;
    // RF-3: the proof that it is gone, told to whoever asks by name.
    let mut reset = false;
    while let Some(answer) = mallory.answer_within(Duration::from_millis(300))? {
        match answer {
            Answer::Reset { genuine } => reset |= genuine,
            // Further copies of the farewell (TM-1).
            Answer::Ended(_) => {}
            other => bail!("a dead session was answered by {other:?}"),
        }
    }
    ensure!(reset, "no SESSION_RESET with the session's own token came");
    ensure!(heard(&listener).is_none(), "data of a dead session was delivered");
    ensure!(arena.tunnel.gateway.sessions()?.iter().all(|row| row.client != MALLORY), "it was revived");
    let next = Member::join(arena.socket()?, &arena.target(), arena.key(), &request(2))?;
    ensure!(next.locator() != old, "the next session has the name of the last one");
    ensure!(next.reply().identity != mallory.reply().identity, "the next session is the last one");
    watch.is_undisturbed()
}

fn no_path(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::with_policy(lab, "fast", SHORT_LIMIT)?;
    let before = tunnel.session()?;
    let events = tunnel.client.events()?;
    // The listener has to be there before the event is.
    thread::sleep(Duration::from_millis(200));
    black_out(lab, true)?;
    let at = |wanted: fn(&Event) -> bool| {
        events.from(0).into_iter().find(|heard| wanted(&heard.event)).map(|heard| heard.boottime)
    };
    let dead = |event: &Event| matches!(event, Event::Transition { reason, .. } if reason == "TRANSPORT_DEAD");
    let ended = |event: &Event| matches!(event, Event::Transition { to, .. } if to == "TERMINATED");
    wait_for("the client to give up", Duration::from_secs(8), || Ok(at(ended).is_some()))?;
    let states: Vec<String> = events
        .from(0)
        .into_iter()
        .filter_map(|heard| match heard.event {
            Event::Transition { to, .. } => Some(to),
            _ => None,
        })
        .collect();
    ensure!(states.first().is_some_and(|state| state == "VOLATILE"), "the states were {states:?}");
    ensure!(states.iter().any(|state| state == "DEGRADED"), "the states were {states:?}");
    let (dead, ended) = (at(dead).context("no TRANSPORT_DEAD")?, at(ended).context("no end")?);
    let lived = ended.saturating_sub(dead);
    ensure!((LIMIT - REPORTED..LIMIT + LATE).contains(&lived), "without a transport it lived for {lived:?}");
    wait_for("the gateway to give up", LATE, || {
        Ok(tunnel.gateway.sessions()?.iter().all(|row| row.locator != before.locator))
    })?;
    let told = events.from(0).into_iter().find_map(|heard| match heard.event {
        Event::Terminated { reason, .. } => Some(reason),
        _ => None,
    });
    ensure!(told.as_deref() == Some("TTL_TRANSPORT_LOSS_EXPIRED"), "it ended as {told:?}");
    Ok(())
}

fn long_sleep(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::with_policy(lab, "fast", SHORT_LIMIT)?;
    let before = tunnel.session()?;
    let events = tunnel.client.events()?;
    thread::sleep(Duration::from_millis(200));
    tunnel.client.process().signal(Signal::SIGSTOP);
    // What ends it: silence until TRANSPORT_DEAD (600 ms in the profile `fast`), then the limit.
    thread::sleep(Duration::from_millis(600) + LIMIT + Duration::from_millis(700));
    let left = tunnel.gateway.sessions()?;
    tunnel.client.process().signal(Signal::SIGCONT);
    ensure!(left.is_empty(), "the gateway still has {left:?}");
    let anew = |status: &crate::programs::Status| {
        status.phase == "connected" && status.session.as_ref().is_some_and(|session| *session != before.locator)
    };
    tunnel.client.wait_for("another session", Duration::from_secs(10), anew)?;
    let told = events.from(0).into_iter().find_map(|heard| match heard.event {
        Event::Terminated { reason, .. } => Some(reason),
        _ => None,
    });
    ensure!(told.as_deref() == Some("TTL_TRANSPORT_LOSS_EXPIRED"), "it ended as {told:?}");
    tunnel.probe_flows()
}

/// An ICMP echo through the tunnel of a member: what an application would see.
fn echo(member: &mut Member, number: u16) -> Result<()> {
    let (address, _) = member.reply().inner_v4.context("the member has no inner address")?;
    let mut ping = Vec::new();
    etherparse::PacketBuilder::ipv4(address.octets(), crate::topology::SERVER_V4.octets(), 64)
        .icmpv4_echo_request(35, number)
        .write(&mut ping, b"are you there?")?;
    let packet = member.data(&ping);
    member.send(&packet)?;
    match member.answer()? {
        Answer::Data(inner) if inner.ends_with(b"are you there?") => Ok(()),
        other => bail!("echo {number} was answered by {other:?}"),
    }
}

fn another_port(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let mut client = arena.join()?;
    let before = arena.mallory()?;
    (0..3).try_for_each(|number| echo(&mut client, number))?;
    // The socket is closed, another one opened: another port, the same client.
    drop(client.move_to(arena.socket()?)?);
    let unbound = arena.tunnel.gateway.counter(Reason::WrongTransport.name())?;
    let early = client.data(&[0x45; 40]);
    client.send(&early)?;
    arena.tunnel.wait_for_count(Reason::WrongTransport.name(), unbound, 1)?;
    ensure!(arena.mallory()?.is_as(&before), "data from another port moved the session");
    match client.reattach(1, Cause::HardDead)? {
        Answer::Bound(ack) => ensure!(ack.detail == Reason::NatRebindDetected.number(), "detail {}", ack.detail),
        other => bail!("the reattach was answered by {other:?}"),
    }
    client.validate()?;
    (3..6).try_for_each(|number| echo(&mut client, number))?;
    let after = arena.mallory()?;
    ensure!(after.locator == before.locator && after.switches == before.switches + 1, "{before:?} became {after:?}");
    ensure!(after.peer == Some(client.address()?), "bound to {:?}", after.peer);
    Ok(())
}
