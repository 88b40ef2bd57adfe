//! A bounded queue of the interface of crossbeam's, over loom's atomics.
//!
//! The algorithm is Vyukov's, as crossbeam's is. Its orderings are no stronger than what a hand-over needs (release by
//! who writes a slot, acquire by who reads it), so that nothing above it can lean on an accident of the real one.

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

#[derive(Debug)]
struct Slot<T> {
    /// Position at which the slot may be written; one more once it may be read.
    turn: AtomicUsize,
    /// Held by nobody but the one thread whose turn it is: who finds it held has found a defect. It orders no more than
    /// `turn` does, which the same two threads hand each other around it.
    value: Mutex<Option<T>>,
}

#[derive(Debug)]
pub(crate) struct ArrayQueue<T> {
    head: AtomicUsize,
    tail: AtomicUsize,
    slots: Vec<Slot<T>>,
}

impl<T> ArrayQueue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        // Positions count in steps of two laps, so that "to be written" and "to be read" differ with one slot as well.
        let slot = |index| Slot { turn: AtomicUsize::new(index * 2), value: Mutex::new(None) };
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
                        *slot.value.try_lock().expect("the exchange made this position ours to write") = Some(value);
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
                        let value = slot.value.try_lock().expect("the exchange made this position ours to read").take();
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
