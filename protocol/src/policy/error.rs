//! Why a policy was refused.

use core::fmt;
use core::ops::Deref;

use super::Parameter;

/// A policy, or a request for one, was refused; [`Refusal`] says why, and its fields read as if they were here.
///
/// From a file or a snapshot this is POLICY_INVALID; from [`super::Policy::narrow`] it is POLICY_DENIED, whatever
/// rule it names (RL-5).
// Boxed, so that results stay small where nothing is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError(Box<Refusal>);

/// Which rule refused which key, what the key says and what it may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// PR-01..PR-20 (§10.2), or RL-5 for a request that asks for more.
    pub rule: &'static str,
    /// The key at fault; of a rule between keys, the first one.
    pub key: String,
    /// Its value as written.
    pub value: String,
    /// What the rule demands, with the numbers that it met.
    pub bound: String,
    /// What to do about it.
    pub cure: String,
    /// The other keys of a rule between keys. Any of them may be the one that the file states.
    pub also: Vec<&'static str>,
}

impl PolicyError {
    /// PR-01: a key that must be stated is not.
    pub(super) fn missing(parameter: &Parameter, because: &str) -> Self {
        Refusal {
            rule: "PR-01",
            key: parameter.key.to_owned(),
            value: "missing".to_owned(),
            bound: format!("required {because}"),
            cure: format!("state it as {}, {}", parameter.unit.form(), parameter.range_text()),
            also: Vec::new(),
        }
        .into()
    }

    /// PR-01: there is no such key.
    pub(super) fn unknown(key: &str, value: String, cure: String) -> Self {
        let bound = "no such key in a policy".to_owned();
        Refusal { rule: "PR-01", key: key.to_owned(), value, bound, cure, also: Vec::new() }.into()
    }

    /// PR-01: the value is of another type.
    pub(super) fn wrong_type(parameter: &Parameter, key: &str, value: String) -> Self {
        let bound = format!("must be {}", parameter.unit.form());
        let cure = format!("write a value in {}", parameter.range_text());
        Refusal { rule: "PR-01", key: key.to_owned(), value, bound, cure, also: Vec::new() }.into()
    }

    /// PR-02: the value is outside its range.
    pub(super) fn out_of_range(parameter: &Parameter, key: &str, value: String) -> Self {
        Refusal {
            rule: "PR-02",
            key: key.to_owned(),
            value,
            bound: format!("must be in {}", parameter.range_text()),
            cure: format!("write {} inside the range", parameter.unit.form()),
            also: Vec::new(),
        }
        .into()
    }

    /// PR-01: a limit of the gateway cannot differ for one client.
    pub(super) fn for_the_whole_gateway(parameter: &Parameter, value: String) -> Self {
        Refusal {
            rule: "PR-01",
            key: parameter.key.to_owned(),
            value,
            bound: "holds for the whole gateway, not for one client".to_owned(),
            cure: "state it in [policy]".to_owned(),
            also: Vec::new(),
        }
        .into()
    }

    /// RL-5: the client asks for what it may not.
    pub(super) fn not_narrower(key: String, value: String, bound: String) -> Self {
        let cure = "ask for less, or leave the key out of the request".to_owned();
        Refusal { rule: "RL-5", key, value, bound, cure, also: Vec::new() }.into()
    }

    /// PR-01: bytes that are no snapshot.
    pub(super) fn not_a_snapshot(value: String, bound: String) -> Self {
        let cure = "use the same protocol version at both ends".to_owned();
        Refusal { rule: "PR-01", key: "snapshot".to_owned(), value, bound, cure, also: Vec::new() }.into()
    }
}

impl From<Refusal> for PolicyError {
    fn from(refusal: Refusal) -> Self {
        Self(Box::new(refusal))
    }
}

impl Deref for PolicyError {
    type Target = Refusal;

    fn deref(&self) -> &Refusal {
        &self.0
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { rule, key, value, bound, cure, .. } = &*self.0;
        write!(f, "{rule}: {key} = {value}: {bound}; {cure}")
    }
}

impl std::error::Error for PolicyError {}
