//! An inbox that many fill and one empties, which wakes its owner only when enough waits in it.

use super::end::Ring;
use super::primitives::{Arc, ArrayQueue};

/// Things for one owner.
#[derive(Debug)]
pub(crate) struct Inbox<T, B> {
    queue: ArrayQueue<T>,
    bell: Arc<B>,
    wake_at: usize,
}

impl<T, B: Ring> Inbox<T, B> {
    /// An empty inbox with so much room. Its owner is woken once `wake_at` things wait.
    pub(crate) fn new(capacity: usize, wake_at: usize, bell: Arc<B>) -> Self {
        Self { queue: ArrayQueue::new(capacity), bell, wake_at }
    }

    /// Puts something in; gives it back if there is no room.
    pub(crate) fn put(&self, value: T) -> Result<(), T> {
        self.queue.push(value)?;
        if self.queue.len() >= self.wake_at {
            self.bell.ring();
        }
        Ok(())
    }

    /// The next thing, for the owner.
    pub(crate) fn take(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Whether anything waits.
    pub(crate) fn has_mail(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether there was no room a moment ago.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.is_full()
    }
}
