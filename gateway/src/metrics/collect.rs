//! From what the gateway knows to a page: one function for each part of it.

use std::ops::RangeInclusive;

use jumpgate_audit::sink::StatusView;
use jumpgate_common::counter::Fate;
use jumpgate_metrics::{Histogram, Page};
use jumpgate_protocol::audit::{Class, LimitScope, PolicyHash, SecurityCounts};
use jumpgate_protocol::distribution::Distribution;
use jumpgate_protocol::gateway::{Memory, Meter};
use jumpgate_protocol::machine::Evidence;
use jumpgate_protocol::policy::Policy;
use jumpgate_protocol::reason::{Reason, ReasonCounters};
use jumpgate_protocol::wire::MessageType;

use super::conduct::Violation;
use super::families::{self as f};
use super::process::Process;
use super::tally::Tally;
use crate::port::BATCH;
use crate::worker::{ControlRefusals, WorkerCounters};
use crate::xdp::{self, MapLedger, SteeringMap};

/// The program's commit, where the build was told of one.
const COMMIT: &str = match option_env!("JUMPGATE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// How a port turned out, as the start-up report says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortLabels {
    /// `outside` or `inside`.
    pub port: &'static str,
    /// The kernel's driver.
    pub driver: String,
    /// `native` or `generic`.
    pub xdp_mode: &'static str,
    /// Whether packets move without a copy.
    pub zero_copy: bool,
}

/// What became of slots that were to move.
#[derive(Debug, Default)]
pub struct SlotMoves {
    /// How long those took that moved, from the order to their worker until the next one had them.
    pub moved: Histogram,
    /// Their worker could not give them up.
    pub kept: u64,
    /// The next worker refused the title that the slot table gave (OW-12).
    pub fenced: u64,
}

/// What the slow path itself counts for this page alone.
#[derive(Debug, Default)]
pub struct SlowCounters {
    /// Followed from events of sessions.
    pub tally: Tally,
    /// Control messages that never got to a worker.
    pub refusals: ControlRefusals,
    /// Control messages beyond the rate of their source (PP76), and beyond that of all sources together (PP77).
    pub limited: (u64, u64),
    /// HELLO_RETRY made.
    pub cookies: u64,
    /// Slots that changed their worker, and those that did not.
    pub slots: SlotMoves,
    /// Reloads that put another policy in force, and those that did not.
    pub reloads: (u64, u64),
    /// Microseconds from a transition of a session until the inside steering followed it.
    pub steering_lag: Distribution,
}

impl SlowCounters {
    /// Counts what the filter refused.
    pub fn refused(&mut self, packet: &[u8], reason: Reason, scope: LimitScope) {
        self.refusals.count(packet, reason);
        let (by_source, in_total) = &mut self.limited;
        match (reason, scope) {
            (Reason::RateLimited, LimitScope::Global) => *in_total += 1,
            (Reason::RateLimited, _) => *by_source += 1,
            _ => {}
        }
    }
}

/// Everything that a page is made of, at one moment.
pub struct Sources<'a> {
    /// The policy in force.
    pub policy: &'a Policy,
    /// Both ports.
    pub ports: &'a [PortLabels],
    /// What the slow path counts.
    pub slow: &'a SlowCounters,
    /// What the handshake refused.
    pub handshakes: &'a ReasonCounters,
    /// Locators that rest.
    pub tombstones: usize,
    /// Whether cookies are asked for.
    pub under_load: bool,
    /// The counters of the XDP programs, if they can be read.
    pub xdp: Option<xdp::Counters>,
    /// What is in the steering maps.
    pub maps: MapLedger,
    /// Security records of the slow path itself.
    pub security: SecurityCounts,
    /// What the workers answered.
    pub workers: &'a [WorkerCounters],
    /// What the kernel says of this process.
    pub process: Process,
    /// How the audit trace stands, if one is kept.
    pub audit: Option<StatusView>,
}

