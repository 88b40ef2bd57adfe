//! Attacks: each has to change nothing, and to be counted.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jumpgate_protocol::wire::{HELLO_LEN, MessageType};

use super::Test;
use super::tunnel::{CLIENT, Ends, Tunnel, peer};
use crate::programs::{Client, ClientOptions, Gateway};
use crate::relay::Direction;
use crate::topology::{CORE_V4, LTE, Lab, SERVER_V4, WIFI};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "attack: an unknown client key is answered by silence and leaves no session (HS-4)",
        run: unknown_client,
    },
    Test { name: "attack: who does not know the gateway's key gets silence (HS-2)", run: unknown_gateway },
    Test { name: "attack: a wrong pre-shared key makes no session (HS-1)", run: wrong_psk },
    Test { name: "attack: a replayed reattach changes nothing and is counted (A01, I06)", run: replayed_reattach },
    Test { name: "attack: a forged reattach changes nothing and is counted (A06)", run: forged_reattach },
    Test {
        name: "attack: data from an unbound address is dropped, and the binding stays (A17, INV-26)",
        run: unbound_data,
    },
    Test { name: "attack: replayed data is dropped (AR-3)", run: replayed_data },
    Test { name: "attack: a spoofed inner source is dropped (A34)", run: spoofed_source },
    Test { name: "attack: a client reaches another client only if the policy says so (A35)", run: client_to_client },
    Test { name: "attack: malformed packets are counted drops, and the session goes on (A14)", run: malformed },
];

/// How long silence has to last to count as silence.
const SILENCE: Duration = Duration::from_secs(2);
/// Datagrams from one client to another.
const GREETINGS: u64 = 5;
/// Somebody who is nobody's client, somewhere behind the core.
const ATTACKER: &str = "198.18.0.66:4444";

fn refused(lab: &Lab, ends: &Ends) -> Result<()> {
    let gateway = Gateway::start(lab, &ends.programs, &ends.gateway)?;
    let client = Client::launch(lab, &ends.programs, &ends.client)?;
    lab.relay.capture(WIFI.path, Direction::Down, None, 10, false)?;
    lab.relay.capture(WIFI.path, Direction::Up, Some(MessageType::HelloInit as u8), 10, false)?;
    thread::sleep(SILENCE);
    let asked = lab.relay.captured(WIFI.path, Direction::Up)?;
    ensure!(!asked.is_empty(), "the client did not even ask");
    let answers = lab.relay.captured(WIFI.path, Direction::Down)?;
    ensure!(answers.is_empty(), "the gateway answered {} times", answers.len());
    ensure!(gateway.sessions()?.is_empty(), "there is a session: {:?}", gateway.sessions()?);
    ensure!(client.status()?.phase != "connected", "the client says that it is connected");
    Ok(())
}

fn unknown_client(lab: &Lab) -> Result<()> {
    let mut ends = Ends::new(lab, false)?;
    ends.client.key = ends.programs.key_pair(&lab.run, "stranger")?;
    refused(lab, &ends)
}

fn unknown_gateway(lab: &Lab) -> Result<()> {
    let mut ends = Ends::new(lab, false)?;
    ends.client.gateway = ends.programs.key_pair(&lab.run, "other-gateway")?.public;
    refused(lab, &ends)
}

fn wrong_psk(lab: &Lab) -> Result<()> {
    let mut ends = Ends::new(lab, false)?;
    ends.client.psk_file = Some(ends.programs.key_pair(&lab.run, "psk")?.private_file);
    ends.gateway.peers[0].psk_file = Some(ends.programs.key_pair(&lab.run, "other-psk")?.private_file);
    let gateway = Gateway::start(lab, &ends.programs, &ends.gateway)?;
    let client = Client::launch(lab, &ends.programs, &ends.client)?;
    thread::sleep(SILENCE);
    // The key enters with the gateway's answer (IKpsk2), so there may be a record in BIRTH, but never more.
    let sessions = gateway.sessions()?;
    ensure!(sessions.iter().all(|session| session.state == "BIRTH"), "there is a session: {sessions:?}");
    ensure!(client.status()?.phase != "connected", "the client says that it is connected");
    Ok(())
}

