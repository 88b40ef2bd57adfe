//! A gateway and its clients over the virtual network, on one virtual clock that steps from event to event.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arrayvec::ArrayVec;
use jumpgate_protocol::client::{Client, ClientConfig, ClientEvent, PathInfo};
use jumpgate_protocol::entropy::SeededEntropy;
use jumpgate_protocol::gateway::{
    AddressPool, ClientEntry, DeskConfig, EventKind, HandshakeDesk, SessionEvent, Shard, ShardConfig,
};
use jumpgate_protocol::handshake::StaticSecret;
use jumpgate_protocol::ident::{Arrival, Locator, TransportId, Tuple};
use jumpgate_protocol::machine::Evidence;
use jumpgate_protocol::policy::{Policy, Rate};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use jumpgate_protocol::wire::{DATA_OVERHEAD, HEADER_LEN, Header, MessageType, RequestedPolicy, TAG_LEN};

use crate::check::Checker;
use crate::net::{Dice, Impairment, Link};

/// The gateway's address in the virtual network.
pub const GATEWAY: &str = "192.0.2.1:51900";
/// Inner addresses of the virtual gateway.
const POOL_SIZE: u32 = 131_072;

/// What a run is made of.
pub struct WorldConfig {
    /// Everything random follows from it.
    pub seed: u64,
    /// Workers of the gateway.
    pub workers: usize,
    /// The policy of every session.
    pub policy: Policy,
}

/// One client with its paths.
pub struct SimClient {
    /// The real client code.
    pub client: Client,
    /// Its paths, by transport id.
    pub links: BTreeMap<u16, Link>,
    /// What happened to it, with times.
    pub events: Vec<(Time, ClientEvent)>,
    /// Inner payloads that came to it.
    pub delivered: Vec<Vec<u8>>,
    inner: Option<Ipv4Addr>,
    timer: Time,
}

enum Happening {
    ToGateway { from: SocketAddr, packet: Vec<u8> },
    ToClient { client: usize, path: u16, packet: Vec<u8> },
    ClientTimer { client: usize },
}

struct Queued {
    at: Time,
    order: u64,
    what: Happening,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// The whole virtual world.
pub struct World {
    now: Time,
    dice: Dice,
    desk: HandshakeDesk,
    shards: Vec<Shard>,
    clients: Vec<SimClient>,
    by_external: BTreeMap<SocketAddr, (usize, u16)>,
    queue: BinaryHeap<Reverse<Queued>>,
    order: u64,
    next_host: u32,
    gateway_secret: StaticSecret,
    seed: u64,
    checker: Checker,
    /// Inner payloads that came out at the gateway, with the client's inner address.
    pub received: Vec<(Ipv4Addr, Vec<u8>)>,
    /// Datagrams that clients sent, for replay; kept only if asked for.
    pub capture: Option<Vec<(SocketAddr, Vec<u8>)>>,
}

impl World {
    /// A world with a gateway that admits `clients` clients, each with as many paths as `paths` says.
    pub fn new(config: &WorldConfig, clients: usize, paths: u16) -> Self {
        let mut entropy = SeededEntropy::new(config.seed);
        let gateway_secret = StaticSecret::generate(&mut entropy);
        let secrets: Vec<_> = (0..clients).map(|_| StaticSecret::generate(&mut entropy)).collect();
        let now = Time::from_millis(1_000);
        let pool = AddressPool::new(Some(Ipv4Addr::new(10, 0, 0, 0)), None, POOL_SIZE);
        let policy = Arc::new(config.policy.clone());
        let desk_config = DeskConfig {
            secret: gateway_secret.clone(),
            clients: secrets.iter().map(|secret| (secret.public(), ClientEntry::default())).collect(),
            policy,
            pool,
            prefixes: (15, 112),
            mtu: 1_416,
            endpoints: ArrayVec::new(),
        };
        let desk = HandshakeDesk::new(desk_config, Box::new(SeededEntropy::new(config.seed ^ 1)), now);
        let shards = (0..config.workers as u64)
            .map(|worker| {
                let shard = ShardConfig { pool, reset_key: desk.reset_key(), resets: Rate::even(1_000) };
                Shard::new(shard, Box::new(SeededEntropy::new(config.seed ^ (worker << 32) ^ 2)), now)
            })
            .collect();
        let mut world = Self {
            now,
            dice: Dice::new(config.seed),
            desk,
            shards,
            clients: Vec::new(),
            by_external: BTreeMap::new(),
            queue: BinaryHeap::new(),
            order: 0,
            next_host: u32::from(Ipv4Addr::new(100, 64, 0, 0)),
            gateway_secret,
            seed: config.seed,
            checker: Checker::default(),
            received: Vec::new(),
            capture: None,
        };
        for secret in secrets {
            world.add_client(secret, paths);
        }
        world
    }

