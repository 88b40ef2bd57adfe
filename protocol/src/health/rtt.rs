//! The smoothed round trip of a path, and the times that follow from it.

use crate::policy::Policy;
use crate::stored::stored;
use crate::time::Span;

/// Shortest retransmission timeout (HS-6).
const RTO_MIN: Span = Span::from_millis(50);
/// Longest retransmission timeout (HS-6).
const RTO_MAX: Span = Span::from_millis(1_000);
/// Retransmission timeout while the round trip of the path is unknown (HS-6).
pub(crate) const RTO_UNKNOWN: Span = Span::from_millis(250);

/// Smoothed round trip time with the weight of RFC 6298 §2: each sample counts 1/8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rtt {
    smoothed: Option<Span>,
}

stored! { Rtt { smoothed } }

impl Rtt {
    /// Takes one sample.
    pub fn sample(&mut self, sample: Span) {
        let sample = sample.as_micros();
        let smoothed = self.smoothed.map_or(sample, |old| (7 * old.as_micros() + sample) / 8);
        self.smoothed = Some(Span::from_micros(smoothed));
    }

    /// The smoothed value, if there was a sample.
    pub const fn smoothed(&self) -> Option<Span> {
        self.smoothed
    }

    /// The retransmission timeout (HS-6): twice the smoothed round trip, bounded.
    pub fn rto(&self) -> Span {
        self.smoothed.map_or(RTO_UNKNOWN, |rtt| rtt.times(2).clamp(RTO_MIN, RTO_MAX))
    }

    /// How long a packet or an answer may be under way before it counts as lost (SM-14): twice the round trip, and not
    /// less than `heartbeat_interval_ms`. A path that begins to reorder does so before its round trip is known to have
    /// grown.
    pub fn patience(&self, policy: &Policy) -> Span {
        policy.volatility.heartbeat_interval.max(self.smoothed.map_or(Span::ZERO, |rtt| rtt.times(2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Profile;

    #[test]
    fn the_first_sample_sets_the_round_trip_and_later_ones_move_it_by_an_eighth() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.rto(), RTO_UNKNOWN);
        rtt.sample(Span::from_millis(80));
        assert_eq!(rtt.smoothed(), Some(Span::from_millis(80)));
        assert_eq!(rtt.rto(), Span::from_millis(160));
        rtt.sample(Span::from_millis(160));
        assert_eq!(rtt.smoothed(), Some(Span::from_millis(90)));
    }

    #[test]
    fn hs6_the_timeout_is_bounded_and_patience_only_from_below() {
        let policy = Policy::profile(Profile::Default);
        let mut rtt = Rtt::default();
        rtt.sample(Span::from_millis(2));
        assert_eq!((rtt.rto(), rtt.patience(&policy)), (RTO_MIN, Span::from_millis(500)));
        rtt = Rtt::default();
        rtt.sample(Span::from_millis(900));
        assert_eq!((rtt.rto(), rtt.patience(&policy)), (RTO_MAX, Span::from_millis(1_800)));
    }
}
