//! Validation (§10.2): each value by itself, then the rules between keys.
//!
//! The rules between keys are data, so that what is checked, what an error says and what the document shows cannot
//! differ. Keys are looked up at compile time: a rule about a key that does not exist does not build.

use super::{PARAMETERS, Parameter, Policy, PolicyError, Rate, Refusal, Unit};

/// An inequality between sums of parameters.
pub(super) struct Rule {
    /// PR-xx.
    pub(super) id: &'static str,
    smaller: &'static [Term],
    relation: Relation,
    larger: &'static [Term],
    /// The rule says nothing while this parameter is 0 (off).
    unless_off: Option<&'static Parameter>,
}

/// A constant times up to two parameters.
struct Term {
    factor: u64,
    parameters: [Option<&'static Parameter>; 2],
}

#[derive(Clone, Copy)]
enum Relation {
    Less,
    AtMost,
}

/// The rules between keys, PR-04..PR-09 and PR-11..PR-20. PR-01 is checked where keys are read; PR-02, PR-03 and
/// PR-10 concern one parameter each: [`check`].
pub(super) const RULES: &[Rule] = &[
    at_most("PR-04", &[times(2, "volatility.heartbeat_interval_ms")], &[one("volatility.heartbeat_volatile_ms")]),
    less("PR-05", &[one("volatility.heartbeat_volatile_ms")], &[one("volatility.transport_dead_ms")]),
    less("PR-05", &[one("volatility.transport_dead_ms")], &[one("session.transport_lost_ttl_ms")]),
    at_most(
        "PR-06",
        &[product("volatility.max_consecutive_drops", "volatility.heartbeat_interval_ms")],
        &[one("volatility.heartbeat_volatile_ms")],
    ),
    at_most("PR-07", &[one("volatility.stability_window_ms")], &[one("volatility.volatile_to_degraded_ms")]),
    at_most("PR-08", &[one("switching.path_validation_ms")], &[one("volatility.transport_dead_ms")]),
    at_most("PR-09", &[one("security.reattach_proof_max_age_ms")], &[one("switching.recovery_window_ms")]),
    less("PR-11", &[one("switching.recovery_window_ms")], &[one("session.transport_lost_ttl_ms")]),
    less("PR-11", &[one("session.transport_lost_ttl_ms")], &[one("session.max_lifetime_ms")]),
    less("PR-12", &[one("volatility.volatile_to_degraded_ms")], &[one("session.transport_lost_ttl_ms")]),
    at_most(
        "PR-13",
        &[
            one("volatility.heartbeat_volatile_ms"),
            one("switching.switch_cooldown_ms"),
            one("switching.recovery_window_ms"),
        ],
        &[one("session.transport_lost_ttl_ms")],
    ),
    at_most("PR-14", &[product("switching.switch_cooldown_ms", "switching.max_switches_per_min")], &[constant(60_000)]),
    at_most("PR-15", &[one("switching.old_path_drain_ms")], &[one("switching.switch_cooldown_ms")]),
    at_most("PR-16", &[times(3, "transport.probe_interval_ms")], &[one("transport.candidate_ttl_ms")]),
    at_most(
        "PR-17",
        &[one("security.rekey_overlap_ms"), one("security.rekey_min_interval_ms")],
        &[one("security.rekey_after_ms")],
    ),
    at_most("PR-17", &[times(2, "security.rekey_after_ms")], &[one("security.key_max_age_ms")]),
    less("PR-18", &[one("switching.recovery_window_ms")], &[one("session.max_degraded_ms")])
        .unless_off("session.max_degraded_ms"),
    at_most("PR-19", &[one("limits.half_open_per_identity")], &[one("limits.max_half_open")]),
    at_most("PR-19", &[one("limits.max_half_open")], &[one("limits.max_sessions")]),
    less("PR-20", &[one("cluster.lease_guard_ms"), times(2, "cluster.lease_renew_ms")], &[one("cluster.lease_ttl_ms")]),
];

impl Policy {
    /// Checks the whole policy (§10.2). Only a policy that passes may be put in force.
    pub fn validate(&self) -> Result<(), PolicyError> {
        for parameter in PARAMETERS {
            check(parameter, parameter.value(self))?;
        }
        RULES.iter().try_for_each(|rule| rule.check(self))
    }
}

/// Checks one value by itself: PR-02, PR-03, PR-10.
pub(super) fn check(parameter: &Parameter, raw: u64) -> Result<(), PolicyError> {
    let refuse = |rule, bound: &str, cure: &str| {
        Err(PolicyError::from(Refusal {
            rule,
            key: parameter.key.to_owned(),
            value: parameter.unit.text(raw),
            bound: bound.to_owned(),
            cure: cure.to_owned(),
            also: Vec::new(),
        }))
    };
    if !parameter.admits(raw) {
        return Err(PolicyError::out_of_range(parameter, parameter.key, parameter.unit.text(raw)));
    }
    match parameter.unit {
        Unit::Set(_) if raw == 0 => refuse("PR-03", "must not be empty", "name at least one protocol"),
        Unit::Bucket | Unit::PerSecond if Rate::unpack(raw).burst < Rate::unpack(raw).per_second => {
            refuse("PR-10", "burst must be at least the rate", "raise the burst or lower the rate")
        }
        _ => Ok(()),
    }
}

/// The parameter with that key.
pub(super) const fn parameter(key: &str) -> Option<&'static Parameter> {
    let mut index = 0;
    while index < PARAMETERS.len() {
        if same_text(PARAMETERS[index].key, key) {
            return Some(&PARAMETERS[index]);
        }
        index += 1;
    }
    None
}

