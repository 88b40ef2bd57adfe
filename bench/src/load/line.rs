//! One AF_XDP socket on one link, by xsk-rs: what sends and receives is not the ring code that is being measured.
//!
//! The only unsafe code of the generator. xsk-rs hands out plain descriptors and leaves it to its user that a frame is
//! in one place at a time; here that is so because a descriptor is moved between five lists (idle, to send, laid ahead, in
//! the kernel, received) and never copied.

#![allow(unsafe_code)]

use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

/// Entries of each ring: packets that the kernel may hold for us. The largest burst of one jump storm fits in.
const RING: u32 = 16_384;
/// Descriptors moved at once.
const BATCH: usize = 64;
/// Packets that one call is certain to send in copy mode (`TX_BATCH_SIZE` of net/xdp/xsk.c).
const SENT_PER_CALL: usize = 32;
/// Frames for sending, beside those that wait to receive.
const SENDING: u32 = RING;
/// Size of a frame in bytes: one page holds two, and each holds a full Ethernet packet.
const FRAME: u32 = 2_048;
/// Longest time in which the kernel may take none of the packets that are poured.
const PATIENCE: Duration = Duration::from_secs(5);

/// A socket that sends and receives whole Ethernet frames on one queue of a link.
pub(crate) struct Line {
    memory: Umem,
    transmit: TxQueue,
    receive: RxQueue,
    fill: FillQueue,
    completion: CompQueue,
    idle: Vec<FrameDesc>,
    ready: Vec<FrameDesc>,
    /// Packets that lie ready, in the order in which they will be poured; those before `poured` are gone.
    ahead: Vec<FrameDesc>,
    poured: usize,
    arrived: Vec<FrameDesc>,
    in_flight: usize,
    /// Frames that could not be sent because all were on their way.
    pub(crate) stalled: u64,
}

impl Line {
    /// Opens a socket on queue 0 of a link. Packets come once an XDP program redirects them to it. So many packets can be
    /// laid ahead beside what is sent meanwhile.
    pub(crate) fn open(link: &str, ahead: u32) -> Result<Self> {
        let rings = QueueSize::new(RING)?;
        let size = FrameSize::new(FRAME)?;
        let memory_config =
            UmemConfig::builder().frame_size(size).fill_queue_size(rings).comp_queue_size(rings).build()?;
        let frames = NonZeroU32::new(RING + SENDING + ahead).context("there are frames")?;
        let (memory, mut idle) = Umem::new(memory_config, frames, false)?;
        let config = SocketConfig::builder()
            .rx_queue_size(rings)
            .tx_queue_size(rings)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(BindFlags::XDP_COPY | BindFlags::XDP_USE_NEED_WAKEUP)
            .build();
        let interface: Interface = link.parse().with_context(|| format!("{link} is no name of a link"))?;
        // SAFETY: no other socket is bound to this (link, queue) from this memory.
        let (transmit, receive, rings) = unsafe { Socket::new(config, &memory, &interface, 0) }
            .with_context(|| format!("cannot open an AF_XDP socket on {link}"))?;
        let (mut fill, completion) = rings.context("the first socket of a queue has its rings")?;
        let receiving = idle.split_off((SENDING + ahead) as usize);
        // SAFETY: these frames are of this memory, and leave our lists here.
        let filled = unsafe { fill.produce(&receiving) };
        ensure!(filled == receiving.len(), "the fill ring took {filled} of {} frames", receiving.len());
        let blank = FrameDesc::default();
        Ok(Self {
            memory,
            transmit,
            receive,
            fill,
            completion,
            idle,
            ready: Vec::with_capacity(SENDING as usize),
            ahead: Vec::with_capacity(ahead as usize),
            poured: 0,
            arrived: vec![blank; BATCH],
            in_flight: 0,
            stalled: 0,
        })
    }

