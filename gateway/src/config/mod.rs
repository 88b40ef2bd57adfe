//! The configuration: a TOML file turned into values that cannot be wrong any more.
//!
//! [`file`] mirrors the text, [`Document`] remembers where every key stands, and [`Config::read`] checks all that a
//! single key cannot tell. Each complaint names file, line, key and cure, because whoever reads it wants to go on
//! working and not to look for a manual.

mod audit;
mod changes;
mod clients;
mod document;
mod file;
mod policy;
mod pool;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use jumpgate_audit::sink::SinkConfig;
use jumpgate_protocol::handshake::StaticSecret;
use jumpgate_protocol::policy::Policy;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use clients::Client;
pub use document::{ConfigError, Document};
pub use pool::{GATEWAY_INDEX, MAX_POOL, Pool, PoolError};

use crate::keyfile;
use crate::xdp::ModeChoice;

/// Where the admin socket is if the file does not say.
pub const DEFAULT_ADMIN_SOCKET: &str = "/run/jumpgate/admin.sock";
/// Most workers of one gateway: each costs a socket per queue, and XSKMAP is indexed by queue x workers + worker.
pub const MAX_WORKERS: usize = 64;
/// Most listen addresses. HELLO_ACK names up to four of them; more are for several networks of one host.
const MAX_LISTEN: usize = 16;
/// Longest interface name of Linux (IFNAMSIZ less the closing zero).
const MAX_INTERFACE: usize = 15;
/// Characters of the inside interface's name when we make the pair, so that the other end's suffix fits as well.
const MAX_VETH_INTERFACE: usize = MAX_INTERFACE - crate::net::PORT_SUFFIX.len();

/// A checked configuration.
pub struct Config {
    /// The file that it was read from, and that a reload reads again.
    pub file: PathBuf,
    /// Long-term secret of this gateway.
    pub secret: StaticSecret,
    /// Where operators' commands are taken.
    pub admin_socket: PathBuf,
    /// The port towards the clients.
    pub outside: Outside,
    /// The port towards the networks behind the gateway.
    pub inside: Inside,
    /// Worker threads.
    pub workers: Workers,
    /// Where and how the audit trace is kept; none if it is switched off.
    pub audit: Option<SinkConfig>,
    /// Where metrics can be scraped by HTTP, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// What sessions may do, and limits.
    pub policy: Policy,
    /// Who may connect.
    pub clients: Vec<Client>,
}

/// The port towards the clients.
#[derive(Debug, Clone)]
pub struct Outside {
    /// Name of the interface.
    pub interface: String,
    /// Addresses that clients send to; all have one port number.
    pub listen: Vec<SocketAddr>,
    /// How the XDP programs are attached.
    pub mode: ModeChoice,
    /// Whether the NIC writes into our memory itself.
    pub zero_copy: ZeroCopy,
}

/// The port towards the networks behind the gateway.
#[derive(Debug, Clone)]
pub struct Inside {
    /// What the port is.
    pub kind: InsideKind,
    /// Name of the NIC, or of the host's end of the veth pair.
    pub interface: String,
    /// Addresses of the clients.
    pub pool: Pool,
    /// For a NIC: the router on its network that gets what clients send, of either family.
    pub router: Option<IpAddr>,
}

/// Worker threads.
#[derive(Debug, Clone, Default)]
pub struct Workers {
    /// How many; by default one for each queue of the outside interface, at most one for each CPU.
    pub count: Option<usize>,
    /// CPU of each worker, in their order.
    pub cpus: Option<Vec<usize>>,
}

/// Whether the NIC writes into our memory itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZeroCopy {
    /// If the driver can, else by copy, and say so.
    #[default]
    Auto,
    /// Never; some drivers are slower or broken with it.
    Off,
    /// Yes, or refuse to start.
    Require,
}

/// What the inside port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InsideKind {
    /// A pair of virtual interfaces into this host's kernel, made and removed by the gateway.
    Veth,
    /// A network interface of its own.
    Nic,
}

impl Config {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::from_document(&Document::read(path)?)
    }

    fn from_document(document: &Document) -> Result<Self, ConfigError> {
        let file: file::File = document.deserialize()?;
        let secret = read_key(document, "gateway.private_key_file", &file.gateway.private_key_file)?;
        let secret = StaticSecret::new(*secret);
        let outside = check_outside(document, file.outside)?;
        let inside = check_inside(document, file.inside, &outside)?;
        let policy = policy::check(document, &file.policy)?;
        let clients = clients::check(document, file.clients, &inside.pool, &secret.public(), &policy)?;
        Ok(Self {
            file: document.file().to_path_buf(),
            secret,
            admin_socket: file.gateway.admin_socket.unwrap_or_else(|| DEFAULT_ADMIN_SOCKET.into()),
            workers: check_workers(document, file.workers)?,
            audit: audit::check(document, file.audit)?,
            outside,
            inside,
            metrics_listen: file.metrics.listen,
            policy,
            clients,
        })
    }
}

