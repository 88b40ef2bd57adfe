//! The lab itself, without Jumpgate: a measuring instrument has to be checked before it measures.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Test;
use crate::http::{Content, ContentServer, Download};
use crate::probe::Probe;
use crate::relay::{Direction, Profile};
use crate::topology::{GATEWAY_V4, GATEWAY_V6, LTE, Lab, Uplink, WIFI};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "lab: both uplinks reach the gateway over IPv4 and IPv6, each from its router's address",
        run: reaches,
    },
    Test { name: "lab: a download over TCP arrives whole at 2 % loss, jitter and reordering", run: download },
    Test { name: "lab: the relay would carry 300 Mbit/s on part of a core", run: throughput },
    Test { name: "lab: a black hole is seen by the probe as an outage of its length", run: black_hole },
    Test { name: "lab: a NAT rebinding changes the source port and silences the old one", run: rebinding },
    Test { name: "lab: what is captured on one uplink can be injected on the other", run: injection },
];

const PORT: u16 = 7_000;

fn gateway(ipv6: bool, port: u16) -> SocketAddr {
    let ip = if ipv6 { IpAddr::V6(GATEWAY_V6) } else { IpAddr::V4(GATEWAY_V4) };
    SocketAddr::new(ip, port)
}

fn listener(lab: &Lab, ipv6: bool) -> Result<UdpSocket> {
    let socket = lab.gateway.enter(|| UdpSocket::bind(gateway(ipv6, PORT)))??;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    Ok(socket)
}

/// Sends one datagram, and returns the address it came from after it was answered.
fn exchange(client: &UdpSocket, gateway: &UdpSocket) -> Result<SocketAddr> {
    let mut buffer = [0; 2_000];
    client.send(b"ping")?;
    let (len, from) = gateway.recv_from(&mut buffer).context("nothing arrived at the gateway")?;
    gateway.send_to(&buffer[..len], from)?;
    let len = client.recv(&mut buffer).context("no answer arrived at the client")?;
    ensure!(&buffer[..len] == b"ping", "the answer is not what was sent");
    Ok(from)
}

fn reaches(lab: &Lab) -> Result<()> {
    for ipv6 in [false, true] {
        let gateway = listener(lab, ipv6)?;
        let seen: Vec<String> = Uplink::ALL
            .iter()
            .map(|uplink| Ok(exchange(&lab.socket_on(uplink, gateway.local_addr()?)?, &gateway)?.ip().to_string()))
            .collect::<Result<_>>()?;
        let expected = if ipv6 { ["2001:db8:1::2", "2001:db8:2::2"] } else { ["198.51.100.2", "203.0.113.2"] };
        ensure!(seen == expected, "the gateway saw {seen:?}");
    }
    Ok(())
}

fn download(lab: &Lab) -> Result<()> {
    let profile = Profile {
        loss: 0.02,
        delay_ms: 5.0,
        jitter_ms: 2.0,
        reorder: 0.02,
        reorder_hold_ms: 3.0,
        duplicate: 0.01,
        ..Profile::default()
    };
    lab.relay.set(WIFI.path, profile)?;
    let content = Content { bytes: 2_000_000, seed: 1, rate: 50_000_000 };
    let server = ContentServer::start(&lab.gateway, gateway(false, 8080), content)?;
    let result = Download::start(&lab.client, server.address())?.finish()?;
    ensure!(result.checksum == content.checksum(), "the checksum differs");
    ensure!(result.bytes == content.bytes && server.peers().len() == 1, "not one whole download");
    let counters = lab.relay.counters()?[WIFI.path];
    ensure!(counters.down.lost > 0 && counters.down.duplicated > 0, "the relay impaired nothing: {counters:?}");
    Ok(())
}

