//! A14: no input that is known, and no mutation of one, makes anything panic or breaks an invariant.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jumpgate_fuzz::{TARGETS, Target, corpus, mutate};
use jumpgate_sim::Dice;

/// Mutations of one target: seconds of work, on top of the inputs that are known.
const RANDOM: Duration = Duration::from_secs(3);
/// Fewest mutations, however slow the machine.
const RANDOM_MIN: u64 = 20;
/// The corpus stays small enough to be checked in and replayed, in bytes.
const CORPUS_MAX: u64 = 2 << 20;

fn explore(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of that name");
    replay(target);
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
    let known: Vec<_> = corpus::known(target).into_iter().map(|(_, input)| input).collect();
    let (mut dice, start, mut runs) = (Dice::new(seed), Instant::now(), 0);
    while runs < RANDOM_MIN || start.elapsed() < RANDOM {
        mutate::run(target, &mutate::mutate(&known, &mut dice, target.longest), &format!("seed {seed}, run {runs}"));
        runs += 1;
    }
    println!("target {name}: {} known inputs, {runs} mutations from seed {seed}", known.len());
}

fn replay(target: &Target) {
    for (origin, input) in corpus::known(target) {
        mutate::run(target, &input, &origin);
    }
}

macro_rules! explore {
    ($($test:ident $name:literal,)+) => {
        $(#[test]
        fn $test() {
            explore($name);
        })+

        #[test]
        fn every_target_is_explored_here_and_has_a_fuzz_target() {
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), [$($name),+]);
            for target in TARGETS {
                let source = format!("{}/../fuzz_targets/{}.rs", env!("CARGO_MANIFEST_DIR"), target.name);
                assert!(std::fs::exists(&source).expect("readable"), "{source} is missing");
            }
        }
    };
}

explore! {
    a14_wire_messages_of_any_bytes_are_refused_or_mean_what_they_say "wire",
    a14_frames_of_any_bytes_are_steered_whole_or_not_at_all "frames",
    a14_policies_of_any_bytes_are_valid_or_refused "policy",
    a14_hellos_of_any_bytes_are_refused_or_become_one_session "handshake",
    a14_a_hand_over_of_any_bytes_is_taken_whole_and_goes_on_or_not_at_all "handover",
    a14_no_peer_with_or_without_keys_breaks_an_invariant_at_the_gateway "session",
    a14_no_gateway_with_or_without_keys_breaks_an_invariant_at_the_client "client",
    a14_no_network_breaks_an_invariant_between_both "world",
    a14_key_files_of_any_bytes_are_keys_or_refused_by_both_ends_alike "keys",
    a14_gateway_configurations_of_any_bytes_are_valid_or_refused_with_a_cure "gateway_config",
    a14_client_configurations_of_any_bytes_are_valid_or_refused_with_a_cure "client_config",
    a14_requests_of_any_bytes_are_understood_or_refused "requests",
    a14_audit_traces_of_any_bytes_are_judged "audit",
}

#[test]
fn the_corpus_is_small() {
    let files = TARGETS.iter().flat_map(|target| std::fs::read_dir(corpus::directory(target))).flatten().flatten();
    let bytes: u64 = files.map(|file| file.metadata().map_or(0, |metadata| metadata.len())).sum();
    assert!(bytes <= CORPUS_MAX, "{bytes} bytes; minimise it with `cargo fuzz cmin`");
}