/// A session that has just moved to lte0, and the reattach request that moved it.
fn with_reattach(lab: &Lab) -> Result<(Tunnel<'_>, Vec<u8>)> {
    let tunnel = Tunnel::open(lab, false)?;
    lab.relay.capture(LTE.path, Direction::Up, Some(MessageType::ReattachRequest as u8), 1, false)?;
    tunnel.jump(&LTE, || tunnel.client.move_to(LTE.interface))?;
    let captured = lab.relay.captured(LTE.path, Direction::Up)?;
    let request = captured.into_iter().next().context("no reattach request was seen")?.payload.0;
    Ok((tunnel, request))
}

/// Sends a packet to the gateway as if from the client's other path, and from a stranger's address.
fn inject_from_elsewhere(lab: &Lab, path: &str, packet: &[u8]) -> Result<u64> {
    let attacker: SocketAddr = ATTACKER.parse()?;
    lab.relay.inject(path, Direction::Up, None, packet)?;
    lab.relay.inject(path, Direction::Up, Some(attacker), packet)?;
    Ok(2)
}

fn replayed_reattach(lab: &Lab) -> Result<()> {
    let (tunnel, request) = with_reattach(lab)?;
    let (before, counted) = (tunnel.session()?, tunnel.gateway.counter("REPLAY_DETECTED")?);
    let sent = inject_from_elsewhere(lab, WIFI.path, &request)?;
    tunnel.wait_for_count("REPLAY_DETECTED", counted, sent)?;
    tunnel.is_undisturbed(&before)
}

fn forged_reattach(lab: &Lab) -> Result<()> {
    let (tunnel, request) = with_reattach(lab)?;
    let (before, counted) = (tunnel.session()?, tunnel.gateway.counter("AUTH_FAIL")?);
    let mut sent = 0;
    // A bit of the nonce, of the ciphertext and of the tag; each makes the proof wrong.
    for at in [19, 25, request.len() - 1] {
        let mut forged = request.clone();
        forged[at] ^= 0x40;
        sent += inject_from_elsewhere(lab, WIFI.path, &forged)?;
    }
    tunnel.wait_for_count("AUTH_FAIL", counted, sent)?;
    tunnel.is_undisturbed(&before)
}

/// One DATA packet of the client, withheld from the gateway or not.
fn capture_data(tunnel: &Tunnel<'_>, withhold: bool) -> Result<Vec<u8>> {
    let relay = &tunnel.lab.relay;
    relay.capture(WIFI.path, Direction::Up, Some(MessageType::Data as u8), 1, withhold)?;
    let probe = tunnel.probe(false)?;
    drop(probe);
    let captured = relay.captured(WIFI.path, Direction::Up)?;
    Ok(captured.into_iter().next().context("no data was seen")?.payload.0)
}

fn unbound_data(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    tunnel.wait_for_standby(&LTE)?;
    let data = capture_data(&tunnel, true)?;
    let (before, counted) = (tunnel.session()?, tunnel.gateway.counter("WRONG_TRANSPORT")?);
    // Also from the validated standby path: it is not bound either (SP-5).
    let sent = inject_from_elsewhere(lab, LTE.path, &data)?;
    tunnel.wait_for_count("WRONG_TRANSPORT", counted, sent)?;
    tunnel.is_undisturbed(&before)
}

fn replayed_data(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    let data = capture_data(&tunnel, false)?;
    let (before, counted) = (tunnel.session()?, tunnel.gateway.counter("DATA_REPLAY")?);
    lab.relay.inject(WIFI.path, Direction::Up, None, &data)?;
    tunnel.wait_for_count("DATA_REPLAY", counted, 1)?;
    tunnel.is_undisturbed(&before)
}

/// Sends UDP into the tunnel from an address that was not given to the client, to `target`.
fn send_spoofed(tunnel: &Tunnel<'_>, source: Ipv4Addr, target: SocketAddr) -> Result<()> {
    let client = &tunnel.lab.client;
    client.ip(&format!("addr add {source}/32 dev lo"))?;
    let socket = client.enter(|| UdpSocket::bind((source, 0)))??;
    let sent = (0..5).try_for_each(|_| socket.send_to(b"not me", target).map(drop));
    client.ip(&format!("addr del {source}/32 dev lo"))?;
    sent.context("sending from a spoofed address")
}

fn spoofed_source(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    let target = SocketAddr::from((SERVER_V4, 9_999));
    let listener = lab.server.enter(|| UdpSocket::bind(target))??;
    listener.set_read_timeout(Some(Duration::from_millis(300)))?;
    let (before, counted) = (tunnel.session()?, tunnel.gateway.counter("INNER_SOURCE_INVALID")?);
    for source in [Ipv4Addr::new(10, 66, 77, 77), Ipv4Addr::new(172, 16, 5, 5)] {
        send_spoofed(&tunnel, source, target)?;
    }
    tunnel.wait_for_count("INNER_SOURCE_INVALID", counted, 10)?;
    ensure!(listener.recv(&mut [0; 64]).is_err(), "a spoofed packet reached the server");
    tunnel.is_undisturbed(&before)
}

