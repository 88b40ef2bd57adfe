//! What lost records excuse (O05, OB-06): wherever a gap begins and ends, the trace is incomplete, and what is left is sound.

mod support;

use std::ops::Range;

use jumpgate_audit::chain::Notice;
use jumpgate_audit::ring::{Feed, Item, RingSizes, rings};
use jumpgate_audit::verify::{Code, Options, Report, Verdict, Violation, verify_bytes};
use jumpgate_protocol::audit::{Class, Event, PolicyRef, Record, Standing};
use jumpgate_protocol::machine::{State, TransitionId};
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::wire::Cause;
use support::{Life, Trace, full_life};

const WORKER: Option<u16> = Some(0);

fn write(trace: &mut Trace, item: Item) {
    match item {
        Item::Record(record) => trace.lines.record(&mut trace.out, WORKER, &record),
        Item::RingGap { at, lost: (first, last), count, .. } => {
            trace.lines.notice(&mut trace.out, WORKER, Some(at), &Notice::RingGap { first, last, count });
        }
        Item::SessionGap { at, standing, from_version, count } => {
            let notice = Notice::SessionGap { standing, from_version, count };
            trace.lines.notice(&mut trace.out, WORKER, Some(at), &notice);
        }
    }
}

fn drain(feed: &mut Feed, trace: &mut Trace) {
    while let Some(entry) = feed.pop() {
        write(trace, entry.item);
    }
}

/// The records through a ring of that size whose reader sleeps meanwhile: the verdict, and how many records were lost.
fn judge(records: &[Record], ring: usize, asleep: Range<usize>) -> (Report, Vec<Violation>, u64) {
    let (mut publisher, mut feed) = rings(WORKER, RingSizes { audit: ring, security: 32, telemetry: 256 });
    let mut trace = Trace::gateway();
    for (number, record) in records.iter().enumerate() {
        publisher.publish(record);
        if !asleep.contains(&number) {
            drain(&mut feed, &mut trace);
        }
    }
    drop(publisher);
    drain(&mut feed, &mut trace);
    feed.take_leftover().into_iter().for_each(|item| write(&mut trace, item));
    let (report, violations) = verify_bytes(&trace.out, &Options::default());
    (report, violations, feed.counters().lost(Class::Audit))
}

/// The records with a sample behind each of them: samples have a ring of their own, which does not overflow.
fn sampled(records: &[Record]) -> Vec<Record> {
    let sample =
        Event::Telemetry { rtt_ms: None, jitter_ms: None, loss_ratio: None, hb_age_ms: 10, packets: 0, bytes: 0 };
    let policy = PolicyRef { version: Policy::profile(Profile::Default).version, sequence: 1 };
    let behind = |record: &Record| {
        let alive = record.standing().filter(|standing| standing.state != State::Terminated)?;
        Some(Record::new(record.at, Some(alive), policy, (None, None), sample))
    };
    records.iter().flat_map(|record| [Some(*record), behind(record)]).flatten().collect()
}

/// Every gap that there can be in these records, with a ring of that size; or one in so many of them.
#[track_caller]
fn assert_no_gap_condemns(records: &[Record], ring: usize, one_in: usize) {
    let mut with_losses = 0;
    for begin in 0..records.len() {
        for end in (begin + ring..=records.len()).filter(|end| (begin + end) % one_in == 0) {
            let (report, violations, lost) = judge(records, ring, begin..end);
            let expected = if lost > 0 { Verdict::Incomplete } else { Verdict::Valid };
            let shown: Vec<_> = violations.iter().map(ToString::to_string).collect();
            assert_eq!((report.verdict, &shown[..]), (expected, &[][..]), "asleep {begin}..{end}, {lost} lost");
            with_losses += u32::from(lost > 0);
        }
    }
    assert!(with_losses > 100, "{with_losses}");
}

#[test]
fn o05_a_gap_that_begins_and_ends_anywhere_in_a_life_condemns_nothing_that_is_left() {
    assert_no_gap_condemns(&full_life().records, 8, 1);
}

/// Their standing may be ahead of all that is told of the session until the gap is declared.
#[test]
fn o05_samples_that_outlive_the_records_around_them_condemn_nothing() {
    assert_no_gap_condemns(&sampled(&full_life().records), 8, 11);
}

/// Five sessions that move twice and end; three records of each birth come first.
fn five_lives() -> Vec<Record> {
    let mut trace = Trace::gateway();
    let mut lives: Vec<Life> = (1..=5).map(|name| trace.attach(name)).collect();
    for turn in 0..2 {
        trace.wait(10_000);
        lives.iter_mut().for_each(|life| trace.peer_moves(life, 2 + turn, Cause::Silence));
        lives.iter().for_each(|life| {
            trace.attempt(life, 1, 1);
            trace.denied(life, Reason::CooldownActive);
        });
    }
    trace.wait(10_000);
    lives.iter_mut().for_each(|life| trace.finish(life, TransitionId::T19, Reason::OperatorTerminated));
    trace.records
}

