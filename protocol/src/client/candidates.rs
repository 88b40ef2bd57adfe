//! Which path to try next: filter and total order of §10.6. Integers only, no randomness, the same result for the same
//! table.

use super::path::Path;
use crate::audit::{Exclusion, Permille, Score, Scores};
use crate::ident::TransportId;
use crate::machine::Record;
use crate::policy::Policy;
use crate::reason::Reason;
use crate::time::{Span, Time};

/// Answered probes that a path needs after a quality trigger (§10.6).
const QUALITY_ANSWERS: u32 = 3;
/// The score of a path without loss, jitter and delay.
const BEST_SCORE: u64 = 1_000;

/// What the choice depends on besides the paths.
pub(super) struct Choice<'a> {
    pub(super) record: &'a Record,
    pub(super) policy: &'a Policy,
    pub(super) now: Time,
    /// The path that carried the traffic last.
    pub(super) current: Option<TransportId>,
    /// Loss of DATA on the active path, in permille.
    pub(super) active_loss: u32,
    /// Loss, latency or jitter is why the session is to move (AF-1), here or as the gateway hints. Unanswered heartbeats
    /// are silence, not quality: they act at once (SM-14).
    pub(super) quality: bool,
    /// The gateway said that our tuple is not bound (BD-4).
    pub(super) unbound: bool,
    /// The active binding has been within its bounds for `stability_window_ms`.
    pub(super) calm: bool,
    /// The brake holds: in DEGRADED, and in a recovery that began there.
    pub(super) braked: bool,
    /// What failed in this recovery may be tried again: a new one is about to begin.
    pub(super) anew: bool,
    /// A forced move to that path and no other.
    pub(super) target: Option<TransportId>,
}

/// Rank of a candidate; the smaller wins, and the id makes the order total.
type Rank = (u8, (u8, u8), u32, u64, u64, u16);

