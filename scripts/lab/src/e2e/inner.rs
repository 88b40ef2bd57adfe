//! What clients send through their tunnels: other people's addresses, and to other people.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use etherparse::PacketBuilder;
use jumpgate_protocol::reason::Reason;

use super::Test;
use super::arena::Arena;
use super::bindings::{heard, inner, listener};
use super::tunnel::{CLIENT, Ends, Tunnel, peer};
use crate::programs::{Client, ClientOptions};
use crate::topology::{Lab, SERVER_V4, SERVER_V6};

pub(super) const TESTS: &[Test] = &[
    Test { name: "inner: a client's host cannot send from an address that is not its own (A34)", run: host_spoofs },
    Test {
        name: "inner: a hostile client cannot send from the gateway's, another client's or anybody's address (A34, BD-1)",
        run: client_spoofs,
    },
    Test { name: "inner: a client reaches another client only if the policy says so (A35)", run: client_to_client },
];

/// Datagrams from one client to another.
const GREETINGS: u64 = 5;

/// Sends UDP into the tunnel from an address that was not given to the client, to `target`.
fn send_spoofed(tunnel: &Tunnel<'_>, source: Ipv4Addr, target: SocketAddr) -> Result<()> {
    let client = &tunnel.lab.client;
    client.ip(&format!("addr add {source}/32 dev lo"))?;
    let socket = client.enter(|| UdpSocket::bind((source, 0)))??;
    let sent = (0..5).try_for_each(|_| socket.send_to(b"not me", target).map(drop));
    client.ip(&format!("addr del {source}/32 dev lo"))?;
    sent.context("sending from a spoofed address")
}

fn host_spoofs(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let listener = listener(lab)?;
    let watch = arena.watch()?;
    for source in [Ipv4Addr::new(10, 66, 77, 77), Ipv4Addr::new(172, 16, 5, 5)] {
        send_spoofed(&arena.tunnel, source, listener.local_addr()?)?;
    }
    watch.counts(Reason::InnerSourceInvalid.name(), 10)?;
    ensure!(heard(&listener).is_none(), "a spoofed packet reached the server");
    watch.is_undisturbed()
}

fn client_spoofs(lab: &Lab) -> Result<()> {
    let arena = Arena::open(lab, "")?;
    let listener = listener(lab)?;
    let mut mallory = arena.join()?;
    let watch = arena.watch()?;
    let victim_v4 = watch.before().inner_v4.context("the victim has no inner address")?;
    let victim_v6 = watch.before().inner_v6.context("the victim has no inner address")?;
    let port = listener.local_addr()?.port();
    let v4 = |source: Ipv4Addr| -> Result<Vec<u8>> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4(source.octets(), SERVER_V4.octets(), 64).udp(1, port).write(&mut packet, b"not me")?;
        Ok(packet)
    };
    let v6 = |source: Ipv6Addr| -> Result<Vec<u8>> {
        let mut packet = Vec::new();
        PacketBuilder::ipv6(source.octets(), SERVER_V6.octets(), 64).udp(1, port).write(&mut packet, b"not me")?;
        Ok(packet)
    };
    let mut wrong = vec![
        v4(victim_v4)?,
        v4(Ipv4Addr::new(10, 66, 0, 1))?,
        v4(SERVER_V4)?,
        v4(Ipv4Addr::UNSPECIFIED)?,
        v6(victim_v6)?,
        v6("fd66::1".parse()?)?,
        v6("fe80::1".parse()?)?,
    ];
    // No IP packet at all, an IP version that is none, and a packet that ends inside its header.
    wrong.extend([vec![0; 28], vec![0xf5; 40], v4(victim_v4)?[..12].to_vec()]);
    let count = wrong.len() as u64;
    for packet in wrong {
        let data = mallory.data(&packet);
        mallory.send(&data)?;
    }
    watch.counts(Reason::InnerSourceInvalid.name(), count)?;
    ensure!(heard(&listener).is_none(), "a spoofed packet reached the server");
    let honest = mallory.data(&inner(&mallory, b"me")?);
    mallory.send(&honest)?;
    ensure!(heard(&listener).as_deref() == Some("me"), "an honest packet did not reach the server");
    watch.is_undisturbed()
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
        tunnel.wait_for_count(Reason::PeerToPeerDenied.name(), 0, GREETINGS)?;
        ensure!(!received(), "Bob was reached");
        Ok(())
    })?;
    greet(lab, "access.client_to_client = true", |_, received| {
        ensure!(received(), "Bob was not reached although the policy allows it");
        Ok(())
    })
}
