//! Making a policy out of what people state, and out of what clients ask for.

use super::rules::{check, parameter};
use super::text::Unreadable;
use super::{Narrowing, PARAMETERS, Parameter, Policy, PolicyError, PolicyValue, Profile, Unit};

/// Key of the parameter that chooses the base values (PP02).
const PROFILE_KEY: &str = "profile";
/// Key of the version, which a file always states (PP01).
const VERSION_KEY: &str = "version";

impl Policy {
    /// The values of a profile, as version 1.0. `custom` has no values of its own and starts from those of `default`.
    pub fn profile(profile: Profile) -> Self {
        let column = if profile == Profile::Custom { Profile::Default } else { profile } as usize;
        let mut policy = Self::blank();
        for parameter in PARAMETERS {
            // The table holds only values that its own fields can take; the tests go through all of them.
            let _ = (parameter.write)(&mut policy, parameter.profiles[column]);
        }
        policy.profile = profile;
        policy
    }

    /// A policy from the keys that a file states, in any order, checked whole (PR-01..PR-20).
    ///
    /// Keys are written as in [`PARAMETERS`]. `profile` gives the base (`default` if absent), every other key
    /// overrides one value. `version` must always be stated; with `profile = "custom"` so must every required key.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, PolicyValue)>) -> Result<Self, PolicyError> {
        let pairs: Vec<(&str, PolicyValue)> = pairs.into_iter().collect();
        let mut policy = Self::profile(stated_profile(&pairs)?.unwrap_or(Profile::Default));
        require(&pairs, policy.profile == Profile::Custom, true)?;
        for (key, value) in pairs.iter().filter(|(key, _)| *key != PROFILE_KEY) {
            policy.set(key, value)?;
        }
        policy.validate()?;
        Ok(policy)
    }

    /// This policy with other values for one client, checked whole. `profile` gives other base values for the client's
    /// sessions. Only what belongs to a session may differ: limits of the gateway are everybody's (RL-6).
    pub fn overridden<'a>(&self, pairs: impl IntoIterator<Item = (&'a str, PolicyValue)>) -> Result<Self, PolicyError> {
        let pairs: Vec<(&str, PolicyValue)> = pairs.into_iter().collect();
        let profile = stated_profile(&pairs)?;
        let mut policy = self.clone();
        if let Some(profile) = profile {
            require(&pairs, profile == Profile::Custom, false)?;
            let base = Self::profile(profile);
            for parameter in PARAMETERS.iter().filter(|one| one.is_session_scoped() && one.key != VERSION_KEY) {
                policy.assign(parameter, parameter.value(&base))?;
            }
        }
        for (key, value) in pairs.iter().filter(|(key, _)| *key != PROFILE_KEY) {
            let found = parameter(key).or_else(|| map_entry(key).map(|(parameter, _)| parameter));
            if let Some(parameter) = found.filter(|parameter| !parameter.is_session_scoped()) {
                return Err(PolicyError::for_the_whole_gateway(parameter, value.to_string()));
            }
            policy.set(key, value)?;
        }
        policy.validate()?;
        Ok(policy)
    }

    /// Overrides one value, checked by itself (PR-01, PR-02, PR-03, PR-10). The rules between keys wait for
    /// [`Policy::validate`]. One name of a map is set by its own key, as in `transport.priority.wifi`.
    pub fn set(&mut self, key: &str, value: &PolicyValue) -> Result<(), PolicyError> {
        if key == PROFILE_KEY {
            let cure = "choose the profile first, then override single keys".to_owned();
            return Err(PolicyError::unknown(key, value.to_string(), cure));
        }
        let (parameter, raw) = match (parameter(key), map_entry(key)) {
            (Some(parameter), _) => (parameter, read(parameter, key, value)?),
            (None, Some((parameter, shift))) => {
                let byte = read(parameter, key, value)? & 0xff;
                (parameter, parameter.value(self) & !(0xff << shift) | byte << shift)
            }
            (None, None) => return Err(PolicyError::unknown(key, value.to_string(), suggestion(key))),
        };
        self.assign(parameter, raw)
    }

    /// The policy that a client gets who asked for these values, by parameter number and raw value (RL-5, P06).
    ///
    /// A request may only go the way of column N. It is refused whole: if it names a parameter that is unknown, fixed
    /// or named twice, asks for more than this policy gives, or leads to an invalid policy.
    pub fn narrow(&self, requested: &[(u16, u64)]) -> Result<Self, PolicyError> {
        let mut narrowed = self.clone();
        for (index, &(number, wanted)) in requested.iter().enumerate() {
            let Some(parameter) = PARAMETERS.iter().find(|parameter| parameter.number == number) else {
                let bound = "no parameter has this number".to_owned();
                return Err(PolicyError::not_narrower(format!("PP{number:02}"), wanted.to_string(), bound));
            };
            let own = parameter.value(self);
            let refuse =
                |bound| Err(PolicyError::not_narrower(parameter.key.to_owned(), parameter.unit.text(wanted), bound));
            if requested[..index].iter().any(|(earlier, _)| *earlier == number) {
                return refuse("asked for twice".to_owned());
            }
            if !parameter.may_narrow(own, wanted) {
                return refuse(match parameter.narrowing {
                    Narrowing::Fixed => "a client may not ask for this".to_owned(),
                    Narrowing::Smaller => format!("a client may ask for {} or less", parameter.unit.text(own)),
                    Narrowing::Larger => format!("a client may ask for {} or more", parameter.unit.text(own)),
                });
            }
            narrowed.assign(parameter, wanted)?;
        }
        narrowed.validate()?;
        Ok(narrowed)
    }

    /// What the client of a running session asked for, under another base (RL-3): of each value the narrower one. What it
    /// asked for stays in force, and is not taken for a wish for more if the base has become the narrower one.
    pub fn narrowed_again(&self, requested: &[(u16, u64)]) -> Result<Self, PolicyError> {
        let mut narrowed = self.clone();
        for &(number, wanted) in requested {
            if let Some(parameter) = PARAMETERS.iter().find(|parameter| parameter.number == number) {
                narrowed.assign(parameter, parameter.narrower(parameter.value(self), wanted))?;
            }
        }
        narrowed.validate()?;
        Ok(narrowed)
    }

    /// Writes a raw value after checking it by itself.
    pub(crate) fn assign(&mut self, parameter: &Parameter, raw: u64) -> Result<(), PolicyError> {
        check(parameter, raw)?;
        (parameter.write)(self, raw)
            .ok_or_else(|| PolicyError::out_of_range(parameter, parameter.key, parameter.unit.text(raw)))
    }
}

