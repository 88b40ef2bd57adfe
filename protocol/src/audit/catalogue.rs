//! The catalogue of all events, the sink's included: what a verifier takes as its schema and the document shows.

use core::fmt::Write;

use super::event::CORE_ROWS;
use super::value::Kind;
use super::{Bounds, Score};
use crate::machine::State;
use crate::reason::Reason;

/// What a record is for, and so what becomes of it under pressure (OB-02, OB-05).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Transitions and all that explains them: never limited, sampled or filtered.
    Audit,
    /// Refusals, floods, anomalies: limited by reason, with a summary of what was left out.
    Security,
    /// Samples: dropped freely.
    Telemetry,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 3] = [Self::Audit, Self::Security, Self::Telemetry];

    /// Its letter.
    pub const fn letter(self) -> char {
        match self {
            Self::Audit => 'A',
            Self::Security => 'S',
            Self::Telemetry => 'T',
        }
    }
}

/// Whether an event belongs to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Always: `session_id`, `state`, `state_version` and `binding_epoch` are there.
    Session,
    /// If the session is known; else the four are null.
    Either,
    /// Never: the four are null.
    Node,
}

/// Who writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The protocol core, as a [`super::Record`].
    Core,
    /// The sink, about the file and the rings themselves.
    Sink,
    /// Nobody yet: the name belongs to the cluster (§11).
    Reserved,
}

/// One kind of event.
#[derive(Clone, Copy)]
pub struct EventRow {
    /// `event_type` in the file.
    pub name: &'static str,
    /// Its class.
    pub class: Class,
    /// Whether it belongs to a session.
    pub scope: Scope,
    /// Who writes it.
    pub origin: Origin,
    /// Whether `reason_code` must be there.
    pub reason_required: bool,
    /// When it is written.
    pub when: &'static str,
    /// Its own fields, in the order of the file.
    pub fields: &'static [FieldRow],
}

/// One field.
#[derive(Clone, Copy)]
pub struct FieldRow {
    /// Its key in the file.
    pub name: &'static str,
    /// Its form.
    pub kind: Kind,
    /// Whether it can be `null`. It is never left out.
    pub nullable: bool,
    /// What it says.
    pub meaning: &'static str,
}

const fn field(name: &'static str, kind: Kind, meaning: &'static str) -> FieldRow {
    FieldRow { name, kind, nullable: false, meaning }
}

const fn nullable(name: &'static str, kind: Kind, meaning: &'static str) -> FieldRow {
    FieldRow { name, kind, nullable: true, meaning }
}

/// The fields that begin every line, in the order of the file; those of the event follow.
pub const BASE_FIELDS: &[FieldRow] = &[
    field("seq", Kind::Unsigned, "counts the lines of the chain from 0, without holes"),
    field("prev_hash", Kind::Hex(32), "BLAKE3 of the line before, its LF excluded"),
    field("ts_ms", Kind::Unsigned, "Unix milliseconds, never falling"),
    field("event_type", Kind::Text, "a name of the catalogue"),
    field("role", Kind::Name(|| vec!["gateway", "client"]), "which end writes"),
    field("node_id", Kind::Text, "which node writes"),
    nullable("worker", Kind::Unsigned, "which worker; null for the control thread"),
    nullable("policy_version", Kind::Text, "version of the policy in force, X.Y"),
    nullable("policy_sequence", Kind::Unsigned, "how often the policy was replaced, from 1"),
    nullable("session_id", Kind::Hex(16), "identity of the session"),
    nullable("state", Kind::Name(states), "state after the event"),
    nullable("state_version", Kind::Unsigned, "version after the event"),
    nullable("binding_epoch", Kind::Unsigned, "epoch after the event"),
    nullable("reason_code", Kind::Name(reasons), "the one primary reason"),
    nullable("details", Kind::Name(reasons), "a detail beside it"),
];

fn states() -> Vec<&'static str> {
    State::ALL.iter().map(|state| state.name()).collect()
}

fn reasons() -> Vec<&'static str> {
    Reason::ALL.iter().map(|reason| reason.name()).collect()
}

const fn sink(name: &'static str, scope: Scope, when: &'static str, fields: &'static [FieldRow]) -> EventRow {
    EventRow { name, class: Class::Audit, scope, origin: Origin::Sink, reason_required: false, when, fields }
}

const fn reserved(name: &'static str, when: &'static str) -> EventRow {
    EventRow {
        name,
        class: Class::Audit,
        scope: Scope::Either,
        origin: Origin::Reserved,
        reason_required: true,
        when,
        fields: OWNER_FIELDS,
    }
}

/// Fields of the cluster's events (§11).
const OWNER_FIELDS: &[FieldRow] = &[
    field("owner_node_id", Kind::Text, "the owner now"),
    nullable("previous_owner", Kind::Text, "the owner before"),
    field("fencing_epoch", Kind::Unsigned, "rises with every change of owner"),
];

