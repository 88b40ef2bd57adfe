//! What comes in from the gateway while there is a session, but the answers to a request to move ([`super::recovery`]).

use std::ops::Range;

use super::candidates::Choice;
use super::core::Shared;
use super::live::Live;
use crate::health::{Report, is_quality};
use crate::ident::TransportId;
use crate::machine::{Input, State};
use crate::reason::Reason;
use crate::time::Time;
use crate::wire::{self, Header, HeartbeatAck, MessageType, PathProbeAck, ReattachHint, Terminate};

impl Live {
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
        let result = match header.kind {
            MessageType::Data => self.data_in(&header, path, packet, now).map(Some),
            MessageType::HeartbeatAck => self.heartbeat_ack(shared, &header, path, packet, now).map(|()| None),
            MessageType::PathProbeAck => self.path_probe_ack(shared, &header, path, packet, now).map(|()| None),
            MessageType::ReattachAck => self.reattach_ack(shared, &header, path, packet, now).map(|()| None),
            MessageType::ReattachReject => self.reattach_reject(shared, &header, packet, now).map(|()| None),
            MessageType::ReattachHint => self.reattach_hint(shared, &header, packet, now).map(|()| None),
            MessageType::RekeyAck => self.rekey_ack(shared, &header, path, packet, now).map(|()| None),
            MessageType::PolicyUpdate => self.policy_update(shared, &header, packet, now).map(|()| None),
            MessageType::Terminate => self.peer_terminate(shared, &header, packet, now).map(|()| None),
            _ => Err(Reason::UnknownType),
        };
        if result.is_ok() && !self.is_over() {
            self.heard_under(shared, header.key_epoch, now);
        }
        result
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
        let inner_len = self.ring.open_data(header, packet, now)?.len();
        if on_active {
            self.health.delivered(now);
            self.received_since = true;
        } else if draining {
            self.trail.late_packet();
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
        let ack: HeartbeatAck = self.open_control(header, packet, now)?;
        let found = shared.path_mut(path).ok_or(Reason::InvalidTransportCandidate)?;
        // Lane R: once, and only what was asked.
        match self.confirm.take_if(|confirm| confirm.counter == ack.echo) {
            Some(confirm) => confirm.round_trip(now).into_iter().for_each(|round_trip| found.measured(round_trip, now)),
            None => found.answered(ack.echo, now).map(|_| ()).ok_or(Reason::ReplayDetected)?,
        }
        shared.meter.heartbeat_acks += 1;
        self.known_epoch = self.known_epoch.max(ack.binding_epoch);
        if ack.flags & HeartbeatAck::REKEY_WANTED != 0 {
            self.rekey_wanted(ack.flags & HeartbeatAck::FORGERIES != 0);
        }
        let on_active = self.active_path() == Some(path);
        if ack.flags & HeartbeatAck::UNBOUND != 0 {
            if on_active {
                self.health.told_unbound();
            }
            self.review(shared, now);
            return Ok(());
        }
        if on_active {
            self.health.heard(now);
            self.received_since = true;
            let Header { key_epoch, .. } = *header;
            let report = Report { key_epoch, sent: ack.sent, received: ack.received, highest: ack.highest };
            self.health.reported(ack.binding_epoch, &report, &self.ring.counters(), &self.policy, now);
        }
        if ack.binding_epoch == self.record.epoch() {
            self.announcing = false;
        }
        self.review(shared, now);
        self.record_sample(shared, now);
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
        let ack: PathProbeAck = self.open_control(header, packet, now)?;
        let found = shared.path_mut(path).ok_or(Reason::InvalidTransportCandidate)?;
        if ack.transport_id != path {
            return Err(Reason::ReplayDetected);
        }
        found.answered(ack.echo, now).ok_or(Reason::ReplayDetected)?;
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

    /// The gateway is in trouble with our path, or was and is calm: it asks us to move, or to prove the path again
    /// (SM-18). Without anywhere to go that is ignored.
    fn reattach_hint(
        &mut self,
        shared: &mut Shared,
        header: &Header,
        packet: &mut [u8],
        now: Time,
    ) -> Result<(), Reason> {
        let hint: ReattachHint = self.open_control(header, packet, now)?;
        self.take_mutation(header)?;
        self.known_epoch = self.known_epoch.max(hint.binding_epoch);
        // SM-10: it is about the binding of that epoch and no other.
        let concerns_us = hint.binding_epoch == self.record.epoch();
        let attached = self.record.state() == State::Attached;
        // AF-1 holds for what the gateway measured, too.
        let hinted_quality = is_quality(hint.reason);
        let choice = self.choice(shared, now, true);
        let quality = choice.quality || (attached && hinted_quality && !choice.unbound);
        let goal = Choice { quality, ..choice }.best(&shared.paths);
        let somewhere_to_go = goal.is_some_and(|goal| hint.same_path_ok || Some(goal) != self.current);
        if attached && concerns_us && somewhere_to_go {
            self.hinted_quality = hinted_quality;
            self.apply(shared, &[Input::PolicyForceMove], now);
        }
        self.drive(shared, now);
        Ok(())
    }

    /// Lane M: each counter once, and never one below the last (AR-1).
    pub(super) fn take_mutation(&mut self, header: &Header) -> Result<(), Reason> {
        if header.counter <= self.last_mutation {
            return Err(Reason::ReplayDetected);
        }
        self.last_mutation = header.counter;
        Ok(())
    }

    fn peer_terminate(
        &mut self,
        shared: &mut Shared,
        header: &Header,
        packet: &mut [u8],
        now: Time,
    ) -> Result<(), Reason> {
        let body: Terminate = self.open_control(header, packet, now)?;
        self.take_mutation(header)?;
        self.apply(shared, &[Input::PeerTerminate { detail: Some(body.reason) }], now);
        Ok(())
    }

    /// Only our own token proves that the gateway has lost the session (RF-3).
    fn session_reset(&mut self, shared: &mut Shared, packet: &[u8], now: Time) -> Result<(), Reason> {
        let reset = wire::SessionReset::parse(packet).map_err(|error| error.reason())?;
        if !reset.ends(self.locator, &self.reset_token) {
            return Err(Reason::AuthFail);
        }
        shared.meter.resets += 1;
        self.apply(shared, &[Input::PeerTerminate { detail: Some(Reason::SessionLost) }], now);
        Ok(())
    }
}
