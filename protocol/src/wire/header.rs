//! The header that all messages of a session share, and their lengths (C00).

use zerocopy::byteorder::network_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{CONTROL_MAX, HEADER_LEN, MessageType, TAG_LEN, VERSION, WireError, body};
use crate::crypto::NONCE_LEN;
use crate::ident::Locator;

/// The first 20 bytes of a message of a session, in the clear and authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: MessageType,
    /// Four bits, all reserved: sent as 0, ignored when received.
    pub flags: u8,
    /// Low 8 bits of the key epoch.
    pub key_epoch: u8,
    /// DATA: low 8 bits of the sender's `binding_epoch`. Else 0.
    pub tag: u8,
    /// The session.
    pub locator: Locator,
    /// DATA: the data counter; else the sender's control counter, which is the nonce of a REATTACH_REQUEST.
    pub counter: u64,
}

/// The same as laid out on the wire.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    pub(super) kind: u8,
    pub(super) version_flags: u8,
    pub(super) key_epoch: u8,
    pub(super) tag: u8,
    pub(super) locator: U64,
    pub(super) counter: U64,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_LEN);

impl Header {
    /// Reads the header of a whole datagram, whose length it checks too (C00).
    ///
    /// # Errors
    /// Not a message of a session, not of our version, or of a length or counter that its type does not allow.
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, WireError> {
        let kind = MessageType::of(packet)?;
        let (raw, _) = RawHeader::ref_from_prefix(packet).map_err(|_| WireError::Truncated)?;
        let (shortest, longest) = sealed_lengths(kind).ok_or(WireError::UnknownType)?;
        if packet.len() < shortest {
            return Err(WireError::Truncated);
        }
        if packet.len() > longest {
            return Err(WireError::Oversized);
        }
        let header = Self {
            kind,
            flags: raw.version_flags & 0x0f,
            key_epoch: raw.key_epoch,
            tag: raw.tag,
            locator: Locator(raw.locator.get()),
            counter: raw.counter.get(),
        };
        // AR-2: a counter never starts at 0 and never reaches its maximum.
        if matches!(header.counter, 0 | u64::MAX) || (kind != MessageType::Data && header.tag != 0) {
            return Err(WireError::Malformed);
        }
        Ok(header)
    }

    /// Writes the header to the front of `packet`.
    ///
    /// # Panics
    /// `packet` is shorter than [`HEADER_LEN`].
    #[inline]
    pub fn emit(&self, packet: &mut [u8]) {
        packet[..HEADER_LEN].copy_from_slice(self.raw().as_bytes());
    }

    #[inline]
    fn raw(&self) -> RawHeader {
        RawHeader {
            kind: self.kind as u8,
            version_flags: VERSION << 4 | (self.flags & 0x0f),
            key_epoch: self.key_epoch,
            tag: self.tag,
            locator: self.locator.0.into(),
            counter: self.counter.into(),
        }
    }

    /// The AEAD nonce (KY-5): 32 bits that are 0 for DATA, else the message type, and the counter. With the type in it,
    /// two control messages of one key can share a nonce only if they share type and counter; then they are the same
    /// bytes, sent again (INV-36).
    #[inline]
    pub(super) fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        if self.kind != MessageType::Data {
            nonce[3] = self.kind as u8;
        }
        nonce[4..].copy_from_slice(&self.counter.to_be_bytes());
        nonce
    }
}

/// Shortest and longest datagram of a type that is sealed under a session's keys.
#[inline]
fn sealed_lengths(kind: MessageType) -> Option<(usize, usize)> {
    if kind == MessageType::Data {
        return Some((HEADER_LEN + TAG_LEN, usize::MAX));
    }
    body::padded_len(kind).map(|len| (HEADER_LEN + len + TAG_LEN, CONTROL_MAX))
}
