//! What a metric is, and the macro that makes a table of them.
//!
//! Label values come from closed sets only: states, reason codes, workers, ports and the like; never a session, an
//! address or a user (OB-12).

use std::fmt::Write as _;

/// What a metric is (Prometheus text format 0.0.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, from the start of the process.
    Counter,
    /// A value of now.
    Gauge,
    /// How often which value occurred, in buckets.
    Histogram,
}

impl Kind {
    /// The name as in the text format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric: a name, and a value for each combination of labels.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// The full name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Names of its labels, in the order in which they are written.
    pub labels: &'static [&'static str],
    /// What it tells, in a sentence.
    pub meaning: &'static str,
}

/// Makes a static [`Family`] of each row, and `ALL` of them in the order of the page.
#[macro_export]
macro_rules! families {
    ($($NAME:ident $name:literal $Kind:ident [$($label:literal)*] $meaning:literal,)+) => {
        $(
            #[doc = concat!("`", $name, "`: ", $meaning, ".")]
            pub static $NAME: $crate::Family = $crate::Family {
                name: $name,
                kind: $crate::Kind::$Kind,
                labels: &[$($label),*],
                meaning: $meaning,
            };
        )+

        /// Every metric, in the order of the page.
        pub static ALL: &[&$crate::Family] = &[$(&$NAME,)+];
    };
}

/// The table of such families for a document.
pub fn render_markdown(families: &[&Family]) -> String {
    let mut text = String::from("| Name | Type | Labels | Meaning |\n|---|---|---|---|\n");
    for Family { name, kind, labels, meaning } in families {
        let labels = if labels.is_empty() { "-".to_owned() } else { labels.join(", ") };
        let _ = writeln!(text, "| `{name}` | {} | {labels} | {meaning} |", kind.name());
    }
    text
}
