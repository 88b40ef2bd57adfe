//! A network laboratory in namespaces: a client with two uplinks, each behind its own NAT, a gateway and a server, on
//! one machine and without touching its own network.
//!
//! [`topology::Lab`] builds it and takes it down, [`run::Run`] makes sure that nothing of it stays behind,
//! [`relay`] spoils its paths on demand, [`http`] and [`probe`] measure what gets through.

#![forbid(unsafe_code)]
#![expect(clippy::cast_precision_loss, reason = "counts and times become floats only to be shown or drawn")]

pub mod demo;
pub mod e2e;
pub mod http;
pub mod namespace;
pub mod ping;
pub mod probe;
pub mod programs;
pub mod relay;
pub mod run;
pub mod topology;
