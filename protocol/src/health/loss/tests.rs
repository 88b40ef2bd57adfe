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

/// The sender is away for less than the patience, so marks of before are decided after it has moved its counter.
#[test]
fn ky9_marks_that_wait_while_the_counter_is_moved_ahead_show_no_loss() {
    let mut receiver = Receiver::new();
    run(&mut receiver, 6_000, |_, now| Some(now));
    for (sent, now) in [(6_020, 6_100), (6_030, 6_180)] {
        (sent - 9..=sent).for_each(|counter| receiver.take(counter));
        receiver.report(sent, ms(now));
    }
    assert!(receiver.meter.mark.is_some() && receiver.meter.following.is_some(), "both wait");
    (1..=100).for_each(|step| receiver.take(6_030 + COUNTER_ADVANCE + step));
    receiver.look(ms(6_200));
    receiver.look(ms(6_280));
    for step in 0..8 {
        run_from(&mut receiver, 6_131 + COUNTER_ADVANCE + step * 510, 6_400 + step * 500, 500);
        assert_eq!(receiver.loss().unwrap_or_default().lost, 0, "{step}");
    }
    assert!(receiver.loss().is_some());
}

/// The sender is away again before the first tally after its return, so there is none that the step could show in.
#[test]
fn ky9_a_counter_that_is_moved_ahead_twice_in_a_row_is_no_loss() {
    let mut receiver = Receiver::new();
    run(&mut receiver, 6_000, |_, now| Some(now));
    run_from(&mut receiver, 6_011 + COUNTER_ADVANCE, 6_500, 60);
    assert!(receiver.meter.inbound.0.is_empty() && receiver.meter.mark.is_some(), "the count begins anew");
    (1..=100).for_each(|step| receiver.take(6_080 + 2 * COUNTER_ADVANCE + step));
    receiver.look(ms(6_600));
    for step in 0..8 {
        run_from(&mut receiver, 6_181 + 2 * COUNTER_ADVANCE + step * 510, 6_700 + step * 500, 500);
        assert_eq!(receiver.loss().unwrap_or_default().lost, 0, "{step}");
    }
    assert!(receiver.loss().is_some());
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