/// Writes the page.
pub fn render(sources: &Sources<'_>) -> String {
    let mut page = Page::new(sources.policy.observability);
    identity(&mut page, sources);
    sessions(&mut page, sources);
    jumps(&mut page, sources);
    control(&mut page, sources);
    handshakes(&mut page, sources);
    safety(&mut page, sources);
    traffic(&mut page, sources);
    ports(&mut page, sources);
    steering(&mut page, sources);
    audit(&mut page, sources.audit.as_ref());
    process(&mut page, sources);
    page.finish()
}

fn identity(page: &mut Page, sources: &Sources<'_>) {
    page.family(&f::BUILD_INFO).put(&[&env!("CARGO_PKG_VERSION"), &COMMIT], 1);
    let policy = sources.policy;
    let hash: String = PolicyHash::of(policy).0.iter().map(|byte| format!("{byte:02x}")).collect();
    page.family(&f::POLICY_INFO).put(&[&policy.version, &policy.profile, &hash], 1);
    let mut family = page.family(&f::DATAPLANE_INFO);
    for PortLabels { port, driver, xdp_mode, zero_copy } in sources.ports {
        family.put(&[port, driver, xdp_mode, zero_copy], 1);
    }
}

fn sessions(page: &mut Page, sources: &Sources<'_>) {
    let tally = &sources.slow.tally;
    let mut family = page.family(&f::SESSIONS);
    for ((worker, state), count) in tally.sessions(sources.workers.len()) {
        family.put(&[&state, &worker], count);
    }
    page.family(&f::TOMBSTONES).put(&[], sources.tombstones);
    page.family(&f::SESSIONS_CREATED).put(&[], tally.created);
    let mut family = page.family(&f::SESSIONS_TERMINATED);
    for (reason, count) in &tally.ended {
        family.put(&[reason], count);
    }
    let mut family = page.family(&f::STATE_TRANSITIONS);
    for ((from, to, reason), count) in &tally.transitions {
        family.put(&[from, to, reason], count);
    }
    let mut family = page.family(&f::STATE_RESIDENCE);
    for (state, histogram) in &tally.residence {
        family.histogram(&[state], histogram);
    }
    let mut family = page.family(&f::SESSION_AGE);
    for (reason, histogram) in &tally.ages {
        family.histogram(&[reason], histogram);
    }
}

/// What costs so little that only a power of two tells it: nanoseconds, from 32 to a millisecond.
const LOOKUP_POWERS: RangeInclusive<u32> = 5..=20;
/// The same of what a session costs as a whole: from half a microsecond to 17 ms.
const SESSION_POWERS: RangeInclusive<u32> = 9..=24;
/// Microseconds from 1 ms to 34 s: beyond every profile's time to notice a death.
const DETECTION_POWERS: RangeInclusive<u32> = 10..=25;
/// Microseconds from 16 to 8 s.
const LAG_POWERS: RangeInclusive<u32> = 4..=23;
/// Packets of a batch, up to 64.
const BATCH_POWERS: RangeInclusive<u32> = 0..=BATCH.ilog2();
const NANOS: f64 = 1e9;
const MICROS: f64 = 1e6;

/// What all workers counted together.
fn together(workers: &[WorkerCounters], of: impl Fn(&Meter) -> &Distribution) -> Distribution {
    let mut sum = Distribution::default();
    workers.iter().for_each(|worker| sum.add(of(&worker.meter)));
    sum
}

