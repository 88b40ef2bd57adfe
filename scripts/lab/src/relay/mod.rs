//! The impairment relay: a process between two namespaces that forwards Ethernet frames and spoils them on purpose,
//! because the kernels of build machines come without netem.
//!
//! Each path joins two TAP devices, one in the namespace of a NAT router and one in the namespace of the core, and
//! carries frames between them through the path's model (`path`): impairments drawn from a seed (`impair`), a NAT that
//! forgets (`rebind`), captures and injections. One thread does it all between two calls of `ppoll`; a unix socket
//! (`control`) steers it.
//!
//! The TAP of the core has as many queues as the gateway's outside link. A frame written to queue *n* of a TAP carries
//! *n* as its receive queue, and the kernel of the core forwards it on transmit queue *n*: so the path, not a hash,
//! decides on which receive queue its packets reach the gateway.

mod control;
mod frame;
mod impair;
mod path;
mod rebind;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path as FilePath, PathBuf};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

pub use control::{Answer, Captured, Counters, Direction, PathCounters, Payload, RelayControl, Request};
pub use impair::{Burst, Profile};

use crate::namespace::enter;

/// Frames read from a device before the others get their turn.
const BATCH: usize = 64;
/// Longest frame: an MTU of 1500 with Ethernet and a VLAN tag fits several times over.
const FRAME_LEN: usize = 4096;
/// Queues of the TAP in the core, as many as the gateway's outside link has.
pub const QUEUES: usize = 2;

/// Between which devices a path runs: `name=namespace:device,namespace:device,queue`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The path's name.
    pub path: String,
    /// Namespace and device on the client's side.
    pub near: (String, String),
    /// Namespace and device on the gateway's side.
    pub far: (String, String),
    /// Queue of the far device, and so the receive queue at the gateway.
    pub queue: usize,
}

impl FromStr for Link {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (path, rest) = text.split_once('=')?;
            let [near, far, queue] = <[&str; 3]>::try_from(rest.split(',').collect::<Vec<_>>()).ok()?;
            let device = |text: &str| text.split_once(':').map(|(space, name)| (space.to_owned(), name.to_owned()));
            let queue = queue.parse().ok().filter(|queue| *queue < QUEUES)?;
            Some(Self { path: path.to_owned(), near: device(near)?, far: device(far)?, queue })
        };
        parse().ok_or_else(|| {
            format!("{text:?} is not name=namespace:device,namespace:device,queue with a queue below {QUEUES}")
        })
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, near, far, queue } = self;
        write!(f, "{path}={}:{},{}:{},{queue}", near.0, near.1, far.0, far.1)
    }
}

/// Runs a relay until its standard input ends: so it cannot outlive whoever started it.
pub fn run(socket: &FilePath, seed: u64, links: &[Link]) -> Result<()> {
    let mut relay = Relay::open(socket.to_owned(), seed, links)?;
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    relay.forward()
}

struct Relay {
    started: Instant,
    seed: u64,
    paths: BTreeMap<String, Wire>,
    requests: Receiver<(Request, Sender<Answer>)>,
    wake: UnixStream,
}

/// A path with its devices.
struct Wire {
    path: path::Path,
    near: SyncDevice,
    far: Vec<SyncDevice>,
    queue: usize,
}

impl Relay {
    fn open(socket: PathBuf, seed: u64, links: &[Link]) -> Result<Self> {
        let mut links: Vec<&Link> = links.iter().collect();
        links.sort_by(|a, b| a.path.cmp(&b.path));
        let mut paths = BTreeMap::new();
        for (number, link) in links.into_iter().enumerate() {
            let near = open_tap(&link.near, 1)?.pop().ok_or_else(|| anyhow!("a TAP without queues"))?;
            let far = open_tap(&link.far, QUEUES)?;
            let path = path::Path::new(seed_of(seed, number));
            paths.insert(link.path.clone(), Wire { path, near, far, queue: link.queue });
        }
        let (sender, requests) = channel();
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        control::serve(&socket, sender, waker)?;
        Ok(Self { started: Instant::now(), seed, paths, requests, wake })
    }

    fn forward(&mut self) -> Result<()> {
        let mut buffer = vec![0; FRAME_LEN];
        loop {
            self.wait()?;
            for wire in self.paths.values_mut() {
                wire.forward(self.started, &mut buffer);
            }
            // A failed read means that nothing woke us; the requests tell.
            let _ = (&self.wake).read(&mut buffer);
            while let Ok((request, answer)) = self.requests.try_recv() {
                // Whoever asked may have gone.
                let _ = answer.send(self.obey(request));
            }
        }
    }

