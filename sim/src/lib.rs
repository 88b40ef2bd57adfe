//! Deterministic simulation: the real protocol code of gateway and clients over a virtual network and a virtual clock.
//!
//! Equal seed, equal run: everything random comes from the seed, nothing reads a clock. A failing seed is a test.
//!
//! | Module | What is in it |
//! |---|---|
//! | `world` | [`World`]: gateway, clients, paths, one clock; and everything that can go wrong with them |
//! | `net` | what a path does to a datagram; NATs; clocks that disagree |
//! | `holder` | [`Holder`]: whoever has the keys of a session and writes its messages by hand |
//! | `operator` | what an operator does at the gateway |
//! | `exchange` | how packets and timers reach the protocol, and pass the checkers on their way |
//! | `check` | [`Checker`]: the invariants, after every step |
//! | `records` | [`Records`]: the audit records of both ends, followed session by session |
//! | `trace` | [`TraceReport`]: the gateway's trace in the product's files, judged by the product's verifier |
//! | `oracle` | nonces, copies, amplification: judged by the packets alone |
//! | `churn` | [`Churn`]: a script that throws everything at many clients |
//! | `cells` | [`Cells`]: one large run as several gateways side by side |

#![forbid(unsafe_code)]

mod cells;
mod check;
mod churn;
mod eavesdropper;
mod exchange;
mod holder;
mod net;
mod operator;
mod oracle;
mod queue;
mod records;
mod trace;
mod world;

pub use cells::Cells;
pub use check::{Checker, Incoming, Safety, SafetyCounters, Work};
pub use churn::{Churn, Outcome, Pace, Watch};
pub use holder::{Holder, Verdict};
pub use net::{Burst, Dice, Flap, Impairment, Link, LocalClock};
pub use oracle::{AmplificationOracle, NonceOracle, ReplayOracle, Sealer, fingerprint};
pub use records::{Records, Writer};
pub use trace::TraceReport;
pub use world::{GATEWAY, SimClient, World, WorldConfig};
