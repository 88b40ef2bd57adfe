//! A gateway whose sessions have seen something, and the one after it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arrayvec::ArrayVec;
use proptest::prelude::*;

use super::*;
use crate::audit;
use crate::client::{Client, ClientConfig, ClientEvent, PathInfo};
use crate::entropy::SeededEntropy;
use crate::gateway::session::{Opening, Session};
use crate::gateway::{ClientEntry, DeskConfig, HandshakeDesk, PolicyChange, SessionView, ShardConfig};
use crate::handshake::StaticSecret;
use crate::ident::{Arrival, TransportId, Tuple};
use crate::keys::KeyLimits;
use crate::machine::{Evidence, State};
use crate::policy::{Policy, Profile, Rate, TransportClass};
use crate::reason::Reason;
use crate::stored::{Damaged, Reader, Stored, Writer};
use crate::time::Span;
use crate::wire::{DATA_OVERHEAD, HEADER_LEN, Header, MessageType};

const GATEWAY: ([u8; 4], u16) = ([192, 0, 2, 1], 51_900);
const CLIENTS: usize = 2;
const PATHS: u16 = 2;
const HERE: Circumstances = Circumstances { boot: [7; 16], file: (1, 2), now: Time::ZERO };

/// A gateway of one worker, and clients over a network without delay.
struct Stage {
    now: Time,
    secret: StaticSecret,
    keys: Vec<StaticSecret>,
    desk: HandshakeDesk,
    shard: Shard,
    clients: Vec<Client>,
    /// Paths that carry nothing.
    dead: Vec<(usize, u16)>,
    /// Messages of the gateway that get lost.
    lost: Option<MessageType>,
}

fn pool() -> AddressPool {
    AddressPool::new(Some([10, 0, 0, 0].into()), None, 64)
}

fn policy() -> Policy {
    Policy::profile(Profile::Fast)
}

fn gateway(
    secret: &StaticSecret,
    keys: &[StaticSecret],
    policy: Policy,
    run: u64,
    now: Time,
) -> (HandshakeDesk, Shard) {
    let config = DeskConfig {
        secret: secret.clone(),
        clients: keys.iter().map(|key| (key.public(), ClientEntry::default())).collect(),
        policy: Arc::new(policy),
        pool: pool(),
        prefixes: (24, 0),
        mtu: 1_400,
        endpoints: ArrayVec::new(),
    };
    let mut desk = HandshakeDesk::new(config, Box::new(SeededEntropy::new(run)), now);
    desk.keep_records(now);
    let shard = ShardConfig { pool: pool(), reset_key: desk.reset_key(), resets: Rate::even(10) };
    let mut shard = Shard::new(shard, Box::new(SeededEntropy::new(run + 1)), now);
    shard.keep_records(now, desk.disclosure());
    (desk, shard)
}

fn outside(client: usize, path: u16) -> SocketAddr {
    (IpAddr::from([198, 51, 100, client as u8 + 1]), 4_000 + path).into()
}

fn path_info(path: u16) -> PathInfo {
    PathInfo { gateway: GATEWAY.into(), class: TransportClass::Other, priority: path as u8 }
}

fn arrival(peer: SocketAddr) -> Arrival {
    Arrival { tuple: Tuple { local: GATEWAY.into(), peer }, route: 3, queue: 1 }
}

impl Stage {
    fn new() -> Self {
        let now = Time::from_millis(5_000);
        let mut entropy = SeededEntropy::new(9);
        let secret = StaticSecret::generate(&mut entropy);
        let keys: Vec<_> = (0..CLIENTS).map(|_| StaticSecret::generate(&mut entropy)).collect();
        let (desk, shard) = gateway(&secret, &keys, policy(), 100, now);
        let clients = keys.iter().enumerate().map(|(index, key)| {
            let config = ClientConfig {
                secret: key.clone(),
                gateway: secret.public(),
                psk: None,
                requested_policy: Default::default(),
                hello_counter: 1,
                replaces: None,
            };
            let mut client = Client::new(config, Box::new(SeededEntropy::new(200 + index as u64)));
            for path in 1..=PATHS {
                client.path_up(now, TransportId(path), path_info(path));
            }
            client
        });
        let clients = clients.collect();
        Self { now, secret, keys, desk, shard, clients, dead: Vec::new(), lost: None }
    }