/// Events about the file and the rings (OB-06, OB-09), and names that belong to the cluster.
const OTHER_ROWS: &[EventRow] = &[
    sink(
        "TelemetryDegraded",
        Scope::Node,
        "a sink or ring is impaired, or well again",
        &[
            field("sink", Kind::Text, "which sink"),
            nullable("ring", Kind::Text, "which ring"),
            field("lost", Kind::Unsigned, "records lost so far"),
            nullable("since_ms", Kind::Unsigned, "Unix milliseconds since when; null when well again"),
        ],
    ),
    sink(
        "AuditGap",
        Scope::Either,
        "audit records were lost: of a session, before its next record; of a ring, once there is room again",
        &[
            nullable("from_version", Kind::Unsigned, "of a session: first version that may be missing"),
            nullable("to_version", Kind::Unsigned, "of a session: last version that may be missing"),
            nullable("first_seq", Kind::Unsigned, "of a ring: first record lost"),
            nullable("last_seq", Kind::Unsigned, "of a ring: last record lost"),
            field("count", Kind::Unsigned, "records lost"),
        ],
    ),
    sink(
        "ChainStart",
        Scope::Node,
        "the first line of a file",
        &[
            field("schema_version", Kind::Unsigned, "of this format"),
            field("software_version", Kind::Text, "of the writer"),
            field("boot_id", Kind::Text, "of this run of the process"),
            field("tick_ms", Kind::Unsigned, "timer resolution"),
            field("clock_anchor_ms", Kind::Unsigned, "Unix milliseconds at the zero of the clock"),
            field("previous_hash", Kind::Hex(32), "BLAKE3 of the last line of the file before, or zeros"),
            field("truncated_bytes", Kind::Unsigned, "length of an unfinished line that was cut from it"),
        ],
    ),
    sink(
        "ChainEnd",
        Scope::Node,
        "the last line of a file that was closed in order",
        &[field("records", Kind::Unsigned, "lines of this file, this one included")],
    ),
    reserved("SessionOwnerAcquired", "a session got an owner"),
    reserved("SessionOwnerRejected", "a transfer was refused"),
    reserved("SessionOwnerConflict", "two owners claim one epoch"),
];

/// Every kind of event, in the order of the document.
pub fn catalogue() -> impl Iterator<Item = &'static EventRow> {
    CORE_ROWS.iter().chain(OTHER_ROWS)
}

/// The row of that name, if there is one.
pub fn row(name: &str) -> Option<&'static EventRow> {
    catalogue().find(|row| row.name == name)
}

/// The catalogue as Markdown, for `docs/audit.md`.
pub fn render_markdown() -> String {
    let mut out = String::from("Base fields, in this order:\n\n");
    fields(&mut out, BASE_FIELDS);
    // Writing to a String cannot fail.
    for row in catalogue() {
        let class = row.class.letter();
        let scope = match row.scope {
            Scope::Session => "of a session",
            Scope::Either => "of a session, if it is known",
            Scope::Node => "of the node",
        };
        let by = match row.origin {
            Origin::Core => "",
            Origin::Sink => "; written by the sink",
            Origin::Reserved => "; reserved, not written yet",
        };
        let reason = if row.reason_required { "; `reason_code` required" } else { "" };
        let _ = writeln!(out, "\n### {}\n\nClass {class}, {scope}{reason}{by}. {}.\n", row.name, sentence(row.when));
        fields(&mut out, row.fields);
    }
    for (name, rows) in [("bounds", Bounds::FIELDS), ("candidates", Score::FIELDS)] {
        let _ = writeln!(out, "\n### Fields of `{name}`\n");
        fields(&mut out, rows);
    }
    out
}

fn fields(out: &mut String, rows: &[FieldRow]) {
    out.push_str("| Field | Form | What it says |\n|---|---|---|\n");
    for row in rows {
        let null = if row.nullable { ", or null" } else { "" };
        let _ = writeln!(out, "| `{}` | {}{null} | {} |", row.name, form(row.kind), row.meaning);
    }
}

fn sentence(when: &str) -> String {
    let mut letters = when.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Longest list of names that a document shows in full.
const SHOWN_NAMES: usize = 12;

fn form(kind: Kind) -> String {
    match kind {
        Kind::Unsigned => "whole number".to_owned(),
        Kind::Boolean => "boolean".to_owned(),
        Kind::Ratio => "ratio".to_owned(),
        Kind::Number => "whole number or ratio".to_owned(),
        Kind::Name(names) => {
            let names = names();
            if names.len() > SHOWN_NAMES { "name".to_owned() } else { names.join(", ") }
        }
        Kind::Text => "text".to_owned(),
        Kind::Hex(bytes) => format!("{bytes} bytes in hexadecimal"),
        Kind::Address => "16 hexadecimal digits, or address and port (PP87)".to_owned(),
        Kind::Bounds => "object, see below".to_owned(),
        Kind::Scores => "list of objects, see below".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ob13_every_name_stands_once_and_no_event_shadows_a_base_field() {
        let mut names = HashSet::new();
        for row in catalogue() {
            assert!(names.insert(row.name), "{} stands twice", row.name);
            let mut keys: HashSet<&str> = BASE_FIELDS.iter().map(|field| field.name).collect();
            for field in row.fields {
                assert!(keys.insert(field.name), "{} has {} twice", row.name, field.name);
            }
        }
    }
}
