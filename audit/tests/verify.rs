//! What the verifier must accept (O06).

mod support;

use jumpgate_audit::verify::{Code, Input, Options, Report, Verdict, Violation, verify, verify_bytes};
use jumpgate_protocol::audit::{Event, OwnNode, RestartAction};
use jumpgate_protocol::machine::TransitionId;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::wire::Cause;
use support::{Life, Trace, full_life};

fn judge(text: &str) -> (Report, Vec<Violation>) {
    verify_bytes(text.as_bytes(), &Options::default())
}

#[track_caller]
fn assert_verdict(verdict: Verdict, text: &str) {
    let (report, violations) = judge(text);
    assert_eq!((report.verdict, &violations[..]), (verdict, &[][..]), "{:?}", report.notes);
}

/// Judges files of one trace, given in the wrong order.
fn judge_files(texts: &[&str], options: &Options) -> (Report, Vec<Violation>) {
    let inputs = texts.iter().enumerate().rev().map(|(n, text)| Input::bytes(&format!("file {n}"), text.as_bytes()));
    let mut violations = Vec::new();
    let report = verify(inputs.collect(), options, |violation| violations.push(violation));
    (report, violations)
}

#[test]
fn o06_a_whole_life_is_valid() {
    assert_verdict(Verdict::Valid, &full_life().text());
    let closed = Options { closed: true, head: full_life().lines.head(), ..Options::default() };
    let (report, violations) = verify_bytes(&full_life().out, &closed);
    assert_eq!((report.verdict, violations), (Verdict::Valid, vec![]), "{:?}", report.notes);
    assert_eq!((report.sessions.seen, report.sessions.ended), (1, 1));
}

#[test]
fn o06_three_versions_in_one_tick_are_valid_and_so_is_t16_again() {
    let mut trace = Trace::gateway();
    let mut life = trace.attach(1);
    trace.peer_moves(&mut life, 2, Cause::Quality);
    trace.wait(3_000);
    trace.unstable(&mut life);
    trace.die(&mut life, TransitionId::T16);
    trace.go(&mut life, TransitionId::T08b, Reason::PeerReattach, None);
    trace.attempt(&life, 1, 1);
    trace.commit(&mut life, 1, Cause::HardDead);
    trace.wait(3_000);
    trace.unstable(&mut life);
    trace.die(&mut life, TransitionId::T16);
    assert_verdict(Verdict::Valid, &trace.text());
}

/// Two moves for quality, so far apart: within the cooldown (1500 ms) the second one needs a binding that is not validated.
fn moves_again_after(ms: u64) -> Trace {
    let mut trace = Trace::gateway();
    let mut life = trace.attach(1);
    trace.wait(5_000);
    trace.peer_moves(&mut life, 2, Cause::Quality);
    trace.wait(ms);
    trace.peer_moves(&mut life, 1, Cause::Quality);
    trace
}

#[test]
fn sm16_a_binding_may_be_replaced_in_the_cooldown_until_the_time_for_its_validation_is_over_to_the_millisecond() {
    // 999.9 ms can be 1000 ms once both times are cut to whole milliseconds.
    for ms in [1, 999, 1_000, 1_500, 2_000] {
        assert_verdict(Verdict::Valid, &moves_again_after(ms).text());
    }
    for ms in [1_001, 1_002, 1_400] {
        let (report, violations) = judge(&moves_again_after(ms).text());
        assert_eq!(report.verdict, Verdict::Invalid, "after {ms} ms");
        assert!(violations.iter().all(|violation| violation.code == Code::Rate), "{violations:?}");
    }
}

/// A session of worker 0 that worker 1 has taken over, as it says under that epoch and from that worker.
fn handed_over(fencing_epoch: u64, previous_worker: u16) -> (Trace, support::Life) {
    let mut trace = Trace::gateway();
    let life = trace.attach(1);
    trace.worker = Some(1);
    let event = Event::SessionOwnerTransferred {
        owner_node_id: OwnNode,
        previous_owner: OwnNode,
        fencing_epoch,
        previous_worker: Some(previous_worker),
    };
    trace.write(&life, Some(Reason::OwnershipTransferred), event);
    (trace, life)
}

#[track_caller]
fn assert_wrong_owner(trace: &Trace) {
    let (report, violations) = judge(&trace.text());
    let codes: Vec<Code> = violations.iter().map(|violation| violation.code).collect();
    assert_eq!((report.verdict, &codes[..]), (Verdict::Invalid, &[Code::Owner][..]), "{violations:#?}");
}