fn throughput(lab: &Lab) -> Result<()> {
    const BYTES: u64 = 100_000_000;
    let content = Content { bytes: BYTES, seed: 1, rate: 10_000_000_000 };
    let server = ContentServer::start(&lab.gateway, gateway(false, 8081), content)?;
    let cpu = lab.relay_cpu()?;
    let result = Download::start(&lab.client, server.address())?.finish()?;
    let cpu = lab.relay_cpu()? - cpu;
    let rate = BYTES as f64 * 8.0 / result.elapsed.as_secs_f64() / 1e6;
    let core_share = cpu.as_secs_f64() / result.elapsed.as_secs_f64();
    let share_at_300 = core_share * 300.0 / rate;
    // Judged by what it costs, which is the same on a busy machine; how fast it was is only told.
    lab.note(format!("{rate:.0} Mbit/s at {core_share:.2} cores"));
    ensure!(share_at_300 < 0.6, "300 Mbit/s would cost {share_at_300:.2} of a core");
    Ok(())
}

fn black_hole(lab: &Lab) -> Result<()> {
    let probe = Probe::start(&lab.client, &lab.gateway, gateway(false, PORT + 1))?;
    super::wait_for("the first answers", Duration::from_secs(2), || Ok(probe.flows(10)))?;
    let from = Instant::now();
    lab.relay.set(WIFI.path, Profile { blackhole: true, ..Profile::default() })?;
    std::thread::sleep(Duration::from_millis(300));
    lab.relay.set(WIFI.path, Profile::default())?;
    std::thread::sleep(Duration::from_millis(200));
    let to = Instant::now();
    probe.settle();
    let seen = probe.window(from, to);
    let outage = seen.outage.as_millis();
    ensure!((280..400).contains(&outage), "the probe saw {seen:?}");
    // Answers that were on their way when the hole opened are lost downwards.
    let answers = seen.lost - seen.lost_up;
    ensure!(answers <= 2 && (50..80).contains(&seen.lost), "the probe saw {seen:?}");
    Ok(())
}

fn rebinding(lab: &Lab) -> Result<()> {
    for ipv6 in [false, true] {
        let gateway = listener(lab, ipv6)?;
        let client = lab.socket_on(&LTE, gateway.local_addr()?)?;
        let first = exchange(&client, &gateway)?;
        lab.relay.rebind(LTE.path, None)?;
        let second = exchange(&client, &gateway)?;
        ensure!(first.ip() == second.ip() && first.port() != second.port(), "{first} became {second}");
        gateway.send_to(b"late", first)?;
        client.set_read_timeout(Some(Duration::from_millis(200)))?;
        ensure!(client.recv(&mut [0; 10]).is_err(), "the old mapping still works");
        client.set_read_timeout(Some(Duration::from_secs(1)))?;
        let address = LTE.other_public_address(ipv6);
        lab.relay.rebind(LTE.path, Some(address))?;
        ensure!(exchange(&client, &gateway)?.ip() == address, "the NAT kept its address");
        lab.relay.reset()?;
    }
    Ok(())
}

fn injection(lab: &Lab) -> Result<()> {
    let gateway = listener(lab, false)?;
    let (wifi, lte) = (lab.socket_on(&WIFI, gateway.local_addr()?)?, lab.socket_on(&LTE, gateway.local_addr()?)?);
    exchange(&lte, &gateway)?;
    exchange(&wifi, &gateway)?;
    lab.relay.capture(LTE.path, Direction::Up, Some(b's'), 1, true)?;
    lte.send(b"secret")?;
    super::wait_for("the relay to withhold it", Duration::from_secs(1), || {
        Ok(lab.relay.counters()?[LTE.path].up.withheld == 1)
    })?;
    let captured = lab.relay.captured(LTE.path, Direction::Up)?;
    ensure!(captured.len() == 1 && captured[0].payload.0 == b"secret", "captured {captured:?}");
    let attacker: SocketAddr = "198.18.0.66:4444".parse()?;
    for source in [None, Some(attacker)] {
        lab.relay.inject(WIFI.path, Direction::Up, source, &captured[0].payload.0)?;
        let mut buffer = [0; 100];
        let (len, from) = gateway.recv_from(&mut buffer).context("the injected datagram did not arrive")?;
        ensure!(&buffer[..len] == b"secret", "the datagram changed");
        ensure!(source.is_none_or(|source| source == from), "it came from {from}");
    }
    Ok(())
}
