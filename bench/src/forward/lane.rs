//! How one contestant is measured: what is sent to it, when the clock runs, what is counted.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jumpgate::worker::Sessions;

use super::generator::Generator;
use super::held::Hold;
use super::plant::{Plant, Snapshot};
use super::{ALONE_PACKETS, ALONE_ROUNDS, Losses, Way};
use crate::frames::{write_inside, write_sealed, write_unsealed};
use crate::links::Counters;
use crate::sessions::Peer;
use crate::stats::Summary;

/// One in so many packets of a burst is sent before the clock starts, so that queues are as full as they stay.
const RAMP: usize = 10;
/// Nothing arrives for so long: nothing more will.
const QUIET: Duration = Duration::from_millis(200);
/// Longest time in which what was sent must arrive.
const PATIENCE: Duration = Duration::from_secs(5);

/// What both contestants share: packets, and how to send and count them.
pub(super) struct Range {
    generator: Generator,
    counters: Counters,
    peers: Vec<Peer>,
    next_peer: usize,
}

impl Range {
    /// Packets of these clients.
    pub(super) fn new(generator: Generator, peers: Vec<Peer>) -> Result<Self> {
        Ok(Self { generator, counters: Counters::open()?, peers, next_peer: 0 })
    }

    /// Has packets lie ready, of the clients in turn and of these lengths in turn.
    fn load(&mut self, way: Way, sealed: bool, lengths: &[usize], packets: usize) -> Result<()> {
        let Self { generator, peers, next_peer, .. } = self;
        for &inner_bytes in lengths.iter().cycle().take(packets) {
            let number = *next_peer;
            *next_peer = (number + 1) % peers.len();
            let peer = &mut peers[number];
            generator.load(way.frame_in(inner_bytes), |frame| match (way, sealed) {
                (Way::Inwards, true) => write_sealed(frame, peer),
                (Way::Inwards, false) => write_unsealed(frame, peer),
                (Way::Outwards, _) => {
                    write_inside(frame, peer);
                    Ok(())
                }
            })?;
        }
        Ok(())
    }
}

/// A contestant, and the generator's lines to it.
pub(super) struct Lane<S: Sessions> {
    pub(super) plant: Plant<S>,
    /// Whether its packets must be sealed.
    sealed: bool,
    inwards: usize,
    outwards: usize,
}

impl<S: Sessions> Lane<S> {
    /// Adds the contestant's links to those that the generator sends on.
    pub(super) fn new(plant: Plant<S>, sealed: bool, generator: &mut Generator) -> Result<Self> {
        let inwards = generator.add_line(&plant.entry(Way::Inwards))?;
        let outwards = generator.add_line(&plant.entry(Way::Outwards))?;
        Ok(Self { plant, sealed, inwards, outwards })
    }

    fn line(&self, way: Way) -> usize {
        match way {
            Way::Inwards => self.inwards,
            Way::Outwards => self.outwards,
        }
    }

    /// Offers a burst as fast as the generator can.
    pub(super) fn under_load(&self, range: &mut Range, way: Way, lengths: &[usize], packets: usize) -> Result<Load> {
        range.load(way, self.sealed, lengths, packets)?;
        let Range { generator, counters, .. } = range;
        let before = self.plant.snapshot(counters)?;
        let ramp = packets / RAMP;
        generator.fire(self.line(way), ramp)?;
        let first = self.plant.arrived(way, counters)?;
        let started = Instant::now();
        generator.fire(self.line(way), packets - ramp)?;
        let last = self.plant.arrived(way, counters)?;
        let seconds = started.elapsed().as_secs_f64();
        let losses = self.settled_losses(&before, way, packets as u64, counters)?;
        let rate = |packets: u64| packets as f64 / seconds;
        Ok(Load { arrived: rate(last - first), offered: rate((packets - ramp) as u64), losses })
    }

    /// What became of a burst, once every packet is accounted for or nothing more happens.
    fn settled_losses(&self, before: &Snapshot, way: Way, offered: u64, counters: &mut Counters) -> Result<Losses> {
        let mut losses = Losses::default();
        let mut changed = Instant::now();
        loop {
            let now = self.plant.snapshot(counters)?.losses_since(before, way, offered);
            if now != losses {
                (losses, changed) = (now, Instant::now());
            }
            if losses.unexplained() == 0 || changed.elapsed() > QUIET {
                return Ok(losses);
            }
            std::thread::sleep(QUIET / 100);
        }
    }

