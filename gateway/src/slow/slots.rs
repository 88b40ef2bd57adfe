//! Slots that move from one worker to another while their sessions carry traffic (SL-4).
//!
//! | step | who | what |
//! |---|---|---|
//! | 1 | slow path | holds back what is for the slot, and tells its owner to give it up |
//! | 2 | old worker | takes the sessions out; publishes their records, tells their events, then gives them away as one parcel |
//! | 3 | slow path | writes the new owner into the slot table, hands it the parcel, and what was held back behind it |
//! | 4 | new worker | takes the sessions in, with a record of each |
//! | 5 | slow path | steers the slot and the inner addresses to the new worker; log; answer |
//!
//! The steering comes after both workers' tables and before the events, as at a jump (RS-3): it is an optimisation, and
//! each worker refuses what is not its own. Between steps 2 and 5 packets of the slot reach the old worker and are
//! dropped there (NOT_AUTHORITATIVE_OWNER). Steered earlier, they would be dropped by the new one instead.

use std::collections::VecDeque;
use std::time::Duration;

use jumpgate_protocol::gateway::Parcel;
use jumpgate_protocol::ident::{Locator, Slot};
use jumpgate_protocol::reason::Reason;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::SlowPath;
use super::gathering::Part;
use super::owners::worker_of;
use super::roster::Steer;
use crate::admin::{Answer, SlotOrder, SlotRow};
use crate::handover::Command;
use crate::worker::WorkerCounters;
use crate::xdp::{Steering, XdpError};

/// Slots under way at once: enough that neither worker waits for the slow path, few enough that each is quickly there.
const UNDER_WAY: usize = 8;
/// How long an operator waits for all slots; his tool gives up two seconds later. They go on moving without him.
const PATIENCE: Duration = Duration::from_secs(3);
/// What shows an operator where slots are.
const CURE: &str = "`jumpgate slots` shows what each worker has";

/// What is under way.
#[derive(Default)]
pub(super) struct Transfers {
    order: Option<Order>,
    /// Operators who want to see all sessions: asked while none is between two workers, so that none is missing.
    postponed: Vec<oneshot::Sender<Answer>>,
    lost: Option<Slot>,
}

/// An operator's order.
struct Order {
    /// Which slots are still to go, and where to.
    waiting: VecDeque<(Slot, usize)>,
    under_way: Vec<UnderWay>,
    moved: usize,
    sessions: usize,
    /// Slots that their owners could not give up.
    kept: usize,
    answer: Option<oneshot::Sender<Answer>>,
    until: Instant,
}

struct UnderWay {
    slot: Slot,
    to: usize,
    /// When its owner was told to give it up.
    since: Instant,
    /// What is in it, once it was given up.
    sessions: Vec<Locator>,
}

impl Transfers {
    /// A slot whose sessions nobody has any more.
    pub(super) const fn lost(&self) -> Option<Slot> {
        self.lost
    }

    /// A worker refused a slot, and its sessions went with the parcel.
    pub(super) fn lose(&mut self, slot: Slot) {
        self.lost = Some(slot);
    }

    /// When the operator's patience is over.
    pub(super) fn until(&self) -> Option<Instant> {
        self.order.as_ref().filter(|order| order.answer.is_some()).map(|order| order.until)
    }

    /// Whether an order is being carried out.
    pub(super) fn is_busy(&self) -> bool {
        self.order.is_some()
    }

    /// Tells an operator who has waited long enough how far it is.
    pub(super) fn tell_progress(&mut self, now: Instant) {
        if self.until().is_some_and(|until| now >= until)
            && let Some(order) = &mut self.order
        {
            order.answer_now();
        }
    }

    /// What is known of a slot that is under way.
    fn of(&mut self, slot: Slot) -> Option<&mut UnderWay> {
        self.order.as_mut()?.under_way.iter_mut().find(|one| one.slot == slot)
    }

    /// A slot is not under way any more.
    fn take(&mut self, slot: Slot) -> Option<UnderWay> {
        let under_way = &mut self.order.as_mut()?.under_way;
        let index = under_way.iter().position(|one| one.slot == slot)?;
        Some(under_way.swap_remove(index))
    }
}

impl Order {
    fn left(&self) -> usize {
        self.waiting.len() + self.under_way.len()
    }

    fn answer_now(&mut self) {
        let Some(answer) = self.answer.take() else { return };
        let Self { moved, sessions, kept, .. } = *self;
        let told = match kept {
            0 => Answer::Moved { slots: moved, sessions, left: self.left() },
            _ => Answer::Refused {
                problem: format!(
                    "{kept} slot(s) stayed where they are: their worker has lost audit records to declare; {moved} moved"
                ),
                cure: "see `jumpgate audit status` for what is wrong with the trace, and order it again".to_owned(),
            },
        };
        // Whoever asked may have gone.
        let _ = answer.send(told);
    }
}

