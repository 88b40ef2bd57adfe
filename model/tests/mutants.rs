//! The model sees what it is there to see: each mutant breaks a law. In a process of its own, since a mutant is alive for
//! all threads.

use jumpgate_model::explore::{Effort, hunt};
use jumpgate_model::jump::{SCOPES, Scope};
use jumpgate_protocol_woven::mutant::MUTANTS;

/// Enough for each of them, and one less than the scopes have.
const STEPS: u8 = 3;

#[test]
fn i13_every_mutant_breaks_a_law() {
    let shallow = |scope: &Scope| {
        let mut scope = *scope;
        scope.budget.steps = STEPS;
        scope
    };
    let scopes: Vec<Scope> = SCOPES.iter().map(shallow).collect();
    let effort = Effort { threads: 2, blackouts: 8, progress: false };
    let survivors: Vec<&str> = MUTANTS
        .iter()
        .enumerate()
        .filter(|(index, _)| hunt(*index, &scopes, effort).is_none())
        .map(|(_, mutant)| mutant.name)
        .collect();
    assert_eq!(survivors, [] as [&str; 0]);
}
