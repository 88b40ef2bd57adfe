//! How the gateway and its clients come to be.

use std::sync::Arc;

use arrayvec::ArrayVec;
use jumpgate_protocol::client::{Client, ClientConfig, PathInfo};
use jumpgate_protocol::entropy::SeededEntropy;
use jumpgate_protocol::gateway::{AddressPool, ClientEntry, DeskConfig, HandshakeDesk, Shard, ShardConfig};
use jumpgate_protocol::handshake::StaticSecret;
use jumpgate_protocol::ident::{Locator, PublicKey};
use jumpgate_protocol::policy::{Rate, TransportClass};
use jumpgate_protocol::time::Time;
use jumpgate_protocol::wire::RequestedPolicy;

use super::slots::SlotTable;
use super::{POOL_BASE, POOL_SIZE, World, WorldConfig, gateway_address};

/// The long-term keys of everybody.
pub(super) struct Keys {
    pub(super) gateway: StaticSecret,
    pub(super) clients: Vec<StaticSecret>,
}

impl Keys {
    pub(super) fn draw(seed: u64, clients: usize) -> Self {
        let mut entropy = SeededEntropy::new(seed);
        let gateway = StaticSecret::generate(&mut entropy);
        Self { gateway, clients: (0..clients).map(|_| StaticSecret::generate(&mut entropy)).collect() }
    }
}

/// A gateway without sessions; each boot draws other randomness.
pub(super) fn boot(
    config: &WorldConfig,
    keys: &Keys,
    boots: u64,
    now: Time,
    entry: impl Fn(usize) -> ClientEntry,
) -> (HandshakeDesk, Vec<Shard>) {
    let pool = AddressPool::new(Some(POOL_BASE), None, POOL_SIZE);
    let desk_config = DeskConfig {
        secret: keys.gateway.clone(),
        clients: keys.clients.iter().enumerate().map(|(index, secret)| (secret.public(), entry(index))).collect(),
        policy: Arc::new(config.policy.clone()),
        pool,
        prefixes: (15, 112),
        mtu: 1_416,
        endpoints: ArrayVec::new(),
    };
    let seed = config.seed ^ (boots << 48);
    let mut desk = HandshakeDesk::new(desk_config, Box::new(SeededEntropy::new(seed ^ 1)), now);
    desk.keep_records(now);
    let shards = (0..config.workers as u64)
        .map(|worker| {
            let shard = ShardConfig { pool, reset_key: desk.reset_key(), resets: Rate::even(1_000) };
            let mut shard = Shard::new(shard, Box::new(SeededEntropy::new(seed ^ (worker << 32) ^ 2)), now);
            shard.keep_slots(|slot| SlotTable::at_start(slot, config.workers) as u64 == worker);
            shard.keep_records(now, desk.disclosure());
            shard
        })
        .collect();
    (desk, shards)
}

/// The path of that number; lower numbers are preferred, unless policy tells their kinds apart: 1 is a cable, 2 a wireless
/// LAN, 3 a mobile network.
pub(super) fn path_info(path: u16) -> PathInfo {
    let class = match path {
        1 => TransportClass::Wired,
        2 => TransportClass::Wifi,
        3 => TransportClass::Cellular,
        _ => TransportClass::Other,
    };
    PathInfo { gateway: gateway_address(), class, priority: u8::try_from(path * 10).unwrap_or(u8::MAX) }
}

impl World {
    /// A client that knows the gateway, and nothing else yet.
    pub(crate) fn new_client(
        &self,
        index: usize,
        requested_policy: RequestedPolicy,
        hello_counter: u64,
        replaces: Option<Locator>,
    ) -> Client {
        let config = ClientConfig {
            secret: self.keys.clients[index].clone(),
            gateway: self.keys.gateway.public(),
            psk: None,
            requested_policy,
            hello_counter,
            replaces,
        };
        // Each start of a client draws other randomness.
        let entropy = SeededEntropy::new(self.seed ^ ((index as u64 + 1) << 8) ^ (hello_counter << 40));
        let mut client = Client::new(config, Box::new(entropy));
        client.keep_records(self.now);
        client
    }

    /// The long-term secret of everybody, the gateway's first.
    #[cfg(test)]
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &StaticSecret> {
        std::iter::once(&self.keys.gateway).chain(&self.keys.clients)
    }

    /// The long-term secret of a client, and the gateway's public key: for whoever speaks by hand.
    pub(crate) fn long_term_keys(&self, client: usize) -> (StaticSecret, PublicKey) {
        (self.keys.clients[client].clone(), self.keys.gateway.public())
    }

    pub(crate) fn public_keys(&self) -> Vec<PublicKey> {
        self.keys.clients.iter().map(StaticSecret::public).collect()
    }
}
