//! The commands that read traces. Both programs have them; they need neither a running gateway nor privileges.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::chain::Head;
use crate::timeline::{self, Filter, ReadError};
use crate::verify::{self, Input, InputError, Options, Report, Verdict, Violation};

/// Exit code of a timeline that cannot be told, as of a file that cannot be read.
const UNREADABLE: u8 = 2;

/// Reading traces.
#[derive(Debug, Subcommand)]
pub enum Trace {
    /// Judge a trace by its bytes: is it whole, and did every session keep the rules?
    ///
    /// Exit code: 0 VALID, 1 INVALID, 2 UNREADABLE, 3 INCOMPLETE.
    Verify(Verify),
    /// Tell the life of a session, or list all of them
    Timeline(Timeline),
}

/// `audit verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// Trace files in any order, or directories of them; of one chain or several
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// A head that was kept elsewhere: nothing up to it can have been changed or cut unnoticed
    #[arg(long, value_name = "SEQ:HASH")]
    head: Option<Head>,
    /// The trace must be closed: no session open, every file ended in good order
    #[arg(long)]
    closed: bool,
    /// Milliseconds allowed beyond bounds of time, besides one tick
    #[arg(long, value_name = "MS", default_value_t = 0)]
    slack: u64,
    /// A text that must not be in the trace; may be given several times
    #[arg(long, value_name = "TEXT")]
    canary: Vec<String>,
    /// Print JSON for other programs
    #[arg(long)]
    json: bool,
}

/// `audit timeline`
#[derive(Debug, Args)]
pub struct Timeline {
    /// Trace files in any order, or directories of them; of the gateway, of clients, or of both
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The session: its id or the beginning of it
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Print JSON for other programs
    #[arg(long)]
    json: bool,
}

/// Why a command ended without an answer.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// A file or directory.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The trace.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A head, and files of several chains: it is not clear which of them it belongs to.
    #[error("--head belongs to one chain, but these files are of {0}: give the files of one")]
    SeveralChains(usize),
    /// Standard output. A reader that went away is one too.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

impl TraceError {
    /// Whether the reader of the output has had enough, as in `| head`.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit code.
    pub const fn exit_code(&self) -> u8 {
        UNREADABLE
    }
}

impl Trace {
    /// Runs the command; gives the exit code.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn run(self) -> Result<u8, TraceError> {
        match self {
            Self::Verify(verify) => verify.run(),
            Self::Timeline(timeline) => timeline.run(),
        }
    }
}

impl Verify {
    fn run(self) -> Result<u8, TraceError> {
        let inputs: Vec<_> = verify::expand(&self.files)?.iter().map(|path| Input::open(path)).collect();
        let mut chains: Vec<_> = inputs.iter().filter_map(Input::author).collect();
        chains.sort();
        chains.dedup();
        if self.head.is_some() && chains.len() > 1 {
            return Err(TraceError::SeveralChains(chains.len()));
        }
        let canaries = self.canary.into_iter().map(String::into_bytes).collect();
        let options = Options { head: self.head, closed: self.closed, canaries, slack_ms: self.slack };
        let mut out = io::stdout().lock();
        let mut printed = Ok(());
        let mut violations = Vec::new();
        // In text every violation is told when it is found: there may be more of them than memory.
        let report = verify::verify(inputs, &options, |violation| {
            if self.json {
                violations.push(violation);
            } else if printed.is_ok() {
                printed = writeln!(out, "{violation}");
            }
        });
        printed?;
        if self.json {
            write_json(&mut out, &report, &violations)?
        } else {
            write_report(&mut out, &report)?
        }
        out.flush()?;
        Ok(report.verdict.exit_code())
    }
}

impl Timeline {
    fn run(self) -> Result<u8, TraceError> {
        let inputs = verify::expand(&self.files)?.iter().map(|path| Input::open(path)).collect();
        let one = self.session.is_some();
        let stories = timeline::read(inputs, &Filter { session: self.session })?;
        let text = match (one, self.json) {
            (true, false) => timeline::show(&stories),
            (false, false) => timeline::show_list(&timeline::summaries(&stories)),
            (true, true) => json(&stories)?,
            (false, true) => json(&timeline::summaries(&stories))?,
        };
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(0)
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, io::Error> {
    Ok(serde_json::to_string(value)? + "\n")
}

fn write_json(out: &mut impl io::Write, report: &Report, violations: &[Violation]) -> io::Result<()> {
    #[derive(serde::Serialize)]
    struct Document<'a> {
        #[serde(flatten)]
        report: &'a Report,
        list: &'a [Violation],
    }
    out.write_all(json(&Document { report, list: violations })?.as_bytes())
}

fn write_report(out: &mut impl io::Write, report: &Report) -> io::Result<()> {
    for file in &report.files {
        let records = file.records.map_or_else(String::new, |(first, last)| format!(", records {first} to {last}"));
        let author = file.author.as_ref().map_or_else(String::new, |author| format!(", {author}"));
        let problem = file.problem.as_ref().map_or_else(String::new, |problem| format!(": {problem}"));
        writeln!(out, "{:<10} {}{author}{records}{problem}", file.verdict, file.name)?;
    }
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    let sessions = report.sessions;
    writeln!(
        out,
        "{} records, {} sessions: {} ended, {} open, {} lost, {} with violations",
        report.records, sessions.seen, sessions.ended, sessions.open, sessions.lost, sessions.invalid,
    )?;
    for (author, head) in &report.heads {
        writeln!(out, "head of {author}: {head}")?;
    }
    match report.verdict {
        Verdict::Invalid => writeln!(out, "{}: {} violations", report.verdict, report.violations),
        verdict => writeln!(out, "{verdict}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(subcommand)]
        trace: Trace,
    }

    #[test]
    fn the_command_line_is_consistent_and_a_wrong_head_is_refused() {
        use clap::CommandFactory as _;
        Program::command().debug_assert();
        let parse = |line: &str| Program::try_parse_from(line.split(' '));
        assert!(parse("x verify a b --closed --json").is_ok());
        assert!(parse("x timeline a --session 01ab").is_ok());
        assert!(parse("x verify").is_err());
        let error = parse("x verify a --head 7:abc").unwrap_err().to_string();
        assert!(error.contains("SEQ:HASH"), "{error}");
    }
}
