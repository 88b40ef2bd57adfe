//! A chain on its way into files: lines are made once, kept until the store has taken them, and spread over files of
//! bounded size.

use std::io;

use jumpgate_protocol::audit::Record;
use jumpgate_protocol::time::Time;

use super::{ChainLines, Head, Notice, Store, StoreFile};

/// Lines on their way into files.
///
/// A line that was made has its place in the chain and cannot be taken back, so what the store refuses is kept here and
/// offered again. Who fills it must therefore stop when [`ChainFiles::flush`] fails, and leave records where they
/// are.
pub struct ChainFiles {
    lines: ChainLines,
    store: Box<dyn Store>,
    file: Option<Open>,
    /// A file grows to about so many bytes.
    rotate_bytes: u64,
    /// Lines that are not in the file yet.
    pending: Vec<u8>,
    /// How many.
    pending_lines: u64,
    /// The last line that the store has taken.
    head: Option<Head>,
    /// Cut off the file before; for the next ChainStart.
    truncated_bytes: u64,
}

struct Open {
    file: Box<dyn StoreFile>,
    bytes: u64,
    lines: u64,
    /// Something was written that may not be on the disk yet.
    dirty: bool,
    /// Its last line is made; another file follows.
    closing: bool,
}

/// What the store refused, and what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {error}")]
pub struct StoreError {
    /// What was asked for: "create", "write", "sync".
    pub operation: &'static str,
    /// The answer.
    #[source]
    pub error: io::Error,
}

impl ChainFiles {
    /// A chain that begins a new file with the first line; `truncated_bytes` were cut off the file before.
    pub fn new(lines: ChainLines, store: Box<dyn Store>, rotate_bytes: u64, truncated_bytes: u64) -> Self {
        let head = lines.head();
        Self { lines, store, file: None, rotate_bytes, pending: Vec::new(), pending_lines: 0, head, truncated_bytes }
    }

    /// Adds the line of a record.
    pub fn record(&mut self, worker: Option<u16>, record: &Record) {
        self.add(|lines, out| lines.record(out, worker, record));
    }

    /// Adds the line of a notice; `at` as for [`ChainLines::notice`].
    pub fn notice(&mut self, worker: Option<u16>, at: Option<Time>, notice: &Notice) {
        self.add(|lines, out| lines.notice(out, worker, at, notice));
    }

    /// Begins a file if none is open: at a time if the process starts, with none if it goes on.
    pub fn begin(&mut self, at: Option<Time>) {
        if self.file.is_none() && self.pending.is_empty() {
            self.lines.start(&mut self.pending, at, std::mem::take(&mut self.truncated_bytes));
            self.pending_lines += 1;
        }
    }

    /// Bytes that wait for the store.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The last line that the store has taken; none before the first.
    pub const fn head(&self) -> Option<Head> {
        self.head
    }

    /// Hands everything to the store. After an error nothing is lost; try again later, and add nothing meanwhile.
    ///
    /// # Errors
    /// What the store refused.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        self.write()?;
        if self.file.as_ref().is_some_and(|open| open.bytes >= self.rotate_bytes) {
            self.close(None)?;
            self.begin(None);
            self.write()?;
        }
        Ok(())
    }

    /// Waits until everything that the store took is on the disk.
    ///
    /// # Errors
    /// What the store refused.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        match &mut self.file {
            Some(open) if open.dirty => {
                open.file.sync().map_err(|error| StoreError { operation: "sync", error })?;
                open.dirty = false;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether the open file is still where it was made. If not, the next lines go to a new file.
    pub fn leave_if_taken_away(&mut self) -> bool {
        let gone = self.file.as_ref().is_some_and(|open| !open.file.is_in_place());
        if gone {
            // Whoever moved it gets an orderly end; if it was removed, nobody reads this.
            let _ = self.close(None);
            if self.pending.is_empty() {
                self.file = None;
            }
        }
        gone
    }

    /// Ends the file in good order (OB-09). The next line begins another one. `at` as for [`ChainFiles::begin`].
    ///
    /// # Errors
    /// What the store refused.
    pub fn close(&mut self, at: Option<Time>) -> Result<(), StoreError> {
        self.write()?;
        if let Some(open) = &mut self.file
            && !open.closing
        {
            open.closing = true;
            self.lines.end(&mut self.pending, at, open.lines + 1);
            self.pending_lines += 1;
        }
        self.write()?;
        self.sync()?;
        self.file = None;
        Ok(())
    }

    fn add(&mut self, line: impl FnOnce(&mut ChainLines, &mut Vec<u8>)) {
        self.begin(None);
        line(&mut self.lines, &mut self.pending);
        self.pending_lines += 1;
    }

    fn write(&mut self) -> Result<(), StoreError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let open = match &mut self.file {
            Some(open) => open,
            None => {
                let first_seq = self.lines.next_seq() - self.pending_lines;
                let create = self.store.create(first_seq);
                let file = create.map_err(|error| StoreError { operation: "create", error })?;
                self.file.insert(Open { file, bytes: 0, lines: 0, dirty: false, closing: false })
            }
        };
        open.file.append(&self.pending).map_err(|error| StoreError { operation: "write", error })?;
        open.bytes += self.pending.len() as u64;
        open.lines += self.pending_lines;
        open.dirty = true;
        self.pending.clear();
        self.pending_lines = 0;
        self.head = self.lines.head();
        Ok(())
    }
}
