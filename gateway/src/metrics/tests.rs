//! The page as a whole: what a monitoring system would make of it.

use std::collections::{BTreeMap, HashSet};

use jumpgate_audit::sink::{RingView, StatusView};
use jumpgate_metrics::{Kind, render_markdown};
use jumpgate_protocol::audit::{LimitScope, SecurityCounts};
use jumpgate_protocol::gateway::{EventKind, SessionEvent};
use jumpgate_protocol::ident::{Locator, PublicKey, Slot};
use jumpgate_protocol::machine::{Evidence, State, Transition, TransitionId};
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::reason::{Reason, ReasonCounters};
use jumpgate_protocol::time::Time;
use jumpgate_protocol::wire::MessageType;

use super::conduct::Violation;
use super::families;
use super::*;
use crate::worker::WorkerCounters;
use crate::xdp::MapLedger;

/// A sample: name, labels, value.
type Sample = (String, BTreeMap<String, String>, f64);

/// Reads a page by the rules of the text format; panics where they are broken.
fn parse(page: &str) -> Vec<Sample> {
    assert!(page.ends_with('\n'));
    let samples = page.lines().filter(|line| !line.starts_with("# ")).map(|line| {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("closed")),
            None => (series, ""),
        };
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        let labels = labels.split_terminator("\",").map(|label| {
            let (key, value) = label.split_once("=\"").expect("a label");
            (key.to_owned(), value.trim_end_matches('"').to_owned())
        });
        (name.to_owned(), labels.collect(), value.parse().expect("a number"))
    });
    samples.collect()
}

/// A trace whose disk is full.
fn trace() -> StatusView {
    let ring = |worker| RingView { worker, waiting: [2, 1, 0], high_water: [9, 4, 0], lost: [1, 2, 3] };
    StatusView {
        directory: "/var/log/c0ffee".into(),
        head: Some("41:0badc0ffee".to_owned()),
        records: 42,
        gaps: 1,
        lost: 1,
        errors: vec![("write".to_owned(), 7)],
        problem: Some("c0ffee".to_owned()),
        impaired_since_ms: Some(1),
        rings: vec![ring(Some(0)), ring(Some(1)), ring(None)],
    }
}

/// A page on which every family has samples.
fn full_page() -> String {
    page_under(&Policy::profile(Profile::Mobile))
}

