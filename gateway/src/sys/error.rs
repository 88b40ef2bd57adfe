//! One error for a refused kernel call.

use nix::errno::Errno;

/// The kernel refused a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {errno}")]
pub struct SysError {
    /// What was asked for.
    pub call: &'static str,
    /// What the kernel answered.
    pub errno: Errno,
}

impl SysError {
    /// The error that the last system call of this thread left behind.
    pub(super) fn last(call: &'static str) -> Self {
        Self { call, errno: Errno::last() }
    }

    /// Tells the outcome of a call that returns a negative number on failure.
    pub(super) fn check(call: &'static str, result: libc::c_int) -> Result<libc::c_int, Self> {
        if result < 0 { Err(Self::last(call)) } else { Ok(result) }
    }
}
