//! A peer that holds the keys of a session and writes its messages by hand: what an honest client never says, under
//! valid keys.

use std::net::{Ipv4Addr, SocketAddr};

use jumpgate_protocol::crypto::DefaultAead;
use jumpgate_protocol::entropy::SeededEntropy;
use jumpgate_protocol::handshake::{Answer, HelloRequest, Initiator};
use jumpgate_protocol::ident::{Locator, TransportId};
use jumpgate_protocol::keys::{EpochKeys, Side};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use jumpgate_protocol::wire::{
    self, Body, Cause, DATA_OVERHEAD, HEADER_LEN, Header, HelloConfirm, MessageType, ReattachAck, ReattachReject,
    ReattachRequest, RequestedPolicy, UDP,
};

use crate::world::World;

/// Whoever holds the keys of one session.
pub struct Holder {
    /// The session.
    pub locator: Locator,
    /// The last control counter that was used.
    pub counter: u64,
    /// The last DATA counter that was used.
    pub data_counter: u64,
    /// Its inner address.
    pub inner: Ipv4Addr,
    keys: EpochKeys<DefaultAead>,
    born: Time,
}

/// What the gateway answered to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Bound, under that epoch.
    Bound(u64),
    /// Refused, with the current epoch if that is told.
    Refused(Reason, Option<u64>),
}

impl Holder {
    /// A whole handshake under the long-term key of a client, from that address, by path 1.
    ///
    /// # Panics
    /// The gateway does not answer: the test has set something up that it did not want.
    pub fn connect(world: &mut World, client: usize, from: SocketAddr) -> Self {
        let (secret, gateway) = world.long_term_keys(client);
        let request = HelloRequest {
            hello_counter: 1,
            client_time_ms: 0,
            replaces: None,
            capabilities: 0,
            requested_policy: RequestedPolicy::new(),
        };
        let initiator = Initiator::new(&secret, &gateway, None, &request, &mut SeededEntropy::new(u64::MAX));
        let mut initiator = initiator.expect("the gateway's key is a key");
        let born = world.now();
        world.inject_genuine(from, initiator.packet());
        world.run_for(Span::from_millis(1));
        let reply = world.take_mail(from).pop().expect("a client that is known is answered");
        let Ok(Answer::Established(established)) = initiator.on_ack(&reply) else {
            panic!("a client that means well gets a session");
        };
        let (locator, identity) = (established.reply.locator, established.reply.identity);
        let inner = established.reply.inner_v4.expect("the pool has addresses").0;
        world.told.insert(locator, (client, inner));
        let keys = EpochKeys::derive(&established.root, 0, &identity, Side::Client);
        let mut holder = Self { locator, counter: 0, data_counter: 0, inner, keys, born };
        let confirm = HelloConfirm { binding_epoch: 1, handshake_hash: established.hash, transport_id: TransportId(1) };
        let packet = holder.control(&confirm);
        world.inject_genuine(from, &packet);
        world.run_for(Span::from_millis(1));
        world.take_mail(from);
        holder
    }

    /// A control message under the next counter.
    pub fn control<B: Body>(&mut self, body: &B) -> Vec<u8> {
        self.counter += 1;
        wire::seal(&self.keys.control_seal, self.header(self.counter, 0), body).to_vec()
    }

    /// A REATTACH_REQUEST of now, with that epoch, under the next counter.
    pub fn request(&mut self, world: &World, epoch: u64, cause: Cause, path: u16) -> Vec<u8> {
        self.counter += 1;
        self.request_under(world, self.counter, epoch, cause, path)
    }

    /// A REATTACH_REQUEST under any nonce, also one that was used before.
    pub fn request_under(&self, world: &World, nonce: u64, epoch: u64, cause: Cause, path: u16) -> Vec<u8> {
        let body = ReattachRequest {
            binding_epoch: epoch,
            client_time_ms: world.now().since(self.born).as_millis(),
            cause,
            transport_id: TransportId(path),
            protocol: UDP,
        };
        wire::seal(&self.keys.proof, self.header(nonce, 0), &body).to_vec()
    }

    /// A DATA packet with that tag, under the next counter.
    pub fn data(&mut self, tag: u8, payload: &[u8]) -> Vec<u8> {
        self.data_between(self.inner, Ipv4Addr::new(10, 0, 0, 1), tag, payload)
    }

    /// The same, from any inner address to any.
    pub fn data_between(&mut self, from: Ipv4Addr, to: Ipv4Addr, tag: u8, payload: &[u8]) -> Vec<u8> {
        self.data_counter += 1;
        let mut packet = vec![0; 20 + payload.len() + DATA_OVERHEAD];
        let inner = &mut packet[HEADER_LEN..];
        inner[0] = 0x45;
        inner[3] = 20 + payload.len() as u8;
        inner[12..16].copy_from_slice(&from.octets());
        inner[16..20].copy_from_slice(&to.octets());
        inner[20..][..payload.len()].copy_from_slice(payload);
        let header = Header { kind: MessageType::Data, ..self.header(self.data_counter, tag) };
        wire::seal_data(&self.keys.data_seal, &header, &mut packet);
        packet
    }

    /// What the gateway answered there to requests, in order. Everything else that came is dropped.
    pub fn verdicts(&self, world: &mut World, at: SocketAddr) -> Vec<Verdict> {
        let mail = world.take_mail(at);
        mail.into_iter().filter_map(|mut packet| self.verdict(&mut packet)).collect()
    }

    fn verdict(&self, packet: &mut [u8]) -> Option<Verdict> {
        let header = Header::parse(packet).ok()?;
        let body = wire::open(&self.keys.control_open, &header, packet).ok()?;
        match header.kind {
            MessageType::ReattachAck => Some(Verdict::Bound(ReattachAck::parse(body).ok()?.binding_epoch)),
            MessageType::ReattachReject => {
                let reject = ReattachReject::parse(body).ok()?;
                Some(Verdict::Refused(reject.reason, reject.current.map(|(epoch, _)| epoch)))
            }
            _ => None,
        }
    }

    fn header(&self, counter: u64, tag: u8) -> Header {
        // The kind of a control message is taken from its body.
        Header { kind: MessageType::Heartbeat, flags: 0, key_epoch: 0, tag, locator: self.locator, counter }
    }
}
