//! Many real clients in one thread: the product's own client code, each with addresses of its own, over one AF_XDP line.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;

use anyhow::Result;
use jumpgate_protocol::client::{Client, ClientConfig, ClientEvent};
use jumpgate_protocol::entropy::SeededEntropy;
use jumpgate_protocol::handshake::StaticSecret;
use jumpgate_protocol::ident::{Locator, PublicKey};
use jumpgate_protocol::machine::{Evidence, State};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use jumpgate_protocol::wire::{DATA_OVERHEAD, HEADER_LEN, MessageType, RequestedPolicy, TAG_LEN};

use super::book::Book;
use super::datagram::{self, Ends, Stamp};
use super::flood::Flood;
use super::line::Line;
use super::member::{Member, Order, PATHS, owner_of, path_info, transport};
use super::weather::Sky;

/// Packets taken from the line in one turn.
const TURN: usize = 64;
/// Timers run in one turn.
const TIMERS: usize = 256;
/// Longest time for which timers wait for answers to be taken; a client that hears nothing for so long acts on it.
const TIMERS_WAIT: Span = Span::from_millis(100);
/// Longest inner packet of an echo, in bytes.
const INNER_MAX: usize = 1_416;

/// The weather's own share of the seed.
const SKY: u64 = 0x736b_7900;

/// Packets that were laid ahead are sent at a steady rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// When the first is due.
    pub(super) start: Time,
    /// Its number.
    pub(super) first: u64,
    /// Packets per second.
    pub(super) rate: f64,
}

