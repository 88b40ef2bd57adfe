//! Many real clients in one thread: the product's own client code, each with addresses of its own, over one AF_XDP line.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;

use anyhow::Result;
use jumpgate_protocol::client::{Client, ClientConfig, ClientEvent, PathInfo};
use jumpgate_protocol::entropy::SeededEntropy;
use jumpgate_protocol::handshake::StaticSecret;
use jumpgate_protocol::ident::{Locator, PublicKey};
use jumpgate_protocol::machine::{Evidence, State};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Time;
use jumpgate_protocol::wire::{DATA_OVERHEAD, HEADER_LEN, RequestedPolicy, TAG_LEN};

use super::book::Book;
use super::datagram::{self, Ends, Stamp};
use super::flood::Flood;
use super::line::Line;
use super::member::{Member, PATHS, owner_of, transport};

/// Packets taken from the line in one turn.
const TURN: usize = 256;
/// Timers run in one turn.
const TIMERS: usize = 256;
/// Longest inner packet of an echo, in bytes.
const INNER_MAX: usize = 1_416;

/// What happens to the path that a client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jump {
    /// The link goes down, the client is told; the other interface comes up with a new address.
    LinkDown,
    /// Packets vanish and nobody is told; the other interface is there.
    BlackHole,
    /// The NAT on the way gives another port; nobody is told.
    Rebind,
}

/// What a crowd is made of.
pub struct CrowdConfig {
    /// Everything random at the clients follows from it.
    pub seed: u64,
    /// The gateway's public key.
    pub gateway_key: PublicKey,
    /// Where the gateway listens.
    pub gateway: SocketAddrV4,
    /// Whom clients talk to inside.
    pub server: Ipv4Addr,
}

/// The clients.
pub struct Crowd {
    config: CrowdConfig,
    members: Vec<Member>,
    timers: BinaryHeap<Reverse<(Time, u32)>>,
    line: Line,
    ends: Ends,
    /// What is measured.
    pub book: Book,
    /// Frames sent and received.
    pub frames: (u64, u64),
    attached: u64,
    live: u64,
    /// What clients send, kept while somebody listens in.
    pub(super) capture: Option<Vec<Vec<u8>>>,
    /// Scratch for one inner packet with room for the seal.
    packet: Vec<u8>,
    /// What arrived in this turn: whereto, and its place in the arena.
    inbox: Vec<(SocketAddrV4, Range<usize>)>,
    arena: Vec<u8>,
}

