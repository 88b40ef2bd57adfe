//! How a scenario is run, from the command line or a scenario file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum as _};
use jumpgate_protocol::time::Span;
use serde_json::{Value, json};

use super::MOST_CLIENTS;
use super::chance::Spread;
use super::plant::PlantConfig;
use super::scenario::throughput::Lengths;
use super::scenario::{Measure, Scenario, Spreads};
use crate::forward::{ALONE_PACKETS, cpus};

/// How a scenario is run.
#[derive(Args, Clone, Debug)]
pub struct LoadArguments {
    /// Clients
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_CLIENTS)))]
    pub clients: u32,
    /// Arrivals per second, whatever becomes of those before them
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub arrivals: u64,
    /// How the times between arrivals spread
    #[arg(long, value_enum, default_value_t = Spread::Fixed, value_name = "HOW")]
    pub arrival_distribution: Spread,
    /// Seconds of the measured part, where the scenario has no end of its own
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Churn: mean time between two jumps of one client, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub jump_every: u64,
    /// Churn: how the times between jumps spread
    #[arg(long, value_enum, default_value_t = Spread::Exponential, value_name = "HOW")]
    pub jump_distribution: Spread,
    /// Churn: mean life of a session, in seconds
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub lifetime: u64,
    /// Churn: how lives of sessions spread
    #[arg(long, value_enum, default_value_t = Spread::Exponential, value_name = "HOW")]
    pub lifetime_distribution: Spread,
    /// Echo packets per second of all clients together; 0 for none
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub echoes: u64,
    /// How the times between echoes spread
    #[arg(long, value_enum, default_value_t = Spread::Fixed, value_name = "HOW")]
    pub echo_distribution: Spread,
    /// Failover, rebind, loss-spike: milliseconds between two faults of one client; by default beyond the switch rate and
    /// cooldown of every profile
    #[arg(long, default_value_t = 8_000, value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub pause: u64,
    /// Storm: clients beside the others, to whom nothing happens and whose data is watched
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub bystanders: u32,
    /// Throughput: numbers of sessions that the packets belong to, in turn
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1_000, 10_000], value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_CLIENTS)))]
    pub sessions: Vec<u32>,
    /// Throughput: lengths of the inner packets in bytes; `mixed` is 64, 512 and 1400 as 7 : 4 : 1
    #[arg(long, value_delimiter = ',', default_values_t = [Lengths::One(64), Lengths::One(512), Lengths::One(1_400), Lengths::Mixed])]
    pub bytes: Vec<Lengths>,
    /// Throughput, latency: packets of a round, sealed ahead; each takes 2 KiB of memory on both sides
    #[arg(long, default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    pub packets: u32,
    /// Throughput, latency: repetitions of each measurement
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub repetitions: u32,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Policy profile: default, mobile or fast
    #[arg(long, default_value = "default", value_parser = ["default", "mobile", "fast"])]
    pub profile: String,
    /// Policy values over the profile's, as volatility.heartbeat_interval_ms=1000
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// CPU of the gateway; the first by default
    #[arg(long)]
    pub gateway_cpu: Option<usize>,
    /// CPU of the generator; the last by default
    #[arg(long)]
    pub generator_cpu: Option<usize>,
    /// Take flags from this TOML file; those of the command line win
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    /// Write everything as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

impl LoadArguments {
    /// What the gateway is started with, and the lines of its `[policy]` table.
    pub(super) fn plant(&self, scenario: Scenario, cpu: usize) -> Result<PlantConfig> {
        let sealed_ahead = matches!(scenario, Scenario::Throughput | Scenario::Latency);
        let clients = match scenario {
            Scenario::Throughput => self.sessions.iter().copied().max().unwrap_or(1),
            Scenario::Storm => (self.clients + self.bystanders).min(MOST_CLIENTS),
            _ => self.clients,
        };
        Ok(PlantConfig {
            clients,
            seed: self.seed,
            profile: self.profile.clone(),
            policy: self.policy(scenario)?,
            tables: String::new(),
            cpu,
            mode: "native",
            ahead: if sealed_ahead { self.packets.max(ALONE_PACKETS as u32) } else { 0 },
        })
    }

    /// The lines of the `[policy]` table: what the scenario needs, then what the user wants.
    fn policy(&self, scenario: Scenario) -> Result<String> {
        let mut lines = scenario.policy();
        for assignment in &self.set {
            let (key, value) =
                assignment.split_once('=').with_context(|| format!("--set {assignment}: write KEY=VALUE"))?;
            let other = |line: &&str| line.split('=').next().map(str::trim) != Some(key.trim());
            lines = lines.lines().filter(other).map(|line| format!("{line}\n")).collect();
            lines.push_str(&format!("{} = {}\n", key.trim(), value.trim()));
        }
        Ok(lines)
    }

    /// How much of the scenario.
    pub(super) fn measure(&self, gateway_cpu: usize) -> Measure {
        let mut sessions = self.sessions.clone();
        sessions.sort_unstable();
        Measure {
            seed: self.seed,
            arrivals: self.arrivals,
            seconds: self.seconds,
            jump_every: Span::from_millis(self.jump_every * 1_000),
            lifetime: Span::from_millis(self.lifetime * 1_000),
            echoes: self.echoes,
            spreads: Spreads {
                arrival: self.arrival_distribution,
                lifetime: self.lifetime_distribution,
                jump: self.jump_distribution,
                echo: self.echo_distribution,
            },
            pause: Span::from_millis(self.pause),
            bystanders: self.bystanders,
            sessions,
            lengths: self.bytes.clone(),
            packets: self.packets as usize,
            repetitions: self.repetitions as usize,
            gateway_cpu,
        }
    }

