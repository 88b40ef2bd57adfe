//! The policy document, made from the same table that the program checks by.

use core::fmt::Write as _;

use super::rules::RULES;
use super::{Narrowing, PARAMETERS, Parameter};

/// The rules that concern one key each; they are code, not data.
const SINGLE_RULES: [(&str, &str); 4] = [
    ("PR-01", "required keys present, known keys only, right types"),
    ("PR-02", "each value inside its range"),
    ("PR-03", "`transport.allowed_protocols` not empty"),
    ("PR-10", "burst >= rate in every bucket; a rate of 0 is allowed only where the range says what it means"),
];

/// The parameters and the rules between them, as Markdown.
pub fn render_markdown() -> String {
    let mut text = String::from(
        "## Parameters\n\n\
         `=`: as in `default`. N: what a client may ask for (↓ smaller, ↑ larger, - nothing). \\*: required if \
         `profile` is `custom`; `version` is required always. Files write a rate with burst as `[rate, burst]`, a set as a \
         list of texts, and one name of a map by its own key, as in `transport.priority.wifi`.\n\n\
         | Id | Key | Unit | default | mobile | fast | Range | N | Meaning |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for parameter in PARAMETERS {
        row(&mut text, parameter);
    }
    text.push_str("\n## Rules\n\nA policy is checked whole before use.\n\n| Id | Rule |\n|---|---|\n");
    let between_keys = RULES.iter().map(|rule| (rule.id, format!("`{}`", rule.text())));
    let mut rules: Vec<_> =
        SINGLE_RULES.iter().map(|(id, rule)| (*id, (*rule).to_owned())).chain(between_keys).collect();
    rules.sort_by_key(|(id, _)| *id);
    for (id, rule) in rules {
        let _ = writeln!(text, "| {id} | {rule} |");
    }
    text
}

fn row(text: &mut String, parameter: &Parameter) {
    let [default, mobile, fast] = parameter.profiles.map(|raw| match parameter.number {
        // The version is the author's, not the profile's.
        1 => "-".to_owned(),
        _ => parameter.unit.text(raw),
    });
    let or_same = |value: String| if value == default && value != "-" { "=".to_owned() } else { value };
    let (mobile, fast) = (or_same(mobile), or_same(fast));
    let narrowing = match parameter.narrowing {
        Narrowing::Fixed => "-",
        Narrowing::Smaller => "↓",
        Narrowing::Larger => "↑",
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "| PP{:02} | {}{} | {} | {default} | {mobile} | {fast} | {} | {narrowing} | {} |",
        parameter.number,
        parameter.key,
        if parameter.required { " \\*" } else { "" },
        parameter.unit.name(),
        parameter.range_text(),
        parameter.meaning,
    );
}
