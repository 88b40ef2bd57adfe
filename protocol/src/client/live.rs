//! A session from the client's side: data, heartbeats, probes, and the mirror of the session machine.

use std::ops::Range;

use super::core::Shared;
use super::event::{ClientEvent, ClientStatus, PathStatus};
use super::recovery::Attempt;
use crate::crypto::DefaultAead;
use crate::handshake::Established;
use crate::health::PathHealth;
use crate::ident::{Locator, TransportId};
use crate::keys::{EpochKeys, Side};
use crate::machine::{Evidence, Input, NewBinding, Record, State, Transition, TransitionId, due, run};
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
/// A heartbeat may be left out while data flows both ways, but only three times in a row (BD-3).
const MAX_SUPPRESSED: u32 = 3;
/// TERMINATE goes out three times (TM-1); the client is about to leave, so all at once.
const TERMINATE_COPIES: usize = 3;

/// A message that is repeated until it is answered.
struct Repeat {
    packet: ControlPacket,
    path: TransportId,
    next: Time,
}

/// Packets and bytes of DATA in one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    packets: u64,
    bytes: u64,
}

/// A session of the client.
pub(super) struct Live {
    pub(super) record: Record,
    pub(super) policy: Policy,
    locator: Locator,
    reset_token: [u8; 16],
    keys: EpochKeys<DefaultAead>,
    key_epoch: u32,
    origin: Time,
    data_sent: u64,
    data_window: ReplayWindow,
    mutations_sent: u64,
    queries_sent: u64,
    /// The newest control message of lane M from the gateway (AR-1).
    last_mutation: u64,
    /// The highest epoch that any authenticated message named (RS-7).
    pub(super) known_epoch: u64,
    pub(super) health: PathHealth,
    confirm: Option<Repeat>,
    next_heartbeat: Time,
    /// The gateway has not yet answered a heartbeat under the present epoch (RS-4).
    announcing: bool,
    suppressed: u32,
    sent_since: bool,
    received_since: bool,
    sent_on_binding: u64,
    received_on_binding: u64,
    pub(super) attempt: Option<Attempt>,
    pub(super) retry_at: Option<Time>,
    pub(super) tried_any: bool,
    pub(super) target: Option<TransportId>,
    /// The path that carried the traffic last, also after it died.
    pub(super) current: Option<TransportId>,
    pub(super) left_attached_at: Time,
    pub(super) heard_before_leaving: Time,
    last_reason: Option<Reason>,
    sent: Traffic,
    received: Traffic,
}

impl Live {
    /// A session from a HELLO_ACK: T01 at this end, and HELLO_CONFIRM on its way (HS-5).
    pub(super) fn new(
        shared: &mut Shared,
        established: Established,
        path: TransportId,
        origin: Time,
        now: Time,
    ) -> Result<Self, Reason> {
        let reply = established.reply;
        let policy = Policy::decode_snapshot(&reply.policy).map_err(|_| Reason::PolicyInvalid)?;
        let keys = EpochKeys::derive(&established.root, 0, &reply.identity, Side::Client);
        let tuple = shared.path(path).map(|path| path.tuple()).ok_or(Reason::NoCandidateTransports)?;
        let mut live = Self {
            record: Record::new(Side::Client, now),
            locator: reply.locator,
            reset_token: reply.reset_token,
            keys,
            key_epoch: 0,
            origin,
            data_sent: 0,
            data_window: ReplayWindow::new(policy.security.data_replay_window as usize),
            mutations_sent: 0,
            queries_sent: 0,
            last_mutation: 0,
            known_epoch: 1,
            health: PathHealth::new(1, now),
            confirm: None,
            next_heartbeat: now + policy.volatility.heartbeat_interval,
            announcing: false,
            suppressed: 0,
            sent_since: false,
            received_since: false,
            sent_on_binding: 0,
            received_on_binding: 0,
            attempt: None,
            retry_at: None,
            tried_any: false,
            target: None,
            current: Some(path),
            left_attached_at: now,
            heard_before_leaving: now,
            last_reason: None,
            sent: Traffic::default(),
            received: Traffic::default(),
            policy,
        };
        shared.events.push_back(ClientEvent::Connected {
            locator: live.locator,
            inner_v4: reply.inner_v4,
            inner_v6: reply.inner_v6,
            mtu: reply.mtu,
        });
        let binding = NewBinding { tuple, transport: path, validated: true };
        live.apply(shared, &[Input::HandshakeComplete { binding }], now);
        let confirm = live.seal_mutation(&HelloConfirm {
            binding_epoch: 1,
            handshake_hash: established.hash,
            transport_id: path,
        });
        shared.send(path, &confirm);
        let rto = shared.path(path).map_or(Span::ZERO, |path| path.rtt.rto());
        live.confirm = Some(Repeat { packet: confirm, path, next: now + rto });
        for path in &mut shared.paths {
            path.next_probe = now;
            path.left_at = None;
        }
        live.probe(shared, now);
        Ok(live)
    }

