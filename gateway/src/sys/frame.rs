//! A frame: the only handle to one piece of packet memory, with the packet's place inside it.

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
    /// The frame of that index, holding an empty packet at the chunk's start.
    ///
    /// # Safety
    /// `index` is below the memory's number of frames, `chunk` is its chunk size, and no other `Frame` of that memory
    /// and index exists, nor does the kernel hold it.
    pub(super) unsafe fn mint(memory: u32, index: u32, chunk: u16) -> Self {
        Self { memory, index, chunk, start: 0, len: 0 }
    }

    /// Which memory it belongs to.
    pub(super) fn memory(&self) -> u32 {
        self.memory
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
    use crate::sys::Umem;

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
