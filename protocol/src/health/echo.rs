//! What answers tell of a path: its round trip, how much that varies, and which questions went unanswered. The client asks
//! by heartbeats on the active path and by probes on the others; a gateway asks nothing.

use arrayvec::ArrayVec;

use super::rtt::Rtt;
use crate::policy::Policy;
use crate::time::{Span, Time};

/// Questions that can be unanswered at once and are still watched; the range of PP25 ends at 20.
const WATCHED: usize = 24;
/// Round trips that are kept; the range of PP26 ends at 64.
const SAMPLES: usize = 64;
/// Questions that the loss of an idle path is judged over.
const LOSS_MEMORY: u32 = u32::BITS;
/// One sample in so many may be an outlier, and one always: a single spike moves nothing (SM-14).
const OUTLIER_EACH: usize = 20;

/// A question that was not answered yet.
#[derive(Clone, Copy, Debug)]
struct Question {
    counter: u64,
    sent: Time,
    /// It counts as lost; a late answer still tells the round trip.
    lost: bool,
}

/// The round trip of one answer.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Time,
    round_trip: Span,
}

/// How the round trips of a path are spread, without their outliers: one in twenty, and at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// What all but the outliers stay within: the 95th percentile.
    pub p95: Span,
    /// Mean deviation from the mean.
    pub jitter: Span,
    /// Round trips looked at.
    pub samples: u32,
}

/// Questions and answers of one path.
#[derive(Clone, Debug, Default)]
pub struct Echoes {
    rtt: Rtt,
    outstanding: ArrayVec<Question, WATCHED>,
    lost_in_row: u32,
    samples: ArrayVec<Sample, SAMPLES>,
    /// One bit a question, 1 = lost, newest lowest.
    losses: u32,
    asked: u32,
    last_answer: Option<Time>,
    answering_since: Option<Time>,
}

impl Echoes {
    /// A question with that counter was sent.
    pub fn asked(&mut self, counter: u64, now: Time) {
        if self.outstanding.is_full() {
            let oldest = self.outstanding.remove(0);
            if !oldest.lost {
                self.lost();
            }
        }
        self.outstanding.push(Question { counter, sent: now, lost: false });
    }

    /// It was answered, late perhaps; gives the round trip, once and only if it was asked (AR-1, lane R). An answer that
    /// came too late is the only way to learn that the round trip is longer than the patience.
    pub fn answered(&mut self, counter: u64, now: Time) -> Option<Span> {
        let index = self.outstanding.iter().position(|question| question.counter == counter)?;
        let question = self.outstanding.remove(index);
        let round_trip = now.since(question.sent);
        if !question.lost {
            self.remember(false);
        }
        self.measured(round_trip, now);
        Some(round_trip)
    }

    /// A round trip measured otherwise: an answer to a handshake or to a request to move.
    pub fn measured(&mut self, round_trip: Span, now: Time) {
        self.rtt.sample(round_trip);
        self.lost_in_row = 0;
        self.last_answer = Some(now);
        self.answering_since.get_or_insert(now);
        if self.samples.is_full() {
            self.samples.remove(0);
        }
        self.samples.push(Sample { at: now, round_trip });
    }

    /// Questions unanswered for too long are lost.
    pub fn age(&mut self, policy: &Policy, now: Time) {
        let patience = self.rtt.patience(policy);
        for index in 0..self.outstanding.len() {
            let question = &mut self.outstanding[index];
            if !question.lost && now.since(question.sent) >= patience {
                question.lost = true;
                self.lost();
            }
        }
    }

    /// When the next question counts as lost, if nothing answers it.
    pub fn next_loss(&self, policy: &Policy) -> Option<Time> {
        let waiting = self.outstanding.iter().find(|question| !question.lost)?;
        Some(waiting.sent + self.rtt.patience(policy))
    }

    /// Forgets how good the path was; not how long it takes, nor when it was last seen (AF-3).
    pub fn start_afresh(&mut self) {
        *self = Self { rtt: self.rtt, last_answer: self.last_answer, ..Self::default() };
    }

