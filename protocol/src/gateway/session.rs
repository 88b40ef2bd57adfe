//! One session at the gateway: its record, keys, counters and windows. Written by one worker only (AS-4).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::event::{EventKind, Reply, SessionEvent, SessionView};
use super::freshness::{ClockOffset, difference_ms};
use super::shard::{Context, Inner};
use super::standby::StandbyTable;
use super::{Birth, SessionKey};
use crate::crypto::DefaultAead;
use crate::health::{PathHealth, Rtt};
use crate::ident::{Arrival, Locator, PublicKey, Tuple};
use crate::keys::{EpochKeys, Side};
use crate::limits::Bucket;
use crate::machine::{Input, NewBinding, Record, State, Transition, TransitionId, due, run};
use crate::policy::Policy;
use crate::reason::Reason;
use crate::replay::ReplayWindow;
use crate::time::{Span, Time};
use crate::wire::{
    self, Body, ControlPacket, Header, Heartbeat, HeartbeatAck, HelloConfirm, MessageType, PathProbe, PathProbeAck,
    Terminate,
};

/// No key seals more packets than that in one direction (KY-6, suite 1).
const PACKET_LIMIT: u64 = 1 << 60;
/// Bytes sent to an unvalidated binding per byte received from it (PV-2, INV-33).
const AMPLIFICATION_FACTOR: u64 = 3;
/// Shortest inner packet: an IPv4 header.
const INNER_MIN: usize = 20;

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
    packets: u64,
    bytes: u64,
}

/// Counts since the binding's start, as HEARTBEAT_ACK reports them (SM-14).
#[derive(Clone, Copy, Debug, Default)]
struct BindingCounts {
    sent: u64,
    received: u64,
}

/// What M lane remembers: the last message, from where it came, and its answer (AR-4, RS-6).
#[derive(Clone, Debug, Default)]
pub(super) struct LastMutation {
    pub(super) counter: u64,
    pub(super) digest: [u8; 16],
    pub(super) from: Option<Tuple>,
    pub(super) answer: Option<ControlPacket>,
}

/// What a counter on lane M means (AR-1, AR-4).
pub(super) enum Mutation {
    /// Above the last one.
    Fresh,
    /// The same bytes from the same tuple: the cached answer again.
    Repeated,
}

pub(super) struct Session {
    pub(super) record: Record,
    pub(super) locator: Locator,
    client: PublicKey,
    pub(super) inner_index: u32,
    inner_v4: Option<Ipv4Addr>,
    inner_v6: Option<Ipv6Addr>,
    handshake_hash: [u8; 32],
    hello_from: Tuple,
    pub(super) policy: Arc<Policy>,
    keys: EpochKeys<DefaultAead>,
    key_epoch: u32,
    born: Time,
    data_sent: u64,
    data_window: ReplayWindow,
    query_window: ReplayWindow,
    control_sent: u64,
    pub(super) last: LastMutation,
    offset: ClockOffset,
    health: PathHealth,
    pub(super) standby: StandbyTable,
    pub(super) attempts: Bucket,
    counts: BindingCounts,
    /// What may still be sent to an unvalidated binding, in bytes.
    credit: u64,
    route: u32,
    queue: u16,
    received: Traffic,
    sent: Traffic,
    last_reason: Option<Reason>,
}

