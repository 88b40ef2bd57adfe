//! What happens to one packet: the path from one port to the other, without rings, threads or system calls.

use std::collections::VecDeque;
use std::net::IpAddr;

use jumpgate_common::{Family, parse_inside, parse_outer};
use jumpgate_protocol::gateway::{AddressPool, Parcel, Reply, Title};
use jumpgate_protocol::ident::{Arrival, Tuple};
use jumpgate_protocol::limits::Bucket;
use jumpgate_protocol::policy::Rate;
use jumpgate_protocol::reason::{Reason, ReasonCounters};
use jumpgate_protocol::time::Time;
use jumpgate_protocol::wire::{HEADER_LEN, MessageType, TAG_LEN};

use super::Sessions;
use super::headers::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use super::hops::Hops;
use super::mss;
use super::refusals::ControlRefusals;
use super::too_big::{self, Sources};
use crate::handover::{INSIDE_HOP, NextHop};
use crate::port::{BATCH, Role};
use crate::sys::{Frame, Umem};

const DATA: u8 = MessageType::Data as u8;
const HEARTBEAT: u8 = MessageType::Heartbeat as u8;

/// Answers to packets that are too big, per worker: enough for every connection that starts, too few to be of use to
/// somebody who forges senders.
const TOO_BIG_ANSWERS: Rate = Rate { per_second: 200, burst: 100 };

/// Where a control packet is written within a frame: behind the headroom that every outer header fits into.
const CONTROL_AT: usize = 256;

/// The gateway's own index in the pool; errors come from its addresses.
const GATEWAY_INDEX: u32 = 1;

/// What is to become of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its packet is complete, down to the Ethernet header, and leaves by that port.
    Send(Role),
    /// It carries nothing any more.
    Discard,
}

/// A packet that found no next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// Where it was going; nothing if it was going inside.
    pub peer: Option<IpAddr>,
    /// The id that stands for no next hop.
    pub route: u32,
}

/// One worker's packet path: its sessions, and how to reach what is on either side.
pub struct DataPath<S> {
    sessions: S,
    hops: Hops,
    pool: AddressPool,
    inner_mtu: u16,
    sources: Sources,
    too_big_answers: Bucket,
    counters: PathCounters,
    /// Replies whose next hop is not known here; the slow path sends them. At most one for each frame of a batch.
    strays: VecDeque<Reply>,
    unresolved: Option<Unresolved>,
}

/// What the path counts beside the sessions' own counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathCounters {
    /// Packets dropped, by reason.
    pub drops: ReasonCounters,
    /// Packets dropped for want of a next hop's link address.
    pub no_next_hop: u64,
    /// Senders that were told that their packet is too big.
    pub too_big_answers: u64,
    /// Control packets sent, in the frame that brought the request or in a spare one.
    pub answered: u64,
    /// Control messages that the sessions refused; among the sessions' own counters as well.
    pub refusals: ControlRefusals,
}

impl<S: Sessions> DataPath<S> {
    /// A path for sessions whose inner addresses are in `pool`, through tunnels that carry packets up to `inner_mtu`.
    pub fn new(sessions: S, pool: AddressPool, inner_mtu: u16, now: Time) -> Self {
        Self {
            sessions,
            hops: Hops::new(),
            sources: Sources { v4: pool.v4(GATEWAY_INDEX), v6: pool.v6(GATEWAY_INDEX) },
            pool,
            inner_mtu,
            too_big_answers: Bucket::full(TOO_BIG_ANSWERS, now),
            counters: PathCounters::default(),
            strays: VecDeque::with_capacity(BATCH),
            unresolved: None,
        }
    }

    /// A frame of the outside port: DATA is decapsulated, HEARTBEAT answered.
    pub fn from_outside(&mut self, now: Time, memory: &Umem, frame: &mut Frame, queue: u16) -> Verdict {
        let start = frame.start();
        let packet = memory.bytes_mut(frame);
        let Ok(outer) = parse_outer(packet) else { return self.dropped(Reason::Malformed) };
        let payload = &mut packet[outer.payload..outer.payload + outer.payload_len];
        let tuple = Tuple { local: outer.local(), peer: outer.peer() };
        match payload.first() {
            Some(&DATA) => {
                // DATA never makes or moves a binding (INV-26), so nobody asks it for the way back.
                let arrival = Arrival { tuple, route: Arrival::NO_ROUTE, queue };
                // The sessions count what they refuse.
                let Ok(inner) = self.sessions.data_in(now, &arrival, payload) else { return Verdict::Discard };
                if frame.place(start + outer.payload + inner.start, inner.len).is_err() {
                    return self.dropped(Reason::InternalError);
                }
                self.forward_inside(now, memory, frame)
            }
            Some(&HEARTBEAT) => {
                let arrival = Arrival { tuple, route: self.hops.route(tuple.peer.ip()), queue };
                match self.sessions.control_in(now, &arrival, payload) {
                    Ok(()) => self.answer(memory, frame),
                    Err(reason) => {
                        self.counters.refusals.count(payload, reason);
                        Verdict::Discard
                    }
                }
            }
            Some(_) => self.dropped(Reason::UnknownType),
            None => self.dropped(Reason::Malformed),
        }
    }

