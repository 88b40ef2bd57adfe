//! The kernel's UDP sockets: everything of the tunnel that the steering leaves to the slow path.
//!
//! Replies leave from the address that the request came to, whatever the host's routing would choose, since a client's
//! NAT lets only that one in.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::task::Poll;

use jumpgate_protocol::ident::Tuple;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Datagrams read by one system call.
const BATCH: usize = 16;
/// Bytes of one receive buffer: what the kernel may merge of one sender's datagrams (GRO).
const BUFFER: usize = 65_535;
/// Receive queue in the kernel, in bytes: a burst of some thousand handshakes waits there and is not lost.
const KERNEL_QUEUE: usize = 4 << 20;

/// Why the gateway cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    /// The address of the configuration.
    pub address: SocketAddr,
    /// What the kernel said.
    pub source: io::Error,
}

impl ListenError {
    /// What to do about it.
    pub fn cure(&self) -> String {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => format!(
                "another program has the port: `ss -lunp 'sport = :{}'` names it; stop it or choose another port",
                self.address.port()
            ),
            io::ErrorKind::AddrNotAvailable => {
                format!("no interface has {}: give it to one, or correct outside.listen", self.address.ip())
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE".to_owned(),
            _ => "correct outside.listen".to_owned(),
        }
    }
}

/// The sockets of all listen addresses.
pub struct Sockets {
    sockets: Vec<TunnelSocket>,
    buffers: Vec<Vec<u8>>,
}

struct TunnelSocket {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

impl Sockets {
    /// Opens a socket for each address. Needs a tokio runtime.
    pub fn open(addresses: &[SocketAddr]) -> Result<Self, ListenError> {
        let sockets = addresses
            .iter()
            .map(|address| TunnelSocket::open(*address).map_err(|source| ListenError { address: *address, source }))
            .collect::<Result<_, _>>()?;
        Ok(Self { sockets, buffers: vec![vec![0; BUFFER]; BATCH] })
    }

