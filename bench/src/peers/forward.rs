//! Forwarded packets per second of a gateway's program, any gateway's: packets lie ready in memory and are poured out.
//!
//! Twice in each round. *Flat out*: as fast as the generator can, which drowns a slow gateway. *Paced*: a little more
//! than the best rate that it has forwarded so far, so that a gateway which loses time to packets it then drops shows
//! what it can do. The better of the two counts.

use std::time::{Duration, Instant};
use std::{fmt, fs};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::forward::Way;
use crate::links::Counters;
use crate::load::line::Line;
use crate::stats::Summary;

/// Frames given to the kernel at once.
const BATCH: usize = 64;
/// One in so many packets is sent before the clock starts, so that queues are as full as they stay.
const RAMP: usize = 10;
/// What a paced round offers, as a multiple of the best rate so far.
const PACE: f64 = 1.15;
/// Nothing arrives for so long: nothing more will.
const QUIET: Duration = Duration::from_millis(50);
/// Lost share of a flat-out round below which the generator was the limit and not the gateway.
const NO_LOSS: f64 = 0.01;
/// Longest time in which the line may take no frame.
const PATIENCE: Duration = Duration::from_secs(5);

/// Frames of one length, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    length: usize,
}

impl Frames {
    /// Empties it for frames of that length; memory is kept.
    pub(super) fn clear(&mut self, length: usize) {
        self.bytes.clear();
        self.length = length;
    }

    /// Adds a frame.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
        let start = self.bytes.len();
        self.bytes.resize(start + self.length, 0);
        write(&mut self.bytes[start..])
    }

    fn len(&self) -> usize {
        self.bytes.len() / self.length.max(1)
    }
}

/// A gateway with sessions, and the generator's lines to it.
pub(super) trait Lane {
    /// Between two rounds: what sessions need to stay alive.
    fn rest(&mut self) -> Result<()>;
    /// Seals or writes that many packets ahead, as whole frames. Nobody listens at the far ends until the next rest.
    fn load(&mut self, way: Way, inner_bytes: usize, packets: usize, frames: &mut Frames) -> Result<()>;
    /// The line that sends packets of that way.
    fn line(&mut self, way: Way) -> &mut Line;
    /// The process that is measured.
    fn pid(&self) -> u32;
}

/// What one pour gave.
#[derive(Clone, Copy, Debug)]
struct Pour {
    offered: f64,
    forwarded: f64,
    lost: f64,
    cpu_ns: f64,
}

/// What was measured with one way to offer packets.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Offer {
    /// Packets per second that were offered.
    pub offered: Summary,
    /// Packets per second that arrived.
    pub forwarded: Summary,
    /// Share of the offered packets that never arrived.
    pub lost: Summary,
    /// CPU time of the gateway's process for one forwarded packet, in ns.
    pub cpu_ns_per_packet: Summary,
}

/// What was measured for one gateway, one length and one way.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The gateway.
    pub subject: String,
    /// Which way.
    pub way: Way,
    /// Length of the inner IP packet, in bytes.
    pub inner_bytes: usize,
    /// As fast as the generator could.
    pub flat_out: Offer,
    /// A little above the best rate so far, where that was tried.
    pub paced: Option<Offer>,
    /// Packets per second: the better of both.
    pub forwarded: Summary,
    /// Bits of inner packets per second: the same in bits.
    pub bits_per_s: f64,
    /// CPU time of the process for one forwarded packet in that case, in ns.
    pub cpu_ns_per_packet: Summary,
    /// Whether nothing was lost flat out: the gateway can do more than this generator offers.
    pub generator_limits: bool,
    /// Packets per second from a full receive ring with nobody else at work, where that can be measured.
    pub alone: Option<Summary>,
    /// What was measured in turn with it as its bound.
    pub bound: Option<Bound>,
}

/// What a gateway of Jumpgate's shape cannot beat, measured in the same run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bound {
    /// The AF_XDP forwarder without sessions, with nobody else at work, in packets per second.
    pub bare: Summary,
    /// The same under load.
    pub bare_under_load: Summary,
    /// The AEAD of the same frames, in ns per packet.
    pub aead_ns: Summary,
    /// `1 / (time of the bare forwarder + time of the AEAD)`, in packets per second.
    pub bound: Summary,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounds {
    /// Packets of one pour.
    pub(super) packets: usize,
    /// Rounds that count, after one that does not.
    pub(super) rounds: usize,
}

