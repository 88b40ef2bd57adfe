//! One session at the gateway: its record, keys, counters and windows. Written by one worker only (AS-4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::event::{Account, EventKind, Reply, SessionEvent, SessionView};
use super::freshness::{ClockOffset, difference_ms};
use super::hint::Hints;
use super::lanes::LastMutation;
use super::meter::Memory;
use super::push::Push;
use super::shard::{Context, Inner, Outbox};
use super::sources::Sources;
use super::standby::StandbyTable;
use super::{Birth, SessionKey};
use crate::audit::Trail;
use crate::health::{Measurement, PathHealth, RoundTrips, Rtt, is_quality};
use crate::ident::{Arrival, Locator, PublicKey, Tuple};
use crate::key_ring::KeyRing;
use crate::keys::{KeyLimits, Side};
use crate::limits::Bucket;
use crate::machine::{Evidence, Input, Record, State, Transition, TransitionId, due, run};
use crate::policy::Policy;
use crate::reason::Reason;
use crate::replay::ReplayWindow;
use crate::stored::stored;
use crate::time::{Span, Time};
use crate::wire::{self, Header};

/// Bytes sent to an unvalidated binding per byte received from it (PV-2, INV-33).
const AMPLIFICATION_FACTOR: u64 = 3;
/// Shortest inner packet: an IPv4 header.
const INNER_MIN: usize = 20;
/// Sequence of the policy that a session is born with.
const FIRST_POLICY: u32 = 1;

/// Where a sealed DATA packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// Outer addresses.
    pub tuple: Tuple,
    /// Next hop.
    pub route: u32,
    /// Whose packet it is.
    pub session: SessionKey,
}

/// Packets and bytes of DATA in one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

stored! { Traffic { packets, bytes } }

/// What HELLO_CONFIRM must fit (HS-5).
pub(super) struct Opening {
    pub(super) handshake_hash: [u8; 32],
    /// Where HELLO_INIT came from.
    pub(super) from: Tuple,
}

stored! { Opening { handshake_hash, from } }

pub(super) struct Session {
    pub(super) record: Record,
    pub(super) locator: Locator,
    pub(super) client: PublicKey,
    pub(super) inner_index: u32,
    pub(super) inner_v4: Option<Ipv4Addr>,
    pub(super) inner_v6: Option<Ipv6Addr>,
    /// In BIRTH only.
    pub(super) opening: Option<Box<Opening>>,
    pub(super) policy: Arc<Policy>,
    pub(super) push: Push,
    pub(super) sources: Sources,
    pub(super) ring: KeyRing,
    pub(super) born: Time,
    pub(super) query_window: ReplayWindow,
    pub(super) control_sent: u64,
    /// The counter of the newest message of lane M (AR-1).
    pub(super) mutation_sent: u64,
    pub(super) last: LastMutation,
    pub(super) offset: ClockOffset,
    pub(super) health: PathHealth,
    /// The round trip of the active path: from the commit to the first heartbeat that names its epoch.
    pub(super) rtt: Rtt,
    pub(super) hints: Hints,
    pub(super) standby: StandbyTable,
    pub(super) attempts: Bucket,
    /// What may still be sent to an unvalidated binding, in bytes.
    pub(super) credit: u64,
    /// Whether the operator lets a forced move end on the same path (SM-18).
    pub(super) same_path_ok: bool,
    /// TERMINATE, for the shard to send once the session is gone (TM-1).
    pub(super) farewell: Option<Box<Reply>>,
    /// T25 by KY-6 was told.
    pub(super) told_used_up: bool,
    pub(super) route: u32,
    pub(super) queue: u16,
    pub(super) received: Traffic,
    pub(super) sent: Traffic,
    pub(super) last_reason: Option<Reason>,
    pub(super) trail: Trail,
}