#[test]
fn sl4_a_session_may_go_to_another_worker_and_back_without_a_change_of_version_or_epoch() {
    let (mut trace, mut life) = handed_over(2, 0);
    trace.unstable(&mut life);
    trace.worker = Some(0);
    let event = Event::SessionOwnerTransferred {
        owner_node_id: OwnNode,
        previous_owner: OwnNode,
        fencing_epoch: 3,
        previous_worker: Some(1),
    };
    trace.write(&life, Some(Reason::OwnershipTransferred), event);
    trace.peer_moves(&mut life, 2, Cause::Quality);
    assert_verdict(Verdict::Valid, &trace.text());
}

#[test]
fn k08_a_record_of_a_worker_that_was_superseded_is_found() {
    let (mut trace, mut life) = handed_over(2, 0);
    trace.worker = Some(0);
    trace.go(&mut life, TransitionId::T19, Reason::OperatorTerminated, Some(1));
    let (report, violations) = judge(&trace.text());
    assert_eq!(report.verdict, Verdict::Invalid);
    assert!(violations.iter().any(|violation| violation.code == Code::Owner), "{violations:#?}");
}

#[test]
fn ow12_a_hand_over_from_a_worker_that_did_not_have_the_session_or_under_an_old_epoch_is_found() {
    assert_wrong_owner(&handed_over(2, 7).0);
    assert_wrong_owner(&handed_over(0, 0).0);
}

#[test]
fn o06_sessions_may_interleave() {
    let mut trace = Trace::gateway();
    let mut lives: Vec<_> = (1..=20).map(|name| trace.attach(name)).collect();
    for life in &mut lives {
        trace.wait(1);
        trace.unstable(life);
    }
    trace.wait(2_000);
    for life in lives.iter_mut().rev() {
        trace.go(life, TransitionId::T07, Reason::HealthRecovered, Some(1));
    }
    assert_verdict(Verdict::Valid, &trace.text());
}

#[test]
fn ob09_a_chain_runs_on_over_rotation_and_restart() {
    let mut first = Trace::gateway();
    let mut life = first.attach(1);
    first.end();
    // The same process goes on in the next file; the session with it.
    let mut second = first.next_file("boot-1", 0);
    second.wait(100);
    second.finish(&mut life, TransitionId::T24, Reason::PeerTerminated);
    second.end();
    let mut third = second.next_file("boot-2", 0);
    third.attach(2);
    let texts = [first.text(), second.text(), third.text()];
    let texts = [texts[0].as_str(), &texts[1], &texts[2]];
    let head = Options { head: third.lines.head(), ..Options::default() };
    let (report, violations) = judge_files(&texts, &head);
    assert_eq!((report.verdict, violations), (Verdict::Valid, vec![]), "{:?}", report.notes);
    assert_eq!(report.files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["file 0", "file 1", "file 2"]);
    // Without the middle the chain has a hole.
    let (report, violations) = judge_files(&[texts[0], texts[2]], &head);
    assert_eq!(report.verdict, Verdict::Invalid, "{violations:?}");
    // Without the beginning it is not whole, but nothing is wrong.
    let (report, violations) = judge_files(&texts[1..], &head);
    assert_eq!((report.verdict, violations), (Verdict::Incomplete, vec![]), "{:?}", report.notes);
}

#[test]
fn ob09_a_crash_makes_a_trace_incomplete_and_its_sessions_lost() {
    let mut first = Trace::gateway();
    first.attach(1);
    let mut second = first.next_file("boot-2", 77);
    second.attach(2);
    let (report, violations) = judge_files(&[&first.text(), &second.text()], &Options::default());
    assert_eq!((report.verdict, violations), (Verdict::Incomplete, vec![]));
    assert_eq!((report.sessions.lost, report.sessions.open), (1, 1));
}

fn restart(trace: &mut Trace, action: RestartAction, reason: Reason) {
    trace.worker = None;
    trace.record(None, (Some(reason), None), Event::GatewayRestart { action, sessions: 1 });
    trace.worker = Some(0);
}

/// A session that waits in VOLATILE, handed over, and the trace of the next run after a while that is longer than it may.
fn over_a_restart() -> (Trace, Trace, Life) {
    let mut first = Trace::gateway();
    let mut life = first.attach(1);
    first.unstable(&mut life);
    first.wait(10);
    restart(&mut first, RestartAction::HandedOver, Reason::OwnershipOk);
    first.end();
    let mut second = first.next_file("boot-2", 0);
    second.wait(60_000);
    (first, second, life)
}

