//! The world of the model: the real gateway core and the real client core, two paths, and a network that does what the
//! actions say. Between two actions everything that can arrive has arrived.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;
use jumpgate_protocol_woven::client::{Client, ClientConfig, ClientEvent, PathInfo};
use jumpgate_protocol_woven::entropy::SeededEntropy;
use jumpgate_protocol_woven::gateway::{
    AddressPool, ClientEntry, DeskConfig, EventKind, HandshakeDesk, Shard, ShardConfig,
};
use jumpgate_protocol_woven::handshake::StaticSecret;
use jumpgate_protocol_woven::ident::{Arrival, Locator, TransportId, Tuple};
use jumpgate_protocol_woven::machine::{Evidence, State};
use jumpgate_protocol_woven::policy::{Policy, Profile, Rate, TransportClass};
use jumpgate_protocol_woven::reason::Reason;
use jumpgate_protocol_woven::time::{Span, Time};
use jumpgate_protocol_woven::wire::{DATA_OVERHEAD, HEADER_LEN, MessageType, RequestedPolicy};

use crate::law::Law;
use crate::packet::{Asked, Captured, Sealer, kept};
use crate::watch::{Cause, Watch};

/// Paths of the client.
pub const PATHS: usize = 2;
/// Exchanges that one action may set off; beyond it the ends answer each other without end.
const EXCHANGES: usize = 200;
/// DATA packets in a burst: more than an unvalidated binding may get for a request.
const BURST: usize = 10;
/// Commits within a minute that the policy of the model allows: few, so that the limit is reached.
const SWITCHES_PER_MINUTE: u16 = 3;
/// When the model begins.
const START: Time = Time::from_millis(1_000);

/// A path and what the attacker does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// The client's address as the gateway sees it.
    pub external: SocketAddr,
    /// The interface is up.
    pub linked: bool,
    /// Datagrams to the gateway arrive.
    pub up: bool,
    /// Datagrams to the client arrive.
    pub down: bool,
}

/// Both ends and the network between them.
#[derive(Clone)]
pub struct World {
    pub(crate) now: Time,
    pub(crate) client: Client,
    pub(crate) shard: Shard,
    pub(crate) links: [Link; PATHS],
    /// What the attacker knows.
    pub(crate) captured: Vec<Captured>,
    pub(crate) watch: Watch,
    pub(crate) policy: Arc<Policy>,
    locator: Option<Locator>,
}

/// The policy of the model: the profile with the shortest times, and few switches.
pub fn policy() -> Policy {
    let mut policy = Policy::profile(Profile::Fast);
    policy.switching.max_switches_per_min = SWITCHES_PER_MINUTE;
    policy
}

/// The gateway's address.
pub fn gateway() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 51_900))
}

/// An address of the attacker's own.
pub fn attacker() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 66], 666))
}

/// The client's number for a path.
pub const fn transport(path: usize) -> TransportId {
    TransportId(path as u16 + 1)
}

