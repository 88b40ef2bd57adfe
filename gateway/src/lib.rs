//! The Jumpgate gateway.
//!
//! Packets of DATA never leave the data path: an XDP program ([`xdp`]) steers them by session to the AF_XDP ring of the
//! worker that owns the session ([`sys`], [`port`]), the worker ([`worker`]) opens or seals them in the frame they came
//! in and sends them on. Everything rare goes through the kernel's UDP sockets to one slow-path thread ([`slow`]):
//! handshakes, admission, routing of control messages to their owners, next hops ([`net`]), operators ([`admin`]).
//!
//! The two sides share nothing but bounded queues ([`handover`]).

pub mod admin;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod doorbell;
pub mod fault;
pub mod handover;
pub mod hangup;
pub mod host;
pub mod keyfile;
pub mod metrics;
pub mod net;
pub mod os_entropy;
pub mod port;
pub mod restart;
pub mod run;
pub mod slow;
mod sync;
pub mod sys;
pub mod tables;
pub mod worker;
pub mod xdp;
