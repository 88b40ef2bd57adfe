//! A whole worker on ports whose kernel the test plays.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use jumpgate_common::parse_outer;
use jumpgate_protocol::gateway::AddressPool;
use jumpgate_protocol::ident::{Arrival, Tuple};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Time;
use proptest::prelude::*;

use super::*;
use crate::doorbell::Doorbell;
use crate::handover::{Command, INSIDE_HOP, NextHop, Report, SlowEnd, link};
use crate::port::fake::{FakeKernel, FakeSocket, plane};
use crate::port::{FrameLedger, Role};

const INNER_MTU: u16 = 1416;
/// Id of the next hop towards the client.
const CLIENT_HOP: u32 = 3;
const OUTSIDE_HOP: NextHop =
    NextHop { source_mac: [2, 0, 0, 0, 0, 1], destination_mac: [2, 0, 0, 0, 0, 2], vlan: None };
const HOST_HOP: NextHop = NextHop { source_mac: [2, 0, 0, 0, 1, 1], destination_mac: [2, 0, 0, 0, 1, 2], vlan: None };

struct Bench {
    workers: Vec<Worker<Bare, FakeSocket>>,
    slow: Vec<SlowEnd<Bare>>,
    kernel: FakeKernel,
    now: Time,
}

fn v4_tuple() -> Tuple {
    Tuple { local: "192.0.2.1:51900".parse().expect("address"), peer: "198.51.100.7:40001".parse().expect("address") }
}

fn v6_tuple() -> Tuple {
    Tuple {
        local: "[2001:db8::1]:51900".parse().expect("address"),
        peer: "[2001:db8:1::7]:40001".parse().expect("address"),
    }
}

impl Bench {
    /// Workers that know every next hop.
    fn new(workers: usize, tuple: Tuple) -> Self {
        Self::with_hops(Self::without_hops(workers, tuple))
    }

    fn with_hops(bench: Self) -> Self {
        for end in &bench.slow {
            for (id, hop) in [(INSIDE_HOP, HOST_HOP), (CLIENT_HOP, OUTSIDE_HOP)] {
                end.send(Command::NextHop { id, hop: Some(hop) }).expect("room");
            }
        }
        bench
    }

    fn without_hops(workers: usize, tuple: Tuple) -> Self {
        Self::with_rings(workers, tuple, 64)
    }

    /// The rings have so many entries, but for the fill rings.
    fn with_rings(workers: usize, tuple: Tuple, entries: u32) -> Self {
        let (shares, kernel) = plane(workers, 256, entries);
        let bell = Arc::new(Doorbell::new().expect("eventfd"));
        let pool = AddressPool::new(
            Some(Ipv4Addr::new(10, 66, 0, 0)),
            Some(Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 0)),
            65536,
        );
        let now = Time::from_millis(1_000);
        let (workers, slow) = shares
            .into_iter()
            .map(|share| {
                let (slow, end) = link(&bell, share.bell());
                let path = DataPath::new(Bare::new(tuple, CLIENT_HOP), pool, INNER_MTU, now);
                (Worker::new(share, path, end), slow)
            })
            .unzip();
        Self { workers, slow, kernel, now }
    }

    fn round(&mut self, worker: usize) -> bool {
        self.workers[worker].round(self.now)
    }

    /// Lets all frames come home that nobody sends: parcels may travel between workers more than once.
    fn rest(&mut self) {
        self.kernel.catch_up();
        for _ in 0..20 {
            for worker in 0..self.workers.len() {
                self.round(worker);
                self.workers[worker].flush();
            }
        }
    }

    fn ledger(&self) -> FrameLedger {
        let ledgers: Vec<_> = self.workers.iter().map(|worker| worker.counters().frames).collect();
        FrameLedger::sum(&ledgers)
    }

    /// One packet in, one round, and what comes out on the other side.
    fn pass(&mut self, from: Role, packet: &[u8]) -> Vec<(Role, Vec<u8>)> {
        assert!(self.kernel.deliver(from, 0, 0, packet));
        self.round(0);
        // What answers on the port it came from leaves with the next round.
        self.round(0);
        Role::ALL
            .into_iter()
            .flat_map(|role| {
                self.kernel.transmit(role, 0, 64).into_iter().map(move |packet| (role, packet)).collect::<Vec<_>>()
            })
            .collect()
    }
}

