//! Many clients of a WireGuard gateway that want something of it: all at once, or so many at a time.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use jumpgate_protocol::time::Span;

use super::forward::cpu_of;
use super::lab::{Lab, inner_of, outer_of};
use super::programs::Peer;
use super::tunnel::{Kind, OVERHEAD, Tunnel};
use crate::load::book::{Distribution, Times};
use crate::load::datagram::{self, Stamp};
use crate::load::member::owner_of;
use crate::load::plant::{GATEWAY, SERVER};

/// Packets sent or taken in one turn.
const TURN: usize = 64;
/// The clients' first source port.
pub(super) const PORT: u16 = 1_024;
/// Length of the inner packet with which a client that has moved says so, in bytes: a small request.
const ECHO_BYTES: usize = 128;
/// Times that clients whose answers went astray are asked again to shake hands.
const MENDINGS: usize = 5;
/// Pause after each turn of confirmations, so that they find room in the gateway's socket.
const CONFIRMATION_PAUSE: Duration = Duration::from_millis(1);

/// What every client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// A session, by a handshake. It is back when the gateway's response arrives.
    Handshake,
    /// Traffic at its new address, of that path and port: it sends a packet from there, to a server that echoes. It is
    /// back when the echo arrives there, sealed.
    Roam { path: u32, port: u16 },
}

/// How they come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Clients that may wait for an answer at one time.
    pub(super) window: usize,
    /// When one that has waited asks again.
    pub(super) retry: Duration,
    /// When those that are not back are given up.
    pub(super) patience: Duration,
}

/// What became of a wave.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Clients that are back, and all.
    pub(super) back: usize,
    pub(super) total: usize,
    /// From the first packet to the last client back.
    pub(super) took: Duration,
    /// From the beginning until each was back.
    pub(super) times: Distribution,
    /// Packets sent again, and cookies that the gateway asked for.
    pub(super) resent: u64,
    pub(super) cookies: u64,
    /// CPU time of the gateway's process.
    pub(super) cpu: Duration,
    /// Share of the time in which the generator computed: near 1, it was the limit.
    pub(super) generator_busy: f64,
}

/// A gateway and its clients.
pub(super) struct Company {
    pub(super) lab: Lab,
    tunnels: Vec<Tunnel>,
    at: Vec<SocketAddrV4>,
    responses: Vec<(u32, Vec<u8>)>,
}

impl Company {
    /// Starts the gateway; it knows nobody yet.
    pub(super) fn start(peer: Peer, program: &Path, clients: u32, seed: u64, cpu: usize) -> Result<Self> {
        let lab = Lab::start(peer, program, clients, seed, cpu)?;
        let at = (0..clients).map(|number| outer_of(number, 0, PORT)).collect();
        let mut company = Self { lab, tunnels: Vec::new(), at, responses: Vec::new() };
        company.forget();
        Ok(company)
    }

    /// All clients lose their state, cookies too.
    fn forget(&mut self) {
        let (secrets, key) = (&self.lab.secrets, self.lab.key);
        let tunnels = secrets.iter().zip(0..).zip(&self.at);
        self.tunnels = tunnels.map(|((secret, number), at)| Tunnel::new(secret, key, number, *at.ip())).collect();
    }

    /// How many clients there are.
    pub(super) fn len(&self) -> u32 {
        self.tunnels.len() as u32
    }

    /// Where a client is.
    pub(super) fn at(&self, number: u32) -> SocketAddrV4 {
        self.at[number as usize]
    }

    /// The tunnel of a client.
    pub(super) fn tunnel(&mut self, number: u32) -> &mut Tunnel {
        &mut self.tunnels[number as usize]
    }

    /// Runs a wave of all clients. After handshakes, every client has its new session.
    pub(super) fn wave(&mut self, errand: Errand, pace: Pace, stop: &dyn Fn() -> bool) -> Result<Outcome> {
        let everybody: Vec<u32> = (0..self.len()).collect();
        if let Errand::Roam { path, port } = errand {
            self.at = everybody.iter().map(|number| outer_of(*number, path, port)).collect();
        }
        let outcome = self.run(&everybody, errand, pace, stop)?;
        if errand == Errand::Handshake {
            let mut astray = self.settle()?;
            for _ in 0..MENDINGS {
                if astray.is_empty() || stop() {
                    break;
                }
                self.run(&astray, errand, pace, stop)?;
                astray = self.settle()?;
            }
        }
        Ok(outcome)
    }

