//! What is promised and which tests show it: every transition, invariant, reason code and scenario against the tests
//! that cite its id. One without a test fails the check, unless it stands in [`LATER`] with the cause.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use jumpgate_protocol::machine;
use jumpgate_protocol::reason::Reason;

use super::tests::{self, Test};
use super::{SPECIFICATION, root};

/// Where the scenarios are described, one a line: `- TC01 (...) ...`.
const SCENARIOS: &str = "docs/test-scenarios.md";
/// What the id of a scenario begins with; its number follows.
const SCENARIO_FAMILIES: [&str; 7] = ["TC", "I", "A", "P", "K", "O", "S"];
/// Tests of one subject that the table shows; a common code has dozens.
const SHOWN: usize = 4;
/// Why an id of the cluster chapter has no test.
const CLUSTER: &str = "cluster: not part of this version (OW-1 to OW-12)";
/// Why a code of lost compare-and-swaps is never given.
const ONE_WRITER: &str = "one writer for each session: a commit cannot lose a race (AS-4); reserved for the cluster";
/// What shows a row of the load tier: a stored run, and what that is judged by. Its small form in CI fails on a safety
/// counter, on a trail that is INVALID or unreadable, or on an empty result, never on a time.
macro_rules! load {
    ($command:literal, $judged:literal) => {
        concat!(
            "load: `cargo xtask bench ",
            $command,
            "`, stored in bench/results; judged are safety counters, audit trail, ",
            $judged,
            "; a small form of it runs in CI (`bench smoke`)"
        )
    };
}
/// Ids that no test can show yet, each with its cause. An id that has a test all the same must leave this list.
const LATER: &[(&str, &str)] = &[
    ("OWNERSHIP_CREATED", CLUSTER),
    ("OWNERSHIP_NOT_FOUND", CLUSTER),
    ("OWNERSHIP_ALREADY_EXISTS", CLUSTER),
    ("OWNERSHIP_NO_CHANGE", CLUSTER),
    ("OWNERSHIP_TRANSFER_DENIED_NOT_OWNER", CLUSTER),
    ("LEASE_LOST", CLUSTER),
    ("DUAL_BIND_FORBIDDEN", ONE_WRITER),
    ("I09", CLUSTER),
    ("K01", CLUSTER),
    ("K02", CLUSTER),
    ("K03", CLUSTER),
    ("K04", CLUSTER),
    ("K05", CLUSTER),
    ("K06", CLUSTER),
    ("K07", CLUSTER),
    (
        "S01",
        load!(
            "churn --clients 1000 --seconds 300",
            "sessions lost outside of policy, medians of look-up, transition and eviction in the second half beside \
             the first, and its growth of memory, open files, steering maps"
        ),
    ),
    (
        "S02",
        load!(
            "churn --clients 10000 --seconds 300",
            "the same as of S01; memory per session is reported here and has its budget in the run of S07"
        ),
    ),
    (
        "S03",
        load!(
            "storm --clients 1000 --bystanders 9000",
            "sessions lost, the last one back, p99 of a reattach; the delay of others counts as missed, since so \
             short a storm has too few echoes for a p99; validations are counted and reported"
        ),
    ),
    (
        "S04",
        load!(
            "storm --clients 10000",
            "sessions lost, the last one back, p99 of a reattach, p99 of the delay of others"
        ),
    ),
    (
        "S05",
        "load: a soak of 24 h was not run. Its shortened form is the run of S02, five minutes, which judges the growth \
         of memory, of open files and of steering maps, and that no more sessions are held than there are clients. \
         That no ended session is held is judged by the simulation as well (10 000 sessions for ten virtual minutes in \
         CI)",
    ),
    (
        "S07",
        load!(
            "handshake --clients 100000 --arrivals 2500",
            "sessions held, and their memory (400 MB for all); its intervals are longer than a profile's (see the \
             result), nothing is claimed"
        ),
    ),
];

/// Something that needs a test.
struct Subject {
    /// How documents call it.
    id: String,
    /// How else a test may cite it.
    alias: Option<String>,
}

impl Subject {
    fn is_cited_by(&self, test: &Test) -> bool {
        test.cites(&self.id) || self.alias.as_deref().is_some_and(|alias| test.cites(alias))
    }