fn page_under(policy: &Policy) -> String {
    let mut slow = SlowCounters::default();
    let session = Locator::new(Slot::new(1).expect("slot"), 0x00c0_ffee);
    let client = PublicKey([5; 32]);
    let mut follow = |kind| slow.tally.follow(1, 1, &SessionEvent { locator: session, client, account: None, kind });
    let states = [
        (TransitionId::T01, State::Birth, State::Attached, Reason::HandshakeOk),
        (TransitionId::T04, State::Attached, State::Volatile, Reason::TransportDead),
        (TransitionId::T10, State::Volatile, State::Degraded, Reason::SwitchRateLimited),
        (TransitionId::T15, State::Degraded, State::Recovering, Reason::RecoveryRetry),
        (TransitionId::T11, State::Recovering, State::Attached, Reason::ReattachSuccess),
        (TransitionId::T05, State::Attached, State::Volatile, Reason::PolicyForcedRecovery),
        (TransitionId::T08, State::Volatile, State::Recovering, Reason::PolicyForcedRecovery),
        (TransitionId::T12b, State::Recovering, State::Terminated, Reason::RecoveryBoundsExceeded),
    ];
    follow(EventKind::Created);
    for (version, (id, from, to, reason)) in (1..).zip(states) {
        follow(EventKind::Transition(Transition {
            id,
            from,
            to,
            reason,
            detail: None,
            evidence: (id == TransitionId::T04).then_some(Evidence::Silence),
            version,
            epoch: 1,
            at: Time::from_millis(version * 10),
            retired: None,
            active: None,
        }));
    }
    follow(EventKind::Rekeyed { key_epoch: 1, trigger: Reason::RekeyTimeElapsed });
    slow.refused(&[MessageType::PathProbe as u8], Reason::Malformed, LimitScope::Source);
    slow.refused(&[MessageType::Heartbeat as u8], Reason::RateLimited, LimitScope::Source);
    slow.refused(&[MessageType::Heartbeat as u8], Reason::RateLimited, LimitScope::Global);
    let mut workers = [WorkerCounters::default(), WorkerCounters { worker: 1, ..WorkerCounters::default() }];
    let all = Reason::ALL.iter();
    all.for_each(|reason| workers[1].sessions.count(*reason));
    workers[1].path.refusals.count(&[MessageType::Heartbeat as u8], Reason::AuthFail);
    workers[1].path.refusals.count(&[], Reason::Malformed);
    workers[1].path.no_next_hop = 3;
    workers[1].meter.detections[Evidence::Silence as usize].count(2_000_000);
    workers[1].meter.lookups.count(40);
    workers[1].meter.resets = 5;
    workers[1].batches.count(64);
    workers[0].meter.memory.keys = 300;
    workers[1].meter.memory.keys = 400;
    workers[1].rings.fill = 1_024;
    let mut handshakes = ReasonCounters::default();
    handshakes.add(Reason::CookieRequired, 4);
    handshakes.add(Reason::PeerUnknown, 2);
    handshakes.add(Reason::SecSessionFixationAttempt, 1);
    let port = |port| PortLabels { port, driver: "veth".into(), xdp_mode: "native", zero_copy: false };
    let mut process = Process::read();
    process.workers = vec![(0, 0.5), (1, 1.5)];
    render(&Sources {
        policy,
        ports: &[port("outside"), port("inside")],
        slow: &slow,
        handshakes: &handshakes,
        tombstones: 1,
        under_load: true,
        xdp: None,
        maps: MapLedger::default(),
        security: SecurityCounts::default(),
        workers: &workers,
        process,
        audit: Some(trace()),
    })
}

#[test]
fn r68_every_line_is_valid_and_every_series_belongs_to_a_family_of_the_table_and_occurs_once() {
    let page = full_page();
    let mut seen = HashSet::new();
    let mut kinds = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("# TYPE ")) {
        kinds.push(line.trim_start_matches("# TYPE "));
    }
    let table: Vec<_> = families::ALL.iter().map(|f| format!("{} {}", f.name, f.kind.name())).collect();
    assert_eq!(kinds, table, "all of them, in the order of the table");
    for (name, mut labels, value) in parse(&page) {
        assert!(seen.insert((name.clone(), labels.clone())), "{name}{labels:?} occurs twice");
        assert!(value >= 0.0, "{name} {value}");
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let family = families::ALL.iter().find(|f| match f.kind {
            Kind::Histogram => Some(f.name) == base,
            Kind::Counter | Kind::Gauge => f.name == name,
        });
        let family = family.unwrap_or_else(|| panic!("{name} is in no table"));
        assert_eq!(labels.remove("le").is_some(), name.ends_with("_bucket"), "{name}");
        let expected: HashSet<_> = family.labels.iter().copied().collect();
        assert_eq!(labels.keys().map(String::as_str).collect::<HashSet<_>>(), expected, "{name}");
    }
    for family in families::ALL.iter().filter(|family| {
        !family.name.starts_with("jumpgate_xdp_packets") && !family.name.starts_with("jumpgate_xdp_drops")
    }) {
        assert!(seen.iter().any(|(name, _)| name.starts_with(family.name)), "{} has no sample", family.name);
    }
}

