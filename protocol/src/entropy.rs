//! Randomness as an argument: the core draws from what its driver hands in.

/// A source of random bytes. Programs pass the operating system's CSPRNG, simulations a seeded one.
pub trait Entropy {
    /// Fills `out` with random bytes.
    fn fill(&mut self, out: &mut [u8]);

    /// Eight random bytes as an integer.
    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }
}

/// A reproducible source for tests and simulations: BLAKE3 in its extendable-output mode over a seed.
#[derive(Clone, Debug)]
pub struct SeededEntropy(blake3::OutputReader);

impl SeededEntropy {
    /// A source that always gives the same bytes for the same seed.
    pub fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"jumpgate seeded entropy");
        hasher.update(&seed.to_be_bytes());
        Self(hasher.finalize_xof())
    }

    /// A source expanded from 32 bytes of real randomness.
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        Self(blake3::Hasher::new_keyed(seed).finalize_xof())
    }
}

impl Entropy for SeededEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        self.0.fill(out);
    }
}
