//! Goes through all files, line by line, and puts the report together.

use std::collections::HashSet;

use jumpgate_protocol::ident::SessionIdentity;

use super::chain::{ChainState, Passage, is_known_format};
use super::lines::{LINE_MAX, Lines};
use super::schema::{Complaint, Schema};
use super::session::Slack;
use super::sessions::Sessions;
use super::{Code, FileReport, Input, Report, SessionCounts, Verdict, Violation};
use crate::chain::{Author, Head};
use crate::text::Object;

/// How long a record may be on its way into the file when the trace is cut there.
const ON_THE_WAY_MS: u64 = 1_000;

/// What the verifier is asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A head that was kept elsewhere (OB-10).
    pub head: Option<Head>,
    /// Whether the trace must be closed: every session ended, every file too.
    pub closed: bool,
    /// Texts that must not be in the trace, in the clear or in hexadecimal (V-LEAK).
    pub canaries: Vec<Vec<u8>>,
    /// What is allowed beyond bounds of time, besides one tick: for machines that stand still at times.
    pub slack_ms: u64,
}

/// Judges the bytes of one file. Never panics, whatever they are; so it is also what fuzzers call.
pub fn verify_bytes(bytes: &[u8], options: &Options) -> (Report, Vec<Violation>) {
    let mut violations = Vec::new();
    let report = verify(vec![Input::bytes("trace", bytes)], options, |violation| violations.push(violation));
    (report, violations)
}

/// Judges files, in whatever order they are given. Violations are told as they are found.
pub fn verify(mut inputs: Vec<Input<'_>>, options: &Options, found: impl FnMut(Violation)) -> Report {
    inputs.sort_by(|a, b| a.order().cmp(&b.order()));
    let mut run = Run {
        options,
        schema: Schema::new(),
        canaries: options.canaries.iter().flat_map(|canary| forms(canary)).collect(),
        sessions: Sessions::default(),
        chain: None,
        files: Vec::new(),
        invalid: HashSet::new(),
        heads: Vec::new(),
        notes: Vec::new(),
        violations: 0,
        records: 0,
        found,
    };
    for input in inputs {
        run.file(input);
    }
    run.finish()
}

struct Run<'o, F> {
    options: &'o Options,
    schema: Schema,
    canaries: Vec<Vec<u8>>,
    sessions: Sessions,
    chain: Option<ChainState>,
    files: Vec<FileReport>,
    invalid: HashSet<SessionIdentity>,
    heads: Vec<(String, String)>,
    notes: Vec<String>,
    violations: u64,
    records: u64,
    found: F,
}

