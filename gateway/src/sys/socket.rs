//! AF_XDP sockets: prepared, filled, bound; then kicked and asked for statistics.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};
use rustix::net::sockopt::{
    set_xdp_rx_ring_size, set_xdp_tx_ring_size, set_xdp_umem_completion_ring_size, set_xdp_umem_fill_ring_size,
    set_xdp_umem_reg, xdp_mmap_offsets, xdp_options, xdp_statistics,
};
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem, XdpOptionsFlags, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};

use super::ring::{Consumer, Producer, Ring, RingKind};
use super::{CompletionRing, FillRing, ReceiveRing, SysError, TransmitRing, Umem};

/// Socket option `XDP_MAX_TX_SKB_BUDGET` (Linux 6.17).
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
sockopt_impl!(
    /// Packets that one call sends in copy mode; 32 without it.
    TransmitBudget,
    SetOnly,
    libc::SOL_XDP,
    XDP_MAX_TX_SKB_BUDGET,
    u32
);
/// Packets per call that we ask for: several batches, so that one call per batch is enough. The kernel takes no more
/// than the transmit ring has entries.
const TX_BUDGET: u32 = 256;

/// What a socket is to bring with it.
#[derive(Clone, Copy, Debug)]
pub struct RingRequest {
    /// Entries of the receive ring, a power of two.
    pub receive: u32,
    /// Entries of the transmit ring, a power of two; none for a socket that only receives.
    pub transmit: Option<u32>,
    /// Entries of the queue's fill and completion ring, a power of two; only the first socket of a queue brings them.
    pub queue: u32,
}

/// The rings of a (device, queue), brought by the first socket that is bound to it.
#[derive(Debug)]
pub struct QueueRings {
    /// Empty frames for the queue. To be filled before the socket is bound: some drivers never look again (igb).
    pub fill: FillRing,
    /// Frames sent through the queue.
    pub completion: CompletionRing,
}

/// How a socket comes to its memory, and what the kernel may do on the way.
#[derive(Clone, Copy, Debug)]
pub enum Binding<'a> {
    /// Owner of the memory and first of its queue; decides copy or zero-copy for the queue.
    Memory(CopyMode),
    /// First of another queue, or of another device: shares the memory of that socket, has its own queue rings.
    Queue(BorrowedFd<'a>),
    /// Another socket of the queue whose first socket this is.
    Further(BorrowedFd<'a>),
}

/// Whether packets are copied between driver and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyMode {
    /// As the driver can.
    Auto,
    /// Always copied.
    Copy,
    /// Never copied, or no bind.
    ZeroCopy,
}

/// An AF_XDP socket. Its queue is free again some milliseconds after the socket and all its rings are dropped.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
}

/// A socket's counters, by `XDP_STATISTICS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets dropped for another reason than the two below, as one that is longer than a frame.
    pub dropped: u64,
    /// Packets dropped because the receive ring was full.
    pub ring_full: u64,
    /// Times that the queue's fill ring was empty; the same for all sockets of the queue.
    pub fill_empty: u64,
    /// Transmit descriptors that the kernel refused: a defect of ours.
    pub invalid_transmit: u64,
}

