//! Workers on real AF_XDP sockets, behind the real XDP programs, in a network namespace of the test's own.
//!
//! ```text
//! far (client's side, kernel) --veth-- out | gateway | in --veth-- host (server's side, kernel)
//! ```
//!
//! The kernel's own UDP sockets on either side are the judges: they send as any host does, and take only packets whose
//! addresses, lengths and checksums are right.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command as Process;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use jumpgate_protocol::gateway::AddressPool;
use jumpgate_protocol::ident::Tuple;
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::doorbell::Doorbell;
use crate::handover::{Command, INSIDE_HOP, NextHop, Report, SlowEnd, link};
use crate::port::{FrameLedger, FrameSize, PlaneConfig, PortConfig, PortError, Ports, RingSizes, Role, ZeroCopy};
use crate::sys::ethtool;
use crate::xdp::{ModeChoice, Side, Steering, SteeringConfig};

const QUEUES: u32 = 4;
const WORKERS: u16 = 2;
const INNER_MTU: u16 = 1416;
const TUNNEL_PORT: u16 = 51900;
const CLIENT_PORT: u16 = 40001;
const SERVER_PORT: u16 = 8080;
const CLIENT_HOP: u32 = 3;
/// Flows that the kernel spreads over the queues by their hash.
const FLOWS: usize = 64;
/// A loaded machine gets this long for what takes microseconds.
const PATIENCE: Duration = Duration::from_secs(5);

const OUT_MAC: &str = "02:00:00:00:00:01";
const FAR_MAC: &str = "02:00:00:00:00:02";
const IN_MAC: &str = "02:00:00:00:01:01";
const HOST_MAC: &str = "02:00:00:00:01:02";
const OUTSIDE_HOP: NextHop =
    NextHop { source_mac: [2, 0, 0, 0, 0, 1], destination_mac: [2, 0, 0, 0, 0, 2], vlan: None };
const HOST_HOP: NextHop = NextHop { source_mac: [2, 0, 0, 0, 1, 1], destination_mac: [2, 0, 0, 0, 1, 2], vlan: None };

/// Outer addresses of gateway and client.
#[derive(Clone, Copy)]
struct Outside {
    gateway: IpAddr,
    client: IpAddr,
}

const V4: Outside =
    Outside { gateway: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), client: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)) };
const V6: Outside = Outside {
    gateway: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    client: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7)),
};
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);

/// Puts the calling thread into a new namespace with both pairs of links, or says why not.
fn enter_namespace() -> bool {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("SKIPPED: a network namespace of the test's own needs root: {error}");
        return false;
    }
    for (ours, our_mac, theirs, their_mac) in [("out", OUT_MAC, "far", FAR_MAC), ("in", IN_MAC, "host", HOST_MAC)] {
        ip(&format!(
            "link add {ours} address {our_mac} numrxqueues {QUEUES} numtxqueues {QUEUES} type veth \
             peer name {theirs} address {their_mac} numrxqueues {QUEUES} numtxqueues {QUEUES}"
        ));
        ip(&format!("link set {ours} up"));
        ip(&format!("link set {theirs} up"));
        ethtool::finish_packets_in_software(theirs).expect("veth can");
    }
    ip(&format!("address add {}/24 dev far", V4.client));
    ip(&format!("address add {}/64 dev far nodad", V6.client));
    ip(&format!("address add {SERVER}/24 dev host"));
    ip("route add 10.66.0.0/16 dev host");
    ip(&format!("neighbour replace {} lladdr {OUT_MAC} dev far nud permanent", V4.gateway));
    ip(&format!("neighbour replace {} lladdr {OUT_MAC} dev far nud permanent", V6.gateway));
    for client in 2..=3 {
        ip(&format!("neighbour replace 10.66.0.{client} lladdr {IN_MAC} dev host nud permanent"));
    }
    true
}

