//! Rounds of packets that lie ready, poured at the gateway: what it forwards, loses and costs.
//!
//! The clients' own code seals a round ahead, every packet for one use; then it is poured in its order by AF_XDP, and the
//! generator computes nothing meanwhile. Nobody listens at the far ends: what arrives there is counted by the links and
//! thrown away at the least cost, on the gateway's CPU, as in `forward`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use jumpgate::clock;
use jumpgate_common::counter::{Counter, Fate};

use super::engine::Engine;
use super::run::rows;
use crate::forward::{ALONE_PACKETS, Losses, Way, drained};
use crate::links::Counters;

/// One in so many packets of a round is sent before the clock starts, so that queues are as full as they stay.
const RAMP: usize = 10;
/// Nothing arrives for so long: nothing more will.
const QUIET: Duration = Duration::from_millis(50);
/// Longest time in which the gateway must be offered what was sent while it stood still.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of one round.
#[derive(Clone, Debug)]
pub struct Burst {
    /// Packets per second that the generator offered.
    pub offered: f64,
    /// Packets per second that arrived at the far end meanwhile.
    pub arrived: f64,
    /// What became of all packets of the round.
    pub losses: Losses,
    /// CPU seconds of the gateway's process for all of them.
    pub process_s: f64,
    /// Of them, in user space, to the kernel's tick.
    pub user_s: f64,
    /// Softirq seconds of its CPU meanwhile, to the kernel's tick.
    pub softirq_s: f64,
}

impl Engine {
    /// From now on, nobody listens at the far ends. Clients that shall live must be listened to again in time.
    pub fn turn_deaf(&mut self) {
        self.plant.turn_deaf();
    }

    /// Clients and servers hear again.
    pub fn listen(&mut self) -> Result<()> {
        let Self { plant, crowd, servers, .. } = self;
        plant.listen(crowd.line(), servers)
    }

    /// Seals a round ahead and offers it as fast as the generator can: packets of these inner lengths in turn, of all
    /// sessions in turn.
    pub fn pour(&mut self, way: Way, lengths: &[usize], packets: usize) -> Result<Burst> {
        self.lay(way, lengths, packets)?;
        let mut links = Counters::open()?;
        let mut arrived = || Ok::<_, anyhow::Error>(links.of(exit(way))?.received);
        let counted = self.drops()?;
        let (cost, none) = (self.reading()?, arrived()?);
        let ramp = packets / RAMP;
        self.pour_laid(way, ramp)?;
        let first = arrived()?;
        let started = Instant::now();
        self.pour_laid(way, packets - ramp)?;
        let last = arrived()?;
        let seconds = started.elapsed().as_secs_f64();
        let (mut all, mut changed) = (last, Instant::now());
        while all - none < packets as u64 && changed.elapsed() < QUIET {
            let now = arrived()?;
            if now != all {
                (all, changed) = (now, Instant::now());
            }
        }
        let spent = self.reading()?;
        self.crowd.frames.1 += all - none;
        self.note(clock::now())?;
        let mut losses = Losses { offered: packets as u64, arrived: all - none, ..Losses::default() };
        for (reason, now) in self.drops()? {
            losses.drop_packets(&reason, now - counted.get(&reason).copied().unwrap_or(0));
        }
        Ok(Burst {
            offered: (packets - ramp) as f64 / seconds,
            arrived: (last - first) as f64 / seconds,
            losses,
            process_s: spent.run_s - cost.run_s,
            user_s: spent.user_s - cost.user_s,
            softirq_s: spent.softirq_s - cost.softirq_s,
        })
    }

    /// Packets per second of the gateway with nobody else at work: its program is stopped until its receive ring is full,
    /// then let go; from the first arrival that is seen to the last. No generator can be the limit. None if the generator
    /// lost its CPU and looked too late.
    pub fn drained(&mut self, way: Way, lengths: &[usize]) -> Result<Option<f64>> {
        self.lay(way, lengths, ALONE_PACKETS)?;
        let mut links = Counters::open()?;
        self.plant.hold(true)?;
        let result = self.fill_and_go(way, &mut links);
        // Whatever happened: a gateway that stands still cannot even be ended well.
        self.plant.hold(false)?;
        let before = result?;
        drained(before, ALONE_PACKETS as u64, || Ok(links.of(exit(way))?.received))
    }

    /// Fills the receive ring of a gateway that stands still; gives how many packets had arrived at the far end before.
    fn fill_and_go(&mut self, way: Way, links: &mut Counters) -> Result<u64> {
        let offered = links.of(entry(way))?.received + ALONE_PACKETS as u64;
        self.pour_laid(way, ALONE_PACKETS)?;
        let deadline = Instant::now() + PATIENCE;
        while links.of(entry(way))?.received < offered {
            ensure!(Instant::now() < deadline, "the gateway's link did not take all of {ALONE_PACKETS} packets");
        }
        Ok(links.of(exit(way))?.received)
    }

    fn lay(&mut self, way: Way, lengths: &[usize], packets: usize) -> Result<()> {
        ensure!(self.crowd.live() > 0, "packets are sealed by clients with a session, and there is none");
        match way {
            Way::Inwards => self.crowd.lay(lengths, packets),
            Way::Outwards => self.crowd.lay_inside(&mut self.servers, self.servers_ends, lengths, packets),
        }
    }

    fn pour_laid(&mut self, way: Way, packets: usize) -> Result<()> {
        match way {
            Way::Inwards => self.crowd.pour_laid(packets),
            Way::Outwards => {
                self.crowd.frames.0 += packets as u64;
                self.servers.pour(packets)
            }
        }
    }

    /// Everything that the gateway counts as not forwarded, by who counted it and why.
    fn drops(&self) -> Result<BTreeMap<String, u64>> {
        let counters = self.plant.counters()?;
        if counters.as_array().is_none_or(Vec::is_empty) {
            bail!("the gateway has counted nothing at all");
        }
        let is_drop = |place: &str, name: &str| match place {
            "xdp" => Counter::ALL.iter().any(|counter| counter.name() == name && counter.fate() != Fate::Steered),
            place if place.starts_with("worker") => {
                SOCKET_DROPS.contains(&name) || name.starts_with(|first: char| first.is_ascii_uppercase())
            }
            _ => false,
        };
        let found = rows(&counters).filter(|row| is_drop(&row.place, &row.name));
        Ok(found.map(|row| (format!("{}: {}", row.place, row.name), row.value)).collect())
    }
}

/// Losses that a worker counts beside those with a reason code, which are in capitals.
const SOCKET_DROPS: [&str; 5] =
    ["outside_ring_full", "outside_kernel_dropped", "inside_ring_full", "inside_kernel_dropped", "no_next_hop"];

/// The gateway's link that such packets come in by.
fn entry(way: Way) -> &'static str {
    if way == Way::Inwards { "lg-out" } else { "lg-in" }
}

/// The link at which they arrive.
fn exit(way: Way) -> &'static str {
    if way == Way::Inwards { "lg-host" } else { "lg-far" }
}
