//! Memory of the rings. A test program of its own: what other tests take meanwhile would count.

use std::fs;

use jumpgate_audit::ring::{Publisher, RingSizes, rings};
use jumpgate_protocol::audit::{Class, Event, LimitAction, LimitScope, PolicyRef, Record};
use jumpgate_protocol::policy::Version;
use jumpgate_protocol::time::Time;

/// What the process may take for other things meanwhile, in bytes.
const OTHER: u64 = 1 << 20;

#[test]
fn ob04_a_workers_rings_take_all_their_memory_before_the_first_record() {
    let sizes = RingSizes::default();
    let before = resident();
    let (mut publisher, mut feed) = rings(Some(0), sizes);
    let made = resident();
    // More than any ring holds.
    for _ in 0..sizes.audit + 1 {
        publish(&mut publisher);
    }
    let full = resident();
    let entries = sizes.audit + sizes.security + sizes.telemetry;
    assert!(made - before > (entries * 128) as u64, "{} bytes", made - before);
    assert!(full - made < OTHER, "{} bytes", full - made);

    let class = Class::ALL.into_iter().find(|class| feed.waiting(*class) > 0).expect("records wait");
    let waiting = feed.waiting(class);
    assert_eq!(std::iter::from_fn(|| feed.pop()).count(), waiting, "nothing but what was published is in them");
}

fn publish(publisher: &mut Publisher) {
    let policy = PolicyRef { version: Version { major: 1, minor: 0 }, sequence: 1 };
    let event = Event::RateLimitEvent {
        action: LimitAction::Engaged,
        scope: LimitScope::Global,
        retry_after_ms: 0,
        peer: None,
    };
    publisher.publish(&Record::new(Time::from_millis(1), None, policy, (None, None), event));
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a process has a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("and memory");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("in kB");
    kib << 10
}