fn jumps(page: &mut Page, sources: &Sources<'_>) {
    let tally = &sources.slow.tally;
    let commits = together(sources.workers, |meter| &meter.commits);
    page.family(&f::TRANSITION_DURATION).distribution(&[], &commits, SESSION_POWERS, NANOS);
    let evictions = together(sources.workers, |meter| &meter.evictions);
    page.family(&f::EVICTION_DURATION).distribution(&[], &evictions, SESSION_POWERS, NANOS);
    let lookups = together(sources.workers, |meter| &meter.lookups);
    page.family(&f::LOOKUP_DURATION).distribution(&[], &lookups, LOOKUP_POWERS, NANOS);
    let mut family = page.family(&f::DETECTION_LATENCY);
    for evidence in Evidence::ALL {
        let noticed = together(sources.workers, |meter| &meter.detections[evidence as usize]);
        if noticed.total() > 0 {
            family.distribution(&[&evidence.name()], &noticed, DETECTION_POWERS, MICROS);
        }
    }
    let mut family = page.family(&f::RECOVERY_LATENCY);
    for ((cause, outcome), histogram) in &tally.recoveries {
        family.histogram(&[cause, &outcome.name()], histogram);
    }
    let mut family = page.family(&f::TRANSPORT_DEATHS);
    for (evidence, count) in &tally.deaths {
        family.put(&[evidence], count);
    }
    let mut family = page.family(&f::TRANSPORT_SWITCHES);
    for ((cause, same_path), count) in &tally.switches {
        family.put(&[cause, same_path], count);
    }
    let mut family = page.family(&f::SWITCH_DENIALS);
    for (reason, count) in &tally.denials {
        family.put(&[reason], count);
    }
    let mut family = page.family(&f::SWITCH_FAILURES);
    for (reason, count) in &tally.failures {
        family.put(&[reason], count);
    }
    page.family(&f::OSCILLATIONS).put(&[], tally.oscillations);
    let switched: u64 = tally.switches.values().sum();
    page.family(&f::REATTACH_REQUESTS).put(&[&"success"], switched).put(&[&"denied"], tally.reattach_denied);
}

fn control(page: &mut Page, sources: &Sources<'_>) {
    let mut refused = sources.slow.refusals.clone();
    sources.workers.iter().for_each(|worker| refused.add(&worker.path.refusals));
    for (reason, count) in sources.handshakes.iter().filter(|(reason, _)| is_refused_handshake(*reason)) {
        refused.add_of(Some(MessageType::HelloInit), reason, count);
    }
    let mut family = page.family(&f::CONTROL_REJECTS);
    for (message, reason, count) in refused.iter() {
        family.put(&[&message.map_or("NONE", MessageType::name), &reason], count);
    }
    page.family(&f::EPOCH_MISMATCHES)
        .put(&[&"stale"], refused.value(Reason::StaleStateVersion))
        .put(&[&"future"], refused.value(Reason::FutureStateVersion));
    page.family(&f::CAS_CONFLICTS).put(&[], refused.value(Reason::AtomicityFailed));
    let data: u64 = sources.workers.iter().map(|worker| data_drops(worker).value(Reason::DataReplay)).sum();
    let control = [Reason::ReplayDetected, Reason::HelloReplayed].map(|reason| refused.value(reason));
    page.family(&f::REPLAY_REJECTS).put(&[&"data"], data).put(&[&"control"], control.iter().sum::<u64>());
    let security = &sources.policy.security;
    page.family(&f::REPLAY_WINDOW)
        .put(&[&"data"], security.data_replay_window)
        .put(&[&"control"], security.control_replay_window);
    let of_sessions: u64 = sources.workers.iter().map(|worker| worker.path.refusals.value(Reason::RateLimited)).sum();
    page.family(&f::RATE_LIMIT_HITS)
        .put(&[&"session"], of_sessions)
        .put(&[&"source"], sources.slow.limited.0)
        .put(&[&"global"], sources.slow.limited.1)
        .put(&[&"handshake"], sources.handshakes.value(Reason::RateLimited));
    page.family(&f::UNDER_LOAD).put(&[], u8::from(sources.under_load));
}

