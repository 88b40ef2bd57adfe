//! What a run leaves behind.

use std::fmt;

use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};

use crate::check::SafetyCounters;
use crate::trace::TraceReport;
use crate::world::World;

/// Ends that are counted apart.
const ENDS: [Reason; 7] = [
    Reason::HandshakeFail,
    Reason::OperatorTerminated,
    Reason::PeerTerminated,
    Reason::TtlTransportLossExpired,
    Reason::TtlSessionExpired,
    Reason::KeyExpired,
    Reason::InvariantViolation,
];
/// Refusals that are counted apart.
const REFUSALS: [Reason; 10] = [
    Reason::AuthFail,
    Reason::ReplayDetected,
    Reason::StaleStateVersion,
    Reason::RateLimited,
    Reason::CooldownActive,
    Reason::SwitchRateLimited,
    Reason::WrongTransport,
    Reason::DataReplay,
    Reason::CookieRequired,
    Reason::SessionNotFound,
];

/// What a run left behind; equal for equal runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Virtual time that was played.
    pub played: Span,
    /// Transitions at the gateway.
    pub transitions: u64,
    /// Commits of T11 among them.
    pub commits: u64,
    /// Inner packets that came through upwards.
    pub received: u64,
    /// Inner packets that came through downwards.
    pub delivered: u64,
    /// Packets sealed, each under a nonce of its own.
    pub sealed: u64,
    /// Rekeys completed at the gateway.
    pub rekeys: usize,
    /// Clients.
    pub clients: usize,
    /// Clients that have a session at the end.
    pub connected: usize,
    /// Most commits that one session made within a sliding minute.
    pub busiest_minute: usize,
    /// Ends of sessions at the gateway by reason.
    pub ends: Vec<(Reason, u64)>,
    /// Refusals at the gateway by reason.
    pub refusals: Vec<(Reason, u64)>,
    /// All transitions of both ends with their times, as one number.
    pub digest: u64,
    /// How much the checkers found, by kind.
    pub safety: SafetyCounters,
    /// What they found, in words; the first findings if there were many.
    pub violations: Vec<String>,
    /// When they found the first, since the start.
    pub first_violation: Option<Span>,
    /// What the verifier says of the gateway's trace, one for each gateway, if traces were written.
    pub traces: Vec<TraceReport>,
}

impl Outcome {
    pub(super) fn of(world: &mut World, clients: usize, start: Time) -> Self {
        let now = world.now();
        let traces = world.trace.take().map(|trace| trace.judge(now)).into_iter().collect();
        let connected = (0..clients).filter(|client| world.client(*client).client.is_connected()).count();
        let (received, delivered) = world.came_through();
        let checker = world.checker();
        Self {
            played: now.since(start),
            transitions: checker.transitions(),
            commits: checker.commits(),
            received,
            delivered,
            sealed: world.sealed(),
            rekeys: world.rekeyed.len(),
            clients,
            connected,
            busiest_minute: checker.busiest_minute(),
            ends: ENDS.iter().map(|reason| (*reason, checker.ended_by(*reason))).collect(),
            refusals: REFUSALS.iter().map(|reason| (*reason, world.refused(*reason))).collect(),
            digest: checker.digest(),
            safety: *checker.safety(),
            violations: checker.violations().to_vec(),
            first_violation: checker.first_violation_at().map(|at| at.since(start)),
            traces,
        }
    }

    /// Whether nothing is wrong: neither the checkers nor the verifier of the trace found anything.
    pub fn is_good(&self) -> bool {
        self.safety.total() == 0 && self.traces.iter().all(TraceReport::is_good)
    }

    /// Two gateways side by side, with clients of their own.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let sum = |mine: Vec<(Reason, u64)>, theirs: Vec<(Reason, u64)>| {
            mine.into_iter().zip(theirs).map(|((reason, mine), (_, theirs))| (reason, mine + theirs)).collect()
        };
        Self {
            played: self.played.min(other.played),
            transitions: self.transitions + other.transitions,
            commits: self.commits + other.commits,
            received: self.received + other.received,
            delivered: self.delivered + other.delivered,
            sealed: self.sealed + other.sealed,
            rekeys: self.rekeys + other.rekeys,
            clients: self.clients + other.clients,
            connected: self.connected + other.connected,
            busiest_minute: self.busiest_minute.max(other.busiest_minute),
            ends: sum(self.ends, other.ends),
            refusals: sum(self.refusals, other.refusals),
            digest: self.digest.rotate_left(1) ^ other.digest,
            safety: self.safety.plus(&other.safety),
            violations: [self.violations, other.violations].concat(),
            first_violation: [self.first_violation, other.first_violation].into_iter().flatten().min(),
            traces: [self.traces, other.traces].concat(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.played.as_millis() / 1_000;
        writeln!(f, "virtual time                {:>9} min {:02} s", seconds / 60, seconds % 60)?;
        writeln!(f, "transitions at the gateway  {:>12}", self.transitions)?;
        writeln!(f, "switches committed          {:>12}", self.commits)?;
        writeln!(f, "busiest minute of a session {:>12}", self.busiest_minute)?;
        writeln!(f, "inner packets up            {:>12}", self.received)?;
        writeln!(f, "inner packets down          {:>12}", self.delivered)?;
        writeln!(f, "packets sealed              {:>12}", self.sealed)?;
        writeln!(f, "rekeys                      {:>12}", self.rekeys)?;
        writeln!(f, "clients with a session      {:>12} of {}", self.connected, self.clients)?;
        writeln!(f, "ends                        {}", list(&self.ends))?;
        writeln!(f, "refusals and drops          {}", list(&self.refusals))?;
        writeln!(f, "digest of the run           {:016x}", self.digest)?;
        writeln!(f, "safety counters             {}", self.safety)?;
        for trace in &self.traces {
            writeln!(f, "{trace}")?;
        }
        for violation in &self.violations {
            writeln!(f, "VIOLATION {violation}")?;
        }
        write!(f, "violations                  {:>12}", self.safety.total())
    }
}

fn list(counts: &[(Reason, u64)]) -> String {
    let some: Vec<String> = counts.iter().filter(|(_, n)| *n > 0).map(|(reason, n)| format!("{reason} {n}")).collect();
    if some.is_empty() { "none".to_owned() } else { some.join(", ") }
}