impl Session {
    pub(super) fn new(birth: Birth, limits: KeyLimits, now: Time, outbox: &mut Outbox) -> Self {
        let policy = birth.policy;
        let window = policy.security.data_replay_window as usize;
        let trail = Trail::begin(birth.identity, None, &policy, FIRST_POLICY, now, &mut outbox.journal);
        Self {
            record: Record::new(Side::Gateway, now),
            locator: birth.locator,
            client: birth.client,
            inner_index: birth.inner_index,
            inner_v4: birth.inner_v4,
            inner_v6: birth.inner_v6,
            opening: Some(Box::new(Opening { handshake_hash: birth.handshake_hash, from: birth.arrival.tuple })),
            ring: KeyRing::new(birth.root, birth.identity, Side::Gateway, window, limits),
            born: now,
            query_window: ReplayWindow::new(policy.security.control_replay_window as usize),
            control_sent: 0,
            mutation_sent: 0,
            last: LastMutation::default(),
            offset: ClockOffset::new(difference_ms(0, birth.client_time_ms), now),
            health: PathHealth::new(0, now),
            rtt: Rtt::default(),
            hints: Hints::default(),
            standby: StandbyTable::default(),
            attempts: Bucket::full(policy.limits.reattach_per_session, now),
            credit: 0,
            same_path_ok: false,
            farewell: None,
            told_used_up: false,
            route: birth.arrival.route,
            queue: birth.arrival.queue,
            received: Traffic::default(),
            sent: Traffic::default(),
            last_reason: None,
            push: Push::default(),
            sources: birth.sources,
            trail,
            policy,
        }
    }

    /// One DATA packet from the network (BD-1): tuple, tag, key epoch, AEAD, window, inner source, in this order.
    pub(super) fn data_in(
        &mut self,
        header: &Header,
        arrival: &Arrival,
        packet: &mut [u8],
        key: SessionKey,
        context: &mut Context<'_>,
    ) -> Result<Inner, Reason> {
        let now = context.now;
        let on_active = self.accept_tuple(header.tag, &arrival.tuple, now)?;
        let received_bytes = packet.len() as u64;
        let inner = self.ring.open_data(header, packet, now)?;
        let inner_len = inner.len();
        let checked = context.pool.check_source(inner, self.inner_v4, self.inner_v6);
        let peer_to_peer = context.pool.is_other_client(inner) && !self.policy.access.client_to_client;
        self.heard_under(header.key_epoch, context);
        if on_active {
            self.health.delivered(now);
            self.queue = arrival.queue;
            // DATA on the active tuple carries the current epoch: it validates as well (PV-3).
            self.credit_unvalidated(&arrival.tuple, received_bytes);
            self.validate(self.record.epoch(), context);
        } else {
            self.trail.late_packet();
        }
        if inner_len < INNER_MIN {
            return Err(Reason::InnerSourceInvalid);
        }
        checked?;
        if peer_to_peer {
            return Err(Reason::PeerToPeerDenied);
        }
        self.received.packets += 1;
        self.received.bytes += inner_len as u64;
        Ok(Inner { start: wire::HEADER_LEN, len: inner_len, session: key })
    }

    /// One inner packet to the client, sealed in place: 20 bytes of room, the packet, 16 bytes of room.
    pub(super) fn data_out(&mut self, packet: &mut [u8], key: SessionKey) -> Result<Outbound, Reason> {
        let Some(binding) = self.record.active() else {
            return Err(Reason::NoActiveBinding);
        };
        let inner_len = packet.len().checked_sub(wire::DATA_OVERHEAD).ok_or(Reason::Malformed)?;
        let (tuple, epoch) = (binding.tuple, binding.epoch);
        if !binding.validated {
            self.credit = self.credit.checked_sub(packet.len() as u64).ok_or(Reason::AmplificationLimit)?;
        }
        self.ring.seal_data(self.locator, epoch as u8, packet)?;
        self.sent.packets += 1;
        self.sent.bytes += inner_len as u64;
        Ok(Outbound { tuple, route: self.route, session: key })
    }