    pub(super) fn is_over(&self) -> bool {
        !self.record.state().is_live()
    }

    /// The locator that a successor may name (HS-8): not one that the gateway itself has ended or lost.
    pub(super) fn replaceable(&self) -> Option<Locator> {
        (self.last_reason != Some(Reason::PeerTerminated)).then_some(self.locator)
    }

    pub(super) fn active_path(&self) -> Option<TransportId> {
        self.record.active().map(|binding| binding.transport)
    }

    pub(super) fn data_out(&mut self, packet: &mut [u8]) -> Result<TransportId, Reason> {
        let binding = self.record.active().ok_or(Reason::NoActiveBinding)?;
        let (path, epoch) = (binding.transport, binding.epoch);
        let inner_len = packet.len().checked_sub(wire::DATA_OVERHEAD).ok_or(Reason::Malformed)?;
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
        self.sent_since = true;
        self.sent_on_binding += 1;
        self.sent.packets += 1;
        self.sent.bytes += inner_len as u64;
        Ok(path)
    }

    pub(super) fn datagram_in(
        &mut self,
        shared: &mut Shared,
        path: TransportId,
        packet: &mut [u8],
        now: Time,
    ) -> Result<Option<Range<usize>>, Reason> {
        if packet.first() == Some(&(MessageType::SessionReset as u8)) {
            return self.session_reset(shared, packet, now).map(|()| None);
        }
        let header = Header::parse(packet).map_err(|error| error.reason())?;
        if header.locator != self.locator {
            return Err(Reason::SessionNotFound);
        }
        if header.key_epoch != self.key_epoch as u8 {
            return Err(Reason::KeyEpochUnknown);
        }
        match header.kind {
            MessageType::Data => self.data_in(&header, path, packet, now).map(Some),
            MessageType::HeartbeatAck => self.heartbeat_ack(shared, &header, path, packet, now).map(|()| None),
            MessageType::PathProbeAck => self.path_probe_ack(shared, &header, path, packet, now).map(|()| None),
            MessageType::ReattachAck => self.reattach_ack(shared, &header, packet, now).map(|()| None),
            MessageType::ReattachReject => self.reattach_reject(shared, &header, packet, now).map(|()| None),
            MessageType::Terminate => self.peer_terminate(shared, &header, packet, now).map(|()| None),
            _ => Err(Reason::UnknownType),
        }
    }

    /// DATA is taken from the active path, from the path of the outstanding request, and from the former path while it
    /// drains (RS-5).
    fn data_in(
        &mut self,
        header: &Header,
        path: TransportId,
        packet: &mut [u8],
        now: Time,
    ) -> Result<Range<usize>, Reason> {
        let on_active = self.active_path() == Some(path);
        let requested = self.attempt.as_ref().is_some_and(|attempt| attempt.path == path);
        let draining = self.record.retiring(now).is_some_and(|binding| binding.transport == path);
        if !on_active && !requested && !draining {
            return Err(Reason::WrongTransport);
        }
        self.data_window.check(header.counter)?;
        let inner_len = wire::open_data(&self.keys.data_open, header, packet)?.len();
        self.data_window.mark(header.counter);
        if on_active {
            self.health.heard(now);
            self.received_since = true;
            self.received_on_binding += 1;
        }
        self.received.packets += 1;
        self.received.bytes += inner_len as u64;
        Ok(wire::HEADER_LEN..wire::HEADER_LEN + inner_len)
    }

