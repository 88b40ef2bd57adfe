//! What the checkers found, sorted by the eleven safety counters. Each of them must be 0, or a run has failed.

use std::fmt;

use jumpgate_protocol::time::Time;

/// So many findings are kept in words; all are counted. One defect in a large run would otherwise fill the memory.
const KEPT: usize = 64;

/// What a finding says about the safety of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// Two active bindings, or a state that hides how many there are (INV-01, INV-02, INV-34).
    DualBinding,
    /// A session changed, was lost, or began anew without saying so (INV-03, INV-04, INV-07, INV-28).
    SilentReset,
    /// More than one worker has it (INV-20).
    AmbiguousOwner,
    /// A version or an epoch was repeated, lowered or skipped (INV-05, INV-06).
    VersionRegression,
    /// A copy was taken for the original, or changed something (INV-12).
    ReplayAccepted,
    /// Something was taken from where nothing is bound, or a binding was made by what may not make one (INV-11, INV-26).
    UnboundAccepted,
    /// One key sealed two packets under one nonce (INV-36).
    NonceReuse,
    /// Something happened after the end (INV-10).
    PostEndActivity,
    /// A state or a time without transport lasted longer than its bound (INV-16 to INV-18, TB-01 to TB-10).
    UnboundedRecovery,
    /// Too many commits in a minute, or one inside the cooldown (INV-15).
    SwitchLimitExceeded,
    /// One session's input reached another (INV-27).
    CrossSessionEffect,
    /// A rule besides these: a refusal that changed something, an answer too long, an end too early.
    Other,
}

impl Safety {
    /// All kinds, in the order of the counters.
    pub const ALL: [Self; 12] = [
        Self::DualBinding,
        Self::SilentReset,
        Self::AmbiguousOwner,
        Self::VersionRegression,
        Self::ReplayAccepted,
        Self::UnboundAccepted,
        Self::NonceReuse,
        Self::PostEndActivity,
        Self::UnboundedRecovery,
        Self::SwitchLimitExceeded,
        Self::CrossSessionEffect,
        Self::Other,
    ];

    /// The name of its counter.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DualBinding => "dual_binding",
            Self::SilentReset => "silent_reset",
            Self::AmbiguousOwner => "ambiguous_owner",
            Self::VersionRegression => "version_regression",
            Self::ReplayAccepted => "replay_accepted",
            Self::UnboundAccepted => "unbound_accepted",
            Self::NonceReuse => "nonce_reuse",
            Self::PostEndActivity => "post_end_activity",
            Self::UnboundedRecovery => "unbounded_recovery",
            Self::SwitchLimitExceeded => "switch_limit_exceeded",
            Self::CrossSessionEffect => "cross_session_effect",
            Self::Other => "other",
        }
    }
}

/// How often each kind was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SafetyCounters([u64; Safety::ALL.len()]);

impl SafetyCounters {
    /// How often that was found.
    pub const fn value(&self, kind: Safety) -> u64 {
        self.0[kind as usize]
    }

    /// How often anything was found.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
        self
    }
}

impl fmt::Display for SafetyCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Safety::ALL.iter().map(|kind| format!("{} {}", kind.name(), self.value(*kind)));
        f.write_str(&parts.by_ref().collect::<Vec<_>>().join(", "))
    }
}

/// Findings in the order in which they were made.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) words: Vec<String>,
    pub(crate) counters: SafetyCounters,
    /// When the first was made: a replay need not run longer.
    pub(crate) first_at: Option<Time>,
}

impl Findings {
    pub(crate) fn add(&mut self, now: Time, kind: Safety, what: &str) {
        self.counters.0[kind as usize] += 1;
        self.first_at.get_or_insert(now);
        if self.words.len() < KEPT {
            let ms = now.as_millis();
            self.words.push(format!("{}.{:03} s, {}: {what}", ms / 1_000, ms % 1_000, kind.name()));
        }
    }
}
