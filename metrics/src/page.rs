//! Writes the Prometheus text format, version 0.0.4.

use std::fmt::{Display, Write as _};
use std::ops::RangeInclusive;

use jumpgate_protocol::distribution::Distribution;
use jumpgate_protocol::policy::Observability;

use super::family::Family;
use super::histogram::Histogram;

/// The media type of a page.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page that is being written: families one after the other, each with all of its samples.
#[derive(Debug)]
pub struct Page {
    text: String,
    /// Families that policy wants to see.
    choice: Observability,
    /// Where the samples of the others go.
    held_back: String,
}

/// Whether policy lets that family onto the page: those of switches (PP86) and of latencies (PP88) it may hold back. They
/// are told by their names, so that a new one belongs to them from its first day.
fn is_wanted(family: &Family, choice: &Observability) -> bool {
    let switches = family.name.contains("_switch");
    let latencies = family.name.contains("_latency_");
    (choice.emit_switch_metrics || !switches) && (choice.include_latency_metrics || !latencies)
}

impl Page {
    /// A page for whom that policy is in force.
    pub const fn new(choice: Observability) -> Self {
        Self { text: String::new(), choice, held_back: String::new() }
    }

    /// Begins a family, whose samples follow.
    pub fn family(&mut self, family: &'static Family) -> Samples<'_> {
        if !is_wanted(family, &self.choice) {
            self.held_back.clear();
            return Samples { text: &mut self.held_back, family };
        }
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "# HELP {} {}", family.name, family.meaning);
        let _ = writeln!(self.text, "# TYPE {} {}", family.name, family.kind.name());
        Samples { text: &mut self.text, family }
    }

    /// The page as it is sent.
    pub fn finish(self) -> String {
        self.text
    }
}

/// Takes the samples of one family.
pub struct Samples<'a> {
    text: &'a mut String,
    family: &'static Family,
}

impl Samples<'_> {
    /// One sample. Label values stand in the order of the family's labels.
    pub fn put(&mut self, labels: &[&dyn Display], value: impl Display) -> &mut Self {
        self.line("", labels, None, &value);
        self
    }

    /// One histogram: cumulative buckets, sum and count.
    pub fn histogram(&mut self, labels: &[&dyn Display], histogram: &Histogram) -> &mut Self {
        for (bound, count) in histogram.cumulative() {
            self.line("_bucket", labels, Some(&bound), &count);
        }
        self.line("_bucket", labels, Some(&"+Inf"), &histogram.count());
        self.line("_sum", labels, None, &histogram.sum());
        self.line("_count", labels, None, &histogram.count());
        self
    }

    /// The same of values that were counted by powers of two; `per_unit` of them are one of the metric's unit.
    pub fn distribution(
        &mut self,
        labels: &[&dyn Display],
        values: &Distribution,
        powers: RangeInclusive<u32>,
        per_unit: f64,
    ) -> &mut Self {
        for (bound, count) in values.cumulative(powers) {
            self.line("_bucket", labels, Some(&(bound as f64 / per_unit)), &count);
        }
        self.line("_bucket", labels, Some(&"+Inf"), &values.total());
        self.line("_sum", labels, None, &(values.sum() as f64 / per_unit));
        self.line("_count", labels, None, &values.total());
        self
    }

    fn line(&mut self, suffix: &str, labels: &[&dyn Display], bound: Option<&dyn Display>, value: &dyn Display) {
        debug_assert_eq!(labels.len(), self.family.labels.len(), "{}", self.family.name);
        self.text.push_str(self.family.name);
        self.text.push_str(suffix);
        let names = self.family.labels.iter().copied().zip(labels.iter().copied());
        let mut open = '{';
        for (name, value) in names.chain(bound.map(|bound| ("le", bound))) {
            let _ = write!(self.text, "{open}{name}=\"{}\"", escaped(&value.to_string()));
            open = ',';
        }
        let close = if open == ',' { "}" } else { "" };
        let _ = writeln!(self.text, "{close} {value}");
    }
}

/// A label value: backslash, quote and line end are escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jumpgate_protocol::policy::{Policy, Profile};

    use super::*;
    use crate::Kind;

    fn page() -> Page {
        Page::new(Policy::profile(Profile::Default).observability)
    }

    static PLAIN: Family = Family { name: "jumpgate_plain", kind: Kind::Gauge, labels: &[], meaning: "one number" };
    static NAMED: Family =
        Family { name: "jumpgate_named_total", kind: Kind::Counter, labels: &["a", "b"], meaning: "m" };
    static TIMES: Family =
        Family { name: "jumpgate_times_seconds", kind: Kind::Histogram, labels: &["a"], meaning: "m" };

    #[test]
    fn a_sample_is_a_name_labels_in_their_order_and_a_value() {
        let mut page = page();
        page.family(&PLAIN).put(&[], 7);
        page.family(&NAMED).put(&[&1, &"x"], 2).put(&[&"q\"u\\o\n", &true], 3);
        let lines = "# HELP jumpgate_plain one number\n# TYPE jumpgate_plain gauge\njumpgate_plain 7\n\
                     # HELP jumpgate_named_total m\n# TYPE jumpgate_named_total counter\n\
                     jumpgate_named_total{a=\"1\",b=\"x\"} 2\n\
                     jumpgate_named_total{a=\"q\\\"u\\\\o\\n\",b=\"true\"} 3\n";
        assert_eq!(page.finish(), lines);
    }

    #[test]
    fn nanoseconds_by_powers_of_two_are_said_in_seconds() {
        let mut values = Distribution::default();
        values.count(64);
        values.count(100_000);
        let mut page = page();
        page.family(&TIMES).distribution(&[&"x"], &values, 6..=7, 1e9);
        let text = page.finish();
        let lines: Vec<_> =
            text.lines().skip(2).map(|line| line.trim_start_matches("jumpgate_times_seconds")).collect();
        let expected = [
            "_bucket{a=\"x\",le=\"0.000000064\"} 1",
            "_bucket{a=\"x\",le=\"0.000000128\"} 1",
            "_bucket{a=\"x\",le=\"+Inf\"} 2",
            "_sum{a=\"x\"} 0.000100064",
            "_count{a=\"x\"} 2",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_histogram_ends_with_infinity_sum_and_count() {
        let mut histogram = Histogram::default();
        histogram.observe(Duration::from_millis(2));
        histogram.observe(Duration::from_secs(3600));
        let mut page = page();
        page.family(&TIMES).histogram(&[&"x"], &histogram);
        let text = page.finish();
        assert!(text.contains("jumpgate_times_seconds_bucket{a=\"x\",le=\"0.001\"} 0\n"), "{text}");
        assert!(text.contains("jumpgate_times_seconds_bucket{a=\"x\",le=\"30\"} 1\n"), "{text}");
        assert!(text.contains("jumpgate_times_seconds_bucket{a=\"x\",le=\"+Inf\"} 2\n"), "{text}");
        assert!(
            text.ends_with("jumpgate_times_seconds_sum{a=\"x\"} 3600.002\njumpgate_times_seconds_count{a=\"x\"} 2\n")
        );
    }
}
