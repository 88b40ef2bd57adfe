//! The chain over lines and files: numbers, hashes, times, beginnings and ends (V-CHAIN, V-TIME).

use jumpgate_protocol::time::TICK_MS;

use super::Code;
use super::schema::{Complaint, Seen};
use crate::chain::{Author, Head, LineHash, SCHEMA_VERSION};

/// Where one chain stands.
#[derive(Debug)]
pub(super) struct ChainState {
    pub(super) author: Author,
    /// What the next line must name; none before the first line of all.
    expected: Option<Expected>,
    boot_id: Option<String>,
    pub(super) last_ts_ms: u64,
    pub(super) tick_ms: u64,
    /// Whether the last line was a ChainEnd.
    pub(super) ended: bool,
    /// Whether records before the first line exist, but were not given.
    pub(super) begins_late: bool,
    /// Lines of the present file.
    file_lines: u64,
    /// The head that was given, until its line is reached.
    wanted: Option<Head>,
    pub(super) last: Option<Head>,
}

#[derive(Clone, Copy, Debug)]
struct Expected {
    seq: u64,
    hash: LineHash,
}

/// What a line means for the chain beside complaints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// The process goes on.
    Same,
    /// Another process goes on after an orderly end.
    Restart,
    /// Another process goes on after one that ended without ChainEnd.
    Crash,
}

impl ChainState {
    pub(super) fn new(author: Author, wanted: Option<Head>) -> Self {
        Self {
            author,
            expected: None,
            boot_id: None,
            last_ts_ms: 0,
            tick_ms: TICK_MS,
            ended: false,
            begins_late: false,
            file_lines: 0,
            wanted,
            last: None,
        }
    }

    /// A file begins.
    pub(super) fn open_file(&mut self) {
        self.file_lines = 0;
    }

    /// Takes a line that is no record. Its bytes count all the same.
    pub(super) fn broken(&mut self, hash: LineHash) {
        self.file_lines += 1;
        if let Some(expected) = &mut self.expected {
            *expected = Expected { seq: expected.seq + 1, hash };
        }
    }

    /// Takes the next line of the file.
    pub(super) fn line(&mut self, seen: &Seen<'_>, hash: LineHash, complaints: &mut Vec<Complaint>) -> Passage {
        let mut wrong = |expected: String, found: String| complaints.push(Complaint::new(Code::Chain, expected, found));
        self.file_lines += 1;
        if let Some(expected) = self.expected {
            if seen.seq != expected.seq {
                wrong(format!("seq {}", expected.seq), format!("seq {}", seen.seq));
            }
            if seen.prev_hash != expected.hash {
                wrong(format!("prev_hash {}", expected.hash), format!("prev_hash {}", seen.prev_hash));
            }
        } else if seen.seq == 0 && seen.prev_hash != LineHash::NONE {
            wrong("prev_hash of 64 zeros in the first record of all".to_owned(), format!("{}", seen.prev_hash));
        } else {
            self.begins_late = seen.seq > 0;
        }
        if let Some(head) = self.wanted.filter(|head| head.seq == seen.seq) {
            self.wanted = None;
            if head.hash != hash {
                wrong(format!("the head that was given, {head}"), format!("{}:{hash}", seen.seq));
            }
        }
        if (seen.role, seen.node_id) != (self.author.role, &self.author.node_id) {
            wrong(format!("a record of {}", self.author), format!("one of {} {}", seen.role, seen.node_id));
        }
        let is_start = seen.row.name == "ChainStart";
        if (self.file_lines == 1) != is_start {
            let (first, other) = ("ChainStart as the first record of a file", "another record");
            let (expected, found) = if is_start { (other, "ChainStart") } else { (first, seen.row.name) };
            wrong(expected.to_owned(), found.to_owned());
        }
        if self.ended && !is_start {
            wrong("nothing after ChainEnd".to_owned(), seen.row.name.to_owned());
        }
        let mut passage = Passage::Same;
        if is_start {
            passage = self.start(seen, &mut wrong);
        }
        self.ended = seen.row.name == "ChainEnd";
        if self.ended && seen.object.number("records") != Some(self.file_lines) {
            let found = seen.object.number("records").unwrap_or(0);
            wrong(format!("{} records in this file", self.file_lines), format!("{found} claimed"));
        }
        if seen.ts_ms < self.last_ts_ms {
            let (expected, found) = (format!("ts_ms not below {}", self.last_ts_ms), seen.ts_ms.to_string());
            complaints.push(Complaint::new(Code::Time, expected, found));
        }
        self.last_ts_ms = seen.ts_ms;
        self.expected = Some(Expected { seq: seen.seq.saturating_add(1), hash });
        self.last = Some(Head { seq: seen.seq, hash });
        passage
    }

    fn start(&mut self, seen: &Seen<'_>, wrong: &mut impl FnMut(String, String)) -> Passage {
        let cited = seen.object.text("previous_hash").unwrap_or_default();
        let prev = seen.prev_hash.to_string();
        if cited != prev {
            wrong(format!("previous_hash {prev}"), format!("previous_hash {cited}"));
        }
        self.tick_ms = seen.object.number("tick_ms").unwrap_or(TICK_MS);
        let boot_id = seen.object.text("boot_id").unwrap_or_default().to_owned();
        let passage = match &self.boot_id {
            Some(before) if *before != boot_id && self.ended => Passage::Restart,
            Some(before) if *before != boot_id => Passage::Crash,
            _ => Passage::Same,
        };
        self.boot_id = Some(boot_id);
        passage
    }

    /// The head that was given, if its line never came.
    pub(super) fn missing_head(&self) -> Option<Head> {
        self.wanted
    }
}

/// Whether this program knows the format that a ChainStart announces.
pub(super) fn is_known_format(seen: &Seen<'_>) -> bool {
    seen.row.name != "ChainStart" || seen.object.number("schema_version") <= Some(SCHEMA_VERSION)
}
