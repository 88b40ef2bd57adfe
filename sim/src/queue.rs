//! What is yet to happen, in the order of time and, at one time, in the order in which it was planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use jumpgate_protocol::time::Time;
use slab::Slab;

/// A queue of events. Heap entries are small; what happens waits beside them.
pub(crate) struct Queue<T> {
    heap: BinaryHeap<Reverse<(Time, u64, u32)>>,
    waiting: Slab<T>,
    planned: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), waiting: Slab::new(), planned: 0 }
    }
}

impl<T> Queue<T> {
    pub(crate) fn plan(&mut self, at: Time, what: T) {
        self.planned += 1;
        let place = self.waiting.insert(what) as u32;
        self.heap.push(Reverse((at, self.planned, place)));
    }

    pub(crate) fn next_at(&self) -> Time {
        self.heap.peek().map_or(Time::NEVER, |Reverse((at, _, _))| *at)
    }

    pub(crate) fn next(&mut self) -> Option<T> {
        self.heap.pop().map(|Reverse((_, _, place))| self.waiting.remove(place as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_as_planned() {
        let mut queue = Queue::default();
        for (at, what) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b')] {
            queue.plan(Time::from_millis(at), what);
        }
        assert_eq!(queue.next_at(), Time::from_millis(1));
        let order: String = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(order, "abcd");
    }
}
