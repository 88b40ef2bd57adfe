//! Types of policy values, each with one integer form: the form of the table, of requests and of the snapshot.

use core::fmt;

use crate::stored::stored;
use crate::time::Span;

/// A type that a policy field can have.
///
/// The *raw* form is a `u64` in the unit of the parameter (milliseconds, permille, percent, a code of an enumeration,
/// a bit set, packed pairs). Everything generic over parameters works on raw values; only the fields are typed.
pub(super) trait Field: Copy {
    /// What a field holds before its raw value is written.
    const BLANK: Self;
    /// The raw form.
    fn raw(self) -> u64;
    /// The value of that raw form, if there is one.
    fn from_raw(raw: u64) -> Option<Self>;
}

/// A token bucket: refilled at `per_second`, never fuller than `burst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Tokens added in a second.
    pub per_second: u32,
    /// Tokens that it can hold. Gateway-wide rates hold one second's worth.
    pub burst: u32,
}

/// Version of a policy, chosen by its author.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version {
    /// Before the dot.
    pub major: u16,
    /// After the dot.
    pub minor: u16,
}

stored! { Version { major, minor } }

/// Outer protocols that a session may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Protocols(u8);

/// Preference of each transport class in the ranking of candidates (§10.6); lower is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Priorities([u8; TransportClass::NAMES.len()]);

/// Defines an enumeration whose codes are the positions of its names.
macro_rules! enumeration {
    ($(#[$doc:meta])* $Name:ident { $($(#[$variant_doc:meta])* $Variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $Name {
            $($(#[$variant_doc])* $Variant,)+
        }

        impl $Name {
            /// Every value, in the order of its code.
            pub const ALL: &'static [Self] = &[$(Self::$Variant,)+];
            /// The names in files and documents, in the same order.
            pub const NAMES: &'static [&'static str] = &[$($text,)+];

            /// The name in files and documents.
            pub const fn name(self) -> &'static str {
                Self::NAMES[self as usize]
            }
        }

        impl Field for $Name {
            const BLANK: Self = Self::ALL[0];
            fn raw(self) -> u64 {
                self as u64
            }
            fn from_raw(raw: u64) -> Option<Self> {
                Self::ALL.get(usize::try_from(raw).ok()?).copied()
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

enumeration! {
    /// Base values of a policy (PP02).
    Profile {
        /// Servers and ordinary laptops; least traffic.
        Default = "default",
        /// Phones and vehicles.
        Mobile = "mobile",
        /// Payment, control, voice.
        Fast = "fast",
        /// No base: the file states every required key; the others keep the values of `default`.
        Custom = "custom",
    }
}

enumeration! {
    /// When running sessions take over a changed policy (PP03, RL-3).
    ApplyMode {
        /// From the next step on.
        Strict = "strict",
        /// From their next transition on.
        Grace = "grace",
    }
}

enumeration! {
    /// What follows when the recovery deadline passes (PP44).
    OnRecoveryTimeout {
        /// T12.
        Degrade = "degrade",
        /// T12b.
        Terminate = "terminate",
    }
}

enumeration! {
    /// Where slot ownership is kept (PP90, OW-1).
    Store {
        /// In this process: a single node.
        Embedded = "embedded",
        /// In etcd.
        Etcd = "etcd",
    }
}

enumeration! {
    /// Kind of a path, as far as priorities tell them apart (PP55).
    TransportClass {
        /// A cable.
        Wired = "wired",
        /// Wireless LAN.
        Wifi = "wifi",
        /// A mobile network.
        Cellular = "cellular",
        /// Anything else, or not known.
        Other = "other",
    }
}

impl Protocols {
    /// Names, in the order of their bits. Version 1 has UDP; `tcp` and `quic` are reserved.
    pub const NAMES: &'static [&'static str] = &["udp"];
    /// UDP alone.
    pub const UDP: Self = Self(1);

    /// Whether UDP is allowed.
    pub const fn udp(self) -> bool {
        self.0 & Self::UDP.0 != 0
    }

    /// Whether nothing at all is allowed.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl Priorities {
    /// One priority for every class.
    pub const fn all(priority: u8) -> Self {
        Self([priority; TransportClass::NAMES.len()])
    }

    /// The priority of that class.
    pub const fn of(self, class: TransportClass) -> u8 {
        self.0[class as usize]
    }

    /// The same with another priority for one class.
    pub const fn with(mut self, class: TransportClass, priority: u8) -> Self {
        self.0[class as usize] = priority;
        self
    }
}

impl Version {
    /// The version `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// Packs it into a raw value.
    pub(super) const fn pack(self) -> u64 {
        (self.major as u64) << 16 | self.minor as u64
    }
}

impl Rate {
    /// A bucket.
    pub const fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second, burst }
    }

    /// A rate that may come at once within a second.
    pub const fn even(per_second: u32) -> Self {
        Self::new(per_second, per_second)
    }

    /// Packs it into a raw value: rate in the high half, burst in the low one.
    pub const fn pack(self) -> u64 {
        (self.per_second as u64) << 32 | self.burst as u64
    }

    /// The rate of that raw value.
    pub const fn unpack(raw: u64) -> Self {
        Self { per_second: (raw >> 32) as u32, burst: raw as u32 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Field for Span {
    const BLANK: Self = Self::ZERO;
    fn raw(self) -> u64 {
        self.as_millis()
    }
    fn from_raw(raw: u64) -> Option<Self> {
        Some(Self::from_millis(raw))
    }
}

impl Field for bool {
    const BLANK: Self = false;
    fn raw(self) -> u64 {
        self.into()
    }
    fn from_raw(raw: u64) -> Option<Self> {
        (raw <= 1).then_some(raw == 1)
    }
}

impl Field for u16 {
    const BLANK: Self = 0;
    fn raw(self) -> u64 {
        self.into()
    }
    fn from_raw(raw: u64) -> Option<Self> {
        raw.try_into().ok()
    }
}

impl Field for u32 {
    const BLANK: Self = 0;
    fn raw(self) -> u64 {
        self.into()
    }
    fn from_raw(raw: u64) -> Option<Self> {
        raw.try_into().ok()
    }
}

impl Field for u64 {
    const BLANK: Self = 0;
    fn raw(self) -> u64 {
        self
    }
    fn from_raw(raw: u64) -> Option<Self> {
        Some(raw)
    }
}

impl Field for Rate {
    const BLANK: Self = Self::even(0);
    fn raw(self) -> u64 {
        self.pack()
    }
    fn from_raw(raw: u64) -> Option<Self> {
        Some(Self::unpack(raw))
    }
}

impl Field for Version {
    const BLANK: Self = Self::new(0, 0);
    fn raw(self) -> u64 {
        self.pack()
    }
    fn from_raw(raw: u64) -> Option<Self> {
        Some(Self { major: (raw >> 16).try_into().ok()?, minor: raw as u16 })
    }
}

impl Field for Protocols {
    const BLANK: Self = Self(0);
    fn raw(self) -> u64 {
        self.0.into()
    }
    fn from_raw(raw: u64) -> Option<Self> {
        (raw >> Self::NAMES.len() == 0).then_some(Self(raw as u8))
    }
}

impl Field for Priorities {
    const BLANK: Self = Self::all(0);
    fn raw(self) -> u64 {
        u32::from_be_bytes(self.0).into()
    }
    fn from_raw(raw: u64) -> Option<Self> {
        Some(Self(u32::try_from(raw).ok()?.to_be_bytes()))
    }
}
