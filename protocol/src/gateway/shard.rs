//! The sessions of one worker: table, timers, dispatch. The only writer of each of them (AS-4, INV-20).

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::net::IpAddr;

use hashbrown::{DefaultHashBuilder, HashMap};
use slab::Slab;

use super::event::{Reply, SessionEvent, SessionView};
use super::meter::{Memory, Meter, Stopwatch};
use super::session::{Outbound, Session};
use super::slots::Slots;
use super::{AddressPool, Birth, EventKind, ResetKey};
use crate::audit::{self, Disclosure, Journal, Refused};
use crate::entropy::Entropy;
use crate::ident::{Arrival, Locator, PublicKey};
use crate::keys::KeyLimits;
use crate::limits::Bucket;
use crate::machine::{Input, State};
use crate::policy::Rate;
use crate::reason::{Reason, ReasonCounters};
use crate::time::{Span, Time};
use crate::wire::{self, ControlPacket, Header, MessageType};

/// Replies and events that a batch can make before the driver takes them; more only grows the queue.
const OUTBOX_CAPACITY: usize = 1_024;
/// TERMINATE goes out three times (TM-1).
pub(super) const FAREWELL_COPIES: u8 = 3;
/// Time between its copies: the round trip is not measured at this end (HS-6).
const FAREWELL_RTO: Span = Span::from_millis(250);

/// Sessions whose memory is looked at when somebody asks: some ten microseconds of a worker's time.
const MEMORY_SAMPLE: usize = 1_024;

/// Names a session inside its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub u32);

/// An inner packet that may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Where it starts in the UDP payload, in bytes.
    pub start: usize,
    /// Its length in bytes.
    pub len: usize,
    /// Whose it is.
    pub session: SessionKey,
}

/// What a shard needs to know of its gateway.
pub struct ShardConfig {
    /// The inner addresses.
    pub pool: AddressPool,
    /// Key of the stateless reset tokens (KY-4).
    pub reset_key: ResetKey,
    /// Most SESSION_RESETs a second (PP78), this shard's share.
    pub resets: Rate,
}

/// What the sessions of a shard share while one of them is at work.
pub(super) struct Context<'a> {
    pub(super) now: Time,
    pub(super) entropy: &'a mut (dyn Entropy + Send),
    pub(super) outbox: &'a mut Outbox,
    pub(super) pool: &'a AddressPool,
}

/// What waits for the driver.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) replies: VecDeque<Reply>,
    pub(super) events: VecDeque<SessionEvent>,
    pub(super) journal: Journal,
    /// Refusals, drops and what else is counted by reason.
    pub(super) counters: ReasonCounters,
    /// What else is counted.
    pub(super) meter: Meter,
    pub(super) stopwatch: Stopwatch,
}

/// A session in its shard.
pub(super) struct Seat {
    pub(super) session: Session,
    /// The earliest timer that stands in the heap for it.
    pub(super) scheduled: Time,
}

/// Who has an inner address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Holder {
    #[default]
    Nobody,
    Here(SessionKey),
    /// Its session went to another shard.
    Elsewhere,
}

struct Farewell {
    reply: Reply,
    at: Time,
    left: u8,
}

/// The sessions of one worker.
pub struct Shard {
    pub(super) sessions: Slab<Seat>,
    pub(super) by_locator: HashMap<Locator, SessionKey, DefaultHashBuilder>,
    pub(super) by_inner: Vec<Holder>,
    /// Sessions by the address that their active binding leads to, so that a new route costs as much as it concerns.
    pub(super) by_peer: BTreeSet<(IpAddr, SessionKey)>,
    pub(super) timers: BinaryHeap<Reverse<(Time, Locator)>>,
    /// In the order of their time, which is the same span away for all.
    farewells: VecDeque<Farewell>,
    pub(super) outbox: Outbox,
    entropy: Box<dyn Entropy + Send>,
    pub(super) config: ShardConfig,
    key_limits: KeyLimits,
    resets: Bucket,
    pub(super) slots: Slots,
}

