//! What happens in the world: datagrams arrive, timers run out, and every packet passes the checkers and the oracles.

use std::net::{Ipv4Addr, SocketAddr};

use arrayvec::ArrayVec;
use jumpgate_protocol::audit::Record;
use jumpgate_protocol::client::ClientEvent;
use jumpgate_protocol::gateway::{EventKind, SessionEvent};
use jumpgate_protocol::ident::{Arrival, Locator, TransportId, Tuple};
use jumpgate_protocol::machine::Transition;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Time;
use jumpgate_protocol::wire::{Header, MessageType};

use crate::check::{Incoming, Safety, Work};
use crate::net::Passage;
use crate::oracle::{Sealer, fingerprint};
use crate::records::Writer;
use crate::world::{Happening, World, gateway_address};

impl World {
    pub(crate) fn happen(&mut self, what: Happening) {
        match what {
            Happening::ToGateway { .. } if self.absent_since.is_some() => {}
            Happening::ToGateway { from, packet, forged } => self.gateway_receives(from, packet, forged),
            Happening::ToClient { client, path, packet, forged } => self.client_receives(client, path, packet, forged),
            Happening::SlotArrives { slot } => self.slot_arrives(slot),
            Happening::ClientTimer { client } => {
                let now = self.local(client);
                let entry = &mut self.clients[client];
                if entry.timer <= self.now && entry.asleep_since.is_none() {
                    entry.timer = Time::NEVER;
                    entry.client.timeout(now);
                    self.timer_calls += 1;
                    self.flush_client(client);
                }
            }
        }
    }

    fn gateway_receives(&mut self, from: SocketAddr, mut packet: Vec<u8>, forged: bool) {
        let arrival = Arrival { tuple: Tuple { local: gateway_address(), peer: from }, route: 0, queue: 0 };
        if packet.first() == Some(&(MessageType::HelloInit as u8)) {
            self.desk_receives(&arrival, &packet, forged);
            return;
        }
        let header = Header::parse(&packet).ok();
        let locator = header.map_or(Locator::default(), |header| header.locator);
        let kind = header.map(|header| header.kind);
        if let Some(until) = self.held_until(locator, kind).filter(|until| *until > self.now) {
            self.queue.plan(until, Happening::ToGateway { from, packet, forged });
            return;
        }
        let worker = self.worker_of(locator);
        if self.paused_until[worker] > self.now {
            self.queue.plan(self.paused_until[worker], Happening::ToGateway { from, packet, forged });
            return;
        }
        let fingerprint = fingerprint(&packet);
        let incoming = Incoming {
            kind,
            from,
            locator,
            counter: header.map_or(0, |header| header.counter),
            tag: header.map_or(0, |header| header.tag),
            bytes: packet.len(),
            forged,
            replay: self.replays.is_replay(fingerprint),
        };
        if incoming.is_fresh() {
            self.amplification.received(locator, from, packet.len());
        }
        let outer = self.checker.begin(Work::Datagram(incoming));
        let before = (!incoming.is_fresh()).then(|| self.fixed_point(locator));
        let result = if incoming.kind == Some(MessageType::Data) {
            self.data_arrives(worker, &arrival, &mut packet, locator)
        } else {
            self.shards[worker].control_in(self.now, &arrival, &mut packet)
        };
        self.flush_shard(worker);
        if before.is_some_and(|before| before != self.fixed_point(locator)) && !self.checker.moved_by_time() {
            let kind = if incoming.replay { Safety::ReplayAccepted } else { Safety::Other };
            self.checker.violated(self.now, kind, &format!("INV-12, INV-31: {incoming:?} changed its session"));
        }
        if result.is_ok() || is_used_up(&incoming, result) {
            self.replays.accepted(fingerprint);
        }
        self.checker.end(&incoming, result, self.now);
        self.checker.begin(outer);
    }

    fn desk_receives(&mut self, arrival: &Arrival, packet: &[u8], forged: bool) {
        let (known, from) = (self.desk.len(), arrival.tuple.peer);
        let outcome = self.desk.hello(self.now, arrival, packet);
        self.flush_desk();
        self.fixations.extend(outcome.fixation);
        if forged && (outcome.birth.is_some() || self.desk.len() != known) {
            self.checker.violated(self.now, Safety::Other, "INV-37: a HELLO_INIT with a wrong gate MAC was kept");
        }
        if let Some(birth) = outcome.birth {
            let worker = self.worker_for_order(birth.locator);
            self.shards[worker].birth(self.now, birth);
            self.flush_shard(worker);
        }
        if let Some(reply) = outcome.reply {
            self.checker.answered(packet.len(), reply.len(), self.now);
            self.carry_down(from, &reply);
        }
    }

