//! Values of one client, and what it asked for under another base.

use proptest::prelude::*;

use super::*;

fn base() -> Policy {
    let mut base = Policy::profile(Profile::Mobile);
    base.set("limits.max_sessions", &integer(77_777)).unwrap();
    base.set("session.max_lifetime_ms", &integer(7_200_000)).unwrap();
    base
}

#[test]
fn a_client_may_have_values_of_its_own_and_keeps_all_others_of_the_gateway() {
    let own = base().overridden([("switching.max_switches_per_min", integer(5))]).unwrap();
    for parameter in PARAMETERS.iter().filter(|parameter| parameter.number != 40) {
        assert_eq!(parameter.value(&own), parameter.value(&base()), "{}", parameter.key);
    }
    assert_eq!(own.switching.max_switches_per_min, 5);
    let wifi = base().overridden([("transport.priority.wifi", integer(7))]).unwrap();
    assert_ne!(wifi.transport.priority, base().transport.priority, "one name of a map");
}

#[test]
fn a_profile_of_its_own_gives_the_values_of_its_sessions_and_no_limit_of_the_gateway() {
    let own = base().overridden([("profile", text("fast")), ("switching.switch_cooldown_ms", integer(300))]).unwrap();
    let fast = Policy::profile(Profile::Fast);
    for parameter in PARAMETERS.iter().filter(|parameter| ![1, 41].contains(&parameter.number)) {
        let expected = if parameter.is_session_scoped() { &fast } else { &base() };
        assert_eq!(parameter.value(&own), parameter.value(expected), "{}", parameter.key);
    }
    assert_eq!(own.version, base().version);
    assert_eq!(own.switching.switch_cooldown.as_millis(), 300);
    let error = base().overridden([("profile", text("custom"))]).unwrap_err();
    assert_eq!((error.rule, error.key.as_str()), ("PR-01", "session.max_lifetime_ms"), "custom has no base");
}

#[test]
fn what_holds_for_the_whole_gateway_is_refused_for_one_client_and_so_is_what_breaks_a_rule() {
    for parameter in PARAMETERS.iter().filter(|parameter| !parameter.is_session_scoped()) {
        let error = base().overridden([(parameter.key, integer(1))]).unwrap_err();
        assert_eq!(
            (error.rule, error.key.as_str(), error.cure.as_str()),
            ("PR-01", parameter.key, "state it in [policy]")
        );
    }
    let refused = |key, value| base().overridden([(key, value)]).unwrap_err().rule;
    assert_eq!(refused("switching.no_such_key", integer(1)), "PR-01");
    assert_eq!(refused("switching.switch_cooldown_ms", integer(1)), "PR-02");
    assert_eq!(refused("switching.switch_cooldown_ms", integer(30_000)), "PR-13", "rules between keys as well");
}

#[test]
fn rl3_what_a_client_asked_for_stays_in_force_under_another_base_where_it_is_the_narrower() {
    let asked = [(10, 3_600_000), (40, 6), (79, Rate::new(3, 9).pack()), (53, 2_000)];
    let narrowed = base().narrowed_again(&asked).unwrap();
    assert_eq!(narrowed.session.max_lifetime.as_millis(), 3_600_000);
    assert_eq!(narrowed.limits.reattach_per_session, Rate::new(3, 8), "each number by itself");
    assert_eq!(narrowed.transport.probe_interval.as_millis(), 2_000);
    let mut tight = base();
    tight.set("session.max_lifetime_ms", &integer(600_000)).unwrap();
    assert_eq!(tight.narrow(&asked).unwrap_err().rule, "RL-5", "a handshake would be denied");
    let narrowed = tight.narrowed_again(&asked).unwrap();
    assert_eq!(narrowed.session.max_lifetime.as_millis(), 600_000, "a session goes on with the narrower of both");
    assert_eq!(narrowed.switching.max_switches_per_min, 6);
}

#[test]
fn rl3_a_request_that_contradicts_the_new_base_is_an_error() {
    let asked = [(20, 500)];
    assert!(Policy::profile(Profile::Default).narrowed_again(&asked).is_ok());
    let error = Policy::profile(Profile::Fast).narrowed_again(&asked).unwrap_err();
    assert_eq!(error.rule, "PR-04", "heartbeats every 500 ms cannot show a silence of 300 ms");
}

proptest! {
    #[test]
    fn p06_what_was_asked_for_never_widens_any_base(base in valid_policy(), wanted in valid_policy()) {
        let asked: Vec<(u16, u64)> = PARAMETERS.iter().map(|one| (one.number, one.value(&wanted))).collect();
        if let Ok(narrowed) = base.narrowed_again(&asked) {
            prop_assert_eq!(narrowed.validate(), Ok(()));
            for parameter in PARAMETERS {
                let (before, after) = (parameter.value(&base), parameter.value(&narrowed));
                prop_assert!(before == after || parameter.may_narrow(before, after), "{}", parameter.key);
            }
        }
    }
}
