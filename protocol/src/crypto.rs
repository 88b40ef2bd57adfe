//! The ciphers and the key agreement behind one small interface each (KY-5).
//!
//! The data path runs on aws-lc-rs. RustCrypto's implementation of the same cipher stands beside it as the oracle of a
//! differential test, and as the cipher under Miri, which cannot run the assembly.

use core::cell::OnceCell;
use core::fmt;
use core::marker::PhantomData;
use std::sync::Arc;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{agreement, constant_time};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::entropy::Entropy;
use crate::ident::PublicKey;

/// Length of an AEAD key, an X25519 key and a shared secret, in bytes.
pub const KEY_LEN: usize = 32;
/// Length of an AEAD nonce in bytes.
pub const NONCE_LEN: usize = 12;
/// Length of an AEAD tag in bytes.
pub const TAG_LEN: usize = 16;

/// The AEAD of all sessions: suite 1.
#[cfg(not(miri))]
pub type DefaultAead = AwsLcChaCha;
/// The AEAD of all sessions: suite 1.
#[cfg(miri)]
pub type DefaultAead = RustCryptoChaCha;

/// A tag, a MAC or a key exchange was refused. Says nothing more, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthError;

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cryptographic verification failed")
    }
}

impl std::error::Error for AuthError {}

/// A cipher under one key. Whoever calls it keeps nonces unique (INV-36); [`crate::wire`] does so by construction.
pub trait Aead: Sized + Send {
    /// A cipher under that key.
    fn new(key: &[u8; KEY_LEN]) -> Self;

    /// Encrypts in place and gives the tag.
    fn seal_in_place(&self, nonce: &[u8; NONCE_LEN], associated: &[u8], in_out: &mut [u8]) -> [u8; TAG_LEN];

    /// Verifies and decrypts in place: ciphertext followed by its tag. Gives the length of the plaintext at the front.
    ///
    /// # Errors
    /// The tag does not fit, or there is none. What the buffer holds then is of no use.
    fn open_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        associated: &[u8],
        ciphertext_and_tag: &mut [u8],
    ) -> Result<usize, AuthError>;
}

/// ChaCha20-Poly1305 by aws-lc-rs: the data path. No allocation per packet.
pub struct AwsLcChaCha(LessSafeKey);

impl Aead for AwsLcChaCha {
    fn new(key: &[u8; KEY_LEN]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key has the length that the cipher wants");
        Self(LessSafeKey::new(key))
    }

    #[inline]
    fn seal_in_place(&self, nonce: &[u8; NONCE_LEN], associated: &[u8], in_out: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let sealed = self.0.seal_in_place_separate_tag(nonce, Aad::from(associated), in_out);
        let tag = sealed.expect("a datagram is far below the cipher's limit of 256 GiB");
        let mut out = [0; TAG_LEN];
        out.copy_from_slice(tag.as_ref());
        out
    }

    #[inline]
    fn open_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        associated: &[u8],
        ciphertext_and_tag: &mut [u8],
    ) -> Result<usize, AuthError> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        match self.0.open_in_place(nonce, Aad::from(associated), ciphertext_and_tag) {
            Ok(plaintext) => Ok(plaintext.len()),
            Err(_) => Err(AuthError),
        }
    }
}

/// A cipher that is made when it is first used: 48 bytes for as long as nothing is sealed or opened.
pub struct Lazy<A> {
    key: Zeroizing<[u8; KEY_LEN]>,
    cipher: OnceCell<A>,
}

impl<A: Aead> Lazy<A> {
    #[inline]
    fn cipher(&self) -> &A {
        self.cipher.get_or_init(|| A::new(&self.key))
    }
}

impl<A: Aead> Aead for Lazy<A> {
    fn new(key: &[u8; KEY_LEN]) -> Self {
        Self { key: Zeroizing::new(*key), cipher: OnceCell::new() }
    }

    #[inline]
    fn seal_in_place(&self, nonce: &[u8; NONCE_LEN], associated: &[u8], in_out: &mut [u8]) -> [u8; TAG_LEN] {
        self.cipher().seal_in_place(nonce, associated, in_out)
    }