fn ip(arguments: &str) {
    let output = Process::new("ip").args(arguments.split_whitespace()).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn plane_config() -> PlaneConfig {
    PlaneConfig {
        outside: PortConfig { interface: "out".into(), queues: QUEUES },
        inside: PortConfig { interface: "in".into(), queues: QUEUES },
        workers: WORKERS,
        zero_copy: ZeroCopy::Auto,
        frame_size: FrameSize::for_mtu(1500).expect("fits"),
        rings: RingSizes::default(),
    }
}

/// The gateway of these tests: two workers without sessions.
struct Gateway {
    mode: ModeChoice,
    steering: Steering,
    slow: Vec<SlowEnd<Bare>>,
    threads: Vec<JoinHandle<()>>,
}

impl Gateway {
    fn start(outside: Outside, mode: ModeChoice) -> Self {
        let ports = Ports::open(&plane_config()).expect("the ports open");
        let mut steering = Steering::load(&SteeringConfig {
            port: TUNNEL_PORT,
            workers: WORKERS.into(),
            outside_queues: QUEUES,
            inside_queues: QUEUES,
            pool_v4: Some(Ipv4Addr::new(10, 66, 0, 0)),
            pool_v6: None,
            pool_size: 16,
        })
        .expect("the programs load");
        for (side, role) in [(Side::Outside, Role::Outside), (Side::Inside, Role::Inside)] {
            for (key, socket) in ports.sockets(role) {
                let (queue, worker) = (key / u32::from(WORKERS), key % u32::from(WORKERS));
                steering.set_socket(side, queue, worker, socket).expect("the map takes the socket");
            }
        }
        // Slot and client number both say which worker: even 0, odd 1.
        for slot in 0..16 {
            steering.set_slot(slot, Some(u32::from(slot) % 2)).expect("the map takes the slot");
        }
        for index in 2..16 {
            steering.set_client(index, Some(index % 2)).expect("the map takes the client");
        }
        steering.add_local(outside.gateway).expect("the map takes the address");
        steering.attach(Side::Outside, "out", mode).expect("veth takes the program");
        steering.attach(Side::Inside, "in", mode).expect("veth takes the program");

        let bell = Arc::new(Doorbell::new().expect("eventfd"));
        let tuple = Tuple {
            local: SocketAddr::new(outside.gateway, TUNNEL_PORT),
            peer: SocketAddr::new(outside.client, CLIENT_PORT),
        };
        let pool = AddressPool::new(Some(Ipv4Addr::new(10, 66, 0, 0)), None, 16);
        let (slow, threads) = ports
            .into_workers()
            .into_iter()
            .map(|share| {
                let (slow, end) = link(&bell, share.bell());
                for (id, hop) in [(INSIDE_HOP, HOST_HOP), (CLIENT_HOP, OUTSIDE_HOP)] {
                    slow.send(Command::NextHop { id, hop: Some(hop) }).expect("room");
                }
                let config = WorkerConfig { cpu: None, pool, inner_mtu: INNER_MTU };
                (slow, spawn(config, share, Bare::new(tuple, CLIENT_HOP), end, None).expect("a thread"))
            })
            .unzip();
        Self { mode, steering, slow, threads }
    }

    fn counters(&self) -> Vec<WorkerCounters> {
        self.slow
            .iter()
            .map(|end| {
                end.send(Command::Counters).expect("room");
                wait_for("a worker's counters", || match end.receive() {
                    Some(Report::Counters(counters)) => Some(*counters),
                    _ => None,
                })
            })
            .collect()
    }

    /// Waits until nothing is under way, and gives the workers' counters.
    fn at_rest(&self) -> Vec<WorkerCounters> {
        wait_for("rest", || {
            let before = self.counters();
            thread::sleep(Duration::from_millis(50));
            let after = self.counters();
            let received = |counters: &[WorkerCounters]| -> u64 {
                counters.iter().map(|one| one.outside.received + one.inside.received).sum()
            };
            let is_quiet = received(&before) == received(&after);
            (is_quiet && after.iter().all(|one| one.frames.in_flight() == 0)).then_some(after)
        })
    }

    fn stop(mut self) {
        self.steering.detach().expect("the programs are ours");
        for end in &self.slow {
            end.send(Command::Stop).expect("room");
        }
        for thread in self.threads {
            thread.join().expect("no worker panicked");
        }
    }
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn socket(ip: IpAddr, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((ip, port)).expect("the address is ours");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout is possible");
    socket
}

/// DATA of a session in that slot, around a datagram from the client 10.66.0.2 or .3 to the server.
fn data(slot: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 20];
    packet[0] = 0x15;
    packet[1] = 0x10;
    packet[4..6].copy_from_slice(&(u16::from(slot) << 4).to_be_bytes());
    PacketBuilder::ipv4([10, 66, 0, 2 + slot % 2], SERVER.octets(), 64)
        .udp(CLIENT_PORT, SERVER_PORT)
        .write(&mut packet, payload)
        .expect("a vector takes it");
    packet.extend_from_slice(&[0; 16]);
    packet
}

/// Sends DATA on many flows and in two sessions; each datagram reaches the server once, whatever its queue.
fn pass_in(gateway: &Gateway, outside: Outside, rounds: usize) {
    // Without a native program a veth does not note its queue: the sender's queues 0 and 1 both show as 0, 2 as 1, ...
    let queues_in_use = if gateway.mode == ModeChoice::Generic { QUEUES as usize - 1 } else { QUEUES as usize };
    let server = socket(SERVER.into(), SERVER_PORT);
    let flows: Vec<_> = (0..FLOWS).map(|_| socket(outside.client, 0)).collect();
    let before = gateway.at_rest();
    for round in 0..rounds {
        for (flow, socket) in flows.iter().enumerate() {
            let packet = data((flow % 2) as u8, &[round as u8, flow as u8]);
            socket.send_to(&packet, (outside.gateway, TUNNEL_PORT)).expect("the link is up");
        }
        let mut seen = [false; FLOWS];
        for _ in 0..FLOWS {
            let mut buffer = [0; 64];
            let (len, from) = server.recv_from(&mut buffer).expect("no packet is lost");
            assert_eq!((len, buffer[0]), (2, round as u8));
            let flow = usize::from(buffer[1]);
            assert_eq!(from.ip(), IpAddr::from([10, 66, 0, 2 + (flow % 2) as u8]));
            assert!(!seen[flow], "no packet comes twice");
            seen[flow] = true;
        }
    }
    let after = gateway.at_rest();
    for (worker, (before, after)) in before.iter().zip(&after).enumerate() {
        let received = after.outside.received - before.outside.received;
        assert_eq!(received, (rounds * FLOWS / 2) as u64, "worker {worker} got its sessions' packets and no others");
        let by_queue = after.outside_queues.iter().zip(&before.outside_queues).map(|(after, before)| after - before);
        let by_queue: Vec<_> = by_queue.collect();
        assert_eq!(by_queue.iter().sum::<u64>(), received);
        let in_use = by_queue.iter().filter(|received| **received > 0).count();
        assert!(in_use >= queues_in_use, "worker {worker}, packets by queue: {by_queue:?}");
    }
}

/// Sends datagrams to both clients on many flows; each reaches the client's socket as DATA.
fn pass_out(gateway: &Gateway, outside: Outside, rounds: usize) {
    let client = socket(outside.client, CLIENT_PORT);
    let flows: Vec<_> = (0..FLOWS).map(|_| socket(SERVER.into(), 0)).collect();
    let before = gateway.at_rest();
    for round in 0..rounds {
        for (flow, socket) in flows.iter().enumerate() {
            let to = Ipv4Addr::new(10, 66, 0, 2 + (flow % 2) as u8);
            socket.send_to(&[round as u8, flow as u8], (to, CLIENT_PORT)).expect("the link is up");
        }
        let mut seen = [false; FLOWS];
        for _ in 0..FLOWS {
            let mut buffer = [0; 256];
            let (len, from) = client.recv_from(&mut buffer).expect("no packet is lost");
            assert_eq!(from, SocketAddr::new(outside.gateway, TUNNEL_PORT));
            assert_eq!((len, buffer[0]), (20 + 28 + 2 + 16, 0x15));
            let inner = etherparse::SlicedPacket::from_ip(&buffer[20..50]).expect("the inner packet");
            let (Some(etherparse::NetSlice::Ipv4(ip)), Some(etherparse::TransportSlice::Udp(udp))) =
                (inner.net, inner.transport)
            else {
                panic!("a UDP packet")
            };
            let flow = usize::from(udp.payload()[1]);
            assert_eq!(ip.header().destination(), [10, 66, 0, 2 + (flow % 2) as u8]);
            let expected = udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), udp.payload());
            assert_eq!(Ok(udp.checksum()), expected, "the host's kernel finished its checksum itself");
            assert!(!seen[flow], "no packet comes twice");
            seen[flow] = true;
        }
    }
    let after = gateway.at_rest();
    for (worker, (before, after)) in before.iter().zip(&after).enumerate() {
        let received = after.inside.received - before.inside.received;
        assert_eq!(received, (rounds * FLOWS / 2) as u64, "worker {worker} got its clients' packets and no others");
    }
}

