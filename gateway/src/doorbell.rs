//! Waking a thread that sleeps in `poll`, at no cost while it is awake.
//!
//! The sleeper announces its sleep, looks at its queues once more, and only then sleeps. Whoever queues something for
//! it queues first and looks for the announcement afterwards. Whatever the interleaving, one of the two sees the
//! other: the two sequentially consistent fences forbid that both look before the other has written.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Wakes one thread.
#[derive(Debug)]
pub struct Doorbell {
    sleeping: AtomicBool,
    event: EventFd,
}

impl Doorbell {
    /// A bell whose owner is awake.
    pub fn new() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { sleeping: AtomicBool::new(false), event })
    }

    /// Wakes the owner if it sleeps. To be called after something was queued for it.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            // The only way to fail is a full counter, which wakes as well.
            let _ = self.event.write(1);
        }
    }

    /// The owner is about to sleep: from now on, whatever is queued wakes it. It must look at its queues once more
    /// before it polls [`as_fd`](AsFd::as_fd) for input.
    pub fn arm(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The owner is awake again.
    pub fn disarm(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
        // Read whether or not the bell was heard: a ring that was written late, after the sleep it was meant for, must
        // not end more than one of the following sleeps.
        while matches!(self.event.read(), Err(Errno::EINTR)) {}
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
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
        bell.event.write(1).expect("a write that raced with the last disarm");
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
