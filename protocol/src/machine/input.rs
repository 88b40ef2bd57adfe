//! What can happen to a session (§3, SM-03).

use core::fmt;

use crate::ident::{TransportId, Tuple};
use crate::reason::Reason;
use crate::time::Time;

/// Local or authenticated proof that a transport is gone (SM-13). Nothing unauthenticated is ever evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// No authenticated packet on the active tuple for `transport_dead_ms`.
    Silence,
    /// Path validation expired (PV-4).
    PathUnvalidated,
    /// Our own socket was closed.
    SocketClosed,
    /// Our own routing says that the peer cannot be reached.
    Unreachable,
    /// Interface or address gone, link down.
    LinkDown,
    /// The session came from another owner (OW-6).
    OwnerChanged,
}

/// A binding about to be made; the machine gives it its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewBinding {
    /// Outer addresses.
    pub tuple: Tuple,
    /// The client's number for the path.
    pub transport: TransportId,
    /// Whether the peer has already shown that it receives there (PV-1).
    pub validated: bool,
}

/// One input of the machine. Timer inputs carry nothing: their guard compares the record with the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The session reached its maximum lifetime.
    SessionTtl,
    /// Two commits were proved for one epoch.
    OwnershipConflict,
    /// A run-time check failed: INVARIANT_VIOLATION, or FATAL_PROTOCOL_ERROR.
    InvariantViolation {
        /// Which of the two.
        reason: Reason,
    },
    /// Authenticated evidence that a key is not only ours: flagged as compromised, or a proved clone (AR-4).
    SecurityFailure,
    /// The operator of this end ends the session.
    OperatorTerminate,
    /// The authenticated peer ended it, or proved that it has lost it.
    PeerTerminate {
        /// SESSION_LOST, SESSION_REPLACED or nothing.
        detail: Option<Reason>,
    },
    /// Keys are too old or used up.
    KeyExpired,
    /// DEGRADED for too long, or the policy in force does not admit the client any more.
    PolicyHardLimit {
        /// Whether the policy still admits the client.
        admitted: bool,
    },
    /// Transportless for too long.
    TransportTtl,
    /// The handshake was refused or took too long.
    HandshakeFailed {
        /// The refusal; none if only its time ran out.
        detail: Option<Reason>,
    },
    /// Keys are confirmed.
    HandshakeComplete {
        /// The first binding.
        binding: NewBinding,
    },
    /// The recovery deadline passed.
    RecoveryTimeout,
    /// A reattach is valid: all checks passed (gateway), or the matching ACK came (client).
    ReattachValid {
        /// The binding to commit.
        binding: NewBinding,
        /// Client only: the epoch that the gateway gave; the gateway always takes the next one.
        granted_epoch: Option<u64>,
    },
    /// Gateway: a request passed C00 to C09.
    PeerReattach,
    /// Our fresh authenticated request was refused for good, and no untried candidate is left.
    ReattachDeniedAuth {
        /// The primary reason: POLICY_DENIED, INVALID_TRANSPORT_CANDIDATE or REATTACH_VALIDATION_FAILED.
        reason: Reason,
        /// The refusing code.
        detail: Reason,
    },
    /// No attempt or no candidate is left.
    AttemptsExhausted {
        /// NO_CANDIDATE_TRANSPORTS or REATTACH_VALIDATION_FAILED.
        reason: Reason,
    },
    /// The active transport is dead.
    TransportDead {
        /// The generation that the evidence is about (SM-10).
        generation: u64,
        /// The evidence.
        evidence: Evidence,
    },
    /// Operator or policy wants the session to move.
    PolicyForceMove,
    /// A start or request was due, but the switch rate is used up.
    SwitchDeniedRate,
    /// VOLATILE lasted too long.
    VolatileTimeout,
    /// A rule of SM-14 holds.
    Instability {
        /// The generation that the measurement is about (SM-10).
        generation: u64,
        /// Which rule.
        reason: Reason,
    },
    /// A candidate passes the filter and may be tried.
    RecoveryStart {
        /// Whether the cooldown does not apply (SM-16).
        exempt: bool,
    },
    /// All enabled signals have been in bounds since then.
    StabilityRestored {
        /// The generation that the measurement is about (SM-10).
        generation: u64,
        /// Start of the calm.
        calm_since: Time,
    },
}

impl Input {
    /// Number of kinds of input.
    pub const KINDS: usize = 23;

    /// Rank among simultaneous inputs, 0 first (SM-03).
    pub const fn priority(&self) -> u8 {
        match self {
            Self::SessionTtl => 0,
            Self::OwnershipConflict => 1,
            Self::InvariantViolation { .. } => 2,
            Self::SecurityFailure => 3,
            Self::OperatorTerminate => 4,
            Self::PeerTerminate { .. } => 5,
            Self::KeyExpired => 6,
            Self::PolicyHardLimit { .. } => 7,
            Self::TransportTtl => 8,
            Self::HandshakeFailed { .. } => 9,
            Self::HandshakeComplete { .. } => 10,
            Self::RecoveryTimeout => 11,
            Self::ReattachValid { .. } => 12,
            Self::PeerReattach => 13,
            Self::ReattachDeniedAuth { .. } => 14,
            Self::AttemptsExhausted { .. } => 15,
            Self::TransportDead { .. } => 16,
            Self::PolicyForceMove => 17,
            Self::SwitchDeniedRate => 18,
            Self::VolatileTimeout => 19,
            Self::Instability { .. } => 20,
            Self::RecoveryStart { .. } => 21,
            Self::StabilityRestored { .. } => 22,
        }
    }

    /// The name as in the specification.
    pub const fn name(&self) -> &'static str {
        Self::name_of(self.priority())
    }

    /// The name of the input with that priority.
    pub const fn name_of(priority: u8) -> &'static str {
        const NAMES: [&str; Input::KINDS] = [
            "SESSION_TTL",
            "OWNERSHIP_CONFLICT",
            "INVARIANT_VIOLATION",
            "SECURITY_FAILURE",
            "OPERATOR_TERMINATE",
            "PEER_TERMINATE",
            "KEY_EXPIRED",
            "POLICY_HARD_LIMIT",
            "TRANSPORT_TTL",
            "HANDSHAKE_FAILED",
            "HANDSHAKE_COMPLETE",
            "RECOVERY_TIMEOUT",
            "REATTACH_VALID",
            "PEER_REATTACH",
            "REATTACH_DENIED_AUTH",
            "ATTEMPTS_EXHAUSTED",
            "TRANSPORT_DEAD",
            "POLICY_FORCE_MOVE",
            "SWITCH_DENIED_RATE",
            "VOLATILE_TIMEOUT",
            "INSTABILITY",
            "RECOVERY_START",
            "STABILITY_RESTORED",
        ];
        NAMES[priority as usize]
    }
}

impl Evidence {
    /// Every kind of evidence.
    pub const ALL: [Self; 6] = [
        Self::Silence,
        Self::PathUnvalidated,
        Self::SocketClosed,
        Self::Unreachable,
        Self::LinkDown,
        Self::OwnerChanged,
    ];

    /// The name as in the event catalogue.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::PathUnvalidated => "path_unvalidated",
            Self::SocketClosed => "socket_closed",
            Self::Unreachable => "unreachable",
            Self::LinkDown => "link_down",
            Self::OwnerChanged => "owner_changed",
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
