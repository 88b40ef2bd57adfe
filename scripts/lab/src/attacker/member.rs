//! A client that owns a configured key and keeps the protocol only where it likes.
//!
//! It shares the codec and the key schedule with the real client, nothing of its behaviour: no timer, no policy, no rate.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jumpgate_protocol::crypto::RustCryptoChaCha;
use jumpgate_protocol::entropy::SeededEntropy;
use jumpgate_protocol::handshake::{self, HelloReply, HelloRequest, Initiator, StaticSecret};
use jumpgate_protocol::ident::{Locator, PublicKey, TransportId};
use jumpgate_protocol::keys::{EpochKeys, Side};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::wire::{
    self, Body, Cause, DATA_OVERHEAD, HEADER_LEN, Header, Heartbeat, HeartbeatAck, HelloConfirm, MessageType,
    ReattachAck, ReattachReject, ReattachRequest, Terminate, UDP,
};

use crate::programs::KeyPair;

/// How long an answer may take; on this machine it takes less than a millisecond.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// The member's number of its first path.
const FIRST_PATH: TransportId = TransportId(1);
/// Context of the gate key (HS-2): no secret to whoever knows the gateway's public key.
const GATE_CONTEXT: &str = "jumpgate v1 gate mac";
/// Length of the gate MAC, at the end of HELLO_INIT.
const GATE_MAC_LEN: usize = 16;

/// A gateway, as its clients know it.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    /// Its public key in base64.
    pub(crate) public: &'a str,
    /// Where it listens.
    pub(crate) endpoint: SocketAddr,
}

/// A session in the hands of an attacker.
#[derive(Clone)]
pub(crate) struct Session {
    reply: HelloReply,
    root: jumpgate_protocol::keys::Root,
    hash: [u8; 32],
}

/// A hostile client with a session, or a copy of one.
pub(crate) struct Member {
    socket: UdpSocket,
    gateway: SocketAddr,
    session: Session,
    keys: EpochKeys<RustCryptoChaCha>,
    born: Instant,
    /// Last control counter used; also the last nonce.
    pub(crate) counter: u64,
    /// Last DATA counter used.
    pub(crate) data_counter: u64,
    /// The epoch that it believes to be current.
    pub(crate) epoch: u64,
}

/// What came back, opened.
#[derive(Debug)]
pub(crate) enum Answer {
    HeartbeatAck(HeartbeatAck),
    Bound(ReattachAck),
    Refused(ReattachReject),
    Ended(Terminate),
    /// SESSION_RESET: whether its token is the session's own.
    Reset {
        genuine: bool,
    },
    /// An inner packet.
    Data(Vec<u8>),
    /// What cannot be opened, or is none of the above.
    Other(#[expect(dead_code, reason = "told where another answer was expected")] MessageType),
}

impl Member {
    /// A handshake to its end, from that socket.
    pub(crate) fn join(socket: UdpSocket, to: &Target<'_>, key: &KeyPair, hello: &HelloRequest) -> Result<Self> {
        let mut member = match Self::knock(socket, to, key, hello)? {
            Ok(member) => member,
            Err(reason) => bail!("the gateway refuses the handshake: {reason}"),
        };
        let confirm = member.confirm();
        member.send(&confirm)?;
        match member.answer()? {
            Answer::HeartbeatAck(_) => Ok(member),
            other => bail!("HELLO_CONFIRM was answered by {other:?}"),
        }
    }

    /// Half a handshake: HELLO_INIT and its answer, no HELLO_CONFIRM. The gateway has a record in BIRTH now; or it
    /// refuses and says why.
    pub(crate) fn knock(
        socket: UdpSocket,
        to: &Target<'_>,
        key: &KeyPair,
        hello: &HelloRequest,
    ) -> Result<Result<Self, Reason>> {
        let Target { public, endpoint: gateway } = *to;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut initiator = initiator(public, &key.secret()?, hello)?;
        socket.send_to(initiator.packet(), gateway)?;
        let mut buffer = [0; 2_048];
        let mut len = socket.recv(&mut buffer).context("HELLO_INIT is not answered")?;
        if MessageType::of(&buffer[..len]) == Ok(MessageType::HelloRetry) {
            initiator.on_retry(&buffer[..len]).map_err(|reason| anyhow!("HELLO_RETRY is wrong: {reason}"))?;
            socket.send_to(initiator.packet(), gateway)?;
            len = socket.recv(&mut buffer).context("HELLO_INIT with a cookie is not answered")?;
        }
        let answer = initiator.on_ack(&buffer[..len]).map_err(|reason| anyhow!("HELLO_ACK is wrong: {reason}"))?;
        let established = match answer {
            handshake::Answer::Established(established) => *established,
            handshake::Answer::Refused(reason) => return Ok(Err(reason)),
        };
        let handshake::Established { reply, root, hash } = established;
        Ok(Ok(Self::with(Session { reply, root, hash }, socket, gateway)))
    }

