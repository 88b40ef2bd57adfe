//! Reason codes (§4): stable numbers and strings, append-only. One table makes the enum, the names and the document.

use core::fmt;

use crate::stored::{Damaged, Reader, Stored, Writer};

/// How a code may be used (§4, column "Use").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Primary reason of a transition.
    P,
    /// Refusal or drop.
    R,
    /// Security or audit record.
    E,
    /// Detail beside a primary reason.
    D,
}

macro_rules! reasons {
    ($($number:literal $name:ident $text:literal [$($usage:ident)+] $meaning:literal,)+) => {
        /// Why something happened or was refused (§4).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Reason {
            $(#[doc = $meaning] $name = $number,)+
        }

        impl Reason {
            /// Every code, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The code with that stable number, if there is one.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// The stable name, as in logs and documents.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// What it means, in a few words.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)+
                }
            }

            /// How it may be used.
            pub const fn uses(self) -> &'static [Use] {
                match self {
                    $(Self::$name => &[$(Use::$usage),+],)+
                }
            }
        }
    };
}

reasons! {
    101 HandshakeOk "HANDSHAKE_OK" [P] "handshake complete, first binding made",
    102 HandshakeFail "HANDSHAKE_FAIL" [P] "handshake ended without a session",
    103 HandshakeTimeout "HANDSHAKE_TIMEOUT" [D] "no confirmation in time",
    104 CookieRequired "COOKIE_REQUIRED" [R] "under load; HELLO_RETRY sent, nothing allocated",
    105 CookieInvalid "COOKIE_INVALID" [R] "cookie wrong, expired, or for another address",
    106 CapacityExceeded "CAPACITY_EXCEEDED" [R] "a session, half-open or per-identity limit is full",
    107 HelloReplayed "HELLO_REPLAYED" [R] "hello counter not above the last confirmed one",
    108 PeerUnknown "PEER_UNKNOWN" [R] "client key not authorised",
    109 SuiteUnsupported "SUITE_UNSUPPORTED" [R] "no acceptable cipher suite in common",
    202 LossThresholdExceeded "LOSS_THRESHOLD_EXCEEDED" [P] "windowed loss above threshold",
    203 ConsecutiveDropExceeded "CONSECUTIVE_DROP_EXCEEDED" [P] "too many heartbeats lost in a row",
    204 HeartbeatTimeout "HEARTBEAT_TIMEOUT" [P] "nothing authentic from the peer for too long",
    205 LatencyThresholdExceeded "LATENCY_THRESHOLD_EXCEEDED" [P] "p95 latency above threshold",
    206 JitterThresholdExceeded "JITTER_THRESHOLD_EXCEEDED" [P] "jitter above threshold",
    207 QualityFloorViolation "QUALITY_FLOOR_VIOLATION" [D] "every candidate below the quality bounds",
    208 TransportDead "TRANSPORT_DEAD" [P] "active transport lost on evidence of SM-13",
    209 HealthRecovered "HEALTH_RECOVERED" [P] "same binding calm again",
    301 LossRecovery "LOSS_RECOVERY" [P] "start after instability",
    302 DeadTransportRecovery "DEAD_TRANSPORT_RECOVERY" [P] "start after transport death",
    303 PolicyForcedRecovery "POLICY_FORCED_RECOVERY" [P] "start because policy or operator wants it",
    304 RecoveryRetry "RECOVERY_RETRY" [P] "start again out of DEGRADED",
    305 PeerReattach "PEER_REATTACH" [P] "gateway moved by a valid client request",
    306 ReattachSuccess "REATTACH_SUCCESS" [P] "new binding committed",
    307 ReattachValidationFailed "REATTACH_VALIDATION_FAILED" [P] "attempts ended without a valid reattach",
    308 NoCandidateTransports "NO_CANDIDATE_TRANSPORTS" [P D] "nothing left to try",
    309 RecoveryBoundsExceeded "RECOVERY_BOUNDS_EXCEEDED" [P] "recovery deadline passed",
    311 PreferredPathChanged "PREFERRED_PATH_CHANGED" [D] "switch went to a better ranked path",
    312 NatRebindDetected "NAT_REBIND_DETECTED" [D] "same transport_id, different tuple",
    313 SamePathReproved "SAME_PATH_REPROVED" [D] "commit onto the same tuple",
    314 AlreadyBound "ALREADY_BOUND" [D] "request asked for what is so (SM-09)",
    315 RetransmitAnswered "RETRANSMIT_ANSWERED" [D] "cached reply sent again",
    401 VolatilePersisted "VOLATILE_PERSISTED" [P] "instability outlasted its bound",
    403 ExitDegradedMode "EXIT_DEGRADED_MODE" [D] "beside the reason that leaves DEGRADED",
    501 PolicyDenied "POLICY_DENIED" [P R] "policy forbids it",
    502 SwitchRateLimited "SWITCH_RATE_LIMITED" [P R] "switch limit of the sliding minute reached",
    503 CooldownActive "COOLDOWN_ACTIVE" [R] "too soon after the last switch; carries retry_after_ms",
    504 RateLimited "RATE_LIMITED" [R] "token bucket empty; carries retry_after_ms",
    506 PolicyTermination "POLICY_TERMINATION" [P] "hard policy bound ended the session",
    507 PolicyInvalid "POLICY_INVALID" [E R] "policy refused; the rule is in details",
    508 PolicyChanged "POLICY_CHANGED" [E] "another policy is in force",
    601 TtlSessionExpired "TTL_SESSION_EXPIRED" [P R] "maximum lifetime reached",
    602 TtlTransportLossExpired "TTL_TRANSPORT_LOSS_EXPIRED" [P R] "too long without a transport",
    603 OperatorTerminated "OPERATOR_TERMINATED" [P] "ended on command at this end",
    604 PeerTerminated "PEER_TERMINATED" [P] "ended by the authenticated peer",
    605 SessionReplaced "SESSION_REPLACED" [D] "same client opened a successor and named this one",
    606 SessionLost "SESSION_LOST" [D] "gateway proved that it has no such session",
    607 GatewayShutdown "GATEWAY_SHUTDOWN" [D] "the gateway stops in good order",
    701 SessionNotFound "SESSION_NOT_FOUND" [R] "no live record under this locator",
    702 InvalidStateForReattach "INVALID_STATE_FOR_REATTACH" [R] "BIRTH, or frozen for transfer",
    703 AuthFail "AUTH_FAIL" [R] "proof or tag wrong",
    704 FreshnessInvalid "FRESHNESS_INVALID" [R] "older than reattach_proof_max_age_ms, or from the future",
    705 ReplayDetected "REPLAY_DETECTED" [R] "nonce not above the last one",
    706 StaleStateVersion "STALE_STATE_VERSION" [R] "request names an older binding_epoch; the answer carries the current one",
    707 FutureStateVersion "FUTURE_STATE_VERSION" [R E] "request names an epoch that this record never reached",
    708 InvalidTransportCandidate "INVALID_TRANSPORT_CANDIDATE" [P R] "path not allowed, malformed, or filtered",
    709 AtomicityFailed "ATOMICITY_FAILED" [R] "commit lost its compare-and-swap; nothing changed",
    710 DualBindForbidden "DUAL_BIND_FORBIDDEN" [R E] "would have made a second active binding",
    711 NotAuthoritativeOwner "NOT_AUTHORITATIVE_OWNER" [R] "another worker or node owns the slot",
    712 Malformed "MALFORMED" [R] "length or field wrong",
    713 UnknownType "UNKNOWN_TYPE" [R] "message type not known",
    714 UnsupportedVersion "UNSUPPORTED_VERSION" [R] "protocol version not spoken here",
    715 StoreUnavailable "STORE_UNAVAILABLE" [R] "owner store cannot confirm; fail closed",
    801 SecurityFailure "SECURITY_FAILURE" [P] "session ended on authenticated evidence",
    802 SecReplayAttempt "SEC_REPLAY_ATTEMPT" [E] "replayed control or data input",
    803 SecSessionFixationAttempt "SEC_SESSION_FIXATION_ATTEMPT" [E] "session id used under another identity or key",
    804 SecOwnershipAnomaly "SEC_OWNERSHIP_ANOMALY" [E] "owner, slot or epoch evidence does not fit",
    805 SecAbuseControlPlane "SEC_ABUSE_CONTROL_PLANE" [E] "flood pattern, or summary of suppressed records",
    806 UnauthorizedTransportAttempt "UNAUTHORIZED_TRANSPORT_ATTEMPT" [E] "traffic tried to enter by an unbound tuple",
    901 AuditInvariantOkSingleActive "AUDIT_INVARIANT_OK_SINGLE_ACTIVE" [E] "check after commit: one active binding",
    902 AuditInvariantOkNoReset "AUDIT_INVARIANT_OK_NO_RESET" [E] "check after commit: same identity",
    903 AuditPolicyLimitTriggered "AUDIT_POLICY_LIMIT_TRIGGERED" [E] "a policy bound took effect",
    904 AuditRecoveryTimeline "AUDIT_RECOVERY_TIMELINE" [E] "times of a finished recovery",
    905 AuditGap "AUDIT_GAP" [E] "audit records were lost and counted",
    1001 InvariantViolation "INVARIANT_VIOLATION" [P] "run-time check failed: our defect",
    1002 InvalidStateTransition "INVALID_STATE_TRANSITION" [R E] "input not listed for the state",
    1003 FatalProtocolError "FATAL_PROTOCOL_ERROR" [P] "authenticated peer broke the protocol beyond repair",
    1004 InternalError "INTERNAL_ERROR" [R E] "local failure without effect on the session",
    1101 OwnershipConflict "OWNERSHIP_CONFLICT" [P R E] "two owners claim one epoch (P only if proved)",
    1102 OwnershipCreated "OWNERSHIP_CREATED" [E] "a slot or session got its first owner",
    1103 OwnershipOk "OWNERSHIP_OK" [E] "the asked node owns it",
    1104 OwnershipNotFound "OWNERSHIP_NOT_FOUND" [E] "nobody owns it",
    1105 OwnershipAlreadyExists "OWNERSHIP_ALREADY_EXISTS" [E] "it has an owner already",
    1106 OwnershipTransferred "OWNERSHIP_TRANSFERRED" [E] "ownership moved",
    1107 OwnershipNoChange "OWNERSHIP_NO_CHANGE" [E] "the wanted owner owns it already",
    1108 OwnershipTransferDeniedNotOwner "OWNERSHIP_TRANSFER_DENIED_NOT_OWNER" [R E] "transfer asked of a node that is not the owner",
    1109 LeaseLost "LEASE_LOST" [E] "slot lease not renewed in time; slot frozen",
    1110 Fenced "FENCED" [R E] "write carried an old fencing epoch",
    1201 KeyRotated "KEY_ROTATED" [E] "new key epoch in use",
    1202 KeyExpired "KEY_EXPIRED" [P R] "keys too old or used up",
    1203 RekeyDenied "REKEY_DENIED" [R E] "rekey too soon or malformed; carries retry_after_ms",
    1204 KeyCompromiseSuspected "KEY_COMPROMISE_SUSPECTED" [E] "flagged by operator, or clone proved",
    1205 CounterLimitReached "COUNTER_LIMIT_REACHED" [R E] "data counter at its hard limit; sending stops",
    1206 KeyEpochUnknown "KEY_EPOCH_UNKNOWN" [R] "no key for the key epoch on the packet",
    1211 RekeyTimeElapsed "REKEY_TIME_ELAPSED" [D] "rekey because the keys reached their age",
    1212 RekeyVolume "REKEY_VOLUME" [D] "rekey because of the packets sent",
    1213 RekeyTransportChange "REKEY_TRANSPORT_CHANGE" [D] "rekey because the transport changed",
    1214 RekeyPolicyTrigger "REKEY_POLICY_TRIGGER" [D] "rekey because policy asked",
    1215 RekeySecurityEvent "REKEY_SECURITY_EVENT" [D] "rekey because of a security event",
    1301 WrongTransport "WRONG_TRANSPORT" [R] "tuple is neither active nor retiring",
    1302 DataStaleEpoch "DATA_STALE_EPOCH" [R] "epoch tag older than the binding of the tuple",
    1303 DataFutureEpoch "DATA_FUTURE_EPOCH" [R] "epoch tag newer than the binding of the tuple",
    1304 DataAuthFail "DATA_AUTH_FAIL" [R] "AEAD refused",
    1305 DataReplay "DATA_REPLAY" [R] "counter seen before",
    1306 DataTooOld "DATA_TOO_OLD" [R] "counter below the window",
    1307 NoActiveBinding "NO_ACTIVE_BINDING" [R] "session has no binding to send on or receive from",
    1308 InnerSourceInvalid "INNER_SOURCE_INVALID" [R] "inner source address not assigned to the session",
    1309 AmplificationLimit "AMPLIFICATION_LIMIT" [R] "byte budget of an unvalidated binding spent",
    1310 MtuExceeded "MTU_EXCEEDED" [R] "does not fit; the sender is told",
    1311 QueueFull "QUEUE_FULL" [R] "ring, queue or frame pool full",
    1312 PeerToPeerDenied "PEER_TO_PEER_DENIED" [R] "client-to-client traffic without consent",
}

