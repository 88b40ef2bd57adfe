//! The audit records of both ends (`protocol/src/audit`), over runs of the real code. Every run of the simulator follows
//! its records; these tests ask for what must be among them.

use jumpgate_protocol::audit::{Class, Event, EventType, Pattern, Record};
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Span;
use jumpgate_protocol::wire::MessageType;
use jumpgate_sim::{World, WorldConfig, Writer};

fn world(seed: u64) -> World {
    world_under(seed, Policy::profile(Profile::Fast))
}

fn world_under(seed: u64, policy: Policy) -> World {
    let config = WorldConfig { seed, workers: 2, policy };
    let mut world = World::new(&config, 2, 2);
    world.keep_records();
    world
}

fn run(world: &mut World, millis: u64) {
    world.run_for(Span::from_millis(millis));
}

fn of_gateway(world: &World) -> Vec<Record> {
    let records = world.records().kept().iter();
    records.filter(|(writer, _)| !matches!(writer, Writer::Client(_))).map(|(_, record)| *record).collect()
}

fn kinds(records: &[Record]) -> Vec<EventType> {
    let audit = records.iter().filter(|record| record.class() == Class::Audit);
    audit.map(|record| record.event.event_type()).collect()
}

/// Both paths fail in turn, a NAT forgets, and the session ends.
fn script(world: &mut World) {
    world.connect_now(0);
    world.connect_now(1);
    world.link_down(0, 1);
    run(world, 700);
    world.link_up(0, 1);
    run(world, 3_000);
    world.rebind(1, 1);
    run(world, 3_000);
    world.link_down(0, 2);
    run(world, 3_000);
    world.disconnect(0);
    run(world, 1_000);
    world.audit();
}

#[test]
fn i07_the_same_seed_writes_the_same_records_and_another_seed_writes_others() {
    let digest = |seed| {
        let mut world = world(seed);
        script(&mut world);
        assert_eq!(world.checker().violations(), [] as [String; 0]);
        world.records().digest()
    };
    assert_eq!(digest(7), digest(7));
    assert_ne!(digest(7), digest(8));
}

#[test]
fn inv08_there_are_as_many_state_changes_as_transitions_and_as_many_switches_as_commits() {
    let mut world = world(9);
    script(&mut world);
    let records = world.records();
    assert_eq!(records.of_gateway(EventType::SessionStateChange), world.checker().transitions());
    assert_eq!(records.of_gateway(EventType::TransportSwitch), world.checker().commits());
    assert!(world.checker().commits() >= 3);
    // SM-08: the gateway's chain has three links where the mirror has two.
    assert_eq!(records.of_clients(EventType::TransportSwitch), world.checker().commits());
    assert_eq!(records.of_gateway(EventType::SessionTerminated), 1);
    assert_eq!(records.of_clients(EventType::SessionTerminated), 1);
    assert_eq!(world.checker().violations(), [] as [String; 0]);
}

#[test]
fn ob01_the_records_of_one_jump_tell_it_whole() {
    use EventType as E;
    let mut world = world(3);
    world.connect_now(0);
    let before = of_gateway(&world).len();
    world.link_down(0, 1);
    run(&mut world, 2_000);
    let jump = kinds(&of_gateway(&world)[before..]);
    let expected = [
        E::SessionStateChange,
        E::SessionStateChange,
        E::ReattachAttempt,
        E::SessionStateChange,
        E::ReattachResult,
        E::TransportSwitch,
        E::TransportRetired,
        E::AuditCheck,
        E::AuditCheck,
        E::RecoveryComplete,
    ];
    assert_eq!(jump, expected);
    let mirror: Vec<Record> = world
        .records()
        .kept()
        .iter()
        .filter(|(writer, _)| *writer == Writer::Client(0))
        .map(|(_, record)| *record)
        .collect();
    let expected = [
        E::SessionCreated,
        E::SessionStateChange,
        E::TransportAttached,
        E::SessionStateChange,
        E::TransportDead,
        E::TransportRetired,
        E::SessionStateChange,
        E::ReattachAttempt,
        E::SessionStateChange,
        E::ReattachResult,
        E::TransportSwitch,
        E::AuditCheck,
        E::AuditCheck,
        E::RecoveryComplete,
    ];
    assert_eq!(kinds(&mirror), expected);
}

