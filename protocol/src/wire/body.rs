//! The bodies of sealed messages (M04, M06 to M17). One table makes structs, codec, lengths and layout.

use std::net::SocketAddr;

use super::field::{Field, PolicySnapshot};
use super::layout::Row;
use super::{MessageType, WireError};
use crate::ident::TransportId;
use crate::reason::Reason;

/// The outer protocol of a transport: UDP, the only one in version 1.
pub const UDP: u8 = 1;

/// What a message says once it is opened: a representation that was validated and can hold nothing illegal.
pub trait Body: Sized {
    /// The message it belongs to.
    const KIND: MessageType;
    /// Length of its fields in bytes.
    const LEN: usize;
    /// Length that is sealed: with padding, so that no answer is longer (RF-2, HS-2).
    const PADDED_LEN: usize;

    /// Reads it from an opened message. Bytes behind the known fields are skipped: padding, or fields of the future.
    ///
    /// # Errors
    /// Too short, or a field holds what it must not.
    fn parse(plaintext: &[u8]) -> Result<Self, WireError>;

    /// Writes its fields to the first [`Body::LEN`] bytes of `out`, which are zero before.
    fn emit(&self, out: &mut [u8]);
}

/// Defines structs whose fields stand on the wire one after the other, in the order written.
macro_rules! message {
    ($($(#[$attribute:meta])* $name:ident { $($field:ident: $type:ty = $text:literal,)+ })+) => {
        $(
            $(#[$attribute])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $name {
                $(#[doc = $text] pub $field: $type,)+
            }

            impl $name {
                /// Length of the fields in bytes.
                pub(crate) const FIELDS_LEN: usize = 0 $(+ <$type as $crate::wire::Field>::LEN)+;

                /// Fields, lengths and meanings, in order.
                pub(crate) const ROWS: &'static [$crate::wire::layout::Row] = &[$(
                    $crate::wire::layout::Row {
                        field: stringify!($field),
                        len: <$type as $crate::wire::Field>::LEN,
                        meaning: $text,
                    },
                )+];

                /// Reads the fields from the front of `bytes`; more may follow.
                pub(crate) fn read_fields(bytes: &[u8]) -> Result<Self, $crate::wire::WireError> {
                    let mut rest = bytes;
                    Ok(Self { $($field: $crate::wire::body::take(&mut rest)?,)+ })
                }

                /// Writes the fields to the front of `out`, which is zero before.
                pub(crate) fn write_fields(&self, out: &mut [u8]) {
                    let mut rest = out;
                    $(rest = $crate::wire::body::put(rest, &self.$field);)+
                    let _ = rest;
                }
            }

            #[cfg(test)]
            impl $crate::wire::tests::Sample for $name {
                fn draw(source: &mut dyn $crate::entropy::Entropy) -> Self {
                    Self { $($field: $crate::wire::tests::Sample::draw(source),)+ }
                }
            }
        )+
    };
}
pub(crate) use message;

/// Takes one field off the front.
pub(crate) fn take<T: Field>(rest: &mut &[u8]) -> Result<T, WireError> {
    let (bytes, behind) = rest.split_at_checked(T::LEN).ok_or(WireError::Truncated)?;
    *rest = behind;
    T::read(bytes).ok_or(WireError::Malformed)
}

/// Writes one field to the front and gives what is behind it.
pub(crate) fn put<'a, T: Field>(rest: &'a mut [u8], value: &T) -> &'a mut [u8] {
    let (bytes, behind) = rest.split_at_mut(T::LEN);
    value.write(bytes);
    behind
}

/// Makes structs the bodies of sealed messages. A request is padded to the longest of its answers.
macro_rules! bodies {
    ($($name:ident $(answered by $($answer:ident),+)?;)+) => {
        $(impl Body for $name {
            const KIND: MessageType = MessageType::$name;
            const LEN: usize = Self::FIELDS_LEN;
            const PADDED_LEN: usize = longest(&[Self::LEN $($(, $answer::LEN)+)?]);

            fn parse(plaintext: &[u8]) -> Result<Self, WireError> {
                // An unpadded request could get an answer longer than itself.
                if plaintext.len() < Self::PADDED_LEN {
                    return Err(WireError::Truncated);
                }
                Self::read_fields(plaintext)
            }

            fn emit(&self, out: &mut [u8]) {
                self.write_fields(&mut out[..Self::LEN]);
            }
        })+

        /// Length of the plaintext that is sealed in a message of that kind, if it is a control message.
        #[inline]
        pub(super) const fn padded_len(kind: MessageType) -> Option<usize> {
            match kind {
                $(MessageType::$name => Some($name::PADDED_LEN),)+
                _ => None,
            }
        }

        /// Fields and padded length of every sealed message.
        pub(super) const ALL: &[(MessageType, &[Row], usize)] =
            &[$((MessageType::$name, $name::ROWS, $name::PADDED_LEN),)+];
    };
}