    /// The CPUs of gateway and generator.
    pub(super) fn cpus(&self) -> Result<(usize, usize)> {
        let cpus = cpus()?;
        let (Some(&first), Some(&last)) = (cpus.first(), cpus.last()) else {
            anyhow::bail!("this process may use no CPU");
        };
        let chosen = (self.gateway_cpu.unwrap_or(first), self.generator_cpu.unwrap_or(last));
        for cpu in [chosen.0, chosen.1] {
            ensure!(cpus.contains(&cpu), "CPU {cpu} is none of those that this process may use: {cpus:?}");
        }
        ensure!(chosen.0 != chosen.1, "gateway and generator need a CPU each, and both have {}", chosen.0);
        Ok(chosen)
    }

    /// What was done, for the report.
    pub(super) fn load(&self, gateway_cpu: usize, generator_cpu: usize) -> BTreeMap<&'static str, Value> {
        let lengths: Vec<String> = self.bytes.iter().map(Lengths::to_string).collect();
        BTreeMap::from([
            ("clients", json!(self.clients)),
            ("bystanders", json!(self.bystanders)),
            ("arrivals_per_s", json!(self.arrivals)),
            ("arrival_distribution", json!(word(self.arrival_distribution))),
            ("seconds", json!(self.seconds)),
            ("jump_every_s", json!(self.jump_every)),
            ("jump_distribution", json!(word(self.jump_distribution))),
            ("lifetime_s", json!(self.lifetime)),
            ("lifetime_distribution", json!(word(self.lifetime_distribution))),
            ("echoes_per_s", json!(self.echoes)),
            ("echo_distribution", json!(word(self.echo_distribution))),
            ("pause_ms", json!(self.pause)),
            ("sessions", json!(self.sessions)),
            ("packet_bytes", json!(lengths)),
            ("packets", json!(self.packets)),
            ("repetitions", json!(self.repetitions)),
            ("seed", json!(self.seed)),
            ("gateway_cpu", json!(gateway_cpu)),
            ("generator_cpu", json!(generator_cpu)),
            ("workers", json!(1)),
            ("queues", json!(1)),
            ("links", json!("veth, XDP native, AF_XDP copy")),
            ("generator", json!("product client code over xsk-rs, one thread")),
        ])
    }

    /// The command that makes the run again.
    pub(super) fn reproduce(&self, scenario: Scenario) -> String {
        let mut command = format!("cargo xtask bench {}", scenario.name());
        let list = |all: &[String]| all.join(",");
        let sessions: Vec<String> = self.sessions.iter().map(u32::to_string).collect();
        let lengths: Vec<String> = self.bytes.iter().map(Lengths::to_string).collect();
        let flags = [
            ("clients", self.clients.to_string()),
            ("bystanders", self.bystanders.to_string()),
            ("arrivals", self.arrivals.to_string()),
            ("arrival-distribution", word(self.arrival_distribution)),
            ("seconds", self.seconds.to_string()),
            ("jump-every", self.jump_every.to_string()),
            ("jump-distribution", word(self.jump_distribution)),
            ("lifetime", self.lifetime.to_string()),
            ("lifetime-distribution", word(self.lifetime_distribution)),
            ("echoes", self.echoes.to_string()),
            ("echo-distribution", word(self.echo_distribution)),
            ("pause", self.pause.to_string()),
            ("sessions", list(&sessions)),
            ("bytes", list(&lengths)),
            ("packets", self.packets.to_string()),
            ("repetitions", self.repetitions.to_string()),
            ("seed", self.seed.to_string()),
            ("profile", self.profile.clone()),
        ];
        for (flag, value) in flags {
            command.push_str(&format!(" --{flag} {value}"));
        }
        for assignment in &self.set {
            command.push_str(&format!(" --set '{assignment}'"));
        }
        command
    }
}

fn word(spread: Spread) -> String {
    spread.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        load: LoadArguments,
    }

    fn parse(line: &str) -> LoadArguments {
        Program::try_parse_from(line.split(' ')).unwrap().load
    }

    #[test]
    fn the_command_of_a_report_says_what_was_run() {
        let line = "x --clients 7 --lifetime-distribution uniform --bytes 64,mixed --set a.b=1 --bystanders 3";
        let command = parse(line).reproduce(Scenario::Storm);
        assert!(command.starts_with("cargo xtask bench storm --clients 7 "), "{command}");
        let again = parse(&command.replace("cargo xtask bench storm", "x").replace('\'', ""));
        assert_eq!(again.load(0, 1), parse(line).load(0, 1));
        assert_eq!(again.set, ["a.b=1"]);
    }

    #[test]
    fn what_the_user_sets_takes_the_place_of_what_the_scenario_sets() {
        let policy = parse("x --set limits.control_total=5").policy(Scenario::Storm).unwrap();
        assert!(
            policy.contains("limits.control_total = 5\n") && !policy.contains("limits.control_total = 10"),
            "{policy}"
        );
        assert!(parse("x --set nonsense").policy(Scenario::Storm).is_err());
    }
}
