//! What a field of a record can hold, and how it appears: one trait that the event table, the schema and the formatter
//! share.

use core::net::SocketAddr;

use super::bounds::{Bounds, PolicyHash};
use super::event::Scores;
use crate::ident::TransportId;
use crate::machine::{Evidence, Input, State, TransitionId};
use crate::policy::{PARAMETERS, Profile};
use crate::reason::Reason;
use crate::wire::{Cause, MessageType};

/// The form of a field in the file; a schema is made of these.
#[derive(Clone, Copy)]
pub enum Kind {
    /// A whole number, 0 or more.
    Unsigned,
    /// `true` or `false`.
    Boolean,
    /// A number from 0 to 1 with at most three digits behind the point.
    Ratio,
    /// A whole number, or a ratio where the reason is about loss.
    Number,
    /// One of these names.
    Name(fn() -> Vec<&'static str>),
    /// Free text, at most 255 bytes.
    Text,
    /// So many bytes in lower-case hexadecimal.
    Hex(usize),
    /// 16 hexadecimal digits (a keyed hash), or `address:port` where policy allows it (PP87).
    Address,
    /// An object with the fields of [`Bounds`].
    Bounds,
    /// A list of objects with the fields of [`super::Score`].
    Scores,
}

/// The value of a field, ready to be written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// A whole number.
    Unsigned(u64),
    /// `true` or `false`.
    Boolean(bool),
    /// Permille, written as a ratio: 125 is 0.125.
    Permille(u32),
    /// A name out of a closed set.
    Name(&'static str),
    /// Bytes, written in hexadecimal.
    Hex([u8; 16]),
    /// A keyed short hash of an outer address, written in hexadecimal.
    Hash([u8; 8]),
    /// An outer address in the clear.
    Address(SocketAddr),
    /// The writer puts its own node here.
    OwnNode,
    /// An object.
    Bounds(Bounds),
    /// A list of objects.
    Scores(Scores),
}

/// A type that a field of a record can have.
pub trait Recorded: Copy {
    /// Its form in the file.
    const KIND: Kind;
    /// Whether it can be `null`.
    const NULLABLE: bool = false;
    /// The value.
    fn value(self) -> Value;
}

impl<T: Recorded> Recorded for Option<T> {
    const KIND: Kind = T::KIND;
    const NULLABLE: bool = true;
    fn value(self) -> Value {
        self.map_or(Value::Null, T::value)
    }
}

macro_rules! unsigned {
    ($($Type:ty)+) => {$(
        impl Recorded for $Type {
            const KIND: Kind = Kind::Unsigned;
            fn value(self) -> Value {
                Value::Unsigned(u64::from(self))
            }
        }
    )+};
}

unsigned!(u8 u16 u32 u64);

impl Recorded for bool {
    const KIND: Kind = Kind::Boolean;
    fn value(self) -> Value {
        Value::Boolean(self)
    }
}

impl Recorded for TransportId {
    const KIND: Kind = Kind::Unsigned;
    fn value(self) -> Value {
        Value::Unsigned(self.0.into())
    }
}

/// Types with names: how to list them all, and the name of one.
macro_rules! named {
    ($($Type:ty: $all:expr, $name:expr;)+) => {$(
        impl Recorded for $Type {
            const KIND: Kind = Kind::Name(|| $all);
            fn value(self) -> Value {
                let name: fn($Type) -> &'static str = $name;
                Value::Name(name(self))
            }
        }
    )+};
}

fn names<T: Copy>(all: &[T], name: fn(T) -> &'static str) -> Vec<&'static str> {
    all.iter().map(|one| name(*one)).collect()
}

named! {
    State: names(&State::ALL, State::name), State::name;
    TransitionId: crate::machine::TABLE.iter().map(|row| row.id.name()).collect(), TransitionId::name;
    Evidence: names(&Evidence::ALL, Evidence::name), Evidence::name;
    Cause: names(&Cause::ALL, Cause::name), Cause::name;
    MessageType: names(MessageType::ALL, MessageType::name), MessageType::name;
    Reason: names(Reason::ALL, Reason::name), Reason::name;
    Profile: Profile::NAMES.to_vec(), Profile::name;
    Trigger: (0..Input::KINDS as u8).map(Input::name_of).collect(), |trigger| Input::name_of(trigger.0);
    ParameterKey: PARAMETERS.iter().map(|parameter| parameter.key).collect(), ParameterKey::name;
}

/// The input that made a transition, by its priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trigger(u8);

impl Trigger {
    /// The input of that transition.
    pub fn of(transition: TransitionId) -> Self {
        Self(transition.row().input_priority)
    }
}

/// A policy parameter, by its number in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterKey(core::num::NonZeroU16);

impl ParameterKey {
    /// The parameter with that number: 14 for PP14.
    pub const fn new(number: u16) -> Option<Self> {
        match core::num::NonZeroU16::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    fn name(self) -> &'static str {
        let found = PARAMETERS.iter().find(|parameter| parameter.number == self.0.get());
        found.map_or("unknown", |parameter| parameter.key)
    }
}

/// A ratio in permille.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permille(pub u16);

impl Recorded for Permille {
    const KIND: Kind = Kind::Ratio;
    fn value(self) -> Value {
        Value::Permille(self.0.into())
    }
}

/// What a measurement was compared with, in the unit of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threshold {
    /// Lost packets in permille.
    Ratio(Permille),
    /// Milliseconds.
    Millis(u32),
    /// Heartbeats.
    Count(u32),
}

impl Recorded for Threshold {
    const KIND: Kind = Kind::Number;
    fn value(self) -> Value {
        match self {
            Self::Ratio(ratio) => ratio.value(),
            Self::Millis(number) | Self::Count(number) => Value::Unsigned(number.into()),
        }
    }
}

/// A number that takes no more room when it may be absent; saturates one below the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured(core::num::NonZeroU32);

impl Measured {
    /// That number.
    pub fn new(number: u64) -> Self {
        let above = u32::try_from(number.saturating_add(1)).unwrap_or(u32::MAX);
        Self(core::num::NonZeroU32::new(above).unwrap_or(core::num::NonZeroU32::MAX))
    }
}

impl Recorded for Measured {
    const KIND: Kind = Kind::Unsigned;
    fn value(self) -> Value {
        Value::Unsigned(u64::from(self.0.get()) - 1)
    }
}

/// The node that writes the record; only the writer knows its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnNode;

impl Recorded for OwnNode {
    const KIND: Kind = Kind::Text;
    fn value(self) -> Value {
        Value::OwnNode
    }
}

/// Always `true`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Always;

impl Recorded for Always {
    const KIND: Kind = Kind::Boolean;
    fn value(self) -> Value {
        Value::Boolean(true)
    }
}

impl Recorded for PolicyHash {
    const KIND: Kind = Kind::Hex(16);
    fn value(self) -> Value {
        Value::Hex(self.0)
    }
}

impl Recorded for Bounds {
    const KIND: Kind = Kind::Bounds;
    fn value(self) -> Value {
        Value::Bounds(self)
    }
}

/// Defines an enumeration whose values are the words of a field.
macro_rules! words {
    ($($(#[$doc:meta])* $Name:ident { $($(#[$variant_doc:meta])* $Variant:ident = $text:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $Name {
            $($(#[$variant_doc])* $Variant,)+
        }

        impl $Name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$Variant,)+];

            /// The word in the file.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$Variant => $text,)+
                }
            }
        }

