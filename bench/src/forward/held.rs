//! Sessions whose worker can be held and let go.
//!
//! A held worker's receive rings fill up. Let go, it forwards what waits with nobody else at work on the machine: what it
//! can do then is not limited by what a generator offers. The worker itself is the product's, unchanged.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use jumpgate::worker::Sessions;
use jumpgate_protocol::audit::{Disclosure, Record};
use jumpgate_protocol::gateway::{Inner, Outbound, Part, PolicyChange, Reply};
use jumpgate_protocol::ident::{Arrival, Locator};
use jumpgate_protocol::policy::Rate;
use jumpgate_protocol::reason::{Reason, ReasonCounters};
use jumpgate_protocol::time::Time;

/// The worker has not come yet.
const EXPECTED: u8 = 0;
/// It came, and rests.
const RESTING: u8 = 1;
/// It is to wake up.
const CALLED: u8 = 2;
/// It is awake, and waits for the start.
const AWAKE: u8 = 3;
/// It may go.
const STARTED: u8 = 4;

/// How long a resting worker sleeps before it looks again.
const NAP: Duration = Duration::from_micros(50);

/// Holds one worker, once. It is handed over in the place of a session's birth.
#[derive(Debug, Default)]
pub(super) struct Gate(AtomicU8);

impl Gate {
    /// One step from a state to the next; nothing happens in any other state, as when the hold was given up.
    fn step(&self, from: u8, to: u8) {
        let _ = self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
    }

    fn is(&self, state: u8) -> bool {
        self.0.load(Ordering::Acquire) == state
    }

    fn wait_for(&self, state: u8, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !self.is(state) {
            ensure!(Instant::now() < deadline, "the worker did not obey within {patience:?}");
            thread::yield_now();
        }
        Ok(())
    }

    /// The worker's side. It sleeps while it is held, so that the scheduler owes it time and not the other way round,
    /// and spins for the moment before the start, so that no waking up is measured.
    fn pass(&self) {
        self.step(EXPECTED, RESTING);
        while self.is(RESTING) {
            thread::sleep(NAP);
        }
        self.step(CALLED, AWAKE);
        while self.is(AWAKE) {
            std::hint::spin_loop();
        }
    }
}

/// A worker stands still as long as this value lives.
#[must_use = "dropped, it lets the worker go"]
pub(super) struct Hold {
    gate: Arc<Gate>,
    patience: Duration,
}

impl Hold {
    /// Has a worker stop at its next round; `send` hands it the gate.
    pub(super) fn on(patience: Duration, send: impl FnOnce(Arc<Gate>) -> Result<()>) -> Result<Self> {
        let hold = Self { gate: Arc::default(), patience };
        send(hold.gate.clone())?;
        hold.gate.wait_for(RESTING, patience)?;
        Ok(hold)
    }

    /// Wakes the worker and lets it go; gives the time of the start.
    pub(super) fn start(self) -> Result<Instant> {
        self.gate.step(RESTING, CALLED);
        self.gate.wait_for(AWAKE, self.patience)?;
        Ok(Instant::now())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.gate.0.store(STARTED, Ordering::Release);
    }
}

/// Sessions as they are, but for births: these are gates.
pub(super) struct Held<S>(pub(super) S);

impl<S: Sessions> Sessions for Held<S> {
    type Birth = Arc<Gate>;
    type Event = S::Event;
    type View = S::View;

    fn birth(&mut self, _: Time, gate: Arc<Gate>) {
        gate.pass();
    }

    fn data_in(&mut self, now: Time, arrival: &Arrival, packet: &mut [u8]) -> Result<Inner, Reason> {
        self.0.data_in(now, arrival, packet)
    }

    fn data_out(&mut self, inner_index: u32, packet: &mut [u8]) -> Result<Outbound, Reason> {
        self.0.data_out(inner_index, packet)
    }

    fn control_in(&mut self, now: Time, arrival: &Arrival, packet: &mut [u8]) -> Result<(), Reason> {
        self.0.control_in(now, arrival, packet)
    }

    fn set_route(&mut self, peer: IpAddr, route: u32) {
        self.0.set_route(peer, route);
    }

    fn timeout(&mut self, now: Time) {
        self.0.timeout(now);
    }

    fn next_timeout(&self) -> Option<Time> {
        self.0.next_timeout()
    }

    fn poll_reply(&mut self) -> Option<Reply> {
        self.0.poll_reply()
    }

    fn poll_event(&mut self) -> Option<S::Event> {
        self.0.poll_event()
    }

    fn poll_record(&mut self) -> Option<Record> {
        self.0.poll_record()
    }

    fn terminate(&mut self, now: Time, locator: Locator, reason: Reason) -> bool {
        self.0.terminate(now, locator, reason)
    }

    fn change_policy(&mut self, now: Time, locator: Locator, change: PolicyChange) -> bool {
        self.0.change_policy(now, locator, change)
    }

    fn force_move(&mut self, now: Time, locator: Locator, same_path_ok: bool) -> bool {
        self.0.force_move(now, locator, same_path_ok)
    }

    fn keep_records(&mut self, now: Time, disclosure: Disclosure) {
        self.0.keep_records(now, disclosure);
    }

    fn set_resets(&mut self, resets: Rate) {
        self.0.set_resets(resets);
    }

    fn terminate_all(&mut self, now: Time, reason: Reason) {
        self.0.terminate_all(now, reason);
    }

    fn hand_over(&self) -> Part {
        self.0.hand_over()
    }

    fn views(&self, now: Time) -> Vec<S::View> {
        self.0.views(now)
    }

    fn drops(&self) -> &ReasonCounters {
        self.0.drops()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn a_worker_stands_still_until_its_hold_is_dropped() {
        let mut worker = None;
        let hold = Hold::on(PATIENCE, |gate| {
            worker = Some(thread::spawn(move || gate.pass()));
            Ok(())
        });
        let (hold, worker) = (hold.unwrap(), worker.unwrap());
        assert!(!worker.is_finished());
        drop(hold);
        worker.join().unwrap();
    }

    #[test]
    fn a_worker_is_awake_when_its_clock_starts() {
        let gate = Arc::new(Gate::default());
        let hold = Hold::on(PATIENCE, |theirs| {
            let gate = gate.clone();
            thread::spawn(move || {
                theirs.pass();
                gate.pass();
            });
            Ok(())
        });
        let called = Instant::now();
        assert!(hold.unwrap().start().unwrap() >= called);
        // It went on to the next gate, so it did not stay at the first.
        assert!(gate.wait_for(RESTING, PATIENCE).is_ok());
        gate.0.store(STARTED, Ordering::Release);
    }

    #[test]
    fn a_worker_that_comes_late_is_not_held_any_more() {
        let mut late = None;
        let hold = Hold::on(Duration::ZERO, |gate| {
            late = Some(gate);
            Ok(())
        });
        assert!(hold.is_err());
        late.unwrap().pass();
    }
}
