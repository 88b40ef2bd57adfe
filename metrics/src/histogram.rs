//! Times in buckets.

use std::time::Duration;

/// Upper bounds in seconds: four a decade from 1 ms, where a jump within a data centre ends, to 30 s, beyond every
/// profile's recovery deadline.
const BOUNDS: [f64; 19] = [
    0.001, 0.0018, 0.0032, 0.0056, 0.01, 0.018, 0.032, 0.056, 0.1, 0.18, 0.32, 0.56, 1.0, 1.8, 3.2, 5.6, 10.0, 18.0,
    30.0,
];

/// How often which time was observed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// One for each bound; what is above the last one is in `count` only.
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: Duration,
}

impl Histogram {
    /// Counts one time.
    pub fn observe(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        if let Some(bucket) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.buckets[bucket] += 1;
        }
        self.count += 1;
        self.sum += time;
    }

    /// Each bound with the number of times that did not exceed it.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        BOUNDS.into_iter().zip(self.buckets).scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((bound, *sum))
        })
    }

    /// How many were counted.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Their sum in seconds.
    pub const fn sum(&self) -> f64 {
        self.sum.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_at_least_four_a_decade_from_a_millisecond_to_thirty_seconds() {
        assert_eq!((BOUNDS[0], BOUNDS[BOUNDS.len() - 1]), (0.001, 30.0));
        assert!(BOUNDS.windows(2).all(|pair| pair[0] < pair[1] && pair[1] / pair[0] < 1.81));
    }

    #[test]
    fn a_time_counts_in_its_bucket_and_in_all_above() {
        let mut histogram = Histogram::default();
        for millis in [0, 1, 2, 30_000, 30_001] {
            histogram.observe(Duration::from_millis(millis));
        }
        let cumulative: Vec<_> = histogram.cumulative().map(|(_, count)| count).collect();
        assert_eq!(cumulative[..3], [2, 2, 3]);
        assert_eq!((cumulative[BOUNDS.len() - 1], histogram.count()), (4, 5));
        assert!((histogram.sum() - 60.004).abs() < 1e-9);
    }
}
