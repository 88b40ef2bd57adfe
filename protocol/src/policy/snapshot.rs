//! The snapshot: the session-scoped part of a policy as it goes to the client, and its hash.
//!
//! One format byte, then the raw value of each session-scoped parameter in the order of the table, big-endian, in the
//! width of its unit. One policy has exactly one encoding, so equal hashes mean equal snapshots.

use super::{PARAMETERS, Parameter, Policy, PolicyError, Profile, Unit};

/// The first byte. It changes whenever the table's session-scoped rows or their units do.
const FORMAT: u8 = 1;
/// Longest snapshot that HELLO_ACK and POLICY_UPDATE have room for, in bytes.
pub const SNAPSHOT_MAX: usize = 400;
/// Length of every snapshot of this format, in bytes.
pub const SNAPSHOT_LEN: usize = length();

const _: () = assert!(SNAPSHOT_LEN <= SNAPSHOT_MAX);

impl Policy {
    /// The session-scoped part, for HELLO_ACK and POLICY_UPDATE.
    pub fn encode_snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SNAPSHOT_LEN);
        bytes.push(FORMAT);
        for parameter in session_scoped() {
            let raw = parameter.value(self).to_be_bytes();
            bytes.extend_from_slice(&raw[raw.len() - width(parameter.unit)..]);
        }
        bytes
    }

    /// Reads what [`Policy::encode_snapshot`] wrote. Whatever the bytes are, only a valid policy comes out (INV-29).
    /// What belongs to the gateway alone has the values of the profile `default` and no meaning at the client.
    pub fn decode_snapshot(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() != SNAPSHOT_LEN {
            let bound = format!("must be {SNAPSHOT_LEN} bytes long");
            return Err(PolicyError::not_a_snapshot(format!("{} bytes", bytes.len()), bound));
        }
        if bytes[0] != FORMAT {
            return Err(PolicyError::not_a_snapshot(
                format!("format {}", bytes[0]),
                format!("must be format {FORMAT}"),
            ));
        }
        let mut policy = Self::profile(Profile::Default);
        let mut rest = &bytes[1..];
        for parameter in session_scoped() {
            let (field, after) = rest.split_at(width(parameter.unit));
            let raw = field.iter().fold(0, |raw, byte| raw << 8 | u64::from(*byte));
            policy.assign(parameter, raw)?;
            rest = after;
        }
        policy.validate()?;
        Ok(policy)
    }

    /// BLAKE3 of the snapshot: names the policy of a session in every record, and is the same at both ends.
    pub fn hash(&self) -> [u8; 32] {
        blake3::hash(&self.encode_snapshot()).into()
    }
}

/// The rows of the snapshot, in its order.
fn session_scoped() -> impl Iterator<Item = &'static Parameter> {
    PARAMETERS.iter().filter(|parameter| parameter.is_session_scoped())
}

/// Bytes that a raw value of this unit takes. Every range fits; the tests compare.
const fn width(unit: Unit) -> usize {
    match unit {
        Unit::Name(_) | Unit::Set(_) | Unit::Bool => 1,
        Unit::Score | Unit::Ratio | Unit::Factor => 2,
        Unit::Version | Unit::Ms | Unit::Count => 4,
        Unit::Map(names) => names.len(),
        Unit::Packets | Unit::PerSecond | Unit::Bucket => 8,
    }
}

const fn length() -> usize {
    let mut length = 1;
    let mut index = 0;
    while index < PARAMETERS.len() {
        if PARAMETERS[index].is_session_scoped() {
            length += width(PARAMETERS[index].unit);
        }
        index += 1;
    }
    length
}
