//! Age of control messages by session time (AR-5): no clock of one end is ever compared with a clock of the other, only
//! the drift of their difference.

use crate::reason::Reason;
use crate::stored::stored;
use crate::time::{Span, Time};

/// The smallest difference is kept over this long.
const HALF_WINDOW: Span = Span::from_millis(30_000);
/// A message from further in the future than that is refused.
const FUTURE_TOLERANCE_MS: i64 = 1_000;

/// The smallest difference between our session time and the client's seen in the last 60 s, in two halves.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockOffset {
    started: Time,
    current: i64,
    previous: i64,
}

stored! { ClockOffset { started, current, previous } }

impl ClockOffset {
    /// The difference of the first authentic message.
    pub(super) fn new(difference_ms: i64, now: Time) -> Self {
        Self { started: now, current: difference_ms, previous: difference_ms }
    }

    /// Takes the difference of one more authentic message.
    pub(super) fn sample(&mut self, difference_ms: i64, now: Time) {
        let elapsed = now.since(self.started);
        if elapsed >= HALF_WINDOW {
            // After a long silence both halves are old; what they say is still better than nothing, until now.
            self.previous = if elapsed >= HALF_WINDOW.times(2) { difference_ms } else { self.current };
            self.current = difference_ms;
            self.started = now;
        }
        self.current = self.current.min(difference_ms);
    }

    /// Judges a message that shows that difference.
    pub(super) fn judge(&self, difference_ms: i64, max_age: Span) -> Result<(), Reason> {
        let age = difference_ms.saturating_sub(self.current.min(self.previous));
        let oldest = i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX);
        if age > oldest || age < -FUTURE_TOLERANCE_MS { Err(Reason::FreshnessInvalid) } else { Ok(()) }
    }
}

/// Our session time minus the client's, in milliseconds, saturating on hostile values.
pub(super) fn difference_ms(own_ms: u64, client_ms: u64) -> i64 {
    let own = i64::try_from(own_ms).unwrap_or(i64::MAX);
    own.saturating_sub(i64::try_from(client_ms).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_AGE: Span = Span::from_millis(5_000);

    #[test]
    fn a33_a_message_held_back_beyond_the_age_limit_is_not_fresh() {
        let offset = ClockOffset::new(20, Time::ZERO);
        assert_eq!(offset.judge(20 + 5_000, MAX_AGE), Ok(()));
        assert_eq!(offset.judge(20 + 5_001, MAX_AGE), Err(Reason::FreshnessInvalid));
    }

    #[test]
    fn a_message_from_the_future_is_refused_beyond_one_second() {
        let offset = ClockOffset::new(20, Time::ZERO);
        assert_eq!(offset.judge(20 - 1_000, MAX_AGE), Ok(()));
        assert_eq!(offset.judge(20 - 1_001, MAX_AGE), Err(Reason::FreshnessInvalid));
    }

    #[test]
    fn slow_drift_is_followed_over_the_window() {
        let mut offset = ClockOffset::new(0, Time::ZERO);
        for minute in 0..600u64 {
            // One millisecond a minute: beyond the limit in absolute terms after an age, never within a window.
            offset.sample(minute as i64, Time::from_millis(minute * 60_000));
        }
        assert_eq!(offset.judge(600, Span::from_millis(1_000)), Ok(()));
    }

    #[test]
    fn hostile_times_do_not_overflow() {
        assert_eq!(difference_ms(0, u64::MAX), -i64::MAX);
        let offset = ClockOffset::new(i64::MIN, Time::ZERO);
        assert_eq!(offset.judge(i64::MAX, MAX_AGE), Err(Reason::FreshnessInvalid));
    }
}
