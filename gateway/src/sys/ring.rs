//! The ring that user space and kernel share: one producer, one consumer, two counters, a power of two of entries.
//!
//! The arithmetic is that of `net/xdp/xsk_queue.h`: counters run freely and wrap; their difference is the number of
//! filled entries. Entries become visible to the other end by a release store of the own counter, and are read after
//! an acquire load of the other's. Both ends keep a copy of the other's counter and look again only when it does not
//! suffice, so that a batch costs one load and one store on shared cache lines.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use super::SysError;

/// Which of a socket's rings, by its place in the socket's mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RingKind {
    Receive,
    Transmit,
    Fill,
    Completion,
}

/// What is written into a ring.
pub(super) trait Entry: Copy {}
impl Entry for u64 {}
impl Entry for libc::xdp_desc {}

/// Where a ring's parts are. Its owner is one end of the ring.
#[derive(Debug)]
pub(super) struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    _memory: Memory,
}

/// What keeps the ring's memory alive.
#[derive(Debug)]
enum Memory {
    /// Mapped from a socket; unmapped on drop. A mapping that stays would keep the socket's queue busy.
    Mapped { base: NonNull<libc::c_void>, len: usize },
    /// Shared by both ends within this process.
    #[cfg(test)]
    Heap { _block: std::sync::Arc<super::fake::RingBlock> },
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
        offsets: &libc::xdp_mmap_offsets,
        size: u32,
    ) -> Result<Self, SysError> {
        assert!(size.is_power_of_two());
        let (at, page_offset) = match kind {
            RingKind::Receive => (&offsets.rx, libc::XDP_PGOFF_RX_RING),
            RingKind::Transmit => (&offsets.tx, libc::XDP_PGOFF_TX_RING),
            RingKind::Fill => (&offsets.fr, libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t),
            RingKind::Completion => (&offsets.cr, libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t),
        };
        let len = at.desc as usize + size as usize * size_of::<T>();
        // SAFETY: a new mapping, which touches no existing memory.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                page_offset,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(SysError::last("mapping a ring"));
        }
        let base = NonNull::new(base).expect("a successful mmap is not null");
        // SAFETY: the kernel laid the ring out at these offsets within the `len` bytes that it let us map.
        let (producer, consumer, flags, entries) = unsafe {
            (
                base.byte_add(at.producer as usize).cast(),
                base.byte_add(at.consumer as usize).cast(),
                base.byte_add(at.flags as usize).cast(),
                base.byte_add(at.desc as usize).cast(),
            )
        };
        Ok(Self { producer, consumer, flags, entries, size, _memory: Memory::Mapped { base, len } })
    }

    /// A ring on memory of this process, for tests that play the kernel.
    #[cfg(test)]
    pub(super) fn on_heap(block: std::sync::Arc<super::fake::RingBlock>) -> Self {
        let (producer, consumer, flags) = block.counters();
        let (entries, size) = (block.entries().cast(), block.size());
        Self { producer, consumer, flags, entries, size, _memory: Memory::Heap { _block: block } }
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: points into memory that `self` keeps alive; both ends access it atomically only.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn needs_wakeup(&self) -> bool {
        // SAFETY: as for `producer`.
        let flags = unsafe { self.flags.as_ref() };
        flags.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// Entries that are filled now, as both ends show it. For those who watch: by the time it is read it has changed.
    fn filled(&self) -> u32 {
        let tail = self.consumer().load(Ordering::Relaxed);
        // Read one after the other, they may never have stood so; never more than the ring holds.
        self.producer().load(Ordering::Relaxed).wrapping_sub(tail).min(self.size)
    }

    /// The entry that the free-running counter `position` names.
    fn entry(&self, position: u32) -> NonNull<T> {
        // SAFETY: masked by size - 1, the offset stays within the ring's `size` entries.
        unsafe { self.entries.add((position & (self.size - 1)) as usize) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match *self {
            Self::Mapped { base, len } => {
                // SAFETY: mapped by `Ring::map` with this length; the ring that owns it goes away with it.
                unsafe { libc::munmap(base.as_ptr(), len) };
            }
            #[cfg(test)]
            Self::Heap { .. } => {}
        }
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
        if self.head.wrapping_sub(self.seen_tail) == self.ring.size {
            self.seen_tail = self.ring.consumer().load(Ordering::Acquire);
            if self.head.wrapping_sub(self.seen_tail) == self.ring.size {
                return false;
            }
        }
        // SAFETY: the entry is within the ring; being between the consumer's counter and ours, it is ours to write.
        unsafe { self.ring.entry(self.head).write(entry) };
        self.head = self.head.wrapping_add(1);
        true
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
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.tail == self.seen_head {
            self.seen_head = self.ring.producer().load(Ordering::Acquire);
            if self.tail == self.seen_head {
                return None;
            }
        }
        // SAFETY: within the ring, and between our counter and the producer's: written, and ours to read.
        let entry = unsafe { self.ring.entry(self.tail).read() };
        self.tail = self.tail.wrapping_add(1);
        Some(entry)
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
        (Producer::new(Ring::on_heap(block.clone())), Consumer::new(Ring::on_heap(block)))
    }

    #[test]
    fn nothing_is_seen_before_it_is_published() {
        let (mut producer, mut consumer) = ends(4, 0);
        assert!(producer.push(7));
        assert_eq!(consumer.pop(), None);
        producer.publish();
        assert_eq!(consumer.pop(), Some(7));
    }

    #[test]
    fn a_full_ring_takes_no_more_until_places_are_released() {
        let (mut producer, mut consumer) = ends(4, 0);
        assert!((0..4).all(|n| producer.push(n)));
        assert!(!producer.push(4));
        producer.publish();
        assert_eq!(consumer.pop(), Some(0));
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
        assert_eq!(consumer.pop(), Some(0));
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
                if let Some(entry) = consumer.pop() {
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
                        prop_assert_eq!(consumer.pop(), expected);
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
