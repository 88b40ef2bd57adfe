//! What threads hand each other, and how one wakes another: everything of the gateway that is lock-free and ours.
//!
//! The files beside this one use nothing of the system and take their atomics and queues from [`primitives`]. So
//! `tests/interleavings.rs` can compile the very same files over loom's, and run them in every order that the memory
//! model allows. crossbeam's queue itself is trusted; shown is what we build on it.

pub(crate) mod bell;
pub(crate) mod end;
pub(crate) mod inbox;

/// What the protocols are built of.
pub(crate) mod primitives {
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{AtomicBool, Ordering, fence};

    pub(crate) use crossbeam_queue::ArrayQueue;
}
