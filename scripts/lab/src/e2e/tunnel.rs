//! What most tests begin with: a gateway, a client and a session between them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::wait_for;
use crate::probe::{Interruption, Probe};
use crate::programs::{Client, ClientOptions, Gateway, GatewayOptions, KeyPair, Peer, Programs, Session, Status};
use crate::relay::Profile;
use crate::topology::{LTE, Lab, SERVER_V4, SERVER_V6, Uplink, WIFI};

/// How long a standby path may take to be validated.
const STANDBY_LIMIT: Duration = Duration::from_secs(10);
/// How long a jump may take: more than a recovery window of the profile `mobile`.
const JUMP_LIMIT: Duration = Duration::from_secs(10);
/// What is watched after a jump, so that a relapse is seen.
const AFTERMATH: Duration = Duration::from_millis(600);
/// A path as in a quiet home network.
pub(super) const WIFI_PATH: Profile = path(5.0);
/// A path as in a quiet mobile network.
pub(super) const LTE_PATH: Profile = path(15.0);

const fn path(delay_ms: f64) -> Profile {
    Profile {
        loss: 0.0,
        burst: None,
        loss_only: None,
        delay_ms,
        jitter_ms: 0.0,
        reorder: 0.0,
        reorder_hold_ms: 0.0,
        duplicate: 0.0,
        corrupt: 0.0,
        rate_mbit: None,
        queue_ms: None,
        blackhole: false,
    }
}

/// The name and the key of the one client.
pub(super) const CLIENT: &str = "alice";

/// A gateway and a client with a session.
pub(super) struct Tunnel<'lab> {
    pub(super) lab: &'lab Lab,
    pub(super) programs: Programs,
    pub(super) gateway_options: GatewayOptions,
    // The client before the gateway: it is dropped first and says goodbye.
    pub(super) client: Client,
    pub(super) gateway: Gateway,
}

/// The configuration of both ends, before anything runs.
pub(super) struct Ends {
    pub(super) programs: Programs,
    pub(super) gateway: GatewayOptions,
    pub(super) client: ClientOptions,
}

/// What a jump did.
pub(super) struct Jumped {
    pub(super) before: Session,
    pub(super) after: Session,
    pub(super) seen: Interruption,
}

impl Ends {
    pub(super) fn new(lab: &Lab, ipv6: bool) -> Result<Self> {
        let programs = Programs::find()?;
        let gateway_key = programs.key_pair(&lab.run, "gateway")?;
        let client_key = programs.key_pair(&lab.run, CLIENT)?;
        let client = ClientOptions::new(lab, CLIENT, client_key.clone(), &gateway_key.public, ipv6);
        let gateway = GatewayOptions::new(gateway_key, vec![peer(CLIENT, &client_key)]);
        Ok(Self { programs, gateway, client })
    }

    pub(super) fn open(self, lab: &Lab) -> Result<Tunnel<'_>> {
        let gateway = Gateway::start(lab, &self.programs, &self.gateway)?;
        let client = Client::start(lab, &self.programs, &self.client)?;
        let Self { programs, gateway: gateway_options, .. } = self;
        Ok(Tunnel { lab, programs, gateway_options, client, gateway })
    }
}

/// Gives both paths the quality of a quiet day.
pub(super) fn quieten(lab: &Lab) -> Result<()> {
    lab.relay.set(WIFI.path, WIFI_PATH)?;
    lab.relay.set(LTE.path, LTE_PATH)
}

/// A client that the gateway knows by that key.
pub(super) fn peer(name: &str, key: &KeyPair) -> Peer {
    Peer { name: name.to_owned(), public: key.public.clone(), psk_file: None }
}

impl<'lab> Tunnel<'lab> {
    /// A session over quiet paths.
    pub(super) fn open(lab: &'lab Lab, ipv6: bool) -> Result<Self> {
        quieten(lab)?;
        Ends::new(lab, ipv6)?.open(lab)
    }

