//! A gateway without sockets: its handshake desk and one worker's sessions, tied together as the programs tie them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arrayvec::ArrayVec;
use jumpgate_protocol::gateway::{
    AddressPool, ClientEntry, DeskConfig, HandshakeDesk, Outcome, SessionEvent, Shard, ShardConfig,
};
use jumpgate_protocol::handshake::{Answer, HelloReply, HelloRequest, Initiator, StaticSecret};
use jumpgate_protocol::ident::{Arrival, Locator, SessionIdentity, Tuple};
use jumpgate_protocol::keys::Root;
use jumpgate_protocol::policy::{Policy, Rate};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Time;
use jumpgate_protocol::wire::{RequestedPolicy, ReservedZero};

/// Where it listens.
pub const GATEWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 51_900);
/// Addresses for clients; few, so that they run out.
const POOL_SIZE: u32 = 64;

/// The gateway, its clock, and the secrets of the clients that it knows.
pub struct Gateway {
    /// Its clock.
    pub now: Time,
    /// Its handshakes.
    pub desk: HandshakeDesk,
    /// Its sessions.
    pub shard: Shard,
    /// Its long-term secret.
    pub secret: StaticSecret,
    /// The long-term secrets of its clients.
    pub clients: Vec<StaticSecret>,
    hello_counter: u64,
}

/// What a client knows after a handshake.
pub struct Guest {
    /// Name of the session.
    pub locator: Locator,
    /// Identity of the session.
    pub identity: SessionIdentity,
    /// Root of its keys.
    pub root: Root,
    /// What HELLO_CONFIRM must repeat.
    pub handshake_hash: [u8; 32],
    /// Its inner address.
    pub inner_v4: Ipv4Addr,
    /// Its place in the pool.
    pub inner_index: u32,
}

impl Gateway {
    /// A gateway that knows so many clients. Everything random is the same each time.
    pub fn new(policy: Policy, clients: usize) -> Self {
        let mut entropy = crate::entropy(1);
        let now = Time::from_millis(1_000);
        let secret = StaticSecret::generate(&mut entropy);
        let clients: Vec<_> = (0..clients).map(|_| StaticSecret::generate(&mut entropy)).collect();
        let pool = AddressPool::new(Some(Ipv4Addr::new(10, 0, 0, 0)), None, POOL_SIZE);
        let config = DeskConfig {
            secret: secret.clone(),
            clients: clients.iter().map(|client| (client.public(), ClientEntry::default())).collect(),
            policy: Arc::new(policy),
            pool,
            prefixes: (26, 112),
            mtu: 1_416,
            endpoints: ArrayVec::from_iter([GATEWAY]),
        };
        let desk = HandshakeDesk::new(config, Box::new(crate::entropy(2)), now);
        let shard = ShardConfig { pool, reset_key: desk.reset_key(), resets: Rate::even(1_000) };
        let shard = Shard::new(shard, Box::new(crate::entropy(3)), now);
        Self { now, desk, shard, secret, clients, hello_counter: 0 }
    }

    /// One HELLO_INIT; a session that comes of it goes to the worker.
    pub fn hello(&mut self, peer: SocketAddr, packet: &[u8]) -> Outcome {
        let arrival = Arrival { tuple: Tuple { local: GATEWAY, peer }, route: 1, queue: 0 };
        let mut outcome = self.desk.hello(self.now, &arrival, packet);
        if let Some(birth) = outcome.birth.take() {
            self.shard.birth(self.now, birth);
        }
        outcome
    }

    /// What a client of this gateway would ask for.
    pub fn request(&mut self) -> HelloRequest {
        self.hello_counter += 1;
        HelloRequest {
            hello_counter: self.hello_counter,
            client_time_ms: 0,
            replaces: None,
            capabilities: 0,
            requested_policy: RequestedPolicy::new(),
        }
    }

    /// A whole handshake of a client that means well, up to HELLO_CONFIRM.
    pub fn handshake(&mut self, client: usize, from: SocketAddr) -> Guest {
        let request = self.request();
        let secret = &self.clients[client];
        let initiator = Initiator::new(secret, &self.secret.public(), None, &request, &mut crate::entropy(4));
        let mut initiator = initiator.expect("the gateway's key is a key");
        let reply = self.hello(from, initiator.packet()).reply.expect("a client that is known is answered");
        let Ok(Answer::Established(established)) = initiator.on_ack(&reply) else {
            panic!("a client that means well gets a session");
        };
        let inner_v4 = established.reply.inner_v4.expect("the pool has IPv4 addresses").0;
        Guest {
            locator: established.reply.locator,
            identity: established.reply.identity,
            root: established.root,
            handshake_hash: established.hash,
            inner_v4,
            inner_index: u32::from(inner_v4) - u32::from(Ipv4Addr::new(10, 0, 0, 0)),
        }
    }

    /// Writes the gate MAC that fits to the end of a message, as anybody can who knows the gateway's public key (HS-2).
    pub fn gate(&self, packet: &mut [u8]) {
        if let Some((gated, mac)) = packet.split_last_chunk_mut::<16>() {
            let key = blake3::derive_key("jumpgate v1 gate mac", &self.secret.public().0);
            mac.copy_from_slice(&blake3::keyed_hash(&key, gated).as_bytes()[..16]);
        }
    }

    /// The next event of a session, after the desk has seen it too.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        let event = self.shard.poll_event()?;
        if let Some(old) = self.desk.session_event(&event) {
            self.shard.terminate(self.now, old, Reason::SessionReplaced);
        }
        Some(event)
    }
}

/// A HELLO_ACK's payload as an honest gateway would write it, for the harness where it plays the gateway itself.
pub fn reply(policy: &Policy) -> HelloReply {
    HelloReply {
        locator: Locator(0x0010_0000_0000_0042),
        identity: SessionIdentity([8; 16]),
        binding_epoch: 1,
        suite: HelloReply::SUITE_CHACHA20_POLY1305,
        policy_sequence: 1,
        policy_hash: policy.hash(),
        policy: policy.encode_snapshot().into_iter().collect(),
        gateway_time_ms: 0,
        inner_v4: Some(([10, 0, 0, 9].into(), 26)),
        inner_v6: None,
        mtu: 1_416,
        endpoints: [GATEWAY].into_iter().collect(),
        reset_token: [6; 16],
        next_locator: ReservedZero,
    }
}
