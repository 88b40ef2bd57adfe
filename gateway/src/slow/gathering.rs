//! One question to all workers, and what operators get to see of the answers.

use std::collections::HashSet;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::admin::{Answer, CounterRow, SessionRow};
use crate::worker::WorkerCounters;

/// What a worker is asked. Each by itself: who watches counters shall not have all sessions looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Sessions,
    Counters,
    Metrics,
    Slots,
}

/// What all workers answered.
pub(super) enum Gathered {
    Sessions(Vec<SessionRow>),
    /// In the order of the workers.
    Counters(Vec<WorkerCounters>),
    /// The same.
    Metrics(Vec<WorkerCounters>),
    /// The same.
    Slots(Vec<WorkerCounters>),
}

/// Answers of the workers on their way to operators.
pub(super) struct Gathering {
    pub(super) part: Part,
    /// Who has not answered.
    missing: HashSet<usize>,
    sessions: Vec<SessionRow>,
    counters: Vec<WorkerCounters>,
    waiting: Vec<oneshot::Sender<Answer>>,
    /// Then it is over, whoever has not answered.
    pub(super) until: Instant,
}

impl Gathering {
    pub(super) fn new(part: Part, workers: usize, until: Instant) -> Self {
        let missing = (0..workers).collect();
        Self { part, missing, sessions: Vec::new(), counters: Vec::new(), waiting: Vec::new(), until }
    }

    /// Another operator who wants the answer.
    pub(super) fn join(&mut self, answer: oneshot::Sender<Answer>) {
        self.waiting.push(answer);
    }

    /// What a worker answered; an answer to an earlier round is not asked for any more and dropped.
    pub(super) fn sessions(&mut self, worker: usize, rows: impl Iterator<Item = SessionRow>) {
        if self.missing.remove(&worker) {
            self.sessions.extend(rows);
        }
    }

    pub(super) fn counters(&mut self, worker: usize, counters: WorkerCounters) {
        if self.missing.remove(&worker) {
            self.counters.push(counters);
        }
    }

    /// Whether that worker has not answered.
    pub(super) fn misses(&self, worker: usize) -> bool {
        self.missing.contains(&worker)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Answers all who wait; `answer` makes the answer.
    pub(super) fn finish(mut self, answer: impl FnOnce(Gathered) -> Answer) {
        self.sessions.sort_by(|a, b| (&a.client, &a.locator).cmp(&(&b.client, &b.locator)));
        self.counters.sort_by_key(|counters| counters.worker);
        let answer = match self.part {
            _ if !self.missing.is_empty() => {
                Answer::Error("not every worker answered in time: the gateway is overloaded".to_owned())
            }
            Part::Counters => answer(Gathered::Counters(self.counters)),
            Part::Metrics => answer(Gathered::Metrics(self.counters)),
            Part::Slots => answer(Gathered::Slots(self.counters)),
            Part::Sessions => answer(Gathered::Sessions(self.sessions)),
        };
        for waiting in self.waiting {
            // Whoever asked may have gone.
            let _ = waiting.send(answer.clone());
        }
    }
}

/// The counters of all workers, one a line.
pub(super) fn worker_rows(workers: &[WorkerCounters]) -> impl Iterator<Item = CounterRow> {
    workers.iter().flat_map(rows_of)
}

fn rows_of(counters: &WorkerCounters) -> Vec<CounterRow> {
    let place = format!("worker {}", counters.worker);
    let row = |name: &str, value| CounterRow { place: place.clone(), name: name.to_owned(), value };
    let mut rows = vec![
        row("outside_received_packets", counters.outside.received),
        row("outside_received_bytes", counters.outside.received_bytes),
        row("outside_sent_packets", counters.outside.sent),
        row("outside_sent_bytes", counters.outside.sent_bytes),
        row("inside_received_packets", counters.inside.received),
        row("inside_received_bytes", counters.inside.received_bytes),
        row("inside_sent_packets", counters.inside.sent),
        row("inside_sent_bytes", counters.inside.sent_bytes),
        row("no_next_hop", counters.path.no_next_hop),
        row("too_big_answers", counters.path.too_big_answers),
        row("control_answered", counters.path.answered),
        row("outside_ring_full", counters.outside_kernel.ring_full),
        row("outside_kernel_dropped", counters.outside_kernel.dropped),
        row("inside_ring_full", counters.inside_kernel.ring_full),
        row("inside_kernel_dropped", counters.inside_kernel.dropped),
        row("frames_missing", counters.frames.missing().unsigned_abs()),
        row("sleeps", counters.sleeps),
    ];
    let queues = counters.outside_queues.iter().enumerate();
    rows.extend(queues.map(|(queue, packets)| row(&format!("outside_queue_{queue}_packets"), *packets)));
    rows.extend(counters.drops().iter().map(|(reason, value)| row(reason.name(), value)));
    rows
}

#[cfg(test)]
mod tests {
    use jumpgate_protocol::reason::Reason;

    use super::*;

    #[test]
    fn all_who_wait_get_their_answer_when_the_last_worker_has_spoken() {
        let mut gathering = Gathering::new(Part::Counters, 2, Instant::now());
        let (first, mut first_answered) = oneshot::channel();
        let (second, mut second_answered) = oneshot::channel();
        gathering.join(first);
        gathering.join(second);
        for worker in 0..2 {
            assert!(!gathering.is_complete());
            let mut counted = WorkerCounters { worker: worker as u16, ..WorkerCounters::default() };
            counted.sessions.add(Reason::WrongTransport, 3);
            gathering.counters(worker, counted.clone());
            gathering.counters(worker, counted);
            assert!(!gathering.misses(worker));
        }
        assert!(gathering.is_complete());
        gathering.finish(|gathered| {
            let Gathered::Counters(workers) = gathered else { panic!("counters were asked for") };
            Answer::Counters(worker_rows(&workers).filter(|row| row.value > 0).collect())
        });
        let row = |worker: &str| CounterRow { place: worker.into(), name: "WRONG_TRANSPORT".into(), value: 3 };
        let rows = Answer::Counters(vec![row("worker 0"), row("worker 1")]);
        assert_eq!(first_answered.try_recv().as_ref(), Ok(&rows), "a second answer is left out");
        assert_eq!(second_answered.try_recv(), Ok(rows));
    }

    #[test]
    fn a_worker_that_does_not_answer_makes_an_error_and_no_half_truth() {
        let mut gathering = Gathering::new(Part::Sessions, 1, Instant::now());
        let (sender, mut answered) = oneshot::channel();
        gathering.join(sender);
        gathering.finish(|_| panic!("there is nothing to answer with"));
        assert!(matches!(answered.try_recv(), Ok(Answer::Error(_))));
    }
}
