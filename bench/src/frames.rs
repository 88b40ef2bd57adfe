//! The frames that benchmarks send: plain headers around nothing in particular.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, bail, ensure};
use jumpgate_protocol::wire::{DATA_OVERHEAD, HEADER_LEN};

use crate::sessions::{GATEWAY, INNER_MTU, Peer};

/// Ethernet header in bytes.
pub const ETHERNET_LEN: usize = 14;
/// Ethernet, IPv4 and UDP headers in front of a tunnel packet, in bytes.
pub const OUTER_LEN: usize = ETHERNET_LEN + 20 + 8;
/// Where the kernel puts a received frame in its chunk (XDP_PACKET_HEADROOM, include/uapi/linux/bpf.h).
pub const HEADROOM: usize = 256;
/// Size of a frame's chunk in bytes.
pub const CHUNK: u16 = 2_048;
/// Whom the clients talk to.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 80);
/// IPv4 and UDP headers: the shortest inner packet in bytes.
const INNER_MIN: usize = 28;

/// Refuses lengths that no inner packet of these benchmarks can have.
pub fn check_inner(bytes: usize) -> Result<()> {
    ensure!(
        (INNER_MIN..=usize::from(INNER_MTU)).contains(&bytes),
        "an inner packet has {INNER_MIN} to {INNER_MTU} bytes, not {bytes}"
    );
    Ok(())
}

/// Bytes of a frame on the outside that carries an inner packet of that length.
pub const fn outside_len(inner: usize) -> usize {
    OUTER_LEN + DATA_OVERHEAD + inner
}

/// Bytes of a frame on the inside that carries an inner packet of that length.
pub const fn inside_len(inner: usize) -> usize {
    ETHERNET_LEN + inner
}

/// Writes a frame of the outside: a packet from that client to [`SERVER`], sealed by the client's own code.
pub fn write_sealed(frame: &mut [u8], peer: &mut Peer) -> Result<()> {
    let (headers, tunnel) = frame.split_at_mut(OUTER_LEN);
    let end = tunnel.len() + HEADER_LEN - DATA_OVERHEAD;
    write_inner(&mut tunnel[HEADER_LEN..end], peer.inner, SERVER);
    peer.client.data_out(tunnel)?;
    write_outer(headers, tunnel.len(), peer.outer)
}

/// Writes the same frame as [`write_sealed`], with the inner packet in the clear: for a forwarder that opens nothing.
pub fn write_unsealed(frame: &mut [u8], peer: &mut Peer) -> Result<()> {
    write_sealed(frame, peer)?;
    let end = frame.len() + HEADER_LEN - DATA_OVERHEAD;
    write_inner(&mut frame[OUTER_LEN + HEADER_LEN..end], peer.inner, SERVER);
    Ok(())
}

/// Writes a frame of the inside: a packet from [`SERVER`] to that client.
pub fn write_inside(frame: &mut [u8], peer: &Peer) {
    let (ethernet, packet) = frame.split_at_mut(ETHERNET_LEN);
    write_ethernet(ethernet);
    write_inner(packet, SERVER, peer.inner);
}

fn write_ethernet(bytes: &mut [u8]) {
    bytes[..12].fill(2);
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
}

/// An IPv4 and UDP header, and zeros.
fn write_inner(packet: &mut [u8], source: Ipv4Addr, destination: Ipv4Addr) {
    packet.fill(0);
    packet[0] = 0x45;
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[8] = 64;
    packet[9] = 17;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    packet[24..26].copy_from_slice(&(length - 20).to_be_bytes());
}

/// Ethernet, IPv4 and UDP headers in front of a tunnel packet of that length from that client.
fn write_outer(headers: &mut [u8], tunnel: usize, peer: SocketAddr) -> Result<()> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (peer.ip(), GATEWAY.ip()) else {
        bail!("the packets of this benchmark are IPv4");
    };
    write_ethernet(headers);
    let udp_length = (8 + tunnel) as u16;
    let ip = &mut headers[ETHERNET_LEN..];
    ip.fill(0);
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&(20 + udp_length).to_be_bytes());
    ip[6] = 0x40;
    ip[8] = 64;
    ip[9] = 17;
    ip[12..16].copy_from_slice(&source.octets());
    ip[16..20].copy_from_slice(&destination.octets());
    ip[20..22].copy_from_slice(&peer.port().to_be_bytes());
    ip[22..24].copy_from_slice(&GATEWAY.port().to_be_bytes());
    ip[24..26].copy_from_slice(&udp_length.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use jumpgate_protocol::time::Time;

    use super::*;
    use crate::sessions::Population;

    #[test]
    fn sealed_and_unsealed_frames_differ_in_what_a_seal_changes_and_nowhere_else() {
        let mut population = Population::new(1, 1, Time::from_millis(1_000)).unwrap();
        let peer = &mut population.peers[0];
        let (mut sealed, mut unsealed) = (vec![0; outside_len(64)], vec![0; outside_len(64)]);
        write_sealed(&mut sealed, peer).unwrap();
        write_unsealed(&mut unsealed, peer).unwrap();
        // Up to the counter, which is the last field in front of the inner packet.
        let counter = OUTER_LEN + 12;
        assert_eq!(sealed[..counter], unsealed[..counter]);
        let inner = OUTER_LEN + HEADER_LEN;
        assert_eq!(unsealed[inner], 0x45);
        assert_ne!(sealed[inner..inner + 64], unsealed[inner..inner + 64]);
    }

    #[test]
    fn lengths_in_the_headers_are_those_of_the_frame() {
        let mut population = Population::new(1, 1, Time::from_millis(1_000)).unwrap();
        let mut frame = vec![0; outside_len(100)];
        write_sealed(&mut frame, &mut population.peers[0]).unwrap();
        assert_eq!(usize::from(u16::from_be_bytes([frame[16], frame[17]])), frame.len() - ETHERNET_LEN);
        let mut frame = vec![0; inside_len(100)];
        write_inside(&mut frame, &population.peers[0]);
        assert_eq!(u16::from_be_bytes([frame[16], frame[17]]), 100);
    }
}
