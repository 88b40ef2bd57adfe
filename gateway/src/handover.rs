//! What the slow path and a worker tell each other: bounded lock-free queues, and a bell at each end.
//!
//! The worker is the only writer of its sessions. The slow path never touches one: it sends a [`Command`] to the owner,
//! and hears of everything by a [`Report`].

use std::net::IpAddr;
use std::sync::Arc;
use std::thread;

use jumpgate_protocol::audit::Disclosure;
use jumpgate_protocol::gateway::{Parcel, Part, PolicyChange, Reply, Title};
use jumpgate_protocol::ident::{Arrival, Locator, Slot};
use jumpgate_protocol::policy::Rate;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::wire::ControlPacket;

use crate::doorbell::Doorbell;
use crate::sync::end::{End, pair};
use crate::worker::{Sessions, WorkerCounters};

/// Commands that wait for a worker. A burst of reattaches after a lost uplink comes all at once, and on a small machine
/// the slow path may run for some milliseconds before the worker does; beyond this the slow path waits, as it would for a
/// worker that is overloaded. About 5 MB once they were all in use.
const COMMANDS: usize = 8192;
/// Reports that wait for the slow path: a jump makes four or five. When it is full, the worker's sessions keep their
/// events until there is room. About 2.5 MB once they were all in use.
const REPORTS: usize = 8192;

/// Next hops that a worker knows; ids are below it. Hundreds of kernel neighbours are many for one gateway.
pub const MAX_NEXT_HOPS: u32 = 4096;
/// The next hop of everything that leaves by the inside port. The others, from 1 on, lead to clients.
pub const INSIDE_HOP: u32 = 0;

/// What the slow path wants of a worker. `B` is how its sessions are born.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "the queue has its size anyway; boxed, each packet would be allocated")]
pub enum Command<B> {
    /// A client was admitted: its session is this worker's from now on.
    Birth(Box<B>),
    /// A control packet reached the kernel's socket.
    Control {
        /// Where from, and the way back.
        arrival: Arrival,
        /// The UDP payload.
        packet: ControlPacket,
    },
    /// A next hop is known, has changed, or is gone.
    NextHop {
        /// Its id, below [`MAX_NEXT_HOPS`].
        id: u32,
        /// What it is now.
        hop: Option<NextHop>,
    },
    /// A peer is reached by another next hop than before.
    Route {
        /// Whose route.
        peer: IpAddr,
        /// Id of its next hop; [`Arrival::NO_ROUTE`] if there is none.
        route: u32,
    },
    /// Nobody keeps the peer's route up to date any more. Sessions that use it go on; the table of peers stays bounded.
    ForgetPeer {
        /// Whose route.
        peer: IpAddr,
    },
    /// End one session.
    Terminate {
        /// Which.
        locator: Locator,
        /// Why.
        reason: Reason,
    },
    /// Another policy is in force, or a client's key is flagged: what that means for a session.
    Policy {
        /// Which.
        locator: Locator,
        /// What it means.
        change: PolicyChange,
    },
    /// The operator wants a session to move (T05).
    Move {
        /// Which.
        locator: Locator,
        /// Whether it may end on the path that it is on.
        same_path_ok: bool,
    },
    /// Most SESSION_RESETs a second (PP78), this worker's share.
    Resets(Rate),
    /// What audit records disclose from now on. Sent only if they are kept.
    Disclose(Box<Disclosure>),
    /// Nothing happens to any session from now on but what comes by this queue; tell when all that happened is reported.
    Freeze,
    /// Write all sessions down, frozen as they are.
    HandOver,
    /// Go on: the sessions stay here.
    Thaw,
    /// End every session.
    TerminateAll {
        /// Why.
        reason: Reason,
    },
    /// A slot is to be another worker's: give it up, with all that is in it (SL-4).
    Release(Slot),
    /// A slot is this worker's from now on, with all that is in it.
    Adopt {
        /// The slot.
        parcel: Parcel,
        /// By what right.
        title: Title,
    },
    /// Report all sessions as the operator sees them.
    Views,
    /// Report the counters.
    Counters,
    /// Return from the thread. Frames under way are abandoned.
    Stop,
}

