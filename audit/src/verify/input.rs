//! The files of a trace: found, and put in the order of their chains.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek as _};
use std::path::{Path, PathBuf};

use super::lines::{LINE_MAX, Lines};
use crate::chain::{Author, FILE_PREFIX, FILE_SUFFIX, Role};
use crate::text::Object;

/// Lines at the begin of a file of which one must be a record; otherwise it is something else.
const FIRST_LINES: usize = 3;
/// What is read of a file at once.
const BUFFER: usize = 256 * 1024;

/// One file of a trace.
pub struct Input<'a> {
    pub(super) name: String,
    pub(super) reader: Box<dyn BufRead + 'a>,
    /// Who wrote it, and its first record; none if it is no trace.
    pub(super) origin: Option<(Author, u64)>,
    pub(super) problem: Option<String>,
}

/// Files cannot be found.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct InputError {
    /// What was asked for.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: String,
}

/// Takes a directory as the trace files in it and in its directories, oldest first: one for each key of a node.
///
/// # Errors
/// A directory cannot be read, or holds no trace.
pub fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>, InputError> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let error = |problem: String| InputError { path: path.clone(), problem };
        let (mut inside, directories) = entries(path).map_err(|problem| error(problem.to_string()))?;
        for directory in directories {
            inside.extend(entries(&directory).map_err(|problem| error(problem.to_string()))?.0);
        }
        if inside.is_empty() {
            return Err(error(format!("no {FILE_PREFIX}*{FILE_SUFFIX} in this directory")));
        }
        files.extend(inside);
    }
    Ok(files)
}

/// The trace files of a directory, and the directories in it, both by name.
fn entries(directory: &Path) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let paths = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let (mut directories, mut files): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.is_dir());
    files.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(FILE_PREFIX) && name.ends_with(FILE_SUFFIX)
    });
    files.sort();
    directories.sort();
    Ok((files, directories))
}

impl<'a> Input<'a> {
    /// Opens a file. What is wrong with it becomes part of the report.
    pub fn open(path: &Path) -> Self {
        let name = path.display().to_string();
        let read = || -> io::Result<Self> {
            let mut file = File::open(path)?;
            let mut head = Vec::new();
            (&mut file).take((LINE_MAX * FIRST_LINES) as u64).read_to_end(&mut head)?;
            file.rewind()?;
            let reader = Box::new(BufReader::with_capacity(BUFFER, file));
            Ok(Self { name: name.clone(), reader, origin: origin(&head), problem: None })
        };
        read().unwrap_or_else(|error| {
            let problem = Some(error.to_string());
            Self { name: name.clone(), reader: Box::new(io::empty()), origin: None, problem }
        })
    }

    /// Bytes that stand for a file.
    pub fn bytes(name: &str, bytes: &'a [u8]) -> Self {
        Self { name: name.to_owned(), reader: Box::new(bytes), origin: origin(bytes), problem: None }
    }

    /// Who wrote it; none if it is no trace.
    pub fn author(&self) -> Option<Author> {
        self.origin.as_ref().map(|(author, _)| author.clone())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its lines; none if it is something else.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn lines(self) -> io::Result<Option<Lines<Box<dyn BufRead + 'a>>>> {
        match (self.problem, self.origin) {
            (Some(problem), _) => Err(io::Error::other(problem)),
            (None, None) => Ok(None),
            (None, Some(_)) => Ok(Some(Lines::new(self.reader))),
        }
    }

    /// The order in which files are read: by chain, then by record.
    pub(crate) fn order(&self) -> (Option<&Author>, u64) {
        (self.origin.as_ref().map(|(author, _)| author), self.origin.as_ref().map_or(0, |(_, seq)| *seq))
    }
}

/// Author and number of the first record, if one of the first lines is a record.
fn origin(head: &[u8]) -> Option<(Author, u64)> {
    let mut lines = Lines::new(head);
    for _ in 0..FIRST_LINES {
        let line = lines.next().ok()??;
        if let Ok(object) = Object::parse(line.bytes)
            && let (Some(role), Some(node_id), Some(seq)) =
                (object.text("role").and_then(Role::from_name), object.text("node_id"), object.number("seq"))
        {
            return Some((Author { role, node_id: node_id.to_owned() }, seq));
        }
    }
    None
}
