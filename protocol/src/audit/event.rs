//! The event table (one row an event: name, class, scope, fields): the enum, the names, the fields in the order of the
//! file, the schema and the document are made from it.

use super::bounds::{Bounds, PolicyHash};
use super::outer::Outer;
use super::value::{
    Always, Check, CheckResult, CompromiseEvidence, Exclusion, KeyTrigger, Kind, LimitAction, LimitScope, Measured,
    OwnNode, ParameterKey, Pattern, Permille, Plane, PolicyAction, Proto, Recorded, RestartAction, Status, Threshold,
    Trigger, Value, Violation,
};
use super::{Class, EventRow, FieldRow, Origin, Scope};
use crate::ident::TransportId;
use crate::machine::{Evidence, State, TransitionId};
use crate::policy::Profile;
use crate::reason::Reason;
use crate::wire::{Cause, MessageType};

macro_rules! events {
    ($(
        $Event:ident $class:ident $scope:ident $reason:ident $when:literal {
            $($field:ident: $Type:ty = $meaning:literal,)+
        }
    )+) => {
        /// What happened, with what belongs to this kind of event alone.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Event {
            $(#[doc = $when] $Event { $(#[doc = $meaning] $field: $Type,)+ },)+
        }

        /// The kinds of event that the cores write.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum EventType {
            $(#[doc = $when] $Event,)+
        }

        impl EventType {
            /// Every kind, in the order of the catalogue.
            pub const ALL: &'static [Self] = &[$(Self::$Event,)+];
        }

        impl Event {
            /// Which kind it is.
            pub const fn event_type(&self) -> EventType {
                match self {
                    $(Self::$Event { .. } => EventType::$Event,)+
                }
            }

            /// Goes through its own fields in the order of the file.
            pub fn each_field(&self, mut visit: impl FnMut(&'static str, Value)) {
                match *self {
                    $(Self::$Event { $($field),+ } => { $(visit(stringify!($field), $field.value());)+ })+
                }
            }
        }

        /// The rows of the events that the cores write, in the order of [`EventType::ALL`].
        pub(super) const CORE_ROWS: &[EventRow] = &[$(EventRow {
            name: stringify!($Event),
            class: Class::$class,
            scope: Scope::$scope,
            origin: Origin::Core,
            reason_required: events!(@reason $reason),
            when: $when,
            fields: &[$(FieldRow {
                name: stringify!($field),
                kind: <$Type as Recorded>::KIND,
                nullable: <$Type as Recorded>::NULLABLE,
                meaning: $meaning,
            },)+],
        },)+];
    };
    (@reason reason) => { true };
    (@reason plain) => { false };
}

events! {
    SessionCreated Audit Session plain "a record was made, version 0" {
        owner: OwnNode = "node that owns the session",
        initial_transport: Option<TransportId> = "the client's first path; the gateway learns it with T01",
        policy_hash: PolicyHash = "first 128 bits of BLAKE3 of the policy snapshot",
        bounds: Bounds = "all limits that a verifier checks",
    }
    SessionStateChange Audit Session reason "a transition" {
        transition: TransitionId = "row of the transition table",
        previous_state: State = "state before",
        new_state: State = "state after",
        active_transport: Option<TransportId> = "bound after it",
        candidate_count: u8 = "paths that could be tried instead: validated standbys (gateway), paths up and not active (client)",
        trigger_event: Trigger = "the input that made it",
    }
    TransportAttached Audit Session plain "the first binding (T01)" {
        new_transport: TransportId = "the path",
        proto: Proto = "outer protocol",
        peer: Outer = "outer address of the peer",
    }
    VolatilitySignal Audit Session reason "what was measured, with T03" {
        loss_ratio: Option<Permille> = "lost / (delivered + lost), of the direction that loses more",
        drops: u16 = "heartbeats lost in a row",
        hb_age_ms: u32 = "age of the last authentic packet",
        latency_ms: Option<u32> = "95th percentile of the round trip, if measured at this end",
        jitter_ms: Option<u32> = "its mean deviation, if measured at this end",
        threshold: Threshold = "the bound that was crossed",
        window_samples: Option<u16> = "packets or round trips in the window",
    }
    TransportDead Audit Session reason "the active transport is lost (T04, T16)" {
        transport: TransportId = "the path",
        evidence: Evidence = "what proves it (SM-13)",
        last_delivery_age_ms: u32 = "age of the last authentic packet on it",
    }
    ReattachAttempt Audit Session plain "a recovery attempt opens or repeats; at the gateway: a request passed proof and freshness" {
        candidate_transport: TransportId = "path that asks to be bound",
        attempt: u16 = "ordinal in this recovery, from 1",
        recovery_deadline_ms: Option<u32> = "time left until the deadline; null outside RECOVERING",
        nonce: u64 = "counter of the request",
        in_reply_to_epoch: u64 = "the epoch that the request names",
    }
    ReattachResult Audit Session plain "an attempt was answered" {
        status: Status = "bound or refused",
        attempt: u16 = "ordinal in this recovery, from 1",
        control_rtt_us: Option<u32> = "request to answer, at the client, if only one copy was sent",
        retry_after_ms: Option<u32> = "what a refusal asks to wait",
    }
    TransportSwitch Audit Session reason "a binding was committed by T11" {
        previous_transport: Option<TransportId> = "bound before; null after its death",
        new_transport: TransportId = "bound now",
        same_path: bool = "the same path was proved again",
        cause: Cause = "why the client asked",
        candidate_count: u8 = "paths that could have been tried, as in SessionStateChange",
        loss_ratio: Option<Permille> = "loss of the new path, if measured at this end",
        latency_ms: Option<u32> = "round trip of the new path, if measured at this end",
        switch_latency_us: u64 = "from leaving ATTACHED to the commit",
        explicit: Always = "asked for by a proved request; data never moves a binding",
        peer: Outer = "outer address of the peer now",
    }
    TransportSwitchDenied Audit Session reason "policy refused an attempt" {
        candidate_transport: Option<TransportId> = "path that asked, if one did",
        limit: Option<u32> = "the limit, if it is a number: commits, or milliseconds",
        observed: Option<u32> = "what was observed, in the same unit",
        retry_after_ms: Option<u32> = "when it may be tried again, if ever",
    }
    TransportSwitchFailed Audit Session reason "an attempt ended without commit" {
        attempts: u16 = "attempts in this recovery",
        last_error: Option<Reason> = "the last refusal, if there was one",
    }
    TransportRetired Audit Session plain "a binding was taken out of use, at the commit or at its death; once more when its drain is over, if late packets came" {
        transport: TransportId = "the path",
        late_packets: Option<u32> = "packets accepted on it after the commit; null while it drains",
    }
    RecoveryComplete Audit Session plain "probation after a switch ended well; no state change" {
        duration_ms: u32 = "from the last authentic packet before leaving ATTACHED to the commit",
        attempts: u16 = "attempts in that recovery",
        detect_us: u64 = "from the last authentic packet to leaving ATTACHED",
        switch_us: u64 = "from leaving ATTACHED to the commit",
    }
    SessionTerminated Audit Session reason "the last record of a session" {
        session_age_ms: u32 = "age since T01, or since birth",
        transportless_age_ms: Option<u32> = "time without binding at the end; null if bound",
        total_switches: u32 = "commits of T11",
        packets: u64 = "DATA packets, both directions",
        bytes: u64 = "inner bytes, both directions",
        keys_erased: bool = "all keys of the session are out of memory",
    }
    AuditCheck Audit Session reason "twice after each T11" {
        check: Check = "what was checked",
        result: CheckResult = "what it gave",
    }
    KeyRotated Audit Session reason "a rekey is complete" {
        key_generation: u32 = "key epoch in use",
        trigger: KeyTrigger = "why",
    }
    KeyExpired Audit Session reason "keys ended the session (T25)" {
        key_generation: u32 = "key epoch in use",
        trigger: KeyTrigger = "age or volume",
    }
    RekeyDenied Audit Session reason "a rekey was refused" {
        key_generation: u32 = "key epoch in use",
        trigger: KeyTrigger = "why it was asked for",
        retry_after_ms: u32 = "when it may be asked for again",
    }
    SessionOwnerTransferred Audit Session reason "ownership moved; between two workers of a node: written by the new one" {
        owner_node_id: OwnNode = "the owner now",
        previous_owner: OwnNode = "the owner before",
        fencing_epoch: u64 = "rises with every change of owner",
        previous_worker: Option<u16> = "the worker before, if it is one of this node",
    }
    PolicyEvent Audit Either reason "a policy was loaded, changed or refused, or a bound of it took effect" {
        action: PolicyAction = "what happened",
        policy_name: Profile = "profile of the policy in force",
        parameter: Option<ParameterKey> = "the parameter concerned, if it is one",
        threshold_value: Option<Measured> = "its bound, in its unit",
        observed_value: Option<Measured> = "what was observed, in the same unit",
        policy_hash: PolicyHash = "first 128 bits of BLAKE3 of the snapshot of the policy in force",
        bounds: Option<Bounds> = "the limits from now on, if they changed",
    }
    GatewayRestart Audit Node reason "a planned restart: sessions go to the next run of the gateway, or come from the one before" {
        action: RestartAction = "what happened",
        sessions: u32 = "how many",
    }
    SecurityKeyCompromiseSuspected Audit Session reason "a key is held to be known to others (T20)" {
        evidence: CompromiseEvidence = "what says so",
    }
    SecurityReplayDetected Security Either reason "an old or known counter or nonce" {
        plane: Plane = "control or data",
        marker: u64 = "the counter or nonce",
        transport: Option<TransportId> = "bound path that it came by, if it did",
        peer: Outer = "where it came from",
    }
    SecurityValidationFailed Security Either reason "input was refused" {
        violation_type: Violation = "what was wrong",
        message_type: Option<MessageType> = "what it claimed to be, if that can be told",
        transport: Option<TransportId> = "bound path that it came by, if it did",
        peer: Outer = "where it came from",
    }
    SecurityOwnershipAnomaly Security Either reason "evidence of owner or epoch does not fit" {
        expected: u64 = "the present epoch",
        observed: u64 = "the epoch that was named",
    }
    SecurityAbuse Security Either reason "a flood, or the summary of security records that were left out" {
        pattern: Pattern = "what was seen",
        suppressed: u64 = "records left out in the interval; their reason is in details",
        interval_ms: u32 = "length of the interval",
    }
    RateLimitEvent Security Either reason "a limiter engaged or released" {
        action: LimitAction = "which of the two",
        scope: LimitScope = "whose limit",
        retry_after_ms: u32 = "when it may admit again; 0 when released",
        peer: Option<Outer> = "the source, if the limit is a source's",
    }
    CandidateScores Telemetry Session plain "candidates were ranked" {
        candidates: Scores = "the first of them, in order of rank",
    }
    Telemetry Telemetry Session plain "a sample of the active path" {
        rtt_ms: Option<u32> = "round trip, if measured at this end",
        jitter_ms: Option<u32> = "its mean deviation, if measured at this end",
        loss_ratio: Option<Permille> = "lost / (delivered + lost), if judged",
        hb_age_ms: u32 = "age of the last authentic packet",
        packets: u64 = "DATA packets, both directions",
        bytes: u64 = "inner bytes, both directions",
    }
}

impl EventType {
    /// Its row in the catalogue.
    pub fn row(self) -> &'static EventRow {
        &CORE_ROWS[self as usize]
    }

    /// Its name in the file.
    pub fn name(self) -> &'static str {
        self.row().name
    }
}