/// An inner packet as the host's kernel hands it in.
fn to_client_v4(payload: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ethernet2(HOST_HOP.destination_mac, HOST_HOP.source_mac)
        .ipv4([192, 0, 2, 80], [10, 66, 0, 5], 63)
        .udp(80, 40000)
        .write(&mut packet, &vec![0xa5; payload])
        .expect("a vector takes it");
    packet
}

fn to_client_v6(payload: usize) -> Vec<u8> {
    let client: [u8; 16] = Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 5).octets();
    let mut packet = Vec::new();
    PacketBuilder::ethernet2(HOST_HOP.destination_mac, HOST_HOP.source_mac)
        .ipv6([0x20; 16], client, 63)
        .udp(80, 40000)
        .write(&mut packet, &vec![0xa5; payload])
        .expect("a vector takes it");
    packet
}

/// DATA from the client around an inner packet, without a seal.
fn from_client(inner: &[u8], v6: bool) -> Vec<u8> {
    let mut data = vec![0; 20];
    data[0] = 0x15;
    data.extend_from_slice(inner);
    data.extend_from_slice(&[0; 16]);
    let mut packet = Vec::new();
    let link = PacketBuilder::ethernet2(OUTSIDE_HOP.destination_mac, OUTSIDE_HOP.source_mac);
    let ip = if v6 {
        link.ipv6([0x20; 16], Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets(), 60)
    } else {
        link.ipv4([198, 51, 100, 7], [192, 0, 2, 1], 60)
    };
    ip.udp(40001, 51900).write(&mut packet, &data).expect("a vector takes it");
    packet
}

fn inner_of(packet: &[u8]) -> &[u8] {
    &packet[14..]
}

#[test]
fn a_packet_for_a_client_is_encapsulated_towards_its_next_hop() {
    for tuple in [v4_tuple(), v6_tuple()] {
        for packet in [to_client_v4(100), to_client_v6(100), to_client_v4(1)] {
            let mut bench = Bench::new(1, tuple);
            let out = bench.pass(Role::Inside, &packet);
            let [(Role::Outside, sent)] = &out[..] else { panic!("one packet outside: {out:?}") };
            assert_eq!(sent[..6], OUTSIDE_HOP.destination_mac);
            assert_eq!(sent[6..12], OUTSIDE_HOP.source_mac);
            let outer = parse_outer(sent).expect("a UDP packet");
            assert_eq!((outer.local(), outer.peer()), (tuple.peer, tuple.local), "from us to the peer");
            let payload = &sent[outer.payload..][..outer.payload_len];
            assert_eq!(payload[0], 0x15);
            assert_eq!(&payload[20..payload.len() - 16], inner_of(&packet));
        }
    }
}

#[test]
fn data_from_a_client_is_decapsulated_towards_the_host() {
    for v6_outside in [false, true] {
        for inner in [to_client_v4(700), to_client_v6(700)] {
            let mut bench = Bench::new(1, v4_tuple());
            let out = bench.pass(Role::Outside, &from_client(inner_of(&inner), v6_outside));
            let [(Role::Inside, sent)] = &out[..] else { panic!("one packet inside: {out:?}") };
            assert_eq!(sent[..6], HOST_HOP.destination_mac);
            assert_eq!(sent[6..12], HOST_HOP.source_mac);
            assert_eq!(sent[12..14], inner[12..14], "EtherType by the inner packet's version");
            assert_eq!(inner_of(sent), inner_of(&inner));
        }
    }
}

#[test]
fn padding_of_a_short_packet_does_not_enter_the_tunnel() {
    let mut bench = Bench::new(1, v4_tuple());
    let packet = to_client_v4(1);
    let mut padded = packet.clone();
    padded.resize(60, 0);
    let out = bench.pass(Role::Inside, &padded);
    let outer = parse_outer(&out[0].1).expect("a UDP packet");
    assert_eq!(outer.payload_len, inner_of(&packet).len() + 36);
}

