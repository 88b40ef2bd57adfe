//! A gateway's data path as it runs in earnest, between two pairs of virtual links:
//!
//! ```text
//! NAME-far ----- NAME-out | XDP program, AF_XDP, worker, AF_XDP, XDP program | NAME-in ----- NAME-host
//! ```
//!
//! Packets are addressed to nobody's link address, so the kernel throws them away where they arrive, at the least cost.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use jumpgate::doorbell::Doorbell;
use jumpgate::handover::{Command, INSIDE_HOP, NextHop, Report, SlowEnd, link};
use jumpgate::port::{FrameSize, PlaneConfig, PortConfig, Ports, RingSizes, Role, ZeroCopy};
use jumpgate::worker::{self, Sessions, WorkerConfig, WorkerCounters};
use jumpgate::xdp::{self, Attached, Mode, ModeChoice, Side, Steering, SteeringConfig};
use jumpgate_common::counter::{Counter, Fate};
use jumpgate_common::maps::SLOT_COUNT;
use jumpgate_protocol::gateway::AddressPool;

use super::held::{Gate, Held, Hold};
use super::{Losses, Way};
use crate::links::{self, Counters};
use crate::sessions::{GATEWAY, INNER_MTU, POOL_BASE, POOL_SIZE, ROUTE};

/// The only worker.
const WORKER: u32 = 0;
/// MTU of the links.
const MTU: u32 = 1_500;
/// Longest wait for an answer of the worker.
const PATIENCE: Duration = Duration::from_secs(5);
/// A link address that no link has.
const NOBODY: [u8; 6] = [4; 6];

/// What a plant is built of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    /// How the XDP programs are to run.
    pub(super) mode: ModeChoice,
    /// The worker's CPU.
    pub(super) worker_cpu: usize,
}

/// A running data path.
pub(super) struct Plant<S: Sessions> {
    name: &'static str,
    steering: Steering,
    slow: SlowEnd<Held<S>>,
    thread: Option<JoinHandle<()>>,
    mode: Mode,
    zero_copy: bool,
}

/// What all parts of a plant have counted.
pub(super) struct Snapshot {
    programs: xdp::Counters,
    worker: WorkerCounters,
    /// Packets that arrived at `NAME-far` and `NAME-host`.
    arrived: [u64; 2],
}

impl<S: Sessions> Plant<S> {
    /// Makes the links, opens the ports, attaches the programs and starts the worker over these sessions.
    pub(super) fn start(
        name: &'static str,
        sessions: S,
        pool: AddressPool,
        clients: impl IntoIterator<Item = u32>,
        setup: Setup,
    ) -> Result<Self> {
        let [far, out, inside, host] = ["far", "out", "in", "host"].map(|end| format!("{name}-{end}"));
        links::make_pair(&out, &far)?;
        links::make_pair(&inside, &host)?;
        let ports = Ports::open(&PlaneConfig {
            outside: PortConfig { interface: out.clone(), queues: 1 },
            inside: PortConfig { interface: inside.clone(), queues: 1 },
            workers: 1,
            zero_copy: if setup.mode == ModeChoice::Generic { ZeroCopy::Off } else { ZeroCopy::Auto },
            frame_size: FrameSize::for_mtu(MTU)?,
            rings: RingSizes::default(),
        })?;
        let zero_copy = ports.info(Role::Outside).zero_copy;
        let mut steering = steer(&ports, clients)?;
        let Attached { mode, .. } = steering.attach(Side::Outside, &out, setup.mode)?;
        steering.attach(Side::Inside, &inside, setup.mode)?;

        let bell = Arc::new(Doorbell::new()?);
        let share = ports.into_workers().pop().context("there is one worker")?;
        let (slow, end) = link(&bell, share.bell());
        let config = WorkerConfig { cpu: Some(setup.worker_cpu), pool, inner_mtu: INNER_MTU };
        let thread = worker::spawn(config, share, Held(sessions), end, None)?;
        let plant = Self { name, steering, slow, thread: Some(thread), mode, zero_copy };
        let hop = NextHop { source_mac: [2; 6], destination_mac: NOBODY, vlan: None };
        for id in [INSIDE_HOP, ROUTE] {
            plant.send(Command::NextHop { id, hop: Some(hop) })?;
        }
        Ok(plant)
    }

    /// The link that a generator sends on.
    pub(super) fn entry(&self, way: Way) -> String {
        format!("{}-{}", self.name, if way == Way::Inwards { "far" } else { "host" })
    }