    #[inline]
    fn open_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        associated: &[u8],
        ciphertext_and_tag: &mut [u8],
    ) -> Result<usize, AuthError> {
        self.cipher().open_in_place(nonce, associated, ciphertext_and_tag)
    }
}

/// A cipher that is made for each message anew: 32 bytes for as long as nothing is to be done, for a key that is used now
/// and then. Making it costs about as much as sealing a short message.
pub struct OnDemand<A> {
    key: Zeroizing<[u8; KEY_LEN]>,
    cipher: PhantomData<fn() -> A>,
}

impl<A: Aead> Aead for OnDemand<A> {
    fn new(key: &[u8; KEY_LEN]) -> Self {
        Self { key: Zeroizing::new(*key), cipher: PhantomData }
    }

    fn seal_in_place(&self, nonce: &[u8; NONCE_LEN], associated: &[u8], in_out: &mut [u8]) -> [u8; TAG_LEN] {
        A::new(&self.key).seal_in_place(nonce, associated, in_out)
    }

    fn open_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        associated: &[u8],
        ciphertext_and_tag: &mut [u8],
    ) -> Result<usize, AuthError> {
        A::new(&self.key).open_in_place(nonce, associated, ciphertext_and_tag)
    }
}

/// ChaCha20-Poly1305 by RustCrypto: the oracle.
pub struct RustCryptoChaCha(ChaCha20Poly1305);

impl Aead for RustCryptoChaCha {
    fn new(key: &[u8; KEY_LEN]) -> Self {
        Self(ChaCha20Poly1305::new(key.into()))
    }

    fn seal_in_place(&self, nonce: &[u8; NONCE_LEN], associated: &[u8], in_out: &mut [u8]) -> [u8; TAG_LEN] {
        let sealed = self.0.encrypt_inout_detached(nonce.into(), associated, in_out.into());
        sealed.expect("a datagram is far below the cipher's limit of 256 GiB").into()
    }

    fn open_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        associated: &[u8],
        ciphertext_and_tag: &mut [u8],
    ) -> Result<usize, AuthError> {
        let (ciphertext, tag) = ciphertext_and_tag.split_last_chunk_mut::<TAG_LEN>().ok_or(AuthError)?;
        let opened = self.0.decrypt_inout_detached(nonce.into(), associated, (&mut *ciphertext).into(), (&*tag).into());
        opened.map(|()| ciphertext.len()).map_err(|_| AuthError)
    }
}

/// An X25519 secret key; erased when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct StaticSecret([u8; KEY_LEN]);

/// What two X25519 keys have in common; erased when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SharedSecret(pub(crate) [u8; KEY_LEN]);

impl StaticSecret {
    /// The key made of those bytes, clamped as RFC 7748 and WireGuard's `genkey` do it.
    pub const fn new(mut bytes: [u8; KEY_LEN]) -> Self {
        bytes[0] &= 0b1111_1000;
        bytes[KEY_LEN - 1] = (bytes[KEY_LEN - 1] & 0b0111_1111) | 0b0100_0000;
        Self(bytes)
    }

    /// A fresh key.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut bytes = [0; KEY_LEN];
        entropy.fill(&mut bytes);
        let secret = Self::new(bytes);
        bytes.zeroize();
        secret
    }

    /// The secret itself, for a key file or a derivation.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        KeyPair::new(self.clone()).public
    }
}

/// A secret in the form that agreements are computed with, and its public half. Making one costs a multiplication, about
/// a third of an agreement: whoever agrees more than once keeps it. Clones share it.
#[derive(Clone)]
pub struct KeyPair {
    secret: StaticSecret,
    public: PublicKey,
    prepared: Arc<agreement::PrivateKey>,
}

impl KeyPair {
    /// The pair of that secret.
    pub fn new(secret: StaticSecret) -> Self {
        let prepared = agreement::PrivateKey::from_private_key(&agreement::X25519, secret.as_bytes())
            .expect("an X25519 secret is any 32 bytes");
        let public = prepared.compute_public_key().expect("an X25519 secret always has a public half");
        let mut bytes = [0; KEY_LEN];
        bytes.copy_from_slice(public.as_ref());
        Self { secret, public: PublicKey(bytes), prepared: Arc::new(prepared) }
    }