/// What a worker tells the slow path. `E` are its sessions' events, `V` their views.
#[derive(Debug)]
pub enum Report<E, V> {
    /// To be sent by the kernel's socket, as the worker does not know the way, or is congested. So it is rare, and events,
    /// which are not, need half of its room.
    Reply(Box<Reply>),
    /// Something happened to a session.
    Event(E),
    /// The answer to [`Command::Views`].
    Views(Vec<V>),
    /// The answer to [`Command::Counters`].
    Counters(Box<WorkerCounters>),
    /// A packet was dropped because nobody knows the link address on its way. Said once a second for each next hop.
    Unresolved {
        /// Where the packet was going; nothing if it was going inside.
        peer: Option<IpAddr>,
        /// The id that stands for no next hop, or [`Arrival::NO_ROUTE`].
        route: u32,
    },
    /// The answer to [`Command::Release`]. All that the worker had to tell of these sessions came before.
    Released(Parcel),
    /// The other answer: the worker keeps the slot, and its sessions never stopped.
    Kept(Slot),
    /// The answer to [`Command::Adopt`].
    Adopted(Slot),
    /// The other answer: a superseded title. The sessions are lost; a defect of ours.
    Fenced(Slot),
    /// The answer to [`Command::Freeze`]: all that happened before was reported before.
    Frozen,
    /// The answer to [`Command::HandOver`].
    HandedOver(Part),
    /// The thread is about to end; nothing follows.
    Stopped,
}

/// How a frame is addressed to reach its next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// Our link address.
    pub source_mac: [u8; 6],
    /// The next hop's link address.
    pub destination_mac: [u8; 6],
    /// VLAN of the link, if it is tagged.
    pub vlan: Option<u16>,
}

/// A report of a worker whose sessions are `S`.
pub type ReportOf<S> = Report<<S as Sessions>::Event, <S as Sessions>::View>;

type CommandOf<S> = Command<<S as Sessions>::Birth>;

/// The slow path's end. A worker whose slow path goes away, for whatever reason, stops: nobody would ever tell it to.
pub struct SlowEnd<S: Sessions>(End<CommandOf<S>, ReportOf<S>, Doorbell>);

/// The worker's end. A worker that panics reports that it is gone: its sessions are lost, and silence would hide it.
pub struct WorkerEnd<S: Sessions>(End<ReportOf<S>, CommandOf<S>, Doorbell>);

/// Connects the slow path with the worker that wakes by `worker`. All workers may share the bell `slow`.
pub fn link<S: Sessions>(slow: &Arc<Doorbell>, worker: &Arc<Doorbell>) -> (SlowEnd<S>, WorkerEnd<S>) {
    let (slow, worker) = pair((COMMANDS, worker.clone()), (REPORTS, slow.clone()));
    (SlowEnd(slow), WorkerEnd(worker))
}

impl<S: Sessions> SlowEnd<S> {
    /// Sends a command and wakes the worker; gives it back if the worker is too far behind, to be sent again later.
    #[allow(clippy::result_large_err, reason = "the command itself comes back")]
    pub fn send(&self, command: Command<S::Birth>) -> Result<(), Command<S::Birth>> {
        self.0.push(command)?;
        self.0.ring();
        Ok(())
    }

    /// The next report.
    pub fn receive(&self) -> Option<ReportOf<S>> {
        self.0.pop()
    }
}

impl<S: Sessions> Drop for SlowEnd<S> {
    fn drop(&mut self) {
        self.0.last_word(Command::Stop);
    }
}

impl<S: Sessions> Drop for WorkerEnd<S> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.last_word(Report::Stopped);
        }
    }
}

impl<S: Sessions> WorkerEnd<S> {
    /// The next command.
    pub(crate) fn receive(&self) -> Option<Command<S::Birth>> {
        self.0.pop()
    }

    /// Whether a command waits.
    pub(crate) fn has_command(&self) -> bool {
        self.0.has_mail()
    }

    /// Whether a report finds room, which does not go away.
    pub(crate) fn has_room(&self) -> bool {
        self.0.has_room()
    }

    /// Sends a report; false, and the report is lost, if there is no room. [`ring`](Self::ring) follows.
    pub(crate) fn send(&self, report: ReportOf<S>) -> bool {
        self.0.push(report).is_ok()
    }

    /// Whether the slow path's end is gone: nobody takes reports any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.0.is_abandoned()
    }

    /// Wakes the slow path for the reports that were sent.
    pub(crate) fn ring(&self) {
        self.0.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Bare;

    fn ends() -> (SlowEnd<Bare>, WorkerEnd<Bare>) {
        let bell = || Arc::new(Doorbell::new().expect("eventfd"));
        link(&bell(), &bell())
    }

    #[test]
    fn a_worker_whose_slow_path_is_gone_is_stopped_even_if_its_queue_is_full() {
        let (slow, worker) = ends();
        while slow.send(Command::Views).is_ok() {}
        drop(slow);
        let last = std::iter::from_fn(|| worker.receive()).last();
        assert!(matches!(last, Some(Command::Stop)), "{last:?}");
    }

    #[test]
    fn a_worker_that_panics_is_reported_and_one_that_ends_is_not() {
        let (slow, worker) = ends();
        drop(worker);
        assert!(slow.receive().is_none(), "a worker that stops says so itself");
        let (slow, worker) = ends();
        let died = thread::spawn(move || {
            let _end = worker;
            panic!("as a defect would");
        });
        assert!(died.join().is_err());
        assert!(matches!(slow.receive(), Some(Report::Stopped)));
    }
}