    fn heartbeat_ack(
        &mut self,
        shared: &mut Shared,
        header: &Header,
        path: TransportId,
        packet: &mut [u8],
        now: Time,
    ) -> Result<(), Reason> {
        let ack: HeartbeatAck = self.open_control(header, packet)?;
        let confirms = self.confirm.is_some();
        let round_trip = self.health.heartbeat_answered(ack.echo, now);
        if round_trip.is_none() && !confirms {
            return Err(Reason::ReplayDetected);
        }
        self.confirm = None;
        self.known_epoch = self.known_epoch.max(ack.binding_epoch);
        if let (Some(round_trip), Some(path)) = (round_trip, shared.path_mut(path)) {
            path.answered(round_trip, now);
        }
        if ack.flags & HeartbeatAck::UNBOUND != 0 {
            self.health.told_unbound();
            self.review(shared, now);
            return Ok(());
        }
        if self.active_path() == Some(path) {
            self.health.heard(now);
            self.received_since = true;
        }
        if ack.binding_epoch == self.record.epoch() {
            self.announcing = false;
        }
        self.review(shared, now);
        Ok(())
    }

    fn path_probe_ack(
        &mut self,
        shared: &mut Shared,
        header: &Header,
        path: TransportId,
        packet: &mut [u8],
        now: Time,
    ) -> Result<(), Reason> {
        let ack: PathProbeAck = self.open_control(header, packet)?;
        let found = shared.path_mut(path).ok_or(Reason::InvalidTransportCandidate)?;
        if ack.transport_id != path || !found.probe_answered(ack.echo, now) {
            return Err(Reason::ReplayDetected);
        }
        found.observed = Some(ack.observed);
        let fresh_token = ack.token != 0 && ack.token != found.token;
        found.token = ack.token;
        found.validated = ack.flags & PathProbeAck::VALIDATED != 0;
        // A fresh token goes back at once: two round trips make a path ready.
        if fresh_token && !found.validated {
            found.next_probe = now;
            self.probe(shared, now);
        }
        self.drive(shared, now);
        Ok(())
    }

    fn peer_terminate(
        &mut self,
        shared: &mut Shared,
        header: &Header,
        packet: &mut [u8],
        now: Time,
    ) -> Result<(), Reason> {
        let body: Terminate = self.open_control(header, packet)?;
        if header.counter <= self.last_mutation {
            return Err(Reason::ReplayDetected);
        }
        self.last_mutation = header.counter;
        self.apply(shared, &[Input::PeerTerminate { detail: Some(body.reason) }], now);
        Ok(())
    }

    /// Only our own token proves that the gateway has lost the session (RF-3).
    fn session_reset(&mut self, shared: &mut Shared, packet: &[u8], now: Time) -> Result<(), Reason> {
        let reset = wire::SessionReset::parse(packet).map_err(|error| error.reason())?;
        if !reset.ends(self.locator, &self.reset_token) {
            return Err(Reason::AuthFail);
        }
        self.apply(shared, &[Input::PeerTerminate { detail: Some(Reason::SessionLost) }], now);
        Ok(())
    }

    pub(super) fn path_up(&mut self, shared: &mut Shared, now: Time) {
        self.probe(shared, now);
        self.drive(shared, now);
    }

    pub(super) fn path_down(&mut self, shared: &mut Shared, id: TransportId, evidence: Evidence, now: Time) {
        if self.attempt.as_ref().is_some_and(|attempt| attempt.path == id) {
            self.fail_attempt(shared, now);
        }
        if let Some(binding) = self.record.active().filter(|binding| binding.transport == id) {
            let input = Input::TransportDead { generation: binding.epoch, evidence };
            self.apply(shared, &[input], now);
        }
        self.drive(shared, now);
    }

    pub(super) fn move_to(
        &mut self,
        shared: &mut Shared,
        target: Option<TransportId>,
        now: Time,
    ) -> Result<(), Reason> {
        let active = self.active_path();
        match target {
            Some(id) if active == Some(id) => return Err(Reason::AlreadyBound),
            Some(id) if !shared.path(id).is_some_and(|path| path.up) => return Err(Reason::NoCandidateTransports),
            None if !shared.paths.iter().any(|path| path.up && Some(path.id) != active) => {
                return Err(Reason::NoCandidateTransports);
            }
            _ => {}
        }
        self.target = target;
        self.apply(shared, &[Input::PolicyForceMove], now);
        self.drive(shared, now);
        Ok(())
    }

    pub(super) fn terminate(&mut self, shared: &mut Shared, reason: Reason, now: Time) {
        let path = self.active_path().or(self.current);
        let packet = self.seal_mutation(&Terminate { reason });
        if let Some(path) = path {
            for _ in 0..TERMINATE_COPIES {
                shared.send(path, &packet);
            }
        }
        self.apply(shared, &[Input::OperatorTerminate], now);
    }

