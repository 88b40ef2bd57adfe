//! What one worker of the gateway's own program forwards, against the bound that is measured in turn with it.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use super::*;
use crate::aead::BareAead;
use crate::forward::{AEAD_BUFFERS, ALONE_PACKETS, BareForwarder, Losses, Way, aead_alone, bound};
use crate::frames::check_inner;
use crate::load::plant::PlantConfig;
use crate::load::pour::Burst;
use crate::stats::Summary;

/// Share of the bound that a worker is to reach.
const GOAL: f64 = 0.8;
/// Repetitions in front of those that count: caches, page tables, processor clocks.
const WARM_UP: usize = 1;
/// Times that the worker stands still in one repetition; the median counts, so that a round in which something else took
/// its CPU does not.
const STANDS: usize = 10;
/// Time in which every client hears the gateway again after a length was measured: one interval of heartbeats, and some.
const BREATH: Span = Span::from_millis(2_500);
/// The simple mix of the internet: seven small packets, four middling ones, a long one (RFC 6985 names such mixes).
const MIXED: [usize; 12] = [64, 512, 64, 64, 512, 64, 1_400, 64, 512, 64, 512, 64];

/// Which packets: one length, or the mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lengths {
    /// All of that many bytes.
    One(usize),
    /// 64, 512 and 1400 bytes as 7 : 4 : 1.
    Mixed,
}

impl FromStr for Lengths {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "mixed" {
            return Ok(Self::Mixed);
        }
        let bytes = text.parse().context("a length in bytes or `mixed`")?;
        check_inner(bytes)?;
        Ok(Self::One(bytes))
    }
}

impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(bytes) => write!(f, "{bytes}"),
            Self::Mixed => f.write_str("mixed"),
        }
    }
}

impl Lengths {
    /// In turn.
    pub fn in_turn(&self) -> &[usize] {
        match self {
            Self::One(bytes) => std::slice::from_ref(bytes),
            Self::Mixed => &MIXED,
        }
    }

    fn mean(&self) -> f64 {
        let all = self.in_turn();
        all.iter().sum::<usize>() as f64 / all.len() as f64
    }
}

/// What was measured for one length, one way and one number of sessions.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Sessions that the packets belong to, in turn.
    pub sessions: u32,
    /// Which way.
    pub way: Way,
    /// Length of the inner IP packets in bytes, or `mixed`.
    pub inner_bytes: String,
    /// Their mean.
    pub mean_bytes: f64,
    /// Packets per second that arrived under load.
    pub arrived: Summary,
    /// Packets per second that the generator offered meanwhile.
    pub offered: Summary,
    /// Inner bits per second that arrived under load.
    pub bits_per_s: f64,
    /// Packets per second of the gateway with nobody else at work.
    pub drained: Summary,
    /// Whether the gateway was the limit under load; else the generator was.
    pub gateway_limits: bool,
    /// CPU time of the gateway's process for a packet that arrived, in ns; softirqs in its context are part of it where the
    /// kernel does not tell them apart.
    pub process_ns: f64,
    /// Of it, in user space.
    pub user_ns: f64,
    /// Softirq time of its CPU for such a packet, in ns.
    pub softirq_ns: f64,
    /// What became of all packets that were offered.
    pub losses: Losses,
    /// The bare forwarder under load, in packets per second that arrived.
    pub bare_arrived: Summary,
    /// The bare forwarder with nobody else at work, in packets per second.
    pub bare_drained: Summary,
    /// The bare AEAD, in ns per packet.
    pub aead_ns: Summary,
    /// The bound, in packets per second: `1 / (time of the bare forwarder alone + time of the AEAD)`.
    pub bound: Summary,
    /// `drained / bound`, pair by pair.
    pub drained_ratio: Summary,
    /// `arrived / bound`, pair by pair.
    pub arrived_ratio: Summary,
}

/// Arrivals per second of [`ready`], well below what a gateway takes.
const ARRIVALS: u64 = 2_000;

/// A gateway with that many sessions that packets can be poured at by [`Engine::pour`], for comparisons with others; rounds
/// have at most that many packets. Between rounds that take more than seconds altogether, let it run for a while.
///
/// # Errors
/// The lab cannot be built here, or gateway or generator failed.
pub fn ready(sessions: u32, packets: u32, gateway_cpu: usize, generator_cpu: usize) -> Result<Engine> {
    let config = PlantConfig {
        clients: sessions,
        seed: 1,
        profile: "default".to_owned(),
        policy: Scenario::Throughput.policy(),
        tables: String::new(),
        cpu: gateway_cpu,
        mode: "native",
        ahead: packets.max(ALONE_PACKETS as u32),
    };
    let mut engine = Engine::start(&config, generator_cpu)?;
    let agenda = Agenda::new(1, Spread::Fixed, ARRIVALS, clock::now());
    arrive_by(&mut engine, agenda, sessions)?;
    Ok(engine)
}