impl Session {
    pub(super) fn new(birth: Birth, now: Time) -> Self {
        let policy = birth.policy;
        Self {
            record: Record::new(Side::Gateway, now),
            locator: birth.locator,
            client: birth.client,
            inner_index: birth.inner_index,
            inner_v4: birth.inner_v4,
            inner_v6: birth.inner_v6,
            handshake_hash: birth.handshake_hash,
            hello_from: birth.arrival.tuple,
            keys: EpochKeys::derive(&birth.root, 0, &birth.identity, Side::Gateway),
            key_epoch: 0,
            born: now,
            data_sent: 0,
            data_window: ReplayWindow::new(policy.security.data_replay_window as usize),
            query_window: ReplayWindow::new(policy.security.control_replay_window as usize),
            control_sent: 0,
            last: LastMutation::default(),
            offset: ClockOffset::new(difference_ms(0, birth.client_time_ms), now),
            health: PathHealth::new(0, now),
            standby: StandbyTable::default(),
            attempts: Bucket::full(policy.limits.reattach_per_session, now),
            counts: BindingCounts::default(),
            credit: 0,
            route: birth.arrival.route,
            queue: birth.arrival.queue,
            received: Traffic::default(),
            sent: Traffic::default(),
            last_reason: None,
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
        if header.key_epoch != self.key_epoch as u8 {
            return Err(Reason::KeyEpochUnknown);
        }
        // Early look, so that a replay flood costs no decryption; the window moves only after the AEAD (AR-3).
        self.data_window.check(header.counter)?;
        let received_bytes = packet.len() as u64;
        let inner = wire::open_data(&self.keys.data_open, header, packet)?;
        self.data_window.mark(header.counter);
        let inner_len = inner.len();
        let checked = context.pool.check_source(inner, self.inner_v4, self.inner_v6);
        let peer_to_peer = context.pool.is_other_client(inner) && !self.policy.access.client_to_client;
        if on_active {
            self.health.heard(now);
            self.counts.received += 1;
            self.queue = arrival.queue;
            // DATA on the active tuple carries the current epoch: it validates as well (PV-3).
            self.credit_unvalidated(received_bytes);
            self.validate(self.record.epoch(), context);
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
        if self.data_sent >= PACKET_LIMIT {
            return Err(Reason::CounterLimitReached);
        }
        self.data_sent += 1;
        let header = Header {
            kind: MessageType::Data,
            flags: 0,
            key_epoch: self.key_epoch as u8,
            tag: epoch as u8,
            locator: self.locator,
            counter: self.data_sent,
        };
        wire::seal_data(&self.keys.data_seal, &header, packet);
        self.counts.sent += 1;
        self.sent.packets += 1;
        self.sent.bytes += inner_len as u64;
        Ok(Outbound { tuple, route: self.route, session: key })
    }

    /// One control message of this session, but REATTACH_REQUEST ([`Session::reattach_request`]).
    pub(super) fn control_in(
        &mut self,
        header: &Header,
        arrival: &Arrival,
        packet: &mut [u8],
        context: &mut Context<'_>,
    ) -> Result<(), Reason> {
        match header.kind {
            MessageType::Heartbeat => self.heartbeat(header, arrival, packet, context),
            MessageType::PathProbe => self.path_probe(header, arrival, packet, context),
            MessageType::HelloConfirm => self.hello_confirm(header, arrival, packet, context),
            MessageType::Terminate => self.peer_terminate(header, arrival, packet, context),
            _ => Err(Reason::UnknownType),
        }
    }

    /// HELLO_CONFIRM: the keys are confirmed, the first binding is made (T01, HS-5).
    fn hello_confirm(
        &mut self,
        header: &Header,
        arrival: &Arrival,
        packet: &mut [u8],
        context: &mut Context<'_>,
    ) -> Result<(), Reason> {
        let digest = digest(packet);
        let body: HelloConfirm = self.open_control(header, packet)?;
        if let Mutation::Repeated = self.mutation(header, digest, arrival, context)? {
            return self.answer_again(arrival, context);
        }
        if self.record.state() != State::Birth {
            return Err(Reason::InvalidStateForReattach);
        }
        if arrival.tuple != self.hello_from {
            return Err(Reason::WrongTransport);
        }
        if body.handshake_hash != self.handshake_hash || body.binding_epoch != 1 {
            return Err(Reason::AuthFail);
        }
        self.route = arrival.route;
        let binding = NewBinding { tuple: arrival.tuple, transport: body.transport_id, validated: true };
        self.apply(&[Input::HandshakeComplete { binding }], context);
        let ack = self.heartbeat_ack(header.counter, 0, context.now);
        self.remember(header, digest, arrival, Some(ack.clone()));
        self.reply(arrival, ack, context);
        Ok(())
    }

    /// HEARTBEAT: liveness, validation, and the discovery of a NAT rebind (BD-3, BD-4, PV-3).
    fn heartbeat(
        &mut self,
        header: &Header,
        arrival: &Arrival,
        packet: &mut [u8],
        context: &mut Context<'_>,
    ) -> Result<(), Reason> {
        let length = packet.len() as u64;
        let body: Heartbeat = self.open_query(header, packet)?;
        if self.record.state() == State::Birth {
            return Err(Reason::InvalidStateForReattach);
        }
        self.offset.sample(difference_ms(self.session_ms(context.now), body.client_time_ms), context.now);
        let now = context.now;
        let mut flags = 0;
        match self.record.active() {
            Some(active) if active.tuple == arrival.tuple => {
                let epoch = active.epoch;
                self.health.heard(now);
                self.queue = arrival.queue;
                self.credit_unvalidated(length);
                if body.binding_epoch == epoch {
                    self.validate(epoch, context);
                }
            }
            _ => {
                if self.record.retiring(now).is_none_or(|old| old.tuple != arrival.tuple) {
                    flags |= HeartbeatAck::UNBOUND;
                }
            }
        }
        let ack = self.heartbeat_ack(header.counter, flags, now);
        self.reply(arrival, ack, context);
        // Calm may have lasted long enough by now (T07).
        self.review(context);
        Ok(())
    }

    /// PATH_PROBE: stores or validates a standby path, and never touches anything in use (SP-2 to SP-4, INV-35).
    fn path_probe(
        &mut self,
        header: &Header,
        arrival: &Arrival,
        packet: &mut [u8],
        context: &mut Context<'_>,
    ) -> Result<(), Reason> {
        let body: PathProbe = self.open_query(header, packet)?;
        if self.record.state() == State::Birth {
            return Err(Reason::InvalidStateForReattach);
        }
        let now = context.now;
        self.offset.sample(difference_ms(self.session_ms(now), body.client_time_ms), now);
        let is_active = self.record.active().is_some_and(|active| active.tuple == arrival.tuple);
        let (token, flags) = if is_active {
            (0, 0)
        } else {
            let fresh = context.entropy.next_u64() | 1;
            let capacity = self.policy.transport.max_candidate_count as usize;
            self.standby.expire(self.policy.transport.candidate_ttl, now);
            let probed = self.standby.probe(body.transport_id, arrival.tuple, body.token, fresh, capacity, now);
            let stored = if probed.stored { PathProbeAck::STORED } else { PathProbeAck::FULL };
            (probed.token, stored | if probed.validated { PathProbeAck::VALIDATED } else { 0 })
        };
        let ack = PathProbeAck {
            echo: header.counter,
            transport_id: body.transport_id,
            observed: arrival.tuple.peer,
            token,
            flags,
        };
        let packet = self.seal_control(&ack);
        self.reply(arrival, packet, context);
        Ok(())
    }

    /// TERMINATE from the client (T24).
    fn peer_terminate(
        &mut self,
        header: &Header,
        arrival: &Arrival,
        packet: &mut [u8],
        context: &mut Context<'_>,
    ) -> Result<(), Reason> {
        let digest = digest(packet);
        let body: Terminate = self.open_control(header, packet)?;
        if let Mutation::Repeated = self.mutation(header, digest, arrival, context)? {
            return Ok(());
        }
        self.remember(header, digest, arrival, None);
        self.apply(&[Input::PeerTerminate { detail: Some(body.reason) }], context);
        Ok(())
    }

    /// Ends the session at this end; gives the TERMINATE to send, sealed before the keys go (TM-1).
    pub(super) fn terminate(&mut self, input: Input, reason: Reason, context: &mut Context<'_>) -> Option<Reply> {
        let to = self.record.active().or(self.record.retiring(context.now)).map(|binding| binding.tuple)?;
        let packet = self.seal_control(&Terminate { reason });
        let reply = Reply { tuple: to, route: self.route, packet };
        self.apply(&[input], context);
        Some(reply)
    }

    /// Timers: limits of the record, health of the path, probation, start of a recovery.
    pub(super) fn timeout(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        self.standby.expire(self.policy.transport.candidate_ttl, now);
        self.review(context);
        if self.record.take_probation(now) {
            self.emit(EventKind::RecoveryComplete { epoch: self.record.epoch() }, context);
        }
    }

    /// When [`Session::timeout`] must run next.
    pub(super) fn next_timeout(&self, now: Time) -> Time {
        let mut next = self.record.next_deadline(&self.policy);
        if self.record.active().is_some() {
            // The gateway measures no round trip; its only signals are silence and loss (SM-14).
            next = next.min(self.health.next_check(&self.policy, &Rtt::default(), now));
        }
        if self.record.state() == State::Degraded && self.has_candidate() {
            next = next.min(self.record.entered() + self.policy.switching.switch_cooldown);
        }
        // Never in the past: a due timer whose guard does not hold must not spin.
        next.max(now + Span::from_millis(crate::time::TICK_MS))
    }

    /// Runs everything that is due, and starts a recovery where a validated standby waits (T08, T15).
    fn review(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        let mut inputs = due(&self.record, &self.policy, now);
        let mut all: arrayvec::ArrayVec<Input, 16> = inputs.drain(..).collect();
        if self.record.active().is_some() && self.record.state() != State::Birth {
            all.extend(self.health.judge(&self.policy, &Rtt::default(), now));
        }
        if self.has_candidate() {
            all.push(Input::RecoveryStart { exempt: false });
        }
        self.apply(&all, context);
    }

    /// Applies inputs to completion and does what each transition asks for.
    pub(super) fn apply(&mut self, inputs: &[Input], context: &mut Context<'_>) {
        let transitions = run(&mut self.record, inputs, &self.policy, context.now);
        for transition in transitions {
            self.after(&transition, context);
        }
    }

    /// What follows from one transition: fresh health and counts for a fresh binding, an event for each (INV-08).
    pub(super) fn after(&mut self, transition: &Transition, context: &mut Context<'_>) {
        self.last_reason = Some(transition.reason);
        if matches!(transition.id, TransitionId::T01 | TransitionId::T11) {
            self.health = PathHealth::new(transition.epoch, context.now);
            self.counts = BindingCounts::default();
            if let Some(active) = transition.active {
                self.standby.remove(active.transport);
            }
        }
        self.emit(EventKind::Transition(*transition), context);
    }

    /// A commit came from there: the way back, and what may be sent before it is validated (PV-2).
    pub(super) fn moved(&mut self, arrival: &Arrival, received: usize) {
        self.route = arrival.route;
        self.queue = arrival.queue;
        self.credit = received as u64 * AMPLIFICATION_FACTOR;
    }

    /// Takes bytes off what may be sent to an unvalidated binding.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_sub(bytes as u64);
    }

    /// The next hop of the active binding, if its peer is at that address.
    pub(super) fn set_route(&mut self, peer: std::net::IpAddr, route: u32) {
        if self.record.active().is_some_and(|binding| binding.tuple.peer.ip() == peer) {
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
    fn validate(&mut self, epoch: u64, context: &mut Context<'_>) {
        if self.record.mark_validated(epoch) {
            self.emit(EventKind::Validated { epoch }, context);
        }
    }

    /// Authenticated bytes came from the active tuple: while it is unvalidated, more may be sent there (PV-2).
    fn credit_unvalidated(&mut self, bytes: u64) {
        if self.record.active().is_some_and(|binding| !binding.validated) {
            self.credit = self.credit.saturating_add(bytes * AMPLIFICATION_FACTOR);
        }
    }

    /// Judges the counter of a lane M message that is already authenticated (AR-1, AR-4).
    pub(super) fn mutation(
        &mut self,
        header: &Header,
        digest: [u8; 16],
        arrival: &Arrival,
        context: &mut Context<'_>,
    ) -> Result<Mutation, Reason> {
        if header.counter > self.last.counter {
            return Ok(Mutation::Fresh);
        }
        if header.counter < self.last.counter {
            return Err(Reason::ReplayDetected);
        }
        if digest != self.last.digest {
            // Two holders of one key: the same nonce under a valid tag, but other bytes.
            self.apply(&[Input::SecurityFailure], context);
            return Err(Reason::KeyCompromiseSuspected);
        }
        if self.last.from != Some(arrival.tuple) {
            return Err(Reason::ReplayDetected);
        }
        Ok(Mutation::Repeated)
    }

    /// A lane M message was used up, with that answer (RF-2).
    pub(super) fn remember(
        &mut self,
        header: &Header,
        digest: [u8; 16],
        arrival: &Arrival,
        answer: Option<ControlPacket>,
    ) {
        self.last = LastMutation { counter: header.counter, digest, from: Some(arrival.tuple), answer };
    }

    /// Sends the cached answer once more (RS-6).
    pub(super) fn answer_again(&mut self, arrival: &Arrival, context: &mut Context<'_>) -> Result<(), Reason> {
        let Some(packet) = self.last.answer.clone() else {
            return Err(Reason::ReplayDetected);
        };
        // Copies and cached answers validate nothing and are paid from the same budget (PV-2, PV-3).
        let unvalidated =
            self.record.active().is_some_and(|binding| !binding.validated && binding.tuple == arrival.tuple);
        if unvalidated {
            self.credit = self.credit.checked_sub(packet.len() as u64).ok_or(Reason::AmplificationLimit)?;
        }
        self.reply(arrival, packet, context);
        Ok(())
    }

    /// Opens a message under the proof key (C04).
    pub(super) fn open_proof<B: Body>(&self, header: &Header, packet: &mut [u8]) -> Result<B, Reason> {
        self.known_epoch(header).map_err(|_| Reason::AuthFail)?;
        let body = wire::open(&self.keys.proof, header, packet)?;
        B::parse(body).map_err(|error| error.reason())
    }

    fn open_control<B: Body>(&self, header: &Header, packet: &mut [u8]) -> Result<B, Reason> {
        self.known_epoch(header)?;
        let body = wire::open(&self.keys.control_open, header, packet)?;
        B::parse(body).map_err(|error| error.reason())
    }

    /// Opens a message of lane Q and takes its counter out of the window.
    fn open_query<B: Body>(&mut self, header: &Header, packet: &mut [u8]) -> Result<B, Reason> {
        if self.query_window.check(header.counter).is_err() {
            return Err(Reason::ReplayDetected);
        }
        let body = self.open_control(header, packet)?;
        self.query_window.mark(header.counter);
        Ok(body)
    }

    fn known_epoch(&self, header: &Header) -> Result<(), Reason> {
        if header.key_epoch == self.key_epoch as u8 { Ok(()) } else { Err(Reason::KeyEpochUnknown) }
    }

    /// Seals one control message; its counter is never used again, whatever its type (AR-2, INV-36).
    pub(super) fn seal_control<B: Body>(&mut self, body: &B) -> ControlPacket {
        self.control_sent += 1;
        let header = Header {
            kind: B::KIND,
            flags: 0,
            key_epoch: self.key_epoch as u8,
            tag: 0,
            locator: self.locator,
            counter: self.control_sent,
        };
        wire::seal(&self.keys.control_seal, header, body)
    }

    fn heartbeat_ack(&mut self, echo: u64, flags: u8, now: Time) -> ControlPacket {
        let ack = HeartbeatAck {
            echo,
            binding_epoch: self.record.epoch(),
            gateway_time_ms: self.session_ms(now),
            sent: self.counts.sent,
            received: self.counts.received,
            highest: self.data_window.highest(),
            state: self.record.state() as u8,
            flags,
        };
        self.seal_control(&ack)
    }

    pub(super) fn reply(&self, arrival: &Arrival, packet: ControlPacket, context: &mut Context<'_>) {
        context.outbox.replies.push_back(Reply { tuple: arrival.tuple, route: arrival.route, packet });
    }

    pub(super) fn emit(&self, kind: EventKind, context: &mut Context<'_>) {
        context.outbox.events.push_back(SessionEvent { locator: self.locator, client: self.client, kind });
    }

    /// Milliseconds since the handshake on this side (AR-5).
    pub(super) fn session_ms(&self, now: Time) -> u64 {
        now.since(self.born).as_millis()
    }

    /// How fresh a message with that client time is (AR-5); a fresh one moves the estimate.
    pub(super) fn check_age(&mut self, client_time_ms: u64, now: Time) -> Result<(), Reason> {
        let difference = difference_ms(self.session_ms(now), client_time_ms);
        self.offset.judge(difference, self.policy.security.reattach_proof_max_age)?;
        self.offset.sample(difference, now);
        Ok(())
    }

    fn has_candidate(&self) -> bool {
        matches!(self.record.state(), State::Volatile | State::Degraded)
            && self.standby.has_validated_besides(self.record.active().map(|binding| binding.transport))
    }

    pub(super) fn view(&self, now: Time) -> SessionView {
        let active = self.record.active();
        SessionView {
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
        }
    }
}

/// The first 128 bits of the BLAKE3 hash of a packet as it came: what "byte-identical" means (AR-4).
pub(super) fn digest(packet: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&blake3::hash(packet).as_bytes()[..16]);
    out
}