    /// Waits until a datagram is there.
    pub async fn readable(&self) -> io::Result<()> {
        std::future::poll_fn(|context| {
            for socket in &self.sockets {
                if let Poll::Ready(ready) = socket.socket.poll_recv_ready(context) {
                    return Poll::Ready(ready);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Reads one batch from every socket that has something and hands each datagram on. An error of one socket does not
    /// keep the others waiting; the last one is told.
    pub fn receive(&mut self, mut datagram: impl FnMut(Tuple, &mut [u8])) -> io::Result<()> {
        let mut outcome = Ok(());
        for socket in &self.sockets {
            let mut metadata = [RecvMeta::default(); BATCH];
            let mut slices = self.buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer));
            let mut slices: [IoSliceMut<'_>; BATCH] =
                std::array::from_fn(|_| slices.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
            let read = socket
                .socket
                .try_io(Interest::READABLE, || socket.state.recv((&socket.socket).into(), &mut slices, &mut metadata));
            let count = match read {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                // ICMP told of some earlier reply that nobody wanted; not about what waits in the queue.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => {
                    outcome = Err(error);
                    continue;
                }
            };
            for (slice, meta) in slices.iter_mut().zip(&metadata).take(count) {
                let local = SocketAddr::new(meta.dst_ip.unwrap_or(socket.local.ip()), socket.local.port());
                let tuple = Tuple { local: canonical(local), peer: canonical(meta.addr) };
                for bytes in slice[..meta.len].chunks_mut(meta.stride.max(1)) {
                    datagram(tuple, bytes);
                }
            }
        }
        outcome
    }

    /// Sends a datagram from `tuple.local` to `tuple.peer`. A full queue is an error: UDP may be lost, and waiting for
    /// one peer would hold up all others.
    pub fn send(&self, tuple: &Tuple, packet: &[u8]) -> io::Result<()> {
        let Some(socket) = self.sockets.iter().find(|socket| socket.serves(tuple.local)) else {
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no socket listens on the reply's address"));
        };
        let transmit = Transmit {
            destination: tuple.peer,
            ecn: None,
            contents: packet,
            segment_size: None,
            src_ip: Some(tuple.local.ip()),
        };
        socket.socket.try_io(Interest::WRITABLE, || socket.state.try_send((&socket.socket).into(), &transmit))
    }
}

impl TunnelSocket {
    fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        if address.is_ipv6() {
            // [::] and 0.0.0.0 are two sockets, so that every packet has the addresses of its own family.
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new((&socket).into())?;
        // The system's limit may be lower; then its limit it is.
        SockRef::from(&socket).set_recv_buffer_size(KERNEL_QUEUE)?;
        Ok(Self { local: socket.local_addr()?, socket, state })
    }

    fn serves(&self, local: SocketAddr) -> bool {
        let any = match self.local.ip() {
            IpAddr::V4(ip) => ip.is_unspecified() && local.is_ipv4(),
            IpAddr::V6(ip) => ip.is_unspecified() && local.is_ipv6(),
        };
        self.local.port() == local.port() && (any || self.local.ip() == local.ip())
    }
}

/// Without scope and flow label: workers see neither, and a tuple is compared as a whole.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), test).await.expect("in time") });
    }

    fn free_port() -> u16 {
        std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port()
    }

    async fn receive_one(sockets: &mut Sockets) -> (Tuple, Vec<u8>) {
        loop {
            sockets.readable().await.expect("readable");
            let mut got = None;
            sockets.receive(|tuple, bytes| got = Some((tuple, bytes.to_vec()))).expect("received");
            if let Some(got) = got {
                return got;
            }
        }
    }

    #[test]
    fn a_reply_leaves_from_the_address_that_the_request_came_to() {
        run(async {
            let port = free_port();
            let mut sockets = Sockets::open(&[SocketAddr::from(([0, 0, 0, 0], port))]).expect("open");
            let client = UdpSocket::bind("127.0.0.1:0").await.expect("client");
            // Not the address that the kernel would choose by itself for a reply.
            let to = SocketAddr::from(([127, 0, 0, 77], port));
            client.send_to(b"hello", to).await.expect("sent");
            let (tuple, bytes) = receive_one(&mut sockets).await;
            assert_eq!((tuple.local, tuple.peer), (to, client.local_addr().expect("address")));
            assert_eq!(bytes, b"hello");
            sockets.send(&tuple, b"answer").expect("sent");
            let mut buffer = [0; 64];
            let (len, from) = client.recv_from(&mut buffer).await.expect("received");
            assert_eq!((&buffer[..len], from), (&b"answer"[..], to));
        });
    }

    #[test]
    fn both_families_listen_on_one_port_without_mapped_addresses() {
        run(async {
            let port = free_port();
            let listen =
                [SocketAddr::from(([0, 0, 0, 0], port)), SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port))];
            let mut sockets = Sockets::open(&listen).expect("open");
            for (bind, to) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")] {
                let client = UdpSocket::bind(bind).await.expect("client");
                client.send_to(b"x", (to, port)).await.expect("sent");
                let (tuple, _) = receive_one(&mut sockets).await;
                assert_eq!(tuple.local.ip(), to.parse::<IpAddr>().expect("address"));
                assert_eq!(tuple.peer, client.local_addr().expect("address"));
            }
        });
    }

    #[test]
    fn a_port_in_use_and_a_foreign_address_come_with_their_cures() {
        run(async {
            let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
            let error = Sockets::open(&[taken.local_addr().expect("address")]).err().expect("refused");
            assert!(error.cure().contains("ss -lunp"), "{}", error.cure());
            let error = Sockets::open(&["192.0.2.1:51900".parse().expect("address")]).err().expect("refused");
            assert!(error.cure().contains("no interface has 192.0.2.1"), "{}", error.cure());
        });
    }
}
