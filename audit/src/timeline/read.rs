//! Reads traces of any number of nodes, and keeps what is asked for.

use std::collections::BTreeMap;
use std::io;

use super::Story;
use crate::text::Object;
use crate::verify::Input;

/// Which sessions are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Beginning of the identity, in hexadecimal; none for all.
    pub session: Option<String>,
}

/// Why there is no timeline.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file.
    #[error("{name}: {error}")]
    File {
        /// Which.
        name: String,
        /// What is wrong.
        error: io::Error,
    },
    /// It is something else.
    #[error("{name}: this is no audit trace")]
    NoTrace {
        /// Which.
        name: String,
    },
    /// The beginning of an identity fits to several sessions.
    #[error("{prefix} is the beginning of {count} sessions, such as {first} and {second}: give more of it")]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// How many.
        count: usize,
        /// One of them.
        first: String,
        /// Another one.
        second: String,
    },
    /// No such session.
    #[error("no session begins with {prefix}; without --session all are listed")]
    Unknown {
        /// What was given.
        prefix: String,
    },
}

/// The stories that the filter wants: by session, the gateway's before the client's. Lines that are no records are
/// passed over.
///
/// # Errors
/// Why there is no timeline.
pub fn read(mut inputs: Vec<Input<'_>>, filter: &Filter) -> Result<Vec<Story>, ReadError> {
    inputs.sort_by(|a, b| a.order().cmp(&b.order()));
    let prefix = filter.session.as_ref().map(|prefix| prefix.to_ascii_lowercase());
    let mut stories: BTreeMap<(String, Option<String>), Story> = BTreeMap::new();
    for input in inputs {
        let name = input.name().to_owned();
        let mut lines = input.lines().map_err(|error| ReadError::File { name: name.clone(), error })?;
        let Some(lines) = &mut lines else { return Err(ReadError::NoTrace { name }) };
        while let Some(line) = lines.next().map_err(|error| ReadError::File { name: name.clone(), error })? {
            let Ok(record) = Object::parse(line.bytes) else { continue };
            let (Some(session), Some(event)) = (record.text("session_id"), record.text("event_type")) else {
                continue;
            };
            if prefix.as_ref().is_some_and(|prefix| !session.starts_with(prefix)) {
                continue;
            }
            // "gateway" sorts after "client"; the authoritative end comes first.
            let end = record.text("role").filter(|role| *role != "gateway").map(str::to_owned);
            let story = stories.entry((session.to_owned(), end)).or_insert_with(|| Story::new(session, &record));
            story.record(event, &record);
        }
    }
    if let Some(prefix) = prefix {
        check(&prefix, &stories.keys().map(|(session, _)| session.as_str()).collect::<Vec<_>>())?;
    }
    Ok(stories.into_values().collect())
}

/// Whether a prefix names one session.
fn check(prefix: &str, sessions: &[&str]) -> Result<(), ReadError> {
    let mut names = sessions.to_vec();
    names.dedup();
    match names[..] {
        [] => Err(ReadError::Unknown { prefix: prefix.to_owned() }),
        [_] => Ok(()),
        [first, second, ..] => Err(ReadError::Ambiguous {
            prefix: prefix.to_owned(),
            count: names.len(),
            first: first.to_owned(),
            second: second.to_owned(),
        }),
    }
}
