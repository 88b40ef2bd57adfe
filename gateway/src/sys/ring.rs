//! The ring that user space and kernel share: one producer, one consumer, two counters, a power of two of entries.
//!
//! The arithmetic is that of `net/xdp/xsk_queue.h`: counters run freely and wrap; their difference is the number of
//! filled entries. Entries become visible to the other end by a release store of the own counter, and are read after
//! an acquire load of the other's. Both ends keep a copy of the other's counter and look again only when it does not
//! suffice, so that a batch costs one load and one store on shared cache lines.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;
use rustix::net::xdp::{
    XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING, XdpDesc,
    XdpMmapOffsets, XdpRingFlags, XdpRingOffset,
};

use super::SysError;

/// Which of a socket's rings, by its place in the socket's mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RingKind {
    Receive,
    Transmit,
    Fill,
    Completion,
}

/// What is written into a ring: integers, for which any bytes are valid.
pub(super) trait Entry: Copy {
    /// The place in the packet memory that it names, and the bytes that are there.
    fn packet(&self) -> (u64, u32);
}

impl Entry for u64 {
    fn packet(&self) -> (u64, u32) {
        (*self, 0)
    }
}

impl Entry for XdpDesc {
    fn packet(&self) -> (u64, u32) {
        (self.addr, self.len)
    }
}

/// What the other end of a ring gave up just now. Only [`Consumer::pop`] makes one, once for each entry: it is the title to
/// the frame that the entry names.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the frame that it names would be lost"]
pub(super) struct Returned<T>(T);

impl<T> Returned<T> {
    /// The entry itself; the title is gone.
    pub(super) fn into_entry(self) -> T {
        self.0
    }
}

/// Where a ring's parts are. Its owner is one end of the ring.
#[derive(Debug)]
pub(super) struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    /// Keeps all of that alive. A mapping of a socket that stays would keep the socket's queue busy.
    _memory: Arc<MmapRaw>,
}

/// The end that writes entries.
#[derive(Debug)]
pub(super) struct Producer<T> {
    ring: Ring<T>,
    /// Next entry to write; what the consumer sees of it is `published`.
    head: u32,
    published: u32,
    /// The consumer's counter when last looked at.
    seen_tail: u32,
}

/// The end that reads entries.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    /// Next entry to read; what the producer sees of it is `released`.
    tail: u32,
    released: u32,
    /// The producer's counter when last looked at.
    seen_head: u32,
}

// SAFETY: the pointers lead to memory that the ring keeps alive; one end may be used by any one thread at a time.
unsafe impl<T: Entry> Send for Ring<T> {}

impl<T: Entry> Ring<T> {
    /// Maps a ring of `size` entries of the socket `fd`.
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        kind: RingKind,
        offsets: &XdpMmapOffsets,
        size: u32,
    ) -> Result<Self, SysError> {
        let (at, page_offset) = match kind {
            RingKind::Receive => (&offsets.rx, XDP_PGOFF_RX_RING),
            RingKind::Transmit => (&offsets.tx, XDP_PGOFF_TX_RING),
            RingKind::Fill => (&offsets.fr, XDP_UMEM_PGOFF_FILL_RING),
            RingKind::Completion => (&offsets.cr, XDP_UMEM_PGOFF_COMPLETION_RING),
        };
        let len = at.desc as usize + size as usize * size_of::<T>();
        let memory = MmapOptions::new().offset(page_offset).len(len).populate().map_raw(fd.as_raw_fd());
        Self::within(Arc::new(memory.map_err(SysError::io("mapping a ring"))?), at, size)
    }

    /// The ring of `size` entries that lies in `memory` at these offsets.
    pub(super) fn within(memory: Arc<MmapRaw>, at: &XdpRingOffset, size: u32) -> Result<Self, SysError> {
        assert!(size.is_power_of_two());
        // A kernel before 5.4 has no flags, and knows no need to wake it up.
        let flags = at.flags.ok_or(SysError { call: "reading the ring layout", errno: Errno::ENOSYS })?;
        let base = memory.as_mut_ptr();
        let place = |offset: u64, len: usize, align: usize| {
            let offset = offset as usize;
            assert!(offset + len <= memory.len() && offset.is_multiple_of(align), "a ring outside of its memory");
            NonNull::new(base.wrapping_add(offset)).expect("a mapping is not null")
        };
        let counter = |offset| place(offset, size_of::<AtomicU32>(), align_of::<AtomicU32>()).cast();
        Ok(Self {
            producer: counter(at.producer),
            consumer: counter(at.consumer),
            flags: counter(flags),
            entries: place(at.desc, size as usize * size_of::<T>(), align_of::<T>()).cast(),
            size,
            _memory: memory,
        })
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: within the memory, which `self` keeps alive, and aligned (`within`); both ends access it atomically only.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn needs_wakeup(&self) -> bool {
        // SAFETY: as for `producer`.
        let flags = unsafe { self.flags.as_ref() };
        flags.load(Ordering::Relaxed) & XdpRingFlags::XDP_RING_NEED_WAKEUP.bits() != 0
    }

    /// Entries that are filled now, as both ends show it. For those who watch: by the time it is read it has changed.
    fn filled(&self) -> u32 {
        let tail = self.consumer().load(Ordering::Relaxed);
        // Read one after the other, they may never have stood so; never more than the ring holds.
        self.producer().load(Ordering::Relaxed).wrapping_sub(tail).min(self.size)
    }

    /// The entry that the free-running counter `position` names.
    fn entry(&self, position: u32) -> *mut T {
        // Masked by size - 1, it stays within the ring's `size` entries.
        self.entries.as_ptr().wrapping_add((position & (self.size - 1)) as usize)
    }
}

