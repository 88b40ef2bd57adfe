//! What refusals and answers leave behind: the code that is counted, and the record that a reviewer finds (RF-6, OB-05).

use std::collections::BTreeSet;
use std::net::SocketAddr;

use jumpgate_protocol::audit::{EventType, Record};
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Span;
use jumpgate_protocol::wire::{Cause, Heartbeat, MessageType};
use jumpgate_sim::{Holder, Verdict, World, WorldConfig, Writer};

const MS: fn(u64) -> Span = Span::from_millis;

fn place(number: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, number], 4_000))
}

/// A gateway whose records are kept, and a holder of valid keys, bound at place 1.
fn world() -> (World, Holder) {
    let config = WorldConfig { seed: 77, workers: 2, policy: Policy::profile(Profile::Default) };
    let mut world = World::new(&config, 1, 2);
    world.keep_records();
    let holder = Holder::connect(&mut world, 0, place(1));
    (world, holder)
}

fn send(world: &mut World, from: u8, packet: &[u8]) {
    world.inject_genuine(place(from), packet);
    world.run_for(MS(1));
}

/// What the gateway wrote of that kind: its primary reasons and details.
fn reasons(world: &World, kind: EventType) -> BTreeSet<(Option<Reason>, Option<Reason>)> {
    let of_gateway = |writer: &Writer| !matches!(writer, Writer::Client(_));
    let kept: Vec<&Record> =
        world.records().kept().iter().filter(|(writer, _)| of_gateway(writer)).map(|(_, record)| record).collect();
    let of_kind = kept.into_iter().filter(|record| record.event.event_type() == kind);
    of_kind.map(|record| (record.reason, record.detail)).collect()
}

fn assert_clean(world: &mut World) {
    world.audit();
    assert_eq!(world.checker().violations(), &[] as &[String]);
}

#[test]
fn inv12_a_replay_is_recorded_as_one_with_the_refusing_code_and_changes_nothing() {
    let (mut world, mut holder) = world();
    let there = holder.request(&world, 1, Cause::HardDead, 2);
    send(&mut world, 2, &there);
    send(&mut world, 3, &there);
    let seen = reasons(&world, EventType::SecurityReplayDetected);
    assert!(seen.contains(&(Some(Reason::SecReplayAttempt), Some(Reason::ReplayDetected))), "{seen:?}");
    assert_eq!(world.checker().commits(), 1);
    assert_clean(&mut world);
}

#[test]
fn inv26_data_by_an_unbound_tuple_is_recorded_as_an_attempt_to_enter() {
    let (mut world, mut holder) = world();
    let packet = holder.data(1, b"from elsewhere");
    send(&mut world, 9, &packet);
    assert_eq!(world.refused(Reason::WrongTransport), 1);
    let seen = reasons(&world, EventType::SecurityValidationFailed);
    assert!(seen.contains(&(Some(Reason::UnauthorizedTransportAttempt), Some(Reason::WrongTransport))), "{seen:?}");
    assert_clean(&mut world);
}

#[test]
fn inv21_an_epoch_that_never_was_is_refused_and_recorded_as_an_anomaly() {
    let (mut world, mut holder) = world();
    let future = holder.request(&world, 7, Cause::HardDead, 2);
    send(&mut world, 2, &future);
    let seen = reasons(&world, EventType::SecurityOwnershipAnomaly);
    assert!(seen.contains(&(Some(Reason::SecOwnershipAnomaly), Some(Reason::FutureStateVersion))), "{seen:?}");
    assert_eq!(world.checker().commits(), 0);
    assert_clean(&mut world);
}

#[test]
fn ob05_a_flood_of_refusals_is_thinned_and_the_rest_is_summed_up() {
    let (mut world, mut holder) = world();
    let packet = holder.data(1, b"again and again");
    for _ in 0..2_000 {
        send(&mut world, 9, &packet);
    }
    world.run_for(MS(120_000));
    let abuse = reasons(&world, EventType::SecurityAbuse);
    assert!(abuse.iter().any(|(reason, _)| *reason == Some(Reason::SecAbuseControlPlane)), "{abuse:?}");
    let recorded = world.records().of_gateway(EventType::SecurityValidationFailed);
    assert!(recorded < 2_000, "{recorded} records of one kind of refusal");
}

#[test]
fn rs6_an_answer_that_is_given_again_is_counted_and_is_no_second_switch() {
    let (mut world, mut holder) = world();
    let there = holder.request(&world, 1, Cause::HardDead, 2);
    send(&mut world, 2, &there);
    send(&mut world, 2, &there);
    assert_eq!(world.refused(Reason::RetransmitAnswered), 1);
    assert_eq!(holder.verdicts(&mut world, place(2)), [Verdict::Bound(2), Verdict::Bound(2)]);
    assert_eq!(world.checker().commits(), 1);
    assert_clean(&mut world);
}

#[test]
fn inv35_a_heartbeat_from_an_unbound_tuple_moves_nothing() {
    let (mut world, mut holder) = world();
    let beat = Heartbeat { binding_epoch: 1, client_time_ms: 1, sent: 0, received: 0, highest: 0, policy_sequence: 1 };
    let packet = holder.control(&beat);
    send(&mut world, 9, &packet);
    // BD-4: it is answered there, and that is all.
    assert_eq!(world.take_mail(place(9)).len(), 1);
    assert_eq!(world.checker().commits(), 0);
    assert_clean(&mut world);
}