#[test]
fn pp86_pp88_metrics_of_switches_and_of_latencies_are_left_out_if_policy_wants_it_and_nothing_else_is() {
    let names = |policy: &Policy| -> HashSet<String> {
        let page = page_under(policy);
        let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let typed: HashSet<String> = types.map(str::to_owned).collect();
        for (sample, ..) in parse(&page) {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| sample.strip_suffix(suffix));
            assert!(typed.contains(&sample) || base.is_some_and(|base| typed.contains(base)), "{sample} alone");
        }
        typed
    };
    let all = names(&Policy::profile(Profile::Mobile));
    let mut policy = Policy::profile(Profile::Mobile);
    policy.observability.emit_switch_metrics = false;
    let mut left_out: Vec<_> = all.difference(&names(&policy)).cloned().collect();
    left_out.sort();
    let switches =
        ["jumpgate_switch_denials_total", "jumpgate_switch_failures_total", "jumpgate_transport_switches_total"];
    assert_eq!(left_out, switches, "PP86");
    let mut policy = Policy::profile(Profile::Mobile);
    policy.observability.include_latency_metrics = false;
    let left_out: Vec<_> = all.difference(&names(&policy)).cloned().collect();
    assert!(left_out.contains(&"jumpgate_recovery_latency_seconds".to_owned()), "PP88: {left_out:?}");
    assert!(left_out.iter().all(|name| name.contains("latency")), "PP88: {left_out:?}");
    policy.observability.emit_security_events = false;
    assert!(names(&policy).contains("jumpgate_replay_rejects_total"), "PP89: counters stay");
}

#[test]
fn ob12_no_label_value_is_outside_of_its_closed_set() {
    let reasons: HashSet<_> = Reason::ALL.iter().map(|reason| reason.name()).chain(["UNKNOWN"]).collect();
    let states: HashSet<_> = State::ALL.iter().map(|state| state.name()).collect();
    let messages: HashSet<_> = MessageType::ALL.iter().map(|message| message.name()).chain(["NONE"]).collect();
    let small = |value: &str| value.len() <= 24 && value.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    for (name, labels, _) in parse(&full_page()) {
        for (label, value) in &labels {
            let closed = match label.as_str() {
                "state" | "from" | "to" => states.contains(value.as_str()),
                "message" => messages.contains(value.as_str()),
                "reason" if name == families::DROPS.name => small(value),
                "reason" | "trigger" => reasons.contains(value.as_str()),
                "type" => value.starts_with("Security") || value == "RateLimitEvent",
                "cause" => reasons.contains(value.as_str()),
                "worker" => {
                    let is_worker = |worker: u16| usize::from(worker) < crate::config::MAX_WORKERS;
                    value == "slow" || value.parse().is_ok_and(is_worker)
                }
                "le" => value == "+Inf" || value.parse::<f64>().is_ok(),
                // Of the program, the policy and the host: one series each.
                "version" | "commit" | "hash" | "profile" | "driver" => name.ends_with("_info"),
                _ => small(value),
            };
            assert!(closed, "{name} {label}={value:?}");
        }
    }
    assert!(!full_page().contains("c0ffee"), "no session");
}

