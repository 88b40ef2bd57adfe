//! The clock of the driver: `CLOCK_BOOTTIME`, which goes on while the machine sleeps (AS-1).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jumpgate_protocol::time::Time;
use nix::time::{ClockId, clock_gettime};

/// Now, for the protocol core. A laptop that slept for an hour is an hour older when it wakes.
pub fn now() -> Time {
    let spec = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every Linux since 2.6.39 has CLOCK_BOOTTIME");
    Time::from_micros(spec.tv_sec() as u64 * 1_000_000 + spec.tv_nsec() as u64 / 1_000)
}

/// Wall-clock milliseconds since 1970, for people's eyes and for the hello counter only.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward() {
        let earlier = now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(now().since(earlier).as_micros() >= 2_000);
    }
}