/// Measures one length and way. None if the user ended it before there was a round that counts.
pub(super) fn measure(
    subject: &str,
    lane: &mut dyn Lane,
    (way, inner_bytes): (Way, usize),
    Rounds { packets, rounds }: Rounds,
    is_interrupted: &dyn Fn() -> bool,
) -> Result<Option<Row>> {
    let mut counters = Counters::open()?;
    let mut frames = Frames::default();
    let (mut flat_out, mut paced) = (Vec::new(), Vec::new());
    let mut best = 0.0_f64;
    for round in 0..=rounds {
        if is_interrupted() {
            break;
        }
        let mut one = |rate: Option<f64>| -> Result<Pour> {
            lane.rest()?;
            lane.load(way, inner_bytes, packets, &mut frames)?;
            pour(lane, way, &frames, rate, &mut counters)
        };
        let free = one(None)?;
        best = best.max(free.forwarded);
        let held = one((best > 0.0).then_some(best * PACE))?;
        best = best.max(held.forwarded);
        if round > 0 {
            flat_out.push(free);
            paced.push(held);
        }
    }
    let (Some(flat_out), Some(paced)) = (summary(&flat_out), summary(&paced)) else { return Ok(None) };
    let better = if paced.forwarded.median > flat_out.forwarded.median { paced } else { flat_out };
    Ok(Some(Row {
        subject: subject.to_owned(),
        way,
        inner_bytes,
        flat_out,
        paced: Some(paced),
        forwarded: better.forwarded,
        bits_per_s: better.forwarded.median * inner_bytes as f64 * 8.0,
        cpu_ns_per_packet: better.cpu_ns_per_packet,
        generator_limits: flat_out.lost.median < NO_LOSS,
        alone: None,
        bound: None,
    }))
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kilo = |summary: &Summary| {
            format!("{:.0} ({:.0} to {:.0})", summary.median / 1e3, summary.min / 1e3, summary.max / 1e3)
        };
        write!(
            f,
            "{:<13} {:>5} bytes {:<9}: {} kpps, {:.2} Gbit/s, {:.0} ns CPU per packet; flat out {} of {} offered, {:.0} % lost",
            self.subject,
            self.inner_bytes,
            format!("{:?}", self.way).to_lowercase(),
            kilo(&self.forwarded),
            self.bits_per_s / 1e9,
            self.cpu_ns_per_packet.median,
            kilo(&self.flat_out.forwarded),
            kilo(&self.flat_out.offered),
            self.flat_out.lost.median * 100.0,
        )?;
        if let Some(alone) = &self.alone {
            write!(f, "; alone {} kpps", kilo(alone))?;
        }
        if let Some(bound) = &self.bound {
            write!(
                f,
                "; bound {:.0} kpps (bare {:.0} kpps, AEAD {:.0} ns)",
                bound.bound.median / 1e3,
                bound.bare.median / 1e3,
                bound.aead_ns.median
            )?;
        }
        if self.generator_limits {
            write!(f, "; THE GENERATOR limits")?;
        }
        Ok(())
    }
}

fn summary(pours: &[Pour]) -> Option<Offer> {
    let of = |pick: fn(&Pour) -> f64| Summary::of(&pours.iter().map(pick).collect::<Vec<_>>());
    Some(Offer {
        offered: of(|pour| pour.offered)?,
        forwarded: of(|pour| pour.forwarded)?,
        lost: of(|pour| pour.lost)?,
        cpu_ns_per_packet: of(|pour| pour.cpu_ns)?,
    })
}

/// The far link, at which packets of that way arrive.
const fn exit(way: Way) -> &'static str {
    match way {
        Way::Inwards => "lg-host",
        Way::Outwards => "lg-far",
    }
}