    fn with(session: Session, socket: UdpSocket, gateway: SocketAddr) -> Self {
        let keys = EpochKeys::derive(&session.root, 0, &session.reply.identity, Side::Client);
        Self { socket, gateway, session, keys, born: Instant::now(), counter: 0, data_counter: 0, epoch: 1 }
    }

    /// A second holder of the same session keys, elsewhere; its counters go on from here.
    pub(crate) fn clone_to(&self, socket: UdpSocket) -> Result<Self> {
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut clone = Self::with(self.session.clone(), socket, self.gateway);
        (clone.counter, clone.data_counter, clone.epoch) = (self.counter, self.data_counter, self.epoch);
        clone.born = self.born;
        Ok(clone)
    }

    /// Goes on from another socket, and gives the former one.
    pub(crate) fn move_to(&mut self, socket: UdpSocket) -> Result<UdpSocket> {
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(std::mem::replace(&mut self.socket, socket))
    }

    /// What the gateway gave it.
    pub(crate) fn reply(&self) -> &HelloReply {
        &self.session.reply
    }

    /// Its name on the wire.
    pub(crate) fn locator(&self) -> Locator {
        self.session.reply.locator
    }

    /// Milliseconds since its handshake, as it says in its messages.
    pub(crate) fn time_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// HELLO_CONFIRM.
    pub(crate) fn confirm(&mut self) -> Vec<u8> {
        let body = HelloConfirm { binding_epoch: 1, handshake_hash: self.session.hash, transport_id: FIRST_PATH };
        self.seal(&body)
    }

    /// A HEARTBEAT that says nothing was counted.
    pub(crate) fn heartbeat(&mut self) -> Vec<u8> {
        let (binding_epoch, client_time_ms) = (self.epoch, self.time_ms());
        let body = Heartbeat { binding_epoch, client_time_ms, sent: 0, received: 0, highest: 0, policy_sequence: 1 };
        self.seal(&body)
    }

    /// What an honest client would ask for now on that path.
    pub(crate) fn request(&self, path: u16, cause: Cause) -> ReattachRequest {
        ReattachRequest {
            binding_epoch: self.epoch,
            client_time_ms: self.time_ms(),
            cause,
            transport_id: TransportId(path),
            protocol: UDP,
        }
    }

    /// Seals a REATTACH_REQUEST under the proof key, with the next nonce.
    pub(crate) fn prove(&mut self, request: &ReattachRequest) -> Vec<u8> {
        self.counter += 1;
        self.prove_as(self.locator(), self.counter, request)
    }

    /// The same for any session id and nonce.
    pub(crate) fn prove_as(&self, locator: Locator, nonce: u64, request: &ReattachRequest) -> Vec<u8> {
        wire::seal(&self.keys.proof, header(MessageType::ReattachRequest, locator, nonce), request).to_vec()
    }

    /// Seals a control message with the next counter.
    pub(crate) fn seal<B: Body>(&mut self, body: &B) -> Vec<u8> {
        self.counter += 1;
        self.seal_as(self.locator(), self.counter, body)
    }

    /// The same for any session id and counter.
    pub(crate) fn seal_as<B: Body>(&self, locator: Locator, counter: u64, body: &B) -> Vec<u8> {
        wire::seal(&self.keys.control_seal, header(B::KIND, locator, counter), body).to_vec()
    }

    /// Seals an inner packet with the next DATA counter and the tag of its epoch.
    pub(crate) fn data(&mut self, inner: &[u8]) -> Vec<u8> {
        self.data_counter += 1;
        #[expect(clippy::cast_possible_truncation, reason = "the tag is the low 8 bits of the epoch")]
        let tag = self.epoch as u8;
        self.data_as(self.locator(), self.data_counter, tag, inner)
    }

    /// The same for any session id, counter and tag.
    pub(crate) fn data_as(&self, locator: Locator, counter: u64, tag: u8, inner: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; inner.len() + DATA_OVERHEAD];
        packet[HEADER_LEN..HEADER_LEN + inner.len()].copy_from_slice(inner);
        let header = Header { tag, ..header(MessageType::Data, locator, counter) };
        wire::seal_data(&self.keys.data_seal, &header, &mut packet);
        packet
    }

    /// Sends a packet from its socket.
    pub(crate) fn send(&self, packet: &[u8]) -> Result<()> {
        self.socket.send_to(packet, self.gateway).map(drop).context("sending to the gateway")
    }

    /// Its own address.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// The next thing that comes back; an error if nothing does.
    pub(crate) fn answer(&self) -> Result<Answer> {
        self.answer_within(ANSWER_LIMIT)?.context("nothing comes back from the gateway")
    }

