//! One line against the catalogue: every field there, of its form, with a known name (V-SCHEMA).

use std::collections::{HashMap, HashSet};

use jumpgate_protocol::audit::{BASE_FIELDS, Bounds, EventRow, FieldRow, Kind, Scope, Score, catalogue};
use jumpgate_protocol::ident::SessionIdentity;
use jumpgate_protocol::machine::State;
use jumpgate_protocol::reason::Reason;

use super::Code;
use crate::chain::{LineHash, Role};
use crate::text::{Object, Value};

/// Longest free text, in bytes.
const TEXT_MAX: usize = 255;
/// Words that claim what must never happen to a live session (V-MARKER), without anything between their parts.
const MARKERS: &[&str] = &["identityreset", "renegotiat", "sessionrestart", "sessionreset", "handshakerestart"];

/// A record whose base fields are what they should be.
pub(super) struct Seen<'a> {
    pub(super) seq: u64,
    pub(super) prev_hash: LineHash,
    pub(super) ts_ms: u64,
    pub(super) row: &'static EventRow,
    pub(super) role: Role,
    pub(super) node_id: &'a str,
    pub(super) worker: Option<u64>,
    pub(super) session: Option<SessionFields>,
    pub(super) reason: Option<Reason>,
    pub(super) detail: Option<Reason>,
    pub(super) object: &'a Object<'a>,
}

impl Seen<'_> {
    /// Whether it is a transition; all other records of a session stand beside one.
    pub(super) fn is_change(&self) -> bool {
        self.row.name == "SessionStateChange"
    }
}

/// Where a record says that its session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SessionFields {
    pub(super) id: SessionIdentity,
    pub(super) state: State,
    pub(super) version: u64,
    pub(super) epoch: u64,
}

/// A complaint about a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) code: Code,
    pub(super) expected: String,
    pub(super) found: String,
}

/// The catalogue, ready to be asked.
pub(super) struct Schema {
    rows: HashMap<&'static str, Row>,
    base: Vec<Field>,
    bounds: Vec<Field>,
    scores: Vec<Field>,
    reasons: HashMap<&'static str, Reason>,
}

struct Row {
    row: &'static EventRow,
    fields: Vec<Field>,
}

struct Field {
    name: &'static str,
    nullable: bool,
    form: Form,
}

enum Form {
    Unsigned,
    Boolean,
    Ratio,
    Number,
    Names(HashSet<&'static str>),
    Text,
    Hex(usize),
    Address,
    Bounds,
    Scores,
}

impl Schema {
    pub(super) fn new() -> Self {
        let rows = catalogue().map(|row| (row.name, Row { row, fields: prepare(row.fields) }));
        Self {
            rows: rows.collect(),
            base: prepare(BASE_FIELDS),
            bounds: prepare(Bounds::FIELDS),
            scores: prepare(Score::FIELDS),
            reasons: Reason::ALL.iter().map(|reason| (reason.name(), *reason)).collect(),
        }
    }

    /// Judges one object. Gives what can be used of it although something may be wrong.
    pub(super) fn judge<'a>(&self, object: &'a Object<'a>, complaints: &mut Vec<Complaint>) -> Option<Seen<'a>> {
        let before = complaints.len();
        for field in &self.base {
            self.field(object, field, complaints);
        }
        let name = object.text("event_type")?;
        let Some(row) = self.rows.get(name) else {
            complaints.push(Complaint::new(marker_or(Code::Schema, name), "a name of the catalogue", name));
            return None;
        };
        for field in &row.fields {
            self.field(object, field, complaints);
        }
        self.unknown_fields(object, row, complaints);
        if row.row.reason_required && object.get("reason_code") == Some(&Value::Null) {
            complaints.push(Complaint::new(Code::Reason, "a primary reason", "none"));
        }
        let session = session(object);
        let whole = match row.row.scope {
            Scope::Session => session.is_some(),
            Scope::Node => !SESSION_KEYS.iter().any(|key| is_there(object, key)),
            Scope::Either => session.is_some() || !SESSION_KEYS.iter().any(|key| is_there(object, key)),
        };
        if !whole && complaints.len() == before {
            let expected = match row.row.scope {
                Scope::Session => "session_id, state, state_version and binding_epoch",
                Scope::Node => "null in session_id, state, state_version and binding_epoch",
                Scope::Either => "all or none of session_id, state, state_version and binding_epoch",
            };
            complaints.push(Complaint::new(Code::Schema, expected, "something else"));
        }
        Some(Seen {
            seq: object.number("seq")?,
            prev_hash: object.text("prev_hash")?.parse().ok()?,
            ts_ms: object.number("ts_ms")?,
            row: row.row,
            role: Role::from_name(object.text("role")?)?,
            node_id: object.text("node_id")?,
            worker: object.number("worker"),
            session,
            reason: object.text("reason_code").and_then(|name| self.reason(name)),
            detail: object.text("details").and_then(|name| self.reason(name)),
            object,
        })
    }

    pub(super) fn reason(&self, name: &str) -> Option<Reason> {
        self.reasons.get(name).copied()
    }

