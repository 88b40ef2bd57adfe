//! The virtual network: delay, jitter, loss, duplication, reordering, corruption, blackholes and NATs, from one seed.

use std::net::SocketAddr;

use jumpgate_protocol::entropy::{Entropy, SeededEntropy};
use jumpgate_protocol::time::{Span, Time};

/// How one direction of a path treats datagrams. Probabilities are in permille.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Impairment {
    /// One-way delay.
    pub delay: Span,
    /// Up to so much is added to the delay, uniformly: enough jitter reorders.
    pub jitter: Span,
    /// Lost datagrams.
    pub loss: u32,
    /// Datagrams that come twice.
    pub duplicate: u32,
    /// Datagrams with one flipped bit.
    pub corrupt: u32,
    /// Nothing passes.
    pub blackhole: bool,
}

impl Default for Impairment {
    fn default() -> Self {
        Self { delay: Span::from_millis(10), jitter: Span::ZERO, loss: 0, duplicate: 0, corrupt: 0, blackhole: false }
    }
}

/// One path between a client and the gateway: both directions and the NAT between them.
#[derive(Clone, Debug)]
pub struct Link {
    /// Client to gateway.
    pub up: Impairment,
    /// Gateway to client.
    pub down: Impairment,
    /// The client's address as the gateway sees it. A rebinding NAT gives another one; the old one leads nowhere.
    pub external: SocketAddr,
}

/// Randomness of the network model; the only randomness of a run besides the keys.
pub struct Dice(SeededEntropy);

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(SeededEntropy::new(seed))
    }

    /// True in `permille` of 1000 throws.
    pub fn chance(&mut self, permille: u32) -> bool {
        permille > 0 && self.below(1_000) < u64::from(permille)
    }

    /// A number in `0..bound`; 0 if the bound is 0. The bias of the remainder is below 2^-40 for the bounds used here.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.0.next_u64() % bound }
    }

    /// When copies of a datagram sent at `now` arrive, with what is left of it.
    pub fn carry(&mut self, way: &Impairment, now: Time, packet: &[u8]) -> Vec<(Time, Vec<u8>)> {
        if way.blackhole || self.chance(way.loss) {
            return Vec::new();
        }
        let copies = if self.chance(way.duplicate) { 2 } else { 1 };
        (0..copies)
            .map(|_| {
                let jitter = Span::from_micros(self.below(way.jitter.as_micros() + 1));
                let mut packet = packet.to_vec();
                if !packet.is_empty() && self.chance(way.corrupt) {
                    let bit = self.below(packet.len() as u64 * 8) as usize;
                    packet[bit / 8] ^= 1 << (bit % 8);
                }
                (now + way.delay + Span::from_micros(jitter.as_micros()), packet)
            })
            .collect()
    }
}
