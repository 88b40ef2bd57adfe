//! Loss of DATA, per direction, over `loss_window_ms` (SM-14).
//!
//! A packet on its way costs nothing here: the replay window and a counter already know which packets came. At
//! heartbeats and timers the meter looks at them. It *marks* the highest counter that the peer had sent by then, waits
//! until what was under way must have come ([`super::Rtt::patience`]), and counts which counters up to the mark were received: a *tally*.
//! The difference of two tallies is exact, whatever was reordered between them, and a packet that comes later still is
//! taken off the losses by the next tally.
//!
//! Marks come from the peer's reports, so that the loss of everything at the end of a burst shows too, and start with the
//! first report under the present binding: what was lost on the path before is not held against this one.
//!
//! Each end tells the other its newest tally. What a peer tells of the opposite direction is believed as far as it is
//! possible at all; whoever lies about it moves only itself.

use super::Counters;
use crate::key_ring::COUNTER_ADVANCE;
use crate::stored::{Damaged, Reader, Stored, Writer, stored};
use crate::time::{Span, Time};

/// A window is looked at in so many parts.
const PARTS: u64 = 8;
/// Tallies of one direction: one for each part, the one that the window begins with, and two for its rough edges.
const TALLIES: usize = PARTS as usize + 3;
/// So many packets that did not come in one step are no loss: the sender was restarted and has moved its counter ahead
/// (KY-9). Half of what it moves by, since the edge of the replay window may cut the step in two.
const MOVED_AHEAD: u64 = COUNTER_ADVANCE / 2;

/// What a peer reports in HEARTBEAT and HEARTBEAT_ACK, under the key epoch of that message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// Low 8 bits of the key epoch that the counters belong to.
    pub(crate) key_epoch: u8,
    /// The highest DATA counter that it has sent.
    pub(crate) sent: u64,
    /// DATA packets that it has received on this binding, of those up to `highest`.
    pub(crate) received: u64,
    /// The DATA counter up to which it knows; 0 if it knows nothing yet.
    pub(crate) highest: u64,
}

/// Packets sent and lost within a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Packets sent.
    pub sent: u64,
    /// Packets of them that did not arrive.
    pub lost: u64,
}

impl Loss {
    /// Lost packets in permille of those sent, rounded down.
    pub fn permille(&self) -> u32 {
        let permille = u128::from(self.lost) * 1_000 / u128::from(self.sent.max(1));
        u32::try_from(permille).unwrap_or(u32::MAX).min(1_000)
    }

    /// Whether more than `threshold` permille were lost; exact, so a rounded value never hides an excess (SM-07).
    pub(super) fn exceeds(&self, threshold: u32) -> bool {
        u128::from(self.lost) * 1_000 > u128::from(self.sent) * u128::from(threshold)
    }
}

/// Counters up to `counter` are decided: so many packets of them were received on this binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tally {
    at: Time,
    counter: u64,
    received: u64,
}

/// The tallies of one direction, oldest first; at most [`TALLIES`]. On the heap, since sessions that carry no DATA need
/// one or two of them.
#[derive(Clone, Debug, Default)]
struct Direction(Vec<Tally>);

/// A counter that was the highest at some time.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Time,
    counter: u64,
    /// The peer said so; otherwise it is the highest that has come.
    reported: bool,
    /// Packets accepted by then.
    accepted: u64,
}

/// Both directions of one binding.
#[derive(Clone, Debug, Default)]
pub(super) struct LossMeter {
    key_epoch: u32,
    mark: Option<Mark>,
    /// The newest report since the mark, which it follows.
    following: Option<Mark>,
    inbound: Direction,
    outbound: Direction,
    /// Packets that came while this end was being restarted: nobody counted them, and no path lost them.
    forgiven: u64,
    /// The next tally that comes in is the first one after a restart.
    resumed: bool,
}

stored! { Tally { at, counter, received } }

impl Tally {
    /// Packets since an earlier one that did not come.
    const fn missing_since(&self, earlier: &Self) -> u64 {
        let sent = self.counter.saturating_sub(earlier.counter);
        sent.saturating_sub(self.received.saturating_sub(earlier.received))
    }
}

impl Mark {
    /// Counters above the mark that did not come, up to the highest that did.
    const fn missing(&self, counters: &Counters<'_>) -> u64 {
        let sent = counters.window.highest().saturating_sub(self.counter);
        sent.saturating_sub(counters.window.received().saturating_sub(self.accepted))
    }
}

/// Of a meter, what a restart keeps: where the next tally goes on from.
impl Stored for LossMeter {
    fn store(&self, out: &mut Writer) {
        let Self { key_epoch, mark: _, following: _, inbound, outbound: _, forgiven, resumed } = self;
        (*key_epoch, *forgiven).store(out);
        (*resumed, inbound.0.last().copied()).store(out);
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        let (key_epoch, forgiven) = Stored::load(from)?;
        let (resumed, newest) = <(bool, Option<Tally>)>::load(from)?;
        let inbound = Direction(newest.into_iter().collect());
        Ok(Self { key_epoch, inbound, forgiven, resumed, ..Self::default() })
    }
}

impl LossMeter {
    /// The peer reported on the present binding.
    pub(super) fn report(&mut self, report: &Report, counters: &Counters<'_>, window: Span, now: Time) {
        self.follow_rekey(counters);
        if report.key_epoch != counters.key_epoch as u8 {
            return;
        }
        self.take_mark(report.sent, true, counters, now);
        // What was never sent cannot have been received.
        if report.highest > 0 && report.highest <= counters.own_sent {
            self.outbound.push(Tally { at: now, counter: report.highest, received: report.received }, window);
        }
    }

