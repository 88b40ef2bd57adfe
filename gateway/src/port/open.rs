//! Opening both ports: the order of memory, rings, sockets and binds that the kernel accepts.
//!
//! The first socket of all registers the memory. The first socket of every further queue, of either device, shares it
//! by naming that very first socket, and brings the queue's fill and completion ring. Every other socket of a queue
//! names *its queue's* first socket, and brings a receive ring only.

use std::collections::VecDeque;
use std::iter;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::homes::{Exchange, OwnFill, SPARE};
use super::lines::{Line, Receiver, Sender};
use super::{Homes, MAX_QUEUES, PlaneConfig, PortConfig, PortError, PortInfo, Ports, Role, WorkerPorts, ZeroCopy};
use crate::doorbell::Doorbell;
use crate::sys::{
    Binding, CompletionRing, CopyMode, FillRing, Frame, ReceiveRing, RingRequest, Socket, SysError, TransmitRing, Umem,
};

/// The kernel releases a queue some 10 to 60 ms after its last socket is gone. Looked at this often ...
const RELEASE_POLL: Duration = Duration::from_millis(10);
/// ... this many times: long enough for a loaded machine, short enough to report that somebody else has the queue.
const RELEASE_POLLS: u32 = 300;

/// Opens both ports in the best mode that the configuration and the devices allow.
pub(super) fn plane(config: &PlaneConfig) -> Result<Ports, PortError> {
    let ports = [(Role::Outside, &config.outside), (Role::Inside, &config.inside)];
    for (_, port) in ports {
        check_workers(port, config.workers)?;
    }
    match config.zero_copy {
        ZeroCopy::Require => plane_in(config, CopyMode::ZeroCopy),
        ZeroCopy::Off => plane_in(config, CopyMode::Copy),
        // The first device decides for both. If it can and the second cannot, the second's bind is refused.
        ZeroCopy::Auto => match plane_in(config, CopyMode::Auto) {
            Err(
                cause @ PortError::Socket { source: SysError { errno: Errno::EOPNOTSUPP | Errno::EINVAL, .. }, .. },
            ) => plane_in(config, CopyMode::Copy).map(|ports| Ports { zero_copy_refused: Some(cause), ..ports }),
            other => other,
        },
    }
}

fn check_workers(port: &PortConfig, workers: u16) -> Result<(), PortError> {
    if workers == 0 {
        return Err(PortError::NoWorkers);
    }
    if port.queues < u32::from(workers) {
        return Err(PortError::TooFewQueues { interface: port.interface.clone(), queues: port.queues, workers });
    }
    if port.queues > MAX_QUEUES {
        let interface = port.interface.clone();
        return Err(PortError::TooManyQueues { interface, queues: port.queues, max: MAX_QUEUES });
    }
    Ok(())
}

fn plane_in(config: &PlaneConfig, mode: CopyMode) -> Result<Ports, PortError> {
    let workers = usize::from(config.workers);
    let region = config.rings.region(config.workers);
    let queues = config.outside.queues + config.inside.queues;
    let frames = region * queues + u32::from(config.workers) * SPARE as u32;
    let (memory, all) = Umem::new(frames, config.frame_size.bytes()).map_err(|source| PortError::Memory {
        megabytes: (u64::from(frames) * u64::from(config.frame_size.bytes())) >> 20,
        source,
    })?;
    let mut opener = Opener { config, mode, region, memory: memory.clone(), frames: all.into(), first: None };
    let mut outside = opener.port(Role::Outside, &config.outside)?;
    let mut inside = opener.port(Role::Inside, &config.inside)?;

    let bells = iter::repeat_with(Doorbell::new)
        .take(workers)
        .map(|bell| bell.map(Arc::new))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| outside.error(config, "making an eventfd", error))?;
    let mut spare = opener.frames;
    let exchange = Arc::new(Exchange::new(bells.iter().cloned(), frames));
    let owners: Vec<usize> = Role::ALL
        .iter()
        .flat_map(|role| 0..if *role == Role::Outside { config.outside.queues } else { config.inside.queues })
        .map(|queue| owner(queue, workers))
        .collect();

    let shares = bells
        .into_iter()
        .enumerate()
        .map(|(worker, bell)| {
            let own = outside.take_fills(worker).chain(inside.take_fills(worker)).collect();
            WorkerPorts {
                worker: worker as u16,
                homes: Homes::new(worker, region, &owners, own, spare.drain(..SPARE), exchange.clone()),
                outside: outside.take_line(worker),
                inside: inside.take_line(worker),
                bell,
                memory: memory.clone(),
            }
        })
        .collect();
    Ok(Ports { outside: outside.info, inside: inside.info, zero_copy_refused: None, shares })
}

/// The worker that fills a queue, and sends on it if the queue has its number.
fn owner(queue: u32, workers: usize) -> usize {
    queue as usize % workers
}

/// What goes from one bind to the next.
struct Opener<'a> {
    config: &'a PlaneConfig,
    mode: CopyMode,
    region: u32,
    memory: Arc<Umem>,
    /// Frames not yet given to a region, in order.
    frames: VecDeque<Frame>,
    /// A second handle to the socket that registered the memory, to be named by others.
    first: Option<std::os::fd::OwnedFd>,
}

