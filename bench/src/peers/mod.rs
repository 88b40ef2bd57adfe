//! Jumpgate beside the WireGuard gateways of user space: the same lab, the same CPU for the gateway, the same run.
//!
//! Two parts, each of every gateway in turn. *Forwarding*: packets sealed ahead, poured through the gateway both ways.
//! *Crowd*: ten thousand clients that arrive, move and come back at the same moment. What a program cannot do is a dash
//! with its reason. [`programs`] says how each is started at its best.

mod figure;
mod forward;
mod jumpgate;
mod lab;
mod page;
mod programs;
mod report;
mod tunnel;
mod uapi;
mod watch;
mod wave;
mod wireguard;

use std::path::PathBuf;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow, ensure};
use clap::Args;

pub use figure::Figure;
pub use page::render;
pub use programs::Peer;
pub use report::Report;

use crate::environment::Environment;
use crate::forward::{cpus, pin};
use crate::frames::check_inner;
use crate::load::MOST_CLIENTS;
use figure::Figures;
use forward::Row;
use jumpgate::Jumpgate;
use programs::parse_given;
use report::{FIGURES, Part, SubjectReport};
use watch::Watch;
use wireguard::WireGuard;

/// How the comparison is run.
#[derive(Args, Clone, Debug)]
pub struct PeersArguments {
    /// Only these programs beside Jumpgate
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Peer::ALL)]
    pub only: Vec<Peer>,
    /// Lengths of the inner packets, in bytes
    #[arg(long, value_delimiter = ',', default_values_t = [64, 512, 1_400])]
    pub bytes: Vec<usize>,
    /// Clients that move and come back at the same moment
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_CLIENTS)))]
    pub peers: u32,
    /// Sessions that poured packets belong to
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub sessions: u32,
    /// Packets of a round of forwarding; each takes 2 KiB of memory on both sides
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    pub packets: u32,
    /// Rounds of forwarding that count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// Parts: forwarding, crowd
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Part::Forwarding, Part::Crowd])]
    pub parts: Vec<Part>,
    /// A first try: few packets, rounds and clients. Its figures mean little
    #[arg(long)]
    pub quick: bool,
    /// Another program than the one that is found, as boringtun=/opt/boringtun-cli
    #[arg(long = "program", value_name = "NAME=PATH", value_parser = parse_given)]
    pub programs: Vec<(Peer, PathBuf)>,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// CPU of the gateway; the first by default
    #[arg(long)]
    pub gateway_cpu: Option<usize>,
    /// CPU of the generator; the last by default
    #[arg(long)]
    pub generator_cpu: Option<usize>,
    /// Write everything as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Clients, packets and rounds of a first try.
const QUICK: (u32, u32, u32) = (500, 20_000, 1);

/// What is the same for every gateway.
#[derive(Clone, Debug)]
struct Setup {
    bytes: Vec<usize>,
    peers: u32,
    sessions: u32,
    packets: u32,
    rounds: u32,
    seed: u64,
    gateway_cpu: usize,
    generator_cpu: usize,
}

impl Setup {
    fn new(arguments: &PeersArguments) -> Result<Self> {
        arguments.bytes.iter().try_for_each(|&bytes| check_inner(bytes))?;
        let cpus = cpus()?;
        let (Some(&first), Some(&last)) = (cpus.first(), cpus.last()) else {
            anyhow::bail!("this process may use no CPU");
        };
        let gateway_cpu = arguments.gateway_cpu.unwrap_or(first);
        let generator_cpu = arguments.generator_cpu.unwrap_or(last);
        for cpu in [gateway_cpu, generator_cpu] {
            ensure!(cpus.contains(&cpu), "CPU {cpu} is none of those that this process may use: {cpus:?}");
        }
        ensure!(gateway_cpu != generator_cpu, "gateway and generator need a CPU each, and both have {gateway_cpu}");
        let (mut peers, mut packets, mut rounds) = (arguments.peers, arguments.packets, arguments.rounds);
        if arguments.quick {
            (peers, packets, rounds) = (peers.min(QUICK.0), packets.min(QUICK.1), rounds.min(QUICK.2));
        }
        Ok(Self {
            bytes: arguments.bytes.clone(),
            peers,
            sessions: arguments.sessions,
            packets,
            rounds,
            seed: arguments.seed,
            gateway_cpu,
            generator_cpu,
        })
    }

    /// The calling thread is the generator from now on. After the gateway was started, which would inherit it.
    fn take_generator_cpu(&self) -> Result<()> {
        pin(self.generator_cpu)
    }
}

/// A gateway that can be compared. Each part runs in a thread of its own, whose namespaces end with it.
trait Subject: Sync {
    /// Its name.
    fn name(&self) -> &'static str;
    /// What it calls its version.
    fn version(&self) -> String;
    /// How it is set up, in words.
    fn settings(&self) -> &'static str;
    /// Pours packets through it; hands every row over as soon as it is there.
    fn forward(&self, setup: &Setup, watch: &Watch, each: &mut dyn FnMut(Row)) -> Result<()>;
    /// Has a crowd arrive, move and come back; figures appear as they are measured.
    fn crowd(&self, setup: &Setup, watch: &Watch, figures: &mut Figures) -> Result<()>;
}

/// Runs the comparison and makes its report.
///
/// # Errors
/// The lab cannot be built here, or a program is not there. What a program does is a finding and no error.
pub fn run(arguments: &PeersArguments) -> Result<Report> {
    let environment = Environment::read();
    println!("{}", environment.line());
    let setup = Setup::new(arguments)?;
    let mut subjects: Vec<Box<dyn Subject>> = vec![Box::new(Jumpgate)];
    for &peer in &arguments.only {
        let given = arguments.programs.iter().find(|(named, _)| *named == peer).map(|(_, path)| path.as_path());
        subjects.push(Box::new(WireGuard { peer, program: peer.find(given)? }));
    }
    let watch = Watch::new()?;
    let started_at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut report = Report::new(environment, started_at, &setup, arguments);
    for subject in &subjects {
        let about = SubjectReport::new(subject.name(), subject.version(), subject.settings());
        println!("{}: {}; {}", about.name, about.version, about.settings);
        report.subjects.push(about);
    }
    for &part in &arguments.parts {
        for (place, subject) in subjects.iter().enumerate() {
            if watch.is_interrupted() {
                break;
            }
            watch.begin(subject.name());
            match part {
                Part::Forwarding => {
                    let rows = &mut report.rows;
                    let outcome = apart(|| {
                        subject.forward(&setup, &watch, &mut |row: Row| {
                            watch.print(&row);
                            rows.push(row);
                        })
                    });
                    if let Err(error) = outcome
                        && !watch.is_interrupted()
                    {
                        report.notes.push(format!("{}: forwarding ended early: {error:#}", subject.name()));
                    }
                }
                Part::Crowd => {
                    let figures = &mut report.subjects[place].figures;
                    let outcome = apart(|| subject.crowd(&setup, &watch, figures));
                    let why = match outcome {
                        _ if watch.is_interrupted() => "the user ended the run before".to_owned(),
                        Ok(()) => "not measured".to_owned(),
                        Err(error) => format!("{}: {error:#}", subject.name()),
                    };
                    for (name, ..) in FIGURES {
                        figures.entry(name).or_insert_with(|| Figure::missing(why.as_str()));
                    }
                }
            }
        }
    }
    watch.end();
    report.finish(watch.is_interrupted());
    Ok(report)
}

/// Runs something in a thread of its own: its namespaces and its CPU are its own as well.
fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join()).map_err(|_| anyhow!("a thread of the benchmark failed"))?
}