    pub(super) fn timeout(&mut self, shared: &mut Shared, now: Time) {
        self.review(shared, now);
        if self.is_over() {
            return;
        }
        self.repeat_confirm(shared, now);
        self.heartbeat(shared, now);
        self.probe(shared, now);
        self.advance_attempt(shared, now);
        self.drive(shared, now);
        self.record.take_probation(now);
    }

    pub(super) fn next_timeout(&self, shared: &Shared, now: Time) -> Time {
        let mut next = self.record.next_deadline(&self.policy).min(self.recovery_timeout(now));
        if let Some(path) = self.active_path().and_then(|id| shared.path(id)) {
            next = next.min(self.health.next_check(&self.policy, &path.rtt, now)).min(self.next_heartbeat);
        }
        if let Some(confirm) = &self.confirm {
            next = next.min(confirm.next);
        }
        let probes = shared.paths.iter().filter(|path| path.up && self.is_probed(path.id)).map(|path| path.next_probe);
        next = probes.fold(next, Time::min);
        // A due timer whose guard does not hold must not spin.
        next.max(now + Span::from_millis(1))
    }

    /// Runs everything that is due on the record and the active path, then the recovery that follows from it.
    pub(super) fn review(&mut self, shared: &mut Shared, now: Time) {
        let mut inputs: arrayvec::ArrayVec<Input, 16> = due(&self.record, &self.policy, now).into_iter().collect();
        if let Some(path) = self.active_path().and_then(|id| shared.path(id)) {
            let mut judged = self.health.judge(&self.policy, &path.rtt, now);
            if self.target.is_some() || self.record.trigger() == Some(Reason::PolicyForcedRecovery) {
                // A forced move does not end because the old path is well: it always was.
                judged.retain(|input| !matches!(input, Input::StabilityRestored { .. }));
            }
            inputs.extend(judged);
        }
        self.apply(shared, &inputs, now);
        self.drive(shared, now);
    }

    /// Applies inputs to the mirror and does what each transition asks for.
    pub(super) fn apply(&mut self, shared: &mut Shared, inputs: &[Input], now: Time) {
        for transition in run(&mut self.record, inputs, &self.policy, now) {
            self.after(shared, &transition, now);
        }
    }

    fn after(&mut self, shared: &mut Shared, transition: &Transition, now: Time) {
        self.last_reason = Some(transition.reason);
        if transition.from == State::Attached {
            self.left_attached_at = now;
            self.heard_before_leaving = self.health.last_authentic();
        }
        if matches!(transition.id, TransitionId::T08 | TransitionId::T15) {
            self.tried_any = false;
            for path in &mut shared.paths {
                path.tried = false;
            }
        }
        if transition.to != State::Recovering {
            self.attempt = None;
            self.retry_at = None;
        }
        if transition.to == State::Degraded || transition.to == State::Attached {
            self.target = None;
        }
        if transition.id == TransitionId::T11 {
            self.bound(shared, transition, now);
        }
        shared.events.push_back(ClientEvent::Transition { transition: *transition, path: self.active_path() });
        if !transition.to.is_live() {
            let (reason, detail) = (transition.reason, transition.detail);
            shared.events.push_back(ClientEvent::Terminated { reason, detail });
        }
    }

    /// A fresh binding: everything measured on the old one is forgotten, and the new one is announced (RS-4).
    fn bound(&mut self, shared: &mut Shared, transition: &Transition, now: Time) {
        let Some(active) = transition.active else {
            return;
        };
        if let Some(left) = self.current.filter(|left| *left != active.transport)
            && let Some(path) = shared.path_mut(left)
        {
            path.left_at = Some(now);
            path.validated = false;
            path.next_probe = now;
        }
        if let Some(path) = shared.path_mut(active.transport) {
            path.left_at = None;
            path.probe = None;
        }
        self.current = Some(active.transport);
        self.known_epoch = transition.epoch;
        self.health = PathHealth::new(transition.epoch, now);
        self.sent_on_binding = 0;
        self.received_on_binding = 0;
        self.announcing = true;
        self.next_heartbeat = now;
        self.heartbeat(shared, now);
        self.probe(shared, now);
    }

