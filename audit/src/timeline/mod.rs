//! The life of a session as a person reads it after an incident (OB-14, `jumpgate audit timeline`).
//!
//! It believes what it reads: whether the trace is whole and true is the verifier's question.

mod clock;
mod list;
mod read;
mod show;
mod story;

pub use clock::utc;
pub use list::{Summary, summaries};
pub use read::{Filter, ReadError, read};
pub use show::{show, show_list};
pub use story::{Change, Fact, Outage, Stay, Story, Switch, Window};
