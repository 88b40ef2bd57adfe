//! The lock-free protocols of the gateway (`src/sync`), run by loom in every order that the memory model allows, within
//! a bound on preemptions. The files are those of the gateway; only what they are built of is loom's.
//!
//! A sleep that nobody ends shows as a deadlock, which loom reports. The tests with `defect` in their name have one put
//! in and must fail: they show that the models can.

#[path = "../src/sync/bell.rs"]
mod bell;
#[path = "../src/sync/end.rs"]
mod end;
#[path = "../src/sync/inbox.rs"]
mod inbox;
#[path = "interleavings/queue.rs"]
mod queue;

mod primitives {
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicBool, Ordering, fence};

    pub(crate) use crate::queue::ArrayQueue;
}

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use bell::{Bell, Event};
use end::{End, Ring, pair};
use inbox::Inbox;
use queue::ArrayQueue;

/// Preemptions in one run, unless `LOOM_MAX_PREEMPTIONS` says otherwise. Bugs of this kind need one or two.
const PREEMPTIONS: usize = 3;
/// The same where three threads run: one more multiplies the time by ten.
const PREEMPTIONS_OF_THREE: usize = 2;

fn explore(model: impl Fn() + Send + Sync + 'static) {
    explore_within(PREEMPTIONS, model);
}

fn explore_within(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.check(model);
}

/// An eventfd: signalled until cleared, and somebody may sleep on it.
#[derive(Default)]
struct Eventfd {
    signalled: Mutex<bool>,
    changed: Condvar,
}

impl Event for Eventfd {
    fn signal(&self) {
        *self.signalled.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn clear(&self) {
        *self.signalled.lock().unwrap() = false;
    }
}

impl Eventfd {
    fn is_signalled(&self) -> bool {
        *self.signalled.lock().unwrap()
    }

    /// As `poll` does without a time limit.
    fn sleep(&self) {
        let mut signalled = self.signalled.lock().unwrap();
        while !*signalled {
            signalled = self.changed.wait(signalled).unwrap();
        }
    }
}

impl<E: Event> Ring for Bell<E> {
    fn ring(&self) {
        Bell::ring(self);
    }
}

fn bell() -> Arc<Bell<Eventfd>> {
    Arc::new(Bell::new(Eventfd::default()))
}

/// A sleep as the worker's and the slow path's: announced, one look more, slept, ended.
fn sleep_unless(bell: &Bell<Eventfd>, has_work: impl Fn() -> bool) {
    bell.arm();
    if has_work() {
        // Somebody may be in the middle of queuing: loom must let it go on.
        thread::yield_now();
    } else {
        bell.event().sleep();
    }
    bell.disarm();
}

#[test]
fn no_wake_up_is_lost_whatever_the_order() {
    explore(|| {
        let (bell, queue) = (bell(), Arc::new(ArrayQueue::new(2)));
        let producer = thread::spawn({
            let (bell, queue) = (bell.clone(), queue.clone());
            move || {
                for item in 0..2 {
                    queue.push(item).expect("room for both");
                    bell.ring();
                }
            }
        });
        let mut expected = 0;
        while expected < 2 {
            match queue.pop() {
                Some(item) => {
                    assert_eq!(item, expected);
                    expected += 1;
                }
                None => sleep_unless(&bell, || !queue.is_empty()),
            }
        }
        producer.join().unwrap();
    });
}

#[test]
fn two_producers_wake_one_sleeper() {
    explore_within(PREEMPTIONS_OF_THREE, || {
        let (bell, queue) = (bell(), Arc::new(ArrayQueue::new(2)));
        let producers = [1, 2].map(|item| {
            let (bell, queue) = (bell.clone(), queue.clone());
            thread::spawn(move || {
                queue.push(item).expect("room for both");
                bell.ring();
            })
        });
        let mut sum = 0;
        while sum < 3 {
            match queue.pop() {
                Some(item) => sum += item,
                None => sleep_unless(&bell, || !queue.is_empty()),
            }
        }
        producers.into_iter().for_each(|producer| producer.join().unwrap());
    });
}

/// A bell, or something that is not quite one.
trait Wakes: Default + Send + Sync + 'static {
    fn arm(&self);
    fn ring(&self);
    fn is_signalled(&self) -> bool;
}

impl Default for Bell<Eventfd> {
    fn default() -> Self {
        Self::new(Eventfd::default())
    }
}

impl Wakes for Bell<Eventfd> {
    fn arm(&self) {
        Bell::arm(self);
    }

    fn ring(&self) {
        Bell::ring(self);
    }

    fn is_signalled(&self) -> bool {
        self.event().is_signalled()
    }
}

/// The other way to see it, which needs no sleep: after the producer is through, a sleeper that found nothing has been
/// signalled. `finds_nothing` announces the sleep and looks at the queue, in some order.
fn nobody_sleeps_beside_work<B: Wakes>(finds_nothing: fn(&B, &ArrayQueue<()>) -> bool) {
    explore(move || {
        let shared = Arc::new((B::default(), ArrayQueue::new(1)));
        let producer = thread::spawn({
            let shared = shared.clone();
            move || {
                shared.1.push(()).expect("room");
                shared.0.ring();
            }
        });
        let sleeps = finds_nothing(&shared.0, &shared.1);
        producer.join().unwrap();
        assert!(!sleeps || shared.0.is_signalled(), "a sleep that nobody ends");
    });
}

#[test]
fn whoever_sleeps_beside_work_has_been_signalled() {
    nobody_sleeps_beside_work::<Bell<Eventfd>>(|bell, queue| {
        bell.arm();
        queue.is_empty()
    });
}

