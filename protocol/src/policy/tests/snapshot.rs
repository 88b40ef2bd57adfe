//! The snapshot: exact, bounded, and safe to read from anyone.

use proptest::prelude::*;

use super::*;

#[test]
fn a_snapshot_is_as_long_as_stated_and_fits_its_room() {
    for profile in NAMED {
        assert_eq!(Policy::profile(profile).encode_snapshot().len(), SNAPSHOT_LEN);
    }
}

#[test]
fn the_largest_value_of_every_key_fits_the_snapshot() {
    for parameter in PARAMETERS.iter().filter(|parameter| parameter.is_session_scoped()) {
        let mut policy = Policy::profile(Profile::Default);
        let largest = match (parameter.range, parameter.unit) {
            (Range::Between(_, high) | Range::ZeroOr(_, _, high), Unit::Bucket) => Rate::even(high as u32).pack(),
            (Range::Between(_, high) | Range::ZeroOr(_, _, high), _) => high,
            (Range::FromZero(_, high) | Range::PowerOfTwo(_, high), _) => high,
            (Range::Any, Unit::Version | Unit::Map(_)) => u32::MAX.into(),
            (Range::Any, Unit::Name(names)) => names.len() as u64 - 1,
            (Range::Any, _) => 1,
        };
        force(&mut policy, parameter.key, largest);
        // Alone it may break a rule between keys; what matters is that no bits are lost on the way.
        match Policy::decode_snapshot(&policy.encode_snapshot()) {
            Ok(decoded) => assert_eq!(parameter.value(&decoded), largest, "{}", parameter.key),
            Err(error) => assert_eq!(Some(error), policy.validate().err(), "{}", parameter.key),
        }
    }
}

#[test]
fn a_snapshot_carries_nothing_that_belongs_to_the_gateway_alone() {
    let own = Policy::profile(Profile::Default);
    let mut other = own.clone();
    other.limits.max_sessions = 5_000;
    other.access.client_to_client = true;
    assert_eq!(own.hash(), other.hash());
    other.limits.reattach_per_session = Rate::new(1, 1);
    assert_ne!(own.hash(), other.hash(), "PP79 is a session's");
}

/// INV-29
#[test]
fn a_snapshot_of_another_length_or_format_or_with_an_invalid_policy_is_refused() {
    let good = Policy::profile(Profile::Fast).encode_snapshot();
    assert!(Policy::decode_snapshot(&good[..good.len() - 1]).is_err());
    assert!(Policy::decode_snapshot(&[&good[..], &[0]].concat()).is_err());
    assert!(Policy::decode_snapshot(&[]).is_err());
    let mut other_format = good.clone();
    other_format[0] = 2;
    assert!(Policy::decode_snapshot(&other_format).is_err());
    let mut invalid = Policy::profile(Profile::Fast);
    invalid.volatility.transport_dead = invalid.session.transport_lost_ttl;
    assert_eq!(Policy::decode_snapshot(&invalid.encode_snapshot()).unwrap_err().rule, "PR-05");
}

proptest! {
    #[test]
    fn every_valid_policy_survives_its_snapshot(policy in valid_policy()) {
        let decoded = Policy::decode_snapshot(&policy.encode_snapshot()).unwrap();
        for parameter in PARAMETERS {
            let expected = if parameter.is_session_scoped() {
                parameter.value(&policy)
            } else {
                parameter.profiles[Profile::Default as usize]
            };
            prop_assert_eq!(parameter.value(&decoded), expected, "{}", parameter.key);
        }
        prop_assert_eq!(decoded.hash(), policy.hash());
    }

    #[test]
    fn hostile_snapshots_never_panic_and_give_valid_policies_only(
        policy in valid_policy(),
        damage in prop::collection::vec((0..SNAPSHOT_LEN, any::<u8>()), 0..6),
        cut in 0..=SNAPSHOT_LEN,
        noise in prop::collection::vec(any::<u8>(), 0..2 * SNAPSHOT_LEN),
    ) {
        let mut damaged = policy.encode_snapshot();
        for (index, byte) in damage {
            damaged[index] = byte;
        }
        for bytes in [&damaged[..], &damaged[..cut], &noise] {
            if let Ok(decoded) = Policy::decode_snapshot(bytes) {
                prop_assert_eq!(decoded.validate(), Ok(()));
                prop_assert_eq!(decoded.encode_snapshot(), bytes, "one policy has one encoding");
            }
        }
    }
}
