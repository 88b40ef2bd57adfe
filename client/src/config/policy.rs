//! `[policy]`: what this client asks of the gateway's policy. It may only narrow (§10, RL-5).

use jumpgate_protocol::policy::{PolicyValue, request};
use jumpgate_protocol::wire::{REQUESTED_POLICY_MAX, RequestedPolicy};
use toml::de::DeTable;

/// A wrong policy key: where it stands in the text, and what is wrong with it.
pub(super) struct Fault {
    pub(super) offset: usize,
    pub(super) message: String,
}

/// Turns the section into the request that travels in HELLO_INIT: parameter numbers with their values. `text` is the
/// whole file, which says where each key stands.
pub(super) fn parse(section: &toml::Table, text: &str) -> Result<RequestedPolicy, Fault> {
    let mut places = Vec::new();
    if let Ok(document) = DeTable::parse(text)
        && let Some(table) = document.get_ref().get("policy").and_then(|value| value.get_ref().as_table())
    {
        collect_places("", table, &mut places);
    }
    let mut entries = Vec::new();
    flatten("", section, &mut entries);
    if entries.len() > REQUESTED_POLICY_MAX {
        let message =
            format!("{} values; a request carries at most {REQUESTED_POLICY_MAX}, remove some", entries.len());
        return Err(Fault { offset: places.first().map_or(0, |(_, offset)| *offset), message });
    }
    entries
        .into_iter()
        .map(|(key, value)| {
            let offset = places.iter().find(|(name, _)| *name == key).map_or(0, |(_, offset)| *offset);
            let value = convert(value).ok_or_else(|| Fault {
                offset,
                message: format!("a {} cannot be a policy value; see the table of parameters", value.type_str()),
            })?;
            request(&key, &value).map_err(|error| Fault { offset, message: error.to_string() })
        })
        .collect()
}

/// Nested tables and dotted keys mean the same.
fn flatten<'a>(prefix: &str, table: &'a toml::Table, entries: &mut Vec<(String, &'a toml::Value)>) {
    for (name, value) in table {
        let key = join(prefix, name);
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, entries),
            _ => entries.push((key, value)),
        }
    }
}

fn collect_places(prefix: &str, table: &DeTable<'_>, places: &mut Vec<(String, usize)>) {
    for (name, value) in table {
        let key = join(prefix, name.get_ref());
        match value.get_ref().as_table() {
            Some(inner) => collect_places(&key, inner, places),
            None => places.push((key, name.span().start)),
        }
    }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

fn convert(value: &toml::Value) -> Option<PolicyValue> {
    Some(match value {
        toml::Value::Integer(number) => PolicyValue::Integer(*number),
        toml::Value::Float(number) => PolicyValue::Float(*number),
        toml::Value::String(text) => PolicyValue::Text(text.clone()),
        toml::Value::Boolean(flag) => PolicyValue::Bool(*flag),
        toml::Value::Array(list) => PolicyValue::List(list.iter().map(convert).collect::<Option<_>>()?),
        toml::Value::Table(_) | toml::Value::Datetime(_) => return None,
    })
}
