//! What an operator sees of the sink: counters and state, written by the sink, read by anybody.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jumpgate_protocol::audit::Class;
use serde::{Deserialize, Serialize};

use crate::chain::{Head, StoreError};
use crate::ring::{Counters, Feed};

/// Counters and state of one sink.
#[derive(Debug)]
pub struct SinkStatus {
    directory: PathBuf,
    records: AtomicU64,
    gaps: AtomicU64,
    lost: AtomicU64,
    errors: [AtomicU64; OPERATIONS.len()],
    state: Mutex<State>,
}

/// What a store can be asked for, as [`StoreError::operation`] names it.
const OPERATIONS: [&str; 3] = ["create", "write", "sync"];

#[derive(Debug, Default)]
struct State {
    head: Option<Head>,
    problem: Option<Problem>,
    rings: Vec<Ring>,
}

#[derive(Debug)]
struct Problem {
    since_ms: u64,
    text: String,
}

#[derive(Debug)]
struct Ring {
    worker: Option<u16>,
    counters: Arc<Counters>,
    waiting: [usize; Class::ALL.len()],
    high_water: [usize; Class::ALL.len()],
}

/// The status at one moment, as the admin socket and the metrics tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// Where the files are.
    pub directory: PathBuf,
    /// The last record in a file, `SEQ:HASH`; none before the first.
    pub head: Option<String>,
    /// Records written.
    pub records: u64,
    /// Gaps declared, of rings and of sessions.
    pub gaps: u64,
    /// Records of class A lost.
    pub lost: u64,
    /// Refusals of the file system, by what was asked for.
    pub errors: Vec<(String, u64)>,
    /// What is wrong with the file now.
    pub problem: Option<String>,
    /// Since when, in Unix milliseconds.
    pub impaired_since_ms: Option<u64>,
    /// The rings of each thread.
    pub rings: Vec<RingView>,
}

/// The rings of one thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingView {
    /// The worker, none for the control thread.
    pub worker: Option<u16>,
    /// Records that wait, of classes A, S and T.
    pub waiting: [usize; Class::ALL.len()],
    /// Most of them that waited when the sink looked.
    pub high_water: [usize; Class::ALL.len()],
    /// Records lost, of classes A, S and T.
    pub lost: [u64; Class::ALL.len()],
}

impl SinkStatus {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            records: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            errors: Default::default(),
            state: Mutex::default(),
        }
    }

    /// How things stand.
    pub fn view(&self) -> StatusView {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let errors = OPERATIONS.iter().zip(&self.errors);
        StatusView {
            directory: self.directory.clone(),
            head: state.head.map(|head| head.to_string()),
            records: self.records.load(Ordering::Relaxed),
            gaps: self.gaps.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            errors: errors.map(|(name, count)| ((*name).to_owned(), count.load(Ordering::Relaxed))).collect(),
            problem: state.problem.as_ref().map(|problem| problem.text.clone()),
            impaired_since_ms: state.problem.as_ref().map(|problem| problem.since_ms),
            rings: state.rings.iter().map(Ring::view).collect(),
        }
    }

    /// The last record in a file.
    pub fn head(&self) -> Option<Head> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).head
    }

    pub(super) fn wrote(&self, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    pub(super) fn gap(&self) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn lost(&self, records: u64) -> u64 {
        self.lost.fetch_add(records, Ordering::Relaxed) + records
    }

    pub(super) fn records_lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn failed(&self, error: &StoreError, since_ms: u64) {
        if let Some(index) = OPERATIONS.iter().position(|operation| *operation == error.operation) {
            self.errors[index].fetch_add(1, Ordering::Relaxed);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let since_ms = state.problem.as_ref().map_or(since_ms, |problem| problem.since_ms);
        state.problem = Some(Problem { since_ms, text: error.to_string() });
    }

    pub(super) fn well(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).problem = None;
    }

    pub(super) fn look(&self, head: Option<Head>, feeds: &mut [Feed]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.head = head;
        state.rings.clear();
        state.rings.extend(feeds.iter_mut().map(|feed| Ring {
            worker: feed.worker(),
            counters: Arc::clone(feed.counters()),
            waiting: Class::ALL.map(|class| feed.waiting(class)),
            high_water: Class::ALL.map(|class| feed.high_water(class)),
        }));
    }
}

impl Ring {
    fn view(&self) -> RingView {
        RingView {
            worker: self.worker,
            waiting: self.waiting,
            high_water: self.high_water,
            lost: Class::ALL.map(|class| self.counters.lost(class)),
        }
    }
}