fn check_outside(document: &Document, raw: file::Outside) -> Result<Outside, ConfigError> {
    check_interface(document, "outside.interface", &raw.interface, MAX_INTERFACE)?;
    let key = |index: usize| format!("outside.listen[{index}]");
    let Some(first) = raw.listen.first() else {
        return Err(document.complain("outside.listen", "no address", "listen = [\"192.0.2.1:51900\"]"));
    };
    if raw.listen.len() > MAX_LISTEN {
        let problem = format!("{} addresses, at most {MAX_LISTEN} are possible", raw.listen.len());
        return Err(document.complain("outside.listen", problem, "listen on 0.0.0.0 and [::] instead"));
    }
    for (index, address) in raw.listen.iter().enumerate() {
        let problem = if address.port() == 0 {
            "port 0 is no port".to_owned()
        } else if address.ip().is_multicast() || address.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) {
            format!("{} is no unicast address", address.ip())
        } else if address.port() != first.port() {
            format!("port {} differs from {} above: the steering knows one port", address.port(), first.port())
        } else if raw.listen[..index].contains(address) {
            format!("{address} is there twice")
        } else {
            continue;
        };
        return Err(document.complain(&key(index), problem, "write addresses of this host, all with the same port"));
    }
    Ok(Outside { interface: raw.interface, listen: raw.listen, mode: raw.mode, zero_copy: raw.zero_copy })
}

fn check_inside(document: &Document, raw: file::Inside, outside: &Outside) -> Result<Inside, ConfigError> {
    let longest = match raw.kind {
        InsideKind::Veth => MAX_VETH_INTERFACE,
        InsideKind::Nic => MAX_INTERFACE,
    };
    check_interface(document, "inside.interface", &raw.interface, longest)?;
    if raw.kind == InsideKind::Veth && raw.interface == outside.interface {
        let problem = "the pair that the gateway makes cannot have the name of the outside interface";
        return Err(document.complain("inside.interface", problem, "choose another name, as \"jg0\""));
    }
    let pool = Pool::new(raw.pool_v4, raw.pool_v6).map_err(|error| {
        let key = if raw.pool_v4.is_some() { "inside.pool_v4" } else { "inside.pool_v6" };
        document.complain(
            key,
            error.to_string(),
            "pool_v4 = \"10.66.0.0/16\" and pool_v6 = \"fd66::/112\", or one of them",
        )
    })?;
    for (index, address) in outside.listen.iter().enumerate() {
        if pool.contains(address.ip()) {
            let problem = format!("{} lies inside the pool of client addresses", address.ip());
            let cure = "choose a pool that no network around the gateway uses";
            return Err(document.complain(&format!("outside.listen[{index}]"), problem, cure));
        }
    }
    match (raw.kind, raw.router) {
        (InsideKind::Veth, Some(_)) => {
            let problem = "with a veth pair this host's kernel is the router";
            return Err(document.complain("inside.router", problem, "remove the key"));
        }
        (InsideKind::Nic, None) => {
            let problem = "a NIC needs to know who routes what clients send";
            let cure = "router = \"ADDRESS\" of the router on that network";
            return Err(document.complain("inside.router", problem, cure));
        }
        (InsideKind::Veth, None) | (InsideKind::Nic, Some(_)) => {}
    }
    Ok(Inside { kind: raw.kind, interface: raw.interface, pool, router: raw.router })
}

fn check_workers(document: &Document, raw: file::Workers) -> Result<Workers, ConfigError> {
    if let Some(count) = raw.count.filter(|count| !(1..=MAX_WORKERS).contains(count)) {
        let cure = format!("write 1 to {MAX_WORKERS}, or leave the key out: one worker for each queue");
        return Err(document.complain("workers.count", format!("{count} workers are not possible"), cure));
    }
    if let Some(cpus) = &raw.cpus {
        let doubled = cpus.iter().enumerate().find(|(index, cpu)| cpus[..*index].contains(cpu));
        if let Some((index, cpu)) = doubled {
            let key = format!("workers.cpus[{index}]");
            let problem = format!("CPU {cpu} is there twice; two workers on one CPU take turns");
            return Err(document.complain(&key, problem, "give every worker its own CPU"));
        }
        if cpus.is_empty() || raw.count.is_some_and(|count| count != cpus.len()) {
            let problem =
                format!("{} CPUs for {} workers", cpus.len(), raw.count.map_or("some".into(), |n| n.to_string()));
            return Err(document.complain(
                "workers.cpus",
                problem,
                "name one CPU for each worker, or leave the key out",
            ));
        }
    }
    Ok(Workers { count: raw.count.or(raw.cpus.as_ref().map(Vec::len)), cpus: raw.cpus })
}

fn check_interface(document: &Document, key: &str, name: &str, longest: usize) -> Result<(), ConfigError> {
    let legal = !name.is_empty()
        && name.len() <= longest
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':');
    if legal {
        return Ok(());
    }
    let cure = format!("write 1 to {longest} characters, as `ip link` shows them");
    Err(document.complain(key, format!("{name:?} cannot be the name of an interface"), cure))
}

fn read_key(document: &Document, key: &str, path: &Path) -> Result<Zeroizing<[u8; 32]>, ConfigError> {
    let path = document.directory().join(path);
    keyfile::read_private(&path)
        .map_err(|error| document.complain(key, format!("{}: {error}", path.display()), error.cure(&path)))
}

#[cfg(test)]
mod tests;
