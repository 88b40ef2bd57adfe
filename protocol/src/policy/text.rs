//! Policy values as people write and read them.

use core::fmt::{self, Write as _};

use super::{Parameter, Range, Rate, Unit};

/// A value as a file or a command line gives it, before it is known for which parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum PolicyValue {
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// Text; read as whatever the parameter needs, so that a command line can pass all values as text.
    Text(String),
    /// `true` or `false`.
    Bool(bool),
    /// A list, for sets and for `[rate, burst]`.
    List(Vec<PolicyValue>),
}

/// Why a value has no raw form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is of another type than the parameter (PR-01).
    Type,
    /// The type is right, but no raw value can express it (PR-02).
    Range,
}

impl Unit {
    /// The raw form of a written value. The range of the parameter is not looked at.
    pub(super) fn parse(self, value: &PolicyValue) -> Result<u64, Unreadable> {
        match self {
            Self::Version => match value {
                PolicyValue::Text(text) => version(text).ok_or(Unreadable::Type),
                _ => Err(Unreadable::Type),
            },
            Self::Name(names) => match value {
                PolicyValue::Text(text) => position(names, text),
                _ => Err(Unreadable::Type),
            },
            Self::Set(names) => {
                words(value)?.iter().try_fold(0, |bits, name| Ok(bits | 1 << position(names, name.trim())?))
            }
            // One number speaks for all names; single names have keys of their own.
            Self::Map(names) => {
                let number = whole(value)?;
                let byte = u8::try_from(number).map_err(|_| Unreadable::Range)?;
                Ok(names.iter().fold(0, |bytes, _| bytes << 8 | u64::from(byte)))
            }
            Self::Bool => match value {
                PolicyValue::Bool(flag) => Ok((*flag).into()),
                PolicyValue::Text(text) => text.parse::<bool>().map(u64::from).map_err(|_| Unreadable::Type),
                _ => Err(Unreadable::Type),
            },
            Self::Ratio => scaled(value, 1_000),
            Self::Factor => scaled(value, 100),
            Self::PerSecond => {
                let rate = u32::try_from(whole(value)?).map_err(|_| Unreadable::Range)?;
                Ok(Rate::even(rate).pack())
            }
            Self::Bucket => bucket(value),
            Self::Ms | Self::Count | Self::Packets | Self::Score => whole(value),
        }
    }

    /// A raw value as a file would state it.
    pub(super) fn text(self, raw: u64) -> String {
        match self {
            Self::Version => format!("{}.{}", raw >> 16, raw & 0xffff),
            Self::Name(names) => match names.get(raw as usize) {
                Some(name) => (*name).to_owned(),
                None => format!("code {raw}"),
            },
            Self::Set(names) => {
                let chosen = names.iter().enumerate().filter(|(bit, _)| raw >> bit & 1 == 1);
                let chosen = chosen.map(|(_, name)| *name).collect::<Vec<_>>();
                if chosen.is_empty() { "none".to_owned() } else { chosen.join(", ") }
            }
            Self::Map(names) => {
                let bytes = raw.to_be_bytes();
                let bytes = &bytes[bytes.len() - names.len()..];
                if bytes.iter().all(|byte| *byte == bytes[0]) {
                    return bytes[0].to_string();
                }
                let pairs = names.iter().zip(bytes).map(|(name, byte)| format!("{name} = {byte}"));
                format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
            }
            Self::Bool => (raw != 0).to_string(),
            Self::Ratio => format!("{}.{:03}", raw / 1_000, raw % 1_000),
            Self::Factor => format!("{}.{:02}", raw / 100, raw % 100),
            Self::PerSecond => grouped(Rate::unpack(raw).per_second.into()),
            Self::Bucket => {
                let rate = Rate::unpack(raw);
                format!("[{}, {}]", grouped(rate.per_second.into()), grouped(rate.burst.into()))
            }
            Self::Ms | Self::Count | Self::Packets | Self::Score => grouped(raw),
        }
    }

    /// One number of a range of this unit.
    fn bound(self, number: u64) -> String {
        match self {
            Self::Ratio | Self::Factor => self.text(number),
            _ => grouped(number),
        }
    }

    /// What a value of this unit looks like.
    pub(super) const fn form(self) -> &'static str {
        match self {
            Self::Version => "text of the form \"1.0\"",
            Self::Name(_) => "one of the names, as text",
            Self::Set(_) => "a list of names",
            Self::Map(_) => "a whole number",
            Self::Bool => "true or false",
            Self::Ms => "a whole number of milliseconds",
            Self::Count => "a whole number",
            Self::Packets => "a whole number of packets",
            Self::Score => "a whole number of points",
            Self::Ratio => "a number with at most three decimals",
            Self::Factor => "a number with at most two decimals",
            Self::PerSecond => "a whole number per second",
            Self::Bucket => "[rate per second, burst], two whole numbers",
        }
    }

    /// The name of the unit in documents.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Version => "text",
            Self::Name(_) => "enum",
            Self::Set(_) => "set",
            Self::Map(_) => "map",
            Self::Bool => "bool",
            Self::Ms => "ms",
            Self::Count => "count",
            Self::Packets => "packets",
            Self::Score => "points",
            Self::Ratio => "ratio",
            Self::Factor => "factor",
            Self::PerSecond => "1/s",
            Self::Bucket => "1/s, burst",
        }
    }
}