impl SlowPath {
    /// Begins to move slots; the operator is answered when all have moved.
    pub(super) fn move_slots(&mut self, order: SlotOrder, answer: oneshot::Sender<Answer>) {
        let planned = match &self.transfers.order {
            Some(running) => Err((
                format!("slots are being moved already; {} are still to go", running.left()),
                "order it again when that is done".to_owned(),
            )),
            None if self.restart.is_some() => Err((
                "the sessions are being handed over to the next run".to_owned(),
                "order it there; a restart spreads the slots evenly".to_owned(),
            )),
            None => plan(order, self.owners.count(), |slot| self.owners.of(slot)),
        };
        match planned {
            Ok(waiting) => {
                tracing::info!(?order, slots = waiting.len(), "slots move");
                self.transfers.order = Some(Order {
                    waiting,
                    under_way: Vec::new(),
                    moved: 0,
                    sessions: 0,
                    kept: 0,
                    answer: Some(answer),
                    until: Instant::now() + PATIENCE,
                });
            }
            Err((problem, cure)) => {
                let _ = answer.send(Answer::Refused { problem, cure });
            }
        }
    }

    /// Calls the next slots in, and ends an order that is carried out.
    pub(super) fn go_on_with_slots(&mut self) {
        let looked_at = self.is_gathering(Part::Sessions) || !self.transfers.postponed.is_empty();
        if let Some(order) = &mut self.transfers.order {
            if self.stopping {
                order.waiting.clear();
            }
            while !looked_at
                && order.under_way.len() < UNDER_WAY
                && let Some((slot, to)) = order.waiting.pop_front()
            {
                order.under_way.push(UnderWay { slot, to, since: Instant::now(), sessions: Vec::new() });
                self.owners.call_in(slot);
            }
            if order.left() == 0 {
                order.answer_now();
                let Order { moved, sessions, kept, .. } = *order;
                let reason = Reason::OwnershipTransferred;
                tracing::info!(%reason, slots = moved, sessions, kept, "slots have moved");
                self.transfers.order = None;
            }
        }
        if self.transfers.order.as_ref().is_none_or(|order| order.under_way.is_empty()) {
            for answer in std::mem::take(&mut self.transfers.postponed) {
                self.gather(Part::Sessions, answer);
            }
        }
    }

    /// An operator wants to see all sessions.
    pub(super) fn gather_sessions(&mut self, answer: oneshot::Sender<Answer>) {
        self.transfers.postponed.push(answer);
        self.go_on_with_slots();
    }

    /// A worker gave a slot up.
    pub(super) fn slot_released(&mut self, worker: usize, parcel: Parcel) {
        let slot = parcel.slot();
        let Some(one) = self.transfers.of(slot) else {
            tracing::error!(worker, slot = slot.number(), "a slot was given up that nobody wanted");
            return self.transfers.lose(slot);
        };
        one.sessions.extend(parcel.sessions());
        let to = one.to;
        self.owners.hand_to(to, parcel);
        if self.stopping {
            // It was told so when the slot was under way.
            let reason = Reason::GatewayShutdown;
            self.owners.tell(to, Command::TerminateAll { reason });
        }
    }

    /// A worker could not give a slot up.
    pub(super) fn slot_kept(&mut self, worker: usize, slot: Slot) {
        tracing::warn!(worker, slot = slot.number(), "a slot stays: audit records are lost and not declared yet");
        self.transfers.take(slot);
        self.owners.keep(slot);
        self.metrics.slots.kept += 1;
        if let Some(order) = &mut self.transfers.order {
            order.kept += 1;
        }
    }

    /// A worker has taken a slot over.
    pub(super) fn slot_adopted(&mut self, worker: usize, slot: Slot) {
        let Some(UnderWay { sessions, since, .. }) = self.transfers.take(slot) else { return };
        if let Err(error) = self.parts.steering.set_slot(slot.number(), Some(worker as u32)) {
            tracing::error!(%error, slot = slot.number(), "the steering of a slot cannot be changed");
        }
        for session in &sessions {
            if let Some(steer) = self.parts.roster.handed_over(*session, worker) {
                self.steer(steer);
            }
            self.metrics.tally.handed_over(*session, worker);
        }
        let reason = Reason::OwnershipTransferred;
        self.counters.count(reason);
        self.metrics.slots.moved.observe(since.elapsed());
        tracing::debug!(%reason, slot = slot.number(), worker, sessions = sessions.len(), "a slot has moved");
        if let Some(order) = &mut self.transfers.order {
            order.moved += 1;
            order.sessions += sessions.len();
        }
    }

    /// Has packets for an inner address reach that worker, or nobody.
    pub(super) fn steer(&mut self, Steer { index, worker }: Steer) {
        if let Err(error) = self.parts.steering.set_client(index, worker.map(|worker| worker as u32)) {
            tracing::error!(%error, index, "the inside steering cannot be changed");
        }
    }

