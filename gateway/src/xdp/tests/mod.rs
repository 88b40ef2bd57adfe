//! The programs in the kernel, run on single frames by BPF_PROG_TEST_RUN, and attached in a namespace of the test's own.

mod agreement;
mod attach;
mod frames;
mod steering;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::{TestRun as _, TestRunOptions};
use jumpgate_common::Counter;
use socket2::{Domain, Socket, Type};

use super::{Side, Steering, SteeringConfig};

const PORT: u16 = 51900;
const WORKERS: u32 = 2;
const QUEUES: u32 = 2;
const POOL_SIZE: u32 = 1024;
const LOCAL_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const POOL_V4: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 0);
const POOL_V6: Ipv6Addr = Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 0);
/// Steered to [`WORKER`].
const SLOT: u16 = 0xabc;
/// A client whose packets go to [`WORKER`].
const CLIENT: u32 = 5;
/// An address of the pool that is the host's own.
const HOST: u32 = 1;
const WORKER: u32 = 1;

/// What a program returns (`enum xdp_action`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Drop,
    Pass,
    Redirect,
}

/// The loaded programs with a few slots, clients and sockets set.
struct Kernel {
    steering: Steering,
    /// AF_XDP sockets: a map entry lives as long as its socket.
    _sockets: Vec<Socket>,
}

impl Kernel {
    /// `None`, and a line that says so, if this user may not load programs.
    fn load() -> Option<Self> {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("SKIPPED: loading XDP programs needs root");
            return None;
        }
        let config = SteeringConfig {
            port: PORT,
            workers: WORKERS,
            outside_queues: QUEUES,
            inside_queues: QUEUES,
            pool_v4: Some(POOL_V4),
            pool_v6: Some(POOL_V6),
            pool_size: POOL_SIZE,
        };
        let mut steering = Steering::load(&config).unwrap_or_else(|error| panic!("{error}"));
        steering.add_local(LOCAL_V4.into()).unwrap();
        steering.add_local(LOCAL_V6.into()).unwrap();
        steering.set_slot(SLOT, Some(WORKER)).unwrap();
        steering.set_client(CLIENT, Some(WORKER)).unwrap();
        steering.set_host(HOST).unwrap();
        let mut kernel = Self { steering, _sockets: Vec::new() };
        for side in [Side::Outside, Side::Inside] {
            kernel.add_socket(side, 0, WORKER);
        }
        Some(kernel)
    }

    fn add_socket(&mut self, side: Side, queue: u32, worker: u32) {
        let socket = Socket::new(Domain::from(nix::libc::AF_XDP), Type::RAW, None).expect("an AF_XDP socket");
        self.steering.set_socket(side, queue, worker, &socket).unwrap();
        self._sockets.push(socket);
    }

    /// What becomes of a frame, and the one counter that moved.
    fn run(&mut self, side: Side, frame: &[u8]) -> (Action, Counter) {
        self.run_with(side, TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() })
    }

    fn run_with(&mut self, side: Side, options: TestRunOptions<'_>) -> (Action, Counter) {
        let before = self.steering.counters().unwrap();
        let result = self.steering.program(side).test_run(options).unwrap_or_else(|error| panic!("{error:?}"));
        let after = self.steering.counters().unwrap();
        let moved: Vec<_> = Counter::ALL.iter().copied().filter(|&c| after.of(c) != before.of(c)).collect();
        let [counter] = moved[..] else { panic!("not one counter, but {moved:?}") };
        assert_eq!(after.of(counter), before.of(counter) + 1);
        let action = match result.return_value {
            1 => Action::Drop,
            2 => Action::Pass,
            4 => Action::Redirect,
            other => panic!("no such action is wanted: {other}"),
        };
        (action, counter)
    }
}

/// Address of a client or of the host, by its index in the pool.
fn pool_v4(index: u32) -> IpAddr {
    Ipv4Addr::from_bits(POOL_V4.to_bits() + index).into()
}

fn pool_v6(index: u32) -> IpAddr {
    Ipv6Addr::from_bits(POOL_V6.to_bits() + u128::from(index)).into()
}
