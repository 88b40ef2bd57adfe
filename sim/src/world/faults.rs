//! What can go wrong in the world: paths, NATs, addresses, clocks, sleep, workers, the gateway itself.

use std::net::SocketAddr;

use jumpgate_protocol::gateway::ClientEntry;
use jumpgate_protocol::ident::{Arrival, Locator, TransportId, Tuple};
use jumpgate_protocol::machine::Evidence;
use jumpgate_protocol::policy::Policy;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use jumpgate_protocol::wire::{Header, MessageType};

use super::boot::{boot, path_info};
use super::slots::SlotTable;
use super::{Happening, World, WorldConfig, gateway_address};
use crate::check::Work;
use crate::net::Impairment;
use crate::oracle::{AmplificationOracle, fingerprint};

impl World {
    /// Something arrives at the gateway as from that address: for forged, replayed and raced packets.
    pub fn inject(&mut self, from: SocketAddr, packet: &[u8]) {
        self.inject_in(Span::ZERO, from, packet);
    }

    /// The same, that much later.
    pub fn inject_in(&mut self, span: Span, from: SocketAddr, packet: &[u8]) {
        let forged = self.is_forged(packet);
        self.queue.plan(self.now + span, Happening::ToGateway { from, packet: packet.to_vec(), forged });
    }

    /// Something that a holder of the keys made arrives at the gateway.
    pub fn inject_genuine(&mut self, from: SocketAddr, packet: &[u8]) {
        self.genuine.accepted(fingerprint(packet));
        if packet.first() == Some(&(MessageType::ReattachRequest as u8))
            && let Ok(header) = Header::parse(packet)
        {
            self.checker.may_be_unbound(header.locator, header.counter);
        }
        self.inject(from, packet);
    }

    /// A packet reaches a worker that is not the one of its session, as after a defect in steering.
    ///
    /// # Errors
    /// Why the worker refused it.
    pub fn misdeliver(&mut self, worker: usize, from: SocketAddr, packet: &[u8]) -> Result<(), Reason> {
        let arrival = Arrival { tuple: Tuple { local: gateway_address(), peer: from }, route: 0, queue: 0 };
        let mut packet = packet.to_vec();
        let result = if packet.first() == Some(&(MessageType::Data as u8)) {
            self.shards[worker].data_in(self.now, &arrival, &mut packet).map(|_| ())
        } else {
            self.shards[worker].control_in(self.now, &arrival, &mut packet)
        };
        self.flush_shard(worker);
        result
    }

    /// Takes what the gateway sent to that address, where no client is.
    pub fn take_mail(&mut self, at: SocketAddr) -> Vec<Vec<u8>> {
        let (taken, left) = std::mem::take(&mut self.mail).into_iter().partition(|(to, _)| *to == at);
        self.mail = left;
        let taken: Vec<(SocketAddr, Vec<u8>)> = taken;
        taken.into_iter().map(|(_, packet)| packet).collect()
    }

    /// From now on everything that the gateway says to anybody is kept, for [`World::overheard_answers`].
    pub fn overhear_answers(&mut self) {
        self.overheard = Some(Vec::new());
    }

    /// What the gateway said since [`World::overhear_answers`].
    pub fn overheard_answers(&mut self) -> Vec<Vec<u8>> {
        self.overheard.take().unwrap_or_default()
    }

    /// The worker that a session belongs to.
    pub fn owner(&self, locator: Locator) -> usize {
        self.worker_of(locator)
    }

    /// Something that nobody but an attacker made arrives at the gateway.
    pub(crate) fn inject_forged(&mut self, from: SocketAddr, packet: Vec<u8>) {
        self.queue.plan(self.now, Happening::ToGateway { from, packet, forged: true });
    }

    /// Something arrives at a client as from the gateway.
    pub fn inject_to_client(&mut self, client: usize, path: u16, packet: &[u8]) {
        let forged = self.is_forged(packet);
        self.queue.plan(self.now, Happening::ToClient { client, path, packet: packet.to_vec(), forged });
    }

    /// Without a history nothing but what was overheard is injected.
    fn is_forged(&self, packet: &[u8]) -> bool {
        self.history && !self.genuine.is_replay(fingerprint(packet))
    }

    /// The NAT of a path gives another port; the old mapping is gone.
    pub fn rebind(&mut self, client: usize, path: u16) {
        if let Some(link) = self.clients[client].links.get(&path) {
            let external = link.next_port();
            self.set_external(client, path, external);
        }
    }

    /// The NAT of a path gives another address, as behind another uplink; the old mapping is gone.
    pub fn rebind_address(&mut self, client: usize, path: u16) {
        let ip = self.draw_external().ip();
        if let Some(link) = self.clients[client].links.get(&path) {
            let external = link.at_address(ip);
            self.set_external(client, path, external);
        }
    }