impl Choice<'_> {
    /// The best path that passes the filter, if any does.
    pub(super) fn best(&self, paths: &[Path]) -> Option<TransportId> {
        self.best_of(paths, true).or_else(|| self.best_of(paths, false))
    }

    /// Why no path passes, if none does: all that could be used are too bad, or there is none at all (T09).
    pub(super) fn shortfall(&self, paths: &[Path]) -> Option<Reason> {
        if self.best(paths).is_some() {
            return None;
        }
        let usable = paths.iter().any(|path| !self.is_current(path) && self.is_usable(path));
        Some(if usable { Reason::QualityFloorViolation } else { Reason::NoCandidateTransports })
    }

    /// Every path with its place in the order, or why it has none; for the record of the choice, never for the choice.
    pub(super) fn scores(&self, paths: &[Path]) -> Scores {
        let floor = self.floor(paths);
        // Unrested ones count only where no other is left (AF-2).
        let rested_only = self.best_of(paths, true).is_some();
        let excluded = |path: &Path| {
            let unrested = (rested_only && !self.is_rested(path)).then_some(Exclusion::Unrested);
            self.exclusion(path, floor).or(unrested)
        };
        let mut order: Vec<_> = paths.iter().map(|path| (excluded(path), self.rank(path), path)).collect();
        order.sort_by_key(|(excluded, rank, _)| (excluded.is_some(), *rank));
        Scores::of(order.iter().zip(1..).map(|((excluded_by, _, path), place)| Score {
            transport_id: path.id,
            loss: Permille(u16::try_from(path.echoes.loss_permille()).unwrap_or(u16::MAX)),
            latency_ms: shown_ms(path.echoes.rtt().smoothed().unwrap_or(Span::ZERO)),
            jitter_ms: shown_ms(path.echoes.jitter(self.now)),
            rank: if excluded_by.is_some() { 0 } else { place },
            excluded_by: *excluded_by,
        }))
    }

    /// Why a path does not pass, if it does not: the first cause, in the order of the filter.
    fn exclusion(&self, path: &Path, floor: u64) -> Option<Exclusion> {
        if self.passes(path, floor) {
            return None;
        }
        let least = u64::from(self.policy.transport.candidate_min_score);
        let answered = path.echoes.last_answer().is_some();
        Some(if !path.up {
            Exclusion::Down
        } else if path.tried && !self.anew {
            Exclusion::Tried
        } else if !self.is_usable(path) && self.target.is_some_and(|target| target != path.id) {
            Exclusion::Policy
        } else if self.is_current(path) {
            Exclusion::Active
        } else if answered && !path.seen_within(self.policy.transport.candidate_ttl, self.now) {
            Exclusion::Stale
        } else if !self.is_usable(path) {
            Exclusion::Unvalidated
        } else if self.quality && !self.within_quality(path) {
            Exclusion::Quality
        } else if score(path.echoes.loss_permille(), path, self.now) < least {
            Exclusion::Score
        } else {
            Exclusion::Hysteresis
        })
    }

    /// AF-2: a path left a moment ago must have answered for a while, unless no other is left.
    fn best_of(&self, paths: &[Path], rested_only: bool) -> Option<TransportId> {
        let floor = self.floor(paths);
        paths
            .iter()
            .filter(|path| self.passes(path, floor) && (!rested_only || self.is_rested(path)))
            .min_by_key(|path| self.rank(path))
            .map(|path| path.id)
    }

    fn passes(&self, path: &Path, floor: u64) -> bool {
        if !self.is_usable(path) {
            return false;
        }
        if self.is_current(path) {
            return self.same_path_is_candidate();
        }
        let score = score(path.echoes.loss_permille(), path, self.now);
        score >= floor && (!self.quality || self.within_quality(path))
    }

    /// Whether it may be asked at all, however good or bad it is.
    fn is_usable(&self, path: &Path) -> bool {
        let wanted = self.target.is_none_or(|target| target == path.id);
        if !path.up || (path.tried && !self.anew) || !wanted || !self.policy.transport.allowed_protocols.udp() {
            return false;
        }
        let seen = path.seen_within(self.policy.transport.candidate_ttl, self.now);
        let fresh = path.echoes.last_answer().is_none() || seen;
        // AF-4: while a binding still carries traffic, the brake admits only what is validated, that binding included.
        let refused = self.braked && self.record.active().is_some() && !path.validated;
        self.is_current(path) || (fresh && !refused)
    }

    /// SM-15: silent, dead, unbound or forced, the same path may be proved again; after a quality trigger only in
    /// DEGRADED, once it is calm.
    fn same_path_is_candidate(&self) -> bool {
        self.unbound || !self.quality || (self.braked && self.calm)
    }

    /// The least score of another path. After a quality trigger it must beat the active one, and by
    /// `switch_improvement_factor` (AF-1).
    fn floor(&self, paths: &[Path]) -> u64 {
        let least = u64::from(self.policy.transport.candidate_min_score);
        let active = paths.iter().find(|path| self.is_current(path)).filter(|_| self.quality);
        active.map_or(least, |path| {
            let loss = path.echoes.loss_permille().max(self.active_loss);
            let active = score(loss, path, self.now);
            let factor = u64::from(self.policy.switching.switch_improvement_factor);
            least.max(active + 1).max((active * factor).div_ceil(100))
        })
    }

    fn within_quality(&self, path: &Path) -> bool {
        let volatility = &self.policy.volatility;
        let bounded = |value: Span, bound: Span| bound == Span::ZERO || value <= bound;
        path.echoes.answers() >= QUALITY_ANSWERS
            && path.echoes.loss_permille() <= volatility.loss_volatile_threshold
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
        let preference = path.preference(self.policy);
        (class, preference, path.echoes.loss_permille() / 10, latency / 10, 12 - unbroken.min(12), path.id.0)
    }

    fn is_current(&self, path: &Path) -> bool {
        self.current == Some(path.id)
    }
}

/// Milliseconds as a record has room for them.
fn shown_ms(span: Span) -> u16 {
    u16::try_from(span.as_millis()).unwrap_or(u16::MAX)
}

/// 1000 for a perfect path; loss in permille counts twice, jitter in milliseconds three times (§10.6).
fn score(loss_permille: u32, path: &Path, now: Time) -> u64 {
    let jitter = path.echoes.jitter(now).as_millis();
    let round_trip = path.echoes.rtt().smoothed().map_or(0, Span::as_millis);
    BEST_SCORE.saturating_sub(2 * u64::from(loss_permille)).saturating_sub(3 * jitter).saturating_sub(round_trip)
}

#[cfg(test)]
mod tests;
