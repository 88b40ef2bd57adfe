//! The Noise protocol of the handshake: the state machine of `snow`, with X25519 and ChaCha20-Poly1305 of aws-lc-rs,
//! BLAKE2s of RustCrypto, and the randomness of our caller.

use std::sync::{Arc, OnceLock};

use blake2::{Blake2s256, Digest};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{BoxedCryptoResolver, CryptoResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use zeroize::Zeroizing;

use crate::crypto::{Aead, DefaultAead, KEY_LEN, NONCE_LEN, StaticSecret, TAG_LEN};
use crate::entropy::Entropy;
use crate::ident::PublicKey;
use crate::wire::HelloInit;

/// The pattern without a pre-shared key.
const IK: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
/// The pattern with one, mixed in by the second message: only then does the gateway know whose it is.
const IK_PSK2: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
/// Number of the pre-shared key in the pattern.
pub(super) const PSK_POSITION: u8 = 2;
/// What the prologue starts with, so that the handshake of another protocol never fits.
const PROLOGUE: &[u8; 11] = b"jumpgate v1";

/// What the Noise messages add to their payloads, in bytes: ephemeral key, sealed static key (first message only), tag.
pub(super) const FIRST_OVERHEAD: usize = KEY_LEN + (KEY_LEN + TAG_LEN) + TAG_LEN;
/// Likewise of the second message.
pub(super) const SECOND_OVERHEAD: usize = KEY_LEN + TAG_LEN;

/// The only randomness of one half of a handshake: its ephemeral key. It is given when it is needed, which for the
/// gateway is after the client has proved itself.
#[derive(Clone, Default)]
pub(super) struct EphemeralSeed(Arc<OnceLock<Zeroizing<[u8; KEY_LEN]>>>);

impl EphemeralSeed {
    /// Draws the seed. A second draw changes nothing.
    pub(super) fn draw(&self, entropy: &mut dyn Entropy) {
        self.0.get_or_init(|| {
            let mut seed = Zeroizing::new([0; KEY_LEN]);
            entropy.fill(seed.as_mut());
            seed
        });
    }
}

impl Random for EphemeralSeed {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Error> {
        let seed = self.0.get().ok_or(Error::Rng)?;
        if out.len() != KEY_LEN {
            return Err(Error::Rng);
        }
        out.copy_from_slice(seed.as_ref());
        Ok(())
    }
}

/// The client's half.
pub(super) fn initiator(
    secret: &StaticSecret,
    gateway: &PublicKey,
    psk: Option<&[u8; KEY_LEN]>,
    hello_offer: &[u8],
    seed: &EphemeralSeed,
) -> Result<HandshakeState, Error> {
    let prologue = prologue(hello_offer);
    let mut builder = builder(psk.is_some(), seed)?.local_private_key(secret.as_bytes())?.prologue(&prologue)?;
    builder = builder.remote_public_key(&gateway.0)?;
    if let Some(psk) = psk {
        builder = builder.psk(PSK_POSITION, psk)?;
    }
    builder.build_initiator()
}

/// The gateway's half; its pre-shared key is set once the client is known.
pub(super) fn responder(
    secret: &StaticSecret,
    hello: &HelloInit,
    seed: &EphemeralSeed,
) -> Result<HandshakeState, Error> {
    let prologue = prologue(hello.offer());
    builder(hello.has_psk(), seed)?.local_private_key(secret.as_bytes())?.prologue(&prologue)?.build_responder()
}

fn builder<'a>(psk: bool, seed: &EphemeralSeed) -> Result<Builder<'a>, Error> {
    let params: NoiseParams = if psk { IK_PSK2 } else { IK }.parse()?;
    let resolver: BoxedCryptoResolver = Box::new(Resolver { seed: seed.clone() });
    Ok(Builder::with_resolver(params, resolver))
}

/// Version and suites as offered (HS-1): who changes them on the way breaks the handshake.
fn prologue(offer: &[u8]) -> Vec<u8> {
    [PROLOGUE, offer].concat()
}

struct Resolver {
    seed: EphemeralSeed,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(self.seed.clone()))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519::default())),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        match choice {
            HashChoice::Blake2s => Some(Box::new(Blake2s::default())),
            _ => None,
        }
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        match choice {
            CipherChoice::ChaChaPoly => Some(Box::new(ChaChaPoly::default())),
            _ => None,
        }
    }
}

/// A key pair as Noise wants it; no pair before it is set or generated.
#[derive(Default)]
struct X25519 {
    pair: Option<(StaticSecret, PublicKey)>,
}

impl X25519 {
    const EMPTY: [u8; KEY_LEN] = [0; KEY_LEN];

    fn install(&mut self, secret: StaticSecret) {
        let public = secret.public();
        self.pair = Some((secret, public));
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_LEN
    }

    fn priv_len(&self) -> usize {
        KEY_LEN
    }

    fn set(&mut self, secret: &[u8]) {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        bytes.copy_from_slice(secret);
        self.install(StaticSecret::new(*bytes));
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), Error> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        random.try_fill_bytes(bytes.as_mut())?;
        self.install(StaticSecret::new(*bytes));
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.pair.as_ref().map_or(&Self::EMPTY, |(_, public)| &public.0)
    }

    fn privkey(&self) -> &[u8] {
        self.pair.as_ref().map_or(&Self::EMPTY, |(secret, _)| secret.as_bytes())
    }

    fn dh(&self, peer: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let (secret, _) = self.pair.as_ref().ok_or(Error::Dh)?;
        let peer = peer.first_chunk::<KEY_LEN>().ok_or(Error::Dh)?;
        let shared = secret.agree(peer).map_err(|_| Error::Dh)?;
        out[..KEY_LEN].copy_from_slice(&shared.0);
        Ok(())
    }
}

/// The cipher of the handshake; Noise counts its nonces in little-endian order.
struct ChaChaPoly(DefaultAead);

impl Default for ChaChaPoly {
    fn default() -> Self {
        Self(DefaultAead::new(&[0; KEY_LEN]))
    }
}

fn nonce(counter: u64) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; KEY_LEN]) {
        self.0 = DefaultAead::new(key);
    }

    fn encrypt(&self, counter: u64, associated: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (text, rest) = out.split_at_mut(plaintext.len());
        text.copy_from_slice(plaintext);
        rest[..TAG_LEN].copy_from_slice(&self.0.seal_in_place(&nonce(counter), associated, text));
        plaintext.len() + TAG_LEN
    }

    fn decrypt(&self, counter: u64, associated: &[u8], ciphertext: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        // `out` may have room for the plaintext only.
        let mut opened = Zeroizing::new(ciphertext.to_vec());
        let len = self.0.open_in_place(&nonce(counter), associated, &mut opened).map_err(|_| Error::Decrypt)?;
        out.get_mut(..len).ok_or(Error::Input)?.copy_from_slice(&opened[..len]);
        Ok(len)
    }
}

/// The hash of the handshake.
#[derive(Default)]
struct Blake2s(Blake2s256);

impl Hash for Blake2s {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        Digest::reset(&mut self.0);
    }

    fn input(&mut self, data: &[u8]) {
        Digest::update(&mut self.0, data);
    }

    fn result(&mut self, out: &mut [u8]) {
        out[..self.hash_len()].copy_from_slice(&self.0.finalize_reset());
    }
}