/// Every frame is accounted for, and none waits anywhere but in a fill ring or between two workers.
fn assert_no_frame_is_missing(counters: &[WorkerCounters]) {
    for one in counters {
        assert_eq!(one.frames.missing(), 0, "worker {}: {:?}", one.worker, one.frames);
        assert_eq!(one.outside_kernel.invalid_transmit + one.inside_kernel.invalid_transmit, 0);
    }
    let all = FrameLedger::sum(counters.iter().map(|one| &one.frames));
    assert_eq!(all.in_flight(), 0);
    assert_eq!(all.ready() + all.on_their_way() + all.spare, all.endowed);
}

fn forwards_both_ways(outside: Outside, mode: ModeChoice) {
    if !enter_namespace() {
        return;
    }
    let gateway = Gateway::start(outside, mode);
    pass_in(&gateway, outside, 20);
    pass_out(&gateway, outside, 20);
    assert_no_frame_is_missing(&gateway.at_rest());
    gateway.stop();
}

/// A thread of its own: the namespace goes with it.
fn on_a_thread(test: impl FnOnce() + Send + 'static) {
    if let Err(cause) = thread::spawn(test).join() {
        std::panic::resume_unwind(cause);
    }
}

#[test]
fn every_queue_reaches_the_right_worker_both_ways_over_ipv4() {
    on_a_thread(|| forwards_both_ways(V4, ModeChoice::Native));
}