    fn later(&self) -> Option<&'static str> {
        LATER.iter().find(|(id, _)| *id == self.id).map(|(_, cause)| *cause)
    }
}

/// The transitions and the tests that cite them.
pub(crate) fn transitions() -> String {
    table(&transition_subjects())
}

/// The invariants and the tests that cite them.
pub(crate) fn invariants() -> String {
    table(&invariant_subjects())
}

/// The reason codes and the tests that cite them.
pub(crate) fn reasons() -> String {
    table(&reason_subjects())
}

/// The scenarios and the tests that cite them.
pub(crate) fn scenarios() -> String {
    table(&scenario_subjects())
}

/// What has no test and should, what has one and is said to have none, and scenarios that nobody described.
pub(crate) fn gaps() -> Vec<String> {
    let tests = tests::all(&root());
    let subjects = [transition_subjects(), invariant_subjects(), reason_subjects(), scenario_subjects()];
    let mut gaps = Vec::new();
    for subject in subjects.iter().flatten() {
        let tested = tests.iter().any(|test| subject.is_cited_by(test));
        match (tested, subject.later()) {
            (false, None) => gaps.push(format!("{} has no test that cites it", subject.id)),
            (true, Some(_)) => gaps.push(format!("{} has a test now: take it out of LATER in coverage.rs", subject.id)),
            _ => {}
        }
    }
    let known: BTreeSet<&str> = subjects.iter().flatten().map(|subject| subject.id.as_str()).collect();
    let unknown = LATER.iter().map(|(id, _)| *id).filter(|id| !known.contains(id));
    gaps.extend(unknown.map(|id| format!("LATER in coverage.rs names {id}, which nothing defines")));
    gaps
}

fn transition_subjects() -> Vec<Subject> {
    machine::TABLE.iter().map(|row| Subject { id: row.id.name().to_owned(), alias: None }).collect()
}

fn invariant_subjects() -> Vec<Subject> {
    let specification = fs::read_to_string(root().join(SPECIFICATION)).unwrap_or_default();
    let rows = specification.lines().filter_map(|line| line.strip_prefix("| INV-"));
    let numbers = rows.filter_map(|row| row.split([' ', '|']).next());
    numbers.map(|number| Subject { id: format!("INV-{number}"), alias: None }).collect()
}

/// A test cites a code by its name in documents or in the code.
fn reason_subjects() -> Vec<Subject> {
    let all = Reason::ALL.iter();
    all.map(|reason| Subject { id: reason.name().to_owned(), alias: Some(format!("{reason:?}")) }).collect()
}

fn scenario_subjects() -> Vec<Subject> {
    let document = fs::read_to_string(root().join(SCENARIOS)).unwrap_or_default();
    let ids = document.lines().filter_map(|line| line.strip_prefix("- ")?.split(' ').next());
    ids.filter(|id| is_scenario(id)).map(|id| Subject { id: id.to_owned(), alias: None }).collect()
}

/// Whether it is the id of a scenario.
fn is_scenario(id: &str) -> bool {
    let number = id.trim_start_matches(|letter: char| letter.is_ascii_uppercase());
    let family = &id[..id.len() - number.len()];
    SCENARIO_FAMILIES.contains(&family) && number.len() >= 2 && number.bytes().all(|digit| digit.is_ascii_digit())
}

fn table(subjects: &[Subject]) -> String {
    let tests = tests::all(&root());
    let mut out = String::from("| Id | Test | In |\n|---|---|---|\n");
    for subject in subjects {
        let citing: Vec<&Test> = tests.iter().filter(|test| subject.is_cited_by(test)).collect();
        if citing.is_empty() {
            let cause = subject.later().unwrap_or("**none**");
            let _ = writeln!(out, "| {} | {cause} | |", subject.id);
        }
        for (place, test) in citing.iter().take(SHOWN).enumerate() {
            let id = if place == 0 { subject.id.as_str() } else { "" };
            let _ = writeln!(out, "| {id} | {} | `{}` |", test.sentence, test.file);
        }
        if let Some(more) = citing.len().checked_sub(SHOWN + 1) {
            let _ = writeln!(out, "| | and {} more | |", more + 1);
        }
    }
    out
}