#[test]
fn the_sender_of_a_packet_that_is_too_big_is_told() {
    let mut bench = Bench::new(1, v4_tuple());
    let out = bench.pass(Role::Inside, &to_client_v4(1416));
    let [(Role::Inside, sent)] = &out[..] else { panic!("an answer inside: {out:?}") };
    let sliced = SlicedPacket::from_ethernet(sent).expect("a packet");
    assert!(matches!(sliced.transport, Some(TransportSlice::Icmpv4(_))));
    let Some(NetSlice::Ipv4(ip)) = sliced.net else { panic!("IPv4") };
    assert_eq!(ip.header().source_addr(), Ipv4Addr::new(10, 66, 0, 1));
    let counters = bench.workers[0].counters();
    assert_eq!(counters.drops().value(Reason::MtuExceeded), 1);
    assert_eq!(counters.path.too_big_answers, 1);
}

#[test]
fn a_client_that_sends_too_much_is_told_through_its_tunnel() {
    let mut bench = Bench::new(1, v4_tuple());
    let mut inner = Vec::new();
    PacketBuilder::ipv4([10, 66, 0, 5], [192, 0, 2, 80], 64)
        .udp(40000, 80)
        .write(&mut inner, &[1; 1416])
        .expect("a vector takes it");
    let out = bench.pass(Role::Outside, &from_client(&inner, false));
    let [(Role::Outside, sent)] = &out[..] else { panic!("an answer outside: {out:?}") };
    let outer = parse_outer(sent).expect("a UDP packet");
    let answer = &sent[outer.payload + 20..outer.payload + outer.payload_len - 16];
    let sliced = SlicedPacket::from_ip(answer).expect("a packet");
    assert!(matches!(sliced.transport, Some(TransportSlice::Icmpv4(_))));
}

#[test]
fn answers_to_packets_that_are_too_big_are_limited() {
    let mut bench = Bench::new(1, v4_tuple());
    for _ in 0..300 {
        bench.pass(Role::Inside, &to_client_v4(1416));
    }
    let counters = bench.workers[0].counters();
    assert_eq!(counters.path.drops.value(Reason::MtuExceeded), 300);
    assert_eq!(counters.path.too_big_answers, 100, "the burst, and no time passed");
}

#[test]
fn what_is_no_tunnel_packet_is_dropped_and_counted() {
    let mut bench = Bench::new(1, v4_tuple());
    let mut hello = from_client(&[0; 40], false);
    hello[42] = 0x11;
    for (packet, reason) in [
        (vec![0; 60], Reason::Malformed),
        (hello, Reason::UnknownType),
        (from_client(&[], false), Reason::InnerSourceInvalid),
    ] {
        assert!(bench.pass(Role::Outside, &packet).is_empty());
        assert_eq!(bench.workers[0].counters().drops().value(reason), 1, "{reason}");
    }
    let mut stranger = to_client_v4(10);
    stranger[14 + 16] = 11;
    assert!(bench.pass(Role::Inside, &stranger).is_empty());
    assert_eq!(bench.workers[0].counters().drops().value(Reason::SessionNotFound), 1);
    bench.rest();
    assert_eq!(bench.ledger().ready(), u64::from(bench.kernel.frames()));
}

#[test]
fn a_missing_next_hop_is_reported_and_used_once_it_is_known() {
    let mut bench = Bench::without_hops(1, v4_tuple());
    assert!(bench.pass(Role::Inside, &to_client_v4(10)).is_empty());
    assert!(bench.pass(Role::Inside, &to_client_v4(10)).is_empty());
    let Some(Report::Unresolved { peer, route }) = bench.slow[0].receive() else { panic!("a report") };
    assert_eq!((peer, route), (Some(v4_tuple().peer.ip()), CLIENT_HOP));
    assert!(bench.slow[0].receive().is_none(), "said once a second");
    assert_eq!(bench.workers[0].counters().path.no_next_hop, 2);

    bench.slow[0].send(Command::NextHop { id: CLIENT_HOP, hop: Some(OUTSIDE_HOP) }).expect("room");
    assert_eq!(bench.pass(Role::Inside, &to_client_v4(10)).len(), 1);
}

