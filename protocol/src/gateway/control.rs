//! The control messages of a session but REATTACH_REQUEST and REKEY_INIT: HELLO_CONFIRM, HEARTBEAT, PATH_PROBE,
//! TERMINATE.

use super::event::Reply;
use super::freshness::difference_ms;
use super::lanes::{Mutation, digest};
use super::session::Session;
use super::shard::{Context, FAREWELL_COPIES};
use crate::health::Report;
use crate::ident::{Arrival, TransportId};
use crate::machine::{Binding, Input, NewBinding, State};
use crate::reason::Reason;
use crate::time::Time;
use crate::wire::{
    ControlPacket, Header, Heartbeat, HeartbeatAck, HelloConfirm, MessageType, PathProbe, PathProbeAck, Terminate,
};

impl Session {
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
            MessageType::RekeyInit => self.rekey_init(header, arrival, packet, context),
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
        let body: HelloConfirm = self.open_control(header, packet, context)?;
        if let Mutation::Repeated = self.mutation(header, digest, arrival, context)? {
            return self.answer_again(arrival, context);
        }
        let Some(opening) = self.opening.as_deref().filter(|_| self.record.state() == State::Birth) else {
            return Err(Reason::InvalidStateForReattach);
        };
        if arrival.tuple != opening.from {
            return Err(Reason::WrongTransport);
        }
        if body.handshake_hash != opening.handshake_hash || body.binding_epoch != 1 {
            return Err(Reason::AuthFail);
        }
        if body.transport_id == TransportId::NONE {
            return Err(Reason::InvalidTransportCandidate);
        }
        self.route = arrival.route;
        let binding = NewBinding { tuple: arrival.tuple, transport: body.transport_id, validated: true };
        // HELLO_ACK went out when the record was made, and this is what it was answered by.
        let round_trip = context.now.since(self.record.created());
        self.apply(&[Input::HandshakeComplete { binding }], context);
        self.opening.take_if(|_| self.record.state() != State::Birth);
        self.rtt.sample(round_trip);
        let ack = self.heartbeat_ack(header.counter, 0, context.now);
        self.remember(header, digest, arrival, Some(ack.clone()));
        self.reply(arrival, ack, context)
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
        let body: Heartbeat = self.open_query(header, packet, context)?;
        if self.record.state() == State::Birth {
            return Err(Reason::InvalidStateForReattach);
        }
        context.outbox.meter.heartbeats += 1;
        self.offset.sample(difference_ms(self.session_ms(context.now), body.client_time_ms), context.now);
        self.policy_acknowledged(body.policy_sequence, context);
        let now = context.now;
        let mut flags = 0;
        match self.record.active() {
            Some(active) if active.tuple == arrival.tuple => {
                let epoch = active.epoch;
                self.health.heard(now);
                self.queue = arrival.queue;
                self.credit_unvalidated(&arrival.tuple, length);
                if body.binding_epoch == epoch {
                    self.validate(epoch, context);
                    self.take_report(&body, header.key_epoch, now);
                }
            }
            _ => {
                if self.record.retiring(now).is_none_or(|old| old.tuple != arrival.tuple) {
                    flags |= HeartbeatAck::UNBOUND;
                }
            }
        }
        if self.wants_rekey(now) {
            flags |= HeartbeatAck::REKEY_WANTED;
        }
        if self.ring.is_under_attack() {
            flags |= HeartbeatAck::FORGERIES;
        }
        let ack = self.heartbeat_ack(header.counter, flags, now);
        let answered = self.reply(arrival, ack, context);
        context.outbox.meter.heartbeat_acks += u64::from(answered.is_ok());
        // Calm may have lasted long enough by now (T07).
        self.review(context);
        self.record_sample(context);
        answered
    }

    /// What the client counted on the active binding (SM-14). Its first heartbeat there answers the REATTACH_ACK.
    fn take_report(&mut self, body: &Heartbeat, key_epoch: u8, now: Time) {
        if self.rtt.smoothed().is_none() {
            self.rtt.sample(now.since(self.health.made()));
        }
        let report = Report { key_epoch, sent: body.sent, received: body.received, highest: body.highest };
        self.health.reported(body.binding_epoch, &report, &self.ring.counters(), &self.policy, now);
    }

    /// PATH_PROBE: stores or validates a standby path, and never touches anything in use (SP-2 to SP-4, INV-35).
    fn path_probe(
        &mut self,
        header: &Header,
        arrival: &Arrival,
        packet: &mut [u8],
        context: &mut Context<'_>,
    ) -> Result<(), Reason> {
        let length = packet.len() as u64;
        let body: PathProbe = self.open_query(header, packet, context)?;
        if self.record.state() == State::Birth {
            return Err(Reason::InvalidStateForReattach);
        }
        if !self.sources.allow(arrival.tuple.peer.ip()) {
            return Err(Reason::InvalidTransportCandidate);
        }
        let now = context.now;
        self.offset.sample(difference_ms(self.session_ms(now), body.client_time_ms), now);
        let is_active = self.record.active().is_some_and(|active| active.tuple == arrival.tuple);
        let (token, flags) = if is_active {
            self.credit_unvalidated(&arrival.tuple, length);
            self.heard_on(&arrival.tuple, now);
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
        self.reply(arrival, packet, context)
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
        let body: Terminate = self.open_control(header, packet, context)?;
        if let Mutation::Repeated = self.mutation(header, digest, arrival, context)? {
            return Ok(());
        }
        self.remember(header, digest, arrival, None);
        self.apply(&[Input::PeerTerminate { detail: Some(body.reason) }], context);
        Ok(())
    }

    /// Ends the session at this end, whatever its state. The TERMINATE is sealed before the keys go (TM-1), if there is
    /// anywhere to send it: a binding that retires gets nothing any more (INV-34).
    pub(super) fn terminate(&mut self, input: Input, reason: Reason, context: &mut Context<'_>) {
        if let Some(last) = self.record.active().copied() {
            self.say_farewell(&last, reason);
        }
        self.apply(&[input], context);
    }

    /// Seals the TERMINATE for the client at that binding, if as many copies as there will be may be sent there (PV-2).
    pub(super) fn say_farewell(&mut self, last: &Binding, reason: Reason) {
        let packet = self.seal_mutation(&Terminate { reason });
        if last.validated || self.credit >= packet.len() as u64 * u64::from(FAREWELL_COPIES) {
            self.farewell = Some(Box::new(Reply { tuple: last.tuple, route: self.route, packet }));
        }
    }

    fn heartbeat_ack(&mut self, echo: u64, flags: u8, now: Time) -> ControlPacket {
        let (highest, received) = self.health.newest_tally();
        let ack = HeartbeatAck {
            echo,
            binding_epoch: self.record.epoch(),
            gateway_time_ms: self.session_ms(now),
            sent: self.ring.counters().own_sent,
            received,
            highest,
            state: self.record.state() as u8,
            flags,
        };
        self.seal_control(&ack)
    }
}
