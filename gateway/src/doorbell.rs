//! Waking a thread that sleeps in `poll`, at no cost while it is awake: [`Bell`] over an eventfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::sync::bell::{Bell, Event};
use crate::sync::end::Ring;

/// Wakes one thread.
#[derive(Debug)]
pub struct Doorbell(Bell<EventFd>);

impl Event for EventFd {
    fn signal(&self) {
        // The only way to fail is a full counter, which wakes as well.
        let _ = self.write(1);
    }

    fn clear(&self) {
        while matches!(self.read(), Err(Errno::EINTR)) {}
    }
}

impl Ring for Doorbell {
    fn ring(&self) {
        self.0.ring();
    }
}

impl Doorbell {
    /// A bell whose owner is awake.
    pub fn new() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self(Bell::new(event)))
    }

    /// Wakes the owner if it sleeps. To be called after something was queued for it.
    pub fn ring(&self) {
        self.0.ring();
    }

    /// The owner is about to sleep: from now on, whatever is queued wakes it. It must look at its queues once more
    /// before it polls [`as_fd`](AsFd::as_fd) for input.
    pub fn arm(&self) {
        self.0.arm();
    }

    /// The owner is awake again.
    pub fn disarm(&self) {
        self.0.disarm();
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::Arc;
    use std::thread;

    use crossbeam_queue::ArrayQueue;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::Doorbell;
    use crate::sync::bell::Event as _;

    fn wait(bell: &Doorbell, millis: u16) -> bool {
        let mut fds = [PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(millis)).expect("poll") > 0
    }

    #[test]
    fn a_ring_before_the_sleep_is_announced_costs_no_wake_up() {
        let bell = Doorbell::new().expect("eventfd");
        bell.ring();
        bell.arm();
        assert!(!wait(&bell, 0));
        bell.disarm();
    }

    #[test]
    fn a_ring_during_the_sleep_wakes_once_and_is_cleared() {
        let bell = Doorbell::new().expect("eventfd");
        bell.arm();
        bell.ring();
        bell.ring();
        assert!(wait(&bell, 0));
        bell.disarm();
        bell.arm();
        assert!(!wait(&bell, 0), "the old ring is forgotten");
    }

    #[test]
    fn a_ring_that_comes_late_ends_one_sleep_at_most() {
        let bell = Doorbell::new().expect("eventfd");
        bell.0.event().signal(); // A write that raced with the last disarm.
        bell.arm();
        assert!(wait(&bell, 0));
        bell.disarm();
        bell.arm();
        assert!(!wait(&bell, 0));
    }

    /// If a wake-up could be lost, the sleeper would hang in one of its hundred thousand sleeps and time out.
    #[test]
    fn no_wake_up_is_ever_lost() {
        const ITEMS: u32 = 100_000;
        let bell = Arc::new(Doorbell::new().expect("eventfd"));
        let queue = Arc::new(ArrayQueue::new(4));
        let producer = thread::spawn({
            let (bell, queue) = (bell.clone(), queue.clone());
            move || {
                for item in 0..ITEMS {
                    while queue.push(item).is_err() {
                        thread::yield_now();
                    }
                    bell.ring();
                }
            }
        });
        let mut expected = 0;
        while expected < ITEMS {
            if let Some(item) = queue.pop() {
                assert_eq!(item, expected);
                expected += 1;
                continue;
            }
            bell.arm();
            if queue.is_empty() {
                assert!(wait(&bell, 10_000), "slept through item {expected}");
            }
            bell.disarm();
        }
        producer.join().expect("the producer does not panic");
    }
}
