//! The sink: one thread that turns records into lines and lines into files.
//!
//! It is the only part that can wait for a disk, and nobody waits for it (INV-23). While the disk refuses, records stay
//! in their rings; what finds no room there is counted and declared ([`crate::ring`]). It retries with growing pauses,
//! for as long as it takes.
//!
//! | Module | What it does |
//! |---|---|
//! | `merge` | takes the records of all rings in the order of their time |
//! | `work` | the thread: format, write, rotate, retry, end in good order |
//! | `status`, `show` | what an operator sees of it |

mod handle;
mod merge;
mod show;
mod status;
mod work;

pub use handle::{Clock, Sink, SinkConfig, SinkHandle};
pub use status::{RingView, SinkStatus, StatusView};
