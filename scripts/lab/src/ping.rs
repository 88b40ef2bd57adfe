//! ICMP echo in both families: not every machine has a `ping`.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type};
use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;

/// Identifies our echoes among those of others in the namespace.
const IDENTIFIER: u16 = 0x6a67;

/// Sends one ICMP echo with `len` bytes from a namespace and returns its round trip.
pub fn ping(namespace: &Namespace, target: IpAddr, len: usize, limit: Duration) -> Result<Duration> {
    let (domain, protocol) = match target {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let mut socket = namespace
        .enter(|| -> std::io::Result<Socket> {
            let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
            socket.connect(&SocketAddr::new(target, 0).into())?;
            Ok(socket)
        })?
        .context("opening a raw socket for ICMP; this needs root")?;
    let own = socket.local_addr()?.as_socket().map(|address| address.ip());
    let started = Instant::now();
    socket.send(&request(target, own, &vec![0x55; len])).with_context(|| format!("sending an echo to {target}"))?;
    let mut packet = [0; 4096];
    loop {
        let left = limit.saturating_sub(started.elapsed());
        if left.is_zero() {
            bail!("no echo from {target} within {limit:?}");
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut packet) {
            Ok(size) if is_reply(target, &packet[..size]) => return Ok(started.elapsed()),
            // Something else, or the time is over: the loop decides.
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).with_context(|| format!("waiting for an echo from {target}")),
        }
    }
}

fn request(target: IpAddr, own: Option<IpAddr>, payload: &[u8]) -> Vec<u8> {
    let echo = IcmpEchoHeader { id: IDENTIFIER, seq: 1 };
    let mut message = match (target, own) {
        (IpAddr::V6(target), Some(IpAddr::V6(own))) => {
            // The kernel fills in the checksum of ICMPv6 on raw sockets; this one is right all the same.
            let header =
                Icmpv6Header::with_checksum(Icmpv6Type::EchoRequest(echo), own.octets(), target.octets(), payload);
            header.map(|header| header.to_bytes().to_vec()).unwrap_or_default()
        }
        _ => Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), payload).to_bytes().to_vec(),
    };
    message.extend_from_slice(payload);
    message
}

/// Raw IPv4 sockets deliver the IP header too, raw ICMPv6 sockets do not.
fn is_reply(target: IpAddr, packet: &[u8]) -> bool {
    let (reply, icmp) = match target {
        IpAddr::V4(_) => (0, packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4)),
        IpAddr::V6(_) => (129, 0),
    };
    let id = packet.get(icmp + 4..icmp + 6).map(|id| u16::from_be_bytes([id[0], id[1]]));
    packet.get(icmp) == Some(&reply) && id == Some(IDENTIFIER)
}
