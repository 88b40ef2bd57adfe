//! What commands print for people.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::admin::{CounterRow, SessionRow, SlotRow};
use crate::config::{Config, InsideKind};

/// Digits of an audit id that the table shows; the JSON has all.
const AUDIT_ID_SHOWN: usize = 8;

/// The sessions; with the rows of the time before, also their rates.
pub fn sessions(rows: &[SessionRow], before: Option<(&[SessionRow], Duration)>) -> String {
    if rows.is_empty() {
        return "no sessions\n".to_owned();
    }
    let earlier: HashMap<&str, &SessionRow> =
        before.iter().flat_map(|(rows, _)| *rows).map(|row| (row.locator.as_str(), row)).collect();
    let pause = before.map(|(_, pause)| pause);
    let mut table = table(&[
        "SESSION",
        "AUDIT ID",
        "CLIENT",
        "STATE",
        "REASON",
        "PEER",
        "PATH",
        "EPOCH",
        "INNER",
        "WORKER",
        "LOSS %",
        "JUMPS",
        "FROM CLIENT",
        "TO CLIENT",
        "AGE",
    ]);
    for row in rows {
        let old = earlier.get(row.locator.as_str());
        let inner = [row.inner_v4.map(|ip| ip.to_string()), row.inner_v6.map(|ip| ip.to_string())];
        let peer = match (row.peer, row.validated) {
            (Some(peer), true) => peer.to_string(),
            (Some(peer), false) => format!("{peer} (unvalidated)"),
            (None, _) => "none".to_owned(),
        };
        table.add_row(vec![
            row.locator.clone(),
            // As much as `jumpgate audit timeline --session` needs.
            row.session_id.chars().take(AUDIT_ID_SHOWN).collect(),
            row.client.clone(),
            row.state.clone(),
            row.reason.clone().unwrap_or_default(),
            peer,
            row.transport_id.map(|id| id.to_string()).unwrap_or_default(),
            row.epoch.to_string(),
            inner.into_iter().flatten().collect::<Vec<_>>().join("\n"),
            format!("{} <- queue {}", row.worker, row.queue),
            format!("{}.{}", row.loss_permille / 10, row.loss_permille % 10),
            row.switches.to_string(),
            traffic((row.rx_packets, row.rx_bytes), old.map(|old| (old.rx_packets, old.rx_bytes)), pause),
            traffic((row.tx_packets, row.tx_bytes), old.map(|old| (old.tx_packets, old.tx_bytes)), pause),
            age(row.age_ms),
        ]);
    }
    format!("{table}\n")
}

/// Counters, one a line.
pub fn counters(rows: &[CounterRow]) -> String {
    let mut table = table(&["WHERE", "WHAT", "COUNT"]);
    if let Some(column) = table.column_mut(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in rows {
        table.add_row(vec![row.place.clone(), row.name.clone(), row.value.to_string()]);
    }
    format!("{table}\n")
}

/// What each worker owns.
pub fn slots(rows: &[SlotRow]) -> String {
    let mut table =
        table(&["WORKER", "SLOTS", "LEAVING", "SESSIONS", "PACKETS IN", "PACKETS OUT", "DROPPED AS ANOTHER'S"]);
    for row in rows {
        table.add_row(vec![
            row.worker.to_string(),
            row.slots.to_string(),
            row.leaving.to_string(),
            row.sessions.to_string(),
            scaled(row.rx_packets, ""),
            scaled(row.tx_packets, ""),
            row.misdirected.to_string(),
        ]);
    }
    format!("{table}\n")
}

/// What a configuration means.
pub fn summary(config: &Config) -> String {
    let mut text = String::new();
    let listen: Vec<_> = config.outside.listen.iter().map(ToString::to_string).collect();
    let inside = match config.inside.kind {
        InsideKind::Veth => "a pair into this host's kernel",
        InsideKind::Nic => "a network interface",
    };
    let pools =
        [config.inside.pool.v4().map(|net| net.to_string()), config.inside.pool.v6().map(|net| net.to_string())];
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  public key  {}", crate::keyfile::text(&config.secret.public().0));
    let _ = writeln!(text, "  outside     {} at {}", config.outside.interface, listen.join(", "));
    let _ = writeln!(text, "  inside      {}: {inside}", config.inside.interface);
    let pools = pools.into_iter().flatten().collect::<Vec<_>>().join(" and ");
    let _ = writeln!(text, "  pool        {pools}, {} addresses", config.inside.pool.addresses().size());
    let _ = writeln!(text, "  policy      profile {}, version {}", config.policy.profile, config.policy.version);
    let _ = writeln!(text, "  clients     {}", config.clients.len());
    let audit = config.audit.as_ref().map_or_else(|| "none".to_owned(), |audit| audit.path.display().to_string());
    let _ = writeln!(text, "  audit       {audit}");
    text
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.to_vec());
    table
}