#[test]
fn values_are_what_was_counted() {
    let samples = parse(&full_page());
    let value = |name: &str, wanted: &[(&str, &str)]| {
        let matches = |(is, labels, _): &&Sample| {
            is == name && wanted.iter().all(|(key, value)| labels.get(*key).is_some_and(|is| is == value))
        };
        samples.iter().find(matches).map(|(_, _, value)| *value)
    };
    assert_eq!(value("jumpgate_sessions_created_total", &[]), Some(1.0));
    assert_eq!(value("jumpgate_sessions_terminated_total", &[("reason", "RECOVERY_BOUNDS_EXCEEDED")]), Some(1.0));
    for state in State::ALL.into_iter().filter(|state| state.is_live()) {
        for worker in ["0", "1"] {
            let labels = [("state", state.name()), ("worker", worker)];
            assert_eq!(value("jumpgate_sessions", &labels), Some(0.0), "there also while there is none");
        }
    }
    let switched = [("cause", "TRANSPORT_DEAD"), ("outcome", "switched")];
    assert_eq!(value("jumpgate_recovery_latency_seconds_sum", &switched), Some(0.03));
    let ended = [("cause", "POLICY_FORCED_RECOVERY"), ("outcome", "ended")];
    assert_eq!(value("jumpgate_recovery_latency_seconds_count", &ended), Some(1.0));
    assert_eq!(value("jumpgate_transport_deaths_total", &[("evidence", "silence")]), Some(1.0));
    assert_eq!(value("jumpgate_switch_denials_total", &[("reason", "SWITCH_RATE_LIMITED")]), Some(1.0));
    assert_eq!(value("jumpgate_switch_failures_total", &[("reason", "RECOVERY_BOUNDS_EXCEEDED")]), Some(1.0));
    assert_eq!(value("jumpgate_handshakes_total", &[("result", "refused")]), Some(2.0), "fixation is no refusal");
    assert_eq!(value("jumpgate_handshakes_total", &[("result", "cookie")]), Some(4.0));
    let auth = [("message", "HEARTBEAT"), ("reason", "AUTH_FAIL")];
    assert_eq!(value("jumpgate_control_rejects_total", &auth), Some(1.0));
    assert_eq!(value("jumpgate_drops_total", &[("reason", "wrong_transport"), ("worker", "1")]), Some(1.0));
    assert_eq!(value("jumpgate_drops_total", &[("reason", "no_next_hop"), ("worker", "1")]), Some(3.0));
    let malformed = [("reason", "malformed"), ("worker", "1")];
    assert_eq!(value("jumpgate_drops_total", &malformed), Some(2.0), "a control message is no drop");
    for scope in ["source", "global"] {
        assert_eq!(value("jumpgate_rate_limit_hits_total", &[("scope", scope)]), Some(1.0));
    }
    assert_eq!(value("jumpgate_audit_head_seq", &[]), Some(41.0));
    assert_eq!(value("jumpgate_audit_sink_lag_records", &[("sink", "file")]), Some(6.0));
    let lost = [("class", "security"), ("worker", "slow")];
    assert_eq!(value("jumpgate_obs_ring_lost_total", &lost), Some(2.0));
    assert_eq!(value("jumpgate_under_load", &[]), Some(1.0));
    let silence = [("evidence", "silence")];
    assert_eq!(value("jumpgate_detection_latency_seconds_sum", &silence), Some(2.0));
    assert_eq!(value("jumpgate_lookup_duration_seconds_bucket", &[("le", "0.000000064")]), Some(1.0));
    assert_eq!(value("jumpgate_lookup_duration_seconds_bucket", &[("le", "0.000000032")]), Some(0.0));
    assert_eq!(value("jumpgate_stateless_resets_total", &[("direction", "sent")]), Some(5.0));
    assert_eq!(value("jumpgate_batch_packets_bucket", &[("worker", "1"), ("le", "64")]), Some(1.0));
    assert_eq!(value("jumpgate_batch_packets_bucket", &[("worker", "1"), ("le", "32")]), Some(0.0));
    assert_eq!(value("jumpgate_session_memory_bytes", &[("kind", "keys")]), Some(700.0), "of all workers");
    assert_eq!(value("jumpgate_xsk_ring_occupancy", &[("ring", "fill"), ("worker", "1")]), Some(1024.0));
    let waiting = [("class", "security"), ("worker", "slow")];
    assert_eq!(value("jumpgate_obs_ring_occupancy", &waiting), Some(1.0));
    assert_eq!(value("jumpgate_obs_ring_high_water", &waiting), Some(4.0));
    assert_eq!(value("jumpgate_cas_conflicts_total", &[]), Some(0.0));
    for kind in Violation::ALL.map(Violation::name) {
        assert_eq!(value("jumpgate_safety_violations_total", &[("kind", kind)]), Some(0.0));
    }
}

#[test]
fn the_document_has_the_table() {
    let document = include_str!("../../../docs/metrics.md");
    let table = render_markdown(families::ALL);
    assert!(document.contains(&table), "put this into docs/metrics.md:\n{table}");
}
