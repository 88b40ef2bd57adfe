//! Load, sleep and flapping: what is not forged, and has to be bounded all the same.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jumpgate_protocol::entropy::SeededEntropy;
use jumpgate_protocol::handshake::{HelloRequest, Initiator, StaticSecret};
use jumpgate_protocol::ident::PublicKey;
use jumpgate_protocol::wire::MessageType;
use nix::sys::signal::Signal;

use super::tunnel::{Ends, LTE_PATH, Tunnel, WIFI_PATH};
use super::{Test, wait_for};
use crate::programs::{Client, Gateway};
use crate::topology::{LTE, Lab, Uplink, WIFI};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "abuse: under a flood of handshakes only who shows a cookie is served (A11, HS-7)",
        run: handshake_flood,
    },
    Test {
        name: "abuse: whoever asks for an unknown session gets fewer bytes than it sent (A29, A30, RF-3)",
        run: unknown_session,
    },
    Test { name: "abuse: flapping ends at the switch limit, and the session lives on (TC19, T10)", run: flapping },
    Test { name: "abuse: a client that slept for a while takes its session up again (TC41, L-3)", run: sleep },
];

/// Sources of a flood: a test network behind the core.
const FLOOD: [u8; 2] = [198, 18];
/// Handshakes of a flood before the gateway is judged; the policy of the test allows ten a second.
const FLOOD_SIZE: u8 = 60;

/// A HELLO_INIT as somebody makes it who knows the gateway's public key and nothing else.
fn hello(gateway: &str, seed: u64) -> Result<Vec<u8>> {
    let key: [u8; 32] = BASE64_STANDARD.decode(gateway)?.try_into().map_err(|_| anyhow!("a key has 32 bytes"))?;
    let mut entropy = SeededEntropy::new(seed);
    let secret = StaticSecret::generate(&mut entropy);
    let request = HelloRequest {
        hello_counter: 1,
        client_time_ms: 0,
        replaces: None,
        capabilities: 0,
        requested_policy: Default::default(),
    };
    let initiator = Initiator::new(&secret, &PublicKey(key), None, &request, &mut entropy)?;
    Ok(initiator.packet().to_vec())
}

/// A socket in the core under an address of the flood's network.
fn source(lab: &Lab, number: u8) -> Result<UdpSocket> {
    let address = Ipv4Addr::new(FLOOD[0], FLOOD[1], 1, number);
    let socket = lab.core.enter(|| UdpSocket::bind((address, 0)))??;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn handshake_flood(lab: &Lab) -> Result<()> {
    let mut ends = Ends::new(lab, false)?;
    ends.gateway.policy = "limits.handshakes_total = 10".to_owned();
    let gateway = Gateway::start(lab, &ends.programs, &ends.gateway)?;
    lab.core.ip("route replace local 198.18.0.0/16 dev lo")?;
    let sources: Vec<UdpSocket> = (0..FLOOD_SIZE).map(|number| source(lab, number)).collect::<Result<_>>()?;
    let key = &ends.gateway.key.public;
    let hellos: Vec<Vec<u8>> = (0..FLOOD_SIZE).map(|number| hello(key, number.into())).collect::<Result<_>>()?;
    let endpoint = lab.gateway_endpoint(false);
    let flood = || -> Result<()> {
        for (socket, hello) in sources.iter().zip(&hellos) {
            socket.send_to(hello, endpoint)?;
        }
        Ok(())
    };
    flood()?;
    wait_for("the gateway to ask for cookies", Duration::from_secs(2), || Ok(gateway.counter("COOKIE_REQUIRED")? > 0))?;
    let mut retries = 0;
    for socket in &sources {
        let mut answer = [0; 2_000];
        while let Ok(len) = socket.recv(&mut answer) {
            ensure!(answer[0] == MessageType::HelloRetry as u8, "a stranger got message type {:#x}", answer[0]);
            ensure!(len < hellos[0].len(), "an answer of {len} bytes");
            retries += 1;
        }
    }
    ensure!(retries > 0, "no HELLO_RETRY arrived");
    ensure!(gateway.sessions()?.is_empty(), "strangers have sessions: {:?}", gateway.sessions()?);

    // An honest client comes while the flood goes on, and shows the cookie that it is asked for.
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) && flood().is_ok() {
                thread::sleep(Duration::from_millis(200));
            }
        });
        let client = Client::start(lab, &ends.programs, &ends.client);
        done.store(true, Ordering::Relaxed);
        client.map(drop).context("the honest client is shut out")
    })?;
    lab.core.ip("route del local 198.18.0.0/16 dev lo")
}

