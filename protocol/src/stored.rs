//! State as bytes, for the hand-over of a planned restart ([`crate::gateway::Handover`]): one fixed form for each type,
//! integers in network byte order, and only one text for each value.
//!
//! What is read may be anything. A value comes out whole or not at all, and nothing is reserved for a length that the
//! bytes do not have.

use core::fmt;
use core::mem;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arrayvec::ArrayVec;
use hashbrown::HashMap;
use zeroize::{Zeroize, Zeroizing};

use crate::policy::{PARAMETERS, Policy, Profile};

/// Room that a writer begins with, in bytes: one session.
const FIRST_ROOM: usize = 4_096;
/// Values of one policy, in bytes: its number and its raw value.
const PARAMETER_LEN: usize = 10;

/// The bytes are not what was written. Says nothing more: they were sealed, so it is a defect of a writer, not a fault
/// that somebody could mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it does not hold what a gateway writes")
    }
}

impl std::error::Error for Damaged {}

/// A value that has one form as bytes.
pub(crate) trait Stored: Sized {
    fn store(&self, out: &mut Writer);
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged>;
}

/// Implements [`Stored`] field by field; a field that is added and not named here does not compile. What does not pass the
/// check that is named does not come out.
macro_rules! stored {
    ($($Type:ident { $($field:ident),+ $(,)? } $(=> $check:ident)?)+) => {$(
        impl $crate::stored::Stored for $Type {
            fn store(&self, out: &mut $crate::stored::Writer) {
                let Self { $($field),+ } = self;
                $($crate::stored::Stored::store($field, out);)+
            }
            fn load(from: &mut $crate::stored::Reader<'_>) -> Result<Self, $crate::stored::Damaged> {
                let loaded = Self { $($field: $crate::stored::Stored::load(from)?),+ };
                $(if !loaded.$check() {
                    return Err($crate::stored::Damaged);
                })?
                Ok(loaded)
            }
        }
    )+};
}
pub(crate) use stored;

/// Bytes that hold keys: erased wherever they were when it is dropped or grows.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Zeroizing<Vec<u8>>,
    policies: Vec<Arc<Policy>>,
    numbers: HashMap<*const Policy, u32>,
}

impl Writer {
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let needed = self.bytes.len() + bytes.len();
        if needed > self.bytes.capacity() {
            // A vector that grows by itself leaves its old bytes behind.
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(2 * self.bytes.capacity()).max(FIRST_ROOM)));
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn count(&mut self, count: usize) {
        u32::try_from(count).unwrap_or(u32::MAX).store(self);
    }

    /// Many sessions have one policy: it is written once, and named by its place.
    pub(crate) fn policy(&mut self, policy: &Arc<Policy>) {
        let next = self.policies.len() as u32;
        let number = *self.numbers.entry(Arc::as_ptr(policy)).or_insert_with(|| {
            self.policies.push(Arc::clone(policy));
            next
        });
        number.store(self);
    }

    /// The policies that were named, then what was written.
    pub(crate) fn finish(mut self) -> Zeroizing<Vec<u8>> {
        let body = mem::take(&mut self.bytes);
        let mut whole = Self::default();
        whole.count(self.policies.len());
        for policy in &self.policies {
            for parameter in PARAMETERS {
                parameter.number.store(&mut whole);
                parameter.value(policy).store(&mut whole);
            }
        }
        whole.put(&body);
        whole.bytes
    }
}

/// What is left of the bytes.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    policies: Vec<Arc<Policy>>,
    /// Policies that were named so far.
    named: usize,
}

impl<'a> Reader<'a> {
    /// Reads what [`Writer::finish`] gave.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, Damaged> {
        let mut reader = Self { rest: bytes, policies: Vec::new(), named: 0 };
        for _ in 0..reader.count(PARAMETERS.len() * PARAMETER_LEN)? {
            let policy = reader.parameters()?;
            reader.policies.push(Arc::new(policy));
        }
        Ok(reader)
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Damaged)?;
        self.rest = rest;
        Ok(taken)
    }

    /// How many things of at least that length follow: never more than there are bytes for.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, Damaged> {
        let count = u32::load(self)? as usize;
        if count.checked_mul(least).is_none_or(|bytes| bytes > self.rest.len()) { Err(Damaged) } else { Ok(count) }
    }

    /// The next policy, in the order in which [`Writer::policy`] numbers them.
    pub(crate) fn policy(&mut self) -> Result<Arc<Policy>, Damaged> {
        let number = u32::load(self)? as usize;
        if number > self.named {
            return Err(Damaged);
        }
        self.named = self.named.max(number + 1);
        self.policies.get(number).cloned().ok_or(Damaged)
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), Damaged> {
        if self.rest.is_empty() && self.named == self.policies.len() { Ok(()) } else { Err(Damaged) }
    }

    fn parameters(&mut self) -> Result<Policy, Damaged> {
        let mut policy = Policy::profile(Profile::Default);
        for parameter in PARAMETERS {
            if u16::load(self)? != parameter.number {
                return Err(Damaged);
            }
            let raw = u64::load(self)?;
            policy.assign(parameter, raw).map_err(|_| Damaged)?;
        }
        // INV-29: what cannot be verified is not served.
        policy.validate().map_err(|_| Damaged)?;
        Ok(policy)
    }
}

