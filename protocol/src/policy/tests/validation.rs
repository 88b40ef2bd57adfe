//! P01, P02, P03, P12: what is refused, and how the refusal reads.

use proptest::prelude::*;

use super::*;

#[test]
fn p01_each_required_key_missing_in_turn_is_refused_under_custom() {
    let mut complete = required_pairs();
    complete.push(("profile", text("custom")));
    assert!(Policy::from_pairs(complete.clone()).is_ok());
    assert_eq!(complete.len(), 8, "version, six more starred keys, and profile");
    for missing in complete.iter().map(|(key, _)| *key).filter(|key| *key != "profile") {
        let error = Policy::from_pairs(complete.iter().filter(|(key, _)| *key != missing).cloned()).unwrap_err();
        assert_eq!((error.rule, error.key.as_str(), error.value.as_str()), ("PR-01", missing, "missing"));
    }
}

#[test]
fn p01_a_named_profile_needs_the_version_only() {
    let policy = Policy::from_pairs([("version", text("2.7")), ("profile", text("fast"))]).unwrap();
    assert_eq!(policy, Policy { version: Version::new(2, 7), ..Policy::profile(Profile::Fast) });
    let error = Policy::from_pairs([("profile", text("fast"))]).unwrap_err();
    assert_eq!((error.rule, error.key.as_str()), ("PR-01", "version"));
}

#[test]
fn p01_the_profile_is_the_base_wherever_it_stands() {
    let pairs = [("session.max_lifetime_ms", integer(60_000)), ("profile", text("mobile")), ("version", text("1.0"))];
    let policy = Policy::from_pairs(pairs).unwrap();
    assert_eq!(policy.session.max_lifetime, Span::from_millis(60_000));
    assert_eq!(policy.volatility.heartbeat_interval, Span::from_millis(250));
}

#[test]
fn p01_values_of_another_type_are_refused_for_every_key() {
    let mut policy = Policy::profile(Profile::Default);
    for parameter in PARAMETERS.iter().filter(|parameter| parameter.key != "profile") {
        let wrong = match parameter.unit {
            Unit::Bool => integer(1),
            _ => PolicyValue::Bool(true),
        };
        let error = policy.set(parameter.key, &wrong).unwrap_err();
        assert_eq!((error.rule, error.key.as_str()), ("PR-01", parameter.key));
    }
    for value in [integer(10), list(&[10]), list(&[10, 20, 30]), text("ten, twenty")] {
        assert_eq!(policy.set("limits.handshakes_per_source", &value).unwrap_err().rule, "PR-01");
    }
    for value in [text("1"), text("1."), text(".1"), text("+1.0"), text("1.0.0"), text("70000.0")] {
        assert_eq!(policy.set("version", &value).unwrap_err().rule, "PR-01", "{value}");
    }
    assert_eq!(policy, Policy::profile(Profile::Default), "a refused value changes nothing");
}

#[test]
fn p02_each_bound_exceeded_below_and_above_is_refused() {
    let mut tried = 0;
    for parameter in PARAMETERS {
        let base = Policy::profile(Profile::Default);
        let (outside, inside) = edges(parameter.range);
        let pack = |number: u64| match parameter.unit {
            Unit::PerSecond | Unit::Bucket => Rate::even(number as u32).pack(),
            _ => number,
        };
        for number in outside {
            let mut policy = base.clone();
            let refused = policy.assign(parameter, pack(number)).unwrap_err();
            assert_eq!((refused.rule, refused.key.as_str()), ("PR-02", parameter.key), "{number}");
            // The same value put into the field by code is found by the check of the whole.
            if (parameter.write)(&mut policy, pack(number)).is_some() {
                let refused = policy.validate().unwrap_err();
                assert_eq!((refused.rule, refused.key.as_str()), ("PR-02", parameter.key), "{number}");
            }
            tried += 1;
        }
        for number in inside {
            assert_eq!(base.clone().assign(parameter, pack(number)), Ok(()), "{} = {number}", parameter.key);
        }
    }
    assert!(tried > 100, "only {tried} bounds tried");
}

