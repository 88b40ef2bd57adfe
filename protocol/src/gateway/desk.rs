//! The handshake desk: answers HELLO_INIT, admits clients, draws locators and addresses (§6.2).
//!
//! Nothing is kept for a client before its gate MAC and, under load, its cookie were verified (INV-37).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;
use hashbrown::{HashMap, HashSet};

use super::places::Places;
use super::tombstones::Tombstones;
use super::vigil::Vigil;
use super::{AddressPool, Birth, EventKind, ResetKey, SessionEvent, Sources};
use crate::audit::{self, Disclosure, LimitScope, PolicyAction, SecurityCounts};
use crate::entropy::Entropy;
use crate::handshake::{CookieJar, HelloReply, Opened, Responder, StaticSecret};
use crate::ident::{Arrival, Locator, PublicKey, SLOT_COUNT, SessionIdentity, Slot, Tuple};
use crate::limits::{Bucket, SourceTable};
use crate::machine::TransitionId;
use crate::policy::Policy;
use crate::reason::{Reason, ReasonCounters};
use crate::time::{Span, Time};
use crate::wire::{PolicySnapshot, ReservedZero};

/// Draws of a locator before the gateway counts as full; with 2^52 random bits one is enough.
const LOCATOR_DRAWS: usize = 16;

/// A client that may connect.
#[derive(Clone, Default)]
pub struct ClientEntry {
    /// Pre-shared key, if one is configured.
    pub psk: Option<[u8; 32]>,
    /// A fixed place in the address pool.
    pub inner_index: Option<u32>,
    /// A policy of its own instead of the gateway's.
    pub policy: Option<Arc<Policy>>,
    /// Where it may come from.
    pub sources: Sources,
    /// Its key is in other hands: it is let in no more (KY-10).
    pub compromised: bool,
}

/// What the desk must know.
pub struct DeskConfig {
    /// The gateway's long-term secret.
    pub secret: StaticSecret,
    /// Who may connect.
    pub clients: HashMap<PublicKey, ClientEntry>,
    /// The policy of sessions whose client has none of its own, and of the gateway's limits.
    pub policy: Arc<Policy>,
    /// The inner addresses.
    pub pool: AddressPool,
    /// Prefix lengths of the inner addresses, in bits: IPv4, IPv6.
    pub prefixes: (u8, u8),
    /// MTU inside the tunnel, in bytes.
    pub mtu: u16,
    /// Where the gateway listens, as told to clients.
    pub endpoints: ArrayVec<SocketAddr, 4>,
}

/// What became of a HELLO_INIT.
#[derive(Default)]
pub struct Outcome {
    /// To send back to where it came from.
    pub reply: Option<Vec<u8>>,
    /// A session for the owner of its slot. It must get there before anything else of the same client.
    pub birth: Option<Birth>,
    /// Why there is none.
    pub refused: Option<Reason>,
    /// The session of another client that this one wanted to replace, and which was left alone (HS-8,
    /// SEC_SESSION_FIXATION_ATTEMPT).
    pub fixation: Option<Locator>,
}

/// A HELLO_INIT that led to no session.
struct Refused {
    reason: Reason,
    /// HELLO_RETRY, or a HELLO_ACK with the reason; nothing before the client is known (HS-4).
    reply: Option<Vec<u8>>,
}

/// One session as the desk remembers it, from HELLO_ACK to its end.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) client: PublicKey,
    /// What its client asked for (RL-5): stays in force under another policy.
    pub(super) requested: Box<[(u16, u64)]>,
    /// How long its locator is not given out again after its end (PP13).
    pub(super) tombstone: Span,
    pub(super) inner_index: u32,
    pub(super) hello_counter: u64,
    pub(super) replaces: Option<Locator>,
    /// Until the keys are confirmed.
    pub(super) half_open: Option<Box<HalfOpen>>,
}

/// What answers a byte-identical HELLO_INIT (HS-4).
#[derive(Clone)]
pub(super) struct HalfOpen {
    /// What that HELLO_INIT is found by.
    pub(super) digest: [u8; 16],
    /// Where it came from.
    pub(super) from: Tuple,
    /// HELLO_ACK.
    pub(super) ack: Vec<u8>,
}

