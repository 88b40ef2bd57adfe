//! The packet memory (UMEM) that every port's sockets share with the kernel.

use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Frame, SysError};

/// Numbers the memories of this process, so that a frame is never used with another memory than its own.
static NEXT_MEMORY: AtomicU32 = AtomicU32::new(0);

/// A page-aligned area cut into equal chunks, one per [`Frame`].
#[derive(Debug)]
pub struct Umem {
    base: NonNull<u8>,
    frames: u32,
    chunk: u16,
    id: u32,
}

// SAFETY: the area is plain memory that no thread owns; access to a chunk goes through its only `Frame`.
unsafe impl Send for Umem {}
// SAFETY: as above: shared access to the `Umem` alone reaches no byte of it.
unsafe impl Sync for Umem {}

impl Umem {
    /// Allocates `frames` chunks of `chunk` bytes (2048 or 4096, as AF_XDP wants) and returns them with their memory.
    pub fn new(frames: u32, chunk: u16) -> Result<(Arc<Self>, Vec<Frame>), SysError> {
        assert!(frames > 0 && matches!(chunk, 2048 | 4096), "{frames} frames of {chunk} bytes");
        let len = frames as usize * usize::from(chunk);
        // SAFETY: a new anonymous mapping, which touches no existing memory.
        let area = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if area == libc::MAP_FAILED {
            return Err(SysError::last("reserving packet memory"));
        }
        // Huge pages save TLB misses; the kernel may refuse them, which costs nothing but speed.
        // SAFETY: the range is the mapping just made.
        unsafe { libc::madvise(area, len, libc::MADV_HUGEPAGE) };
        let base = NonNull::new(area.cast::<u8>()).expect("a successful mmap is not null");
        let id = NEXT_MEMORY.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the memory is new, so this is the first and only frame of each index.
        let all = (0..frames).map(|index| unsafe { Frame::mint(id, index, chunk) }).collect();
        Ok((Arc::new(Self { base, frames, chunk, id }), all))
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
        let at = self.packet(frame);
        // SAFETY: `packet` gives a range within the area. `frame` is the chunk's only handle and is borrowed for 'a,
        // so nobody writes to it meanwhile; the area lives as long as `self`. mmap zeroed it: it is initialised.
        unsafe { std::slice::from_raw_parts(at.as_ptr(), frame.len()) }
    }

    /// The packet in `frame`, to be changed.
    pub fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        let at = self.packet(frame);
        // SAFETY: as in `bytes`, and the handle is borrowed mutably, so nobody else reads or writes it for 'a.
        unsafe { std::slice::from_raw_parts_mut(at.as_ptr(), frame.len()) }
    }

    /// Where the packet of `frame` starts in this process.
    fn packet(&self, frame: &Frame) -> NonNull<u8> {
        assert_eq!(frame.memory(), self.id, "a frame of another memory");
        // SAFETY: a minted frame has index < frames and start + len <= chunk, so the offset stays within the area.
        unsafe { self.base.add(frame.index() as usize * self.chunk() + frame.start()) }
    }

    /// First byte of the area, for its registration with the kernel.
    pub(super) fn area(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Bytes of the area.
    pub(super) fn area_len(&self) -> usize {
        self.frames as usize * self.chunk()
    }

    /// The address by which rings name the packet of `frame`.
    pub(super) fn address(&self, frame: &Frame) -> u64 {
        assert_eq!(frame.memory(), self.id, "a frame of another memory");
        u64::from(frame.index()) * u64::from(self.chunk) + frame.start() as u64
    }

    /// The frame that a ring handed out by the address `address`, holding `len` bytes.
    ///
    /// # Safety
    /// The kernel gave up that address just now, and nobody else made a frame of it.
    pub(super) unsafe fn redeem(&self, address: u64, len: u32) -> Frame {
        let index = address / u64::from(self.chunk);
        assert!(index < u64::from(self.frames), "the kernel returned address {address:#x} outside of the memory");
        // SAFETY: the index is in range (above), its uniqueness is the caller's word.
        let mut frame = unsafe { Frame::mint(self.id, index as u32, self.chunk) };
        let start = (address % u64::from(self.chunk)) as usize;
        frame.place(start, len as usize).expect("the kernel returns packets within their chunk");
        frame
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        // SAFETY: the area was mapped by `new` with this length and nothing borrows from it any more: slices borrow
        // `self`. A kernel that still writes does so to its own pinned pages.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.area_len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // SAFETY: never becomes a frame: the address is out of range.
        let _ = unsafe { memory.redeem(4 * 2048, 0) };
    }
}
