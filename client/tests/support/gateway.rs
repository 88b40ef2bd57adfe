//! The smallest gateway that is one: the protocol core's own gateway half over a plain UDP socket and a TUN. It shows
//! the client what a gateway shows it, without AF_XDP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use jump::clock;
use jump::keys::SystemEntropy;
use jumpgate_protocol::crypto::StaticSecret;
use jumpgate_protocol::gateway::{
    AddressPool, ClientEntry, DeskConfig, HandshakeDesk, SessionEvent, Shard, ShardConfig,
};
use jumpgate_protocol::ident::{Arrival, PublicKey, Tuple};
use jumpgate_protocol::policy::{Policy, Profile, Rate};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::wire::{DATA_OVERHEAD, HEADER_LEN, MessageType};
use nix::poll::{PollFd, PollFlags, poll};

use super::{Namespace, enter};

pub(crate) const ENDPOINTS: [&str; 2] = ["192.0.2.1:51900", "[2001:db8::1]:51900"];
pub(crate) const POOL: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 0);
const POOL_SIZE: u32 = 16;
const MTU: u16 = 1380;

/// A gateway in a thread. Dropping it stops the thread without a word to its clients, as a crash would.
pub(crate) struct Gateway {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    pub(crate) fn start(namespace: &Namespace, secret: StaticSecret, client: PublicKey) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (name, flag) = (namespace.name.clone(), stop.clone());
        let (ready, started) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            enter(&name);
            let mut core = Core::open(secret, client);
            ready.send(()).unwrap();
            while !flag.load(Ordering::Relaxed) {
                core.turn();
            }
        });
        started.recv().unwrap();
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A TUN of the same name may still be open in a child that another test is just starting; that lasts until its exec.
fn open_tun(pool: &AddressPool) -> tun_rs::SyncDevice {
    let build = || {
        tun_rs::DeviceBuilder::new()
            .name("jg0")
            .mtu(MTU)
            .ipv4(pool.v4(1).unwrap(), 24, None)
            .ipv6(pool.v6(1).unwrap(), 120)
            .build_sync()
    };
    for _ in 0..100 {
        match build() {
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EBUSY as i32) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            result => return result.unwrap(),
        }
    }
    panic!("the gateway's TUN stays busy");
}

struct Core {
    desk: HandshakeDesk,
    shard: Shard,
    pool: AddressPool,
    sockets: Vec<UdpSocket>,
    tun: tun_rs::SyncDevice,
    buffer: Vec<u8>,
}

impl Core {
    fn open(secret: StaticSecret, client: PublicKey) -> Self {
        let now = clock::now();
        let pool = AddressPool::new(Some(POOL), Some("fd66::".parse().unwrap()), POOL_SIZE);
        let policy = Arc::new(Policy::profile(Profile::Fast));
        let clients = [(client, ClientEntry::default())].into_iter().collect();
        let config = DeskConfig {
            secret,
            clients,
            policy,
            pool,
            prefixes: (24, 120),
            mtu: MTU,
            endpoints: ENDPOINTS.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let desk = HandshakeDesk::new(config, Box::new(SystemEntropy), now);
        let resets = Rate { per_second: 100, burst: 100 };
        let shard_config = ShardConfig { pool, reset_key: desk.reset_key(), resets };
        let tun = open_tun(&pool);
        tun.set_nonblocking(true).unwrap();
        let open = |text: &&str| {
            let socket = UdpSocket::bind(text).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        Self {
            desk,
            shard: Shard::new(shard_config, Box::new(SystemEntropy), now),
            pool,
            sockets: ENDPOINTS.iter().map(open).collect(),
            tun,
            buffer: vec![0; 4096],
        }
    }

    fn turn(&mut self) {
        let mut fds: Vec<PollFd<'_>> =
            self.sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        fds.push(PollFd::new(self.tun.as_fd(), PollFlags::POLLIN));
        let _ = poll(&mut fds, 5u8);
        for index in 0..self.sockets.len() {
            while let Ok((length, peer)) = self.sockets[index].recv_from(&mut self.buffer) {
                self.datagram(index, peer, length);
            }
        }
        while let Ok(length) = self.tun.recv(&mut self.buffer[HEADER_LEN..]) {
            self.packet(length);
        }
        self.shard.timeout(clock::now());
        self.settle();
    }

    fn datagram(&mut self, socket: usize, peer: SocketAddr, length: usize) {
        let now = clock::now();
        let tuple = Tuple { local: self.sockets[socket].local_addr().unwrap(), peer };
        let arrival = Arrival { tuple, route: Arrival::NO_ROUTE, queue: 0 };
        let packet = &mut self.buffer[..length];
        match packet.first().copied().and_then(MessageType::from_byte) {
            Some(MessageType::HelloInit) => {
                let outcome = self.desk.hello(now, &arrival, packet);
                if let Some(birth) = outcome.birth {
                    self.shard.birth(now, birth);
                }
                if let Some(reply) = outcome.reply {
                    let _ = self.sockets[socket].send_to(&reply, peer);
                }
            }
            Some(MessageType::Data) => {
                if let Ok(inner) = self.shard.data_in(now, &arrival, packet) {
                    let _ = self.tun.send(&packet[inner.start..inner.start + inner.len]);
                }
            }
            Some(_) => {
                let _ = self.shard.control_in(now, &arrival, packet);
            }
            None => {}
        }
        self.settle();
    }

    fn packet(&mut self, length: usize) {
        let inner = &self.buffer[HEADER_LEN..HEADER_LEN + length];
        let destination = match inner[0] >> 4 {
            4 => IpAddr::from(<[u8; 4]>::try_from(&inner[16..20]).unwrap()),
            _ => IpAddr::from(<[u8; 16]>::try_from(&inner[24..40]).unwrap()),
        };
        let Some(index) = self.pool.index_of(destination) else { return };
        let sealed = &mut self.buffer[..length + DATA_OVERHEAD];
        if let Ok(outbound) = self.shard.data_out(index, sealed) {
            self.send(&outbound.tuple, length + DATA_OVERHEAD);
        }
    }

    fn send(&self, tuple: &Tuple, length: usize) {
        let socket = self.sockets.iter().find(|socket| socket.local_addr().unwrap() == tuple.local).unwrap();
        let _ = socket.send_to(&self.buffer[..length], tuple.peer);
    }

    fn settle(&mut self) {
        while let Some(reply) = self.shard.poll_reply() {
            self.buffer[..reply.packet.len()].copy_from_slice(&reply.packet);
            self.send(&reply.tuple, reply.packet.len());
        }
        while let Some(event) = self.shard.poll_event() {
            self.follow(&event);
        }
    }

    fn follow(&mut self, event: &SessionEvent) {
        if let Some(replaced) = self.desk.session_event(event) {
            self.shard.terminate(clock::now(), replaced, Reason::SessionReplaced);
        }
    }
}
