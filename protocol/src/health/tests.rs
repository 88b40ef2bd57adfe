//! The signals of SM-14 against their bounds, each at its edge.

use super::*;
use crate::policy::Profile;

const WINDOW_BITS: usize = 8_192;

fn ms(millis: u64) -> Time {
    Time::from_millis(millis)
}

/// The client's end of one path: what it sent, received and asked.
struct End {
    policy: Policy,
    health: PathHealth,
    window: ReplayWindow,
    echoes: Echoes,
    own_sent: u64,
}

impl End {
    fn new(policy: Policy) -> Self {
        let health = PathHealth::new(3, ms(0));
        Self { policy, health, window: ReplayWindow::new(WINDOW_BITS), echoes: Echoes::default(), own_sent: 0 }
    }

    fn of(profile: Profile) -> Self {
        Self::new(Policy::profile(profile))
    }

    fn judge(&mut self, now: Time) -> ArrayVec<Input, 3> {
        self.echoes.age(&self.policy, now);
        let counters = Counters { window: &self.window, key_epoch: 0, own_sent: self.own_sent };
        self.health.judge(&self.policy, &counters, RoundTrips::Client(&self.echoes), now)
    }

    fn signal(&mut self, now: Time) -> Option<Reason> {
        self.judge(now).iter().find_map(|input| match input {
            Input::Instability { reason, generation: 3 } => Some(*reason),
            _ => None,
        })
    }

    fn reported(&mut self, sent: u64, (highest, received): (u64, u64), now: Time) {
        let counters = Counters { window: &self.window, key_epoch: 0, own_sent: self.own_sent };
        let report = Report { key_epoch: 0, sent, received, highest };
        self.health.heard(now);
        self.health.reported(3, &report, &counters, &self.policy, now);
    }

    fn take(&mut self, counter: u64, now: Time) {
        self.window.mark(counter);
        self.health.delivered(now);
    }

    /// `per_second` packets a second come from the peer but for each `lost_of` th, and a report each 100 ms, for that
    /// long; gives the first signal and when it was seen.
    fn run(&mut self, per_second: u64, lost_of: u64, millis: std::ops::Range<u64>) -> Option<(u64, Reason)> {
        for now in millis.step_by(100) {
            let (from, to) = (now * per_second / 1_000, (now + 100) * per_second / 1_000);
            for counter in from + 1..=to {
                if lost_of == 0 || counter % lost_of != 0 {
                    self.take(counter, ms(now));
                }
            }
            self.echoes.measured(Span::from_millis(20), ms(now));
            self.reported(to, (0, 0), ms(now));
            if let Some(signal) = self.signal(ms(now)) {
                return Some((now, signal));
            }
        }
        None
    }
}

#[test]
fn silence_trips_when_greater_than_the_bound_and_death_at_it() {
    let mut end = End::of(Profile::Default);
    assert!(matches!(end.judge(ms(2_000))[..], [Input::StabilityRestored { .. }]));
    let inputs = end.judge(ms(2_001));
    assert_eq!(inputs[..], [Input::Instability { generation: 3, reason: Reason::HeartbeatTimeout }]);
    let inputs = end.judge(ms(3_000));
    assert!(matches!(inputs[0], Input::TransportDead { generation: 3, evidence: Evidence::Silence }));
}

#[test]
fn t07_calm_begins_where_trouble_ended_and_not_where_it_was_seen_last() {
    let mut end = End::of(Profile::Default);
    end.judge(ms(2_001));
    end.health.heard(ms(2_900));
    let inputs = end.judge(ms(2_950));
    assert_eq!(inputs[..], [Input::StabilityRestored { generation: 3, calm_since: ms(2_900) }]);
    end.health.heard(ms(3_500));
    assert_eq!(end.health.calm_for(ms(4_900)), Span::from_millis(2_000));
    end.judge(ms(5_501));
    assert_eq!(end.health.calm_for(ms(5_501)), Span::ZERO);
}