    /// A frame of the inside port: a packet for a client is encapsulated.
    pub fn from_inside(&mut self, now: Time, memory: &Umem, frame: &mut Frame) -> Verdict {
        let Ok(inside) = parse_inside(memory.bytes(frame)) else { return self.dropped(Reason::Malformed) };
        let Some(index) = self.pool.index_of(inside.destination.ip()) else {
            return self.dropped(Reason::SessionNotFound);
        };
        // By the IP length: a device pads short packets.
        if frame.place(frame.start() + inside.l3, inside.len).is_err() {
            return self.dropped(Reason::InternalError);
        }
        if inside.len > usize::from(self.inner_mtu) {
            return match self.say_too_big(now, memory, frame, inside.family) {
                Some(ethertype) => self.leave_inside(now, memory, frame, ethertype),
                None => Verdict::Discard,
            };
        }
        mss::clamp(memory.bytes_mut(frame), self.inner_mtu);
        self.encapsulate(now, memory, frame, index)
    }

    /// Writes the sessions' next reply into an empty frame; nothing if there is none, or if too many wait for the slow path.
    pub fn say(&mut self, memory: &Umem, frame: &mut Frame) -> Option<Verdict> {
        let reply = if self.strays.len() < BATCH { self.sessions.poll_reply() } else { None };
        reply.map(|reply| self.write(reply, memory, frame))
    }

    /// The next reply that is for the slow path to send.
    pub fn poll_reply(&mut self) -> Option<Reply> {
        self.strays.pop_front().or_else(|| self.sessions.poll_reply())
    }

    /// A next hop that the slow path should look for.
    pub fn poll_unresolved(&mut self) -> Option<Unresolved> {
        self.unresolved.take()
    }

    /// Sets or clears a next hop.
    pub fn set_hop(&mut self, id: u32, hop: Option<NextHop>) {
        self.hops.set(id, hop);
    }

    /// Sets a peer's next hop, or takes it away, and re-points the bindings of that peer.
    pub fn set_route(&mut self, peer: IpAddr, route: u32) {
        self.hops.set_route(peer, route);
        self.sessions.set_route(peer, route);
    }

    /// Forgets a peer's next hop. Its bindings keep theirs.
    pub fn forget_peer(&mut self, peer: IpAddr) {
        self.hops.set_route(peer, Arrival::NO_ROUTE);
    }

    /// Takes over a slot. Its sessions go by the next hops that are known here.
    ///
    /// # Errors
    /// As [`Sessions::adopt`].
    pub fn adopt(&mut self, now: Time, parcel: Parcel, title: Title) -> Result<(), Parcel> {
        let Self { sessions, hops, .. } = self;
        let route = |peer| Some(hops.route(peer)).filter(|route| *route != Arrival::NO_ROUTE);
        sessions.adopt(now, parcel, title, &route)
    }

    /// The sessions.
    pub fn sessions(&self) -> &S {
        &self.sessions
    }

    /// The sessions, to be driven.
    pub fn sessions_mut(&mut self) -> &mut S {
        &mut self.sessions
    }

    /// What was counted here; the sessions' drops are their own.
    pub fn counters(&self) -> &PathCounters {
        &self.counters
    }

    /// Counts a control message that the sessions refused.
    pub(super) fn count_refusal(&mut self, packet: &[u8], reason: Reason) {
        self.counters.refusals.count(packet, reason);
    }

    /// Counts a packet that found its port congested.
    pub(super) fn count_congestion(&mut self) {
        self.counters.drops.count(Reason::QueueFull);
    }

