//! What is checked after every commit, whether records are kept or not: what fails ends the session (T23).

use super::trail::{Scene, Trail};
use crate::machine::{Record, Side, Transition, TransitionId};

/// What the checks after a commit of T11 gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checks {
    /// NO_DUAL_ACTIVE_BINDING
    pub(super) single_binding: bool,
    /// NO_IDENTITY_RESET
    pub(super) same_identity: bool,
}

impl Checks {
    /// The checks of a transition; none if it is no commit.
    pub(super) fn of(transition: &Transition, scene: &Scene<'_>, trail: &Trail) -> Option<Self> {
        (transition.id == TransitionId::T11).then(|| Self {
            single_binding: is_single_binding(scene.record, transition),
            same_identity: scene.identity == trail.session && scene.record.created() == trail.born,
        })
    }

    /// Whether all of them hold.
    pub(super) const fn hold(self) -> bool {
        self.single_binding && self.same_identity
    }
}

/// The one active binding is the one committed, and what is left of another is older and only receives.
fn is_single_binding(record: &Record, transition: &Transition) -> bool {
    let moved_on = record.version() > transition.version;
    let active = record.active().copied() == transition.active || moved_on;
    // The mirror of the client may be told the epoch that it has (SM-09).
    let same_epoch_ok = record.side() == Side::Client;
    let older = |epoch: u64| epoch < transition.epoch || (same_epoch_ok && epoch == transition.epoch);
    let retiring = record.retiring(transition.at).is_none_or(|old| older(old.epoch));
    active && retiring && record.epoch() == transition.epoch
}
