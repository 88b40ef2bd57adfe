//! What the two ends tell each other inside the Noise messages.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use arrayvec::ArrayVec;

use super::noise;
use crate::ident::{Locator, SessionIdentity};
use crate::reason::Reason;
use crate::wire::outer::{HELLO_ACK_NOISE_MAX, HELLO_NOISE_MAX};
use crate::wire::{Field, PolicySnapshot, RESET_TOKEN_LEN, RequestedPolicy, ReservedZero, WireError, message};

/// Number of the one suite of version 1 in HELLO_ACK (KY-5).
pub const SUITE_CHACHA20_POLY1305: u8 = 1;
/// Bit of suite 1 among the offered suites in HELLO_INIT.
pub(super) const OFFER_CHACHA20_POLY1305: u16 = 1;

/// Length of the status at the front of the payload of HELLO_ACK, in bytes.
const STATUS_LEN: usize = 2;
/// Status of a HELLO_ACK that brings a session; every other one is a reason code.
const STATUS_OK: u16 = 0;

message! {
    /// Payload of the first Noise message, in HELLO_INIT (M01).
    HelloRequest {
        hello_counter: u64 = "rises with every handshake of this key",
        client_time_ms: u64 = "client's session time in ms (AR-5)",
        replaces: Option<Locator> = "0; or 1 and the locator of an old session of the same key (HS-8)",
        capabilities: u32 = "reserved, 0",
        requested_policy: RequestedPolicy = "count; then pairs of key number (2) and value (8); then room",
    }

    /// Payload of the second Noise message, in HELLO_ACK (M03), after a status of 0.
    HelloReply {
        locator: Locator = "name of the session on the wire",
        identity: SessionIdentity = "identity of the session (SL-1)",
        binding_epoch: u64 = "`binding_epoch` of the first binding: 1",
        suite: u8 = "1 ChaCha20-Poly1305",
        policy_sequence: u32 = "number of the policy in the session",
        policy_hash: [u8; 32] = "hash of the policy",
        policy: PolicySnapshot = "length; then the policy snapshot; then room",
        gateway_time_ms: u64 = "gateway's session time in ms",
        inner_v4: Option<(Ipv4Addr, u8)> = "0; or 1, the client's inner IPv4 address and prefix length",
        inner_v6: Option<(Ipv6Addr, u8)> = "0; or 1, the client's inner IPv6 address and prefix length",
        mtu: u16 = "MTU inside the tunnel, in bytes",
        endpoints: ArrayVec<SocketAddr, 4> = "count; then where else the gateway listens; then room",
        reset_token: [u8; RESET_TOKEN_LEN] = "what a SESSION_RESET must show",
        next_locator: ReservedZero = "reserved, 0 (SL-5)",
    }
}

const _: () = assert!(HelloRequest::FIELDS_LEN + noise::FIRST_OVERHEAD <= HELLO_NOISE_MAX);
const _: () = assert!(HelloReply::MAX_LEN + noise::SECOND_OVERHEAD <= HELLO_ACK_NOISE_MAX);

impl HelloRequest {
    /// Length of the payload in bytes.
    pub const LEN: usize = Self::FIELDS_LEN;

    /// Reads what a client put into its first Noise message.
    ///
    /// # Errors
    /// Too short, or a field holds what it must not.
    pub fn parse(payload: &[u8]) -> Result<Self, WireError> {
        Self::read_fields(payload)
    }

    /// The payload.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        self.write_fields(&mut bytes);
        bytes
    }
}

impl HelloReply {
    /// Number of suite 1.
    pub const SUITE_CHACHA20_POLY1305: u8 = SUITE_CHACHA20_POLY1305;
    /// Length of the payload in bytes, status included.
    pub const MAX_LEN: usize = STATUS_LEN + Self::FIELDS_LEN;

    /// Reads what a gateway put into the second Noise message: a session, or why there is none.
    ///
    /// # Errors
    /// Too short, or a field holds what it must not.
    pub fn parse(payload: &[u8]) -> Result<Result<Self, Reason>, WireError> {
        let (status, fields) = payload.split_at_checked(STATUS_LEN).ok_or(WireError::Truncated)?;
        match u16::read(status) {
            Some(STATUS_OK) => {}
            Some(number) => return Reason::from_number(number).map(Err).ok_or(WireError::Malformed),
            None => return Err(WireError::Truncated),
        }
        let reply = Self::read_fields(fields)?;
        let prefix_fits = reply.inner_v4.is_none_or(|(_, prefix)| u32::from(prefix) <= Ipv4Addr::BITS)
            && reply.inner_v6.is_none_or(|(_, prefix)| u32::from(prefix) <= Ipv6Addr::BITS);
        if prefix_fits && reply.binding_epoch == 1 { Ok(Ok(reply)) } else { Err(WireError::Malformed) }
    }

    /// The payload.
    pub fn to_bytes(&self) -> [u8; Self::MAX_LEN] {
        let mut bytes = [0; Self::MAX_LEN];
        self.write_fields(&mut bytes[STATUS_LEN..]);
        bytes
    }

    /// The payload of a refusal: the status and nothing else (HS-4).
    pub(super) const fn refusal(reason: Reason) -> [u8; STATUS_LEN] {
        reason.number().to_be_bytes()
    }
}