#[test]
fn a_new_route_takes_the_peers_packets_along() {
    let mut bench = Bench::new(1, v4_tuple());
    let other = NextHop { destination_mac: [2, 0, 0, 0, 0, 9], ..OUTSIDE_HOP };
    bench.slow[0].send(Command::NextHop { id: 9, hop: Some(other) }).expect("room");
    bench.slow[0].send(Command::Route { peer: v4_tuple().peer.ip(), route: 9 }).expect("room");
    let out = bench.pass(Role::Inside, &to_client_v4(10));
    assert_eq!(out[0].1[..6], other.destination_mac);
}

#[test]
fn a_congested_port_drops_and_its_frames_go_home() {
    let mut bench = Bench::new(1, v4_tuple());
    let packet = to_client_v4(10);
    // The transmit ring holds 64 packets and the kernel takes none.
    for _ in 0..100 {
        assert!(bench.kernel.deliver(Role::Inside, 0, 0, &packet));
        bench.round(0);
    }
    assert_eq!(bench.workers[0].counters().drops().value(Reason::QueueFull), 36);
    assert_eq!(bench.kernel.transmit(Role::Outside, 0, 1000).len(), 64);
    bench.rest();
    assert_eq!(bench.kernel.ready(), [256, 256]);
}

#[test]
fn a_heartbeat_is_answered_in_its_own_frame_if_the_way_back_is_known() {
    let mut heartbeat = from_client(&[7; 40], false);
    heartbeat[42] = 0x16;
    let asked = parse_outer(&heartbeat).expect("a UDP packet");
    let mut bench = Bench::new(1, v4_tuple());
    bench.slow[0].send(Command::Route { peer: asked.peer().ip(), route: CLIENT_HOP }).expect("room");
    let out = bench.pass(Role::Outside, &heartbeat);
    let [(Role::Outside, sent)] = &out[..] else { panic!("an answer outside: {out:?}") };
    assert_eq!(sent[..6], OUTSIDE_HOP.destination_mac);
    let answer = parse_outer(sent).expect("a UDP packet");
    assert_eq!((answer.local(), answer.peer()), (asked.peer(), asked.local()), "back where it came from");
    assert_eq!(sent[answer.payload..][..answer.payload_len], heartbeat[asked.payload..]);
    assert_eq!(bench.workers[0].counters().path.answered, 1);
    assert!(bench.slow[0].receive().is_none());
}

#[test]
fn a_heartbeat_whose_way_back_is_unknown_is_answered_by_the_slow_path() {
    let mut heartbeat = from_client(&[7; 40], false);
    heartbeat[42] = 0x16;
    let mut bench = Bench::new(1, v4_tuple());
    assert!(bench.pass(Role::Outside, &heartbeat).is_empty());
    let Some(Report::Reply(reply)) = bench.slow[0].receive() else { panic!("a reply") };
    assert_eq!(reply.tuple.peer, "198.51.100.7:40001".parse().expect("address"));
    assert_eq!(reply.packet[..], heartbeat[42..]);
}

#[test]
fn after_a_storm_no_heartbeat_of_a_batch_stays_unanswered_for_want_of_a_way_back() {
    let mut heartbeat = from_client(&[7; 40], false);
    heartbeat[42] = 0x16;
    let mut bench = Bench::new(1, v4_tuple());
    for number in 0..8 {
        heartbeat[43] = number;
        assert!(bench.kernel.deliver(Role::Outside, 0, 0, &heartbeat));
    }
    bench.round(0);
    for number in 0..8 {
        let Some(Report::Reply(reply)) = bench.slow[0].receive() else { panic!("reply {number}") };
        assert_eq!(reply.packet[1], number, "in their order");
    }
    assert_eq!(bench.workers[0].counters().path.drops.value(Reason::QueueFull), 0);
}

fn control(route: u32, bytes: u8) -> Command<()> {
    let arrival = Arrival { tuple: v4_tuple(), route, queue: 0 };
    Command::Control { arrival, packet: [bytes; 100][..].try_into().expect("fits") }
}

