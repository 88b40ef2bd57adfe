//! The sliding window that accepts each counter once (§7, AR-1 lane Q and AR-3).

use crate::reason::Reason;
use crate::stored::{Damaged, Reader, Stored, Writer};

/// Bits of one word of the bitmap.
const WORD_BITS: u64 = u64::BITS as u64;
/// Words of the largest window that a policy can ask for (PP62).
const WORDS_MAX: usize = 65_536 / WORD_BITS as usize;

/// Which of the last `bits` counters were seen. Counters start at 1; 0 was never valid (AR-2).
///
/// The bitmap is a ring: counter `n` has bit `n` modulo its size. Bits below the highest counter are exact, so in order
/// arrival costs one bit, and a jump costs one word per 64 counters jumped over. It is made when the first counter is
/// marked: a session that carries no DATA has none.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    /// None before the first mark.
    words: Box<[u64]>,
    /// How many there are once there are any.
    size: usize,
    highest: u64,
    received: u64,
}

impl ReplayWindow {
    /// An empty window over `bits` counters.
    ///
    /// # Panics
    /// `bits` is not a power of two, or below 64. PP61 and PP62 rule that out.
    pub fn new(bits: usize) -> Self {
        assert!(bits.is_power_of_two() && bits >= WORD_BITS as usize, "a replay window has 64 * 2^n bits");
        Self { words: Box::default(), size: bits / WORD_BITS as usize, highest: 0, received: 0 }
    }

    /// Whether `counter` may be accepted. Changes nothing: a packet marks the window only once it is authentic (INV-31).
    ///
    /// # Errors
    /// [`Reason::DataTooOld`] below the window, [`Reason::DataReplay`] for a counter already seen.
    #[inline]
    pub fn check(&self, counter: u64) -> Result<(), Reason> {
        if counter > self.highest {
            return Ok(());
        }
        if counter == 0 || self.highest - counter >= self.bits() {
            return Err(Reason::DataTooOld);
        }
        let (word, bit) = self.position(counter);
        if self.words[word] & bit == 0 { Ok(()) } else { Err(Reason::DataReplay) }
    }

    /// Marks `counter`, which [`ReplayWindow::check`] has allowed and whose packet was authentic.
    #[inline]
    pub fn mark(&mut self, counter: u64) {
        if self.words.is_empty() {
            self.make();
        }
        if counter > self.highest {
            self.forget_between(self.highest, counter);
            self.highest = counter;
        }
        let (word, bit) = self.position(counter);
        self.words[word] |= bit;
        self.received += 1;
    }

    /// The highest counter accepted so far; 0 before the first.
    pub const fn highest(&self) -> u64 {
        self.highest
    }

    /// Bytes of the bitmap.
    pub(crate) const fn bytes(&self) -> usize {
        self.words.len() * size_of::<u64>()
    }

    /// How many counters were accepted.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Counters up to this one are decided: none of them is accepted any more.
    pub const fn lower_edge(&self) -> u64 {
        self.highest.saturating_sub(self.bits())
    }

    /// How many counters above `counter` were accepted. Exact from [`ReplayWindow::lower_edge`] on; it costs a word for
    /// every 64 counters between `counter` and the highest.
    pub fn received_above(&self, counter: u64) -> u64 {
        let mut counter = counter.max(self.lower_edge());
        let mut received = 0;
        while counter < self.highest {
            let offset = (counter + 1) % WORD_BITS;
            let run = (WORD_BITS - offset).min(self.highest - counter);
            let mask = if run == WORD_BITS { u64::MAX } else { ((1 << run) - 1) << offset };
            let (word, _) = self.position(counter + 1);
            received += u64::from((self.words[word] & mask).count_ones());
            counter += run;
        }
        received
    }

    #[cold]
    fn make(&mut self) {
        self.words = vec![0; self.size].into();
    }

    /// Clears the bits of the counters above `old` and below `new`: their places hold counters that left the window.
    fn forget_between(&mut self, old: u64, new: u64) {
        if new - old > self.bits() {
            self.words.fill(0);
            return;
        }
        let mut counter = old + 1;
        while counter < new {
            let offset = counter % WORD_BITS;
            let run = (WORD_BITS - offset).min(new - counter);
            let mask = if run == WORD_BITS { u64::MAX } else { ((1 << run) - 1) << offset };
            let (word, _) = self.position(counter);
            self.words[word] &= !mask;
            counter += run;
        }
    }

    /// Word and bit of a counter in the ring.
    #[inline]
    fn position(&self, counter: u64) -> (usize, u64) {
        let word = (counter / WORD_BITS) as usize & (self.size - 1);
        (word, 1 << (counter % WORD_BITS))
    }

    /// Counters that it looks back over.
    pub(crate) const fn bits(&self) -> u64 {
        self.size as u64 * WORD_BITS
    }
}

