//! Every transition of the table, driven through the machine, and what its trail writes of it.

use super::journal::Journal;
use super::trail::{Answer, Request, Scene, Totals, Trail};
use super::{Check, CheckResult, Disclosure, Event, EventType, Record, Status};
use crate::health::{PathHealth, RoundTrips, Rtt};
use crate::ident::{SessionIdentity, TransportId, Tuple};
use crate::machine::{self, Evidence, Input, NewBinding, Side, State, TABLE, Transition, TransitionId, step};
use crate::policy::{OnRecoveryTimeout, Policy, Profile};
use crate::reason::Reason;
use crate::time::{Span, Time};
use crate::wire::Cause;

const IDENTITY: SessionIdentity = SessionIdentity([7; 16]);

fn tuple(port: u16) -> Tuple {
    Tuple { local: "192.0.2.1:51900".parse().unwrap(), peer: format!("198.51.100.7:{port}").parse().unwrap() }
}

fn binding(transport: u16) -> NewBinding {
    NewBinding { tuple: tuple(transport), transport: TransportId(transport), validated: true }
}

/// A session at the gateway as its machine and its trail see it.
struct Stage {
    policy: Policy,
    record: machine::Record,
    trail: Trail,
    journal: Journal,
    identity: SessionIdentity,
    now: Time,
    written: Vec<Record>,
    /// The checks after every commit held.
    sound: bool,
}

impl Stage {
    fn new(policy: Policy) -> Self {
        let now = Time::from_millis(1_000);
        let mut journal = Journal::default();
        journal.keep(Disclosure::new(&[1; 32], &policy, 1), now);
        let trail = Trail::begin(IDENTITY, None, &policy, 1, now, &mut journal);
        let record = machine::Record::new(Side::Gateway, now);
        let mut stage =
            Self { policy, record, trail, journal, identity: IDENTITY, now, written: Vec::new(), sound: true };
        stage.drain();
        stage
    }

    /// A session that was brought into that state; without a binding if `dead`.
    fn in_state(state: State, dead: bool, policy: Policy) -> Self {
        let mut stage = Self::new(policy);
        let way: &[State] = match state {
            State::Birth | State::Terminated => &[],
            State::Attached => &[State::Attached],
            State::Volatile => &[State::Attached, State::Volatile],
            State::Degraded => &[State::Attached, State::Volatile, State::Degraded],
            State::Recovering => &[State::Attached, State::Volatile, State::Recovering],
        };
        for next in way {
            let input = match next {
                State::Attached => Input::HandshakeComplete { binding: binding(1) },
                State::Volatile => Input::Instability { generation: 1, reason: Reason::HeartbeatTimeout },
                State::Degraded => {
                    stage.now += stage.policy.volatility.volatile_to_degraded;
                    Input::VolatileTimeout
                }
                _ => Input::RecoveryStart { exempt: true },
            };
            stage.apply(&input);
        }
        if dead {
            stage.apply(&Input::TransportDead { generation: 1, evidence: Evidence::LinkDown });
        }
        assert_eq!(stage.record.state(), state);
        stage.drain();
        stage.written.clear();
        stage
    }

    fn apply(&mut self, input: &Input) -> Transition {
        let (record, transition) = step(&self.record, input, &self.policy, self.now)
            .unwrap_or_else(|refusal| panic!("{input:?} in {}: {refusal:?}", self.record.state()));
        self.record = record;
        let health = PathHealth::new(1, self.now);
        let scene = Scene {
            policy: &self.policy,
            record: &self.record,
            identity: self.identity,
            key_epoch: 0,
            keys_used_up: false,
            candidates: 2,
            last_authentic: self.now,
            measured: Some(health.measurement(&self.policy, RoundTrips::Gateway(&Rtt::default()), self.now)),
            new_path: (None, None),
        };
        let peer = self.journal.outer(tuple(1).peer);
        self.sound &= self.trail.transition(&transition, &scene, peer, &mut self.journal);
        transition
    }

    fn answered(&mut self, refusal: Option<Reason>) {
        let request = Request { candidate: TransportId(2), nonce: 9, epoch: self.record.epoch() };
        if refusal.is_some() {
            self.trail.attempt(request, None, self.now, &mut self.journal);
        } else {
            self.trail.chain(request, None, self.now, &mut self.journal);
        }
        self.trail.answered(Answer {
            candidate: TransportId(2),
            cause: Cause::Silence,
            refusal,
            detail: None,
            round_trip: None,
            retry_after: refusal.map(|_| Span::from_millis(700)),
        });
    }

