//! Ports: a network device, its queues, and one AF_XDP socket for every pair of queue and worker.
//!
//! The kernel delivers a packet only to a socket of the very queue that it arrived on, and a session that jumps to
//! another path changes its queue. So each worker has a receive socket on *every* queue of both ports, and the XDP
//! program picks `queue * workers + worker`. A packet never changes threads.
//!
//! All sockets share one memory, so that a packet received on one port is sent on the other without a copy. Its frames
//! are divided into regions, one for each (port, queue): the queue's fill ring is filled from its own region only, and
//! has room for all of it. So a fill ring is never too small, and a flood on one queue takes no frame from another. A
//! frame that was sent or dropped goes home to its region, through the worker that owns the fill ring ([`Homes`]). A few
//! frames behind all regions are the workers' own, for answers that no received frame carries.
//!
//! Everything has one owner, so nothing is locked:
//!
//! | of a (port, queue) | owner |
//! |---|---|
//! | receive ring of the socket for worker `w` | worker `w` |
//! | fill ring | worker `queue % workers` |
//! | transmit ring, completion ring | worker `queue`; queues beyond the workers only receive |

mod error;
mod homes;
mod lines;
mod open;

use std::os::fd::{AsFd, BorrowedFd};

pub use error::PortError;
pub use homes::{FrameLedger, Homes};
pub use lines::{Kick, PortStatistics, RingLevels, WorkerPorts};

use crate::sys::Frame;

/// Packets taken off a ring at a time: large enough to share the cost of a ring access and of a system call, small
/// enough for headers and frames of a batch to stay in the first-level cache.
pub const BATCH: usize = 64;

/// Most queues of a port. A worker polls a socket for each of them before it sleeps.
pub const MAX_QUEUES: u32 = 64;

/// Bytes that XDP keeps free in front of a received packet (`XDP_PACKET_HEADROOM`). The longest outer headers replace
/// an Ethernet header and take 72 bytes more.
const XDP_HEADROOM: u32 = 256;
/// Ethernet header with two VLAN tags.
const LINK_HEADER_MAX: u32 = 22;
/// The AEAD tag is written behind a packet, in place.
const TAIL: u32 = 16;

/// Which way a port looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Towards the clients: tunnel packets.
    Outside,
    /// Towards the network behind the gateway: plain IP.
    Inside,
}

impl Role {
    /// Both, in the order in which ports are opened.
    pub const ALL: [Self; 2] = [Self::Outside, Self::Inside];
}

/// Whether the driver receives into our memory and sends from it. One memory is used with zero-copy by all its devices
/// or by none: the kernel hands the first device's mode down to every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ZeroCopy {
    /// If both devices can; otherwise copy, and say so.
    #[default]
    Auto,
    /// Never. The only choice when an XDP program runs in generic mode.
    Off,
    /// Or do not start.
    Require,
}

/// Bytes of a frame: the two sizes that AF_XDP knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameSize {
    /// 2048 bytes.
    Small,
    /// 4096 bytes.
    Large,
}

impl FrameSize {
    /// The smaller size into which a packet of that MTU fits, on both its ways.
    pub fn for_mtu(mtu: u32) -> Result<Self, PortError> {
        [Self::Small, Self::Large]
            .into_iter()
            .find(|size| mtu <= size.mtu_max())
            .ok_or(PortError::MtuTooLarge { mtu, max: Self::Large.mtu_max() })
    }

    /// Bytes.
    pub const fn bytes(self) -> u16 {
        match self {
            Self::Small => 2048,
            Self::Large => 4096,
        }
    }

    /// The largest MTU whose packets fit.
    pub const fn mtu_max(self) -> u32 {
        self.bytes() as u32 - XDP_HEADROOM - LINK_HEADER_MAX - TAIL
    }
}

/// Entries of the rings; powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSizes {
    /// Of each receive ring: how long a worker may be away. Larger rings spill the cache.
    pub receive: u32,
    /// Of each transmit ring.
    pub transmit: u32,
}