#[test]
fn a_control_packet_of_the_slow_path_is_answered_in_a_spare_frame_if_the_way_back_is_known() {
    let mut bench = Bench::new(1, v4_tuple());
    // More than there are spare frames: they come back.
    for number in 0..200 {
        bench.slow[0].send(control(CLIENT_HOP, number)).expect("room");
        assert!(bench.round(0));
        let sent = bench.kernel.transmit(Role::Outside, 0, 10);
        let [sent] = &sent[..] else { panic!("one answer: {sent:?}") };
        assert_eq!(sent[..6], OUTSIDE_HOP.destination_mac);
        let answer = parse_outer(sent).expect("a UDP packet");
        assert_eq!((answer.local(), answer.peer()), (v4_tuple().peer, v4_tuple().local), "to its peer");
        assert_eq!(sent[answer.payload..][..answer.payload_len], [number; 100]);
    }
    assert!(bench.slow[0].receive().is_none(), "nothing is left to the slow path");
    assert_eq!(bench.workers[0].counters().path.answered, 200);
    assert_eq!(bench.workers[0].counters().outside.sent, 200);
    bench.rest();
    assert_eq!(bench.ledger().missing(), 0);
}

#[test]
fn a_control_packet_whose_way_back_is_unknown_is_answered_by_the_slow_path() {
    let mut bench = Bench::new(1, v4_tuple());
    bench.slow[0].send(control(Arrival::NO_ROUTE, 0x19)).expect("room");
    assert!(bench.round(0));
    assert!(matches!(bench.slow[0].receive(), Some(Report::Reply(reply)) if reply.packet[..] == [0x19; 100]));
}

#[test]
fn what_finds_no_spare_frame_is_answered_by_the_slow_path() {
    // The transmit ring has room for all.
    let mut bench = Bench::with_hops(Bench::with_rings(1, v4_tuple(), 128));
    // The kernel sends nothing, so no frame comes back.
    for number in 0..100 {
        bench.slow[0].send(control(CLIENT_HOP, number)).expect("room");
        bench.round(0);
    }
    let left =
        std::iter::from_fn(|| bench.slow[0].receive()).filter(|report| matches!(report, Report::Reply(_))).count();
    assert_eq!((bench.kernel.transmit(Role::Outside, 0, 200).len(), left), (64, 36));
    assert_eq!(bench.workers[0].counters().drops().value(Reason::QueueFull), 0);
}

#[test]
fn an_answer_waits_in_no_congested_port_but_leaves_by_the_slow_path() {
    let mut bench = Bench::new(1, v4_tuple());
    for _ in 0..64 {
        assert!(bench.kernel.deliver(Role::Inside, 0, 0, &to_client_v4(10)));
        bench.round(0);
    }
    bench.slow[0].send(control(CLIENT_HOP, 0x19)).expect("room");
    bench.round(0);
    assert!(matches!(bench.slow[0].receive(), Some(Report::Reply(reply)) if reply.packet[..] == [0x19; 100]));
    assert_eq!(bench.workers[0].counters().drops().value(Reason::QueueFull), 0);
}

#[test]
fn no_answer_is_lost_when_more_than_a_batch_of_them_wait_for_the_slow_path() {
    let (mut shares, _kernel) = plane(1, 256, 64);
    let memory = shares[0].memory().clone();
    let mut frame = shares[0].spare(Role::Outside).expect("nothing is said yet");
    let pool = AddressPool::new(Some(Ipv4Addr::new(10, 66, 0, 0)), None, 16);
    let mut path = DataPath::new(Bare::new(v4_tuple(), Arrival::NO_ROUTE), pool, INNER_MTU, Time::ZERO);
    let arrival = Arrival { tuple: v4_tuple(), route: Arrival::NO_ROUTE, queue: 0 };
    for number in 0..=64 {
        path.sessions_mut().control_in(Time::ZERO, &arrival, &mut [number; 100]).expect("fits");
        let said = path.say(&memory, &mut frame);
        assert_eq!(said, (number < 64).then_some(Verdict::Discard), "the last one stays where it is");
    }
    let left: Vec<u8> = std::iter::from_fn(|| path.poll_reply()).map(|reply| reply.packet[0]).collect();
    assert_eq!(left, (0..=64).collect::<Vec<u8>>());
    assert_eq!(path.counters().drops.value(Reason::QueueFull), 0);
    shares[0].discard(frame);
}

