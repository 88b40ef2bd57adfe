//! The log of the programs: lines to standard error that hold nothing up, whoever reads them (INV-23, O04).

use std::fmt::Display;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that may wait for whoever reads standard error; those beyond are lost. Two megabytes or so.
const LINES: usize = 16_384;
/// How long the last word waits for somebody to hear it, in milliseconds.
const PATIENCE_MS: u16 = 1_000;

/// Begins the log, with the filter in that environment variable, as `debug`. Lines are written by a thread of their own:
/// whoever reads too slowly loses some. What is still to be written when the guard is dropped is written then, if that takes
/// no second.
#[must_use = "dropped, it ends the log"]
pub fn start(variable: &str) -> WorkerGuard {
    let filter = EnvFilter::try_from_env(variable).unwrap_or_else(|_| EnvFilter::new("info"));
    let (writer, guard) = NonBlockingBuilder::default().buffered_lines_limit(LINES).finish(io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
    guard
}

/// Says on standard error why the program ends. If that is a full pipe that nobody reads, it ends without a word: whoever
/// would start it again waits for its end.
pub fn last_word(word: &impl Display) {
    if takes(&io::stderr(), PATIENCE_MS.into()) {
        eprintln!("{word}");
    }
}

/// Whether a short text can be written at once. A pipe says so when a page of it is free (pipe(7)).
fn takes(file: &impl AsFd, patience: PollTimeout) -> bool {
    let mut asked = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
    // What cannot be asked is written to: the error is seen there.
    poll(&mut asked, patience).map_or(true, |ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_full_pipe_takes_no_word_and_an_empty_one_does() {
        let (_reader, mut writer) = io::pipe().expect("a pipe");
        assert!(takes(&writer, PollTimeout::ZERO));
        // As much as a pipe holds (pipe(7)).
        writer.write_all(&[b' '; 65_536]).expect("written");
        assert!(!takes(&writer, PollTimeout::ZERO));
    }

    #[test]
    fn what_is_no_pipe_takes_words() {
        let file = std::fs::File::options().write(true).open("/dev/null").expect("a file");
        assert!(takes(&file, PollTimeout::ZERO));
    }

    #[test]
    fn a_pipe_without_a_reader_is_written_to_which_fails_at_once() {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        assert!(takes(&writer, PollTimeout::ZERO));
    }
}
