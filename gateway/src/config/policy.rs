//! The `[policy]` table and those of clients: their keys go to the policy's own parser, complaints come back with their
//! line.

use jumpgate_protocol::policy::{Policy, PolicyError, PolicyValue};
use toml::{Table, Value};

use super::{ConfigError, Document};

/// The table that policy keys stand in.
const TABLE: &str = "policy";

/// Checks the policy whole (PR-01..PR-20); RL-1: an invalid one is refused at start.
pub(super) fn check(document: &Document, table: &Table) -> Result<Policy, ConfigError> {
    let mut pairs = Vec::new();
    flatten(document, TABLE, "", table, &mut pairs)?;
    Policy::from_pairs(pairs.iter().map(|(key, value)| (key.as_str(), value.clone())))
        .map_err(|error| complaint(document, TABLE, &error))
}

/// Checks the values that one client has of its own, together with all others of the gateway's policy.
pub(super) fn check_own(
    document: &Document,
    place: &str,
    client: &str,
    table: &Table,
    base: &Policy,
) -> Result<Policy, ConfigError> {
    let mut pairs = Vec::new();
    flatten(document, place, "", table, &mut pairs)?;
    base.overridden(pairs.iter().map(|(key, value)| (key.as_str(), value.clone()))).map_err(|error| {
        let mut complaint = complaint(document, place, &error);
        complaint.problem = format!("client {client:?}: {}", complaint.problem);
        complaint
    })
}

fn flatten(
    document: &Document,
    place: &str,
    prefix: &str,
    table: &Table,
    pairs: &mut Vec<(String, PolicyValue)>,
) -> Result<(), ConfigError> {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        match value {
            Value::Table(inner) => flatten(document, place, &format!("{key}."), inner, pairs)?,
            value => {
                let value = convert(value).ok_or_else(|| {
                    let cure = "write a number, text, true or false, or a list of those";
                    document.complain(&format!("{place}.{key}"), "no policy value is a date or a table", cure)
                })?;
                pairs.push((key, value));
            }
        }
    }
    Ok(())
}

fn convert(value: &Value) -> Option<PolicyValue> {
    Some(match value {
        Value::String(text) => PolicyValue::Text(text.clone()),
        Value::Integer(number) => PolicyValue::Integer(*number),
        Value::Float(number) => PolicyValue::Float(*number),
        Value::Boolean(flag) => PolicyValue::Bool(*flag),
        Value::Array(items) => PolicyValue::List(items.iter().map(convert).collect::<Option<_>>()?),
        Value::Datetime(_) | Value::Table(_) => return None,
    })
}

/// A rule between keys may name one that the file leaves to the profile; then the stated one is pointed at.
fn complaint(document: &Document, place: &str, error: &PolicyError) -> ConfigError {
    let keys = std::iter::once(error.key.as_str()).chain(error.also.iter().copied());
    let stated = keys.map(|key| format!("{place}.{key}")).find(|key| document.has(key));
    let key = format!("{place}.{}", error.key);
    let problem = format!("{} {}: {}", error.rule, error.value, error.bound);
    let mut complaint = document.complain(&key, problem, error.cure.clone());
    complaint.line = stated.and_then(|key| document.line_of(&key)).or(complaint.line);
    complaint
}