/// Every length, both ways, with ever more sessions.
pub(super) fn throughput(engine: &mut Engine, measure: &Measure, findings: &mut Findings) -> Result<()> {
    let start = clock::now();
    let mut bare = BareForwarder::start(measure.gateway_cpu, measure.packets)?;
    for &sessions in &measure.sessions {
        arrive_up_to(engine, measure, sessions)?;
        for lengths in &measure.lengths {
            engine.turn_deaf();
            for way in [Way::Inwards, Way::Outwards] {
                engine.say(format!("{sessions} sessions, {lengths} bytes, {way:?}"));
                let mut series = Series::new(*lengths);
                for repetition in 0..WARM_UP + measure.repetitions {
                    if engine.is_interrupted() {
                        break;
                    }
                    let sample = series.sample(engine, &mut bare, way, measure.packets)?;
                    if repetition >= WARM_UP {
                        series.samples.push(sample);
                    }
                }
                if let Some(row) = series.row(sessions, way) {
                    engine.print(&row);
                    findings.goals.push(row.goal());
                    findings.rows.push(row);
                }
            }
            engine.listen()?;
            engine.run(BREATH, |_, _| Ok(false))?;
            ensure!(
                engine.crowd.live() >= u64::from(sessions) || engine.is_interrupted(),
                "sessions ended while they were measured: {:?}",
                engine.crowd.book.ended
            );
        }
    }
    findings.duration = clock::now().since(start);
    findings.notes.push(
        "packets were sealed ahead; where a row says that the generator limits, the gateway could do more: see `drained`"
            .to_owned(),
    );
    Ok(())
}

struct Sample {
    gateway: Burst,
    gateway_drained: f64,
    bare_arrived: f64,
    bare_drained: f64,
    aead_ns: f64,
}

/// Repetitions of one row.
struct Series {
    lengths: Lengths,
    /// Each length with its share of the packets.
    aeads: Vec<(f64, BareAead)>,
    samples: Vec<Sample>,
}

impl Series {
    fn new(lengths: Lengths) -> Self {
        let in_turn = lengths.in_turn();
        let mut different = in_turn.to_vec();
        different.sort_unstable();
        different.dedup();
        let share = |bytes| in_turn.iter().filter(|other| **other == bytes).count() as f64 / in_turn.len() as f64;
        let aeads = different.into_iter().map(|bytes| (share(bytes), BareAead::new(AEAD_BUFFERS, bytes)));
        Self { lengths, aeads: aeads.collect(), samples: Vec::new() }
    }

    /// Both contestants and the AEAD in turn.
    fn sample(&mut self, engine: &mut Engine, bare: &mut BareForwarder, way: Way, packets: usize) -> Result<Sample> {
        let lengths = self.lengths.in_turn();
        let bare_arrived = bare.under_load(way, lengths, packets)?.arrived;
        let gateway = engine.pour(way, lengths, packets)?;
        let (mut bare_drained, mut gateway_drained) = (Vec::new(), Vec::new());
        for _ in 0..STANDS {
            bare_drained.extend(bare.drained(way, lengths)?);
            gateway_drained.extend(engine.drained(way, lengths)?);
        }
        let nothing = "other work takes the CPU away so often that nothing can be timed";
        let (bare_drained, gateway_drained) =
            (Summary::of(&bare_drained).context(nothing)?, Summary::of(&gateway_drained).context(nothing)?);
        let mut aead_ns = 0.0;
        for (share, aead) in &mut self.aeads {
            let (seal, open) = aead_alone(aead)?;
            aead_ns += *share * if way == Way::Inwards { open } else { seal };
        }
        Ok(Sample {
            gateway,
            gateway_drained: gateway_drained.median,
            bare_arrived,
            bare_drained: bare_drained.median,
            aead_ns,
        })
    }

    /// None without a sample.
    fn row(&self, sessions: u32, way: Way) -> Option<Row> {
        let column = |pick: fn(&Sample) -> f64| self.samples.iter().map(pick).collect::<Vec<_>>();
        let (arrived, drained) = (column(|one| one.gateway.arrived), column(|one| one.gateway_drained));
        let bounds = column(|one| bound(one.bare_drained, one.aead_ns));
        let losses = Losses::sum(self.samples.iter().map(|one| &one.gateway.losses));
        let ns = |of: fn(&Burst) -> f64| {
            self.samples.iter().map(|one| of(&one.gateway)).sum::<f64>() * 1e9 / losses.arrived.max(1) as f64
        };
        let arrived_rate = Summary::of(&arrived)?;
        Some(Row {
            sessions,
            way,
            inner_bytes: self.lengths.to_string(),
            mean_bytes: self.lengths.mean(),
            arrived: arrived_rate,
            offered: Summary::of(&column(|one| one.gateway.offered))?,
            bits_per_s: arrived_rate.median * self.lengths.mean() * 8.0,
            drained: Summary::of(&drained)?,
            gateway_limits: losses.overloaded(),
            process_ns: ns(|burst| burst.process_s),
            user_ns: ns(|burst| burst.user_s),
            softirq_ns: ns(|burst| burst.softirq_s),
            bare_arrived: Summary::of(&column(|one| one.bare_arrived))?,
            bare_drained: Summary::of(&column(|one| one.bare_drained))?,
            aead_ns: Summary::of(&column(|one| one.aead_ns))?,
            bound: Summary::of(&bounds)?,
            drained_ratio: Summary::of_ratios(&drained, &bounds)?,
            arrived_ratio: Summary::of_ratios(&arrived, &bounds)?,
            losses,
        })
    }
}