    /// Sleeps until a device or the control socket has something, or a frame is due.
    fn wait(&self) -> Result<()> {
        let devices = self.paths.values().flat_map(|wire| std::iter::once(&wire.near).chain(&wire.far));
        let mut polled: Vec<_> = devices.map(|device| PollFd::new(device.as_fd(), PollFlags::POLLIN)).collect();
        polled.push(PollFd::new(self.wake.as_fd(), PollFlags::POLLIN));
        let due = self.paths.values().filter_map(|wire| wire.path.next_due()).min();
        let timeout = due.map(|due| {
            let rest = due.saturating_sub(micros_since(self.started));
            TimeSpec::from_duration(std::time::Duration::from_micros(rest))
        });
        match ppoll(&mut polled, timeout, None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("waiting for frames"),
        }
    }

    fn obey(&mut self, request: Request) -> Answer {
        match self.try_to_obey(request) {
            Ok(answer) => answer,
            Err(error) => Answer::Failed { error: format!("{error:#}") },
        }
    }

    fn try_to_obey(&mut self, request: Request) -> Result<Answer> {
        match request {
            Request::Set { path, direction, profile } => self.wire(&path)?.path.set(direction, &profile),
            Request::Rebind { path, address } => self.wire(&path)?.path.rebind(address),
            Request::Capture { path, direction, message, limit, withhold } => {
                self.wire(&path)?.path.capture(direction, message, limit, withhold);
            }
            Request::Captured { path, direction } => {
                return Ok(Answer::Captured { datagrams: self.wire(&path)?.path.captured(direction) });
            }
            Request::Inject { path, direction, source, payload } => {
                self.wire(&path)?.inject(direction, source, &payload.0)?;
            }
            Request::Reset => {
                for (number, wire) in self.paths.values_mut().enumerate() {
                    wire.path = path::Path::new(seed_of(self.seed, number));
                }
            }
            Request::Counters => {
                let paths = self.paths.iter().map(|(name, wire)| (name.clone(), wire.path.counters())).collect();
                return Ok(Answer::Counters { paths });
            }
        }
        Ok(Answer::Done)
    }

    fn wire(&mut self, path: &str) -> Result<&mut Wire> {
        self.paths.get_mut(path).ok_or_else(|| anyhow!("there is no path {path:?}"))
    }
}

impl Wire {
    fn forward(&mut self, started: Instant, buffer: &mut [u8]) {
        let Self { path, near, far, queue } = self;
        let mut to_far = |frame: &[u8]| far[*queue].send(frame).is_ok();
        let mut to_near = |frame: &[u8]| near.send(frame).is_ok();
        let now = micros_since(started);
        path.deliver_due(Direction::Up, now, &mut to_far);
        path.deliver_due(Direction::Down, now, &mut to_near);
        for _ in 0..BATCH {
            let Some(len) = read(near, buffer) else { break };
            path.arrive(Direction::Up, micros_since(started), &mut buffer[..len], &mut to_far);
        }
        for device in &*far {
            for _ in 0..BATCH {
                let Some(len) = read(device, buffer) else { break };
                path.arrive(Direction::Down, micros_since(started), &mut buffer[..len], &mut to_near);
            }
        }
    }

    /// Sends a made-up datagram. It passes no impairment and no NAT: what is injected arrives.
    fn inject(&mut self, direction: Direction, source: Option<std::net::SocketAddr>, payload: &[u8]) -> Result<()> {
        let frame = self.path.dress(direction, source, payload)?;
        let device = match direction {
            Direction::Up => &self.far[self.queue],
            Direction::Down => &self.near,
        };
        device.send(&frame).context("writing the injected frame")?;
        Ok(())
    }
}

/// The next frame of a device, if one waits.
fn read(device: &SyncDevice, buffer: &mut [u8]) -> Option<usize> {
    match device.recv(buffer) {
        Ok(len) => Some(len),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        // The device was set down: nothing to read until it is up again.
        Err(_) => None,
    }
}

fn open_tap((namespace, device): &(String, String), queues: usize) -> Result<Vec<SyncDevice>> {
    enter(namespace, || {
        let first = DeviceBuilder::new().name(device).layer(Layer::L2).multi_queue(queues > 1).build_sync()?;
        let mut all = vec![first];
        for _ in 1..queues {
            all.push(all[0].try_clone()?);
        }
        for queue in &all {
            queue.set_nonblocking(true)?;
        }
        Ok(all)
    })?
    .map_err(|error: std::io::Error| {
        anyhow!("creating TAP {device} in namespace {namespace}: {error}; is /dev/net/tun there?")
    })
}

/// Each path draws from a sequence of its own.
fn seed_of(seed: u64, path: usize) -> u64 {
    seed.wrapping_add(path as u64)
}

fn micros_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_read_as_it_is_written() {
        let text = "wifi=jg-1-2-0-wifi:wan0,jg-1-2-0-core:wifi,1";
        let link: Link = text.parse().unwrap();
        assert_eq!(link.to_string(), text);
        assert_eq!(link.queue, 1);
        for wrong in ["", "wifi", "wifi=a:b,c:d", "wifi=a:b,c:d,2", "wifi=ab,c:d,0"] {
            assert!(wrong.parse::<Link>().is_err(), "{wrong}");
        }
    }
}