    /// The secret half.
    pub const fn secret(&self) -> &StaticSecret {
        &self.secret
    }

    /// The public half.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The secret shared with the holder of `peer`'s secret half.
    ///
    /// # Errors
    /// `peer` is a point of low order, with which every secret would give the same result.
    pub fn agree(&self, peer: &[u8; KEY_LEN]) -> Result<SharedSecret, AuthError> {
        let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, peer);
        agreement::agree(&self.prepared, peer, AuthError, |shared| {
            let mut bytes = [0; KEY_LEN];
            bytes.copy_from_slice(shared);
            Ok(SharedSecret(bytes))
        })
    }
}

impl fmt::Debug for StaticSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StaticSecret(..)")
    }
}

/// Whether two secrets of public length are equal, in a time that depends on the length only.
pub fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entropy::SeededEntropy;

    /// Turns hexadecimal digits into bytes.
    fn hex(digits: &str) -> [u8; KEY_LEN] {
        core::array::from_fn(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("hexadecimal digits"))
    }

    proptest! {
        #[test]
        fn the_two_ciphers_are_one(
            key: [u8; KEY_LEN],
            nonce: [u8; NONCE_LEN],
            associated in prop::collection::vec(any::<u8>(), 0..64),
            plaintext in prop::collection::vec(any::<u8>(), 0..2000),
            flip: prop::sample::Index,
        ) {
            let (fast, oracle) = (AwsLcChaCha::new(&key), RustCryptoChaCha::new(&key));
            let (mut a, mut b) = (plaintext.clone(), plaintext.clone());
            let tag = fast.seal_in_place(&nonce, &associated, &mut a);
            a.extend(tag);
            let tag = oracle.seal_in_place(&nonce, &associated, &mut b);
            b.extend(tag);
            prop_assert_eq!(&a, &b);
            let at = flip.index(a.len());
            let mut broken = a.clone();
            broken[at] ^= 0x10;
            prop_assert_eq!(fast.open_in_place(&nonce, &associated, &mut broken.clone()), Err(AuthError));
            prop_assert_eq!(oracle.open_in_place(&nonce, &associated, &mut broken), Err(AuthError));
            prop_assert_eq!(fast.open_in_place(&nonce, &associated, &mut b), Ok(plaintext.len()));
            prop_assert_eq!(oracle.open_in_place(&nonce, &associated, &mut a), Ok(plaintext.len()));
            prop_assert_eq!(&a[..plaintext.len()], &plaintext[..]);
            prop_assert_eq!(&b[..plaintext.len()], &plaintext[..]);
        }

        #[test]
        fn what_is_too_short_for_a_tag_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..TAG_LEN)) {
            let (mut a, mut b) = (bytes.clone(), bytes);
            prop_assert_eq!(AwsLcChaCha::new(&[1; 32]).open_in_place(&[0; 12], b"", &mut a), Err(AuthError));
            prop_assert_eq!(RustCryptoChaCha::new(&[1; 32]).open_in_place(&[0; 12], b"", &mut b), Err(AuthError));
        }
    }

    #[test]
    fn x25519_as_rfc_7748_section_6_1_has_it() {
        let pair = |digits| KeyPair::new(StaticSecret::new(hex(digits)));
        let alice = pair("77076d0a7318a57d3c16c17251b26645df4c3d5dc6ce2bf4e5e62f9b6c4bd5f2");
        let bob = pair("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let shared = alice.agree(&bob.public().0).expect("a usable key");
        assert_eq!(bob.public().0, hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        assert_eq!(bob.agree(&alice.public().0).expect("a usable key").0, shared.0);
    }

    #[test]
    fn a_point_of_low_order_is_refused() {
        let secret = KeyPair::new(StaticSecret::generate(&mut SeededEntropy::new(1)));
        assert!(secret.agree(&[0; KEY_LEN]).is_err());
        let mut one = [0; KEY_LEN];
        one[0] = 1;
        assert!(secret.agree(&one).is_err());
    }

    #[test]
    fn a_secret_never_shows_in_debug_output() {
        assert_eq!(format!("{:?}", StaticSecret::new([0x61; KEY_LEN])), "StaticSecret(..)");
    }
}
