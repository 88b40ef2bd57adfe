//! The parameter table of §10.1: the one place where a parameter is named, typed, bounded and given its values.

use super::parameter::Narrowing::{Fixed, Larger, Smaller};
use super::parameter::Range::{Any, Between, FromZero, PowerOfTwo, ZeroOr};
use super::parameter::Unit::{self, Bool, Bucket, Count, Factor, Map, Ms, Name, Packets, PerSecond, Ratio, Score, Set};
use super::values::Field;
use super::{
    ApplyMode, OnRecoveryTimeout, Parameter, Priorities, Profile, Protocols, Rate, Store, TransportClass, Version,
};
use crate::time::Span;

/// Makes the structures and the table out of rows of the form
/// `number field: Type, "key" [required], unit, [default, mobile, fast], range, narrowing, meaning;`
/// where `[x]` stands for `[x, x, x]`.
macro_rules! parameters {
    (@profiles $same:expr) => { [$same, $same, $same] };
    (@profiles $default:expr, $mobile:expr, $fast:expr) => { [$default, $mobile, $fast] };
    (@required) => { false };
    (@required required) => { true };
    (
        policy {$(
            $own_number:literal $own_field:ident: $OwnType:ty, $own_key:literal $([$own_required:ident])?,
            $own_unit:expr, [$($own_profiles:expr),+], $own_range:expr, $own_narrowing:expr, $own_meaning:literal;
        )*}
        $($group:ident: $Group:ident, $about:literal {$(
            $number:literal $field:ident: $Type:ty, $key:literal $([$required:ident])?,
            $unit:expr, [$($profiles:expr),+], $range:expr, $narrowing:expr, $meaning:literal;
        )*})*
    ) => {
        /// A whole policy (§10.1), parsed into integers. It is in force only after [`Policy::validate`].
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Policy {
            $(#[doc = $own_meaning] pub $own_field: $OwnType,)*
            $(#[doc = $about] pub $group: $Group,)*
        }

        $(
            #[doc = $about]
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $Group {
                $(#[doc = $meaning] pub $field: $Type,)*
            }
        )*

        impl Policy {
            /// A policy with nothing written into it yet.
            pub(super) const fn blank() -> Self {
                Self {
                    $($own_field: <$OwnType as Field>::BLANK,)*
                    $($group: $Group { $($field: <$Type as Field>::BLANK,)* },)*
                }
            }
        }

        /// Every parameter, in the order of its id.
        pub const PARAMETERS: &[Parameter] = &[
            $(Parameter {
                number: $own_number,
                key: $own_key,
                unit: $own_unit,
                profiles: parameters!(@profiles $($own_profiles),+),
                range: $own_range,
                narrowing: $own_narrowing,
                required: parameters!(@required $($own_required)?),
                meaning: $own_meaning,
                read: |policy| policy.$own_field.raw(),
                write: |policy, raw| Field::from_raw(raw).map(|value| policy.$own_field = value),
            },)*
            $($(Parameter {
                number: $number,
                key: $key,
                unit: $unit,
                profiles: parameters!(@profiles $($profiles),+),
                range: $range,
                narrowing: $narrowing,
                required: parameters!(@required $($required)?),
                meaning: $meaning,
                read: |policy| policy.$group.$field.raw(),
                write: |policy, raw| Field::from_raw(raw).map(|value| policy.$group.$field = value),
            },)*)*
        ];
    };
}

/// One hour in milliseconds.
const HOUR: u64 = 3_600_000;
/// One day in milliseconds.
const DAY: u64 = 24 * HOUR;

/// Raw value of a bucket.
const fn bucket(per_second: u32, burst: u32) -> u64 {
    Rate::new(per_second, burst).pack()
}

/// Raw value of a gateway-wide rate.
const fn even(per_second: u32) -> u64 {
    Rate::even(per_second).pack()
}

parameters! {
    policy {
        1 version: Version, "version" [required], Unit::Version, [Version::new(1, 0).pack()], Any, Fixed,
            "policy version, always stated in the file";
        2 profile: Profile, "profile", Name(Profile::NAMES), [0, 1, 2], Any, Fixed,
            "base values; the file may override single keys";
        3 apply_mode: ApplyMode, "apply_mode", Name(ApplyMode::NAMES), [1], Any, Fixed,
            "when running sessions take over a changed policy";
    }

    session: Session, "Lifetimes of a session." {
        10 max_lifetime: Span, "session.max_lifetime_ms" [required], Ms, [8 * HOUR], Between(60_000, DAY), Smaller,
            "hard life of a session";
        11 transport_lost_ttl: Span, "session.transport_lost_ttl_ms" [required], Ms, [15_000, 30_000, 10_000],
            Between(3_000, 300_000), Smaller, "longest time without binding";
        12 handshake_timeout: Span, "session.handshake_timeout_ms", Ms, [5_000], Between(1_000, 30_000), Fixed,
            "life of a BIRTH record";
        13 tombstone: Span, "session.tombstone_ms", Ms, [60_000], Between(10_000, 600_000), Fixed,
            "locator kept after the end";
        14 max_degraded: Span, "session.max_degraded_ms", Ms, [0], ZeroOr("off", 5_000, DAY), Fixed,
            "longest stay in DEGRADED, then T22";
    }

    volatility: Volatility, "When a path is held to be unstable or dead." {
        20 heartbeat_interval: Span, "volatility.heartbeat_interval_ms", Ms, [500, 250, 100], Between(50, 10_000),
            Larger, "pace of heartbeats (BD-3)";
        21 heartbeat_volatile: Span, "volatility.heartbeat_volatile_ms", Ms, [2_000, 1_000, 300],
            Between(100, 30_000), Fixed, "silence that makes VOLATILE";
        22 transport_dead: Span, "volatility.transport_dead_ms", Ms, [3_000, 2_000, 600], Between(200, 60_000), Fixed,
            "silence that makes TRANSPORT_DEAD";
        23 loss_window: Span, "volatility.loss_window_ms", Ms, [2_000, 1_500, 1_000], Between(500, 5_000), Fixed,
            "loss is judged over this";
        24 loss_volatile_threshold: u32, "volatility.loss_volatile_threshold" [required], Ratio, [200, 50, 100],
            Between(1, 1_000), Fixed, "lost / (delivered + lost), in permille";
        25 max_consecutive_drops: u32, "volatility.max_consecutive_drops", Count, [3, 4, 3], Between(2, 20), Fixed,
            "heartbeats lost in a row";
        26 min_samples: u32, "volatility.min_samples", Count, [8], Between(4, 64), Fixed, "samples for soft signals";
        27 latency_window: Span, "volatility.latency_window_ms", Ms, [2_000, 1_500, 1_000], Between(500, 5_000), Fixed,
            "window for latency and jitter";
        28 latency_volatile_threshold: Span, "volatility.latency_volatile_threshold_ms", Ms, [0],
            ZeroOr("off", 10, 10_000), Fixed, "p95 bound";
        29 jitter_threshold: Span, "volatility.jitter_threshold_ms", Ms, [0, 80, 0], ZeroOr("off", 5, 5_000), Fixed,
            "mean deviation bound";
        30 volatile_to_degraded: Span, "volatility.volatile_to_degraded_ms", Ms, [4_000, 4_000, 1_500],
            Between(500, 30_000), Fixed, "longest stay in VOLATILE";
        31 stability_window: Span, "volatility.stability_window_ms", Ms, [2_000, 2_000, 1_000], Between(200, 30_000),
            Larger, "calm needed for T07; probation";
    }

    switching: Switching, "How often and how fast a session may change its path." {
        40 max_switches_per_min: u16, "switching.max_switches_per_min" [required], Count, [8, 12, 12],
            FromZero("never", 60), Smaller, "commits in a sliding 60 s";
        41 switch_cooldown: Span, "switching.switch_cooldown_ms", Ms, [1_500, 500, 200], Between(50, 30_000), Larger,
            "gap after a commit";
        42 recovery_window: Span, "switching.recovery_window_ms" [required], Ms, [8_000, 6_000, 2_000],
            Between(500, 60_000), Smaller, "deadline of RECOVERING";
        43 max_recovery_attempts: u32, "switching.max_recovery_attempts", Count, [5], Between(1, 16), Smaller,
            "attempts per stay in RECOVERING";
        44 on_recovery_timeout: OnRecoveryTimeout, "switching.on_recovery_timeout", Name(OnRecoveryTimeout::NAMES),
            [0], Any, Fixed, "T12 (degrade) or T12b (terminate)";
        45 switch_improvement_factor: u32, "switching.switch_improvement_factor", Factor, [110], Between(100, 200),
            Larger, "hysteresis, in percent";
        46 old_path_drain: Span, "switching.old_path_drain_ms", Ms, [250, 250, 150], FromZero("strict", 1_000), Smaller,
            "life of a retiring binding";
        47 path_validation: Span, "switching.path_validation_ms", Ms, [1_000, 1_000, 500], Between(100, 5_000), Fixed,
            "time for a new binding to be validated (PV-4)";
    }

    transport: Transport, "Candidate paths." {
        50 allowed_protocols: Protocols, "transport.allowed_protocols", Set(Protocols::NAMES), [1], Any, Smaller,
            "outer protocols; tcp and quic are reserved";
        51 max_candidate_count: u32, "transport.max_candidate_count", Count, [3], Between(1, 8), Smaller,
            "standby paths";
        52 candidate_ttl: Span, "transport.candidate_ttl_ms", Ms, [15_000, 15_000, 5_000], Between(1_000, 60_000), Fixed,
            "forget an unseen path";
        53 probe_interval: Span, "transport.probe_interval_ms", Ms, [2_500, 1_000, 500], Between(100, 20_000), Larger,
            "standby probing";
        54 candidate_min_score: u32, "transport.candidate_min_score", Score, [0], Between(0, 1_000), Larger,
            "floor of the score of a candidate";
        55 priority: Priorities, "transport.priority", Map(TransportClass::NAMES), [0x6464_6464], Any, Fixed,
            "lower is preferred";
    }

    security: Security, "Freshness, replay windows and the life of keys." {
        60 reattach_proof_max_age: Span, "security.reattach_proof_max_age_ms" [required], Ms, [5_000, 5_000, 2_000],
            Between(1_000, 10_000), Smaller, "oldest reattach request that is accepted (AR-5)";
        61 control_replay_window: u32, "security.control_replay_window", Packets, [128], PowerOfTwo(64, 1_024), Fixed,
            "window of lane Q";
        62 data_replay_window: u32, "security.data_replay_window", Packets, [8_192], PowerOfTwo(8_192, 65_536), Fixed,
            "window of DATA (AR-3)";
        63 rekey_after: Span, "security.rekey_after_ms", Ms, [300_000], Between(10_000, HOUR), Smaller,
            "age of keys at which a rekey is wanted (RK-1)";
        64 rekey_after_packets: u64, "security.rekey_after_packets", Packets, [1 << 32], Between(1 << 16, 1 << 35),
            Smaller, "use of keys at which a rekey is wanted (RK-1)";
        65 rekey_min_interval: Span, "security.rekey_min_interval_ms", Ms, [5_000], Between(1_000, 60_000), Fixed,
            "shortest time between rekeys (RK-4)";
        66 rekey_overlap: Span, "security.rekey_overlap_ms", Ms, [5_000], Between(1_000, 30_000), Fixed,
            "life of old receiving keys (RK-3)";
        67 rekey_on_switch: bool, "security.rekey_on_switch", Bool, [0], Any, Fixed, "rekey after each commit";
        68 key_max_age: Span, "security.key_max_age_ms", Ms, [HOUR], Between(60_000, DAY), Smaller,
            "age of keys that ends the session (KY-7)";
        69 require_psk: bool, "security.require_psk", Bool, [0], Any, Fixed, "refuse handshakes without preshared key";
    }

    limits: Limits, "Limits of the gateway, and the request rate of a session." {
        70 max_sessions: u32, "limits.max_sessions", Count, [100_000], Between(1, 4_000_000), Fixed,
            "sessions of the gateway";
        71 max_sessions_per_identity: u32, "limits.max_sessions_per_identity", Count, [4], Between(1, 1_024), Fixed,
            "sessions of one client key";
        72 max_half_open: u32, "limits.max_half_open", Count, [4_096], Between(16, 1_000_000), Fixed,
            "BIRTH records; cookies from one half on";
        73 half_open_per_identity: u32, "limits.half_open_per_identity", Count, [4], Between(1, 64), Fixed,
            "BIRTH records of one client key";
        74 handshakes_per_source: Rate, "limits.handshakes_per_source", Bucket, [bucket(10, 20)], Between(1, 10_000),
            Fixed, "handshakes of an IPv4 address or IPv6 /64";
        75 handshakes_total: Rate, "limits.handshakes_total", PerSecond, [even(1_000)], Between(10, 1_000_000), Fixed,
            "handshakes of all; cookies beyond it";
        76 control_per_source: Rate, "limits.control_per_source", Bucket, [bucket(200, 400)], Between(10, 100_000),
            Fixed, "control packets of a source (C01)";
        77 control_total: Rate, "limits.control_total", PerSecond, [even(100_000)], Between(100, 10_000_000), Fixed,
            "control packets of all (C01)";
        78 resets_total: Rate, "limits.resets_total", PerSecond, [even(1_000)], FromZero("none", 100_000), Fixed,
            "SESSION_RESET sent (RF-3)";
        79 reattach_per_session: Rate, "limits.reattach_per_session", Bucket,
            [bucket(2, 5), bucket(4, 8), bucket(5, 10)], Between(1, 50), Smaller, "requests of a session after C05";
        80 cookie_rotate: Span, "limits.cookie_rotate_ms", Ms, [120_000], Between(30_000, 600_000), Fixed,
            "life of a cookie secret (HS-7)";
        81 source_table_entries: u32, "limits.source_table_entries", Count, [65_536], Between(1_024, 4_194_304), Fixed,
            "sources remembered; fixed size, oldest evicted";
    }

    access: Access, "What clients may reach." {
        85 client_to_client: bool, "access.client_to_client", Bool, [0], Any, Fixed, "inner traffic between clients";
    }

    observability: Observability, "Telemetry; audit records cannot be turned off." {
        86 emit_switch_metrics: bool, "observability.emit_switch_metrics", Bool, [1], Any, Fixed,
            "telemetry of switches; audit records stay";
        87 record_outer_addresses: bool, "observability.record_outer_addresses", Bool, [0], Any, Fixed,
            "outer addresses in records, else a keyed hash";
        88 include_latency_metrics: bool, "observability.include_latency_metrics", Bool, [1], Any, Fixed,
            "telemetry of latency";
        89 emit_security_events: bool, "observability.emit_security_events", Bool, [1], Any, Fixed,
            "security records; their counters stay";
    }

    cluster: Cluster, "Ownership of slots (§11)." {
        90 store: Store, "cluster.store", Name(Store::NAMES), [0], Any, Fixed, "where ownership is kept";
        91 lease_ttl: Span, "cluster.lease_ttl_ms", Ms, [10_000], Between(2_000, 120_000), Fixed, "slot lease";
        92 lease_renew: Span, "cluster.lease_renew_ms", Ms, [3_000], Between(500, 30_000), Fixed,
            "pace of lease renewals";
        93 lease_guard: Span, "cluster.lease_guard_ms", Ms, [1_000], Between(100, 10_000), Fixed,
            "owner stops so long before expiry";
    }
}
