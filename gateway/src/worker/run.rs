//! The worker's loop: rounds, commands, timers, sleep.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arrayvec::ArrayVec;
use jumpgate_audit::ring::Publisher;
use jumpgate_protocol::distribution::Distribution;
use jumpgate_protocol::gateway::{Parcel, Title};
use jumpgate_protocol::ident::Slot;
use jumpgate_protocol::time::{Span, Time};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{DataPath, Sessions, Traffic, Verdict, WorkerCounters};
use crate::clock;
use crate::handover::{Command, Report, ReportOf, WorkerEnd};
use crate::port::{FrameBatch, Kick, MAX_QUEUES, Role, WorkerPorts};
use crate::sys::{Frame, Socket, Umem};

/// Rounds without work before a worker sleeps: some ten microseconds, in which the next packet of a running transfer
/// arrives. Longer would take the CPU from others on a small machine.
const IDLE_ROUNDS: u32 = 32;
/// Commands obeyed in a round, so that a burst of them does not keep packets waiting: in a storm a command takes some
/// fifteen microseconds, and a round of this many as long as one of packets.
const COMMANDS_PER_ROUND: usize = 16;
/// Longest sleep while sent packets hold frames: nothing wakes a worker when the device is done with them.
const SLEEP_WITH_PACKETS_IN_FLIGHT: Span = Span::from_millis(1);
/// Longest sleep while reports, or lost audit records, wait for room in their queue: nothing wakes a worker when the
/// other side makes room.
const SLEEP_WITH_REPORTS_WAITING: Span = Span::from_millis(10);

/// A worker: its share of the ports, its sessions, and the slow path's ear.
pub struct Worker<S: Sessions, K = Socket> {
    ports: WorkerPorts<K>,
    memory: Arc<Umem>,
    path: DataPath<S>,
    end: WorkerEnd<S>,
    batch: FrameBatch,
    outside: Traffic,
    inside: Traffic,
    outside_queues: Vec<u64>,
    sleeps: u64,
    batches: Distribution,
    stopping: bool,
    /// A report found no room in the last round.
    reports_waiting: bool,
    /// Takes the audit records of its sessions, if a trace is kept.
    records: Option<Publisher>,
    /// A slot that came, for the next round: by the clock of this one its sessions might be older than they were.
    arrived: Option<(Parcel, Title)>,
    /// What is to be told of slots once all else is told. The slow path has a handful of them under way at most.
    slots_told: VecDeque<ReportOf<S>>,
    /// Sessions are being handed over: packets are dropped, timers wait.
    frozen: bool,
    /// What the slow path is to be told once it knows everything else.
    owed: Option<Owed>,
}

/// A step of the hand-over.
enum Owed {
    Frozen,
    Part,
}

impl<S: Sessions, K: Kick> Worker<S, K> {
    /// A worker that is ready to run.
    pub fn new(ports: WorkerPorts<K>, path: DataPath<S>, end: WorkerEnd<S>) -> Self {
        Self {
            memory: ports.memory().clone(),
            outside_queues: vec![0; ports.queues(Role::Outside)],
            ports,
            path,
            end,
            batch: FrameBatch::new(),
            outside: Traffic::default(),
            inside: Traffic::default(),
            sleeps: 0,
            batches: Distribution::default(),
            stopping: false,
            reports_waiting: false,
            records: None,
            arrived: None,
            slots_told: VecDeque::new(),
            frozen: false,
            owed: None,
        }
    }

    /// The same worker, publishing its sessions' audit records.
    #[must_use]
    pub fn recording(self, records: Option<Publisher>) -> Self {
        Self { records, ..self }
    }

