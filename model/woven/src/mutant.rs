//! Which of the woven mutants is alive. One at a time, for the whole process; none at first.

use std::sync::atomic::{AtomicUsize, Ordering};

/// One small defect, put into the sources by the build script.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// Its name on the command line.
    pub name: &'static str,
    /// What the defective code does, in one line.
    pub does: &'static str,
    /// The source file, below `protocol/src`.
    pub file: &'static str,
    /// The text that it changes; stands exactly once in the file.
    pub find: &'static str,
    /// What stands there instead. `MUTANT` is true while the mutant is alive.
    pub replace: &'static str,
}

include!("../mutants.rs");

/// Names of the mutants whose text the build script did not find exactly once: the sources have moved on.
pub const STALE: &[&str] = include!(concat!(env!("OUT_DIR"), "/stale.rs"));

const NONE: usize = usize::MAX;
static ALIVE: AtomicUsize = AtomicUsize::new(NONE);

/// Brings that mutant of [`MUTANTS`] to life, or none.
pub fn choose(index: Option<usize>) {
    ALIVE.store(index.unwrap_or(NONE), Ordering::SeqCst);
}

/// Whether that mutant is alive.
pub fn is_alive(index: usize) -> bool {
    ALIVE.load(Ordering::Relaxed) == index
}
