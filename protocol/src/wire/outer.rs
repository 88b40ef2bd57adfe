//! The messages around a session, before it has keys or after they are gone: HELLO_INIT, HELLO_RETRY, HELLO_ACK,
//! SESSION_RESET. None has a counter or a tag of a session key.

use zerocopy::byteorder::network_endian::{U16, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{HELLO_LEN, MessageType, VERSION, WireError};
use crate::crypto::equal_in_constant_time;
use crate::ident::Locator;

/// Length of a cookie in bytes.
pub const COOKIE_LEN: usize = 16;
/// Length of the digest that names a HELLO_INIT in the answers to it, in bytes.
pub const DIGEST_LEN: usize = 16;
/// Length of a reset token in bytes.
pub const RESET_TOKEN_LEN: usize = 16;
/// Length of the gate MAC in bytes.
pub const GATE_MAC_LEN: usize = 16;
/// Room for the Noise message in HELLO_INIT, in bytes: what is left of [`HELLO_LEN`].
pub const HELLO_NOISE_MAX: usize = HELLO_LEN - 4 - COOKIE_LEN - 2 - GATE_MAC_LEN;
/// Bytes of HELLO_ACK before its Noise message.
pub const HELLO_ACK_PREFIX: usize = 4 + DIGEST_LEN + 2;
/// Longest Noise message in HELLO_ACK, in bytes: no reply is longer than HELLO_INIT (HS-2).
pub const HELLO_ACK_NOISE_MAX: usize = HELLO_LEN - HELLO_ACK_PREFIX;

/// Flag in HELLO_INIT: the handshake is Noise_IKpsk2.
const FLAG_PSK: u8 = 1;

/// M01 as laid out on the wire.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct HelloInit {
    kind: u8,
    version_flags: u8,
    suites: U16,
    cookie: [u8; COOKIE_LEN],
    noise_len: U16,
    noise: [u8; HELLO_NOISE_MAX],
    gate_mac: [u8; GATE_MAC_LEN],
}

/// M02: come again with this cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct HelloRetry {
    kind: u8,
    version_flags: u8,
    reserved: [u8; 2],
    /// Digest of the HELLO_INIT answered.
    pub digest: [u8; DIGEST_LEN],
    /// What the next HELLO_INIT must carry.
    pub cookie: [u8; COOKIE_LEN],
}

/// M03 as laid out on the wire, up to its Noise message.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHelloAck {
    kind: u8,
    version_flags: u8,
    reserved: [u8; 2],
    digest: [u8; DIGEST_LEN],
    noise_len: U16,
}

/// M18 as laid out on the wire.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawSessionReset {
    kind: u8,
    version_flags: u8,
    reserved: [u8; 2],
    locator: U64,
    token: [u8; RESET_TOKEN_LEN],
}

const _: () = assert!(size_of::<HelloInit>() == HELLO_LEN && size_of::<RawHelloAck>() == HELLO_ACK_PREFIX);

/// View of M03: the answer to a HELLO_INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloAck<'a> {
    /// Digest of the HELLO_INIT answered.
    pub digest: [u8; DIGEST_LEN],
    /// The second message of the handshake.
    pub noise: &'a [u8],
}

/// M18: the gateway knows no such session, and proves that by the token (RF-3).
#[derive(Clone, Copy, Debug)]
pub struct SessionReset {
    /// Name of the session.
    pub locator: Locator,
    /// Known only to the client of that session and to whoever may own its slot.
    pub token: [u8; RESET_TOKEN_LEN],
}

impl HelloInit {
    /// Length of the bytes that [`HelloInit::offer`] gives.
    pub const OFFER_LEN: usize = 4;

    /// A message without cookie and MAC. `noise` is at most [`HELLO_NOISE_MAX`] long.
    pub(crate) fn new(suites: u16, psk: bool, noise: &[u8]) -> Self {
        let mut hello = Self::new_zeroed();
        hello.kind = MessageType::HelloInit as u8;
        hello.version_flags = VERSION << 4 | if psk { FLAG_PSK } else { 0 };
        hello.suites = suites.into();
        hello.noise_len = (noise.len() as u16).into();
        hello.noise[..noise.len()].copy_from_slice(noise);
        hello
    }

    /// A view of a datagram that has length, type and version of a HELLO_INIT, and room for its Noise message (HS-3).
    ///
    /// # Errors
    /// It has not.
    pub fn view(packet: &[u8]) -> Result<&Self, WireError> {
        expect(packet, MessageType::HelloInit)?;
        let hello = Self::ref_from_bytes(packet).map_err(|_| wrong_length(packet, HELLO_LEN))?;
        if usize::from(hello.noise_len.get()) > HELLO_NOISE_MAX {
            return Err(WireError::Malformed);
        }
        Ok(hello)
    }

    /// Type, version, flags and suites in full: what the prologue of the handshake covers (HS-1).
    pub fn offer(&self) -> &[u8] {
        &self.as_bytes()[..Self::OFFER_LEN]
    }

    /// The suites that the client offers: bit 0 for ChaCha20-Poly1305, bit 1 for AES-256-GCM (reserved).
    pub fn suites(&self) -> u16 {
        self.suites.get()
    }

    /// Whether the handshake uses a pre-shared key.
    pub fn has_psk(&self) -> bool {
        self.version_flags & FLAG_PSK != 0
    }