impl Row {
    fn goal(&self) -> Goal {
        let Self { sessions, way, inner_bytes, .. } = self;
        let name = format!("share of the bound, {inner_bytes} bytes {way:?}, {sessions} sessions");
        Goal::at_least(&name.to_lowercase(), self.drained_ratio.median, GOAL, "of it")
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mega = |summary: &Summary| {
            format!("{:.3} ({:.3} to {:.3})", summary.median / 1e6, summary.min / 1e6, summary.max / 1e6)
        };
        let limit = if self.gateway_limits { "the gateway limits" } else { "THE GENERATOR limits" };
        writeln!(f, "{} bytes {:?}, {} sessions", self.inner_bytes, self.way, self.sessions)?;
        writeln!(
            f,
            "  under load, Mpps: {} of {} offered, {:.2} Gbit/s inside; bare {}; {limit}",
            mega(&self.arrived),
            mega(&self.offered),
            self.bits_per_s / 1e9,
            mega(&self.bare_arrived),
        )?;
        writeln!(f, "  alone, Mpps: {}; bare {}", mega(&self.drained), mega(&self.bare_drained))?;
        writeln!(
            f,
            "  bound: {:.3} Mpps = 1 / ({:.0} ns bare + {:.0} ns AEAD); alone {:.2} of it, under load {:.2}",
            self.bound.median / 1e6,
            1e9 / self.bare_drained.median,
            self.aead_ns.median,
            self.drained_ratio.median,
            self.arrived_ratio.median,
        )?;
        writeln!(
            f,
            "  CPU per packet: {:.0} ns of the process ({:.0} in user space), {:.0} ns softirq on its CPU",
            self.process_ns, self.user_ns, self.softirq_ns
        )?;
        let losses = &self.losses;
        let mut reasons: Vec<String> = losses.dropped.iter().map(|(why, count)| format!("{why} {count}")).collect();
        if losses.unexplained() != 0 {
            reasons.push(format!("counted by nobody {}", losses.unexplained()));
        }
        let reasons = if reasons.is_empty() { "nothing lost".to_owned() } else { reasons.join(", ") };
        write!(f, "  of {} packets {} arrived; {reasons}", losses.offered, losses.arrived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_has_seven_small_four_middling_and_one_long_packet() {
        let count = |bytes| Lengths::Mixed.in_turn().iter().filter(|other| **other == bytes).count();
        assert_eq!((count(64), count(512), count(1_400)), (7, 4, 1));
        assert!("mixed".parse::<Lengths>().is_ok_and(|lengths| lengths == Lengths::Mixed));
        assert!("63000".parse::<Lengths>().is_err() && "small".parse::<Lengths>().is_err());
    }

    #[test]
    fn a_row_adds_up_its_rounds_and_says_who_limits() {
        let burst = |lost: u64| Burst {
            offered: 2e6,
            arrived: 1e6,
            losses: Losses { offered: 1_000, arrived: 1_000 - lost, ..Losses::default() },
            process_s: 1e-3,
            user_s: 5e-4,
            softirq_s: 1e-4,
        };
        let sample = |lost| Sample {
            gateway: burst(lost),
            gateway_drained: 0.8e6,
            bare_arrived: 2e6,
            bare_drained: 2e6,
            aead_ns: 500.0,
        };
        let mut series = Series::new(Lengths::One(64));
        assert!(series.row(1, Way::Inwards).is_none(), "nothing measured");
        series.samples = vec![sample(0), sample(500)];
        let row = series.row(1, Way::Inwards).unwrap();
        assert!(row.gateway_limits);
        assert!((row.drained_ratio.median - 0.8).abs() < 1e-9 && row.goal().is_met());
        assert!((row.process_ns - 2e6 / 1_500.0).abs() < 1e-6, "{}", row.process_ns);
        series.samples = vec![sample(0)];
        assert!(!series.row(1, Way::Inwards).unwrap().gateway_limits);
    }
}
