//! P06: a client may narrow and never widen.

use proptest::prelude::*;

use super::*;

#[test]
fn p06_a_request_narrows_every_key_that_may_be_narrowed() {
    let own = Policy::profile(Profile::Mobile);
    let requested: Vec<(u16, u64)> = vec![
        (10, 3_600_000),
        (11, 20_000),
        (20, 250),
        (31, 3_000),
        (40, 6),
        (41, 1_000),
        (42, 5_000),
        (43, 3),
        (45, 120),
        (46, 0),
        (50, 1),
        (51, 2),
        (53, 2_000),
        (54, 100),
        (60, 4_000),
        (63, 100_000),
        (64, 1 << 20),
        (68, 1_800_000),
        (79, Rate::new(2, 4).pack()),
    ];
    let narrowable = PARAMETERS.iter().filter(|parameter| parameter.narrowing != Narrowing::Fixed);
    assert!(narrowable.map(|parameter| parameter.number).eq(requested.iter().map(|(number, _)| *number)));
    let narrowed = own.narrow(&requested).unwrap();
    for parameter in PARAMETERS {
        let asked = requested.iter().find(|(number, _)| *number == parameter.number);
        let expected = asked.map_or_else(|| parameter.value(&own), |(_, raw)| *raw);
        assert_eq!(parameter.value(&narrowed), expected, "{}", parameter.key);
    }
    assert_eq!(own.narrow(&[]), Ok(own));
}

#[test]
fn p06_asking_for_one_step_more_is_denied_for_every_key() {
    let own = Policy::profile(Profile::Default);
    for parameter in PARAMETERS {
        let value = parameter.value(&own);
        let wider: Vec<u64> = match (parameter.narrowing, parameter.unit) {
            (Narrowing::Fixed, _) => vec![value],
            (Narrowing::Smaller, Unit::Set(_)) => vec![value | 2],
            (Narrowing::Smaller, Unit::Bucket) => {
                let Rate { per_second, burst } = Rate::unpack(value);
                vec![Rate::new(per_second + 1, burst).pack(), Rate::new(per_second, burst + 1).pack()]
            }
            (Narrowing::Smaller, _) => vec![value + 1],
            (Narrowing::Larger, _) => value.checked_sub(1).into_iter().collect(),
        };
        for wanted in wider {
            let error = own.narrow(&[(parameter.number, wanted)]).unwrap_err();
            assert_eq!((error.rule, error.key.as_str()), ("RL-5", parameter.key), "{wanted}");
        }
    }
}

#[test]
fn p06_a_request_that_is_unknown_or_doubled_or_leads_nowhere_valid_is_denied() {
    let own = Policy::profile(Profile::Default);
    assert_eq!(own.narrow(&[(4, 1)]).unwrap_err().key, "PP04");
    assert_eq!(own.narrow(&[(u16::MAX, 1)]).unwrap_err().rule, "RL-5");
    assert_eq!(own.narrow(&[(10, 7_200_000), (10, 3_600_000)]).unwrap_err().rule, "RL-5");
    assert_eq!(own.narrow(&[(10, 1)]).unwrap_err().rule, "PR-02", "narrower, but below the range");
    assert_eq!(own.narrow(&[(20, 1_000)]).unwrap_err().rule, "PR-06", "narrower, but against a rule between keys");
    assert_eq!(own.narrow(&[(50, 0)]).unwrap_err().rule, "PR-03");
}

#[test]
fn a_client_states_its_request_by_key() {
    assert_eq!(request("session.max_lifetime_ms", &integer(60_000)), Ok((10, 60_000)));
    assert_eq!(request("limits.reattach_per_session", &list(&[1, 2])), Ok((79, Rate::new(1, 2).pack())));
    assert_eq!(request("limits.max_sessions", &integer(1)).unwrap_err().rule, "RL-5");
    assert_eq!(request("session.max_lifetime_ms", &integer(1)).unwrap_err().rule, "PR-02");
    assert_eq!(request("max_lifetime_ms", &integer(60_000)).unwrap_err().cure, "write session.max_lifetime_ms");
}

proptest! {
    #[test]
    fn p06_whatever_a_client_asks_for_it_never_gets_more(
        own in valid_policy(),
        wanted in valid_policy(),
        picks in prop::collection::vec(0..PARAMETERS.len(), 0..5),
        noise in prop::collection::vec((0..100_u16, any::<u64>()), 0..3),
    ) {
        let mut requested: Vec<(u16, u64)> =
            picks.iter().map(|&index| (PARAMETERS[index].number, PARAMETERS[index].value(&wanted))).collect();
        requested.extend(noise);
        if let Ok(narrowed) = own.narrow(&requested) {
            prop_assert_eq!(narrowed.validate(), Ok(()));
            for parameter in PARAMETERS {
                let (before, after) = (parameter.value(&own), parameter.value(&narrowed));
                prop_assert!(before == after || parameter.may_narrow(before, after), "{}", parameter.key);
            }
        }
    }

    #[test]
    fn p06_a_single_allowed_request_is_granted_exactly(own in valid_policy(), wanted in valid_policy()) {
        for parameter in PARAMETERS {
            let (own_value, raw) = (parameter.value(&own), parameter.value(&wanted));
            match own.narrow(&[(parameter.number, raw)]) {
                Ok(narrowed) => prop_assert_eq!(parameter.value(&narrowed), raw),
                Err(error) => prop_assert!(error.rule != "RL-5" || !parameter.may_narrow(own_value, raw), "{}", error),
            }
        }
    }
}
