//! The audit trace of the gateway of a run, in the product's files, judged by the product's verifier: what the checkers
//! see happen must also be what the trace says.

use std::fmt;
use std::path::{Path, PathBuf};

use jumpgate_audit::chain::{AuditDirectory, Author, ChainFiles, ChainLines, Role, TimeAnchor};
use jumpgate_audit::verify::{Input, Options, Verdict, expand, verify};
use jumpgate_protocol::audit::Record;
use jumpgate_protocol::time::Time;

use crate::records::Writer;

/// Wall clock at the begin of every run, so that equal runs give equal files: the first day of 2026.
const UNIX_MS_AT_ZERO: u64 = 1_767_225_600_000;
/// Lines go to the file in pieces of about so many bytes.
const BATCH: usize = 256 * 1_024;
/// A file grows to so many bytes, as the gateway's do unless it is told otherwise.
const ROTATE_BYTES: u64 = 256 * 1_024 * 1_024;
/// Workers are not scheduled for up to 250 ms at a time, and once in a while twice in a row: their timers are as late.
const SLACK_MS: u64 = 500;
/// So many violations are kept in words; all are counted.
const KEPT: usize = 16;

/// A trace that is being written.
pub(crate) struct Trace {
    directory: PathBuf,
    author: Author,
    files: Option<ChainFiles>,
    boots: u64,
    error: Option<String>,
}

/// What the verifier says of the trace of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceReport {
    /// Where it is.
    pub directory: PathBuf,
    /// Lines in it.
    pub records: u64,
    /// Sessions in it.
    pub sessions: u64,
    /// How often its gateway crashed: what it had written ends there without ChainEnd.
    pub crashes: u64,
    /// The verdict; none if the trace could not be written or read.
    pub verdict: Option<Verdict>,
    /// What is wrong with it; the first ones if there is much.
    pub wrong: Vec<String>,
}

impl Trace {
    /// A trace in that directory, which must not hold one. What fails is part of the report.
    pub(crate) fn begin(directory: &Path, now: Time) -> Self {
        let author = Author { role: Role::Gateway, node_id: "simulated".to_owned() };
        let mut trace = Self { directory: directory.to_owned(), author, files: None, boots: 0, error: None };
        trace.boot_or_fail(now);
        trace
    }

    /// Takes a record of the gateway.
    pub(crate) fn record(&mut self, writer: Writer, record: &Record) {
        let worker = match writer {
            Writer::Desk => None,
            Writer::Worker(worker) => Some(worker as u16),
            Writer::Client(_) => return,
        };
        if let Some(files) = &mut self.files {
            files.record(worker, record);
            if files.pending() >= BATCH
                && let Err(error) = files.flush()
            {
                self.fail(error.to_string());
            }
        }
    }

    /// The gateway crashes, and another one goes on with its files.
    pub(crate) fn crash(&mut self, now: Time) {
        if let Err(error) = self.files.as_mut().map_or(Ok(()), ChainFiles::flush) {
            self.fail(error.to_string());
        } else {
            self.boot_or_fail(now);
        }
    }

    /// Closes the trace, and has it judged.
    pub(crate) fn judge(mut self, now: Time) -> TraceReport {
        if let Some(mut files) = self.files.take()
            && let Err(error) = files.close(Some(now))
        {
            self.fail(error.to_string());
        }
        let mut report = TraceReport {
            directory: self.directory,
            records: 0,
            sessions: 0,
            crashes: self.boots.saturating_sub(1),
            verdict: None,
            wrong: self.error.into_iter().collect(),
        };
        if report.wrong.is_empty() {
            match expand(std::slice::from_ref(&report.directory)) {
                Ok(files) => report.take(files.iter().map(|path| Input::open(path)).collect()),
                Err(error) => report.wrong.push(error.to_string()),
            }
        }
        report
    }

    fn boot_or_fail(&mut self, now: Time) {
        if let Err(error) = self.boot(now) {
            self.fail(error);
        }
    }