macro_rules! integers {
    ($($Type:ty)+) => {$(
        impl Stored for $Type {
            fn store(&self, out: &mut Writer) {
                let mut bytes = self.to_be_bytes();
                out.put(&bytes);
                bytes.zeroize();
            }
            fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
                let bytes = from.take(size_of::<Self>())?.try_into().map_err(|_| Damaged)?;
                Ok(Self::from_be_bytes(bytes))
            }
        }
    )+};
}
integers! { u8 u16 u32 u64 u128 i64 }

impl Stored for bool {
    fn store(&self, out: &mut Writer) {
        u8::from(*self).store(out);
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        match u8::load(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damaged),
        }
    }
}

impl<T: Stored> Stored for Option<T> {
    fn store(&self, out: &mut Writer) {
        self.is_some().store(out);
        self.iter().for_each(|value| value.store(out));
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        bool::load(from)?.then(|| T::load(from)).transpose()
    }
}

impl<T: Stored> Stored for Box<T> {
    fn store(&self, out: &mut Writer) {
        self.as_ref().store(out);
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        T::load(from).map(Self::new)
    }
}

impl<T: Stored> Stored for Box<[T]> {
    fn store(&self, out: &mut Writer) {
        out.count(self.len());
        self.iter().for_each(|item| item.store(out));
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Vec::load(from).map(Vec::into_boxed_slice)
    }
}

impl<A: Stored, B: Stored> Stored for (A, B) {
    fn store(&self, out: &mut Writer) {
        self.0.store(out);
        self.1.store(out);
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Ok((A::load(from)?, B::load(from)?))
    }
}

impl<const N: usize> Stored for [u8; N] {
    fn store(&self, out: &mut Writer) {
        out.put(self);
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        from.take(N)?.try_into().map_err(|_| Damaged)
    }
}

impl<T: Stored, const N: usize> Stored for ArrayVec<T, N> {
    fn store(&self, out: &mut Writer) {
        out.count(self.len());
        self.iter().for_each(|value| value.store(out));
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let count = from.count(1)?;
        if count > N {
            return Err(Damaged);
        }
        (0..count).map(|_| T::load(from)).collect()
    }
}

impl<T: Stored> Stored for Vec<T> {
    fn store(&self, out: &mut Writer) {
        out.count(self.len());
        self.iter().for_each(|item| item.store(out));
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        (0..from.count(1)?).map(|_| T::load(from)).collect()
    }
}

impl Stored for SocketAddr {
    fn store(&self, out: &mut Writer) {
        match self.ip() {
            IpAddr::V4(ip) => (4_u8, ip.octets()).store(out),
            IpAddr::V6(ip) => (6_u8, ip.octets()).store(out),
        }
        self.port().store(out);
        if let Self::V6(address) = self {
            (address.flowinfo(), address.scope_id()).store(out);
        }
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        match u8::load(from)? {
            4 => Ok(Self::from((<[u8; 4]>::load(from)?, u16::load(from)?))),
            6 => {
                let (ip, port) = (<[u8; 16]>::load(from)?, u16::load(from)?);
                let (flow, scope) = Stored::load(from)?;
                Ok(Self::V6(std::net::SocketAddrV6::new(ip.into(), port, flow, scope)))
            }
            _ => Err(Damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inv29_a_policy_survives_whole_and_one_that_breaks_a_rule_does_not_come_out() {
        for profile in [Profile::Default, Profile::Mobile, Profile::Fast] {
            let policy = Arc::new(Policy::profile(profile));
            let mut writer = Writer::default();
            writer.policy(&policy);
            writer.policy(&Arc::clone(&policy));
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes).expect("as written");
            let (one, other) = (reader.policy().expect("first"), reader.policy().expect("second"));
            assert_eq!(one, policy);
            assert!(Arc::ptr_eq(&one, &other), "written once, held once");
            assert_eq!(reader.end(), Ok(()));
            for (index, parameter) in PARAMETERS.iter().enumerate() {
                let mut broken = bytes.to_vec();
                let at = 4 + index * PARAMETER_LEN + 2;
                broken[at..at + 8].fill(0xff);
                assert_eq!(Reader::new(&broken).err(), Some(Damaged), "{}", parameter.key);
            }
        }
    }

    #[test]
    fn a_count_beyond_the_bytes_reserves_nothing_and_is_refused() {
        let bytes = [0xff; 8];
        assert_eq!(Reader::new(&bytes).err(), Some(Damaged));
        let mut reader = Reader { rest: &bytes, policies: Vec::new(), named: 0 };
        assert_eq!(reader.count(1), Err(Damaged));
        assert_eq!(
            <ArrayVec<u64, 4>>::load(&mut Reader { rest: &bytes, policies: Vec::new(), named: 0 }),
            Err(Damaged)
        );
    }
}
