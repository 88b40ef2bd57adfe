//! A gateway and its clients over the virtual network, on one virtual clock that steps from event to event.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arrayvec::ArrayVec;
use jumpgate_protocol::client::{Client, ClientConfig, ClientEvent, PathInfo};
use jumpgate_protocol::entropy::SeededEntropy;
use jumpgate_protocol::gateway::{AddressPool, ClientEntry, DeskConfig, EventKind, HandshakeDesk, Shard, ShardConfig};
use jumpgate_protocol::handshake::StaticSecret;
use jumpgate_protocol::ident::{Locator, PublicKey, TransportId};
use jumpgate_protocol::machine::{Evidence, State, TransitionId};
use jumpgate_protocol::policy::{Policy, Rate};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use jumpgate_protocol::wire::{DATA_OVERHEAD, HEADER_LEN, MessageType, RequestedPolicy, TAG_LEN};

use crate::check::Checker;
use crate::net::{Dice, Impairment, Link};
use crate::oracle::{AmplificationOracle, NonceOracle, ReplayOracle};

/// The gateway's address in the virtual network.
pub const GATEWAY: &str = "192.0.2.1:51900";
/// Inner addresses of the virtual gateway.
const POOL_SIZE: u32 = 131_072;
/// The first of them.
const POOL_BASE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);

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
    pub(crate) inner: Option<Ipv4Addr>,
    pub(crate) timer: Time,
    /// Suspended: it hears nothing and its timers do not run.
    pub(crate) asleep: bool,
    /// What its clock shows beyond the world's, in microseconds.
    pub(crate) clock_ahead: u64,
    pub(crate) accepted: ReplayOracle,
}

pub(crate) enum Happening {
    ToGateway { from: SocketAddr, packet: Vec<u8> },
    ToClient { client: usize, path: u16, packet: Vec<u8> },
    ClientTimer { client: usize },
}

pub(crate) struct Queued {
    pub(crate) at: Time,
    pub(crate) order: u64,
    pub(crate) what: Happening,
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
    pub(crate) now: Time,
    pub(crate) dice: Dice,
    pub(crate) desk: HandshakeDesk,
    pub(crate) shards: Vec<Shard>,
    pub(crate) clients: Vec<SimClient>,
    pub(crate) by_external: BTreeMap<SocketAddr, (usize, u16)>,
    pub(crate) queue: BinaryHeap<Reverse<Queued>>,
    pub(crate) order: u64,
    pub(crate) checker: Checker,
    pub(crate) nonces: NonceOracle,
    pub(crate) replays: ReplayOracle,
    pub(crate) amplification: AmplificationOracle,
    /// Where the packet that the gateway works on came from, and its length.
    pub(crate) arriving: (SocketAddr, usize),
    pub(crate) timer_calls: u64,
    next_host: u32,
    keys: Keys,
    seed: u64,
    /// How often the gateway was started.
    boots: u64,
    /// Inner payloads that came out at the gateway, with the client's inner address.
    pub received: Vec<(Ipv4Addr, Vec<u8>)>,
    /// Rekeys completed at the gateway: when, and the key epoch.
    pub rekeyed: Vec<(Time, u32)>,
    /// Messages that the network swallows, whoever sends them.
    pub censored: Vec<MessageType>,
    /// How sessions ended at the gateway, in their order.
    pub(crate) ended: Vec<(Locator, TransitionId, Reason)>,
    /// Every POLICY_UPDATE that the gateway sent.
    pub(crate) updates: Vec<Vec<u8>>,
    /// What else the gateway told of its sessions: when, of which, what.
    pub noted: Vec<(Time, Locator, EventKind)>,
    /// Datagrams that clients sent, for replay; kept only if asked for.
    pub capture: Option<Vec<(SocketAddr, Vec<u8>)>>,
}

