//! One direction of a path: what it does to a datagram.

use arrayvec::ArrayVec;
use jumpgate_protocol::time::{Span, Time};

use super::Dice;

/// A datagram that is out of order comes so much later than the others.
const HELD_BACK: Span = Span::from_millis(40);
/// What a slow link queues; the rest is dropped at its end.
const QUEUE_LIMIT: Span = Span::from_millis(200);
/// Headers of UDP and IPv4 around a payload, in bytes.
const OUTER_HEADERS: u64 = 28;

/// How one direction of a path treats datagrams. Probabilities are in permille.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Impairment {
    /// One-way delay.
    pub delay: Span,
    /// Up to so much is added to the delay, uniformly: enough jitter reorders.
    pub jitter: Span,
    /// Lost datagrams, each on its own.
    pub loss: u32,
    /// Losses that come in bursts, besides.
    pub burst: Option<Burst>,
    /// Datagrams that come twice.
    pub duplicate: u32,
    /// Datagrams that are overtaken by later ones.
    pub reorder: u32,
    /// Datagrams with one flipped bit.
    pub corrupt: u32,
    /// Largest UDP payload that passes, in bytes; larger ones vanish.
    pub mtu: Option<u16>,
    /// Throughput in kbit/s; what does not fit in a queue of 200 ms is dropped.
    pub rate: Option<u32>,
    /// The path comes and goes.
    pub flap: Option<Flap>,
    /// Nothing passes.
    pub blackhole: bool,
}

/// Burst loss after Gilbert and Elliott: a good state without loss and a bad one, which is entered and left at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// A datagram finds the path turned bad.
    pub enter: u32,
    /// A datagram finds it turned good again.
    pub leave: u32,
    /// Loss while it is bad.
    pub loss: u32,
}

/// A path that passes everything for a while and then nothing, periodically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flap {
    /// It works for so long,
    pub up: Span,
    /// and then does not for so long.
    pub down: Span,
}

/// What a direction remembers between datagrams.
#[derive(Clone, Debug, Default)]
pub(crate) struct WayState {
    is_bad: bool,
    busy_until: Time,
}

/// One copy of a datagram on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passage {
    pub(crate) at: Time,
    /// The bit that was flipped on the way.
    pub(crate) flipped: Option<usize>,
}

impl Impairment {
    /// 10 ms and nothing wrong.
    pub const GOOD: Self = Self {
        delay: Span::from_millis(10),
        jitter: Span::ZERO,
        loss: 0,
        burst: None,
        duplicate: 0,
        reorder: 0,
        corrupt: 0,
        mtu: None,
        rate: None,
        flap: None,
        blackhole: false,
    };
    /// Nothing passes.
    pub const DEAD: Self = Self { blackhole: true, ..Self::GOOD };

    /// What becomes of a datagram of that many bytes: the copies that arrive.
    pub(crate) fn carry(&self, state: &mut WayState, dice: &mut Dice, now: Time, bytes: usize) -> ArrayVec<Passage, 2> {
        let mut copies = ArrayVec::new();
        if self.blackhole || self.flap.is_some_and(|flap| flap.is_down(now)) {
            return copies;
        }
        if self.mtu.is_some_and(|mtu| bytes > usize::from(mtu)) || dice.chance(self.loss) {
            return copies;
        }
        if self.burst.is_some_and(|burst| burst.loses(state, dice)) {
            return copies;
        }
        let Some(sent) = self.transmitted(state, now, bytes) else {
            return copies;
        };
        for _ in 0..=u32::from(dice.chance(self.duplicate)) {
            let mut at = sent + self.delay + Span::from_micros(dice.below(self.jitter.as_micros() + 1));
            if dice.chance(self.reorder) {
                at += HELD_BACK;
            }
            let flipped = (bytes > 0 && dice.chance(self.corrupt)).then(|| dice.below(bytes as u64 * 8) as usize);
            copies.push(Passage { at, flipped });
        }
        copies
    }

