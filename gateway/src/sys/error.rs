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
    /// Names the call that an error belongs to.
    pub(super) fn io<E: Into<std::io::Error>>(call: &'static str) -> impl Fn(E) -> Self {
        move |error| Self { call, errno: Errno::from_raw(error.into().raw_os_error().unwrap_or(0)) }
    }
}
