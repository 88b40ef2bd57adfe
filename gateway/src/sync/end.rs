//! Two threads that talk: a bounded queue each way, and the bell of the other side.

use super::primitives::{Arc, ArrayQueue};

/// What can be rung.
pub(crate) trait Ring {
    /// Wakes the owner if it sleeps.
    fn ring(&self);
}

/// One side's end: it sends `Out`, receives `In`, and wakes the other side by `B`.
pub(crate) struct End<Out, In, B> {
    outgoing: Arc<ArrayQueue<Out>>,
    incoming: Arc<ArrayQueue<In>>,
    other: Arc<B>,
}

/// Both ends. Each is given the bell that wakes the other side, and the room of the queue to it.
pub(crate) fn pair<A, B, L: Ring, R: Ring>(
    (to_right, wakes_right): (usize, Arc<R>),
    (to_left, wakes_left): (usize, Arc<L>),
) -> (End<A, B, R>, End<B, A, L>) {
    let (right, left) = (Arc::new(ArrayQueue::new(to_right)), Arc::new(ArrayQueue::new(to_left)));
    (
        End { outgoing: right.clone(), incoming: left.clone(), other: wakes_right },
        End { outgoing: left, incoming: right, other: wakes_left },
    )
}

impl<Out, In, B: Ring> End<Out, In, B> {
    /// Queues for the other side; gives it back if there is no room. [`ring`](Self::ring) follows.
    pub(crate) fn push(&self, value: Out) -> Result<(), Out> {
        self.outgoing.push(value)
    }

    /// Queues for the other side and wakes it. In a full queue it takes the place of the oldest: for what makes all
    /// before it pointless.
    pub(crate) fn last_word(&self, value: Out) {
        self.outgoing.force_push(value);
        self.ring();
    }

    /// The next thing from the other side.
    pub(crate) fn pop(&self) -> Option<In> {
        self.incoming.pop()
    }

    /// Whether something from the other side waits.
    pub(crate) fn has_mail(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// Whether there is room. Only this end adds to its queue, so the room does not go away.
    pub(crate) fn has_room(&self) -> bool {
        !self.outgoing.is_full()
    }

    /// Whether the other end is gone: nobody takes what is queued.
    pub(crate) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.outgoing) == 1
    }

    /// Wakes the other side for what was queued.
    pub(crate) fn ring(&self) {
        self.other.ring();
    }
}
