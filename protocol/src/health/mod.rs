//! Health of the active path (SM-13, SM-14): silence, unanswered heartbeats, loss, latency, jitter. Measures only; the
//! machine decides.
//!
//! | Signal | Measured by | Judged by |
//! |---|---|---|
//! | silence | [`PathHealth`]: age of the last authentic packet | both ends |
//! | loss, per direction | `loss`: counters and the reports in heartbeats | both ends |
//! | heartbeats lost in a row | [`Echoes`] | the client |
//! | 95th percentile and mean deviation of round trips | [`Echoes`] | the client |
//!
//! A DATA packet costs a time and a counter. Everything else happens at heartbeats and timers. All of it is made anew at
//! each commit (AF-3), so that nothing measured on an older generation is ever held against a newer one (SM-10).

mod echo;
mod loss;
mod rtt;

use arrayvec::ArrayVec;

pub use echo::{Echoes, Spread};
pub use loss::Loss;
pub(crate) use loss::Report;
pub(crate) use rtt::RTO_UNKNOWN;
pub use rtt::Rtt;

use crate::machine::{Evidence, Input};
use crate::policy::Policy;
use crate::reason::Reason;
use crate::replay::ReplayWindow;
use crate::stored::stored;
use crate::time::{Span, Time};
use loss::LossMeter;

/// Fewer lost packets than that are chance, whatever the ratio (SM-14).
const LEAST_LOST: u64 = 3;

/// Whether a session left its path because that was bad, not silent or gone (AF-1).
pub(crate) const fn is_quality(reason: Reason) -> bool {
    matches!(reason, Reason::LossThresholdExceeded | Reason::LatencyThresholdExceeded | Reason::JitterThresholdExceeded)
}

/// What an end counted under the present keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters<'a> {
    /// DATA that came.
    pub(crate) window: &'a ReplayWindow,
    /// The key epoch.
    pub(crate) key_epoch: u32,
    /// DATA that was sent.
    pub(crate) own_sent: u64,
}

/// What an end knows of the round trips of the active path.
#[derive(Clone, Copy, Debug)]
pub enum RoundTrips<'a> {
    /// A gateway: one of each binding, enough to know how long packets are under way.
    Gateway(&'a Rtt),
    /// A client: one of each heartbeat, and which heartbeats were lost.
    Client(&'a Echoes),
}

/// What was measured of the active path, with the signal that is out of bounds, if one is: what an audit record says of
/// it (VolatilitySignal).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurement {
    /// The signal that is out of its bounds: 202 to 206. The hard signals come first.
    pub signal: Option<Reason>,
    /// The bound of that signal, in its own unit: permille, heartbeats or milliseconds; 0 without one.
    pub threshold: u64,
    /// Loss of DATA over `loss_window_ms`, in permille: of the direction that loses more.
    pub loss_permille: u32,
    /// Heartbeats lost in a row; 0 at a gateway.
    pub drops: u32,
    /// Age of the last authenticated packet from the active tuple.
    pub heartbeat_age: Span,
    /// 95th percentile of the round trip over `latency_window_ms`; nothing at a gateway, or with too few samples.
    pub latency: Option<Span>,
    /// Mean deviation of the round trip over the same samples.
    pub jitter: Option<Span>,
    /// Packets or round trips that the signal was judged over; for a hard signal, and without one, those of the loss.
    pub samples: u64,
}

/// What is known of the path of the active binding.
#[derive(Clone, Debug)]
pub struct PathHealth {
    generation: u64,
    last_authentic: Time,
    last_trouble: Time,
    /// Some signal was out of bounds when the path was judged last.
    troubled: bool,
    unbound: bool,
    /// DATA packets received on the binding.
    delivered: u64,
    loss: LossMeter,
    made: Time,
}

stored! {
    PathHealth { generation, last_authentic, last_trouble, troubled, unbound, delivered, loss, made }
}

impl PathHealth {
    /// A path whose binding of that generation was made at `now`.
    pub fn new(generation: u64, now: Time) -> Self {
        Self {
            generation,
            last_authentic: now,
            last_trouble: now,
            troubled: false,
            unbound: false,
            delivered: 0,
            loss: LossMeter::default(),
            made: now,
        }
    }