impl Shard {
    /// A shard without sessions. Every slot is its own, until [`Shard::keep_slots`] says otherwise.
    pub fn new(config: ShardConfig, entropy: Box<dyn Entropy + Send>, now: Time) -> Self {
        Self {
            sessions: Slab::new(),
            by_locator: HashMap::default(),
            by_inner: vec![Holder::Nobody; config.pool.size() as usize],
            by_peer: BTreeSet::new(),
            timers: BinaryHeap::new(),
            farewells: VecDeque::new(),
            outbox: Outbox {
                replies: VecDeque::with_capacity(OUTBOX_CAPACITY),
                events: VecDeque::with_capacity(OUTBOX_CAPACITY),
                journal: Journal::default(),
                counters: ReasonCounters::default(),
                meter: Meter::default(),
                stopwatch: Stopwatch::default(),
            },
            entropy,
            resets: Bucket::full(config.resets, now),
            key_limits: KeyLimits::SUITE_1,
            slots: Slots::all(),
            config,
        }
    }

    /// Lower limits for the keys of sessions to come, so that a test can reach them (KY-6). They never rise.
    pub fn lower_key_limits(&mut self, limits: KeyLimits) {
        self.key_limits = self.key_limits.lower_of(limits);
    }

    /// Measures from now on what look-ups, commits and evictions cost, by a clock in nanoseconds that serves for
    /// nothing else.
    pub fn lend_stopwatch(&mut self, clock: fn() -> u64) {
        self.outbox.stopwatch = Stopwatch::of(clock);
    }

    /// Keeps audit records from now on: [`Shard::poll_record`] gives them, and has to be asked. Called again, it only
    /// changes what they disclose.
    pub fn keep_records(&mut self, now: Time, disclosure: Disclosure) {
        self.outbox.journal.keep(disclosure, now);
    }

    /// Takes over a session in BIRTH. A locator that is already known, or of a slot that is another's, is a defect of ours:
    /// refused, never replaced (INV-03), and told, so that what was reserved for it is freed.
    pub fn birth(&mut self, now: Time, birth: Birth) {
        let locator = birth.locator;
        if self.by_locator.contains_key(&locator) || !self.slots.owns(locator.slot()) {
            return self.refuse_birth(locator, birth.client);
        }
        let session = Session::new(birth, self.key_limits, now, &mut self.outbox);
        let key = self.settle(session, false);
        self.with(now, key, |session, context| session.emit(EventKind::Created, context));
    }

    /// A session whose locator is in use.
    pub(super) fn refuse_birth(&mut self, locator: Locator, client: PublicKey) {
        let reason = Reason::InvariantViolation;
        self.outbox.counters.count(reason);
        let kind = EventKind::BirthRefused { reason };
        self.outbox.events.push_back(SessionEvent { locator, client, account: None, kind });
    }

    /// Gives a session its place in the tables; in that of inner addresses only if it has its address already.
    pub(super) fn settle(&mut self, session: Session, holds_address: bool) -> SessionKey {
        let (locator, inner, peer) = (session.locator, session.inner_index, session.peer());
        let key = SessionKey(self.sessions.insert(Seat { session, scheduled: Time::NEVER }) as u32);
        self.by_locator.insert(locator, key);
        if let Some(peer) = peer {
            self.by_peer.insert((peer, key));
        }
        if let Some(entry) = self.by_inner.get_mut(inner as usize).filter(|_| holds_address) {
            *entry = Holder::Here(key);
        }
        key
    }