#[test]
fn consecutive_lost_heartbeats_trip_at_the_count_and_an_answer_ends_the_run() {
    let mut end = End::of(Profile::Default);
    for n in 0..2 {
        end.echoes.asked(n, ms(100 * n));
    }
    end.health.heard(ms(1_000));
    assert_eq!(end.signal(ms(1_000)), None);
    assert_eq!(end.echoes.lost_in_row(), 2);
    end.echoes.asked(2, ms(1_000));
    assert_eq!(end.echoes.answered(2, ms(1_040)), Some(Span::from_millis(40)));
    for n in 3..6 {
        end.echoes.asked(n, ms(1_100));
    }
    end.health.heard(ms(1_700));
    assert_eq!(end.signal(ms(1_700)), Some(Reason::ConsecutiveDropExceeded));
}

#[test]
fn loss_trips_beyond_its_threshold_once_the_window_is_full() {
    // One of four: 250 permille, above the 200 of `default`.
    let (at, signal) = End::of(Profile::Default).run(100, 4, 0..10_000).unwrap();
    assert_eq!(signal, Reason::LossThresholdExceeded);
    assert!((2_000..2_600).contains(&at), "{at}");
    // One of five is the threshold itself; trips when greater (SM-07).
    assert_eq!(End::of(Profile::Default).run(100, 5, 0..10_000), None);
    assert_eq!(End::of(Profile::Mobile).run(100, 5, 0..10_000).unwrap().1, Reason::LossThresholdExceeded);
}

#[test]
fn tc10_two_lost_packets_are_chance_and_three_are_not() {
    for (lost, signal) in [(2, None), (3, Some(Reason::LossThresholdExceeded))] {
        let mut end = End::of(Profile::Mobile);
        // Ten packets in the window: each loss alone is twice the threshold of 50 permille.
        let (mut counter, mut found) = (0, None);
        for now in (0..4_000).step_by(100) {
            if (2_000..3_000).contains(&now) {
                counter += 1;
                if counter > lost {
                    end.take(counter, ms(now));
                }
            }
            end.reported(counter, (0, 0), ms(now));
            found = found.or(end.signal(ms(now)));
        }
        assert_eq!(found, signal, "{lost} lost");
    }
}

#[test]
fn too_few_packets_are_no_sample() {
    // Two packets a second, every other one lost: 500 permille of less than eight.
    assert_eq!(End::of(Profile::Mobile).run(2, 2, 0..20_000), None);
}

#[test]
fn what_the_peer_lacks_of_ours_trips_as_well() {
    let mut end = End::of(Profile::Default);
    for step in 1..=30 {
        end.own_sent = step * 10;
        end.reported(0, (step * 10, step * 7), ms(step * 100));
    }
    let found = end.health.measurement(&end.policy, RoundTrips::Client(&end.echoes), ms(3_000));
    assert_eq!(found.signal, Some(Reason::LossThresholdExceeded));
    assert_eq!((found.loss_permille, found.threshold, found.samples), (300, 200, 200));
}

#[test]
fn sm10_a_report_of_another_generation_says_nothing_of_this_one() {
    let mut end = End::of(Profile::Default);
    end.own_sent = 1_000;
    for step in 1..=30 {
        let counters = Counters { window: &end.window, key_epoch: 0, own_sent: end.own_sent };
        let report = Report { key_epoch: 0, sent: step * 10, received: 0, highest: step * 10 };
        end.health.heard(ms(step * 100));
        end.health.reported(2, &report, &counters, &end.policy, ms(step * 100));
    }
    assert_eq!(end.signal(ms(3_000)), None);
    assert_eq!(end.health.newest_tally(), (0, 0));
}