    /// Timers: limits of the record, health of the path, probation, start of a recovery.
    pub(super) fn timeout(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        self.review(context);
        self.repeat_hint(context);
        self.repeat_policy(context);
        self.trail.drained(&mut context.outbox.journal, now, false);
        if self.record.take_probation(now) {
            self.trail.recovery_complete(now, &mut context.outbox.journal);
            self.emit(EventKind::RecoveryComplete { epoch: self.record.epoch() }, context);
        }
    }

    /// When [`Session::timeout`] must run next.
    pub(super) fn next_timeout(&self, now: Time) -> Time {
        let mut next = self.record.next_deadline(&self.policy).min(self.next_hint()).min(self.ring.erase_at());
        next = next.min(self.next_policy());
        if self.record.active().is_some() {
            next = next.min(self.health.next_check(&self.policy, RoundTrips::Gateway(&self.rtt), now));
        }
        if self.has_candidate(now) {
            next = next.min(self.record.earliest_start(&self.policy, now));
        }
        next = next.min(self.trail.drains_until());
        // Never in the past: a due timer whose guard does not hold must not spin.
        next.max(now + Span::from_millis(crate::time::TICK_MS))
    }

    /// Runs everything that is due, and starts a recovery where a validated standby waits (T08, T15).
    pub(super) fn review(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        self.ring.expire(now);
        self.standby.expire(self.policy.transport.candidate_ttl, now);
        let mut inputs: ArrayVec<Input, 16> = due(&self.record, &self.policy, now).into_iter().collect();
        if self.ring.is_used_up() {
            self.tell_used_up(context);
            inputs.push(Input::KeyExpired);
        }
        if self.record.active().is_some() {
            let round_trips = RoundTrips::Gateway(&self.rtt);
            inputs.extend(self.health.judge(&self.policy, &self.ring.counters(), round_trips, now));
        }
        if self.has_candidate(now) {
            inputs.push(Input::RecoveryStart { exempt: false });
            // T10: a start is due, but the sliding minute is full.
            inputs.push(Input::SwitchDeniedRate);
        }
        self.apply(&inputs, context);
        self.hint_if_calm(context);
    }

    /// Applies inputs to completion and does what each transition asks for.
    pub(super) fn apply(&mut self, inputs: &[Input], context: &mut Context<'_>) {
        let mut transitions = run(&mut self.record, inputs, &self.policy, context.now);
        for transition in &mut transitions {
            if transition.id == TransitionId::T09 && !self.has_standby() {
                transition.detail = Some(Reason::NoCandidateTransports);
            }
        }
        self.after_all(&transitions, context);
    }

    /// What follows from the transitions of one step, in order. A check that fails after a commit ends the session (T23).
    pub(super) fn after_all(&mut self, transitions: &[Transition], context: &mut Context<'_>) {
        let mut sound = true;
        for transition in transitions {
            sound &= self.after(transition, context);
        }
        if !sound {
            self.apply(&[Input::InvariantViolation { reason: Reason::InvariantViolation }], context);
        }
    }

    /// What follows from one transition: fresh health and counts for a fresh binding, an event for each (INV-08). Gives
    /// whether the checks after a commit hold.
    fn after(&mut self, transition: &Transition, context: &mut Context<'_>) -> bool {
        self.last_reason = Some(transition.reason);
        // While the health of the binding that was is still known.
        let sound = self.record_transition(transition, context);
        // T03 by silence is the same evidence as T04 by silence, found earlier.
        let silence = (transition.reason == Reason::HeartbeatTimeout).then_some(Evidence::Silence);
        if let (Some(evidence), State::Attached) = (transition.evidence.or(silence), transition.from) {
            let after = context.now.since(self.health.last_authentic());
            context.outbox.meter.detected(evidence, after);
        }
        if matches!(transition.id, TransitionId::T01 | TransitionId::T11) {
            self.health = PathHealth::new(transition.epoch, context.now);
            self.rtt = Rtt::default();
            if let Some(active) = transition.active {
                self.standby.remove(active.transport);
            }
        }
        if transition.retired.is_some() || transition.id == TransitionId::T11 {
            self.forget_hints();
        } else if transition.to == State::Degraded {
            self.renew_hints();
        }
        self.emit(EventKind::Transition(*transition), context);
        self.hint_after(transition.id, transition.reason, context);
        self.policy_after(transition, context);
        if let Some(last) = transition.retired.filter(|_| transition.id == TransitionId::T22) {
            self.say_farewell(&last, transition.reason);
        }
        sound
    }

