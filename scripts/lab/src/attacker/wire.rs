//! A host on the gateway's link, with raw packet sockets: it sends any frame, and sees every frame.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, MsgFlags, bind, sendto};
use socket2::{Domain, Protocol, Socket, Type};

use super::frame::{self, Macs};
use crate::namespace::Namespace;
use crate::topology::{GATEWAY_OUTSIDE, Lab};

/// The core's end of the gateway's link.
const LINK: &str = "gw0";
/// All protocols, in network byte order, as `socket(2)` wants it for packet sockets.
const ALL_PROTOCOLS: u16 = 3_u16.to_be();
/// Room for what the link carries until somebody looks, in bytes.
const LISTEN_BUFFER: usize = 32 << 20;
/// Longest frame of the link: an MTU of 1500, Ethernet and two VLAN tags.
const FRAME_LEN: usize = 2_048;

/// A datagram on the gateway's link.
#[derive(Debug)]
pub(crate) struct Overheard {
    /// Whether the gateway sent it; else it is for the gateway.
    pub(crate) from_gateway: bool,
    /// Its receiver.
    pub(crate) to: SocketAddr,
    /// What it carries.
    pub(crate) payload: Vec<u8>,
}

/// The attacker's place on the gateway's link.
pub(crate) struct Wire {
    sender: Socket,
    listener: Socket,
    device: LinkAddr,
    macs: Macs,
    gateway_mac: [u8; 6],
}

impl Wire {
    /// Opens it. From here on it also listens.
    pub(crate) fn open(lab: &Lab) -> Result<Self> {
        let device = link_address(&lab.core, LINK)?;
        let own = device.addr().context("the link has no Ethernet address")?;
        let gateway_mac =
            link_address(&lab.gateway, GATEWAY_OUTSIDE)?.addr().context("the gateway has no Ethernet address")?;
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&gateway_mac);
        macs[6..].copy_from_slice(&own);
        let open = |protocol| lab.core.enter(|| Socket::new(Domain::PACKET, Type::RAW, protocol));
        let sender = open(None)?.context("opening a packet socket; this needs root")?;
        let listener = open(Some(Protocol::from(i32::from(ALL_PROTOCOLS))))?.context("opening a packet socket")?;
        // As root the limit of the system does not count; without it the default has to do.
        let _ = nix::sys::socket::setsockopt(&listener, nix::sys::socket::sockopt::RcvBufForce, &LISTEN_BUFFER);
        bind(listener.as_raw_fd(), &device).context("listening on the gateway's link")?;
        listener.set_nonblocking(true)?;
        Ok(Self { sender, listener, device, macs, gateway_mac })
    }

    /// The addresses that a frame to the gateway begins with.
    pub(crate) fn macs(&self) -> &Macs {
        &self.macs
    }

    /// Sends a frame as it is.
    pub(crate) fn send(&self, frame: &[u8]) -> Result<()> {
        sendto(self.sender.as_raw_fd(), frame, &self.device, MsgFlags::empty())
            .map(drop)
            .context("writing a frame to the gateway's link")
    }

    /// Sends a datagram under any source address.
    pub(crate) fn send_datagram(&self, source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Result<()> {
        let frame = frame::udp(&self.macs, source, destination, payload)
            .ok_or_else(|| anyhow!("{source} and {destination} are of two address families"))?;
        self.send(&frame)
    }

    /// Sends frames as fast as they go: `next` writes the frame of each number; until `count` are sent or the time is
    /// over. Gives how many were sent.
    pub(crate) fn flood(&self, count: u32, limit: Duration, mut next: impl FnMut(u32, &mut Vec<u8>)) -> Result<u32> {
        let started = Instant::now();
        let mut frame = Vec::with_capacity(FRAME_LEN);
        for number in 0..count {
            next(number, &mut frame);
            self.send(&frame)?;
            if number % 64 == 0 && started.elapsed() > limit {
                return Ok(number + 1);
            }
        }
        Ok(count)
    }

    /// What passed on the gateway's link since the last look, datagram by datagram.
    pub(crate) fn overheard(&self) -> Result<Vec<Overheard>> {
        let mut heard = Vec::new();
        let mut buffer = [0; FRAME_LEN];
        loop {
            let len = match std::io::Read::read(&mut &self.listener, &mut buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(heard),
                Err(error) => return Err(error).context("listening on the gateway's link"),
            };
            let frame = &buffer[..len];
            if let Some((to, payload)) = frame::datagram(frame) {
                let from_gateway = frame.get(6..12) == Some(&self.gateway_mac);
                heard.push(Overheard { from_gateway, to, payload: payload.to_vec() });
            }
        }
    }

    /// Of that, what the gateway sent.
    pub(crate) fn answers(&self) -> Result<Vec<Overheard>> {
        let mut heard = self.overheard()?;
        heard.retain(|datagram| datagram.from_gateway);
        Ok(heard)
    }
}

/// Name, number and Ethernet address of a link, as sockets want them.
fn link_address(namespace: &Namespace, link: &str) -> Result<LinkAddr> {
    let found = namespace.enter(|| -> nix::Result<Option<LinkAddr>> {
        let mut all = getifaddrs()?.filter(|entry| entry.interface_name == link);
        Ok(all.find_map(|entry| entry.address?.as_link_addr().copied()))
    })??;
    found.with_context(|| format!("{} has no link {link}", namespace.name()))
}
