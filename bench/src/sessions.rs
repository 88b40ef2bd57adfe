//! Real sessions without a network: clients, a handshake desk and a shard, joined by function calls.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrayvec::ArrayVec;
use jumpgate_protocol::client::{Client, ClientConfig, ClientEvent, PathInfo};
use jumpgate_protocol::entropy::SeededEntropy;
use jumpgate_protocol::gateway::{AddressPool, ClientEntry, DeskConfig, HandshakeDesk, Shard, ShardConfig};
use jumpgate_protocol::handshake::StaticSecret;
use jumpgate_protocol::ident::{Arrival, TransportId, Tuple};
use jumpgate_protocol::policy::{Policy, Profile, Rate, TransportClass};
use jumpgate_protocol::time::{Span, Time};
use jumpgate_protocol::wire::RequestedPolicy;

/// The gateway's outer address.
pub const GATEWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 51_900);
/// MTU inside the tunnels, in bytes.
pub const INNER_MTU: u16 = 1_416;
/// Route id of the clients, where somebody resolves it.
pub const ROUTE: u32 = 1;
/// First of the clients' inner addresses.
pub const POOL_BASE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);
/// Room for the clients' inner addresses.
pub const POOL_SIZE: u32 = 1 << 17;
/// Silence that no session is to notice: the longest that PP21 and PP22 allow.
const SILENCE_ALLOWED: Span = Span::from_millis(30_000);
/// Every client lives on this path.
const PATH: TransportId = TransportId(1);

/// One client with a live session.
pub struct Peer {
    /// The real client code.
    pub client: Client,
    /// Its inner address.
    pub inner: Ipv4Addr,
    /// Its place in the pool.
    pub index: u32,
    /// Its outer address as the gateway sees it.
    pub outer: SocketAddr,
}

/// A shard, and clients whose sessions it holds.
pub struct Population {
    /// The gateway's side.
    pub shard: Shard,
    /// The clients' side.
    pub peers: Vec<Peer>,
    /// The inner addresses.
    pub pool: AddressPool,
    /// The time of the last handshake.
    pub now: Time,
}

impl Population {
    /// Makes `count` sessions by real handshakes, from `start` on by the gateway's clock.
    pub fn new(count: usize, seed: u64, start: Time) -> Result<Self> {
        let mut entropy = SeededEntropy::new(seed);
        let secret = StaticSecret::generate(&mut entropy);
        let gateway = secret.public();
        let secrets: Vec<_> = (0..count).map(|_| StaticSecret::generate(&mut entropy)).collect();
        let pool = AddressPool::new(Some(POOL_BASE), None, POOL_SIZE);
        let mut policy = Policy::profile(Profile::Default);
        policy.limits.handshakes_total = Rate::even(10_000_000);
        policy.limits.max_half_open = 1_000_000;
        // No heartbeats are exchanged here; what a benchmark sends is all that a session hears.
        policy.volatility.heartbeat_volatile = SILENCE_ALLOWED;
        policy.volatility.transport_dead = SILENCE_ALLOWED.times(2);
        policy.session.transport_lost_ttl = SILENCE_ALLOWED.times(4);
        let mut now = start;
        let config = DeskConfig {
            secret,
            clients: secrets.iter().map(|secret| (secret.public(), ClientEntry::default())).collect(),
            policy: Arc::new(policy),
            pool,
            prefixes: (15, 112),
            mtu: INNER_MTU,
            endpoints: ArrayVec::new(),
        };
        let mut desk = HandshakeDesk::new(config, Box::new(SeededEntropy::new(seed ^ 1)), now);
        let shard = ShardConfig { pool, reset_key: desk.reset_key(), resets: Rate::even(1_000) };
        let mut shard = Shard::new(shard, Box::new(SeededEntropy::new(seed ^ 2)), now);
        let mut peers = Vec::with_capacity(count);
        for (number, secret) in secrets.into_iter().enumerate() {
            // A microsecond apart, and each from an address of its own: no limiter has a say here.
            now += Span::from_micros(1);
            let host = Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 1)) + number as u32);
            let outer = SocketAddr::new(host.into(), 40_000);
            let config = ClientConfig {
                secret,
                gateway,
                psk: None,
                requested_policy: RequestedPolicy::new(),
                hello_counter: 0,
                replaces: None,
            };
            let entropy = SeededEntropy::new(seed ^ ((number as u64 + 1) << 8));
            let client = Client::new(config, Box::new(entropy));
            peers.push(connect(&mut desk, &mut shard, client, outer, now)?);
        }
        Ok(Self { shard, peers, pool, now })
    }
}

/// How a packet of that client arrives.
pub fn arrival(outer: SocketAddr) -> Arrival {
    Arrival { tuple: Tuple { local: GATEWAY, peer: outer }, route: ROUTE, queue: 0 }
}

fn connect(
    desk: &mut HandshakeDesk,
    shard: &mut Shard,
    mut client: Client,
    outer: SocketAddr,
    now: Time,
) -> Result<Peer> {
    let arrival = arrival(outer);
    client.path_up(now, PATH, PathInfo { gateway: GATEWAY, class: TransportClass::Other, priority: 0 });
    client.connect(now);
    let hello = client.poll_transmit().context("the client sent no HELLO_INIT")?;
    let outcome = desk.hello(now, &arrival, &hello.packet);
    let Some((birth, mut ack)) = outcome.birth.zip(outcome.reply) else {
        bail!("the desk refused a client: {:?}", outcome.refused);
    };
    shard.birth(now, birth);
    client.datagram_in(now, PATH, &mut ack)?;
    while let Some(mut confirm) = client.poll_transmit() {
        shard.control_in(now, &arrival, &mut confirm.packet)?;
    }
    while let Some(mut reply) = shard.poll_reply() {
        client.datagram_in(now, PATH, &mut reply.packet)?;
    }
    while let Some(event) = shard.poll_event() {
        desk.session_event(&event);
    }
    let mut inner = None;
    while let Some(event) = client.poll_event() {
        if let ClientEvent::Connected { inner_v4, .. } = event {
            inner = inner_v4.map(|(ip, _)| ip);
        }
    }
    let inner = inner.context("the client got no inner address")?;
    let index = u32::from(inner) - u32::from(POOL_BASE);
    Ok(Peer { client, inner, index, outer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_of_a_population_has_a_live_session() {
        let population = Population::new(5, 1, Time::from_millis(1_000)).unwrap();
        assert_eq!(population.shard.len(), 5);
        assert!(population.peers.iter().all(|peer| peer.client.is_connected()));
    }
}
