//! Metrics in the Prometheus text format: what a client knows of its paths, for a monitoring system.
//!
//! A page is made when somebody asks, by `jump metrics` or by HTTP; the packet path counts in plain cells.

use jumpgate_metrics::{Page, Scraped};
use jumpgate_protocol::client::Meter;
use jumpgate_protocol::policy::{Policy, Profile};
use tokio::sync::mpsc;

use crate::control::{Order, Request, Response, order};
use crate::report::{PathReport, PathState, Status};

/// The program's commit, where the build was told of one.
const COMMIT: &str = match option_env!("JUMPGATE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
/// Powers of two that the buckets of round trips end at, in microseconds: from 1 ms to 34 s.
const ROUND_TRIP_POWERS: std::ops::RangeInclusive<u32> = 10..=25;
const MICROS: f64 = 1e6;

/// What a client exports.
pub mod families {
    jumpgate_metrics::families! {
        BUILD_INFO "jumpgate_build_info" Gauge ["version" "commit"] "constant 1: the program that runs; `commit` is what JUMPGATE_COMMIT said when it was built",
        PATH_RTT "jumpgate_client_path_rtt_seconds" Gauge ["path"] "smoothed round trip of a path that was measured",
        PATH_LOSS "jumpgate_client_path_loss_ratio" Gauge ["path"] "loss over the last probes or heartbeats; of the active path of DATA, if that is more",
        PATH_JITTER "jumpgate_client_path_jitter_seconds" Gauge ["path"] "mean deviation of the round trip",
        CANDIDATES "jumpgate_client_candidates" Gauge ["status"] "paths that carry the session (`active`), are proved both ways (`validated`), are up (`standby`), or cannot be used (`down`)",
        REATTACH_RTT "jumpgate_client_reattach_rtt_seconds" Histogram [] "REATTACH_REQUEST until its answer, where one copy was sent",
        HEARTBEATS "jumpgate_heartbeats_total" Counter ["direction" "suppressed"] "HEARTBEAT sent, left out since data flowed both ways, and HEARTBEAT_ACK received",
        STATELESS_RESETS "jumpgate_stateless_resets_total" Counter ["direction"] "SESSION_RESET that proved a lost session",
        SWITCHES "jumpgate_client_switches_total" Counter [] "jumps of the present session",
    }
}

/// One scrape: an order to the driver, as the control socket gives them.
pub async fn scrape(orders: mpsc::Sender<Order>) -> Scraped {
    match order(Request::Metrics, &orders).await {
        Response::Metrics(page) => Scraped::Page(page),
        _ => Scraped::Unavailable("the client is stopping"),
    }
}

/// Writes the page.
pub fn render(status: &Status, meter: &Meter) -> String {
    use families as f;
    let mut page = Page::new(Policy::profile(Profile::Default).observability);
    page.family(&f::BUILD_INFO).put(&[&env!("CARGO_PKG_VERSION"), &COMMIT], 1);
    let up = || status.paths.iter().filter(|path| path.state != PathState::Down);
    let seconds = |micros: u64| micros as f64 / MICROS;
    let mut family = page.family(&f::PATH_RTT);
    for (id, rtt) in up().filter_map(|path| Some((path.id, path.rtt_us?))) {
        family.put(&[&id], seconds(rtt));
    }
    let mut family = page.family(&f::PATH_LOSS);
    for path in up() {
        family.put(&[&path.id], f64::from(path.loss_permille) / 1_000.0);
    }
    let mut family = page.family(&f::PATH_JITTER);
    for (id, jitter) in up().filter_map(|path| Some((path.id, path.jitter_us?))) {
        family.put(&[&id], seconds(jitter));
    }
    let mut family = page.family(&f::CANDIDATES);
    for wanted in ["active", "validated", "standby", "down"] {
        family.put(&[&wanted], status.paths.iter().filter(|path| use_of(path) == wanted).count());
    }
    page.family(&f::REATTACH_RTT).distribution(&[], &meter.reattaches, ROUND_TRIP_POWERS, MICROS);
    page.family(&f::HEARTBEATS)
        .put(&[&"sent", &false], meter.heartbeats)
        .put(&[&"sent", &true], meter.suppressed)
        .put(&[&"received", &false], meter.heartbeat_acks);
    page.family(&f::STATELESS_RESETS).put(&[&"received"], meter.resets);
    page.family(&f::SWITCHES).put(&[], status.switches_total);
    page.finish()
}

const fn use_of(path: &PathReport) -> &'static str {
    match (path.state, path.validated) {
        (PathState::Active, _) => "active",
        (PathState::Standby, true) => "validated",
        (PathState::Standby, false) => "standby",
        (PathState::Down, _) => "down",
    }
}

#[cfg(test)]
mod tests {
    use jumpgate_metrics::render_markdown;

    use super::*;
    use crate::show::tests::sample;

    #[test]
    fn r68_a_page_has_every_family_and_the_values_of_the_status() {
        let mut meter = Meter { suppressed: 3, resets: 1, ..Meter::default() };
        meter.reattaches.count(20_000);
        let page = render(&sample(), &meter);
        for family in families::ALL {
            assert!(page.contains(&format!("# TYPE {} {}\n", family.name, family.kind.name())), "{}", family.name);
            let has_sample = page.lines().any(|line| line.starts_with(family.name));
            assert!(has_sample, "{} has no sample", family.name);
        }
        for line in [
            "jumpgate_client_path_rtt_seconds{path=\"2\"} 0.02048",
            "jumpgate_client_path_loss_ratio{path=\"2\"} 0.015",
            "jumpgate_client_candidates{status=\"active\"} 1",
            "jumpgate_client_candidates{status=\"down\"} 1",
            "jumpgate_client_candidates{status=\"validated\"} 0",
            "jumpgate_client_reattach_rtt_seconds_sum 0.02",
            "jumpgate_client_reattach_rtt_seconds_bucket{le=\"0.032768\"} 1",
            "jumpgate_heartbeats_total{direction=\"sent\",suppressed=\"true\"} 3",
            "jumpgate_stateless_resets_total{direction=\"received\"} 1",
        ] {
            assert!(page.lines().any(|is| is == line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn ob12_neither_an_address_nor_an_interface_nor_a_session_is_in_a_page() {
        let status = sample();
        let page = render(&status, &Meter::default());
        for path in &status.paths {
            assert!(!page.contains(&path.interface) && !page.contains(&path.gateway.to_string()), "{page}");
        }
        assert!(!page.contains(status.session.as_deref().expect("one")), "{page}");
    }

    #[test]
    fn the_document_has_the_table() {
        let document = include_str!("../../docs/metrics.md");
        let table = render_markdown(families::ALL);
        assert!(document.contains(&table), "put this into docs/metrics.md:\n{table}");
    }
}
