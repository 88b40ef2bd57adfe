//! The models within bounds that a slow machine explores in a minute. `cargo xtask model` goes further.

use jumpgate_model::explore::{Effort, Outcome, explore, explore_machine};
use jumpgate_model::jump::SCOPES;
use jumpgate_model::machine::Machine;
use jumpgate_protocol_woven::mutant::STALE;

/// Actions of a run: one less than the scopes have.
const STEPS: u8 = 3;
/// Inputs of a run of the machine alone.
const INPUTS: u8 = 5;

const EFFORT: Effort = Effort { threads: 2, blackouts: 8, progress: false };

fn assert_holds(outcome: &Outcome) {
    println!("{outcome}");
    if let Some(broken) = &outcome.broken {
        panic!("{broken}");
    }
    assert!(outcome.unique > 100, "{outcome}: a model that goes nowhere proves nothing");
}

/// The account that the model keeps judges INV-01 to INV-08, INV-10, INV-11, INV-13 to INV-19, INV-25, INV-26, INV-28 and
/// INV-32 to INV-36 after every step; INV-12 and INV-31 in every state, on a copy: INV-02, INV-03, INV-04, INV-05, INV-06,
/// INV-07, INV-11, INV-13, INV-14, INV-15, INV-16, INV-17, INV-18, INV-33, INV-34.
#[test]
fn i13_every_run_of_gateway_client_and_attacker_within_the_bounds_keeps_the_laws() {
    for scope in SCOPES {
        let mut scope = *scope;
        scope.budget.steps = STEPS;
        assert_holds(&explore(scope, EFFORT));
    }
}

#[test]
fn i12_every_sequence_of_inputs_within_the_bounds_keeps_the_laws_of_the_machine() {
    for machine in Machine::BOTH {
        assert_holds(&explore_machine(Machine { depth: INPUTS, ..machine }, EFFORT));
    }
}

#[test]
fn every_mutant_still_finds_its_place_in_the_sources() {
    assert_eq!(STALE, &[] as &[&str], "adapt model/woven/mutants.rs to the sources as they are now");
}
