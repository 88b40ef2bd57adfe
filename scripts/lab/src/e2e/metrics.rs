//! Metrics of a gateway and a client at work: every family of the documented tables is there, and what is done to the
//! gateway shows where it should and nowhere else.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jumpgate_metrics::Readings;
use jumpgate_protocol::entropy::SeededEntropy;
use jumpgate_protocol::handshake::StaticSecret;
use jumpgate_protocol::ident::Locator;
use jumpgate_protocol::wire::{Cause, MessageType};

use super::arena::{Arena, forged_source};
use super::{Test, wait_for};
use crate::attacker::{Answer, frame, hello};
use crate::programs::METRICS;
use crate::topology::{LTE, Lab};

pub(super) const TESTS: &[Test] = &[Test {
    name: "metrics: a gateway under load has every family of the table, and what is done to it shows there (R68)",
    run: under_load,
}];

/// The tables of both programs; unit tests hold them against the code.
const DOCUMENT: &str = include_str!("../../../../docs/metrics.md");
/// Counters and histograms that the test makes grow.
const GROWN: &[&str] = &[
    "jumpgate_sessions_created_total",
    "jumpgate_sessions_terminated_total",
    "jumpgate_state_transitions_total",
    "jumpgate_state_residence_seconds",
    "jumpgate_session_age_seconds",
    "jumpgate_transition_duration_seconds",
    "jumpgate_eviction_duration_seconds",
    "jumpgate_lookup_duration_seconds",
    "jumpgate_detection_latency_seconds",
    "jumpgate_recovery_latency_seconds",
    "jumpgate_transport_deaths_total",
    "jumpgate_transport_switches_total",
    "jumpgate_switch_denials_total",
    "jumpgate_oscillations_total",
    "jumpgate_reattach_requests_total",
    "jumpgate_control_rejects_total",
    "jumpgate_epoch_mismatches_total",
    "jumpgate_replay_rejects_total",
    "jumpgate_rate_limit_hits_total",
    "jumpgate_handshakes_total",
    "jumpgate_handshake_duration_seconds",
    "jumpgate_cookies_sent_total",
    "jumpgate_path_validations_total",
    "jumpgate_stateless_resets_total",
    "jumpgate_security_events_total",
    "jumpgate_security_suppressed_total",
    "jumpgate_packets_total",
    "jumpgate_bytes_total",
    "jumpgate_drops_total",
    "jumpgate_worker_cpu_seconds_total",
    "jumpgate_batch_packets",
    "jumpgate_heartbeats_total",
    "jumpgate_xdp_packets_total",
    "jumpgate_xdp_drops_total",
    "jumpgate_xdp_map_lag_seconds",
    "jumpgate_audit_records_total",
    "jumpgate_policy_reloads_total",
];
/// Counters that stay 0 whatever is done.
const STILL: &[&str] = &[
    "jumpgate_safety_violations_total",
    "jumpgate_cas_conflicts_total",
    "jumpgate_xdp_map_errors_total",
    "jumpgate_obs_ring_lost_total",
    "jumpgate_audit_gaps_total",
    "jumpgate_audit_sink_errors_total",
    "jumpgate_owner_store_errors_total",
];
/// Counters that other tests drive, or that this machine drives by itself.
const ELSEWHERE: &[&str] = &[
    "jumpgate_switch_failures_total",
    "jumpgate_rekeys_total",
    "jumpgate_xsk_errors_total",
    "jumpgate_owner_changes_total",
    "jumpgate_owner_store_seconds",
];
/// Forged handshakes: more than the gateway takes without cookies.
const HELLOS: u32 = 2_000;
/// What is refused for one reason: more than are recorded one by one.
const FORGERIES: u64 = 40;
/// Longest silence that a session of the profile `default` survives, and a little.
const SILENCE: Duration = Duration::from_millis(2_600);
/// How long a timer and the page may take.
const SOON: Duration = Duration::from_secs(5);

/// Name and type of each family of the table that stands below a heading.
fn table(heading: &str) -> Vec<(&'static str, &'static str)> {
    let below = DOCUMENT.split_once(heading).map_or("", |(_, below)| below);
    let rows = below.lines().skip_while(|line| !line.starts_with("| `")).take_while(|line| line.starts_with("| `"));
    rows.filter_map(|row| {
        let mut cells = row.split('|').map(str::trim).skip(1);
        Some((cells.next()?.trim_matches('`'), cells.next()?))
    })
    .collect()
}