const fn longest(lengths: &[usize]) -> usize {
    let mut longest = 0;
    let mut at = 0;
    while at < lengths.len() {
        if lengths[at] > longest {
            longest = lengths[at];
        }
        at += 1;
    }
    longest
}

bodies! {
    HelloConfirm answered by HeartbeatAck;
    Heartbeat answered by HeartbeatAck;
    HeartbeatAck;
    PathProbe answered by PathProbeAck;
    PathProbeAck;
    ReattachRequest answered by ReattachAck, ReattachReject;
    ReattachAck;
    ReattachReject;
    ReattachHint;
    RekeyInit answered by RekeyAck;
    RekeyAck;
    PolicyUpdate;
    Terminate;
}

message! {
    /// M04: the client has the keys (HS-5).
    HelloConfirm {
        binding_epoch: u64 = "`binding_epoch` of the first binding: 1",
        handshake_hash: [u8; 32] = "hash of the handshake, as Noise ends with it",
        transport_id: TransportId = "the client's number of the path",
    }

    /// M06: the client lives, and what it counted (BD-3, SM-14).
    Heartbeat {
        binding_epoch: u64 = "last `binding_epoch` acknowledged",
        client_time_ms: u64 = "client's session time in ms (AR-5)",
        sent: u64 = "DATA packets sent to the gateway under the key epoch of this message: the highest counter",
        received: u64 = "DATA packets received from it on this binding, of those up to `highest`",
        highest: u64 = "DATA counter from it up to which everything has come or is lost; 0 while that is unknown",
        policy_sequence: u32 = "sequence of the newest policy that the client has",
    }

    /// M07: answer to HEARTBEAT and HELLO_CONFIRM.
    HeartbeatAck {
        echo: u64 = "counter of the message answered",
        binding_epoch: u64 = "current `binding_epoch`",
        gateway_time_ms: u64 = "gateway's session time in ms",
        sent: u64 = "DATA packets sent to the client under the key epoch of this message: the highest counter",
        received: u64 = "DATA packets received from it on this binding, of those up to `highest`",
        highest: u64 = "DATA counter from it up to which everything has come or is lost; 0 while that is unknown",
        state: u8 = "state of the gateway's record, by its number",
        flags: u8 = "1 UNBOUND: not from the bound tuple; 2 REKEY_WANTED; 4 DRAINING; 8 FORGERIES: the cause of REKEY_WANTED",
    }

    /// M08: keeps a standby path known and measured (§6.7).
    PathProbe {
        transport_id: TransportId = "the client's number of the path",
        client_time_ms: u64 = "client's session time in ms (AR-5)",
        token: u64 = "token of the last answer on this path, 0 if none",
    }

    /// M09: answer to PATH_PROBE.
    PathProbeAck {
        echo: u64 = "counter of the probe",
        transport_id: TransportId = "the path probed",
        observed: SocketAddr = "address and port that the probe came from",
        token: u64 = "to be returned by the next probe (SP-3)",
        flags: u8 = "1 STORED; 2 VALIDATED; 4 FULL",
    }

    /// M10: asks to bind the session to where this comes from. Sealed under the proof key; the header's counter is its
    /// nonce.
    ReattachRequest {
        binding_epoch: u64 = "last `binding_epoch` acknowledged",
        client_time_ms: u64 = "client's session time in ms (AR-5)",
        cause: Cause = "1 QUALITY; 2 SILENCE; 3 HARD_DEAD; 4 FORCED; 5 REPROOF",
        transport_id: TransportId = "the client's number of the path",
        protocol: u8 = "outer protocol of the path: 1 UDP",
    }

    /// M11: the session is bound there now.
    ReattachAck {
        nonce: u64 = "nonce of the request",
        binding_epoch: u64 = "`binding_epoch` of the binding",
        observed: SocketAddr = "address and port that the request came from",
        gateway_time_ms: u64 = "gateway's session time in ms",
        detail: u16 = "reason code of detail, 0 if none",
        flags: u8 = "reserved, 0",
        next_locator: ReservedZero = "reserved, 0 (SL-5)",
    }

    /// M12: the request was refused, nothing changed.
    ReattachReject {
        nonce: u64 = "nonce of the request",
        reason: Reason = "why",
        retry_after_ms: u32 = "not to be tried again before, in ms",
        gateway_time_ms: u64 = "gateway's session time in ms",
        current: Option<(u64, TransportId)> = "1 with STALE_STATE_VERSION: current `binding_epoch`, active transport (65535: none); else 0",
    }

    /// M13: the gateway wants the client to move (SM-18).
    ReattachHint {
        binding_epoch: u64 = "current `binding_epoch`",
        reason: Reason = "why",
        same_path_ok: bool = "whether the same path may be proved again",
        deadline_ms: u32 = "how long the gateway will wait, in ms",
    }

    /// M14: starts a rekey (RK-2).
    RekeyInit {
        next_epoch: u32 = "key epoch asked for",
        ephemeral: [u8; 32] = "client's X25519 key for this rekey",
        trigger: Reason = "why (1211 to 1215)",
    }

    /// M15: answer to REKEY_INIT.
    RekeyAck {
        echo: u64 = "counter of REKEY_INIT",
        next_epoch: u32 = "key epoch agreed on",
        ephemeral: [u8; 32] = "gateway's X25519 key for this rekey; zero if refused",
        status: Option<(Reason, u32)> = "0 agreed; 1 refused: reason, and not to be tried again before, in ms",
    }

    /// M16: another policy is in force (PU-1).
    PolicyUpdate {
        sequence: u32 = "number of this policy in the session, rising",
        hash: [u8; 32] = "hash of the policy",
        mode: u8 = "0 strict, 1 grace (RL-3)",
        snapshot: PolicySnapshot = "length, then the snapshot, then room",
    }

    /// M17: the session has ended at the other end (TM-1).
    Terminate {
        reason: Reason = "why",
    }
}