    /// What each worker owns.
    pub(super) fn slot_rows(&self, workers: &[WorkerCounters]) -> Vec<SlotRow> {
        let mut sessions = vec![0; self.owners.count()];
        for locator in self.parts.roster.locators() {
            sessions[self.owners.of(locator.slot())] += 1;
        }
        let row = |counters: &WorkerCounters| {
            let worker = usize::from(counters.worker);
            let (slots, leaving) = self.owners.holdings(worker);
            SlotRow {
                worker: counters.worker,
                slots,
                leaving,
                sessions: sessions[worker],
                rx_packets: counters.outside.received,
                tx_packets: counters.outside.sent,
                misdirected: counters.drops().value(Reason::NotAuthoritativeOwner),
            }
        };
        workers.iter().map(row).collect()
    }
}

/// The steering of all slots to their owners.
pub fn steer_slots(steering: &mut Steering, workers: usize) -> Result<(), XdpError> {
    Slot::all().try_for_each(|slot| steering.set_slot(slot.number(), Some(worker_of(slot, workers) as u32)))
}

/// Which slots go where; or why none, and what to do about it.
fn plan(
    order: SlotOrder,
    workers: usize,
    owner: impl Fn(Slot) -> usize,
) -> Result<VecDeque<(Slot, usize)>, (String, String)> {
    let known = |worker: u16| match usize::from(worker) {
        known if known < workers => Ok(known),
        _ => Err((format!("there is no worker {worker}: they are 0 to {}", workers - 1), CURE.to_owned())),
    };
    let goals: Vec<(Slot, usize)> = match order {
        SlotOrder::Move { first, last, to } => {
            let to = known(to)?;
            if first > last || Slot::new(last).is_none() {
                let problem = format!("{first}-{last} is no range of slots");
                return Err((
                    problem,
                    "slots are 0 to 4095; the first three digits of a session id are its own".into(),
                ));
            }
            Slot::all().filter(|slot| (first..=last).contains(&slot.number())).map(|slot| (slot, to)).collect()
        }
        SlotOrder::Drain { worker } => {
            let from = known(worker)?;
            let others: Vec<usize> = (0..workers).filter(|other| *other != from).collect();
            if others.is_empty() {
                let cure = "a gateway with more workers needs as many receive queues; see docs/operations.md";
                return Err(("there is no other worker".to_owned(), cure.to_owned()));
            }
            Slot::all().filter(|slot| owner(*slot) == from).zip(others.into_iter().cycle()).collect()
        }
        SlotOrder::Balance => Slot::all().map(|slot| (slot, worker_of(slot, workers))).collect(),
    };
    Ok(goals.into_iter().filter(|(slot, to)| owner(*slot) != *to).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(order: SlotOrder, workers: usize) -> Vec<(u16, usize)> {
        let planned = plan(order, workers, |slot| worker_of(slot, workers)).expect("a plan");
        planned.into_iter().map(|(slot, to)| (slot.number(), to)).collect()
    }

    #[test]
    fn a_range_moves_but_for_what_is_there_already() {
        assert_eq!(numbers(SlotOrder::Move { first: 10, last: 14, to: 1 }, 2), [(10, 1), (12, 1), (14, 1)]);
        assert_eq!(numbers(SlotOrder::Move { first: 11, last: 11, to: 1 }, 2), []);
        assert_eq!(numbers(SlotOrder::Move { first: 0, last: 4095, to: 0 }, 2).len(), 2048);
    }

    #[test]
    fn a_drained_worker_keeps_nothing_and_the_others_share_it() {
        let plan = numbers(SlotOrder::Drain { worker: 0 }, 3);
        assert_eq!(plan.len(), 1366, "4096 by three, rounded up");
        assert!(plan.iter().all(|(slot, to)| slot % 3 == 0 && *to != 0));
        assert_eq!(plan.iter().filter(|(_, to)| *to == 1).count(), 683);
    }

    #[test]
    fn balance_brings_back_what_was_moved() {
        assert_eq!(numbers(SlotOrder::Balance, 2), []);
        let moved = plan(SlotOrder::Balance, 2, |_| 1).expect("a plan");
        assert_eq!(moved.len(), 2048);
        assert!(moved.iter().all(|(slot, to)| slot.number() % 2 == 0 && *to == 0));
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_words() {
        let problem = |order, workers| plan(order, workers, |slot| worker_of(slot, workers)).expect_err("refused").0;
        assert_eq!(problem(SlotOrder::Move { first: 0, last: 1, to: 2 }, 2), "there is no worker 2: they are 0 to 1");
        assert_eq!(problem(SlotOrder::Move { first: 2, last: 1, to: 1 }, 2), "2-1 is no range of slots");
        assert_eq!(problem(SlotOrder::Move { first: 0, last: 4096, to: 1 }, 2), "0-4096 is no range of slots");
        assert_eq!(problem(SlotOrder::Drain { worker: 0 }, 1), "there is no other worker");
        assert_eq!(problem(SlotOrder::Drain { worker: 9 }, 2), "there is no worker 9: they are 0 to 1");
    }
}
