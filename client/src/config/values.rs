//! Values of the configuration: each parser either yields a legal value or says what a legal one looks like.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use jumpgate_protocol::ident::PublicKey;
use jumpgate_protocol::policy::TransportClass;
use serde::de::{Deserialize, Deserializer, Error};
use toml::Spanned;

use crate::keys;

/// Longest name of an interface in Linux (IFNAMSIZ less the final zero).
const INTERFACE_NAME_MAX: usize = 15;
/// Smallest MTU of the tunnel: what IPv6 demands of a link (RFC 8200 §5).
const MTU_MIN: u16 = 1280;

pub(super) fn state_dir() -> PathBuf {
    PathBuf::from("/var/lib/jump")
}

pub(super) fn control_socket() -> PathBuf {
    PathBuf::from(crate::control::DEFAULT_SOCKET)
}

pub(super) fn tun_name() -> String {
    "jump0".to_owned()
}

fn interface_name<E: Error>(name: String) -> Result<String, E> {
    let legal = |c: char| !c.is_whitespace() && !c.is_control() && c != '/' && c != ':';
    if name.is_empty() || name.len() > INTERFACE_NAME_MAX || !name.chars().all(legal) || name == "." || name == ".." {
        return Err(E::custom(format!(
            "{name:?} is no interface name; it has 1 to {INTERFACE_NAME_MAX} characters without blanks, '/' and ':', as `ip link` shows it"
        )));
    }
    Ok(name)
}

pub(super) fn interface<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    interface_name(String::deserialize(deserializer)?)
}

pub(super) fn spanned_interface<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Spanned<String>, D::Error> {
    let name = Spanned::<String>::deserialize(deserializer)?;
    let span = name.span();
    Ok(Spanned::new(span, interface_name(name.into_inner())?))
}

pub(super) fn public_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PublicKey, D::Error> {
    keys::parse_public_key(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

pub(super) fn class<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TransportClass, D::Error> {
    let name = String::deserialize(deserializer)?;
    let found = TransportClass::ALL.iter().find(|class| class.name() == name);
    let names = || TransportClass::NAMES.join(", ");
    found.copied().ok_or_else(|| D::Error::custom(format!("{name:?} is no kind of network; take one of {}", names())))
}

pub(super) fn priority<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let value = i64::deserialize(deserializer)?;
    u8::try_from(value)
        .map_err(|_| D::Error::custom(format!("{value} is out of range; take 0 to 255, smaller is preferred")))
}

pub(super) fn mtu<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let value = i64::deserialize(deserializer)?;
    match u16::try_from(value) {
        Ok(mtu) if mtu >= MTU_MIN => Ok(Some(mtu)),
        _ => Err(D::Error::custom(format!(
            "{value} is out of range; take {MTU_MIN} to {}, or leave it out to follow the gateway",
            u16::MAX
        ))),
    }
}

pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let parse = |text: &String| {
        let network: IpNet = text
            .parse()
            .map_err(|_| format!("{text:?} is no network; write address/length as in \"10.0.0.0/8\" or \"::/0\""))?;
        if network.trunc() != network {
            return Err(format!("{text} has bits set beyond its length; did you mean {}?", network.trunc()));
        }
        Ok(network)
    };
    all(&Vec::<String>::deserialize(deserializer)?, parse)
}

pub(super) fn endpoints<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let list = Vec::<String>::deserialize(deserializer)?;
    if list.is_empty() {
        return Err(D::Error::custom(
            "empty; give at least one address:port of the gateway, as in \"192.0.2.1:51900\"",
        ));
    }
    let endpoints: Vec<SocketAddr> = all(&list, |text| endpoint(text))?;
    match endpoints.iter().enumerate().find(|(position, endpoint)| endpoints[..*position].contains(endpoint)) {
        Some((_, twice)) => Err(D::Error::custom(format!("{twice} is listed twice; remove one"))),
        None => Ok(endpoints),
    }
}

fn endpoint(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| {
        let bare = text.trim_matches(['[', ']']).parse::<IpAddr>();
        match bare {
            Ok(ip) => format!("{text:?} has no port; write \"{}\"", SocketAddr::new(ip, 51_900)),
            Err(_) => format!(
                "{text:?} is no address:port as in \"192.0.2.1:51900\" or \"[2001:db8::1]:51900\"; resolve a name first, \
                 the tunnel may not depend on name service"
            ),
        }
    })?;
    if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
        return Err(format!("{text} cannot be reached; give a unicast address and a port"));
    }
    Ok(address)
}

/// Parses every element or reports the first that is wrong.
fn all<T, E: Error, M: Display>(list: &[String], parse: impl Fn(&String) -> Result<T, M>) -> Result<Vec<T>, E> {
    list.iter().map(|text| parse(text).map_err(E::custom)).collect()
}
