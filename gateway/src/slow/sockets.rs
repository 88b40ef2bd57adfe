//! The kernel's UDP sockets: everything of the tunnel that the steering leaves to the slow path.
//!
//! Replies leave from the address that the request came to, whatever the host's routing would choose, since a client's
//! NAT lets only that one in.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::task::Poll;

use arrayvec::ArrayVec;
use jumpgate_protocol::ident::Tuple;
use nix::cmsg_space;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce};
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, setsockopt};
use quinn_udp::{RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Datagrams read or sent by one system call.
const BATCH: usize = 32;
/// Bytes of one receive buffer: what the kernel may merge of one sender's datagrams (GRO).
const BUFFER: usize = 65_535;
/// Receive and send queue in the kernel, in bytes as it counts them (about 1 KiB for a small datagram): ten thousand
/// clients that lose their uplink in one instant wait there and are not lost.
const KERNEL_QUEUE: usize = 16 << 20;

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
    headers_v4: MultiHeaders<SockaddrStorage>,
    headers_v6: MultiHeaders<SockaddrStorage>,
}

/// Why datagrams were not sent.
#[derive(Debug)]
pub enum Unsent {
    /// The kernel's queue is full: UDP may be lost, and waiting for one peer would hold up all others.
    QueueFull(usize),
    /// The kernel does not want this one.
    Refused(io::Error),
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
        Ok(Self {
            sockets,
            buffers: vec![vec![0; BUFFER]; BATCH],
            // The kernel reads as much control data as the headers say, so each family has headers of its own.
            headers_v4: MultiHeaders::preallocate(BATCH, Some(cmsg_space!(in_pktinfo))),
            headers_v6: MultiHeaders::preallocate(BATCH, Some(cmsg_space!(in6_pktinfo))),
        })
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

