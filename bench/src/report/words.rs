//! The report for a terminal: what a person wants to know first.

use std::fmt;

use super::Report;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = if self.interrupted { ", ended by the user" } else { "" };
        writeln!(f, "{}: {:?} ({:.1} s{ended})", self.scenario, self.result, self.duration_s)?;
        for goal in &self.goals {
            let (sign, verdict) =
                (if goal.at_least { ">=" } else { "<=" }, if goal.is_met() { "met" } else { "NOT MET" });
            if goal.measured.is_nan() {
                writeln!(f, "  goal: {}: not measured, too few samples", goal.name)?;
                continue;
            }
            writeln!(
                f,
                "  goal: {}: {:.2} {unit}, wanted {sign} {} {unit}: {verdict}",
                goal.name,
                goal.measured,
                goal.bound,
                unit = goal.unit
            )?;
        }
        for (name, times) in self.times.iter().filter(|(_, times)| times.count > 0) {
            let text = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
            writeln!(
                f,
                "  {name}, ms: p50 {} p90 {} p99 {} p99.9 {} max {} ({} samples)",
                text(times.p50_ms),
                text(times.p90_ms),
                text(times.p99_ms),
                text(times.p999_ms),
                text(times.max_ms),
                times.count
            )?;
        }
        for (name, value) in &self.summary {
            writeln!(f, "  {name}: {value:.2}")?;
        }
        let cost = &self.gateway;
        writeln!(
            f,
            "  gateway: {:.2} CPU s and {:.2} s softirq, {:.0} % of its CPU, {} MiB resident ({} per session)",
            cost.cpu_s,
            cost.softirq_s,
            cost.cpu_share * 100.0,
            cost.resident >> 20,
            cost.memory_per_session.map_or("-".to_owned(), |bytes| format!("{bytes:.0} B")),
        )?;
        for (kind, reasons) in &self.reasons {
            let list: Vec<String> = reasons.iter().map(|(name, count)| format!("{name} {count}")).collect();
            writeln!(f, "  {kind}: {}", list.join(", "))?;
        }
        let unsafe_counters: Vec<_> = self.safety.iter().filter(|(_, count)| **count > 0).collect();
        if unsafe_counters.is_empty() {
            writeln!(f, "  safety: all {} counters are 0; audit log: {}", self.safety.len(), self.verifier.verdict)?;
        } else {
            writeln!(f, "  SAFETY: {unsafe_counters:?}; audit log: {}", self.verifier.verdict)?;
        }
        if let Some(violation) = &self.verifier.first_violation {
            writeln!(f, "  first violation in the audit log: {violation}")?;
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        write!(f, "  again: {}", self.reproduce)
    }
}