    /// The cookie, if there is one.
    pub fn cookie(&self) -> Option<&[u8; COOKIE_LEN]> {
        (self.cookie != [0; COOKIE_LEN]).then_some(&self.cookie)
    }

    /// The first message of the handshake.
    pub fn noise(&self) -> &[u8] {
        &self.noise[..usize::from(self.noise_len.get())]
    }

    /// The MAC that shows that the sender knows the gateway (HS-2).
    pub fn gate_mac(&self) -> &[u8; GATE_MAC_LEN] {
        &self.gate_mac
    }

    /// What the gate MAC covers: everything before it.
    pub fn gated(&self) -> &[u8] {
        &self.as_bytes()[..HELLO_LEN - GATE_MAC_LEN]
    }

    pub(crate) fn set_cookie(&mut self, cookie: [u8; COOKIE_LEN]) {
        self.cookie = cookie;
    }

    pub(crate) fn set_gate_mac(&mut self, mac: [u8; GATE_MAC_LEN]) {
        self.gate_mac = mac;
    }

    /// The name of this message in the answers to it.
    pub fn digest(&self) -> [u8; DIGEST_LEN] {
        let mut digest = [0; DIGEST_LEN];
        digest.copy_from_slice(&blake3::hash(self.as_bytes()).as_bytes()[..DIGEST_LEN]);
        digest
    }
}

impl HelloRetry {
    /// Length in bytes.
    pub const LEN: usize = size_of::<Self>();

    /// The answer to the HELLO_INIT with that digest.
    pub const fn new(digest: [u8; DIGEST_LEN], cookie: [u8; COOKIE_LEN]) -> Self {
        Self { kind: MessageType::HelloRetry as u8, version_flags: VERSION << 4, reserved: [0; 2], digest, cookie }
    }

    /// Reads a whole datagram.
    ///
    /// # Errors
    /// Another type, version or length.
    pub fn parse(packet: &[u8]) -> Result<Self, WireError> {
        expect(packet, MessageType::HelloRetry)?;
        let retry = Self::read_from_bytes(packet).map_err(|_| wrong_length(packet, Self::LEN))?;
        reserved_zero(retry.version_flags, retry.reserved)?;
        Ok(retry)
    }

    /// The datagram.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes.copy_from_slice(self.as_bytes());
        bytes
    }
}

impl<'a> HelloAck<'a> {
    /// A view of a whole datagram.
    ///
    /// # Errors
    /// Another type, version or length.
    pub fn parse(packet: &'a [u8]) -> Result<Self, WireError> {
        expect(packet, MessageType::HelloAck)?;
        if packet.len() > HELLO_LEN {
            return Err(WireError::Oversized);
        }
        let (raw, noise) = RawHelloAck::ref_from_prefix(packet).map_err(|_| WireError::Truncated)?;
        reserved_zero(raw.version_flags, raw.reserved)?;
        if noise.len() != usize::from(raw.noise_len.get()) {
            return Err(WireError::Malformed);
        }
        Ok(Self { digest: raw.digest, noise })
    }

    /// The datagram. `noise` is at most [`HELLO_ACK_NOISE_MAX`] long.
    pub fn to_bytes(&self) -> Vec<u8> {
        let raw = RawHelloAck {
            kind: MessageType::HelloAck as u8,
            version_flags: VERSION << 4,
            reserved: [0; 2],
            digest: self.digest,
            noise_len: (self.noise.len() as u16).into(),
        };
        [raw.as_bytes(), self.noise].concat()
    }
}

impl SessionReset {
    /// Length in bytes.
    pub const LEN: usize = size_of::<RawSessionReset>();

    /// Reads a whole datagram.
    ///
    /// # Errors
    /// Another type, version or length.
    pub fn parse(packet: &[u8]) -> Result<Self, WireError> {
        expect(packet, MessageType::SessionReset)?;
        let raw = RawSessionReset::ref_from_bytes(packet).map_err(|_| wrong_length(packet, Self::LEN))?;
        reserved_zero(raw.version_flags, raw.reserved)?;
        Ok(Self { locator: Locator(raw.locator.get()), token: raw.token })
    }

    /// The datagram.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let raw = RawSessionReset {
            kind: MessageType::SessionReset as u8,
            version_flags: VERSION << 4,
            reserved: [0; 2],
            locator: self.locator.0.into(),
            token: self.token,
        };
        let mut bytes = [0; Self::LEN];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// Whether this ends the session with that locator and token; in constant time as to the token (RF-3).
    pub fn ends(&self, locator: Locator, token: &[u8; RESET_TOKEN_LEN]) -> bool {
        equal_in_constant_time(&self.token, token) && self.locator == locator
    }
}

/// Type and version of a datagram.
fn expect(packet: &[u8], kind: MessageType) -> Result<(), WireError> {
    if MessageType::of(packet)? == kind { Ok(()) } else { Err(WireError::UnknownType) }
}

/// What version 1 leaves unused in messages that nothing authenticates as a whole.
const fn reserved_zero(version_flags: u8, reserved: [u8; 2]) -> Result<(), WireError> {
    match (version_flags & 0x0f, reserved) {
        (0, [0, 0]) => Ok(()),
        _ => Err(WireError::Malformed),
    }
}

const fn wrong_length(packet: &[u8], len: usize) -> WireError {
    if packet.len() < len { WireError::Truncated } else { WireError::Oversized }
}