/// Sends all frames, at a rate or as fast as possible, and counts what arrives meanwhile.
fn pour(lane: &mut dyn Lane, way: Way, frames: &Frames, rate: Option<f64>, counters: &mut Counters) -> Result<Pour> {
    ensure!(frames.len() >= RAMP * BATCH, "{} packets are too few for a round", frames.len());
    let pid = lane.pid();
    let exit = exit(way);
    let begin = counters.of(exit)?.received;
    let ramp = (frames.len() / RAMP).next_multiple_of(BATCH);
    let sender = lane.line(way);
    let origin = Instant::now();
    let mut clock = None;
    for (number, batch) in frames.bytes.chunks(BATCH * frames.length).enumerate() {
        let sent = number * BATCH;
        if sent == ramp {
            clock = Some((Instant::now(), counters.of(exit)?.received, cpu_of(pid)?));
        }
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(sent as f64 / rate);
            while origin.elapsed() < due {
                std::hint::spin_loop();
            }
        }
        for frame in batch.chunks(frames.length) {
            send(sender, frame)?;
        }
        sender.flush()?;
    }
    let (started, first, cpu) = clock.context("the ramp is shorter than the round")?;
    let (seconds, last, cpu) = (started.elapsed().as_secs_f64(), counters.of(exit)?.received, cpu_of(pid)? - cpu);
    let arrived = settle(exit, counters)? - begin;
    let forwarded = (last - first) as f64;
    Ok(Pour {
        offered: (frames.len() - ramp) as f64 / seconds,
        forwarded: forwarded / seconds,
        lost: 1.0 - arrived as f64 / frames.len() as f64,
        cpu_ns: cpu / forwarded.max(1.0),
    })
}

/// Sends one frame, waiting for room.
fn send(sender: &mut Line, frame: &[u8]) -> Result<()> {
    let write = |room: &mut [u8]| {
        room[..frame.len()].copy_from_slice(frame);
        frame.len()
    };
    if sender.send(write)? {
        return Ok(());
    }
    let since = Instant::now();
    loop {
        sender.flush()?;
        if sender.send(write)? {
            return Ok(());
        }
        ensure!(since.elapsed() < PATIENCE, "the generator's line takes no frame for {PATIENCE:?}");
    }
}

/// Waits until nothing more arrives; gives the count then.
fn settle(exit: &str, counters: &mut Counters) -> Result<u64> {
    let (mut last, mut changed) = (counters.of(exit)?.received, Instant::now());
    while changed.elapsed() < QUIET {
        std::thread::sleep(QUIET / 50);
        let now = counters.of(exit)?.received;
        if now != last {
            (last, changed) = (now, Instant::now());
        }
    }
    Ok(last)
}

/// CPU time that all threads of a process have had, in ns: the scheduler's own account, finer than ticks.
pub(super) fn cpu_of(pid: u32) -> Result<f64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("the gateway is gone")?;
    // A thread may end while we look.
    let times = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
    Ok(times.filter_map(|text| on_cpu(&text)).sum::<u64>() as f64)
}

/// The first number of a schedstat file: time on a CPU in ns.
fn on_cpu(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_lie_one_behind_the_other_and_are_counted() {
        let mut frames = Frames::default();
        assert_eq!(frames.len(), 0);
        frames.clear(3);
        for byte in [1, 2] {
            let fill = |frame: &mut [u8]| {
                frame.fill(byte);
                Ok(())
            };
            frames.push(fill).unwrap();
        }
        assert_eq!((frames.len(), &frames.bytes[..]), (2, &[1, 1, 1, 2, 2, 2][..]));
        frames.clear(2);
        assert_eq!(frames.len(), 0);
    }

    #[test]
    fn cpu_time_is_the_first_number_of_a_schedstat() {
        assert_eq!(on_cpu("154676302 228701106 264\n"), Some(154_676_302));
        assert_eq!(on_cpu(""), None);
    }

    #[test]
    fn the_time_of_this_process_grows_while_it_computes() {
        let pid = std::process::id();
        let before = cpu_of(pid).unwrap();
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        assert!(cpu_of(pid).unwrap() > before);
        assert!(cpu_of(u32::MAX).is_err());
    }

    #[test]
    fn a_row_holds_the_middle_of_its_rounds() {
        let pour = |forwarded: f64| Pour { offered: 2e5, forwarded, lost: 0.5, cpu_ns: 1e9 / forwarded };
        let offer = summary(&[pour(1e5), pour(3e5), pour(2e5)]).unwrap();
        assert_eq!((offer.forwarded.median, offer.forwarded.min, offer.forwarded.max), (2e5, 1e5, 3e5));
        assert!(summary(&[]).is_none());
    }
}