/// Scrapes the gateway by HTTP, as a monitoring system on its host would.
fn scrape(lab: &Lab) -> Result<(String, Readings)> {
    let answer = lab.gateway.enter(|| -> Result<String> {
        let mut stream = TcpStream::connect(METRICS)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n")?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })??;
    let (head, page) = answer.split_once("\r\n\r\n").context("no header")?;
    ensure!(head.starts_with("HTTP/1.1 200 OK\r\n"), "the scrape got {head}");
    Ok((page.to_owned(), Readings::parse(page)?))
}

/// All of a family: the sum of its series, or how often a histogram was fed.
fn total(page: &Readings, (name, kind): (&str, &str)) -> f64 {
    match kind {
        "histogram" => page.sum(&format!("{name}_count"), &[]),
        _ => page.sum(name, &[]),
    }
}

fn has_all(page: &str, table: &[(&str, &str)]) -> Result<()> {
    for (name, kind) in table {
        ensure!(page.contains(&format!("# TYPE {name} {kind}\n")), "{name} is not on the page");
    }
    ensure!(page.matches("# TYPE ").count() == table.len(), "there are more families than documented");
    Ok(())
}

fn under_load(lab: &Lab) -> Result<()> {
    let families = table("## The gateway");
    ensure!(families.len() > 50, "the table was not found");
    for (name, kind) in &families {
        let lists = [GROWN, STILL, ELSEWHERE].map(|list| usize::from(list.contains(name)));
        let expected = usize::from(*kind != "gauge");
        ensure!(lists.iter().sum::<usize>() == expected, "what becomes of {name} is not said once");
    }
    let arena = Arena::open(lab, "limits.handshakes_total = 10\nlimits.handshakes_per_source = [50, 50]")?;
    let watch = arena.watch()?;
    let (_, before) = scrape(lab)?;
    let client_before = arena.tunnel.client.metrics()?;
    misbehave(&arena)?;
    cookies(&arena)?;
    arena.tunnel.jump(&LTE, || arena.tunnel.client.move_to(LTE.interface))?;
    arena.tunnel.gateway.reload()?;
    ensure!(watch.flows(), "the victim's traffic does not flow");
    let late = |page: &Readings| {
        let grown = |family: &&(&str, &str)| total(page, **family) > total(&before, **family);
        let not_grown = |family: &&(&str, &str)| GROWN.contains(&family.0) && !grown(family);
        families.iter().filter(not_grown).map(|(name, _)| *name).collect::<Vec<_>>()
    };
    let mut waits = Vec::new();
    let grown = wait_for("all to have grown", SOON, || {
        waits = late(&scrape(lab)?.1);
        Ok(waits.is_empty())
    });
    grown.with_context(|| format!("these have not: {waits:?}"))?;
    let (text, page) = scrape(lab)?;
    has_all(&text, &families)?;
    for family in families.iter().filter(|(name, _)| STILL.contains(name)) {
        ensure!(total(&page, *family) == 0.0, "{} is {}", family.0, total(&page, *family));
    }
    details(&arena, &before, &page)?;

    let families = table("## The client");
    has_all(&arena.tunnel.client.metrics_text()?, &families)?;
    let client = arena.tunnel.client.metrics()?;
    let reattaches = "jumpgate_client_reattach_rtt_seconds_count";
    ensure!(client.sum(reattaches, &[]) > client_before.sum(reattaches, &[]), "the jump took no time");
    ensure!(client.sum("jumpgate_client_candidates", &["status=\"active\""]) == 1.0, "the client has no active path");
    ensure!(client.sum("jumpgate_client_path_rtt_seconds", &[]) > 0.0, "no round trip was measured");
    Ok(())
}

/// A client that does what it may not, is denied, and falls silent until the operator ends it.
fn misbehave(arena: &Arena<'_>) -> Result<()> {
    let mut mallory = arena.join()?;
    // Twice the same heartbeat, a request for nobody's session, requests of other epochs.
    let heartbeat = mallory.heartbeat();
    mallory.send(&heartbeat)?;
    mallory.send(&heartbeat)?;
    ensure!(matches!(mallory.answer()?, Answer::HeartbeatAck(_)), "a heartbeat is not answered");
    let nobody = mallory.prove_as(Locator(mallory.locator().0 ^ 1), 1 << 20, &mallory.request(1, Cause::HardDead));
    mallory.send(&nobody)?;
    ensure!(matches!(mallory.answer()?, Answer::Reset { .. }), "nobody's session is not reset");
    for epoch in [0, 9] {
        let request = mallory.request(1, Cause::HardDead);
        let packet = mallory.prove(&jumpgate_protocol::wire::ReattachRequest { binding_epoch: epoch, ..request });
        mallory.send(&packet)?;
        ensure!(matches!(mallory.answer()?, Answer::Refused(_)), "epoch {epoch} is not refused");
    }
    // There, back at once, and more than it may.
    let home = mallory.move_to(arena.socket()?)?;
    expect_bound(mallory.reattach(2, Cause::HardDead)?)?;
    mallory.validate()?;
    drop(mallory.move_to(home)?);
    expect_bound(mallory.reattach(1, Cause::HardDead)?)?;
    mallory.validate()?;
    // From where it is bound, under the epoch that it has then.
    for number in 0..FORGERIES {
        let mut forged = mallory.data_as(mallory.locator(), 1_000 + number, 3, &[0x45; 40]);
        forged[30] ^= 1;
        mallory.send(&forged)?;
    }
    let mut refused = 0;
    for number in 0..8 {
        drop(mallory.move_to(arena.socket()?)?);
        refused += usize::from(matches!(mallory.reattach(3 + number, Cause::Quality)?, Answer::Refused(_)));
    }
    ensure!(refused > 0, "nothing is too much");
    arena.wire.send_datagram(forged_source(1), arena.endpoint(), &[MessageType::Data as u8; 12])?;
    thread::sleep(SILENCE);
    let session = arena.mallory()?;
    wait_for("the silence to be its path's death", SOON, || Ok(arena.mallory()?.peer.is_none()))?;
    arena.tunnel.gateway.terminate(&session.locator)
}

fn expect_bound(answer: Answer) -> Result<()> {
    match answer {
        Answer::Bound(_) => Ok(()),
        other => bail!("a request was answered by {other:?}"),
    }
}

/// More handshakes than the gateway takes without asking for a cookie.
fn cookies(arena: &Arena<'_>) -> Result<()> {
    let stranger = StaticSecret::generate(&mut SeededEntropy::new(68));
    let packet = hello(arena.target().public, &stranger, 1)?;
    let template =
        frame::udp(arena.wire.macs(), forged_source(0), arena.endpoint(), &packet).context("two families")?;
    arena.wire.flood(HELLOS, SOON, |number, out| {
        template.clone_into(out);
        if let std::net::SocketAddr::V4(source) = forged_source(number) {
            frame::set_ipv4_source(out, source.ip().octets(), source.port());
        }
    })?;
    Ok(())
}

/// Series by their labels: what was done shows in this one.
fn details(arena: &Arena<'_>, before: &Readings, page: &Readings) -> Result<()> {
    let grown: [(&str, &[&str], f64); 14] = [
        ("jumpgate_stateless_resets_total", &["direction=\"sent\""], 1.0),
        ("jumpgate_epoch_mismatches_total", &["kind=\"stale\""], 1.0),
        ("jumpgate_epoch_mismatches_total", &["kind=\"future\""], 1.0),
        ("jumpgate_replay_rejects_total", &["plane=\"control\""], 1.0),
        ("jumpgate_oscillations_total", &[], 1.0),
        ("jumpgate_transport_deaths_total", &["evidence=\"silence\""], 1.0),
        ("jumpgate_detection_latency_seconds_count", &["evidence=\"silence\""], 1.0),
        ("jumpgate_sessions_terminated_total", &["reason=\"OPERATOR_TERMINATED\""], 1.0),
        ("jumpgate_drops_total", &["reason=\"auth_fail\""], 1.0),
        ("jumpgate_security_events_total", &["type=\"SecurityReplayDetected\""], 1.0),
        ("jumpgate_security_suppressed_total", &["type=\"SecurityValidationFailed\""], 1.0),
        ("jumpgate_handshakes_total", &["result=\"cookie\""], 100.0),
        ("jumpgate_heartbeats_total", &["direction=\"received\"", "suppressed=\"false\""], 1.0),
        ("jumpgate_xdp_drops_total", &["reason=\"outside_malformed\""], 1.0),
    ];
    for (name, labels, by) in grown {
        let grown = page.sum(name, labels) - before.sum(name, labels);
        ensure!(grown >= by, "{name}{labels:?} has grown by {grown} instead of {by}");
    }
    // The silence of mallory, and of nobody else: what the profile calls silence, and not much more.
    let latency = page.sum("jumpgate_detection_latency_seconds_sum", &["evidence=\"silence\""]);
    ensure!((0.4..4.0).contains(&latency), "a silence was noticed after {latency} s");
    let sessions = arena.tunnel.gateway.sessions()?.len() as f64;
    let gauges: [(&str, &[&str], f64); 6] = [
        ("jumpgate_sessions", &[], sessions),
        ("jumpgate_tombstones", &[], 1.0),
        ("jumpgate_xdp_map_entries", &["map=\"slots\""], 4096.0),
        // The host's own address, and the victim's.
        ("jumpgate_xdp_map_entries", &["map=\"pool\""], 1.0 + sessions),
        ("jumpgate_umem_frames", &["owner=\"missing\""], 0.0),
        ("jumpgate_build_info", &[], 1.0),
    ];
    for (name, labels, value) in gauges {
        ensure!(page.sum(name, labels) == value, "{name}{labels:?} is {}, not {value}", page.sum(name, labels));
    }
    for (name, labels) in [
        ("jumpgate_xsk_ring_occupancy", "ring=\"fill\""),
        ("jumpgate_session_memory_bytes", "kind=\"replay\""),
        ("jumpgate_obs_ring_high_water", "class=\"security\""),
        ("jumpgate_process_memory_bytes", "kind=\"resident\""),
    ] {
        ensure!(page.sum(name, &[labels]) > 0.0, "{name} is empty");
    }
    let (created, lookups) = ("jumpgate_sessions_created_total", "jumpgate_lookup_duration_seconds");
    let mean = page.sum(&format!("{lookups}_sum"), &[]) / page.sum(&format!("{lookups}_count"), &[]);
    ensure!(mean > 0.0 && mean < 1e-3, "a look-up takes {mean} s");
    ensure!(page.sum(created, &[]) == before.sum(created, &[]) + 1.0, "mallory was the only new one");
    Ok(())
}
