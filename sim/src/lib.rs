//! Deterministic simulation: the real protocol code of gateway and clients over a virtual network and a virtual clock.
//!
//! Equal seed, equal run: everything random comes from the seed, nothing reads a clock. A failing seed is a test.

#![forbid(unsafe_code)]

mod check;
mod net;
mod world;

pub use check::Checker;
pub use net::{Dice, Impairment, Link};
pub use world::{GATEWAY, SimClient, World, WorldConfig};
