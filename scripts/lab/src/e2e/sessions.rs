//! Sessions and what they carry.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::tunnel::{Ends, LTE_PATH, Tunnel, WIFI_PATH};
use super::{Test, wait_for};
use crate::http::{Content, ContentServer, Download};
use crate::ping::ping;
use crate::relay::Profile;
use crate::topology::{LTE, Lab, SERVER_V4, SERVER_V6, WIFI};

pub(super) const TESTS: &[Test] = &[
    Test { name: "session: both ends agree on its id, epoch and addresses, over IPv4", run: |lab| agrees(lab, false) },
    Test { name: "session: both ends agree on its id, epoch and addresses, over IPv6", run: |lab| agrees(lab, true) },
    Test { name: "session: a pre-shared key on both ends is accepted (HS-1)", run: pre_shared_key },
    Test {
        name: "traffic: ICMP, UDP and TCP of both inner families pass both ways over IPv4 (TC38)",
        run: |lab| traffic(lab, false),
    },
    Test {
        name: "traffic: ICMP, UDP and TCP of both inner families pass both ways over IPv6 (TC38)",
        run: |lab| traffic(lab, true),
    },
    Test { name: "traffic: packets up to the tunnel's MTU pass, and a sender of larger ones is told (TC38)", run: mtu },
    Test { name: "traffic: a download arrives whole at 2 % loss and reordering (TC05)", run: lossy_download },
    Test {
        name: "traffic: corrupted packets are refused and counted, and a download still arrives whole (TC23)",
        run: corruption,
    },
];

const ECHO: Duration = Duration::from_secs(2);

fn agrees(lab: &Lab, ipv6: bool) -> Result<()> {
    let tunnel = Tunnel::open(lab, ipv6)?;
    let (status, session) = (tunnel.client.status()?, tunnel.session()?);
    ensure!(status.session.as_ref() == Some(&session.locator), "{:?} against {}", status.session, session.locator);
    ensure!(status.state == "ATTACHED" && session.state == "ATTACHED", "{} against {}", status.state, session.state);
    ensure!(status.epoch == 1 && session.epoch == 1, "the first binding has epoch 1");
    ensure!(session.validated, "the first binding starts validated (HS-5)");
    let peer = session.peer.context("the session has no peer")?;
    ensure!(peer.is_ipv6() == ipv6, "the peer is {peer}");
    let inner = [session.inner_v4.map(IpAddr::V4), session.inner_v6.map(IpAddr::V6)];
    for address in inner.into_iter().flatten() {
        let known = status.addresses.iter().any(|own| own.split('/').next() == Some(&address.to_string()));
        ensure!(known, "the client has {:?}, the gateway gave {address}", status.addresses);
    }
    ensure!(status.addresses.len() == 2, "the client has {:?}", status.addresses);
    Ok(())
}

fn pre_shared_key(lab: &Lab) -> Result<()> {
    let mut ends = Ends::new(lab, false)?;
    let psk = ends.programs.key_pair(&lab.run, "psk")?.private_file;
    ends.client.psk_file = Some(psk.clone());
    ends.gateway.peers[0].psk_file = Some(psk);
    let tunnel = ends.open(lab)?;
    tunnel.probe(false).map(drop)
}

fn traffic(lab: &Lab, ipv6: bool) -> Result<()> {
    let tunnel = Tunnel::open(lab, ipv6)?;
    let session = tunnel.session()?;
    let client_v4 = IpAddr::V4(session.inner_v4.context("no inner IPv4 address")?);
    let client_v6 = IpAddr::V6(session.inner_v6.context("no inner IPv6 address")?);
    for (server, client) in [(IpAddr::V4(SERVER_V4), client_v4), (IpAddr::V6(SERVER_V6), client_v6)] {
        ping(&lab.client, server, 56, ECHO)?;
        ping(&lab.server, client, 56, ECHO)?;
        drop(tunnel.probe(server.is_ipv6())?);
        for (from, to, address) in [(&lab.client, &lab.server, server), (&lab.server, &lab.client, client)] {
            let listener = to.enter(|| TcpListener::bind(SocketAddr::new(address, 0)))??;
            let target = listener.local_addr()?;
            let mut stream = from
                .enter(|| TcpStream::connect_timeout(&target, ECHO))?
                .with_context(|| format!("connecting to {target}"))?;
            let (mut accepted, _) = listener.accept()?;
            stream.write_all(b"hello")?;
            let mut buffer = [0; 5];
            accepted.set_read_timeout(Some(ECHO))?;
            accepted.read_exact(&mut buffer)?;
            ensure!(&buffer == b"hello", "TCP changed the bytes");
        }
    }
    Ok(())
}

