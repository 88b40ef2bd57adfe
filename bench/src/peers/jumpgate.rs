//! Jumpgate as a subject of the comparison: the scenarios of [`crate::load`] over the gateway's own program, read for the
//! figures that the others are measured for. Throughput measures its bound in turn with it.

use anyhow::{Result, ensure};
use clap::Parser;

use super::figure::{Figure, Figures};
use super::forward::{Bound, Offer, Row};
use super::{Setup, Subject, Watch, apart};
use crate::load::arguments::LoadArguments;
use crate::load::run::run;
use crate::load::scenario::{Scenario, throughput};
use crate::report::{Report, Verdict};
use crate::stats::Summary;

/// Packets of a burst at most: each takes a frame of the generator's memory.
const MOST_PACKETS: u32 = 60_000;
/// Arrivals per second that are all at once.
const AT_ONCE: u64 = 1_000_000;

/// The gateway of this repository.
pub(super) struct Jumpgate;

/// Arguments of a scenario, by their names on the command line: what is not said is as a user has it.
#[derive(Parser)]
struct Command {
    #[command(flatten)]
    load: LoadArguments,
}

fn scenario(scenario: Scenario, setup: &Setup, further: &[String]) -> Result<Report> {
    let common = [
        "load".to_owned(),
        format!("--seed={}", setup.seed),
        format!("--gateway-cpu={}", setup.gateway_cpu),
        format!("--generator-cpu={}", setup.generator_cpu),
    ];
    let command = Command::try_parse_from(common.iter().chain(further))?;
    let report = apart(|| run(scenario, &command.load))?;
    ensure!(report.result != Verdict::Fail, "the run failed: {:?}, {:?}", report.safety, report.verifier);
    Ok(report)
}

impl Subject for Jumpgate {
    fn name(&self) -> &'static str {
        "jumpgate"
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    fn settings(&self) -> &'static str {
        "one worker; XDP programs native on veth, AF_XDP in copy mode; no limits against the strangers that one machine \
         with many clients looks like"
    }

    fn forward(&self, setup: &Setup, watch: &Watch, each: &mut dyn FnMut(Row)) -> Result<()> {
        let lengths: Vec<String> = setup.bytes.iter().map(ToString::to_string).collect();
        watch.say("forwards");
        let report = scenario(
            Scenario::Throughput,
            setup,
            &[
                format!("--sessions={}", setup.sessions),
                format!("--bytes={}", lengths.join(",")),
                format!("--packets={}", setup.packets.min(MOST_PACKETS)),
                format!("--repetitions={}", setup.rounds),
            ],
        )?;
        report.rows.iter().filter_map(row_of).for_each(each);
        Ok(())
    }

    fn crowd(&self, setup: &Setup, watch: &Watch, figures: &mut Figures) -> Result<()> {
        let clients = |clients: u32| format!("--clients={clients}");
        let at_once = format!("--arrivals={AT_ONCE}");
        watch.say("starts with nobody to know");
        let nobody =
            scenario(Scenario::Handshake, setup, &[clients(1), at_once.clone()])?.gateway.resident_empty as f64;
        watch.check()?;
        watch.say("all shake hands at once");
        let hands = scenario(Scenario::Handshake, setup, &[clients(setup.peers), at_once])?;
        watch.check()?;
        let per_peer = |bytes: u64| Figure::Measured((bytes as f64 - nobody) / f64::from(setup.peers));
        figures.insert("memory_per_configured_peer_bytes", per_peer(hands.gateway.resident_empty));
        figures.insert("memory_per_peer_bytes", per_peer(hands.gateway.resident));
        figures.insert("handshake_at_once_last_ms", Figure::Measured(hands.duration_s * 1e3));
        figures.insert("handshake_at_once_p50_ms", time(&hands, "handshake"));
        figures.insert("handshakes_per_s", summary(&hands, "handshakes_per_s"));
        let cpu_us = hands.gateway.cpu_s * 1e6 / f64::from(setup.peers);
        figures.insert("cpu_us_per_handshake", Figure::Measured(cpu_us));
        watch.say("all lose their path at once");
        let storm = scenario(Scenario::Storm, setup, &[clients(setup.peers)])?;
        watch.check()?;
        figures.insert("reattach_storm_last_ms", summary(&storm, "last_back_ms"));
        figures.insert("reattach_storm_p50_ms", time(&storm, "reattach"));
        for name in ["roam_at_once_last_ms", "roam_at_once_p50_ms", "roam_paced_last_ms", "roam_paced_p50_ms"] {
            let why = "Jumpgate moves no session on the strength of a data packet: moving is an exchange of its own, \
                       which the jump storm measures";
            figures.insert(name, Figure::missing(why));
        }
        for name in ["handshake_paced_last_ms", "handshake_paced_p50_ms"] {
            figures.insert(name, Figure::missing("measured at once only, which it does not suffer from"));
        }
        for name in ["handshakes_sent_again", "cookies_asked_for", "generator_busy_share"] {
            figures.insert(name, Figure::missing("not counted by its scenarios"));
        }
        Ok(())
    }
}

fn summary(report: &Report, name: &str) -> Figure {
    report
        .summary
        .get(name)
        .map_or_else(|| Figure::missing("the scenario did not say"), |value| Figure::Measured(*value))
}

fn time(report: &Report, name: &str) -> Figure {
    let median = report.times.get(name).and_then(|times| times.p50_ms);
    median.map_or_else(|| Figure::missing("too few samples"), Figure::Measured)
}

/// A row of the throughput scenario as one of the comparison; none if it is not of one length.
fn row_of(row: &throughput::Row) -> Option<Row> {
    let losses = &row.losses;
    let once = |value: f64| Summary { median: value, min: value, max: value, repetitions: row.arrived.repetitions };
    let cpu = once(row.process_ns);
    Some(Row {
        subject: Jumpgate.name().to_owned(),
        way: row.way,
        inner_bytes: row.inner_bytes.parse().ok()?,
        flat_out: Offer {
            offered: row.offered,
            forwarded: row.arrived,
            lost: once(1.0 - losses.arrived as f64 / losses.offered.max(1) as f64),
            cpu_ns_per_packet: cpu,
        },
        paced: None,
        forwarded: row.arrived,
        bits_per_s: row.bits_per_s,
        cpu_ns_per_packet: cpu,
        generator_limits: !row.gateway_limits,
        alone: Some(row.drained),
        bound: Some(Bound {
            bare: row.bare_drained,
            bare_under_load: row.bare_arrived,
            aead_ns: row.aead_ns,
            bound: row.bound,
        }),
    })
}