    /// This end was away for so long, and is there again. Nothing could be heard meanwhile: that is no silence of the path,
    /// nor calm.
    pub(crate) fn resume(&mut self, away: Span) {
        self.last_authentic += away;
        self.last_trouble += away;
        self.loss.resume();
    }

    /// An authenticated packet came from the active tuple (BD-3).
    #[inline]
    pub fn heard(&mut self, now: Time) {
        self.last_authentic = now;
        self.unbound = false;
        self.end_of_trouble(now);
    }

    /// A DATA packet came on the active binding.
    #[inline]
    pub fn delivered(&mut self, now: Time) {
        self.delivered += 1;
        self.heard(now);
    }

    /// Calm begins where trouble ends, not where it was seen last (T07).
    fn end_of_trouble(&mut self, now: Time) {
        if self.troubled {
            self.last_trouble = now;
        }
    }

    /// How long every signal has been in bounds, as the path was judged last.
    pub fn calm_for(&self, now: Time) -> Span {
        if self.troubled { Span::ZERO } else { now.since(self.last_trouble) }
    }

    /// When an authenticated packet last came from the active tuple.
    pub const fn last_authentic(&self) -> Time {
        self.last_authentic
    }

    /// Whether nothing authentic came for so long that this alone is trouble (SM-14).
    pub fn is_silent(&self, policy: &Policy, now: Time) -> bool {
        now.since(self.last_authentic) > policy.volatility.heartbeat_volatile
    }

    /// When the binding was made.
    pub const fn made(&self) -> Time {
        self.made
    }

    /// Client: the gateway answered that this tuple is not bound (BD-4); counts as HEARTBEAT_TIMEOUT (SM-14).
    pub fn told_unbound(&mut self) {
        self.unbound = true;
    }

    /// Whether the gateway said so since anything else authentic came.
    pub const fn is_unbound(&self) -> bool {
        self.unbound
    }

    /// The peer reported what it counted on the binding of that generation; of another one it says nothing (SM-10).
    pub(crate) fn reported(
        &mut self,
        generation: u64,
        report: &Report,
        counters: &Counters<'_>,
        policy: &Policy,
        now: Time,
    ) {
        if generation == self.generation {
            self.loss.report(report, counters, policy.volatility.loss_window, now);
        }
    }

    /// What to report to the peer: a DATA counter, and the packets received on this binding up to it.
    pub(crate) fn newest_tally(&self) -> (u64, u64) {
        self.loss.newest()
    }

    /// Whether the newest packets show more loss than the threshold, in a window that is full or not: worth a closer look.
    pub(crate) fn is_suspect(&self, policy: &Policy) -> bool {
        self.loss.recent().into_iter().flatten().any(|loss| loss.exceeds(policy.volatility.loss_volatile_threshold))
    }

    /// Judges the path at `now` (SM-13 a, SM-14).
    pub(crate) fn judge(
        &mut self,
        policy: &Policy,
        counters: &Counters<'_>,
        round_trips: RoundTrips<'_>,
        now: Time,
    ) -> ArrayVec<Input, 3> {
        self.loss.look(counters, self.delivered, round_trips.patience(policy), policy.volatility.loss_window, now);
        let generation = self.generation;
        let mut inputs = ArrayVec::new();
        if now.since(self.last_authentic) >= policy.volatility.transport_dead {
            inputs.push(Input::TransportDead { generation, evidence: Evidence::Silence });
        }
        let signal = self.measurement(policy, round_trips, now).signal;
        self.troubled = signal.is_some();
        match signal {
            Some(reason) => {
                self.last_trouble = now;
                inputs.push(Input::Instability { generation, reason });
            }
            None => inputs.push(Input::StabilityRestored { generation, calm_since: self.last_trouble }),
        }
        inputs
    }

