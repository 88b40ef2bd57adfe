//! What is said about one parameter: a row of the table of §10.1.

use super::{Policy, Rate};

/// A row of the parameter table.
#[derive(Debug)]
pub struct Parameter {
    /// The number in its id: 20 for PP20. Stable; names the parameter in requests.
    pub number: u16,
    /// group.name, as in files.
    pub key: &'static str,
    /// What its raw value counts, and how it is written.
    pub unit: Unit,
    /// Raw values of the profiles `default`, `mobile`, `fast`.
    pub profiles: [u64; 3],
    /// Values that it may have.
    pub range: Range,
    /// What a client may ask for.
    pub narrowing: Narrowing,
    /// Whether a custom policy must state it (PR-01).
    pub required: bool,
    /// What it means, in a few words.
    pub meaning: &'static str,
    pub(super) read: fn(&Policy) -> u64,
    pub(super) write: fn(&mut Policy, u64) -> Option<()>,
}

/// What a raw value counts, and how it is written in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// X.Y.
    Version,
    /// One of these names; the raw value is the position.
    Name(&'static [&'static str]),
    /// Some of these names; the raw value has one bit for each.
    Set(&'static [&'static str]),
    /// Numbers from 0 to 255 for these names; the raw value has one byte for each, the first name in the highest.
    Map(&'static [&'static str]),
    /// `true` or `false`.
    Bool,
    /// Milliseconds.
    Ms,
    /// A number of things.
    Count,
    /// A number of packets.
    Packets,
    /// Points of the ranking score.
    Score,
    /// A ratio; raw in permille.
    Ratio,
    /// A factor; raw in percent.
    Factor,
    /// A gateway-wide rate, whose burst is one second's worth; raw as [`Rate::pack`].
    PerSecond,
    /// Rate and burst of a token bucket; raw as [`Rate::pack`].
    Bucket,
}

/// Values that a parameter may have. For rates it bounds both numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// Whatever the unit can express.
    Any,
    /// From the first to the second, both included.
    Between(u64, u64),
    /// Zero, which has the meaning given, or from the first to the second.
    ZeroOr(&'static str, u64, u64),
    /// Like `Between`, where zero has the meaning given.
    FromZero(&'static str, u64),
    /// Like `Between`, powers of two only.
    PowerOfTwo(u64, u64),
}

/// What a client may ask for (column N).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Narrowing {
    /// Nothing.
    Fixed,
    /// A smaller value; of a set, a part; of a bucket, both numbers.
    Smaller,
    /// A larger value.
    Larger,
}

impl Parameter {
    /// Its raw value in that policy.
    pub fn value(&self, policy: &Policy) -> u64 {
        (self.read)(policy)
    }

    /// Whether the value belongs to a session, and so to the snapshot that its client gets: all but the limits of
    /// the gateway (`limits` but PP79), access, observability and cluster (RL-6).
    pub const fn is_session_scoped(&self) -> bool {
        self.number < 70 || self.number == 79
    }

    /// Whether a raw value is a value at all and inside the range (PR-02).
    pub fn admits(&self, raw: u64) -> bool {
        match self.unit {
            Unit::Version => raw >> 32 == 0,
            Unit::Name(names) => raw < names.len() as u64,
            Unit::Set(names) => raw >> names.len() == 0,
            Unit::Map(names) => raw.checked_shr(8 * names.len() as u32).unwrap_or(0) == 0,
            Unit::Bool => raw <= 1,
            Unit::PerSecond | Unit::Bucket => {
                let rate = Rate::unpack(raw);
                self.range.contains(rate.per_second.into()) && self.range.contains(rate.burst.into())
            }
            Unit::Ms | Unit::Count | Unit::Packets | Unit::Score | Unit::Ratio | Unit::Factor => {
                self.range.contains(raw)
            }
        }
    }

    /// Whether a client may ask for `wanted` where the gateway's policy says `own`.
    pub fn may_narrow(&self, own: u64, wanted: u64) -> bool {
        match (self.narrowing, self.unit) {
            (Narrowing::Fixed, _) => false,
            (Narrowing::Smaller, Unit::Set(_)) => wanted & !own == 0,
            (Narrowing::Smaller, Unit::Bucket) => {
                let (own, wanted) = (Rate::unpack(own), Rate::unpack(wanted));
                wanted.per_second <= own.per_second && wanted.burst <= own.burst
            }
            (Narrowing::Smaller, _) => wanted <= own,
            (Narrowing::Larger, _) => wanted >= own,
        }
    }

    /// The narrower of two raw values; what a client may not ask for keeps its own.
    pub(super) fn narrower(&self, own: u64, wanted: u64) -> u64 {
        match (self.narrowing, self.unit) {
            (Narrowing::Fixed, _) => own,
            (Narrowing::Smaller, Unit::Set(_)) => own & wanted,
            (Narrowing::Smaller, Unit::Bucket) => {
                let (own, wanted) = (Rate::unpack(own), Rate::unpack(wanted));
                Rate::new(own.per_second.min(wanted.per_second), own.burst.min(wanted.burst)).pack()
            }
            (Narrowing::Smaller, _) => own.min(wanted),
            (Narrowing::Larger, _) => own.max(wanted),
        }
    }
}

impl Range {
    /// Whether the number lies in it.
    pub const fn contains(self, number: u64) -> bool {
        match self {
            Self::Any => true,
            Self::Between(low, high) => low <= number && number <= high,
            Self::ZeroOr(_, low, high) => number == 0 || low <= number && number <= high,
            Self::FromZero(_, high) => number <= high,
            Self::PowerOfTwo(low, high) => low <= number && number <= high && number.is_power_of_two(),
        }
    }
}
