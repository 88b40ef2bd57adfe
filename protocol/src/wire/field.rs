//! Values with a fixed length on the wire, out of which all message bodies are made.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use arrayvec::ArrayVec;

use crate::ident::{Locator, SessionIdentity, TransportId};
use crate::policy::SNAPSHOT_MAX;
use crate::reason::Reason;

/// Most policy values that a client may ask for in one HELLO_INIT; there are fewer keys than that may be narrowed.
pub const REQUESTED_POLICY_MAX: usize = 32;

/// An encoded policy snapshot.
pub type PolicySnapshot = ArrayVec<u8, SNAPSHOT_MAX>;
/// Policy values that a client asks for: number of the key, value.
pub type RequestedPolicy = ArrayVec<(u16, u64), REQUESTED_POLICY_MAX>;

/// A value with a fixed length on the wire.
pub(crate) trait Field: Sized {
    /// Its length in bytes.
    const LEN: usize;

    /// Reads it from exactly [`Field::LEN`] bytes. `None`: no such value exists.
    fn read(bytes: &[u8]) -> Option<Self>;

    /// Writes it to exactly [`Field::LEN`] bytes, all of them zero before.
    fn write(&self, bytes: &mut [u8]);
}

macro_rules! integers {
    ($($integer:ty)+) => {
        $(impl Field for $integer {
            const LEN: usize = size_of::<Self>();

            fn read(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self::from_be_bytes)
            }

            fn write(&self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_be_bytes());
            }
        })+
    };
}

integers! { u8 u16 u32 u64 }

/// A name that is one value of another type.
macro_rules! wrappers {
    ($($name:ident($inner:ty))+) => {
        $(impl Field for $name {
            const LEN: usize = <$inner>::LEN;

            fn read(bytes: &[u8]) -> Option<Self> {
                <$inner>::read(bytes).map($name)
            }

            fn write(&self, bytes: &mut [u8]) {
                self.0.write(bytes);
            }
        })+
    };
}

wrappers! { Locator(u64) TransportId(u16) SessionIdentity([u8; 16]) }

impl<const N: usize> Field for [u8; N] {
    const LEN: usize = N;

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }

    fn write(&self, bytes: &mut [u8]) {
        bytes.copy_from_slice(self);
    }
}

impl Field for bool {
    const LEN: usize = 1;

    fn read(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn write(&self, bytes: &mut [u8]) {
        bytes[0] = u8::from(*self);
    }
}

impl Field for Reason {
    const LEN: usize = u16::LEN;

    fn read(bytes: &[u8]) -> Option<Self> {
        u16::read(bytes).and_then(Self::from_number)
    }

    fn write(&self, bytes: &mut [u8]) {
        self.number().write(bytes);
    }
}

/// Whether there is a value, then the value.
impl<T: Field> Field for Option<T> {
    const LEN: usize = bool::LEN + T::LEN;

    fn read(bytes: &[u8]) -> Option<Self> {
        let (present, value) = bytes.split_at(bool::LEN);
        if bool::read(present)? { T::read(value).map(Some) } else { Some(None) }
    }

    fn write(&self, bytes: &mut [u8]) {
        let (present, rest) = bytes.split_at_mut(bool::LEN);
        self.is_some().write(present);
        if let Some(value) = self {
            value.write(rest);
        }
    }
}

/// One after the other.
impl<A: Field, B: Field> Field for (A, B) {
    const LEN: usize = A::LEN + B::LEN;

    fn read(bytes: &[u8]) -> Option<Self> {
        let (a, b) = bytes.split_at(A::LEN);
        Some((A::read(a)?, B::read(b)?))
    }

    fn write(&self, bytes: &mut [u8]) {
        let (a, b) = bytes.split_at_mut(A::LEN);
        self.0.write(a);
        self.1.write(b);
    }
}

impl Field for Ipv4Addr {
    const LEN: usize = 4;

    fn read(bytes: &[u8]) -> Option<Self> {
        <[u8; 4]>::read(bytes).map(Self::from)
    }

    fn write(&self, bytes: &mut [u8]) {
        self.octets().write(bytes);
    }
}

impl Field for Ipv6Addr {
    const LEN: usize = 16;

    fn read(bytes: &[u8]) -> Option<Self> {
        <[u8; 16]>::read(bytes).map(Self::from)
    }

    fn write(&self, bytes: &mut [u8]) {
        self.octets().write(bytes);
    }
}

/// Family (4 or 6), address in 16 bytes (an IPv4 address in the first four), port.
impl Field for SocketAddr {
    const LEN: usize = 1 + Ipv6Addr::LEN + u16::LEN;

    fn read(bytes: &[u8]) -> Option<Self> {
        let (address, port) = bytes[1..].split_at(Ipv6Addr::LEN);
        let ip = match bytes[0] {
            4 => IpAddr::V4(Ipv4Addr::read(&address[..Ipv4Addr::LEN])?),
            6 => IpAddr::V6(Ipv6Addr::read(address)?),
            _ => return None,
        };
        Some(Self::new(ip, u16::read(port)?))
    }

    fn write(&self, bytes: &mut [u8]) {
        let (family, rest) = bytes.split_at_mut(1);
        let (address, port) = rest.split_at_mut(Ipv6Addr::LEN);
        match self.ip() {
            IpAddr::V4(ip) => {
                family[0] = 4;
                ip.write(&mut address[..Ipv4Addr::LEN]);
            }
            IpAddr::V6(ip) => {
                family[0] = 6;
                ip.write(address);
            }
        }
        self.port().write(port);
    }
}

/// How many there are (u16), then room for the most that there can be.
impl<T: Field, const N: usize> Field for ArrayVec<T, N> {
    const LEN: usize = u16::LEN + N * T::LEN;

    fn read(bytes: &[u8]) -> Option<Self> {
        let (count, room) = bytes.split_at(u16::LEN);
        let count = usize::from(u16::read(count)?);
        if count > N {
            return None;
        }
        room.chunks_exact(T::LEN).take(count).map(T::read).collect()
    }

    fn write(&self, bytes: &mut [u8]) {
        let (count, room) = bytes.split_at_mut(u16::LEN);
        (self.len() as u16).write(count);
        for (value, place) in self.iter().zip(room.chunks_exact_mut(T::LEN)) {
            value.write(place);
        }
    }
}
