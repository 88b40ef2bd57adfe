//! Descriptors in tokio's event loop.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Tells when a descriptor can be read. It is duplicated, so its owner may do with its own what it likes; both are the
/// same open file. Needs a tokio runtime.
pub fn readable(descriptor: impl AsFd) -> io::Result<AsyncFd<OwnedFd>> {
    let own = descriptor.as_fd().try_clone_to_owned()?;
    // SAFETY: an `OwnedFd` is open for as long as it lives, always returns the same number, and is neither replaced nor
    // closed while the `AsyncFd` owns it.
    unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }.map_err(Into::into)
}
