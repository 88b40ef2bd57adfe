//! Opening, starting and stopping a sink.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jumpgate_protocol::time::Time;

use super::merge::Merge;
use super::status::SinkStatus;
use super::work::Worker;
use crate::chain::{AuditDirectory, Author, ChainFiles, ChainLines, RecoveryError, Store, TimeAnchor, recover};
use crate::ring::{Publisher, RingSizes, rings};

/// How often a sink that was told to stop is looked at.
const STOP_POLL: Duration = Duration::from_millis(2);
/// Where the kernel names a run of a process, anew with every reading.
const RUN_NAME: &str = "/proc/sys/kernel/random/uuid";

/// The clock of the cores whose records come; also counts suspended time (OB-11).
pub type Clock = fn() -> Time;

/// Where and how a trace is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkConfig {
    /// The directory of the chain.
    pub path: PathBuf,
    /// A file grows to about so many bytes before the next one begins.
    pub rotate_bytes: u64,
    /// Rings of each producing thread.
    pub rings: RingSizes,
}

impl SinkConfig {
    /// A file of 64 MiB holds about 100 000 records.
    pub const ROTATE_BYTES: u64 = 64 * 1024 * 1024;

    /// The usual sizes, in that directory.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), rotate_bytes: Self::ROTATE_BYTES, rings: RingSizes::default() }
    }
}

/// A sink that is open, and whose threads are being attached.
pub struct Sink {
    files: ChainFiles,
    merge: Merge,
    status: Arc<SinkStatus>,
    rings: RingSizes,
    clock: Clock,
    anchor_ms: u64,
}

/// A sink that runs. Dropped, it is told to stop and not waited for.
#[derive(Debug)]
pub struct SinkHandle {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    status: Arc<SinkStatus>,
}

impl Sink {
    /// Opens the directory and finds where its chain goes on.
    ///
    /// # Errors
    /// Why no trace can be kept there; nothing else fails later but visibly and without effect on sessions.
    pub fn open(config: &SinkConfig, author: Author, clock: Clock) -> Result<Self, RecoveryError> {
        let directory = AuditDirectory::open(&config.path)?;
        let recovered = recover(&directory, &author)?;
        let now = clock();
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let mut lines = ChainLines::new(author, run_name(now), TimeAnchor::new(now, unix_ms));
        let mut truncated_bytes = 0;
        if let Some(recovered) = recovered {
            lines = lines.resuming(recovered.head, recovered.last_ts_ms, now);
            truncated_bytes = recovered.truncated_bytes;
        }
        let files = ChainFiles::new(lines, Box::new(directory), config.rotate_bytes, truncated_bytes);
        let anchor_ms = unix_ms.saturating_sub(now.as_millis());
        Ok(Self::with(files, &config.path, config.rings, clock, anchor_ms))
    }

    /// A sink that writes lines to any store.
    pub fn to_store(lines: ChainLines, store: Box<dyn Store>, config: &SinkConfig, clock: Clock) -> Self {
        let files = ChainFiles::new(lines, store, config.rotate_bytes, 0);
        Self::with(files, &config.path, config.rings, clock, 0)
    }

    fn with(mut files: ChainFiles, path: &Path, rings: RingSizes, clock: Clock, anchor_ms: u64) -> Self {
        // Before any record: it tells of the start also if nothing happens.
        files.begin(Some(clock()));
        let status = Arc::new(SinkStatus::new(path));
        Self { files, merge: Merge::default(), status, rings, clock, anchor_ms }
    }

    /// Rings for one more producing thread; `worker` is its number, none for the control thread.
    pub fn attach(&mut self, worker: Option<u16>) -> Publisher {
        let (publisher, feed) = rings(worker, self.rings);
        self.merge.feeds.push(feed);
        publisher
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread.
    pub fn start(self) -> io::Result<SinkHandle> {
        let Self { files, merge, status, clock, anchor_ms, .. } = self;
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker::new(files, merge, Arc::clone(&status), Arc::clone(&stop), clock, anchor_ms);
        let thread = thread::Builder::new().name("jg-audit".to_owned()).spawn(move || worker.run())?;
        Ok(SinkHandle { thread: Some(thread), stop, status })
    }
}

impl SinkHandle {
    /// What an operator sees.
    pub const fn status(&self) -> &Arc<SinkStatus> {
        &self.status
    }

    /// Ends the trace in good order: everything that was published is written, then ChainEnd. To be called when the
    /// producing threads have ended. Waits no longer than `patience`; false if the store did not take everything in time.
    pub fn stop(mut self, patience: Duration) -> bool {
        self.tell();
        let deadline = Instant::now() + patience;
        let Some(thread) = self.thread.take() else { return true };
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                tracing::error!("the audit file does not take the last records: the trace ends without ChainEnd");
                return false;
            }
            thread::sleep(STOP_POLL);
        }
        thread.join().is_ok()
    }

    fn tell(&self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for SinkHandle {
    fn drop(&mut self) {
        self.tell();
    }
}

/// A name for this run of the process, which no other has.
fn run_name(now: Time) -> String {
    let name = std::fs::read_to_string(RUN_NAME).map(|name| name.trim().to_owned());
    name.unwrap_or_else(|_| format!("{}-{}", std::process::id(), now.as_micros()))
}
