//! The gateway's half of the handshake, in the order of HS-3.

use core::ops::Deref;

use snow::HandshakeState;
use zeroize::Zeroizing;

use super::gate::GateKey;
use super::initiator::finish;
use super::noise::{self, EphemeralSeed, PSK_POSITION};
use super::payload::{HelloReply, HelloRequest};
use crate::crypto::{KEY_LEN, KeyPair, StaticSecret};
use crate::entropy::Entropy;
use crate::ident::PublicKey;
use crate::keys::Root;
use crate::reason::Reason;
use crate::wire::outer::{HELLO_ACK_NOISE_MAX, HELLO_NOISE_MAX};
use crate::wire::{DIGEST_LEN, HelloAck, HelloInit};

/// The gateway's long-term key and what follows from it.
pub struct Responder {
    own: KeyPair,
    gate: GateKey,
}

/// A HELLO_INIT that passed the gate: whoever sent it knows this gateway. Nothing else of it is proved.
#[derive(Clone, Copy)]
pub struct HelloView<'a>(&'a HelloInit);

/// A HELLO_INIT whose client is who it says.
pub struct Opened {
    /// The client's long-term key.
    pub client: PublicKey,
    /// What it wants.
    pub request: HelloRequest,
    digest: [u8; DIGEST_LEN],
    noise: HandshakeState,
    seed: EphemeralSeed,
}

impl Deref for HelloView<'_> {
    type Target = HelloInit;

    fn deref(&self) -> &HelloInit {
        self.0
    }
}

impl HelloView<'_> {
    /// The client's ephemeral key: the part of the message that a repetition with a cookie has in common with it.
    pub(super) fn ephemeral(&self) -> &[u8] {
        &self.noise()[..KEY_LEN]
    }

    /// Whether it carries a cookie.
    pub fn has_cookie(&self) -> bool {
        self.cookie().is_some()
    }
}

impl Responder {
    /// The gateway of that secret.
    pub fn new(secret: StaticSecret) -> Self {
        let own = KeyPair::new(secret);
        Self { gate: GateKey::new(own.public()), own }
    }

    /// First check of a datagram: length, version, gate MAC. Costs one hash, keeps nothing (INV-37).
    ///
    /// # Errors
    /// Not a HELLO_INIT of our version, or [`Reason::AuthFail`]: not made for this gateway.
    pub fn gate<'a>(&self, packet: &'a [u8]) -> Result<HelloView<'a>, Reason> {
        let hello = HelloInit::view(packet).map_err(|error| error.reason())?;
        if !self.gate.admits(hello) {
            return Err(Reason::AuthFail);
        }
        if hello.noise().len() < noise::FIRST_OVERHEAD + HelloRequest::LEN {
            return Err(Reason::Malformed);
        }
        Ok(HelloView(hello))
    }

    /// Opens the first Noise message. `authorise` says whether a client may connect, and gives its pre-shared key if it
    /// has one; then the client must use it.
    ///
    /// # Errors
    /// What `authorise` refuses with, or [`Reason::AuthFail`]. Either is met with silence (HS-4).
    pub fn open(
        &self,
        hello: &HelloView<'_>,
        authorise: impl FnOnce(&PublicKey) -> Result<Option<[u8; KEY_LEN]>, Reason>,
    ) -> Result<Opened, Reason> {
        let seed = EphemeralSeed::default();
        let mut noise = noise::responder(&self.own, hello, &seed).map_err(|_| Reason::InternalError)?;
        let mut payload = [0; HELLO_NOISE_MAX];
        let len = noise.read_message(hello.noise(), &mut payload).map_err(|_| Reason::AuthFail)?;
        let client = noise.get_remote_static().and_then(|key| key.try_into().ok()).map(PublicKey);
        let client = client.ok_or(Reason::InternalError)?;
        match authorise(&client)?.map(Zeroizing::new) {
            Some(psk) if hello.has_psk() => {
                noise.set_psk(usize::from(PSK_POSITION), psk.as_ref()).map_err(|_| Reason::InternalError)?;
            }
            None if !hello.has_psk() => {}
            _ => return Err(Reason::AuthFail),
        }
        let request = HelloRequest::parse(&payload[..len]).map_err(|error| error.reason())?;
        let opened = Opened { client, request, digest: hello.digest(), noise, seed };
        Ok(opened)
    }
}

impl Opened {
    /// Answers with a session: HELLO_ACK, the root of its keys, and the handshake hash that HELLO_CONFIRM must repeat.
    ///
    /// # Errors
    /// [`Reason::InternalError`].
    pub fn accept(
        mut self,
        reply: &HelloReply,
        entropy: &mut dyn Entropy,
    ) -> Result<(Vec<u8>, Root, [u8; 32]), Reason> {
        let packet = self.answer(&reply.to_bytes(), entropy)?;
        let (root, hash) = finish(&mut self.noise, reply)?;
        Ok((packet, root, hash))
    }

    /// Answers with a refusal: HELLO_ACK with a status and nothing else (HS-4).
    ///
    /// # Errors
    /// [`Reason::InternalError`].
    pub fn refuse(mut self, reason: Reason, entropy: &mut dyn Entropy) -> Result<Vec<u8>, Reason> {
        self.answer(&HelloReply::refusal(reason), entropy)
    }

    fn answer(&mut self, payload: &[u8], entropy: &mut dyn Entropy) -> Result<Vec<u8>, Reason> {
        self.seed.draw(entropy);
        let mut message = [0; HELLO_ACK_NOISE_MAX];
        let len = self.noise.write_message(payload, &mut message).map_err(|_| Reason::InternalError)?;
        Ok(HelloAck { digest: self.digest, noise: &message[..len] }.to_bytes())
    }
}
