//! The UDP socket of one path: bound to the interface and to one source address, batched in both directions.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Buffer of each direction: at 1 Gbit/s 4 MiB are 30 ms, about what a busy machine lets a thread wait for its turn.
const SOCKET_BUFFER: usize = 4 << 20;
/// Room for one read: the kernel coalesces equal datagrams into at most 64 KiB (UDP_GRO).
const READ_SIZE: usize = 1 << 16;
/// Largest payload of one UDP datagram over IPv4, and so of one segmented send.
pub const SEND_MAX: usize = 65_507;

/// What became of a send.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel took it.
    Yes,
    /// The send buffer is full; try again when the socket is writable.
    Blocked,
    /// Larger than the interface's MTU; dropped.
    TooBig,
    /// Dropped for a reason that may pass (a local firewall, no memory).
    Dropped(Errno),
    /// The kernel cannot send on this path: the interface, its address or its route is gone. A local fact (SM-13 c).
    Dead(Errno),
}

/// The socket of one path.
#[derive(Debug)]
pub struct PathSocket {
    socket: UdpSocket,
    state: UdpSocketState,
    endpoint: SocketAddr,
    local: SocketAddr,
}

impl PathSocket {
    /// Opens the socket. The source address is fixed, so that a change of address can never pass for the same path; the
    /// port is the kernel's choice. It is not connected: a connected socket would report ICMP errors, which anyone can
    /// forge and which are no evidence (SM-13).
    pub fn open(interface: &str, source: IpAddr, endpoint: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(endpoint), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        if endpoint.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind_device(Some(interface.as_bytes()))?;
        enlarge_buffers(&socket);
        socket.bind(&SocketAddr::new(source, 0).into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new((&socket).into())?;
        let local = socket.local_addr()?;
        Ok(Self { socket, state, endpoint, local })
    }

    /// Our address and port.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// How many datagrams one send may carry.
    pub fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Whether something arrived.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_recv_ready(context).map(|_| ())
    }