    /// Looks at what came until `now`.
    pub(super) fn look(&mut self, counters: &Counters<'_>, delivered: u64, patience: Span, window: Span, now: Time) {
        self.follow_rekey(counters);
        while let Some(mark) = self.mark.take_if(|mark| now.since(mark.at) >= patience) {
            self.mark = self.following.take();
            if mark.missing(counters) >= MOVED_AHEAD {
                // The replay window went with the counter, so how much came up to the mark is not known any more; and its
                // lower edge may lie in the step, of which nothing was ever sent.
                self.inbound.0.clear();
                continue;
            }
            // Below the replay window everything is decided, as nothing of it is accepted any more.
            let counter = mark.counter.max(counters.window.lower_edge());
            let received = self.received(delivered.saturating_sub(counters.window.received_above(counter)), counter);
            self.inbound.push(Tally { at: mark.at, counter, received }, window);
        }
        if let Some(last) = self.inbound.0.last().copied() {
            // A mark is a timer: not more of them than there are parts of a window.
            if now.since(last.at).as_micros() >= window.as_micros() / PARTS {
                self.take_mark(0, false, counters, now);
            }
            if self.mark.is_none() && counters.window.highest() <= last.counter {
                let received = delivered.saturating_add(self.forgiven).max(last.received);
                self.inbound.push(Tally { at: now, received, ..last }, window);
            }
        }
    }

    /// This end was not there for a while, and is again.
    pub(super) fn resume(&mut self) {
        (self.mark, self.following) = (None, None);
        self.resumed = true;
    }

    /// Packets up to that counter, of which `counted` were counted. The first time after a restart, what is missing since
    /// the last tally before it is taken as received: the peer, which is told, must not hold it against the path either.
    fn received(&mut self, counted: u64, counter: u64) -> u64 {
        let received = counted.saturating_add(self.forgiven);
        let resumed = std::mem::take(&mut self.resumed);
        let now = Tally { at: Time::ZERO, counter, received };
        let missing = self.inbound.0.last().filter(|_| resumed).map_or(0, |last| now.missing_since(last));
        self.forgiven = self.forgiven.saturating_add(missing);
        received.saturating_add(missing)
    }

    /// When [`LossMeter::look`] will know more.
    pub(super) fn next_look(&self, patience: Span) -> Option<Time> {
        self.mark.map(|mark| mark.at + patience)
    }

    /// The newest tally of what came, for the peer: the counter, and the packets received up to it.
    pub(super) fn newest(&self) -> (u64, u64) {
        self.inbound.0.last().map_or((0, 0), |tally| (tally.counter, tally.received))
    }

    /// Losses within the last full window: what came to us, and what we sent.
    pub(super) fn losses(&self, window: Span) -> [Option<Loss>; 2] {
        [self.inbound.loss(window), self.outbound.loss(window)]
    }

    /// Losses since the oldest tally, in a window that is full or not.
    pub(super) fn recent(&self) -> [Option<Loss>; 2] {
        self.losses(Span::ZERO)
    }

    /// The first mark of a binding is one that the peer reports. While a mark waits, only a report makes another one: in
    /// place of a local mark, else behind it.
    fn take_mark(&mut self, counter: u64, reported: bool, counters: &Counters<'_>, now: Time) {
        let counter = counter.max(counters.window.highest());
        if self.inbound.0.last().is_some_and(|last| counter <= last.counter) {
            // Nothing new: nothing to wait for.
            return;
        }
        let mark = Some(Mark { at: now, counter, reported, accepted: counters.window.received() });
        match self.mark {
            Some(waiting) if waiting.reported && reported => self.following = mark,
            Some(_) if !reported => {}
            _ => self.mark = mark,
        }
    }

    /// Each key epoch counts from 1.
    fn follow_rekey(&mut self, counters: &Counters<'_>) {
        if self.key_epoch != counters.key_epoch {
            *self = Self { key_epoch: counters.key_epoch, ..Self::default() };
        }
    }
}

impl Direction {
    /// Takes a tally, unless it is an older one that came late. Two within one part of the window become one.
    fn push(&mut self, tally: Tally, window: Span) {
        if self.0.last().is_some_and(|last| tally.counter < last.counter || tally.at < last.at) {
            return;
        }
        if self.0.last().is_some_and(|last| tally.missing_since(last) >= MOVED_AHEAD) {
            // Where the step ends is not known from this tally; the next one begins anew.
            self.0.clear();
            return;
        }
        let part = window.as_micros() / PARTS;
        if let [.., before, last] = self.0.as_mut_slice()
            && last.at.since(before.at).as_micros() < part
        {
            *last = tally;
        } else {
            if self.0.len() == TALLIES {
                self.0.remove(0);
            }
            self.0.push(tally);
        }
        // The window begins with the youngest tally that is old enough.
        while self.0.get(1).is_some_and(|second| tally.at.since(second.at) >= window) {
            self.0.remove(0);
        }
    }

    /// The loss between the tally that the window begins with and the newest; nothing while the window is not full.
    fn loss(&self, window: Span) -> Option<Loss> {
        let [first, .., last] = self.0.as_slice() else {
            return None;
        };
        if last.at.since(first.at) < window {
            return None;
        }
        let sent = last.counter - first.counter;
        let received = last.received.saturating_sub(first.received);
        Some(Loss { sent, lost: sent.saturating_sub(received) })
    }
}

#[cfg(test)]
mod tests;