    fn repeat_confirm(&mut self, shared: &mut Shared, now: Time) {
        if let Some(confirm) = self.confirm.as_mut().filter(|confirm| now >= confirm.next) {
            shared.send(confirm.path, &confirm.packet);
            let rto = shared.path(confirm.path).map_or(Span::ZERO, |path| path.rtt.rto());
            confirm.next = now + rto.max(Span::from_millis(50));
        }
    }

    /// BD-3: a heartbeat an interval, unless data flowed both ways in it, and never less often than every fourth.
    fn heartbeat(&mut self, shared: &mut Shared, now: Time) {
        if now < self.next_heartbeat || self.confirm.is_some() {
            return;
        }
        let Some(path) = self.active_path() else {
            return;
        };
        let interval = self.policy.volatility.heartbeat_interval;
        self.next_heartbeat = now + interval;
        let calm = self.record.state() == State::Attached && !self.announcing;
        let busy = self.sent_since && self.received_since;
        self.sent_since = false;
        self.received_since = false;
        if calm && busy && self.suppressed < MAX_SUPPRESSED {
            self.suppressed += 1;
            return;
        }
        self.suppressed = 0;
        if self.announcing {
            let rto = shared.path(path).map_or(interval, |path| path.rtt.rto());
            self.next_heartbeat = now + rto.min(interval);
        }
        let body = Heartbeat {
            binding_epoch: self.record.epoch(),
            client_time_ms: self.session_ms(now),
            sent: self.sent_on_binding,
            received: self.received_on_binding,
            highest: self.data_window.highest(),
            policy_sequence: 1,
        };
        let packet = self.seal_query(&body);
        self.health.heartbeat_sent(self.queries_sent, now);
        shared.send(path, &packet);
    }

    /// Probes every path that is up and not active (SP-1).
    fn probe(&mut self, shared: &mut Shared, now: Time) {
        let interval = self.policy.transport.probe_interval;
        let ttl = self.policy.transport.candidate_ttl;
        for index in 0..shared.paths.len() {
            let path = &mut shared.paths[index];
            if !path.up || now < path.next_probe || self.active_path() == Some(path.id) {
                continue;
            }
            path.validated &= path.seen_within(ttl, now);
            path.next_probe = now + interval;
            let (id, token) = (path.id, path.token);
            let body = PathProbe { transport_id: id, client_time_ms: self.session_ms(now), token };
            let packet = self.seal_query(&body);
            shared.paths[index].probe_sent(self.queries_sent, now);
            shared.send(id, &packet);
        }
    }

    fn is_probed(&self, id: TransportId) -> bool {
        self.active_path() != Some(id)
    }

    /// Milliseconds since the handshake on this side (AR-5).
    pub(super) fn session_ms(&self, now: Time) -> u64 {
        now.since(self.origin).as_millis()
    }

    pub(super) fn open_control<B: Body>(&self, header: &Header, packet: &mut [u8]) -> Result<B, Reason> {
        let body = wire::open(&self.keys.control_open, header, packet)?;
        B::parse(body).map_err(|error| error.reason())
    }

    /// Seals one message of lane M (AR-1); a request to move under the proof key (KY-2).
    pub(super) fn seal_mutation<B: Body>(&mut self, body: &B) -> ControlPacket {
        self.mutations_sent += 1;
        let header = self.header(B::KIND, self.mutations_sent);
        let key = match B::KIND {
            MessageType::ReattachRequest => &self.keys.proof,
            _ => &self.keys.control_seal,
        };
        wire::seal(key, header, body)
    }

    /// The counter of the last message on lane M.
    pub(super) const fn last_nonce(&self) -> u64 {
        self.mutations_sent
    }

    fn seal_query<B: Body>(&mut self, body: &B) -> ControlPacket {
        self.queries_sent += 1;
        wire::seal(&self.keys.control_seal, self.header(B::KIND, self.queries_sent), body)
    }

    fn header(&self, kind: MessageType, counter: u64) -> Header {
        Header { kind, flags: 0, key_epoch: self.key_epoch as u8, tag: 0, locator: self.locator, counter }
    }

    pub(super) fn status(&self, active: Option<TransportId>, paths: Vec<PathStatus>, now: Time) -> ClientStatus {
        ClientStatus {
            locator: Some(self.locator),
            state: self.record.state(),
            reason: self.last_reason,
            epoch: self.record.epoch(),
            active,
            paths,
            sent: (self.sent.packets, self.sent.bytes),
            received: (self.received.packets, self.received.bytes),
            switches: self.record.total_switches(),
            age: self.record.age(now),
        }
    }
}
