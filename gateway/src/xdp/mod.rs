//! Loads the XDP programs, fills their maps, attaches them, and leaves nothing attached behind.
//!
//! Order of a start: [`Steering::load`], then sockets, slots and addresses, then [`Steering::attach`]. Until an entry is
//! set, its packets are dropped and counted, never passed (see `ebpf/xdp`), so a half-started gateway leaks nothing.
//!
//! Programs are attached by BPF links, which belong to this process: dropping [`Steering`] detaches, and so does the
//! kernel if the process dies by any means. What cannot be detached so (a program that an old kernel or another tool
//! attached through netlink) is what [`unload`] is for.
//!
//! The compiled programs are part of this binary. `build.rs` refuses an object that was built from other sources than
//! those in this tree.

mod attach;
mod error;
mod ledger;
mod unload;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use jumpgate_common::maps::{self, entry_of_worker};
use jumpgate_common::{Address, Counter, InsideConfig, NO_WORKER, OutsideConfig, PASS_TO_HOST};
use nix::errno::Errno;

pub use attach::{Attached, Mode, ModeChoice};
pub use error::XdpError;
pub use ledger::{MapLedger, SteeringMap};
pub use unload::{Leftover, unload};

/// The compiled XDP programs, built from `ebpf/xdp` by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf/object/jumpgate-xdp.bpf.o");

/// Sizes and addresses that the programs need to know.
#[derive(Clone, Copy, Debug)]
pub struct SteeringConfig {
    /// UDP port of the tunnel, on every local address.
    pub port: u16,
    /// Number of workers.
    pub workers: u32,
    /// Receive queues of the outside port.
    pub outside_queues: u32,
    /// Receive queues of the inside port.
    pub inside_queues: u32,
    /// First address of the clients' IPv4 pool, if they have IPv4.
    pub pool_v4: Option<Ipv4Addr>,
    /// First address of the clients' IPv6 pool, if they have IPv6.
    pub pool_v6: Option<Ipv6Addr>,
    /// Addresses in the pool; client `i` has the `i`-th of each family.
    pub pool_size: u32,
}

/// Which of the two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Tunnel packets, UDP.
    Outside,
    /// Plain IP.
    Inside,
}

/// The loaded programs and their maps. Dropping it detaches them.
pub struct Steering {
    ebpf: Ebpf,
    workers: u32,
    slots: Array<MapData, u32>,
    pool: Array<MapData, u32>,
    local_addresses: HashMap<MapData, [u8; 16], u8>,
    outside_sockets: XskMap<MapData>,
    inside_sockets: XskMap<MapData>,
    counters: PerCpuArray<MapData, u64>,
    ledger: MapLedger,
}