#[test]
fn a27_of_a_flood_a_few_records_are_written_and_the_rest_is_counted_and_told() {
    let mut world = world(5);
    world.connect_now(0);
    let view = world.shards().iter().flat_map(|shard| shard.views(world.now())).next().expect("a session");
    let audit_before = kinds(&of_gateway(&world)).len();
    let mut forged = vec![MessageType::ReattachRequest as u8, 0x10, 0, 0];
    forged.extend(view.locator.0.to_be_bytes());
    forged.extend([0; 8]);
    forged.resize(200, 0x5a);
    for flood in 0..2_000u64 {
        let counter = (flood + 1).to_be_bytes();
        forged[12..20].copy_from_slice(&counter);
        world.inject("198.51.100.99:4500".parse().expect("an address"), &forged);
        run(&mut world, 1);
    }
    run(&mut world, 12_000);
    let records = of_gateway(&world);
    let refused = |record: &&Record| {
        matches!(record.event, Event::SecurityValidationFailed { .. }) && record.reason == Some(Reason::AuthFail)
    };
    let written = records.iter().filter(refused).count() as u64;
    let told: u64 = records
        .iter()
        .filter(|record| record.detail == Some(Reason::AuthFail))
        .filter_map(|record| match record.event {
            Event::SecurityAbuse { pattern: Pattern::Suppressed, suppressed, .. } => Some(suppressed),
            _ => None,
        })
        .sum();
    assert_eq!(written + told, 2_000, "{written} written, {told} told");
    assert!(written <= 13, "{written} written");
    assert_eq!(kinds(&records).len(), audit_before, "no audit record because of unauthenticated input (INV-31)");
}

#[test]
fn samples_and_rankings_are_telemetry_and_say_what_was_measured() {
    let mut world = world(13);
    world.connect_now(0);
    run(&mut world, 11_000);
    world.link_down(0, 1);
    run(&mut world, 2_000);
    let records = world.records();
    assert!(records.of_gateway(EventType::Telemetry) >= 1);
    let client = records.kept().iter().filter(|(writer, _)| *writer == Writer::Client(0));
    let (mut samples, mut rankings) = (0, 0);
    for (_, record) in client {
        match record.event {
            Event::Telemetry { rtt_ms, hb_age_ms, .. } => {
                samples += 1;
                assert!(rtt_ms.is_some() && hb_age_ms < 300, "{record:?}");
            }
            Event::CandidateScores { candidates } => {
                rankings += 1;
                let ranked: Vec<_> = candidates.iter().map(|score| (score.transport_id.0, score.rank)).collect();
                assert_eq!(ranked, [(2, 1), (1, 0)], "the dead path is last: {record:?}");
            }
            _ => continue,
        }
        assert_eq!(record.class(), Class::Telemetry);
    }
    assert_eq!((samples, rankings), (1, 1));
}

#[test]
fn pp89_without_security_records_their_counters_stay_and_the_audit_is_as_before() {
    let attacked = |emit: bool| {
        let mut policy = Policy::profile(Profile::Fast);
        policy.observability.emit_security_events = emit;
        let mut world = world_under(19, policy);
        world.connect_now(0);
        let view = world.shards().iter().flat_map(|shard| shard.views(world.now())).next().expect("a session");
        let mut forged = vec![MessageType::ReattachRequest as u8, 0x10, 0, 0];
        forged.extend(view.locator.0.to_be_bytes());
        forged.resize(200, 0x5a);
        for _ in 0..5 {
            world.inject("198.51.100.99:4500".parse().expect("an address"), &forged);
            run(&mut world, 10);
        }
        world.link_down(0, 1);
        run(&mut world, 2_000);
        let records = of_gateway(&world);
        let security = records.iter().filter(|record| record.class() == Class::Security).count();
        (world.refused(Reason::AuthFail), security, kinds(&records))
    };
    let (with, without) = (attacked(true), attacked(false));
    assert_eq!((with.0, without.0), (5, 5), "the counters");
    assert_eq!((with.1, without.1), (5, 0), "the records");
    assert_eq!(with.2, without.2, "audit records cannot be turned off");
}
