//! Runs of many clients under everything that can happen, written as audit traces and judged by the verifier, which knows
//! nothing of the code that wrote them.

use jumpgate_audit::chain::{Author, ChainLines, Role, TimeAnchor};
use jumpgate_audit::timeline::{Filter, read};
use jumpgate_audit::verify::{Input, Options, Verdict, verify_bytes};
use jumpgate_protocol::audit::Record;
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::time::{Span, Time};
use jumpgate_sim::{Churn, Pace, World, WorldConfig, Writer};

/// Even ones: the gateway of an odd one crashes, and what it had written ends in the middle.
const SEEDS: [u64; 4] = [2, 4, 6, 8];
const CLIENTS: usize = 6;
/// Workers are not scheduled for up to 250 ms at a time, and once in a while twice in a row: their timers are as late.
const SLACK_MS: u64 = 500;

/// The trace of one author.
fn trace(role: Role, node: &str, records: &[(Option<u16>, Record)]) -> Vec<u8> {
    let author = Author { role, node_id: node.to_owned() };
    let mut lines = ChainLines::new(author, "boot-1".to_owned(), TimeAnchor::new(Time::ZERO, 1_767_225_600_000));
    let mut out = Vec::new();
    let begin = records.first().map_or(Time::ZERO, |(_, record)| record.at);
    let end = records.iter().map(|(_, record)| record.at).max().unwrap_or(begin);
    lines.start(&mut out, Some(begin), 0);
    for (worker, record) in records {
        lines.record(&mut out, *worker, record);
    }
    lines.end(&mut out, Some(end), lines.next_seq() + 1);
    out
}

fn judge(role: Role, node: &str, records: &[(Option<u16>, Record)]) {
    let text = trace(role, node, records);
    let (report, violations) = verify_bytes(&text, &Options { slack_ms: SLACK_MS, ..Options::default() });
    let lines: Vec<&str> = std::str::from_utf8(&text).expect("JSON is text").lines().collect();
    for violation in violations.iter().take(3) {
        // The life of the session up to there, without the hashes.
        let session = violation.session.map(|session| session.to_string()).unwrap_or_default();
        let until = lines.iter().take(violation.line as usize).filter(|line| line.contains(&session));
        let life: Vec<&str> = until.map(|line| line.split_once("\"ts_ms\"").map_or(*line, |(_, rest)| rest)).collect();
        eprintln!("{violation:?}\n{}", life[life.len().saturating_sub(12)..].join("\n"));
    }
    assert_eq!(report.verdict, Verdict::Valid, "{node}: {report:?}");
    assert!(report.sessions.seen > 0, "{node} wrote nothing");
}

#[test]
fn inv25_traces_of_random_runs_are_valid_at_both_ends() {
    for seed in SEEDS {
        let profile = [Profile::Mobile, Profile::Default, Profile::Fast][(seed % 3) as usize];
        let length = Span::from_millis(60_000);
        let churn = Churn { seed, sessions: CLIENTS, workers: 2, length, profile, pace: Pace::Storm };
        let (outcome, records) = churn.recorded(Policy::profile(profile));
        assert_eq!(outcome.violations, [] as [String; 0], "seed {seed}");
        let gateway = records.iter().filter_map(|(writer, record)| match writer {
            Writer::Desk => Some((None, *record)),
            Writer::Worker(worker) => Some((Some(*worker as u16), *record)),
            Writer::Client(_) => None,
        });
        judge(Role::Gateway, "gateway", &gateway.collect::<Vec<_>>());
        for client in 0..CLIENTS {
            let mirror = records.iter().filter(|(writer, _)| *writer == Writer::Client(client));
            let mirror: Vec<_> = mirror.map(|(_, record)| (None, *record)).collect();
            judge(Role::Client, &format!("client-{client} of seed {seed}"), &mirror);
        }
    }
}

#[test]
fn i07_the_same_seed_gives_byte_equal_audit_files() {
    let files = || {
        let length = Span::from_millis(30_000);
        let churn =
            Churn { seed: 12, sessions: CLIENTS, workers: 2, length, profile: Profile::Mobile, pace: Pace::Storm };
        let (_, records) = churn.recorded(Policy::profile(Profile::Mobile));
        let of = |gateway: bool| {
            let some = records.iter().filter(|(writer, _)| matches!(writer, Writer::Client(_)) != gateway);
            some.map(|(_, record)| (None, *record)).collect::<Vec<_>>()
        };
        (trace(Role::Gateway, "gateway", &of(true)), trace(Role::Client, "clients", &of(false)))
    };
    let (first, second) = (files(), files());
    assert!(first.0.len() > 10_000 && first.1.len() > 10_000, "there is something to compare");
    assert!(first == second, "the files differ");
}

#[test]
fn o09_the_timeline_of_a_session_is_what_the_simulator_saw_happen_to_it() {
    let policy = Policy::profile(Profile::Fast);
    let mut world = World::new(&WorldConfig { seed: 41, workers: 1, policy }, 1, 2);
    world.keep_records();
    world.course = Some(Vec::new());
    world.connect_now(0);
    for path in [1, 2, 1] {
        world.link_down(0, path);
        world.run_for(Span::from_millis(1_500));
        world.link_up(0, path);
        world.run_for(Span::from_millis(4_000));
    }
    world.disconnect(0);
    world.run_for(Span::from_millis(1_000));
    let records = world.records().kept().iter().filter(|(writer, _)| !matches!(writer, Writer::Client(_)));
    let text = trace(Role::Gateway, "gateway", &records.map(|(_, record)| (None, *record)).collect::<Vec<_>>());
    let stories = read(vec![Input::bytes("trace", &text)], &Filter::default()).expect("a trace");
    assert_eq!(stories.len(), 1, "one session lives through all of it");
    let told = stories[0].changes.iter().map(|change| {
        (change.version, change.transition.as_str(), change.from.as_str(), change.to.as_str(), change.reason.as_str())
    });
    let course = world.course.as_ref().expect("it was followed");
    let truth = course.iter().map(|(_, transition)| {
        let (from, to) = (transition.from.name(), transition.to.name());
        (transition.version, transition.id.name(), from, to, transition.reason.name())
    });
    assert_eq!(told.collect::<Vec<_>>(), truth.collect::<Vec<_>>());
    let anchor_ms = stories[0].changes[0].at_ms - course[0].1.at.as_millis();
    for (change, (_, transition)) in stories[0].changes.iter().zip(course) {
        assert_eq!(change.at_ms, anchor_ms + transition.at.as_millis());
        assert_eq!(change.transport, transition.active.map(|binding| u64::from(binding.transport.0)));
    }
    assert!(stories[0].switches.len() >= 3 && stories[0].windows.iter().all(|window| window.outcome.is_some()));
    assert_eq!(stories[0].end.as_deref(), Some("PEER_TERMINATED"));
}
