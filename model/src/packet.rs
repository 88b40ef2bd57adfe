//! Datagrams as the network and the attacker see them, and what only the model knows of them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use jumpgate_protocol_woven::wire::{Header, MessageType};

/// Who sealed a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sealer {
    /// The client.
    Client,
    /// The gateway.
    Gateway,
}

/// What stands sealed in a REATTACH_REQUEST; the model knows it because it watched the client write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// The epoch that it names.
    pub epoch: u64,
    /// Its cause is HARD_DEAD, which is exempt from the cooldown (SM-16).
    pub hard_dead: bool,
}

/// A datagram that an end made, as the attacker keeps it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Captured {
    /// Who made it.
    pub by: Sealer,
    /// The path that it was sent on, 0 or 1; none if it went to the attacker's own address.
    pub path: Option<u8>,
    /// Its type.
    pub kind: MessageType,
    /// Its counter.
    pub counter: u64,
    /// The UDP payload.
    pub bytes: Arc<[u8]>,
    /// Only of a REATTACH_REQUEST.
    pub asked: Option<Asked>,
    /// The address from which the gateway took it first, if it did: whatever comes after is a replay.
    pub taken_from: Option<SocketAddr>,
    /// The client took it.
    pub taken: bool,
}

impl Captured {
    /// A datagram as it was sent; none if it is not a message of a session.
    pub fn new(by: Sealer, path: Option<u8>, bytes: &[u8], asked: Option<Asked>) -> Option<Self> {
        let header = Header::parse(bytes).ok()?;
        let (kind, counter) = (header.kind, header.counter);
        let asked = asked.filter(|_| kind == MessageType::ReattachRequest);
        Some(Self { by, path, kind, counter, bytes: bytes.into(), asked, taken_from: None, taken: false })
    }

    /// Whether its receiver has taken it already.
    pub const fn is_used(&self) -> bool {
        match self.by {
            Sealer::Client => self.taken_from.is_some(),
            Sealer::Gateway => self.taken,
        }
    }
}

impl fmt::Debug for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.counter)
    }
}

/// How many datagrams of a type the attacker keeps; the newest.
pub const fn kept(kind: MessageType) -> usize {
    match kind {
        MessageType::ReattachRequest | MessageType::ReattachAck | MessageType::Data => 2,
        _ => 1,
    }
}