impl Stored for ReplayWindow {
    fn store(&self, out: &mut Writer) {
        out.count(self.size);
        self.words.is_empty().store(out);
        self.words.iter().for_each(|word| word.store(out));
        self.highest.store(out);
        self.received.store(out);
    }

    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let size = u32::load(from)? as usize;
        if !size.is_power_of_two() || size > WORDS_MAX {
            return Err(Damaged);
        }
        let empty = bool::load(from)?;
        let words = (0..if empty { 0 } else { size }).map(|_| u64::load(from)).collect::<Result<Box<[u64]>, _>>()?;
        let window = Self { words, size, highest: u64::load(from)?, received: u64::load(from)? };
        // Without a mark there is nothing, and with one there is a highest.
        let unmarked = window.highest == 0 && window.received == 0;
        if empty == unmarked && (empty || window.highest > 0) { Ok(window) } else { Err(Damaged) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The rule of AR-3 in the plainest words.
    struct Model {
        bits: u64,
        seen: BTreeSet<u64>,
    }

    impl Model {
        fn check(&self, counter: u64) -> Result<(), Reason> {
            let highest = self.seen.last().copied().unwrap_or(0);
            if counter == 0 || highest.saturating_sub(counter) >= self.bits {
                Err(Reason::DataTooOld)
            } else if self.seen.contains(&counter) {
                Err(Reason::DataReplay)
            } else {
                Ok(())
            }
        }
    }

    /// Steps around the highest counter: in order, just around it, around the edge of the window, far beyond.
    fn steps() -> impl Strategy<Value = Vec<i64>> {
        let step = prop_oneof![
            4 => Just(1),
            2 => 2_i64..4,
            4 => -70_i64..70,
            2 => -300_i64..300,
            1 => 126_i64..131,
            1 => 250_i64..260,
            1 => -100_000_i64..100_000,
        ];
        prop::collection::vec(step, 1..400)
    }

    proptest! {
        #[test]
        fn the_window_is_the_model(steps in steps(), bits in prop_oneof![Just(64_usize), Just(128), Just(256)], start in 1..u64::MAX / 2) {
            let mut window = ReplayWindow::new(bits);
            let mut model = Model { bits: bits as u64, seen: BTreeSet::new() };
            for counter in [start, start].into_iter().chain(steps.iter().scan(start, |highest, step| {
                let counter = highest.saturating_add_signed(*step);
                *highest = (*highest).max(counter);
                Some(counter)
            })) {
                prop_assert_eq!(window.check(counter), model.check(counter), "counter {}", counter);
                if window.check(counter).is_ok() {
                    window.mark(counter);
                    model.seen.insert(counter);
                }
                // What was jumped over must be free, whatever stood in its place before.
                for near in window.highest().saturating_sub(70)..=window.highest() + 1 {
                    prop_assert_eq!(window.check(near), model.check(near), "near {}", near);
                }
            }
            prop_assert_eq!(window.highest(), model.seen.last().copied().unwrap_or(0));
            prop_assert_eq!(window.received(), model.seen.len() as u64);
            for above in [0, start, window.lower_edge(), window.highest() - 1, window.highest(), u64::MAX] {
                let expected = model.seen.iter().filter(|seen| **seen > above.max(window.lower_edge())).count();
                prop_assert_eq!(window.received_above(above), expected as u64, "above {}", above);
            }
        }
    }

    #[test]
    fn looking_marks_nothing() {
        let window = ReplayWindow::new(64);
        assert_eq!(window.check(5), Ok(()));
        assert_eq!(window.check(5), Ok(()));
        assert_eq!(window.highest(), 0);
    }

    #[test]
    fn the_last_counter_of_the_window_is_in_and_the_one_below_it_is_out() {
        let mut window = ReplayWindow::new(8192);
        window.mark(10_000);
        assert_eq!(window.check(10_000 - 8191), Ok(()));
        assert_eq!(window.check(10_000 - 8192), Err(Reason::DataTooOld));
    }

    #[test]
    fn a_single_counter_jumped_over_is_free_although_its_place_was_taken() {
        let mut window = ReplayWindow::new(256);
        for counter in [1, 256, 258] {
            window.mark(counter);
        }
        assert_eq!(window.check(257), Ok(()));
        assert_eq!(window.check(256), Err(Reason::DataReplay));
    }

    #[test]
    fn the_last_counter_of_all_can_be_counted_from() {
        let mut window = ReplayWindow::new(64);
        window.mark(u64::MAX);
        assert_eq!((window.received_above(0), window.received_above(u64::MAX)), (1, 0));
    }

    #[test]
    fn zero_was_never_valid() {
        assert_eq!(ReplayWindow::new(64).check(0), Err(Reason::DataTooOld));
    }
}