/// One entry of the request that a client sends (HELLO_INIT, requested_policy), from what its user states. Whether
/// the gateway grants it depends on the gateway's policy.
pub fn request(key: &str, value: &PolicyValue) -> Result<(u16, u64), PolicyError> {
    let Some(parameter) = parameter(key) else {
        return Err(PolicyError::unknown(key, value.to_string(), suggestion(key)));
    };
    if parameter.narrowing == Narrowing::Fixed {
        let bound = "a client may not ask for this".to_owned();
        return Err(PolicyError::not_narrower(key.to_owned(), value.to_string(), bound));
    }
    let raw = read(parameter, key, value)?;
    check(parameter, raw)?;
    Ok((parameter.number, raw))
}

/// The profile that is stated, if one is.
fn stated_profile(pairs: &[(&str, PolicyValue)]) -> Result<Option<Profile>, PolicyError> {
    let stated = pairs.iter().find(|(stated, _)| *stated == PROFILE_KEY);
    let (Some((key, value)), Some(parameter)) = (stated, parameter(PROFILE_KEY)) else {
        return Ok(None);
    };
    Ok(Some(Profile::ALL[read(parameter, key, value)? as usize]))
}

/// PR-01: the version always, and with the profile `custom` every key that has no base.
fn require(pairs: &[(&str, PolicyValue)], custom: bool, version: bool) -> Result<(), PolicyError> {
    for parameter in PARAMETERS.iter().filter(|parameter| parameter.required) {
        let required = if parameter.key == VERSION_KEY { version } else { custom };
        if required && !pairs.iter().any(|(stated, _)| *stated == parameter.key) {
            let because = if custom { "with profile = \"custom\", which has no base" } else { "in every policy" };
            return Err(PolicyError::missing(parameter, because));
        }
    }
    Ok(())
}

/// The raw form of a stated value.
fn read(parameter: &Parameter, key: &str, value: &PolicyValue) -> Result<u64, PolicyError> {
    parameter.unit.parse(value).map_err(|fault| match fault {
        Unreadable::Type => PolicyError::wrong_type(parameter, key, value.to_string()),
        Unreadable::Range => PolicyError::out_of_range(parameter, key, value.to_string()),
    })
}

/// The map parameter that the key names an entry of, and the position of that entry's byte in the raw value.
fn map_entry(key: &str) -> Option<(&'static Parameter, usize)> {
    let (map, name) = key.rsplit_once('.')?;
    let parameter = parameter(map)?;
    let Unit::Map(names) = parameter.unit else { return None };
    let index = names.iter().position(|known| *known == name)?;
    Some((parameter, 8 * (names.len() - 1 - index)))
}

/// What to do about an unknown key: mostly its group or its unit was forgotten.
fn suggestion(key: &str) -> String {
    let bare = |key: &str| {
        let name = key.rsplit('.').next().unwrap_or(key);
        name.strip_suffix("_ms").unwrap_or(name).to_owned()
    };
    match PARAMETERS.iter().find(|parameter| bare(parameter.key) == bare(key)) {
        Some(parameter) => format!("write {}", parameter.key),
        None => "remove it".to_owned(),
    }
}
