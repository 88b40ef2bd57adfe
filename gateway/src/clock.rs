//! The clock that the protocol core is driven by.

use jumpgate_protocol::time::Time;
use nix::time::{ClockId, clock_gettime};

/// Nanoseconds for measuring what something costs; the zero means nothing. No system call where the kernel has a vDSO.
pub fn nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every kernel has CLOCK_MONOTONIC");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Now, on a monotonic clock that also counts suspended time (AS-1).
pub fn now() -> Time {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every supported kernel has CLOCK_BOOTTIME");
    // Neither field is negative: the clock starts at zero with the machine.
    Time::from_micros(now.tv_sec() as u64 * 1_000_000 + now.tv_nsec() as u64 / 1_000)
}
