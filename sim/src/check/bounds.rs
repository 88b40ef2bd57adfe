//! The temporal bounds of §5.3, as the policy of a run has them.

use jumpgate_protocol::policy::Policy;
use jumpgate_protocol::time::{Span, TICK_MS};

/// Bounds of one policy. Each holds with one tick on top, and with the longest time that the end was not scheduled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) heartbeat_volatile: Span,
    pub(crate) transport_dead: Span,
    pub(crate) recovering: Span,
    pub(crate) volatile: Span,
    pub(crate) stability: Span,
    pub(crate) transportless: Span,
    pub(crate) lifetime: Span,
    pub(crate) birth: Span,
    pub(crate) validation: Span,
    pub(crate) drain: Span,
    pub(crate) cooldown: Span,
    pub(crate) key_age: Span,
    /// Most commits in a sliding minute; the wider limit is the one that counts.
    pub(crate) switches: usize,
}

impl Bounds {
    pub(crate) fn new(policy: &Policy) -> Self {
        Self {
            heartbeat_volatile: policy.volatility.heartbeat_volatile,
            transport_dead: policy.volatility.transport_dead,
            recovering: policy.switching.recovery_window,
            volatile: policy.volatility.volatile_to_degraded,
            stability: policy.volatility.stability_window,
            transportless: policy.session.transport_lost_ttl,
            lifetime: policy.session.max_lifetime,
            birth: policy.session.handshake_timeout,
            validation: policy.switching.path_validation,
            drain: policy.switching.old_path_drain,
            cooldown: policy.switching.switch_cooldown,
            key_age: policy.security.key_max_age,
            switches: usize::from(policy.switching.max_switches_per_min),
        }
    }

    /// Of each bound of two policies the one that `choose` takes.
    pub(crate) fn merged(&self, other: &Self, choose: fn(Span, Span) -> Span) -> Self {
        Self {
            heartbeat_volatile: choose(self.heartbeat_volatile, other.heartbeat_volatile),
            transport_dead: choose(self.transport_dead, other.transport_dead),
            recovering: choose(self.recovering, other.recovering),
            volatile: choose(self.volatile, other.volatile),
            stability: choose(self.stability, other.stability),
            transportless: choose(self.transportless, other.transportless),
            lifetime: choose(self.lifetime, other.lifetime),
            birth: choose(self.birth, other.birth),
            validation: choose(self.validation, other.validation),
            drain: choose(self.drain, other.drain),
            cooldown: choose(self.cooldown, other.cooldown),
            key_age: choose(self.key_age, other.key_age),
            switches: self.switches.max(other.switches),
        }
    }
}

/// Whether a bound holds, with a tick of the timer and some more time on top.
pub(crate) fn within(span: Span, bound: Span, slack: Span) -> bool {
    span.as_micros() <= bound.as_micros() + TICK_MS * 1_000 + slack.as_micros()
}
