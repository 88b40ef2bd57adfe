//! Which path to try next: filter and total order of §10.6. Integers only, no randomness, the same result for the same
//! table.

use super::path::Path;
use crate::ident::TransportId;
use crate::machine::{Record, State};
use crate::policy::Policy;
use crate::reason::Reason;
use crate::time::{Span, Time};

/// Answered probes that a path needs after a quality trigger (§10.6).
const QUALITY_ANSWERS: u32 = 3;

/// What the choice depends on besides the paths.
pub(super) struct Choice<'a> {
    pub(super) record: &'a Record,
    pub(super) policy: &'a Policy,
    pub(super) now: Time,
    /// The path that carried the traffic last.
    pub(super) current: Option<TransportId>,
    /// The gateway said that our tuple is not bound (BD-4).
    pub(super) unbound: bool,
    /// The active binding has been within its bounds for `stability_window_ms`.
    pub(super) calm: bool,
    /// What failed in this recovery may be tried again: a new one is about to begin.
    pub(super) anew: bool,
    /// A forced move to that path and no other.
    pub(super) target: Option<TransportId>,
}

/// Rank of a candidate; the smaller wins, and the id makes the order total.
type Rank = (u8, u8, u32, u64, u64, u16);

impl Choice<'_> {
    /// The best path that passes the filter, if any does.
    pub(super) fn best(&self, paths: &[Path]) -> Option<TransportId> {
        self.best_of(paths, true).or_else(|| self.best_of(paths, false))
    }

    /// AF-2: a path left a moment ago must have answered for a while, unless no other is left.
    fn best_of(&self, paths: &[Path], rested_only: bool) -> Option<TransportId> {
        paths
            .iter()
            .filter(|path| self.passes(path) && (!rested_only || self.is_rested(path)))
            .min_by_key(|path| self.rank(path))
            .map(|path| path.id)
    }

    fn passes(&self, path: &Path) -> bool {
        if !path.up || (path.tried && !self.anew) || self.target.is_some_and(|target| target != path.id) {
            return false;
        }
        let bound = self.record.active().is_some();
        if self.is_current(path) {
            return self.same_path_is_candidate();
        }
        let fresh =
            path.echoes.last_answer().is_none() || path.seen_within(self.policy.transport.candidate_ttl, self.now);
        // AF-4: while a binding still carries traffic, the brake admits only what is validated.
        let braked = self.record.state() == State::Degraded && bound && !path.validated;
        if !fresh || braked || self.score(path) < u64::from(self.policy.transport.candidate_min_score) {
            return false;
        }
        !self.is_quality_trigger() || (path.echoes.answers() >= QUALITY_ANSWERS && self.within_quality(path))
    }

    /// SM-15: silent, dead, unbound or forced, the same path may be proved again; after a quality trigger only in
    /// DEGRADED, once it is calm.
    fn same_path_is_candidate(&self) -> bool {
        self.unbound || !self.is_quality_trigger() || (self.record.state() == State::Degraded && self.calm)
    }

    /// Loss, latency or jitter (AF-1). Unanswered heartbeats are silence, not quality: they act at once (SM-14).
    fn is_quality_trigger(&self) -> bool {
        matches!(
            self.record.trigger(),
            Some(Reason::LossThresholdExceeded | Reason::LatencyThresholdExceeded | Reason::JitterThresholdExceeded)
        ) && self.record.active().is_some()
            && !self.unbound
    }

    fn within_quality(&self, path: &Path) -> bool {
        let volatility = &self.policy.volatility;
        let bounded = |value: Span, bound: Span| bound == Span::ZERO || value <= bound;
        path.echoes.loss_permille() <= volatility.loss_volatile_threshold
            && bounded(path.echoes.rtt().smoothed().unwrap_or(Span::ZERO), volatility.latency_volatile_threshold)
            && bounded(path.echoes.jitter(self.now), volatility.jitter_threshold)
    }

    fn is_rested(&self, path: &Path) -> bool {
        if self.is_current(path) && self.unbound {
            return true;
        }
        let Some(left) = path.left_at else {
            return true;
        };
        // Answers from before it was left do not count; a run that goes on counts from then.
        let answering = path.echoes.answering_since().map(|since| since.max(left));
        answering.is_some_and(|since| self.now.since(since) >= self.policy.volatility.stability_window)
    }

    fn rank(&self, path: &Path) -> Rank {
        let class = if self.is_current(path) {
            if self.unbound { 0 } else { 4 }
        } else if path.validated {
            1
        } else if path.echoes.last_answer().is_some() {
            2
        } else {
            3
        };
        let unbroken = path.echoes.answering_since().map_or(0, |since| self.now.since(since).as_millis() / 5_000);
        let latency = path.echoes.rtt().smoothed().map_or(0, Span::as_millis);
        (class, path.info.priority, path.echoes.loss_permille() / 10, latency / 10, 12 - unbroken.min(12), path.id.0)
    }

    /// 1000 for a perfect path; loss in permille counts twice, jitter in milliseconds three times (§10.6).
    fn score(&self, path: &Path) -> u64 {
        let cost = 2 * u64::from(path.echoes.loss_permille())
            + 3 * path.echoes.jitter(self.now).as_millis()
            + path.echoes.rtt().smoothed().map_or(0, Span::as_millis);
        1_000u64.saturating_sub(cost)
    }

    fn is_current(&self, path: &Path) -> bool {
        self.current == Some(path.id)
    }
}
