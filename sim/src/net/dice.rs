//! The dice of the network and of the scripts. The protocol never sees them: it draws its keys and tokens elsewhere.

/// Dice that fall the same way for the same seed: SplitMix64 (Steele, Lea, Flood 2014), which is fast and needs no
/// warming up. Not for keys.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub const fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True in `permille` of 1000 throws. What never or always happens needs no throw.
    pub const fn chance(&mut self, permille: u32) -> bool {
        match permille {
            0 => false,
            1_000.. => true,
            _ => self.below(1_000) < permille as u64,
        }
    }

    /// A number in `0..bound`; 0 if the bound is 0. The bias of the remainder is below 2^-30 for the bounds used here.
    pub const fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.throw() % bound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_fall_equally_and_others_do_not() {
        let throws = |seed| -> Vec<u64> {
            let mut dice = Dice::new(seed);
            (0..8).map(|_| dice.throw()).collect()
        };
        assert_eq!(throws(7), throws(7));
        assert_ne!(throws(7), throws(8));
    }

    #[test]
    fn a_chance_is_what_it_says() {
        let mut dice = Dice::new(1);
        let hits = (0..100_000).filter(|_| dice.chance(200)).count();
        assert!((19_000..21_000).contains(&hits), "{hits}");
        assert!(!dice.chance(0) && dice.chance(1_000));
    }
}
