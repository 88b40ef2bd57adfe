//! Many clients over bad networks, for a corpus of seeds: no checker finds anything, and equal seeds run equally.

use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::time::Span;
use jumpgate_sim::{Churn, Outcome, Pace, Watch};

/// Number of seeds in the corpus; more of them for a long night.
const SEEDS: &str = "JUMPGATE_SIM_SEEDS";
/// Seeds of every ordinary run.
const DEFAULT_SEEDS: u64 = 12;
/// Seeds that once found a defect, with the number of clients and seconds that it took.
const FOUND_SOMETHING: [(u64, usize, u64); 2] = [
    // A question of the last session was still waiting when the next one asked under the same counter.
    (4, 6, 60),
    (32, 12, 120),
];

fn churn(seed: u64, sessions: usize, seconds: u64) -> Churn {
    let profile = [Profile::Mobile, Profile::Default, Profile::Fast][(seed % 3) as usize];
    Churn { seed, sessions, workers: 2, length: Span::from_millis(seconds * 1_000), profile, pace: Pace::Storm }
}

fn run(seed: u64, sessions: usize, seconds: u64) -> Outcome {
    churn(seed, sessions, seconds).run()
}

/// The same, with the gateway's audit trace written and judged.
fn judged(seed: u64, sessions: usize, seconds: u64) -> Outcome {
    let directory = tempfile::tempdir().expect("a directory");
    let watch = Watch { audit: Some(directory.path().to_owned()), ..Watch::default() };
    let churn = churn(seed, sessions, seconds);
    churn.watched(Policy::profile(churn.profile), &watch)
}

#[test]
fn i12_the_invariants_hold_for_every_seed_of_the_corpus() {
    let seeds = std::env::var(SEEDS).ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(DEFAULT_SEEDS);
    for (seed, sessions, seconds) in (0..seeds).map(|seed| (seed, 8, 60)).chain(FOUND_SOMETHING) {
        let outcome = judged(seed, sessions, seconds);
        assert_eq!(outcome.violations, [] as [String; 0], "seed {seed}");
        assert!(outcome.is_good(), "seed {seed}: {:?}", outcome.traces);
        assert!(outcome.traces[0].records > 100, "seed {seed} wrote nothing: {:?}", outcome.traces);
        assert_eq!(outcome.connected, sessions, "seed {seed}");
        assert!(outcome.commits > 0 && outcome.received > 0, "seed {seed} tested nothing: {outcome:?}");
    }
}

#[test]
fn i07_the_same_seed_gives_the_same_run() {
    assert_eq!(run(42, 6, 30), run(42, 6, 30));
}

#[test]
fn other_seeds_give_other_runs() {
    assert_ne!(run(1, 6, 30).digest, run(4, 6, 30).digest);
}

#[test]
fn a_trace_that_cannot_be_written_is_a_finding_and_the_one_that_is_there_stays_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let watch = || Watch { audit: Some(directory.path().to_owned()), ..Watch::default() };
    let churn = churn(2, 3, 10);
    let first = churn.watched(Policy::profile(churn.profile), &watch());
    assert!(first.is_good(), "{:?}", first.traces);
    // There is a trace already: it is neither written over nor gone on with.
    let second = churn.watched(Policy::profile(churn.profile), &watch());
    assert!(!second.is_good() && second.violations.is_empty(), "{:?}", second.traces);
    assert!(second.to_string().contains("there is a trace already"), "{second}");
}
