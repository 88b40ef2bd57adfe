//! The `[[client]]` tables: who may connect, from where, under which policy of its own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jumpgate_protocol::gateway::{ClientEntry, Sources};
use jumpgate_protocol::ident::PublicKey;
use jumpgate_protocol::policy::Policy;
use zeroize::Zeroizing;

use super::{ConfigError, Document, Pool, file, policy, read_key};
use crate::keyfile;

/// Longest client name: it stands in logs and tables.
const MAX_NAME: usize = 64;

/// A client that may connect.
#[derive(Clone)]
pub struct Client {
    /// Name for logs and tables.
    pub name: String,
    /// Its long-term key.
    pub public_key: PublicKey,
    /// Its pre-shared key, if it has one.
    pub psk: Option<Zeroizing<[u8; 32]>>,
    /// Its place in the pool, if it is fixed.
    pub index: Option<u32>,
    /// The gateway's policy with the client's own values, if it has any.
    pub policy: Option<Arc<Policy>>,
    /// Where it may come from.
    pub sources: Sources,
    /// Its key is in other hands (KY-10).
    pub compromised: bool,
}

impl Client {
    /// A client about whom nothing special is known.
    pub fn new(name: &str, public_key: PublicKey) -> Self {
        let (psk, index, policy) = (None, None, None);
        Self { name: name.to_owned(), public_key, psk, index, policy, sources: Sources::ANY, compromised: false }
    }

    /// What the handshake desk knows of it.
    pub fn entry(&self) -> ClientEntry {
        ClientEntry {
            psk: self.psk.as_ref().map(|psk| **psk),
            inner_index: self.index,
            policy: self.policy.clone(),
            sources: self.sources.clone(),
            compromised: self.compromised,
        }
    }
}

/// Checks the `[[client]]` tables; `base` is what their own policies override.
pub(super) fn check(
    document: &Document,
    raw: Vec<file::Client>,
    pool: &Pool,
    own_key: &PublicKey,
    base: &Policy,
) -> Result<Vec<Client>, ConfigError> {
    let mut names = HashMap::new();
    let mut keys = HashMap::new();
    let mut indices = HashMap::new();
    let mut clients = Vec::with_capacity(raw.len());
    for (number, client) in raw.into_iter().enumerate() {
        let at = |key: &str| format!("client[{number}].{key}");
        let twice = |key: &str, first: &str| {
            document.complain(&at(key), format!("client {first:?} has it already"), "give every client its own")
        };
        if client.name.is_empty() || client.name.len() > MAX_NAME || client.name.contains(char::is_control) {
            let problem = format!("{:?} is no name", client.name);
            return Err(document.complain(&at("name"), problem, format!("use 1 to {MAX_NAME} printable characters")));
        }
        if let Some(first) = names.insert(client.name.clone(), client.name.clone()) {
            return Err(twice("name", &first));
        }
        let public_key = keyfile::parse(&client.public_key).map_err(|error| {
            let cure = "write what `jump pubkey` printed at the client";
            document.complain(&at("public_key"), error.to_string(), cure)
        })?;
        let public_key = PublicKey(*public_key);
        if public_key == *own_key {
            let cure = "write what `jump pubkey` printed at the client; every end has its own key";
            return Err(document.complain(&at("public_key"), "this is the gateway's own key", cure));
        }
        if let Some(first) = keys.insert(public_key, client.name.clone()) {
            return Err(twice("public_key", &first));
        }
        let index = fixed_index(document, &at, &client, pool)?;
        if let Some(first) = index.and_then(|index| indices.insert(index, client.name.clone())) {
            return Err(twice(if client.inner_v4.is_some() { "inner_v4" } else { "inner_v6" }, &first));
        }
        let psk = client.psk_file.as_ref().map(|path| read_key(document, &at("psk_file"), path)).transpose()?;
        let policy = own_policy(document, number, &client.name, client.policy.as_ref(), base)?;
        let sources = sources(document, &at, client.allowed_sources)?;
        clients.push(Client {
            name: client.name,
            public_key,
            psk,
            index,
            policy,
            sources,
            compromised: client.compromised,
        });
    }
    Ok(clients)
}

/// Both fixed addresses of a client name the same place in the pool, or one of them is not given.
fn fixed_index(
    document: &Document,
    at: &dyn Fn(&str) -> String,
    client: &file::Client,
    pool: &Pool,
) -> Result<Option<u32>, ConfigError> {
    let index_of = |key: &str, address: Option<IpAddr>| {
        address
            .map(|address| {
                pool.client_index(address).ok_or_else(|| {
                    let problem = format!("{address} is no client address of the pool");
                    let cure = "choose one of [inside] pool_v4 / pool_v6 beyond its first two and before its last";
                    document.complain(&at(key), problem, cure)
                })
            })
            .transpose()
    };
    let v4 = index_of("inner_v4", client.inner_v4.map(IpAddr::V4))?;
    let v6 = index_of("inner_v6", client.inner_v6.map(IpAddr::V6))?;
    if let (Some(v4), Some(v6)) = (v4, v6)
        && v4 != v6
    {
        let cure = match pool.addresses().v6(v4) {
            Some(partner) => format!("leave inner_v6 out: it follows from inner_v4 and is {partner}"),
            None => "leave inner_v6 out".to_owned(),
        };
        return Err(document.complain(&at("inner_v6"), "not at the same place of its pool as inner_v4", cure));
    }
    Ok(v4.or(v6))
}

/// The client's own values over the gateway's policy, checked whole.
fn own_policy(
    document: &Document,
    number: usize,
    name: &str,
    table: Option<&toml::Table>,
    base: &Policy,
) -> Result<Option<Arc<Policy>>, ConfigError> {
    let Some(table) = table else { return Ok(None) };
    policy::check_own(document, &format!("client[{number}].policy"), name, table, base).map(|own| Some(Arc::new(own)))
}

/// The networks of `allowed_sources`; without the key any.
fn sources(
    document: &Document,
    at: &dyn Fn(&str) -> String,
    networks: Option<Vec<IpNet>>,
) -> Result<Sources, ConfigError> {
    match networks {
        None => Ok(Sources::ANY),
        Some(networks) if networks.is_empty() => {
            let cure = "name the networks, or leave the key out to allow any; to lock a client out, remove its table";
            Err(document.complain(&at("allowed_sources"), "from an empty list of networks nobody can come", cure))
        }
        Some(networks) => Ok(Sources::only(networks)),
    }
}