    /// The next thing that comes back, if it comes in time.
    pub(crate) fn answer_within(&self, limit: Duration) -> Result<Option<Answer>> {
        self.socket.set_read_timeout(Some(limit))?;
        let mut buffer = [0; 2_048];
        match self.socket.recv(&mut buffer) {
            Ok(len) => Ok(Some(self.open(&mut buffer[..len])?)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            // ICMP says that nobody listens there; who asked will see that nothing came.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(None),
            Err(error) => Err(error).context("waiting for the gateway"),
        }
    }

    /// Asks to be bound where it is, and takes the answer.
    pub(crate) fn reattach(&mut self, path: u16, cause: Cause) -> Result<Answer> {
        let packet = self.prove(&self.request(path, cause));
        self.send(&packet)?;
        let answer = self.answer()?;
        if let Answer::Bound(ack) = &answer {
            self.epoch = ack.binding_epoch;
        }
        Ok(answer)
    }

    /// Proves to an unvalidated binding's gateway that it receives there: a heartbeat of the new epoch (PV-3).
    pub(crate) fn validate(&mut self) -> Result<()> {
        let heartbeat = self.heartbeat();
        self.send(&heartbeat)?;
        match self.answer()? {
            Answer::HeartbeatAck(ack) => {
                ensure!(ack.flags & HeartbeatAck::UNBOUND == 0, "the gateway says UNBOUND");
                Ok(())
            }
            other => bail!("HEARTBEAT was answered by {other:?}"),
        }
    }

    fn open(&self, packet: &mut [u8]) -> Result<Answer> {
        let kind = MessageType::of(packet).map_err(|error| anyhow!("the gateway sent no message: {error}"))?;
        if kind == MessageType::SessionReset {
            let token = packet.get(12..).unwrap_or_default();
            return Ok(Answer::Reset { genuine: token == self.session.reply.reset_token });
        }
        let Ok(header) = Header::parse(packet) else { return Ok(Answer::Other(kind)) };
        if kind == MessageType::Data {
            return Ok(match wire::open_data(&self.keys.data_open, &header, packet) {
                Ok(inner) => Answer::Data(inner.to_vec()),
                Err(_) => Answer::Other(kind),
            });
        }
        let Ok(body) = wire::open(&self.keys.control_open, &header, packet) else { return Ok(Answer::Other(kind)) };
        let answer = match kind {
            MessageType::HeartbeatAck => HeartbeatAck::parse(body).map(Answer::HeartbeatAck),
            MessageType::ReattachAck => ReattachAck::parse(body).map(Answer::Bound),
            MessageType::ReattachReject => ReattachReject::parse(body).map(Answer::Refused),
            MessageType::Terminate => Terminate::parse(body).map(Answer::Ended),
            _ => Ok(Answer::Other(kind)),
        };
        answer.map_err(|error| anyhow!("{kind} of the gateway: {error}"))
    }
}

/// A HELLO_INIT of that key for that gateway; the seed stands for the randomness of its sender.
pub(crate) fn hello(public: &str, secret: &StaticSecret, counter: u64) -> Result<Vec<u8>> {
    Ok(initiator(public, secret, &request(counter))?.packet().to_vec())
}

/// What a plain HELLO_INIT says.
pub(crate) fn request(hello_counter: u64) -> HelloRequest {
    HelloRequest {
        hello_counter,
        client_time_ms: 0,
        replaces: None,
        capabilities: 0,
        requested_policy: Default::default(),
    }
}

/// Writes the gate MAC anew into a HELLO_INIT that was changed, as everybody can who knows the gateway's public key.
pub(crate) fn reseal_gate(hello: &mut [u8], public: &str) -> Result<()> {
    let key = blake3::derive_key(GATE_CONTEXT, &public_key(public)?.0);
    let at = hello.len() - GATE_MAC_LEN;
    let mac = blake3::keyed_hash(&key, &hello[..at]);
    hello[at..].copy_from_slice(&mac.as_bytes()[..GATE_MAC_LEN]);
    Ok(())
}

fn initiator(public: &str, secret: &StaticSecret, hello: &HelloRequest) -> Result<Initiator> {
    // Every handshake has an ephemeral key of its own, and every run of a test the same ones.
    let mut entropy = SeededEntropy::new(u64::from(secret.as_bytes()[1]) << 32 | hello.hello_counter);
    Initiator::new(secret, &public_key(public)?, None, hello, &mut entropy)
        .map_err(|reason| anyhow!("making a HELLO_INIT: {reason}"))
}

fn public_key(text: &str) -> Result<PublicKey> {
    Ok(PublicKey(key_bytes(text)?))
}

fn key_bytes(text: &str) -> Result<[u8; 32]> {
    BASE64_STANDARD.decode(text)?.try_into().map_err(|_| anyhow!("a key has 32 bytes"))
}

fn header(kind: MessageType, locator: Locator, counter: u64) -> Header {
    Header { kind, flags: 0, key_epoch: 0, tag: 0, locator, counter }
}
