//! One large run as several gateways side by side, each with clients and a seed of its own, each on a thread of its own.
//! How many there are is part of the run, not of the machine: equal arguments, equal run, everywhere.

use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use jumpgate_protocol::policy::Policy;
use jumpgate_protocol::time::Span;

use crate::churn::{Churn, Outcome, Watch};
use crate::net::Dice;

/// How often somebody is told how far it is.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// A run, cut into cells.
pub struct Cells {
    /// The whole run.
    pub churn: Churn,
    /// How many gateways its clients share.
    pub count: usize,
}

impl Cells {
    /// The run of one cell.
    pub fn cell(&self, index: usize) -> Churn {
        let (each, rest) = (self.churn.sessions / self.count, self.churn.sessions % self.count);
        let seed = match index {
            0 => self.churn.seed,
            // Even and odd seeds differ in what happens (the gateway's crash): the cells of a run are alike in that.
            _ => (Dice::new(self.churn.seed ^ ((index as u64) << 32)).throw() & !1) | (self.churn.seed & 1),
        };
        Churn { seed, sessions: each + usize::from(index < rest), ..self.churn.clone() }
    }

    /// Plays the cells of `watches`, one for each, by their numbers. Tells how much virtual time has passed in all of
    /// them, now and then; whoever listens may stop them through the watches.
    pub fn run(&self, policy: &Policy, watches: &[(usize, Watch)], mut listener: impl FnMut(Span)) -> Vec<Outcome> {
        let (done, finished) = mpsc::channel();
        thread::scope(|scope| {
            let threads: Vec<_> = watches
                .iter()
                .map(|(index, watch)| {
                    let done = done.clone();
                    scope.spawn(move || {
                        let outcome = self.cell(*index).watched(policy.clone(), watch);
                        // Who listens waits for as many of these as there are threads.
                        let _ = done.send(());
                        outcome
                    })
                })
                .collect();
            drop(done);
            let mut left = threads.len();
            while left > 0 {
                match finished.recv_timeout(REPORT_EVERY) {
                    Ok(()) => left -= 1,
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    // The last ones panicked.
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                }
                let passed = watches.iter().map(|(_, watch)| watch.passed.load(Ordering::Relaxed)).min();
                listener(Span::from_micros(passed.unwrap_or(0)));
            }
            // A panic in a cell is a defect like any other, and not to be caught.
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    }
}