/// One candidate in a ranking. Numbers saturate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    /// The path.
    pub transport_id: TransportId,
    /// Loss.
    pub loss: Permille,
    /// Round trip in milliseconds.
    pub latency_ms: u16,
    /// Its mean deviation in milliseconds.
    pub jitter_ms: u16,
    /// Place in the order, from 1; 0 if excluded.
    pub rank: u8,
    /// Why it is no candidate, if it is none.
    pub excluded_by: Option<Exclusion>,
}

impl Score {
    /// Names and forms of the fields, in the order of the file.
    pub const FIELDS: &'static [FieldRow] = &[
        FieldRow { name: "transport_id", kind: Kind::Unsigned, nullable: false, meaning: "the path" },
        FieldRow { name: "loss", kind: Kind::Ratio, nullable: false, meaning: "loss" },
        FieldRow { name: "latency_ms", kind: Kind::Unsigned, nullable: false, meaning: "round trip" },
        FieldRow { name: "jitter_ms", kind: Kind::Unsigned, nullable: false, meaning: "its mean deviation" },
        FieldRow { name: "rank", kind: Kind::Unsigned, nullable: false, meaning: "place in the order, 0 if excluded" },
        FieldRow { name: "excluded_by", kind: Exclusion::KIND, nullable: true, meaning: "why it is no candidate" },
    ];

    /// Goes through the fields in the order of the file.
    pub fn each_field(&self, mut visit: impl FnMut(&'static str, Value)) {
        visit("transport_id", self.transport_id.value());
        visit("loss", self.loss.value());
        visit("latency_ms", self.latency_ms.value());
        visit("jitter_ms", self.jitter_ms.value());
        visit("rank", self.rank.value());
        visit("excluded_by", self.excluded_by.value());
    }
}

/// The first candidates of a ranking; as many as a record has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scores([Option<Score>; Scores::MAX]);

impl Scores {
    /// Candidates in one record.
    pub const MAX: usize = 5;

    /// The first [`Scores::MAX`] of them.
    pub fn of(ranking: impl IntoIterator<Item = Score>) -> Self {
        let mut scores = [None; Self::MAX];
        for (place, score) in scores.iter_mut().zip(ranking) {
            *place = Some(score);
        }
        Self(scores)
    }

    /// The candidates in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Score> {
        self.0.iter().flatten()
    }
}

impl Recorded for Scores {
    const KIND: Kind = Kind::Scores;
    fn value(self) -> Value {
        Value::Scores(self)
    }
}