    /// The link at which packets arrive.
    fn exit(&self, way: Way) -> String {
        format!("{}-{}", self.name, if way == Way::Inwards { "host" } else { "far" })
    }

    /// How the programs run.
    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether packets move without a copy.
    pub(super) fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Packets that arrived so far.
    pub(super) fn arrived(&self, way: Way, counters: &mut Counters) -> Result<u64> {
        Ok(counters.of(&self.exit(way))?.received)
    }

    /// Packets that the XDP program gave to the worker so far.
    pub(super) fn steered(&self, way: Way) -> Result<u64> {
        let counter = if way == Way::Inwards { Counter::OutsideSteered } else { Counter::InsideSteered };
        Ok(self.steering.counters()?.of(counter))
    }

    /// Has the worker stand still.
    pub(super) fn hold(&self) -> Result<Hold> {
        Hold::on(PATIENCE, |gate| self.send(Command::Birth(Box::new(gate))))
    }

    /// What everything has counted.
    pub(super) fn snapshot(&self, counters: &mut Counters) -> Result<Snapshot> {
        // What the sessions had to tell meanwhile is nobody's business here.
        while self.slow.receive().is_some() {}
        self.send(Command::Counters)?;
        let deadline = Instant::now() + PATIENCE;
        let worker = loop {
            match self.slow.receive() {
                Some(Report::Counters(counters)) => break *counters,
                Some(_) => {}
                None if Instant::now() > deadline => bail!("the worker does not answer"),
                None => std::thread::yield_now(),
            }
        };
        let arrived = [self.arrived(Way::Outwards, counters)?, self.arrived(Way::Inwards, counters)?];
        Ok(Snapshot { programs: self.steering.counters()?, worker, arrived })
    }

    fn send(&self, command: Command<Arc<Gate>>) -> Result<()> {
        self.slow.send(command).map_err(|_| anyhow!("the worker obeys no more commands"))
    }
}

impl<S: Sessions> Drop for Plant<S> {
    fn drop(&mut self) {
        // Whatever fails here ends with the process at the latest.
        let _ = self.steering.detach();
        if self.send(Command::Stop).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// The programs, with one worker for everything.
fn steer(ports: &Ports, clients: impl IntoIterator<Item = u32>) -> Result<Steering> {
    let mut steering = Steering::load(&SteeringConfig {
        port: GATEWAY.port(),
        workers: 1,
        outside_queues: 1,
        inside_queues: 1,
        pool_v4: Some(POOL_BASE),
        pool_v6: None,
        pool_size: POOL_SIZE,
    })?;
    for (side, role) in [(Side::Outside, Role::Outside), (Side::Inside, Role::Inside)] {
        for (queue, socket) in ports.sockets(role) {
            steering.set_socket(side, queue, WORKER, socket)?;
        }
    }
    for slot in 0..SLOT_COUNT {
        steering.set_slot(slot as u16, Some(WORKER))?;
    }
    for index in clients {
        steering.set_client(index, Some(WORKER))?;
    }
    steering.add_local(GATEWAY.ip())?;
    Ok(steering)
}

impl Snapshot {
    /// What became of the packets that were offered between the two.
    pub(super) fn losses_since(&self, before: &Self, way: Way, offered: u64) -> Losses {
        let arrived = |snapshot: &Self| snapshot.arrived[usize::from(way == Way::Inwards)];
        let mut losses = Losses { offered, arrived: arrived(self) - arrived(before), ..Losses::default() };
        for ((counter, now), (_, then)) in self.programs.iter().zip(before.programs.iter()) {
            if counter.fate() != Fate::Steered {
                losses.drop_packets(&format!("XDP program: {}", counter.name()), now - then);
            }
        }
        let sockets = |snapshot: &Self| match way {
            Way::Inwards => snapshot.worker.outside_kernel,
            Way::Outwards => snapshot.worker.inside_kernel,
        };
        let (now, then) = (sockets(self), sockets(before));
        losses.drop_packets("AF_XDP: receive ring full", now.ring_full - then.ring_full);
        losses.drop_packets("AF_XDP: no empty frame", now.dropped - then.dropped);
        let no_hop = self.worker.path.no_next_hop - before.worker.path.no_next_hop;
        losses.drop_packets("worker: no next hop", no_hop);
        let then = before.worker.drops();
        for (reason, now) in self.worker.drops().iter() {
            losses.drop_packets(&format!("worker: {}", reason.name()), now - then.value(reason));
        }
        losses
    }
}
