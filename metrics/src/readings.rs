//! A page of metrics, as a monitoring system reads it: for what asks a program of ours how it is.

/// The samples of one page.
#[derive(Clone, Debug)]
pub struct Readings(Vec<Sample>);

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: String,
    value: f64,
}

/// Why a page cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the page is no sample: {text:?}")]
pub struct UnreadablePage {
    /// The first bad line, from 1.
    pub line: usize,
    /// What it says.
    pub text: String,
}

impl Readings {
    /// Reads a page in the Prometheus text format.
    ///
    /// # Errors
    /// A line is neither a comment nor a sample.
    pub fn parse(page: &str) -> Result<Self, UnreadablePage> {
        let lines = page.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.is_empty());
        let samples = lines.map(|(index, line)| {
            let sample = Self::sample(line);
            sample.ok_or_else(|| UnreadablePage { line: index + 1, text: line.to_owned() })
        });
        samples.collect::<Result<_, _>>().map(Self)
    }

    fn sample(line: &str) -> Option<Sample> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let (labels, value) = (labels.strip_suffix('}')?, value.parse().ok()?);
        Some(Sample { name: name.to_owned(), labels: labels.to_owned(), value })
    }

    /// The sum of all series of that name whose labels hold each of these, as `reason="MALFORMED"`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let of = |sample: &&Sample| sample.name == name && labels.iter().all(|label| sample.labels.contains(label));
        self.0.iter().filter(of).map(|sample| sample.value).sum()
    }

    /// The buckets of a histogram, all its series together: upper bounds, rising, and how many were not above.
    pub fn buckets(&self, name: &str) -> Vec<(f64, f64)> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.0.iter().filter(|sample| sample.name.strip_suffix("_bucket") == Some(name)) {
            // No other label of a histogram here holds a comma.
            let bound = sample.labels.split(',').find_map(|label| label.strip_prefix("le=\"")?.strip_suffix('"'));
            let Some(bound) = bound.and_then(|bound| bound.parse().ok()) else { continue };
            match buckets.binary_search_by(|(other, _)| other.total_cmp(&bound)) {
                Ok(place) => buckets[place].1 += sample.value,
                Err(place) => buckets.insert(place, (bound, sample.value)),
            }
        }
        buckets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP drops_total dropped\n# TYPE drops_total counter\n\
        drops_total{reason=\"A\",worker=\"0\"} 3\ndrops_total{reason=\"A\",worker=\"1\"} 4\n\
        drops_total{reason=\"B\",worker=\"0\"} 8\ndrops_total_sum 0.5\n\n";

    #[test]
    fn a_page_is_read_by_whole_names_and_by_labels() {
        let page = Readings::parse(PAGE).unwrap();
        assert_eq!(page.sum("drops_total", &[]), 15.0);
        assert_eq!(page.sum("drops_total", &["reason=\"A\""]), 7.0);
        assert_eq!(page.sum("drops_total", &["reason=\"A\"", "worker=\"1\""]), 4.0);
        assert_eq!(page.sum("drops_total_sum", &[]), 0.5);
        assert_eq!(page.sum("drops", &[]), 0.0);
    }

    #[test]
    fn a_histogram_is_read_in_the_order_of_its_bounds() {
        let page = "t_bucket{w=\"0\",le=\"2\"} 5\nt_bucket{w=\"0\",le=\"0.5\"} 1\nt_bucket{w=\"0\",le=\"+Inf\"} 6\n\
            t_bucket{w=\"1\",le=\"0.5\"} 2\nt_bucket{w=\"1\",le=\"2\"} 2\nt_bucket{w=\"1\",le=\"+Inf\"} 2\nt_count 8\n";
        let page = Readings::parse(page).unwrap();
        assert_eq!(page.buckets("t"), [(0.5, 3.0), (2.0, 7.0), (f64::INFINITY, 8.0)]);
        assert_eq!(page.buckets("u"), []);
    }

    #[test]
    fn a_line_that_is_no_sample_is_refused_with_its_number() {
        for bad in ["a", "a b", "a{b=\"c\" 1"] {
            let error = Readings::parse(&format!("# x\n{bad}\n")).unwrap_err();
            assert_eq!((error.line, error.text.as_str()), (2, bad));
        }
    }
}
