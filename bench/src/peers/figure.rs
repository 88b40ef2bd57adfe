//! A figure, or why there is none: what a program cannot do is not a zero.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// A figure or the reason of its absence.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// It was measured.
    Measured(f64),
    /// It was not, and here is why.
    Missing(String),
}

impl Figure {
    /// Why there is none.
    pub fn missing(why: impl Into<String>) -> Self {
        Self::Missing(why.into())
    }

    /// What was measured.
    pub fn value(&self) -> Option<f64> {
        match self {
            Self::Measured(value) => Some(*value),
            Self::Missing(_) => None,
        }
    }
}

/// Reasons, each with the number by which a table refers to it.
#[derive(Debug, Default)]
pub(super) struct Footnotes(Vec<String>);

impl Footnotes {
    /// The number of a reason, the same for the same reason.
    pub(super) fn number(&mut self, why: &str) -> usize {
        let place = self.0.iter().position(|known| known == why).unwrap_or_else(|| {
            self.0.push(why.to_owned());
            self.0.len() - 1
        });
        place + 1
    }

    /// A cell of a table: the figure, or a dash with the number of its reason.
    pub(super) fn cell(&mut self, figure: &Figure) -> String {
        match figure {
            Figure::Measured(value) => short(*value),
            Figure::Missing(why) => format!("–[{}]", self.number(why)),
        }
    }

    /// All reasons in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &str)> {
        self.0.iter().enumerate().map(|(place, why)| (place + 1, why.as_str()))
    }
}

impl fmt::Display for Footnotes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|(number, why)| writeln!(f, "  [{number}] {why}"))
    }
}

/// Three digits that mean something, without an exponent.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Figures of one gateway by their names.
pub(super) type Figures = BTreeMap<&'static str, Figure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_a_dash_with_a_number_and_never_a_zero() {
        let mut notes = Footnotes::default();
        assert_eq!(notes.cell(&Figure::missing("it has no message for it")), "–[1]");
        assert_eq!(notes.cell(&Figure::missing("it died")), "–[2]");
        assert_eq!(notes.cell(&Figure::missing("it has no message for it")), "–[1]", "the same reason");
        assert_eq!(notes.cell(&Figure::Measured(0.0)), "0.000");
        assert_eq!(notes.to_string(), "  [1] it has no message for it\n  [2] it died\n");
    }

    #[test]
    fn the_json_tells_the_two_apart() {
        let json = |figure| serde_json::to_string(&figure).unwrap();
        assert_eq!(json(Figure::Measured(1.5)), r#"{"measured":1.5}"#);
        assert_eq!(json(Figure::missing("why")), r#"{"missing":"why"}"#);
    }
}