    /// A session over quiet paths, with that profile and further lines of the gateway's policy.
    pub(super) fn with_policy(lab: &'lab Lab, profile: &'static str, policy: &str) -> Result<Self> {
        quieten(lab)?;
        let mut ends = Ends::new(lab, false)?;
        (ends.gateway.profile, ends.gateway.policy) = (profile, policy.to_owned());
        ends.open(lab)
    }

    /// The client's session, as the gateway has it.
    pub(super) fn session(&self) -> Result<Session> {
        self.gateway.session_of(CLIENT)
    }

    /// The client's inner IPv4 address.
    pub(super) fn inner_v4(&self) -> Result<Ipv4Addr> {
        self.session()?.inner_v4.context("the session has no inner IPv4 address")
    }

    /// Waits until an uplink that carries nothing is known to work.
    pub(super) fn wait_for_standby(&self, uplink: &Uplink) -> Result<()> {
        let ready = |status: &Status| {
            let mut paths = status.paths.iter();
            status.state == "ATTACHED" && paths.any(|path| path.interface == uplink.interface && path.validated)
        };
        let what = format!("a validated standby path over {}", uplink.interface);
        self.client.wait_for(&what, STANDBY_LIMIT, ready).map(drop)
    }

    /// A probe through the tunnel that is being answered.
    pub(super) fn probe(&self, ipv6: bool) -> Result<Probe> {
        let ip = if ipv6 { IpAddr::V6(SERVER_V6) } else { IpAddr::V4(SERVER_V4) };
        let probe = Probe::start(&self.lab.client, &self.lab.server, SocketAddr::new(ip, 0))?;
        wait_for("answers to the probe through the tunnel", Duration::from_secs(3), || Ok(probe.flows(10)))?;
        Ok(probe)
    }

    /// Checks that packets pass through the tunnel.
    pub(super) fn probe_flows(&self) -> Result<()> {
        self.probe(false).map(drop)
    }

    /// Disturbs the session, waits until both ends are ATTACHED to a newer binding over `to`, and reports what the probe
    /// saw. The session has to be the same one.
    pub(super) fn jump(&self, to: &Uplink, disturb: impl FnOnce() -> Result<()>) -> Result<Jumped> {
        if self.client.status()?.active_interface.as_deref() != Some(to.interface) {
            self.wait_for_standby(to)?;
        }
        let probe = self.probe(false)?;
        let before = self.session()?;
        let started = Instant::now();
        disturb()?;
        let moved = |status: &Status| {
            status.state == "ATTACHED"
                && status.epoch > before.epoch
                && status.active_interface.as_deref() == Some(to.interface)
        };
        let what = format!("the session to move to {}", to.interface);
        self.client.wait_for(&what, JUMP_LIMIT, moved)?;
        wait_for("answers after the jump", JUMP_LIMIT, || Ok(probe.flows(10)))?;
        std::thread::sleep(AFTERMATH);
        let end = Instant::now();
        probe.settle();
        let (seen, after) = (probe.window(started, end), self.session()?);
        ensure!(after.locator == before.locator, "another session: {} became {}", before.locator, after.locator);
        ensure!(after.state == "ATTACHED" && after.validated, "the gateway says {after:?}");
        ensure!(after.epoch == self.client.status()?.epoch, "the two ends differ in their epoch: {after:?}");
        Ok(Jumped { before, after, seen })
    }

    /// Waits until a counter of the gateway has grown by at least `by` above `before`.
    pub(super) fn wait_for_count(&self, name: &str, before: u64, by: u64) -> Result<()> {
        wait_for(&format!("the gateway to count {by} x {name}"), Duration::from_secs(3), || {
            Ok(self.gateway.counter(name)? >= before + by)
        })
        .with_context(|| format!("the gateway counted:\n{}", self.gateway.counters_text().unwrap_or_default()))
    }
}