    /// Whether the send buffer has room again.
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_send_ready(context).map(|_| ())
    }

    /// Sends `packets`, which holds datagrams of `segment` bytes back to back (the last may be shorter), to the gateway.
    pub fn send(&self, packets: &[u8], segment: usize) -> Sent {
        match self.try_send(packets, Some(segment)) {
            // The kernel refused to segment and quinn-udp has noted it: from here on one by one.
            Err(Errno::EIO | Errno::EINVAL) if packets.len() > segment && self.max_segments() == 1 => packets
                .chunks(segment)
                .map(|packet| outcome(self.try_send(packet, None)))
                .find(|sent| *sent != Sent::Yes)
                .unwrap_or(Sent::Yes),
            result => outcome(result),
        }
    }

    fn try_send(&self, contents: &[u8], segment_size: Option<usize>) -> Result<(), Errno> {
        let transmit = Transmit { destination: self.endpoint, ecn: None, contents, segment_size, src_ip: None };
        // Straight to the kernel: tokio calls a fresh socket unwritable until its first turn of the loop, and a jump does
        // not wait for that. Only a real refusal goes through tokio, so that `writable` waits for the end of it.
        let send = || self.state.try_send((&self.socket).into(), &transmit);
        let error = match send() {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match self.socket.try_io(Interest::WRITABLE, send) {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        Err(error.raw_os_error().map_or(Errno::EAGAIN, Errno::from_raw))
    }

    /// Receives what waits, up to one batch. Returns the number of filled buffers; 0 if nothing waits.
    pub fn receive(&self, inbox: &mut Inbox) -> io::Result<usize> {
        let mut buffers = inbox.bytes.chunks_exact_mut(READ_SIZE);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()));
        let receive = || self.state.recv((&self.socket).into(), &mut slices, &mut inbox.meta);
        match self.socket.try_io(Interest::READABLE, receive) {
            Ok(count) => Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Whether buffers received on this path come from the gateway.
    pub fn is_from_gateway(&self, sender: SocketAddr) -> bool {
        sender.ip() == self.endpoint.ip() && sender.port() == self.endpoint.port()
    }
}

/// Buffers for one batch of reads, used by all sockets in turn.
#[derive(Debug)]
pub struct Inbox {
    bytes: Box<[u8]>,
    meta: [RecvMeta; BATCH_SIZE],
}

impl Default for Inbox {
    fn default() -> Self {
        Self { bytes: vec![0; READ_SIZE * BATCH_SIZE].into(), meta: [RecvMeta::default(); BATCH_SIZE] }
    }
}

impl Inbox {
    /// The datagrams of one buffer, with their sender.
    pub fn datagrams(&mut self, buffer: usize) -> (SocketAddr, impl Iterator<Item = &mut [u8]>) {
        let meta = &self.meta[buffer];
        let start = buffer * READ_SIZE;
        (meta.addr, self.bytes[start..start + meta.len].chunks_mut(meta.stride.max(1)))
    }
}

fn outcome(result: Result<(), Errno>) -> Sent {
    match result {
        Ok(()) => Sent::Yes,
        Err(Errno::EAGAIN) => Sent::Blocked,
        Err(Errno::EMSGSIZE) => Sent::TooBig,
        Err(
            errno @ (Errno::ENETUNREACH
            | Errno::EHOSTUNREACH
            | Errno::ENETDOWN
            | Errno::ENODEV
            | Errno::ENXIO
            | Errno::EADDRNOTAVAIL
            | Errno::EINVAL),
        ) => Sent::Dead(errno),
        Err(errno) => Sent::Dropped(errno),
    }
}

/// Asks for large buffers; with CAP_NET_ADMIN also beyond the machine's limit. What the kernel gives has to do.
fn enlarge_buffers(socket: &Socket) {
    if setsockopt(socket, sockopt::RcvBufForce, &SOCKET_BUFFER).is_err() {
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    }
    if setsockopt(socket, sockopt::SndBufForce, &SOCKET_BUFFER).is_err() {
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(endpoint: SocketAddr) -> Option<PathSocket> {
        PathSocket::open("lo", "127.0.0.1".parse().unwrap(), endpoint)
            .inspect_err(|error| println!("SKIPPED: cannot bind a socket to a device: {error}"))
            .ok()
    }

    #[tokio::test]
    async fn a_batch_arrives_as_the_datagrams_it_was_made_of() {
        let gateway = PathSocket::open("lo", "127.0.0.1".parse().unwrap(), "127.0.0.1:9".parse().unwrap());
        let Ok(gateway) = gateway else { return println!("SKIPPED: cannot bind a socket to a device") };
        let Some(client) = loopback(gateway.local()) else { return };
        let packets: Vec<u8> = (0..25u8).flat_map(|n| [n; 100]).chain([25; 40]).collect();
        assert_eq!(client.send(&packets, 100), Sent::Yes);
        let mut received = Vec::new();
        let mut inbox = Inbox::default();
        while received.len() < 26 {
            std::future::poll_fn(|context| gateway.poll_readable(context)).await;
            for buffer in 0..gateway.receive(&mut inbox).unwrap() {
                let (sender, datagrams) = inbox.datagrams(buffer);
                assert_eq!(sender, client.local());
                received.extend(datagrams.map(|datagram| (datagram.len(), datagram[0])));
            }
        }
        let expected: Vec<_> = (0..25).map(|n| (100, n)).chain([(40, 25)]).collect();
        assert_eq!(received, expected);
    }

    #[tokio::test]
    async fn a_datagram_of_a_stranger_is_recognised() {
        let Some(client) = loopback("127.0.0.1:51900".parse().unwrap()) else { return };
        assert!(client.is_from_gateway("127.0.0.1:51900".parse().unwrap()));
        assert!(!client.is_from_gateway("127.0.0.1:51901".parse().unwrap()));
        assert!(!client.is_from_gateway("127.0.0.2:51900".parse().unwrap()));
    }

    #[test]
    fn only_local_facts_kill_a_path() {
        assert_eq!(outcome(Err(Errno::ENETUNREACH)), Sent::Dead(Errno::ENETUNREACH));
        assert_eq!(outcome(Err(Errno::ENODEV)), Sent::Dead(Errno::ENODEV));
        assert_eq!(outcome(Err(Errno::EPERM)), Sent::Dropped(Errno::EPERM));
        assert_eq!(outcome(Err(Errno::ECONNREFUSED)), Sent::Dropped(Errno::ECONNREFUSED));
        assert_eq!(outcome(Err(Errno::EMSGSIZE)), Sent::TooBig);
    }

    #[tokio::test]
    async fn an_interface_that_does_not_exist_is_an_error_not_a_panic() {
        let error = PathSocket::open("no-such-if", "127.0.0.1".parse().unwrap(), "127.0.0.1:1".parse().unwrap());
        assert!(error.is_err());
    }
}