fn mtu(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    let mtu = usize::from(tunnel.client.status()?.mtu.context("the tunnel has no MTU")?);
    let client = IpAddr::V4(tunnel.inner_v4()?);
    // 20 bytes of IPv4 and 8 of ICMP belong to the packet.
    ping(&lab.client, IpAddr::V4(SERVER_V4), mtu - 28, ECHO).context("a packet as large as the MTU")?;
    ping(&lab.server, client, mtu - 28, ECHO).context("a packet as large as the MTU, downwards")?;

    // The server's link carries more than the tunnel. It learns of it by ICMP, and then fragments.
    let receiver = lab.client.enter(|| UdpSocket::bind(SocketAddr::new(client, 0)))??;
    receiver.set_read_timeout(Some(Duration::from_millis(200)))?;
    let target = receiver.local_addr()?;
    let sender = lab.server.enter(|| UdpSocket::bind((SERVER_V4, 0)))??;
    let large = vec![7; mtu];
    let mut buffer = vec![0; 2 * mtu];
    wait_for("a datagram larger than the MTU", Duration::from_secs(3), || {
        // Until the kernel knows the path's MTU it refuses or loses the datagram.
        let _ = sender.send_to(&large, target);
        Ok(receiver.recv(&mut buffer).is_ok_and(|len| buffer[..len] == large))
    })
}

fn download(tunnel: &Tunnel<'_>, bytes: u64, rate: u64) -> Result<()> {
    let content = Content { bytes, seed: 3, rate };
    let address = SocketAddr::new(IpAddr::V4(SERVER_V4), 8080);
    let server = ContentServer::start(&tunnel.lab.server, address, content)?;
    let result = Download::start(&tunnel.lab.client, address)?.finish()?;
    ensure!(result.checksum == content.checksum(), "the checksum differs");
    ensure!(server.peers().len() == 1, "{} connections", server.peers().len());
    Ok(())
}

fn lossy_download(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    let impaired = |path: Profile| Profile {
        loss: 0.02,
        jitter_ms: 2.0,
        reorder: 0.02,
        reorder_hold_ms: 4.0,
        duplicate: 0.01,
        ..path
    };
    lab.relay.set(WIFI.path, impaired(WIFI_PATH))?;
    lab.relay.set(LTE.path, impaired(LTE_PATH))?;
    let before = tunnel.session()?;
    download(&tunnel, 4_000_000, 2_000_000)?;
    ensure!(tunnel.session()?.locator == before.locator, "another session");
    let counters = lab.relay.counters()?;
    let lost: u64 = counters.values().map(|path| path.up.lost + path.down.lost).sum();
    ensure!(lost > 20, "the relay lost only {lost} frames");
    Ok(())
}

fn corruption(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    let refused = tunnel.gateway.counter("DATA_AUTH_FAIL")?;
    lab.relay.set(WIFI.path, Profile { corrupt: 0.02, ..WIFI_PATH })?;
    download(&tunnel, 2_000_000, 1_000_000)?;
    let corrupted = lab.relay.counters()?[WIFI.path];
    ensure!(corrupted.up.corrupted > 0 && corrupted.down.corrupted > 0, "nothing was corrupted: {corrupted:?}");
    // Downwards the kernel's UDP checksum refuses them; upwards nothing but the AEAD does.
    tunnel.wait_for_count("DATA_AUTH_FAIL", refused, 1)
}
