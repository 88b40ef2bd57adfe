//! One record: of fixed size, without a pointer, copied as it is into a ring (OB-02).

use super::{Class, Event};
use crate::ident::SessionIdentity;
use crate::machine::State;
use crate::policy::Version;
use crate::reason::Reason;
use crate::stored::stored;
use crate::time::Time;

/// Most bytes that a record takes in a ring (OB-02).
pub const RECORD_MAX: usize = 128;

const _: () = assert!(size_of::<Record>() <= RECORD_MAX);

/// Where a session stood after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which session.
    pub session: SessionIdentity,
    /// Its state.
    pub state: State,
    /// `state_version`.
    pub version: u64,
    /// `binding_epoch`.
    pub epoch: u64,
}

/// One record. Who writes it, its number and its place in the chain are the writer's to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it happened, on the clock of the core.
    pub at: Time,
    /// `state_version` after the event; 0 without a session.
    version: u64,
    /// `binding_epoch` after the event; 0 without a session.
    epoch: u64,
    /// Which session, and its state.
    session: Option<(SessionIdentity, State)>,
    /// Version of the policy in force for it.
    pub policy_version: Version,
    /// How often the policy was replaced, from 1.
    pub policy_sequence: u32,
    /// The one primary reason.
    pub reason: Option<Reason>,
    /// A detail beside it.
    pub detail: Option<Reason>,
    /// What happened.
    pub event: Event,
}

/// The policy that was in force when something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyRef {
    /// Its version, chosen by its author.
    pub version: Version,
    /// How often the policy was replaced, from 1.
    pub sequence: u32,
}

stored! {
    Standing { session, state, version, epoch }
    PolicyRef { version, sequence }
}

impl Record {
    /// A record of that event.
    pub fn new(
        at: Time,
        standing: Option<Standing>,
        policy: PolicyRef,
        (reason, detail): (Option<Reason>, Option<Reason>),
        event: Event,
    ) -> Self {
        Self {
            at,
            version: standing.map_or(0, |standing| standing.version),
            epoch: standing.map_or(0, |standing| standing.epoch),
            session: standing.map(|standing| (standing.session, standing.state)),
            policy_version: policy.version,
            policy_sequence: policy.sequence,
            reason,
            detail,
            event,
        }
    }

    /// Where the session stood after it; none if it concerns no session that is known.
    pub fn standing(&self) -> Option<Standing> {
        let (session, state) = self.session?;
        Some(Standing { session, state, version: self.version, epoch: self.epoch })
    }

    /// Its class.
    pub fn class(&self) -> Class {
        self.event.event_type().row().class
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ob02_a_record_is_small_enough_for_a_ring_and_holds_no_pointer() {
        assert!(size_of::<Record>() <= RECORD_MAX, "{} bytes", size_of::<Record>());
        // Whatever is Copy and 'static is plain data, but for references to statics; the table has none.
        const fn plain<T: Copy + Send + 'static>() {}
        const { plain::<Record>() }
    }
}