    /// KY-6: sending has stopped, and the session ends.
    fn tell_used_up(&mut self, context: &mut Context<'_>) {
        if !std::mem::replace(&mut self.told_used_up, true) {
            self.emit(EventKind::KeysUsedUp { key_epoch: self.ring.epoch() }, context);
        }
    }

    /// A commit came from there: the way back, and what may be sent before it is validated (PV-2).
    pub(super) fn moved(&mut self, arrival: &Arrival, received: usize) {
        self.route = arrival.route;
        self.queue = arrival.queue;
        self.credit = received as u64 * AMPLIFICATION_FACTOR;
    }

    /// Takes what is sent there off the budget of the active binding, if that is unvalidated (PV-2).
    pub(super) fn pay(&mut self, tuple: &Tuple, bytes: usize) -> Result<(), Reason> {
        if self.record.active().is_some_and(|binding| !binding.validated && binding.tuple == *tuple) {
            self.credit = self.credit.checked_sub(bytes as u64).ok_or(Reason::AmplificationLimit)?;
        }
        Ok(())
    }

    /// Where the active binding is.
    pub(super) fn active_tuple(&self) -> Option<Tuple> {
        self.record.active().map(|binding| binding.tuple)
    }

    /// The address that the active binding leads to.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        self.record.active().map(|binding| binding.tuple.peer.ip())
    }

    /// The next hop of the active binding, if its peer is at that address.
    pub(super) fn set_route(&mut self, peer: IpAddr, route: u32) {
        if self.peer() == Some(peer) {
            self.route = route;
        }
    }

    /// Whether (tuple, tag) is bound; true if by the active binding, false if by the retiring one (BD-1).
    fn accept_tuple(&self, tag: u8, tuple: &Tuple, now: Time) -> Result<bool, Reason> {
        let active = self.record.active().filter(|binding| binding.tuple == *tuple);
        if active.is_some_and(|binding| binding.epoch as u8 == tag) {
            return Ok(true);
        }
        let retiring = self.record.retiring(now).filter(|binding| binding.tuple == *tuple);
        if retiring.is_some_and(|binding| binding.epoch as u8 == tag) {
            return Ok(false);
        }
        match active.or(retiring) {
            // Behind by 1..128 modulo 256 is stale, else future.
            Some(binding) if (1..=128).contains(&(binding.epoch as u8).wrapping_sub(tag)) => {
                Err(Reason::DataStaleEpoch)
            }
            Some(_) => Err(Reason::DataFutureEpoch),
            None if self.record.state() == State::Birth => Err(Reason::NoActiveBinding),
            None => Err(Reason::WrongTransport),
        }
    }

    /// An authenticated packet with the current epoch came from the active tuple (PV-3).
    pub(super) fn validate(&mut self, epoch: u64, context: &mut Context<'_>) {
        if self.record.mark_validated(epoch) {
            self.emit(EventKind::Validated { epoch }, context);
        }
    }

    /// A fresh authenticated packet came from there: if that is the active tuple, the path lives, whatever the packet
    /// was and whatever became of it (BD-3).
    pub(super) fn heard_on(&mut self, tuple: &Tuple, now: Time) {
        if self.record.active().is_some_and(|binding| binding.tuple == *tuple) {
            self.health.heard(now);
        }
    }

    /// Fresh authenticated bytes came from there: while the active binding on it is unvalidated, more may be sent (PV-2).
    pub(super) fn credit_unvalidated(&mut self, tuple: &Tuple, bytes: u64) {
        if self.record.active().is_some_and(|binding| !binding.validated && binding.tuple == *tuple) {
            self.credit = self.credit.saturating_add(bytes * AMPLIFICATION_FACTOR);
        }
    }

    pub(super) fn emit(&self, kind: EventKind, context: &mut Context<'_>) {
        let account = Some(self.account(context.now));
        context.outbox.events.push_back(SessionEvent { locator: self.locator, client: self.client, account, kind });
    }

    fn account(&self, now: Time) -> Account {
        let counters = self.ring.counters();
        Account {
            identity: self.ring.identity(),
            key_epoch: counters.key_epoch,
            sealed: counters.own_sent,
            opened: counters.window.received(),
            highest: counters.window.highest(),
            received: self.received.packets,
            drains: self.record.retiring(now).is_some(),
        }
    }

    /// Milliseconds since the handshake on this side (AR-5).
    pub(super) fn session_ms(&self, now: Time) -> u64 {
        now.since(self.born).as_millis()
    }

    /// How fresh a message with that client time is (AR-5). It is authentic, so the estimate takes it too, also if it
    /// is refused: a client that came from the future is not refused twice.
    pub(super) fn check_age(&mut self, client_time_ms: u64, now: Time) -> Result<(), Reason> {
        let difference = difference_ms(self.session_ms(now), client_time_ms);
        let verdict = self.offset.judge(difference, self.policy.security.reattach_proof_max_age);
        self.offset.sample(difference, now);
        verdict
    }

    /// A path that a recovery could start for. After a quality trigger only the client knows whether another path is any
    /// better (§10.6): it asks, or it stays.
    fn has_candidate(&self, now: Time) -> bool {
        let carries = self.record.active().is_some() && !self.health.is_silent(&self.policy, now);
        let bad = carries && self.record.trigger().is_some_and(is_quality);
        matches!(self.record.state(), State::Volatile | State::Degraded) && !bad && self.has_standby()
    }

    fn has_standby(&self) -> bool {
        self.standby.has_validated_besides(self.record.active().map(|binding| binding.transport))
    }

    /// What is measured of the active path (SM-14); the audit record of T03 says it.
    pub(super) fn measurement(&self, now: Time) -> Measurement {
        self.health.measurement(&self.policy, RoundTrips::Gateway(&self.rtt), now)
    }

    /// Bytes that the session takes at its owner now. A second set of keys, which a rekey holds for seconds, is left out,
    /// and so is what the AEAD library allocates.
    pub(super) fn memory(&self) -> Memory {
        let keys = size_of_val(&self.ring) as u64;
        let candidates = size_of_val(&self.standby) as u64;
        let places = self.standby.bytes() as u64;
        let limiter = size_of_val(&self.attempts) as u64;
        Memory {
            control: size_of::<Self>() as u64 - keys - candidates - limiter,
            keys,
            replay: (self.ring.window_bytes() + self.query_window.bytes()) as u64,
            candidates: candidates + places,
            limiter,
        }
    }

    pub(super) fn view(&self, now: Time) -> SessionView {
        let active = self.record.active();
        SessionView {
            identity: self.ring.identity(),
            locator: self.locator,
            client: self.client,
            state: self.record.state(),
            reason: self.last_reason,
            epoch: self.record.epoch(),
            version: self.record.version(),
            tuple: active.map(|binding| binding.tuple),
            transport: active.map(|binding| binding.transport),
            validated: active.is_some_and(|binding| binding.validated),
            queue: self.queue,
            inner_v4: self.inner_v4,
            inner_v6: self.inner_v6,
            received: (self.received.packets, self.received.bytes),
            sent: (self.sent.packets, self.sent.bytes),
            switches: self.record.total_switches(),
            age: self.record.age(now),
            measurement: self.measurement(now),
        }
    }
}
