//! The table and the profiles, and what the other tests share.

mod narrowing;
mod overrides;
mod snapshot;
mod validation;

use proptest::prelude::*;

use super::rules::{RULES, parameter};
use super::*;
use crate::time::Span;

const NAMED: [Profile; 3] = [Profile::Default, Profile::Mobile, Profile::Fast];

fn integer(number: i64) -> PolicyValue {
    PolicyValue::Integer(number)
}

fn text(text: &str) -> PolicyValue {
    PolicyValue::Text(text.to_owned())
}

fn list(numbers: &[i64]) -> PolicyValue {
    PolicyValue::List(numbers.iter().copied().map(PolicyValue::Integer).collect())
}

fn row(key: &str) -> &'static Parameter {
    parameter(key).unwrap_or_else(|| panic!("no parameter {key}"))
}

/// Writes a raw value without any check, as code that holds a policy could.
fn force(policy: &mut Policy, key: &str, raw: u64) {
    (row(key).write)(policy, raw).expect("the field can hold it");
}

/// The required keys with the values of the profile `default`.
fn required_pairs() -> Vec<(&'static str, PolicyValue)> {
    let required = PARAMETERS.iter().filter(|parameter| parameter.required);
    required.map(|parameter| (parameter.key, text(&parameter.unit.text(parameter.profiles[0])))).collect()
}

/// Numbers just below and just above the range, and the ends of the range itself.
fn edges(range: Range) -> (Vec<u64>, Vec<u64>) {
    match range {
        Range::Any => (vec![], vec![]),
        Range::Between(low, high) => {
            ([low.checked_sub(1), Some(high + 1)].into_iter().flatten().collect(), vec![low, high])
        }
        Range::ZeroOr(_, low, high) => (vec![1, low - 1, high + 1], vec![0, low, high]),
        Range::FromZero(_, high) => (vec![high + 1], vec![0, high]),
        Range::PowerOfTwo(low, high) => (vec![0, low - 1, low / 2, low + 1, high + 1, high * 2], vec![low, high]),
    }
}

/// A raw value inside the range of a parameter.
fn inside(parameter: &'static Parameter) -> BoxedStrategy<u64> {
    let bucket = |low: u64, high: u64| {
        (low..=high).prop_flat_map(move |rate| (Just(rate), rate..=high)).prop_map(|(rate, burst)| rate << 32 | burst)
    };
    match (parameter.range, parameter.unit) {
        (Range::Between(low, high), Unit::Bucket) => bucket(low, high).boxed(),
        (Range::Between(low, high), Unit::PerSecond) => (low..=high).prop_map(|rate| rate << 32 | rate).boxed(),
        (Range::FromZero(_, high), Unit::PerSecond) => (0..=high).prop_map(|rate| rate << 32 | rate).boxed(),
        (Range::Between(low, high), _) => (low..=high).boxed(),
        (Range::ZeroOr(_, low, high), _) => prop_oneof![Just(0), low..=high].boxed(),
        (Range::FromZero(_, high), _) => (0..=high).boxed(),
        (Range::PowerOfTwo(low, high), _) => {
            (low.trailing_zeros()..=high.trailing_zeros()).prop_map(|bit| 1 << bit).boxed()
        }
        (Range::Any, Unit::Version | Unit::Map(_)) => any::<u32>().prop_map(u64::from).boxed(),
        (Range::Any, Unit::Name(names)) => (0..names.len() as u64).boxed(),
        (Range::Any, Unit::Set(names)) => (1..1_u64 << names.len()).boxed(),
        (Range::Any, _) => (0..=1_u64).boxed(),
    }
}

/// A valid policy: a profile with some values replaced, as far as the rules between keys let them.
fn valid_policy() -> impl Strategy<Value = Policy> {
    let all: Vec<_> = PARAMETERS.iter().map(inside).collect();
    (0..NAMED.len(), all).prop_map(|(profile, values)| {
        let mut policy = Policy::profile(NAMED[profile]);
        for (parameter, raw) in PARAMETERS.iter().zip(values) {
            let before = policy.clone();
            if policy.assign(parameter, raw).and_then(|()| policy.validate()).is_err() {
                policy = before;
            }
        }
        policy
    })
}

#[test]
fn every_profile_is_valid_and_is_what_the_table_says() {
    for profile in NAMED {
        let policy = Policy::profile(profile);
        assert_eq!(policy.validate(), Ok(()), "{profile}");
        assert_eq!(policy.profile, profile);
        for parameter in PARAMETERS {
            assert_eq!(parameter.value(&policy), parameter.profiles[profile as usize], "{}", parameter.key);
        }
    }
    assert_eq!(Policy::profile(Profile::Custom).validate(), Ok(()));
}

#[test]
fn the_profiles_meet_their_recovery_objectives() {
    let [default, mobile, fast] = NAMED.map(Policy::profile);
    assert_eq!(default.volatility.heartbeat_volatile, Span::from_millis(2_000));
    assert_eq!(default.switching.switch_cooldown, Span::from_millis(1_500));
    assert_eq!(mobile.volatility.heartbeat_volatile, Span::from_millis(1_000));
    assert_eq!(mobile.volatility.loss_volatile_threshold, 50);
    assert_eq!(mobile.volatility.jitter_threshold, Span::from_millis(80));
    assert_eq!(fast.volatility.heartbeat_volatile, Span::from_millis(300));
    assert!(fast.switching.switch_cooldown <= fast.volatility.heartbeat_volatile);
    assert_eq!(fast.limits.reattach_per_session, Rate::new(5, 10));
    assert_eq!(fast.transport.priority.of(TransportClass::Other), 100);
}

#[test]
fn ids_rise_and_keys_are_unique() {
    assert!(PARAMETERS.windows(2).all(|pair| pair[0].number < pair[1].number));
    for (index, one) in PARAMETERS.iter().enumerate() {
        assert!(PARAMETERS[index + 1..].iter().all(|other| one.key != other.key), "{}", one.key);
    }
}

#[test]
fn every_value_survives_being_written_and_read_again() {
    for parameter in PARAMETERS.iter().filter(|parameter| parameter.key != "profile") {
        for raw in parameter.profiles {
            let mut policy = Policy::profile(Profile::Default);
            let written = parameter.unit.text(raw);
            let written = written.trim_matches(['[', ']']);
            policy.set(parameter.key, &text(written)).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(parameter.value(&policy), raw, "{} = {written}", parameter.key);
        }
    }
}

#[test]
fn the_document_has_every_parameter_and_every_rule() {
    let document = render_markdown();
    for parameter in PARAMETERS {
        assert!(document.contains(&format!("| PP{:02} | {}", parameter.number, parameter.key)));
    }
    for number in 1..=20 {
        assert!(document.contains(&format!("| PR-{number:02} | ")), "PR-{number:02}");
    }
    assert!(document.lines().filter(|line| line.starts_with("| PP")).all(|line| line.matches('|').count() == 10));
    assert!(
        document.contains("| volatility.loss_volatile_threshold \\* | ratio | 0.200 | 0.050 | 0.100 | 0.001..1.000 |")
    );
    assert!(
        document.contains("| security.data_replay_window | packets | 8_192 | = | = | 8_192..65_536, power of two |")
    );
}