    fn settle(&mut self) {
        self.trail.settle(&self.policy, &self.record, self.now, &mut self.journal);
    }

    /// What was written since it was asked last.
    fn drain(&mut self) -> Vec<Record> {
        let fresh: Vec<Record> = std::iter::from_fn(|| self.journal.poll()).collect();
        self.written.extend(&fresh);
        fresh
    }
}

fn kinds(records: &[Record]) -> Vec<EventType> {
    records.iter().map(|record| record.event.event_type()).collect()
}

/// The input of a transition, the policy and the time under which its guard holds, and whether the session must be
/// without a binding.
fn occasion(id: TransitionId) -> (Input, Policy, Span, bool) {
    let mut policy = Policy::profile(Profile::Default);
    let mut wait = Span::ZERO;
    let input = match id {
        TransitionId::T01 => Input::HandshakeComplete { binding: binding(1) },
        TransitionId::T02 => Input::HandshakeFailed { detail: Some(Reason::CapacityExceeded) },
        TransitionId::T03 => Input::Instability { generation: 1, reason: Reason::LossThresholdExceeded },
        TransitionId::T04 | TransitionId::T16 => Input::TransportDead { generation: 1, evidence: Evidence::Silence },
        TransitionId::T05 => Input::PolicyForceMove,
        TransitionId::T06 | TransitionId::T08b | TransitionId::T15b => Input::PeerReattach,
        TransitionId::T07 => {
            wait = policy.volatility.stability_window;
            Input::StabilityRestored { generation: 1, calm_since: Time::from_millis(1_000) }
        }
        TransitionId::T08 => Input::RecoveryStart { exempt: true },
        TransitionId::T15 => {
            wait = policy.switching.switch_cooldown;
            Input::RecoveryStart { exempt: true }
        }
        TransitionId::T09 => {
            wait = policy.volatility.volatile_to_degraded;
            Input::VolatileTimeout
        }
        TransitionId::T10 => {
            policy.switching.max_switches_per_min = 0;
            Input::SwitchDeniedRate
        }
        TransitionId::T11 => Input::ReattachValid { binding: binding(2), granted_epoch: None },
        TransitionId::T12 | TransitionId::T12b => {
            wait = policy.switching.recovery_window;
            if id == TransitionId::T12b {
                policy.switching.on_recovery_timeout = OnRecoveryTimeout::Terminate;
            }
            Input::RecoveryTimeout
        }
        TransitionId::T13 => {
            Input::ReattachDeniedAuth { reason: Reason::PolicyDenied, detail: Reason::SwitchRateLimited }
        }
        TransitionId::T14 => Input::AttemptsExhausted { reason: Reason::NoCandidateTransports },
        TransitionId::T17 => {
            wait = policy.session.max_lifetime;
            Input::SessionTtl
        }
        TransitionId::T18 => {
            wait = policy.session.transport_lost_ttl;
            Input::TransportTtl
        }
        TransitionId::T19 => Input::OperatorTerminate,
        TransitionId::T20 => Input::SecurityFailure,
        TransitionId::T21 => Input::OwnershipConflict,
        TransitionId::T22 => Input::PolicyHardLimit { admitted: false },
        TransitionId::T23 => Input::InvariantViolation { reason: Reason::InvariantViolation },
        TransitionId::T24 => Input::PeerTerminate { detail: Some(Reason::SessionLost) },
        TransitionId::T25 => Input::KeyExpired,
    };
    (input, policy, wait, id == TransitionId::T18)
}

/// What is written with a transition, in its order.
fn catalogue(id: TransitionId, from: State) -> Vec<EventType> {
    use EventType as E;
    let mut list = vec![E::SessionStateChange];
    list.extend(match id {
        TransitionId::T01 => vec![E::TransportAttached],
        TransitionId::T03 => vec![E::VolatilitySignal],
        TransitionId::T04 | TransitionId::T16 => vec![E::TransportDead, E::TransportRetired],
        TransitionId::T10 => vec![E::TransportSwitchDenied],
        TransitionId::T11 => {
            vec![E::ReattachResult, E::TransportSwitch, E::TransportRetired, E::AuditCheck, E::AuditCheck]
        }
        TransitionId::T12 | TransitionId::T14 => vec![E::TransportSwitchFailed],
        TransitionId::T13 => vec![E::ReattachResult, E::TransportSwitchDenied],
        TransitionId::T20 => vec![E::SecurityKeyCompromiseSuspected],
        TransitionId::T22 => vec![E::PolicyEvent],
        TransitionId::T25 => vec![E::KeyExpired],
        _ => vec![],
    });
    let ends = id.row().to == Some(State::Terminated);
    if ends && from == State::Recovering {
        list.push(E::TransportSwitchFailed);
    }
    list
}

