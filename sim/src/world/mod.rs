//! A gateway and its clients over the virtual network, on one virtual clock that steps from event to event.

mod boot;
mod faults;
mod restart;
mod slots;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use jumpgate_protocol::client::{Client, ClientEvent};
use jumpgate_protocol::gateway::{ClientEntry, EventKind, HandshakeDesk, Shard};
use jumpgate_protocol::ident::{Locator, PublicKey, Slot, TransportId};
use jumpgate_protocol::machine::{State, Transition, TransitionId};
use jumpgate_protocol::policy::Policy;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use jumpgate_protocol::wire::{DATA_OVERHEAD, HEADER_LEN, MessageType, RequestedPolicy, TAG_LEN};

use crate::check::{Checker, Safety};
use crate::eavesdropper::Eavesdropper;
use crate::net::{Dice, Link, LocalClock};
use crate::oracle::{AmplificationOracle, NonceOracle, ReplayOracle};
use crate::queue::Queue;
use crate::records::Records;
use crate::trace::Trace;
use boot::{Keys, boot, path_info};
use slots::SlotTable;

/// The gateway's address in the virtual network.
pub const GATEWAY: &str = "192.0.2.1:51900";
/// Inner addresses of the virtual gateway.
const POOL_SIZE: u32 = 131_072;
/// The first of them.
const POOL_BASE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);
/// Nothing of a session is sent any more so long after its end: all copies of TERMINATE are out.
const AFTER_THE_END: Span = Span::from_millis(60_000);

/// Packets that a client accepted and that would be known again: more than any copy is late.
const CLIENT_REMEMBERS: usize = 512;

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
    /// What happened to it, with times; empty if the world keeps no history.
    pub events: Vec<(Time, ClientEvent)>,
    /// Inner payloads that came to it; empty if the world keeps no history.
    pub delivered: Vec<Vec<u8>>,
    pub(crate) key: PublicKey,
    pub(crate) inner: Option<Ipv4Addr>,
    pub(crate) timer: Time,
    /// Suspended since then: it hears nothing and its timers do not run.
    pub(crate) asleep_since: Option<Time>,
    /// Interfaces that came up or went down meanwhile; it learns that when it wakes.
    pub(crate) missed: Vec<(u16, bool)>,
    pub(crate) clock: LocalClock,
    pub(crate) accepted: ReplayOracle,
}

/// What is yet to happen.
pub(crate) enum Happening {
    ToGateway { from: SocketAddr, packet: Vec<u8>, forged: bool },
    ToClient { client: usize, path: u16, packet: Vec<u8>, forged: bool },
    ClientTimer { client: usize },
    SlotArrives { slot: Slot },
}