    /// Packets per second of the worker with nobody else at work: the median, so that a round in which the worker lost
    /// its CPU does not count.
    pub(super) fn alone(&self, range: &mut Range, way: Way, lengths: &[usize]) -> Result<f64> {
        let mut rounds = [0.0; ALONE_ROUNDS];
        for round in &mut rounds {
            range.load(way, self.sealed, lengths, ALONE_PACKETS)?;
            *round = ALONE_PACKETS as f64 / self.alone_once(range, way)?.as_secs_f64();
        }
        Ok(Summary::of(&rounds).context("there are rounds")?.median)
    }

    fn alone_once(&self, range: &mut Range, way: Way) -> Result<Duration> {
        let hold = self.held(range, way)?;
        let counters = &mut range.counters;
        let expected = self.plant.arrived(way, counters)? + ALONE_PACKETS as u64;
        let started = hold.start()?;
        while self.plant.arrived(way, counters)? < expected {
            ensure!(started.elapsed() < PATIENCE, "not all of {ALONE_PACKETS} packets arrived");
        }
        Ok(started.elapsed())
    }

    /// Packets per second of the worker with nobody else at work, between the first and the last arrival that is seen:
    /// as a process that is held from outside is measured, whose waking up takes its time. None if the looks came too late.
    pub(super) fn drained(&self, range: &mut Range, way: Way, lengths: &[usize]) -> Result<Option<f64>> {
        range.load(way, self.sealed, lengths, ALONE_PACKETS)?;
        let hold = self.held(range, way)?;
        let counters = &mut range.counters;
        let before = self.plant.arrived(way, counters)?;
        hold.start()?;
        drained(before, ALONE_PACKETS as u64, || self.plant.arrived(way, counters))
    }

    /// A worker that stands still in front of [`ALONE_PACKETS`] packets.
    fn held(&self, range: &mut Range, way: Way) -> Result<Hold> {
        let hold = self.plant.hold()?;
        let steered = self.plant.steered(way)? + ALONE_PACKETS as u64;
        range.generator.fire(self.line(way), ALONE_PACKETS)?;
        let deadline = Instant::now() + PATIENCE;
        while self.plant.steered(way)? < steered {
            ensure!(Instant::now() < deadline, "the XDP program did not see all of {ALONE_PACKETS} packets");
        }
        Ok(hold)
    }
}

/// Packets per second of somebody who was let go, from the first arrival that is seen to the last of `packets`. None if
/// whoever looks lost its CPU, and saw the first when half of them were there.
pub(crate) fn drained(before: u64, packets: u64, mut arrived: impl FnMut() -> Result<u64>) -> Result<Option<f64>> {
    let called = Instant::now();
    let mut first = None;
    loop {
        let (count, now) = (arrived()? - before, Instant::now());
        ensure!(called.elapsed() < PATIENCE || count >= packets, "only {count} of {packets} packets arrived");
        if count == 0 {
            continue;
        }
        let (ahead, since) = *first.get_or_insert((count, now));
        if ahead > packets / 2 {
            return Ok(None);
        }
        if count >= packets {
            return Ok(Some((packets - ahead) as f64 / now.duration_since(since).as_secs_f64()));
        }
    }
}

/// One burst under load.
pub(crate) struct Load {
    /// Packets per second that arrived.
    pub(crate) arrived: f64,
    /// Packets per second that were offered.
    pub(crate) offered: f64,
    /// What became of all its packets.
    pub(crate) losses: Losses,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_after_the_first_look_and_a_late_look_is_none() {
        let mut counts = [100, 100, 300, 600, 1_100].into_iter();
        let rate = drained(100, 1_000, || {
            std::thread::sleep(Duration::from_millis(1));
            Ok(counts.next().unwrap())
        });
        // 800 packets in the two milliseconds and some after the first 200.
        assert!(rate.unwrap().is_some_and(|rate| rate > 0.0 && rate <= 400_000.0));
        assert_eq!(drained(0, 1_000, || Ok(1_000)).unwrap(), None);
    }
}