    /// Another run of the gateway begins a file, after the last line of the run before.
    fn boot(&mut self, now: Time) -> Result<(), String> {
        let anchor = TimeAnchor::new(Time::ZERO, UNIX_MS_AT_ZERO);
        let mut lines = ChainLines::new(self.author.clone(), format!("boot-{}", self.boots), anchor);
        // The former run lets go of the directory.
        if let Some(head) = self.files.take().and_then(|files| files.head()) {
            lines = lines.resuming(head, anchor.unix_ms(now), now);
        }
        let store = AuditDirectory::open(&self.directory).map_err(|error| error.to_string())?;
        if self.boots == 0 && !store.files().map_err(|error| error.to_string())?.is_empty() {
            return Err(format!("{}: there is a trace already", self.directory.display()));
        }
        let mut files = ChainFiles::new(lines, Box::new(store), ROTATE_BYTES, 0);
        files.begin(Some(now));
        self.files = Some(files);
        self.boots += 1;
        Ok(())
    }

    /// Nothing more is written.
    fn fail(&mut self, error: String) {
        self.files = None;
        self.error.get_or_insert(error);
    }
}

impl TraceReport {
    /// Whether everything that was written adds up. A crash leaves no ChainEnd and loses sessions; nothing else may be
    /// missing.
    pub fn is_good(&self) -> bool {
        let expected = if self.crashes > 0 { Verdict::Incomplete } else { Verdict::Valid };
        self.wrong.is_empty() && self.verdict == Some(expected)
    }

    fn take(&mut self, inputs: Vec<Input<'_>>) {
        let wrong = &mut self.wrong;
        let options = Options { slack_ms: SLACK_MS, ..Options::default() };
        let report = verify(inputs, &options, |violation| {
            if wrong.len() < KEPT {
                wrong.push(violation.to_string());
            }
        });
        self.records = report.records;
        self.sessions = report.sessions.seen;
        self.verdict = Some(report.verdict);
        if !self.is_good() && self.wrong.is_empty() {
            self.wrong = report.notes;
        }
    }
}

impl fmt::Display for TraceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = self.verdict.map_or("none", Verdict::name);
        write!(f, "audit trace                 {verdict}: {} records, {} sessions", self.records, self.sessions)?;
        if self.crashes > 0 {
            write!(f, "; the gateway crashed {} time(s)", self.crashes)?;
        }
        for wrong in &self.wrong {
            write!(f, "\nTRACE {wrong}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jumpgate_protocol::audit::EventType;
    use jumpgate_protocol::policy::{Policy, Profile};
    use jumpgate_protocol::time::Span;

    use super::*;
    use crate::{Churn, Pace};

    /// The trace of those records, judged.
    fn judged(records: &[(Writer, Record)]) -> TraceReport {
        let directory = tempfile::tempdir().expect("a directory");
        let mut trace = Trace::begin(directory.path(), records[0].1.at);
        records.iter().for_each(|(writer, record)| trace.record(*writer, record));
        trace.judge(records.last().expect("records").1.at)
    }

    #[test]
    fn a_trace_from_which_one_transition_is_missing_is_no_good_trace() {
        let length = Span::from_millis(20_000);
        let churn = Churn { seed: 6, sessions: 3, workers: 2, length, profile: Profile::Mobile, pace: Pace::Storm };
        let (_, mut records) = churn.recorded(Policy::profile(Profile::Mobile));
        records.retain(|(writer, _)| !matches!(writer, Writer::Client(_)));
        let whole = judged(&records);
        assert!(whole.is_good() && whole.records as usize == records.len() + 2, "{whole}");
        let is_change = |(_, record): &(Writer, Record)| record.event.event_type() == EventType::SessionStateChange;
        let at = records.iter().position(is_change).expect("a transition");
        records.remove(at);
        let lacking = judged(&records);
        assert!(!lacking.is_good() && lacking.verdict == Some(Verdict::Invalid), "{lacking}");
        assert!(lacking.to_string().contains("TRACE V-"), "{lacking}");
    }
}
