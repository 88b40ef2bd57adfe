//! One step of the gateway: what came in, or what else made it work.

use std::net::SocketAddr;

use jumpgate_protocol::ident::Locator;
use jumpgate_protocol::wire::MessageType;

/// Why the gateway works.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// A timer ran out.
    Timer,
    /// The operator, or the desk on behalf of a successor, ends a session.
    Operator,
    /// A datagram.
    Datagram(Incoming),
}

/// A datagram as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// Its type, if it has one.
    pub kind: Option<MessageType>,
    /// From where.
    pub from: SocketAddr,
    /// The session that its header names.
    pub locator: Locator,
    /// The counter in its header.
    pub counter: u64,
    /// The tag of its epoch; DATA has one, control messages have 0.
    pub tag: u8,
    /// Its length.
    pub bytes: usize,
    /// The network changed it, or nobody but an attacker made it.
    pub forged: bool,
    /// The same bytes were accepted before.
    pub replay: bool,
}

impl Incoming {
    /// The peer has made it and means it now.
    pub const fn is_fresh(&self) -> bool {
        !self.forged && !self.replay
    }
}
