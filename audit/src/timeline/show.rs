//! Timelines as text.

use std::fmt::Write as _;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use super::clock::{span, time_of_day, utc};
use super::{Story, Summary};

/// All sessions, one line each.
pub fn show_list(summaries: &[Summary]) -> String {
    if summaries.is_empty() {
        return "no sessions in this trace\n".to_owned();
    }
    let mut table =
        table(&["SESSION", "TOLD BY", "CREATED", "AGE", "STATE", "END", "SWITCHES", "RECOVERIES", "IN TROUBLE"]);
    right(&mut table, &[3, 6, 7, 8]);
    for summary in summaries {
        table.add_row(vec![
            summary.session.clone(),
            summary.role.clone(),
            summary.born_ms.map_or_else(|| "before the trace".to_owned(), |born| utc(born).to_string()),
            summary.age_ms.map_or_else(String::new, span),
            summary.state.clone(),
            summary.end.clone().unwrap_or_default(),
            summary.switches.to_string(),
            summary.recoveries.to_string(),
            span(summary.troubled_ms),
        ]);
    }
    format!("{table}\n")
}

/// The life of one session, as each end tells it.
pub fn show(stories: &[Story]) -> String {
    let mut out = String::new();
    for (index, story) in stories.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        // Writing to a String cannot fail.
        let _ = write_story(&mut out, story);
    }
    out
}

fn write_story(out: &mut String, story: &Story) -> std::fmt::Result {
    writeln!(out, "session {}, told by {} {}", story.session, story.role, story.node)?;
    let born =
        story.born_ms.map_or_else(|| "created before the trace".to_owned(), |born| format!("created {}", utc(born)));
    let end = match &story.end {
        Some(reason) => format!("ended {} by {reason}", utc(story.last_ms)),
        None => format!("not ended, last record {}", utc(story.last_ms)),
    };
    let age = story.age_ms().map_or_else(String::new, |age| format!(", age {}", span(age)));
    writeln!(out, "  {born}, {end}{age} (UTC)")?;
    let policy = story.policy.as_deref().unwrap_or("unknown");
    write!(out, "  policy {policy}, {} transitions, {} switches", story.changes.len(), story.switches.len())?;
    match story.traffic {
        Some((packets, bytes)) => writeln!(out, ", {bytes} bytes in {packets} packets")?,
        None => writeln!(out)?,
    }
    section(out, "States", states(story), story.stays.len())?;
    section(out, "Switches", switches(story), story.switches.len())?;
    section(out, "Recovery windows", windows(story), story.windows.len())?;
    section(out, "Without any transport", outages(story), story.outages.len())?;
    section(out, "Besides", facts(story), story.facts.len())
}

fn section(out: &mut String, title: &str, table: Table, rows: usize) -> std::fmt::Result {
    if rows == 0 {
        return Ok(());
    }
    writeln!(out, "\n  {title}")?;
    for line in table.to_string().lines() {
        writeln!(out, "    {}", line.trim_end())?;
    }
    Ok(())
}

fn states(story: &Story) -> Table {
    let mut table = table(&["SINCE", "FOR", "STATE", "WHY"]);
    right(&mut table, &[1]);
    for stay in &story.stays {
        let length = match stay.until_ms {
            Some(until) => span(until.saturating_sub(stay.from_ms)),
            None if stay.state == "TERMINATED" => String::new(),
            None => format!("> {}", span(story.last_ms.saturating_sub(stay.from_ms))),
        };
        table.add_row(vec![time_of_day(stay.from_ms), length, stay.state.clone(), stay.why.clone()]);
    }
    table
}

fn switches(story: &Story) -> Table {
    let mut table = table(&["AT", "FROM", "TO", "CAUSE", "TOOK", "EPOCH"]);
    right(&mut table, &[1, 2, 4, 5]);
    let path = |path: Option<u64>| path.map_or_else(|| "none".to_owned(), |path| path.to_string());
    for switch in &story.switches {
        table.add_row(vec![
            time_of_day(switch.at_ms),
            path(switch.from),
            path(switch.to),
            switch.cause.clone(),
            micros(switch.latency_us),
            switch.epoch.to_string(),
        ]);
    }
    table
}

fn windows(story: &Story) -> Table {
    let mut table = table(&[
        "START",
        "END",
        "TOOK",
        "CAUSE",
        "OUTCOME",
        "ATTEMPTS",
        "REJECTS",
        "REQUEST TO ACK",
        "RATE HITS",
        "REPLAYS",
    ]);
    right(&mut table, &[2, 5, 6, 7, 8, 9]);
    for window in &story.windows {
        let until = window.until_ms.unwrap_or(story.last_ms);
        table.add_row(vec![
            time_of_day(window.from_ms),
            window.until_ms.map_or_else(|| "open".to_owned(), time_of_day),
            span(until.saturating_sub(window.from_ms)),
            window.cause.clone(),
            window.outcome.clone().unwrap_or_default(),
            window.attempts.to_string(),
            window.rejects.to_string(),
            window.ack_us.map_or_else(String::new, micros),
            window.rate_hits.to_string(),
            window.replays.to_string(),
        ]);
    }
    table
}

fn outages(story: &Story) -> Table {
    let mut table = table(&["SINCE", "FOR"]);
    right(&mut table, &[1]);
    for outage in &story.outages {
        let length = span(outage.until_ms.unwrap_or(story.last_ms).saturating_sub(outage.from_ms));
        let length = if outage.until_ms.is_some() { length } else { format!("> {length}") };
        table.add_row(vec![time_of_day(outage.from_ms), length]);
    }
    table
}

fn facts(story: &Story) -> Table {
    let mut table = table(&["AT", "WHAT", "REASON", ""]);
    for fact in &story.facts {
        table.add_row(vec![
            time_of_day(fact.at_ms),
            fact.event.clone(),
            fact.reason.clone().unwrap_or_default(),
            fact.fields.join(", "),
        ]);
    }
    table
}

fn micros(micros: u64) -> String {
    if micros < 10_000 { format!("{}.{:03} ms", micros / 1_000, micros % 1_000) } else { span(micros / 1_000) }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied());
    table
}

fn right(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}