    /// Writes one frame to be sent with the next [`Line::flush`]. `write` gets the whole room and says how many bytes it
    /// used. False if every frame is on its way: the frame is not written.
    pub(crate) fn send(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> Result<bool> {
        if self.idle.is_empty() {
            self.flush()?;
        }
        let Some(mut frame) = self.idle.pop() else {
            self.stalled += 1;
            return Ok(false);
        };
        self.write(&mut frame, |room| Ok(write(room)))?;
        self.ready.push(frame);
        if self.ready.len() >= BATCH { self.flush().map(|()| true) } else { Ok(true) }
    }

    /// Has `write` fill a frame that is in one of our lists; it gets the whole room and says how many bytes it used.
    fn write(&mut self, frame: &mut FrameDesc, write: impl FnOnce(&mut [u8]) -> Result<usize>) -> Result<()> {
        // SAFETY: the frame is of this memory and in no ring: it was in our list.
        let mut data = unsafe { self.memory.data_mut(frame) };
        let mut cursor = data.cursor();
        let room = cursor.buf_len();
        cursor.set_pos(room);
        let used = write(data.contents_mut())?;
        data.cursor().set_pos(used.min(room));
        Ok(())
    }

    /// Writes one frame to be sent by a later [`Line::pour`], behind those that were laid before.
    pub(crate) fn lay(&mut self, write: impl FnOnce(&mut [u8]) -> Result<usize>) -> Result<()> {
        let mut frame = self.idle.pop().context("more packets are laid ahead than there are frames for")?;
        self.write(&mut frame, write)?;
        self.ahead.push(frame);
        Ok(())
    }

    /// Sends the next packets of those that were laid ahead, each once, as fast as the kernel takes them; nothing is
    /// computed or copied here. Returns when the kernel is done with the last.
    pub(crate) fn pour(&mut self, packets: usize) -> Result<()> {
        let end = self.poured + packets;
        ensure!(end <= self.ahead.len(), "{} packets are laid ahead, not {packets}", self.ahead.len() - self.poured);
        let mut moved = Instant::now();
        while self.poured < end || self.in_flight > 0 {
            // A ring that is filled to the brim only drives packets out of the cache: one system call takes a batch.
            if (RING - self.transmit.nb_free_exact()) < BATCH as u32 {
                let next = &self.ahead[self.poured..end.min(self.poured + BATCH)];
                // SAFETY: the frames are of this memory; those that are taken leave our list: `poured` goes past them.
                let taken = unsafe { self.transmit.produce(next) };
                self.poured += taken;
                self.in_flight += taken;
            }
            if self.transmit.needs_wakeup() && self.transmit.nb_free_exact() < RING {
                self.transmit.wakeup().context("cannot send")?;
            }
            let before = self.in_flight;
            self.reclaim();
            if self.in_flight < before {
                moved = Instant::now();
            }
            ensure!(
                moved.elapsed() < PATIENCE,
                "the kernel keeps {} packets for more than {PATIENCE:?}",
                self.in_flight
            );
        }
        if self.poured == self.ahead.len() {
            self.ahead.clear();
            self.poured = 0;
        }
        Ok(())
    }

    /// Gives what was written to the kernel and takes back what is sent.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let mut given = 0;
        for batch in self.ready.chunks(BATCH) {
            // SAFETY: the frames are of this memory; they leave our lists below if they were taken.
            let taken = unsafe { self.transmit.produce(batch) };
            given += taken;
            if taken < batch.len() {
                break;
            }
        }
        self.ready.drain(..given);
        self.in_flight += given;
        // A call sends some of what there is: what stayed would wait for the next turn, and time spent here would look like
        // the gateway's.
        for _ in 0..=self.in_flight / SENT_PER_CALL {
            if self.transmit.nb_free_exact() == RING || !self.transmit.needs_wakeup() {
                break;
            }
            self.transmit.wakeup().context("cannot send")?;
        }
        self.reclaim();
        Ok(())
    }

    /// Hands every packet that has arrived, at most `most`, to `each`; gives how many there were.
    pub(crate) fn receive(&mut self, most: usize, mut each: impl FnMut(&mut [u8])) -> Result<usize> {
        let mut total = 0;
        while total < most {
            // SAFETY: what the kernel filled is ours now.
            let count = unsafe { self.receive.consume(&mut self.arrived) };
            if count == 0 {
                break;
            }
            for frame in &mut self.arrived[..count] {
                // SAFETY: as above; nobody else has the frame until it goes back below.
                each(unsafe { self.memory.data_mut(frame) }.contents_mut());
            }
            // SAFETY: the frames were taken from this memory's receive ring just now. The fill ring is as long as there
            // are frames for it, so it takes all.
            unsafe { self.fill.produce(&self.arrived[..count]) };
            total += count;
        }
        Ok(total)
    }

    /// Packets that the kernel could not give us: no free frame, or the ring was full.
    pub(crate) fn missed(&self) -> Result<u64> {
        let statistics = self.receive.fd().xdp_statistics().context("cannot read the socket's statistics")?;
        Ok(statistics.rx_dropped() + statistics.rx_ring_full())
    }

    fn reclaim(&mut self) {
        let mut done = [FrameDesc::default(); BATCH];
        loop {
            // SAFETY: what the kernel has sent is ours again.
            let count = unsafe { self.completion.consume(&mut done) };
            self.idle.extend_from_slice(&done[..count]);
            self.in_flight -= count;
            if count < BATCH {
                return;
            }
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket lives as long as its queues, which live as long as this value.
        unsafe { BorrowedFd::borrow_raw(self.receive.fd().as_raw_fd()) }
    }
}
