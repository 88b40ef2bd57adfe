//! The seal around a hand-over: who may read it, where, when, and how often.
//!
//! Its key follows from the gateway's long-term secret and a salt of its own, so that no key seals twice. The header is
//! readable and authenticated. It binds the hand-over to this boot of the machine, whose clock the timers count by, and to
//! the very file that it was written to: a copy is no hand-over.

use core::fmt;

use zeroize::Zeroizing;

use crate::crypto::{Aead, DefaultAead, KEY_LEN, NONCE_LEN, StaticSecret, TAG_LEN};
use crate::entropy::Entropy;
use crate::reason::Reason;
use crate::stored::Damaged;
use crate::time::{Span, Time};

/// How a hand-over begins.
const MAGIC: &[u8; 8] = b"JGHANDOV";
/// The format of all that follows; another one is not read.
const FORMAT: u16 = 2;
/// Length of the salt, in bytes.
const SALT_LEN: usize = 32;
/// Length of the header, in bytes.
const HEADER_LEN: usize = MAGIC.len() + 2 + 16 + 16 + 8 + SALT_LEN;
/// Context of the key (KY-2): it has no other use.
const CONTEXT: &str = "jumpgate v1 hand-over";
/// A key seals one hand-over, so that its nonce can be a constant.
const NONCE: [u8; NONCE_LEN] = [0; NONCE_LEN];

/// Where and when a hand-over is written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circumstances {
    /// This boot of the machine, as its kernel names it.
    pub boot: [u8; 16],
    /// The file that holds it: device and inode.
    pub file: (u64, u64),
    /// When the sessions were frozen, or are to go on.
    pub now: Time,
}

/// Why no session is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoverError {
    /// It is something else, or only the beginning of one.
    NotOne,
    /// A format of another version.
    Format(u16),
    /// Of another gateway, or changed.
    Seal,
    /// Of another boot: the machine was restarted, and its clock with it.
    OtherBoot,
    /// A copy of one, which may have been used.
    Copy,
    /// It comes from the future.
    Clock,
    /// So old that no client waits for it any more.
    TooOld(Span),
    /// The inner addresses are not those of this configuration.
    OtherPool,
    /// The seal holds, but not what is in it.
    Damaged,
}

impl HandoverError {
    /// The reason that records name.
    pub const fn reason(self) -> Reason {
        match self {
            Self::NotOne | Self::Damaged => Reason::Malformed,
            Self::Format(_) => Reason::UnsupportedVersion,
            Self::Seal => Reason::AuthFail,
            Self::OtherBoot | Self::Clock | Self::TooOld(_) => Reason::FreshnessInvalid,
            Self::Copy => Reason::ReplayDetected,
            Self::OtherPool => Reason::PolicyDenied,
        }
    }
}

impl From<Damaged> for HandoverError {
    fn from(_: Damaged) -> Self {
        Self::Damaged
    }
}

impl fmt::Display for HandoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOne => f.write_str("it is no hand-over, or only a part of one"),
            Self::Format(found) => write!(f, "its format is {found}, and this version reads only {FORMAT}"),
            Self::Seal => f.write_str("its seal is broken: it is another gateway's, or was changed"),
            Self::OtherBoot => f.write_str("it is from before the last boot of this machine"),
            Self::Copy => f.write_str("it is a copy: only the file that the gateway wrote counts, and only once"),
            Self::Clock => f.write_str("it comes from the future of this machine's clock"),
            Self::TooOld(age) => write!(f, "it is {} s old, and no client waits that long", age.as_millis() / 1_000),
            Self::OtherPool => f.write_str("the inner addresses of the configuration are other ones"),
            Self::Damaged => Damaged.fmt(f),
        }
    }
}

impl std::error::Error for HandoverError {}

impl Circumstances {
    /// Seals `plain`, to be opened here and by the holder of that secret. [`HandshakeDesk::hand_over`] is what a gateway
    /// needs.
    ///
    /// [`HandshakeDesk::hand_over`]: crate::gateway::HandshakeDesk::hand_over
    pub fn seal(&self, secret: &StaticSecret, plain: &[u8], entropy: &mut dyn Entropy) -> Vec<u8> {
        let mut salt = [0; SALT_LEN];
        entropy.fill(&mut salt);
        // Of its final size from the start: nothing in the clear is left behind by growing.
        let mut sealed = Vec::with_capacity(HEADER_LEN + plain.len() + TAG_LEN);
        sealed.extend_from_slice(MAGIC);
        sealed.extend(FORMAT.to_be_bytes());
        sealed.extend(self.boot);
        sealed.extend(self.file.0.to_be_bytes());
        sealed.extend(self.file.1.to_be_bytes());
        sealed.extend(self.now.as_micros().to_be_bytes());
        sealed.extend(salt);
        sealed.extend_from_slice(plain);
        let (header, body) = sealed.split_at_mut(HEADER_LEN);
        let tag = cipher(secret, &salt).seal_in_place(&NONCE, header, body);
        sealed.extend(tag);
        sealed
    }

    /// Opens in place what [`Circumstances::seal`] gave, and gives the plaintext and how old it is. The seal is looked at before anything that
    /// it covers.
    ///
    /// # Errors
    /// Why it is not to be used.
    pub fn open<'a>(
        &self,
        secret: &StaticSecret,
        max_age: Span,
        sealed: &'a mut [u8],
    ) -> Result<(&'a [u8], Span), HandoverError> {
        let (header, body) = sealed.split_at_mut_checked(HEADER_LEN).ok_or(HandoverError::NotOne)?;
        let mut rest = &*header;
        if take(&mut rest) != *MAGIC {
            return Err(HandoverError::NotOne);
        }
        let format = u16::from_be_bytes(take(&mut rest));
        if format != FORMAT {
            return Err(HandoverError::Format(format));
        }
        let boot: [u8; 16] = take(&mut rest);
        let file = (u64::from_be_bytes(take(&mut rest)), u64::from_be_bytes(take(&mut rest)));
        let frozen = Time::from_micros(u64::from_be_bytes(take(&mut rest)));
        let salt = take(&mut rest);
        let len = cipher(secret, &salt).open_in_place(&NONCE, header, body).map_err(|_| HandoverError::Seal)?;
        if boot != self.boot {
            return Err(HandoverError::OtherBoot);
        }
        if file != self.file {
            return Err(HandoverError::Copy);
        }
        if frozen > self.now {
            return Err(HandoverError::Clock);
        }
        let age = self.now.since(frozen);
        if age > max_age { Err(HandoverError::TooOld(age)) } else { Ok((&body[..len], age)) }
    }
}

fn cipher(secret: &StaticSecret, salt: &[u8; SALT_LEN]) -> DefaultAead {
    let mut material = Zeroizing::new([0; KEY_LEN + SALT_LEN]);
    material[..KEY_LEN].copy_from_slice(secret.as_bytes());
    material[KEY_LEN..].copy_from_slice(salt);
    let key = Zeroizing::new(blake3::derive_key(CONTEXT, material.as_slice()));
    DefaultAead::new(&key)
}

/// The next bytes of the header, which has room for them.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let mut taken = [0; N];
    if let Some((front, back)) = rest.split_at_checked(N) {
        taken.copy_from_slice(front);
        *rest = back;
    }
    taken
}
