//! The packet memory (UMEM) that every port's sockets share with the kernel, and its frames: each the only handle to one
//! piece of it, with the packet's place inside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::SysError;
use super::ring::{Entry, Returned};

/// Numbers the memories of this process, so that a frame is never used with another memory than its own.
static NEXT_MEMORY: AtomicU32 = AtomicU32::new(0);

/// A page-aligned area cut into equal chunks, one per [`Frame`].
#[derive(Debug)]
pub struct Umem {
    area: MmapRaw,
    frames: u32,
    chunk: u16,
    id: u32,
}

impl Umem {
    /// Allocates `frames` chunks of `chunk` bytes (2048 or 4096, as AF_XDP wants) and returns them with their memory.
    pub fn new(frames: u32, chunk: u16) -> Result<(Arc<Self>, Vec<Frame>), SysError> {
        assert!(frames > 0 && matches!(chunk, 2048 | 4096), "{frames} frames of {chunk} bytes");
        let area = MmapOptions::new().len(frames as usize * usize::from(chunk)).map_anon();
        let area = MmapRaw::from(area.map_err(SysError::io("reserving packet memory"))?);
        // Huge pages save TLB misses; the kernel may refuse them, which costs nothing but speed.
        let _ = area.advise(Advice::HugePage);
        let id = NEXT_MEMORY.fetch_add(1, Ordering::Relaxed);
        // The memory is new, so this is the first and only frame of each index.
        let all = (0..frames).map(|index| Frame::mint(id, index, chunk)).collect();
        Ok((Arc::new(Self { area, frames, chunk, id }), all))
    }

    /// Number of frames.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Bytes of a frame's chunk.
    pub fn chunk(&self) -> usize {
        usize::from(self.chunk)
    }

    /// The packet in `frame`.
    pub fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        // SAFETY: `packet` gives a range within the area. `frame` is the chunk's only handle and is borrowed for 'a,
        // so nobody writes to it meanwhile; the area lives as long as `self`. mmap zeroed it: it is initialised.
        unsafe { std::slice::from_raw_parts(self.packet(frame), frame.len()) }
    }

    /// The packet in `frame`, to be changed.
    pub fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        // SAFETY: as in `bytes`, and the handle is borrowed mutably, so nobody else reads or writes it for 'a.
        unsafe { std::slice::from_raw_parts_mut(self.packet(frame), frame.len()) }
    }

    /// Where the packet of `frame` starts in this process: index < frames and start + len <= chunk, so within the area.
    fn packet(&self, frame: &Frame) -> *mut u8 {
        assert_eq!(frame.memory, self.id, "a frame of another memory");
        self.area.as_mut_ptr().wrapping_add(frame.index as usize * self.chunk() + frame.start())
    }

    /// The area, for its registration with the kernel: first byte, and how many.
    pub(super) fn area(&self) -> (*mut u8, usize) {
        (self.area.as_mut_ptr(), self.area.len())
    }

    /// The address by which rings name the packet of `frame`.
    pub(super) fn address(&self, frame: &Frame) -> u64 {
        assert_eq!(frame.memory, self.id, "a frame of another memory");
        u64::from(frame.index) * u64::from(self.chunk) + u64::from(frame.start)
    }

    /// The frame that a ring of this memory's sockets gave back, with the packet in it. That the kernel gives each back
    /// once is trusted; that it is one of this memory is not.
    pub(super) fn redeem<T: Entry>(&self, returned: Returned<T>) -> Frame {
        let (address, len) = returned.into_entry().packet();
        let index = address / u64::from(self.chunk);
        assert!(index < u64::from(self.frames), "the kernel returned address {address:#x} outside of the memory");
        let mut frame = Frame::mint(self.id, index as u32, self.chunk);
        let start = (address % u64::from(self.chunk)) as usize;
        frame.place(start, len as usize).expect("the kernel returns packets within their chunk");
        frame
    }
}

/// The move does not fit into the frame; the frame is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet does not fit into its frame")]
pub struct NoRoom;

/// One chunk of a [`Umem`](super::Umem), and the bytes in it that are the packet now.
///
/// Headers are stripped and put in front by moving `start`; packet bytes are never copied. A frame that is dropped is
/// lost to its memory until the gateway restarts, so every path ends in a ring or in a list on the way to one.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that is dropped is lost; give it to a ring"]
pub struct Frame {
    memory: u32,
    index: u32,
    chunk: u16,
    // Invariant: start + len <= chunk. The slices that `Umem` makes rest on it.
    start: u16,
    len: u16,
}

impl Frame {
    /// The frame of that index, holding an empty packet at the chunk's start. The slices of [`Umem`] rest on it that
    /// `index` is one of the memory, `chunk` its chunk size, and that neither another `Frame` of that index exists nor the
    /// kernel holds it: for [`Umem::new`] and [`Umem::redeem`] alone.
    fn mint(memory: u32, index: u32, chunk: u16) -> Self {
        Self { memory, index, chunk, start: 0, len: 0 }
    }

