//! The slow path: one thread that answers handshakes, hands control messages to the workers that own their sessions,
//! keeps next hops true, and speaks with operators.
//!
//! It never touches a session: it sends commands to the owner and hears reports. All that it waits for (sockets,
//! netlink, the workers' bell, operators, signals) waits in one tokio runtime on one thread, which is why tokio earns
//! its place here and nowhere near a packet of DATA.

mod filter;
mod gathering;
mod inside_hop;
mod network;
mod orders;
mod owners;
mod questions;
mod reload;
mod restart;
mod roster;
mod slots;
mod sockets;

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use jumpgate_protocol::gateway::{EventKind, HandshakeDesk, Reply, SessionEvent, SessionView, Shard};
use jumpgate_protocol::ident::{Arrival, Tuple};
use jumpgate_protocol::machine::TransitionId;
use jumpgate_protocol::reason::{Reason, ReasonCounters};
use jumpgate_protocol::wire::{ControlPacket, MessageType};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::admin::Pending;
use crate::audit::SlowRecords;
use crate::clock;
use crate::config::Config;
use crate::doorbell::Doorbell;
use crate::fault::Fault;
use crate::handover::{Command, Report, SlowEnd};
use crate::metrics::{PortLabels, SlowCounters};
use crate::net::{Change, Netlink, NextHops, Watcher};
use crate::sys::{give_back_heap, readable};
use crate::xdp::Steering;

use gathering::{Gathering, Part};
use orders::Move;
use restart::Restart;
use slots::Transfers;

pub use filter::{Filter, Refused, Request};
pub use inside_hop::InsideHop;
pub use owners::{Owners, worker_of};
pub use roster::{Roster, Steer};
pub use slots::steer_slots;
pub use sockets::{ListenError, Sockets, Unsent};

/// A report of a worker's shard.
type WorkerReport = Report<SessionEvent, SessionView>;

/// How often the kernel is asked to check doubtful neighbours; it forgets unused ones after a minute at the earliest.
const NEIGHBOUR_CHECK: Duration = Duration::from_secs(15);
/// Batches of datagrams read in one turn, so that a flood of them does not keep reports and operators waiting.
const BATCHES_PER_TURN: usize = 8;
/// Replies that are gathered before they are sent: some batches of the socket, and little enough to stay in the cache.
const REPLIES: usize = 256;
/// How soon a command that found a worker's queue full is tried again.
const RETRY: Duration = Duration::from_millis(5);
/// How long clients are told of the end: three copies of TERMINATE, 250 ms apart (TM-1), and a little.
const FAREWELL: Duration = Duration::from_millis(600);
/// A worker that does not stop within this time hangs; the process ends anyway and the kernel cleans up.
pub const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// What the slow path is made of. All parts are open and filled; see [`crate::run`] for the order.
pub struct Parts {
    /// Kernel sockets of the listen addresses.
    pub sockets: Sockets,
    /// Limits of control messages.
    pub filter: Filter,
    /// The handshake.
    pub desk: HandshakeDesk,
    /// Ends of the queues to the workers, in the order of their numbers.
    pub workers: Vec<SlowEnd<Shard>>,
    /// What the workers ring.
    pub bell: Arc<Doorbell>,
    /// Names of clients and sessions.
    pub roster: Roster,
    /// For requests to the kernel.
    pub netlink: Netlink,
    /// For news from the kernel.
    pub watcher: Watcher,
    /// Next hops of the outside interface.
    pub next_hops: NextHops,
    /// The outside interface's number.
    pub outside: u32,
    /// The inside port's number.
    pub inside: u32,
    /// Next hop of the inside port.
    pub inside_hop: InsideHop,
    /// Own outer addresses, while they follow those of the interface (a wildcard listen address).
    pub wildcard: Option<HashSet<IpAddr>>,
    /// The XDP programs.
    pub steering: Steering,
    /// The configuration in force, without its clients: desk and roster have them.
    pub config: Config,
    /// Where the desk's audit records go.
    pub records: SlowRecords,
    /// How the ports turned out, for the metrics.
    pub ports: [PortLabels; 2],
}