    fn run(&mut self, who: &[u32], errand: Errand, pace: Pace, stop: &dyn Fn() -> bool) -> Result<Outcome> {
        self.lab.check()?;
        // Prepared ahead: the clock is the gateway's.
        let first: Vec<Vec<u8>> = who.iter().map(|number| self.packet(*number, errand)).collect::<Result<_>>()?;
        let mut waiting = vec![false; self.tunnels.len()];
        let mut due: VecDeque<(Instant, u32)> = VecDeque::new();
        let (mut next, mut resent, mut cookies, mut back) = (0, 0, 0, 0);
        let (mut times, mut computing) = (Times::new()?, Duration::ZERO);
        let cpu = cpu_of(self.lab.pid())?;
        let started = Instant::now();
        let mut last = started;
        while back < who.len() && !stop() && started.elapsed() < pace.patience {
            let now = Instant::now();
            for _ in 0..TURN {
                if next < who.len() && next - back < pace.window {
                    waiting[who[next] as usize] = true;
                    self.send(who[next], &first[next])?;
                    due.push_back((now + pace.retry, who[next]));
                    next += 1;
                } else if let Some(&(at, number)) = due.front()
                    && at <= now
                {
                    due.pop_front();
                    if waiting[number as usize] {
                        let packet = self.packet(number, errand)?;
                        self.send(number, &packet)?;
                        due.push_back((now + pace.retry, number));
                        resent += 1;
                    }
                } else {
                    break;
                }
            }
            self.lab.clients.flush()?;
            for (to, packet) in self.receive()? {
                let Some(number) = self.number_at(to) else { continue };
                let place = number as usize;
                match (Kind::of(&packet), errand) {
                    (Some(Kind::Response), Errand::Handshake) => {
                        if std::mem::take(&mut waiting[place]) {
                            (back, last) = (back + 1, Instant::now());
                            times.record(Span::from_micros((last - started).as_micros() as u64));
                        }
                        self.responses.push((number, packet));
                    }
                    (Some(Kind::Cookie), Errand::Handshake) if waiting[place] => {
                        let since = Instant::now();
                        if self.tunnels[place].cookie(&packet) {
                            // At once, and not when the timer runs out: the peers' best.
                            let packet = self.packet(number, errand)?;
                            self.send(number, &packet)?;
                            cookies += 1;
                        }
                        computing += since.elapsed();
                    }
                    (Some(Kind::Data), Errand::Roam { .. }) if waiting[place] && self.tunnels[place].opens(&packet) => {
                        waiting[place] = false;
                        (back, last) = (back + 1, Instant::now());
                        times.record(Span::from_micros((last - started).as_micros() as u64));
                    }
                    _ => {}
                }
            }
            self.echo()?;
        }
        let took = last - started;
        Ok(Outcome {
            back,
            total: who.len(),
            took,
            times: times.distribution(),
            resent,
            cookies,
            cpu: Duration::from_nanos((cpu_of(self.lab.pid())? - cpu) as u64),
            generator_busy: computing.as_secs_f64() / took.as_secs_f64().max(f64::EPSILON),
        })
    }

    /// Completes handshakes whose responses have arrived, and confirms them. Gives the clients whose response did not fit
    /// any more.
    fn settle(&mut self) -> Result<Vec<u32>> {
        let responses = std::mem::take(&mut self.responses);
        let mut has_session = vec![false; self.tunnels.len()];
        let mut answered = Vec::new();
        for (place, (number, response)) in responses.iter().enumerate() {
            answered.push(*number);
            if let Some(confirmation) = self.tunnels[*number as usize].response(response) {
                has_session[*number as usize] = true;
                self.send(*number, &confirmation)?;
            }
            if place % TURN == TURN - 1 {
                self.lab.clients.flush()?;
                std::thread::sleep(CONFIRMATION_PAUSE);
            }
        }
        self.lab.clients.flush()?;
        answered.sort_unstable();
        answered.dedup();
        answered.retain(|number| !has_session[*number as usize]);
        Ok(answered)
    }

    /// What a client sends for its errand, new each time.
    fn packet(&mut self, number: u32, errand: Errand) -> Result<Vec<u8>> {
        let tunnel = &mut self.tunnels[number as usize];
        match errand {
            Errand::Handshake => tunnel.initiation(),
            Errand::Roam { .. } => {
                let mut inner = [0; ECHO_BYTES];
                let stamp = Stamp { at: 0, number: 0, client: number };
                datagram::write_inner(&mut inner, inner_of(number), SERVER, stamp);
                let mut sealed = vec![0; ECHO_BYTES + OVERHEAD];
                tunnel.seal(&inner, &mut sealed)?;
                Ok(sealed)
            }
        }
    }

    fn send(&mut self, number: u32, packet: &[u8]) -> Result<()> {
        let (ends, from) = (self.lab.clients_ends, self.at[number as usize]);
        // A frame that finds no room is a lost packet: it is sent again like any other.
        self.lab.clients.send(|room| datagram::write(room, ends, from, GATEWAY, packet))?;
        Ok(())
    }

    /// Which client an address belongs to, if that is where it is now.
    fn number_at(&self, to: SocketAddrV4) -> Option<u32> {
        let (number, _) = owner_of(*to.ip())?;
        (self.at.get(number as usize) == Some(&to)).then_some(number)
    }

    fn receive(&mut self) -> Result<Vec<(SocketAddrV4, Vec<u8>)>> {
        let mut inbox = Vec::new();
        self.lab.clients.receive(TURN, |frame| {
            if let Some((to, payload)) = datagram::read(frame) {
                inbox.push((to, payload.to_vec()));
            }
        })?;
        Ok(inbox)
    }

    /// The servers send back what came to them.
    fn echo(&mut self) -> Result<()> {
        let mut answers: Vec<Vec<u8>> = Vec::new();
        self.lab.servers.receive(TURN, |frame| {
            if datagram::turn_round(frame) {
                answers.push(frame.to_vec());
            }
        })?;
        for answer in &answers {
            self.lab.servers.send(|room| {
                room[..answer.len()].copy_from_slice(answer);
                answer.len()
            })?;
        }
        self.lab.servers.flush()
    }

    /// Whether every client has a session; an error if not.
    pub(super) fn demand_all(&self, outcome: &Outcome) -> Result<()> {
        if outcome.back < outcome.total {
            bail!("only {} of {} clients got a session", outcome.back, outcome.total);
        }
        Ok(())
    }
}