fn unknown_session(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    let before = tunnel.session()?;
    lab.core.ip("route replace local 198.18.0.0/16 dev lo")?;
    let stranger = source(lab, 1)?;
    stranger.set_nonblocking(false)?;
    stranger.set_read_timeout(Some(Duration::from_millis(500)))?;
    let known = u64::from_str_radix(&before.locator, 16)?;
    // Another session of the same slot, so of the same worker; and the living one, without its key.
    let mut lengths = Vec::new();
    for locator in [known ^ 1, known] {
        let mut request = vec![0; 160];
        request[0] = MessageType::ReattachRequest as u8;
        request[1] = 1 << 4;
        request[4..12].copy_from_slice(&locator.to_be_bytes());
        request[12..20].copy_from_slice(&9_u64.to_be_bytes());
        stranger.send_to(&request, lab.gateway_endpoint(false))?;
        let mut answer = [0; 2_000];
        let len = stranger.recv(&mut answer).context("no answer to a reattach")?;
        ensure!(
            answer[0] == MessageType::SessionReset as u8 && len < request.len(),
            "{len} bytes: {:?}",
            &answer[..len]
        );
        lengths.push(len);
    }
    ensure!(lengths[0] == lengths[1], "the answers tell known from unknown: {lengths:?} bytes");
    lab.core.ip("route del local 198.18.0.0/16 dev lo")?;
    tunnel.is_undisturbed(&before)
}

fn flapping(lab: &Lab) -> Result<()> {
    lab.relay.set(WIFI.path, WIFI_PATH)?;
    lab.relay.set(LTE.path, LTE_PATH)?;
    let mut ends = Ends::new(lab, false)?;
    ends.gateway.policy = "switching.max_switches_per_min = 2".to_owned();
    let tunnel = ends.open(lab)?;
    let before = tunnel.session()?;
    let flap = |down: &Uplink, up: &Uplink| -> Result<()> {
        tunnel.wait_for_standby(up)?;
        lab.uplink_down(down)?;
        let there = |status: &crate::programs::Status| {
            status.state == "ATTACHED" && status.active_interface.as_deref() == Some(up.interface)
        };
        tunnel.client.wait_for("the flap to be followed", Duration::from_secs(5), there)?;
        lab.uplink_up(down)
    };
    flap(&WIFI, &LTE)?;
    flap(&LTE, &WIFI)?;
    // The third move within a minute is one too many.
    tunnel.wait_for_standby(&LTE)?;
    lab.uplink_down(&WIFI)?;
    tunnel.client.wait_for("the brake", Duration::from_secs(5), |status| status.state == "DEGRADED")?;
    let after = tunnel.session()?;
    ensure!(after.locator == before.locator && after.switches == 2, "the gateway says {after:?}");
    Ok(())
}

fn sleep(lab: &Lab) -> Result<()> {
    let tunnel = Tunnel::open(lab, false)?;
    let before = tunnel.session()?;
    tunnel.client.process().signal(Signal::SIGSTOP);
    // Longer than transport_dead_ms of the profile `mobile`, far less than its transport_lost_ttl_ms.
    thread::sleep(Duration::from_secs(3));
    let lost = tunnel.session()?;
    tunnel.client.process().signal(Signal::SIGCONT);
    ensure!(lost.state != "ATTACHED", "the gateway did not notice: {lost:?}");
    let awake = |status: &crate::programs::Status| status.state == "ATTACHED" && status.epoch > before.epoch;
    tunnel.client.wait_for("the session to be taken up again", Duration::from_secs(8), awake)?;
    let after = tunnel.session()?;
    ensure!(after.locator == before.locator && after.state == "ATTACHED", "the gateway says {after:?}");
    tunnel.probe(false).map(drop)
}