    /// All connected and settled.
    fn connected() -> Self {
        let mut stage = Self::new();
        (0..CLIENTS).for_each(|client| stage.connect(client));
        stage.run(1_500);
        assert!(stage.clients.iter().all(Client::is_connected));
        let well = |view: &SessionView| view.state == State::Attached && view.validated;
        assert_eq!(stage.views().into_iter().filter(well).count(), CLIENTS);
        stage
    }

    fn connect(&mut self, client: usize) {
        self.clients[client].connect(self.now);
        self.exchange();
    }

    fn run(&mut self, millis: u64) {
        for _ in 0..millis / 10 {
            let before = self.now;
            self.now += Span::from_millis(10);
            for client in &mut self.clients {
                if client.next_timeout(before).is_some_and(|at| at <= self.now) {
                    client.timeout(self.now);
                }
            }
            if self.shard.next_timeout().is_some_and(|at| at <= self.now) {
                self.shard.timeout(self.now);
            }
            self.exchange();
        }
    }

    /// Carries everything until nobody says anything more.
    fn exchange(&mut self) {
        loop {
            let mut silent = true;
            for client in 0..self.clients.len() {
                while let Some(transmit) = self.clients[client].poll_transmit() {
                    silent = false;
                    let path = transmit.path.0;
                    if !self.dead.contains(&(client, path)) {
                        self.at_gateway(outside(client, path), &transmit.packet);
                    }
                }
            }
            while let Some(event) = self.shard.poll_event() {
                self.desk.session_event(&event);
            }
            while let Some(reply) = self.shard.poll_reply() {
                silent = false;
                self.at_client(reply.tuple.peer, &reply.packet);
            }
            if silent {
                return;
            }
        }
    }

    fn at_gateway(&mut self, peer: SocketAddr, packet: &[u8]) {
        match MessageType::of(packet) {
            Ok(MessageType::HelloInit) => {
                let outcome = self.desk.hello(self.now, &arrival(peer), packet);
                if let Some(birth) = outcome.birth {
                    self.shard.birth(self.now, birth);
                }
                if let Some(reply) = outcome.reply {
                    self.at_client(peer, &reply);
                }
            }
            Ok(_) => {
                let _ = self.shard.control_in(self.now, &arrival(peer), &mut packet.to_vec());
            }
            Err(_) => {}
        }
    }

    fn at_client(&mut self, peer: SocketAddr, packet: &[u8]) {
        let IpAddr::V4(ip) = peer.ip() else { return };
        let (client, path) = (usize::from(ip.octets()[3]) - 1, peer.port() - 4_000);
        let lost = self.lost.is_some_and(|kind| MessageType::of(packet) == Ok(kind));
        if !lost && !self.dead.contains(&(client, path)) {
            let _ = self.clients[client].datagram_in(self.now, TransportId(path), &mut packet.to_vec());
        }
    }

    /// Packets of both directions, as far as they get.
    fn traffic(&mut self, client: usize, packets: usize) {
        let Some(index) = self.views().iter().find(|view| view.client == self.keys[client].public()).and_then(inner)
        else {
            return;
        };
        for _ in 0..packets {
            let mut down = inner_packet(1, index);
            if let Ok(to) = self.shard.data_out(index, &mut down) {
                self.at_client(to.tuple.peer, &down);
            }
            let mut up = inner_packet(index, 1);
            if let Ok(path) = self.clients[client].data_out(&mut up)
                && !self.dead.contains(&(client, path.0))
            {
                let _ = self.shard.data_in(self.now, &arrival(outside(client, path.0)), &mut up);
            }
        }
        self.exchange();
    }

    fn views(&self) -> Vec<SessionView> {
        let mut views = self.shard.views(self.now);
        views.sort_by_key(|view| view.locator);
        views
    }

    fn here(&self) -> Circumstances {
        Circumstances { now: self.now, ..HERE }
    }

    fn sealed(&mut self) -> Vec<u8> {
        let (here, part) = (self.here(), self.shard.hand_over());
        self.desk.hand_over(&here, &[part])
    }

    /// The next run of the gateway, without sessions yet.
    fn successor(&self, policy: Policy) -> (HandshakeDesk, Shard) {
        gateway(&self.secret, &self.keys, policy, 300, self.now)
    }

