//! Names of things: session identity, locator, slot, transport id, tuple, client key.

use core::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::stored::{Damaged, Reader, Stored, Writer, stored};

/// Slots of the steering table; the high 12 bits of a locator (SL-2).
pub const SLOT_COUNT: usize = 4096;
/// Bits of a locator below the slot.
const SLOT_SHIFT: u32 = 52;

/// 128 random bits that name a session for its whole life; never readable on the wire (SL-1).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionIdentity(pub [u8; 16]);

/// The 64-bit session id on the wire: slot in the high 12 bits, random below (SL-2). A name, not a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Locator(pub u64);

/// Part of a locator that decides the owner (SL-3), 0..4096.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u16);

/// Stable number that the client gives to each (local interface x gateway endpoint) (§1, "transport").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransportId(pub u16);

/// A long-term X25519 public key: who may connect.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

/// The outer addresses of a path as one end sees them; the protocol is UDP in version 1 (§1, "tuple").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub peer: SocketAddr,
}

/// How a packet arrived, and where a reply to it can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Outer addresses.
    pub tuple: Tuple,
    /// Index of the next hop towards the peer in the driver's table; opaque here, [`Arrival::NO_ROUTE`] if unknown.
    pub route: u32,
    /// Receive queue of the device, for the operator's view only.
    pub queue: u16,
}

impl TransportId {
    /// No transport: stands on the wire where a session has none. Not a number that a client may give.
    pub const NONE: Self = Self(u16::MAX);
}

impl Arrival {
    /// The driver does not know (yet) by which next hop the peer is reached.
    pub const NO_ROUTE: u32 = u32::MAX;
}

impl Locator {
    /// Puts a locator together from its slot and random bits (of which the low 52 are used).
    pub const fn new(slot: Slot, random: u64) -> Self {
        Self(((slot.0 as u64) << SLOT_SHIFT) | (random & ((1 << SLOT_SHIFT) - 1)))
    }

    /// The slot that decides the owner.
    pub const fn slot(self) -> Slot {
        Slot((self.0 >> SLOT_SHIFT) as u16)
    }
}

impl Slot {
    /// The slot of that number, if it is below [`SLOT_COUNT`].
    pub const fn new(number: u16) -> Option<Self> {
        if (number as usize) < SLOT_COUNT { Some(Self(number)) } else { None }
    }

    /// Every slot, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOT_COUNT as u16).map(Self)
    }

    /// Its number, 0..4096.
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl Tuple {
    /// Whether both addresses are of one family, the peer is unicast and its port is not zero (C09).
    pub fn is_plausible(&self) -> bool {
        let unicast = match self.peer.ip() {
            IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast()),
            IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast()),
        };
        unicast && self.peer.port() != 0 && self.local.is_ipv4() == self.peer.is_ipv4()
    }
}

stored! { Tuple { local, peer } }

/// Names that are one value.
macro_rules! stored_names {
    ($($Name:ident)+) => {$(
        impl Stored for $Name {
            fn store(&self, out: &mut Writer) {
                self.0.store(out);
            }
            fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
                Ok(Self(Stored::load(from)?))
            }
        }
    )+};
}
stored_names! { SessionIdentity Locator TransportId PublicKey }

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Locator({self})")
    }
}

impl fmt::Display for SessionIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionIdentity({self})")
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:02x}{:02x}{:02x}{:02x}..)", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

impl fmt::Display for TransportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