/// What is remembered of a client over its sessions; one for each configured key at most.
#[derive(Default)]
pub(super) struct Known {
    pub(super) half_open: u32,
    pub(super) open: u32,
    pub(super) confirmed_counter: Option<u64>,
    /// The place that it had last, so that it gets the same addresses again.
    pub(super) last_index: Option<u32>,
}

impl Known {
    pub(super) const fn has_sessions(&self) -> bool {
        self.half_open > 0 || self.open > 0
    }
}

/// What HELLO_INIT led to before anything was reserved for it.
struct Admitted {
    inner_index: u32,
    replaces: Option<Locator>,
    fixation: Option<Locator>,
    policy: Arc<Policy>,
    sources: Sources,
}

/// The slow path's half of the handshake.
pub struct HandshakeDesk {
    pub(super) config: DeskConfig,
    responder: Responder,
    pub(super) cookies: CookieJar,
    reset_key: ResetKey,
    pub(super) entropy: Box<dyn Entropy + Send>,
    pub(super) entries: HashMap<Locator, Entry>,
    pub(super) half_open: HashMap<[u8; 16], Locator>,
    pub(super) known: HashMap<PublicKey, Known>,
    pub(super) places: Places,
    pub(super) tombstones: Tombstones,
    pub(super) sources: SourceTable,
    total: Bucket,
    /// The policy last loaded was invalid (RL-2).
    pub(super) suspended: bool,
    /// Sessions that are to hear of another policy.
    pub(super) changes: VecDeque<Locator>,
    /// Keys that an operator flagged (KY-10); configured clients only, so their number is bounded.
    pub(super) compromised: HashSet<PublicKey>,
    counters: ReasonCounters,
    pub(super) vigil: Vigil,
    /// How often the policy of the gateway was replaced, from 1.
    policy_sequence: u32,
}

impl HandshakeDesk {
    /// A desk without sessions.
    pub fn new(config: DeskConfig, mut entropy: Box<dyn Entropy + Send>, now: Time) -> Self {
        let limits = &config.policy.limits;
        let fixed = config.clients.values().filter_map(|entry| entry.inner_index);
        let places = Places::new(config.pool.size(), fixed);
        Self {
            responder: Responder::new(config.secret.clone()),
            cookies: CookieJar::new(limits.cookie_rotate, entropy.as_mut(), now),
            reset_key: ResetKey::from_secret(config.secret.as_bytes()),
            entropy,
            entries: HashMap::new(),
            half_open: HashMap::new(),
            known: HashMap::new(),
            places,
            tombstones: Tombstones::default(),
            sources: SourceTable::new(limits.handshakes_per_source, limits.source_table_entries as usize),
            total: Bucket::full(limits.handshakes_total, now),
            suspended: false,
            changes: VecDeque::new(),
            compromised: HashSet::new(),
            counters: ReasonCounters::default(),
            vigil: Vigil::default(),
            policy_sequence: 1,
            config,
        }
    }

    /// The key of the reset tokens, for the shards.
    pub fn reset_key(&self) -> ResetKey {
        self.reset_key.clone()
    }

    /// What the records of this gateway may disclose.
    pub fn disclosure(&self) -> Disclosure {
        Disclosure::new(self.config.secret.as_bytes(), &self.config.policy, self.policy_sequence)
    }

    /// Keeps audit records from now on: [`HandshakeDesk::poll_record`] gives them, and has to be asked.
    pub fn keep_records(&mut self, now: Time) {
        let disclosure = self.disclosure();
        self.vigil.keep(disclosure, now);
        self.vigil.policy(PolicyAction::Loaded, Reason::PolicyChanged, &self.config.policy, now);
    }

    /// Another policy is about to be in force, or one was refused. Shards hear of what may be disclosed from now on by
    /// [`Shard::keep_records`](super::Shard::keep_records).
    pub(super) fn record_policy(&mut self, now: Time, action: PolicyAction, in_force: &Policy) {
        let mut reason = Reason::PolicyInvalid;
        if action == PolicyAction::Changed {
            reason = Reason::PolicyChanged;
            self.policy_sequence = self.policy_sequence.saturating_add(1);
            self.vigil.disclose(Disclosure::new(self.config.secret.as_bytes(), in_force, self.policy_sequence), now);
        }
        self.vigil.policy(action, reason, in_force, now);
    }

    /// The next audit record, if there is one: policy, refused handshakes, floods.
    pub fn poll_record(&mut self) -> Option<audit::Record> {
        self.vigil.poll()
    }

