//! A head that was kept elsewhere protects every byte (A28, OB-10).

mod support;

use jumpgate_audit::verify::{Options, Verdict, verify_bytes};
use jumpgate_protocol::machine::TransitionId;
use jumpgate_protocol::reason::Reason;
use support::{Trace, full_life};

#[track_caller]
fn assert_noticed(bytes: &[u8], options: &Options, change: &str) {
    let verdict = verify_bytes(bytes, options).0.verdict;
    assert!(matches!(verdict, Verdict::Invalid | Verdict::Unreadable), "{change} is {verdict}");
}

/// Every byte of a short trace, changed in several ways.
#[test]
fn a28_with_its_head_given_no_byte_of_a_trace_can_be_changed_unnoticed() {
    let mut trace = Trace::gateway();
    let mut life = trace.attach(1);
    trace.wait(10);
    trace.finish(&mut life, TransitionId::T19, Reason::OperatorTerminated);
    trace.end();
    let options = Options { head: trace.lines.head(), ..Options::default() };
    assert_eq!(verify_bytes(&trace.out, &options).0.verdict, Verdict::Valid);
    let mut bytes = trace.out.clone();
    for at in 0..bytes.len() {
        let original = bytes[at];
        for changed in [original ^ 1, original ^ 0x20, b'\n', 0xff] {
            if changed != original {
                bytes[at] = changed;
                assert_noticed(&bytes, &options, &format!("byte {at}: {original:#x} to {changed:#x}"));
            }
        }
        bytes[at] = original;
    }
}

#[test]
fn a28_with_its_head_given_no_byte_can_be_changed_inserted_or_removed_in_a_long_life() {
    let trace = full_life();
    let options = Options { head: trace.lines.head(), ..Options::default() };
    assert_eq!(verify_bytes(&trace.out, &options).0.verdict, Verdict::Valid);
    for at in (0..trace.out.len()).step_by(37) {
        let (mut changed, mut longer, mut shorter) = (trace.out.clone(), trace.out.clone(), trace.out.clone());
        changed[at] ^= 1;
        longer.insert(at, b' ');
        shorter.remove(at);
        for bytes in [changed, longer, shorter] {
            assert_noticed(&bytes, &options, &format!("byte {at}"));
        }
    }
}
