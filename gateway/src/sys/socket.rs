//! AF_XDP sockets: prepared, filled, bound; then kicked and asked for statistics.

use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;

use super::ring::{Consumer, Producer, Ring, RingKind};
use super::{CompletionRing, FillRing, ReceiveRing, SysError, TransmitRing, Umem};

/// Socket option `XDP_MAX_TX_SKB_BUDGET` (Linux 6.17): packets that one call sends in copy mode; 32 without it.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
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
        // SAFETY: no memory is involved.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        let fd = SysError::check("opening an AF_XDP socket", fd)?;
        // SAFETY: the descriptor is new and nobody else's.
        let socket = Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } };

        if let Binding::Memory(_) = binding {
            socket.register(memory)?;
        }
        let queue_entries = match binding {
            Binding::Memory(_) | Binding::Queue(_) => Some(request.queue),
            Binding::Further(_) => None,
        };
        if let Some(entries) = queue_entries {
            socket.set_option("sizing the fill ring", libc::XDP_UMEM_FILL_RING, &entries)?;
            socket.set_option("sizing the completion ring", libc::XDP_UMEM_COMPLETION_RING, &entries)?;
        }
        socket.set_option("sizing the receive ring", libc::XDP_RX_RING, &request.receive)?;
        if let Some(entries) = &request.transmit {
            socket.set_option("sizing the transmit ring", libc::XDP_TX_RING, entries)?;
            // Older kernels do not know it; they send 32 packets per call and we call more often.
            let _ = socket.set_option("", XDP_MAX_TX_SKB_BUDGET, &TX_BUDGET.min(*entries));
        }

        let offsets = socket.ring_offsets()?;
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
        let (flags, shared) = match binding {
            Binding::Memory(CopyMode::Auto) => (libc::XDP_USE_NEED_WAKEUP, None),
            Binding::Memory(CopyMode::Copy) => (libc::XDP_USE_NEED_WAKEUP | libc::XDP_COPY, None),
            Binding::Memory(CopyMode::ZeroCopy) => (libc::XDP_USE_NEED_WAKEUP | libc::XDP_ZEROCOPY, None),
            Binding::Queue(first) | Binding::Further(first) => (libc::XDP_SHARED_UMEM, Some(first)),
        };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: flags,
            sxdp_ifindex: interface,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: shared.map_or(0, |fd| fd.as_raw_fd() as u32),
        };
        // SAFETY: the kernel reads `address`, whose size is given.
        let result = unsafe {
            libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
        };
        SysError::check("binding an AF_XDP socket", result).map(|_| ())
    }

    /// Whether packets move between driver and memory without a copy.
    pub fn is_zero_copy(&self) -> Result<bool, SysError> {
        let mut options = libc::xdp_options { flags: 0 };
        self.option("reading the socket's mode", libc::XDP_OPTIONS, &mut options)?;
        Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// What the kernel counted for this socket.
    pub fn statistics(&self) -> Result<Statistics, SysError> {
        let mut raw = libc::xdp_statistics {
            rx_dropped: 0,
            rx_invalid_descs: 0,
            tx_invalid_descs: 0,
            rx_ring_full: 0,
            rx_fill_ring_empty_descs: 0,
            tx_ring_empty_descs: 0,
        };
        self.option("reading the socket's statistics", libc::XDP_STATISTICS, &mut raw)?;
        Ok(Statistics {
            dropped: raw.rx_dropped,
            ring_full: raw.rx_ring_full,
            fill_empty: raw.rx_fill_ring_empty_descs,
            invalid_transmit: raw.tx_invalid_descs,
        })
    }

    /// Has the kernel send what the transmit ring holds. `EAGAIN` means that more is left.
    pub fn kick_transmit(&self) -> Result<(), Errno> {
        // SAFETY: an empty message: nothing is read from memory.
        let sent =
            unsafe { libc::sendto(self.fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
        if sent < 0 { Err(Errno::last()) } else { Ok(()) }
    }

    /// Has the driver look at the fill ring again.
    pub fn kick_receive(&self) {
        // SAFETY: an empty message: nothing is written to memory. The outcome shows in the rings.
        unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
    }

    /// Registers the memory with the kernel, which pins it.
    fn register(&self, memory: &Umem) -> Result<(), SysError> {
        let area = libc::xdp_umem_reg {
            addr: memory.area() as u64,
            len: memory.area_len() as u64,
            chunk_size: memory.chunk() as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        self.set_option("registering the packet memory", libc::XDP_UMEM_REG, &area)
    }

    fn ring_offsets(&self) -> Result<libc::xdp_mmap_offsets, SysError> {
        let none = libc::xdp_ring_offset { producer: 0, consumer: 0, desc: 0, flags: 0 };
        let mut offsets = libc::xdp_mmap_offsets { rx: none, tx: none, fr: none, cr: none };
        self.option("reading the ring layout", libc::XDP_MMAP_OFFSETS, &mut offsets)?;
        Ok(offsets)
    }

    fn set_option<T>(&self, call: &'static str, name: libc::c_int, value: &T) -> Result<(), SysError> {
        // SAFETY: the kernel reads `value`, whose size is given.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_XDP,
                name,
                std::ptr::from_ref(value).cast(),
                size_of::<T>() as libc::socklen_t,
            )
        };
        SysError::check(call, result).map(|_| ())
    }

    /// Reads an option into `value`, a structure of the kernel made of integers only: any bytes are valid for it.
    fn option<T: KernelStruct>(&self, call: &'static str, name: libc::c_int, value: &mut T) -> Result<(), SysError> {
        let mut len = size_of::<T>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes to `value`, and any bytes are a valid `KernelStruct`.
        let result = unsafe {
            libc::getsockopt(self.fd.as_raw_fd(), libc::SOL_XDP, name, std::ptr::from_mut(value).cast(), &raw mut len)
        };
        SysError::check(call, result)?;
        // A kernel before 5.4 knows a shorter layout, whose fields lie elsewhere.
        if len as usize == mem::size_of::<T>() { Ok(()) } else { Err(SysError { call, errno: Errno::ENOSYS }) }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Structures of integers, for which any bytes are valid.
///
/// # Safety
/// Every bit pattern is a valid value.
unsafe trait KernelStruct {}
// SAFETY: two 64-bit or 32-bit integers and the like, no padding that matters.
unsafe impl KernelStruct for libc::xdp_options {}
// SAFETY: 64-bit integers.
unsafe impl KernelStruct for libc::xdp_statistics {}
// SAFETY: 64-bit integers.
unsafe impl KernelStruct for libc::xdp_mmap_offsets {}