/// A port whose sockets are bound and not yet dealt out.
struct OpenPort {
    info: PortInfo,
    /// By worker, then by queue.
    receivers: Vec<Vec<Receiver<Socket>>>,
    /// By worker.
    senders: Vec<Option<Sender>>,
    /// By queue.
    fills: Vec<Option<OwnFill>>,
}

impl Opener<'_> {
    fn port(&mut self, role: Role, port: &PortConfig) -> Result<OpenPort, PortError> {
        let index = if_nametoindex(port.interface.as_str())
            .map_err(|_| PortError::NoSuchInterface { interface: port.interface.clone() })?;
        let workers = usize::from(self.config.workers);
        let mut open = OpenPort {
            info: PortInfo {
                interface: port.interface.clone(),
                index,
                queues: port.queues,
                workers: self.config.workers,
                zero_copy: false,
            },
            receivers: iter::repeat_with(Vec::new).take(workers).collect(),
            senders: iter::repeat_with(|| None).take(workers).collect(),
            fills: Vec::new(),
        };
        for queue in 0..port.queues {
            self.queue(&mut open, role, queue)
                .map_err(|source| socket_error(self.config, &port.interface, queue, source))?;
        }
        Ok(open)
    }

    /// Binds all sockets of one queue, its owner's first.
    fn queue(&mut self, open: &mut OpenPort, role: Role, queue: u32) -> Result<(), SysError> {
        let workers = usize::from(self.config.workers);
        let owner = owner(queue, workers);
        let index = open.info.index;
        let sends = owner == queue as usize;

        let binding = match &self.first {
            None => Binding::Memory(self.mode),
            Some(first) => Binding::Queue(first.as_fd()),
        };
        let (socket, ring, transmit, rings) = Socket::prepare(&self.memory, binding, self.request(sends))?;
        let rings = rings.expect("the first socket of a queue brings the queue's rings");
        let fill = filled(rings.fill, self.frames.drain(..self.region as usize));
        bind(&socket, index, queue, binding)?;
        open.info.zero_copy = socket.is_zero_copy()?;
        let first = socket.as_fd().try_clone_to_owned().map_err(|error| SysError {
            call: "duplicating a socket's handle",
            errno: Errno::from_raw(error.raw_os_error().unwrap_or_default()),
        })?;
        open.add(owner, socket, ring, transmit, rings.completion);
        open.fills.push(Some(OwnFill::new(role, queue, fill, self.region)));

        for worker in (0..workers).filter(|&worker| worker != owner) {
            let binding = Binding::Further(first.as_fd());
            let (socket, ring, ..) = Socket::prepare(&self.memory, binding, self.request(false))?;
            bind(&socket, index, queue, binding)?;
            open.receivers[worker].push(Receiver { socket, ring });
        }
        self.first.get_or_insert(first);
        Ok(())
    }

    fn request(&self, sends: bool) -> RingRequest {
        let rings = self.config.rings;
        RingRequest { receive: rings.receive, transmit: sends.then_some(rings.transmit), queue: self.region }
    }
}

impl OpenPort {
    /// Adds the first socket of the queue that is next.
    fn add(
        &mut self,
        owner: usize,
        socket: Socket,
        ring: ReceiveRing,
        transmit: Option<TransmitRing>,
        completion: CompletionRing,
    ) {
        self.receivers[owner].push(Receiver { socket, ring });
        // A queue that only receives completes nothing; its completion ring is not needed.
        if let Some(transmit) = transmit {
            self.senders[owner] = Some(Sender { ring: transmit, completion });
        }
    }

    fn take_line(&mut self, worker: usize) -> Line<Socket> {
        Line {
            receivers: std::mem::take(&mut self.receivers[worker]),
            sender: self.senders[worker].take().expect("there are as many queues as workers, at least"),
        }
    }

    /// The fill rings of a worker's own queues, in their order.
    fn take_fills(&mut self, worker: usize) -> impl Iterator<Item = OwnFill> {
        let workers = usize::from(self.info.workers);
        self.fills.iter_mut().filter_map(move |fill| fill.take_if(|fill| owner(fill.queue(), workers) == worker))
    }

    fn error(&self, config: &PlaneConfig, call: &'static str, error: std::io::Error) -> PortError {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
        socket_error(config, &self.info.interface, 0, SysError { call, errno })
    }
}

/// Gives a queue its region. Before the bind: a driver may look at the ring only once (igb).
fn filled(mut fill: FillRing, region: impl Iterator<Item = Frame>) -> FillRing {
    region.for_each(|frame| fill.give(frame).expect("a fill ring holds all frames of its region"));
    fill.publish();
    fill
}

/// Binds, waiting for a queue that was released just now.
fn bind(socket: &Socket, interface: u32, queue: u32, binding: Binding<'_>) -> Result<(), SysError> {
    for _ in 0..RELEASE_POLLS {
        match socket.bind(interface, queue, binding) {
            Err(SysError { errno: Errno::EBUSY, .. }) => thread::sleep(RELEASE_POLL),
            result => return result,
        }
    }
    socket.bind(interface, queue, binding)
}

fn socket_error(config: &PlaneConfig, interface: &str, queue: u32, source: SysError) -> PortError {
    PortError::Socket { interface: interface.into(), queue, source, config: Box::new(config.clone()) }
}
