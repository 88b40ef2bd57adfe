//! Network namespaces for tests: each test thread makes its own, without a name, and they go with the thread.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sched::{CloneFlags, unshare};

/// A network namespace that a test made.
pub(super) struct Namespace(File);

impl Namespace {
    /// Puts the calling thread into a new namespace. `None`, and a line that says so, if this user may not.
    pub(super) fn new() -> Option<Self> {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("SKIPPED: a network namespace of the test's own needs root: {error}");
            return None;
        }
        Some(Self(File::open("/proc/thread-self/ns/net").expect("own namespace")))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
