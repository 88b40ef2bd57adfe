//! The tests of the whole repository as text: what each is called, where it is, and which ids it cites.
//!
//! A test is a function under `#[test]` (or another attribute that ends in `test`), or a case of the laboratory, `name:
//! "a sentence (TC01, A02)", run: function`. It cites an id by its name (`tc01_a_sentence`), in the comment above it, in
//! the sentence of the case, or anywhere in the body of its function. Sources are read as rustfmt leaves them: a
//! function ends with the first brace at its own indentation.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Directories whose sources hold tests.
const TESTED: [&str; 11] = [
    "protocol",
    "sim",
    "model",
    "audit",
    "metrics",
    "fuzz",
    "ebpf/common",
    "gateway",
    "client",
    "scripts/lab",
    "bench",
];
/// Directories that hold what was built.
const BUILT: [&str; 2] = ["target", "corpus"];

/// One test.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Test {
    /// Its name as a sentence.
    pub(crate) sentence: String,
    /// The file, relative to the root.
    pub(crate) file: String,
    /// Every word of its name, comment and body that could be an id.
    words: BTreeSet<String>,
}

impl Test {
    /// Whether the test cites that id or name.
    pub(crate) fn cites(&self, id: &str) -> bool {
        self.words.contains(id)
    }

    fn new(sentence: String, file: &str, text: &str) -> Self {
        Self { sentence, file: file.to_owned(), words: words(text) }
    }
}

/// Every test of the repository below `root`, in a fixed order.
pub(crate) fn all(root: &Path) -> BTreeSet<Test> {
    let mut found = BTreeSet::new();
    let mut directories: Vec<PathBuf> = TESTED.iter().map(PathBuf::from).collect();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(root.join(&directory)).into_iter().flatten().flatten() {
            let path = directory.join(entry.file_name());
            if entry.path().is_dir() {
                if !BUILT.iter().any(|built| path.ends_with(built)) {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let source = fs::read_to_string(entry.path()).unwrap_or_default();
                found.extend(of_source(&path.display().to_string(), &source));
            }
        }
    }
    found
}

/// The tests of one source file.
fn of_source(file: &str, source: &str) -> Vec<Test> {
    let lines: Vec<&str> = source.lines().collect();
    let functions = (0..lines.len()).filter(|at| is_test_attribute(lines[*at])).filter_map(|at| {
        let start = (at..lines.len()).find(|line| function_name(lines[*line]).is_some())?;
        let name = function_name(lines[start])?;
        let comment = comment_above(&lines, at);
        let text = format!("{comment}\n{}\n{name}", body(&lines, start));
        Some(Test::new(sentence(name), file, &text))
    });
    let cases = (0..lines.len()).filter_map(|at| {
        let named = lines[at].trim_start().split_once("name: \"")?.1.split('"').next()?;
        let (title, ids) = named.rsplit_once(" (")?;
        let run = lines[at..].iter().take(3).find_map(|line| line.split_once("run: ")).map(|(_, behind)| behind)?;
        let run = run.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next()?;
        let start = (0..lines.len()).find(|line| function_name(lines[*line]) == Some(run));
        let text = start.map_or(String::new(), |start| body(&lines, start));
        Some(Test::new(title.to_owned(), file, &format!("{ids}\n{text}")))
    });
    functions.chain(cases).collect()
}

fn is_test_attribute(line: &str) -> bool {
    let line = line.trim();
    line == "#[test]" || line.starts_with("#[tokio::test")
}

/// The name of the function that a line begins.
fn function_name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub(super) ").or_else(|| line.strip_prefix("pub(crate) ")).unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    line.strip_prefix("fn ")?.split(['(', '<']).next()
}

/// The lines of comment directly above a line.
fn comment_above(lines: &[&str], at: usize) -> String {
    let above = lines[..at].iter().rev().take_while(|line| {
        let line = line.trim_start();
        line.starts_with("//") || line.starts_with("#[")
    });
    above.copied().collect::<Vec<_>>().join("\n")
}

/// A function from its first line to the brace that ends it.
fn body(lines: &[&str], start: usize) -> String {
    let indent = lines[start].len() - lines[start].trim_start().len();
    let ends =
        |line: &str| line.trim_end() == format!("{:indent$}}}", "") || (line.ends_with("{}") && !line.is_empty());
    let length = lines[start..].iter().position(|line| ends(line)).unwrap_or(0);
    lines[start..=start + length].join("\n")
}

/// The sentence that a test's name is, without the id in front.
fn sentence(name: &str) -> String {
    let (first, rest) = name.split_once('_').unwrap_or((name, ""));
    let is_id = first.len() >= 3
        && first.ends_with(|letter: char| letter.is_ascii_digit())
        && first.starts_with(|letter: char| letter.is_ascii_lowercase());
    if is_id && !rest.is_empty() { rest.replace('_', " ") } else { name.replace('_', " ") }
}

/// Words that can be ids or names of codes: letters, digits, `-` and `_`. The parts of a function's name are words too,
/// in capitals, so that `tc01_a_sentence` cites TC01.
fn words(text: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    for word in text.split(|letter: char| !is_part(letter)).filter(|word| word.len() >= 3) {
        words.insert(word.to_owned());
        let first = word.split('_').next().unwrap_or_default();
        if first.len() >= 3 && first.ends_with(|letter: char| letter.is_ascii_digit() || letter == 'b') {
            words.insert(first.to_ascii_uppercase());
            // A hyphen cannot stand in the name of a function: `inv09_equal_arguments` cites INV-09.
            if let Some(number) = first.strip_prefix("inv") {
                words.insert(format!("INV-{number}"));
            }
        }
    }
    // `INV-05..INV-07` and `t06_t08b_t11_...` are left to whoever writes them: an id is cited when it is written.
    words
}
