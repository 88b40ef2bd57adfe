//! Waking a thread that sleeps, at no cost while it is awake.
//!
//! The sleeper announces its sleep, looks at its queues once more, and only then sleeps. Whoever queues something for
//! it queues first and looks for the announcement afterwards. Whatever the interleaving, one of the two sees the
//! other: the two sequentially consistent fences forbid that both look before the other has written.
//!
//! Every write of the announcement is a read-modify-write. So the writes form one chain, and who swaps takes the newest:
//! that needs no reasoning about stores of several threads, which loom cannot do either. Who is awake pays for none.

use super::primitives::{AtomicBool, Ordering, fence};

/// What ends a sleep: it stays signalled until it is cleared.
pub(crate) trait Event {
    /// Ends the owner's sleep, or its next one.
    fn signal(&self);

    /// Forgets all signals.
    fn clear(&self);
}

/// Wakes one thread by an event that it sleeps on.
#[derive(Debug)]
pub(crate) struct Bell<E> {
    sleeping: AtomicBool,
    event: E,
}

impl<E: Event> Bell<E> {
    /// A bell whose owner is awake.
    pub(crate) fn new(event: E) -> Self {
        Self { sleeping: AtomicBool::new(false), event }
    }

    /// What the owner sleeps on.
    pub(crate) fn event(&self) -> &E {
        &self.event
    }

    /// Wakes the owner if it sleeps. To be called after something was queued for it.
    pub(crate) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            self.event.signal();
        }
    }

    /// The owner is about to sleep: from now on, whatever is queued wakes it. It must look at its queues once more
    /// before it sleeps.
    pub(crate) fn arm(&self) {
        self.sleeping.swap(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The owner is awake again.
    pub(crate) fn disarm(&self) {
        self.sleeping.swap(false, Ordering::Relaxed);
        // Cleared whether or not the bell was heard: a signal that came late, after the sleep it was meant for, must
        // not end more than one of the following sleeps.
        self.event.clear();
    }
}
