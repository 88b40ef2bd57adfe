//! A bounded queue of the interface of crossbeam's, over loom's atomics.
//!
//! The algorithm is Vyukov's, as crossbeam's is. Its orderings are no stronger than what a hand-over needs (release by
//! who writes a slot, acquire by who reads it), so that nothing above it can lean on an accident of the real one.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

#[derive(Debug)]
struct Slot<T> {
    /// Position at which the slot may be written; one more once it may be read.
    turn: AtomicUsize,
    value: UnsafeCell<Option<T>>,
}

#[derive(Debug)]
pub(crate) struct ArrayQueue<T> {
    head: AtomicUsize,
    tail: AtomicUsize,
    slots: Vec<Slot<T>>,
}

// SAFETY: a slot's value is reached by the one thread whose turn it is; loom checks that.
unsafe impl<T: Send> Sync for ArrayQueue<T> {}

impl<T> ArrayQueue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        // Positions count in steps of two laps, so that "to be written" and "to be read" differ with one slot as well.
        let slot = |index| Slot { turn: AtomicUsize::new(index * 2), value: UnsafeCell::new(None) };
        Self { head: AtomicUsize::new(0), tail: AtomicUsize::new(0), slots: (0..capacity).map(slot).collect() }
    }

    fn slot(&self, position: usize) -> &Slot<T> {
        &self.slots[position % self.slots.len()]
    }

    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        let mut tail = self.tail.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(tail);
            let turn = slot.turn.load(Ordering::Acquire);
            if turn == tail * 2 {
                match self.tail.compare_exchange(tail, tail + 1, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        // SAFETY: the exchange made this position ours, and its turn to be written has come.
                        slot.value.with_mut(|place| unsafe { *place = Some(value) });
                        slot.turn.store(tail * 2 + 1, Ordering::Release);
                        return Ok(());
                    }
                    Err(now) => tail = now,
                }
            } else if turn < tail * 2 {
                // A lap behind: not taken yet.
                return Err(value);
            } else {
                thread::yield_now();
                tail = self.tail.load(Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn pop(&self) -> Option<T> {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(head);
            let turn = slot.turn.load(Ordering::Acquire);
            if turn == head * 2 + 1 {
                match self.head.compare_exchange(head, head + 1, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        // SAFETY: the exchange made this position ours, and its turn to be read has come.
                        let value = slot.value.with_mut(|place| unsafe { (*place).take() });
                        slot.turn.store((head + self.slots.len()) * 2, Ordering::Release);
                        return value;
                    }
                    Err(now) => head = now,
                }
            } else if turn < head * 2 + 1 {
                return None;
            } else {
                thread::yield_now();
                head = self.head.load(Ordering::Relaxed);
            }
        }
    }

    /// In place of the oldest, if there is no room.
    pub(crate) fn force_push(&self, mut value: T) -> Option<T> {
        let mut oldest = None;
        while let Err(back) = self.push(value) {
            value = back;
            oldest = self.pop().or(oldest);
            thread::yield_now();
        }
        oldest
    }

    pub(crate) fn len(&self) -> usize {
        let (tail, head) = (self.tail.load(Ordering::Acquire), self.head.load(Ordering::Acquire));
        tail.saturating_sub(head)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.slots.len()
    }
}
