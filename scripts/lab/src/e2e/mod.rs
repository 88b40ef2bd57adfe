//! End-to-end tests: real programs, real packets, one line per test.

mod abuse;
mod arena;
mod bindings;
mod collector;
mod deaths;
mod ends;
mod floods;
mod forgery;
mod inner;
mod jumps;
mod lifecycle;
mod malformed;
mod metrics;
mod network;
mod quality;
mod rekey;
mod replay;
mod restart;
mod sessions;
mod slots;
mod steering;
mod strangers;
mod trace;
mod tunnel;
mod volume;

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::programs::tail;
use crate::run::{lock, stand_aside_for_signal};
use crate::topology::{Lab, Uplink, missing_requirements};

/// Seed of the relay in tests; one that fails can be run again alone and meets the same losses.
const SEED: u64 = 20;

/// One test: a sentence, and what proves it.
pub(crate) struct Test {
    name: &'static str,
    run: fn(&Lab) -> Result<()>,
}

/// Tests that measure the machine, or take all of it: one at a time.
const ALONE: &[&[Test]] = &[network::TESTS, floods::TESTS, volume::TESTS];
/// All others. Most of their time they wait, so that two at a time do not disturb each other.
const SIDE_BY_SIDE: &[&[Test]] = &[
    sessions::TESTS,
    jumps::TESTS,
    deaths::TESTS,
    quality::TESTS,
    rekey::TESTS,
    steering::TESTS,
    slots::TESTS,
    strangers::TESTS,
    replay::TESTS,
    forgery::TESTS,
    bindings::TESTS,
    inner::TESTS,
    malformed::TESTS,
    abuse::TESTS,
    ends::TESTS,
    lifecycle::TESTS,
    restart::TESTS,
    metrics::TESTS,
    collector::TESTS,
];
/// Tests under way at the same time, each in a lab of its own.
const LANES: usize = 2;

/// Runs every test whose name contains `filter`; true if none failed.
pub fn run(filter: &str) -> Result<bool> {
    let choose = |groups: &'static [&'static [Test]]| -> Vec<&'static Test> {
        groups.iter().copied().flatten().filter(|test| test.name.contains(filter)).collect()
    };
    let (alone, side_by_side) = (choose(ALONE), choose(SIDE_BY_SIDE));
    if alone.is_empty() && side_by_side.is_empty() {
        bail!("no test has {filter:?} in its name");
    }
    let missing = missing_requirements();
    if !missing.is_empty() {
        for test in alone.iter().chain(&side_by_side) {
            say!("skip  {}", test.name);
        }
        say!("skipped because: {}", missing.join("; "));
        say!("0 passed, 0 failed, {} skipped", alone.len() + side_by_side.len());
        return Ok(true);
    }
    let mut tally = run_in_lanes(alone, 1);
    tally.add(&run_in_lanes(side_by_side, LANES));
    say!("{} passed, {} failed, 0 skipped", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

/// How many tests came to which end.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs tests on that many lanes, each of which takes the next one when it is done with the last.
fn run_in_lanes(tests: Vec<&'static Test>, lanes: usize) -> Tally {
    let waiting = Mutex::new(tests.into_iter());
    let lane = || {
        let (mut tally, mut lab) = (Tally::default(), None);
        loop {
            let Some(test) = lock(&waiting).next() else { return tally };
            if run_one(test, &mut lab) {
                tally.passed += 1;
            } else {
                tally.failed += 1;
                // Whatever state it left: the next test gets a new lab.
                lab = None;
            }
        }
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        let mut sum = Tally::default();
        for lane in lanes {
            // A panic is a failed test of ours, told on standard error; its lane's results are lost with it.
            sum.add(&lane.join().unwrap_or(Tally { passed: 0, failed: 1 }));
        }
        sum
    })
}

/// Runs one test and tells its result; whether it passed.
fn run_one(test: &Test, lab: &mut Option<Lab>) -> bool {
    let started = Instant::now();
    // The gateway of the test has stopped when the test returns: its trace is closed.
    let outcome = fresh(lab).and_then(|lab| (test.run)(lab).and_then(|()| trace::judge(lab)));
    stand_aside_for_signal();
    let seconds = started.elapsed().as_secs_f64();
    // In one piece: another lane may be telling something too.
    let mut text = match &outcome {
        Ok(()) => format!("ok    {} ({seconds:.1} s)", test.name),
        Err(error) => format!("FAIL  {} ({seconds:.1} s)\n      {error:#}", test.name),
    };
    for note in lab.iter().flat_map(Lab::take_notes) {
        text += &format!("\n      {note}");
    }
    if let (Err(_), Some(lab)) = (&outcome, &*lab) {
        text += &logs(lab);
    }
    say!("{text}");
    outcome.is_ok()
}

/// A lab in its first state: one built anew, or the last one put in order.
fn fresh(lab: &mut Option<Lab>) -> Result<&Lab> {
    if let Some(lab) = lab {
        lab.relay.reset()?;
        for uplink in Uplink::ALL {
            lab.uplink_up(&uplink)?;
        }
        lab.settle()?;
    }
    if lab.is_none() {
        *lab = Some(Lab::build(SEED)?);
    }
    match lab {
        Some(lab) => Ok(lab),
        None => bail!("the lab was not built"),
    }
}

/// The ends of what the programs logged: the files go with the lab.
fn logs(lab: &Lab) -> String {
    let files = std::fs::read_dir(lab.run.directory()).into_iter().flatten().flatten();
    let logs = files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|kind| kind == "log"));
    logs.map(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        format!("\n      {name}:\n      | {}", tail(&path))
    })
    .collect()
}

/// Polls `condition` until it holds; an error naming `what` if it does not within `limit`.
pub(crate) fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !condition()? {
        if Instant::now() >= deadline {
            bail!("waited {limit:?} in vain for {what}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
