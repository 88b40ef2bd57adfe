//! The directory of one chain: files in the order of their names, one writer at a time.
//!
//! `audit-00000000000000004711.jsonl` begins with the record 4711. How many of them are kept is for the operator's log
//! rotation: a file that is not the newest is never touched again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// How the name of a file begins.
pub const FILE_PREFIX: &str = "audit-";
/// How it ends.
pub const FILE_SUFFIX: &str = ".jsonl";
/// Locked while a program writes here.
const LOCK_FILE: &str = ".lock";
/// Only the user of the program, and whom it gives the group to, may read.
const DIRECTORY_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;

/// Where files are made; another one in tests of full and stuck disks.
pub trait Store: Send {
    /// Makes the file that begins with that record.
    ///
    /// # Errors
    /// As the file system says; nothing is left behind.
    fn create(&mut self, first_seq: u64) -> io::Result<Box<dyn StoreFile>>;
}

/// A file that is being written.
pub trait StoreFile: Send {
    /// Appends all of `bytes`, or nothing.
    ///
    /// # Errors
    /// As the file system says.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Waits until all that was appended is on the disk.
    ///
    /// # Errors
    /// As the file system says.
    fn sync(&mut self) -> io::Result<()>;

    /// Whether its name still leads to it. Otherwise somebody moved or removed it.
    fn is_in_place(&self) -> bool;
}

/// Why a directory cannot be written to.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The file system refuses.
    #[error("{}: {error}", path.display())]
    Io {
        /// What was asked for.
        path: PathBuf,
        /// The answer.
        error: io::Error,
    },
    /// Another process holds it.
    #[error("{}: another process writes its audit trace there", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// The directory of one chain, locked against a second writer.
#[derive(Debug)]
pub struct AuditDirectory {
    path: PathBuf,
    lock: Option<Flock<File>>,
}

impl AuditDirectory {
    /// Makes the directory if it is not there, and takes it.
    ///
    /// # Errors
    /// What keeps it from being written to.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let mut directory = Self { path: path.to_owned(), lock: None };
        directory.take().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => DirectoryError::InUse { path: path.to_owned() },
            _ => DirectoryError::Io { path: path.to_owned(), error },
        })?;
        Ok(directory)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files of the chain, oldest first.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn files(&self) -> Result<Vec<PathBuf>, DirectoryError> {
        let io = |error| DirectoryError::Io { path: self.path.clone(), error };
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(io)? {
            let entry = entry.map_err(io)?;
            if first_seq(&entry.file_name().to_string_lossy()).is_some() {
                files.push(entry.path());
            }
        }
        // Numbers have leading zeros, so the order of names is the order of records.
        files.sort();
        Ok(files)
    }

    /// Makes the directory and locks it, also anew after somebody removed it.
    fn take(&mut self) -> io::Result<()> {
        let path = self.path.join(LOCK_FILE);
        if self.lock.as_ref().is_some_and(|lock| leads_to(&path, lock)) {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&self.path)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(FILE_MODE).open(&path)?;
        self.lock = Some(Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?);
        Ok(())
    }
}

impl Store for AuditDirectory {
    fn create(&mut self, first_seq: u64) -> io::Result<Box<dyn StoreFile>> {
        self.take()?;
        let path = self.path.join(format!("{FILE_PREFIX}{first_seq:020}{FILE_SUFFIX}"));
        let file = OpenOptions::new().create_new(true).append(true).mode(FILE_MODE).open(&path)?;
        Ok(Box::new(AuditFile { path, file, len: 0, torn: false }))
    }
}

/// The record that a file begins with, if its name is one of ours.
pub(super) fn first_seq(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(FILE_PREFIX)?.strip_suffix(FILE_SUFFIX)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

struct AuditFile {
    path: PathBuf,
    file: File,
    /// Up to there it holds whole lines.
    len: u64,
    /// Something beyond `len` could not be cut off yet.
    torn: bool,
}

impl AuditFile {
    fn cut(&mut self) -> io::Result<()> {
        self.torn = true;
        self.file.set_len(self.len)?;
        self.torn = false;
        Ok(())
    }
}

impl StoreFile for AuditFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.torn {
            self.cut()?;
        }
        if let Err(error) = self.file.write_all(bytes) {
            // A full disk takes a part of it. If even cutting fails, the next attempt begins with it.
            let _ = self.cut();
            return Err(error);
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn is_in_place(&self) -> bool {
        leads_to(&self.path, &self.file)
    }
}

fn leads_to(path: &Path, file: &File) -> bool {
    match (fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(here)) => (there.dev(), there.ino()) == (here.dev(), here.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_process_writes_to_a_directory() {
        let place = tempfile::tempdir().unwrap();
        let first = AuditDirectory::open(place.path()).unwrap();
        let error = AuditDirectory::open(place.path()).unwrap_err();
        assert!(matches!(error, DirectoryError::InUse { .. }), "{error}");
        drop(first);
        AuditDirectory::open(place.path()).unwrap();
    }

    #[test]
    fn files_come_in_the_order_of_their_records_and_strangers_are_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let mut directory = AuditDirectory::open(place.path()).unwrap();
        for seq in [1_000_000, 0, 9] {
            directory.create(seq).unwrap();
        }
        fs::write(place.path().join("audit-notes.jsonl"), "x").unwrap();
        fs::write(place.path().join("audit-00000000000000000001.jsonl.gz"), "x").unwrap();
        let seqs = directory.files().unwrap().into_iter();
        let seqs = seqs.filter_map(|path| first_seq(path.file_name().unwrap().to_str().unwrap())).collect::<Vec<_>>();
        assert_eq!(seqs, [0, 9, 1_000_000]);
    }

    #[test]
    fn a_directory_that_was_removed_is_made_anew_and_an_existing_file_is_never_written_over() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a/b");
        let mut directory = AuditDirectory::open(&path).unwrap();
        let mut file = directory.create(0).unwrap();
        assert!(file.is_in_place());
        fs::remove_dir_all(&path).unwrap();
        assert!(!file.is_in_place());
        file.append(b"into nowhere\n").unwrap();
        directory.create(1).unwrap().append(b"x\n").unwrap();
        assert_eq!(directory.create(1).err().map(|error| error.kind()), Some(io::ErrorKind::AlreadyExists));
        assert_eq!(directory.files().unwrap().len(), 1);
    }
}