    fn field(&self, object: &Object<'_>, field: &Field, complaints: &mut Vec<Complaint>) {
        let Some(value) = object.get(field.name) else {
            complaints.push(Complaint::new(Code::Schema, format!("the field {}", field.name), "none"));
            return;
        };
        if *value == Value::Null {
            if !field.nullable {
                complaints.push(Complaint::new(Code::Schema, format!("{}: a value", field.name), "null"));
            }
            return;
        }
        if field.name == "reason_code" && matches!(value, Value::Array(_)) {
            complaints.push(Complaint::new(Code::Reason, "one primary reason", "several"));
            return;
        }
        match (&field.form, value) {
            (Form::Bounds, Value::Object(inner)) => {
                self.bounds.iter().for_each(|field| self.field(inner, field, complaints));
            }
            (Form::Scores, Value::Array(items)) => {
                for item in items {
                    match item {
                        Value::Object(inner) => {
                            self.scores.iter().for_each(|field| self.field(inner, field, complaints));
                        }
                        other => complaints.push(Complaint::new(Code::Schema, "an object", other.kind())),
                    }
                }
            }
            (Form::Names(names), Value::Text(text)) if !names.contains(text.as_ref()) => {
                let code = marker_or(Code::Schema, text);
                complaints.push(Complaint::new(code, format!("{}: a name of the registry", field.name), text.as_ref()));
            }
            (form, value) if !form.admits(value) => {
                let expected = format!("{}: {}", field.name, form.name());
                let found = if matches!(value, Value::Text(_)) { value.to_string() } else { value.kind().to_owned() };
                complaints.push(Complaint::new(Code::Schema, expected, found));
            }
            _ => {}
        }
    }

    /// Unknown fields are ignored (OB-13), unless they claim what must not be (V-MARKER).
    fn unknown_fields(&self, object: &Object<'_>, row: &Row, complaints: &mut Vec<Complaint>) {
        for (key, value) in object.iter() {
            if self.base.iter().chain(&row.fields).any(|field| field.name == key) {
                continue;
            }
            let denied = matches!(value, Value::Null | Value::Bool(false));
            let claim = [Some(key), value.as_text()].into_iter().flatten().find(|text| is_marker(text));
            if let (false, Some(claim)) = (denied, claim) {
                complaints.push(Complaint::new(Code::Marker, "nothing of the kind", claim));
            }
        }
    }
}

const SESSION_KEYS: [&str; 4] = ["session_id", "state", "state_version", "binding_epoch"];

impl Complaint {
    pub(super) fn new(code: Code, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { code, expected: expected.into(), found: found.into() }
    }
}

impl Form {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Unsigned => Self::Unsigned,
            Kind::Boolean => Self::Boolean,
            Kind::Ratio => Self::Ratio,
            Kind::Number => Self::Number,
            Kind::Name(names) => Self::Names(names().into_iter().collect()),
            Kind::Text => Self::Text,
            Kind::Hex(bytes) => Self::Hex(bytes),
            Kind::Address => Self::Address,
            Kind::Bounds => Self::Bounds,
            Kind::Scores => Self::Scores,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Unsigned => "a whole number".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::Ratio => "a ratio from 0 to 1".to_owned(),
            Self::Number => "a number".to_owned(),
            Self::Names(_) => "a name".to_owned(),
            Self::Text => format!("a text of at most {TEXT_MAX} bytes"),
            Self::Hex(bytes) => format!("{bytes} bytes in lower-case hex"),
            Self::Address => "a hash or an address".to_owned(),
            Self::Bounds => "an object".to_owned(),
            Self::Scores => "a list".to_owned(),
        }
    }

    fn admits(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Self::Unsigned | Self::Number, Value::Unsigned(_)) | (Self::Boolean, Value::Bool(_)) => true,
            (Self::Ratio, Value::Unsigned(number)) => *number <= 1,
            (Self::Ratio | Self::Number, Value::Number(number)) => (0.0..=1.0).contains(number),
            (Self::Names(names), Value::Text(text)) => names.contains(text.as_ref()),
            (Self::Text, Value::Text(text)) => text.len() <= TEXT_MAX,
            (Self::Hex(bytes), Value::Text(text)) => is_hex(text, *bytes),
            (Self::Address, Value::Text(text)) => is_hex(text, 8) || text.parse::<std::net::SocketAddr>().is_ok(),
            _ => false,
        }
    }
}

fn prepare(fields: &[FieldRow]) -> Vec<Field> {
    let field = |field: &FieldRow| Field { name: field.name, nullable: field.nullable, form: Form::of(field.kind) };
    fields.iter().map(field).collect()
}

fn is_there(object: &Object<'_>, key: &str) -> bool {
    object.get(key).is_some_and(|value| *value != Value::Null)
}

fn session(object: &Object<'_>) -> Option<SessionFields> {
    let name = object.text("state")?;
    Some(SessionFields {
        id: SessionIdentity(parse_hex(object.text("session_id")?)?),
        state: state(name)?,
        version: object.number("state_version")?,
        epoch: object.number("binding_epoch")?,
    })
}

/// The state of that name.
pub(super) fn state(name: &str) -> Option<State> {
    State::ALL.into_iter().find(|state| state.name() == name)
}

fn is_hex(text: &str, bytes: usize) -> bool {
    text.len() == bytes * 2 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn parse_hex(text: &str) -> Option<[u8; 16]> {
    is_hex(text, 16).then(|| u128::from_str_radix(text, 16).ok()).flatten().map(u128::to_be_bytes)
}

fn is_marker(text: &str) -> bool {
    let plain: String = text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    MARKERS.iter().any(|marker| plain.contains(marker))
}

fn marker_or(code: Code, text: &str) -> Code {
    if is_marker(text) { Code::Marker } else { code }
}
