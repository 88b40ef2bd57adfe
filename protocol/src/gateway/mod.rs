//! The gateway's half of the protocol, without a socket or a thread.
//!
//! [`HandshakeDesk`] belongs to the slow path: it answers HELLO_INIT, admits clients, draws locators and addresses,
//! and hands every accepted session over as a [`Birth`]. [`Shard`] belongs to one worker and is the only writer of its
//! sessions (AS-4): DATA in and out, heartbeats, reattach, probes, timers.
//!
//! A binding is made only when keys are confirmed, or by a REATTACH_REQUEST that passed every check (INV-11). DATA
//! never makes or moves one (INV-26).

mod birth;
mod control;
mod desk;
mod event;
mod freshness;
mod handover;
mod hint;
mod lanes;
mod meter;
mod orders;
mod places;
mod pool;
mod push;
mod reattach;
mod rekey;
mod reload;
mod reset;
mod session;
mod shard;
#[cfg(test)]
mod slot_tests;
mod slots;
mod sources;
mod standby;
#[cfg(test)]
mod tests;
mod tombstones;
mod trace;
mod vigil;

pub use birth::Birth;
pub use desk::{ClientEntry, DeskConfig, HandshakeDesk, Outcome};
pub use event::{Account, CompromiseEvidence, EventKind, Reply, SessionEvent, SessionView};
pub use handover::{Circumstances, HandoverError, Heir, Part};
pub use meter::{Memory, Meter};
pub use pool::{AddressPool, FIRST_CLIENT_INDEX};
pub use push::PolicyChange;
pub use reset::ResetKey;
pub use session::Outbound;
pub use shard::{Inner, SessionKey, Shard, ShardConfig};
pub use slots::{Parcel, Title};
pub use sources::Sources;