        impl Recorded for $Name {
            const KIND: Kind = Kind::Name(|| names(Self::ALL, Self::name));
            fn value(self) -> Value {
                Value::Name(self.name())
            }
        }
    )+};
}

words! {
    /// Outer protocol of a transport.
    Proto {
        /// UDP, the only one of version 1.
        Udp = "udp",
    }

    /// How an attempt was answered.
    Status {
        /// Bound.
        Success = "SUCCESS",
        /// Refused; the reason says why.
        Denied = "DENIED",
    }

    /// What is checked after every commit.
    Check {
        /// One active binding, the one that was committed, and nothing older is used but to receive (INV-01).
        NoDualActiveBinding = "NO_DUAL_ACTIVE_BINDING",
        /// The identity of the session and its birth are those of SessionCreated (INV-03).
        NoIdentityReset = "NO_IDENTITY_RESET",
    }

    /// What a check gave.
    CheckResult {
        /// It holds.
        Pass = "PASS",
        /// It does not: a defect of ours.
        Fail = "FAIL",
    }

    /// A step of a planned restart (OW-8).
    RestartAction {
        /// The sessions are frozen and written down; this run goes on with none of them.
        HandedOver = "handed_over",
        /// They could not be written down: this run goes on with them.
        Aborted = "aborted",
        /// They go on in this run.
        TakenOver = "taken_over",
        /// What was handed over cannot be used: there is no session.
        Refused = "refused",
    }

    /// Why keys changed or ended (RK-1).
    KeyTrigger {
        /// They reached their age.
        TimeElapsed = "time_elapsed",
        /// They sealed or opened enough packets.
        Volume = "volume",
        /// The transport changed.
        TransportChange = "transport_change",
        /// Policy, or the gateway, asked.
        PolicyTrigger = "policy_trigger",
        /// A security event.
        SecurityEvent = "security_event",
    }

    /// What happened to a policy.
    PolicyAction {
        /// The first policy of a gateway.
        Loaded = "loaded",
        /// Another policy is in force.
        Changed = "changed",
        /// A policy was refused; the one before stays.
        Refused = "refused",
        /// A bound of the policy took effect.
        LimitTriggered = "limit_triggered",
    }

    /// Why a key is held to be known to others.
    CompromiseEvidence {
        /// The operator said so.
        OperatorFlag = "operator_flag",
        /// Two holders of one key used the same nonce for different bytes (AR-4).
        ProvenClone = "proven_clone",
    }

    /// Which plane a replay was seen on.
    Plane {
        /// Control messages: the marker is their counter or nonce.
        Control = "control",
        /// DATA: the marker is its counter.
        Data = "data",
    }

    /// What was wrong with refused input.
    Violation {
        /// Not a message at all, or not of this version.
        Malformed = "malformed",
        /// No such session here.
        UnknownSession = "unknown_session",
        /// Proof, tag or key wrong.
        Authentication = "authentication",
        /// Too old, or from the future.
        Freshness = "freshness",
        /// Names another epoch than the present one.
        Epoch = "epoch",
        /// From a tuple that is not bound, or for one that may not be.
        Binding = "binding",
        /// Does not fit the state of the session.
        State = "state",
        /// An inner packet that the session may not send.
        Inner = "inner",
        /// A handshake that was refused.
        Handshake = "handshake",
        /// Asks for what policy or capacity does not give.
        Policy = "policy",
        /// A limit of the gateway itself.
        Internal = "internal",
    }

    /// What pattern was seen.
    Pattern {
        /// More security records of one reason than are written; the count says how many were left out.
        Suppressed = "suppressed",
        /// More handshakes than the gateway takes without cookies.
        HandshakeFlood = "handshake_flood",
    }

    /// Which limiter.
    LimitScope {
        /// Requests of one session (PP79).
        Session = "session",
        /// Packets of one source (PP74, PP76).
        Source = "source",
        /// Packets of all (PP77, PP78).
        Global = "global",
        /// Handshakes of all (PP75).
        Handshake = "handshake",
    }

    /// What a limiter did.
    LimitAction {
        /// It refuses from now on.
        Engaged = "engaged",
        /// It admits again.
        Released = "released",
    }

    /// Why a path is no candidate.
    Exclusion {
        /// It is down.
        Down = "down",
        /// It carries the session.
        Active = "active",
        /// It failed in this recovery.
        Tried = "tried",
        /// It did not answer for too long.
        Stale = "stale",
        /// It is not validated, and the brake asks for that (AF-4).
        Unvalidated = "unvalidated",
        /// Its values are beyond the bounds.
        Quality = "quality",
        /// It is not better enough (AF-1).
        Hysteresis = "hysteresis",
        /// It was left a moment ago (AF-2).
        Unrested = "unrested",
        /// Its score is below the floor (PP54).
        Score = "score",
        /// Another path is asked for, or policy excludes it.
        Policy = "policy",
    }
}

impl KeyTrigger {
    /// The trigger of a rekey with that reason (1211 to 1215).
    pub const fn of(reason: Reason) -> Option<Self> {
        match reason {
            Reason::RekeyTimeElapsed => Some(Self::TimeElapsed),
            Reason::RekeyVolume => Some(Self::Volume),
            Reason::RekeyTransportChange => Some(Self::TransportChange),
            Reason::RekeyPolicyTrigger => Some(Self::PolicyTrigger),
            Reason::RekeySecurityEvent => Some(Self::SecurityEvent),
            _ => None,
        }
    }
}
