//! What is tried in every state, on a copy of it: replays, forgeries, DATA from everywhere. None of it may change
//! anything, so it leads to no other states.

use std::hash::{DefaultHasher, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use jumpgate_protocol_woven::ident::TransportId;
use jumpgate_protocol_woven::wire::{
    Body, Cause, HEADER_LEN, Header, Heartbeat, MessageType, ReattachAck, ReattachRequest, ReservedZero, TAG_LEN,
    Terminate, UDP,
};

use crate::law::Law;
use crate::packet::Sealer;
use crate::watch::Violation;
use crate::world::{PATHS, World, arrival, attacker, fingerprint};

/// A counter beyond all that the ends have used: what comes under it is new.
const BEYOND: u64 = 1 << 40;

/// Everything that is tried. Gives the laws that were broken.
pub fn probe(world: &World) -> Vec<Violation> {
    let mut broken = Vec::new();
    let mut demand = |holds: bool, law: Law, what: &dyn Fn() -> String| {
        if !holds {
            broken.push(Violation { law, what: what() });
        }
    };
    let attempts = attempts(world);
    let mut stage = Stage::new(world);
    let fine = attempts.iter().map(|attempt| stage.attempt(attempt)).fold(true, |all, fine| all & fine);
    if !fine || !stage.is_unchanged() {
        // Once more, one by one, to tell which it was.
        for attempt in &attempts {
            let mut stage = Stage::new(world);
            let fine = stage.attempt(attempt) && stage.is_unchanged();
            let (law, what) = (attempt.law, &attempt.what);
            demand(fine, law, &|| format!("{what} by {}", stage.name(attempt.place)));
        }
    }
    data(world, &mut demand);
    broken
}

/// One datagram from one place.
struct Attempt {
    law: Law,
    what: String,
    by: Sealer,
    bytes: Arc<[u8]>,
    /// A path, or the attacker's own address.
    place: usize,
    /// The last message of lane M from where it came, which is answered again (RS-6).
    is_copy: bool,
}

fn attempts(world: &World) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for captured in world.captured.iter().filter(|captured| captured.is_used()) {
        for place in 0..=PATHS {
            attempts.push(Attempt {
                law: Law::Replay,
                what: format!("{captured:?} again"),
                by: captured.by,
                bytes: Arc::clone(&captured.bytes),
                place,
                is_copy: is_mutating(captured.kind) && captured.taken_from == Some(address(world, place)),
            });
        }
    }
    for (by, bytes) in forgeries(world) {
        let what = format!("a forged {}", MessageType::of(&bytes).map_or("message", MessageType::name));
        for place in 0..=PATHS {
            let (what, bytes) = (what.clone(), Arc::clone(&bytes));
            attempts.push(Attempt { law: Law::Unauthenticated, what, by, bytes, place, is_copy: false });
        }
    }
    attempts
}

/// A copy of the world that nothing changes as long as the laws hold.
struct Stage {
    world: World,
    sessions: u64,
    client: u64,
}

impl Stage {
    fn new(world: &World) -> Self {
        let world = world.clone();
        let (sessions, client) = (sessions(&world), fingerprint(&world.client));
        Self { world, sessions, client }
    }

    /// Whether the answer is no longer than what it answers. A copy that is answered again is tried apart: it may cost
    /// budget (PV-2), but state, version, epoch and binding stay.
    fn attempt(&mut self, attempt: &Attempt) -> bool {
        if attempt.is_copy {
            let mut copy = self.world.clone();
            copy.to_gateway(address(&copy, attempt.place), &attempt.bytes);
            return copy.watch.gateway == self.world.watch.gateway && copy.watch.active == self.world.watch.active;
        }
        self.deliver(attempt.by, &attempt.bytes, attempt.place) <= attempt.bytes.len()
    }

    /// Gives the bytes of the answer.
    fn deliver(&mut self, by: Sealer, bytes: &[u8], place: usize) -> usize {
        let (now, from) = (self.world.now, address(&self.world, place));
        let mut packet = bytes.to_vec();
        if by == Sealer::Gateway {
            if place < PATHS {
                let path = crate::world::transport(place);
                let _refused = self.world.client.datagram_in(now, path, &mut packet);
            }
            return std::iter::from_fn(|| self.world.client.poll_transmit()).map(|sent| sent.packet.len()).sum();
        }
        let shard = &mut self.world.shard;
        let _refused = match MessageType::of(bytes) {
            Ok(MessageType::Data) => shard.data_in(now, &arrival(from), &mut packet).map(|_| ()),
            _ => shard.control_in(now, &arrival(from), &mut packet),
        };
        std::iter::from_fn(|| shard.poll_reply()).map(|reply| reply.packet.len()).sum()
    }

    fn is_unchanged(&self) -> bool {
        sessions(&self.world) == self.sessions && fingerprint(&self.world.client) == self.client
    }

