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

/// More sessions lose records than a gap names.
#[test]
fn o05_sessions_whose_losses_are_not_told_one_by_one_are_excused_as_well() {
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
    assert_no_gap_condemns(&trace.records, 4, 3);
    assert_no_gap_condemns(&sampled(&trace.records), 4, 29);
}

#[test]
fn o05_a_gap_excuses_nothing_that_comes_after_it() {
    let records = full_life().records;
    let is_change = |record: &Record| matches!(record.event, Event::SessionStateChange { .. });
    let mut found = 0;
    // Asleep early: the gap is declared with the record behind it. Of what follows, one transition is taken away.
    for taken in (25..records.len()).filter(|number| is_change(&records[*number])) {
        let kept: Vec<Record> = records.iter().enumerate().filter(|(n, _)| *n != taken).map(|(_, one)| *one).collect();
        let (report, violations, lost) = judge(&kept, 8, 3..20);
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