    fn set_external(&mut self, client: usize, path: u16, external: SocketAddr) {
        if let Some(link) = self.clients[client].links.get_mut(&path) {
            self.by_external.remove(&link.external);
            link.external = external;
            self.by_external.insert(external, (client, path));
        }
    }

    /// The NAT of a path forgets mappings that were not used from inside for so long.
    pub fn expire_mappings(&mut self, client: usize, path: u16, life: Option<Span>) {
        if let Some(link) = self.clients[client].links.get_mut(&path) {
            link.mapping_life = life;
        }
    }

    /// Sets both directions of a path.
    pub fn impair(&mut self, client: usize, path: u16, impairment: Impairment) {
        if let Some(link) = self.clients[client].links.get_mut(&path) {
            link.up = impairment;
            link.down = impairment;
        }
    }

    /// The interface of a path goes down.
    pub fn link_down(&mut self, client: usize, path: u16) {
        self.link_changed(client, path, false);
    }

    /// The interface of a path comes up.
    pub fn link_up(&mut self, client: usize, path: u16) {
        self.link_changed(client, path, true);
    }

    fn link_changed(&mut self, client: usize, path: u16, up: bool) {
        let now = self.local(client);
        let entry = &mut self.clients[client];
        if entry.asleep_since.is_some() {
            entry.missed.push((path, up));
            return;
        }
        if up {
            entry.client.path_up(now, TransportId(path), path_info(path));
        } else {
            entry.client.path_down(now, TransportId(path), Evidence::LinkDown);
        }
        self.flush_client(client);
    }

    /// The operator of the gateway ends a session.
    pub fn terminate(&mut self, locator: Locator, reason: Reason) {
        let outer = self.checker.begin(Work::Operator);
        let worker = self.worker_for_order(locator);
        self.shards[worker].terminate(self.now, locator, reason);
        self.flush_shard(worker);
        self.checker.begin(outer);
    }

    /// The gateway crashes and starts anew: no session survives it, nobody is told.
    pub fn restart_gateway(&mut self, policy: &Policy) {
        self.boot_with(policy, |_| ClientEntry::default());
    }

    /// The gateway starts anew, with that entry for each client.
    pub fn boot_with(&mut self, policy: &Policy, entry: impl Fn(usize) -> ClientEntry) {
        self.boots += 1;
        let config = WorldConfig { seed: self.seed, workers: self.shards.len(), policy: policy.clone() };
        (self.desk, self.shards) = boot(&config, &self.keys, self.boots, self.now, entry);
        self.slots = SlotTable::new(self.shards.len());
        self.amplification = AmplificationOracle::default();
        self.checker.forget_gateway();
        self.records.forget_gateway();
        if let Some(trace) = &mut self.trace {
            trace.crash(self.now);
        }
        self.checker.under(policy);
    }

    /// A worker of the gateway is not scheduled for so long, if it is now: packets wait, timers are late.
    pub fn pause_worker(&mut self, worker: usize, span: Span) {
        if self.paused_until[worker] <= self.now {
            self.paused_until[worker] = self.now + span;
            self.checker.idle(worker, self.now, self.now + span);
        }
    }

    /// A client is suspended: it hears nothing, does nothing, and its clock goes on (AS-1).
    pub fn sleep(&mut self, client: usize) {
        let now = self.local(client);
        self.clients[client].asleep_since.get_or_insert(now);
    }

    /// A suspended client goes on.
    pub fn wake(&mut self, client: usize) {
        let now = self.local(client);
        let entry = &mut self.clients[client];
        let Some(since) = entry.asleep_since.take() else {
            return;
        };
        entry.timer = Time::NEVER;
        entry.client.timeout(now);
        let missed = std::mem::take(&mut entry.missed);
        self.checker.slept(client, now.since(since));
        self.flush_client(client);
        for (path, up) in missed {
            self.link_changed(client, path, up);
        }
    }

    /// The clock of a client jumps ahead, against AS-1.
    pub fn step_clock(&mut self, client: usize, by: Span) {
        let entry = &mut self.clients[client];
        entry.clock = entry.clock.ahead_by(by);
        entry.timer = Time::NEVER;
        self.checker.slept(client, by);
        self.flush_client(client);
    }

    /// The clock of a client runs that much faster than the gateway's from now on, in parts per million.
    pub fn skew_clock(&mut self, client: usize, ppm: i32) {
        let entry = &mut self.clients[client];
        entry.clock = entry.clock.at_rate(ppm, self.now);
        entry.timer = Time::NEVER;
        self.flush_client(client);
    }
}