/// The slow path's thread of control.
pub struct SlowPath {
    parts: Parts,
    owners: Owners,
    bell: AsyncFd<OwnedFd>,
    news: AsyncFd<OwnedFd>,
    counters: ReasonCounters,
    /// What is counted for the metrics alone.
    metrics: SlowCounters,
    /// What to send in the name of workers, gathered for one system call.
    replies: Vec<(Tuple, ControlPacket)>,
    /// Replies that the kernel did not take, beside those whose queue was full.
    unsent: u64,
    tables_due: Option<Instant>,
    /// How long the last reading of the tables took.
    tables_cost: Duration,
    neighbours_due: Instant,
    /// Questions that the workers are being asked; one for each part at most.
    gatherings: Vec<Gathering>,
    /// Operators who wait to hear of a session that is to move.
    moves: Vec<Move>,
    /// Slots on their way from one worker to another.
    transfers: Transfers,
    /// Workers whose threads have ended.
    ended: HashSet<usize>,
    stopping: bool,
    /// A planned restart that is being prepared.
    restart: Option<Restart>,
    /// The sessions are the next run's: this one ends without a word.
    handed_over: bool,
}

impl SlowPath {
    /// Joins the parts, tells the workers the next hops and the steering its owners. Needs a tokio runtime.
    pub fn new(mut parts: Parts) -> io::Result<Self> {
        let owners = Owners::new(std::mem::take(&mut parts.workers));
        let now = Instant::now();
        let mut slow = Self {
            bell: readable(&*parts.bell)?,
            news: readable(&parts.watcher)?,
            owners,
            counters: ReasonCounters::default(),
            metrics: SlowCounters::default(),
            replies: Vec::with_capacity(REPLIES),
            unsent: 0,
            tables_due: None,
            tables_cost: Duration::ZERO,
            neighbours_due: now + NEIGHBOUR_CHECK,
            gatherings: Vec::new(),
            moves: Vec::new(),
            transfers: Transfers::default(),
            ended: HashSet::new(),
            stopping: false,
            restart: None,
            handed_over: false,
            parts,
        };
        slow.tell_inside_hop();
        slow.read_tables();
        give_back_heap();
        Ok(slow)
    }

    /// Serves until `stop` ends or something fails that cannot be waited out, then tells all clients and stops the
    /// workers.
    pub async fn run(
        mut self,
        mut questions: mpsc::Receiver<Pending>,
        stop: &mut mpsc::Receiver<()>,
    ) -> Result<(), Fault> {
        let served = self.serve(&mut questions, stop, None).await;
        self.stopping = true;
        self.thaw();
        if self.parts.roster.count() > 0 && !self.handed_over {
            tracing::info!(sessions = self.parts.roster.count(), "telling the clients that the gateway stops");
            self.owners.tell_all(|| Command::TerminateAll { reason: Reason::GatewayShutdown });
            // Whatever fails now: the end is near anyway.
            let _ = self.serve(&mut questions, stop, Some(Instant::now() + FAREWELL)).await;
        }
        if let Err(error) = self.parts.steering.detach() {
            tracing::warn!(%error, "an XDP program may be left over; `jumpgate unload` removes it");
        }
        self.owners.tell_all(|| Command::Stop);
        self.wait_for_workers().await;
        served
    }

