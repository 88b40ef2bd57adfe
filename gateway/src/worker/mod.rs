//! Workers: the threads that forward.
//!
//! A worker owns its share of both ports, and the sessions whose slots are its own. It shares nothing with the others
//! but the way home of frames. Each round it takes a batch from every queue of both ports, sends each packet on in the
//! frame it came in, and makes one system call per port to let them leave. No lock, no allocation, no system call and
//! no look at other sessions per packet.
//!
//! With nothing to do it looks around a few times more, then sleeps in `poll` until a packet, a command, a timer or
//! another worker's frames wake it.
//!
//! - [`DataPath`] is what happens to one packet.
//! - [`Sessions`] is what it needs of the protocol; [`Bare`] stands in for it where only forwarding is measured.
//! - [`Worker`] moves batches, obeys commands and keeps time.

mod bare;
mod checksum;
mod counters;
mod headers;
mod hops;
mod mss;
mod path;
mod refusals;
mod run;
mod sessions;
mod shard;
mod too_big;

use std::io;
use std::thread::{self, JoinHandle};

use jumpgate_audit::ring::Publisher;
use jumpgate_protocol::gateway::AddressPool;

pub use bare::Bare;
pub use counters::{Traffic, WorkerCounters};
pub use path::{DataPath, PathCounters, Unresolved, Verdict};
pub use refusals::ControlRefusals;
pub use run::Worker;
pub use sessions::Sessions;

use crate::clock;
use crate::handover::WorkerEnd;
use crate::port::WorkerPorts;

/// A worker's thread has this name and the worker's number.
pub const THREAD_NAME: &str = "jg-worker-";

/// What a worker needs to know beside its ports and sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// The CPU that it is pinned to; the scheduler's choice if none.
    pub cpu: Option<usize>,
    /// The clients' inner addresses.
    pub pool: AddressPool,
    /// The largest IP packet that the tunnel carries.
    pub inner_mtu: u16,
}

/// Starts a worker on a thread of its own. It ends after [`Command::Stop`](crate::handover::Command::Stop), and gives
/// its share of the ports up. Its sessions' audit records go to `records`, if a trace is kept.
pub fn spawn<S: Sessions>(
    config: WorkerConfig,
    ports: WorkerPorts,
    sessions: S,
    end: WorkerEnd<S>,
    records: Option<Publisher>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("{THREAD_NAME}{}", ports.worker())).spawn(move || {
        if let Some(cpu) = config.cpu {
            pin(cpu);
        }
        let path = DataPath::new(sessions, config.pool, config.inner_mtu, clock::now());
        Worker::new(ports, path, end).recording(records).run();
    })
}

/// Binds the calling thread to a CPU. A worker that cannot be pinned still works, only less evenly.
fn pin(cpu: usize) {
    let mut set = nix::sched::CpuSet::new();
    let pinned = set.set(cpu).and_then(|()| nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set));
    if let Err(error) = pinned {
        tracing::warn!(cpu, %error, "worker not pinned: does the CPU exist, and may this process use it?");
    }
}

#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
mod tests;