    /// What is measured at `now`, against the bounds of SM-14: measured values trip when greater, counters at >=.
    pub fn measurement(&self, policy: &Policy, round_trips: RoundTrips<'_>, now: Time) -> Measurement {
        let bounds = &policy.volatility;
        let worse = self.worse_loss(policy);
        let spread = round_trips.spread(policy, now).filter(|_| now.since(self.made) >= bounds.latency_window);
        let mut found = Measurement {
            signal: None,
            threshold: 0,
            loss_permille: worse.permille(),
            drops: round_trips.drops(),
            heartbeat_age: now.since(self.last_authentic),
            latency: spread.map(|spread| spread.p95),
            jitter: spread.map(|spread| spread.jitter),
            samples: worse.sent,
        };
        let above = |value: Option<Span>, bound: Span| bound > Span::ZERO && value.is_some_and(|value| value > bound);
        if self.unbound || self.is_silent(policy, now) {
            found.signals(Reason::HeartbeatTimeout, bounds.heartbeat_volatile.as_millis());
        } else if found.drops >= bounds.max_consecutive_drops {
            found.signals(Reason::ConsecutiveDropExceeded, u64::from(bounds.max_consecutive_drops));
        } else if self.loses_too_much(policy) {
            found.signals(Reason::LossThresholdExceeded, u64::from(bounds.loss_volatile_threshold));
        } else if above(found.latency, bounds.latency_volatile_threshold) {
            found.signals(Reason::LatencyThresholdExceeded, bounds.latency_volatile_threshold.as_millis());
        } else if above(found.jitter, bounds.jitter_threshold) {
            found.signals(Reason::JitterThresholdExceeded, bounds.jitter_threshold.as_millis());
        }
        if let Some(Reason::LatencyThresholdExceeded | Reason::JitterThresholdExceeded) = found.signal {
            found.samples = spread.map_or(0, |spread| u64::from(spread.samples));
        }
        found
    }

    /// When [`PathHealth::judge`] could next give something new, if nothing is heard until then.
    pub(crate) fn next_check(&self, policy: &Policy, round_trips: RoundTrips<'_>, now: Time) -> Time {
        // Measured values trip when greater than the bound: one microsecond behind it.
        let volatile = self.last_authentic + policy.volatility.heartbeat_volatile + Span::from_micros(1);
        let dead = self.last_authentic + policy.volatility.transport_dead;
        let calm = self.last_trouble + policy.volatility.stability_window;
        let tally = self.loss.next_look(round_trips.patience(policy));
        [Some(volatile), Some(dead), Some(calm), tally, round_trips.next_loss(policy)]
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .min()
            .unwrap_or(Time::NEVER)
    }

    /// The loss of the direction that loses more; none while no window is full.
    fn worse_loss(&self, policy: &Policy) -> Loss {
        let losses = self.loss.losses(policy.volatility.loss_window);
        losses.into_iter().flatten().max_by_key(|loss| (loss.permille(), loss.sent)).unwrap_or_default()
    }

    fn loses_too_much(&self, policy: &Policy) -> bool {
        let bounds = &policy.volatility;
        self.loss.losses(bounds.loss_window).into_iter().flatten().any(|loss| {
            loss.sent >= u64::from(bounds.min_samples)
                && loss.lost >= LEAST_LOST
                && loss.exceeds(bounds.loss_volatile_threshold)
        })
    }
}

impl Measurement {
    fn signals(&mut self, signal: Reason, threshold: u64) {
        self.signal = Some(signal);
        self.threshold = threshold;
    }
}

impl RoundTrips<'_> {
    fn patience(&self, policy: &Policy) -> Span {
        match self {
            Self::Gateway(rtt) => rtt.patience(policy),
            Self::Client(echoes) => echoes.rtt().patience(policy),
        }
    }

    fn drops(&self) -> u32 {
        match self {
            Self::Gateway(_) => 0,
            Self::Client(echoes) => echoes.lost_in_row(),
        }
    }

    fn next_loss(&self, policy: &Policy) -> Option<Time> {
        match self {
            Self::Gateway(_) => None,
            Self::Client(echoes) => echoes.next_loss(policy),
        }
    }

    fn spread(&self, policy: &Policy, now: Time) -> Option<Spread> {
        match self {
            Self::Gateway(_) => None,
            Self::Client(echoes) => {
                echoes.spread(policy.volatility.latency_window, policy.volatility.min_samples as usize, now)
            }
        }
    }
}

#[cfg(test)]
mod tests;
