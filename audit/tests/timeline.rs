//! What people read after an incident.

mod support;

use jumpgate_audit::timeline::{Filter, ReadError, read, show, show_list, summaries};
use jumpgate_audit::verify::Input;
use support::{Trace, full_life};

#[test]
fn ob14_recovery_windows_tell_outcome_attempts_and_rate_hits() {
    let trace = full_life();
    let stories = read(vec![Input::bytes("trace", &trace.out)], &Filter::default()).unwrap();
    let windows = stories[0].windows.iter().map(|window| {
        (window.outcome.as_deref().unwrap_or_default(), window.attempts, window.rejects, window.rate_hits)
    });
    let expected = [
        ("healed", 0, 0, 0),
        // The request that the cooldown refused half a second later belongs to no recovery.
        ("switched", 1, 0, 0),
        ("switched", 2, 0, 0),
        ("switched", 1, 0, 0),
        ("OPERATOR_TERMINATED", 0, 0, 1),
    ];
    assert_eq!(windows.collect::<Vec<_>>(), expected);
    let text = show(&stories);
    for part in
        ["ended 2026-01-01", "T07 HEALTH_RECOVERED", "Recovery windows", "COOLDOWN_ACTIVE", "700 bytes in 7 packets"]
    {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn a_session_is_named_by_the_beginning_of_its_id_if_no_other_has_it() {
    let mut trace = Trace::gateway();
    trace.attach(0x1a);
    trace.attach(0x1b);
    let ask = |prefix: &str| {
        let filter = Filter { session: Some(prefix.to_owned()) };
        read(vec![Input::bytes("trace", &trace.out)], &filter)
    };
    assert_eq!(ask("1A").unwrap().len(), 1);
    assert!(matches!(ask("1"), Err(ReadError::Ambiguous { count: 2, .. })));
    assert!(matches!(ask("2"), Err(ReadError::Unknown { .. })));
    assert!(matches!(read(vec![Input::bytes("x", b"hello\n")], &Filter::default()), Err(ReadError::NoTrace { .. })));
    let all = read(vec![Input::bytes("trace", &trace.out)], &Filter::default()).unwrap();
    assert_eq!(show_list(&summaries(&all)).lines().count(), 3);
}