    /// The virtual time.
    pub const fn now(&self) -> Time {
        self.now
    }

    /// A client.
    pub fn client(&mut self, index: usize) -> &mut SimClient {
        &mut self.clients[index]
    }

    /// What the checkers saw.
    pub const fn checker(&self) -> &Checker {
        &self.checker
    }

    /// The gateway's shards.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The gateway's handshake desk.
    pub const fn desk(&self) -> &HandshakeDesk {
        &self.desk
    }

    /// How often the gateway refused or dropped something for that reason.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.desk.counters().value(reason) + self.shards.iter().map(|shard| shard.counters().value(reason)).sum::<u64>()
    }

    /// Starts the handshake of a client.
    pub fn connect(&mut self, client: usize) {
        let now = self.now;
        self.clients[client].client.connect(now);
        self.flush_client(client);
    }

    /// Starts the handshake of a client and runs until it has a session, or five seconds have passed.
    pub fn connect_now(&mut self, client: usize) {
        self.connect(client);
        for _ in 0..500 {
            if self.clients[client].client.is_connected() {
                break;
            }
            self.run_for(Span::from_millis(10));
        }
        self.run_for(Span::from_millis(200));
    }

    /// Runs until that much virtual time has passed.
    pub fn run_for(&mut self, span: Span) {
        let end = self.now + span;
        loop {
            let shard_timer = self.shards.iter().filter_map(Shard::next_timeout).min().unwrap_or(Time::NEVER);
            let event = self.queue.peek().map_or(Time::NEVER, |Reverse(queued)| queued.at);
            let next = shard_timer.min(event);
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            if event <= shard_timer {
                if let Some(Reverse(queued)) = self.queue.pop() {
                    self.happen(queued.what);
                }
            } else {
                for index in 0..self.shards.len() {
                    self.shards[index].timeout(self.now);
                    self.flush_shard(index);
                }
            }
        }
    }

    /// One inner packet from a client towards the gateway.
    ///
    /// # Errors
    /// Why the client could not send it.
    pub fn send_up(&mut self, client: usize, payload: &[u8]) -> Result<(), Reason> {
        let source = self.clients[client].inner.ok_or(Reason::NoActiveBinding)?;
        let mut packet = inner_packet(source, Ipv4Addr::new(10, 0, 0, 1), payload);
        let path = self.clients[client].client.data_out(&mut packet)?;
        self.transmit(client, path.0, packet);
        Ok(())
    }

    /// One inner packet from the gateway towards a client.
    ///
    /// # Errors
    /// Why the gateway could not send it.
    pub fn send_down(&mut self, client: usize, payload: &[u8]) -> Result<(), Reason> {
        let destination = self.clients[client].inner.ok_or(Reason::NoActiveBinding)?;
        let index = u32::from(destination) - u32::from(Ipv4Addr::new(10, 0, 0, 0));
        let mut packet = inner_packet(Ipv4Addr::new(10, 0, 0, 1), destination, payload);
        let mut refused = Reason::NoActiveBinding;
        for shard in &mut self.shards {
            match shard.data_out(index, &mut packet) {
                Ok(outbound) => {
                    self.deliver_to_peer(outbound.tuple.peer, &packet);
                    return Ok(());
                }
                Err(reason) => refused = reason,
            }
        }
        Err(refused)
    }

    /// Something arrives at the gateway as from that address: for forged, replayed and raced packets.
    pub fn inject(&mut self, from: SocketAddr, packet: &[u8]) {
        self.queue_at(self.now, Happening::ToGateway { from, packet: packet.to_vec() });
    }

    /// The NAT of a path gives another port; the old mapping is gone.
    pub fn rebind(&mut self, client: usize, path: u16) {
        if let Some(link) = self.clients[client].links.get_mut(&path) {
            self.by_external.remove(&link.external);
            link.external.set_port(link.external.port().checked_add(1).unwrap_or(1_024));
            self.by_external.insert(link.external, (client, path));
        }
    }