    /// The smoothed round trip.
    pub const fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    /// Questions lost in a row.
    pub const fn lost_in_row(&self) -> u32 {
        self.lost_in_row
    }

    /// Lost questions in permille over the last [`LOSS_MEMORY`].
    pub fn loss_permille(&self) -> u32 {
        (self.losses.count_ones() * 1_000).checked_div(self.asked).unwrap_or(0)
    }

    /// How many of the last [`LOSS_MEMORY`] questions were answered in time.
    pub const fn answers(&self) -> u32 {
        self.asked - self.losses.count_ones()
    }

    /// When it answered last.
    pub const fn last_answer(&self) -> Option<Time> {
        self.last_answer
    }

    /// Start of the unbroken run of answers.
    pub const fn answering_since(&self) -> Option<Time> {
        self.answering_since
    }

    /// How the newest round trips are spread: all of `window`, and at least `least` of them however old. Heartbeats are
    /// too few for the shortest windows, and a longer look is better than none. Nothing if there are not as many.
    pub fn spread(&self, window: Span, least: usize, now: Time) -> Option<Spread> {
        let recent = self.samples.iter().rev().take_while(|sample| now.since(sample.at) <= window).count();
        let count = recent.max(least);
        let first = self.samples.len().checked_sub(count)?;
        let mut sorted: ArrayVec<u64, SAMPLES> =
            self.samples[first..].iter().map(|sample| sample.round_trip.as_micros()).collect();
        sorted.sort_unstable();
        let kept = sorted.len().checked_sub((sorted.len() / OUTLIER_EACH).max(1))?;
        let (last, kept) = (*sorted[..kept].last()?, &sorted[..kept]);
        let number = kept.len() as u64;
        let mean = kept.iter().sum::<u64>() / number;
        let deviation = kept.iter().map(|sample| sample.abs_diff(mean)).sum::<u64>() / number;
        Some(Spread { p95: Span::from_micros(last), jitter: Span::from_micros(deviation), samples: count as u32 })
    }

    /// Jitter over everything that is kept, for ranking and display; zero before the third answer.
    pub fn jitter(&self, now: Time) -> Span {
        self.spread(Span::ZERO, self.samples.len(), now).map_or(Span::ZERO, |spread| spread.jitter)
    }

    fn lost(&mut self) {
        self.lost_in_row = self.lost_in_row.saturating_add(1);
        self.answering_since = None;
        self.remember(true);
    }

