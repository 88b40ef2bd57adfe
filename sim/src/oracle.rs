//! Oracles over the packets of a run, by means that the protocol code does not share: nonces are never used twice,
//! copies change nothing, and nobody is flooded through the gateway.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use jumpgate_protocol::ident::Locator;
use jumpgate_protocol::machine::Transition;
use jumpgate_protocol::wire::Header;

/// Bytes to an unvalidated binding per byte from its tuple (INV-33).
const AMPLIFICATION_FACTOR: u64 = 3;

/// Who sealed a packet; each direction has keys of its own (KY-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sealer {
    /// The client.
    Client,
    /// The gateway.
    Gateway,
}

/// INV-36: under one key no nonce seals two different packets. The key follows from direction, session, key epoch and
/// type; with the counter that names the nonce.
#[derive(Default)]
pub struct NonceOracle {
    packets: HashMap<(Sealer, Locator, u32, u8, u64), u64>,
    /// The newest key epoch of each sender, whole: only its low 8 bits are on the wire.
    epochs: HashMap<(Sealer, Locator), u32>,
}

impl NonceOracle {
    /// Takes a packet as it was sent. Gives the violation, if it is one.
    pub fn sealed(&mut self, by: Sealer, packet: &[u8]) -> Option<String> {
        let header = Header::parse(packet).ok()?;
        let newest = self.epochs.entry((by, header.locator)).or_insert(u32::from(header.key_epoch));
        let step = header.key_epoch.wrapping_sub(*newest as u8).cast_signed();
        let key_epoch = newest.wrapping_add_signed(i32::from(step));
        *newest = (*newest).max(key_epoch);
        let nonce = (by, header.locator, key_epoch, header.kind as u8, header.counter);
        let bytes = fingerprint(packet);
        let first = *self.packets.entry(nonce).or_insert(bytes);
        (first != bytes).then(|| format!("INV-36: {by:?} sealed two packets under one nonce: {header:?}"))
    }

    /// Packets seen.
    #[allow(clippy::len_without_is_empty, reason = "a count, not a collection")]
    pub fn len(&self) -> usize {
        self.packets.len()
    }
}

/// What was accepted once: every further delivery of the same bytes is a replay (INV-12).
#[derive(Default)]
pub struct ReplayOracle(HashSet<u64>);

impl ReplayOracle {
    /// Whether these bytes were accepted before.
    pub fn is_replay(&self, packet: &[u8]) -> bool {
        self.0.contains(&fingerprint(packet))
    }

    /// The packet of that [`fingerprint`] was accepted.
    pub fn accepted(&mut self, fingerprint: u64) {
        self.0.insert(fingerprint);
    }
}

/// INV-33: what an unvalidated binding gets, against what came from its tuple.
#[derive(Default)]
pub struct AmplificationOracle(BTreeMap<Locator, Account>);

struct Account {
    peer: SocketAddr,
    epoch: u64,
    received: u64,
    sent: u64,
}

impl AmplificationOracle {
    /// A transition at the gateway, with the packet that is being worked on.
    pub fn transition(&mut self, locator: Locator, transition: &Transition, arriving: (SocketAddr, usize)) {
        match transition.active.filter(|binding| !binding.validated) {
            Some(binding) => {
                let known = self.0.get(&locator).is_some_and(|account| account.epoch == binding.epoch);
                if !known {
                    let received = if arriving.0 == binding.tuple.peer { arriving.1 as u64 } else { 0 };
                    let account = Account { peer: binding.tuple.peer, epoch: binding.epoch, received, sent: 0 };
                    self.0.insert(locator, account);
                }
            }
            None => {
                self.0.remove(&locator);
            }
        }
    }

    /// The active binding has shown that it receives.
    pub fn validated(&mut self, locator: Locator) {
        self.0.remove(&locator);
    }

    /// A packet that is no copy came from there, before it was worked on.
    pub fn received(&mut self, peer: SocketAddr, bytes: usize) {
        for account in self.0.values_mut().filter(|account| account.peer == peer) {
            account.received += bytes as u64;
        }
    }

    /// A packet goes there. Gives the violation, if it is one.
    pub fn sent(&mut self, peer: SocketAddr, packet: &[u8]) -> Option<String> {
        let header = Header::parse(packet).ok()?;
        let account = self.0.get_mut(&header.locator).filter(|account| account.peer == peer)?;
        account.sent += packet.len() as u64;
        (account.sent > account.received * AMPLIFICATION_FACTOR).then(|| {
            let (sent, received) = (account.sent, account.received);
            format!("INV-33: {sent} bytes to an unvalidated binding for {received}, the last a {}", header.kind)
        })
    }
}

/// A packet as one number.
pub fn fingerprint(packet: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    packet.hash(&mut hasher);
    hasher.finish()
}