/// `packets / bytes`, since birth or, if what they were before is known, a second.
fn traffic(now: (u64, u64), before: Option<(u64, u64)>, pause: Option<Duration>) -> String {
    let Some(millis) = pause.map(|pause| pause.as_millis().max(1) as u64) else {
        return format!("{} / {}", scaled(now.0, ""), scaled(now.1, "B"));
    };
    let before = before.unwrap_or((0, 0));
    let rate = |now: u64, before: u64| now.saturating_sub(before).saturating_mul(1000) / millis;
    format!("{} / {}", scaled(rate(now.0, before.0), "p/s"), scaled(rate(now.1, before.1), "B/s"))
}

fn scaled(value: u64, unit: &str) -> String {
    let (divisor, prefix) = match value {
        0..10_000 => return format!("{value} {unit}").trim_end().to_owned(),
        10_000..10_000_000 => (1_000, "k"),
        10_000_000..10_000_000_000 => (1_000_000, "M"),
        _ => (1_000_000_000, "G"),
    };
    let tenths = value / (divisor / 10);
    format!("{}.{} {prefix}{unit}", tenths / 10, tenths % 10)
}

fn age(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> SessionRow {
        SessionRow {
            locator: "0123456789abcdef".into(),
            session_id: "00112233445566778899aabbccddeeff".to_owned(),
            client: "alice".into(),
            state: "ATTACHED".into(),
            reason: Some("REATTACH_SUCCESS".into()),
            epoch: 3,
            version: 9,
            peer: Some(([198, 51, 100, 7], 40_000).into()),
            local: Some(([192, 0, 2, 1], 51_900).into()),
            transport_id: Some(2),
            validated: true,
            worker: 1,
            queue: 0,
            inner_v4: Some([10, 66, 0, 2].into()),
            inner_v6: None,
            rx_packets: 1_500,
            rx_bytes: 2_000_000,
            tx_packets: 10,
            tx_bytes: 100,
            loss_permille: 123,
            switches: 2,
            age_ms: 61_000,
        }
    }

    #[test]
    fn a_session_shows_all_that_an_operator_asks_for() {
        let text = sessions(&[row()], None);
        for wanted in [
            "0123456789abcdef",
            "alice",
            "ATTACHED",
            "REATTACH_SUCCESS",
            "198.51.100.7:40000",
            "10.66.0.2",
            "1 <- queue 0",
            "12.3",
            "1500 / 2000.0 kB",
            "10 / 100 B",
            "1 min 1 s",
        ] {
            assert!(text.contains(wanted), "{wanted} in\n{text}");
        }
        assert_eq!(sessions(&[], None), "no sessions\n");
    }

    #[test]
    fn rates_are_differences_by_the_time_between() {
        let later = SessionRow { rx_packets: 5_500, rx_bytes: 42_000_000, ..row() };
        let text = sessions(&[later], Some((&[row()], Duration::from_secs(2))));
        assert!(text.contains("2000 p/s / 20.0 MB/s"), "{text}");
        assert!(text.contains("0 p/s / 0 B/s"), "{text}");
    }

    #[test]
    fn a_session_without_transport_says_so() {
        let text = sessions(&[SessionRow { peer: None, validated: false, ..row() }], None);
        assert!(text.contains("none"), "{text}");
    }
}