#[test]
fn p02_rate_and_burst_are_each_bounded() {
    let mut policy = Policy::profile(Profile::Default);
    for rate in [[9, 10], [10, 100_001], [100_001, 100_001]] {
        let error = policy.set("limits.control_per_source", &list(&rate)).unwrap_err();
        assert_eq!(error.rule, "PR-02", "{rate:?}");
    }
    // A burst out of range comes first, also where it is below its rate as well.
    assert_eq!(policy.set("limits.control_per_source", &list(&[10, 9])).unwrap_err().rule, "PR-02");
    assert_eq!(policy.set("limits.control_per_source", &list(&[10, 100_000])), Ok(()));
}

#[test]
fn p02_values_that_no_field_can_express_are_refused() {
    let mut policy = Policy::profile(Profile::Default);
    let refused: [(&str, PolicyValue); 14] = [
        ("volatility.heartbeat_interval_ms", integer(-1)),
        ("limits.max_sessions", integer(i64::MAX)),
        ("limits.handshakes_total", integer(i64::MAX)),
        ("limits.control_per_source", list(&[200, i64::MAX])),
        ("limits.control_per_source", list(&[-200, 400])),
        ("volatility.loss_volatile_threshold", PolicyValue::Float(0.0505)),
        ("volatility.loss_volatile_threshold", PolicyValue::Float(f64::NAN)),
        ("volatility.loss_volatile_threshold", PolicyValue::Float(-0.1)),
        ("switching.switch_improvement_factor", PolicyValue::Float(f64::INFINITY)),
        ("switching.on_recovery_timeout", text("retry")),
        ("transport.allowed_protocols", text("tcp")),
        ("transport.allowed_protocols", PolicyValue::List(vec![text("udp"), text("quic")])),
        ("transport.priority", integer(256)),
        ("transport.priority.wifi", integer(256)),
    ];
    for (key, value) in refused {
        let error = policy.set(key, &value).unwrap_err();
        assert_eq!((error.rule, error.key.as_str()), ("PR-02", key), "{value}");
    }
    assert_eq!(policy, Policy::profile(Profile::Default));
}

/// Values that break one rule between keys and no other, starting from `default`.
const BREAKERS: &[(&str, &[(&str, u64)])] = &[
    ("PR-04", &[("volatility.heartbeat_interval_ms", 1_001), ("volatility.max_consecutive_drops", 2)]),
    ("PR-05", &[("volatility.transport_dead_ms", 2_000)]),
    ("PR-05", &[("volatility.transport_dead_ms", 15_000)]),
    ("PR-06", &[("volatility.max_consecutive_drops", 5)]),
    ("PR-07", &[("volatility.stability_window_ms", 4_001)]),
    ("PR-08", &[("switching.path_validation_ms", 3_001)]),
    ("PR-09", &[("security.reattach_proof_max_age_ms", 8_001)]),
    ("PR-11", &[("switching.recovery_window_ms", 15_000)]),
    ("PR-11", &[("session.transport_lost_ttl_ms", 60_000), ("session.max_lifetime_ms", 60_000)]),
    ("PR-12", &[("volatility.volatile_to_degraded_ms", 15_000)]),
    ("PR-13", &[("switching.recovery_window_ms", 11_501)]),
    ("PR-14", &[("switching.max_switches_per_min", 41)]),
    ("PR-15", &[("switching.old_path_drain_ms", 1_000), ("switching.switch_cooldown_ms", 999)]),
    ("PR-16", &[("transport.probe_interval_ms", 5_001)]),
    ("PR-17", &[("security.rekey_after_ms", 10_000), ("security.rekey_overlap_ms", 5_001)]),
    ("PR-17", &[("security.key_max_age_ms", 599_999)]),
    ("PR-18", &[("session.max_degraded_ms", 8_000)]),
    ("PR-19", &[("limits.half_open_per_identity", 17), ("limits.max_half_open", 16)]),
    ("PR-19", &[("limits.max_sessions", 4_095)]),
    ("PR-20", &[("cluster.lease_guard_ms", 4_000)]),
];