fn handshakes(page: &mut Page, sources: &Sources<'_>) {
    let tally = &sources.slow.tally;
    let all: u64 = sources.handshakes.iter().filter(|(reason, _)| is_refused_handshake(*reason)).map(|(_, n)| n).sum();
    let asked = sources.handshakes.value(Reason::CookieRequired);
    page.family(&f::HANDSHAKES)
        .put(&[&"ok"], tally.confirmed)
        .put(&[&"failed"], tally.unconfirmed)
        .put(&[&"refused"], all - asked)
        .put(&[&"cookie"], asked);
    page.family(&f::HANDSHAKE_DURATION).histogram(&[], &tally.handshakes);
    page.family(&f::COOKIES_SENT).put(&[], sources.slow.cookies);
    let mut family = page.family(&f::REKEYS);
    for (trigger, count) in &tally.rekeyed {
        family.put(&[trigger, &"ok"], count);
    }
    family.put(&[&"UNKNOWN", &"denied"], tally.rekeys_denied);
    let expired = tally.deaths.get("path_unvalidated").copied().unwrap_or_default();
    page.family(&f::PATH_VALIDATIONS).put(&[&"ok"], tally.validated).put(&[&"expired"], expired);
    let resets: u64 = sources.workers.iter().map(|worker| worker.meter.resets).sum();
    page.family(&f::STATELESS_RESETS).put(&[&"sent"], resets);
}

fn safety(page: &mut Page, sources: &Sources<'_>) {
    let mut security = sources.security;
    sources.workers.iter().for_each(|worker| security.add(&worker.meter.security));
    let mut family = page.family(&f::SECURITY_EVENTS);
    for (kind, written, _) in security.iter() {
        family.put(&[&kind.name()], written);
    }
    let mut family = page.family(&f::SECURITY_SUPPRESSED);
    for (kind, _, suppressed) in security.iter() {
        family.put(&[&kind.name()], suppressed);
    }
    let mut family = page.family(&f::SAFETY_VIOLATIONS);
    for (kind, count) in Violation::ALL.iter().zip(sources.slow.tally.violations) {
        family.put(&[&kind.name()], count);
    }
}

fn traffic(page: &mut Page, sources: &Sources<'_>) {
    let mut family = page.family(&f::PACKETS);
    for WorkerCounters { worker, inside, outside, .. } in sources.workers {
        family.put(&[&"in", worker], inside.sent).put(&[&"out", worker], outside.sent);
    }
    let mut family = page.family(&f::BYTES);
    for WorkerCounters { worker, inside, outside, .. } in sources.workers {
        family.put(&[&"in", worker], inside.sent_bytes).put(&[&"out", worker], outside.sent_bytes);
    }
    let mut family = page.family(&f::DROPS);
    for counters in sources.workers {
        for (reason, count) in drops(counters) {
            family.put(&[&reason, &counters.worker], count);
        }
    }
    let mut family = page.family(&f::WORKER_CPU);
    for (worker, seconds) in &sources.process.workers {
        family.put(&[worker], seconds);
    }
    let mut family = page.family(&f::BATCH_PACKETS);
    for WorkerCounters { worker, batches, .. } in sources.workers {
        family.distribution(&[worker], batches, BATCH_POWERS, 1.0);
    }
    let beats = |of: fn(&Meter) -> u64| sources.workers.iter().map(|worker| of(&worker.meter)).sum::<u64>();
    page.family(&f::HEARTBEATS)
        .put(&[&"received", &false], beats(|meter| meter.heartbeats))
        .put(&[&"sent", &false], beats(|meter| meter.heartbeat_acks));
}

