//! Where a chain goes on after a restart: the last whole line of the newest file (OB-09).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::{AuditDirectory, Author, DirectoryError, Head, LineHash, Role};
use crate::text::Object;

/// What is read of the end of a file at once; it doubles until a whole line is in it.
const TAIL: u64 = 64 * 1024;

/// The end of a chain that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Its last whole line.
    pub head: Head,
    /// The time of that line.
    pub last_ts_ms: u64,
    /// What was cut off: an unfinished line that a crash left.
    pub truncated_bytes: u64,
}

/// Why a chain cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A file.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// Its last line is whole, but no record.
    #[error("{}: its last line is no audit record", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
    },
    /// It is somebody else's.
    #[error("{}: the trace in this directory is of {found}, not of {expected}", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Who wrote it.
        found: Author,
        /// Who wants to go on with it.
        expected: Author,
    },
}

impl RecoveryError {
    /// What the operator can do.
    pub const fn cure(&self) -> &'static str {
        match self {
            Self::Directory(DirectoryError::InUse { .. }) => "stop that process, or give each its own [audit] path",
            Self::Directory(DirectoryError::Io { .. }) | Self::File { .. } => {
                "name a directory in [audit] path that exists or can be made, and that this user may write to"
            }
            Self::Unreadable { .. } => {
                "run `jumpgate audit verify` on it and keep it as evidence; move the directory away: a new chain begins"
            }
            Self::Foreign { .. } => "a chain belongs to one node and key: name another directory in [audit] path",
        }
    }
}

/// Finds the end of the chain, and cuts off what a crash left unfinished. None if there is no line yet.
///
/// # Errors
/// Why the chain cannot go on here.
pub fn recover(directory: &AuditDirectory, author: &Author) -> Result<Option<Recovered>, RecoveryError> {
    let mut truncated_bytes = 0;
    for path in directory.files()?.into_iter().rev() {
        let io = |error| RecoveryError::File { path: path.clone(), error };
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let Some(last) = last_line(&file, len).map_err(io)? else {
            // Not even its ChainStart was finished.
            truncated_bytes += len;
            fs::remove_file(&path).map_err(io)?;
            continue;
        };
        if last.end < len {
            truncated_bytes += len - last.end;
            file.set_len(last.end).map_err(io)?;
        }
        return read(&last.bytes, author, &path, truncated_bytes).map(Some);
    }
    Ok(None)
}

struct Line {
    /// Without its LF.
    bytes: Vec<u8>,
    /// Where the next one begins.
    end: u64,
}

fn last_line(file: &File, len: u64) -> io::Result<Option<Line>> {
    let mut size = TAIL.min(len);
    loop {
        let mut tail = vec![0; size as usize];
        let start = len - size;
        file.read_exact_at(&mut tail, start)?;
        let end = tail.iter().rposition(|byte| *byte == b'\n');
        let begin = end.and_then(|end| tail[..end].iter().rposition(|byte| *byte == b'\n').map(|lf| lf + 1));
        match (end, begin) {
            (Some(end), Some(begin)) => {
                return Ok(Some(Line { bytes: tail[begin..end].to_vec(), end: start + end as u64 + 1 }));
            }
            (Some(end), None) if start == 0 => {
                return Ok(Some(Line { bytes: tail[..end].to_vec(), end: end as u64 + 1 }));
            }
            (None, _) if start == 0 => return Ok(None),
            _ => size = (size * 2).min(len),
        }
    }
}

fn read(line: &[u8], author: &Author, path: &Path, truncated_bytes: u64) -> Result<Recovered, RecoveryError> {
    let unreadable = || RecoveryError::Unreadable { path: path.to_owned() };
    let record = Object::parse(line).map_err(|_| unreadable())?;
    let found = Author {
        role: record.text("role").and_then(Role::from_name).ok_or_else(unreadable)?,
        node_id: record.text("node_id").ok_or_else(unreadable)?.to_owned(),
    };
    let seq = record.number("seq").filter(|seq| *seq < u64::MAX).ok_or_else(unreadable)?;
    let last_ts_ms = record.number("ts_ms").ok_or_else(unreadable)?;
    if found != *author {
        return Err(RecoveryError::Foreign { path: path.to_owned(), found, expected: author.clone() });
    }
    Ok(Recovered { head: Head { seq, hash: LineHash::of(line) }, last_ts_ms, truncated_bytes })
}
