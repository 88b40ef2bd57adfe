//! Metrics in the Prometheus text format (version 0.0.4), for gateway and client: which there are, how they are written,
//! and how they are scraped. Each program knows its own values; it fills a [`Page`] when somebody asks.
//!
//! | Module | What it does |
//! |---|---|
//! | `family` | names, types, labels and meanings in one table, which also makes the document |
//! | `page`, `histogram` | the text format |
//! | `endpoint` | `GET /metrics` |
//! | `readings` | a page, read again |

mod endpoint;
mod family;
mod histogram;
mod page;
mod readings;

pub use endpoint::{Endpoint, EndpointError, Scraped};
pub use family::{Family, Kind, render_markdown};
pub use histogram::Histogram;
pub use page::{Page, Samples};
pub use readings::{Readings, UnreadablePage};