fn ports(page: &mut Page, sources: &Sources<'_>) {
    let of = |fate| {
        let counted = sources.xdp.iter().flat_map(xdp::Counters::iter);
        counted.filter(move |(counter, _)| counter.fate() == fate)
    };
    let mut family = page.family(&f::XDP_PACKETS);
    if sources.xdp.is_some() {
        for (action, fate) in [("pass", Fate::Passed), ("drop", Fate::Dropped), ("redirect", Fate::Steered)] {
            family.put(&[&action], of(fate).map(|(_, count)| count).sum::<u64>());
        }
    }
    let mut family = page.family(&f::XDP_DROPS);
    for (counter, count) in of(Fate::Dropped) {
        family.put(&[&counter.name()], count);
    }
    let mut family = page.family(&f::XSK_RING_OCCUPANCY);
    for WorkerCounters { worker, rings, .. } in sources.workers {
        family
            .put(&[&"rx", worker], rings.receive)
            .put(&[&"tx", worker], rings.transmit)
            .put(&[&"fill", worker], rings.fill)
            .put(&[&"completion", worker], rings.completion);
    }
    let mut family = page.family(&f::UMEM_FRAMES);
    for WorkerCounters { worker, frames, .. } in sources.workers {
        family
            .put(&[&"receive", worker], frames.filled.saturating_sub(frames.received))
            .put(&[&"transmit", worker], frames.in_flight())
            .put(&[&"worker", worker], frames.held + frames.spare)
            .put(&[&"missing", worker], frames.missing().unsigned_abs());
    }
    let mut family = page.family(&f::XSK_ERRORS);
    for WorkerCounters { worker, outside_kernel: outside, inside_kernel: inside, .. } in sources.workers {
        family
            .put(&[&"rx_dropped", worker], outside.dropped + inside.dropped)
            .put(&[&"rx_ring_full", worker], outside.ring_full + inside.ring_full)
            .put(&[&"fill_ring_empty", worker], outside.fill_empty + inside.fill_empty)
            .put(&[&"tx_invalid_descs", worker], outside.invalid_transmit + inside.invalid_transmit);
    }
}

fn steering(page: &mut Page, sources: &Sources<'_>) {
    let mut family = page.family(&f::XDP_MAP_ENTRIES);
    for map in SteeringMap::ALL {
        family.put(&[&map.name()], sources.maps.entries(map));
    }
    let mut family = page.family(&f::XDP_MAP_ERRORS);
    for map in SteeringMap::ALL {
        family.put(&[&map.name()], sources.maps.errors(map));
    }
    let (pool, lag) = (SteeringMap::Pool.name(), &sources.slow.steering_lag);
    page.family(&f::XDP_MAP_LAG).distribution(&[&pool], lag, LAG_POWERS, MICROS);
}

/// Families without samples if no trace is kept.
fn audit(page: &mut Page, status: Option<&StatusView>) {
    let rings = || status.into_iter().flat_map(|status| &status.rings);
    let of = |worker: Option<u16>| worker.map_or_else(|| "slow".to_owned(), |worker| worker.to_string());
    let mut family = page.family(&f::OBS_OCCUPANCY);
    for ring in rings() {
        for (class, waiting) in Class::ALL.iter().zip(ring.waiting) {
            family.put(&[&class_name(*class), &of(ring.worker)], waiting);
        }
    }
    let mut family = page.family(&f::OBS_HIGH_WATER);
    for ring in rings() {
        for (class, most) in Class::ALL.iter().zip(ring.high_water) {
            family.put(&[&class_name(*class), &of(ring.worker)], most);
        }
    }
    let mut family = page.family(&f::OBS_LOST);
    for ring in rings() {
        for (class, lost) in Class::ALL.iter().zip(ring.lost) {
            family.put(&[&class_name(*class), &of(ring.worker)], lost);
        }
    }
    let mut family = page.family(&f::AUDIT_RECORDS);
    if let Some(status) = status {
        family.put(&[], status.records);
    }
    let mut family = page.family(&f::AUDIT_GAPS);
    if let Some(status) = status {
        family.put(&[], status.gaps);
    }
    let mut family = page.family(&f::AUDIT_SINK_ERRORS);
    for (operation, count) in status.into_iter().flat_map(|status| &status.errors) {
        family.put(&[&"file", operation], count);
    }
    let mut family = page.family(&f::AUDIT_SINK_LAG);
    if status.is_some() {
        family.put(&[&"file"], rings().map(|ring| ring.waiting[Class::Audit as usize]).sum::<usize>());
    }
    let mut family = page.family(&f::AUDIT_HEAD_SEQ);
    let head = status.and_then(|status| status.head.as_deref()?.split(':').next()?.parse::<u64>().ok());
    if let Some(seq) = head {
        family.put(&[], seq);
    }
}