    /// Security records of the desk.
    pub fn security(&self) -> SecurityCounts {
        self.vigil.security()
    }

    /// Input that the driver itself refused, before it came to the desk or to a shard: RATE_LIMITED by that limiter, or
    /// another reason.
    pub fn refused_by_driver(&mut self, now: Time, peer: SocketAddr, packet: &[u8], reason: Reason, scope: LimitScope) {
        self.vigil.refused(now, peer, packet, reason, Some((scope, Span::ZERO)));
    }

    /// Writes what has become due: summaries of records that were left out.
    pub fn timeout(&mut self, now: Time) {
        let under_load = self.is_under_load(now);
        self.vigil.load(now, under_load, false);
        self.vigil.summarise(now);
    }

    /// When [`HandshakeDesk::timeout`] has something to do.
    pub fn next_timeout(&self) -> Option<Time> {
        self.vigil.next_timeout()
    }

    /// Refusals by reason.
    pub const fn counters(&self) -> &ReasonCounters {
        &self.counters
    }

    /// Sessions known to the desk, half-open ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no session is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Locators of ended sessions that are held back (TM-2).
    pub fn tombstones(&self) -> usize {
        self.tombstones.len()
    }

    /// Whether cookies are asked for now (HS-7).
    pub fn is_under_load(&mut self, now: Time) -> bool {
        self.half_open.len() * 2 >= self.config.policy.limits.max_half_open as usize
            || !self.total.has_token(self.config.policy.limits.handshakes_total, now)
    }

    /// One HELLO_INIT (HS-3).
    pub fn hello(&mut self, now: Time, arrival: &Arrival, packet: &[u8]) -> Outcome {
        self.admit(now, arrival, packet).unwrap_or_else(|Refused { reason, reply }| {
            self.counters.count(reason);
            self.vigil.refused(now, arrival.tuple.peer, packet, reason, None);
            Outcome { reply, refused: Some(reason), ..Outcome::default() }
        })
    }

    /// Follows the life of sessions. Gives the locator of an old session that the new one replaces (HS-8): the driver
    /// ends it with SESSION_REPLACED.
    pub fn session_event(&mut self, event: &SessionEvent) -> Option<Locator> {
        let transition = match &event.kind {
            EventKind::Transition(transition) => transition,
            EventKind::BirthRefused { .. } => {
                self.forget(event.locator);
                return None;
            }
            _ => return None,
        };
        if transition.id == TransitionId::T01 {
            let entry = self.entries.get_mut(&event.locator)?;
            if let Some(half_open) = entry.half_open.take() {
                self.half_open.remove(&half_open.digest);
            }
            let known = self.known.entry(entry.client).or_default();
            known.half_open = known.half_open.saturating_sub(1);
            known.open += 1;
            known.confirmed_counter = known.confirmed_counter.max(Some(entry.hello_counter));
            // Of handshakes over different paths the last one confirmed has the address; the client knows no other.
            let former = self.places.confirm(entry.inner_index, event.locator);
            return former.or(entry.replaces.take());
        }
        if !transition.to.is_live()
            && let Some(tombstone) = self.forget(event.locator)
        {
            let capacity = self.config.policy.limits.max_sessions as usize;
            self.tombstones.bury(event.locator, transition.at + tombstone, capacity, transition.at);
        }
        None
    }

    /// Frees all that was reserved for a session. Gives how long its locator is to be held back.
    fn forget(&mut self, locator: Locator) -> Option<Span> {
        let entry = self.entries.remove(&locator)?;
        let known = self.known.entry(entry.client).or_default();
        if let Some(half_open) = entry.half_open {
            self.half_open.remove(&half_open.digest);
            known.half_open = known.half_open.saturating_sub(1);
        } else {
            known.open = known.open.saturating_sub(1);
        }
        self.places.release(entry.inner_index, locator);
        Some(entry.tombstone)
    }