    /// The gateway ends and the next one goes on, that much later.
    fn restart(&mut self, downtime: u64) {
        let sealed = self.sealed();
        self.now += Span::from_millis(downtime);
        let here = self.here();
        let (mut desk, mut shard) = self.successor(policy());
        let heirs = desk.take_over(&here, Zeroizing::new(sealed)).expect("as it was written");
        heirs.into_iter().for_each(|heir| shard.take_over(self.now, heir));
        while let Some((locator, change)) = desk.poll_change() {
            assert!(matches!(change, PolicyChange::Apply { .. }));
            shard.change_policy(self.now, locator, change);
        }
        (self.desk, self.shard) = (desk, shard);
        self.exchange();
    }
}

fn inner(view: &SessionView) -> Option<u32> {
    Some(u32::from(view.inner_v4?) - u32::from_be_bytes([10, 0, 0, 0]))
}

fn inner_packet(from: u32, to: u32) -> Vec<u8> {
    let mut packet = vec![0; 40 + DATA_OVERHEAD];
    let inner = &mut packet[HEADER_LEN..];
    inner[0] = 0x45;
    inner[12..16].copy_from_slice(&[10, 0, 0, from as u8]);
    inner[16..20].copy_from_slice(&[10, 0, 0, to as u8]);
    packet
}

/// What may happen to a gateway before it is restarted.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Run(u16),
    Traffic(usize, u8),
    Kill(usize, u16),
    Revive(usize, u16),
    LinkDown(usize, u16),
    LinkUp(usize, u16),
    Move(usize, u16),
    OtherPolicy,
    Terminate(usize),
    Connect(usize),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let who = 0..CLIENTS;
    let path = 1..=PATHS;
    let deed = prop_oneof![
        4 => (10_u16..3_000).prop_map(Deed::Run),
        2 => (who.clone(), 1_u8..40).prop_map(|(client, packets)| Deed::Traffic(client, packets)),
        1 => (who.clone(), path.clone()).prop_map(|(client, path)| Deed::Kill(client, path)),
        1 => (who.clone(), path.clone()).prop_map(|(client, path)| Deed::Revive(client, path)),
        1 => (who.clone(), path.clone()).prop_map(|(client, path)| Deed::LinkDown(client, path)),
        1 => (who.clone(), path.clone()).prop_map(|(client, path)| Deed::LinkUp(client, path)),
        2 => (who.clone(), path).prop_map(|(client, path)| Deed::Move(client, path)),
        1 => Just(Deed::OtherPolicy),
        1 => who.clone().prop_map(Deed::Terminate),
        1 => who.prop_map(Deed::Connect),
    ];
    prop::collection::vec(deed, 0..14)
}