/// Alice and Bob, who sits in the core: Alice's greeting to his inner address, and whether he gets it.
fn greet(lab: &Lab, policy: &str, judge: impl FnOnce(&Tunnel<'_>, &dyn Fn() -> bool) -> Result<()>) -> Result<()> {
    let mut ends = Ends::new(lab, false)?;
    ends.gateway.policy = policy.to_owned();
    let key = ends.programs.key_pair(&lab.run, "bob")?;
    ends.gateway.peers.push(peer("bob", &key));
    let mut bob = ClientOptions::new(lab, "bob", key, &ends.gateway.key.public, false);
    (bob.namespace, bob.interfaces) = (lab.core.clone(), vec!["gw0".to_owned()]);
    let tunnel = ends.open(lab)?;
    let _bob = Client::start(lab, &tunnel.programs, &bob)?;
    let sessions = tunnel.gateway.sessions()?;
    let address = |name: &str| sessions.iter().find(|row| row.client == name).and_then(|row| row.inner_v4);
    let (Some(alice), Some(bob)) = (address(CLIENT), address("bob")) else { bail!("sessions: {sessions:?}") };
    let receiver = lab.core.enter(|| UdpSocket::bind((bob, 9_998)))??;
    receiver.set_read_timeout(Some(Duration::from_millis(300)))?;
    let sender = lab.client.enter(|| UdpSocket::bind((alice, 0)))??;
    for _ in 0..GREETINGS {
        sender.send_to(b"hello bob", (bob, 9_998))?;
    }
    judge(&tunnel, &|| receiver.recv(&mut [0; 64]).is_ok())
}

fn client_to_client(lab: &Lab) -> Result<()> {
    greet(lab, "", |tunnel, received| {
        tunnel.wait_for_count("PEER_TO_PEER_DENIED", 0, GREETINGS)?;
        ensure!(!received(), "Bob was reached");
        Ok(())
    })?;
    greet(lab, "access.client_to_client = true", |_, received| {
        ensure!(received(), "Bob was not reached although the policy allows it");
        Ok(())
    })
}

fn malformed(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    let before = tunnel.session()?;
    let slot = u64::from_str_radix(&before.locator, 16)?.to_be_bytes();
    let session_packet = |kind: u8, version: u8, len: usize| {
        let mut packet = vec![0; len.max(12)];
        packet[0] = kind;
        packet[1] = version << 4;
        packet[4..12].copy_from_slice(&slot);
        packet.truncate(len);
        packet
    };
    let data = MessageType::Data as u8;
    let reattach = MessageType::ReattachRequest as u8;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("outside_malformed", vec![]),
        ("UNKNOWN_TYPE", vec![0xee; 40]),
        ("UNSUPPORTED_VERSION", session_packet(reattach, 7, 100)),
        ("MALFORMED", session_packet(reattach, 1, 15)),
        ("outside_malformed", session_packet(data, 1, 20)),
        ("outside_bad_version", session_packet(data, 7, 100)),
        ("DATA_AUTH_FAIL", session_packet(data, 1, 100)),
        ("AUTH_FAIL", {
            let mut hello = vec![0; HELLO_LEN];
            hello[0] = MessageType::HelloInit as u8;
            hello[1] = 1 << 4;
            hello
        }),
    ];
    let attacker = lab.core.enter(|| UdpSocket::bind((CORE_V4, 0)))??;
    for (counter, packet) in cases {
        let counted = tunnel.gateway.counter(counter)?;
        if counter == "DATA_AUTH_FAIL" {
            // Only the bound address gets as far as decryption (BD-1), and only with the epoch's tag.
            let mut packet = packet;
            packet[3] = u8::try_from(before.epoch & 0xff)?;
            packet[12..20].copy_from_slice(&1_000_u64.to_be_bytes());
            lab.relay.inject(WIFI.path, Direction::Up, None, &packet)?;
        } else {
            attacker.send_to(&packet, lab.gateway_endpoint(false))?;
        }
        tunnel.wait_for_count(counter, counted, 1)?;
    }
    tunnel.is_undisturbed(&before)
}
