//! The fields of a record as JSON. The catalogue says which and in which order; here is only how each form looks.

use jumpgate_protocol::audit::{Event, Value};

use crate::text::LineWriter;

/// Writes the event's own fields. `node_id` is the writer's own node.
pub(crate) fn write_fields(line: &mut LineWriter<'_>, event: &Event, node_id: &str) {
    event.each_field(|name, value| write(line, name, value, node_id));
}

fn write(line: &mut LineWriter<'_>, name: &str, value: Value, node_id: &str) {
    match value {
        Value::Null => line.null(name),
        Value::Unsigned(number) => line.number(name, number),
        Value::Boolean(truth) => line.truth(name, truth),
        Value::Permille(permille) => line.permille(name, permille),
        Value::Name(text) => line.text(name, text),
        Value::Hex(bytes) => line.hex(name, &bytes),
        Value::Hash(bytes) => line.hex(name, &bytes),
        Value::Address(address) => line.display(name, address),
        Value::OwnNode => line.text(name, node_id),
        Value::Bounds(bounds) => line.object(name, |inner| {
            bounds.each_field(|name, value| write(inner, name, value, node_id));
        }),
        Value::Scores(scores) => line.array(name, scores.iter(), |inner, score| {
            score.each_field(|name, value| write(inner, name, value, node_id));
        }),
    };
}
