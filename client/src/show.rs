//! Status and events as people read them.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use crate::report::{Event, EventLine, PathReport, PathState, Phase, Status, milliseconds};

/// Latest switches that the table shows; `--json` has all that are kept.
const SHOWN_SWITCHES: usize = 5;

/// The text of `jump status`.
pub fn status(status: &Status) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_head(&mut out, status);
    let _ = writeln!(out, "\n{}", paths(&status.paths));
    if !status.switches.is_empty() {
        let _ = writeln!(out, "\n{}", switches(status));
    }
    if !status.drops.is_empty() {
        let drops: Vec<String> = status.drops.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let _ = writeln!(out, "\ndropped: {}", drops.join(", "));
    }
    out
}

fn write_head(out: &mut String, status: &Status) -> std::fmt::Result {
    let phase = match status.phase {
        Phase::NoUplink => "waiting for an uplink",
        Phase::Connecting => "connecting",
        Phase::Connected => "connected",
        Phase::Waiting => "waiting for the next attempt",
        Phase::Stopping => "stopping",
    };
    writeln!(out, "{}: {phase}", status.interface)?;
    if let Some(error) = status.last_error.as_ref().filter(|_| status.phase != Phase::Connected) {
        writeln!(out, "last error: {error}")?;
    }
    if let Some(session) = &status.session {
        let via = status.active_interface.as_deref().unwrap_or("no path");
        let reason = status.reason.as_deref().unwrap_or("-");
        writeln!(out, "session {session}: {} ({reason}), epoch {}, via {via}", status.state, status.epoch)?;
        let age = Duration::from_secs(status.age_ms / 1_000);
        let addresses: Vec<String> = status.addresses.iter().map(ToString::to_string).collect();
        let mtu = status.mtu.map_or("-".to_owned(), |mtu| mtu.to_string());
        writeln!(out, "age {}, addresses {}, MTU {mtu}", seconds(age), addresses.join(" "))?;
        let (tx, rx) = (status.tx, status.rx);
        writeln!(
            out,
            "sent {} in {} packets, received {} in {} packets, {} switches",
            bytes(tx.bytes),
            tx.packets,
            bytes(rx.bytes),
            rx.packets,
            status.switches_total
        )?;
    }
    Ok(())
}

fn paths(paths: &[PathReport]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["path", "uplink", "state", "rtt ms", "loss %", "local", "gateway"]);
    for path in paths {
        let state = match (path.state, path.validated, &path.cause) {
            (PathState::Active, ..) => "active".to_owned(),
            (PathState::Standby, true, _) => "standby, validated".to_owned(),
            (PathState::Standby, false, _) => "standby".to_owned(),
            (PathState::Down, _, Some(cause)) => format!("down: {cause}"),
            (PathState::Down, _, None) => "down".to_owned(),
        };
        table.add_row([
            path.id.to_string(),
            path.interface.clone(),
            state,
            path.rtt_us.map_or("-".to_owned(), |rtt| format!("{}.{}", rtt / 1_000, rtt % 1_000 / 100)),
            format!("{}.{}", path.loss_permille / 10, path.loss_permille % 10),
            path.local.map_or("-".to_owned(), |local| local.to_string()),
            path.gateway.to_string(),
        ]);
    }
    for numeric in [3, 4] {
        if let Some(column) = table.column_mut(numeric) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn switches(status: &Status) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["switch", "from", "to", "because", "epoch", "noticed after", "done after"]);
    for switch in status.switches.iter().rev().take(SHOWN_SWITCHES) {
        let ago = Duration::from_millis(crate::clock::unix_ms().saturating_sub(switch.time_ms));
        table.add_row([
            format!("{} ago", seconds(ago)),
            switch.from_interface.clone().unwrap_or_else(|| "-".to_owned()),
            switch.to_interface.clone(),
            switch.reason.clone().unwrap_or_else(|| "-".to_owned()),
            switch.epoch.to_string(),
            milliseconds(switch.detect_us),
            milliseconds(switch.switch_us),
        ]);
    }
    table
}