impl World {
    /// A world with a gateway that admits `clients` clients, each with as many paths as `paths` says.
    pub fn new(config: &WorldConfig, clients: usize, paths: u16) -> Self {
        let now = Time::from_millis(1_000);
        let keys = Keys::draw(config.seed, clients);
        let (desk, shards) = boot(config, &keys, 0, now, |_| ClientEntry::default());
        let mut world = Self {
            now,
            dice: Dice::new(config.seed),
            desk,
            shards,
            clients: Vec::new(),
            by_external: BTreeMap::new(),
            queue: BinaryHeap::new(),
            order: 0,
            checker: Checker::new(&config.policy),
            nonces: NonceOracle::default(),
            replays: ReplayOracle::default(),
            amplification: AmplificationOracle::default(),
            arriving: (gateway_address(), 0),
            timer_calls: 0,
            next_host: u32::from(Ipv4Addr::new(100, 64, 0, 0)),
            keys,
            seed: config.seed,
            boots: 0,
            received: Vec::new(),
            rekeyed: Vec::new(),
            censored: Vec::new(),
            noted: Vec::new(),
            ended: Vec::new(),
            updates: Vec::new(),
            capture: None,
        };
        for index in 0..clients {
            world.add_client(index, paths);
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
        let now = self.local(client);
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
                self.timer_calls += 1;
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
        if self.clients[client].asleep {
            return Err(Reason::NoActiveBinding);
        }
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
        let index = u32::from(destination) - u32::from(POOL_BASE);
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

    /// The gateway reaches an address by another next hop from now on.
    pub fn set_route(&mut self, peer: IpAddr, route: u32) {
        self.shards.iter_mut().for_each(|shard| shard.set_route(peer, route));
    }

    /// The next hop by which a packet to a client leaves the gateway.
    ///
    /// # Errors
    /// Why the gateway could not send it.
    pub fn route_down(&mut self, client: usize) -> Result<u32, Reason> {
        let destination = self.clients[client].inner.ok_or(Reason::NoActiveBinding)?;
        let index = u32::from(destination) - u32::from(POOL_BASE);
        let mut packet = inner_packet(Ipv4Addr::new(10, 0, 0, 1), destination, b"where to");
        let routes = self.shards.iter_mut().map(|shard| shard.data_out(index, &mut packet).map(|out| out.route));
        routes.reduce(Result::or).unwrap_or(Err(Reason::NoActiveBinding))
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
        let now = self.local(client);
        self.clients[client].client.path_down(now, TransportId(path), Evidence::LinkDown);
        self.flush_client(client);
    }

    /// The interface of a path comes up.
    pub fn link_up(&mut self, client: usize, path: u16) {
        let now = self.local(client);
        self.clients[client].client.path_up(now, TransportId(path), path_info(path));
        self.flush_client(client);
    }

    /// The operator moves a client.
    ///
    /// # Errors
    /// As [`Client::move_to`].
    pub fn move_to(&mut self, client: usize, path: u16) -> Result<(), Reason> {
        let now = self.local(client);
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
        self.boot_with(policy, |_| ClientEntry::default());
    }

    /// The gateway starts anew, with that entry for each client.
    pub fn boot_with(&mut self, policy: &Policy, entry: impl Fn(usize) -> ClientEntry) {
        self.boots += 1;
        let config = WorldConfig { seed: self.seed, workers: self.shards.len(), policy: policy.clone() };
        (self.desk, self.shards) = boot(&config, &self.keys, self.boots, self.now, entry);
        self.amplification = AmplificationOracle::default();
        self.checker.forget_gateway();
    }

    /// A client is suspended: it hears nothing, does nothing, and its clock goes on (AS-1).
    pub fn sleep(&mut self, client: usize) {
        self.clients[client].asleep = true;
    }

    /// A suspended client goes on.
    pub fn wake(&mut self, client: usize) {
        if !std::mem::take(&mut self.clients[client].asleep) {
            return;
        }
        let now = self.local(client);
        let entry = &mut self.clients[client];
        entry.timer = Time::NEVER;
        entry.client.timeout(now);
        self.flush_client(client);
    }

    /// The clock of a client jumps ahead, against AS-1.
    pub fn step_clock(&mut self, client: usize, by: Span) {
        let entry = &mut self.clients[client];
        entry.clock_ahead += by.as_micros();
        entry.timer = Time::NEVER;
        self.flush_client(client);
    }

    /// Looks at every session: none was lost in silence, none changed in silence (INV-28).
    pub fn audit(&mut self) {
        let views: Vec<_> = self.shards.iter().flat_map(|shard| shard.views(self.now)).collect();
        self.checker.audit(&views, self.desk.len());
    }

    /// A client without any trouble has a session, and both ends of it are ATTACHED to the same path.
    pub(crate) fn expect_rest(&mut self, client: usize) {
        let status = self.clients[client].client.status(self.local(client));
        let view = status.locator.and_then(|locator| self.shards[self.worker_of(locator)].view(self.now, locator));
        let peer = status.active.and_then(|path| self.clients[client].links.get(&path.0)).map(|link| link.external);
        let rests = view.as_ref().is_some_and(|view| {
            status.state == State::Attached
                && view.state == State::Attached
                && view.epoch == status.epoch
                && view.tuple.map(|tuple| tuple.peer) == peer
        });
        if !rests {
            self.checker.violated(format!("L-1: client {client} does not come to rest: {status:?}, gateway: {view:?}"));
        }
    }

    /// Nothing moves any more where there is no trouble (SM-11).
    pub(crate) fn expect_silence_since(&mut self, transitions: u64) {
        let more = self.checker.transitions() - transitions;
        if more > 0 {
            self.checker.violated(format!("SM-11: {more} transitions without any cause"));
        }
    }

    /// Packets sealed so far, each under a nonce of its own.
    pub fn sealed(&self) -> usize {
        self.nonces.len()
    }

    /// How often a timer ran, of clients and workers.
    pub const fn timer_calls(&self) -> u64 {
        self.timer_calls
    }

    /// What a client's clock shows.
    pub(crate) fn local(&self, client: usize) -> Time {
        self.now + Span::from_micros(self.clients[client].clock_ahead)
    }

    fn add_client(&mut self, index: usize, paths: u16) {
        let mut client = self.new_client(index, RequestedPolicy::new(), 0, None);
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
            asleep: false,
            clock_ahead: 0,
            accepted: ReplayOracle::default(),
        });
    }

