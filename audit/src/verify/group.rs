//! What belongs to one version of a session: its transition, and the records that must stand beside it.

use jumpgate_protocol::machine::{State, TransitionId};

use super::Code;
use super::schema::Complaint;

/// The records of one version, as far as they oblige or exclude each other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Group {
    /// The transition that made the version; none before the first one, and where records are missing.
    pub(super) transition: Option<TransitionId>,
    /// The transition left RECOVERING, and nothing has closed that recovery yet (INV-25).
    pub(super) closing_due: bool,
    /// The state that it led to.
    pub(super) terminal: bool,
    /// The active binding before it.
    pub(super) active_before: Option<u64>,
    pub(super) attached: bool,
    pub(super) dead: bool,
    pub(super) succeeded: bool,
    pub(super) switches: u8,
    pub(super) denied: bool,
    pub(super) single_active: bool,
    pub(super) no_reset: bool,
}

impl Group {
    /// The group that a transition opens.
    pub(super) fn open(transition: TransitionId, from: State, to: State, active_before: Option<u64>) -> Self {
        Self {
            transition: Some(transition),
            closing_due: from == State::Recovering && to != State::Recovering,
            terminal: to == State::Terminated,
            active_before,
            ..Self::default()
        }
    }

    /// Whether the recovery is to be closed by a switch (T11) or a denial (T13) rather than a failure.
    pub(super) fn closes_otherwise(&self) -> bool {
        matches!(self.transition, Some(TransitionId::T11 | TransitionId::T13))
    }

    /// What was missing, once the version is over. SessionTerminated is judged by whoever ends the session.
    pub(super) fn close(&self, complaints: &mut Vec<Complaint>) {
        let Some(transition) = self.transition else { return };
        let mut missing = |code, what: &str| {
            complaints.push(Complaint::new(code, format!("{what} with {transition}"), "none"));
        };
        match transition {
            TransitionId::T01 if !self.attached => missing(Code::Bind, "TransportAttached"),
            TransitionId::T04 | TransitionId::T16 if !self.dead => missing(Code::Bind, "TransportDead"),
            TransitionId::T10 if !self.denied => missing(Code::Rate, "TransportSwitchDenied"),
            TransitionId::T11 => {
                match (self.switches, self.succeeded) {
                    (0, true) => missing(Code::Attempt, "TransportSwitch after SUCCESS"),
                    (0, false) => missing(Code::Bind, "TransportSwitch"),
                    (_, false) => missing(Code::Attempt, "ReattachResult"),
                    _ => {}
                }
                if !self.single_active {
                    missing(Code::Check, "AuditCheck NO_DUAL_ACTIVE_BINDING");
                }
                if !self.no_reset {
                    missing(Code::Check, "AuditCheck NO_IDENTITY_RESET");
                }
            }
            TransitionId::T13 if self.closing_due => missing(Code::Attempt, "TransportSwitchDenied"),
            _ if self.closing_due => missing(Code::Attempt, "TransportSwitchFailed"),
            _ => {}
        }
    }
}
