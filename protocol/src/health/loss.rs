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
        let mark = Some(Mark { at: now, counter, reported });
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
mod tests {
    use super::*;
    use crate::entropy::{Entropy, SeededEntropy};
    use crate::replay::ReplayWindow;

    const WINDOW: Span = Span::from_millis(2_000);
    const PATIENCE: Span = Span::from_millis(100);
    const WINDOW_BITS: usize = 8_192;

    fn ms(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    /// A receiver: what came on the present binding, and the meter over it.
    struct Receiver {
        window: ReplayWindow,
        delivered: u64,
        key_epoch: u32,
        own_sent: u64,
        meter: LossMeter,
    }

    impl Receiver {
        fn new() -> Self {
            let window = ReplayWindow::new(WINDOW_BITS);
            Self { window, delivered: 0, key_epoch: 0, own_sent: u64::MAX, meter: LossMeter::default() }
        }

        fn take(&mut self, counter: u64) {
            if self.window.check(counter).is_ok() {
                self.window.mark(counter);
                self.delivered += 1;
            }
        }

        fn with(&mut self, work: impl FnOnce(&mut LossMeter, &Counters<'_>)) {
            let counters = Counters { window: &self.window, key_epoch: self.key_epoch, own_sent: self.own_sent };
            work(&mut self.meter, &counters);
        }

        fn look(&mut self, now: Time) {
            let delivered = self.delivered;
            self.with(|meter, counters| meter.look(counters, delivered, PATIENCE, WINDOW, now));
        }

        fn report(&mut self, sent: u64, now: Time) {
            let report = Report { key_epoch: self.key_epoch as u8, sent, received: 0, highest: 0 };
            self.with(|meter, counters| meter.report(&report, counters, WINDOW, now));
            self.look(now);
        }

        fn told(&mut self, highest: u64, received: u64, now: Time) {
            let report = Report { key_epoch: self.key_epoch as u8, sent: 0, received, highest };
            self.with(|meter, counters| meter.report(&report, counters, WINDOW, now));
        }

        fn loss(&self) -> Option<Loss> {
            self.meter.losses(WINDOW)[0]
        }
    }

    /// Ten packets every 10 ms for that long, a report every 500 ms; `arrives` says when a packet comes, if it does.
    fn run(receiver: &mut Receiver, millis: u64, mut arrives: impl FnMut(u64, u64) -> Option<u64>) {
        let mut under_way: Vec<(u64, u64)> = Vec::new();
        let mut sent = 0;
        for now in (0..=millis).step_by(10) {
            for _ in 0..10 {
                sent += 1;
                under_way.extend(arrives(sent, now).map(|at| (at, sent)));
            }
            under_way.retain(|(at, counter)| {
                let due = *at <= now;
                if due {
                    receiver.take(*counter);
                }
                !due
            });
            if now % 500 == 0 {
                receiver.report(sent, ms(now));
            }
        }
    }

    #[test]
    fn nothing_lost_is_no_loss_and_there_is_none_before_the_window_is_full() {
        let mut receiver = Receiver::new();
        run(&mut receiver, 2_000, |_, now| Some(now));
        assert_eq!(receiver.loss(), None, "AF-3: a full window");
        let mut receiver = Receiver::new();
        run(&mut receiver, 10_000, |_, now| Some(now));
        assert_eq!(receiver.loss(), Some(Loss { sent: 2_000, lost: 0 }));
        assert!(receiver.meter.recent().into_iter().flatten().all(|loss| loss.lost == 0));
    }

    /// Goes on from `first`, as [`run`] does, with nothing lost on the way.
    fn run_from(receiver: &mut Receiver, first: u64, start: u64, millis: u64) {
        for step in 0..=millis / 10 {
            let next = first + step * 10;
            (next..next + 10).for_each(|counter| receiver.take(counter));
            if step % 50 == 0 {
                receiver.report(next + 9, ms(start + step * 10));
            }
        }
    }

    #[test]
    fn ky9_a_counter_that_was_moved_far_ahead_is_no_loss() {
        let mut receiver = Receiver::new();
        run(&mut receiver, 6_000, |_, now| Some(now));
        run_from(&mut receiver, 6_011 + COUNTER_ADVANCE, 6_500, 6_000);
        assert_eq!(receiver.loss().map(|loss| loss.lost), Some(0));
        // What was sent is told back the same way.
        for (at, highest, received) in [(0, 5_000, 5_000), (500, 5_500 + COUNTER_ADVANCE, 5_500)] {
            receiver.told(highest, received, ms(20_000 + at));
        }
        for step in 1..6 {
            receiver.told(5_500 + COUNTER_ADVANCE + step * 500, 5_500 + step * 490, ms(20_500 + step * 500));
        }
        let told = receiver.meter.losses(WINDOW)[1];
        assert_eq!(told, Some(Loss { sent: 2_000, lost: 40 }), "and what is lost after it counts");
    }

    #[test]
    fn ow8_what_came_while_this_end_was_away_is_forgiven_once_at_both_ends() {
        let mut receiver = Receiver::new();
        run(&mut receiver, 6_000, |_, now| Some(now));
        receiver.meter.resume();
        // 500 packets met nobody.
        run_from(&mut receiver, 6_511, 6_500, 6_000);
        assert_eq!(receiver.loss().map(|loss| loss.lost), Some(0));
        let (counter, received) = receiver.meter.newest();
        assert_eq!(received, counter, "what the peer is told");
        // The next gap is one.
        run_from(&mut receiver, 13_011, 13_000, 500);
        assert_eq!(receiver.loss().map(|loss| loss.lost), Some(490));
    }

    #[test]
    fn every_tenth_packet_lost_is_a_hundred_permille_exactly() {
        let mut receiver = Receiver::new();
        run(&mut receiver, 10_000, |counter, now| (counter % 10 != 3).then_some(now));
        let loss = receiver.loss().unwrap();
        assert_eq!((loss, loss.permille()), (Loss { sent: 2_000, lost: 200 }, 100));
        assert!(!loss.exceeds(100) && loss.exceeds(99), "trips when greater (SM-07)");
    }

    #[test]
    fn reordering_within_two_round_trips_is_no_loss() {
        let mut dice = SeededEntropy::new(7);
        let mut receiver = Receiver::new();
        run(&mut receiver, 20_000, |_, now| Some(now + dice.next_u64() % 100));
        let loss = receiver.loss().unwrap();
        assert_eq!(loss.lost, 0, "{loss:?}");
    }

    #[test]
    fn a_packet_that_comes_later_still_is_taken_off_the_losses() {
        let mut receiver = Receiver::new();
        // A stall: everything of 300 ms comes in one heap.
        run(&mut receiver, 6_000, |_, now| Some(if (3_900..4_200).contains(&now) { 4_200 } else { now }));
        assert_eq!(receiver.loss().unwrap().lost, 0);
    }

    #[test]
    fn the_end_of_a_burst_that_never_came_is_lost_although_no_gap_shows_it() {
        let mut receiver = Receiver::new();
        run(&mut receiver, 10_000, |_, now| (now < 8_000).then_some(now));
        let loss = receiver.loss().unwrap();
        assert_eq!(loss, Loss { sent: 2_000, lost: 1_510 }, "all from 8 s to 9.5 s, both included");
    }

    #[test]
    fn duplicates_and_replays_hide_no_loss() {
        let mut receiver = Receiver::new();
        run(&mut receiver, 10_000, |counter, now| (counter % 2 == 0).then_some(now));
        for counter in 1..=10_000 {
            if counter % 2 == 0 {
                receiver.take(counter);
            }
        }
        receiver.report(10_010, ms(10_500));
        receiver.report(10_010, ms(11_000));
        assert_eq!(receiver.loss().unwrap().permille(), 500);
    }

    #[test]
    fn more_packets_than_the_replay_window_holds_are_counted_all_the_same() {
        let mut receiver = Receiver::new();
        let mut sent = 0;
        for step in 0..=100 {
            for _ in 0..50_000 {
                sent += 1;
                if sent % 4 != 0 {
                    receiver.take(sent);
                }
            }
            receiver.report(sent, ms(100 * step));
        }
        let loss = receiver.loss().unwrap();
        assert_eq!(loss.permille(), 250, "{loss:?}");
        assert!(loss.sent >= 900_000);
    }

    #[test]
    fn what_was_lost_before_the_first_report_of_the_binding_is_not_held_against_it() {
        let mut receiver = Receiver::new();
        for counter in 1..=100 {
            receiver.take(counter);
        }
        // The switch: 900 packets went into a black hole, 50 come late by the old path and count for nothing here.
        receiver.delivered = 0;
        for counter in 101..=150 {
            receiver.window.mark(counter);
        }
        receiver.look(ms(0));
        assert!(receiver.meter.mark.is_none(), "no mark of its own before the peer reports");
        for now in (0..=4_000).step_by(100) {
            receiver.report(1_000 + now, ms(now));
            for counter in 1_000 + now..1_100 + now {
                receiver.take(counter + 1);
            }
        }
        assert_eq!(receiver.loss().map(|loss| loss.lost), Some(0));
    }

    #[test]
    fn a_rekey_starts_the_count_anew_and_reports_of_other_keys_are_left_alone() {
        let mut receiver = Receiver::new();
        run(&mut receiver, 10_000, |counter, now| (counter % 2 == 0).then_some(now));
        receiver.key_epoch = 1;
        receiver.window = ReplayWindow::new(WINDOW_BITS);
        let late = Report { key_epoch: 0, sent: 10_000, received: 5_000, highest: 9_000 };
        receiver.with(|meter, counters| meter.report(&late, counters, WINDOW, ms(10_500)));
        assert!(receiver.meter.mark.is_none());
        assert_eq!(receiver.meter.losses(WINDOW), [None, None]);
        for now in (0..=4_000).step_by(100) {
            receiver.report(now, ms(11_000 + now));
            for counter in now..now + 100 {
                receiver.take(counter + 1);
            }
        }
        assert_eq!(receiver.loss().unwrap().lost, 0);
    }

    #[test]
    fn what_the_peer_tells_of_our_direction_is_taken_as_it_is() {
        let mut receiver = Receiver::new();
        for step in 1..=10 {
            receiver.told(step * 100, step * 70, ms(500 * step));
        }
        let [_, outbound] = receiver.meter.losses(WINDOW);
        assert_eq!(outbound, Some(Loss { sent: 400, lost: 120 }));
        // An older report that was overtaken changes nothing.
        receiver.told(300, 1, ms(5_100));
        assert_eq!(receiver.meter.losses(WINDOW)[1], outbound);
    }

    #[test]
    fn a_peer_that_lies_breaks_nothing() {
        let mut receiver = Receiver::new();
        receiver.own_sent = 1_000;
        let hostile = [0, 1, 500, 1_000, 1_001, u64::MAX - 1, u64::MAX];
        let mut now = 0;
        for sent in hostile {
            for highest in hostile {
                for received in hostile {
                    now += 700;
                    let report = Report { key_epoch: 0, sent, received, highest };
                    receiver.with(|meter, counters| meter.report(&report, counters, WINDOW, ms(now)));
                    receiver.look(ms(now));
                    for loss in receiver.meter.losses(WINDOW).into_iter().flatten() {
                        assert!(loss.lost <= loss.sent && loss.permille() <= 1_000);
                    }
                    let newest = receiver.meter.outbound.0.last();
                    assert!(newest.is_none_or(|tally| tally.counter <= 1_000), "never beyond what we sent");
                }
            }
        }
    }

    #[test]
    fn an_idle_binding_leaves_its_losses_behind() {
        let mut receiver = Receiver::new();
        run(&mut receiver, 4_000, |counter, now| (counter % 2 == 0).then_some(now));
        assert!(receiver.loss().unwrap().permille() >= 499);
        for step in 1..=8 {
            receiver.report(4_010, ms(4_000 + 500 * step));
        }
        assert_eq!(receiver.loss(), Some(Loss { sent: 0, lost: 0 }));
        assert!(receiver.meter.recent().into_iter().flatten().all(|loss| loss.lost == 0));
    }

    #[test]
    fn a_round_trip_longer_than_the_pace_of_reports_still_gets_its_marks_decided() {
        let mut receiver = Receiver::new();
        let long = Span::from_millis(1_800);
        for step in 0..40 {
            for counter in step * 100..step * 100 + 100 {
                receiver.take(counter + 1);
            }
            let report = Report { key_epoch: 0, sent: step * 100 + 100, received: 0, highest: 0 };
            let delivered = receiver.delivered;
            receiver.with(|meter, counters| {
                meter.look(counters, delivered, long, WINDOW, ms(100 * step));
                meter.report(&report, counters, WINDOW, ms(100 * step));
            });
        }
        assert!(!receiver.meter.inbound.0.is_empty());
    }
}