#[test]
fn inv08_every_transition_from_every_state_is_one_state_change_followed_by_what_explains_it() {
    for row in TABLE {
        for from in row.from {
            let (input, policy, wait, dead) = occasion(row.id);
            let mut stage = Stage::in_state(*from, dead, policy);
            stage.now += wait;
            match row.id {
                TransitionId::T11 => stage.answered(None),
                TransitionId::T13 => stage.answered(Some(Reason::PolicyDenied)),
                _ => {}
            }
            stage.drain();
            let before = stage.record.version();
            let transition = stage.apply(&input);
            let written = stage.drain();
            assert_eq!(transition.id, row.id);
            assert_eq!(kinds(&written), catalogue(row.id, *from), "{} from {from}", row.id);
            let Event::SessionStateChange { transition: id, previous_state, new_state, .. } = written[0].event else {
                panic!("{:?}", written[0]);
            };
            assert_eq!((id, previous_state, new_state), (row.id, *from, stage.record.state()));
            assert_eq!((written[0].reason, written[0].at), (Some(transition.reason), stage.now));
            for record in &written {
                let standing = record.standing().unwrap();
                assert_eq!((standing.session, standing.version), (IDENTITY, before + 1), "{record:?}");
                assert_eq!((standing.state, standing.epoch), (transition.to, transition.epoch), "{record:?}");
            }
        }
    }
}

#[test]
fn inv25_a_session_that_ends_in_recovering_closes_its_recovery_with_the_reason_of_the_end() {
    let mut stage = Stage::in_state(State::Recovering, false, Policy::profile(Profile::Default));
    stage.answered(Some(Reason::StaleStateVersion));
    stage.settle();
    assert_eq!(kinds(&stage.drain()), [EventType::ReattachAttempt, EventType::ReattachResult]);
    stage.apply(&Input::OperatorTerminate);
    let written = stage.drain();
    assert_eq!(kinds(&written), [EventType::SessionStateChange, EventType::TransportSwitchFailed]);
    assert_eq!(written[1].reason, Some(Reason::OperatorTerminated));
    let failed = Event::TransportSwitchFailed { attempts: 1, last_error: Some(Reason::StaleStateVersion) };
    assert_eq!(written[1].event, failed);
}

#[test]
fn af5_a_refusal_outside_a_recovery_opens_and_closes_one_with_limit_observation_and_wait() {
    let mut stage = Stage::in_state(State::Attached, false, Policy::profile(Profile::Default));
    stage.answered(Some(Reason::SwitchRateLimited));
    stage.settle();
    let written = stage.drain();
    use EventType::{ReattachAttempt, ReattachResult, TransportSwitchDenied};
    assert_eq!(kinds(&written), [ReattachAttempt, ReattachResult, TransportSwitchDenied]);
    let denied = Event::TransportSwitchDenied {
        candidate_transport: Some(TransportId(2)),
        limit: Some(8),
        observed: Some(0),
        retry_after_ms: Some(700),
    };
    assert_eq!((written[2].event, written[2].reason), (denied, Some(Reason::SwitchRateLimited)));
    stage.answered(Some(Reason::StaleStateVersion));
    stage.settle();
    assert_eq!(kinds(&stage.drain()).last(), Some(&EventType::TransportSwitchFailed));
    stage.settle();
    assert!(stage.drain().is_empty(), "closed once");
}

#[test]
fn sm08_the_chain_of_a_request_writes_its_attempt_with_the_link_into_recovering() {
    let mut stage = Stage::in_state(State::Attached, false, Policy::profile(Profile::Default));
    stage.answered(None);
    assert!(stage.drain().is_empty());
    stage.apply(&Input::PeerReattach);
    assert_eq!(kinds(&stage.drain()), [EventType::SessionStateChange]);
    stage.apply(&Input::PeerReattach);
    assert_eq!(kinds(&stage.drain()), [EventType::SessionStateChange, EventType::ReattachAttempt]);
    stage.apply(&Input::ReattachValid { binding: binding(2), granted_epoch: None });
    let written = stage.drain();
    assert!(matches!(written[1].event, Event::ReattachResult { status: Status::Success, attempt: 1, .. }));
    let Event::TransportSwitch { previous_transport, new_transport, same_path, cause, .. } = written[2].event else {
        panic!("{:?}", written[2]);
    };
    assert_eq!((previous_transport, new_transport), (Some(TransportId(1)), TransportId(2)));
    assert_eq!((same_path, cause), (false, Cause::Silence));
}