    /// Its number within the memory.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Where the packet starts within the chunk.
    pub fn start(&self) -> usize {
        usize::from(self.start)
    }

    /// Bytes of the packet.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether the packet has no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the chunk behind the packet.
    pub fn tailroom(&self) -> usize {
        usize::from(self.chunk) - self.start() - self.len()
    }

    /// Makes `len` bytes from `start` of the chunk the packet.
    pub fn place(&mut self, start: usize, len: usize) -> Result<(), NoRoom> {
        let end = start.checked_add(len).ok_or(NoRoom)?;
        if end > usize::from(self.chunk) {
            return Err(NoRoom);
        }
        // Both are at most `chunk`, which is a u16.
        self.start = start as u16;
        self.len = len as u16;
        Ok(())
    }

    /// Takes `n` bytes off the packet's front.
    pub fn strip(&mut self, n: usize) -> Result<(), NoRoom> {
        let len = self.len().checked_sub(n).ok_or(NoRoom)?;
        self.place(self.start() + n, len)
    }

    /// Puts `n` bytes, whose content is unspecified, in front of the packet.
    pub fn prepend(&mut self, n: usize) -> Result<(), NoRoom> {
        let start = self.start().checked_sub(n).ok_or(NoRoom)?;
        self.place(start, self.len() + n)
    }

    /// Puts `n` bytes, whose content is unspecified, behind the packet.
    pub fn append(&mut self, n: usize) -> Result<(), NoRoom> {
        self.place(self.start(), self.len() + n)
    }

    /// Cuts the packet to at most `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(u16::try_from(len).unwrap_or(u16::MAX));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sys::fake::RingBlock;
    use crate::sys::ring::{Consumer, Producer};

    #[test]
    fn every_frame_has_its_own_bytes() {
        let (memory, mut frames) = Umem::new(16, 2048).expect("anonymous memory");
        for frame in &mut frames {
            frame.place(0, 2048).expect("the whole chunk");
            let mark = frame.index() as u8;
            memory.bytes_mut(frame).fill(mark);
        }
        for frame in &frames {
            assert!(memory.bytes(frame).iter().all(|&byte| u32::from(byte) == frame.index()));
        }
    }

    #[test]
    #[should_panic(expected = "a frame of another memory")]
    fn a_frame_of_another_memory_is_refused() {
        let (one, _) = Umem::new(1, 2048).expect("anonymous memory");
        let (_, frames) = Umem::new(1, 2048).expect("anonymous memory");
        one.bytes(&frames[0]);
    }

    #[test]
    #[should_panic(expected = "outside of the memory")]
    fn an_address_outside_of_the_memory_is_not_believed() {
        let (memory, _frames) = Umem::new(4, 2048).expect("anonymous memory");
        let block = RingBlock::new::<u64>(1, 0);
        let mut kernel = Producer::new(block.ring());
        assert!(kernel.push(4 * 2048_u64));
        kernel.publish();
        let _ = memory.redeem(Consumer::<u64>::new(block.ring()).pop().expect("one entry"));
    }

    fn frame() -> Frame {
        let (_, mut frames) = Umem::new(1, 2048).expect("anonymous memory");
        let mut frame = frames.pop().expect("one frame");
        frame.place(256, 100).expect("fits");
        frame
    }

    #[test]
    fn a_header_is_stripped_and_prepended_by_moving_the_start() {
        let mut frame = frame();
        frame.strip(14).expect("100 bytes are there");
        assert_eq!((frame.start(), frame.len()), (270, 86));
        frame.prepend(62).expect("headroom is there");
        assert_eq!((frame.start(), frame.len()), (208, 148));
        frame.append(16).expect("tailroom is there");
        assert_eq!((frame.start(), frame.len()), (208, 164));
    }

    #[test]
    fn a_move_beyond_the_chunk_is_refused_and_changes_nothing() {
        let mut frame = frame();
        assert_eq!(frame.strip(101), Err(NoRoom));
        assert_eq!(frame.prepend(257), Err(NoRoom));
        assert_eq!(frame.append(2048 - 356 + 1), Err(NoRoom));
        assert_eq!(frame.place(usize::MAX, 2), Err(NoRoom));
        assert_eq!((frame.start(), frame.len()), (256, 100));
    }

    proptest! {
        #[test]
        fn no_sequence_of_moves_leaves_the_chunk(moves in prop::collection::vec((0..4u8, 0usize..5000), 0..50)) {
            let mut frame = frame();
            for (kind, n) in moves {
                let _ = match kind {
                    0 => frame.strip(n),
                    1 => frame.prepend(n),
                    2 => frame.append(n),
                    _ => { frame.truncate(n); Ok(()) }
                };
                prop_assert!(frame.start() + frame.len() + frame.tailroom() == 2048);
            }
        }
    }
}
