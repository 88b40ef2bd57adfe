//! Health of the active path: when the peer was last heard, how long a round trip takes, how many heartbeats in a row
//! went unanswered, how much was lost (SM-13, SM-14). Measures only; the machine decides.

use arrayvec::ArrayVec;

use crate::machine::{Evidence, Input};
use crate::policy::Policy;
use crate::reason::Reason;
use crate::time::{Span, Time};

/// Shortest retransmission timeout (HS-6).
const RTO_MIN: Span = Span::from_millis(50);
/// Longest retransmission timeout (HS-6).
const RTO_MAX: Span = Span::from_millis(1_000);
/// Retransmission timeout while the round trip of the path is unknown (HS-6).
pub(crate) const RTO_UNKNOWN: Span = Span::from_millis(250);

/// Smoothed round trip time with the weights of RFC 6298 §2: 1/8 for the mean, 1/4 for the deviation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rtt {
    smoothed: Option<Span>,
    deviation: Span,
}

impl Rtt {
    /// Takes one sample.
    pub fn sample(&mut self, sample: Span) {
        let (sample, old) = (sample.as_micros(), self.smoothed.map(Span::as_micros));
        let Some(old) = old else {
            self.smoothed = Some(Span::from_micros(sample));
            self.deviation = Span::from_micros(sample / 2);
            return;
        };
        let deviation = (3 * self.deviation.as_micros() + old.abs_diff(sample)) / 4;
        self.deviation = Span::from_micros(deviation);
        self.smoothed = Some(Span::from_micros((7 * old + sample) / 8));
    }

    /// The smoothed value, if there was a sample.
    pub const fn smoothed(&self) -> Option<Span> {
        self.smoothed
    }

    /// The mean deviation: the jitter of the path.
    pub const fn deviation(&self) -> Span {
        self.deviation
    }

    /// The retransmission timeout (HS-6): twice the smoothed round trip, bounded.
    pub fn rto(&self) -> Span {
        self.smoothed.map_or(RTO_UNKNOWN, |rtt| rtt.times(2).clamp(RTO_MIN, RTO_MAX))
    }
}

/// Heartbeats that can be unanswered at once and are still watched; the range of PP25 ends at 20.
const WATCHED_HEARTBEATS: usize = 24;

/// A heartbeat that was not answered yet.
#[derive(Clone, Copy, Debug)]
struct Beat {
    counter: u64,
    sent: Time,
    /// It counts as lost; a late answer still tells the round trip.
    lost: bool,
}

/// What is known of the path of the active binding. Made anew at each commit (AF-3), so that nothing measured on an
/// older generation is ever held against a newer one (SM-10).
#[derive(Clone, Debug)]
pub struct PathHealth {
    generation: u64,
    last_authentic: Time,
    last_trouble: Time,
    /// Some signal was out of bounds when the path was judged last.
    troubled: bool,
    unbound: bool,
    outstanding: ArrayVec<Beat, WATCHED_HEARTBEATS>,
    lost_in_row: u32,
}

impl PathHealth {
    /// A path whose binding of that generation was made at `now`.
    pub fn new(generation: u64, now: Time) -> Self {
        Self {
            generation,
            last_authentic: now,
            last_trouble: now,
            troubled: false,
            unbound: false,
            outstanding: ArrayVec::new(),
            lost_in_row: 0,
        }
    }

    /// An authenticated packet came from the active tuple (BD-3).
    pub fn heard(&mut self, now: Time) {
        self.last_authentic = now;
        self.unbound = false;
        self.end_of_trouble(now);
    }

    /// Calm begins where trouble ends, not where it was seen last (T07).
    fn end_of_trouble(&mut self, now: Time) {
        if self.troubled {
            self.last_trouble = now;
        }
    }

    /// How long every signal has been in bounds, as the path was judged last.
    pub fn calm_for(&self, now: Time) -> Span {
        if self.troubled { Span::ZERO } else { now.since(self.last_trouble) }
    }

    /// When an authenticated packet last came from the active tuple.
    pub const fn last_authentic(&self) -> Time {
        self.last_authentic
    }

    /// Client: a heartbeat with that counter was sent.
    pub fn heartbeat_sent(&mut self, counter: u64, now: Time) {
        if self.outstanding.is_full() {
            let oldest = self.outstanding.remove(0);
            self.lost_in_row += u32::from(!oldest.lost);
        }
        self.outstanding.push(Beat { counter, sent: now, lost: false });
    }

    /// Client: it was answered, late perhaps; gives the round trip. The run of losses ends. An answer that came too late
    /// is the only way to learn that the round trip is longer than the patience.
    pub fn heartbeat_answered(&mut self, counter: u64, now: Time) -> Option<Span> {
        let index = self.outstanding.iter().position(|beat| beat.counter == counter)?;
        let beat = self.outstanding.remove(index);
        self.lost_in_row = 0;
        self.end_of_trouble(now);
        Some(now.since(beat.sent))
    }

    /// Client: the gateway answered that this tuple is not bound (BD-4); counts as HEARTBEAT_TIMEOUT (SM-14).
    pub fn told_unbound(&mut self) {
        self.unbound = true;
    }

    /// Whether the gateway said so since anything else authentic came.
    pub const fn is_unbound(&self) -> bool {
        self.unbound
    }

    /// Heartbeats lost in a row.
    pub const fn lost_in_row(&self) -> u32 {
        self.lost_in_row
    }