impl Steering {
    /// Loads the programs into the kernel. Nothing is attached, and every slot and client is without a worker.
    pub fn load(config: &SteeringConfig) -> Result<Self, XdpError> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(maps::OUTSIDE_XSKS, config.outside_queues * config.workers)
            .map_max_entries(maps::INSIDE_XSKS, config.inside_queues * config.workers)
            .map_max_entries(maps::POOL, config.pool_size.max(1))
            .load(OBJECT)
            .map_err(XdpError::load)?;
        for side in [Side::Outside, Side::Inside] {
            program(&mut ebpf, side)?.load().map_err(XdpError::load)?;
        }
        let outside = OutsideConfig { port: config.port, workers: config.workers };
        take::<Array<_, [u32; OutsideConfig::WORDS]>>(&mut ebpf, maps::OUTSIDE_CONFIG)?
            .set(0, outside.encode(), 0)
            .map_err(XdpError::map(maps::OUTSIDE_CONFIG))?;
        take::<Array<_, [u32; InsideConfig::WORDS]>>(&mut ebpf, maps::INSIDE_CONFIG)?
            .set(0, inside_config(config).encode(), 0)
            .map_err(XdpError::map(maps::INSIDE_CONFIG))?;
        Ok(Self {
            workers: config.workers,
            slots: take(&mut ebpf, maps::SLOTS)?,
            pool: take(&mut ebpf, maps::POOL)?,
            local_addresses: take(&mut ebpf, maps::LOCAL_ADDRESSES)?,
            outside_sockets: take(&mut ebpf, maps::OUTSIDE_XSKS)?,
            inside_sockets: take(&mut ebpf, maps::INSIDE_XSKS)?,
            counters: take(&mut ebpf, maps::COUNTERS)?,
            ledger: MapLedger::default(),
            ebpf,
        })
    }

    /// Attaches the program of that side to an interface, and says in which mode it runs.
    ///
    /// Some drivers reset the device on this: its link may be down for seconds afterwards.
    pub fn attach(&mut self, side: Side, interface: &str, choice: ModeChoice) -> Result<Attached, XdpError> {
        attach::attach(program(&mut self.ebpf, side)?, interface, choice)
    }

    /// Detaches both programs; a second call does nothing.
    pub fn detach(&mut self) -> Result<(), XdpError> {
        for side in [Side::Outside, Side::Inside] {
            match program(&mut self.ebpf, side)?.unload() {
                Ok(()) | Err(aya::programs::ProgramError::NotLoaded) => {}
                Err(error) => return Err(XdpError::Detach(error)),
            }
        }
        Ok(())
    }

    /// Lets packets of that queue reach that worker: the socket must be bound to the queue.
    pub fn set_socket(&mut self, side: Side, queue: u32, worker: u32, socket: impl AsFd) -> Result<(), XdpError> {
        let entry = queue * self.workers + worker;
        let (map, name) = match side {
            Side::Outside => (&mut self.outside_sockets, SteeringMap::OutsideSockets),
            Side::Inside => (&mut self.inside_sockets, SteeringMap::InsideSockets),
        };
        // Each is set once, when its socket is opened.
        let set = map.set(entry, socket.as_fd().as_raw_fd(), 0);
        self.settle(name, set, (false, true))
    }

    /// Gives a slot, and all sessions in it, to a worker; or to nobody.
    pub fn set_slot(&mut self, slot: u16, worker: Option<u32>) -> Result<(), XdpError> {
        let entry = worker.map_or(NO_WORKER, entry_of_worker);
        let was = self.slots.get(&slot.into(), 0).is_ok_and(|entry| entry != NO_WORKER);
        let set = self.slots.set(slot.into(), entry, 0);
        self.settle(SteeringMap::Slots, set, (was, entry != NO_WORKER))
    }

    /// Sends packets for the client at that index of the pool to a worker; or drops them.
    pub fn set_client(&mut self, index: u32, worker: Option<u32>) -> Result<(), XdpError> {
        let entry = worker.map_or(NO_WORKER, entry_of_worker);
        self.set_pool(index, entry)
    }

    /// Leaves packets for that address of the pool to the kernel: it is the host's own.
    pub fn set_host(&mut self, index: u32) -> Result<(), XdpError> {
        self.set_pool(index, PASS_TO_HOST)
    }

    /// Takes tunnel packets to this address from now on.
    pub fn add_local(&mut self, address: IpAddr) -> Result<(), XdpError> {
        let key = Address::from(address).0;
        let was = self.local_addresses.get(&key, 0).is_ok();
        let set = self.local_addresses.insert(key, 1, 0);
        self.settle(SteeringMap::LocalAddresses, set, (was, true))
    }

    /// Leaves packets to this address to the kernel from now on; nothing happens if that was so.
    pub fn remove_local(&mut self, address: IpAddr) -> Result<(), XdpError> {
        let key = Address::from(address).0;
        match self.local_addresses.remove(&key) {
            Err(error) if error::errno(&error) == Some(Errno::ENOENT) => Ok(()),
            removed => self.settle(SteeringMap::LocalAddresses, removed, (true, false)),
        }
    }

    /// What is in the maps, and how often the kernel refused a change.
    pub const fn ledger(&self) -> &MapLedger {
        &self.ledger
    }

    fn set_pool(&mut self, index: u32, entry: u32) -> Result<(), XdpError> {
        let was = self.pool.get(&index, 0).is_ok_and(|entry| entry != NO_WORKER);
        let set = self.pool.set(index, entry, 0);
        self.settle(SteeringMap::Pool, set, (was, entry != NO_WORKER))
    }

    /// Counts a change: whether the entry was in use before, and is now.
    fn settle(
        &mut self,
        map: SteeringMap,
        change: Result<(), MapError>,
        (was, is): (bool, bool),
    ) -> Result<(), XdpError> {
        match change {
            Ok(()) => {
                self.ledger.changed(map, was, is);
                Ok(())
            }
            Err(error) => {
                self.ledger.refused(map);
                Err(XdpError::map(map.kernel_name())(error))
            }
        }
    }

    /// What the programs have counted since they were loaded, summed over the CPUs.
    pub fn counters(&self) -> Result<Counters, XdpError> {
        let mut sums = [0; Counter::COUNT];
        for (&counter, sum) in Counter::ALL.iter().zip(&mut sums) {
            let per_cpu = self.counters.get(&(counter as u32), 0).map_err(XdpError::map(maps::COUNTERS))?;
            *sum = per_cpu.iter().sum();
        }
        Ok(Counters(sums))
    }

    /// The program of that side, for tests that run it without a network.
    #[cfg(test)]
    fn program(&mut self, side: Side) -> &mut Xdp {
        program(&mut self.ebpf, side).expect("the object has both programs")
    }
}

/// A snapshot of the programs' counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters([u64; Counter::COUNT]);

impl Counters {
    /// One of them.
    pub const fn of(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        Counter::ALL.iter().map(|&counter| (counter, self.of(counter)))
    }
}

fn inside_config(config: &SteeringConfig) -> InsideConfig {
    InsideConfig {
        workers: config.workers,
        v4_size: if config.pool_v4.is_some() { config.pool_size } else { 0 },
        v6_size: if config.pool_v6.is_some() { config.pool_size } else { 0 },
        v4_base: config.pool_v4.map_or(0, Ipv4Addr::to_bits),
        v6_base: config.pool_v6.map_or(0, Ipv6Addr::to_bits),
    }
}

fn program(ebpf: &mut Ebpf, side: Side) -> Result<&mut Xdp, XdpError> {
    let name = match side {
        Side::Outside => maps::OUTSIDE_PROGRAM,
        Side::Inside => maps::INSIDE_PROGRAM,
    };
    let program = ebpf.program_mut(name).ok_or(XdpError::Object { name })?;
    program.try_into().map_err(|_| XdpError::Object { name })
}

fn take<M: TryFrom<aya::maps::Map>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, XdpError> {
    let map = ebpf.take_map(name).ok_or(XdpError::Object { name })?;
    M::try_from(map).map_err(|_| XdpError::Object { name })
}

#[cfg(test)]
mod tests;
