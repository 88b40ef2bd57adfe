//! Metrics in the Prometheus text format (R68): what the gateway knows of itself, for a monitoring system.
//!
//! Nothing is counted for it on the packet path. Workers hand out the counters that they have anyway, once per scrape;
//! the slow path adds up the events of sessions that it sees anyway. A page is a snapshot of both.
//!
//! | Module | What it does |
//! |---|---|
//! | `families` | the table: names, types, labels, meanings |
//! | `tally` | follows the events of sessions |
//! | `collect` | from what is known to a page |
//! | `page`, `histogram` | the text format |
//! | `process` | memory and CPU time, from `/proc` |
//! | `endpoint` | `GET /metrics` |

mod collect;
mod endpoint;
pub mod families;
mod histogram;
mod page;
mod process;
mod tally;
#[cfg(test)]
mod tests;

pub use collect::{PortLabels, SlowCounters, Sources, render};
pub use endpoint::{Endpoint, EndpointError};
pub use process::Process;