    /// Sets both directions of a path.
    pub fn impair(&mut self, client: usize, path: u16, impairment: Impairment) {
        if let Some(link) = self.clients[client].links.get_mut(&path) {
            link.up = impairment;
            link.down = impairment;
        }
    }

    /// The interface of a path goes down.
    pub fn link_down(&mut self, client: usize, path: u16) {
        let now = self.now;
        self.clients[client].client.path_down(now, TransportId(path), Evidence::LinkDown);
        self.flush_client(client);
    }

    /// The interface of a path comes up.
    pub fn link_up(&mut self, client: usize, path: u16) {
        let now = self.now;
        self.clients[client].client.path_up(now, TransportId(path), path_info(path));
        self.flush_client(client);
    }

    /// The operator moves a client.
    ///
    /// # Errors
    /// As [`Client::move_to`].
    pub fn move_to(&mut self, client: usize, path: u16) -> Result<(), Reason> {
        let now = self.now;
        let result = self.clients[client].client.move_to(now, Some(TransportId(path)));
        self.flush_client(client);
        result
    }

    /// The operator of the gateway ends a session.
    pub fn terminate(&mut self, locator: Locator, reason: Reason) {
        let worker = self.worker_of(locator);
        self.shards[worker].terminate(self.now, locator, reason);
        self.flush_shard(worker);
    }

    /// The gateway crashes and starts anew: no session survives it, nobody is told.
    pub fn restart_gateway(&mut self, policy: &Policy) {
        let clients = std::mem::take(&mut self.clients);
        let config = WorldConfig { seed: self.seed, workers: self.shards.len(), policy: policy.clone() };
        let mut fresh = Self::new(&config, clients.len(), 0);
        std::mem::swap(&mut self.desk, &mut fresh.desk);
        std::mem::swap(&mut self.shards, &mut fresh.shards);
        self.clients = clients;
        self.checker.forget_gateway();
    }

    fn add_client(&mut self, secret: StaticSecret, paths: u16) {
        let index = self.clients.len();
        let config = ClientConfig {
            secret,
            gateway: self.gateway_secret.public(),
            psk: None,
            requested_policy: RequestedPolicy::new(),
            hello_counter: 0,
            replaces: None,
        };
        let entropy = SeededEntropy::new(self.seed ^ ((index as u64 + 1) << 8));
        let mut client = Client::new(config, Box::new(entropy));
        let mut links = BTreeMap::new();
        for path in 1..=paths {
            let external = self.draw_external();
            self.by_external.insert(external, (index, path));
            links.insert(path, Link { up: Impairment::default(), down: Impairment::default(), external });
            client.path_up(self.now, TransportId(path), path_info(path));
        }
        self.clients.push(SimClient {
            client,
            links,
            events: Vec::new(),
            delivered: Vec::new(),
            inner: None,
            timer: Time::NEVER,
        });
    }

    /// A NAT of its own for every path: another host address each time.
    fn draw_external(&mut self) -> SocketAddr {
        self.next_host += 1;
        SocketAddr::new(IpAddr::V4(Ipv4Addr::from(self.next_host)), 1_024)
    }

    fn worker_of(&self, locator: Locator) -> usize {
        usize::from(locator.slot().number()) % self.shards.len()
    }

