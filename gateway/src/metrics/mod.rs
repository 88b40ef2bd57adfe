//! Metrics in the Prometheus text format (R68): what the gateway knows of itself, for a monitoring system.
//!
//! On the packet path there are cells of each worker's own, without a lock, a system call or a cache line that another
//! thread writes; workers hand them out once per scrape. The slow path adds up the events of sessions that it sees
//! anyway. A page is a snapshot of both.
//!
//! | Module | What it does |
//! |---|---|
//! | `families` | the table: names, types, labels, meanings |
//! | `tally`, `conduct` | follow the events of sessions; what no session may do |
//! | `collect` | from what is known to a page |
//! | `process` | memory and CPU time, from `/proc` |
//! | `scrape` | asks the slow path for a page |
//!
//! The text format and the HTTP endpoint are those of [`jumpgate_metrics`].

mod collect;
mod conduct;
pub mod families;
mod process;
mod scrape;
mod tally;
#[cfg(test)]
mod tests;

pub use collect::{PortLabels, SlowCounters, Sources, render};
pub use process::Process;
pub use scrape::scrape;