    /// When the link has put it on the wire; not at all if its queue is full.
    fn transmitted(&self, state: &mut WayState, now: Time, bytes: usize) -> Option<Time> {
        let Some(rate) = self.rate else {
            return Some(now);
        };
        let start = now.max(state.busy_until);
        if start.since(now) > QUEUE_LIMIT {
            return None;
        }
        let bits = (bytes as u64 + OUTER_HEADERS) * 8;
        state.busy_until = start + Span::from_micros(bits * 1_000 / u64::from(rate.max(1)));
        Some(state.busy_until)
    }
}

impl Default for Impairment {
    fn default() -> Self {
        Self::GOOD
    }
}

impl Burst {
    fn loses(self, state: &mut WayState, dice: &mut Dice) -> bool {
        let turns = dice.chance(if state.is_bad { self.leave } else { self.enter });
        state.is_bad ^= turns;
        state.is_bad && dice.chance(self.loss)
    }
}

impl Flap {
    fn is_down(self, now: Time) -> bool {
        let period = (self.up.as_micros() + self.down.as_micros()).max(1);
        now.as_micros() % period >= self.up.as_micros()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(way: &Impairment, datagrams: u64, bytes: usize) -> (usize, usize) {
        let (mut state, mut dice) = (WayState::default(), Dice::new(3));
        let (mut arrived, mut longest_gap, mut gap) = (0, 0, 0);
        for n in 0..datagrams {
            let copies = way.carry(&mut state, &mut dice, Time::from_millis(n), bytes).len();
            arrived += copies;
            gap = if copies == 0 { gap + 1 } else { 0 };
            longest_gap = longest_gap.max(gap);
        }
        (arrived, longest_gap)
    }

    #[test]
    fn bursts_lose_as_much_as_single_losses_and_in_longer_rows() {
        // Bad for 20 of 100 datagrams on average, and ten in a row.
        let burst = Burst { enter: 25, leave: 100, loss: 1_000 };
        let (in_bursts, longest) = count(&Impairment { burst: Some(burst), ..Impairment::GOOD }, 100_000, 100);
        let (single, shorter) = count(&Impairment { loss: 200, ..Impairment::GOOD }, 100_000, 100);
        assert!(in_bursts.abs_diff(single) < 2_000, "{in_bursts} {single}");
        assert!(longest > 3 * shorter, "{longest} {shorter}");
    }

    #[test]
    fn what_is_too_large_vanishes_and_what_fits_passes() {
        let way = Impairment { mtu: Some(600), ..Impairment::GOOD };
        assert_eq!((count(&way, 10, 600).0, count(&way, 10, 601).0), (10, 0));
    }

    #[test]
    fn a_slow_link_passes_its_rate_and_drops_the_rest() {
        // 1000 datagrams of 1000 bits in a second, over 100 kbit/s.
        let way = Impairment { rate: Some(100), ..Impairment::GOOD };
        let (arrived, _) = count(&way, 1_000, 125 - OUTER_HEADERS as usize);
        assert!((100..=125).contains(&arrived), "a second and a queue of 0.2 s: {arrived}");
    }

    #[test]
    fn a_flapping_path_works_half_of_the_time() {
        let flap = Flap { up: Span::from_millis(100), down: Span::from_millis(100) };
        assert_eq!(count(&Impairment { flap: Some(flap), ..Impairment::GOOD }, 1_000, 100), (500, 100));
    }

    #[test]
    fn copies_and_flipped_bits_are_as_many_as_asked_for() {
        let way = Impairment { duplicate: 1_000, corrupt: 1_000, ..Impairment::GOOD };
        let copies = way.carry(&mut WayState::default(), &mut Dice::new(1), Time::ZERO, 10);
        assert_eq!(copies.len(), 2);
        assert!(copies.iter().all(|copy| copy.flipped.is_some_and(|bit| bit < 80)));
    }
}
