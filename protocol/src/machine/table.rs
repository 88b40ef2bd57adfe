//! The transition table as data (§3): documents, diagrams and the audit verifier read it; [`super::step`] implements
//! it, and a test holds the two together.

use core::fmt::{self, Write};

use super::State;
use crate::reason::Reason;

macro_rules! transitions {
    ($($id:ident $side:ident [$($from:ident)+] $priority:literal -> $to:tt [$($reason:ident)+],)+) => {
        /// The id of a transition (§3).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum TransitionId { $($id,)+ }

        /// Every transition, in the order of the specification.
        pub const TABLE: &[Row] = &[$(Row {
            id: TransitionId::$id,
            side: RowSide::$side,
            from: &[$(State::$from),+],
            input_priority: $priority,
            to: transitions!(@to $to),
            reasons: &[$(Reason::$reason),+],
        },)+];

        impl TransitionId {
            /// Its name, "T08b".
            pub const fn name(self) -> &'static str {
                match self { $(Self::$id => stringify!($id),)+ }
            }
        }
    };
    (@to same) => { None };
    (@to $to:ident) => { Some(State::$to) };
}

/// At which end a transition exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowSide {
    /// Both ends.
    Both,
    /// The gateway only.
    Gateway,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its id.
    pub id: TransitionId,
    /// At which end it exists.
    pub side: RowSide,
    /// States it leads out of.
    pub from: &'static [State],
    /// [`super::Input::priority`] of its input.
    pub input_priority: u8,
    /// The state it leads to; none for the self-edge T16.
    pub to: Option<State>,
    /// Primary reasons it may carry.
    pub reasons: &'static [Reason],
}

transitions! {
    T01 Both [Birth] 10 -> Attached [HandshakeOk],
    T02 Both [Birth] 9 -> Terminated [HandshakeFail],
    T03 Both [Attached] 20 -> Volatile [LossThresholdExceeded ConsecutiveDropExceeded HeartbeatTimeout LatencyThresholdExceeded JitterThresholdExceeded],
    T04 Both [Attached] 16 -> Volatile [TransportDead],
    T05 Both [Attached] 17 -> Volatile [PolicyForcedRecovery],
    T06 Gateway [Attached] 13 -> Volatile [PeerReattach],
    T07 Both [Volatile] 22 -> Attached [HealthRecovered],
    T08 Both [Volatile] 21 -> Recovering [LossRecovery DeadTransportRecovery PolicyForcedRecovery],
    T08b Gateway [Volatile] 13 -> Recovering [PeerReattach],
    T09 Both [Volatile] 19 -> Degraded [VolatilePersisted],
    T10 Both [Volatile] 18 -> Degraded [SwitchRateLimited],
    T11 Both [Recovering] 12 -> Attached [ReattachSuccess],
    T12 Both [Recovering] 11 -> Degraded [RecoveryBoundsExceeded],
    T12b Both [Recovering] 11 -> Terminated [RecoveryBoundsExceeded],
    T13 Both [Recovering] 14 -> Degraded [PolicyDenied InvalidTransportCandidate ReattachValidationFailed],
    T14 Both [Recovering] 15 -> Degraded [NoCandidateTransports ReattachValidationFailed],
    T15 Both [Degraded] 21 -> Recovering [RecoveryRetry],
    T15b Gateway [Degraded] 13 -> Recovering [PeerReattach],
    T16 Both [Volatile Degraded Recovering] 16 -> same [TransportDead],
    T17 Both [Birth Attached Volatile Degraded Recovering] 0 -> Terminated [TtlSessionExpired],
    T18 Both [Volatile Degraded Recovering] 8 -> Terminated [TtlTransportLossExpired],
    T19 Both [Birth Attached Volatile Degraded Recovering] 4 -> Terminated [OperatorTerminated],
    T20 Both [Birth Attached Volatile Degraded Recovering] 3 -> Terminated [SecurityFailure],
    T21 Gateway [Birth Attached Volatile Degraded Recovering] 1 -> Terminated [OwnershipConflict],
    T22 Gateway [Birth Attached Volatile Degraded Recovering] 7 -> Terminated [PolicyTermination],
    T23 Both [Birth Attached Volatile Degraded Recovering] 2 -> Terminated [InvariantViolation FatalProtocolError],
    T24 Both [Birth Attached Volatile Degraded Recovering] 5 -> Terminated [PeerTerminated],
    T25 Both [Birth Attached Volatile Degraded Recovering] 6 -> Terminated [KeyExpired],
}

impl TransitionId {
    /// The row of the table.
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
}

impl fmt::Display for TransitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The table and a diagram as Markdown, for `docs/state-machine.md`.
pub fn render_markdown() -> String {
    let mut out = String::from("| Id | Side | From | Input | To | Primary reason |\n|---|---|---|---|---|---|\n");
    for row in TABLE {
        let side = match row.side {
            RowSide::Both => "both",
            RowSide::Gateway => "gateway",
        };
        let from = if row.from.len() == State::ALL.len() - 1 {
            "any live".to_owned()
        } else {
            join(row.from.iter().map(|state| state.name()))
        };
        let to = row.to.map_or("same", State::name);
        let reasons = join(row.reasons.iter().map(|reason| reason.name()));
        let input = super::Input::name_of(row.input_priority);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| {} | {side} | {from} | {input} | {to} | {reasons} |", row.id);
    }
    out.push_str("\n```mermaid\nstateDiagram-v2\n    [*] --> BIRTH\n");
    for row in TABLE.iter().filter(|row| row.from.len() < State::ALL.len() - 1) {
        for from in row.from {
            let _ = writeln!(out, "    {from} --> {}: {}", row.to.unwrap_or(*from), row.id);
        }
    }
    out.push_str("    note right of TERMINATED: T17 and T19 to T25 lead here from every live state\n");
    out.push_str("    TERMINATED --> [*]\n```\n");
    out
}

fn join<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
