//! The thread of the sink.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use jumpgate_protocol::time::{Span, Time};

use super::handle::Clock;
use super::merge::Merge;
use super::status::SinkStatus;
use crate::chain::{ChainFiles, ChainLines, Head, Notice, StoreError};
use crate::ring::Item;

/// Pause between two looks at the rings: what a reader of the file waits at most besides the writing. Nobody rings a
/// bell, since that would be a system call on a worker.
const NAP: Duration = Duration::from_millis(20);
/// Pauses after a refusal of the store: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Lines are handed to the store in pieces of about so many bytes.
const BATCH: usize = 256 * 1024;
/// How often the store is asked to have everything on the disk, and whether the file is still in its place.
const CARE: Span = Span::from_millis(1_000);
/// The head goes to the process log every so many records (OB-10).
const HEAD_EVERY: u64 = 10_000;
/// How much nicer than the rest of the process the thread is. Where CPUs are scarce it waits for workers and slow path,
/// not they for it: its rings are made to hold a storm (OB-04).
const NICENESS: i32 = 10;

/// What the thread works with.
pub(super) struct Worker {
    pub(super) files: ChainFiles,
    pub(super) merge: Merge,
    pub(super) status: Arc<SinkStatus>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) clock: Clock,
    /// Wall clock at the zero of the clock, in Unix milliseconds: for what operators read.
    pub(super) anchor_ms: u64,
    impaired: Option<Impaired>,
    cared: Time,
    head_told: u64,
}

struct Impaired {
    since: Time,
    pause: Duration,
}

impl Worker {
    pub(super) fn new(
        files: ChainFiles,
        merge: Merge,
        status: Arc<SinkStatus>,
        stop: Arc<AtomicBool>,
        clock: Clock,
        anchor_ms: u64,
    ) -> Self {
        let cared = clock();
        Self { files, merge, status, stop, clock, anchor_ms, impaired: None, cared, head_told: 0 }
    }

    /// Works until it is told to stop and everything is in the file.
    pub(super) fn run(mut self) {
        // On Linux a thread's own (sched(7)). Refused, the trace is as good as otherwise.
        let _ = rustix::process::nice(NICENESS);
        loop {
            // Before the rings are looked at: what was published before the stop is seen.
            let stopping = self.stop.load(Ordering::Acquire);
            match self.round(stopping) {
                Ok(()) if stopping => return,
                Ok(()) => thread::park_timeout(NAP),
                Err(error) => self.suffer(&error),
            }
        }
    }

    /// Everything that is in the rings into the file.
    fn round(&mut self, stopping: bool) -> Result<(), StoreError> {
        let now = (self.clock)();
        self.flush()?;
        let care = now.since(self.cared) >= CARE;
        // Before anything is written, since a file that was removed takes it and keeps nothing.
        if (care || stopping || self.merge.has_entries()) && self.files.leave_if_taken_away() {
            tracing::warn!("the audit file was moved or removed; another one begins");
            self.files.begin(None);
            self.flush()?;
        }
        let until = if stopping { None } else { Some(now) };
        while let Some((worker, item)) = self.merge.pop(until) {
            self.write(worker, item);
            if self.files.pending() >= BATCH {
                self.flush()?;
            }
        }
        for index in 0..self.merge.feeds.len() {
            let worker = self.merge.feeds[index].worker();
            for item in self.merge.feeds[index].take_leftover() {
                self.write(worker, item);
            }
        }
        self.merge.feeds.retain(|feed| !feed.is_over());
        self.flush()?;
        if stopping {
            self.files.close(Some(now))?;
            self.tell_head(true);
        } else if care {
            self.cared = now;
            self.files.sync()?;
        }
        Ok(())
    }

    fn write(&mut self, worker: Option<u16>, item: Item) {
        self.status.wrote(1);
        match item {
            Item::Record(record) => self.files.record(worker, &record),
            Item::RingGap { at, since, lost: (first, last), count } => {
                let at = Some(at);
                let lost = self.status.lost(count);
                self.status.gap();
                tracing::error!(worker, count, "audit records were lost: the ring was full; the gap is recorded");
                self.files.notice(worker, at, &Notice::Degraded { part: RING, lost, since: Some(since) });
                self.files.notice(worker, at, &Notice::RingGap { first, last, count });
                // It is declared only when there is room again.
                self.files.notice(worker, at, &Notice::Degraded { part: RING, lost, since: None });
                self.status.wrote(2);
            }
            Item::SessionGap { at, standing, from_version, count } => {
                self.status.gap();
                self.files.notice(worker, Some(at), &Notice::SessionGap { standing, from_version, count });
            }
        }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.files.flush()?;
        self.status.look(self.files.head(), &mut self.merge.feeds);
        if let Some(Impaired { since, .. }) = self.impaired.take() {
            self.status.well();
            let now = (self.clock)();
            tracing::info!(after_ms = now.since(since).as_millis(), "the audit file can be written again");
            let lost = self.status.records_lost();
            for since in [Some(since), None] {
                self.files.notice(None, None, &Notice::Degraded { part: ChainLines::FILE, lost, since });
            }
            self.status.wrote(2);
        }
        self.tell_head(false);
        Ok(())
    }

    /// The store refuses. Nothing is lost yet; the rings take what comes.
    fn suffer(&mut self, error: &StoreError) {
        let now = (self.clock)();
        self.status.failed(error, self.anchor_ms + now.as_millis());
        self.status.look(self.files.head(), &mut self.merge.feeds);
        let pause = match &self.impaired {
            None => {
                tracing::error!(%error, "the audit file cannot be written; sessions go on, records wait in memory");
                BACKOFF.0
            }
            Some(impaired) => (impaired.pause * 2).min(BACKOFF.1),
        };
        let since = self.impaired.as_ref().map_or(now, |impaired| impaired.since);
        self.impaired = Some(Impaired { since, pause });
        thread::park_timeout(pause);
    }

    fn tell_head(&mut self, at_last: bool) {
        if let Some(head @ Head { seq, .. }) = self.files.head()
            && (at_last || seq >= self.head_told + HEAD_EVERY)
        {
            self.head_told = seq;
            tracing::info!(%head, "audit");
        }
    }
}

/// What TelemetryDegraded calls the ring of class A.
const RING: &str = "audit";
