//! Load: many real clients against the product's own gateway, in real time, over AF_XDP.
//!
//! The clients are the product's client code, all in one thread on a CPU of its own; their sockets are xsk-rs's, so that
//! what sends is not the ring code that is measured. The gateway is the product's program, a process pinned to another
//! CPU. [`engine`] runs both; a scenario says what happens to the clients; [`book`] holds what was measured.

mod ahead;
pub mod arguments;
pub mod book;
pub mod chance;
pub mod crowd;
pub(crate) mod datagram;
pub mod engine;
pub mod file;
pub mod flood;
pub mod gauge;
mod judge;
pub(crate) mod line;
pub(crate) mod member;
pub mod plant;
pub mod pour;
pub mod run;
pub mod scenario;
mod soak;
pub mod weather;

pub use member::MOST_CLIENTS;
