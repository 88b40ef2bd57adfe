//! The clock that the protocol core is driven by.

use jumpgate_protocol::time::Time;
use nix::time::{ClockId, clock_gettime};

/// Now, on a monotonic clock that also counts suspended time (AS-1).
pub fn now() -> Time {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every supported kernel has CLOCK_BOOTTIME");
    // Neither field is negative: the clock starts at zero with the machine.
    Time::from_micros(now.tv_sec() as u64 * 1_000_000 + now.tv_nsec() as u64 / 1_000)
}