/// More sessions lose records than a gap names.
#[test]
fn o05_sessions_whose_losses_are_not_told_one_by_one_are_excused_as_well() {
    let records = five_lives();
    assert_no_gap_condemns(&records, 4, 3);
    assert_no_gap_condemns(&sampled(&records), 4, 29);
}

fn is_change(record: &Record) -> bool {
    matches!(record.event, Event::SessionStateChange { .. })
}

fn without(records: &[Record], taken: usize) -> Vec<Record> {
    records.iter().enumerate().filter(|(number, _)| *number != taken).map(|(_, record)| *record).collect()
}

#[test]
fn o05_each_session_is_excused_but_once_for_losses_that_are_not_told_one_by_one() {
    let records = five_lives();
    // The second half of the lives: each session has shown where it stands since the gap.
    for taken in (records.len() / 2..records.len()).filter(|number| is_change(&records[*number])) {
        let (report, violations, lost) = judge(&without(&records, taken), 4, 2..14);
        assert!(lost > 4, "more than the gap names");
        assert_eq!(report.verdict, Verdict::Invalid, "without {:?}", records[taken].event);
        assert!(violations.iter().any(|violation| violation.code == Code::Version), "{violations:?}");
    }
}

/// The bounds of a policy that came within the gap are not known; those of the one before hold as long as it does.
#[test]
fn o05_times_are_judged_after_a_gap_unless_the_policy_may_have_changed_in_it() {
    let mut trace = Trace::gateway();
    let mut life = trace.attach(1);
    (0..20).for_each(|_| trace.denied(&life, Reason::CooldownActive));
    let after_gap = trace.records.len();
    trace.unstable(&mut life);
    trace.wait(100_000);
    trace.go(&mut life, TransitionId::T09, Reason::VolatilePersisted, Some(1));
    let mut records = trace.records;
    let (report, violations, lost) = judge(&records, 4, 3..after_gap - 1);
    assert_eq!((report.verdict, lost > 0), (Verdict::Invalid, true));
    assert!(violations.iter().all(|violation| violation.code == Code::Time), "{violations:?}");
    records[after_gap..].iter_mut().for_each(|record| record.policy_sequence += 1);
    let (report, violations, _) = judge(&records, 4, 3..after_gap - 1);
    assert_eq!((report.verdict, violations), (Verdict::Incomplete, vec![]));
}

#[test]
fn o05_an_end_of_which_a_gap_told_is_completed_but_once() {
    let mut records = full_life().records;
    let entry = records.iter().rposition(is_change).expect("the entry to TERMINATED");
    assert_eq!(entry, records.len() - 2, "SessionTerminated follows alone");
    let (report, violations, lost) = judge(&records, 8, entry - 10..entry);
    assert_eq!((report.verdict, violations, lost > 0), (Verdict::Incomplete, vec![], true));
    records.push(records[entry + 1]);
    let (report, violations, _) = judge(&records, 8, entry - 10..entry);
    assert_eq!(report.verdict, Verdict::Invalid);
    assert!(violations.iter().all(|violation| violation.code == Code::End), "{violations:?}");
}

#[test]
fn o05_a_gap_excuses_nothing_that_comes_after_it() {
    let records = full_life().records;
    let mut found = 0;
    // Asleep early: the gap is declared with the record behind it. Of what follows, one transition is taken away.
    for taken in (25..records.len()).filter(|number| is_change(&records[*number])) {
        let (report, violations, lost) = judge(&without(&records, taken), 8, 3..20);
        assert!(lost > 0 && report.gaps.1 == lost);
        assert_eq!(report.verdict, Verdict::Invalid, "without {:?}", records[taken].event);
        assert!(violations.iter().any(|violation| violation.code == Code::Version), "{violations:?}");
        found += 1;
    }
    assert!(found >= 8, "{found}");
}

#[test]
fn o06_a_sample_of_a_version_that_no_transition_made_is_found_where_nothing_is_lost() {
    let mut records = sampled(&full_life().records);
    let early =
        records.iter().position(|record| matches!(record.event, Event::Telemetry { .. })).expect("there is one");
    let standing = records[early].standing().expect("of a session");
    let policy = PolicyRef { version: records[early].policy_version, sequence: records[early].policy_sequence };
    let ahead = Standing { version: standing.version + 1, ..standing };
    records[early] = Record::new(records[early].at, Some(ahead), policy, (None, None), records[early].event);
    let (report, violations, lost) = judge(&records, 64, 0..0);
    assert_eq!((report.verdict, lost), (Verdict::Invalid, 0));
    assert!(violations.iter().all(|violation| violation.code == Code::Version), "{violations:?}");
}
