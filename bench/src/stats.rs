//! Medians and spreads of repeated measurements.

use serde::Serialize;

/// Repetitions of one measurement: the median is quoted, the spread shows how noisy the machine was.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Middle value.
    pub median: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// How many values.
    pub repetitions: usize,
}

impl Summary {
    /// The summary of `values`; none if there is no value.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len().is_multiple_of(2) { (sorted[middle - 1] + sorted[middle]) / 2.0 } else { sorted[middle] };
        Some(Self { median, min, max, repetitions: sorted.len() })
    }

    /// The summary of `a / b`, pair by pair: both of a pair ran within a moment, so a machine that drifts does not
    /// move it.
    pub fn of_ratios(a: &[f64], b: &[f64]) -> Option<Self> {
        let ratios: Vec<f64> = a.iter().zip(b).map(|(a, b)| a / b).collect();
        Self::of(&ratios)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between_the_two_in_the_middle() {
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((summary.median, summary.min, summary.max), (2.5, 1.0, 4.0));
    }

    #[test]
    fn one_wild_repetition_moves_the_spread_and_not_the_median() {
        let summary = Summary::of(&[1.0, 1.0, 1.0, 1.0, 900.0]).unwrap();
        assert_eq!((summary.median, summary.max), (1.0, 900.0));
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        let summary = Summary::of_ratios(&[2.0, 20.0, 200.0], &[1.0, 10.0, 100.0]).unwrap();
        assert_eq!((summary.median, summary.min, summary.max), (2.0, 2.0, 2.0));
    }

    #[test]
    fn nothing_measured_is_nothing_said() {
        assert_eq!(Summary::of(&[]), None);
    }
}