    /// Judges the path at `now` (SM-13 a, SM-14 hard signals; measured values trip when greater, counters at >=).
    pub fn judge(&mut self, policy: &Policy, rtt: &Rtt, now: Time) -> ArrayVec<Input, 3> {
        self.age_heartbeats(policy, rtt, now);
        let generation = self.generation;
        let mut inputs = ArrayVec::new();
        let silence = now.since(self.last_authentic);
        if silence >= policy.volatility.transport_dead {
            inputs.push(Input::TransportDead { generation, evidence: Evidence::Silence });
        }
        let trouble = if self.unbound || silence > policy.volatility.heartbeat_volatile {
            Some(Reason::HeartbeatTimeout)
        } else if self.lost_in_row >= policy.volatility.max_consecutive_drops {
            Some(Reason::ConsecutiveDropExceeded)
        } else {
            None
        };
        self.troubled = trouble.is_some();
        match trouble {
            Some(reason) => {
                self.last_trouble = now;
                inputs.push(Input::Instability { generation, reason });
            }
            None => inputs.push(Input::StabilityRestored { generation, calm_since: self.last_trouble }),
        }
        inputs
    }

    /// When [`PathHealth::judge`] could next give something new, if nothing is heard until then.
    pub fn next_check(&self, policy: &Policy, rtt: &Rtt, now: Time) -> Time {
        // Measured values trip when greater than the bound: one microsecond behind it.
        let volatile = self.last_authentic + policy.volatility.heartbeat_volatile + Span::from_micros(1);
        let dead = self.last_authentic + policy.volatility.transport_dead;
        let calm = self.last_trouble + policy.volatility.stability_window;
        let patience = heartbeat_patience(policy, rtt);
        let lost = self.outstanding.iter().find(|beat| !beat.lost).map(|beat| beat.sent + patience);
        [Some(volatile), Some(dead), Some(calm), lost]
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .min()
            .unwrap_or(Time::NEVER)
    }

    /// Heartbeats unanswered for too long are lost.
    fn age_heartbeats(&mut self, policy: &Policy, rtt: &Rtt, now: Time) {
        let patience = heartbeat_patience(policy, rtt);
        for beat in self.outstanding.iter_mut().filter(|beat| !beat.lost && now.since(beat.sent) >= patience) {
            beat.lost = true;
            self.lost_in_row += 1;
        }
    }
}

/// How long a heartbeat may stay unanswered before it is lost (SM-14).
fn heartbeat_patience(policy: &Policy, rtt: &Rtt) -> Span {
    policy.volatility.heartbeat_interval.max(rtt.smoothed().map_or(Span::ZERO, |rtt| rtt.times(2)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Profile;

    fn ms(millis: u64) -> Time {
        Time::from_millis(millis)
    }

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
    fn silence_trips_when_greater_than_the_bound_and_death_at_it() {
        let policy = Policy::profile(Profile::Default);
        let mut health = PathHealth::new(3, ms(0));
        let rtt = Rtt::default();
        assert!(matches!(health.judge(&policy, &rtt, ms(2_000))[..], [Input::StabilityRestored { .. }]));
        let inputs = health.judge(&policy, &rtt, ms(2_001));
        assert_eq!(inputs[..], [Input::Instability { generation: 3, reason: Reason::HeartbeatTimeout }]);
        let inputs = health.judge(&policy, &rtt, ms(3_000));
        assert!(matches!(inputs[0], Input::TransportDead { generation: 3, evidence: Evidence::Silence }));
    }

    #[test]
    fn t07_calm_begins_where_trouble_ended_and_not_where_it_was_seen_last() {
        let policy = Policy::profile(Profile::Default);
        let rtt = Rtt::default();
        let mut health = PathHealth::new(1, ms(0));
        health.judge(&policy, &rtt, ms(2_001));
        health.heard(ms(2_900));
        let inputs = health.judge(&policy, &rtt, ms(2_950));
        assert_eq!(inputs[..], [Input::StabilityRestored { generation: 1, calm_since: ms(2_900) }]);
        health.heard(ms(3_500));
        assert_eq!(health.calm_for(ms(4_900)), Span::from_millis(2_000));
        health.judge(&policy, &rtt, ms(5_501));
        assert_eq!(health.calm_for(ms(5_501)), Span::ZERO);
    }

    #[test]
    fn an_answer_that_came_too_late_ends_the_run_and_tells_the_round_trip() {
        let policy = Policy::profile(Profile::Default);
        let mut health = PathHealth::new(1, ms(0));
        health.heartbeat_sent(1, ms(0));
        health.judge(&policy, &Rtt::default(), ms(700));
        assert_eq!(health.lost_in_row(), 1);
        assert_eq!(health.heartbeat_answered(1, ms(800)), Some(Span::from_millis(800)));
        assert_eq!(health.heartbeat_answered(1, ms(801)), None, "lane R: once");
        assert_eq!(health.lost_in_row(), 0);
    }

    #[test]
    fn consecutive_lost_heartbeats_trip_at_the_count_and_an_answer_ends_the_run() {
        let policy = Policy::profile(Profile::Default);
        let rtt = Rtt::default();
        let mut health = PathHealth::new(1, ms(0));
        for n in 0..2 {
            health.heartbeat_sent(n, ms(100 * n));
            health.heard(ms(1_000));
        }
        health.judge(&policy, &rtt, ms(1_000));
        assert_eq!(health.lost_in_row(), 2);
        health.heartbeat_sent(2, ms(1_000));
        assert_eq!(health.heartbeat_answered(2, ms(1_040)), Some(Span::from_millis(40)));
        assert_eq!(health.lost_in_row(), 0);
        for n in 3..6 {
            health.heartbeat_sent(n, ms(1_100));
        }
        health.heard(ms(1_700));
        let inputs = health.judge(&policy, &rtt, ms(1_700));
        assert_eq!(inputs[..], [Input::Instability { generation: 1, reason: Reason::ConsecutiveDropExceeded }]);
    }
}
