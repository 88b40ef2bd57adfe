//! A client's clock: it shows another time than the gateway's and runs a little faster or slower (AS-1).

use jumpgate_protocol::time::{Span, Time};

/// Parts in a million.
const MILLION: i128 = 1_000_000;

/// A monotonic clock with an offset and a rate of its own.
#[derive(Clone, Copy, Debug)]
pub struct LocalClock {
    /// When the world's clock showed `base_world`, this one showed `base_local`.
    base_world: Time,
    base_local: Time,
    /// How much faster it runs, in parts per million; quartz is within 100, a bad one within 500.
    ppm: i32,
}

impl LocalClock {
    /// A clock that agrees with the world.
    pub const fn true_time() -> Self {
        Self { base_world: Time::ZERO, base_local: Time::ZERO, ppm: 0 }
    }

    /// What it shows.
    pub fn at(&self, world: Time) -> Time {
        let passed = i128::from(world.since(self.base_world).as_micros());
        let shown = passed + passed * i128::from(self.ppm) / MILLION;
        self.base_local + Span::from_micros(u64::try_from(shown).unwrap_or(0))
    }

    /// When it will show `local`, seen from `world`: never too early.
    pub fn until(&self, local: Time, world: Time) -> Time {
        if local == Time::NEVER {
            return Time::NEVER;
        }
        let left = i128::from(local.since(self.at(world)).as_micros());
        let span = left * MILLION / (MILLION + i128::from(self.ppm));
        let mut at = world + Span::from_micros(u64::try_from(span).unwrap_or(0));
        while self.at(at) < local {
            at += Span::from_micros(1);
        }
        at
    }

    /// From `world` on it runs at that rate.
    #[must_use]
    pub fn at_rate(self, ppm: i32, world: Time) -> Self {
        Self { base_world: world, base_local: self.at(world), ppm }
    }

    /// It jumps ahead; against AS-1, unless nobody looked at it yet.
    #[must_use]
    pub fn ahead_by(self, span: Span) -> Self {
        Self { base_local: self.base_local + span, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_by_a_skewed_clock_is_never_early_and_not_late() {
        for ppm in [-500, -1, 0, 1, 37, 500] {
            let clock = LocalClock::true_time().ahead_by(Span::from_millis(77)).at_rate(ppm, Time::from_millis(5));
            let world = Time::from_millis(123_456);
            for ahead in [1, 999, 1_000_000, 3_600_000_000] {
                let due = clock.at(world) + Span::from_micros(ahead);
                let at = clock.until(due, world);
                assert!(clock.at(at) >= due);
                assert!(clock.at(at).since(due) <= Span::from_micros(2), "{ppm} {ahead}");
            }
        }
    }
}