    fn remember(&mut self, lost: bool) {
        self.losses = (self.losses << 1) | u32::from(lost);
        self.asked = (self.asked + 1).min(LOSS_MEMORY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Profile;

    const WINDOW: Span = Span::from_millis(2_000);

    fn ms(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    /// Answers half a second apart.
    fn echoes(round_trips: &[u64]) -> Echoes {
        let mut echoes = Echoes::default();
        for (index, round_trip) in round_trips.iter().enumerate() {
            echoes.measured(Span::from_millis(*round_trip), ms(500 * index as u64));
        }
        echoes
    }

    #[test]
    fn an_answer_counts_once_and_only_for_a_question_under_way() {
        let mut echoes = Echoes::default();
        echoes.asked(7, Time::ZERO);
        assert_eq!(echoes.answered(6, ms(5)), None);
        assert_eq!(echoes.answered(7, ms(20)), Some(Span::from_millis(20)));
        assert_eq!(echoes.answered(7, ms(21)), None);
        assert_eq!(echoes.rtt().smoothed(), Some(Span::from_millis(20)));
    }

    #[test]
    fn a_round_trip_longer_than_the_pace_of_questions_is_measured() {
        let policy = Policy::profile(Profile::Fast);
        let mut echoes = Echoes::default();
        for n in 0..10 {
            echoes.asked(n, ms(n * 100));
            if n >= 4 {
                echoes.answered(n - 4, ms(n * 100)).unwrap();
            }
            echoes.age(&policy, ms(n * 100));
        }
        assert_eq!(echoes.rtt().smoothed(), Some(Span::from_millis(400)));
        assert_eq!(echoes.lost_in_row(), 0);
    }

    #[test]
    fn loss_is_judged_over_the_questions_asked() {
        let policy = Policy::profile(Profile::Default);
        let mut echoes = Echoes::default();
        assert_eq!(echoes.loss_permille(), 0);
        for counter in 0..4 {
            echoes.asked(counter, Time::ZERO);
        }
        echoes.answered(3, ms(1)).unwrap();
        echoes.age(&policy, ms(500));
        assert_eq!((echoes.loss_permille(), echoes.answers()), (750, 1));
        for counter in 4..44 {
            echoes.asked(counter, ms(600));
            echoes.answered(counter, ms(601)).unwrap();
        }
        assert_eq!((echoes.loss_permille(), echoes.answers()), (0, 32));
    }

    #[test]
    fn an_answer_that_came_too_late_ends_the_run_and_tells_the_round_trip() {
        let policy = Policy::profile(Profile::Default);
        let mut echoes = Echoes::default();
        echoes.asked(1, ms(0));
        echoes.age(&policy, ms(700));
        assert_eq!((echoes.lost_in_row(), echoes.answering_since()), (1, None));
        assert_eq!(echoes.answered(1, ms(800)), Some(Span::from_millis(800)));
        assert_eq!(echoes.lost_in_row(), 0);
        assert_eq!((echoes.loss_permille(), echoes.answers()), (1_000, 0), "one question, not in time");
    }

    #[test]
    fn more_questions_than_are_watched_count_as_lost() {
        let mut echoes = Echoes::default();
        for counter in 0..WATCHED as u64 + 2 {
            echoes.asked(counter, ms(0));
        }
        assert_eq!(echoes.lost_in_row(), 2);
    }

    #[test]
    fn tc10_one_spike_is_an_outlier_and_two_are_not() {
        let spread = |round_trips: &[u64]| echoes(round_trips).spread(WINDOW, 8, ms(3_500)).unwrap();
        let calm = spread(&[50, 50, 50, 50, 50, 50, 50, 50]);
        assert_eq!((calm.p95, calm.jitter), (Span::from_millis(50), Span::ZERO));
        assert_eq!(spread(&[50, 50, 50, 900, 50, 50, 50, 50]), calm);
        let two = spread(&[50, 50, 50, 900, 50, 50, 900, 50]);
        assert_eq!(two.p95, Span::from_millis(900));
        assert!(two.jitter > Span::from_millis(200));
    }

    #[test]
    fn the_window_is_full_only_with_enough_samples_and_reaches_back_for_them() {
        assert_eq!(echoes(&[50; 7]).spread(WINDOW, 8, ms(3_500)), None);
        let slow = echoes(&[300, 300, 300, 50, 50, 50, 50, 50]);
        assert_eq!(slow.spread(WINDOW, 4, ms(3_500)).unwrap().p95, Span::from_millis(50), "five within the window");
        assert_eq!(slow.spread(WINDOW, 8, ms(3_500)).unwrap().p95, Span::from_millis(300));
    }

    #[test]
    fn the_spread_of_a_full_memory_is_that_of_the_newest_samples() {
        let mut round_trips = vec![900; 40];
        round_trips.extend([40; SAMPLES]);
        let echoes = echoes(&round_trips);
        let spread = echoes.spread(Span::from_millis(1_000_000), 8, ms(60_000)).unwrap();
        assert_eq!((spread.p95, spread.samples), (Span::from_millis(40), SAMPLES as u32));
    }

    #[test]
    fn a_commit_forgets_the_quality_and_keeps_the_round_trip() {
        let mut echoes = echoes(&[80; 10]);
        echoes.asked(1, ms(0));
        echoes.start_afresh();
        assert_eq!((echoes.answers(), echoes.spread(WINDOW, 1, ms(5_000))), (0, None), "AF-3");
        assert_eq!(echoes.answered(1, ms(5_000)), None, "SM-10: an answer to the former binding");
        assert_eq!(echoes.rtt().smoothed(), Some(Span::from_millis(80)));
        assert!(echoes.last_answer().is_some());
    }
}