/// The whole virtual world.
pub struct World {
    pub(crate) now: Time,
    pub(crate) dice: Dice,
    pub(crate) desk: HandshakeDesk,
    pub(crate) shards: Vec<Shard>,
    pub(crate) slots: SlotTable,
    /// Until when each worker is not scheduled.
    pub(crate) paused_until: Vec<Time>,
    /// Since then there is no gateway: one has handed its sessions over, and the next one does not run yet.
    pub(crate) absent_since: Option<Time>,
    pub(crate) clients: Vec<SimClient>,
    pub(crate) by_external: HashMap<SocketAddr, (usize, u16)>,
    /// Which client was told that a session is its own, and which inner address it has there.
    pub(crate) told: HashMap<Locator, (usize, Ipv4Addr)>,
    pub(crate) by_key: HashMap<PublicKey, usize>,
    pub(crate) queue: Queue<Happening>,
    pub(crate) checker: Checker,
    pub(crate) nonces: NonceOracle,
    pub(crate) replays: ReplayOracle,
    pub(crate) amplification: AmplificationOracle,
    pub(crate) records: Records,
    /// Where the gateway's records are written to; nowhere if it is not asked for.
    pub(crate) trace: Option<Trace>,
    pub(crate) timer_calls: u64,
    /// Packets that came through, upwards and downwards.
    pub(crate) came_through: (u64, u64),
    pub(crate) over: VecDeque<(Time, Locator)>,
    next_host: u32,
    keys: Keys,
    seed: u64,
    /// How often the gateway was started.
    boots: u64,
    /// Whether events and payloads are kept. Large runs keep only what the checkers need.
    pub history: bool,
    /// A client whose transitions, at both ends, are printed as they happen.
    pub traced: Option<usize>,
    /// Inner payloads that came out at the gateway, with the client's inner address.
    pub received: Vec<(Ipv4Addr, Vec<u8>)>,
    /// Rekeys completed at the gateway: when, and the key epoch.
    pub rekeyed: Vec<(Time, u32)>,
    /// Messages that the network swallows, whoever sends them.
    pub censored: Vec<MessageType>,
    /// Datagrams that clients sent, for replay; kept only if asked for.
    pub capture: Option<Vec<(SocketAddr, Vec<u8>)>>,
    pub(crate) eavesdropper: Option<Eavesdropper>,
    /// What was sent by either end; kept with the history, so that what a test injects is known to be genuine or not.
    pub(crate) genuine: ReplayOracle,
    /// What the gateway sent to where no client is; kept with the history.
    pub(crate) mail: Vec<(SocketAddr, Vec<u8>)>,
    /// What the gateway sends, to whomever; kept only if asked for.
    pub(crate) overheard: Option<Vec<Vec<u8>>>,
    /// How sessions ended at the gateway, in their order.
    pub(crate) ended: Vec<(Locator, TransitionId, Reason)>,
    /// Every POLICY_UPDATE that the gateway sent.
    pub(crate) updates: Vec<Vec<u8>>,
    /// Sessions that another client named as its own (HS-8).
    pub(crate) fixations: Vec<Locator>,
    /// Every transition at the gateway; kept only if asked for.
    pub course: Option<Vec<(Locator, Transition)>>,
    /// What else the gateway told of its sessions: when, of which, what.
    pub noted: Vec<(Time, Locator, EventKind)>,
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
            paused_until: vec![Time::ZERO; shards.len()],
            slots: SlotTable::new(shards.len()),
            absent_since: None,
            shards,
            clients: Vec::new(),
            by_external: HashMap::new(),
            told: HashMap::new(),
            by_key: HashMap::new(),
            queue: Queue::default(),
            checker: Checker::new(&config.policy),
            nonces: NonceOracle::default(),
            replays: ReplayOracle::default(),
            amplification: AmplificationOracle::default(),
            records: Records::default(),
            trace: None,
            timer_calls: 0,
            came_through: (0, 0),
            over: VecDeque::new(),
            next_host: u32::from(Ipv4Addr::new(100, 64, 0, 0)),
            keys,
            seed: config.seed,
            boots: 0,
            history: true,
            traced: None,
            received: Vec::new(),
            rekeyed: Vec::new(),
            censored: Vec::new(),
            capture: None,
            eavesdropper: None,
            genuine: ReplayOracle::default(),
            mail: Vec::new(),
            overheard: None,
            ended: Vec::new(),
            updates: Vec::new(),
            fixations: Vec::new(),
            course: None,
            noted: Vec::new(),
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

    /// The inner address that a client was told; none if it has no session.
    pub fn inner_address(&self, client: usize) -> Option<Ipv4Addr> {
        self.clients[client].inner
    }

    /// What the checkers saw.
    pub const fn checker(&self) -> &Checker {
        &self.checker
    }

    /// What both ends recorded.
    pub const fn records(&self) -> &Records {
        &self.records
    }

    /// Keeps every record from now on.
    pub fn keep_records(&mut self) {
        self.records.keep();
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

    /// Starts the handshake of a client, if it is awake.
    pub fn connect(&mut self, client: usize) {
        if self.clients[client].asleep_since.is_some() {
            return;
        }
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
            let timer = self.next_worker_timer();
            let event = self.queue.next_at();
            let next = timer.min(event);
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            if event <= timer {
                if let Some(what) = self.queue.next() {
                    self.happen(what);
                }
            } else {
                self.run_worker_timers();
            }
        }
    }

