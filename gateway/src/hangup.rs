//! SIGHUP in the first instants of the program, when nobody listens for it yet.

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

/// Keeps a SIGHUP waiting until it is dropped. One that came meanwhile comes then: to whoever listens, or to end the
/// program.
///
/// It is blocked, not ignored: none is lost, and one that is ignored from the start, as by nohup, stays so. Threads and
/// processes that are started meanwhile would inherit it.
#[derive(Debug)]
#[must_use = "dropped, it holds nothing back"]
pub struct HeldHangup {
    /// The signals that were blocked before; none if the kernel refused, which it never does.
    before: Option<SigSet>,
}

impl HeldHangup {
    /// Begins to hold it back. To be called on the only thread.
    pub fn hold() -> Self {
        Self { before: SigSet::from(Signal::SIGHUP).thread_swap_mask(SigmaskHow::SIG_BLOCK).ok() }
    }
}

impl Drop for HeldHangup {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Fails only for a set that is none.
            let _ = before.thread_set_mask();
        }
    }
}
