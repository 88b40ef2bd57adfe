//! The audit record (OB-01 to OB-14): what happened to a session, in a form that a file can keep and a stranger can
//! check.
//!
//! The cores of gateway and client make a [`Record`] of everything that the catalogue names, at the place where it
//! happens, and hand it out by `poll_record`. A record is of fixed size and holds no pointer; formatting, numbering and
//! chaining are done elsewhere, later, by whoever writes the file. Nothing here is ever read back by the session
//! machine (INV-23).
//!
//! One table ([`Event`], in `event.rs`) says which events there are, of which class, with which fields in which order.
//! Enum, names, [`Event::each_field`] for the formatter, the schema for the verifier ([`catalogue`]) and the document
//! are made from it, so that they cannot differ.
//!
//! What a record may not hold has no type here: no payload, no key or anything derived from one, no client key, no inner
//! address. Outer addresses pass through [`Disclosure`], which hashes them unless policy allows more (INV-30, OB-12).

mod bounds;
mod catalogue;
mod checks;
mod event;
mod journal;
mod limiter;
mod outer;
mod page;
mod record;
mod refusal;
mod security;
#[cfg(test)]
mod tests;
mod trail;
mod value;

pub use bounds::{Bounds, PolicyHash};
pub use catalogue::{BASE_FIELDS, Class, EventRow, FieldRow, Origin, Scope, catalogue, render_markdown, row};
pub use event::{Event, EventType, Score, Scores};
pub(crate) use journal::{Context, Journal, Refused};
pub use outer::{Disclosure, Outer};
pub use record::{PolicyRef, RECORD_MAX, Record, Standing};
pub use security::SecurityCounts;
pub(crate) use trail::{Answer, Request, Scene, Totals, Trail};
pub use value::{
    Always, Check, CheckResult, CompromiseEvidence, Exclusion, KeyTrigger, Kind, LimitAction, LimitScope, Measured,
    OwnNode, ParameterKey, Pattern, Permille, Plane, PolicyAction, Proto, Recorded, RestartAction, Status, Threshold,
    Trigger, Value, Violation,
};

/// Whole milliseconds as records hold them; saturating.
fn millis(span: crate::time::Span) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}
