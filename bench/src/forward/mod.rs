//! Forwarded packets per second of a whole worker, kernel included, against a forwarder without sessions.
//!
//! Two gateways' data paths stand side by side, each between its own pairs of virtual links, each with a worker on the
//! same CPU: one over real sessions, one over [`Bare`], which strips and prepends bytes and does nothing else. They are
//! measured in turn (A B A B), with frames of the same number, length and addresses, in two ways:
//!
//! - **alone**: the worker stands still until its receive ring is full of packets; then it is let go, and the time until
//!   the last of them has arrived is taken. Nobody offers anything meanwhile, so no generator can be the limit.
//! - **under load**: a generator on the other CPU offers packets as fast as it can; what arrives in that time is counted.
//!   If nothing is lost, the figure is the generator's and not the worker's, and the report says so.
//!
//! What no gateway of this shape could beat is `1 / (time of the bare forwarder + time of the bare AEAD)`, with the AEAD
//! measured in the same run.

mod bare;
mod generator;
mod held;
mod lane;
mod losses;
mod plant;
mod preemption;
pub mod report;

use anyhow::{Context as _, Result, ensure};
use jumpgate::clock;
use jumpgate::worker::Bare;
use jumpgate::xdp::ModeChoice;
use jumpgate_protocol::gateway::Shard;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

pub(crate) use bare::BareForwarder;
pub(crate) use lane::drained;
pub use losses::Losses;

use crate::aead::BareAead;
use crate::frames::{check_inner, inside_len, outside_len};
use crate::sessions::{Population, ROUTE, arrival};
use crate::stats::Summary;
use generator::Generator;
use lane::{Lane, Load, Range};
use plant::{Plant, Setup};

/// Repetitions in front of those that count: caches, page tables, processor clocks.
pub const WARM_UP: usize = 3;
/// Packets that wait for a worker that stood still. They fit its receive ring of 1024.
pub const ALONE_PACKETS: usize = 1_000;
/// Times that a worker stands still in one repetition.
pub const ALONE_ROUNDS: usize = 10;
/// Buffers of the bare AEAD.
pub(crate) const AEAD_BUFFERS: usize = 256;

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// From the network to the inside: opened.
    Inwards,
    /// From the inside to the network: sealed.
    Outwards,
}

/// What to measure, and where.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Sessions that the packets belong to, in turn.
    pub sessions: usize,
    /// Packets of a burst under load.
    pub packets: usize,
    /// Repetitions that count.
    pub repetitions: usize,
    /// How the XDP programs are to run.
    pub mode: ModeChoice,
    /// CPU of the worker.
    pub worker_cpu: usize,
    /// CPU of the generator.
    pub generator_cpu: usize,
}

impl Plan {
    /// Refuses what would give figures that mean nothing.
    fn check(&self, cpus: &[usize]) -> Result<()> {
        let Self { worker_cpu, generator_cpu, sessions, packets, .. } = *self;
        for cpu in [worker_cpu, generator_cpu] {
            ensure!(cpus.contains(&cpu), "CPU {cpu} is none of those that this process may use: {cpus:?}");
        }
        ensure!(
            worker_cpu != generator_cpu,
            "worker and generator need a CPU each, and both have {worker_cpu}; this process may use {cpus:?}"
        );
        // What arrives in a burst is all that a session hears; one that hears nothing dies.
        ensure!(
            sessions <= packets,
            "{packets} packets in a burst cannot reach {sessions} sessions; take more packets"
        );
        Ok(())
    }
}

/// How it was measured, beside the machine.
#[derive(Clone, Debug, Serialize)]
pub struct Conditions {
    /// How the XDP programs run: native or generic.
    pub mode: String,
    /// Whether packets move between driver and memory without a copy.
    pub zero_copy: bool,
    /// Queues of each port.
    pub queues: u32,
    /// Workers.
    pub workers: u32,
    /// CPU of the worker.
    pub worker_cpu: usize,
    /// CPU of the generator.
    pub generator_cpu: usize,
    /// What sends.
    pub generator: &'static str,
    /// Sessions that the packets belong to.
    pub sessions: usize,
    /// Packets of a burst under load.
    pub packets: usize,
    /// Repetitions that count, after the warm-up.
    pub repetitions: usize,
}

/// One of the two that are compared.
#[derive(Clone, Debug, Serialize)]
pub struct Contestant {
    /// Packets per second of the worker alone.
    pub alone: Summary,
    /// Packets per second that arrived under load.
    pub arrived: Summary,
    /// Packets per second that the generator offered meanwhile.
    pub offered: Summary,
    /// What became of all packets that were offered.
    pub losses: Losses,
}