impl Stage {
    fn play(&mut self, deed: Deed) {
        let now = self.now;
        match deed {
            Deed::Run(millis) => self.run(millis.into()),
            Deed::Traffic(client, packets) => self.traffic(client, packets.into()),
            Deed::Kill(client, path) => self.dead.push((client, path)),
            Deed::Revive(client, path) => self.dead.retain(|dead| *dead != (client, path)),
            Deed::LinkDown(client, path) => {
                self.clients[client].path_down(now, TransportId(path), Evidence::LinkDown);
            }
            Deed::LinkUp(client, path) => {
                let info = path_info(path);
                self.clients[client].path_up(now, TransportId(path), info);
            }
            Deed::Move(client, path) => {
                let _ = self.clients[client].move_to(now, Some(TransportId(path)));
            }
            Deed::OtherPolicy => {
                let mut other = policy();
                other.switching.max_switches_per_min = 5 + (now.as_millis() % 3) as u16;
                let clients = self.keys.iter().map(|key| (key.public(), ClientEntry::default())).collect();
                self.desk.reload(now, Arc::new(other), clients);
                while let Some((locator, change)) = self.desk.poll_change() {
                    self.shard.change_policy(now, locator, change);
                }
            }
            Deed::Terminate(client) => {
                let key = self.keys[client].public();
                let locator = self.views().iter().find(|view| view.client == key).map(|view| view.locator);
                if let Some(locator) = locator {
                    self.shard.terminate(now, locator, Reason::OperatorTerminated);
                }
            }
            Deed::Connect(client) => self.clients[client].connect(now),
        }
        self.exchange();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn ow8_what_is_written_down_comes_back_as_it_was_whatever_happened_before(deeds in deeds()) {
        let mut stage = Stage::connected();
        for deed in deeds {
            stage.play(deed);
        }
        let part = stage.shard.hand_over();
        let read = sessions(&part.bytes, &pool()).expect("what a shard wrote");
        let (_, mut shard) = stage.successor(policy());
        for session in read {
            shard.settle(session, false);
        }
        prop_assert_eq!(shard.hand_over().bytes, part.bytes);
        // The state as well, but for what falls due at that very instant.
        let bound = |views: Vec<SessionView>| -> Vec<_> {
            views.iter().map(|view| (view.identity, view.epoch, view.tuple, view.received, view.switches)).collect()
        };
        let before = bound(stage.views());
        stage.restart(0);
        prop_assert_eq!(bound(stage.views()), before);
    }
}

#[test]
fn hs3_hs4_hellos_that_were_used_stay_used_and_a_handshake_under_way_goes_on() {
    let mut stage = Stage::new();
    stage.connect(0);
    stage.run(100);
    // The answer of the gateway is lost, and then it is restarted.
    stage.dead.push((1, 1));
    stage.dead.push((1, 2));
    stage.clients[1].connect(stage.now);
    let hello = std::iter::from_fn(|| stage.clients[1].poll_transmit()).next().expect("HELLO_INIT");
    let (now, from) = (stage.now, arrival(outside(1, hello.path.0)));
    let outcome = stage.desk.hello(now, &from, &hello.packet);
    stage.shard.birth(now, outcome.birth.expect("admitted"));
    while let Some(event) = stage.shard.poll_event() {
        stage.desk.session_event(&event);
    }
    let ack = outcome.reply.expect("HELLO_ACK");
    stage.restart(100);
    assert_eq!(stage.desk.len(), 2);
    let again = stage.desk.hello(stage.now, &from, &hello.packet);
    assert_eq!(again.reply, Some(ack), "HS-4: the same answer");
    stage.dead.clear();
    stage.at_client(from.tuple.peer, &again.reply.expect("answered"));
    stage.exchange();
    stage.run(300);
    assert!(stage.views().iter().all(|view| view.state == State::Attached));
    assert!(stage.clients[1].is_connected());
    let used = stage.desk.hello(stage.now, &from, &hello.packet);
    assert_eq!(used.refused, Some(Reason::HelloReplayed), "HS-3");
}

#[test]
fn k11_whatever_is_not_exactly_what_was_written_leaves_no_session() {
    let mut stage = Stage::connected();
    let sealed = stage.sealed();
    let here = stage.here();
    let refusal = |stage: &Stage, circumstances: &Circumstances, bytes: Vec<u8>| {
        let (mut desk, _) = stage.successor(policy());
        let Err(error) = desk.take_over(circumstances, Zeroizing::new(bytes)) else { panic!("taken over") };
        assert!(desk.is_empty(), "nothing of it");
        let recorded = std::iter::from_fn(|| desk.poll_record()).last().expect("recorded");
        assert_eq!(recorded.reason, Some(error.reason()), "K11: a critical event");
        assert!(!error.to_string().is_empty());
        error
    };
    for len in [0, 1, 10, 81, 82, 100, sealed.len() / 2, sealed.len() - 1] {
        let error = refusal(&stage, &here, sealed[..len].to_vec());
        assert!(matches!(error, HandoverError::NotOne | HandoverError::Seal), "K12: {len} bytes: {error}");
    }
    for at in (0..sealed.len()).step_by(7).chain([sealed.len() - 1]) {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        refusal(&stage, &here, changed);
    }
    let mut longer = sealed.clone();
    longer.push(0);
    assert_eq!(refusal(&stage, &here, longer), HandoverError::Seal);
    let mut format = sealed.clone();
    format[9] = u8::MAX;
    assert_eq!(refusal(&stage, &here, format), HandoverError::Format(255));
    let other_boot = Circumstances { boot: [8; 16], ..here };
    assert_eq!(refusal(&stage, &other_boot, sealed.clone()), HandoverError::OtherBoot);
    let copied = Circumstances { file: (1, 3), ..here };
    assert_eq!(refusal(&stage, &copied, sealed.clone()), HandoverError::Copy);
    let earlier = Circumstances { now: Time::ZERO, ..here };
    assert_eq!(refusal(&stage, &earlier, sealed.clone()), HandoverError::Clock);
    let bound = policy().session.transport_lost_ttl;
    let late = Circumstances { now: here.now + bound + Span::from_millis(1), ..here };
    assert!(matches!(refusal(&stage, &late, sealed.clone()), HandoverError::TooOld(_)));
    let other = StaticSecret::generate(&mut SeededEntropy::new(77));
    let own = std::mem::replace(&mut stage.secret, other);
    assert_eq!(refusal(&stage, &here, sealed.clone()), HandoverError::Seal, "another gateway's");
    stage.secret = own;
    let just_in_time = Circumstances { now: here.now + bound, ..here };
    let (mut desk, _) = stage.successor(policy());
    assert_eq!(desk.take_over(&just_in_time, Zeroizing::new(sealed)).map(|heirs| heirs.len()).ok(), Some(CLIENTS));
}

#[test]
fn inv29_what_was_sealed_with_a_defect_is_refused_as_a_whole() {
    let mut stage = Stage::connected();
    let here = stage.here();
    let take = |stage: &mut Stage, parts: &[Part]| {
        let sealed = stage.desk.hand_over(&here, parts);
        let (mut desk, _) = stage.successor(policy());
        desk.take_over(&here, Zeroizing::new(sealed)).map(|heirs| heirs.len())
    };
    let part = || stage.shard.hand_over();
    let (one, other) = (part(), part());
    assert_eq!(take(&mut stage, &[]), Err(HandoverError::Damaged), "a session is missing");
    assert_eq!(take(&mut stage, &[one, other]), Err(HandoverError::Damaged), "each is there twice");
    let whole = stage.shard.hand_over();
    for at in 0..whole.bytes.len() {
        let mut bytes = whole.bytes.clone();
        bytes[at] ^= 0x80;
        // Whatever comes out: no panic, and all sessions or none.
        let taken = take(&mut stage, &[Part { bytes, sessions: CLIENTS }]);
        assert!(matches!(taken, Ok(CLIENTS) | Err(HandoverError::Damaged)), "byte {at}: {taken:?}");
        let cut = Part { bytes: Zeroizing::new(whole.bytes[..at].to_vec()), sessions: CLIENTS };
        if at % 5 == 0 {
            assert_eq!(take(&mut stage, &[cut]), Err(HandoverError::Damaged), "{at} bytes");
        }
    }
}

#[test]
fn inv29_a_session_that_is_open_and_still_opens_is_damage() {
    let stage = Stage::connected();
    let again = |session: &Session| {
        let mut out = Writer::default();
        session.store(&mut out);
        let bytes = out.finish();
        Session::load(&mut Reader::new(&bytes)?, &stage.desk.config.pool, KeyLimits::SUITE_1)
    };
    let session = stage.shard.sessions().next().expect("a session");
    let mut changed = again(session).expect("as it was written");
    changed.opening = Some(Box::new(Opening { handshake_hash: [0; 32], from: changed.active_tuple().expect("bound") }));
    assert!(matches!(again(&changed), Err(Damaged)));
}

#[test]
fn rl3_a_client_that_is_gone_from_the_list_is_withdrawn_when_it_hears_of_it() {
    let mut stage = Stage::connected();
    let sealed = stage.sealed();
    let here = stage.here();
    let kept = stage.keys[..1].to_vec();
    let (mut desk, mut shard) = gateway(&stage.secret, &kept, policy(), 300, stage.now);
    let heirs = desk.take_over(&here, Zeroizing::new(sealed)).expect("as it was written");
    heirs.into_iter().for_each(|heir| shard.take_over(stage.now, heir));
    while let Some((locator, change)) = desk.poll_change() {
        shard.change_policy(stage.now, locator, change);
    }
    assert_eq!(shard.views(stage.now).iter().map(|view| view.client).collect::<Vec<_>>(), [kept[0].public()]);
}

#[test]
fn ky10_tm2_flags_and_names_of_the_dead_are_kept() {
    let mut stage = Stage::connected();
    let name = stage.views()[0].locator;
    stage.shard.terminate(stage.now, name, Reason::OperatorTerminated);
    stage.exchange();
    stage.desk.flag_compromised(stage.keys[1].public());
    assert_eq!(stage.desk.tombstones(), 1);
    let mut before = Writer::default();
    stage.desk.ledger().store(&mut before);
    stage.restart_flagged();
    let mut after = Writer::default();
    stage.desk.ledger().store(&mut after);
    assert_eq!(after.finish(), before.finish());
    assert_eq!(stage.desk.tombstones(), 1);
}

#[test]
fn ow4_what_ran_out_while_nobody_ran_ends_at_the_thaw_and_what_did_not_runs_on_from_where_it_began() {
    let left = Span::from_millis(500);
    for (downtime, ends_at_thaw) in [(600, true), (300, false)] {
        let mut stage = Stage::connected();
        let key = stage.keys[0].public();
        let lives = |stage: &Stage| stage.views().iter().any(|view| view.client == key);
        stage.dead.extend([(0, 1), (0, 2)]);
        let bound = |stage: &Stage| stage.views().iter().any(|view| view.client == key && view.tuple.is_some());
        let cut = stage.now;
        while bound(&stage) {
            assert!(stage.now.since(cut) <= policy().volatility.transport_dead, "SM-13: silence ends the binding");
            stage.run(10);
        }
        let lost = stage.now;
        let ttl = policy().session.transport_lost_ttl;
        stage.run(ttl.as_millis() - left.as_millis());
        assert!(lives(&stage), "its time is not over");
        stage.restart(downtime);
        assert_eq!(lives(&stage), !ends_at_thaw, "after {downtime} ms");
        if !ends_at_thaw {
            stage.run((lost + ttl).since(stage.now).as_millis() - 10);
            assert!(lives(&stage), "what is left of its time");
            stage.run(20);
            assert!(!lives(&stage), "T18 at the time that the old run set");
        }
        let ends = std::iter::from_fn(|| stage.shard.poll_record())
            .filter(|record| matches!(record.event, audit::Event::SessionTerminated { .. }));
        assert_eq!(ends.map(|end| end.reason).collect::<Vec<_>>(), [Some(Reason::TtlTransportLossExpired)]);
        assert_eq!(stage.views().len(), CLIENTS - 1, "nobody else is concerned");
        assert_eq!(stage.views()[0].state, State::Attached);
    }
}

#[test]
fn ar6_inv36_ky9_a_packet_of_before_is_a_replay_after_it_and_every_sending_counter_is_far_ahead() {
    let mut stage = Stage::connected();
    let of_first = |view: &&SessionView| view.client == stage.keys[0].public();
    let index = stage.views().iter().find(of_first).and_then(inner).expect("it has an address");
    let down = |stage: &mut Stage| {
        let mut packet = inner_packet(1, index);
        stage.shard.data_out(index, &mut packet).expect("it is bound");
        Header::parse(&packet).expect("as it is sent").counter
    };
    let mut up = inner_packet(index, 1);
    let path = stage.clients[0].data_out(&mut up).expect("it is bound");
    let from = arrival(outside(0, path.0));
    let at_gateway = |stage: &mut Stage| stage.shard.data_in(stage.now, &from, &mut up.clone()).map(|_| ());
    assert_eq!(at_gateway(&mut stage), Ok(()));
    let before = down(&mut stage);
    stage.restart(50);
    assert_eq!(at_gateway(&mut stage), Err(Reason::DataReplay), "AR-6");
    assert!(down(&mut stage) >= before + (1 << 20), "KY-9: 2^20 at least, whatever was sent after it was written down");
}

#[test]
fn rk3_a_rekey_whose_answer_got_lost_in_the_restart_comes_to_its_end_after_it() {
    let mut stage = Stage::connected();
    stage.lost = Some(MessageType::RekeyAck);
    let rekeyed = |stage: &mut Stage| {
        let events = std::iter::from_fn(|| stage.clients[0].poll_event());
        events
            .filter_map(|event| if let ClientEvent::Rekeyed { key_epoch, .. } = event { Some(key_epoch) } else { None })
            .last()
    };
    stage.run(policy().security.rekey_after.as_millis() + 50);
    assert_eq!(rekeyed(&mut stage), None, "no answer came");
    stage.restart(100);
    stage.lost = None;
    stage.run(5_000);
    assert_eq!(rekeyed(&mut stage), Some(1));
    stage.traffic(0, 3);
    assert!(stage.views().iter().all(|view| view.state == State::Attached), "{:?}", stage.views());
}

impl Stage {
    /// As [`Stage::restart`], without telling the sessions of the policy.
    fn restart_flagged(&mut self) {
        let sealed = self.sealed();
        let (mut desk, mut shard) = self.successor(policy());
        let heirs = desk.take_over(&self.here(), Zeroizing::new(sealed)).expect("as it was written");
        heirs.into_iter().for_each(|heir| shard.take_over(self.now, heir));
        (self.desk, self.shard) = (desk, shard);
    }
}