    fn data_arrives(
        &mut self,
        worker: usize,
        arrival: &Arrival,
        packet: &mut [u8],
        locator: Locator,
    ) -> Result<(), Reason> {
        let inner = self.shards[worker].data_in(self.now, arrival, packet)?;
        self.came_through.0 += 1;
        if let Some((source, payload)) = split_inner(&packet[inner.start..inner.start + inner.len]) {
            let own = self.told.get(&locator).filter(|(_, address)| *address == source);
            let whose = own.map(|(client, _)| self.clients[*client].key);
            self.checker.data_accepted(locator, arrival.tuple.peer, whose.as_ref(), self.now);
            if self.history {
                self.received.push((source, payload.to_vec()));
            }
        }
        Ok(())
    }

    fn client_receives(&mut self, client: usize, path: u16, mut packet: Vec<u8>, forged: bool) {
        if self.clients[client].asleep_since.is_some() {
            return;
        }
        let now = self.local(client);
        let fingerprint = fingerprint(&packet);
        let kind = packet.first().copied().and_then(MessageType::from_byte);
        let entry = &mut self.clients[client];
        let replay = entry.accepted.is_replay(fingerprint);
        let result = entry.client.datagram_in(now, TransportId(path), &mut packet);
        // A HELLO_RETRY is not protected: what it can do is to cost an attempt (HS-7).
        let forged = forged && kind != Some(MessageType::HelloRetry);
        if result.is_ok() && (forged || (replay && counts_once(kind))) {
            let safety = if forged { Safety::UnboundAccepted } else { Safety::ReplayAccepted };
            let words = format!("INV-12, INV-31: client {client} took {kind:?}, forged {forged}, replay {replay}");
            self.checker.violated(self.now, safety, &words);
        }
        let entry = &mut self.clients[client];
        if let Ok(inner) = result {
            entry.accepted.accepted(fingerprint);
            if let Some(range) = inner {
                self.came_through.1 += 1;
                let destination = split_destination(&packet[range.clone()]);
                if destination != entry.inner {
                    let words = format!("INV-27: client {client} got a packet for {destination:?}");
                    self.checker.violated(self.now, Safety::CrossSessionEffect, &words);
                }
                if let Some((_, payload)) = split_inner(&packet[range])
                    && self.history
                {
                    entry.delivered.push(payload.to_vec());
                }
            }
        }
        self.flush_client(client);
    }

    /// What neither a replay nor a forgery may change of a session.
    fn fixed_point(&self, locator: Locator) -> impl PartialEq + use<> {
        let view = self.shards[self.worker_of(locator)].view(self.now, locator);
        view.map(|view| (view.state, view.version, view.epoch, view.tuple, view.validated, view.received))
    }

    pub(crate) fn flush_shard(&mut self, worker: usize) {
        // Events first: the oracles must know of a binding before they see what is sent to it.
        while let Some(event) = self.shards[worker].poll_event() {
            self.gateway_event(worker, &event);
        }
        while let Some(reply) = self.shards[worker].poll_reply() {
            self.deliver_to_peer(reply.tuple.peer, &reply.packet);
        }
        while let Some(record) = self.shards[worker].poll_record() {
            self.recorded(Writer::Worker(worker), record);
        }
    }

    fn gateway_event(&mut self, worker: usize, event: &SessionEvent) {
        let (locator, now) = (event.locator, self.now);
        match &event.kind {
            EventKind::Created => self.checker.created(locator, event.client, worker, now),
            EventKind::Transition(transition) => {
                self.trace_gateway(event, transition);
                self.checker.transition(locator, event.client, worker, transition);
                if let Some(course) = &mut self.course {
                    course.push((locator, *transition));
                }
                self.amplification.transition(locator, transition, self.checker.arriving());
                if !transition.to.is_live() {
                    self.over.push_back((now, locator));
                    if self.history {
                        self.ended.push((locator, transition.id, transition.reason));
                    }
                }
            }
            EventKind::Validated { epoch } => {
                self.checker.validated(locator, *epoch, now);
                self.amplification.validated(locator);
            }
            EventKind::Rekeyed { key_epoch, .. } => {
                self.checker.rekeyed(locator, now);
                self.rekeyed.push((now, *key_epoch));
            }
            _ if self.history => self.noted.push((now, locator, event.kind.clone())),
            _ => {}
        }
        if let Some(old) = self.desk.session_event(event) {
            self.terminate(old, Reason::SessionReplaced);
        }
    }

