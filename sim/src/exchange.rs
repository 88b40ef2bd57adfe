//! What happens in the world: datagrams arrive, timers run out, and every packet passes the oracles.

use std::cmp::Reverse;
use std::net::{Ipv4Addr, SocketAddr};

use jumpgate_protocol::client::ClientEvent;
use jumpgate_protocol::gateway::{EventKind, SessionEvent};
use jumpgate_protocol::ident::{Arrival, Locator, TransportId, Tuple};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Time;
use jumpgate_protocol::wire::{Header, MessageType};

use crate::oracle::{Sealer, fingerprint};
use crate::world::{Happening, Queued, World, gateway_address};

impl World {
    pub(crate) fn queue_at(&mut self, at: Time, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Queued { at, order: self.order, what }));
    }

    pub(crate) fn happen(&mut self, what: Happening) {
        match what {
            Happening::ToGateway { from, packet } => self.gateway_receives(from, packet),
            Happening::ToClient { client, path, packet } => self.client_receives(client, path, packet),
            Happening::ClientTimer { client } => {
                let now = self.local(client);
                let entry = &mut self.clients[client];
                if entry.timer <= self.now && !entry.asleep {
                    entry.timer = Time::NEVER;
                    entry.client.timeout(now);
                    self.timer_calls += 1;
                    self.flush_client(client);
                }
            }
        }
    }

    fn gateway_receives(&mut self, from: SocketAddr, mut packet: Vec<u8>) {
        let arrival = Arrival { tuple: Tuple { local: gateway_address(), peer: from }, route: 0, queue: 0 };
        let (bytes, fingerprint, replay) = (packet.len(), fingerprint(&packet), self.replays.is_replay(&packet));
        self.arriving = (from, bytes);
        if !replay {
            self.amplification.received(from, bytes);
        }
        if packet.first() == Some(&(MessageType::HelloInit as u8)) {
            let outcome = self.desk.hello(self.now, &arrival, &packet);
            if let Some(birth) = outcome.birth {
                let worker = self.worker_of(birth.locator);
                self.shards[worker].birth(self.now, birth);
                self.flush_shard(worker);
            }
            if let Some(reply) = outcome.reply {
                self.checker.answered(packet.len(), reply.len());
                self.deliver_to_peer(from, &reply);
            }
            return;
        }
        let Ok(header) = Header::parse(&packet) else {
            return;
        };
        let worker = self.worker_of(header.locator);
        let before = replay.then(|| self.fixed_point(header.locator));
        let accepted = if header.kind == MessageType::Data {
            let result = self.shards[worker].data_in(self.now, &arrival, &mut packet);
            if let Ok(inner) = result
                && let Some((source, payload)) = split_inner(&packet[inner.start..inner.start + inner.len])
            {
                self.received.push((source, payload.to_vec()));
            }
            result.is_ok()
        } else {
            self.shards[worker].control_in(self.now, &arrival, &mut packet).is_ok()
        };
        if before.is_some_and(|before| before != self.fixed_point(header.locator)) {
            self.checker.violated(format!("INV-12: a {} sent again from {from} changed its session", header.kind));
        }
        if accepted {
            self.replays.accepted(fingerprint);
        }
        self.flush_shard(worker);
    }

    fn client_receives(&mut self, client: usize, path: u16, mut packet: Vec<u8>) {
        if self.clients[client].asleep {
            return;
        }
        let now = self.local(client);
        let fingerprint = fingerprint(&packet);
        let replay = self.clients[client].accepted.is_replay(&packet);
        let entry = &mut self.clients[client];
        let before = entry.client.status(now);
        let result = entry.client.datagram_in(now, TransportId(path), &mut packet);
        let after = entry.client.status(now);
        if replay && (before.state, before.epoch, before.active) != (after.state, after.epoch, after.active) {
            self.checker.violated(format!("INV-12: a packet sent again changed client {client}"));
        }
        let entry = &mut self.clients[client];
        if let Ok(inner) = result {
            entry.accepted.accepted(fingerprint);
            if let Some((_, payload)) = inner.and_then(|range| split_inner(&packet[range])) {
                entry.delivered.push(payload.to_vec());
            }
        }
        self.flush_client(client);
    }

    /// What no replay may change of a session.
    fn fixed_point(&self, locator: Locator) -> impl PartialEq + use<> {
        let view = self.shards[self.worker_of(locator)].view(self.now, locator);
        view.map(|view| (view.state, view.version, view.epoch, view.tuple, view.validated, view.received))
    }

    pub(crate) fn flush_shard(&mut self, worker: usize) {
        // Events first: the oracles must know of a binding before they see what is sent to it.
        while let Some(event) = self.shards[worker].poll_event() {
            self.gateway_event(&event);
        }
        while let Some(reply) = self.shards[worker].poll_reply() {
            self.deliver_to_peer(reply.tuple.peer, &reply.packet);
        }
    }

    fn gateway_event(&mut self, event: &SessionEvent) {
        match &event.kind {
            EventKind::Transition(transition) => {
                self.checker.transition(event.locator, transition);
                if !transition.to.is_live() {
                    self.ended.push((event.locator, transition.id, transition.reason));
                }
                self.amplification.transition(event.locator, transition, self.arriving);
            }
            EventKind::Validated { .. } => self.amplification.validated(event.locator),
            EventKind::Rekeyed { key_epoch, .. } => self.rekeyed.push((self.now, *key_epoch)),
            _ => self.noted.push((self.now, event.locator, event.kind.clone())),
        }
        if let Some(old) = self.desk.session_event(event) {
            self.terminate(old, Reason::SessionReplaced);
        }
    }

    pub(crate) fn flush_client(&mut self, index: usize) {
        while let Some(transmit) = self.clients[index].client.poll_transmit() {
            self.transmit(index, transmit.path.0, transmit.packet);
        }
        let (now, local) = (self.now, self.local(index));
        while let Some(event) = self.clients[index].client.poll_event() {
            match &event {
                ClientEvent::Connected { inner_v4, .. } => self.clients[index].inner = inner_v4.map(|(ip, _)| ip),
                ClientEvent::Transition { transition, .. } => self.checker.mirrored(index, transition),
                _ => {}
            }
            self.clients[index].events.push((now, event));
        }
        let entry = &mut self.clients[index];
        if let Some(next) = entry.client.next_timeout(local) {
            let next = now + next.since(local);
            if next < entry.timer {
                entry.timer = next;
                self.queue_at(next, Happening::ClientTimer { client: index });
            }
        }
    }

    pub(crate) fn transmit(&mut self, client: usize, path: u16, packet: Vec<u8>) {
        let violation = self.nonces.sealed(Sealer::Client, &packet);
        self.checker.found(violation);
        let Some(link) = self.clients[client].links.get(&path) else {
            return;
        };
        let (external, way) = (link.external, link.up);
        if let Some(capture) = &mut self.capture {
            capture.push((external, packet.clone()));
        }
        if self.is_censored(&packet) {
            return;
        }
        for (at, packet) in self.dice.carry(&way, self.now, &packet) {
            self.queue_at(at, Happening::ToGateway { from: external, packet });
        }
    }

    fn is_censored(&self, packet: &[u8]) -> bool {
        self.censored.iter().any(|kind| packet.first() == Some(&(*kind as u8)))
    }

    pub(crate) fn deliver_to_peer(&mut self, peer: SocketAddr, packet: &[u8]) {
        let violations = [self.nonces.sealed(Sealer::Gateway, packet), self.amplification.sent(peer, packet)];
        violations.into_iter().for_each(|violation| self.checker.found(violation));
        if packet.first().is_some_and(|kind| *kind == MessageType::PolicyUpdate as u8) {
            self.updates.push(packet.to_vec());
        }
        if self.is_censored(packet) {
            return;
        }
        let Some((client, path)) = self.by_external.get(&peer).copied() else {
            return;
        };
        let Some(way) = self.clients[client].links.get(&path).map(|link| link.down) else {
            return;
        };
        for (at, packet) in self.dice.carry(&way, self.now, packet) {
            self.queue_at(at, Happening::ToClient { client, path, packet });
        }
    }
}

/// Source and payload of an inner IPv4 packet.
fn split_inner(inner: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let source: [u8; 4] = inner.get(12..16)?.try_into().ok()?;
    Some((source.into(), inner.get(20..)?))
}