impl Crowd {
    pub(super) fn new(config: CrowdConfig, secrets: &[StaticSecret], line: Line, ends: Ends) -> Result<Self> {
        let members = secrets.iter().enumerate().map(|(number, secret)| {
            let client = ClientConfig {
                secret: secret.clone(),
                gateway: config.gateway_key,
                psk: None,
                requested_policy: RequestedPolicy::new(),
                hello_counter: 0,
                replaces: None,
            };
            let entropy = SeededEntropy::new(config.seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
            Member::new(Client::new(client, Box::new(entropy)), number as u32)
        });
        Ok(Self {
            members: members.collect(),
            config,
            timers: BinaryHeap::new(),
            line,
            ends,
            book: Book::new()?,
            frames: (0, 0),
            attached: 0,
            live: 0,
            capture: None,
            packet: vec![0; INNER_MAX + DATA_OVERHEAD],
            inbox: Vec::new(),
            arena: Vec::new(),
        })
    }

    /// How many clients there are, with and without a session.
    pub fn len(&self) -> u32 {
        self.members.len() as u32
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Clients with a session.
    pub const fn live(&self) -> u64 {
        self.live
    }

    /// Clients in ATTACHED.
    pub const fn attached(&self) -> u64 {
        self.attached
    }

    /// Whether that client has a session and is attached.
    pub fn is_attached(&self, number: u32) -> bool {
        self.members[number as usize].state == Some(State::Attached)
    }

    /// Whether the network failed that client and it is not back yet.
    pub fn is_waiting(&self, number: u32) -> bool {
        self.members[number as usize].fault.is_some()
    }

    /// Packets that the line could neither send nor give us.
    pub fn missed(&self) -> Result<(u64, u64)> {
        Ok((self.line.stalled, self.line.missed()?))
    }

    /// Takes what has arrived and runs timers that are due, a bounded part of each. False if there was nothing.
    pub fn turn(&mut self, now: Time) -> Result<bool> {
        let Self { line, inbox, arena, .. } = self;
        let received = line.receive(TURN, |frame| {
            if let Some((to, payload)) = datagram::read(frame) {
                let start = arena.len();
                arena.extend_from_slice(payload);
                inbox.push((to, start..arena.len()));
            }
        })?;
        self.frames.1 += received as u64;
        // Taken out for the time of the work: answers go out by the same line.
        let (mut inbox, mut arena) = (std::mem::take(&mut self.inbox), std::mem::take(&mut self.arena));
        for (to, place) in inbox.drain(..) {
            self.datagram_in(now, to, &mut arena[place])?;
        }
        arena.clear();
        (self.inbox, self.arena) = (inbox, arena);
        let mut ran = 0;
        while ran < TIMERS
            && let Some(Reverse((at, number))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            let member = &mut self.members[number as usize];
            if member.timer == at {
                member.timer = Time::NEVER;
                if !member.asleep {
                    member.core.timeout(now);
                    self.settle(now, number)?;
                }
            }
            ran += 1;
        }
        self.line.flush()?;
        Ok(received > 0 || ran > 0)
    }

    /// When a timer is due next.
    pub fn next_timer(&self) -> Option<Time> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Starts the handshake of a client.
    pub fn connect(&mut self, now: Time, number: u32) -> Result<()> {
        let gateway = self.config.gateway.into();
        let member = &mut self.members[number as usize];
        for path in (0..PATHS).filter(|path| member.links[*path].up) {
            member.core.path_up(now, transport(path), PathInfo { gateway, priority: path as u8 });
        }
        member.began = now;
        member.stays = true;
        member.core.connect(now);
        self.book.begun += 1;
        self.settle(now, number)
    }

    /// The second interface of a client comes up, and is probed from now on.
    pub fn second_path(&mut self, now: Time, number: u32) -> Result<()> {
        let gateway = self.config.gateway.into();
        let member = &mut self.members[number as usize];
        member.links[1].up = true;
        member.core.path_up(now, transport(1), PathInfo { gateway, priority: 1 });
        self.settle(now, number)
    }

    /// The network fails a client. False if it is without a binding or has not yet got over the fault before.
    pub fn jump(&mut self, now: Time, number: u32, jump: Jump) -> Result<bool> {
        let gateway = self.config.gateway.into();
        let member = &mut self.members[number as usize];
        let active = member.core.status(now).active.map(|id| usize::from(id.0) - 1);
        let Some(path) = active.filter(|_| member.fault.is_none() && !member.asleep) else {
            return Ok(false);
        };
        member.fault = Some(now);
        member.detected = false;
        self.book.jumps += 1;
        let other = 1 - path;
        match jump {
            Jump::LinkDown => {
                member.links[path].up = false;
                member.links[other].up = true;
                member.links[other].black = false;
                // What comes back as an interface comes back with another address.
                member.links[other].rebind();
                member.core.path_up(now, transport(other), PathInfo { gateway, priority: other as u8 });
                member.core.path_down(now, transport(path), Evidence::LinkDown);
            }
            Jump::BlackHole => {
                member.links[path].black = true;
                if !member.links[other].up || member.links[other].black {
                    member.links[other].up = true;
                    member.links[other].black = false;
                    member.links[other].rebind();
                    member.core.path_up(now, transport(other), PathInfo { gateway, priority: other as u8 });
                }
            }
            Jump::Rebind => member.links[path].rebind(),
        }
        self.settle(now, number)?;
        Ok(true)
    }

    /// The names of all live sessions on the wire, which anybody on the path can read.
    pub fn locators(&self, now: Time) -> Vec<Locator> {
        self.members.iter().filter_map(|member| member.core.status(now).locator).collect()
    }

    /// The outer address that a client uses now.
    pub fn outer_of(&self, number: u32, now: Time) -> SocketAddrV4 {
        let member = &self.members[number as usize];
        let path = member.core.status(now).active.map_or(0, |id| usize::from(id.0) - 1);
        member.links[path].outer()
    }

    /// Sends packets of a flood.
    pub fn pour(&mut self, flood: &mut Flood, packets: usize) -> Result<()> {
        for _ in 0..packets {
            let Some((from, packet)) = flood.next() else { return Ok(()) };
            let (ends, to) = (self.ends, self.config.gateway);
            if !self.line.send(|room| datagram::write(room, ends, from, to, packet))? {
                return Ok(());
            }
            self.frames.0 += 1;
        }
        Ok(())
    }

    /// A client is suspended: it hears nothing, and its timers do not run.
    pub fn sleep(&mut self, number: u32) {
        self.members[number as usize].asleep = true;
    }

    /// It wakes up, as late as it is.
    pub fn wake(&mut self, now: Time, number: u32) -> Result<()> {
        let member = &mut self.members[number as usize];
        member.asleep = false;
        member.core.timeout(now);
        self.settle(now, number)
    }

    /// A client ends its session.
    pub fn leave(&mut self, now: Time, number: u32) -> Result<()> {
        let member = &mut self.members[number as usize];
        member.stays = false;
        member.core.terminate(now, Reason::OperatorTerminated);
        self.settle(now, number)
    }

    /// A client sends one echo packet of that length.
    pub fn echo(&mut self, now: Time, number: u32, bytes: usize) -> Result<()> {
        let member = &mut self.members[number as usize];
        let Some(inner) = member.inner.filter(|_| !member.asleep) else {
            self.book.echo.held += 1;
            return Ok(());
        };
        let bytes = bytes.clamp(datagram::INNER_MIN, INNER_MAX);
        let stamp = Stamp { at: now.as_micros(), number: member.next_echo };
        let packet = &mut self.packet[..bytes + DATA_OVERHEAD];
        let end = packet.len() - TAG_LEN;
        datagram::write_inner(&mut packet[HEADER_LEN..end], inner, self.config.server, stamp);
        match member.core.data_out(packet) {
            Ok(path) => {
                member.next_echo += 1;
                self.book.echo.sent += 1;
                let link = &member.links[usize::from(path.0) - 1];
                if link.up && !link.black {
                    let (ends, from, to) = (self.ends, link.outer(), self.config.gateway);
                    let packet = &self.packet[..bytes + DATA_OVERHEAD];
                    if let Some(capture) = &mut self.capture {
                        capture.push(packet.to_vec());
                    }
                    self.line.send(|room| datagram::write(room, ends, from, to, packet))?;
                    self.frames.0 += 1;
                }
            }
            Err(_) => self.book.echo.held += 1,
        }
        Ok(())
    }

    fn datagram_in(&mut self, now: Time, to: SocketAddrV4, payload: &mut [u8]) -> Result<()> {
        let Some((number, path)) = owner_of(*to.ip()) else { return Ok(()) };
        let Some(member) = self.members.get_mut(number as usize) else { return Ok(()) };
        let link = &member.links[path];
        // A NAT without a mapping, a link that is down, a black hole, a sleeper: nobody hears it.
        if link.outer() != to || !link.up || link.black || member.asleep {
            return Ok(());
        }
        match member.core.datagram_in(now, transport(path), payload) {
            Ok(Some(place)) => {
                if let Some(stamp) = datagram::stamp_of(&payload[place]) {
                    self.echoed(now, number, stamp);
                }
            }
            Ok(None) => {}
            Err(reason) => Book::count(&mut self.book.dropped, reason),
        }
        self.settle(now, number)
    }

    fn echoed(&mut self, now: Time, number: u32, stamp: Stamp) {
        let member = &mut self.members[number as usize];
        if stamp.number < member.echoed {
            // Late or twice: both would have been refused by the replay window if they were the same packet.
            self.book.echo.doubled += u64::from(stamp.number + 1 == member.echoed);
        }
        member.echoed = member.echoed.max(stamp.number + 1);
        self.book.echo.returned += 1;
        self.book.round_trip.record(now.since(Time::from_micros(stamp.at)));
    }

    /// Sends what a client wants to send, notes what happened to it, and sets its timer.
    fn settle(&mut self, now: Time, number: u32) -> Result<()> {
        let member = &mut self.members[number as usize];
        while let Some(transmit) = member.core.poll_transmit() {
            let link = &member.links[usize::from(transmit.path.0) - 1];
            if link.up && !link.black {
                let (ends, from, to) = (self.ends, link.outer(), self.config.gateway);
                if let Some(capture) = &mut self.capture {
                    capture.push(transmit.packet.clone());
                }
                self.line.send(|room| datagram::write(room, ends, from, to, &transmit.packet))?;
                self.frames.0 += 1;
            }
        }
        while let Some(event) = self.members[number as usize].core.poll_event() {
            self.note(now, number, &event);
        }
        let member = &mut self.members[number as usize];
        if member.core.is_idle() && member.stays && member.state.is_none() && member.began < now {
            // A handshake that failed, or a session that ended, of a client that wants one: once more.
            member.began = now;
            self.book.begun += 1;
            member.core.connect(now);
            return self.settle(now, number);
        }
        let next = member.core.next_timeout(now).unwrap_or(Time::NEVER);
        if next < member.timer {
            member.timer = next;
            self.timers.push(Reverse((next, number)));
        }
        Ok(())
    }

    fn note(&mut self, now: Time, number: u32, event: &ClientEvent) {
        let member = &mut self.members[number as usize];
        let book = &mut self.book;
        match event {
            ClientEvent::Connected { inner_v4, .. } => {
                member.inner = inner_v4.map(|(address, _)| address);
                member.epoch = 1;
                self.live += 1;
                book.handshake.record(now.since(member.began));
            }
            ClientEvent::ConnectFailed { reason } => Book::count(&mut book.failed, *reason),
            ClientEvent::Transition { transition, .. } => {
                let (was, is) = (member.state == Some(State::Attached), transition.to == State::Attached);
                self.attached = self.attached + u64::from(is && !was) - u64::from(was && !is);
                member.state = Some(transition.to);
                if !is
                    && !member.detected
                    && let Some(fault) = member.fault
                {
                    member.detected = true;
                    book.detect.record(now.since(fault));
                }
            }
            ClientEvent::Switched { epoch, .. } => {
                if *epoch <= member.epoch {
                    *book.violations.entry("epoch_not_rising").or_default() += 1;
                }
                member.epoch = *epoch;
                if let Some(fault) = member.fault.take() {
                    book.reattach.record(now.since(fault));
                }
            }
            ClientEvent::Refused { reason, .. } => Book::count(&mut book.refused, *reason),
            ClientEvent::Terminated { reason, .. } => {
                member.state = None;
                member.inner = None;
                member.fault = None;
                self.live = self.live.saturating_sub(1);
                Book::count(&mut book.ended, *reason);
            }
            ClientEvent::Rekeyed { .. } | ClientEvent::PolicyChanged { .. } => {}
        }
    }
}
