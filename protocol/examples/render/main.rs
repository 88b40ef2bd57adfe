//! Keeps the documents true to the code.
//!
//! What a document shows between `<!-- generated: NAME -->` and `<!-- end generated -->` is made here from the tables
//! that the programs themselves use, or from the names of the tests. The transition table of the specification is written
//! by hand, because it says more than the code's; it is compared with the code's instead. A transition, an invariant, a
//! reason code or a scenario without a test is an error (see `coverage`), and so is a link to a file that does not exist.
//!
//! ```text
//! cargo run -p jumpgate-protocol --example render              rewrite the generated parts
//! cargo run -p jumpgate-protocol --example render -- --check   change nothing; exit 1 and name what is stale
//! ```

#![forbid(unsafe_code)]

mod coverage;
mod tests;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jumpgate_protocol::machine::{self, Input, State};
use jumpgate_protocol::reason::{Reason, Use};
use jumpgate_protocol::{audit, policy, wire};

/// What can stand between markers.
struct Part {
    name: &'static str,
    render: fn() -> String,
}

/// All parts. Each stands in at least one document.
const PARTS: [Part; 9] = [
    Part { name: "wire-layout", render: wire::layout::render_markdown },
    Part { name: "transitions", render: machine::render_markdown },
    Part { name: "reason-codes", render: reason_codes },
    Part { name: "policy-parameters", render: policy::render_markdown },
    Part { name: "audit-events", render: audit::render_markdown },
    Part { name: "coverage-transitions", render: coverage::transitions },
    Part { name: "coverage-invariants", render: coverage::invariants },
    Part { name: "coverage-reasons", render: coverage::reasons },
    Part { name: "coverage-scenarios", render: coverage::scenarios },
];
/// What a marker begins with; its name and [`MARKER_END`] follow.
const MARKER: &str = "<!-- generated: ";
const MARKER_END: &str = " -->";
/// Ends a generated part.
const END: &str = "<!-- end generated -->";
/// Where the hand-written transition table is.
const SPECIFICATION: &str = "docs/specification.md";
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let check = match arguments.as_slice() {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => {
            eprintln!("error: unknown arguments {arguments:?}; there is one: --check");
            return ExitCode::from(2);
        }
    };
    match run(check) {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            problems.iter().for_each(|problem| eprintln!("error: {problem}"));
            ExitCode::FAILURE
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Goes through all documents and gives what is wrong with them.
fn run(check: bool) -> Result<Vec<String>, String> {
    let root = root();
    let mut problems = Vec::new();
    let mut used = Vec::new();
    for document in documents(&root)? {
        let path = root.join(&document);
        let name = document.display().to_string();
        let old = fs::read_to_string(&path).map_err(|error| format!("{name}: {error}"))?;
        let new = fill(&old, &mut used).map_err(|problem| format!("{name}: {problem}"))?;
        if new != old && check {
            problems.push(format!("{name} is stale: run `cargo run -p jumpgate-protocol --example render`"));
        } else if new != old {
            fs::write(&path, &new).map_err(|error| format!("{name}: {error}"))?;
            println!("{name}: rewritten");
        }
        problems.extend(dead_links(&path, &new).into_iter().map(|link| format!("{name}: dead link to {link}")));
        if name == SPECIFICATION {
            problems.extend(differences_of_transitions(&new).into_iter().map(|what| format!("{name}: {what}")));
        }
    }
    let unused = PARTS.iter().filter(|part| !used.contains(&part.name));
    problems.extend(unused.map(|part| format!("no document shows the generated part {}", part.name)));
    problems.extend(coverage::gaps());
    Ok(problems)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// README and everything in docs, relative to the root.
fn documents(root: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(root.join("docs")).map_err(|error| format!("docs: {error}"))?;
    let names = entries.flatten().map(|entry| Path::new("docs").join(entry.file_name()));
    let mut all: Vec<PathBuf> = names.filter(|name| name.extension().is_some_and(|kind| kind == "md")).collect();
    all.push(PathBuf::from("README.md"));
    all.sort();
    Ok(all)
}

/// The document with its generated parts made anew; notes which parts it shows.
fn fill(document: &str, used: &mut Vec<&'static str>) -> Result<String, String> {
    let mut out = String::with_capacity(document.len());
    let mut rest = document;
    while let Some((before, after)) = rest.split_once(MARKER) {
        let (name, old) = after.split_once(MARKER_END).ok_or("a marker does not end")?;
        let Part { name, render } =
            PARTS.iter().find(|part| part.name == name).ok_or(format!("nothing generates {name:?}"))?;
        let (_, behind) = old.split_once(END).ok_or(format!("the part {name} has no {END}"))?;
        used.push(name);
        let text = render();
        // Writing to a String cannot fail.
        let _ = write!(out, "{before}{MARKER}{name}{MARKER_END}\n\n{}\n\n{END}", text.trim_end());
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

/// All reason codes with their meaning, by number.
fn reason_codes() -> String {
    let mut out = String::from("| No | Code | Use | Meaning |\n|---|---|---|---|\n");
    for reason in Reason::ALL {
        let uses: Vec<&str> = reason.uses().iter().map(|usage| use_letter(*usage)).collect();
        let _ = writeln!(out, "| {} | {reason} | {} | {} |", reason.number(), uses.join(" "), reason.meaning());
    }
    out
}

const fn use_letter(usage: Use) -> &'static str {
    match usage {
        Use::P => "P",
        Use::R => "R",
        Use::E => "E",
        Use::D => "D",
    }
}

/// Links to files beside the document that do not exist.
fn dead_links(document: &Path, text: &str) -> Vec<String> {
    let links = text.split("](").skip(1).filter_map(|behind| behind.split(')').next());
    let targets = links.map(|link| link.split('#').next().unwrap_or(link));
    targets
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .filter(|target| !document.parent().is_some_and(|directory| directory.join(target).exists()))
        .map(str::to_owned)
        .collect()
}

/// Where the transition table of the specification says something else than the code's: `| Id | Side | From | Input |
/// Guard | To | Primary reason | ...`.
fn differences_of_transitions(specification: &str) -> Vec<String> {
    let rows: Vec<Vec<&str>> = specification
        .lines()
        .filter(|line| line.starts_with("| T"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells.len() == 8)
        .collect();
    let mut differences = Vec::new();
    for row in machine::TABLE {
        let from: Vec<&str> = row.from.iter().map(|state| state.name()).collect();
        let from = if from.len() == State::ALL.len() - 1 { "any live".to_owned() } else { from.join(", ") };
        let reasons: Vec<&str> = row.reasons.iter().map(|reason| reason.name()).collect();
        let to = row.to.map_or("same state", State::name);
        let code = [from.as_str(), Input::name_of(row.input_priority), to, &reasons.join(", ")];
        let Some(cells) = rows.iter().find(|cells| cells[0] == row.id.name()) else {
            differences.push(format!("{} is missing", row.id));
            continue;
        };
        let written = [cells[2], cells[3], cells[5], &cells[6].replace(" or ", ", ")];
        if written != code {
            differences.push(format!("{}: the text says {written:?}, the code {code:?}", row.id));
        }
    }
    differences.extend(
        rows.iter()
            .filter(|cells| !machine::TABLE.iter().any(|row| row.id.name() == cells[0]))
            .map(|cells| format!("the code has no {}", cells[0])),
    );
    differences
}
