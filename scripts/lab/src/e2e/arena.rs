//! What attacks begin with: a victim with traffic, an attacker on the gateway's link, and perhaps a hostile client.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jumpgate_protocol::reason::Reason;

use super::tunnel::{Ends, Tunnel, peer, quieten};
use super::{trace, wait_for};
use crate::attacker::{Member, Target, Wire, request};
use crate::probe::{Interruption, Probe};
use crate::programs::{KeyPair, Session};
use crate::topology::{CORE_V4, FORGED, Lab};

/// The name of the hostile client.
pub(super) const MALLORY: &str = "mallory";
/// A second one, for what it takes two keys to do.
const MALLET: &str = "mallet";
/// Longest time without an answer through the victim's tunnel that still counts as undisturbed. A healthy tunnel never
/// comes near it; a busy machine does.
const CALM: Duration = Duration::from_millis(1_000);
/// How long the gateway may take to have counted what was sent to it.
const COUNT_LIMIT: Duration = Duration::from_secs(3);

/// Victim, gateway, and an attacker who also owns a configured client key. The profile is `default`, whose silence is
/// long enough that a busy machine does not look like an attack.
pub(super) struct Arena<'lab> {
    pub(super) tunnel: Tunnel<'lab>,
    pub(super) wire: Wire,
    key: KeyPair,
    second: KeyPair,
}

/// What was true of the victim before an attack, and what its traffic saw since.
pub(super) struct Watch<'a> {
    tunnel: &'a Tunnel<'a>,
    before: Session,
    counted: BTreeMap<String, u64>,
    /// Reason codes that were counted on purpose: the audit trace has to name them too.
    refused: RefCell<BTreeSet<String>>,
    probe: Probe,
    since: Instant,
}

impl<'lab> Arena<'lab> {
    /// Opens it, with further lines of the gateway's policy.
    pub(super) fn open(lab: &'lab Lab, policy: &str) -> Result<Self> {
        quieten(lab)?;
        let mut ends = Ends::new(lab, false)?;
        (ends.gateway.profile, ends.gateway.policy) = ("default", policy.to_owned());
        let key = ends.programs.key_pair(&lab.run, MALLORY)?;
        let second = ends.programs.key_pair(&lab.run, MALLET)?;
        ends.gateway.peers.extend([peer(MALLORY, &key), peer(MALLET, &second)]);
        Ok(Self { second, tunnel: ends.open(lab)?, wire: Wire::open(lab)?, key })
    }

    /// Begins to watch the victim.
    pub(super) fn watch(&self) -> Result<Watch<'_>> {
        Watch::begin(&self.tunnel)
    }

    /// The gateway, as its clients know it.
    pub(super) fn target(&self) -> Target<'_> {
        Target { public: &self.tunnel.gateway_options.key.public, endpoint: self.endpoint() }
    }

    /// Where the gateway listens.
    pub(super) fn endpoint(&self) -> SocketAddr {
        self.tunnel.lab.gateway_endpoint(false)
    }

    /// The hostile client's key.
    pub(super) fn key(&self) -> &KeyPair {
        &self.key
    }

    /// The key of a second hostile client.
    pub(super) fn second_key(&self) -> &KeyPair {
        &self.second
    }

    /// A socket of the hostile client; each has a port of its own.
    pub(super) fn socket(&self) -> Result<UdpSocket> {
        socket_at(self.tunnel.lab, CORE_V4)
    }

    /// The hostile client with its first session.
    pub(super) fn join(&self) -> Result<Member> {
        Member::join(self.socket()?, &self.target(), &self.key, &request(1))
    }

    /// The hostile client's session, as the gateway has it.
    pub(super) fn mallory(&self) -> Result<Session> {
        self.tunnel.gateway.session_of(MALLORY)
    }
}

impl<'a> Watch<'a> {
    /// Begins to watch a session that both ends hold to be well.
    pub(super) fn begin(tunnel: &'a Tunnel<'a>) -> Result<Self> {
        let probe = tunnel.probe(false)?;
        let before = tunnel.session()?;
        ensure!(before.state == "ATTACHED", "it is not well before the attack: {before:?}");
        let counted = tunnel.gateway.counters()?;
        Ok(Self { tunnel, before, counted, refused: RefCell::default(), probe, since: Instant::now() })
    }

    /// The victim before the attack.
    pub(super) fn before(&self) -> &Session {
        &self.before
    }

    /// By how much a counter has grown since.
    pub(super) fn grown(&self, name: &str) -> Result<u64> {
        let before = self.counted.get(name).copied().unwrap_or(0);
        Ok(self.tunnel.gateway.counter(name)? - before)
    }

    /// Waits until a counter has grown by at least `by`. If it is a reason code, [`Watch::is_undisturbed`] wants to
    /// find it in the audit trace.
    pub(super) fn counts(&self, name: &str, by: u64) -> Result<()> {
        if Reason::ALL.iter().any(|reason| reason.name() == name) {
            self.refused.borrow_mut().insert(name.to_owned());
        }
        wait_for(&format!("the gateway to count {by} x {name}"), COUNT_LIMIT, || Ok(self.grown(name)? >= by))
            .with_context(|| {
                format!("the gateway counted:\n{}", self.tunnel.gateway.counters_text().unwrap_or_default())
            })
    }

    /// Whether the victim's traffic flows now.
    pub(super) fn flows(&self) -> bool {
        self.probe.flows(10)
    }

    /// What the victim's traffic saw since the beginning.
    pub(super) fn seen(&self) -> Interruption {
        let end = Instant::now();
        self.probe.settle();
        self.probe.window(self.since, end)
    }

    /// Checks that the victim's session is what it was, in every respect, and that its traffic went on all the while.
    pub(super) fn is_undisturbed(&self) -> Result<()> {
        let seen = self.seen();
        let after = self.tunnel.session()?;
        ensure!(after.is_as(&self.before), "the session changed: {:?} became {after:?}", self.before);
        ensure!(seen.outage <= CALM, "the victim's traffic stood still for {:?}: {seen:?}", seen.outage);
        wait_for("the victim's traffic to flow", COUNT_LIMIT, || Ok(self.flows()))?;
        trace::tells(self.tunnel.lab, self.refused.take())
    }
}

/// A socket in the core at one of its addresses.
pub(super) fn socket_at(lab: &Lab, address: Ipv4Addr) -> Result<UdpSocket> {
    Ok(lab.core.enter(|| UdpSocket::bind((address, 0)))??)
}

/// One of 131 072 forged senders.
pub(super) fn forged_source(number: u32) -> SocketAddr {
    let [_, high, middle, low] = number.to_be_bytes();
    let address = Ipv4Addr::new(FORGED[0], FORGED[1] + (high & 1), middle, low);
    SocketAddr::new(IpAddr::V4(address), 1_024 + u16::from(low))
}
