//! The workers as the slow path sees them: who owns a slot, and how to tell them something.

use std::collections::VecDeque;

use jumpgate_protocol::gateway::{Birth, Shard};
use jumpgate_protocol::ident::Slot;

use crate::handover::{Command, SlowEnd};

/// The worker that owns a slot (SL-3). Neighbouring slots go to different workers, so that a table that is only partly
/// in use still loads all of them.
pub fn worker_of(slot: Slot, workers: usize) -> usize {
    usize::from(slot.number()) % workers
}

/// Command queues of all workers.
pub struct Owners {
    ends: Vec<SlowEnd<Shard>>,
    /// What did not fit into a worker's queue and must not be lost, in order. Its length is bounded by what fills it:
    /// births by the limits of the handshake desk, next hops by their table, the rest by operators' patience.
    waiting: Vec<VecDeque<Command<Birth>>>,
}

impl Owners {
    /// The ends that the workers were linked to, in the order of their numbers.
    pub fn new(ends: Vec<SlowEnd<Shard>>) -> Self {
        Self { waiting: ends.iter().map(|_| VecDeque::new()).collect(), ends }
    }

    /// How many workers there are.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// The worker that owns a slot.
    pub fn of(&self, slot: Slot) -> usize {
        worker_of(slot, self.ends.len())
    }

    /// Tells a worker something that must not be lost.
    pub fn tell(&mut self, worker: usize, command: Command<Birth>) {
        self.waiting[worker].push_back(command);
        if self.waiting[worker].len() == 1 {
            self.flush();
        }
    }

    /// Tells every worker.
    pub fn tell_all(&mut self, command: impl Fn() -> Command<Birth>) {
        for worker in 0..self.ends.len() {
            self.tell(worker, command());
        }
    }

    /// Hands a worker something that its sender will send again if it is lost; false if the queue is full. It never
    /// overtakes what waits: a birth comes before what its session says.
    pub fn offer(&mut self, worker: usize, command: Command<Birth>) -> bool {
        self.waiting[worker].is_empty() && self.ends[worker].send(command).is_ok()
    }

    /// Tries again what waits; true if something still does.
    pub fn flush(&mut self) -> bool {
        for (end, waiting) in self.ends.iter_mut().zip(&mut self.waiting) {
            while let Some(command) = waiting.pop_front() {
                if let Err(command) = end.send(command) {
                    waiting.push_front(command);
                    break;
                }
            }
        }
        self.has_backlog()
    }

    /// Whether something waits for room in a worker's queue.
    pub fn has_backlog(&self) -> bool {
        self.waiting.iter().any(|waiting| !waiting.is_empty())
    }

    /// Takes the next report of a worker.
    pub fn receive(&mut self, worker: usize) -> Option<super::WorkerReport> {
        self.ends[worker].receive()
    }
}

#[cfg(test)]
mod tests {
    use jumpgate_protocol::ident::SLOT_COUNT;

    use super::*;

    #[test]
    fn every_slot_has_an_owner_and_all_workers_own_about_as_many() {
        for workers in 1..=7 {
            let mut owned = vec![0; workers];
            for number in 0..SLOT_COUNT as u16 {
                owned[worker_of(Slot::new(number).expect("slot"), workers)] += 1;
            }
            assert_eq!(owned.iter().sum::<usize>(), SLOT_COUNT);
            assert!(owned.iter().max().expect("some") - owned.iter().min().expect("some") <= 1);
        }
    }
}
