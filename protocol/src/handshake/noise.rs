//! The Noise protocol of the handshake: the state machine of `snow`, with X25519 and ChaCha20-Poly1305 of aws-lc-rs,
//! BLAKE2s of RustCrypto, and the randomness of our caller.

use std::sync::{Arc, OnceLock};

use blake2::{Blake2s256, Digest};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{BoxedCryptoResolver, CryptoResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use zeroize::Zeroizing;

use crate::crypto::{Aead, DefaultAead, KEY_LEN, KeyPair, NONCE_LEN, StaticSecret, TAG_LEN, equal_in_constant_time};
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
    let builder = builder(psk.is_some(), seed, None)?;
    let mut builder = builder.local_private_key(secret.as_bytes())?.prologue(&prologue)?;
    builder = builder.remote_public_key(&gateway.0)?;
    if let Some(psk) = psk {
        builder = builder.psk(PSK_POSITION, psk)?;
    }
    builder.build_initiator()
}

/// The gateway's half; its pre-shared key is set once the client is known.
pub(super) fn responder(own: &KeyPair, hello: &HelloInit, seed: &EphemeralSeed) -> Result<HandshakeState, Error> {
    let prologue = prologue(hello.offer());
    let builder = builder(hello.has_psk(), seed, Some(own))?;
    builder.local_private_key(own.secret().as_bytes())?.prologue(&prologue)?.build_responder()
}

/// `own` is the pair of the long-term key that the builder is given next, if there is one already.
fn builder<'a>(psk: bool, seed: &EphemeralSeed, own: Option<&KeyPair>) -> Result<Builder<'a>, Error> {
    let params: NoiseParams = if psk { IK_PSK2 } else { IK }.parse()?;
    let resolver: BoxedCryptoResolver = Box::new(Resolver { seed: seed.clone(), own: own.cloned() });
    Ok(Builder::with_resolver(params, resolver))
}

/// Version and suites as offered (HS-1): who changes them on the way breaks the handshake.
fn prologue(offer: &[u8]) -> Vec<u8> {
    [PROLOGUE, offer].concat()
}

struct Resolver {
    seed: EphemeralSeed,
    own: Option<KeyPair>,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(self.seed.clone()))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519 { pair: None, own: self.own.clone() })),
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
struct X25519 {
    pair: Option<KeyPair>,
    /// Taken instead of computing it again, if that secret is set: snow knows secrets as bytes only.
    own: Option<KeyPair>,
}

impl X25519 {
    const EMPTY: [u8; KEY_LEN] = [0; KEY_LEN];
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
        let own = self.own.take().filter(|own| equal_in_constant_time(own.secret().as_bytes(), secret));
        self.pair = own.or_else(|| {
            let mut bytes = Zeroizing::new([0; KEY_LEN]);
            bytes.copy_from_slice(secret);
            Some(KeyPair::new(StaticSecret::new(*bytes)))
        });
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), Error> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        random.try_fill_bytes(bytes.as_mut())?;
        self.pair = Some(KeyPair::new(StaticSecret::new(*bytes)));
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.pair.as_ref().map_or(&Self::EMPTY, |pair| &pair.public().0)
    }

    fn privkey(&self) -> &[u8] {
        self.pair.as_ref().map_or(&Self::EMPTY, |pair| pair.secret().as_bytes())
    }

    fn dh(&self, peer: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let pair = self.pair.as_ref().ok_or(Error::Dh)?;
        let peer = peer.first_chunk::<KEY_LEN>().ok_or(Error::Dh)?;
        let shared = pair.agree(peer).map_err(|_| Error::Dh)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(digits: &str) -> Vec<u8> {
        (0..digits.len() / 2)
            .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("hexadecimal digits"))
            .collect()
    }

    /// A source of one fixed ephemeral key.
    struct Fixed(Vec<u8>);

    impl Entropy for Fixed {
        fn fill(&mut self, out: &mut [u8]) {
            out.copy_from_slice(&self.0);
        }
    }

    /// A builder with our primitives and the ephemeral key of a test vector.
    fn vector_builder<'a>(ephemeral: &str) -> Builder<'a> {
        let seed = EphemeralSeed::default();
        seed.draw(&mut Fixed(hex(ephemeral)));
        builder(false, &seed, None).expect("the pattern is known")
    }

    /// The vector for this pattern in the collection of the Cacophony project, which other implementations check too.
    #[test]
    fn our_primitives_make_the_noise_of_everybody_else() {
        let (prologue, resp_static, init_static) = (
            hex("4a6f686e2047616c74"),
            hex("4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893"),
            hex("e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1"),
        );
        let remote = hex("31e0303fd6418d2f8c0e78b91f22e8caed0fbe48656dcf4767e4834f701b8f62");
        let mut initiator = vector_builder("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a")
            .local_private_key(&init_static)
            .and_then(|builder| builder.remote_public_key(&remote)?.prologue(&prologue)?.build_initiator())
            .expect("complete");
        let mut responder = vector_builder("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b")
            .local_private_key(&resp_static)
            .and_then(|builder| builder.prologue(&prologue)?.build_responder())
            .expect("complete");

        let first = hex(concat!(
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944",
            "0b03ddc7aac5123d06a1b23b71670e32e76c28239a7ca4ac8f784de7e44c1adbfc6e83fef7352a58d9d56157400c0a73",
            "7b1d171ce368229c7b752ac25b8faf4eca690f6d896f543be02c996ab2b86b76",
        ));
        let second = hex(concat!(
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843",
            "d9b5a8927f0ac9655ef76833bc7e5561f42e691ac8404efd6fbd6308b6a27c",
        ));
        let (mut message, mut payload) = ([0; 256], [0; 256]);
        let len = initiator.write_message(&hex("4c756477696720766f6e204d69736573"), &mut message).expect("first");
        assert_eq!(message[..len], first);
        let len = responder.read_message(&first, &mut payload).expect("first");
        assert_eq!(payload[..len], hex("4c756477696720766f6e204d69736573"));
        let len = responder.write_message(&hex("4d757272617920526f746862617264"), &mut message).expect("second");
        assert_eq!(message[..len], second);
        let len = initiator.read_message(&second, &mut payload).expect("second");
        assert_eq!(payload[..len], hex("4d757272617920526f746862617264"));
        let hash = hex("48f3cb8bc9319da4ba1e9933991b1c4ed4034f1f126a76d3a1fbcfd7f94248d4");
        assert_eq!(initiator.get_handshake_hash(), hash);
        assert_eq!(responder.get_handshake_hash(), hash);
        assert_eq!(initiator.dangerously_get_raw_split(), responder.dangerously_get_raw_split());
    }

    #[test]
    fn without_a_drawn_seed_there_is_no_ephemeral_key() {
        assert!(EphemeralSeed::default().try_fill_bytes(&mut [0; KEY_LEN]).is_err());
    }
}