impl Reason {
    /// The stable number (§4, column "No").
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Position in [`Reason::ALL`]: the index of its counter.
    pub fn index(self) -> usize {
        Self::ALL.binary_search(&self).unwrap_or(0)
    }
}

impl Stored for Reason {
    fn store(&self, out: &mut Writer) {
        self.number().store(out);
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Self::from_number(u16::load(from)?).ok_or(Damaged)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Reason {}

/// One counter per reason code, in a flat array: counting costs one addition and never allocates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonCounters([u64; Reason::ALL.len()]);

impl Default for ReasonCounters {
    fn default() -> Self {
        Self([0; Reason::ALL.len()])
    }
}

impl ReasonCounters {
    /// Adds one.
    pub fn count(&mut self, reason: Reason) {
        self.add(reason, 1);
    }

    /// Adds `n`.
    pub fn add(&mut self, reason: Reason, n: u64) {
        self.0[reason.index()] += n;
    }

    /// The value for one reason.
    pub fn value(&self, reason: Reason) -> u64 {
        self.0[reason.index()]
    }

    /// All counters that are not zero, by number.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.iter().copied().zip(self.0).filter(|(_, n)| *n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_so_that_the_index_can_be_searched() {
        assert!(Reason::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
    }

    #[test]
    fn every_number_finds_its_code_again() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_number(reason.number()), Some(*reason));
            assert_eq!(Reason::ALL[reason.index()], *reason);
        }
        assert_eq!(Reason::from_number(0), None);
    }
}
