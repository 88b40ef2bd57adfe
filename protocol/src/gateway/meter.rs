//! What a shard counts for those who watch it, beside refusals by reason. Cells of its own: nothing here is shared with
//! another thread, and nothing is ever read back by a session (INV-23).

use crate::audit::SecurityCounts;
use crate::distribution::Distribution;
use crate::machine::Evidence;
use crate::time::Span;

/// One look-up of so many is timed: reading the clock twice costs as much as some five look-ups, so this costs each
/// packet less than a hundredth of one.
const LOOKUPS_PER_SAMPLE: u32 = 1_024;

/// What a shard counted since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    /// SESSION_RESETs sent (RF-3).
    pub resets: u64,
    /// HEARTBEATs accepted.
    pub heartbeats: u64,
    /// HEARTBEATs answered.
    pub heartbeat_acks: u64,
    /// Microseconds from the last authentic packet to leaving ATTACHED, by [`Evidence`], in its order.
    pub detections: [Distribution; Evidence::ALL.len()],
    /// Nanoseconds that finding a packet's session took; one of [some thousand](LOOKUPS_PER_SAMPLE).
    pub lookups: Distribution,
    /// Nanoseconds of a commit: the transitions of a granted REATTACH_REQUEST, with their events and records.
    pub commits: Distribution,
    /// Nanoseconds of taking an ended session out, its keys erased.
    pub evictions: Distribution,
    /// Security records.
    pub security: SecurityCounts,
    /// Bytes of all sessions.
    pub memory: Memory,
}

/// Bytes of sessions, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Everything that has no kind of its own: state machine, health of the path, audit trail.
    pub control: u64,
    /// Key material of the present key epoch.
    pub keys: u64,
    /// Bitmaps of the replay windows.
    pub replay: u64,
    /// The table of standby paths.
    pub candidates: u64,
    /// The limiter of reattach attempts.
    pub limiter: u64,
}

impl Memory {
    /// Name and bytes of each kind.
    pub fn kinds(&self) -> [(&'static str, u64); 5] {
        let Self { control, keys, replay, candidates, limiter } = *self;
        [("control", control), ("keys", keys), ("replay", replay), ("candidates", candidates), ("limiter", limiter)]
    }

    pub(super) fn add(&mut self, one: &Self) {
        self.control += one.control;
        self.keys += one.keys;
        self.replay += one.replay;
        self.candidates += one.candidates;
        self.limiter += one.limiter;
    }

    /// Of `sessions`, if this is what `looked_at` of them have.
    pub(super) fn scaled(self, sessions: usize, looked_at: usize) -> Self {
        let scale = |bytes: u64| (bytes as u128 * sessions as u128 / looked_at.max(1) as u128) as u64;
        Self {
            control: scale(self.control),
            keys: scale(self.keys),
            replay: scale(self.replay),
            candidates: scale(self.candidates),
            limiter: scale(self.limiter),
        }
    }
}

/// A clock that the driver lends for measuring, in nanoseconds since anything. The core has none of its own, and
/// decides nothing by this one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stopwatch {
    clock: Option<fn() -> u64>,
    lookups: u32,
}

impl Stopwatch {
    pub(super) const fn of(clock: fn() -> u64) -> Self {
        Self { clock: Some(clock), lookups: 0 }
    }

    /// Begins to measure, if there is a clock.
    pub(super) fn start(&self) -> Option<u64> {
        self.clock.map(|clock| clock())
    }

    /// Begins to measure one look-up in so many.
    #[inline]
    pub(super) fn start_lookup(&mut self) -> Option<u64> {
        self.lookups = self.lookups.wrapping_add(1);
        if self.lookups.is_multiple_of(LOOKUPS_PER_SAMPLE) { self.start() } else { None }
    }

    /// Counts what was measured.
    #[inline]
    pub(super) fn stop(&self, started: Option<u64>, into: &mut Distribution) {
        if let (Some(started), Some(clock)) = (started, self.clock) {
            into.count(clock().saturating_sub(started));
        }
    }
}

impl Meter {
    /// A transport's death was noticed so long after its last authentic packet.
    pub(super) fn detected(&mut self, evidence: Evidence, after: Span) {
        self.detections[evidence as usize].count(after.as_micros());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_sample_stands_for_all_and_nothing_for_none() {
        let sample = Memory { keys: 3_000, replay: 512, ..Memory::default() };
        assert_eq!(sample.scaled(4, 4), sample);
        assert_eq!(sample.scaled(40, 4), Memory { keys: 30_000, replay: 5_120, ..Memory::default() });
        assert_eq!(Memory::default().scaled(0, 0), Memory::default());
    }

    #[test]
    fn one_lookup_in_a_thousand_is_timed_and_none_without_a_clock() {
        let mut watch = Stopwatch::of(|| 7);
        let timed = (0..10 * LOOKUPS_PER_SAMPLE).filter(|_| watch.start_lookup().is_some()).count();
        assert_eq!(timed, 10);
        let mut none = Stopwatch::default();
        assert!((0..10 * LOOKUPS_PER_SAMPLE).all(|_| none.start_lookup().is_none()));
        let mut counted = Distribution::default();
        none.stop(none.start(), &mut counted);
        watch.stop(Some(3), &mut counted);
        assert_eq!((counted.total(), counted.sum()), (1, 4));
    }
}