impl HeartbeatAck {
    /// Flag: the message did not come from a bound tuple (BD-4).
    pub const UNBOUND: u8 = 1;
    /// Flag: the client shall start a rekey (RK-1).
    pub const REKEY_WANTED: u8 = 2;
    /// Flag: the gateway is being shut down.
    pub const DRAINING: u8 = 4;
    /// Flag beside REKEY_WANTED: it is wanted because too much failed to open under the present keys (RK-5).
    pub const FORGERIES: u8 = 8;
}

impl PathProbeAck {
    /// Flag: the path is in the gateway's table.
    pub const STORED: u8 = 1;
    /// Flag: the path is validated (SP-3).
    pub const VALIDATED: u8 = 2;
    /// Flag: the table is full (SP-2).
    pub const FULL: u8 = 4;
}

/// Why a client asks to be moved (M10); HARD_DEAD is exempt from the cooldown (SM-16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cause {
    /// Loss, latency or jitter.
    Quality = 1,
    /// Nothing was heard for too long.
    Silence = 2,
    /// The transport is dead on local evidence.
    HardDead = 3,
    /// Operator or policy.
    Forced = 4,
    /// The same path is proved again.
    Reproof = 5,
}

impl Cause {
    /// Every cause, in the order of its number.
    pub const ALL: [Self; 5] = [Self::Quality, Self::Silence, Self::HardDead, Self::Forced, Self::Reproof];

    /// The name as in the specification.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quality => "QUALITY",
            Self::Silence => "SILENCE",
            Self::HardDead => "HARD_DEAD",
            Self::Forced => "FORCED",
            Self::Reproof => "REPROOF",
        }
    }
}

impl Field for Cause {
    const LEN: usize = 1;

    fn read(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [1] => Some(Self::Quality),
            [2] => Some(Self::Silence),
            [3] => Some(Self::HardDead),
            [4] => Some(Self::Forced),
            [5] => Some(Self::Reproof),
            _ => None,
        }
    }

    fn write(&self, bytes: &mut [u8]) {
        bytes[0] = *self as u8;
    }
}

/// Eight bytes that are 0 in version 1: the place of `next_locator` (SL-5). Any other value is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReservedZero;

impl Field for ReservedZero {
    const LEN: usize = 8;

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.iter().all(|byte| *byte == 0).then_some(Self)
    }

    fn write(&self, _: &mut [u8]) {}
}