/// One line of `jump status --follow`.
pub fn event(line: &EventLine) -> String {
    let at = |value: &Option<String>| value.as_deref().unwrap_or("none").to_owned();
    let text = match &line.event {
        Event::Connected { session, interface, mtu, .. } => {
            format!("connected: session {session} via {}, MTU {mtu}", at(interface))
        }
        Event::ConnectFailed { reason } => format!("handshake failed: {reason}"),
        Event::Transition { transition, from, to, reason, epoch, interface, .. } => {
            format!("{transition}: {from} -> {to}: {reason}, epoch {epoch}, via {}", at(interface))
        }
        Event::Switched { switch } => format!(
            "moved: {} -> {}, epoch {}, noticed after {}, done after {}",
            at(&switch.from_interface),
            switch.to_interface,
            switch.epoch,
            milliseconds(switch.detect_us),
            milliseconds(switch.switch_us)
        ),
        Event::Refused { reason, interface, .. } => format!("refused on {interface}: {reason}"),
        Event::Terminated { reason, detail } => format!("session ended: {reason}, {}", at(detail)),
        Event::PathUp { interface, local, gateway, .. } => format!("path up: {interface}, {local} -> {gateway}"),
        Event::PathDown { interface, cause, .. } => format!("path down: {interface}, {cause}"),
        Event::Retry { delay_ms } => format!("next handshake in {delay_ms} ms"),
        Event::Missed { count } => format!("{count} events missed"),
    };
    format!("{}.{:03} {text}", line.time_ms / 1_000, line.time_ms % 1_000)
}

fn seconds(duration: Duration) -> String {
    let total = duration.as_secs();
    match (total / 3_600, total % 3_600 / 60, total % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

fn bytes(count: u64) -> String {
    match count {
        0..=9_999 => format!("{count} B"),
        10_000..=9_999_999 => format!("{} kB", count / 1_000),
        _ => format!("{} MB", count / 1_000_000),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::{SwitchReport, Traffic};

    pub(crate) fn sample() -> Status {
        let path = |id: u16, interface: &str, state, cause: Option<&str>| PathReport {
            id,
            interface: interface.into(),
            priority: 10,
            state,
            validated: state != PathState::Down,
            cause: cause.map(str::to_owned),
            local: None,
            gateway: "192.0.2.1:51900".parse().unwrap(),
            observed: None,
            rtt_us: Some(20_480),
            jitter_us: Some(100),
            loss_permille: 15,
        };
        let switch = SwitchReport {
            time_ms: 1,
            from: Some(1),
            from_interface: Some("wifi0".into()),
            to: 2,
            to_interface: "lte0".into(),
            reason: Some("TRANSPORT_DEAD".into()),
            detail: None,
            epoch: 2,
            detect_us: 1_500,
            switch_us: 42_000,
        };
        Status {
            phase: Phase::Connected,
            session: Some("00a1".into()),
            state: "ATTACHED".into(),
            reason: Some("REATTACH_SUCCESS".into()),
            epoch: 2,
            active: Some(2),
            active_interface: Some("lte0".into()),
            age_ms: 61_000,
            interface: "jump0".into(),
            addresses: vec!["10.66.0.5/16".parse().unwrap()],
            mtu: Some(1380),
            tx: Traffic { packets: 3, bytes: 300 },
            rx: Traffic { packets: 4, bytes: 40_000 },
            sessions: 1,
            last_error: None,
            paths: vec![
                path(1, "wifi0", PathState::Down, Some("no carrier")),
                path(2, "lte0", PathState::Active, None),
            ],
            switches_total: 1,
            switches: [switch].into(),
            drops: [("DATA_REPLAY".to_owned(), 2)].into(),
        }
    }

    #[test]
    fn the_table_tells_what_an_operator_asks_first() {
        let text = status(&sample());
        for part in [
            "connected",
            "00a1",
            "ATTACHED",
            "lte0",
            "no carrier",
            "20.4",
            "1.5",
            "TRANSPORT_DEAD",
            "1 min 1 s",
            "DATA_REPLAY 2",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn a_status_survives_its_json_form() {
        let text = serde_json::to_string(&sample()).unwrap();
        let back: Status = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
    }

    #[test]
    fn an_event_survives_its_json_form_and_reads_as_a_line() {
        let event_line = EventLine {
            time_ms: 1_234,
            boottime_us: 5,
            event: Event::Switched { switch: sample().switches[0].clone() },
        };
        let text = serde_json::to_string(&event_line).unwrap();
        assert!(text.contains("\"event\":\"switched\""), "{text}");
        let back: EventLine = serde_json::from_str(&text).unwrap();
        assert_eq!(event(&back), "1.234 moved: wifi0 -> lte0, epoch 2, noticed after 1.500 ms, done after 42.000 ms");
    }
}