#[test]
fn inv28_a_life_from_its_handshake_over_a_jump_to_its_end_is_told_with_all_its_reasons() {
    let config = WorldConfig { seed: 78, workers: 1, policy: Policy::profile(Profile::Fast) };
    let mut world = World::new(&config, 1, 2);
    world.keep_records();
    world.connect_now(0);
    world.link_down(0, 1);
    world.run_for(MS(5_000));
    world.disconnect(0);
    world.run_for(MS(2_000));
    let changes: BTreeSet<_> = reasons(&world, EventType::SessionStateChange).into_iter().map(|(why, _)| why).collect();
    for reason in [Reason::HandshakeOk, Reason::PeerReattach, Reason::ReattachSuccess, Reason::PeerTerminated] {
        assert!(changes.contains(&Some(reason)), "{reason}: {changes:?}");
    }
    let checks = reasons(&world, EventType::AuditCheck);
    for reason in [Reason::AuditInvariantOkSingleActive, Reason::AuditInvariantOkNoReset] {
        assert!(checks.iter().any(|(why, _)| *why == Some(reason)), "{checks:?}");
    }
    let complete = reasons(&world, EventType::RecoveryComplete);
    assert!(complete.iter().any(|(why, _)| *why == Some(Reason::AuditRecoveryTimeline)), "{complete:?}");
    assert_eq!(world.records().of_gateway(EventType::SessionTerminated), 1);
    assert_clean(&mut world);
}

#[test]
fn rk5_a_completed_rekey_is_recorded_with_its_cause() {
    let mut policy = Policy::profile(Profile::Default);
    policy.security.rekey_after = MS(10_000);
    let config = WorldConfig { seed: 79, workers: 1, policy };
    let mut world = World::new(&config, 1, 1);
    world.keep_records();
    world.connect_now(0);
    world.run_for(MS(15_000));
    let rotated = reasons(&world, EventType::KeyRotated);
    assert!(rotated.contains(&(Some(Reason::KeyRotated), Some(Reason::RekeyTimeElapsed))), "{rotated:?}");
    assert_clean(&mut world);
}

#[test]
fn t22_a_stay_in_degraded_that_the_policy_bounds_ends_the_session_and_names_the_bound() {
    let mut policy = Policy::profile(Profile::Fast);
    policy.session.max_degraded = MS(5_000);
    let config = WorldConfig { seed: 80, workers: 1, policy };
    let mut world = World::new(&config, 1, 1);
    world.keep_records();
    world.connect_now(0);
    world.link_down(0, 1);
    world.run_for(MS(9_500));
    let bounds = reasons(&world, EventType::PolicyEvent);
    let limit = (Some(Reason::AuditPolicyLimitTriggered), Some(Reason::PolicyTermination));
    assert!(bounds.contains(&limit), "{bounds:?}");
    assert!(world.shards()[0].is_empty());
    assert_clean(&mut world);
}

#[test]
fn t01_until_keys_are_confirmed_nothing_of_the_session_can_be_used() {
    let config = WorldConfig { seed: 81, workers: 1, policy: Policy::profile(Profile::Default) };
    let mut world = World::new(&config, 1, 1);
    world.censored.push(MessageType::HelloConfirm);
    world.connect(0);
    world.run_for(MS(3_000));
    assert!(world.refused(Reason::InvalidStateForReattach) > 0, "heartbeats of a client that thinks it is attached");
    assert_eq!(world.checker().commits(), 0);
}

/// The answer has the detail ALREADY_BOUND and the present epoch; nothing happened, so nothing is recorded.
#[test]
fn sm09_a_request_for_what_is_so_is_answered_as_bound_and_is_no_switch() {
    let (mut world, mut holder) = world();
    let same = holder.request(&world, 1, Cause::Reproof, 1);
    send(&mut world, 1, &same);
    assert_eq!(holder.verdicts(&mut world, place(1)).last(), Some(&Verdict::Bound(1)));
    assert_eq!(world.checker().commits(), 0);
    assert_clean(&mut world);
}

#[test]
fn a27_requests_of_old_epochs_cannot_drown_the_audit() {
    let (mut world, mut holder) = world();
    let there = holder.request(&world, 1, Cause::HardDead, 2);
    send(&mut world, 2, &there);
    let before = world.records().of_gateway(EventType::ReattachAttempt);
    for _ in 0..1_000 {
        let stale = holder.request(&world, 1, Cause::HardDead, 3);
        send(&mut world, 3, &stale);
    }
    assert_eq!(world.refused(Reason::StaleStateVersion), 1_000);
    let told = holder.verdicts(&mut world, place(3));
    assert!(told.iter().all(|verdict| *verdict == Verdict::Refused(Reason::StaleStateVersion, Some(2))), "{told:?}");
    assert_eq!(told.len(), 1_000, "RF-2: each has its answer");
    // Of one second: a burst of 5, and 2 more. Each is an attempt with its result and its end.
    for kind in [EventType::ReattachAttempt, EventType::ReattachResult, EventType::TransportSwitchFailed] {
        let written = world.records().of_gateway(kind);
        let written = if kind == EventType::TransportSwitchFailed { written } else { written - before };
        assert!((5..=7).contains(&written), "{written} {kind:?}");
    }
    let limited = reasons(&world, EventType::RateLimitEvent);
    assert!(limited.contains(&(Some(Reason::RateLimited), None)), "{limited:?}");
    world.run_for(MS(12_000));
    assert!(reasons(&world, EventType::SecurityAbuse).iter().any(|(_, detail)| *detail == Some(Reason::RateLimited)));
    assert_clean(&mut world);
}
