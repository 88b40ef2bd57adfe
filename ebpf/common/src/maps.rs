//! Names and values of the BPF maps.
//!
//! Values are integers and arrays of integers, so that both sides read them without unsafe casts.

use crate::frame::Address;

/// Name of the program for the outside port.
pub const OUTSIDE_PROGRAM: &str = "jumpgate_out";
/// Name of the program for the inside port.
pub const INSIDE_PROGRAM: &str = "jumpgate_in";

/// Array of one [`OutsideConfig`], encoded.
pub const OUTSIDE_CONFIG: &str = "OUTSIDE_CONFIG";
/// Array: slot -> [`entry_of_worker`] or [`NO_WORKER`].
pub const SLOTS: &str = "SLOTS";
/// Hash of the gateway's own outer addresses: [`Address`] bytes -> 1.
pub const LOCAL_ADDRESSES: &str = "LOCAL_ADDRESSES";
/// XSKMAP of the outside port: `queue * workers + worker`.
pub const OUTSIDE_XSKS: &str = "OUTSIDE_XSKS";
/// Array of one [`InsideConfig`], encoded.
pub const INSIDE_CONFIG: &str = "INSIDE_CONFIG";
/// Array: index of the client address in the pool -> [`entry_of_worker`], [`NO_WORKER`] or [`PASS_TO_HOST`].
pub const POOL: &str = "POOL";
/// XSKMAP of the inside port: `queue * workers + worker`.
pub const INSIDE_XSKS: &str = "INSIDE_XSKS";
/// Per-CPU array of `u64`, indexed by [`crate::Counter`].
pub const COUNTERS: &str = "COUNTERS";

/// Entries of [`SLOTS`]: the slot is the high 12 bits of a session id (SL-2).
pub const SLOT_COUNT: u32 = 4096;
/// Entries of [`LOCAL_ADDRESSES`]: far more than a machine's tunnel endpoints.
pub const LOCAL_ADDRESSES_MAX: u32 = 256;
/// Entries of an XSKMAP before user space sizes it: queues times workers of a large machine.
pub const XSKS_DEFAULT: u32 = 1024;
/// Entries of [`POOL`] before user space sizes it: a /16.
pub const POOL_DEFAULT: u32 = 1 << 16;

/// In [`SLOTS`] and [`POOL`]: nobody here owns it. Zero, so that an array is safe as the kernel creates it.
pub const NO_WORKER: u32 = 0;
/// In [`POOL`]: an address of the host itself, whose packets go to the kernel.
pub const PASS_TO_HOST: u32 = u32::MAX;

/// The entry of [`SLOTS`] or [`POOL`] that names a worker.
#[inline(always)]
pub const fn entry_of_worker(worker: u32) -> u32 {
    worker + 1
}

/// The worker that an entry names. An entry that names none gives a number that is no worker.
#[inline(always)]
pub const fn worker_of_entry(entry: u32) -> u32 {
    entry.wrapping_sub(1)
}

/// What the outside program needs to know. All zero, as the map is created, means: touch nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideConfig {
    /// UDP port of the tunnel; 0 passes everything.
    pub port: u16,
    /// Number of workers: stride of the XSKMAP, bound of the values of [`SLOTS`].
    pub workers: u32,
}

impl OutsideConfig {
    /// Words of the map value.
    pub const WORDS: usize = 2;

    /// The map value.
    pub const fn encode(self) -> [u32; Self::WORDS] {
        [self.port as u32, self.workers]
    }

    /// Back from the map value.
    #[inline(always)]
    pub const fn decode([port, workers]: [u32; Self::WORDS]) -> Self {
        Self { port: port as u16, workers }
    }
}

/// What the inside program needs to know. All zero means: touch nothing.
///
/// Client number `i` has the addresses `v4_base + i` and `v6_base + i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsideConfig {
    /// Number of workers: stride of the XSKMAP, bound of the values of [`POOL`].
    pub workers: u32,
    /// Entries of [`POOL`] in use for IPv4; 0 if clients have no IPv4 address.
    pub v4_size: u32,
    /// Entries of [`POOL`] in use for IPv6; 0 if clients have no IPv6 address.
    pub v6_size: u32,
    /// First address of the IPv4 pool.
    pub v4_base: u32,
    /// First address of the IPv6 pool. The pool may not cross a multiple of 2^32 addresses.
    pub v6_base: u128,
}

impl InsideConfig {
    /// Words of the map value.
    pub const WORDS: usize = 8;

    /// The map value.
    pub const fn encode(self) -> [u32; Self::WORDS] {
        let v6 = self.v6_base;
        [
            self.workers,
            self.v4_size,
            self.v6_size,
            self.v4_base,
            (v6 >> 96) as u32,
            (v6 >> 64) as u32,
            (v6 >> 32) as u32,
            v6 as u32,
        ]
    }

    /// Back from the map value.
    #[inline(always)]
    pub const fn decode(words: [u32; Self::WORDS]) -> Self {
        let [workers, v4_size, v6_size, v4_base, a, b, c, d] = words;
        let v6_base = (a as u128) << 96 | (b as u128) << 64 | (c as u128) << 32 | d as u128;
        Self { workers, v4_size, v6_size, v4_base, v6_base }
    }

    /// Index of an IPv4 address in the pool.
    #[inline(always)]
    pub const fn v4_index(&self, address: Address) -> Option<u32> {
        let Address([.., a, b, c, d]) = address;
        let index = u32::from_be_bytes([a, b, c, d]).wrapping_sub(self.v4_base);
        if index < self.v4_size { Some(index) } else { None }
    }

    /// Index of an IPv6 address in the pool.
    #[inline(always)]
    pub const fn v6_index(&self, address: Address) -> Option<u32> {
        let address = u128::from_be_bytes(address.0);
        let index = (address as u32).wrapping_sub(self.v6_base as u32);
        if address >> 32 == self.v6_base >> 32 && index < self.v6_size { Some(index) } else { None }
    }
}