    /// One inner packet from a client towards the gateway.
    ///
    /// # Errors
    /// Why the client could not send it.
    pub fn send_up(&mut self, client: usize, payload: &[u8]) -> Result<(), Reason> {
        let source = self.clients[client].inner.ok_or(Reason::NoActiveBinding)?;
        if self.clients[client].asleep_since.is_some() {
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
        for worker in 0..self.shards.len() {
            if self.paused_until[worker] > self.now || self.absent_since.is_some() {
                continue;
            }
            match self.shards[worker].data_out(index, &mut packet) {
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

    /// The operator moves a client.
    ///
    /// # Errors
    /// As [`Client::move_to`]; a client that sleeps has nothing bound.
    pub fn move_to(&mut self, client: usize, path: u16) -> Result<(), Reason> {
        if self.clients[client].asleep_since.is_some() {
            return Err(Reason::NoActiveBinding);
        }
        let now = self.local(client);
        let result = self.clients[client].client.move_to(now, Some(TransportId(path)));
        self.flush_client(client);
        result
    }

    /// The user of a client ends its session, unless it sleeps.
    pub fn disconnect(&mut self, client: usize) {
        if self.clients[client].asleep_since.is_some() {
            return;
        }
        let now = self.local(client);
        self.clients[client].client.terminate(now, Reason::OperatorTerminated);
        self.flush_client(client);
    }

    /// Looks at every session: none was lost in silence, none changed in silence (INV-28), none is overdue (L-2).
    pub fn audit(&mut self) {
        self.land_all();
        let now = self.now;
        let views: Vec<_> = self
            .shards
            .iter()
            .enumerate()
            .flat_map(|(worker, shard)| shard.views(now).into_iter().map(move |view| (worker, view)))
            .collect();
        self.checker.audit(&views, self.desk.len(), now);
        if self.records.open_at_gateway() != views.len() {
            let words =
                format!("INV-28: {} sessions held, {} in the records", views.len(), self.records.open_at_gateway());
            self.checker.violated(now, Safety::Other, &words);
        }
        self.desk.timeout(now);
        self.flush_desk();
        while let Some((_, locator)) = self.over.pop_front_if(|(at, _)| now.since(*at) >= AFTER_THE_END) {
            self.nonces.forget(locator);
        }
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
            let words = format!("L-1: client {client} does not come to rest: {status:?}, gateway: {view:?}");
            self.checker.violated(self.now, Safety::UnboundedRecovery, &words);
        }
    }

    /// Nothing moves any more where there is no trouble (SM-11).
    pub(crate) fn expect_silence_since(&mut self, transitions: u64) {
        let more = self.checker.transitions() - transitions;
        if more > 0 {
            let words = format!("SM-11: {more} transitions without any cause");
            self.checker.violated(self.now, Safety::Other, &words);
        }
    }

    /// Packets sealed so far, each under a nonce of its own; copies are not counted.
    pub const fn sealed(&self) -> u64 {
        self.nonces.count()
    }

    /// How often a timer ran, of clients and workers.
    pub const fn timer_calls(&self) -> u64 {
        self.timer_calls
    }

    /// Inner packets that came through, upwards and downwards.
    pub const fn came_through(&self) -> (u64, u64) {
        self.came_through
    }

    /// What a client's clock shows.
    pub(crate) fn local(&self, client: usize) -> Time {
        self.clients[client].clock.at(self.now)
    }

    pub(crate) fn worker_of(&self, locator: Locator) -> usize {
        self.slots.owner(locator.slot())
    }

    /// When a worker that is scheduled has a timer to run.
    fn next_worker_timer(&self) -> Time {
        if self.absent_since.is_some() {
            return Time::NEVER;
        }
        let timers = self.shards.iter().zip(&self.paused_until);
        timers.filter_map(|(shard, paused)| Some(shard.next_timeout()?.max(*paused))).min().unwrap_or(Time::NEVER)
    }

    fn run_worker_timers(&mut self) {
        self.timer_calls += 1;
        for worker in 0..self.shards.len() {
            let due = self.shards[worker].next_timeout().is_some_and(|at| at <= self.now);
            if due && self.paused_until[worker] <= self.now {
                self.shards[worker].timeout(self.now);
                self.flush_shard(worker);
            }
        }
    }

    fn add_client(&mut self, index: usize, paths: u16) {
        let key = self.keys.clients[index].public();
        let mut client = self.new_client(index, RequestedPolicy::new(), 0, None);
        let mut links = BTreeMap::new();
        for path in 1..=paths {
            let external = self.draw_external();
            self.by_external.insert(external, (index, path));
            links.insert(path, Link::new(external, self.now));
            client.path_up(self.now, TransportId(path), path_info(path));
        }
        self.by_key.insert(key, index);
        self.clients.push(SimClient {
            client,
            links,
            events: Vec::new(),
            delivered: Vec::new(),
            key,
            inner: None,
            timer: Time::NEVER,
            asleep_since: None,
            missed: Vec::new(),
            clock: LocalClock::true_time(),
            accepted: ReplayOracle::remembering(CLIENT_REMEMBERS),
        });
    }

    /// A NAT of its own for every path: another host address each time.
    fn draw_external(&mut self) -> SocketAddr {
        self.next_host += 1;
        SocketAddr::new(IpAddr::V4(Ipv4Addr::from(self.next_host)), crate::net::FIRST_PORT)
    }
}

pub(crate) fn gateway_address() -> SocketAddr {
    // The address is a constant of this file; a failure to parse it would show at once.
    GATEWAY.parse().unwrap_or_else(|_| SocketAddr::from(([192, 0, 2, 1], 51_900)))
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
