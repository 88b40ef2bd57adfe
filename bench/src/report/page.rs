//! The page: what happened, at a glance, in one file without anything beside it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;

use super::plot::{Bar, Line, bars as bars_of, lines};
use super::{Goal, Report};
use crate::load::book::{Distribution, Moment};
use crate::load::scenario::throughput::Row;

pub(crate) const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;margin:.5em 0}\
td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:left}td.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}\
.PASS,.met{color:#00713f}.CONDITIONAL,.missed{color:#a04a00}.FAIL{color:#b00020}code{background:#f3f3f3;padding:.1em .3em}\
svg{max-width:100%;height:auto}.tiles{display:flex;flex-wrap:wrap;gap:.8em;margin:1em 0}\
.tile{border:1px solid #ddd;border-radius:6px;padding:.5em .9em;min-width:8em}.tile b{display:block;font-size:1.3em}\
.tile span{color:#555;font-size:.85em}.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(24em,1fr));gap:0 2em}\
.scroll{overflow-x:auto}";

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
    tiles(&mut page, report)?;
    goals(&mut page, &report.goals)?;
    rows(&mut page, &report.rows)?;
    plots(&mut page, report)?;
    times(&mut page, &report.times)?;
    page.push_str("<div class=\"grid\"><div>");
    table(&mut page, "Measured", report.summary.iter().map(|(name, value)| (name.to_string(), number(*value))))?;
    page.push_str("</div><div>");
    cost(&mut page, report)?;
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
    page.push_str("</div></div><div class=\"grid\">");
    for (kind, reasons) in &report.reasons {
        page.push_str("<div>");
        table(&mut page, kind, reasons.iter().map(|(name, count)| (name.clone(), count.to_string())))?;
        page.push_str("</div>");
    }
    page.push_str("</div>");
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

/// What a person sees first.
fn tiles(page: &mut String, report: &Report) -> Result<()> {
    let cost = &report.gateway;
    let unsafe_counters = report.safety.values().filter(|count| **count > 0).count();
    let met = report.goals.iter().filter(|goal| goal.is_met()).count();
    let safety = if unsafe_counters == 0 { "all 0".to_owned() } else { format!("{unsafe_counters} MOVED") };
    let mut tiles = vec![
        ("took".to_owned(), format!("{:.1} s", report.duration_s)),
        ("safety counters".to_owned(), safety),
        ("audit log".to_owned(), report.verifier.verdict.clone()),
    ];
    if !report.goals.is_empty() {
        tiles.push(("goals met".to_owned(), format!("{met} of {}", report.goals.len())));
    }
    for name in ["reattach", "round_trip", "handshake"] {
        if let Some(Distribution { p50_ms: Some(p50), p99_ms, .. }) = report.times.get(name) {
            let p99 = p99_ms.map_or("–".to_owned(), number);
            tiles.push((format!("{name}, p50 / p99 ms"), format!("{} / {p99}", number(*p50))));
        }
    }
    tiles.push(("CPU of the gateway".to_owned(), format!("{:.0} %", cost.cpu_share * 100.0)));
    if let Some(bytes) = cost.memory_per_session {
        tiles.push(("memory per session".to_owned(), format!("{} KiB", number(bytes / 1_024.0))));
    }
    page.push_str("<div class=\"tiles\">");
    for (name, value) in tiles {
        write!(page, "<div class=\"tile\"><b>{}</b><span>{}</span></div>", escape(&value), escape(&name))?;
    }
    page.push_str("</div>");
    Ok(())
}

/// Throughput: the rows, and for each number of sessions how close to the bound.
fn rows(page: &mut String, rows: &[Row]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    page.push_str("<h2>Throughput</h2>");
    let bars: Vec<Bar> = rows
        .iter()
        .map(|row| Bar {
            name: format!("{}, {} sessions", packets_of(row), row.sessions),
            parts: vec![
                ("bound", row.bound.median / MEGA),
                ("alone", row.drained.median / MEGA),
                ("under load", row.arrived.median / MEGA),
            ],
        })
        .collect();
    page.push_str(&bars_of("Million packets per second", &bars));
    page.push_str("<div class=\"scroll\"><table><tr><th>packets</th>");
    for head in [
        "sessions",
        "bound, Mpps",
        "alone",
        "of bound",
        "under load",
        "offered",
        "Gbit/s",
        "process, ns",
        "softirq, ns",
        "lost",
    ] {
        write!(page, "<th>{head}</th>")?;
    }
    page.push_str("</tr>");
    for row in rows {
        let limit = if row.gateway_limits { "" } else { " (generator limits)" };
        write!(page, "<tr><td>{}{limit}</td><td class=\"n\">{}</td>", packets_of(row), row.sessions)?;
        let lost = row.losses.offered.saturating_sub(row.losses.arrived) as f64 / row.losses.offered.max(1) as f64;
        for value in [
            number(row.bound.median / MEGA),
            number(row.drained.median / MEGA),
            number(row.drained_ratio.median),
            number(row.arrived.median / MEGA),
            number(row.offered.median / MEGA),
            number(row.bits_per_s / 1e9),
            number(row.process_ns),
            number(row.softirq_ns),
            format!("{:.1} %", lost * 100.0),
        ] {
            write!(page, "<td class=\"n\">{value}</td>")?;
        }
        page.push_str("</tr>");
    }
    page.push_str("</table></div>");
    let mut losses = BTreeMap::new();
    for (reason, count) in rows.iter().flat_map(|row| &row.losses.dropped) {
        *losses.entry(reason.clone()).or_insert(0) += count;
    }
    table(
        page,
        "Drops while packets were poured",
        losses.into_iter().map(|(why, count): (_, u64)| (why, count.to_string())),
    )
}

/// Which packets a row is of, in words.
fn packets_of(row: &Row) -> String {
    let unit = if row.inner_bytes == "mixed" { "" } else { " B" };
    format!("{}{unit} {}", row.inner_bytes, format!("{:?}", row.way).to_lowercase())
}

fn cost(page: &mut String, report: &Report) -> Result<()> {
    let cost = &report.gateway;
    let maybe = |value: Option<f64>| value.map_or("–".to_owned(), number);
    let rows = [
        ("CPU of the process, s", number(cost.cpu_s)),
        ("softirq on its CPU, s", number(cost.softirq_s)),
        ("packets to its workers", cost.packets.to_string()),
        ("process per packet, ns", maybe(cost.cpu_ns_per_packet)),
        ("softirq per packet, ns", maybe(cost.softirq_ns_per_packet)),
        ("CPU share per 1000 sessions", maybe(cost.cpu_share_per_1000_sessions)),
        ("softirq share per 1000 sessions", maybe(cost.softirq_share_per_1000_sessions)),
        ("resident memory, MiB", number(cost.resident as f64 / MIB)),
        ("before the first session, MiB", number(cost.resident_empty as f64 / MIB)),
        ("memory per session, bytes", maybe(cost.memory_per_session)),
    ];
    table(page, "Gateway", rows.map(|(name, value)| (name.to_owned(), value)))
}

pub(crate) fn goals(page: &mut String, goals: &[Goal]) -> Result<()> {
    if goals.is_empty() {
        return Ok(());
    }
    page.push_str("<h2>Goals</h2><table><tr><th>goal</th><th>measured</th><th>bound</th><th></th></tr>");
    for goal in goals {
        let unit = escape(&goal.unit);
        let measured = if goal.measured.is_nan() {
            "not measured".to_owned()
        } else {
            format!("{} {unit}", number(goal.measured))
        };
        let (class, sign) = (if goal.is_met() { "met" } else { "missed" }, if goal.at_least { "≥" } else { "≤" });
        write!(
            page,
            "<tr><td>{}</td><td class=\"n\">{measured}</td><td class=\"n\">{sign} {} {unit}</td>\
             <td class=\"{class}\">{class}</td></tr>",
            escape(&goal.name),
            number(goal.bound),
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
    let course = |of: fn(&Moment) -> f64| -> Vec<(f64, f64)> {
        report.course.iter().map(|moment| (moment.at_s, of(moment))).collect()
    };
    let sessions: [Line<'_>; 2] =
        [("attached", course(|moment| moment.attached as f64)), ("moving", course(|moment| moment.moving as f64))];
    let rates: [Line<'_>; 2] = [
        ("reattaches", per_second(report, |moment| moment.reattaches)),
        ("handshakes", per_second(report, |moment| moment.handshakes)),
    ];
    let frames: [Line<'_>; 2] = [
        ("sent", per_second(report, |moment| moment.frames.0)),
        ("received", per_second(report, |moment| moment.frames.1)),
    ];
    let curves: Vec<Line<'_>> = report.curves.iter().map(|(name, points)| (*name, points.clone())).collect();
    if !report.course.is_empty() {
        page.push_str("<h2>Course</h2>");
    }
    let back: Vec<Line<'_>> = match report.curves.iter().find(|(name, _)| **name == "reattach") {
        Some((_, points)) if report.scenario == "storm" => vec![("back", points.clone())],
        _ => Vec::new(),
    };
    for svg in [
        lines("The storm: share of the clients that are back", "ms since their path died", "share", false, &back)?,
        lines("Sessions", "s", "sessions", false, &sessions)?,
        lines("Control plane", "s", "per second", false, &rates)?,
        lines("Throughput at the generator", "s", "frames per second", false, &frames)?,
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

/// What happened between each moment and the one before, per second.
fn per_second(report: &Report, of: fn(&Moment) -> u64) -> Vec<(f64, f64)> {
    let mut before_s = 0.0;
    let rates = report.course.iter().map(|moment| {
        let elapsed = (moment.at_s - before_s).max(f64::EPSILON);
        before_s = moment.at_s;
        (moment.at_s, of(moment) as f64 / elapsed)
    });
    rates.collect()
}

const MIB: f64 = 1_048_576.0;
const MEGA: f64 = 1e6;

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
        size if size >= 100.0 || size.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
