//! What became of packets that were offered, and who limits.

use std::collections::BTreeMap;

use serde::Serialize;

/// Below this share of the offered packets, in percent, losses are noise: a worker that slept or lost its CPU for a moment.
const NOISE_PERCENT: u64 = 1;

/// What became of the packets of a burst, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// Packets that the generator sent.
    pub offered: u64,
    /// Packets that arrived.
    pub arrived: u64,
    /// Packets that were dropped, by who dropped them and why.
    pub dropped: BTreeMap<String, u64>,
}

impl Losses {
    /// Several bursts together.
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        for one in all {
            sum.offered += one.offered;
            sum.arrived += one.arrived;
            for (reason, &packets) in &one.dropped {
                sum.drop_packets(reason, packets);
            }
        }
        sum
    }

    /// Counts drops.
    pub(crate) fn drop_packets(&mut self, reason: &str, packets: u64) {
        if packets > 0 {
            *self.dropped.entry(reason.to_owned()).or_default() += packets;
        }
    }

    /// Packets that neither arrived nor were counted as dropped by anybody; negative if some were counted twice.
    pub fn unexplained(&self) -> i64 {
        let explained = self.arrived + self.dropped.values().sum::<u64>();
        self.offered as i64 - explained as i64
    }

    /// Whether more was offered than the worker could forward. If not, the generator was the limit.
    pub fn overloaded(&self) -> bool {
        self.offered.saturating_sub(self.arrived) * 100 > self.offered * NOISE_PERCENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(offered: u64, arrived: u64, full: u64) -> Losses {
        let mut losses = Losses { offered, arrived, ..Losses::default() };
        losses.drop_packets("ring full", full);
        losses
    }

    #[test]
    fn who_loses_packets_is_the_limit_himself() {
        assert!(losses(1_000_000, 900_000, 100_000).overloaded());
        assert!(!losses(1_000_000, 999_990, 10).overloaded(), "a few are noise: the generator limits");
        assert!(!losses(0, 0, 0).overloaded());
    }

    #[test]
    fn packets_that_nobody_counted_are_not_hidden() {
        assert_eq!(losses(100, 90, 10).unexplained(), 0);
        assert_eq!(losses(100, 90, 7).unexplained(), 3);
        assert_eq!(losses(100, 90, 12).unexplained(), -2);
    }

    #[test]
    fn bursts_add_up_by_reason() {
        let sum = Losses::sum([&losses(10, 7, 3), &losses(10, 9, 1), &losses(5, 5, 0)]);
        assert_eq!((sum.offered, sum.arrived), (25, 21));
        assert_eq!(sum.dropped, BTreeMap::from([("ring full".to_owned(), 4)]));
    }
}
