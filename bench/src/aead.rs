//! The bound: the AEAD alone, over buffers of the same number and size as the packets.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, ensure};
use jumpgate_protocol::crypto::{Aead, DefaultAead, TAG_LEN};
use jumpgate_protocol::wire::HEADER_LEN;

/// A key, and buffers that it seals and opens in turn.
pub struct BareAead {
    aead: DefaultAead,
    buffers: Vec<Vec<u8>>,
    plaintext: usize,
    nonce: u64,
}

impl BareAead {
    /// That many buffers with plaintext of that many bytes.
    pub fn new(buffers: usize, plaintext: usize) -> Self {
        let buffers = vec![vec![0x5a; plaintext + TAG_LEN]; buffers];
        Self { aead: DefaultAead::new(&[7; 32]), buffers, plaintext, nonce: 0 }
    }

    /// Seals every buffer; gives the ns per buffer. [`open`](Self::open) opens what it sealed.
    pub fn seal(&mut self) -> f64 {
        let first = self.nonce;
        let started = Instant::now();
        for (buffer, counter) in self.buffers.iter_mut().zip(first..) {
            let (plaintext, tag) = buffer.split_at_mut(self.plaintext);
            tag.copy_from_slice(&self.aead.seal_in_place(&nonce(counter), &[0; HEADER_LEN], plaintext));
        }
        black_box(&mut self.buffers);
        per_buffer(started, self.buffers.len())
    }

    /// Opens every buffer after [`seal`](Self::seal); gives the ns per buffer.
    pub fn open(&mut self) -> Result<f64> {
        let first = self.nonce;
        self.nonce += self.buffers.len() as u64;
        let started = Instant::now();
        let mut opened = 0;
        for (buffer, counter) in self.buffers.iter_mut().zip(first..) {
            opened += usize::from(self.aead.open_in_place(&nonce(counter), &[0; HEADER_LEN], buffer).is_ok());
        }
        black_box(&mut self.buffers);
        let elapsed = per_buffer(started, self.buffers.len());
        ensure!(opened == self.buffers.len(), "the bare AEAD opened {opened} of {} buffers", self.buffers.len());
        Ok(elapsed)
    }
}

fn per_buffer(started: Instant, buffers: usize) -> f64 {
    started.elapsed().as_nanos() as f64 / buffers as f64
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_again_every_time() {
        let mut aead = BareAead::new(4, 100);
        for _ in 0..3 {
            assert!(aead.seal() > 0.0);
            assert!(aead.open().is_ok());
        }
    }

    #[test]
    fn opening_what_was_not_sealed_is_no_measurement() {
        assert!(BareAead::new(4, 100).open().is_err());
    }
}
