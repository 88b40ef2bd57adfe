//! The page of the comparison, in one file without anything beside it.

use std::fmt::Write as _;

use anyhow::Result;

use super::figure::Footnotes;
use super::forward::Row;
use super::report::Report;
use crate::forward::Way;
use crate::report::page::{STYLE, escape, goals};

/// Bars of the plots, and dashes that say why.
const MORE_STYLE: &str = ".bar{display:inline-block;height:.8em;background:#005ab5;vertical-align:middle}\
.bar.them{background:#dc3220}.bar.bound{background:#aaa}small{color:#666}";
/// Width of the longest bar, in pixels.
const WIDEST: f64 = 320.0;

/// The whole page.
///
/// # Errors
/// None in practice: text is written into memory.
pub fn render(report: &Report) -> Result<String> {
    let mut page = String::new();
    let ended = if report.interrupted { ", ended by the user" } else { "" };
    write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>jumpgate-bench peers</title>\
         <style>{STYLE}{MORE_STYLE}</style></head><body><h1>Jumpgate beside WireGuard in user space{ended}</h1><p>{}</p>",
        escape(&report.environment.line())
    )?;
    goals(&mut page, &report.goals)?;
    if !report.ratios.is_empty() {
        page.push_str("<h2>Ratios to the best peer</h2><table>");
        for (name, ratio) in &report.ratios {
            write!(page, "<tr><td>{}</td><td class=\"n\">{ratio:.2}</td></tr>", escape(name))?;
        }
        page.push_str("</table>");
    }
    let mut cases: Vec<(usize, Way)> = Vec::new();
    for row in &report.rows {
        if !cases.contains(&(row.inner_bytes, row.way)) {
            cases.push((row.inner_bytes, row.way));
        }
    }
    for (bytes, way) in cases {
        let rows = report.rows.iter().filter(|row| (row.inner_bytes, row.way) == (bytes, way));
        forwarding(&mut page, bytes, way, &rows.collect::<Vec<_>>())?;
    }
    crowd(&mut page, report)?;
    page.push_str("<h2>Gateways</h2><table>");
    for subject in &report.subjects {
        write!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            subject.name,
            escape(&subject.version),
            escape(subject.settings)
        )?;
    }
    page.push_str("</table><h2>Conditions</h2><table>");
    for (name, value) in &report.conditions {
        write!(page, "<tr><td>{name}</td><td>{}</td></tr>", escape(&value.to_string()))?;
    }
    page.push_str("</table>");
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

fn forwarding(page: &mut String, bytes: usize, way: Way, rows: &[&Row]) -> Result<()> {
    let way = format!("{way:?}").to_lowercase();
    write!(
        page,
        "<h2>Forwarding, {bytes} bytes {way}</h2><table><tr><th></th><th>kpps (min to max)</th><th>Gbit/s</th>\
         <th>ns CPU per packet</th><th></th></tr>"
    )?;
    let bounds = rows.iter().filter_map(|row| row.bound.as_ref());
    let highest = rows.iter().map(|row| row.forwarded.median).chain(bounds.map(|bound| bound.bound.median));
    let highest = highest.fold(1.0, f64::max);
    let bar = |value: f64, class: &str| {
        format!("<span class=\"bar {class}\" style=\"width:{:.0}px\"></span>", value / highest * WIDEST)
    };
    for row in rows {
        let Row { forwarded, .. } = row;
        let limit = if row.generator_limits { "<br><small>the generator limits</small>" } else { "" };
        write!(
            page,
            "<tr><td>{}</td><td class=\"n\">{:.0} ({:.0} to {:.0}){limit}</td><td class=\"n\">{:.2}</td>\
             <td class=\"n\">{:.0}</td><td>{}</td></tr>",
            escape(&row.subject),
            forwarded.median / 1e3,
            forwarded.min / 1e3,
            forwarded.max / 1e3,
            row.bits_per_s / 1e9,
            row.cpu_ns_per_packet.median,
            bar(forwarded.median, if row.bound.is_some() { "" } else { "them" }),
        )?;
        let others = [
            ("the worker alone", row.alone.as_ref().map(|alone| alone.median)),
            ("bound: bare forwarder and AEAD", row.bound.as_ref().map(|bound| bound.bound.median)),
        ];
        for (name, value) in others {
            let Some(value) = value else { continue };
            write!(
                page,
                "<tr><td><small>{name}</small></td><td class=\"n\">{:.0}</td><td class=\"n\">{:.2}</td><td></td>\
                 <td>{}</td></tr>",
                value / 1e3,
                value * bytes as f64 * 8.0 / 1e9,
                bar(value.min(highest), "bound"),
            )?;
        }
    }
    page.push_str("</table>");
    Ok(())
}

fn crowd(page: &mut String, report: &Report) -> Result<()> {
    let mut notes = Footnotes::default();
    let table = report.crowd_table(&mut notes);
    if table.is_empty() {
        return Ok(());
    }
    page.push_str("<h2>Many clients at once</h2><table><tr><th></th>");
    for subject in &report.subjects {
        write!(page, "<th>{}</th>", subject.name)?;
    }
    page.push_str("</tr>");
    for (title, cells) in table {
        write!(page, "<tr><td>{}</td>", escape(&title))?;
        for cell in cells {
            write!(page, "<td class=\"n\">{}</td>", escape(&cell))?;
        }
        page.push_str("</tr>");
    }
    page.push_str("</table>");
    for (number, why) in notes.iter() {
        write!(page, "<p><small>[{number}] {}</small></p>", escape(why))?;
    }
    Ok(())
}