    fn admit(&mut self, now: Time, arrival: &Arrival, packet: &[u8]) -> Result<Outcome, Refused> {
        let hello = self.responder.gate(packet).map_err(silent)?;
        let peer = arrival.tuple.peer;
        let digest = hello.digest();
        let limits = self.config.policy.limits;
        let source = self.sources.take(peer.ip(), now);
        let entry = self.half_open.get(&digest).and_then(|locator| self.entries.get(locator));
        if let Some(half_open) = entry.and_then(|entry| entry.half_open.as_deref()) {
            // Elsewhere the answer would be of no use: HELLO_CONFIRM must come from where HELLO_INIT came from (HS-5).
            if half_open.from != arrival.tuple {
                return Err(silent(Reason::HelloReplayed));
            }
            source.map_err(|_| silent(Reason::RateLimited))?;
            return Ok(Outcome { reply: Some(half_open.ack.clone()), ..Outcome::default() });
        }
        let under_load = self.is_under_load(now);
        let uncertain = under_load && !self.cookies.check(now, peer, &hello, self.entropy.as_mut());
        self.vigil.load(now, under_load, uncertain);
        if uncertain {
            let retry = source.is_ok().then(|| self.cookies.retry(now, peer, &hello, self.entropy.as_mut()));
            let reason = if hello.has_cookie() { Reason::CookieInvalid } else { Reason::CookieRequired };
            return Err(Refused { reason, reply: retry });
        }
        source.map_err(|_| silent(Reason::RateLimited))?;
        // A valid cookie proves the address: such a client is served also beyond the total rate.
        let _ = self.total.take(self.config.policy.limits.handshakes_total, now);
        if self.half_open.len() >= limits.max_half_open as usize {
            return Err(silent(Reason::CapacityExceeded));
        }
        let opened = self.responder.open(&hello, |client| self.authorised(client)).map_err(silent)?;
        self.accept(now, arrival, digest, opened)
    }

    /// The pre-shared key of a client that may connect, if it has one.
    fn authorised(&self, client: &PublicKey) -> Result<Option<[u8; 32]>, Reason> {
        let entry = self.config.clients.get(client).ok_or(Reason::PeerUnknown)?;
        let policy = entry.policy.as_ref().unwrap_or(&self.config.policy);
        let lacks_psk = policy.security.require_psk && entry.psk.is_none();
        if lacks_psk || self.is_compromised(client, entry) {
            return Err(Reason::PeerUnknown);
        }
        Ok(entry.psk)
    }

    /// From here on the client is who it says: a refusal is told (HS-4).
    fn accept(&mut self, now: Time, arrival: &Arrival, digest: [u8; 16], opened: Opened) -> Result<Outcome, Refused> {
        let client = opened.client;
        let Admitted { inner_index, replaces, fixation, policy, sources } = match self.admission(now, arrival, &opened)
        {
            Ok(admitted) => admitted,
            Err(reason) => {
                let reply = opened.refuse(reason, self.entropy.as_mut()).ok();
                return Err(Refused { reason, reply });
            }
        };
        let Some(locator) = self.draw_locator() else {
            return Err(silent(Reason::CapacityExceeded));
        };
        let mut identity = SessionIdentity([0; 16]);
        self.entropy.fill(&mut identity.0);
        let (hello_counter, client_time_ms) = (opened.request.hello_counter, opened.request.client_time_ms);
        let requested = opened.request.requested_policy.as_slice().into();
        let pool = &self.config.pool;
        let (inner_v4, inner_v6) = (pool.v4(inner_index), pool.v6(inner_index));
        let snapshot =
            PolicySnapshot::try_from(policy.encode_snapshot().as_slice()).map_err(|_| silent(Reason::InternalError))?;
        let reply = HelloReply {
            locator,
            identity,
            binding_epoch: 1,
            suite: HelloReply::SUITE_CHACHA20_POLY1305,
            policy_sequence: 1,
            policy_hash: policy.hash(),
            policy: snapshot,
            gateway_time_ms: 0,
            inner_v4: inner_v4.map(|ip| (ip, self.config.prefixes.0)),
            inner_v6: inner_v6.map(|ip| (ip, self.config.prefixes.1)),
            mtu: self.config.mtu,
            endpoints: self.config.endpoints.clone(),
            reset_token: self.reset_key.token(locator),
            next_locator: ReservedZero,
        };
        let (ack, root, handshake_hash) =
            opened.accept(&reply, self.entropy.as_mut()).map_err(|_| silent(Reason::InternalError))?;
        self.places.take(inner_index, client);
        let known = self.known.entry(client).or_default();
        known.half_open += 1;
        known.last_index = Some(inner_index);
        self.half_open.insert(digest, locator);
        let half_open = Some(Box::new(HalfOpen { digest, from: arrival.tuple, ack: ack.clone() }));
        let tombstone = policy.session.tombstone;
        let entry = Entry { client, requested, tombstone, inner_index, hello_counter, replaces, half_open };
        self.entries.insert(locator, entry);
        let birth = Birth {
            locator,
            identity,
            client,
            inner_index,
            inner_v4,
            inner_v6,
            root,
            handshake_hash,
            policy,
            sources,
            arrival: *arrival,
            client_time_ms,
        };
        Ok(Outcome { reply: Some(ack), birth: Some(birth), refused: None, fixation })
    }

