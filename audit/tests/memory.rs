//! Memory of the rings. A test program of its own: what other tests take meanwhile would count.

mod support;

use std::fs;

use jumpgate_audit::ring::{RingSizes, rings};
use jumpgate_protocol::audit::Class;
use support::Trace;

/// What the process may take for other things meanwhile, in bytes.
const OTHER: u64 = 1 << 20;

#[test]
fn ob04_a_workers_rings_take_all_their_memory_before_the_first_record() {
    let mut trace = Trace::gateway();
    trace.attach(1);
    let record = *trace.records.iter().find(|record| record.class() == Class::Audit).expect("of a birth");
    let sizes = RingSizes::default();
    let before = resident();
    let (mut publisher, mut feed) = rings(Some(0), sizes);
    let made = resident();
    (0..sizes.audit).for_each(|_| publisher.publish(&record));
    let full = resident();
    let entries = sizes.audit + sizes.security + sizes.telemetry;
    assert!(made - before > (entries * 128) as u64, "{} bytes", made - before);
    assert!(full - made < OTHER, "{} bytes", full - made);
    assert_eq!(feed.waiting(Class::Audit), sizes.audit);
    assert_eq!(std::iter::from_fn(|| feed.pop()).count(), sizes.audit, "nothing but what was published is in them");
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a process has a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("and memory");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("in kB");
    kib << 10
}
