//! Sealing and opening of the messages of a session. The header is the associated data of the AEAD.

use arrayvec::ArrayVec;

use super::{Body, CONTROL_MAX, DATA_OVERHEAD, HEADER_LEN, Header, TAG_LEN};
use crate::crypto::{Aead, AuthError};
use crate::reason::Reason;

/// A sealed control message.
pub type ControlPacket = ArrayVec<u8, CONTROL_MAX>;

/// Seals a control message: header, body, padding so that no answer is longer (RF-2), tag. The kind in `header` is taken
/// from the body. The caller never gives one (kind, counter) to two different bodies under one key (INV-36).
pub fn seal<A: Aead, B: Body>(key: &A, header: Header, body: &B) -> ControlPacket {
    const { assert!(HEADER_LEN + B::PADDED_LEN + TAG_LEN <= CONTROL_MAX) };
    let header = Header { kind: B::KIND, ..header };
    let mut packet = ControlPacket::from([0; CONTROL_MAX]);
    packet.truncate(HEADER_LEN + B::PADDED_LEN + TAG_LEN);
    body.emit(&mut packet[HEADER_LEN..][..B::LEN]);
    seal_in_place(key, &header, &mut packet);
    packet
}

/// Opens a control message in place and gives the plaintext of its body, for [`Body::parse`].
///
/// # Errors
/// [`Reason::AuthFail`].
pub fn open<'a, A: Aead>(key: &A, header: &Header, packet: &'a mut [u8]) -> Result<&'a [u8], Reason> {
    match open_in_place(key, header, packet) {
        Ok(body) => Ok(body),
        Err(AuthError) => Err(Reason::AuthFail),
    }
}

/// Seals a DATA packet in place: 20 bytes of room for the header, the inner packet, 16 bytes of room for the tag.
///
/// # Panics
/// `packet` has not even that room.
#[inline]
pub fn seal_data<A: Aead>(key: &A, header: &Header, packet: &mut [u8]) {
    assert!(packet.len() >= DATA_OVERHEAD, "no room for header and tag");
    seal_in_place(key, header, packet);
}

/// Opens a DATA packet in place and gives the inner packet.
///
/// # Errors
/// [`Reason::DataAuthFail`].
#[inline]
pub fn open_data<'a, A: Aead>(key: &A, header: &Header, packet: &'a mut [u8]) -> Result<&'a mut [u8], Reason> {
    match open_in_place(key, header, packet) {
        Ok(inner) => Ok(inner),
        Err(AuthError) => Err(Reason::DataAuthFail),
    }
}

#[inline]
fn seal_in_place<A: Aead>(key: &A, header: &Header, packet: &mut [u8]) {
    header.emit(packet);
    let (associated, rest) = packet.split_at_mut(HEADER_LEN);
    let (plaintext, tag) = rest.split_at_mut(rest.len() - TAG_LEN);
    tag.copy_from_slice(&key.seal_in_place(&header.nonce(), associated, plaintext));
}

#[inline]
fn open_in_place<'a, A: Aead>(key: &A, header: &Header, packet: &'a mut [u8]) -> Result<&'a mut [u8], AuthError> {
    let (associated, sealed) = packet.split_at_mut_checked(HEADER_LEN).ok_or(AuthError)?;
    let len = key.open_in_place(&header.nonce(), associated, sealed)?;
    Ok(&mut sealed[..len])
}
