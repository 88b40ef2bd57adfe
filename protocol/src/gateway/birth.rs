//! What the slow path hands to the owner of a new session.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::Sources;
use crate::ident::{Arrival, Locator, PublicKey, SessionIdentity};
use crate::keys::Root;
use crate::policy::Policy;

/// A session in BIRTH: the handshake is answered, the keys are not yet confirmed.
pub struct Birth {
    /// Its name on the wire.
    pub locator: Locator,
    /// Its identity.
    pub identity: SessionIdentity,
    /// The client's long-term key.
    pub client: PublicKey,
    /// Index of its inner addresses in the pool.
    pub inner_index: u32,
    /// Its inner IPv4 address.
    pub inner_v4: Option<Ipv4Addr>,
    /// Its inner IPv6 address.
    pub inner_v6: Option<Ipv6Addr>,
    /// The root of its keys.
    pub root: Root,
    /// The handshake hash, which HELLO_CONFIRM must repeat.
    pub handshake_hash: [u8; 32],
    /// The policy snapshot (§10).
    pub policy: Arc<Policy>,
    /// Where its client may come from.
    pub sources: Sources,
    /// Where HELLO_INIT came from; HELLO_CONFIRM must come from there too (HS-5).
    pub arrival: Arrival,
    /// The client's session time in HELLO_INIT, in milliseconds (AR-5).
    pub client_time_ms: u64,
}
