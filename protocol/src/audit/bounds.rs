//! The limits of a session as its first record states them: all that a verifier needs to judge its times and rates.

use super::FieldRow;
use super::value::{Kind, Recorded, Value};
use crate::policy::{OnRecoveryTimeout, Policy};
use crate::time::Span;

/// The first 128 bits of the BLAKE3 hash of a policy snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyHash(pub [u8; 16]);

impl PolicyHash {
    /// The hash of that policy.
    pub fn of(policy: &Policy) -> Self {
        let mut short = [0; 16];
        short.copy_from_slice(&policy.hash()[..16]);
        Self(short)
    }
}

/// Milliseconds or counts of the policy in the narrowest number that its range fits into.
trait Narrow: Copy {
    fn narrow(raw: u64) -> Self;
}

macro_rules! narrow {
    ($($Type:ty)+) => {$(
        impl Narrow for $Type {
            fn narrow(raw: u64) -> Self {
                Self::try_from(raw).unwrap_or(Self::MAX)
            }
        }
    )+};
}

narrow!(u8 u16 u32);

fn millis<T: Narrow>(span: Span) -> T {
    T::narrow(span.as_millis())
}

macro_rules! bounds {
    ($($field:ident: $Type:ty = $from:expr, $parameter:literal, $meaning:literal;)+) => {
        /// The limits that hold for a session. Milliseconds unless the name says otherwise.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Bounds {
            $(#[doc = $meaning] pub $field: $Type,)+
        }

        impl Bounds {
            /// Names and forms of the fields, in the order of the file.
            pub const FIELDS: &'static [FieldRow] = &[$(FieldRow {
                name: stringify!($field),
                kind: <$Type as Recorded>::KIND,
                nullable: false,
                meaning: $meaning,
            },)+];

            /// The policy parameters that they come from, in the same order.
            pub const PARAMETERS: &'static [u16] = &[$($parameter,)+];

            /// The limits of that policy.
            pub fn of(policy: &Policy) -> Self {
                Self { $($field: { let from: fn(&Policy) -> $Type = $from; from(policy) },)+ }
            }

            /// Goes through the fields in the order of the file.
            pub fn each_field(&self, mut visit: impl FnMut(&'static str, Value)) {
                $(visit(stringify!($field), self.$field.value());)+
            }
        }
    };
}

bounds! {
    max_lifetime_ms: u32 = |policy| millis(policy.session.max_lifetime), 10, "age of the session (INV-18)";
    transport_lost_ttl_ms: u32 = |policy| millis(policy.session.transport_lost_ttl), 11, "time without binding (INV-17)";
    handshake_timeout_ms: u16 = |policy| millis(policy.session.handshake_timeout), 12, "stay in BIRTH (TB-10)";
    max_degraded_ms: u32 = |policy| millis(policy.session.max_degraded), 14, "stay in DEGRADED (T22), 0 for no limit";
    heartbeat_volatile_ms: u16 = |policy| millis(policy.volatility.heartbeat_volatile), 21, "silence in ATTACHED (TB-01)";
    transport_dead_ms: u16 = |policy| millis(policy.volatility.transport_dead), 22, "silence of a binding (SM-13)";
    volatile_to_degraded_ms: u16 = |policy| millis(policy.volatility.volatile_to_degraded), 30, "stay in VOLATILE (TB-08)";
    stability_window_ms: u16 = |policy| millis(policy.volatility.stability_window), 31, "calm before T07, and probation";
    max_switches_per_min: u8 = |policy| u8::narrow(policy.switching.max_switches_per_min.into()), 40, "commits in a sliding 60 s (INV-15)";
    switch_cooldown_ms: u16 = |policy| millis(policy.switching.switch_cooldown), 41, "gap after a commit (SM-16)";
    recovery_window_ms: u16 = |policy| millis(policy.switching.recovery_window), 42, "stay in RECOVERING (INV-16)";
    max_recovery_attempts: u8 = |policy| u8::narrow(policy.switching.max_recovery_attempts.into()), 43, "attempts in a stay in RECOVERING";
    on_recovery_timeout: OnRecoveryTimeout = |policy| policy.switching.on_recovery_timeout, 44, "T12 (degrade) or T12b (terminate)";
    old_path_drain_ms: u16 = |policy| millis(policy.switching.old_path_drain), 46, "life of a retiring binding (TB-07)";
    path_validation_ms: u16 = |policy| millis(policy.switching.path_validation), 47, "time to validate a new binding (TB-06)";
    key_max_age_ms: u32 = |policy| millis(policy.security.key_max_age), 68, "age of keys (KY-7)";
}

impl Recorded for OnRecoveryTimeout {
    const KIND: Kind = Kind::Name(|| OnRecoveryTimeout::NAMES.to_vec());
    fn value(self) -> Value {
        Value::Name(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{PARAMETERS, Profile, Range};

    #[test]
    fn every_bound_fits_into_its_number_over_the_whole_range_of_its_parameter() {
        let room = |kind: usize| [u64::from(u32::MAX), u64::from(u16::MAX), u64::from(u8::MAX)][kind];
        let rooms = [0, 0, 1, 0, 1, 1, 1, 1, 2, 1, 1, 2, 2, 1, 1, 0].map(room);
        for (number, room) in Bounds::PARAMETERS.iter().zip(rooms) {
            let parameter = PARAMETERS.iter().find(|parameter| parameter.number == *number).unwrap();
            let most = match parameter.range {
                Range::Between(_, high) | Range::ZeroOr(_, _, high) | Range::FromZero(_, high) => high,
                Range::PowerOfTwo(_, high) => high,
                Range::Any => 0,
            };
            assert!(most <= room, "{} goes up to {most}", parameter.key);
        }
    }

    #[test]
    fn bounds_are_the_policys_numbers() {
        let policy = Policy::profile(Profile::Default);
        let mut seen = Vec::new();
        Bounds::of(&policy).each_field(|name, value| seen.push((name, value)));
        for ((name, value), number) in seen.iter().zip(Bounds::PARAMETERS) {
            let parameter = PARAMETERS.iter().find(|parameter| parameter.number == *number).unwrap();
            assert!(parameter.key.ends_with(name), "{name} is {}", parameter.key);
            if let Value::Unsigned(number) = value {
                assert_eq!(*number, parameter.value(&policy), "{name}");
            }
        }
        assert_eq!(seen.len(), Bounds::FIELDS.len());
    }
}