#[test]
fn p03_each_rule_between_keys_broken_in_turn_is_refused_by_name() {
    assert!(
        RULES.iter().map(|rule| rule.id).eq(BREAKERS.iter().map(|(rule, _)| *rule)),
        "one breaker for each rule, in the same order"
    );
    for (rule, values) in BREAKERS {
        let mut policy = Policy::profile(Profile::Default);
        for (key, raw) in *values {
            policy.assign(row(key), *raw).unwrap_or_else(|error| panic!("inside its range: {error}"));
        }
        let error = policy.validate().expect_err(rule);
        assert_eq!(error.rule, *rule, "{error}");
        let involved = |key: &str| error.key == key || error.also.contains(&key);
        assert!(values.iter().any(|(key, _)| involved(key)), "{rule}: {values:?} are not among the keys of {error:?}");
        assert!(!error.bound.is_empty() && !error.cure.is_empty());
    }
}

#[test]
fn p03_a_file_that_breaks_a_rule_between_keys_is_refused() {
    let pairs = [("version", text("1.0")), ("profile", text("fast")), ("volatility.transport_dead_ms", integer(300))];
    assert_eq!(Policy::from_pairs(pairs).unwrap_err().rule, "PR-05");
}

#[test]
fn p03_each_rule_between_keys_holds_on_its_edge() {
    let on_the_edge: &[&[(&str, u64)]] = &[
        &[("volatility.heartbeat_interval_ms", 1_000), ("volatility.max_consecutive_drops", 2)],
        &[("volatility.transport_dead_ms", 2_001)],
        &[("volatility.transport_dead_ms", 14_999)],
        &[("volatility.max_consecutive_drops", 4)],
        &[("volatility.stability_window_ms", 4_000)],
        &[("switching.path_validation_ms", 3_000)],
        &[("security.reattach_proof_max_age_ms", 8_000)],
        &[("switching.recovery_window_ms", 11_500)],
        &[("session.transport_lost_ttl_ms", 59_999), ("session.max_lifetime_ms", 60_000)],
        &[("volatility.volatile_to_degraded_ms", 14_999)],
        &[("switching.max_switches_per_min", 40)],
        &[("switching.old_path_drain_ms", 1_000), ("switching.switch_cooldown_ms", 1_000)],
        &[("transport.probe_interval_ms", 5_000)],
        &[("security.rekey_after_ms", 10_000)],
        &[("security.key_max_age_ms", 600_000)],
        &[("session.max_degraded_ms", 8_001)],
        &[("limits.half_open_per_identity", 16), ("limits.max_half_open", 16)],
        &[("limits.max_sessions", 4_096)],
        &[("cluster.lease_guard_ms", 3_999)],
        &[("switching.max_switches_per_min", 0), ("switching.switch_cooldown_ms", 5_000)],
    ];
    for values in on_the_edge {
        let mut policy = Policy::profile(Profile::Default);
        for (key, raw) in *values {
            policy.assign(row(key), *raw).unwrap();
        }
        assert_eq!(policy.validate(), Ok(()), "{values:?}");
    }
}

#[test]
fn p03_an_empty_set_of_protocols_is_refused() {
    let mut policy = Policy::profile(Profile::Default);
    assert_eq!(policy.set("transport.allowed_protocols", &PolicyValue::List(vec![])).unwrap_err().rule, "PR-03");
    force(&mut policy, "transport.allowed_protocols", 0);
    assert_eq!(policy.validate().unwrap_err().rule, "PR-03");
}

#[test]
fn p03_a_burst_below_its_rate_is_refused_in_every_bucket() {
    for key in ["limits.handshakes_per_source", "limits.control_per_source", "limits.reattach_per_session"] {
        let mut policy = Policy::profile(Profile::Default);
        let error = policy.set(key, &list(&[20, 19])).unwrap_err();
        assert_eq!((error.rule, error.key.as_str()), ("PR-10", key));
        assert_eq!(policy.set(key, &list(&[20, 20])), Ok(()));
        force(&mut policy, key, Rate::new(20, 19).pack());
        assert_eq!(policy.validate().unwrap_err().rule, "PR-10");
    }
}

