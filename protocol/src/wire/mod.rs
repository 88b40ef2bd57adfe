//! Messages as bytes (§6.1). Network byte order everywhere.
//!
//! Every datagram starts with its type and the protocol version. Messages of a session then go on with the rest of a
//! 20-byte [`Header`], a sealed body and a tag; those around a session ([`outer`]) have layouts of their own.
//!
//! What arrives is looked at in two steps: a header or view says what the bytes claim to be, and a representation that
//! was parsed from them ([`Body`]) can hold nothing that the protocol does not allow. [`layout`] renders all of it.

pub(crate) mod body;
mod field;
mod header;
pub mod layout;
pub mod outer;
mod seal;
#[cfg(test)]
pub(crate) mod tests;

use core::fmt;

pub(crate) use body::message;
pub use body::{
    Body, Cause, Heartbeat, HeartbeatAck, HelloConfirm, PathProbe, PathProbeAck, PolicyUpdate, ReattachAck,
    ReattachHint, ReattachReject, ReattachRequest, RekeyAck, RekeyInit, ReservedZero, Terminate, UDP,
};
pub(crate) use field::Field;
pub use field::{PolicySnapshot, REQUESTED_POLICY_MAX, RequestedPolicy};
pub use header::Header;
pub use outer::{COOKIE_LEN, DIGEST_LEN, HelloAck, HelloInit, HelloRetry, RESET_TOKEN_LEN, SessionReset};
pub use seal::{ControlPacket, open, open_data, seal, seal_data};

pub use crate::crypto::TAG_LEN;
use crate::reason::Reason;

/// The protocol version spoken here.
pub const VERSION: u8 = 1;
/// Length of the header of all messages of a session, in bytes.
pub const HEADER_LEN: usize = 20;
/// What a DATA packet is longer than its inner packet, in bytes.
pub const DATA_OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// Exact length of HELLO_INIT in bytes: no reply to it may be longer (HS-2), and every path carries it.
pub const HELLO_LEN: usize = 1200;
/// Longest sealed control message in bytes; it lets replies live without allocation.
pub const CONTROL_MAX: usize = 512;

macro_rules! message_types {
    ($($id:literal $byte:literal $variant:ident $name:literal $from:literal,)+) => {
        /// What a datagram is, by its first byte: 0x10 and the number of the message in §6.1. Types 1 to 4 belong to
        /// WireGuard and stay free.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum MessageType {
            $(#[doc = concat!("`", $name, "` (", $id, "), ", $from, ".")] $variant = $byte,)+
        }

        impl MessageType {
            /// Every type, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The type with that first byte, if there is one.
            #[inline]
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// Its name in documents and logs.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Its id in the specification.
            pub const fn id(self) -> &'static str {
                match self {
                    $(Self::$variant => $id,)+
                }
            }

            /// Who sends it to whom.
            pub const fn direction(self) -> &'static str {
                match self {
                    $(Self::$variant => $from,)+
                }
            }
        }
    };
}

message_types! {
    "M01" 0x11 HelloInit "HELLO_INIT" "client to gateway",
    "M02" 0x12 HelloRetry "HELLO_RETRY" "gateway to client",
    "M03" 0x13 HelloAck "HELLO_ACK" "gateway to client",
    "M04" 0x14 HelloConfirm "HELLO_CONFIRM" "client to gateway",
    "M05" 0x15 Data "DATA" "both ways",
    "M06" 0x16 Heartbeat "HEARTBEAT" "client to gateway",
    "M07" 0x17 HeartbeatAck "HEARTBEAT_ACK" "gateway to client",
    "M08" 0x18 PathProbe "PATH_PROBE" "client to gateway",
    "M09" 0x19 PathProbeAck "PATH_PROBE_ACK" "gateway to client",
    "M10" 0x1a ReattachRequest "REATTACH_REQUEST" "client to gateway",
    "M11" 0x1b ReattachAck "REATTACH_ACK" "gateway to client",
    "M12" 0x1c ReattachReject "REATTACH_REJECT" "gateway to client",
    "M13" 0x1d ReattachHint "REATTACH_HINT" "gateway to client",
    "M14" 0x1e RekeyInit "REKEY_INIT" "client to gateway",
    "M15" 0x1f RekeyAck "REKEY_ACK" "gateway to client",
    "M16" 0x20 PolicyUpdate "POLICY_UPDATE" "gateway to client",
    "M17" 0x21 Terminate "TERMINATE" "both ways",
    "M18" 0x22 SessionReset "SESSION_RESET" "gateway to client",
}

impl MessageType {
    /// Whether it carries a [`Header`] with locator and counter.
    #[inline]
    pub const fn is_session(self) -> bool {
        !matches!(self, Self::HelloInit | Self::HelloRetry | Self::HelloAck | Self::SessionReset)
    }

    /// What a datagram claims to be: its type and that it speaks our version.
    ///
    /// # Errors
    /// Too short, of an unknown type, or of another version.
    #[inline]
    pub const fn of(packet: &[u8]) -> Result<Self, WireError> {
        let [kind, version, ..] = packet else {
            return Err(WireError::Truncated);
        };
        let Some(kind) = Self::from_byte(*kind) else {
            return Err(WireError::UnknownType);
        };
        if *version >> 4 != VERSION {
            return Err(WireError::UnsupportedVersion);
        }
        Ok(kind)
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Shorter than the message must be.
    Truncated,
    /// Longer than the message may be.
    Oversized,
    /// The first byte is no message type.
    UnknownType,
    /// Another protocol version.
    UnsupportedVersion,
    /// A field holds what it must not.
    Malformed,
}

impl WireError {
    /// The code to count it by (C00).
    pub const fn reason(self) -> Reason {
        match self {
            Self::Truncated | Self::Oversized | Self::Malformed => Reason::Malformed,
            Self::UnknownType => Reason::UnknownType,
            Self::UnsupportedVersion => Reason::UnsupportedVersion,
        }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the datagram is shorter than its message type allows",
            Self::Oversized => "the datagram is longer than its message type allows",
            Self::UnknownType => "the first byte is not a message type",
            Self::UnsupportedVersion => "the protocol version is not spoken here",
            Self::Malformed => "a field holds a value that it must not hold",
        })
    }
}

impl std::error::Error for WireError {}
