//! One line of JSON: written without allocation in a fixed key order, read strictly.
//!
//! The writer and the reader share nothing, so that a mistake of one is not hidden by the same mistake of the other.

mod read;
mod write;

pub use read::{Malformed, Object, Value};
pub use write::LineWriter;