impl Default for RingSizes {
    /// A thousand packets: a millisecond at a million packets a second, 2 MB of frames.
    fn default() -> Self {
        Self { receive: 1024, transmit: 1024 }
    }
}

impl RingSizes {
    /// Frames of a region: even when each worker leaves its receive ring full, as many as a ring has stay in use.
    fn region(self, workers: u16) -> u32 {
        ((u32::from(workers) + 1) * self.receive).next_power_of_two().max(homes::REGION_MIN)
    }
}

/// One port to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Name of the device, in the calling thread's network namespace.
    pub interface: String,
    /// Its receive queues in use; at least as many as workers, and as many transmit queues.
    pub queues: u32,
}

/// Both ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaneConfig {
    /// Where the tunnels come from.
    pub outside: PortConfig,
    /// Where the plain packets go.
    pub inside: PortConfig,
    /// Threads that forward.
    pub workers: u16,
    /// Copy or not.
    pub zero_copy: ZeroCopy,
    /// Size of a frame.
    pub frame_size: FrameSize,
    /// Sizes of the rings.
    pub rings: RingSizes,
}

/// What an opened port turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Name of the device.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// Queues that are served.
    pub queues: u32,
    /// Workers that serve each of them.
    pub workers: u16,
    /// Whether packets move without a copy between driver and memory.
    pub zero_copy: bool,
}

/// Both ports, open, with every worker's share of them.
#[derive(Debug)]
pub struct Ports {
    outside: PortInfo,
    inside: PortInfo,
    zero_copy_refused: Option<PortError>,
    shares: Vec<WorkerPorts>,
}

impl Ports {
    /// Opens both ports: memory, and a socket for every queue and worker.
    ///
    /// The devices are up and have their final number of queues; the XDP programs may be attached before or after.
    /// A queue that its last owner released just now is waited for, up to three seconds.
    pub fn open(config: &PlaneConfig) -> Result<Self, PortError> {
        open::plane(config)
    }

    /// What the port turned out to be.
    pub fn info(&self, role: Role) -> &PortInfo {
        match role {
            Role::Outside => &self.outside,
            Role::Inside => &self.inside,
        }
    }

    /// Why packets are copied although [`ZeroCopy::Auto`] asked for better.
    pub fn zero_copy_refused(&self) -> Option<&PortError> {
        self.zero_copy_refused.as_ref()
    }

    /// The port's sockets, each with its key in the XSKMAP: `queue * workers + worker`.
    pub fn sockets(&self, role: Role) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        let workers = self.shares.len();
        self.shares.iter().enumerate().flat_map(move |(worker, share)| {
            share
                .sockets(role)
                .enumerate()
                .map(move |(queue, socket)| ((queue * workers + worker) as u32, socket.as_fd()))
        })
    }

    /// Hands out the shares, in the order of the workers' numbers.
    pub fn into_workers(self) -> Vec<WorkerPorts> {
        self.shares
    }
}

/// A batch of received packets.
pub type FrameBatch = arrayvec::ArrayVec<Frame, BATCH>;

#[cfg(test)]
pub mod fake;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_frame_that_holds_the_mtu_is_chosen() {
        assert_eq!(FrameSize::for_mtu(1500).expect("fits"), FrameSize::Small);
        assert_eq!(FrameSize::for_mtu(1754).expect("fits"), FrameSize::Small);
        assert_eq!(FrameSize::for_mtu(1755).expect("fits"), FrameSize::Large);
        assert_eq!(FrameSize::for_mtu(9000), Err(PortError::MtuTooLarge { mtu: 9000, max: 3802 }));
    }

    #[test]
    fn a_region_outlasts_receive_rings_that_all_workers_leave_full() {
        let rings = RingSizes::default();
        for workers in 1..=64 {
            let region = rings.region(workers);
            assert!(region >= u32::from(workers) * rings.receive + rings.receive);
            assert!(region.is_power_of_two(), "the home of a frame is found by a shift");
        }
    }
}
