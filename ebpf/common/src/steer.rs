//! What happens to a frame: the whole decision of both XDP programs, short of the redirect itself.

use crate::counter::Counter;
use crate::frame::{Address, Family, Frame};
use crate::headers::{HeaderError, Inside, Located, PROTOCOL_ICMPV6};
use crate::maps::{InsideConfig, OutsideConfig, PASS_TO_HOST, worker_of_entry};

/// Message type of a DATA packet.
pub const TYPE_DATA: u8 = 0x15;
/// Message type of a HEARTBEAT.
pub const TYPE_HEARTBEAT: u8 = 0x16;
/// The protocol version spoken here; high four bits of the second byte.
pub const VERSION: u8 = 1;
/// Header of a session message (20 B) and AEAD tag (16 B): no sealed message is shorter.
pub const SEALED_MIN_LEN: usize = 36;
/// First byte of the locator in a session message.
pub const LOCATOR_OFFSET: usize = 4;
/// ICMPv6 types of neighbour discovery (RFC 4861): never forwarded, so never for a client behind us.
const NEIGHBOUR_DISCOVERY: core::ops::RangeInclusive<u8> = 133..=137;

/// Decision on a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To that worker's socket on the queue that the frame came in by.
    Steer(u32),
    /// To the kernel, untouched, counted.
    Pass(Counter),
    /// Dropped, counted.
    Drop(Counter),
}

/// What the outside decision looks up.
pub trait OutsideTables {
    /// The configuration.
    fn config(&self) -> OutsideConfig;
    /// Whether it is one of the gateway's own tunnel addresses.
    fn is_local(&self, address: &Address) -> bool;
    /// The entry of that slot in the map `SLOTS`.
    fn slot_entry(&self, slot: u16) -> u32;
}

/// What the inside decision looks up.
pub trait InsideTables {
    /// The configuration.
    fn config(&self) -> InsideConfig;
    /// The entry of that client in the map `POOL`.
    fn client_entry(&self, index: u32) -> u32;
}

/// The slot of a session id: its high 12 bits (SL-2), from the first two bytes of the locator on the wire.
#[inline(always)]
pub const fn slot_of(locator_start: [u8; 2]) -> u16 {
    u16::from_be_bytes(locator_start) >> 4
}

/// Decides on a frame of the outside port.
///
/// Only DATA and HEARTBEAT go to workers, and only if all that can be checked without keys is right. What is not
/// recognisably ours passes untouched, also if it is broken: the port may carry the host's other traffic.
#[inline(always)]
pub fn outside<F: Frame + ?Sized, T: OutsideTables>(frame: &F, tables: &T) -> Verdict {
    let config = tables.config();
    let Ok(located) = Located::find(frame) else {
        return Verdict::Pass(Counter::OutsideOther);
    };
    if config.port == 0 || located.destination_port != config.port {
        return Verdict::Pass(Counter::OutsideOther);
    }
    if !tables.is_local(&located.destination) {
        return Verdict::Pass(Counter::OutsideOtherAddress);
    }
    let outer = match located.validate(frame.length()) {
        Ok(outer) => outer,
        Err(HeaderError::Fragment) => return Verdict::Drop(Counter::OutsideFragment),
        Err(HeaderError::Truncated) => return Verdict::Drop(Counter::OutsideTruncated),
        Err(HeaderError::NotIp | HeaderError::NotUdp | HeaderError::Malformed) => {
            return Verdict::Drop(Counter::OutsideMalformed);
        }
    };
    if outer.payload_len == 0 {
        return Verdict::Drop(Counter::OutsideMalformed);
    }
    let Some(&[kind]) = frame.chunk::<1>(outer.payload) else {
        return Verdict::Drop(Counter::OutsideTruncated);
    };
    if kind != TYPE_DATA && kind != TYPE_HEARTBEAT {
        return Verdict::Pass(Counter::OutsideControl);
    }
    if outer.payload_len < SEALED_MIN_LEN {
        return Verdict::Drop(Counter::OutsideMalformed);
    }
    let Some(start) = frame.chunk::<{ LOCATOR_OFFSET + 2 }>(outer.payload) else {
        return Verdict::Drop(Counter::OutsideTruncated);
    };
    if start[1] >> 4 != VERSION {
        return Verdict::Drop(Counter::OutsideBadVersion);
    }
    let slot = slot_of([start[LOCATOR_OFFSET], start[LOCATOR_OFFSET + 1]]);
    let worker = worker_of_entry(tables.slot_entry(slot));
    if worker < config.workers { Verdict::Steer(worker) } else { Verdict::Drop(Counter::OutsideUnknownSlot) }
}

/// Decides on a frame of the inside port: packets to client addresses go to workers, all else to the kernel.
///
/// A pool address without a session is dropped here: the kernel would route it back into the same port.
#[inline(always)]
pub fn inside<F: Frame + ?Sized, T: InsideTables>(frame: &F, tables: &T) -> Verdict {
    let config = tables.config();
    let Ok(packet) = Inside::find(frame) else {
        return Verdict::Pass(Counter::InsideOther);
    };
    let index = match packet.family {
        Family::V4 => config.v4_index(packet.destination),
        Family::V6 => config.v6_index(packet.destination),
    };
    let Some(index) = index else {
        return Verdict::Pass(Counter::InsideOther);
    };
    if packet.protocol == PROTOCOL_ICMPV6
        && packet.family == Family::V6
        && NEIGHBOUR_DISCOVERY.contains(&packet.first_byte)
    {
        return Verdict::Pass(Counter::InsideOther);
    }
    let entry = tables.client_entry(index);
    if entry == PASS_TO_HOST {
        return Verdict::Pass(Counter::InsideOther);
    }
    match packet.validate(frame.length()) {
        Ok(()) => {}
        Err(HeaderError::Truncated) => return Verdict::Drop(Counter::InsideTruncated),
        Err(HeaderError::NotIp | HeaderError::NotUdp | HeaderError::Fragment | HeaderError::Malformed) => {
            return Verdict::Drop(Counter::InsideMalformed);
        }
    }
    let worker = worker_of_entry(entry);
    if worker < config.workers { Verdict::Steer(worker) } else { Verdict::Drop(Counter::InsideUnassigned) }
}