#[test]
fn tc10_latency_trips_by_its_percentile_and_not_by_one_spike() {
    let mut policy = Policy::profile(Profile::Default);
    policy.volatility.latency_volatile_threshold = Span::from_millis(150);
    let run = |slow: &dyn Fn(u64) -> bool| {
        let mut end = End::new(policy.clone());
        (0..20).find_map(|n| {
            let now = ms(n * 500);
            end.health.heard(now);
            end.echoes.measured(Span::from_millis(if slow(n) { 400 } else { 50 }), now);
            end.signal(now).map(|signal| (n, signal))
        })
    };
    assert_eq!(run(&|n| n == 10), None, "one spike");
    assert_eq!(run(&|n| n >= 10), Some((11, Reason::LatencyThresholdExceeded)), "sustained");
    assert_eq!(run(&|_| true), Some((7, Reason::LatencyThresholdExceeded)), "eight samples in a full window");
}

#[test]
fn latency_and_jitter_at_zero_are_off() {
    let mut end = End::of(Profile::Default);
    for n in 0..40 {
        end.health.heard(ms(n * 500));
        end.echoes.measured(Span::from_millis(if n % 2 == 0 { 20 } else { 1_500 }), ms(n * 500));
        assert_eq!(end.signal(ms(n * 500)), None);
    }
    let found = end.health.measurement(&end.policy, RoundTrips::Client(&end.echoes), ms(20_000));
    assert!(found.latency > Some(Span::from_millis(1_000)) && found.jitter > Some(Span::from_millis(500)), "{found:?}");
}

#[test]
fn tc11_jitter_trips_over_a_full_window_and_not_by_one_spike() {
    let run = |round_trip: &dyn Fn(u64) -> u64| {
        let mut end = End::of(Profile::Mobile);
        (0..40).find_map(|n| {
            let now = ms(n * 250);
            end.health.heard(now);
            end.echoes.measured(Span::from_millis(round_trip(n)), now);
            end.signal(now)
        })
    };
    assert_eq!(run(&|n| if n == 20 { 2_000 } else { 50 }), None, "one spike");
    assert_eq!(run(&|n| 50 + 100 * (n % 2)), None, "mean deviation 50 ms");
    assert_eq!(run(&|n| 50 + 200 * (n % 2)), Some(Reason::JitterThresholdExceeded), "mean deviation 100 ms");
}

#[test]
fn a_gateway_judges_silence_and_loss_only() {
    let mut policy = Policy::profile(Profile::Fast);
    policy.volatility.latency_volatile_threshold = Span::from_millis(10);
    let mut rtt = Rtt::default();
    rtt.sample(Span::from_millis(400));
    let mut health = PathHealth::new(1, ms(0));
    let window = ReplayWindow::new(WINDOW_BITS);
    let counters = Counters { window: &window, key_epoch: 0, own_sent: 0 };
    for now in (0..5_000).step_by(100) {
        health.heard(ms(now));
        let inputs = health.judge(&policy, &counters, RoundTrips::Gateway(&rtt), ms(now));
        assert!(matches!(inputs[..], [Input::StabilityRestored { .. }]));
    }
    let found = health.measurement(&policy, RoundTrips::Gateway(&rtt), ms(5_000));
    assert_eq!((found.latency, found.jitter, found.drops), (None, None, 0));
}

#[test]
fn the_record_of_the_signal_names_its_bound_in_its_own_unit() {
    let mut end = End::of(Profile::Default);
    for n in 0..3 {
        end.echoes.asked(n, ms(n));
    }
    end.health.heard(ms(1_000));
    end.echoes.age(&end.policy, ms(1_000));
    let found = end.health.measurement(&end.policy, RoundTrips::Client(&end.echoes), ms(1_200));
    assert_eq!((found.signal, found.threshold, found.drops), (Some(Reason::ConsecutiveDropExceeded), 3, 3));
    assert_eq!(found.heartbeat_age, Span::from_millis(200));
    let found = end.health.measurement(&end.policy, RoundTrips::Client(&end.echoes), ms(3_001));
    assert_eq!((found.signal, found.threshold), (Some(Reason::HeartbeatTimeout), 2_000));
}