#[test]
fn an_error_says_rule_key_value_bound_and_cure() {
    let mut policy = Policy::profile(Profile::Default);
    let error = policy.set("volatility.heartbeat_interval_ms", &integer(20)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "PR-02: volatility.heartbeat_interval_ms = 20: must be in 50..10_000; \
         write a whole number of milliseconds inside the range"
    );
    policy.set("switching.recovery_window_ms", &integer(12_000)).unwrap();
    assert_eq!(
        policy.validate().unwrap_err().to_string(),
        "PR-13: volatility.heartbeat_volatile_ms = 2_000: must satisfy volatility.heartbeat_volatile_ms + \
         switching.switch_cooldown_ms + switching.recovery_window_ms <= session.transport_lost_ttl_ms, \
         which is 15500 <= 15000; lower volatility.heartbeat_volatile_ms (now 2_000) or \
         switching.switch_cooldown_ms (now 1_500) or switching.recovery_window_ms (now 12_000), \
         or raise session.transport_lost_ttl_ms (now 15_000)"
    );
}

#[test]
fn a_forgotten_group_or_unit_is_pointed_out() {
    let mut policy = Policy::profile(Profile::Default);
    for key in ["heartbeat_interval_ms", "volatility.heartbeat_interval", "session.heartbeat_interval_ms"] {
        let error = policy.set(key, &integer(500)).unwrap_err();
        assert_eq!((error.rule, error.cure.as_str()), ("PR-01", "write volatility.heartbeat_interval_ms"));
    }
}

#[test]
fn a_priority_is_set_for_one_class_or_for_all() {
    let mut policy = Policy::profile(Profile::Default);
    policy.set("transport.priority.wifi", &integer(10)).unwrap();
    assert_eq!(policy.transport.priority, Priorities::all(100).with(TransportClass::Wifi, 10));
    policy.set("transport.priority", &integer(7)).unwrap();
    assert_eq!(policy.transport.priority, Priorities::all(7));
    assert_eq!(policy.set("transport.priority.pigeon", &integer(1)).unwrap_err().rule, "PR-01");
    assert_eq!(policy.set("session.max_lifetime_ms.wifi", &integer(1)).unwrap_err().rule, "PR-01");
}

/// INV-24
#[test]
fn p12_there_is_no_key_to_switch_validation_or_replay_protection_off() {
    let switches = [
        "security.validate",
        "security.require_proof",
        "security.proof",
        "security.replay_protection",
        "security.epoch_check",
        "security.single_binding",
        "security.disable_replay_window",
        "session.allow_multiple_bindings",
        "observability.emit_audit_records",
        "switching.allow_dual_binding",
        "validation",
        "",
    ];
    for key in switches {
        for value in [PolicyValue::Bool(false), integer(0), text("off")] {
            let error = Policy::from_pairs([("version", text("1.0")), (key, value)]).unwrap_err();
            assert_eq!((error.rule, error.key.as_str()), ("PR-01", key));
        }
    }
}

#[test]
fn p12_no_protecting_value_can_be_set_to_nothing() {
    let protecting = [
        "security.reattach_proof_max_age_ms",
        "security.control_replay_window",
        "security.data_replay_window",
        "security.rekey_after_ms",
        "security.rekey_after_packets",
        "security.key_max_age_ms",
        "session.max_lifetime_ms",
        "session.transport_lost_ttl_ms",
        "switching.recovery_window_ms",
        "switching.path_validation_ms",
    ];
    for key in protecting {
        let error = Policy::profile(Profile::Default).set(key, &integer(0)).unwrap_err();
        assert_eq!((error.rule, error.key.as_str()), ("PR-02", key));
    }
}

proptest! {
    #[test]
    fn whatever_a_file_states_only_a_valid_policy_comes_out(
        key in prop::sample::select(PARAMETERS.iter().map(|parameter| parameter.key).collect::<Vec<_>>()),
        value in prop_oneof![
            any::<i64>().prop_map(PolicyValue::Integer),
            any::<f64>().prop_map(PolicyValue::Float),
            ".{0,12}".prop_map(PolicyValue::Text),
            any::<bool>().prop_map(PolicyValue::Bool),
            prop::collection::vec(any::<i64>().prop_map(PolicyValue::Integer), 0..4).prop_map(PolicyValue::List),
        ],
    ) {
        if let Ok(policy) = Policy::from_pairs([("version", text("1.0")), (key, value)]) {
            prop_assert_eq!(policy.validate(), Ok(()));
        }
    }
}
