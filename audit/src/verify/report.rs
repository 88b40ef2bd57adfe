//! The verdict on a trace, and how it is told.

use std::fmt;

use jumpgate_protocol::ident::SessionIdentity;
use serde::Serialize;

use super::Code;

/// What the verifier says, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// At least one violation.
    Invalid,
    /// A file cannot be read, or is no audit trace of a version that this program knows.
    Unreadable,
    /// No violation, but something is missing, and said to be.
    Incomplete,
    /// Everything is there and adds up.
    Valid,
}

/// One violation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which rule.
    #[serde(serialize_with = "display")]
    pub code: Code,
    /// Name of the file.
    pub file: String,
    /// The line, from 1; 0 if the rule is about the whole of a file or trace.
    pub line: u64,
    /// The session, if the rule is about one.
    #[serde(serialize_with = "display_option")]
    pub session: Option<SessionIdentity>,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// What was found in one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// Its name.
    pub name: String,
    /// Who wrote it; none if that cannot be told.
    pub author: Option<String>,
    /// Its verdict.
    pub verdict: Verdict,
    /// Its lines.
    pub lines: u64,
    /// `seq` of its first and last record.
    pub records: Option<(u64, u64)>,
    /// Why it cannot be read.
    pub problem: Option<String>,
}

/// What was found in all files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The verdict on all of it.
    pub verdict: Verdict,
    /// Every file, in the order in which they were read.
    pub files: Vec<FileReport>,
    /// Number of violations.
    pub violations: u64,
    /// Records read.
    pub records: u64,
    /// Sessions seen, and their verdicts.
    pub sessions: SessionCounts,
    /// Declared gaps, and the records lost in them.
    pub gaps: (u64, u64),
    /// The head of each chain: author and `SEQ:HASH`.
    pub heads: Vec<(String, String)>,
    /// Why the verdict is INCOMPLETE.
    pub notes: Vec<String>,
}

/// Sessions of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SessionCounts {
    /// All of them.
    pub seen: u64,
    /// Ended in good order.
    pub ended: u64,
    /// Open at the end of the trace.
    pub open: u64,
    /// Lost with a process that ended without ChainEnd.
    pub lost: u64,
    /// With at least one violation.
    pub invalid: u64,
}

impl Verdict {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID",
            Self::Unreadable => "UNREADABLE",
            Self::Incomplete => "INCOMPLETE",
            Self::Valid => "VALID",
        }
    }

    /// The exit code of `audit verify`.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Valid => 0,
            Self::Invalid => 1,
            Self::Unreadable => 2,
            Self::Incomplete => 3,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:{}", self.code, self.file, self.line)?;
        if let Some(session) = self.session {
            write!(f, " session {session}")?;
        }
        write!(f, ": expected {}, found {}", self.expected, self.found)
    }
}

fn display<S: serde::Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn display_option<S: serde::Serializer>(value: &Option<SessionIdentity>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(session) => serializer.collect_str(session),
        None => serializer.serialize_none(),
    }
}
