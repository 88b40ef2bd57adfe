//! Runs a model to its end and tells what came of it.

use std::fmt;
use std::hash::Hash;
use std::time::{Duration, Instant};

use jumpgate_protocol_woven::mutant;
use stateright::report::{ReportData, ReportDiscovery, Reporter};
use stateright::{Checker, HasDiscoveries, Model, Path};

use crate::jump::{Jump, Scope, Situation, judge};
use crate::machine::{Machine, Progress};

/// How a run goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Threads that explore.
    pub threads: usize,
    /// See [`Jump::blackouts`].
    pub blackouts: u64,
    /// Prints a line a second.
    pub progress: bool,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was explored.
    pub name: &'static str,
    /// States reached, with repetition.
    pub states: usize,
    /// Different states.
    pub unique: usize,
    /// Actions of the longest run.
    pub depth: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// The shortest run that breaks a law, if one does.
    pub broken: Option<Counterexample>,
}

/// A run that breaks a law.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// The law.
    pub law: &'static str,
    /// What happened, and where that led, in order.
    pub steps: Vec<String>,
}

/// Explores one scope of the protocol within its bounds.
pub fn explore(scope: Scope, effort: Effort) -> Outcome {
    let model = Jump { scope, blackouts: effort.blackouts };
    run(scope.name, model, effort, |path| {
        let mut steps = Vec::new();
        let last: Situation = path.last_state().clone();
        for (state, action) in path.into_vec() {
            steps.push(format!("    {state:?}"));
            steps.extend(action.map(|action| format!("  - {}", action.describe(&state.world))));
        }
        let broken = judge(&last.world);
        steps.extend(broken.iter().map(|violation| format!("  ! {}: {}", violation.law.text(), violation.what)));
        (broken.first().map(|violation| violation.law.text()), steps)
    })
}

/// Explores the session machine of one end.
pub fn explore_machine(machine: Machine, effort: Effort) -> Outcome {
    run(machine.name(), machine, effort, |path| {
        let mut steps = Vec::new();
        let last: Progress = path.last_state().clone();
        for (state, action) in path.into_vec() {
            steps.push(format!("    {state:?}"));
            steps.extend(action.map(|action| format!("  - {action:?}")));
        }
        steps.extend(last.broken.iter().map(|broken| format!("  ! {broken}")));
        (last.broken.first().copied(), steps)
    })
}

type Told = (Option<&'static str>, Vec<String>);

fn run<M>(name: &'static str, model: M, effort: Effort, tell: impl Fn(Path<M::State, M::Action>) -> Told) -> Outcome
where
    M: Model + Send + Sync + 'static,
    M::State: fmt::Debug + Hash + PartialEq + Clone + Send + Sync + 'static,
    M::Action: fmt::Debug + PartialEq + Clone + Send + Sync + 'static,
{
    let started = Instant::now();
    let builder = model.checker().threads(effort.threads).finish_when(HasDiscoveries::Any);
    let checker = builder.spawn_bfs().report(&mut Lines { name, print: effort.progress });
    let found = checker.discoveries().into_iter().min_by_key(|(_, path)| path.clone().into_actions().len());
    let broken = found.map(|(law, path)| {
        let (exact, steps) = tell(path);
        Counterexample { law: exact.unwrap_or(law), steps }
    });
    Outcome {
        name,
        states: checker.state_count(),
        unique: checker.unique_state_count(),
        depth: checker.max_depth() - 1,
        elapsed: started.elapsed(),
        broken,
    }
}

/// A line a second while it runs.
struct Lines {
    name: &'static str,
    print: bool,
}

impl<M: Model> Reporter<M> for Lines {
    fn report_checking(&mut self, data: ReportData) {
        if self.print && !data.done {
            let ReportData { total_states, unique_states, max_depth, duration, .. } = data;
            let seconds = duration.as_secs();
            eprintln!("{}: {total_states} states, {unique_states} unique, depth {max_depth}, {seconds} s", self.name);
        }
    }

    fn report_discoveries(&mut self, _: &M, _: std::collections::BTreeMap<&'static str, ReportDiscovery<M>>)
    where
        M::Action: fmt::Debug + PartialEq,
        M::State: fmt::Debug + Hash + PartialEq,
    {
    }

    fn delay(&self) -> Duration {
        if self.print { Duration::from_secs(1) } else { Duration::from_millis(20) }
    }
}

/// Hunts one mutant through all scopes, from the cheapest to the dearest, then through the machine. Gives the first
/// counterexample; none if the mutant survives. Only one hunt at a time in a process.
pub fn hunt(index: usize, scopes: &[Scope], effort: Effort) -> Option<(&'static str, Counterexample)> {
    mutant::choose(Some(index));
    let killed = scopes
        .iter()
        .map(|scope| explore(*scope, effort))
        .chain(Machine::BOTH.into_iter().map(|machine| explore_machine(machine, effort)))
        .find_map(|outcome| outcome.broken.map(|broken| (outcome.name, broken)));
    mutant::choose(None);
    killed
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, states, unique, depth, elapsed, broken } = self;
        let verdict = if broken.is_none() { "holds" } else { "BROKEN" };
        let seconds = elapsed.as_secs_f32();
        write!(f, "{name:<16} {verdict:<7} {states:>9} states {unique:>9} unique  depth {depth:>2}  {seconds:>6.1} s")
    }
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "broken: {}", self.law)?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}