    fn name(&self, place: usize) -> String {
        if place < PATHS { format!("path {}", place + 1) } else { "the attacker's address".to_owned() }
    }
}

/// The paths, then the attacker.
fn address(world: &World, place: usize) -> SocketAddr {
    world.links.get(place).map_or(attacker(), |link| link.external)
}

/// DATA, fresh and authentic, from every address: taken where it is bound, and nothing moves; sent where it is bound.
fn data(world: &World, demand: &mut impl FnMut(bool, Law, &dyn Fn() -> String)) {
    let (now, watch) = (world.now, &world.watch);
    let mut copy = world.clone();
    let to = copy.data_down().map(|(peer, _)| peer);
    let active = watch.active.map(|active| active.peer);
    demand(to.is_none() || to == active, Law::Outbound, &|| format!("DATA goes to {to:?}, bound is {active:?}"));
    let Some((_, packet)) = copy.data_up() else {
        return;
    };
    let tag = Header::parse(&packet).map_or(0, |header| header.tag);
    let mut places = vec![world.links[0].external, world.links[1].external, attacker()];
    places.extend(watch.active.map(|bound| bound.peer));
    places.extend(watch.retiring.map(|(bound, _)| bound.peer));
    for from in places {
        let by_active = watch.active.is_some_and(|bound| bound.peer == from && bound.epoch as u8 == tag);
        let by_retiring =
            watch.retiring.is_some_and(|(bound, until)| bound.peer == from && bound.epoch as u8 == tag && now < until);
        let mut copy = world.clone();
        let taken = copy.shard.data_in(now, &arrival(from), &mut packet.clone()).is_ok();
        demand(taken == (by_active || by_retiring), Law::OneBinding, &|| {
            format!("DATA of epoch {tag} from {from} taken: {taken}; bound: {:?}, {:?}", watch.active, watch.retiring)
        });
        let moved = copy.shard.record().map(|record| (record.version(), record.epoch()));
        let before = world.shard.record().map(|record| (record.version(), record.epoch()));
        demand(moved == before, Law::MadeByCommit, &|| format!("DATA from {from} moved {before:?} to {moved:?}"));
    }
}

/// What somebody without keys can make: any header, any bytes behind it. The body is one that would be believed if the
/// tag were not looked at.
fn forgeries(world: &World) -> Vec<(Sealer, Arc<[u8]>)> {
    let Some(view) = world.captured.iter().find_map(|captured| Header::parse(&captured.bytes).ok()) else {
        return Vec::new();
    };
    let epoch = world.watch.gateway.epoch;
    let transport_id = TransportId(2);
    let time = world.now.as_millis();
    let request = ReattachRequest {
        binding_epoch: epoch,
        client_time_ms: time.saturating_sub(1_000),
        cause: Cause::HardDead,
        transport_id,
        protocol: UDP,
    };
    let heartbeat =
        Heartbeat { binding_epoch: epoch, client_time_ms: 0, sent: 0, received: 0, highest: 0, policy_sequence: 1 };
    let reason = jumpgate_protocol_woven::reason::Reason::OperatorTerminated;
    let ack = ReattachAck {
        nonce: world.captured.iter().rev().find(|known| known.asked.is_some()).map_or(1, |known| known.counter),
        binding_epoch: epoch + 1,
        observed: attacker(),
        gateway_time_ms: 0,
        detail: 0,
        flags: 0,
        next_locator: ReservedZero,
    };
    let data = Header { kind: MessageType::Data, tag: epoch as u8, counter: BEYOND, ..view };
    let mut bytes = vec![0; HEADER_LEN + 20 + TAG_LEN];
    data.emit(&mut bytes);
    vec![
        (Sealer::Client, forged(view, &request)),
        (Sealer::Client, forged(view, &heartbeat)),
        (Sealer::Client, forged(view, &Terminate { reason })),
        (Sealer::Client, bytes.clone().into()),
        (Sealer::Gateway, forged(view, &ack)),
        (Sealer::Gateway, forged(view, &Terminate { reason })),
        (Sealer::Gateway, bytes.into()),
    ]
}

fn forged<B: Body>(view: Header, body: &B) -> Arc<[u8]> {
    let mut bytes = vec![0; HEADER_LEN + B::PADDED_LEN + TAG_LEN];
    body.emit(&mut bytes[HEADER_LEN..][..B::LEN]);
    Header { kind: B::KIND, tag: 0, counter: BEYOND, ..view }.emit(&mut bytes);
    bytes.into()
}

fn sessions(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.shard.hash_sessions(&mut hasher);
    hasher.finish()
}

const fn is_mutating(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::HelloConfirm | MessageType::ReattachRequest | MessageType::RekeyInit | MessageType::Terminate
    )
}
