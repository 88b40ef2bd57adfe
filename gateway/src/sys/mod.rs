//! What the kernel offers only through raw memory and ioctls: AF_XDP sockets, their rings, the packet memory.
//!
//! All unsafe code of the product is here, in three files: the packet memory, the rings, and the calls for which no library
//! has a safe form. The rest of the gateway sees safe types whose ownership is the proof:
//!
//! * A [`Frame`] is the only handle to its piece of packet memory. It is made when a ring hands it out (or when the
//!   memory is created) and consumed when a ring takes it back; it can be neither copied nor cloned. So no two parts
//!   of the program, and no part of the program and the kernel, ever hold one piece of memory at a time.
//! * [`ReceiveRing`], [`TransmitRing`], [`FillRing`] and [`CompletionRing`] have one owner each (`&mut self`), as the
//!   kernel's single-producer single-consumer rings want it.
//! * [`Socket`] is prepared, filled and then bound, in the order that every driver accepts.
//!
//! What is trusted is the kernel: that it returns exactly the frames it was given.
//!
//! References: Linux `Documentation/networking/af_xdp.rst`, `net/xdp/xsk.c`, `net/xdp/xsk_queue.h`.
#![deny(clippy::undocumented_unsafe_blocks)]

#[allow(unsafe_code)]
mod calls;
mod error;
pub mod ethtool;
mod queue;
#[allow(unsafe_code)]
mod ring;
mod socket;
#[allow(unsafe_code)]
mod umem;

pub use calls::{give_back_heap, readable};
pub use error::SysError;
pub use queue::{CompletionRing, FillRing, ReceiveRing, TransmitRing};
pub use socket::{Binding, CopyMode, QueueRings, RingRequest, Socket, Statistics};
pub use umem::{Frame, NoRoom, Umem};

#[cfg(test)]
pub mod fake;
