//! How often values of which size occurred, counted in flat memory.

use core::ops::RangeInclusive;

/// Buckets: the last one but one ends at 2^34, as nanoseconds 17 seconds; what is above it has the last one.
const BUCKETS: usize = 36;

/// Counts values by powers of two: bucket `n` takes those above 2^(n-1), up to 2^n. Counting costs two additions and
/// never allocates, so that a worker can do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    buckets: [u64; BUCKETS],
    sum: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], sum: 0 }
    }
}

impl Distribution {
    /// Counts one value.
    #[inline]
    pub fn count(&mut self, value: u64) {
        let power = (u64::BITS - value.saturating_sub(1).leading_zeros()) as usize;
        self.buckets[power.min(BUCKETS - 1)] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// Counts all that another has counted.
    pub fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(bucket, more)| *bucket += more);
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// For each of these powers of two, how many values did not exceed it. The powers are at most 34.
    pub fn cumulative(&self, powers: RangeInclusive<u32>) -> impl Iterator<Item = (u64, u64)> {
        powers.map(|power| {
            let up_to = (power as usize).min(BUCKETS - 2);
            (1 << up_to, self.buckets[..=up_to].iter().sum())
        })
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their sum.
    pub const fn sum(&self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_the_bucket_that_ends_at_it_and_in_all_above() {
        let mut distribution = Distribution::default();
        for value in [0, 1, 2, 3, 4, 5, 64, u64::MAX] {
            distribution.count(value);
        }
        let counted: Vec<_> = distribution.cumulative(0..=6).collect();
        assert_eq!(counted, [(1, 2), (2, 3), (4, 5), (8, 6), (16, 6), (32, 6), (64, 7)]);
        assert_eq!((distribution.total(), distribution.sum()), (8, u64::MAX), "it saturates and does not wrap");
    }

    #[test]
    fn two_workers_together_have_counted_what_each_has() {
        let (mut one, mut other) = (Distribution::default(), Distribution::default());
        one.count(3);
        other.count(9);
        one.add(&other);
        assert_eq!((one.total(), one.sum()), (2, 12));
        assert_eq!(one.cumulative(2..=4).collect::<Vec<_>>(), [(4, 1), (8, 1), (16, 2)]);
    }
}