    pub(crate) fn new_client(
        &self,
        index: usize,
        requested_policy: RequestedPolicy,
        hello_counter: u64,
        replaces: Option<Locator>,
    ) -> Client {
        let config = ClientConfig {
            secret: self.keys.clients[index].clone(),
            gateway: self.keys.gateway.public(),
            psk: None,
            requested_policy,
            hello_counter,
            replaces,
        };
        // Each start of a client draws other randomness.
        let entropy = SeededEntropy::new(self.seed ^ ((index as u64 + 1) << 8) ^ (hello_counter << 40));
        Client::new(config, Box::new(entropy))
    }

    pub(crate) fn public_keys(&self) -> Vec<PublicKey> {
        self.keys.clients.iter().map(StaticSecret::public).collect()
    }

    /// A NAT of its own for every path: another host address each time.
    fn draw_external(&mut self) -> SocketAddr {
        self.next_host += 1;
        SocketAddr::new(IpAddr::V4(Ipv4Addr::from(self.next_host)), 1_024)
    }

    pub(crate) fn worker_of(&self, locator: Locator) -> usize {
        usize::from(locator.slot().number()) % self.shards.len()
    }
}

/// The long-term keys of everybody.
struct Keys {
    gateway: StaticSecret,
    clients: Vec<StaticSecret>,
}

impl Keys {
    fn draw(seed: u64, clients: usize) -> Self {
        let mut entropy = SeededEntropy::new(seed);
        let gateway = StaticSecret::generate(&mut entropy);
        Self { gateway, clients: (0..clients).map(|_| StaticSecret::generate(&mut entropy)).collect() }
    }
}

/// A gateway without sessions; each boot draws other randomness.
fn boot(
    config: &WorldConfig,
    keys: &Keys,
    boots: u64,
    now: Time,
    entry: impl Fn(usize) -> ClientEntry,
) -> (HandshakeDesk, Vec<Shard>) {
    let pool = AddressPool::new(Some(POOL_BASE), None, POOL_SIZE);
    let desk_config = DeskConfig {
        secret: keys.gateway.clone(),
        clients: keys.clients.iter().enumerate().map(|(index, secret)| (secret.public(), entry(index))).collect(),
        policy: Arc::new(config.policy.clone()),
        pool,
        prefixes: (15, 112),
        mtu: 1_416,
        endpoints: ArrayVec::new(),
    };
    let seed = config.seed ^ (boots << 48);
    let desk = HandshakeDesk::new(desk_config, Box::new(SeededEntropy::new(seed ^ 1)), now);
    let shards = (0..config.workers as u64)
        .map(|worker| {
            let shard = ShardConfig { pool, reset_key: desk.reset_key(), resets: Rate::even(1_000) };
            Shard::new(shard, Box::new(SeededEntropy::new(seed ^ (worker << 32) ^ 2)), now)
        })
        .collect();
    (desk, shards)
}

pub(crate) fn gateway_address() -> SocketAddr {
    // The address is a constant of this file; a failure to parse it would show at once.
    GATEWAY.parse().unwrap_or_else(|_| SocketAddr::from(([192, 0, 2, 1], 51_900)))
}

fn path_info(path: u16) -> PathInfo {
    PathInfo { gateway: gateway_address(), priority: u8::try_from(path * 10).unwrap_or(u8::MAX) }
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
