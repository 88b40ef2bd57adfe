//! The client's half of the handshake.

use snow::HandshakeState;
use zerocopy::IntoBytes;
use zeroize::Zeroizing;

use super::gate::GateKey;
use super::noise::{self, EphemeralSeed};
use super::payload::{HelloReply, HelloRequest, OFFER_CHACHA20_POLY1305, SUITE_CHACHA20_POLY1305};
use crate::crypto::{KEY_LEN, StaticSecret};
use crate::entropy::Entropy;
use crate::ident::PublicKey;
use crate::keys::Root;
use crate::reason::Reason;
use crate::wire::outer::HELLO_NOISE_MAX;
use crate::wire::{DIGEST_LEN, HELLO_LEN, HelloAck, HelloInit, HelloRetry};

/// A handshake under way at the client, with one HELLO_INIT outstanding.
///
/// Whatever is refused leaves it as it was, so that a forged answer cannot keep the true one out (INV-31).
pub struct Initiator {
    noise: HandshakeState,
    gate: GateKey,
    hello: Box<HelloInit>,
    /// Digest of the HELLO_INIT before the cookie came: a late answer to it is as good.
    without_cookie: Option<[u8; DIGEST_LEN]>,
}

/// What an authentic HELLO_ACK says.
pub enum Answer {
    /// There is a session.
    Established(Box<Established>),
    /// The gateway will not have us, and says why.
    Refused(Reason),
}

/// A session from the client's side.
pub struct Established {
    /// What the gateway told.
    pub reply: HelloReply,
    /// Root of the keys of key epoch 0.
    pub root: Root,
    /// Hash of the handshake, which HELLO_CONFIRM repeats.
    pub hash: [u8; 32],
}

impl Initiator {
    /// Starts a handshake with the gateway of that key.
    ///
    /// # Errors
    /// [`Reason::HandshakeFail`]: the gateway's key is no usable public key.
    pub fn new(
        secret: &StaticSecret,
        gateway: &PublicKey,
        psk: Option<&[u8; KEY_LEN]>,
        request: &HelloRequest,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, Reason> {
        let failed = |_| Reason::HandshakeFail;
        let seed = EphemeralSeed::default();
        seed.draw(entropy);
        let offer = HelloInit::new(OFFER_CHACHA20_POLY1305, psk.is_some(), &[]);
        let mut noise = noise::initiator(secret, gateway, psk, offer.offer(), &seed).map_err(failed)?;
        let mut message = [0; HELLO_NOISE_MAX];
        let len = noise.write_message(&request.to_bytes(), &mut message).map_err(failed)?;
        let mut hello = Box::new(HelloInit::new(OFFER_CHACHA20_POLY1305, psk.is_some(), &message[..len]));
        let gate = GateKey::new(gateway);
        gate.seal(&mut hello);
        Ok(Self { noise, gate, hello, without_cookie: None })
    }

    /// The HELLO_INIT to send; the same bytes until a cookie comes.
    pub fn packet(&self) -> &[u8] {
        self.hello.as_bytes()
    }

    /// Takes the cookie of a HELLO_RETRY into [`Initiator::packet`]; one per attempt (HS-7).
    ///
    /// # Errors
    /// Not a HELLO_RETRY for the outstanding HELLO_INIT ([`Reason::CookieInvalid`]), or the second one.
    pub fn on_retry(&mut self, packet: &[u8]) -> Result<(), Reason> {
        let retry = HelloRetry::parse(packet).map_err(|error| error.reason())?;
        let digest = self.hello.digest();
        if self.without_cookie.is_some() || retry.digest != digest {
            return Err(Reason::CookieInvalid);
        }
        self.hello.set_cookie(retry.cookie);
        self.gate.seal(&mut self.hello);
        self.without_cookie = Some(digest);
        Ok(())
    }

    /// Takes a HELLO_ACK. After [`Answer`] the handshake is over.
    ///
    /// # Errors
    /// It does not answer the outstanding HELLO_INIT, is not authentic, or is not what a gateway may say. Ignore it.
    pub fn on_ack(&mut self, packet: &[u8]) -> Result<Answer, Reason> {
        let ack = HelloAck::parse(packet).map_err(|error| error.reason())?;
        if ack.digest != self.hello.digest() && Some(ack.digest) != self.without_cookie {
            return Err(Reason::AuthFail);
        }
        let mut payload = Zeroizing::new([0; HELLO_LEN]);
        let len = self.noise.read_message(ack.noise, payload.as_mut()).map_err(|_| Reason::AuthFail)?;
        let reply = match HelloReply::parse(&payload[..len]).map_err(|error| error.reason())? {
            Ok(reply) => reply,
            Err(reason) => return Ok(Answer::Refused(reason)),
        };
        // HS-1: never a suite that was not offered.
        if reply.suite != SUITE_CHACHA20_POLY1305 {
            return Ok(Answer::Refused(Reason::SuiteUnsupported));
        }
        let (root, hash) = finish(&mut self.noise, &reply)?;
        Ok(Answer::Established(Box::new(Established { reply, root, hash })))
    }
}

/// Root of the session's keys and hash of the handshake, once both messages are through (KY-1).
pub(super) fn finish(noise: &mut HandshakeState, reply: &HelloReply) -> Result<(Root, [u8; 32]), Reason> {
    let mut hash = [0; 32];
    hash.copy_from_slice(noise.get_handshake_hash().get(..32).ok_or(Reason::InternalError)?);
    let (initiator, responder) = noise.dangerously_get_raw_split();
    let (initiator, responder) = (Zeroizing::new(initiator), Zeroizing::new(responder));
    Ok((Root::from_handshake((&initiator, &responder), &hash, &reply.identity), hash))
}
