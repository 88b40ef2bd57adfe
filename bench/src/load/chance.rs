//! Random times of a run: seeded, so that the same seed asks the same of the gateway.

use jumpgate_protocol::time::Span;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// How times spread about their mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Spread {
    /// Always the mean
    Fixed,
    /// As of events that happen independently of each other
    Exponential,
    /// Anything from nothing to twice the mean
    Uniform,
}

/// A source of random times and choices.
pub(crate) struct Chance(SmallRng);

impl Chance {
    /// Always the same for the same seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// A time with that mean.
    pub(crate) fn until(&mut self, spread: Spread, mean: Span) -> Span {
        // 1 - u is never 0, whose logarithm there is none of.
        let unit: f64 = 1.0 - self.0.random::<f64>();
        let factor = match spread {
            Spread::Fixed => 1.0,
            Spread::Exponential => -unit.ln(),
            Spread::Uniform => 2.0 * unit,
        };
        Span::from_micros((factor * mean.as_micros() as f64) as u64)
    }

    /// Whether something happens that happens in that share of the cases.
    pub(crate) fn happens(&mut self, share: f64) -> bool {
        self.0.random::<f64>() < share
    }

    /// A share between these two.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.0.random::<f64>()
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
        let draw = |seed, spread| {
            let mut chance = Chance::new(seed);
            (0..10_000).map(|_| chance.until(spread, Span::from_millis(100)).as_micros()).collect::<Vec<_>>()
        };
        for (spread, longest) in [(Spread::Fixed, 100_000), (Spread::Exponential, u64::MAX), (Spread::Uniform, 200_000)]
        {
            let times = draw(7, spread);
            let mean = times.iter().sum::<u64>() / 10_000;
            assert!((95_000..105_000).contains(&mean), "{spread:?}: {mean} µs");
            assert!(times.iter().all(|time| *time <= longest), "{spread:?}");
            assert_eq!(times, draw(7, spread));
        }
        assert_ne!(draw(7, Spread::Uniform), draw(8, Spread::Uniform));
    }
}
