//! End-to-end tests: real programs, real packets, one line per test.

mod abuse;
mod arena;
mod bindings;
mod ends;
mod floods;
mod forgery;
mod inner;
mod jumps;
mod lifecycle;
mod malformed;
mod network;
mod replay;
mod sessions;
mod strangers;
mod tunnel;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::programs::tail;
use crate::run::stand_aside_for_signal;
use crate::topology::{Lab, Uplink, missing_requirements};

/// Seed of the relay in tests; one that fails can be run again alone and meets the same losses.
const SEED: u64 = 20;

/// One test: a sentence, and what proves it.
pub(crate) struct Test {
    name: &'static str,
    run: fn(&Lab) -> Result<()>,
}

/// Runs every test whose name contains `filter`; true if none failed.
pub fn run(filter: &str) -> Result<bool> {
    let all = [
        network::TESTS,
        sessions::TESTS,
        jumps::TESTS,
        strangers::TESTS,
        replay::TESTS,
        forgery::TESTS,
        bindings::TESTS,
        inner::TESTS,
        malformed::TESTS,
        floods::TESTS,
        abuse::TESTS,
        ends::TESTS,
        lifecycle::TESTS,
    ];
    let chosen: Vec<&Test> = all.into_iter().flatten().filter(|test| test.name.contains(filter)).collect();
    if chosen.is_empty() {
        bail!("no test has {filter:?} in its name");
    }
    let missing = missing_requirements();
    if !missing.is_empty() {
        for test in &chosen {
            say!("skip  {}", test.name);
        }
        say!("skipped because: {}", missing.join("; "));
        say!("0 passed, 0 failed, {} skipped", chosen.len());
        return Ok(true);
    }
    // On a terminal the name of the test under way is shown, and then overwritten by its result.
    let on_terminal = std::io::stdout().is_terminal();
    let back = if on_terminal { "\r" } else { "" };
    let (mut passed, mut failed) = (0, 0);
    let mut lab = None;
    for test in chosen {
        let started = Instant::now();
        if on_terminal {
            write!(std::io::stdout(), "....  {}", test.name).and_then(|()| std::io::stdout().flush())?;
        }
        let outcome = fresh(&mut lab).and_then(|lab| (test.run)(lab));
        stand_aside_for_signal();
        let seconds = started.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                passed += 1;
                say!("{back}ok    {} ({seconds:.1} s)", test.name);
                for note in lab.iter().flat_map(Lab::take_notes) {
                    say!("      {note}");
                }
            }
            Err(error) => {
                failed += 1;
                say!("{back}FAIL  {} ({seconds:.1} s)\n      {error:#}", test.name);
                if let Some(lab) = &lab {
                    print_logs(lab);
                }
                // Whatever state it left: the next test gets a new lab.
                lab = None;
            }
        }
    }
    say!("{passed} passed, {failed} failed, 0 skipped");
    Ok(failed == 0)
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
fn print_logs(lab: &Lab) {
    let files = std::fs::read_dir(lab.run.directory()).into_iter().flatten().flatten();
    for path in files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|kind| kind == "log")) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        say!("      {name}:\n      | {}", tail(&path));
    }
}

/// Polls `condition` until it holds; an error naming `what` if it does not within `limit`.
pub(crate) fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !condition()? {
        if Instant::now() >= deadline {
            bail!("waited {limit:?} in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