const fn class_name(class: Class) -> &'static str {
    match class {
        Class::Audit => "audit",
        Class::Security => "security",
        Class::Telemetry => "telemetry",
    }
}

fn process(page: &mut Page, sources: &Sources<'_>) {
    let mut family = page.family(&f::SESSION_MEMORY);
    for (kind, _) in Memory::default().kinds() {
        let of = |worker: &WorkerCounters| {
            worker.meter.memory.kinds().iter().find(|(name, _)| *name == kind).map(|one| one.1)
        };
        family.put(&[&kind], sources.workers.iter().filter_map(of).sum::<u64>());
    }
    let mut family = page.family(&f::PROCESS_MEMORY);
    if let Some(memory) = &sources.process.memory {
        family.put(&[&"resident"], memory.resident).put(&[&"virtual"], memory.size);
    }
    let SlotMoves { moved, kept, fenced } = &sources.slow.slots;
    page.family(&f::OWNER_CHANGES).put(&[&"slot", &"moved"], moved.count()).put(&[&"slot", &"kept"], kept);
    page.family(&f::OWNER_STORE_ERRORS).put(&[&"fenced"], fenced);
    page.family(&f::OWNER_STORE_SECONDS).histogram(&[&"move"], moved);
    let (accepted, refused) = sources.slow.reloads;
    page.family(&f::POLICY_RELOADS).put(&[&"accepted"], accepted).put(&[&"refused"], refused);
}

/// The desk counts one thing that is no refusal: the attempt to replace another client's session (HS-8).
fn is_refused_handshake(reason: Reason) -> bool {
    reason != Reason::SecSessionFixationAttempt
}

/// What a worker dropped that was no control message.
fn data_drops(worker: &WorkerCounters) -> ReasonCounters {
    let mut data = ReasonCounters::default();
    for (reason, all) in worker.drops().iter() {
        data.add(reason, all.saturating_sub(worker.path.refusals.value(reason)));
    }
    data
}

/// The same under the names of the metric. A port that takes no more packets is counted by the path itself.
fn drops(worker: &WorkerCounters) -> impl Iterator<Item = (&'static str, u64)> {
    let mut named = std::collections::BTreeMap::<_, u64>::new();
    for (reason, count) in data_drops(worker).iter() {
        *named.entry(drop_name(reason)).or_default() += count;
    }
    if worker.path.no_next_hop > 0 {
        named.insert("no_next_hop", worker.path.no_next_hop);
    }
    named.into_iter()
}

fn drop_name(reason: Reason) -> &'static str {
    match reason {
        Reason::Malformed | Reason::UnknownType | Reason::UnsupportedVersion => "malformed",
        Reason::SessionNotFound => "unknown_locator",
        Reason::WrongTransport => "wrong_transport",
        Reason::DataStaleEpoch => "stale_epoch",
        Reason::DataFutureEpoch => "future_epoch",
        Reason::DataAuthFail => "auth_fail",
        Reason::DataReplay => "replay",
        Reason::DataTooOld => "too_old",
        Reason::NoActiveBinding => "no_binding",
        Reason::InnerSourceInvalid => "inner_source",
        Reason::MtuExceeded => "mtu",
        // The only queue on a packet's way is that of the port it leaves by.
        Reason::QueueFull => "tx_full",
        Reason::AmplificationLimit | Reason::RateLimited => "rate",
        Reason::PeerToPeerDenied | Reason::PolicyDenied => "policy",
        Reason::KeyEpochUnknown | Reason::KeyExpired | Reason::CounterLimitReached => "key",
        _ => "other",
    }
}
