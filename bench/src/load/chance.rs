//! Random times of a run: seeded, so that the same seed asks the same of the gateway.

use jumpgate_protocol::time::Span;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// A source of random times and choices.
pub(crate) struct Chance(SmallRng);

impl Chance {
    /// Always the same for the same seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// The time until the next of events that happen every `mean` on average, independently of each other.
    pub(crate) fn until(&mut self, mean: Span) -> Span {
        // 1 - u is never 0, whose logarithm there is none of.
        let unit: f64 = 1.0 - self.0.random::<f64>();
        Span::from_micros((-unit.ln() * mean.as_micros() as f64) as u64)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        self.0.random_range(0..end.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_many_times_is_the_mean_and_the_seed_decides() {
        let draw = |seed| {
            let mut chance = Chance::new(seed);
            (0..10_000).map(|_| chance.until(Span::from_millis(100)).as_micros()).collect::<Vec<_>>()
        };
        let times = draw(7);
        let mean = times.iter().sum::<u64>() / 10_000;
        assert!((95_000..105_000).contains(&mean), "{mean} µs");
        assert_eq!(times, draw(7));
        assert_ne!(times, draw(8));
    }
}