    /// Forwards until it is told to stop.
    pub fn run(mut self) {
        let mut idle = 0;
        while !self.stopping {
            let now = clock::now();
            if self.round(now) {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle > IDLE_ROUNDS {
                self.sleep(now);
                idle = 0;
            } else {
                std::hint::spin_loop();
            }
        }
        self.record(clock::now());
        // The slow path waits for this report, and makes room for it.
        while !self.end.send(Report::Stopped) && !self.end.is_abandoned() {
            thread::sleep(Duration::from_millis(1));
        }
        self.end.ring();
    }

    /// One round: commands, due timers, a batch of every queue, reports. False if there was nothing to do.
    pub fn round(&mut self, now: Time) -> bool {
        let mut busy = self.take_over(now) | self.obey(now);
        if !self.frozen && self.path.sessions().next_timeout().is_some_and(|due| due <= now) {
            self.path.sessions_mut().timeout(now);
            busy = true;
        }
        busy |= self.reply();
        for role in Role::ALL {
            for queue in 0..self.ports.queues(role) {
                busy |= self.forward(now, role, queue);
            }
            // Mostly the other port's packets; a heartbeat's answer leaves with the next round's at the latest.
            self.ports.push_out(match role {
                Role::Outside => Role::Inside,
                Role::Inside => Role::Outside,
            });
        }
        self.ports.settle();
        self.record(now);
        self.report() || busy
    }

    /// Publishes what its sessions recorded. Whatever becomes of it, nothing here depends on that (INV-23).
    fn record(&mut self, now: Time) {
        if let Some(records) = &mut self.records {
            while let Some(record) = self.path.sessions_mut().poll_record() {
                records.publish(&record);
            }
            records.settle(now);
        }
    }

    /// Moves one batch of one queue; false if there was none.
    fn forward(&mut self, now: Time, role: Role, queue: usize) -> bool {
        self.ports.receive(role, queue, &mut self.batch);
        let count = self.batch.len() as u64;
        if count == 0 {
            return false;
        }
        if self.frozen {
            self.batch.drain(..).for_each(|frame| self.ports.discard(frame));
            return true;
        }
        self.batches.count(count);
        let mut bytes = 0;
        for mut frame in self.batch.drain(..) {
            bytes += frame.len() as u64;
            let verdict = match role {
                Role::Outside => self.path.from_outside(now, &self.memory, &mut frame, queue as u16),
                Role::Inside => self.path.from_inside(now, &self.memory, &mut frame),
            };
            match verdict {
                Verdict::Send(to) => {
                    let traffic = match to {
                        Role::Outside => &mut self.outside,
                        Role::Inside => &mut self.inside,
                    };
                    if !depart(&mut self.ports, traffic, to, frame) {
                        self.path.count_congestion();
                    }
                }
                Verdict::Discard => self.ports.discard(frame),
            }
        }
        let traffic = match role {
            Role::Outside => {
                self.outside_queues[queue] += count;
                &mut self.outside
            }
            Role::Inside => &mut self.inside,
        };
        traffic.received += count;
        traffic.received_bytes += bytes;
        true
    }

    /// Sends what its sessions have to say, in frames of its own; false if they have nothing to say. What finds no frame, no
    /// room or no next hop is left to the slow path.
    fn reply(&mut self) -> bool {
        let mut said = false;
        while let Some(mut frame) = self.ports.spare(Role::Outside) {
            match self.path.say(&self.memory, &mut frame) {
                Some(Verdict::Send(to)) => {
                    if !depart(&mut self.ports, &mut self.outside, to, frame) {
                        self.path.count_congestion();
                    }
                }
                Some(Verdict::Discard) => self.ports.discard(frame),
                None => {
                    self.ports.discard(frame);
                    break;
                }
            }
            said = true;
        }
        said
    }

    /// Takes over the slot that came in the last round, if one did.
    fn take_over(&mut self, now: Time) -> bool {
        let Some((parcel, title)) = self.arrived.take() else { return false };
        let slot = parcel.slot();
        let taken = self.path.adopt(now, parcel, title);
        self.slots_told.push_back(if taken.is_ok() { Report::Adopted(slot) } else { Report::Fenced(slot) });
        true
    }

    /// Gives a slot up. What its sessions recorded is published before the parcel leaves, so that the next owner's records
    /// come after it (OB-07); while lost records are not declared that cannot be, and the slot stays.
    fn release(&mut self, now: Time, slot: Slot) {
        self.record(now);
        let settled = self.records.as_ref().is_none_or(Publisher::is_settled);
        let parcel = if settled { self.path.sessions_mut().release(now, slot) } else { None };
        self.slots_told.push_back(parcel.map_or(Report::Kept(slot), Report::Released));
    }

    /// Does what the slow path wants; false if it wants nothing.
    fn obey(&mut self, now: Time) -> bool {
        for obeyed in 0..COMMANDS_PER_ROUND {
            let Some(command) = self.end.receive() else { return obeyed > 0 };
            match command {
                Command::Birth(birth) => self.path.sessions_mut().birth(now, *birth),
                Command::Control { .. } if self.frozen => {}
                Command::Control { arrival, mut packet } => {
                    if let Err(reason) = self.path.sessions_mut().control_in(now, &arrival, &mut packet) {
                        self.path.count_refusal(&packet, reason);
                    }
                }
                Command::NextHop { id, hop } => self.path.set_hop(id, hop),
                Command::Route { peer, route } => self.path.set_route(peer, route),
                Command::ForgetPeer { peer } => self.path.forget_peer(peer),
                Command::Terminate { locator, reason } => {
                    self.path.sessions_mut().terminate(now, locator, reason);
                }
                Command::Policy { locator, change } => {
                    self.path.sessions_mut().change_policy(now, locator, change);
                }
                Command::Move { locator, same_path_ok } => {
                    self.path.sessions_mut().force_move(now, locator, same_path_ok);
                }
                Command::Disclose(disclosure) => self.path.sessions_mut().keep_records(now, *disclosure),
                Command::Resets(resets) => self.path.sessions_mut().set_resets(resets),
                Command::Freeze => {
                    self.frozen = true;
                    self.owed = Some(Owed::Frozen);
                }
                Command::HandOver => self.owed = Some(Owed::Part),
                Command::Thaw => {
                    self.frozen = false;
                    self.owed = None;
                }
                Command::TerminateAll { reason } => self.path.sessions_mut().terminate_all(now, reason),
                Command::Release(slot) => self.release(now, slot),
                Command::Adopt { parcel, title } => {
                    self.arrived = Some((parcel, title));
                    return true;
                }
                // If the queue is full the asker is too far behind to want an answer; it asks again.
                Command::Views => {
                    self.end.send(Report::Views(self.path.sessions().views(now)));
                    self.end.ring();
                }
                Command::Counters => {
                    self.end.send(Report::Counters(Box::new(self.counters())));
                    self.end.ring();
                }
                Command::Stop => {
                    self.stopping = true;
                    return true;
                }
            }
        }
        true
    }

    /// Tells the slow path what there is to tell; false if there is nothing. What finds no room stays where it is.
    fn report(&mut self) -> bool {
        let mut told = false;
        self.reports_waiting = false;
        loop {
            if !self.end.has_room() {
                self.reports_waiting = true;
                break;
            }
            let report = if let Some(event) = self.path.sessions_mut().poll_event() {
                Report::Event(event)
            } else if let Some(reply) = self.path.poll_reply() {
                Report::Reply(Box::new(reply))
            } else if let Some(missing) = self.path.poll_unresolved() {
                Report::Unresolved { peer: missing.peer, route: missing.route }
            } else if let Some(of_slot) = self.slots_told.pop_front() {
                // Last of all: what came before tells of sessions that are another's then.
                of_slot
            } else {
                match self.owed.take() {
                    Some(Owed::Frozen) => Report::Frozen,
                    Some(Owed::Part) => Report::HandedOver(self.path.sessions().hand_over()),
                    None => break,
                }
            };
            self.end.send(report);
            told = true;
        }
        if told {
            self.end.ring();
        }
        told
    }

    /// Sleeps until there is something to do.
    fn sleep(&mut self, now: Time) {
        self.flush();
        let bell = self.ports.bell().clone();
        bell.arm();
        if !self.end.has_command() && !self.ports.has_mail() {
            self.sleeps += 1;
            let mut fds = ArrayVec::<PollFd<'_>, { 1 + 2 * MAX_QUEUES as usize }>::new();
            fds.push(PollFd::new(bell.as_fd(), PollFlags::POLLIN));
            fds.extend(self.ports.pollable().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            // A signal or an error ends the sleep early; the next round sees what there is.
            let _ = poll(&mut fds, self.sleep_limit(now));
        }
        bell.disarm();
    }

    /// Keeps nothing back: neither a heartbeat's answer, nor frames of other workers' regions.
    pub(super) fn flush(&mut self) {
        Role::ALL.into_iter().for_each(|role| self.ports.push_out(role));
        self.ports.flush();
    }

    /// How long nothing may have to be done without anybody ringing.
    fn sleep_limit(&self, now: Time) -> PollTimeout {
        let timer = self.path.sessions().next_timeout().filter(|_| !self.frozen).map(|due| due.since(now));
        let in_flight = self.ports.has_packets_in_flight().then_some(SLEEP_WITH_PACKETS_IN_FLIGHT);
        let unsettled = self.records.as_ref().is_some_and(|records| !records.is_settled());
        let waiting = (self.reports_waiting || unsettled).then_some(SLEEP_WITH_REPORTS_WAITING);
        match [timer, in_flight, waiting].into_iter().flatten().min() {
            // Rounded up: a timer never fires early.
            Some(span) => {
                let millis = span.as_micros().div_ceil(1_000);
                PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        }
    }

    /// What it counted since its start.
    pub fn counters(&self) -> WorkerCounters {
        WorkerCounters {
            worker: self.ports.worker(),
            outside: self.outside,
            inside: self.inside,
            outside_queues: self.outside_queues.clone(),
            path: self.path.counters().clone(),
            sessions: self.path.sessions().drops().clone(),
            outside_kernel: self.ports.statistics(Role::Outside),
            inside_kernel: self.ports.statistics(Role::Inside),
            frames: *self.ports.ledger(),
            sleeps: self.sleeps,
            batches: self.batches.clone(),
            rings: self.ports.levels(),
            meter: self.path.sessions().meter(),
        }
    }
}

/// Queues a packet for sending, and counts it; false if the port is congested.
fn depart<K: Kick>(ports: &mut WorkerPorts<K>, traffic: &mut Traffic, to: Role, frame: Frame) -> bool {
    let bytes = frame.len() as u64;
    let queued = ports.send(to, frame);
    traffic.sent += u64::from(queued);
    traffic.sent_bytes += if queued { bytes } else { 0 };
    queued
}