impl Schedule {
    /// When a packet is due, whenever it was really sent: so a generator that is late does not look fast.
    pub(super) fn due(&self, number: u64) -> Time {
        self.start + Span::from_micros((number.saturating_sub(self.first) as f64 / self.rate * 1e6) as u64)
    }
}

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
    pub(super) config: CrowdConfig,
    pub(super) members: Vec<Member>,
    timers: BinaryHeap<Reverse<(Time, u32)>>,
    pub(super) line: Line,
    pub(super) ends: Ends,
    pub(super) sky: Sky,
    /// What is measured.
    pub book: Book,
    /// Frames sent and received.
    pub frames: (u64, u64),
    attached: u64,
    pub(super) live: u64,
    /// Who seals the next packet that is laid ahead, and the number of that packet.
    pub(super) next_sealer: u32,
    pub(super) next_number: u64,
    /// When packets that were laid ahead are sent, by their number: they do not carry it themselves.
    pub(super) schedule: Option<Schedule>,
    /// Clients with a smaller number are bystanders: nothing happens to them.
    pub bystanders: u32,
    /// Answers wait that the last turn did not come to: what is begun now waits behind them, and not at the gateway.
    pub behind: bool,
    /// When timers last ran.
    caught_up: Time,
    /// Clients that got over a fault, by a jump or by their session's end, while somebody wants to know.
    pub returned: Option<Vec<u32>>,
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
            sky: Sky::new(config.seed ^ SKY),
            config,
            timers: BinaryHeap::new(),
            line,
            ends,
            book: Book::new()?,
            frames: (0, 0),
            attached: 0,
            live: 0,
            next_sealer: 0,
            next_number: 0,
            schedule: None,
            bystanders: 0,
            behind: false,
            caught_up: Time::ZERO,
            returned: None,
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
        let received = self.take(now)?;
        while let Some(mut delayed) = self.sky.arrived(now) {
            if delayed.up {
                self.send(delayed.number, delayed.path, &delayed.packet)?;
            } else {
                self.deliver(now, delayed.number, delayed.path, &mut delayed.packet)?;
            }
        }
        // A client of its own would not let its timer run out while the answer lies in its queue: with many of them here in
        // one thread, no timer runs before every answer is taken, unless they come faster than they can be.
        self.behind = received == TURN;
        let wait = self.behind && now.since(self.caught_up) < TIMERS_WAIT;
        if !wait {
            self.caught_up = now;
        }
        let timers = if wait { 0 } else { TIMERS };
        let mut ran = 0;
        while ran < timers
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

    /// Takes some of what has arrived; gives how much.
    fn take(&mut self, now: Time) -> Result<usize> {
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
        Ok(received)
    }

    /// When a timer is due next.
    pub fn next_timer(&self) -> Option<Time> {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        timer.into_iter().chain(self.sky.next()).min()
    }

    /// Starts the handshake of a client.
    pub fn connect(&mut self, now: Time, number: u32) -> Result<()> {
        let gateway = self.config.gateway.into();
        let member = &mut self.members[number as usize];
        for path in (0..PATHS).filter(|path| member.links[*path].up) {
            member.core.path_up(now, transport(path), path_info(gateway, path));
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
        member.core.path_up(now, transport(1), path_info(gateway, 1));
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
        match jump {
            Jump::LinkDown => {
                member.links[path].up = false;
                member.core.path_down(now, transport(path), Evidence::LinkDown);
                member.come_up(now, gateway, 1 - path);
            }
            Jump::BlackHole => {
                member.links[path].black = true;
                if !member.links[1 - path].up || member.links[1 - path].black {
                    member.come_up(now, gateway, 1 - path);
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
        let stamp = Stamp { at: now.as_micros(), number: member.next_echo, client: number };
        let mut packet = std::mem::take(&mut self.packet);
        let sealed = &mut packet[..bytes + DATA_OVERHEAD];
        let end = sealed.len() - TAG_LEN;
        datagram::write_inner(&mut sealed[HEADER_LEN..end], inner, self.config.server, stamp);
        match member.core.data_out(sealed) {
            Ok(path) => {
                member.next_echo += 1;
                self.book.echo.sent += 1;
                self.put(now, number, usize::from(path.0) - 1, sealed)?;
            }
            Err(_) => self.book.echo.held += 1,
        }
        self.packet = packet;
        Ok(())
    }

    /// A client puts a packet on one of its links.
    fn put(&mut self, now: Time, number: u32, path: usize, packet: &[u8]) -> Result<()> {
        self.book.requests += u64::from(matches!(MessageType::of(packet), Ok(MessageType::ReattachRequest)));
        let link = &self.members[number as usize].links[path];
        if !link.up || link.black {
            return Ok(());
        }
        if let Some(capture) = &mut self.capture {
            capture.push(packet.to_vec());
        }
        if self.sky.passes(now, link.weather, true, (number, path), packet) {
            self.send(number, path, packet)?;
        }
        Ok(())
    }

    /// What was put on a link goes to the gateway.
    fn send(&mut self, number: u32, path: usize, packet: &[u8]) -> Result<()> {
        let from = self.members[number as usize].links[path].outer();
        let (ends, to) = (self.ends, self.config.gateway);
        self.line.send(|room| datagram::write(room, ends, from, to, packet))?;
        self.frames.0 += 1;
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
        if self.sky.passes(now, link.weather, false, (number, path), payload) {
            self.deliver(now, number, path, payload)?;
        }
        Ok(())
    }

    /// A client hears a packet.
    fn deliver(&mut self, now: Time, number: u32, path: usize, payload: &mut [u8]) -> Result<()> {
        let member = &mut self.members[number as usize];
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
        let book = &mut self.book;
        if stamp.client != number {
            book.violated("misrouted", || format!("an echo of client {} came to client {number}", stamp.client));
            return;
        }
        match self.members[number as usize].echoes.take(stamp.number) {
            Order::Next => {}
            Order::Late => book.echo.late += 1,
            Order::Twice => {
                book.violated("replay_accepted", || format!("echo {} of client {number} came twice", stamp.number));
                return;
            }
        }
        book.echo.returned += 1;
        let sent = self.schedule.map_or(Time::from_micros(stamp.at), |schedule| schedule.due(stamp.number));
        let times = if number < self.bystanders { &mut book.bystanders } else { &mut book.round_trip };
        times.record(now.since(sent));
    }

    /// Sends what a client wants to send, notes what happened to it, and sets its timer.
    fn settle(&mut self, now: Time, number: u32) -> Result<()> {
        while let Some(transmit) = self.members[number as usize].core.poll_transmit() {
            self.put(now, number, usize::from(transmit.path.0) - 1, &transmit.packet)?;
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
                if let Some(spike) = &mut member.spike {
                    if !is && !spike.left {
                        book.detect.record(now.since(spike.began));
                    }
                    spike.left |= !is;
                    spike.degraded |= transition.to == State::Degraded;
                }
                if !is
                    && !member.detected
                    && let Some(fault) = member.fault
                {
                    member.detected = true;
                    book.detect.record(now.since(fault));
                }
            }
            ClientEvent::Switched { epoch, detail, .. } => {
                // Whoever asks for the binding that it has gets it confirmed, with its epoch (SM-09).
                let confirmed = *epoch == member.epoch && *detail == Some(Reason::AlreadyBound);
                if *epoch <= member.epoch && !confirmed {
                    let (before, waiting) = (member.epoch, member.fault.is_some());
                    book.violated("epoch_not_rising", || {
                        format!("client {number} switched to epoch {epoch} after {before}, waiting for it: {waiting}")
                    });
                }
                member.epoch = *epoch;
                if let Some(spike) = &mut member.spike {
                    spike.switched = true;
                }
                if let Some(fault) = member.fault.take() {
                    book.reattach.record(now.since(fault));
                    if let Some(returned) = &mut self.returned {
                        returned.push(number);
                    }
                }
            }
            ClientEvent::Refused { reason, .. } => Book::count(&mut book.refused, *reason),
            ClientEvent::Terminated { reason, .. } => {
                member.state = None;
                member.inner = None;
                if member.fault.take().is_some()
                    && let Some(returned) = &mut self.returned
                {
                    returned.push(number);
                }
                self.live = self.live.saturating_sub(1);
                Book::count(&mut book.ended, *reason);
            }
            ClientEvent::Rekeyed { .. } | ClientEvent::PolicyChanged { .. } => {}
        }
    }
}
