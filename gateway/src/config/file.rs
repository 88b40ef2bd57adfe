//! The file as it is written: one struct per table, every key named, unknown ones refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;

use super::{InsideKind, ZeroCopy};
use crate::xdp::ModeChoice;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) gateway: Gateway,
    pub(super) outside: Outside,
    pub(super) inside: Inside,
    #[serde(default)]
    pub(super) workers: Workers,
    #[serde(default)]
    pub(super) audit: Audit,
    #[serde(default)]
    pub(super) metrics: Metrics,
    pub(super) policy: toml::Table,
    #[serde(default, rename = "client")]
    pub(super) clients: Vec<Client>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gateway {
    pub(super) private_key_file: PathBuf,
    pub(super) admin_socket: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Outside {
    pub(super) interface: String,
    pub(super) listen: Vec<SocketAddr>,
    #[serde(default)]
    pub(super) mode: ModeChoice,
    #[serde(default)]
    pub(super) zero_copy: ZeroCopy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Inside {
    pub(super) kind: InsideKind,
    pub(super) interface: String,
    pub(super) pool_v4: Option<Ipv4Net>,
    pub(super) pool_v6: Option<Ipv6Net>,
    pub(super) router: Option<IpAddr>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Workers {
    pub(super) count: Option<usize>,
    pub(super) cpus: Option<Vec<usize>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Audit {
    pub(super) enabled: Option<bool>,
    pub(super) path: Option<PathBuf>,
    pub(super) rotate_mib: Option<u64>,
    pub(super) ring_records: Option<usize>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    pub(super) listen: Option<SocketAddr>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Client {
    pub(super) name: String,
    pub(super) public_key: String,
    pub(super) psk_file: Option<PathBuf>,
    pub(super) inner_v4: Option<Ipv4Addr>,
    pub(super) inner_v6: Option<Ipv6Addr>,
    pub(super) allowed_sources: Option<Vec<IpNet>>,
    #[serde(default)]
    pub(super) compromised: bool,
    pub(super) policy: Option<toml::Table>,
}
