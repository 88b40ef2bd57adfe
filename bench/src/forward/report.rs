//! The result in words.

use std::fmt;

use super::{ALONE_PACKETS, ALONE_ROUNDS, Conditions, Contestant, Losses, Row, WARM_UP, Way};
use crate::stats::Summary;

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let copies = if self.zero_copy { "zero-copy" } else { "copy" };
        writeln!(
            f,
            "setting: veth pairs in a network namespace of its own; XDP {}, AF_XDP {copies}; {} queue and {} worker, on CPU {};",
            self.mode, self.queues, self.workers, self.worker_cpu
        )?;
        writeln!(
            f,
            "         the far ends' kernel throws packets away on arrival, on the worker's CPU, and its link counters count them"
        )?;
        writeln!(f, "generator: {}, on CPU {}", self.generator, self.generator_cpu)?;
        writeln!(
            f,
            "method: bare forwarder and gateway in turn (A B A B), the same frames but for the seal, of {} sessions in turn",
            self.sessions
        )?;
        writeln!(
            f,
            "  alone: {ALONE_PACKETS} packets that wait in the receive ring when the worker is let go, nobody else at work; median of {ALONE_ROUNDS}"
        )?;
        writeln!(
            f,
            "  under load: bursts of {} packets, sealed beforehand, offered as fast as the generator can",
            self.packets
        )?;
        writeln!(f, "  AEAD: on the generator's CPU between the bursts, with its buffers in the cache")?;
        write!(
            f,
            "  {WARM_UP} repetitions of warm-up, then {}: median (min to max); ratios pair by pair",
            self.repetitions
        )
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (way, work) = match self.way {
            Way::Inwards => ("inwards", "open"),
            Way::Outwards => ("outwards", "seal"),
        };
        writeln!(f, "{} bytes {way} (frames of {} in, {} out)", self.inner_bytes, self.frame_in, self.frame_out)?;
        let mut line = |title: &str, bare: &Summary, gateway: &Summary, ratio: Option<&Summary>| {
            let ratio = ratio.map(|ratio| spread(ratio, 1.0)).unwrap_or_default();
            writeln!(f, "  {title:<18} {:>22} {:>22} {ratio:>22}", spread(bare, MEGA), spread(gateway, MEGA))
        };
        line("alone, Mpps", &self.bare.alone, &self.gateway.alone, Some(&self.ratio_alone))?;
        line("under load, Mpps", &self.bare.arrived, &self.gateway.arrived, Some(&self.ratio_under_load))?;
        line("  offered, Mpps", &self.bare.offered, &self.gateway.offered, None)?;
        writeln!(
            f,
            "  bound: {:.2} Mpps = 1 / ({:.0} ns bare + {:.0} ns AEAD {work}); the gateway alone reaches {} of it",
            self.bound.median / MEGA,
            1e9 / self.bare.alone.median,
            self.aead_ns.median,
            spread(&self.ratio_to_bound, 1.0)
        )?;
        writeln!(
            f,
            "  inner bytes of the gateway alone: {:.2} Gbit/s",
            gigabits(&self.gateway.alone, self.inner_bytes)
        )?;
        writeln!(f, "  under load, bare: {}", limit(&self.bare))?;
        writeln!(f, "  under load, gateway: {}", limit(&self.gateway))?;
        write!(f, "  noise: other work took the CPU away {} times", self.preemptions)
    }
}

/// Heads the columns of a [`Row`].
pub fn header() -> String {
    format!("  {:<18} {:>22} {:>22} {:>22}", "", "bare forwarder", "gateway", "ratio")
}

const MEGA: f64 = 1e6;

fn spread(summary: &Summary, unit: f64) -> String {
    format!("{:.2} ({:.2} to {:.2})", summary.median / unit, summary.min / unit, summary.max / unit)
}

fn gigabits(packets: &Summary, bytes: usize) -> f64 {
    packets.median * bytes as f64 * 8.0 / 1e9
}

/// Who was the limit under load, and where packets were lost.
fn limit(contestant: &Contestant) -> String {
    let losses = &contestant.losses;
    let who = if losses.overloaded() { "THE WORKER limits" } else { "THE GENERATOR limits: the worker could do more" };
    let lost = losses.offered.saturating_sub(losses.arrived);
    format!("{who}; {} of {} packets lost{}", lost, losses.offered, reasons(losses))
}

fn reasons(losses: &Losses) -> String {
    let mut reasons: Vec<_> = losses.dropped.iter().map(|(reason, packets)| format!("{reason} {packets}")).collect();
    if losses.unexplained() != 0 {
        reasons.push(format!("counted by nobody {}", losses.unexplained()));
    }
    if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contestant(offered: u64, arrived: u64, full: u64) -> Contestant {
        let one = Summary::of(&[1e6]).unwrap();
        let mut losses = Losses { offered, arrived, ..Losses::default() };
        losses.drop_packets("AF_XDP: receive ring full", full);
        Contestant { alone: one, arrived: one, offered: one, losses }
    }

    #[test]
    fn a_generator_that_limits_is_said_to_limit() {
        let said = limit(&contestant(1_000_000, 1_000_000, 0));
        assert!(said.contains("THE GENERATOR limits"), "{said}");
        assert!(said.ends_with("0 of 1000000 packets lost"), "{said}");
    }

    #[test]
    fn losses_are_said_by_reason_with_those_that_nobody_counted() {
        let said = limit(&contestant(1_000_000, 900_000, 99_000));
        assert!(said.contains("THE WORKER limits; 100000 of 1000000"), "{said}");
        assert!(said.ends_with("AF_XDP: receive ring full 99000, counted by nobody 1000"), "{said}");
    }
}
