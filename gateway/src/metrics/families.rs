//! Which metrics there are: one table makes the names, their types and labels, and the document.
//!
//! Label values come from closed sets only: states, reason codes, workers, ports and the like; never a session, an
//! address or a user (OB-12).

use std::fmt::Write as _;

/// What a metric is (Prometheus text format 0.0.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, from the start of the process.
    Counter,
    /// A value of now.
    Gauge,
    /// How often which value occurred, in buckets.
    Histogram,
}

impl Kind {
    /// The name as in the text format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric: a name, and a value for each combination of labels.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// The full name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Names of its labels, in the order in which they are written.
    pub labels: &'static [&'static str],
    /// What it tells, in a sentence.
    pub meaning: &'static str,
}

macro_rules! families {
    ($($NAME:ident $name:literal $Kind:ident [$($label:literal)*] $meaning:literal,)+) => {
        $(
            #[doc = concat!("`", $name, "`: ", $meaning, ".")]
            pub static $NAME: Family =
                Family { name: $name, kind: Kind::$Kind, labels: &[$($label),*], meaning: $meaning };
        )+

        /// Every metric, in the order of the page.
        pub static ALL: &[&Family] = &[$(&$NAME,)+];
    };
}

families! {
    BUILD_INFO "jumpgate_build_info" Gauge ["version" "commit"] "constant 1: the program that runs; `commit` is what JUMPGATE_COMMIT said when it was built",
    POLICY_INFO "jumpgate_policy_info" Gauge ["version" "profile" "hash"] "constant 1: the policy in force",
    DATAPLANE_INFO "jumpgate_dataplane_info" Gauge ["port" "driver" "xdp_mode" "zero_copy"] "constant 1: how each port turned out",
    SESSIONS "jumpgate_sessions" Gauge ["state" "worker"] "sessions by state and owner",
    TOMBSTONES "jumpgate_tombstones" Gauge [] "session ids of ended sessions that are not given out again yet",
    SESSIONS_CREATED "jumpgate_sessions_created_total" Counter [] "records made, half-open ones included",
    SESSIONS_TERMINATED "jumpgate_sessions_terminated_total" Counter ["reason"] "ends by primary reason, those of half-open sessions included",
    STATE_TRANSITIONS "jumpgate_state_transitions_total" Counter ["from" "to" "reason"] "transitions of all sessions",
    STATE_RESIDENCE "jumpgate_state_residence_seconds" Histogram ["state"] "time spent in a state, known when it is left",
    SESSION_AGE "jumpgate_session_age_seconds" Histogram ["reason"] "age since the first binding, at the end",
    RECOVERY_LATENCY "jumpgate_recovery_latency_seconds" Histogram ["cause" "outcome"] "leaving ATTACHED until ATTACHED again by a jump (`switched`) or without one (`healed`), or until the end (`ended`); `cause` is the reason of leaving",
    TRANSPORT_DEATHS "jumpgate_transport_deaths_total" Counter ["evidence"] "transports lost, by what proved it",
    TRANSPORT_SWITCHES "jumpgate_transport_switches_total" Counter ["cause" "same_path"] "jumps; `cause` is the reason of leaving ATTACHED",
    SWITCH_DENIALS "jumpgate_switch_denials_total" Counter ["reason"] "authentic requests that a limit or policy refused, and recoveries that the switch limit braked",
    SWITCH_FAILURES "jumpgate_switch_failures_total" Counter ["reason"] "recoveries that ended without a jump: deadline, nothing left to try, validation",
    REATTACH_REQUESTS "jumpgate_reattach_requests_total" Counter ["outcome"] "authentic requests that made a binding (`success`) or were refused (`denied`)",
    CONTROL_REJECTS "jumpgate_control_rejects_total" Counter ["message" "reason"] "refused control messages; `message` is NONE if the first byte is no type",
    EPOCH_MISMATCHES "jumpgate_epoch_mismatches_total" Counter ["kind"] "requests that named an older or a future binding_epoch",
    REPLAY_REJECTS "jumpgate_replay_rejects_total" Counter ["plane"] "replays refused",
    REPLAY_WINDOW "jumpgate_replay_window_entries" Gauge ["plane"] "counters that the window remembers",
    RATE_LIMIT_HITS "jumpgate_rate_limit_hits_total" Counter ["scope"] "messages beyond the rate of a source, of all together, of handshakes or of one session",
    UNDER_LOAD "jumpgate_under_load" Gauge [] "1 while handshakes are asked for a cookie first",
    HANDSHAKES "jumpgate_handshakes_total" Counter ["result"] "handshakes confirmed (`ok`), ended without confirmation (`failed`), refused, or asked for a cookie (`cookie`)",
    COOKIES_SENT "jumpgate_cookies_sent_total" Counter [] "HELLO_RETRY made",
    REKEYS "jumpgate_rekeys_total" Counter ["trigger" "outcome"] "rekeys complete or refused; a refused one does not say what triggered it",
    PATH_VALIDATIONS "jumpgate_path_validations_total" Counter ["result"] "bindings whose address was proved, or not in time",
    SAFETY_VIOLATIONS "jumpgate_safety_violations_total" Counter ["kind"] "must stay 0: broken invariants of sessions, as the slow path saw them",
    PACKETS "jumpgate_packets_total" Counter ["direction" "worker"] "packets queued for the inside port, authentic (`in`), and for the outside port (`out`)",
    BYTES "jumpgate_bytes_total" Counter ["direction" "worker"] "the same in bytes, Ethernet headers included",
    DROPS "jumpgate_drops_total" Counter ["reason" "worker"] "packets that a worker dropped",
    WORKER_CPU "jumpgate_worker_cpu_seconds_total" Counter ["worker"] "time on a CPU",
    XDP_PACKETS "jumpgate_xdp_packets_total" Counter ["action"] "verdicts of the XDP programs",
    XDP_DROPS "jumpgate_xdp_drops_total" Counter ["reason"] "frames that the XDP programs dropped; reasons as in xdp-counters.md",
    UMEM_FRAMES "jumpgate_umem_frames" Gauge ["owner" "worker"] "frames in fill and receive rings, in transmission, and held by the worker; `missing` must stay 0",
    XSK_ERRORS "jumpgate_xsk_errors_total" Counter ["counter" "worker"] "what the kernel counted on the AF_XDP sockets of both ports",
    OBS_OCCUPANCY "jumpgate_obs_ring_occupancy" Gauge ["class" "worker"] "audit records that wait for the sink; worker `slow` is the slow path",
    OBS_HIGH_WATER "jumpgate_obs_ring_high_water" Gauge ["class" "worker"] "most of them that waited when the sink looked",
    OBS_LOST "jumpgate_obs_ring_lost_total" Counter ["class" "worker"] "records that found no room",
    AUDIT_RECORDS "jumpgate_audit_records_total" Counter [] "records written to the audit trace",
    AUDIT_GAPS "jumpgate_audit_gaps_total" Counter [] "gaps declared in it",
    AUDIT_SINK_ERRORS "jumpgate_audit_sink_errors_total" Counter ["sink" "kind"] "what the file system refused",
    AUDIT_SINK_LAG "jumpgate_audit_sink_lag_records" Gauge ["sink"] "audit records of all threads that wait for the sink",
    AUDIT_HEAD_SEQ "jumpgate_audit_head_seq" Gauge [] "number of the last record in the trace",
    PROCESS_MEMORY "jumpgate_process_memory_bytes" Gauge ["kind"] "memory of the process",
    POLICY_RELOADS "jumpgate_policy_reloads_total" Counter ["result"] "reloads accepted and refused",
}

/// The table of docs/metrics.md.
pub fn render_markdown() -> String {
    let mut text = String::from("| Name | Type | Labels | Meaning |\n|---|---|---|---|\n");
    for Family { name, kind, labels, meaning } in ALL {
        let labels = if labels.is_empty() { "-".to_owned() } else { labels.join(", ") };
        let _ = writeln!(text, "| `{name}` | {} | {labels} | {meaning} |", kind.name());
    }
    text
}
