//! Deterministic simulation: the real protocol code of gateway and clients over a virtual network and a virtual clock.
//!
//! Equal seed, equal run: everything random comes from the seed, nothing reads a clock. A failing seed is a test.
//! [`World`] is the stage, [`Churn`] a script that throws everything at it; [`Checker`] and the oracles look at every
//! transition and every packet.

#![forbid(unsafe_code)]

mod check;
mod churn;
mod exchange;
mod net;
mod operator;
mod oracle;
mod world;

pub use check::Checker;
pub use churn::{Churn, Outcome};
pub use net::{Dice, Impairment, Link};
pub use oracle::{AmplificationOracle, NonceOracle, ReplayOracle, Sealer, fingerprint};
pub use world::{GATEWAY, SimClient, World, WorldConfig};