impl<T: Entry> Producer<T> {
    /// The producing end of a ring, wherever its counters stand.
    pub(super) fn new(ring: Ring<T>) -> Self {
        let head = ring.producer().load(Ordering::Relaxed);
        let seen_tail = ring.consumer().load(Ordering::Acquire);
        Self { ring, head, published: head, seen_tail }
    }

    /// Writes an entry, which the consumer does not see before [`publish`](Self::publish); false if the ring is full.
    pub(super) fn push(&mut self, entry: T) -> bool {
        if !self.has_room() {
            return false;
        }
        // SAFETY: the entry is within the ring; being between the consumer's counter and ours, it is ours to write.
        unsafe { self.ring.entry(self.head).write(entry) };
        self.head = self.head.wrapping_add(1);
        true
    }

    /// Whether another entry finds a place. Nobody else takes it.
    pub(super) fn has_room(&mut self) -> bool {
        if self.head.wrapping_sub(self.seen_tail) == self.ring.size {
            self.seen_tail = self.ring.consumer().load(Ordering::Acquire);
        }
        self.head.wrapping_sub(self.seen_tail) != self.ring.size
    }

    /// Shows all written entries to the consumer.
    pub(super) fn publish(&mut self) {
        if self.published != self.head {
            self.ring.producer().store(self.head, Ordering::Release);
            self.published = self.head;
        }
    }

    /// Entries published and not consumed, for those who watch.
    pub(super) fn filled(&self) -> u32 {
        self.ring.filled()
    }

    /// Entries written and not consumed yet.
    pub(super) fn unconsumed(&mut self) -> u32 {
        self.seen_tail = self.ring.consumer().load(Ordering::Acquire);
        self.head.wrapping_sub(self.seen_tail)
    }

    /// Whether the kernel sleeps over this ring and wants a system call.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }
}

impl<T: Entry> Consumer<T> {
    /// The consuming end of a ring, wherever its counters stand.
    pub(super) fn new(ring: Ring<T>) -> Self {
        let tail = ring.consumer().load(Ordering::Relaxed);
        let seen_head = ring.producer().load(Ordering::Acquire);
        Self { ring, tail, released: tail, seen_head }
    }

    /// Reads an entry. Its place goes back to the producer at [`release`](Self::release).
    pub(super) fn pop(&mut self) -> Option<Returned<T>> {
        if self.tail == self.seen_head {
            self.seen_head = self.ring.producer().load(Ordering::Acquire);
            if self.tail == self.seen_head {
                return None;
            }
        }
        // SAFETY: within the ring, and between our counter and the producer's: written, and ours to read.
        let entry = unsafe { self.ring.entry(self.tail).read() };
        self.tail = self.tail.wrapping_add(1);
        Some(Returned(entry))
    }

