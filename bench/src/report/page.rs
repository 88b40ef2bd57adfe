//! The page: what happened, at a glance, in one file without anything beside it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;

use super::plot::{Line, lines};
use super::{Goal, Report};
use crate::load::book::Distribution;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;margin:.5em 0}\
td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:left}td.n{text-align:right;font-variant-numeric:tabular-nums}\
.PASS,.met{color:#00713f}.CONDITIONAL,.missed{color:#a04a00}.FAIL{color:#b00020}code{background:#f3f3f3;padding:.1em .3em}\
svg{max-width:100%;height:auto}";

/// The whole page.
pub fn render(report: &Report) -> Result<String> {
    let mut page = String::new();
    let title = format!("jumpgate-bench {}", report.scenario);
    let result = format!("{:?}", report.result).to_uppercase();
    write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\
         </head><body><h1>{title}: <span class=\"{result}\">{result}</span></h1><p>{}</p>",
        escape(&report.environment.line())
    )?;
    goals(&mut page, &report.goals)?;
    times(&mut page, &report.times)?;
    plots(&mut page, report)?;
    table(&mut page, "Measured", report.summary.iter().map(|(name, value)| (name.to_string(), number(*value))))?;
    table(
        &mut page,
        "Safety: each must be 0",
        report.safety.iter().map(|(name, n)| (name.to_string(), n.to_string())),
    )?;
    let verifier = &report.verifier;
    table(
        &mut page,
        "Audit log",
        [
            ("verifier".to_owned(), verifier.verdict.clone()),
            ("records".to_owned(), verifier.records.to_string()),
            ("gaps".to_owned(), verifier.gaps.to_string()),
        ],
    )?;
    for (kind, reasons) in &report.reasons {
        table(&mut page, kind, reasons.iter().map(|(name, count)| (name.clone(), count.to_string())))?;
    }
    table(&mut page, "Load", report.load.iter().map(|(name, value)| (name.to_string(), value.to_string())))?;
    table(&mut page, "Policy", report.policy.iter().map(|(name, value)| (name.to_string(), value.clone())))?;
    if !report.notes.is_empty() {
        page.push_str("<h2>Notes</h2><ul>");
        for note in &report.notes {
            write!(page, "<li>{}</li>", escape(note))?;
        }
        page.push_str("</ul>");
    }
    write!(page, "<h2>Again</h2><p><code>{}</code></p></body></html>", escape(&report.reproduce))?;
    Ok(page)
}

fn goals(page: &mut String, goals: &[Goal]) -> Result<()> {
    if goals.is_empty() {
        return Ok(());
    }
    page.push_str("<h2>Goals</h2><table><tr><th>goal</th><th>measured</th><th>bound</th><th></th></tr>");
    for goal in goals {
        let (class, sign) = (if goal.is_met() { "met" } else { "missed" }, if goal.at_least { "≥" } else { "≤" });
        write!(
            page,
            "<tr><td>{}</td><td class=\"n\">{} {unit}</td><td class=\"n\">{sign} {} {unit}</td>\
             <td class=\"{class}\">{class}</td></tr>",
            escape(&goal.name),
            number(goal.measured),
            number(goal.bound),
            unit = escape(&goal.unit),
        )?;
    }
    page.push_str("</table>");
    Ok(())
}

fn times(page: &mut String, times: &BTreeMap<&'static str, Distribution>) -> Result<()> {
    page.push_str("<h2>Times in milliseconds</h2><table><tr><th></th><th>samples</th>");
    for head in ["min", "p50", "p90", "p95", "p99", "p99.9", "max"] {
        write!(page, "<th>{head}</th>")?;
    }
    page.push_str("</tr>");
    for (name, times) in times.iter().filter(|(_, times)| times.count > 0) {
        write!(page, "<tr><td>{name}</td><td class=\"n\">{}</td>", times.count)?;
        let Distribution { min_ms, p50_ms, p90_ms, p95_ms, p99_ms, p999_ms, max_ms, .. } = times;
        for value in [min_ms, p50_ms, p90_ms, p95_ms, p99_ms, p999_ms, max_ms] {
            write!(page, "<td class=\"n\">{}</td>", value.map_or("–".to_owned(), number))?;
        }
        page.push_str("</tr>");
    }
    page.push_str("</table>");
    Ok(())
}

fn plots(page: &mut String, report: &Report) -> Result<()> {
    let course = |of: fn(&crate::load::book::Moment) -> f64| -> Vec<(f64, f64)> {
        report.course.iter().map(|moment| (moment.at_s, of(moment))).collect()
    };
    let sessions: [Line<'_>; 2] =
        [("attached", course(|moment| moment.attached as f64)), ("moving", course(|moment| moment.moving as f64))];
    let rates: [Line<'_>; 2] = [
        ("reattaches", course(|moment| moment.reattaches as f64)),
        ("handshakes", course(|moment| moment.handshakes as f64)),
    ];
    let frames: [Line<'_>; 2] =
        [("sent", course(|moment| moment.frames.0 as f64)), ("received", course(|moment| moment.frames.1 as f64))];
    let curves: Vec<Line<'_>> = report.curves.iter().map(|(name, points)| (*name, points.clone())).collect();
    page.push_str("<h2>Course</h2>");
    for svg in [
        lines("Sessions", "s", "sessions", false, &sessions)?,
        lines("Control plane", "s", "in 100 ms", false, &rates)?,
        lines("Generator", "s", "frames in 100 ms", false, &frames)?,
        lines("CPU of the gateway", "s", "share of one CPU", false, &[("share", course(|moment| moment.gateway_cpu))])?,
        lines(
            "Memory of the gateway",
            "s",
            "MiB",
            false,
            &[("resident", course(|moment| moment.gateway_rss as f64 / MIB))],
        )?,
        lines("Times: share of samples up to", "ms", "share", true, &curves)?,
    ] {
        page.push_str(&svg);
    }
    Ok(())
}

const MIB: f64 = 1_048_576.0;

fn table(page: &mut String, title: &str, rows: impl IntoIterator<Item = (String, String)>) -> Result<()> {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    write!(page, "<h2>{}</h2><table>", escape(title))?;
    for (name, value) in rows {
        write!(page, "<tr><td>{}</td><td class=\"n\">{}</td></tr>", escape(&name), escape(&value))?;
    }
    page.push_str("</table>");
    Ok(())
}

/// Three digits that mean something, without an exponent.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