    /// The event loop. Ends at the deadline, or when `stop` asks for it (a second time: at once).
    async fn serve(
        &mut self,
        questions: &mut mpsc::Receiver<Pending>,
        stop: &mut mpsc::Receiver<()>,
        deadline: Option<Instant>,
    ) -> Result<(), Fault> {
        loop {
            self.parts.bell.arm();
            self.take_reports();
            self.parts.records.take(clock::now(), &mut self.parts.desk);
            if !self.stopping && !self.ended.is_empty() {
                // Its sessions are gone. A service manager restarts a gateway that ends, not one that lives on by half.
                return Err(Fault::ours(format!("worker {:?} ended by a panic", self.ended)));
            }
            if self.handed_over {
                return Ok(());
            }
            if let Some(slot) = self.transfers.lost() {
                return Err(Fault::ours(format!("no worker has the sessions of slot {} any more", slot.number())));
            }
            self.go_on_with_slots();
            let backlog = self.owners.flush() | self.tell_changes();
            let wake = self.next_wake(backlog, deadline);
            tokio::select! {
                _ = stop.recv() => return Ok(()),
                ready = self.bell.readable() => ready.map_err(Fault::ours)?.clear_ready(),
                ready = self.parts.sockets.readable(), if self.restart.is_none() => {
                    ready.map_err(Fault::ours)?;
                    self.take_datagrams();
                }
                ready = self.news.readable() => {
                    ready.map_err(Fault::ours)?.clear_ready();
                    self.take_news()?;
                }
                Some(pending) = questions.recv() => self.take_question(pending),
                () = tokio::time::sleep_until(wake) => {}
            }
            self.parts.bell.disarm();
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Ok(());
            }
            self.run_timers(now);
        }
    }

    fn next_wake(&self, backlog: bool, deadline: Option<Instant>) -> Instant {
        let retry = backlog.then(|| Instant::now() + RETRY);
        let answers = self.gatherings.iter().map(|gathering| gathering.until).min();
        let moves = self.moves.iter().map(|one| one.until).min();
        let slots = self.transfers.until();
        let restart = self.restart.as_ref().map(|restart| restart.until);
        [retry, deadline, self.tables_due, answers, moves, slots, restart]
            .into_iter()
            .flatten()
            .fold(self.neighbours_due, Instant::min)
    }

    fn run_timers(&mut self, now: Instant) {
        if self.tables_due.is_some_and(|due| now >= due) {
            self.tables_due = None;
            self.read_tables();
        }
        self.finish_gatherings(|gathering| now >= gathering.until);
        self.expire_moves(now);
        self.transfers.tell_progress(now);
        self.expire_restart(now);
        if now >= self.neighbours_due {
            self.neighbours_due = now + NEIGHBOUR_CHECK;
            let doubtful: Vec<_> = self.parts.next_hops.doubtful().collect();
            self.apply(doubtful);
            self.resolve_inside();
        }
    }

    fn take_datagrams(&mut self) {
        for _ in 0..BATCHES_PER_TURN {
            if self.take_batch() == 0 {
                break;
            }
        }
    }

    /// Takes what one system call gives; gives how much that was.
    fn take_batch(&mut self) -> usize {
        let now = clock::now();
        let Self { parts, owners, counters, metrics, unsent, stopping, .. } = self;
        let Parts { sockets, filter, desk, next_hops, roster, .. } = parts;
        let mut changes = Vec::new();
        // Replies leave after the batch: the sockets are being read meanwhile.
        let mut replies: Vec<(Tuple, Vec<u8>)> = Vec::new();
        let received = sockets.receive(|tuple, datagram| {
            let request = match filter.look(now, tuple.peer.ip(), datagram) {
                Ok(request) => request,
                Err(Refused { reason, scope }) => {
                    counters.count(reason);
                    metrics.refused(datagram, reason, scope);
                    return desk.refused_by_driver(now, tuple.peer, datagram, reason, scope);
                }
            };
            let route = next_hops.route_to(tuple.peer.ip(), &mut changes);
            let arrival = Arrival { tuple, route, queue: 0 };
            match request {
                Request::Hello if *stopping => counters.count(Reason::CapacityExceeded),
                Request::Hello => {
                    let outcome = desk.hello(now, &arrival, datagram);
                    if let Some(mut birth) = outcome.birth {
                        birth.arrival.route = next_hops.follow(tuple.peer.ip(), &mut changes);
                        roster.birth(&birth);
                        metrics.tally.hello(now, birth.locator, birth.policy.clone());
                        owners.tell_owner(birth.locator.slot(), Command::Birth(Box::new(birth)));
                        if let Some(session) = outcome.fixation {
                            let reason = Reason::SecSessionFixationAttempt;
                            tracing::warn!(%session, %reason, "a client named the session of another one; left alone");
                        }
                    } else if let Some(reason) = outcome.refused {
                        tracing::debug!(%reason, "no session for a HELLO_INIT");
                    }
                    let is_cookie = |reply: &Vec<u8>| reply.first() == Some(&(MessageType::HelloRetry as u8));
                    metrics.cookies += u64::from(outcome.reply.as_ref().is_some_and(is_cookie));
                    replies.extend(outcome.reply.map(|reply| (tuple, reply)));
                }
                Request::Control(slot) => {
                    let packet = ControlPacket::try_from(&*datagram).ok();
                    let offered =
                        packet.is_some_and(|packet| owners.offer_owner(slot, Command::Control { arrival, packet }));
                    if !offered {
                        metrics.refusals.count(datagram, Reason::QueueFull);
                        counters.count(Reason::QueueFull);
                    }
                }
            }
        });
        let received = received.unwrap_or_else(|error| {
            tracing::warn!(%error, "a tunnel socket cannot be read");
            0
        });
        send(sockets, counters, unsent, &replies);
        self.apply(changes);
        received
    }

    fn take_reports(&mut self) {
        let mut changes = Vec::new();
        for worker in 0..self.owners.count() {
            while let Some(report) = self.owners.receive(worker) {
                match report {
                    Report::Reply(reply) => {
                        let Reply { tuple, packet, .. } = *reply;
                        self.replies.push((tuple, packet));
                        if self.replies.len() == REPLIES {
                            self.send_replies();
                        }
                    }
                    Report::Event(event) => {
                        self.metrics.tally.follow(worker, self.owners.of(event.locator.slot()), &event);
                        self.take_event(worker, &event, &mut changes);
                    }
                    Report::Unresolved { peer: Some(peer), .. } => {
                        self.parts.next_hops.follow(peer, &mut changes);
                    }
                    Report::Unresolved { peer: None, .. } => self.resolve_inside(),
                    Report::Views(views) => {
                        let rows = views.iter().map(|view| self.parts.roster.row(view, worker));
                        if let Some(gathering) = self.gatherings.iter_mut().find(|g| g.part == Part::Sessions) {
                            gathering.sessions(worker, rows);
                        }
                    }
                    Report::Counters(counters) => {
                        let mut asked = self.gatherings.iter_mut().filter(|g| g.part != Part::Sessions);
                        if let Some(gathering) = asked.find(|gathering| gathering.misses(worker)) {
                            gathering.counters(worker, *counters);
                        }
                    }
                    Report::Released(parcel) => self.slot_released(worker, parcel),
                    Report::Kept(slot) => self.slot_kept(worker, slot),
                    Report::Adopted(slot) => self.slot_adopted(worker, slot),
                    Report::Fenced(slot) => {
                        self.metrics.slots.fenced += 1;
                        self.transfers.lose(slot);
                    }
                    Report::Frozen => self.frozen(worker),
                    Report::HandedOver(part) => self.written(worker, part),
                    Report::Stopped => {
                        self.ended.insert(worker);
                    }
                }
            }
        }
        self.send_replies();
        self.apply(changes);
        self.finish_gatherings(Gathering::is_complete);
    }

    fn send_replies(&mut self) {
        let Self { parts, counters, unsent, replies, .. } = self;
        send(&mut parts.sockets, counters, unsent, replies);
        replies.clear();
    }

    fn take_event(&mut self, worker: usize, event: &SessionEvent, changes: &mut Vec<Change>) {
        if let EventKind::Transition(transition) = &event.kind
            && transition.id == TransitionId::T11
            && let Some(binding) = transition.active
        {
            self.parts.next_hops.follow(binding.tuple.peer.ip(), changes);
        }
        if let EventKind::TakenOver { peer: Some(peer), .. } = &event.kind {
            let (peer, route) = (peer.ip(), self.parts.next_hops.follow(peer.ip(), changes));
            if route != Arrival::NO_ROUTE {
                changes.push(Change::Peer { peer, route });
            }
        }
        self.settle_moves(event);
        if let Some(steer) = self.parts.roster.follow(event, worker) {
            self.steer(steer);
            if let EventKind::Transition(transition) = &event.kind {
                self.metrics.steering_lag.count(clock::now().since(transition.at).as_micros());
            }
        }
        // HS-8: the new session has taken over; the old one ends.
        if let Some(replaced) = self.parts.desk.session_event(event) {
            let reason = Reason::SessionReplaced;
            self.owners.tell_owner(replaced.slot(), Command::Terminate { locator: replaced, reason });
        }
    }

    async fn wait_for_workers(&mut self) {
        let deadline = Instant::now() + STOP_PATIENCE;
        let mut running: HashSet<usize> =
            (0..self.owners.count()).filter(|worker| !self.ended.contains(worker)).collect();
        while !running.is_empty() && Instant::now() < deadline {
            self.parts.bell.arm();
            self.owners.flush();
            for worker in 0..self.owners.count() {
                while let Some(report) = self.owners.receive(worker) {
                    if matches!(report, Report::Stopped) {
                        running.remove(&worker);
                    }
                }
            }
            if !running.is_empty() {
                tokio::time::sleep(RETRY).await;
            }
            self.parts.bell.disarm();
        }
        if !running.is_empty() {
            tracing::error!(workers = ?running, "workers do not stop");
        }
    }
}

fn send<P: AsRef<[u8]>>(
    sockets: &mut Sockets,
    counters: &mut ReasonCounters,
    unsent: &mut u64,
    replies: &[(Tuple, P)],
) {
    sockets.send(replies, |_, outcome| match outcome {
        Unsent::QueueFull(count) => counters.add(Reason::QueueFull, count as u64),
        Unsent::Refused(error) => {
            *unsent += 1;
            tracing::debug!(%error, "a reply was not sent");
        }
    });
}