/// Bytes as one number.
pub fn fingerprint(of: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

impl World {
    /// The client has its HELLO_ACK, the gateway waits in BIRTH for HELLO_CONFIRM. Nothing has passed the network yet
    /// but the handshake, and nothing will on paths that are blocked.
    pub fn born(blocked: [bool; PATHS]) -> Self {
        let policy = Arc::new(policy());
        let mut entropy = SeededEntropy::new(1);
        let secrets = [StaticSecret::generate(&mut entropy), StaticSecret::generate(&mut entropy)];
        let pool = AddressPool::new(Some([10, 0, 0, 0].into()), None, 16);
        let desk = DeskConfig {
            secret: secrets[0].clone(),
            clients: [(secrets[1].public(), ClientEntry::default())].into_iter().collect(),
            policy: Arc::clone(&policy),
            pool,
            prefixes: (28, 124),
            mtu: 1_416,
            endpoints: ArrayVec::new(),
        };
        let mut desk = HandshakeDesk::new(desk, Box::new(SeededEntropy::new(2)), START);
        let config =
            ShardConfig { pool, reset_key: desk.reset_key(), resets: Rate { per_second: 1_000, burst: 1_000 } };
        let shard = Shard::new(config, Box::new(SeededEntropy::new(3)), START);
        let config = ClientConfig {
            secret: secrets[1].clone(),
            gateway: secrets[0].public(),
            psk: None,
            requested_policy: RequestedPolicy::new(),
            hello_counter: 0,
            replaces: None,
        };
        let client = Client::new(config, Box::new(SeededEntropy::new(4)));
        let links = [0, 1].map(|path| Link {
            external: SocketAddr::from(([100, 64, 0, path as u8 + 1], 1_024)),
            linked: true,
            up: !blocked[path],
            down: !blocked[path],
        });
        let watch = Watch::new(links[0].external, START);
        let mut world = Self { now: START, client, shard, links, captured: Vec::new(), watch, policy, locator: None };
        world.shake_hands(&mut desk);
        world
    }

    /// HELLO_INIT and HELLO_ACK, over the first path, whatever is blocked.
    fn shake_hands(&mut self, desk: &mut HandshakeDesk) {
        for path in 0..PATHS {
            self.client.path_up(self.now, transport(path), path_info(path));
        }
        self.client.connect(self.now);
        let hello = self.client.poll_transmit().expect("a client with paths sends HELLO_INIT");
        let outcome = desk.hello(self.now, &arrival(self.links[0].external), &hello.packet);
        let birth = outcome.birth.expect("a known client gets a session");
        self.locator = Some(birth.locator);
        self.shard.birth(self.now, birth);
        let mut reply = outcome.reply.expect("a session is announced by HELLO_ACK");
        let accepted = self.client.datagram_in(self.now, transport(0), &mut reply);
        assert_eq!(accepted, Ok(None), "the client takes HELLO_ACK");
        self.settle();
    }

    /// Goes to the next timer of either end and runs it. False if that lies behind `end`.
    pub fn tick(&mut self, end: Time) -> bool {
        let shard = self.shard.next_timeout().unwrap_or(Time::NEVER);
        let client = self.client.next_timeout(self.now).unwrap_or(Time::NEVER);
        if shard.min(client) > end {
            return false;
        }
        self.now = self.now.max(shard.min(client));
        if shard <= client {
            self.shard.timeout(self.now);
        } else {
            self.client.timeout(self.now);
        }
        self.settle();
        true
    }

    /// Runs every timer that is due until that much time has passed.
    pub fn wait(&mut self, span: Span) {
        let end = self.now + span;
        while self.tick(end) {}
        self.now = end;
        self.watch.at(self.now, &self.policy);
    }

    /// The client is suspended for that long: it hears nothing, its timers do not run, its clock goes on.
    pub fn sleep(&mut self, span: Span) {
        let end = self.now + span;
        let links = self.links;
        self.links.iter_mut().for_each(|link| link.down = false);
        while let Some(at) = self.shard.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.shard.timeout(self.now);
            self.settle();
        }
        self.now = end;
        self.links = links;
        self.watch.mirror.awake_since = end;
        self.client.timeout(end);
        self.settle();
        self.watch.at(self.now, &self.policy);
    }

    /// The interface of a path goes down or comes up.
    pub fn link(&mut self, path: usize, up: bool) {
        self.links[path].linked = up;
        if up {
            self.client.path_up(self.now, transport(path), path_info(path));
        } else {
            self.client.path_down(self.now, transport(path), Evidence::LinkDown);
        }
        self.settle();
    }

    /// The NAT of a path forgets its mapping and gives another port.
    pub fn rebind(&mut self, path: usize) {
        let external = &mut self.links[path].external;
        external.set_port(external.port() + 1);
    }

    /// The operator wants the session on that path.
    pub fn move_to(&mut self, path: usize) -> Result<(), Reason> {
        let moved = self.client.move_to(self.now, Some(transport(path)));
        self.settle();
        moved
    }

    /// An end is told to end the session.
    pub fn end(&mut self, by: Sealer) {
        match by {
            Sealer::Client => self.client.terminate(self.now, Reason::OperatorTerminated),
            Sealer::Gateway => {
                if let Some(locator) = self.locator {
                    self.shard.terminate(self.now, locator, Reason::OperatorTerminated);
                }
            }
        }
        self.settle();
    }

    /// One inner packet from the client. Gives the sealed packet, if the client has a path for it.
    pub fn data_up(&mut self) -> Option<(usize, Vec<u8>)> {
        let mut packet = inner_packet([10, 0, 0, 2], [10, 0, 0, 1]);
        let path = self.client.data_out(&mut packet).ok()?;
        Some((usize::from(path.0) - 1, packet))
    }

    /// One inner packet to the client. Gives the sealed packet, and where the gateway sends it.
    pub fn data_down(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        let mut packet = inner_packet([10, 0, 0, 1], [10, 0, 0, 2]);
        let outbound = self.shard.data_out(2, &mut packet).ok()?;
        Some((outbound.tuple.peer, packet))
    }

    /// The client sends one DATA packet.
    pub fn send_up(&mut self) {
        if let Some((path, packet)) = self.data_up() {
            self.sent_by_client(path, &packet);
            self.settle();
        }
    }

    /// The gateway sends DATA, as much as it may, up to a burst.
    pub fn send_down(&mut self) {
        for _ in 0..BURST {
            let Some((peer, packet)) = self.data_down() else {
                break;
            };
            let active = self.watch.active.map(|active| active.peer);
            self.watch.demand(active == Some(peer), Law::Outbound, || format!("DATA to {peer}, bound is {active:?}"));
            self.sent_by_gateway(peer, &packet);
        }
        self.settle();
    }

    /// Delivers everything that can arrive, and everything that this sets off.
    pub fn settle(&mut self) {
        for _ in 0..EXCHANGES {
            self.hear_events(None, None);
            let mut quiet = true;
            while let Some(transmit) = self.client.poll_transmit() {
                quiet = false;
                self.sent_by_client(usize::from(transmit.path.0) - 1, &transmit.packet);
            }
            while let Some(reply) = self.shard.poll_reply() {
                quiet = false;
                self.sent_by_gateway(reply.tuple.peer, &reply.packet);
            }
            if quiet {
                return;
            }
        }
        self.watch.demand(false, Law::Recovers, || "the ends answer each other without end".to_owned());
    }

    /// The client sends a datagram.
    fn sent_by_client(&mut self, path: usize, packet: &[u8]) {
        let asked = self.client.record().map(|record| Asked {
            epoch: self.client.known_epoch().unwrap_or(0),
            hard_dead: record.active().is_none() || record.trigger() == Some(Reason::TransportDead),
        });
        self.capture(Sealer::Client, Some(path as u8), packet, asked);
        let link = self.links[path];
        if link.linked && link.up {
            self.to_gateway(link.external, packet);
        }
    }

    /// The gateway sends a datagram.
    fn sent_by_gateway(&mut self, to: SocketAddr, packet: &[u8]) {
        self.watch.sent(to, packet.len());
        let path = self.links.iter().position(|link| link.external == to);
        self.capture(Sealer::Gateway, path.map(|path| path as u8), packet, None);
        if let Some(path) = path.filter(|path| self.links[*path].linked && self.links[*path].down) {
            self.to_client(path, packet);
        }
    }

    /// The attacker sees everything, and keeps the newest of each type.
    fn capture(&mut self, by: Sealer, path: Option<u8>, packet: &[u8], asked: Option<Asked>) {
        self.watch.sealed(by, packet);
        let Some(new) = Captured::new(by, path, packet, asked) else {
            return;
        };
        if self.captured.iter().any(|known| known.bytes == new.bytes) {
            return;
        }
        let same = |known: &&Captured| known.by == by && known.kind == new.kind;
        if self.captured.iter().filter(same).count() >= kept(new.kind)
            && let Some(oldest) = self.captured.iter().position(|known| same(&known))
        {
            self.captured.remove(oldest);
        }
        self.captured.push(new);
    }

    /// A datagram arrives at the gateway, and is answered.
    pub fn to_gateway(&mut self, from: SocketAddr, packet: &[u8]) {
        let Some(kind) = MessageType::of(packet).ok() else {
            return;
        };
        let known = self.captured.iter().position(|known| known.by == Sealer::Client && *known.bytes == *packet);
        let fresh = known.is_some_and(|known| !self.captured[known].is_used());
        let asked = known.and_then(|known| self.captured[known].asked);
        let cause = Cause { kind, from, bytes: packet.len(), fresh, asked };
        if fresh {
            self.watch.received(from, kind, packet.len());
        }
        let before = self.watch.gateway.clone();
        let bound = self.watch.active;
        let mut buffer = packet.to_vec();
        let arrival = arrival(from);
        let result = match kind {
            MessageType::Data => self.shard.data_in(self.now, &arrival, &mut buffer).map(|_| ()),
            _ => self.shard.control_in(self.now, &arrival, &mut buffer),
        };
        let chain = self.hear_events(Some(&cause), None);
        let broken = chain.contains(&State::Recovering) && chain.last() != Some(&State::Attached);
        let by_request = kind == MessageType::ReattachRequest;
        self.watch.demand(!(by_request && broken), Law::Whole, || format!("{cause:?} led to {chain:?}"));
        if let Err(reason) = result {
            // INV-14: nothing, but T10 and T13 after a fresh and authentic refusal, and T20 by a proved clone.
            let braked = matches!(before.state, State::Volatile | State::Recovering) && fresh && chain.len() <= 1;
            let same = self.watch.gateway == before && self.watch.active == bound;
            self.watch.demand(same || braked, Law::Refusal, || format!("{reason} to {cause:?} led to {chain:?}"));
        }
        let replies: Vec<_> = std::iter::from_fn(|| self.shard.poll_reply()).collect();
        let answered = replies.iter().any(|reply| reply.tuple.peer == from);
        if let Some(known) = known.filter(|_| fresh && (result.is_ok() || answered)) {
            self.captured[known].taken_from = Some(from);
        }
        replies.iter().for_each(|reply| self.sent_by_gateway(reply.tuple.peer, &reply.packet));
    }

    /// A datagram arrives at the client.
    pub fn to_client(&mut self, path: usize, packet: &[u8]) {
        let taken = self.client.datagram_in(self.now, transport(path), &mut packet.to_vec()).is_ok();
        if taken && let Some(known) = self.captured.iter_mut().find(|known| *known.bytes == *packet) {
            known.taken = true;
        }
        self.hear_events(None, Some(transport(path)));
    }

    /// Takes the events of both ends. Gives the states that the gateway went through.
    fn hear_events(&mut self, cause: Option<&Cause>, path: Option<TransportId>) -> Vec<State> {
        let mut states = Vec::new();
        while let Some(event) = self.shard.poll_event() {
            match event.kind {
                EventKind::Transition(transition) => {
                    states.push(transition.to);
                    self.watch.transition(&transition, cause, &self.policy);
                }
                EventKind::Validated { epoch } => self.watch.validated(epoch, cause),
                EventKind::Created => {
                    let first = self.watch.gateway.version == 0;
                    self.watch.demand(first, Law::Identity, || "a session was made anew".to_owned());
                }
                _ => {}
            }
        }
        while let Some(event) = self.client.poll_event() {
            if let ClientEvent::Transition { transition, .. } = event {
                self.watch.mirrored(&transition, path, &self.policy);
            }
        }
        self.compare();
        states
    }

    /// What both ends hold is what their events said, and what one says of the other.
    fn compare(&mut self) {
        let held = self.shard.record().map(|record| (record.state(), record.version(), record.epoch()));
        let told = &self.watch.gateway;
        let told = told.state.is_live().then_some((told.state, told.version, told.epoch));
        self.watch.demand(held == told, Law::Identity, || format!("held {held:?}, told {told:?}"));
        let Some((gateway, mirror)) = self.shard.record().zip(self.client.record()) else {
            return;
        };
        if let Some((theirs, ours)) = gateway.active().zip(mirror.active())
            && gateway.epoch() == mirror.epoch()
        {
            let (theirs, ours) = (theirs.transport, ours.transport);
            let epoch = gateway.epoch();
            self.watch.demand(theirs == ours, Law::Mirror, || format!("epoch {epoch}: path {theirs} and path {ours}"));
        }
    }

    /// Whether both ends are in service on one path, as it is now.
    pub fn is_whole(&self) -> bool {
        let (Some(gateway), Some(mirror)) = (self.shard.record(), self.client.record()) else {
            return false;
        };
        let (Some(theirs), Some(ours)) = (gateway.active(), mirror.active()) else {
            return false;
        };
        gateway.state() == State::Attached
            && mirror.state() == State::Attached
            && theirs.epoch == ours.epoch
            && theirs.transport == ours.transport
            && theirs.tuple.peer == self.links[usize::from(ours.transport.0) - 1].external
    }

    /// Whether neither end has a session any more.
    pub fn is_over(&self) -> bool {
        self.shard.record().is_none() && self.client.record().is_none()
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.now, &self.client, &self.shard, &self.links, &self.captured, self.watch.key()).hash(hasher);
    }
}

/// A datagram from there.
pub fn arrival(from: SocketAddr) -> Arrival {
    Arrival { tuple: Tuple { local: gateway(), peer: from }, route: 0, queue: 0 }
}

fn path_info(path: usize) -> PathInfo {
    PathInfo { gateway: gateway(), class: TransportClass::Other, priority: 10 * (path as u8 + 1) }
}

/// Room for the header, an IPv4 header without payload, room for the tag.
fn inner_packet(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0; 20 + DATA_OVERHEAD];
    let inner = &mut packet[HEADER_LEN..][..20];
    inner[0] = 0x45;
    inner[3] = 20;
    inner[8] = 64;
    inner[12..16].copy_from_slice(&source);
    inner[16..20].copy_from_slice(&destination);
    packet
}
