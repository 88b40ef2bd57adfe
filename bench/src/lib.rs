//! Benchmarks of the gateway's own code. Each prints what it measured as a ratio to a bound that was measured in the same
//! run, together with the environment and the method: these figures are worth nothing without both.

pub mod aead;
pub mod datapath;
pub mod environment;
pub mod forward;
pub mod frames;
mod links;
pub mod load;
pub mod peers;
pub mod report;
pub mod sessions;
pub mod smoke;
pub mod stats;
