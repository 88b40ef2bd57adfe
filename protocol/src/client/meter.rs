//! What a client counts for those who watch it, beside refusals by reason. Nothing is ever read back (INV-23).

use crate::distribution::Distribution;

/// What a client counted since it was made, over all of its sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    /// HEARTBEATs sent.
    pub heartbeats: u64,
    /// HEARTBEATs left out, since data flowed both ways (BD-3).
    pub suppressed: u64,
    /// HEARTBEAT_ACKs taken.
    pub heartbeat_acks: u64,
    /// SESSION_RESETs that proved that the gateway had lost the session (RF-3).
    pub resets: u64,
    /// Microseconds from a REATTACH_REQUEST to its answer; of several copies nobody knows which one was answered, so
    /// these are left out.
    pub reattaches: Distribution,
}
