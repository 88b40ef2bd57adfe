//! A TOML file together with the line of every key, so that any complaint can point at its place.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

/// Largest configuration file that is read: a hundred thousand clients are 10 MiB, and a wrong path (a disk image) is not
/// swallowed.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// What is wrong in a configuration, where, and what cures it. Always the operator's fault, never ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file as it was named.
    pub file: PathBuf,
    /// Line in the file, from 1; none if the file as a whole is meant.
    pub line: Option<usize>,
    /// Dotted path of the key, as `outside.listen[0]`; empty if the file as a whole is meant.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub cure: String,
}

impl ConfigError {
    /// `FILE:LINE: KEY: PROBLEM`, without the cure.
    pub fn place_and_problem(&self) -> String {
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        let key = if self.key.is_empty() { String::new() } else { format!(": {}", self.key) };
        format!("{}{line}{key}: {}", self.file.display(), self.problem)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  cure: {}", self.place_and_problem(), self.cure)
    }
}

impl std::error::Error for ConfigError {}

/// A parsed file and the places of its keys.
#[derive(Debug)]
pub struct Document {
    file: PathBuf,
    text: String,
    places: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Place {
    key: Range<usize>,
    value: Range<usize>,
}

impl Document {
    /// Reads and parses a file.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let whole_file = |problem: String, cure: &str| ConfigError {
            file: file.to_path_buf(),
            line: None,
            key: String::new(),
            problem,
            cure: cure.to_owned(),
        };
        let opened = File::open(file)
            .map_err(|error| whole_file(error.to_string(), "name an existing, readable file with --config"))?;
        // Counted while it is read: a device or a pipe does not tell its size.
        let mut bytes = Vec::new();
        opened
            .take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| whole_file(error.to_string(), "name a readable UTF-8 text file with --config"))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            let problem = format!("more than {MAX_FILE_BYTES} bytes are no configuration");
            return Err(whole_file(problem, "name the TOML file with --config"));
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| whole_file("not UTF-8 text".to_owned(), "name a readable UTF-8 text file with --config"))?;
        Self::parse(file, text)
    }

    /// Parses `text`, which complaints will call `file`.
    pub fn parse(file: &Path, text: String) -> Result<Self, ConfigError> {
        let mut places = BTreeMap::new();
        match DeTable::parse(&text) {
            Ok(table) => {
                for (key, value) in table.get_ref() {
                    let place = Place { key: key.span(), value: value.span() };
                    record(&mut places, key.get_ref().to_string(), place, value.get_ref());
                }
                Ok(Self { file: file.to_path_buf(), text, places })
            }
            Err(error) => Err(ConfigError {
                file: file.to_path_buf(),
                line: error.span().map(|span| line_at(&text, span.start)),
                key: String::new(),
                problem: format!("not valid TOML: {}", error.message()),
                cure: "correct the line; strings need quotes, tables are written as [name]".to_owned(),
            }),
        }
    }

    /// The file as it was named.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Directory that relative paths inside the file start from.
    pub fn directory(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("."))
    }

    /// Turns the whole document into `T`, which is expected to refuse unknown keys.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(&self.text).map_err(|error| {
            let message = error.message().replace('\n', ", ");
            let span = error.span();
            ConfigError {
                file: self.file.clone(),
                line: span.clone().map(|span| line_at(&self.text, span.start)),
                key: span.and_then(|span| self.key_at(&span)).unwrap_or_default().to_owned(),
                cure: cure_for(&message),
                problem: message,
            }
        })
    }

    /// A complaint about the key with that dotted path, or about the nearest table above it that the file has.
    pub fn complain(&self, key: &str, problem: impl Into<String>, cure: impl Into<String>) -> ConfigError {
        ConfigError {
            file: self.file.clone(),
            line: self.line_of(key),
            key: key.to_owned(),
            problem: problem.into(),
            cure: cure.into(),
        }
    }

    /// Whether the file states that key.
    pub fn has(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// Line of the key, or of the nearest table above it.
    pub fn line_of(&self, key: &str) -> Option<usize> {
        let mut path = key;
        loop {
            if let Some(place) = self.places.get(path) {
                return Some(line_at(&self.text, place.key.start));
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// The key whose name or value covers `span` most tightly.
    fn key_at(&self, span: &Range<usize>) -> Option<&str> {
        let covers = |range: &Range<usize>| range.start <= span.start && span.end <= range.end;
        self.places
            .iter()
            .filter_map(|(path, place)| {
                [&place.key, &place.value]
                    .into_iter()
                    .filter(|range| covers(range))
                    .map(|range| range.len())
                    .min()
                    .map(|len| (len, path.as_str()))
            })
            .min()
            .map(|(_, path)| path)
    }
}

fn record(places: &mut BTreeMap<String, Place>, path: String, place: Place, value: &DeValue<'_>) {
    match value {
        DeValue::Table(table) => {
            for (key, value) in table {
                let inner = Place { key: key.span(), value: value.span() };
                record(places, format!("{path}.{}", key.get_ref()), inner, value.get_ref());
            }
        }
        DeValue::Array(array) => {
            for (index, value) in array.iter().enumerate() {
                let inner = Place { key: value.span(), value: value.span() };
                record(places, format!("{path}[{index}]"), inner, value.get_ref());
            }
        }
        _ => {}
    }
    places.insert(path, place);
}

fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The cure that goes with a complaint of the deserializer. Its wording is not ours, so an unknown one gets the general
/// advice rather than a wrong one.
fn cure_for(message: &str) -> String {
    if message.starts_with("unknown field") {
        "remove the key, or use one of the names listed".to_owned()
    } else if let Some(name) = message.strip_prefix("missing field ") {
        format!("add {name} to this table; gateway.toml among the examples shows every key")
    } else if message.starts_with("unknown variant") {
        "use one of the values listed".to_owned()
    } else {
        "write a value of the expected kind; gateway.toml among the examples shows every key".to_owned()
    }
}