#[test]
fn an_audit_check_fails_where_the_identity_is_another_than_at_birth() {
    let mut stage = Stage::in_state(State::Recovering, false, Policy::profile(Profile::Default));
    stage.identity = SessionIdentity([8; 16]);
    stage.answered(None);
    stage.apply(&Input::ReattachValid { binding: binding(2), granted_epoch: None });
    let checks: Vec<_> = stage
        .drain()
        .iter()
        .filter_map(|record| match record.event {
            Event::AuditCheck { result, .. } => Some((result, record.reason)),
            _ => None,
        })
        .collect();
    let passed = (CheckResult::Pass, Some(Reason::AuditInvariantOkSingleActive));
    assert_eq!(checks, [passed, (CheckResult::Fail, Some(Reason::InvariantViolation))]);
    assert!(!stage.sound, "T23 follows");
}

#[test]
fn inv23_a_check_after_a_commit_fails_also_where_nothing_is_recorded() {
    for identity in [IDENTITY, SessionIdentity([8; 16])] {
        let mut stage = Stage::in_state(State::Recovering, false, Policy::profile(Profile::Default));
        stage.journal = Journal::default();
        stage.identity = identity;
        stage.answered(None);
        stage.apply(&Input::ReattachValid { binding: binding(2), granted_epoch: None });
        assert_eq!((stage.sound, stage.drain().len()), (identity == IDENTITY, 0));
    }
}

#[test]
fn inv01_a_binding_that_is_another_than_the_committed_one_fails_its_check() {
    let mut stage = Stage::in_state(State::Recovering, false, Policy::profile(Profile::Default));
    let now = stage.now;
    let valid = Input::ReattachValid { binding: binding(2), granted_epoch: None };
    let (_, transition) = step(&stage.record, &valid, &stage.policy, now).expect("a commit");
    // The record as it would be had the commit been lost on its way into it.
    let scene = Scene {
        policy: &stage.policy,
        record: &stage.record,
        identity: IDENTITY,
        key_epoch: 0,
        keys_used_up: false,
        candidates: 2,
        last_authentic: now,
        measured: None,
        new_path: (None, None),
    };
    let peer = stage.journal.outer(tuple(2).peer);
    assert!(!stage.trail.transition(&transition, &scene, peer, &mut stage.journal));
    let failed = Event::AuditCheck { check: Check::NoDualActiveBinding, result: CheckResult::Fail };
    assert!(stage.drain().iter().any(|record| record.event == failed));
}

#[test]
fn late_packets_are_counted_until_the_drain_is_over_or_cut_short() {
    let mut stage = Stage::in_state(State::Recovering, false, Policy::profile(Profile::Default));
    stage.answered(None);
    stage.apply(&Input::ReattachValid { binding: binding(2), granted_epoch: None });
    let retired = |late_packets| Event::TransportRetired { transport: TransportId(1), late_packets };
    assert!(stage.drain().iter().any(|record| record.event == retired(None)), "it drains");
    stage.trail.late_packet();
    stage.trail.late_packet();
    stage.now += Span::from_millis(249);
    stage.trail.drained(&mut stage.journal, stage.now, false);
    assert!(stage.drain().is_empty());
    stage.now += Span::from_millis(1);
    stage.trail.drained(&mut stage.journal, stage.now, false);
    assert_eq!(stage.drain().iter().map(|record| record.event).collect::<Vec<_>>(), [retired(Some(2))]);
}

#[test]
fn i10_the_last_record_has_reason_age_and_totals() {
    let mut stage = Stage::in_state(State::Volatile, true, Policy::profile(Profile::Default));
    stage.now += stage.policy.session.transport_lost_ttl;
    stage.apply(&Input::TransportTtl);
    stage.drain();
    let Stage { trail, mut journal, record, now, .. } = stage;
    trail.end(&Totals { age: record.age(now), switches: 3, packets: 5, bytes: 700 }, now, &mut journal);
    let last = journal.poll().unwrap();
    assert_eq!((last.reason, journal.poll()), (Some(Reason::TtlTransportLossExpired), None));
    let end = Event::SessionTerminated {
        session_age_ms: 15_000,
        transportless_age_ms: Some(15_000),
        total_switches: 3,
        packets: 5,
        bytes: 700,
        keys_erased: true,
    };
    assert_eq!(last.event, end);
}