    pub(crate) fn flush_client(&mut self, index: usize) {
        let (now, local) = (self.now, self.local(index));
        // Events first: what is asked of the gateway is judged by what the client knew then.
        while let Some(event) = self.clients[index].client.poll_event() {
            self.client_event(index, &event, local);
            if self.history {
                self.clients[index].events.push((now, event));
            }
        }
        while let Some(transmit) = self.clients[index].client.poll_transmit() {
            self.transmit(index, transmit.path.0, transmit.packet);
        }
        while let Some(record) = self.clients[index].client.poll_record() {
            self.recorded(Writer::Client(index), record);
        }
        let entry = &mut self.clients[index];
        if let Some(next) = entry.client.next_timeout(local) {
            let next = entry.clock.until(next, now);
            if next < entry.timer {
                entry.timer = next;
                self.queue.plan(next, Happening::ClientTimer { client: index });
            }
        }
    }

    pub(crate) fn flush_desk(&mut self) {
        while let Some(record) = self.desk.poll_record() {
            self.recorded(Writer::Desk, record);
        }
    }

    fn recorded(&mut self, writer: Writer, record: Record) {
        if let Some(trace) = &mut self.trace {
            trace.record(writer, &record);
        }
        for words in self.records.take(writer, record) {
            self.checker.violated(self.now, Safety::Other, &words);
        }
    }

    fn client_event(&mut self, index: usize, event: &ClientEvent, local: Time) {
        match event {
            ClientEvent::Connected { locator, inner_v4, .. } => {
                self.clients[index].inner = inner_v4.map(|(ip, _)| ip);
                if let Some((ip, _)) = inner_v4 {
                    self.told.insert(*locator, (index, *ip));
                }
                self.checker.connected(index, *locator, local, self.now);
            }
            ClientEvent::Transition { transition, .. } => {
                self.trace_client(index, transition);
                self.checker.mirrored(index, transition, self.now);
            }
            _ => {}
        }
    }

    pub(crate) fn transmit(&mut self, client: usize, path: u16, packet: Vec<u8>) {
        if let Ok(header) = Header::parse(&packet) {
            if let Some(words) = self.nonces.sealed(Sealer::Client, &packet) {
                self.checker.violated(self.now, Safety::NonceReuse, &words);
            }
            if header.kind == MessageType::ReattachRequest {
                self.checker.asked(client, header.locator, header.counter);
            }
        }
        if self.history {
            self.genuine.accepted(fingerprint(&packet));
        }
        let mapped = self.clients[client].links.get(&path).is_none_or(|link| link.is_mapped(self.now));
        if !mapped {
            self.rebind(client, path);
        }
        let Some(link) = self.clients[client].links.get_mut(&path) else {
            return;
        };
        link.last_out = self.now;
        let from = link.external;
        if let Some(capture) = &mut self.capture {
            capture.push((from, packet.clone()));
        }
        if let Some(eavesdropper) = &mut self.eavesdropper {
            eavesdropper.hears_up(from, &packet);
        }
        if self.censored.iter().any(|kind| packet.first() == Some(&(*kind as u8))) {
            return;
        }
        let passages = link.up.carry(&mut link.up_state, &mut self.dice, self.now, packet.len());
        for (at, packet, forged) in copies(&passages, packet) {
            self.queue.plan(at, Happening::ToGateway { from, packet, forged });
        }
    }

    /// The gateway sends a packet of a session.
    pub(crate) fn deliver_to_peer(&mut self, peer: SocketAddr, packet: &[u8]) {
        if let Ok(header) = Header::parse(packet) {
            if let Some(words) = self.nonces.sealed(Sealer::Gateway, packet) {
                self.checker.violated(self.now, Safety::NonceReuse, &words);
            }
            if let Some(words) = self.amplification.sent(peer, packet) {
                self.checker.violated(self.now, Safety::Other, &words);
            }
            self.checker.sent(peer, &header, self.now);
        } else if let Some((from, bytes)) = self.checker.arriving()
            && from == peer
        {
            // SESSION_RESET: the one answer to what is not authenticated.
            self.checker.answered(bytes, packet.len(), self.now);
        }
        self.carry_down(peer, packet);
    }

