//! What a client sends on its own account while there is a session: HELLO_CONFIRM until it is answered, heartbeats,
//! probes; and the sealing of all control messages.

use super::core::Shared;
use super::live::Live;
use crate::ident::TransportId;
use crate::machine::State;
use crate::reason::Reason;
use crate::time::{Span, Time};
use crate::wire::{Body, ControlPacket, Header, Heartbeat};

/// A heartbeat may be left out while data flows both ways, but only three times in a row (BD-3).
pub(super) const MAX_SUPPRESSED: u32 = 3;

/// HELLO_CONFIRM, repeated until it is answered (HS-5).
pub(super) struct Confirm {
    packet: ControlPacket,
    pub(super) counter: u64,
    path: TransportId,
    first_sent: Time,
    copies: u32,
    pub(super) next: Time,
}

impl Confirm {
    pub(super) fn send(shared: &mut Shared, packet: ControlPacket, counter: u64, path: TransportId, now: Time) -> Self {
        let mut confirm = Self { packet, counter, path, first_sent: now, copies: 0, next: now };
        confirm.repeat(shared, now);
        confirm
    }

    fn repeat(&mut self, shared: &mut Shared, now: Time) {
        shared.send(self.path, &self.packet);
        self.copies += 1;
        self.next = now + shared.rto(self.path);
    }

    /// The round trip that an answer shows: of several copies nobody knows which one it answers.
    pub(super) fn round_trip(&self, now: Time) -> Option<Span> {
        (self.copies == 1).then(|| now.since(self.first_sent))
    }
}

impl Live {
    pub(super) fn repeat_confirm(&mut self, shared: &mut Shared, now: Time) {
        if let Some(confirm) = self.confirm.as_mut().filter(|confirm| now >= confirm.next) {
            confirm.repeat(shared, now);
        }
    }

    /// BD-3: a heartbeat an interval, unless data flowed both ways in it, and never less often than every fourth. Where
    /// much is lost, or round trips are bounded, each is sent: they are the measure.
    pub(super) fn heartbeat(&mut self, shared: &mut Shared, now: Time) {
        if now < self.next_heartbeat || self.confirm.is_some() {
            return;
        }
        let Some(path) = self.active_path() else {
            return;
        };
        let interval = self.policy.volatility.heartbeat_interval;
        self.next_heartbeat = now + interval;
        let bounds = &self.policy.volatility;
        let measured = bounds.latency_volatile_threshold > Span::ZERO || bounds.jitter_threshold > Span::ZERO;
        let calm = self.record.state() == State::Attached && !self.announcing && !self.health.is_suspect(&self.policy);
        let busy = self.sent_since && self.received_since;
        self.sent_since = false;
        self.received_since = false;
        if calm && busy && !measured && self.suppressed < MAX_SUPPRESSED {
            self.suppressed += 1;
            shared.meter.suppressed += 1;
            return;
        }
        self.suppressed = 0;
        if self.announcing {
            self.next_heartbeat = now + shared.rto(path).min(interval);
        }
        let (highest, received) = self.health.newest_tally();
        let body = Heartbeat {
            binding_epoch: self.record.epoch(),
            client_time_ms: self.session_ms(now),
            sent: self.ring.counters().own_sent,
            received,
            highest,
            policy_sequence: self.terms.sequence,
        };
        let packet = self.seal_query(&body);
        if let Some(path) = shared.path_mut(path) {
            path.echoes.asked(self.control_sent, now);
        }
        shared.meter.heartbeats += 1;
        shared.send(path, &packet);
    }

    pub(super) fn open_control<B: Body>(&mut self, header: &Header, packet: &mut [u8], now: Time) -> Result<B, Reason> {
        self.ring.open_control(header, packet, now)
    }

    /// Seals one message of lane M (AR-1).
    pub(super) fn seal_mutation<B: Body>(&mut self, body: &B) -> ControlPacket {
        self.rekeying.supersede();
        self.seal_query(body)
    }

    /// Seals one control message; its counter is never used again, whatever its type (AR-2, INV-36).
    pub(super) fn seal_query<B: Body>(&mut self, body: &B) -> ControlPacket {
        self.control_sent += 1;
        self.ring.seal_control(self.locator, self.control_sent, body)
    }
}
