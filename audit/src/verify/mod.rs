//! The verifier: judges a trace by its bytes alone (`jumpgate audit verify`).
//!
//! It shares with the product the transition table, the reason codes and the catalogue of events, as data; none of the
//! code that makes transitions or records. It streams: memory is bounded by the sessions that live at one time.
//!
//! | Module | What it judges |
//! |---|---|
//! | `lines`, [`crate::text`] | bytes: lines, UTF-8, JSON |
//! | `schema` | one line: fields and their forms |
//! | `chain` | numbers, hashes, files, restarts |
//! | `sessions` | births, ends, gaps |
//! | `session`, `group`, `limits` | the life of one session |

mod chain;
mod code;
mod group;
mod input;
mod limits;
mod lines;
mod report;
mod run;
mod schema;
mod session;
mod sessions;

pub use code::Code;
pub use input::{Input, InputError, expand};
pub use report::{FileReport, Report, SessionCounts, Verdict, Violation};
pub use run::{Options, verify, verify_bytes};
