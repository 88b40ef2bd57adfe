//! The limits of a session as its trace states them, and what they say about times (V-TIME, V-RATE).

use crate::text::Object;

/// Commits are counted over so many milliseconds (INV-15).
pub(super) const SWITCH_WINDOW_MS: u64 = 60_000;
/// Times are cut to whole milliseconds, so that a span can look longer by one.
const ROUNDING_MS: u64 = 1;

/// The limits that are judged, in milliseconds unless the name says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) max_lifetime_ms: u64,
    pub(super) transport_lost_ttl_ms: u64,
    pub(super) handshake_timeout_ms: u64,
    pub(super) max_degraded_ms: u64,
    pub(super) volatile_to_degraded_ms: u64,
    pub(super) stability_window_ms: u64,
    pub(super) max_switches_per_min: u64,
    pub(super) switch_cooldown_ms: u64,
    pub(super) recovery_window_ms: u64,
    pub(super) path_validation_ms: u64,
}

impl Limits {
    /// The limits in `bounds`, if all of them are there.
    pub(super) fn read(bounds: &Object<'_>) -> Option<Self> {
        Some(Self {
            max_lifetime_ms: bounds.number("max_lifetime_ms")?,
            transport_lost_ttl_ms: bounds.number("transport_lost_ttl_ms")?,
            handshake_timeout_ms: bounds.number("handshake_timeout_ms")?,
            max_degraded_ms: bounds.number("max_degraded_ms")?,
            volatile_to_degraded_ms: bounds.number("volatile_to_degraded_ms")?,
            stability_window_ms: bounds.number("stability_window_ms")?,
            max_switches_per_min: bounds.number("max_switches_per_min")?,
            switch_cooldown_ms: bounds.number("switch_cooldown_ms")?,
            recovery_window_ms: bounds.number("recovery_window_ms")?,
            path_validation_ms: bounds.number("path_validation_ms")?,
        })
    }
}

/// A timer: when it began, and the bound that it began with. A bound that changes later leaves it alone (RL-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timer {
    pub(super) since_ms: u64,
    pub(super) bound_ms: u64,
}

impl Timer {
    /// By how much the bound is passed at that time, if `slack_ms` more than the bound are allowed.
    pub(super) fn overrun(&self, now_ms: u64, slack_ms: u64) -> Option<u64> {
        let age = now_ms.saturating_sub(self.since_ms);
        let allowed = self.bound_ms.saturating_add(slack_ms).saturating_add(ROUNDING_MS);
        (age > allowed).then_some(age)
    }

    /// It could not run out before that time.
    pub(super) fn stretch(&mut self, now_ms: u64) {
        self.bound_ms = self.bound_ms.max(now_ms.saturating_sub(self.since_ms));
    }

    /// Whether it still runs at that time, beyond doubt.
    pub(super) fn is_running(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.since_ms).saturating_add(ROUNDING_MS) < self.bound_ms
    }

    /// Whether it ran out before that time, beyond doubt.
    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.since_ms) >= self.bound_ms.saturating_add(ROUNDING_MS)
    }
}
