//! Recovery from the client's side: pick a candidate, ask, repeat, give up, take the next (§6.3, RS-1 to RS-7).

use super::candidates::Choice;
use super::core::Shared;
use super::event::ClientEvent;
use super::live::Live;
use crate::audit::Answer;
use crate::health::is_quality;
use crate::ident::TransportId;
use crate::machine::{Input, NewBinding, State};
use crate::reason::Reason;
use crate::time::{Span, Time};
use crate::wire::{Cause, ControlPacket, Header, ReattachAck, ReattachReject, ReattachRequest};

/// Copies of one request: the first, then one after 1 and one after 2 RTO (RS-1).
const COPIES: u32 = 3;
/// After so many RTO the attempt has failed (RS-1).
const GIVE_UP_RTO: u64 = 4;
/// `protocol` field of a request over UDP, the one outer protocol of version 1.
const PROTOCOL_UDP: u8 = 1;

/// The one request outstanding.
pub(super) struct Attempt {
    pub(super) path: TransportId,
    nonce: u64,
    packet: ControlPacket,
    cause: Cause,
    first_sent: Time,
    rto: Span,
    copies: u32,
}

impl Attempt {
    /// Whether it leads from the path in use to one that is better, not merely alive.
    pub(super) fn is_improvement(&self) -> bool {
        self.cause == Cause::Quality
    }

    /// When the next copy is due, or the attempt has failed.
    fn next(&self) -> Time {
        let rtos = if self.copies < COPIES { u64::from(self.copies) } else { GIVE_UP_RTO };
        self.first_sent + self.rto.times(rtos)
    }
}

impl Live {
    /// Moves the recovery on as far as it goes now: starts one (T08, T15), asks the next candidate, or gives up (T14).
    pub(super) fn drive(&mut self, shared: &mut Shared, now: Time) {
        match self.record.state() {
            State::Birth | State::Attached | State::Terminated => {}
            State::Volatile | State::Degraded => {
                if self.has_startable(shared, now) {
                    self.start(shared, now);
                }
            }
            State::Recovering => {
                if self.attempt.is_none() && self.retry_at.is_none_or(|at| now >= at) {
                    self.retry_at = None;
                    self.next_attempt(shared, now);
                }
            }
        }
    }

    /// When [`Live::drive`] could do more than now.
    pub(super) fn recovery_timeout(&self, now: Time) -> Time {
        match self.record.state() {
            State::Recovering => {
                let attempt = self.attempt.as_ref().map(Attempt::next);
                attempt.or(self.retry_at).unwrap_or(Time::NEVER)
            }
            State::Volatile | State::Degraded => match self.record.earliest_start(&self.policy, now) {
                start if start > now => start,
                // Whatever could start has started. Candidates come with answers to probes, or with calm.
                _ => now + self.policy.transport.probe_interval,
            },
            State::Birth | State::Attached | State::Terminated => Time::NEVER,
        }
    }

