//! A session from the client's side: data, heartbeats, probes, and the mirror of the session machine.

use arrayvec::ArrayVec;

use super::core::Shared;
use super::event::{ClientEvent, ClientStatus, PathStatus};
use super::policy::Terms;
use super::pulse::Confirm;
use super::recovery::Attempt;
use super::rekey::Rekeying;
use crate::audit::Trail;
use crate::handshake::Established;
use crate::health::{Measurement, PathHealth, RoundTrips};
use crate::ident::{Locator, TransportId};
use crate::key_ring::KeyRing;
use crate::keys::Side;
use crate::machine::{Evidence, Input, NewBinding, Record, State, Transition, TransitionId, due, run};
use crate::policy::Policy;
use crate::reason::Reason;
use crate::time::{Span, TICK_MS, Time};
use crate::wire::{self, HelloConfirm, Terminate};

/// TERMINATE goes out three times (TM-1); the client is about to leave, so all at once.
const TERMINATE_COPIES: usize = 3;

/// Packets and bytes of DATA in one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// A session of the client.
pub(super) struct Live {
    pub(super) record: Record,
    pub(super) policy: Policy,
    pub(super) terms: Terms,
    pub(super) locator: Locator,
    pub(super) reset_token: [u8; 16],
    pub(super) ring: KeyRing,
    pub(super) rekeying: Rekeying,
    pub(super) origin: Time,
    /// One counter for all control messages, whatever their lane: it rises on each, and an echo is never ambiguous.
    pub(super) control_sent: u64,
    /// The newest control message of lane M from the gateway (AR-1).
    pub(super) last_mutation: u64,
    /// The highest epoch that any authenticated message named (RS-7).
    pub(super) known_epoch: u64,
    pub(super) health: PathHealth,
    pub(super) confirm: Option<Confirm>,
    pub(super) next_heartbeat: Time,
    /// The gateway has not yet answered a heartbeat under the present epoch (RS-4).
    pub(super) announcing: bool,
    pub(super) suppressed: u32,
    pub(super) sent_since: bool,
    pub(super) received_since: bool,
    pub(super) attempt: Option<Attempt>,
    pub(super) retry_at: Option<Time>,
    pub(super) tried_any: bool,
    pub(super) target: Option<TransportId>,
    /// The session is in DEGRADED, or in a recovery that began there (SM-15, AF-4).
    pub(super) braked: bool,
    /// The present move is one that the gateway hinted at because our path is bad there.
    pub(super) hinted_quality: bool,
    /// The path that the gateway named as bound when it refused an older epoch (RS-7).
    pub(super) named: Option<TransportId>,
    /// The path that carried the traffic last, also after it died.
    pub(super) current: Option<TransportId>,
    pub(super) left_attached_at: Time,
    pub(super) heard_before_leaving: Time,
    pub(super) last_reason: Option<Reason>,
    pub(super) sent: Traffic,
    pub(super) received: Traffic,
    pub(super) trail: Trail,
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
        let window = policy.security.data_replay_window as usize;
        let ring = KeyRing::new(established.root, reply.identity, Side::Client, window, shared.key_limits);
        let tuple = shared.path(path).map(|path| path.tuple()).ok_or(Reason::NoCandidateTransports)?;
        let trail = Trail::begin(reply.identity, Some(path), &policy, reply.policy_sequence, now, &mut shared.journal);
        let mut live = Self {
            record: Record::new(Side::Client, now),
            locator: reply.locator,
            reset_token: reply.reset_token,
            ring,
            rekeying: Rekeying::default(),
            origin,
            control_sent: 0,
            last_mutation: 0,
            known_epoch: 1,
            health: PathHealth::new(1, now),
            confirm: None,
            next_heartbeat: now + policy.volatility.heartbeat_interval,
            announcing: false,
            suppressed: 0,
            sent_since: false,
            received_since: false,
            attempt: None,
            retry_at: None,
            tried_any: false,
            target: None,
            braked: false,
            hinted_quality: false,
            named: None,
            current: Some(path),
            left_attached_at: now,
            heard_before_leaving: now,
            last_reason: None,
            sent: Traffic::default(),
            received: Traffic::default(),
            terms: Terms::default(),
            trail,
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
        live.confirm = Some(Confirm::send(shared, confirm, live.control_sent, path, now));
        for path in &mut shared.paths {
            path.begin_session(now);
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
        self.ring.seal_data(self.locator, epoch as u8, packet)?;
        self.sent_since = true;
        self.sent.packets += 1;
        self.sent.bytes += inner_len as u64;
        Ok(path)
    }

    pub(super) fn path_up(&mut self, shared: &mut Shared, now: Time) {
        self.catch_up(shared, now);
        // First whoever needs the path: what is asked over it proves it as well as a probe.
        self.drive(shared, now);
        self.probe(shared, now);
    }

    pub(super) fn path_down(&mut self, shared: &mut Shared, id: TransportId, evidence: Evidence, now: Time) {
        self.catch_up(shared, now);
        // First the loss: what is asked next must say that nothing is bound any more (SM-16).
        if let Some(binding) = self.record.active().filter(|binding| binding.transport == id) {
            let input = Input::TransportDead { generation: binding.epoch, evidence };
            self.apply(shared, &[input], now);
        }
        if self.attempt.as_ref().is_some_and(|attempt| attempt.path == id) {
            self.fail_attempt(shared, now);
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
        if self.record.state() == State::Attached {
            self.apply(shared, &[Input::PolicyForceMove], now);
        }
        self.drive(shared, now);
        if self.record.state() == State::Degraded {
            // The brake: a wish is not kept until it may be fulfilled, it would only stand in the way (SM-15).
            self.target = None;
            return Err(match self.record.earliest_start(&self.policy, now) > now {
                true if !self.record.switch_rate_free(&self.policy, now) => Reason::SwitchRateLimited,
                true => Reason::CooldownActive,
                false => Reason::NoCandidateTransports,
            });
        }
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
        self.rekey(shared, now);
        self.trail.drained(&mut shared.journal, now, false);
        if self.record.take_probation(now) {
            self.trail.recovery_complete(now, &mut shared.journal);
        }
    }

    pub(super) fn next_timeout(&self, shared: &Shared, now: Time) -> Time {
        let mut next = self.record.next_deadline(&self.policy).min(self.recovery_timeout(now));
        next = next.min(self.rekey_timeout(now)).min(self.trail.drains_until());
        if self.ring.is_used_up() {
            next = now;
        }
        if let Some(path) = self.active_path().and_then(|id| shared.path(id)) {
            next = next.min(self.health.next_check(&self.policy, RoundTrips::Client(&path.echoes), now));
            // Heartbeats begin when HELLO_CONFIRM was answered.
            next = next.min(self.confirm.as_ref().map_or(self.next_heartbeat, |confirm| confirm.next));
        }
        let probes = shared.paths.iter().filter(|path| path.up && self.is_probed(path.id)).map(|path| path.next_probe);
        next = probes.fold(next, Time::min);
        // A due timer whose guard does not hold must not spin.
        next.max(now + Span::from_millis(1))
    }

    /// Runs everything that is due on the record and the active path, then the recovery that follows from it.
    pub(super) fn review(&mut self, shared: &mut Shared, now: Time) {
        self.catch_up(shared, now);
        let mut inputs: ArrayVec<Input, 16> = due(&self.record, &self.policy, now).into_iter().collect();
        for path in &mut shared.paths {
            path.echoes.age(&self.policy, now);
        }
        if self.ring.is_used_up() {
            inputs.push(Input::KeyExpired);
        }
        if let Some(path) = self.active_path().and_then(|id| shared.path(id)) {
            let round_trips = RoundTrips::Client(&path.echoes);
            let mut judged = self.health.judge(&self.policy, &self.ring.counters(), round_trips, now);
            if self.is_forced() {
                // A forced move does not end because the old path is well: it always was.
                judged.retain(|input| !matches!(input, Input::StabilityRestored { .. }));
            }
            inputs.extend(judged);
        }
        self.apply(shared, &inputs, now);
        self.drive(shared, now);
    }

    /// A client that was suspended wakes long after its path fell silent: the path died when it was due, not now, so
    /// that the time asleep counts as time without a transport (AS-1, SM-17).
    fn catch_up(&mut self, shared: &mut Shared, now: Time) {
        let died = (self.health.last_authentic() + self.policy.volatility.transport_dead).max(self.record.entered());
        if now > died + Span::from_millis(TICK_MS)
            && let Some(binding) = self.record.active()
        {
            let dead = Input::TransportDead { generation: binding.epoch, evidence: Evidence::Silence };
            self.apply(shared, &[dead], died);
            self.apply(shared, &[Input::TransportTtl], now);
            // What would have begun then begins now, before the time in VOLATILE is judged.
            self.drive(shared, now);
        }
    }

    /// Applies inputs to the mirror and does what each transition asks for.
    pub(super) fn apply(&mut self, shared: &mut Shared, inputs: &[Input], now: Time) {
        // The machine knows no candidates: why none was taken, and whether a better one was, is said here.
        let gives_up = inputs.iter().any(|input| matches!(input, Input::VolatileTimeout));
        let shortfall = gives_up.then(|| self.choice(shared, now, true).shortfall(&shared.paths)).flatten();
        let improves = self.attempt.as_ref().is_some_and(Attempt::is_improvement);
        let mut sound = true;
        for mut transition in run(&mut self.record, inputs, &self.policy, now) {
            match transition.id {
                TransitionId::T09 => transition.detail = shortfall,
                TransitionId::T11 if improves => transition.detail = Some(Reason::PreferredPathChanged),
                _ => {}
            }
            sound &= self.after(shared, &transition, now);
        }
        if !sound {
            // A check after a commit failed (T23).
            self.apply(shared, &[Input::InvariantViolation { reason: Reason::InvariantViolation }], now);
        }
    }

    /// Whether operator or policy want the session elsewhere, however well its path is.
    fn is_forced(&self) -> bool {
        let forced = self.record.trigger() == Some(Reason::PolicyForcedRecovery);
        self.target.is_some() || (forced && !self.hinted_quality)
    }

    /// What follows from one transition. Gives whether the checks after a commit hold.
    fn after(&mut self, shared: &mut Shared, transition: &Transition, now: Time) -> bool {
        self.last_reason = Some(transition.reason);
        // While the health of the binding that was is still known.
        let sound = self.record_transition(shared, transition);
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
        self.braked = transition.to == State::Degraded || (self.braked && transition.to == State::Recovering);
        if transition.to != State::Recovering {
            self.attempt = None;
            self.retry_at = None;
        }
        if matches!(transition.id, TransitionId::T04 | TransitionId::T16) {
            // Without a binding any path will do, and the cooldown does not apply any more (SM-16).
            self.target = None;
            self.hinted_quality = false;
            self.retry_at = None;
        }
        if transition.to == State::Degraded || transition.id == TransitionId::T07 {
            self.target = None;
        }
        if transition.to == State::Attached {
            self.hinted_quality = false;
        }
        if transition.id == TransitionId::T11 {
            self.bound(shared, transition, now);
        }
        shared.events.push_back(ClientEvent::Transition { transition: *transition, path: self.active_path() });
        self.policy_in_force(shared, now);
        if !transition.to.is_live() {
            let (reason, detail) = (transition.reason, transition.detail);
            shared.events.push_back(ClientEvent::Terminated { reason, detail });
        }
        sound
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
            path.echoes.start_afresh();
        }
        self.current = Some(active.transport);
        self.known_epoch = self.known_epoch.max(transition.epoch);
        // Whoever answers a request to move has confirmed the session.
        self.confirm = None;
        self.health = PathHealth::new(transition.epoch, now);
        self.announcing = true;
        if self.policy.security.rekey_on_switch {
            self.rekeying.wish(Reason::RekeyTransportChange);
        }
        self.next_heartbeat = now;
        self.heartbeat(shared, now);
        self.probe(shared, now);
    }

    /// What is measured of the active path (SM-14); the audit record of T03 says it.
    pub(super) fn measurement(&self, shared: &Shared, now: Time) -> Option<Measurement> {
        let path = shared.path(self.active_path()?)?;
        Some(self.health.measurement(&self.policy, RoundTrips::Client(&path.echoes), now))
    }

    /// Milliseconds since the handshake on this side (AR-5).
    pub(super) fn session_ms(&self, now: Time) -> u64 {
        now.since(self.origin).as_millis()
    }

    pub(super) fn status(
        &self,
        active: Option<TransportId>,
        measurement: Option<Measurement>,
        paths: Vec<PathStatus>,
        now: Time,
    ) -> ClientStatus {
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
            measurement,
        }
    }
}