impl Parameter {
    /// Its range, as documents and errors state it.
    pub fn range_text(&self) -> String {
        let bound = |number| self.unit.bound(number);
        match self.range {
            Range::Any => match self.unit {
                Unit::Version => "X.Y".to_owned(),
                Unit::Name(names) => names.join(", "),
                Unit::Set(names) => format!("at least one of {}", names.join(", ")),
                Unit::Map(names) => format!("0..255 for each of {}", names.join(", ")),
                Unit::Bool => "false, true".to_owned(),
                _ => "any".to_owned(),
            },
            Range::Between(low, high) => format!("{}..{}", bound(low), bound(high)),
            Range::ZeroOr(meaning, low, high) => format!("0 ({meaning}), {}..{}", bound(low), bound(high)),
            Range::FromZero(meaning, high) => format!("0 ({meaning})..{}", bound(high)),
            Range::PowerOfTwo(low, high) => format!("{}..{}, power of two", bound(low), bound(high)),
        }
    }
}

impl fmt::Display for PolicyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(f),
            Self::Float(number) => write!(f, "{number:?}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bool(flag) => flag.fmt(f),
            Self::List(items) => {
                f.write_char('[')?;
                for (index, item) in items.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}{item}")?;
                }
                f.write_char(']')
            }
        }
    }
}

/// A number with its thousands set apart, in the way TOML allows: 28_800_000.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

/// A whole number, from an integer or from text.
fn whole(value: &PolicyValue) -> Result<u64, Unreadable> {
    match value {
        PolicyValue::Integer(number) => u64::try_from(*number).map_err(|_| Unreadable::Range),
        PolicyValue::Text(text) => {
            let number = text.trim().replace('_', "").parse::<i64>().map_err(|_| Unreadable::Type)?;
            u64::try_from(number).map_err(|_| Unreadable::Range)
        }
        _ => Err(Unreadable::Type),
    }
}

/// A fraction in `1 / scale`. What is finer than that is refused rather than rounded: the policy in force would
/// differ from the one that was written.
fn scaled(value: &PolicyValue, scale: u32) -> Result<u64, Unreadable> {
    /// Far above the error of a binary fraction, far below one step.
    const TOLERANCE: f64 = 1e-6;
    let number = match value {
        PolicyValue::Integer(number) => *number as f64,
        PolicyValue::Float(number) => *number,
        PolicyValue::Text(text) => text.trim().parse::<f64>().map_err(|_| Unreadable::Type)?,
        _ => return Err(Unreadable::Type),
    };
    let steps = number * f64::from(scale);
    if !(0.0..=f64::from(u32::MAX)).contains(&steps) || (steps - steps.round()).abs() > TOLERANCE {
        return Err(Unreadable::Range);
    }
    Ok(steps.round() as u64)
}

/// Rate and burst, from a list or from text such as `10, 20`.
fn bucket(value: &PolicyValue) -> Result<u64, Unreadable> {
    let numbers = match value {
        PolicyValue::List(items) => items.iter().map(whole).collect::<Result<Vec<_>, _>>()?,
        PolicyValue::Text(text) => {
            text.split(',').map(|part| whole(&PolicyValue::Text(part.to_owned()))).collect::<Result<Vec<_>, _>>()?
        }
        _ => return Err(Unreadable::Type),
    };
    let [rate, burst] = numbers[..] else { return Err(Unreadable::Type) };
    let narrow = |number| u32::try_from(number).map_err(|_| Unreadable::Range);
    Ok(Rate::new(narrow(rate)?, narrow(burst)?).pack())
}

/// Words, from a list of texts or from text such as `udp, tcp`. Empty text is the empty list.
fn words(value: &PolicyValue) -> Result<Vec<&str>, Unreadable> {
    match value {
        PolicyValue::List(items) => items
            .iter()
            .map(|item| match item {
                PolicyValue::Text(text) => Ok(text.as_str()),
                _ => Err(Unreadable::Type),
            })
            .collect(),
        PolicyValue::Text(text) if text.trim().is_empty() => Ok(Vec::new()),
        PolicyValue::Text(text) => Ok(text.split(',').collect()),
        _ => Err(Unreadable::Type),
    }
}

/// Major and minor number, packed like [`super::Version`].
fn version(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once('.')?;
    let number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u16>().ok())?;
    Some(super::Version::new(number(major)?, number(minor)?).pack())
}

/// Where a name stands in the list.
fn position(names: &[&str], wanted: &str) -> Result<u64, Unreadable> {
    names.iter().position(|name| *name == wanted).map(|index| index as u64).ok_or(Unreadable::Range)
}