/// The seeded defect: the sleeper looks first and announces its sleep afterwards.
#[test]
#[should_panic(expected = "a sleep that nobody ends")]
fn a_sleeper_that_announces_too_late_is_a_defect_that_is_found() {
    nobody_sleeps_beside_work::<Bell<Eventfd>>(|bell, queue| {
        let idle = queue.is_empty();
        bell.arm();
        idle
    });
}

/// A bell without its fences, so that both sides may look before the other has written.
#[derive(Default)]
struct Unfenced {
    sleeping: AtomicBool,
    event: Eventfd,
}

impl Wakes for Unfenced {
    fn arm(&self) {
        self.sleeping.swap(true, Ordering::Relaxed);
    }

    fn ring(&self) {
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed) {
            self.event.signal();
        }
    }

    fn is_signalled(&self) -> bool {
        self.event.is_signalled()
    }
}

/// The seeded defect: a bell without its fences.
#[test]
#[should_panic(expected = "a sleep that nobody ends")]
fn a_bell_without_its_fences_is_a_defect_that_is_found() {
    nobody_sleeps_beside_work::<Unfenced>(|bell, queue| {
        bell.arm();
        queue.is_empty()
    });
}

/// What a worker is told, and what it says.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    Work(u8),
    Stop,
}

type Talk = End<Word, Word, Bell<Eventfd>>;

fn ends(room: usize) -> (Talk, Talk, Arc<Bell<Eventfd>>, Arc<Bell<Eventfd>>) {
    let (slow_bell, worker_bell) = (bell(), bell());
    let (slow, worker) = pair((room, worker_bell.clone()), (room, slow_bell.clone()));
    (slow, worker, slow_bell, worker_bell)
}

#[test]
fn a_command_and_its_report_come_through_while_both_sides_sleep() {
    explore(|| {
        let (slow, worker, slow_bell, worker_bell) = ends(1);
        let thread = thread::spawn(move || {
            let command = loop {
                match worker.pop() {
                    Some(command) => break command,
                    None => sleep_unless(&worker_bell, || worker.has_mail()),
                }
            };
            assert!(worker.has_room());
            worker.push(command).expect("only this end adds, so the room did not go away");
            worker.ring();
        });
        slow.push(Word::Work(7)).expect("room");
        slow.ring();
        let report = loop {
            match slow.pop() {
                Some(report) => break report,
                None => sleep_unless(&slow_bell, || slow.has_mail()),
            }
        };
        assert_eq!(report, Word::Work(7));
        thread.join().unwrap();
    });
}

#[test]
fn the_last_word_reaches_a_sleeping_worker_though_its_queue_is_full() {
    explore(|| {
        let (slow, worker, _, worker_bell) = ends(1);
        let thread = thread::spawn(move || {
            loop {
                match worker.pop() {
                    Some(Word::Stop) => break,
                    Some(Word::Work(_)) => {}
                    None => sleep_unless(&worker_bell, || worker.has_mail()),
                }
            }
        });
        slow.push(Word::Work(1)).expect("room");
        slow.ring();
        slow.last_word(Word::Stop);
        thread.join().unwrap();
    });
}

#[test]
fn a_worker_learns_that_nobody_takes_its_reports() {
    explore(|| {
        let (slow, worker, _, _) = ends(1);
        let thread = thread::spawn(move || {
            // As a worker that stops: its report waits for room or for the end of the slow path.
            worker.push(Word::Work(1)).expect("room");
            while worker.push(Word::Stop).is_err() && !worker.is_abandoned() {
                thread::yield_now();
            }
        });
        drop(slow);
        thread.join().unwrap();
    });
}

/// Parcels after which the owner of an inbox is woken, in these models.
const WAKE_AT: usize = 2;

/// Sends one parcel, and offers it again if there was no room, as a worker does at the end of each of its rounds.
fn send(inbox: &Inbox<u8, Bell<Eventfd>>, parcel: u8) {
    let mut waiting = Some(parcel);
    while let Some(parcel) = waiting.take() {
        if inbox.is_full() {
            waiting = Some(parcel);
        } else if let Err(back) = inbox.put(parcel) {
            waiting = Some(back);
        }
        if waiting.is_some() {
            thread::yield_now();
        }
    }
}

#[test]
fn frames_of_two_workers_wake_the_owner_of_their_region_once_enough_of_them_wait() {
    explore_within(PREEMPTIONS_OF_THREE, || {
        let bell = bell();
        let inbox = Arc::new(Inbox::new(2, WAKE_AT, bell.clone()));
        let senders = [1, 2].map(|parcel| {
            let inbox = inbox.clone();
            thread::spawn(move || send(&inbox, parcel))
        });
        // The owner sleeps before the first comes, and goes on sleeping until the second.
        bell.arm();
        if !inbox.has_mail() {
            bell.event().sleep();
        }
        bell.disarm();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        let home: u8 = std::iter::from_fn(|| inbox.take()).sum();
        assert_eq!(home, 3, "each frame comes home once");
    });
}

#[test]
fn a_full_inbox_gives_frames_back_and_takes_them_later() {
    explore(|| {
        let bell = bell();
        let inbox = Arc::new(Inbox::new(1, WAKE_AT, bell));
        let sender = thread::spawn({
            let inbox = inbox.clone();
            move || (1..=2).for_each(|parcel| send(&inbox, parcel))
        });
        let mut home = Vec::new();
        while home.len() < 2 {
            match inbox.take() {
                Some(parcel) => home.push(parcel),
                None => thread::yield_now(),
            }
        }
        assert_eq!(home, [1, 2], "in order, none lost, none twice");
        sender.join().unwrap();
    });
}
