//! The sliding window that accepts each counter once (§7, AR-1 lane Q and AR-3).

use crate::reason::Reason;

/// Bits of one word of the bitmap.
const WORD_BITS: u64 = u64::BITS as u64;

/// Which of the last `bits` counters were seen. Counters start at 1; 0 was never valid (AR-2).
///
/// The bitmap is a ring: counter `n` has bit `n` modulo its size. Bits below the highest counter are exact, so in order
/// arrival costs one bit, and a jump costs one word per 64 counters jumped over.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    words: Box<[u64]>,
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
        Self { words: vec![0; bits / WORD_BITS as usize].into(), highest: 0, received: 0 }
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

    /// How many counters were accepted.
    pub const fn received(&self) -> u64 {
        self.received
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
        let word = (counter / WORD_BITS) as usize & (self.words.len() - 1);
        (word, 1 << (counter % WORD_BITS))
    }

    const fn bits(&self) -> u64 {
        self.words.len() as u64 * WORD_BITS
    }
}
