//! Complaints about a configuration: file, line, column, key, what is wrong and what to do.

use std::io;
use std::path::{Path, PathBuf};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}; name the file with --config", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something in the file is wrong.
    #[error("{path}:{place}{message}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// `line:column: key: `, as far as it is known.
        place: String,
        /// What is wrong and what to do.
        message: String,
    },
}

impl ConfigError {
    /// A complaint of the TOML parser or of one of our value types.
    pub(super) fn from_toml(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let message = with_cure(error.message());
        match error.span() {
            Some(span) => Self::at(path, text, span.start, message),
            None => Self::in_file(path, &message),
        }
    }

    /// A complaint about what stands at byte `offset` of the text.
    pub(super) fn at(path: &Path, text: &str, offset: usize, message: String) -> Self {
        Self::Invalid { path: path.to_owned(), place: Place::find(text, offset).to_string(), message }
    }

    /// A complaint about the file as a whole.
    pub(super) fn in_file(path: &Path, message: &str) -> Self {
        Self::Invalid { path: path.to_owned(), place: " ".to_owned(), message: message.to_owned() }
    }
}

/// Our own value types say what to do; the parser's complaints about kinds of values and keys do not.
fn with_cure(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    let cure = if first.starts_with("invalid type") {
        "write a value of the expected kind"
    } else if first.starts_with("missing field") {
        "add the key"
    } else if first.starts_with("unknown field") {
        "correct the key or take it out"
    } else {
        return message.to_owned();
    };
    format!("{message}; {cure}: jump.toml among the examples shows every key")
}

/// Where in the file something stands, as people count.
struct Place {
    line: usize,
    column: usize,
    key: String,
}

impl Place {
    fn find(text: &str, offset: usize) -> Self {
        let offset = (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let line_end = text[offset..].find('\n').map_or(text.len(), |end| offset + end);
        Self {
            line: before.matches('\n').count() + 1,
            column: text[line_start..offset].chars().count() + 1,
            key: key_of(&text[..line_end]),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if self.key.is_empty() { Ok(()) } else { write!(f, "{}: ", self.key) }
    }
}

/// The dotted key that the last line of `text` belongs to: the last section header plus the last `key =` below it.
fn key_of(text: &str) -> String {
    let mut section = "";
    let mut key = "";
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') && line.trim_start_matches('[').starts_with(|c: char| c.is_ascii_alphabetic()) {
            section = line.trim_matches(['[', ']']);
            key = "";
        } else if let Some((name, _)) = line.split_once('=')
            && !line.starts_with(['#', '"', '\''])
        {
            key = name.trim();
        }
    }
    [section, key].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[client]\nmtu = 9\n\n[gateway]\nendpoints = [\n  \"ä\", \"b\",\n]\n[[uplink]]\n";

    #[test]
    fn a_place_names_line_column_and_key() {
        let show = |needle: &str| Place::find(TEXT, TEXT.find(needle).unwrap()).to_string();
        assert_eq!(show("9"), "2:7: client.mtu: ");
        assert_eq!(show("\"b\""), "6:8: gateway.endpoints: ");
        assert_eq!(show("[[uplink"), "8:1: uplink: ");
    }

    #[test]
    fn a_complaint_of_the_parser_comes_with_its_cure() {
        for (complaint, cure) in [
            ("invalid type: map, expected path string", "write a value of the expected kind"),
            ("missing field `public_key`", "add the key"),
            ("unknown field `mtuu`, expected `mtu`", "correct the key"),
        ] {
            let message = with_cure(complaint);
            assert!(message.starts_with(complaint) && message.contains(cure), "{message}");
        }
        assert_eq!(with_cure("the key is no base64; use jump genkey"), "the key is no base64; use jump genkey");
    }

    #[test]
    fn an_offset_outside_of_the_text_is_no_panic() {
        for offset in 0..TEXT.len() + 5 {
            let _ = Place::find(TEXT, offset);
        }
        let _ = Place::find("", 3);
    }
}
