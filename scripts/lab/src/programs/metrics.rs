//! A page of metrics, as a monitoring system reads it.

use anyhow::{Context, Result};

/// The samples of one page.
#[derive(Clone, Debug)]
pub struct Metrics(Vec<Sample>);

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: String,
    value: f64,
}

impl Metrics {
    /// Reads a page in the Prometheus text format.
    pub fn parse(page: &str) -> Result<Self> {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.map(|line| {
            let (series, value) = line.rsplit_once(' ').with_context(|| format!("no sample: {line:?}"))?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let value = value.parse().with_context(|| format!("no number: {line:?}"))?;
            Ok(Sample { name: name.to_owned(), labels: labels.trim_end_matches('}').to_owned(), value })
        });
        samples.collect::<Result<_>>().map(Self)
    }

    /// The sum of all series of that name whose labels hold each of these, as `reason="MALFORMED"`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let of = |sample: &&Sample| sample.name == name && labels.iter().all(|label| sample.labels.contains(label));
        self.0.iter().filter(of).map(|sample| sample.value).sum()
    }
}