    /// Gives the places of all read entries back to the producer.
    pub(super) fn release(&mut self) {
        if self.released != self.tail {
            self.ring.consumer().store(self.tail, Ordering::Release);
            self.released = self.tail;
        }
    }

    /// Entries that wait to be read, for those who watch.
    pub(super) fn filled(&self) -> u32 {
        self.ring.filled()
    }

    /// Entries that wait to be read.
    pub(super) fn waiting(&mut self) -> u32 {
        self.seen_head = self.ring.producer().load(Ordering::Acquire);
        self.seen_head.wrapping_sub(self.tail)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::super::fake::RingBlock;
    use super::*;

    fn ends(size: u32, start: u32) -> (Producer<u64>, Consumer<u64>) {
        let block = RingBlock::new::<u64>(size, start);
        (Producer::new(block.ring()), Consumer::new(block.ring()))
    }

    fn pop(consumer: &mut Consumer<u64>) -> Option<u64> {
        consumer.pop().map(Returned::into_entry)
    }

    #[test]
    fn nothing_is_seen_before_it_is_published() {
        let (mut producer, mut consumer) = ends(4, 0);
        assert!(producer.push(7));
        assert_eq!(pop(&mut consumer), None);
        producer.publish();
        assert_eq!(pop(&mut consumer), Some(7));
    }

    #[test]
    fn a_full_ring_takes_no_more_until_places_are_released() {
        let (mut producer, mut consumer) = ends(4, 0);
        assert!((0..4).all(|n| producer.push(n)));
        assert!(!producer.push(4));
        producer.publish();
        assert_eq!(pop(&mut consumer), Some(0));
        assert!(!producer.push(4), "read is not yet released");
        consumer.release();
        assert!(producer.push(4));
        assert_eq!(producer.unconsumed(), 4);
    }

    #[test]
    fn both_ends_see_how_full_a_ring_is_also_where_the_counters_wrap() {
        let (mut producer, mut consumer) = ends(4, u32::MAX - 1);
        assert!((0..3).all(|n| producer.push(n)));
        assert_eq!(consumer.filled(), 0, "nothing is published");
        producer.publish();
        assert_eq!((producer.filled(), consumer.filled()), (3, 3));
        assert_eq!(pop(&mut consumer), Some(0));
        consumer.release();
        assert_eq!((producer.filled(), consumer.filled()), (2, 2));
    }

    #[test]
    fn two_threads_pass_a_million_entries_in_order() {
        const COUNT: u64 = 1_000_000;
        let (mut producer, mut consumer) = ends(64, u32::MAX - 1000);
        let writer = std::thread::spawn(move || {
            for n in 0..COUNT {
                while !producer.push(n) {
                    producer.publish();
                    std::thread::yield_now();
                }
                if n % 7 == 0 {
                    producer.publish();
                }
            }
            producer.publish();
        });
        for expected in 0..COUNT {
            let got = loop {
                if let Some(entry) = pop(&mut consumer) {
                    break entry;
                }
                consumer.release();
                std::thread::yield_now();
            };
            assert_eq!(got, expected);
        }
        writer.join().expect("the writer does not panic");
    }

    proptest! {
        /// Wherever the counters start (they wrap at 2^32), the ring behaves as a bounded queue.
        #[test]
        fn a_ring_is_a_bounded_queue_also_across_the_counters_wrap(
            start in prop_oneof![Just(0u32), any::<u32>(), (u32::MAX - 40)..=u32::MAX],
            steps in prop::collection::vec(0..4u8, 0..400),
        ) {
            let (mut producer, mut consumer) = ends(8, start);
            let (mut written, mut visible, mut places, mut pending_places) = (VecDeque::new(), VecDeque::new(), 8u32, 0u32);
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    0 => {
                        prop_assert_eq!(producer.push(n as u64), places > 0);
                        if places > 0 {
                            places -= 1;
                            written.push_back(n as u64);
                        }
                    }
                    1 => {
                        producer.publish();
                        visible.append(&mut written);
                    }
                    2 => {
                        prop_assert_eq!(consumer.waiting() as usize, visible.len());
                        let expected = visible.pop_front();
                        prop_assert_eq!(pop(&mut consumer), expected);
                        pending_places += u32::from(expected.is_some());
                    }
                    _ => {
                        consumer.release();
                        places += pending_places;
                        pending_places = 0;
                    }
                }
            }
        }
    }
}