impl<F: FnMut(Violation)> Run<'_, F> {
    fn file(&mut self, input: Input<'_>) {
        let author = input.origin.as_ref().map(|(author, _)| author.clone());
        self.files.push(FileReport {
            name: input.name,
            author: author.as_ref().map(Author::to_string),
            verdict: Verdict::Valid,
            lines: 0,
            records: None,
            problem: input.problem,
        });
        if self.file_report().problem.is_some() {
            return self.unreadable(None);
        }
        let mut lines = Lines::new(input.reader);
        let Some(author) = author else {
            return match lines.next() {
                Ok(None) => self.note_file("it is empty"),
                Ok(Some(_)) => self.unreadable(Some("this is no audit trace".to_owned())),
                Err(error) => self.unreadable(Some(error.to_string())),
            };
        };
        if self.chain.as_ref().is_none_or(|chain| chain.author != author) {
            self.end_chain();
            self.chain = Some(ChainState::new(author, self.options.head));
        }
        if let Some(chain) = &mut self.chain {
            chain.open_file();
        }
        loop {
            match lines.next() {
                Ok(Some(line)) if !line.whole => return self.cut_tail(line.bytes),
                Ok(Some(line)) => {
                    self.file_report().lines += 1;
                    if !self.line(line.bytes, line.hash, line.overlong) {
                        return self.unreadable(Some("it is of a later version of this format".to_owned()));
                    }
                }
                Ok(None) => return,
                Err(error) => return self.unreadable(Some(error.to_string())),
            }
        }
    }

    /// Judges one line; false if it announces a format that is not known here.
    fn line(&mut self, bytes: &[u8], hash: crate::chain::LineHash, overlong: bool) -> bool {
        let mut complaints = Vec::new();
        for canary in &self.canaries {
            if bytes.windows(canary.len()).any(|window| window == canary) {
                complaints.push(Complaint::new(Code::Leak, "nothing secret", "a text that must not be recorded"));
                break;
            }
        }
        let Some(chain) = &mut self.chain else { return true };
        if overlong {
            chain.broken(hash);
            complaints.push(Complaint::new(Code::Schema, format!("at most {LINE_MAX} bytes"), "a longer line"));
            self.complain(None, complaints);
            return true;
        }
        let object = match Object::parse(bytes) {
            Ok(object) => object,
            Err(error) => {
                chain.broken(hash);
                complaints.push(Complaint::new(Code::Schema, "one JSON object in UTF-8", error.to_string()));
                self.complain(None, complaints);
                return true;
            }
        };
        let seen = self.schema.judge(&object, &mut complaints);
        let Some(seen) = seen else {
            chain.broken(hash);
            self.complain(None, complaints);
            return true;
        };
        if !is_known_format(&seen) {
            return false;
        }
        self.records += 1;
        let passage = chain.line(&seen, hash, &mut complaints);
        let slack = Slack { ms: chain.tick_ms.saturating_add(self.options.slack_ms) };
        let (begins_late, role) = (chain.begins_late, chain.author.role);
        if passage == Passage::Crash {
            self.sessions.crashed();
            let note = format!("line {}: the {role} before ended without ChainEnd", self.file_report().lines);
            self.note_file(&note);
        }
        if seen.object.number("truncated_bytes").is_some_and(|bytes| bytes > 0) {
            self.note_file("an unfinished line was cut off the file before");
        }
        let usable = !complaints.iter().any(|complaint| complaint.code == Code::Schema);
        match seen.session {
            Some(fields) if usable => self.sessions.record(&seen, fields, begins_late, slack, &mut complaints),
            None if seen.row.name == "AuditGap" => self.sessions.ring_gap(&seen),
            None if seen.row.name == "GatewayRestart" && usable => self.sessions.restart(&seen),
            _ => {}
        }
        if seen.row.name == "AuditGap" {
            self.file_report().verdict = self.file_report().verdict.min(Verdict::Incomplete);
        }
        let seq = seen.seq;
        let first = self.file_report().records.map_or(seq, |(first, _)| first);
        self.file_report().records = Some((first, seq));
        let session = seen.session.map(|fields| fields.id);
        self.complain(session, complaints);
        true
    }

    /// The chain is over: the next file belongs to another one.
    fn end_chain(&mut self) {
        let Some(chain) = self.chain.take() else { return };
        if let Some(head) = chain.missing_head() {
            let found = chain.last.map_or_else(|| "nothing".to_owned(), |last| last.to_string());
            let complaint = Complaint::new(Code::Chain, format!("the head that was given, {head}"), found);
            self.complain_of_trace(None, vec![complaint]);
        }
        if chain.begins_late {
            self.notes.push(format!("{}: the files before were not given", chain.author));
        }
        if chain.ended {
            let slack = Slack { ms: chain.tick_ms + self.options.slack_ms + ON_THE_WAY_MS };
            let mut owed = Vec::new();
            self.sessions.finish(chain.last_ts_ms, slack, |session, complaints| owed.push((session, complaints)));
            owed.into_iter().for_each(|(session, complaints)| self.complain_of_trace(Some(session), complaints));
        } else if self.options.closed {
            self.notes.push(format!("{}: the trace does not end with ChainEnd", chain.author));
        }
        if let Some(last) = chain.last {
            self.heads.push((chain.author.to_string(), last.to_string()));
        }
    }

    fn finish(mut self) -> Report {
        self.end_chain();
        let counts = self.sessions.counts();
        if counts.gaps > 0 {
            self.notes.push(format!("{} gap(s) with {} lost record(s) are declared", counts.gaps, counts.gap_records));
        }
        let open = self.sessions.open() as u64;
        if self.options.closed && open > 0 {
            self.notes.push(format!("{open} session(s) are open at the end"));
        }
        let worst = self.files.iter().map(|file| file.verdict).min().unwrap_or(Verdict::Unreadable);
        let verdict = match worst {
            _ if self.violations > 0 => Verdict::Invalid,
            Verdict::Valid if !self.notes.is_empty() => Verdict::Incomplete,
            worst => worst,
        };
        Report {
            verdict,
            files: self.files,
            violations: self.violations,
            records: self.records,
            sessions: SessionCounts {
                seen: counts.sessions,
                ended: counts.ended,
                open,
                lost: counts.lost,
                invalid: self.invalid.len() as u64,
            },
            gaps: (counts.gaps, counts.gap_records),
            heads: self.heads,
            notes: self.notes,
        }
    }

    fn cut_tail(&mut self, rest: &[u8]) {
        let bytes = rest.len();
        self.note_file(&format!("its last line is not finished ({bytes} bytes)"));
    }

    fn unreadable(&mut self, problem: Option<String>) {
        let file = self.file_report();
        file.verdict = file.verdict.min(Verdict::Unreadable);
        file.problem = problem.or(file.problem.take());
    }

    fn note_file(&mut self, note: &str) {
        let file = self.file_report();
        file.verdict = file.verdict.min(Verdict::Incomplete);
        let note = format!("{}: {note}", file.name);
        self.notes.push(note);
    }

    /// The file that is being read.
    fn file_report(&mut self) -> &mut FileReport {
        self.files.last_mut().expect("lines are read from files only")
    }

    fn complain(&mut self, session: Option<SessionIdentity>, complaints: Vec<Complaint>) {
        let line = self.file_report().lines;
        self.tell(line, session, complaints);
    }

    fn complain_of_trace(&mut self, session: Option<SessionIdentity>, complaints: Vec<Complaint>) {
        self.tell(0, session, complaints);
    }

    fn tell(&mut self, line: u64, session: Option<SessionIdentity>, complaints: Vec<Complaint>) {
        for Complaint { code, expected, found } in complaints {
            self.violations += 1;
            self.invalid.extend(session);
            let file = self.file_report();
            file.verdict = Verdict::Invalid;
            let file = file.name.clone();
            (self.found)(Violation { code, file, line, session, expected, found });
        }
    }
}

/// A canary as it may stand in a line: in the clear, and in hexadecimal.
fn forms(canary: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let hex = canary.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes();
    [canary.to_vec(), hex].into_iter().filter(|form| !form.is_empty())
}