/// What was measured for one length and one way.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which way.
    pub way: Way,
    /// Length of the inner IP packet in bytes.
    pub inner_bytes: usize,
    /// Length of the frames that come in, in bytes.
    pub frame_in: usize,
    /// Length of the frames that go out, in bytes.
    pub frame_out: usize,
    /// The forwarder without sessions.
    pub bare: Contestant,
    /// The gateway.
    pub gateway: Contestant,
    /// `gateway / bare` of the worker alone, pair by pair.
    pub ratio_alone: Summary,
    /// `gateway / bare` under load, pair by pair.
    pub ratio_under_load: Summary,
    /// The bare AEAD, in ns per packet.
    pub aead_ns: Summary,
    /// The bound: `1 / (time of the bare forwarder alone + time of the AEAD)`, in packets per second.
    pub bound: Summary,
    /// `gateway alone / bound`, pair by pair.
    pub ratio_to_bound: Summary,
    /// Times that other work took the CPU from worker or generator meanwhile. Each spoils a figure a little.
    pub preemptions: u64,
}

/// Everything that a run needs, set up once.
pub struct Forward {
    plan: Plan,
    range: Range,
    gateway: Lane<Shard>,
    bare: Lane<Bare>,
}

impl Forward {
    /// Sets up, in a network namespace of the calling thread's own.
    pub fn new(plan: Plan) -> Result<Self> {
        plan.check(&cpus()?)?;
        crate::links::enter_namespace()?;
        let Population { shard, peers, pool, .. } = Population::new(plan.sessions, 7, clock::now())?;
        let clients: Vec<u32> = peers.iter().map(|peer| peer.index).collect();
        let outer = peers.first().context("at least one session is needed")?.outer;
        let mut generator = Generator::new(plan.packets.max(ALONE_PACKETS))?;
        let setup = Setup { mode: plan.mode, worker_cpu: plan.worker_cpu };
        let gateway = Plant::start("gw", shard, pool, clients.iter().copied(), setup)?;
        let gateway = Lane::new(gateway, true, &mut generator)?;
        let bare = Plant::start("bare", Bare::new(arrival(outer).tuple, ROUTE), pool, clients, setup)?;
        let bare = Lane::new(bare, false, &mut generator)?;
        // Last, so that no worker inherits it.
        pin(plan.generator_cpu)?;
        let range = Range::new(generator, peers)?;
        Ok(Self { plan, range, gateway, bare })
    }

    /// How it will be measured.
    pub fn conditions(&self) -> Conditions {
        Conditions {
            mode: self.gateway.plant.mode().to_string(),
            zero_copy: self.gateway.plant.zero_copy(),
            queues: 1,
            workers: 1,
            worker_cpu: self.plan.worker_cpu,
            generator_cpu: self.plan.generator_cpu,
            generator: generator::NAME,
            sessions: self.plan.sessions,
            packets: self.plan.packets,
            repetitions: self.plan.repetitions,
        }
    }

    /// Measures one length, both ways; calls `tick` after each repetition, warm-up included.
    pub fn measure(&mut self, inner_bytes: usize, mut tick: impl FnMut()) -> Result<[Row; 2]> {
        check_inner(inner_bytes)?;
        let mut aead = BareAead::new(AEAD_BUFFERS, inner_bytes);
        let mut series = [Way::Inwards, Way::Outwards].map(Series::new);
        for repetition in 0..WARM_UP + self.plan.repetitions {
            for series in &mut series {
                // Inwards first: what arrives there keeps the sessions alive.
                let preemptions = preemption::count();
                let (bare, gateway) = self.compare(series.way, inner_bytes)?;
                let (seal, open) = aead_alone(&mut aead)?;
                if repetition >= WARM_UP {
                    series.bare.push(bare);
                    series.gateway.push(gateway);
                    series.preemptions += preemption::count() - preemptions;
                    series.aead_ns.push(if series.way == Way::Inwards { open } else { seal });
                }
            }
            tick();
        }
        let [inwards, outwards] = series;
        Ok([inwards.row(inner_bytes)?, outwards.row(inner_bytes)?])
    }

    /// Both contestants in turn.
    fn compare(&mut self, way: Way, inner_bytes: usize) -> Result<(Sample, Sample)> {
        let Self { plan, range, gateway, bare } = self;
        let bare_load = bare.under_load(range, way, &[inner_bytes], plan.packets)?;
        let gateway_load = gateway.under_load(range, way, &[inner_bytes], plan.packets)?;
        let bare_alone = bare.alone(range, way, &[inner_bytes])?;
        let gateway_alone = gateway.alone(range, way, &[inner_bytes])?;
        Ok((Sample { alone: bare_alone, load: bare_load }, Sample { alone: gateway_alone, load: gateway_load }))
    }
}

/// The AEAD's sealing and opening, in ns, after a round that brings its buffers back into the cache.
pub(crate) fn aead_alone(aead: &mut BareAead) -> Result<(f64, f64)> {
    aead.seal();
    aead.open()?;
    Ok((aead.seal(), aead.open()?))
}

/// The CPUs that this process may use.
pub fn cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect())
}

pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot use CPU {cpu}"))
}

/// One repetition of one contestant.
struct Sample {
    alone: f64,
    load: Load,
}