#[test]
fn k09_ow8_a_session_goes_on_in_the_next_run_without_a_second_birth_and_its_limits_fire_then() {
    let (first, mut second, mut life) = over_a_restart();
    restart(&mut second, RestartAction::TakenOver, Reason::OwnershipOk);
    second.go(&mut life, TransitionId::T09, Reason::VolatilePersisted, Some(1));
    second.wait(100);
    second.finish(&mut life, TransitionId::T24, Reason::PeerTerminated);
    second.end();
    let options = Options { closed: true, ..Options::default() };
    let (report, violations) = judge_files(&[&first.text(), &second.text()], &options);
    assert_eq!((report.verdict, violations), (Verdict::Valid, vec![]), "{:?}", report.notes);
    assert_eq!((report.sessions.seen, report.sessions.ended, report.sessions.lost), (1, 1, 0));
    // A limit is not stretched further than that.
    let (first, mut second, mut life) = over_a_restart();
    restart(&mut second, RestartAction::TakenOver, Reason::OwnershipOk);
    second.wait(1_000);
    second.go(&mut life, TransitionId::T09, Reason::VolatilePersisted, Some(1));
    let (report, violations) = judge_files(&[&first.text(), &second.text()], &Options::default());
    assert_eq!(report.verdict, Verdict::Invalid);
    assert_eq!(violations.iter().map(|one| one.code).collect::<Vec<_>>(), [Code::Time]);
}

#[test]
fn k11_a_hand_over_that_was_refused_or_never_found_loses_its_sessions_and_nothing_revives_them() {
    let (first, mut second, _) = over_a_restart();
    restart(&mut second, RestartAction::Refused, Reason::AuthFail);
    second.attach(2);
    second.end();
    let (report, violations) = judge_files(&[&first.text(), &second.text()], &Options::default());
    assert_eq!((report.verdict, violations), (Verdict::Valid, vec![]), "{:?}", report.notes);
    assert_eq!((report.sessions.lost, report.sessions.open), (1, 1));
    let (first, mut second, _) = over_a_restart();
    second.attach(2);
    second.end();
    let (report, violations) = judge_files(&[&first.text(), &second.text()], &Options::default());
    assert_eq!((report.verdict, violations), (Verdict::Valid, vec![]), "the file was lost with the machine");
    assert_eq!(report.sessions.lost, 1);
    let (first, mut second, mut life) = over_a_restart();
    second.go(&mut life, TransitionId::T09, Reason::VolatilePersisted, Some(1));
    let (report, _) = judge_files(&[&first.text(), &second.text()], &Options::default());
    assert_eq!(report.verdict, Verdict::Invalid, "it goes on, and nobody took it over");
}

#[test]
fn o06_a_tail_that_is_cut_is_incomplete_at_every_byte_and_told_by_the_head() {
    let trace = full_life();
    let head = Options { head: trace.lines.head(), ..Options::default() };
    let begin = trace.out.len() - 2_000;
    for end in begin..trace.out.len() {
        let (report, _) = verify_bytes(&trace.out[..end], &Options::default());
        let at_line_end = trace.out[..end].ends_with(b"\n");
        let expected = if at_line_end { Verdict::Valid } else { Verdict::Incomplete };
        assert_eq!(report.verdict, expected, "cut at {end}");
        assert_eq!(verify_bytes(&trace.out[..end], &head).0.verdict, Verdict::Invalid, "cut at {end}");
    }
}

#[test]
fn o06_an_open_session_is_incomplete_only_where_a_closed_trace_is_asked_for() {
    let mut trace = Trace::gateway();
    trace.attach(1);
    trace.end();
    assert_verdict(Verdict::Valid, &trace.text());
    let closed = Options { closed: true, ..Options::default() };
    let (report, _) = verify_bytes(&trace.out, &closed);
    assert_eq!(report.verdict, Verdict::Incomplete);
}

#[test]
fn o06_what_is_no_trace_is_unreadable() {
    for bytes in [&b"\x1f\x8b\x08\x00\x00"[..], b"hello\n", b"{}\n", b"[]\n\n\n\n"] {
        let (report, _) = verify_bytes(bytes, &Options::default());
        assert_eq!((report.verdict, report.verdict.exit_code()), (Verdict::Unreadable, 2), "{bytes:?}");
    }
    let (report, _) = verify_bytes(b"", &Options::default());
    assert_eq!((report.verdict, report.verdict.exit_code()), (Verdict::Incomplete, 3));
    let later = full_life().text().replace("\"schema_version\":1", "\"schema_version\":2");
    assert_eq!(judge(&later).0.verdict, Verdict::Unreadable);
    let nowhere = verify(vec![Input::open("/nonexistent/x.jsonl".as_ref())], &Options::default(), |_| {});
    assert_eq!(nowhere.verdict, Verdict::Unreadable);
}

#[test]
fn ob13_unknown_fields_are_ignored() {
    let lines: Vec<_> = support::lines(&full_life().text())
        .into_iter()
        .map(|line| line.replacen("\"details\"", "\"colour\":{\"of\":[\"the\",1]},\"details\"", 1))
        .collect();
    assert_verdict(Verdict::Valid, &support::rechain(&lines));
}
