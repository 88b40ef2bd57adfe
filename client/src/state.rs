//! What outlives a run: the hello counter, which must rise from handshake to handshake (HS-3).
//!
//! The gateway remembers the last confirmed counter of each client key and refuses anything that is not above it.
//! Taking the wall clock alone would lock a machine out whose clock was set back; the file alone would do the same
//! to a machine that was restored from a backup. So the next counter is the larger of both.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::clock;

/// Name of the counter's file inside the state directory.
const FILE: &str = "hello-counter";

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory or the file in it cannot be written or read.
    #[error("cannot use {path}: {source}; make it writable for this user, or name another directory as client.state_dir", path = path.display())]
    Unusable {
        /// Directory or file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file holds something else than a number.
    #[error("{path} does not hold a number; remove it, the clock then gives the next counter", path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
}

/// The counter of this client key's handshakes, on disk.
#[derive(Debug)]
pub struct HelloCounter {
    path: PathBuf,
    last: u64,
}

impl HelloCounter {
    /// Opens the counter in `directory`, which is made if it is missing.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        fs::create_dir_all(directory).map_err(|source| StateError::Unusable { path: directory.to_owned(), source })?;
        let path = directory.join(FILE);
        let last = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| StateError::Corrupt { path: path.clone() })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(source) => return Err(StateError::Unusable { path, source }),
        };
        Ok(Self { path, last })
    }

    /// A counter that no handshake of this key has exceeded; the next one must be above it.
    pub fn floor(&self) -> u64 {
        self.floor_at(clock::unix_ms())
    }

    fn floor_at(&self, unix_ms: u64) -> u64 {
        self.last.max(unix_ms)
    }

    /// Notes a counter before it goes out: a crash can then skip one, but never repeat one. Each is tried once: a full
    /// disk is not asked again with every packet.
    pub fn record(&mut self, used: u64) -> Result<(), StateError> {
        if used <= self.last {
            return Ok(());
        }
        self.last = used;
        self.write(used).map_err(|source| StateError::Unusable { path: self.path.clone(), source })
    }

    /// Replaces the file in one step, so that a power cut leaves the old number or the new one.
    fn write(&self, value: u64) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = File::create(&fresh)?;
        writeln!(file, "{value}")?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_rises_over_restarts_even_if_the_clock_was_set_back() {
        let directory = tempfile::tempdir().unwrap();
        let mut counter = HelloCounter::open(directory.path()).unwrap();
        assert_eq!(counter.floor_at(1_000), 1_000);
        counter.record(1_001).unwrap();
        drop(counter);
        let counter = HelloCounter::open(directory.path()).unwrap();
        assert_eq!(counter.floor_at(5), 1_001);
        assert_eq!(counter.floor_at(9_000), 9_000);
    }

    #[test]
    fn an_older_counter_does_not_lower_the_record() {
        let directory = tempfile::tempdir().unwrap();
        let mut counter = HelloCounter::open(directory.path()).unwrap();
        counter.record(50).unwrap();
        counter.record(20).unwrap();
        assert_eq!(HelloCounter::open(directory.path()).unwrap().last, 50);
    }

    #[test]
    fn a_counter_that_cannot_be_written_is_complained_of_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut counter = HelloCounter::open(&directory.path().join("gone")).unwrap();
        fs::remove_dir_all(directory.path().join("gone")).unwrap();
        assert!(counter.record(50).is_err());
        assert!(counter.record(50).is_ok());
        assert!(counter.record(51).is_err());
    }

    #[test]
    fn the_directory_is_made_and_a_lost_file_falls_back_to_the_clock() {
        let directory = tempfile::tempdir().unwrap();
        let deeper = directory.path().join("a/b");
        assert!(HelloCounter::open(&deeper).unwrap().floor() > 1_600_000_000_000);
    }

    #[test]
    fn a_file_without_a_number_is_refused_with_the_cure() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), "twelve").unwrap();
        let error = HelloCounter::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("remove it"), "{error}");
    }
}