    /// Reads one batch from every socket that has something and hands each datagram on; gives how many there were. An
    /// error of one socket does not keep the others waiting; the last one is told.
    pub fn receive(&mut self, mut datagram: impl FnMut(Tuple, &mut [u8])) -> io::Result<usize> {
        let mut outcome = Ok(());
        let mut received = 0;
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
            received += count;
            for (slice, meta) in slices.iter_mut().zip(&metadata).take(count) {
                let local = SocketAddr::new(meta.dst_ip.unwrap_or(socket.local.ip()), socket.local.port());
                let tuple = Tuple { local: canonical(local), peer: canonical(meta.addr) };
                for bytes in slice[..meta.len].chunks_mut(meta.stride.max(1)) {
                    datagram(tuple, bytes);
                }
            }
        }
        outcome.map(|()| received)
    }

    /// Sends each datagram from `tuple.local` to `tuple.peer`, as many as possible by one system call.
    pub fn send<P: AsRef<[u8]>>(&mut self, datagrams: &[(Tuple, P)], mut unsent: impl FnMut(&Tuple, Unsent)) {
        for run in datagrams.chunk_by(|(one, _), (next, _)| one.local == next.local) {
            let Some((first, _)) = run.first() else { continue };
            let Some(socket) = self.sockets.iter().find(|socket| socket.serves(first.local)) else {
                let nobody = || io::Error::new(io::ErrorKind::AddrNotAvailable, "no socket listens on that address");
                run.iter().for_each(|(tuple, _)| unsent(tuple, Unsent::Refused(nobody())));
                continue;
            };
            let headers = if first.local.is_ipv4() { &mut self.headers_v4 } else { &mut self.headers_v6 };
            for batch in run.chunks(BATCH) {
                let mut done = 0;
                while let Some(rest) = batch.get(done..).filter(|rest| !rest.is_empty()) {
                    match socket.send_batch(headers, rest) {
                        // Of a batch that stops short the next try tells why.
                        Ok(sent) => done += sent.max(1),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            unsent(&rest[0].0, Unsent::QueueFull(rest.len()));
                            break;
                        }
                        Err(error) => {
                            unsent(&rest[0].0, Unsent::Refused(error));
                            done += 1;
                        }
                    }
                }
            }
        }
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
        // Whoever may not go beyond the system's limit keeps to it.
        if setsockopt(&socket, RcvBufForce, &KERNEL_QUEUE).is_err() {
            SockRef::from(&socket).set_recv_buffer_size(KERNEL_QUEUE)?;
        }
        if setsockopt(&socket, SndBufForce, &KERNEL_QUEUE).is_err() {
            SockRef::from(&socket).set_send_buffer_size(KERNEL_QUEUE)?;
        }
        Ok(Self { local: socket.local_addr()?, socket, state })
    }

    /// Sends datagrams that leave from one address, at most [`BATCH`]; gives how many the kernel took.
    fn send_batch<P: AsRef<[u8]>>(
        &self,
        headers: &mut MultiHeaders<SockaddrStorage>,
        datagrams: &[(Tuple, P)],
    ) -> io::Result<usize> {
        let Some((first, _)) = datagrams.first() else { return Ok(0) };
        let contents: ArrayVec<[IoSlice<'_>; 1], BATCH> =
            datagrams.iter().map(|(_, packet)| [IoSlice::new(packet.as_ref())]).collect();
        let peers: ArrayVec<Option<SockaddrStorage>, BATCH> =
            datagrams.iter().map(|(tuple, _)| Some(tuple.peer.into())).collect();
        let (source_v4, source_v6);
        let source = match first.local.ip() {
            IpAddr::V4(ip) => {
                let ipi_spec_dst = in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
                source_v4 = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst, ipi_addr: in_addr { s_addr: 0 } };
                ControlMessage::Ipv4PacketInfo(&source_v4)
            }
            IpAddr::V6(ip) => {
                source_v6 = in6_pktinfo { ipi6_addr: in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
                ControlMessage::Ipv6PacketInfo(&source_v6)
            }
        };
        let send = || {
            let fd = self.socket.as_raw_fd();
            let sent = sendmmsg(fd, headers, &contents, &peers, [source], MsgFlags::MSG_DONTWAIT)?;
            Ok(sent.count())
        };
        self.socket.try_io(Interest::WRITABLE, send)
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
            sockets.send(&[(tuple, b"answer")], |_, unsent| panic!("{unsent:?}"));
            let mut buffer = [0; 64];
            let (len, from) = client.recv_from(&mut buffer).await.expect("received");
            assert_eq!((&buffer[..len], from), (&b"answer"[..], to));
        });
    }

    /// A datagram to port 0 is refused by the kernel (`net/ipv4/udp.c`, `udp_sendmsg`).
    #[test]
    fn one_datagram_that_the_kernel_refuses_keeps_no_other_of_its_batch_back() {
        run(async {
            for ip in [IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)] {
                let local = SocketAddr::from((ip, free_port()));
                let mut sockets = Sockets::open(&[local]).expect("open");
                // The runtime has to have heard of the socket once.
                sockets.sockets[0].socket.writable().await.expect("writable");
                let client = UdpSocket::bind((ip, 0)).await.expect("client");
                let good = Tuple { local, peer: client.local_addr().expect("address") };
                let bad = Tuple { local, peer: SocketAddr::from((ip, 0)) };
                let foreign = Tuple { local: SocketAddr::from(([192, 0, 2, 1], local.port())), peer: good.peer };
                // More than one batch, with refused ones at the begin, in the middle and at the end.
                let total = 3 * BATCH + 5;
                let is_bad = |number: usize| number == 0 || number == BATCH + 7 || number == total - 1;
                let mut datagrams: Vec<_> = (0..total)
                    .map(|number| (if is_bad(number) { bad } else { good }, (number as u32).to_be_bytes().to_vec()))
                    .collect();
                datagrams.push((foreign, b"from nowhere".to_vec()));
                let mut refused = Vec::new();
                sockets.send(&datagrams, |tuple, unsent| {
                    assert!(matches!(unsent, Unsent::Refused(_)), "{unsent:?}");
                    refused.push(*tuple);
                });
                assert_eq!(refused, [bad, bad, bad, foreign]);
                for number in (0..total).filter(|number| !is_bad(*number)) {
                    let mut buffer = [0; 64];
                    let (len, from) = client.recv_from(&mut buffer).await.expect("received");
                    assert_eq!((&buffer[..len], from), (&(number as u32).to_be_bytes()[..], local));
                }
            }
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