    /// All sessions, in no order.
    pub(super) fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().map(|(_, seat)| &seat.session)
    }

    /// One DATA packet: a UDP payload, opened in place. Gives the inner packet that may go on (BD-1).
    ///
    /// # Errors
    /// Why it must be dropped; counted.
    pub fn data_in(&mut self, now: Time, arrival: &Arrival, packet: &mut [u8]) -> Result<Inner, Reason> {
        let result = self.try_data_in(now, arrival, packet);
        if let Err(reason) = result {
            self.outbox.counters.count(reason);
            self.record_refusal(now, arrival, packet, reason);
        }
        result
    }

    /// One inner packet to the client with that pool index, sealed in place: 20 bytes of room for the header, the
    /// packet, 16 bytes of room for the tag.
    ///
    /// # Errors
    /// Why it must be dropped; counted.
    pub fn data_out(&mut self, inner_index: u32, packet: &mut [u8]) -> Result<Outbound, Reason> {
        let holder = self.by_inner.get(inner_index as usize).copied().unwrap_or_default();
        let result = match holder {
            Holder::Here(key) => match self.sessions.get_mut(key.0 as usize) {
                Some(slot) => slot.session.data_out(packet, key),
                None => Err(Reason::NoActiveBinding),
            },
            Holder::Nobody => Err(Reason::NoActiveBinding),
            Holder::Elsewhere => Err(Reason::NotAuthoritativeOwner),
        };
        if let Err(reason) = result {
            self.outbox.counters.count(reason);
            if let (Reason::CounterLimitReached, Holder::Here(key)) = (reason, holder) {
                self.hurry(key);
            }
        }
        result
    }

    /// One control message of a session: HEARTBEAT, HELLO_CONFIRM, PATH_PROBE, REATTACH_REQUEST, REKEY_INIT,
    /// TERMINATE.
    ///
    /// # Errors
    /// Why it was refused; counted. What is authentic and fresh was answered all the same (RF-2).
    pub fn control_in(&mut self, now: Time, arrival: &Arrival, packet: &mut [u8]) -> Result<(), Reason> {
        let result = self.try_control_in(now, arrival, packet);
        if let Err(reason) = result {
            self.outbox.counters.count(reason);
            self.record_refusal(now, arrival, packet, reason);
        }
        result
    }

    /// Runs every timer that is due.
    pub fn timeout(&mut self, now: Time) {
        self.repeat_farewells(now);
        self.outbox.journal.summarise(now);
        while let Some(Reverse((at, locator))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            let Some(key) = self.by_locator.get(&locator).copied() else {
                continue;
            };
            let slot = &mut self.sessions[key.0 as usize];
            // An entry that an earlier one has overtaken is of no use any more.
            if slot.scheduled == at {
                slot.scheduled = Time::NEVER;
                self.with(now, key, Session::timeout);
            }
        }
    }

    /// When [`Shard::timeout`] must run next.
    pub fn next_timeout(&self) -> Option<Time> {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let farewell = self.farewells.front().map(|farewell| farewell.at);
        timer.into_iter().chain(farewell).chain(self.outbox.journal.next_summary()).min()
    }

    /// A control packet to send, if there is one.
    pub fn poll_reply(&mut self) -> Option<Reply> {
        self.outbox.replies.pop_front()
    }

    /// Something that happened, if anything did.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.outbox.events.pop_front()
    }

    /// The next audit record, if there is one.
    pub fn poll_record(&mut self) -> Option<audit::Record> {
        self.outbox.journal.poll()
    }

    /// Ends one session at this end and tells its client why (T19). SESSION_REPLACED ends it as by its peer (T24, HS-8).
    /// Gives whether there was such a session.
    pub fn terminate(&mut self, now: Time, locator: Locator, reason: Reason) -> bool {
        let Some(key) = self.by_locator.get(&locator).copied() else {
            return false;
        };
        let input = match reason {
            Reason::SessionReplaced => Input::PeerTerminate { detail: Some(reason) },
            _ => Input::OperatorTerminate,
        };
        self.with(now, key, |session, context| session.terminate(input, reason, context));
        true
    }

    /// Ends every session and tells the clients why.
    pub fn terminate_all(&mut self, now: Time, reason: Reason) {
        let locators: Vec<Locator> = self.by_locator.keys().copied().collect();
        for locator in locators {
            self.terminate(now, locator, reason);
        }
    }

    /// Whether copies of a TERMINATE still wait to be sent.
    pub fn is_saying_farewell(&self) -> bool {
        !self.farewells.is_empty()
    }

    /// The next hop towards a peer changed.
    pub fn set_route(&mut self, peer: IpAddr, route: u32) {
        for (_, key) in self.by_peer.range((peer, SessionKey(0))..=(peer, SessionKey(u32::MAX))) {
            if let Some(slot) = self.sessions.get_mut(key.0 as usize) {
                slot.session.set_route(peer, route);
            }
        }
    }

    /// One session as the operator sees it.
    pub fn view(&self, now: Time, locator: Locator) -> Option<SessionView> {
        let key = self.by_locator.get(&locator)?;
        self.sessions.get(key.0 as usize).map(|slot| slot.session.view(now))
    }

    /// Every session as the operator sees it.
    pub fn views(&self, now: Time) -> Vec<SessionView> {
        self.sessions.iter().map(|(_, slot)| slot.session.view(now)).collect()
    }

    /// How many sessions there are, BIRTH included.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// What was counted beside refusals and drops. The memory is that of some [thousand](MEMORY_SAMPLE) sessions, as many
    /// times as there are sessions: a worker does not go through all of them because somebody watches.
    pub fn meter(&self) -> Meter {
        let looked_at = self.sessions.iter().take(MEMORY_SAMPLE).map(|(_, slot)| slot.session.memory());
        let mut memory = Memory::default();
        looked_at.for_each(|one| memory.add(&one));
        let memory = memory.scaled(self.sessions.len(), self.sessions.len().min(MEMORY_SAMPLE));
        Meter { security: self.outbox.journal.security(), memory, ..self.outbox.meter.clone() }
    }

    /// Refusals and drops by reason.
    pub const fn counters(&self) -> &ReasonCounters {
        &self.outbox.counters
    }

    fn try_data_in(&mut self, now: Time, arrival: &Arrival, packet: &mut [u8]) -> Result<Inner, Reason> {
        let header = Header::parse(packet).map_err(|error| error.reason())?;
        if header.kind != MessageType::Data {
            return Err(Reason::UnknownType);
        }
        let started = self.outbox.stopwatch.start_lookup();
        let key = *self.by_locator.get(&header.locator).ok_or_else(|| self.slots.why_not(header.locator))?;
        let slot = self.sessions.get_mut(key.0 as usize).ok_or(Reason::SessionNotFound)?;
        if started.is_some() {
            self.outbox.stopwatch.stop(started, &mut self.outbox.meter.lookups);
        }
        let mut context =
            Context { now, entropy: self.entropy.as_mut(), outbox: &mut self.outbox, pool: &self.config.pool };
        slot.session.data_in(&header, arrival, packet, key, &mut context)
    }

    fn try_control_in(&mut self, now: Time, arrival: &Arrival, packet: &mut [u8]) -> Result<(), Reason> {
        // C00
        let header = Header::parse(packet).map_err(|error| error.reason())?;
        let is_reattach = header.kind == MessageType::ReattachRequest;
        // C02, C03
        let result = match self.by_locator.get(&header.locator).copied() {
            None => Err(self.slots.why_not(header.locator)),
            Some(key) => self.with(now, key, |session, context| {
                if is_reattach {
                    session.reattach_request(&header, arrival, packet, context)
                } else {
                    session.control_in(&header, arrival, packet, context)
                }
            }),
        };
        if is_reattach
            && let Err(reason @ (Reason::SessionNotFound | Reason::NotAuthoritativeOwner | Reason::AuthFail)) = result
        {
            self.reset(now, header.locator, arrival, reason);
        }
        result
    }

    /// RF-3: whoever has no session here learns it by a token that only this gateway can make; to anybody else the
    /// answer looks the same (RF-1). One limiter for both, and always shorter than the request.
    fn reset(&mut self, now: Time, locator: Locator, arrival: &Arrival, reason: Reason) {
        if self.resets.take(self.config.resets, now).is_err() {
            return;
        }
        let mut token = [0; 16];
        match reason {
            Reason::SessionNotFound => token = self.config.reset_key.token(locator),
            _ => self.entropy.fill(&mut token),
        }
        let mut packet = ControlPacket::new();
        packet.extend(wire::SessionReset { locator, token }.to_bytes());
        self.outbox.meter.resets += 1;
        self.outbox.replies.push_back(Reply { tuple: arrival.tuple, route: arrival.route, packet });
    }

    /// Lets one session work, then does what follows from it: its place in the inner table, its end, its timer.
    pub(super) fn with<R>(
        &mut self,
        now: Time,
        key: SessionKey,
        work: impl FnOnce(&mut Session, &mut Context<'_>) -> R,
    ) -> R {
        let slot = &mut self.sessions[key.0 as usize];
        let before = slot.session.record.state();
        let former_peer = slot.session.peer();
        let mut context =
            Context { now, entropy: self.entropy.as_mut(), outbox: &mut self.outbox, pool: &self.config.pool };
        let result = work(&mut slot.session, &mut context);
        let after = slot.session.record.state();
        let peer = slot.session.peer();
        if peer != former_peer {
            if let Some(former_peer) = former_peer {
                self.by_peer.remove(&(former_peer, key));
            }
            if let Some(peer) = peer {
                self.by_peer.insert((peer, key));
            }
        }
        let inner = slot.session.inner_index as usize;
        if before == State::Birth
            && after == State::Attached
            && let Some(entry) = self.by_inner.get_mut(inner)
        {
            *entry = Holder::Here(key);
        }
        if after == State::Terminated {
            let farewell = slot.session.farewell.take();
            self.remove(now, key);
            if let Some(reply) = farewell.map(|reply| *reply) {
                self.outbox.replies.push_back(reply.clone());
                self.farewells.push_back(Farewell { reply, at: now + FAREWELL_RTO, left: FAREWELL_COPIES - 1 });
            }
            return result;
        }
        let next = slot.session.next_timeout(now);
        if next < slot.scheduled {
            slot.scheduled = next;
            self.timers.push(Reverse((next, slot.session.locator)));
        }
        result
    }

    /// A timer that is due at once, where no time is at hand.
    fn hurry(&mut self, key: SessionKey) {
        let slot = &mut self.sessions[key.0 as usize];
        if slot.scheduled > Time::ZERO {
            slot.scheduled = Time::ZERO;
            self.timers.push(Reverse((Time::ZERO, slot.session.locator)));
        }
    }

    /// Takes a terminated session out; its keys go with it (INV-10, KY-9).
    fn remove(&mut self, now: Time, key: SessionKey) {
        let started = self.outbox.stopwatch.start();
        let session = self.sessions.remove(key.0 as usize).session;
        if let Some(peer) = session.peer() {
            self.by_peer.remove(&(peer, key));
        }
        self.by_locator.remove(&session.locator);
        if let Some(entry) = self.by_inner.get_mut(session.inner_index as usize)
            && *entry == Holder::Here(key)
        {
            *entry = Holder::Nobody;
        }
        let (trail, totals) = session.bury(now);
        trail.end(&totals, now, &mut self.outbox.journal);
        self.outbox.stopwatch.stop(started, &mut self.outbox.meter.evictions);
    }

    /// Input was refused: a security record, with the session that it claims to be of.
    #[cold]
    fn record_refusal(&mut self, now: Time, arrival: &Arrival, packet: &[u8], reason: Reason) {
        // The header is read, never written: it is as it came.
        let header = Header::parse(packet).ok();
        let refused = Refused {
            reason,
            message: MessageType::of(packet).ok(),
            marker: header.map_or(0, |header| header.counter),
            peer: arrival.tuple.peer,
            limit: None,
        };
        let (sessions, by_locator) = (&self.sessions, &self.by_locator);
        self.outbox.journal.refused(now, &refused, || {
            let key = by_locator.get(&header?.locator)?;
            sessions.get(key.0 as usize).map(|slot| slot.session.audit_context(&arrival.tuple))
        });
    }

    fn repeat_farewells(&mut self, now: Time) {
        while let Some(mut farewell) = self.farewells.pop_front_if(|farewell| farewell.at <= now) {
            self.outbox.replies.push_back(farewell.reply.clone());
            farewell.left -= 1;
            if farewell.left > 0 {
                farewell.at = now + FAREWELL_RTO;
                self.farewells.push_back(farewell);
            }
        }
    }
}
