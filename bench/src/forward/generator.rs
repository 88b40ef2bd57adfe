//! The generator: it sends packets that lie ready in memory, as fast as AF_XDP takes them.
//!
//! Packets are written into the frames of its own packet memory before the clock starts, and sent from there: while it
//! sends, it computes and copies nothing. It uses the gateway's own ring layer, with sockets and memory of its own.

use std::collections::VecDeque;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jumpgate::sys::{
    Binding, CompletionRing, CopyMode, FillRing, Frame, QueueRings, ReceiveRing, RingRequest, Socket, TransmitRing,
    Umem,
};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use crate::frames::{CHUNK, HEADROOM};

/// What sends, for the report.
pub(super) const NAME: &str = "AF_XDP in copy mode by the gateway's own ring layer, frames ready in memory";

/// Entries of a transmit ring.
const TRANSMIT: u32 = 1_024;
/// Entries of the completion ring: packets that may be on their way.
const IN_FLIGHT: u32 = 2_048;
/// Packets per system call.
const BATCH: usize = 64;
/// Longest time in which nothing may move.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends from one memory on several links.
pub(super) struct Generator {
    memory: Arc<Umem>,
    idle: Vec<Frame>,
    loaded: VecDeque<Frame>,
    lines: Vec<Line>,
}

/// A link to send on.
struct Line {
    socket: Socket,
    transmit: TransmitRing,
    completion: CompletionRing,
    /// Every AF_XDP socket has them, used or not.
    _unused: (ReceiveRing, FillRing),
}

impl Generator {
    /// A generator for bursts of at most that many packets.
    pub(super) fn new(packets: usize) -> Result<Self> {
        let (memory, idle) = Umem::new(u32::try_from(packets)?, CHUNK)?;
        Ok(Self { memory, idle, loaded: VecDeque::with_capacity(packets), lines: Vec::new() })
    }

    /// Adds a link; gives its number.
    pub(super) fn add_line(&mut self, link: &str) -> Result<usize> {
        let binding = match self.lines.first() {
            None => Binding::Memory(CopyMode::Copy),
            Some(first) => Binding::Queue(first.socket.as_fd()),
        };
        let request = RingRequest { receive: TRANSMIT, transmit: Some(TRANSMIT), queue: IN_FLIGHT };
        let (socket, receive, transmit, rings) = Socket::prepare(&self.memory, binding, request)?;
        let QueueRings { fill, completion } = rings.context("the first socket of a queue has its rings")?;
        let transmit = transmit.context("a transmit ring was asked for")?;
        let index = if_nametoindex(link).with_context(|| format!("there is no link {link}"))?;
        socket.bind(index, 0, binding).with_context(|| format!("the generator cannot send on {link}"))?;
        self.lines.push(Line { socket, transmit, completion, _unused: (receive, fill) });
        Ok(self.lines.len() - 1)
    }

    /// Writes a packet to be sent after those that were written before.
    pub(super) fn load(&mut self, bytes: usize, write: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
        let mut frame = self.idle.pop().context("more packets than the generator has frames")?;
        frame.place(HEADROOM, bytes)?;
        write(self.memory.bytes_mut(&mut frame))?;
        self.loaded.push_back(frame);
        Ok(())
    }

    /// Sends the next packets of those that were written. Returns when the kernel is done with the last.
    pub(super) fn fire(&mut self, line: usize, packets: usize) -> Result<()> {
        ensure!(self.loaded.len() >= packets, "{} packets are ready, not {packets}", self.loaded.len());
        let Self { idle, loaded, lines, .. } = self;
        let Line { socket, transmit, completion, .. } = &mut lines[line];
        let mut unsent = packets;
        let mut in_flight = 0;
        let mut stuck_since = None;
        while unsent > 0 || in_flight > 0 {
            for _ in 0..BATCH.min(unsent).min(IN_FLIGHT as usize - in_flight) {
                let Some(frame) = loaded.pop_front() else { break };
                if let Err(frame) = transmit.give(frame) {
                    loaded.push_front(frame);
                    break;
                }
                unsent -= 1;
                in_flight += 1;
            }
            transmit.publish();
            if transmit.unsent() > 0 {
                match socket.kick_transmit() {
                    // Busy: what is left goes with the next call.
                    Ok(()) | Err(Errno::EAGAIN | Errno::EBUSY | Errno::ENOBUFS) => {}
                    Err(error) => bail!("the generator cannot send: {error}"),
                }
            }
            let before = in_flight;
            while let Some(frame) = completion.take() {
                idle.push(frame);
                in_flight -= 1;
            }
            completion.release();
            if in_flight < before {
                stuck_since = None;
            } else if stuck_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                bail!("the kernel keeps {in_flight} packets of the generator for more than {PATIENCE:?}");
            }
        }
        Ok(())
    }
}