    /// The frame holds an inner packet of a client.
    fn forward_inside(&mut self, now: Time, memory: &Umem, frame: &mut Frame) -> Verdict {
        let (family, ethertype) = match memory.bytes(frame).first().map(|byte| byte >> 4) {
            Some(4) => (Family::V4, ETHERTYPE_IPV4),
            Some(6) => (Family::V6, ETHERTYPE_IPV6),
            _ => return self.dropped(Reason::InnerSourceInvalid),
        };
        if frame.len() > usize::from(self.inner_mtu) {
            // The error goes back to the client the way everything goes to it. Its source was checked by the session.
            let index = source(memory.bytes(frame), family).and_then(|source| self.pool.index_of(source));
            return match (index, self.say_too_big(now, memory, frame, family)) {
                (Some(index), Some(_)) => self.encapsulate(now, memory, frame, index),
                _ => Verdict::Discard,
            };
        }
        mss::clamp(memory.bytes_mut(frame), self.inner_mtu);
        self.leave_inside(now, memory, frame, ethertype)
    }

    /// The frame holds an IP packet that leaves by the inside port.
    fn leave_inside(&mut self, now: Time, memory: &Umem, frame: &mut Frame, ethertype: u16) -> Verdict {
        let Some(hop) = self.hops.hop(INSIDE_HOP) else { return self.no_next_hop(now, None, INSIDE_HOP) };
        match headers::prepend_link(memory, frame, hop, ethertype) {
            Ok(()) => Verdict::Send(Role::Inside),
            Err(_) => self.dropped(Reason::MtuExceeded),
        }
    }

    /// The frame holds an inner packet for the client of that index.
    fn encapsulate(&mut self, now: Time, memory: &Umem, frame: &mut Frame, index: u32) -> Verdict {
        if frame.prepend(HEADER_LEN).and_then(|()| frame.append(TAG_LEN)).is_err() {
            return self.dropped(Reason::MtuExceeded);
        }
        // The sessions count what they refuse.
        let Ok(outbound) = self.sessions.data_out(index, memory.bytes_mut(frame)) else { return Verdict::Discard };
        let Some(hop) = self.hops.hop(outbound.route) else {
            return self.no_next_hop(now, Some(outbound.tuple.peer.ip()), outbound.route);
        };
        match headers::prepend_outer(memory, frame, hop, &outbound.tuple) {
            Ok(()) => Verdict::Send(Role::Outside),
            Err(reason) => self.dropped(reason),
        }
    }

    /// Sends the sessions' next reply in the frame that brought the request.
    fn answer(&mut self, memory: &Umem, frame: &mut Frame) -> Verdict {
        let reply = self.sessions.poll_reply();
        reply.map_or(Verdict::Discard, |reply| self.write(reply, memory, frame))
    }

    /// Writes a reply into a frame whose packet is of no further use, or leaves it to the slow path.
    fn write(&mut self, reply: Reply, memory: &Umem, frame: &mut Frame) -> Verdict {
        let Some(hop) = self.hops.hop(reply.route) else {
            if self.strays.len() == BATCH {
                return self.dropped(Reason::QueueFull);
            }
            self.strays.push_back(reply);
            return Verdict::Discard;
        };
        if frame.place(CONTROL_AT, reply.packet.len()).is_err() {
            return self.dropped(Reason::InternalError);
        }
        memory.bytes_mut(frame).copy_from_slice(&reply.packet);
        match headers::prepend_outer(memory, frame, hop, &reply.tuple) {
            Ok(()) => {
                self.counters.answered += 1;
                Verdict::Send(Role::Outside)
            }
            Err(reason) => self.dropped(reason),
        }
    }

    /// Counts a packet that exceeds the tunnel's MTU and turns it into the answer to its sender, if there is to be one.
    fn say_too_big(&mut self, now: Time, memory: &Umem, frame: &mut Frame, family: Family) -> Option<u16> {
        self.counters.drops.count(Reason::MtuExceeded);
        self.too_big_answers.take(TOO_BIG_ANSWERS, now).ok()?;
        let ethertype = too_big::answer(memory, frame, family, self.inner_mtu, self.sources)?;
        self.counters.too_big_answers += 1;
        Some(ethertype)
    }

    fn no_next_hop(&mut self, now: Time, peer: Option<IpAddr>, route: u32) -> Verdict {
        self.counters.no_next_hop += 1;
        if self.hops.should_ask(route, now) {
            self.unresolved = Some(Unresolved { peer, route });
        }
        Verdict::Discard
    }

    fn dropped(&mut self, reason: Reason) -> Verdict {
        self.counters.drops.count(reason);
        Verdict::Discard
    }
}

/// The source address of an IP packet of that family.
fn source(packet: &[u8], family: Family) -> Option<IpAddr> {
    match family {
        Family::V4 => packet.get(12..16)?.first_chunk::<4>().map(|&bytes| bytes.into()),
        Family::V6 => packet.get(8..24)?.first_chunk::<16>().map(|&bytes| bytes.into()),
    }
}
