//! Oracles over the packets of a run, by means that the protocol code does not share: nonces are never used twice,
//! copies change nothing, and nobody is flooded through the gateway. Memory is bounded by sessions, not by packets.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use arrayvec::ArrayVec;
use jumpgate_protocol::ident::Locator;
use jumpgate_protocol::machine::Transition;
use jumpgate_protocol::wire::{Header, MessageType};

/// Bytes to an unvalidated binding per byte from its tuple (INV-33).
const AMPLIFICATION_FACTOR: u64 = 3;
/// Of each kind of message so many may still be sent again, byte for byte: the first one (the answer to HELLO_CONFIRM)
/// and the newest ones (a request, an answer from a cache, TERMINATE).
const REPEATABLE: usize = 3;
/// Kinds of control messages of one direction that there can be.
const KINDS: usize = 10;

/// Who sealed a packet; each direction has keys of its own (KY-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sealer {
    /// A client.
    Client,
    /// The gateway.
    Gateway,
}

/// INV-36: under one key no nonce seals two different packets. Counters rise, over all control messages of a session
/// and over its DATA of a key epoch; whatever does not rise must be a copy of what was sent.
#[derive(Default)]
pub struct NonceOracle {
    streams: HashMap<(Sealer, Locator, bool), Stream>,
    count: u64,
}

#[derive(Default)]
struct Stream {
    /// The newest key epoch, whole: only its low 8 bits are on the wire.
    key_epoch: u32,
    highest: u64,
    latest: ArrayVec<Sealed, { KINDS * REPEATABLE }>,
}

/// A control message that may come again.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sealed {
    kind: MessageType,
    counter: u64,
    bytes: u64,
}

impl NonceOracle {
    /// Takes a packet as it was sent. Gives the violation, if it is one.
    pub fn sealed(&mut self, by: Sealer, packet: &[u8]) -> Option<String> {
        let header = Header::parse(packet).ok()?;
        let is_data = header.kind == MessageType::Data;
        let stream = self.streams.entry((by, header.locator, is_data)).or_default();
        let step = header.key_epoch.wrapping_sub(stream.key_epoch as u8).cast_signed();
        if is_data && step > 0 {
            // DATA counters begin anew with each key (KY-5); control counters never do (AR-2).
            *stream = Stream { key_epoch: stream.key_epoch + step.cast_unsigned() as u32, ..Stream::default() };
        }
        let sealed = Sealed { kind: header.kind, counter: header.counter, bytes: fingerprint(packet) };
        if (step >= 0 || !is_data) && header.counter > stream.highest {
            stream.highest = header.counter;
            self.count += 1;
            if !is_data {
                stream.remember(sealed);
            }
            return None;
        }
        let highest = stream.highest;
        (!stream.latest.contains(&sealed)).then(|| format!("INV-36: {by:?} sealed below {highest}: {header:?}"))
    }

    /// Packets sealed, copies not counted.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// Forgets a session of which nothing is sent any more.
    pub(crate) fn forget(&mut self, locator: Locator) {
        for by in [Sealer::Client, Sealer::Gateway] {
            self.streams.remove(&(by, locator, true));
            self.streams.remove(&(by, locator, false));
        }
    }
}

impl Stream {
    fn remember(&mut self, sealed: Sealed) {
        let same = self.latest.iter().filter(|known| known.kind == sealed.kind).count();
        if same >= REPEATABLE || self.latest.is_full() {
            let second = self.latest.iter().enumerate().filter(|(_, known)| known.kind == sealed.kind).nth(1);
            let place = second.map_or(0, |(place, _)| place);
            self.latest.remove(place);
        }
        self.latest.push(sealed);
    }
}

impl Default for ReplayOracle {
    /// Knows a million packets again: more than any copy is late, of all sessions of a gateway.
    fn default() -> Self {
        Self::remembering(1 << 20)
    }
}

/// What was accepted once: every further delivery of the same bytes is a replay (INV-12). Remembers the newest packets,
/// at least as many as it was made for.
pub struct ReplayOracle {
    capacity: usize,
    recent: HashSet<u64>,
    older: HashSet<u64>,
}

impl ReplayOracle {
    /// An oracle that knows the newest packets again, at least that many.
    pub fn remembering(capacity: usize) -> Self {
        Self { capacity, recent: HashSet::new(), older: HashSet::new() }
    }

    /// Whether the packet of that [`fingerprint`] was accepted before.
    pub fn is_replay(&self, fingerprint: u64) -> bool {
        self.recent.contains(&fingerprint) || self.older.contains(&fingerprint)
    }

    /// The packet of that [`fingerprint`] was accepted.
    pub fn accepted(&mut self, fingerprint: u64) {
        if self.recent.len() >= self.capacity {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(fingerprint);
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
    pub fn transition(&mut self, locator: Locator, transition: &Transition, arriving: Option<(SocketAddr, usize)>) {
        match transition.active.filter(|binding| !binding.validated) {
            Some(binding) => {
                let known = self.0.get(&locator).is_some_and(|account| account.epoch == binding.epoch);
                if !known {
                    let from_there = arriving.filter(|(from, _)| *from == binding.tuple.peer);
                    let received = from_there.map_or(0, |(_, bytes)| bytes as u64);
                    let account = Account { peer: binding.tuple.peer, epoch: binding.epoch, received, sent: 0 };
                    self.0.insert(locator, account);
                }
            }
            None => {
                self.0.remove(&locator);
            }
        }
    }

    /// The active binding is validated now.
    pub fn validated(&mut self, locator: Locator) {
        self.0.remove(&locator);
    }

    /// A fresh packet of the session came from there, before it was worked on.
    pub fn received(&mut self, locator: Locator, peer: SocketAddr, bytes: usize) {
        if let Some(account) = self.0.get_mut(&locator).filter(|account| account.peer == peer) {
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
