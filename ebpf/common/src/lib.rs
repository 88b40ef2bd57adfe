//! One truth for both sides of the steering: the XDP programs (`ebpf/xdp`) and user space (`gateway`) compile this very
//! source.
//!
//! - [`headers`] finds Ethernet, VLAN, IP and UDP in a frame. It reads through [`Frame`], so the same lines run on a
//!   byte slice in a worker and on the packet pointers of an XDP program, where each read is bounds-checked for the
//!   verifier.
//! - [`steer`] decides what happens to a frame: to a worker, to the kernel, or dropped; always with a [`Counter`].
//! - [`maps`] names the BPF maps and says what stands in them.
//!
//! Decisions are pure functions over small table traits, so that a test can ask the native build and the kernel
//! (`BPF_PROG_TEST_RUN`) the same question and compare. No allocation, no unsafe, no panic on any input.
//!
//! Integers in map values have the machine's byte order, which is little-endian as the object is (`bpfel`); everything
//! read from a packet is big-endian and is turned into integers by the parser.
#![no_std]
#![forbid(unsafe_code)]

pub mod counter;
pub mod frame;
pub mod headers;
pub mod maps;
pub mod steer;

pub use counter::Counter;
pub use frame::{Address, Family, Frame};
pub use headers::{HeaderError, Inside, Outer, parse_inside, parse_outer};
pub use maps::{InsideConfig, NO_WORKER, OutsideConfig, PASS_TO_HOST};
pub use steer::{Verdict, slot_of};
