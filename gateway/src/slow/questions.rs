//! What operators ask: most of it is answered at once, the rest by all workers together.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::SlowPath;
use super::gathering::{self, Gathered, Gathering, Part};
use crate::admin::{Answer, CounterRow, Pending, Question};
use crate::clock;
use crate::handover::Command;
use crate::metrics::{self, Process, Sources};
use crate::worker::WorkerCounters;

/// How long workers have to answer an operator's question.
const ANSWERS: Duration = Duration::from_secs(1);

impl SlowPath {
    pub(super) fn take_question(&mut self, Pending { question, answer }: Pending) {
        let answer_now = match &question {
            _ if self.stopping => Answer::Error("the gateway is stopping".to_owned()),
            Question::Terminate { locator } => self.terminate(locator),
            Question::Reload => self.count_reload(),
            Question::Compromised { client } => self.compromised(client),
            Question::Move { locator, same_path } => return self.force_move(locator, *same_path, answer),
            Question::Slots => return self.gather(Part::Slots, answer),
            Question::MoveSlots(order) => return self.move_slots(*order, answer),
            Question::Handover => return self.begin_restart(answer),
            Question::Sessions => return self.gather_sessions(answer),
            Question::Counters => return self.gather(Part::Counters, answer),
            Question::Audit => Answer::Audit(self.parts.records.status()),
            Question::Metrics => return self.gather(Part::Metrics, answer),
        };
        // Whoever asked may have gone.
        let _ = answer.send(answer_now);
    }

    pub(super) fn is_gathering(&self, part: Part) -> bool {
        self.gatherings.iter().any(|gathering| gathering.part == part)
    }

    /// Asks all workers, unless they are being asked: then the operator gets the same answer.
    pub(super) fn gather(&mut self, part: Part, answer: oneshot::Sender<Answer>) {
        if let Some(gathering) = self.gatherings.iter_mut().find(|gathering| gathering.part == part) {
            gathering.join(answer);
            return;
        }
        let mut gathering = Gathering::new(part, self.owners.count(), Instant::now() + ANSWERS);
        gathering.join(answer);
        self.gatherings.push(gathering);
        self.owners.tell_all(|| match part {
            Part::Sessions => Command::Views,
            Part::Counters | Part::Metrics | Part::Slots => Command::Counters,
        });
    }

    /// Answers those whose gathering is over.
    pub(super) fn finish_gatherings(&mut self, is_over: impl Fn(&Gathering) -> bool) {
        let over: Vec<_> = self.gatherings.extract_if(.., |gathering| is_over(gathering)).collect();
        over.into_iter().for_each(|gathering| {
            gathering.finish(|gathered| match gathered {
                Gathered::Sessions(rows) => Answer::Sessions(rows),
                Gathered::Counters(workers) => {
                    let rows = self.own_counters().into_iter().chain(gathering::worker_rows(&workers));
                    Answer::Counters(rows.filter(|row| row.value > 0).collect())
                }
                Gathered::Metrics(workers) => Answer::Metrics(self.metrics_page(&workers)),
                Gathered::Slots(workers) => Answer::Slots(self.slot_rows(&workers)),
            });
        });
    }

    fn metrics_page(&mut self, workers: &[WorkerCounters]) -> String {
        let now = clock::now();
        let under_load = self.parts.desk.is_under_load(now);
        self.metrics.tally.review(now);
        let parts = &self.parts;
        metrics::render(&Sources {
            policy: &parts.config.policy,
            ports: &parts.ports,
            slow: &self.metrics,
            handshakes: parts.desk.counters(),
            tombstones: parts.desk.tombstones(),
            under_load,
            xdp: parts.steering.counters().ok(),
            maps: *parts.steering.ledger(),
            security: parts.desk.security(),
            workers,
            process: Process::read(),
            audit: parts.records.status(),
        })
    }

    fn count_reload(&mut self) -> Answer {
        let answer = self.reload();
        let (accepted, refused) = &mut self.metrics.reloads;
        *if matches!(answer, Answer::Reloaded { .. }) { accepted } else { refused } += 1;
        answer
    }

    pub(super) fn own_counters(&self) -> Vec<CounterRow> {
        let row = |place: &str, name: &str, value: u64| CounterRow { place: place.into(), name: name.into(), value };
        let mut rows = Vec::new();
        match self.parts.steering.counters() {
            Ok(counters) => {
                rows.extend(counters.iter().map(|(counter, value)| row("xdp", counter.name(), value)));
            }
            Err(error) => tracing::warn!(%error, "the counters of the XDP programs cannot be read"),
        }
        rows.extend(self.counters.iter().map(|(reason, value)| row("slow path", reason.name(), value)));
        rows.extend(self.parts.desk.counters().iter().map(|(reason, value)| row("handshake", reason.name(), value)));
        rows.push(row("slow path", "replies_unsent", self.unsent));
        rows.extend(self.parts.records.counters());
        rows
    }
}
