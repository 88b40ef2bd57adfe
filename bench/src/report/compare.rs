//! What changed between two runs, with the noise that each of them saw.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// A change that is smaller than this share is not told from noise by two single runs.
const NOISE: f64 = 0.05;
/// What names a row of several.
const KEYS: [&str; 4] = ["program", "sessions", "way", "inner_bytes"];

/// One figure in both runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Dotted path of the figure.
    pub name: String,
    /// In the first run.
    pub before: f64,
    /// In the second.
    pub after: f64,
    /// Share by which repetitions of the same differed in either run, or [`NOISE`] where there were none.
    pub noise: f64,
}

impl Difference {
    /// `after / before`.
    pub fn ratio(&self) -> f64 {
        self.after / self.before
    }

    /// Whether it is more than what two runs of the same differ by anyway.
    pub fn is_clear(&self) -> bool {
        (self.ratio() - 1.0).abs() > self.noise
    }
}

/// Figures of two reports of one scenario. Environment that differs is said in the second part: such figures compare
/// machines, not programs.
///
/// # Errors
/// One of them is no report, or they are of different scenarios.
pub fn compare(before: &Value, after: &Value) -> Result<(Vec<Difference>, Vec<String>)> {
    let scenario = |report: &Value| -> Result<String> {
        let name = report.get("scenario").or_else(|| report.get("benchmark")).and_then(Value::as_str);
        name.map(str::to_owned).context("this is no report of jumpgate-bench: it names no scenario")
    };
    let (first, second) = (scenario(before)?, scenario(after)?);
    ensure!(first == second, "the first report is of {first}, the second of {second}: nothing to compare");
    let (mut figures, mut others) = (Vec::new(), Vec::new());
    for part in ["summary", "times", "gateway", "rows"] {
        if let (Some(before), Some(after)) = (before.get(part), after.get(part)) {
            walk(part, before, after, &mut figures);
        }
    }
    for part in ["environment", "load", "policy", "conditions"] {
        let empty = Value::Null;
        let (before, after) = (before.get(part).unwrap_or(&empty), after.get(part).unwrap_or(&empty));
        let names = |value: &Value| -> BTreeSet<String> {
            value.as_object().into_iter().flat_map(|object| object.keys().cloned()).collect()
        };
        for name in names(before).union(&names(after)).filter(|name| *name != "load") {
            let (before, after) = (before.get(name).unwrap_or(&empty), after.get(name).unwrap_or(&empty));
            if before != after {
                others.push(format!("{part}.{name}: {before} before, {after} after"));
            }
        }
    }
    Ok((figures, others))
}

fn walk(path: &str, before: &Value, after: &Value, found: &mut Vec<Difference>) {
    if let (Some((before, one)), Some((after, other))) = (spread(before), spread(after)) {
        found.push(Difference { name: path.to_owned(), before, after, noise: one.max(other).max(NOISE) });
        return;
    }
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, before) in before {
                if let Some(after) = after.get(name) {
                    walk(&format!("{path}.{name}"), before, after, found);
                }
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for (place, one) in before.iter().enumerate() {
                let label = label(one);
                let other = match &label {
                    Some(_) => after.iter().find(|other| self::label(other) == label),
                    None => after.get(place),
                };
                if let Some(other) = other {
                    let label = label.unwrap_or_else(|| place.to_string());
                    walk(&format!("{path}[{label}]"), one, other, found);
                }
            }
        }
        (Value::Number(before), Value::Number(after)) => {
            if let (Some(before), Some(after)) = (before.as_f64(), after.as_f64()) {
                found.push(Difference { name: path.to_owned(), before, after, noise: NOISE });
            }
        }
        _ => {}
    }
}

/// Median of a figure with repetitions, and the share by which they differed from it at most.
fn spread(value: &Value) -> Option<(f64, f64)> {
    let number = |name: &str| value.get(name)?.as_f64();
    let (median, min, max) = (number("median")?, number("min")?, number("max")?);
    let noise = (max - median).max(median - min) / median.abs();
    noise.is_finite().then_some((median, noise))
}

/// What a row says that it is of; none if it says nothing.
fn label(row: &Value) -> Option<String> {
    let parts = KEYS.iter().filter_map(|key| match row.get(key)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(format!("{number} {key}")),
        _ => None,
    });
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_are_compared_and_another_machine_is_said() {
        let before = json!({"scenario": "storm", "summary": {"back_s": 1.0}, "environment": {"cpu": "a"}});
        let after = json!({"scenario": "storm", "summary": {"back_s": 1.2}, "environment": {"cpu": "b"}});
        let (figures, others) = compare(&before, &after).unwrap();
        assert_eq!(figures.len(), 1);
        assert!(figures[0].is_clear() && (figures[0].ratio() - 1.2).abs() < 1e-9);
        assert_eq!(others, ["environment.cpu: \"a\" before, \"b\" after"]);
    }

    #[test]
    fn a_change_within_the_noise_is_none() {
        let difference = Difference { name: "x".into(), before: 100.0, after: 103.0, noise: NOISE };
        assert!(!difference.is_clear());
    }

    #[test]
    fn repetitions_say_how_noisy_a_figure_is_and_rows_are_found_by_what_they_are_of() {
        let row = |sessions: u64, median: f64| {
            let figure = json!({"median": median, "min": median * 0.8, "max": median * 1.1, "repetitions": 5});
            json!({"sessions": sessions, "way": "inwards", "arrived": figure})
        };
        let before = json!({"scenario": "throughput", "rows": [row(1, 100.0), row(1_000, 50.0)]});
        let after = json!({"scenario": "throughput", "rows": [row(1_000, 60.0), row(10_000, 9.0)]});
        let (figures, _) = compare(&before, &after).unwrap();
        let arrived: Vec<_> = figures.iter().filter(|figure| figure.name.ends_with("arrived")).collect();
        assert_eq!(arrived.len(), 1, "{figures:?}");
        assert_eq!((arrived[0].before, arrived[0].after), (50.0, 60.0));
        assert!(!arrived[0].is_clear(), "a fifth more, and the repetitions differed by as much");
    }

    #[test]
    fn different_scenarios_and_other_files_are_refused() {
        assert!(compare(&json!({"scenario": "storm"}), &json!({"scenario": "churn"})).is_err());
        assert!(compare(&json!({}), &json!({"scenario": "churn"})).is_err());
    }
}