/// All repetitions of one length and way.
struct Series {
    way: Way,
    bare: Vec<Sample>,
    gateway: Vec<Sample>,
    aead_ns: Vec<f64>,
    preemptions: u64,
}

impl Series {
    fn new(way: Way) -> Self {
        Self { way, bare: Vec::new(), gateway: Vec::new(), aead_ns: Vec::new(), preemptions: 0 }
    }

    fn row(&self, inner_bytes: usize) -> Result<Row> {
        let column = |samples: &[Sample], pick: fn(&Sample) -> f64| samples.iter().map(pick).collect::<Vec<_>>();
        let (bare_alone, gateway_alone) = (column(&self.bare, |one| one.alone), column(&self.gateway, |one| one.alone));
        let bare_arrived = column(&self.bare, |one| one.load.arrived);
        let gateway_arrived = column(&self.gateway, |one| one.load.arrived);
        let bound: Vec<f64> = bare_alone.iter().zip(&self.aead_ns).map(|(&bare, &aead)| bound(bare, aead)).collect();
        let none = "no repetition was asked for";
        Ok(Row {
            way: self.way,
            inner_bytes,
            frame_in: self.way.frame_in(inner_bytes),
            frame_out: self.way.frame_out(inner_bytes),
            bare: contestant(&self.bare).context(none)?,
            gateway: contestant(&self.gateway).context(none)?,
            ratio_alone: Summary::of_ratios(&gateway_alone, &bare_alone).context(none)?,
            ratio_under_load: Summary::of_ratios(&gateway_arrived, &bare_arrived).context(none)?,
            aead_ns: Summary::of(&self.aead_ns).context(none)?,
            bound: Summary::of(&bound).context(none)?,
            ratio_to_bound: Summary::of_ratios(&gateway_alone, &bound).context(none)?,
            preemptions: self.preemptions,
        })
    }
}

fn contestant(samples: &[Sample]) -> Option<Contestant> {
    let column = |pick: fn(&Sample) -> f64| Summary::of(&samples.iter().map(pick).collect::<Vec<_>>());
    Some(Contestant {
        alone: column(|one| one.alone)?,
        arrived: column(|one| one.load.arrived)?,
        offered: column(|one| one.load.offered)?,
        losses: Losses::sum(samples.iter().map(|one| &one.load.losses)),
    })
}

/// Packets per second of a forwarder that spends `aead_ns` more on each.
pub(crate) fn bound(forwarder: f64, aead_ns: f64) -> f64 {
    1e9 / (1e9 / forwarder + aead_ns)
}

impl Way {
    pub(crate) fn frame_in(self, inner_bytes: usize) -> usize {
        match self {
            Self::Inwards => outside_len(inner_bytes),
            Self::Outwards => inside_len(inner_bytes),
        }
    }

    pub(crate) fn frame_out(self, inner_bytes: usize) -> usize {
        match self {
            Self::Inwards => inside_len(inner_bytes),
            Self::Outwards => outside_len(inner_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(alone: f64, arrived: f64) -> Sample {
        Sample { alone, load: Load { arrived, offered: 2e6, losses: Losses::default() } }
    }

    #[test]
    fn a_plan_whose_figures_would_mean_nothing_is_refused() {
        let plan = Plan {
            sessions: 10,
            packets: 1_000,
            repetitions: 1,
            mode: ModeChoice::Native,
            worker_cpu: 0,
            generator_cpu: 1,
        };
        assert!(plan.check(&[0, 1]).is_ok());
        assert!(plan.check(&[0]).is_err(), "a CPU that is not there");
        assert!(Plan { generator_cpu: 0, ..plan }.check(&[0, 1]).is_err(), "one CPU for both");
        assert!(Plan { sessions: 1_001, ..plan }.check(&[0, 1]).is_err(), "sessions that hear nothing");
    }

    #[test]
    fn the_bound_adds_the_times_of_forwarder_and_aead() {
        // 500 ns and 500 ns are a microsecond.
        assert!((bound(2e6, 500.0) - 1e6).abs() < 1e-3);
        assert!((bound(2e6, 0.0) - 2e6).abs() < 1e-3);
    }

    #[test]
    fn ratios_of_a_row_are_those_of_the_pairs_that_ran_together() {
        let mut series = Series::new(Way::Inwards);
        series.bare = vec![sample(2e6, 1e6), sample(1e6, 1e6)];
        series.gateway = vec![sample(1e6, 1e6), sample(0.5e6, 1e6)];
        series.aead_ns = vec![500.0, 1_000.0];
        let row = series.row(64).unwrap();
        assert!((row.ratio_alone.min - 0.5).abs() < 1e-9 && (row.ratio_alone.max - 0.5).abs() < 1e-9);
        assert!((row.ratio_to_bound.median - 1.0).abs() < 1e-9);
        assert_eq!((row.frame_in, row.frame_out), (142, 78));
    }
}