/// `a == b`, which constants cannot use on text yet.
const fn same_text(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut index = 0;
    while index < a.len() && index < b.len() && a[index] == b[index] {
        index += 1;
    }
    index == a.len() && index == b.len()
}

const fn less(id: &'static str, smaller: &'static [Term], larger: &'static [Term]) -> Rule {
    Rule { id, smaller, relation: Relation::Less, larger, unless_off: None }
}

const fn at_most(id: &'static str, smaller: &'static [Term], larger: &'static [Term]) -> Rule {
    Rule { id, smaller, relation: Relation::AtMost, larger, unless_off: None }
}

const fn constant(factor: u64) -> Term {
    Term { factor, parameters: [None, None] }
}

const fn one(key: &str) -> Term {
    times(1, key)
}

const fn times(factor: u64, key: &str) -> Term {
    Term { factor, parameters: [Some(existing(key)), None] }
}

const fn product(first: &str, second: &str) -> Term {
    Term { factor: 1, parameters: [Some(existing(first)), Some(existing(second))] }
}

const fn existing(key: &str) -> &'static Parameter {
    parameter(key).expect("a rule names a key that the table does not have")
}

impl Rule {
    const fn unless_off(mut self, key: &str) -> Self {
        self.unless_off = Some(existing(key));
        self
    }

    fn check(&self, policy: &Policy) -> Result<(), PolicyError> {
        if self.unless_off.is_some_and(|parameter| parameter.value(policy) == 0) {
            return Ok(());
        }
        let (smaller, larger) = (sum(self.smaller, policy), sum(self.larger, policy));
        let holds = match self.relation {
            Relation::Less => smaller < larger,
            Relation::AtMost => smaller <= larger,
        };
        if holds { Ok(()) } else { Err(self.broken(policy, smaller, larger)) }
    }

    fn broken(&self, policy: &Policy, smaller: u64, larger: u64) -> PolicyError {
        let said = |parameter: &Parameter| parameter.unit.text(parameter.value(policy));
        let named = |terms| {
            let list = parameters(terms).map(|parameter| format!("{} (now {})", parameter.key, said(parameter)));
            list.collect::<Vec<_>>().join(" or ")
        };
        let (lower, raise) = (named(self.smaller), named(self.larger));
        let cure = if raise.is_empty() { format!("lower {lower}") } else { format!("lower {lower}, or raise {raise}") };
        // A rule without a parameter on its smaller side could not be broken by a policy; the table has none.
        let mut involved = parameters(self.smaller).chain(parameters(self.larger));
        let first = involved.next();
        Refusal {
            rule: self.id,
            key: first.map_or_else(String::new, |parameter| parameter.key.to_owned()),
            value: first.map_or_else(String::new, said),
            bound: format!("must satisfy {}, which is {smaller} {} {larger}", self.text(), self.relation.sign()),
            cure,
            also: involved.map(|parameter| parameter.key).collect(),
        }
        .into()
    }

    /// The rule as a formula.
    pub(super) fn text(&self) -> String {
        let side = |terms: &[Term]| terms.iter().map(Term::text).collect::<Vec<_>>().join(" + ");
        let formula = format!("{} {} {}", side(self.smaller), self.relation.sign(), side(self.larger));
        match self.unless_off {
            Some(parameter) => format!("{formula} (unless {} is 0)", parameter.key),
            None => formula,
        }
    }
}

impl Term {
    fn text(&self) -> String {
        let keys = self.parameters.iter().flatten().map(|parameter| parameter.key.to_owned());
        let factor = (self.factor != 1).then(|| self.factor.to_string());
        factor.into_iter().chain(keys).collect::<Vec<_>>().join(" x ")
    }
}

impl Relation {
    const fn sign(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::AtMost => "<=",
        }
    }
}

/// The value of one side of a rule. Values are inside their ranges by then; saturation only keeps it total.
fn sum(terms: &[Term], policy: &Policy) -> u64 {
    let values = terms.iter().map(|term| {
        let factors = term.parameters.iter().flatten().map(|parameter| parameter.value(policy));
        factors.fold(term.factor, u64::saturating_mul)
    });
    values.fold(0, u64::saturating_add)
}

/// The parameters that one side of a rule mentions.
fn parameters(terms: &'static [Term]) -> impl Iterator<Item = &'static Parameter> {
    terms.iter().flat_map(|term| term.parameters.iter().flatten().copied())
}