    fn queue_at(&mut self, at: Time, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Queued { at, order: self.order, what }));
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::ToGateway { from, packet } => self.gateway_receives(from, packet),
            Happening::ToClient { client, path, packet } => self.client_receives(client, path, packet),
            Happening::ClientTimer { client } => {
                let entry = &mut self.clients[client];
                if entry.timer <= self.now {
                    entry.timer = Time::NEVER;
                    entry.client.timeout(self.now);
                    self.flush_client(client);
                }
            }
        }
    }

    fn gateway_receives(&mut self, from: SocketAddr, mut packet: Vec<u8>) {
        let local = GATEWAY.parse().unwrap_or(from);
        let arrival = Arrival { tuple: Tuple { local, peer: from }, route: 0, queue: 0 };
        if packet.first() == Some(&(MessageType::HelloInit as u8)) {
            let outcome = self.desk.hello(self.now, &arrival, &packet);
            if let Some(birth) = outcome.birth {
                let worker = self.worker_of(birth.locator);
                self.shards[worker].birth(self.now, birth);
                self.flush_shard(worker);
            }
            if let Some(reply) = outcome.reply {
                self.checker.answered(packet.len(), reply.len());
                self.deliver_to_peer(from, &reply);
            }
            return;
        }
        let Ok(header) = Header::parse(&packet) else {
            return;
        };
        let worker = self.worker_of(header.locator);
        if header.kind == MessageType::Data {
            if let Ok(inner) = self.shards[worker].data_in(self.now, &arrival, &mut packet) {
                let inner = &packet[inner.start..inner.start + inner.len];
                if let Some((source, payload)) = split_inner(inner) {
                    self.received.push((source, payload.to_vec()));
                }
            }
        } else {
            let _counted = self.shards[worker].control_in(self.now, &arrival, &mut packet);
        }
        self.flush_shard(worker);
    }

    fn client_receives(&mut self, client: usize, path: u16, mut packet: Vec<u8>) {
        let entry = &mut self.clients[client];
        if let Ok(Some(range)) = entry.client.datagram_in(self.now, TransportId(path), &mut packet)
            && let Some((_, payload)) = split_inner(&packet[range])
        {
            entry.delivered.push(payload.to_vec());
        }
        self.flush_client(client);
    }

    fn flush_shard(&mut self, worker: usize) {
        while let Some(reply) = self.shards[worker].poll_reply() {
            self.deliver_to_peer(reply.tuple.peer, &reply.packet);
        }
        while let Some(event) = self.shards[worker].poll_event() {
            self.gateway_event(&event);
        }
    }

    fn gateway_event(&mut self, event: &SessionEvent) {
        if let EventKind::Transition(transition) = &event.kind {
            self.checker.transition(event.locator, transition);
        }
        if let Some(old) = self.desk.session_event(event) {
            self.terminate(old, Reason::SessionReplaced);
        }
    }

    fn flush_client(&mut self, index: usize) {
        while let Some(transmit) = self.clients[index].client.poll_transmit() {
            self.transmit(index, transmit.path.0, transmit.packet);
        }
        let now = self.now;
        let entry = &mut self.clients[index];
        while let Some(event) = entry.client.poll_event() {
            if let ClientEvent::Connected { inner_v4, .. } = &event {
                entry.inner = inner_v4.map(|(ip, _)| ip);
            }
            entry.events.push((now, event));
        }
        if let Some(next) = entry.client.next_timeout(now)
            && next < entry.timer
        {
            entry.timer = next;
            self.queue_at(next, Happening::ClientTimer { client: index });
        }
    }

    fn transmit(&mut self, client: usize, path: u16, packet: Vec<u8>) {
        let Some(link) = self.clients[client].links.get(&path) else {
            return;
        };
        let (external, way) = (link.external, link.up);
        if let Some(capture) = &mut self.capture {
            capture.push((external, packet.clone()));
        }
        for (at, packet) in self.dice.carry(&way, self.now, &packet) {
            self.queue_at(at, Happening::ToGateway { from: external, packet });
        }
    }

    fn deliver_to_peer(&mut self, peer: SocketAddr, packet: &[u8]) {
        let Some((client, path)) = self.by_external.get(&peer).copied() else {
            return;
        };
        let Some(way) = self.clients[client].links.get(&path).map(|link| link.down) else {
            return;
        };
        for (at, packet) in self.dice.carry(&way, self.now, packet) {
            self.queue_at(at, Happening::ToClient { client, path, packet });
        }
    }
}

fn path_info(path: u16) -> PathInfo {
    // The address is a constant of this file; a failure to parse it would show at once.
    let gateway = GATEWAY.parse().unwrap_or_else(|_| SocketAddr::from(([192, 0, 2, 1], 51_900)));
    PathInfo { gateway, priority: u8::try_from(path * 10).unwrap_or(u8::MAX) }
}

/// Room for the header, an IPv4 packet with that payload, room for the tag.
fn inner_packet(source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let total = 20 + payload.len();
    let mut packet = vec![0; total + DATA_OVERHEAD];
    let inner = &mut packet[HEADER_LEN..HEADER_LEN + total];
    inner[0] = 0x45;
    inner[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    inner[8] = 64;
    inner[12..16].copy_from_slice(&source.octets());
    inner[16..20].copy_from_slice(&destination.octets());
    inner[20..].copy_from_slice(payload);
    debug_assert_eq!(packet.len(), HEADER_LEN + total + TAG_LEN);
    packet
}

fn split_inner(inner: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let source: [u8; 4] = inner.get(12..16)?.try_into().ok()?;
    Some((source.into(), inner.get(20..)?))
}