    /// Counter, capacity, policy and address of an authenticated client, in the order of HS-3.
    fn admission(&mut self, now: Time, arrival: &Arrival, opened: &Opened) -> Result<Admitted, Reason> {
        let client = opened.client;
        if self.suspended {
            return Err(Reason::PolicyInvalid);
        }
        let entry = self.config.clients.get(&client).ok_or(Reason::PeerUnknown)?;
        let sources = entry.sources.clone();
        if !sources.allow(arrival.tuple.peer.ip()) {
            return Err(Reason::PolicyDenied);
        }
        let known = self.known.get(&client);
        let (half_open, open) = known.map_or((0, 0), |known| (known.half_open, known.open));
        let last_counter = known.and_then(|known| known.confirmed_counter);
        let last_index = known.and_then(|known| known.last_index);
        if last_counter.is_some_and(|last| opened.request.hello_counter <= last) {
            return Err(Reason::HelloReplayed);
        }
        // HS-8: an old session of the same key makes way; one of another key is left alone.
        let (replaces, fixation) = match opened.request.replaces.map(|old| (old, self.entries.get(&old))) {
            Some((old, Some(entry))) if entry.client == client => (Some(old), None),
            Some((old, Some(_))) => (None, Some(old)),
            _ => (None, None),
        };
        if fixation.is_some() {
            self.counters.count(Reason::SecSessionFixationAttempt);
            self.vigil.fixation(now, arrival.tuple.peer);
        }
        let limits = &self.config.policy.limits;
        let freed = u32::from(replaces.is_some());
        if half_open >= limits.half_open_per_identity
            || open >= limits.max_sessions_per_identity + freed
            || self.entries.len() >= limits.max_sessions as usize
        {
            return Err(Reason::CapacityExceeded);
        }
        let entry = self.config.clients.get(&client).ok_or(Reason::PeerUnknown)?;
        let base = entry.policy.as_ref().unwrap_or(&self.config.policy);
        let policy = if opened.request.requested_policy.is_empty() {
            Arc::clone(base)
        } else {
            Arc::new(base.narrow(&opened.request.requested_policy).map_err(|_| Reason::PolicyDenied)?)
        };
        let inner_index = self.choose_index(client, entry.inner_index, replaces, last_index)?;
        Ok(Admitted { inner_index, replaces, fixation, policy, sources })
    }

    /// The client's fixed place, the place of the session it replaces, the place it had last, or the next free one.
    fn choose_index(
        &mut self,
        client: PublicKey,
        fixed: Option<u32>,
        replaces: Option<Locator>,
        last: Option<u32>,
    ) -> Result<u32, Reason> {
        // Since the old one began, the client may have been given a fixed place.
        let old = replaces.and_then(|old| self.entries.get(&old)).map(|old| old.inner_index);
        if let Some(old) = old.filter(|old| fixed.is_none_or(|fixed| fixed == *old)) {
            return Ok(old);
        }
        let known = fixed.or(last).filter(|index| self.places.is_open_to(&client, *index));
        let index = if fixed.is_some() { known } else { known.or_else(|| self.places.any_free()) };
        index.ok_or(Reason::CapacityExceeded)
    }

    fn draw_locator(&mut self) -> Option<Locator> {
        (0..LOCATOR_DRAWS).find_map(|_| {
            let slot = Slot::new((self.entropy.next_u64() % SLOT_COUNT as u64) as u16)?;
            let locator = Locator::new(slot, self.entropy.next_u64());
            (!self.entries.contains_key(&locator) && !self.tombstones.holds(locator)).then_some(locator)
        })
    }
}

fn silent(reason: Reason) -> Refused {
    Refused { reason, reply: None }
}