    pub(super) fn choice(&self, shared: &Shared, now: Time, anew: bool) -> Choice<'_> {
        let unbound = self.health.is_unbound() && self.record.active().is_some();
        Choice {
            record: &self.record,
            policy: &self.policy,
            now,
            current: self.current,
            active_loss: self.measurement(shared, now).map_or(0, |found| found.loss_permille),
            quality: self.is_about_quality(now) && !unbound,
            unbound,
            braked: self.braked,
            calm: self.health.calm_for(now) >= self.policy.volatility.stability_window,
            anew,
            target: self.target,
        }
    }

    /// Whether the session is to leave a path that still carries traffic because that path is bad (AF-1). A path that has
    /// fallen silent since carries none.
    fn is_about_quality(&self, now: Time) -> bool {
        let carries = self.record.active().is_some() && !self.health.is_silent(&self.policy, now);
        let measured = self.record.trigger().is_some_and(is_quality);
        self.target.is_none() && carries && (measured || self.hinted_quality)
    }

    /// A candidate for a recovery that is yet to start: what failed in the last one may be tried again (T15).
    fn has_startable(&self, shared: &Shared, now: Time) -> bool {
        self.choice(shared, now, true).best(&shared.paths).is_some()
    }

    fn start(&mut self, shared: &mut Shared, now: Time) {
        self.apply(shared, &[Input::RecoveryStart { exempt: false }], now);
        if self.record.state() == State::Recovering {
            self.next_attempt(shared, now);
        } else if self.record.state() == State::Volatile && !self.record.switch_rate_free(&self.policy, now) {
            // T10: a start was due, but the sliding minute is full.
            self.apply(shared, &[Input::SwitchDeniedRate], now);
        }
    }

    fn next_attempt(&mut self, shared: &mut Shared, now: Time) {
        self.record_ranking(shared, now);
        let named = self.named.take().filter(|id| shared.path(*id).is_some_and(|path| path.up));
        let candidate = named.or_else(|| self.choice(shared, now, false).best(&shared.paths));
        let exhausted = u32::from(self.record.attempts()) >= self.policy.switching.max_recovery_attempts;
        match candidate {
            Some(path) if !exhausted => self.ask(shared, path, now),
            _ => {
                let reason =
                    if self.tried_any { Reason::ReattachValidationFailed } else { Reason::NoCandidateTransports };
                self.apply(shared, &[Input::AttemptsExhausted { reason }], now);
            }
        }
    }

    /// A fresh nonce, and the request from the candidate's own path (RS-1).
    fn ask(&mut self, shared: &mut Shared, path: TransportId, now: Time) {
        let cause = self.cause(path, now);
        let request = ReattachRequest {
            binding_epoch: self.known_epoch,
            client_time_ms: self.session_ms(now),
            cause,
            transport_id: path,
            protocol: PROTOCOL_UDP,
        };
        let packet = self.seal_mutation(&request);
        let (nonce, rto) = (self.control_sent, shared.rto(path));
        shared.send(path, &packet);
        self.tried_any = true;
        self.record_attempt(shared, nonce, &request, now);
        self.attempt = Some(Attempt { path, nonce, packet, cause, first_sent: now, rto, copies: 1 });
    }

    fn cause(&self, path: TransportId, now: Time) -> Cause {
        if self.record.active().is_none() {
            return Cause::HardDead;
        }
        if self.is_about_quality(now) {
            return if self.current == Some(path) { Cause::Reproof } else { Cause::Quality };
        }
        match self.record.trigger() {
            Some(Reason::TransportDead) => Cause::HardDead,
            Some(Reason::PolicyForcedRecovery) => Cause::Forced,
            _ => Cause::Silence,
        }
    }

    /// Sends the copies of the outstanding request and ends it when it has failed.
    pub(super) fn advance_attempt(&mut self, shared: &mut Shared, now: Time) {
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| now >= attempt.next()) else {
            return;
        };
        if attempt.copies < COPIES {
            attempt.copies += 1;
            let (path, packet) = (attempt.path, attempt.packet.clone());
            shared.send(path, &packet);
        } else {
            self.fail_attempt(shared, now);
        }
    }

    /// The outstanding request has failed: its path is not asked again in this recovery.
    pub(super) fn fail_attempt(&mut self, shared: &mut Shared, now: Time) {
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        self.record.count_attempt();
        if let Some(path) = shared.path_mut(attempt.path) {
            path.tried = true;
            path.validated = false;
            path.unanswered = true;
        }
        self.drive(shared, now);
    }

    /// REATTACH_ACK: the commit of the mirror (T11, RS-4).
    pub(super) fn reattach_ack(
        &mut self,
        shared: &mut Shared,
        header: &Header,
        from: TransportId,
        packet: &mut [u8],
        now: Time,
    ) -> Result<(), Reason> {
        let ack: ReattachAck = self.open_control(header, packet, now)?;
        let Some(attempt) = self.attempt.as_ref().filter(|attempt| attempt.nonce == ack.nonce) else {
            // No request outstanding with that nonce, or answered before (AR-1, lane R).
            return Err(Reason::ReplayDetected);
        };
        let (path, cause) = (attempt.path, attempt.cause);
        let single = attempt.copies == 1;
        if from != path {
            // RS-4: it goes to the new tuple only. What comes by another path says that the request went astray.
            return Err(Reason::WrongTransport);
        }
        // Of several copies nobody knows which one was answered; where nothing is known, a bound is better than nothing.
        let unknown = shared.path(path).is_some_and(|path| path.echoes.rtt().smoothed().is_none());
        let round_trip = (attempt.copies == 1 || unknown).then(|| now.since(attempt.first_sent));
        if let Some(round_trip) = round_trip.filter(|_| single) {
            shared.meter.reattaches.count(round_trip.as_micros());
        }
        let found = shared.path_mut(path).ok_or(Reason::InvalidTransportCandidate)?;
        found.observed = Some(ack.observed);
        if let Some(round_trip) = round_trip {
            found.measured(round_trip, now);
        }
        let tuple = found.tuple();
        let left = self.active_path();
        let binding = NewBinding { tuple, transport: path, validated: true };
        let (left_at, heard_at) = (self.left_attached_at, self.heard_before_leaving);
        self.known_epoch = self.known_epoch.max(ack.binding_epoch);
        self.trail.answered(Answer {
            candidate: path,
            cause,
            refusal: None,
            detail: Reason::from_number(ack.detail),
            round_trip: round_trip.filter(|_| single),
            retry_after: None,
        });
        let input = Input::ReattachValid { binding, granted_epoch: Some(ack.binding_epoch) };
        self.apply(shared, &[input], now);
        self.settle_records(shared, now);
        if self.record.state() == State::Attached {
            shared.events.push_back(ClientEvent::Switched {
                from: left,
                to: path,
                epoch: ack.binding_epoch,
                detail: Reason::from_number(ack.detail),
                detected_after: left_at.since(heard_at),
                switched_after: now.since(left_at),
            });
            self.follow_target(shared, now);
        }
        Ok(())
    }

    /// An operator's wish that came while another move was under way is still to be fulfilled.
    fn follow_target(&mut self, shared: &mut Shared, now: Time) {
        let elsewhere =
            |id: &TransportId| self.active_path() != Some(*id) && shared.path(*id).is_some_and(|path| path.up);
        self.target = self.target.filter(elsewhere);
        if self.target.is_some() {
            self.apply(shared, &[Input::PolicyForceMove], now);
            self.drive(shared, now);
        }
    }

    /// REATTACH_REJECT: wait and ask again, take the next candidate, or brake (RF-4, RF-5).
    pub(super) fn reattach_reject(
        &mut self,
        shared: &mut Shared,
        header: &Header,
        packet: &mut [u8],
        now: Time,
    ) -> Result<(), Reason> {
        let reject: ReattachReject = self.open_control(header, packet, now)?;
        let Some(attempt) = self.attempt.take_if(|attempt| attempt.nonce == reject.nonce) else {
            return Err(Reason::ReplayDetected);
        };
        shared.events.push_back(ClientEvent::Refused { reason: reject.reason, path: attempt.path });
        let round_trip = (attempt.copies == 1).then(|| now.since(attempt.first_sent));
        if let Some(round_trip) = round_trip {
            shared.meter.reattaches.count(round_trip.as_micros());
        }
        self.trail.answered(Answer {
            candidate: attempt.path,
            cause: attempt.cause,
            refusal: Some(reject.reason),
            detail: None,
            round_trip,
            retry_after: Some(Span::from_millis(u64::from(reject.retry_after_ms))),
        });
        self.record.count_attempt();
        match reject.reason {
            Reason::StaleStateVersion => {
                // RS-7: what the gateway has bound may be what we want; then it is no switch at all (SM-09).
                if let Some((epoch, path)) = reject.current {
                    self.known_epoch = self.known_epoch.max(epoch);
                    self.named = Some(path).filter(|path| self.target.is_none_or(|target| target == *path));
                }
                self.retry_at = Some(now);
            }
            Reason::InvalidStateForReattach if self.confirm.is_some() => {
                // The gateway never got HELLO_CONFIRM, and after this request it cannot take it any more (AR-1): there
                // is no session, and a handshake over another path makes one sooner than any waiting.
                self.apply(shared, &[Input::PeerTerminate { detail: Some(Reason::SessionLost) }], now);
            }
            Reason::FreshnessInvalid => {
                // AR-5: our session time has gone astray; the gateway's is the one that counts.
                self.origin = now - Span::from_millis(reject.gateway_time_ms);
                self.retry_at = Some(now + Span::from_millis(1));
            }
            Reason::RateLimited
            | Reason::CooldownActive
            | Reason::AtomicityFailed
            | Reason::StoreUnavailable
            | Reason::InvalidStateForReattach => {
                self.retry_at = Some(now + Span::from_millis(u64::from(reject.retry_after_ms).max(1)));
            }
            reason => {
                if let Some(path) = shared.path_mut(attempt.path) {
                    path.tried = true;
                }
                // T13 at the client: final only once no untried candidate is left.
                if self.choice(shared, now, false).best(&shared.paths).is_none() {
                    let primary = match reason {
                        Reason::InvalidTransportCandidate => reason,
                        Reason::PolicyDenied | Reason::SwitchRateLimited => Reason::PolicyDenied,
                        _ => Reason::ReattachValidationFailed,
                    };
                    self.apply(shared, &[Input::ReattachDeniedAuth { reason: primary, detail: reason }], now);
                }
            }
        }
        self.settle_records(shared, now);
        self.drive(shared, now);
        Ok(())
    }
}