#[test]
fn every_queue_reaches_the_right_worker_both_ways_over_ipv6() {
    on_a_thread(|| forwards_both_ways(V6, ModeChoice::Native));
}

#[test]
fn generic_mode_forwards_as_well() {
    on_a_thread(|| forwards_both_ways(V4, ModeChoice::Generic));
}

#[test]
fn no_frame_leaks_in_a_flood_and_a_trickle_passes_afterwards() {
    on_a_thread(|| {
        if !enter_namespace() {
            return;
        }
        let gateway = Gateway::start(V4, ModeChoice::Native);
        let inwards: Vec<_> = (0..8).map(|_| socket(V4.client, 0)).collect();
        let outwards: Vec<_> = (0..8).map(|_| socket(SERVER.into(), 0)).collect();
        let packets = [data(0, &[0; 600]), data(1, &[0; 600])];
        let stop = Instant::now() + Duration::from_secs(2);
        let mut sent = 0u64;
        while Instant::now() < stop {
            for (flow, (inward, outward)) in inwards.iter().zip(&outwards).enumerate() {
                for _ in 0..32 {
                    // A full device queue is part of the flood.
                    let _ = inward.send_to(&packets[flow % 2], (V4.gateway, TUNNEL_PORT));
                    let _ = outward.send_to(&[0; 600], (Ipv4Addr::new(10, 66, 0, 2 + (flow % 2) as u8), CLIENT_PORT));
                    sent += 2;
                }
            }
        }
        let counters = gateway.at_rest();
        let received: u64 = counters.iter().map(|one| one.outside.received + one.inside.received).sum();
        let handed_over: u64 = counters.iter().map(|one| one.frames.handed_over).sum();
        println!("flood: {sent} packets offered, {received} received, {handed_over} frames handed between workers");
        assert!(received > 50_000, "a flood it was: {received}");
        assert!(handed_over > 1_000, "frames of the other worker's regions went home: {handed_over}");
        assert_no_frame_is_missing(&counters);
        pass_in(&gateway, V4, 50);
        pass_out(&gateway, V4, 50);
        assert_no_frame_is_missing(&gateway.at_rest());
        gateway.stop();
    });
}

#[test]
fn a_gateway_that_stopped_leaves_its_queues_to_the_next() {
    on_a_thread(|| {
        if !enter_namespace() {
            return;
        }
        for _ in 0..3 {
            let gateway = Gateway::start(V4, ModeChoice::Native);
            pass_in(&gateway, V4, 1);
            gateway.stop();
        }
    });
}

#[test]
fn ports_say_what_they_are_and_every_queue_has_a_socket_for_every_worker() {
    on_a_thread(|| {
        if !enter_namespace() {
            return;
        }
        let ports = Ports::open(&plane_config()).expect("the ports open");
        for (role, name) in [(Role::Outside, "out"), (Role::Inside, "in")] {
            let info = ports.info(role);
            assert_eq!((info.interface.as_str(), info.queues, info.workers), (name, QUEUES, WORKERS));
            assert!(!info.zero_copy, "veth copies");
            let mut keys: Vec<_> = ports.sockets(role).map(|(key, _)| key).collect();
            keys.sort_unstable();
            assert_eq!(keys, (0..QUEUES * u32::from(WORKERS)).collect::<Vec<_>>());
        }
    });
}

#[test]
fn what_cannot_be_opened_is_refused_with_its_cause() {
    on_a_thread(|| {
        if !enter_namespace() {
            return;
        }
        let config = plane_config();
        let refused = |change: fn(&mut PlaneConfig)| {
            let mut changed = config.clone();
            change(&mut changed);
            Ports::open(&changed).expect_err("refused")
        };
        let error = refused(|config| config.outside.interface = "nowhere".into());
        assert_eq!(error, PortError::NoSuchInterface { interface: "nowhere".into() });
        let error = refused(|config| config.workers = 5);
        assert!(matches!(error, PortError::TooFewQueues { queues: 4, workers: 5, .. }), "{error}");
        let error = refused(|config| config.zero_copy = ZeroCopy::Require);
        assert!(error.to_string().contains("out queue 0: binding an AF_XDP socket"), "{error}");
        assert!(error.to_string().contains("set zero_copy = \"auto\""), "{error}");
        let error = refused(|config| config.outside.queues = 8);
        assert!(error.to_string().contains("does the interface have that queue?"), "{error}");
    });
}