#[test]
fn a_worker_answers_the_slow_path() {
    let mut bench = Bench::new(1, v4_tuple());
    bench.slow[0].send(Command::Views).expect("room");
    bench.slow[0].send(Command::Counters).expect("room");
    assert!(bench.round(0));
    assert!(matches!(bench.slow[0].receive(), Some(Report::Views(_))));
    let Some(Report::Counters(counters)) = bench.slow[0].receive() else { panic!("counters") };
    assert_eq!(counters.worker, 0);
    assert!(!bench.round(0), "nothing to do");
}

#[test]
fn a_running_worker_sleeps_wakes_at_a_command_and_stops() {
    let (mut shares, _kernel) = plane(1, 256, 64);
    let share = shares.remove(0);
    let bell = Arc::new(Doorbell::new().expect("eventfd"));
    let (slow, end) = link::<Bare>(&bell, share.bell());
    let pool = AddressPool::new(Some(Ipv4Addr::new(10, 66, 0, 0)), None, 16);
    let path = DataPath::new(Bare::new(v4_tuple(), Arrival::NO_ROUTE), pool, INNER_MTU, Time::ZERO);
    let thread = thread::spawn(move || Worker::new(share, path, end).run());
    let sleeps = |slow: &SlowEnd<Bare>| loop {
        match slow.receive() {
            Some(Report::Counters(counters)) => break counters.sleeps,
            Some(_) => {}
            None => thread::yield_now(),
        }
    };
    slow.send(Command::Counters).expect("room");
    sleeps(&slow);
    thread::sleep(std::time::Duration::from_millis(50));
    slow.send(Command::Counters).expect("room");
    assert!(sleeps(&slow) > 0, "it slept, and the command woke it");
    slow.send(Command::Stop).expect("room");
    thread.join().expect("the worker does not panic");
    assert!(matches!(slow.receive(), Some(Report::Stopped)));
}

#[derive(Clone, Debug)]
enum Step {
    Deliver { role: Role, queue: usize, worker: usize, count: usize, good: bool },
    Transmit { role: Role, queue: usize, limit: usize },
    Round { worker: usize },
}

fn step(workers: usize) -> impl Strategy<Value = Step> {
    let role = || prop_oneof![Just(Role::Outside), Just(Role::Inside)];
    prop_oneof![
        3 => (role(), 0..workers, 0..workers, 1usize..90, prop::bool::weighted(0.9))
            .prop_map(|(role, queue, worker, count, good)| Step::Deliver { role, queue, worker, count, good }),
        2 => (role(), 0..workers, 0usize..90).prop_map(|(role, queue, limit)| Step::Transmit { role, queue, limit }),
        4 => (0..workers).prop_map(|worker| Step::Round { worker }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever arrives where, whoever works when, however slowly the devices send: no frame is lost, none is in two
    /// places, and in the end each lies ready in the fill ring of its own region.
    #[test]
    fn no_frame_is_ever_lost(workers in 1usize..4, seed in prop::collection::vec(step(3), 1..200)) {
        let mut bench = Bench::new(workers, v4_tuple());
        let good = [from_client(inner_of(&to_client_v4(10)), false), to_client_v4(10)];
        for step in seed {
            match step {
                Step::Deliver { role, queue, worker, count, good: is_good } => {
                    let packet = if is_good { &good[usize::from(role == Role::Inside)][..] } else { &[0; 40][..] };
                    for _ in 0..count {
                        bench.kernel.deliver(role, queue % workers, worker % workers, packet);
                    }
                }
                Step::Transmit { role, queue, limit } => {
                    bench.kernel.transmit(role, queue % workers, limit);
                }
                Step::Round { worker } => {
                    bench.round(worker % workers);
                }
            }
            for worker in &bench.workers {
                prop_assert_eq!(worker.counters().frames.missing(), 0);
            }
        }
        // Packets that were received and not forwarded yet make new ones to send.
        for _ in 0..20 {
            bench.rest();
            for worker in 0..workers {
                bench.kernel.transmit(Role::Outside, worker, usize::MAX);
                bench.kernel.transmit(Role::Inside, worker, usize::MAX);
            }
        }
        bench.rest();
        prop_assert_eq!(bench.kernel.ready(), vec![256; 2 * workers]);
        prop_assert_eq!(bench.ledger().ready(), u64::from(bench.kernel.frames()));
        prop_assert_eq!(bench.ledger().in_flight(), 0);
    }
}