    fn carry_down(&mut self, peer: SocketAddr, packet: &[u8]) {
        if self.history {
            self.genuine.accepted(fingerprint(packet));
            if packet.first() == Some(&(MessageType::PolicyUpdate as u8)) {
                self.updates.push(packet.to_vec());
            }
        }
        if self.censored.iter().any(|kind| packet.first() == Some(&(*kind as u8))) {
            return;
        }
        if let Some(overheard) = &mut self.overheard {
            overheard.push(packet.to_vec());
        }
        let Some((client, path)) = self.by_external.get(&peer).copied() else {
            if self.history {
                self.mail.push((peer, packet.to_vec()));
            }
            return;
        };
        let Some(link) = self.clients[client].links.get_mut(&path).filter(|link| link.is_mapped(self.now)) else {
            return;
        };
        if let Some(eavesdropper) = &mut self.eavesdropper {
            eavesdropper.hears_down(client, path, packet);
        }
        let passages = link.down.carry(&mut link.down_state, &mut self.dice, self.now, packet.len());
        for (at, packet, forged) in copies(&passages, packet.to_vec()) {
            self.queue.plan(at, Happening::ToClient { client, path, packet, forged });
        }
    }

    fn trace_gateway(&self, event: &SessionEvent, transition: &Transition) {
        if self.traced.is_some_and(|client| self.by_key.get(&event.client) == Some(&client)) {
            println!("{} gateway {} {}", clock(self.now), event.locator, line(transition));
        }
    }

    fn trace_client(&self, index: usize, transition: &Transition) {
        if self.traced == Some(index) {
            println!("{} client  {index:>16} {}", clock(self.now), line(transition));
        }
    }
}

/// What arrives of a datagram: its copies, each with its flipped bit.
fn copies(passages: &[Passage], packet: Vec<u8>) -> ArrayVec<(Time, Vec<u8>, bool), 2> {
    let mut copies = ArrayVec::new();
    if let [first, rest @ ..] = passages {
        for passage in rest {
            copies.push((passage.at, flip(packet.clone(), passage.flipped), passage.flipped.is_some()));
        }
        copies.push((first.at, flip(packet, first.flipped), first.flipped.is_some()));
    }
    copies
}

fn flip(mut packet: Vec<u8>, bit: Option<usize>) -> Vec<u8> {
    if let Some(bit) = bit {
        packet[bit / 8] ^= 1 << (bit % 8);
    }
    packet
}

/// A request that was refused after its proof was good has used up its nonce all the same (RF-2): from then on the same
/// bytes are a copy.
fn is_used_up(packet: &Incoming, result: Result<(), Reason>) -> bool {
    let unproved = [Reason::AuthFail, Reason::SessionNotFound, Reason::KeyEpochUnknown];
    packet.kind == Some(MessageType::ReattachRequest) && result.is_err_and(|reason| !unproved.contains(&reason))
}

/// Messages that a client takes once and never again (AR-1, AR-3).
const fn counts_once(kind: Option<MessageType>) -> bool {
    matches!(
        kind,
        Some(
            MessageType::Data
                | MessageType::HeartbeatAck
                | MessageType::PathProbeAck
                | MessageType::ReattachAck
                | MessageType::ReattachReject
                | MessageType::ReattachHint
        )
    )
}

fn clock(now: Time) -> String {
    format!("{:>6}.{:03} s", now.as_millis() / 1_000, now.as_millis() % 1_000)
}

fn line(transition: &Transition) -> String {
    let Transition { id, from, to, reason, version, epoch, .. } = transition;
    let peer = transition.active.map_or_else(String::new, |binding| format!(" on {}", binding.transport));
    format!("{id} {from} -> {to} {reason} version {version} epoch {epoch}{peer}")
}

/// Source and payload of an inner IPv4 packet.
fn split_inner(inner: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let source: [u8; 4] = inner.get(12..16)?.try_into().ok()?;
    Some((source.into(), inner.get(20..)?))
}

fn split_destination(inner: &[u8]) -> Option<Ipv4Addr> {
    let destination: [u8; 4] = inner.get(16..20)?.try_into().ok()?;
    Some(destination.into())
}
