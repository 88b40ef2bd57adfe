//! Randomness of the operating system.

use aws_lc_rs::rand;
use jumpgate_protocol::entropy::Entropy;

/// The CSPRNG of this machine (AS-1): aws-lc's, which the operating system seeds and re-seeds.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    /// # Panics
    /// If the system gives no randomness: no key and no nonce made without it would be safe.
    fn fill(&mut self, out: &mut [u8]) {
        rand::fill(out).expect("the operating system gives random bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        let mut draws = [[0; 32]; 2];
        draws.iter_mut().for_each(|draw| OsEntropy.fill(draw));
        assert_ne!(draws[0], draws[1]);
        assert_ne!(draws[0], [0; 32]);
    }
}