impl Socket {
    /// A socket on `memory` with its rings mapped, not bound to anything yet.
    ///
    /// The receive ring is there at once; frames are given to the queue's fill ring before [`bind`](Self::bind).
    pub fn prepare(
        memory: &Arc<Umem>,
        binding: Binding<'_>,
        request: RingRequest,
    ) -> Result<(Self, ReceiveRing, Option<TransmitRing>, Option<QueueRings>), SysError> {
        let fd = socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .map_err(SysError::io("opening an AF_XDP socket"))?;
        let socket = Self { fd };

        if let Binding::Memory(_) = binding {
            socket.register(memory)?;
        }
        let queue_entries = match binding {
            Binding::Memory(_) | Binding::Queue(_) => Some(request.queue),
            Binding::Further(_) => None,
        };
        if let Some(entries) = queue_entries {
            set_xdp_umem_fill_ring_size(&socket.fd, entries).map_err(SysError::io("sizing the fill ring"))?;
            set_xdp_umem_completion_ring_size(&socket.fd, entries)
                .map_err(SysError::io("sizing the completion ring"))?;
        }
        set_xdp_rx_ring_size(&socket.fd, request.receive).map_err(SysError::io("sizing the receive ring"))?;
        if let Some(entries) = request.transmit {
            set_xdp_tx_ring_size(&socket.fd, entries).map_err(SysError::io("sizing the transmit ring"))?;
            // Older kernels do not know it; they send 32 packets per call and we call more often.
            let _ = setsockopt(&socket.fd, TransmitBudget, &TX_BUDGET.min(entries));
        }

        let offsets = xdp_mmap_offsets(&socket.fd).map_err(SysError::io("reading the ring layout"))?;
        let fd = socket.fd.as_fd();
        let receive = Consumer::new(Ring::map(fd, RingKind::Receive, &offsets, request.receive)?);
        let transmit = request
            .transmit
            .map(|entries| Ring::map(fd, RingKind::Transmit, &offsets, entries))
            .transpose()?
            .map(|ring| TransmitRing::new(Producer::new(ring), memory.clone()));
        let queue = match queue_entries {
            None => None,
            Some(entries) => {
                let fill = Producer::new(Ring::map(fd, RingKind::Fill, &offsets, entries)?);
                let completion = Consumer::new(Ring::map(fd, RingKind::Completion, &offsets, entries)?);
                Some(QueueRings {
                    fill: FillRing::new(fill, memory.clone()),
                    completion: CompletionRing::new(completion, memory.clone()),
                })
            }
        };
        Ok((socket, ReceiveRing::new(receive, memory.clone()), transmit, queue))
    }

    /// Binds the socket to a queue of a device. After `EBUSY` it may be tried again: a queue is released late.
    pub fn bind(&self, interface: u32, queue: u32, binding: Binding<'_>) -> Result<(), SysError> {
        // Copy mode and wake-ups are inherited through a shared bind, which refuses flags of its own.
        let flags = match binding {
            Binding::Memory(CopyMode::Auto) => SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP,
            Binding::Memory(CopyMode::Copy) => SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP | SocketAddrXdpFlags::XDP_COPY,
            Binding::Memory(CopyMode::ZeroCopy) => {
                SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP | SocketAddrXdpFlags::XDP_ZEROCOPY
            }
            Binding::Queue(_) | Binding::Further(_) => SocketAddrXdpFlags::XDP_SHARED_UMEM,
        };
        let addr = SocketAddrXdp::new(flags, interface, queue);
        let bound = match binding {
            Binding::Memory(_) => bind(&self.fd, &addr),
            Binding::Queue(first) | Binding::Further(first) => {
                bind(&self.fd, &SocketAddrXdpWithSharedUmem { addr, shared_umem_fd: first })
            }
        };
        bound.map_err(SysError::io("binding an AF_XDP socket"))
    }

    /// Whether packets move between driver and memory without a copy.
    pub fn is_zero_copy(&self) -> Result<bool, SysError> {
        let options = xdp_options(&self.fd).map_err(SysError::io("reading the socket's mode"))?;
        Ok(options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY))
    }

    /// What the kernel counted for this socket. What a kernel before 5.9 does not count is 0.
    pub fn statistics(&self) -> Result<Statistics, SysError> {
        let raw = xdp_statistics(&self.fd).map_err(SysError::io("reading the socket's statistics"))?;
        Ok(Statistics {
            dropped: raw.rx_dropped,
            ring_full: raw.rx_ring_full.unwrap_or(0),
            fill_empty: raw.rx_fill_ring_empty_descs.unwrap_or(0),
            invalid_transmit: raw.tx_invalid_descs,
        })
    }

    /// Has the kernel send what the transmit ring holds. `EAGAIN` means that more is left.
    pub fn kick_transmit(&self) -> Result<(), Errno> {
        let sent = send(&self.fd, &[], SendFlags::DONTWAIT);
        sent.map(drop).map_err(|errno| Errno::from_raw(errno.raw_os_error()))
    }

    /// Has the driver look at the fill ring again.
    pub fn kick_receive(&self) {
        // The outcome shows in the rings.
        let _ = recv(&self.fd, &mut [0; 0], RecvFlags::DONTWAIT);
    }

    /// Registers the memory with the kernel, which pins it.
    fn register(&self, memory: &Umem) -> Result<(), SysError> {
        let (first, len) = memory.area();
        let area = XdpUmemReg {
            addr: first as u64,
            len: len as u64,
            chunk_size: memory.chunk() as u32,
            headroom: 0,
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        };
        set_xdp_umem_reg(&self.fd, area).map_err(SysError::io("registering the packet memory"))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
