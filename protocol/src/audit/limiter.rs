//! How many security records of one reason are written, and how many were left out (OB-05).

use crate::limits::Bucket;
use crate::policy::Rate;
use crate::reason::Reason;
use crate::time::{Span, Time};

/// Security records of one reason: enough to see each of a handful of incidents, and one a second of a flood.
const RATE: Rate = Rate::new(1, 10);
/// What was left out is told so often.
const INTERVAL: Span = Span::from_millis(10_000);

/// One bucket and one count a reason, in flat arrays: of constant cost and memory, whatever comes.
pub(super) struct Limiter {
    buckets: [Bucket; Reason::ALL.len()],
    suppressed: [u64; Reason::ALL.len()],
    /// When the first of the records was left out that no summary has told of.
    since: Option<Time>,
}

impl Limiter {
    pub(super) fn new(now: Time) -> Self {
        let buckets = [Bucket::full(RATE, now); Reason::ALL.len()];
        Self { buckets, suppressed: [0; Reason::ALL.len()], since: None }
    }

    /// Whether a record of that reason may be written; counts it if not.
    pub(super) fn admits(&mut self, reason: Reason, now: Time) -> bool {
        let index = reason.index();
        let admitted = self.buckets[index].take(RATE, now).is_ok();
        if !admitted {
            self.suppressed[index] += 1;
            self.since.get_or_insert(now);
        }
        admitted
    }

    /// When the next summary is due, if anything was left out.
    pub(super) fn due_at(&self) -> Option<Time> {
        self.since.map(|since| since + INTERVAL)
    }

    /// Tells what was left out, reason by reason: how many, over how many milliseconds.
    pub(super) fn summarise(&mut self, now: Time, mut tell: impl FnMut(Reason, u64, u32)) {
        let Some(since) = self.since.take() else {
            return;
        };
        let interval_ms = u32::try_from(now.since(since).as_millis()).unwrap_or(u32::MAX);
        for (reason, count) in Reason::ALL.iter().zip(&mut self.suppressed).filter(|(_, count)| **count > 0) {
            tell(*reason, std::mem::take(count), interval_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ob05_of_a_flood_a_few_records_are_written_and_the_rest_is_counted_by_reason() {
        let mut limiter = Limiter::new(Time::ZERO);
        let written = (0..1_000).filter(|ms| limiter.admits(Reason::AuthFail, Time::from_millis(*ms))).count();
        assert_eq!(written, 10);
        assert!(limiter.admits(Reason::Malformed, Time::from_millis(999)), "each reason has its own bucket");
        assert_eq!(limiter.due_at(), Some(Time::from_millis(10_010)));
        let mut told = Vec::new();
        limiter.summarise(Time::from_millis(10_010), |reason, count, ms| told.push((reason, count, ms)));
        assert_eq!(told, [(Reason::AuthFail, 990, 10_000)]);
        assert_eq!(limiter.due_at(), None);
    }
}
