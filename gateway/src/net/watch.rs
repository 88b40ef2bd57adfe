//! Notifications of the kernel: what changed since the tables were read.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::netlink::messages;
use super::{Link, Neighbour, NetlinkError};

/// Multicast groups of rtnetlink (`enum rtnetlink_groups`): link, neighbour, address and route, both families.
const GROUPS: [u32; 6] = [1, 3, 5, 7, 9, 11];
/// Receive buffer in bytes: a burst of some thousand route changes fits. An overrun only costs a new reading.
const BUFFER_BYTES: usize = 1 << 20;

/// Something that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A neighbour was resolved, changed, or could not be reached.
    Neighbour(Neighbour),
    /// The kernel has forgotten a neighbour.
    NeighbourForgotten(Neighbour),
    /// An interface changed.
    Link(Link),
    /// An interface is gone.
    LinkGone(Link),
    /// Routes or addresses changed. Not all changes are told one by one (an IPv4 route that goes with its link is
    /// not), so the tables have to be read again.
    Tables,
}

/// A socket that hears of changes.
#[derive(Debug)]
pub struct Watcher {
    socket: Socket,
}

impl Watcher {
    /// Starts to listen in the network namespace of the calling thread.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            for group in GROUPS {
                socket.add_membership(group)?;
            }
            socket.set_rx_buf_sz(BUFFER_BYTES)?;
            socket.set_non_blocking(true)?;
            Ok(Self { socket })
        };
        open().map_err(|source| NetlinkError { operation: "listen to netlink notifications".into(), source })
    }

    /// Takes one datagram of notifications and hands them to `tell`; false if none is waiting.
    pub fn read(&self, tell: &mut dyn FnMut(News)) -> io::Result<bool> {
        let datagram = match self.socket.recv_from_full() {
            Ok((datagram, _)) => datagram,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32) => {
                tell(News::Tables);
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        for bytes in messages(&datagram) {
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else { continue };
            let NetlinkPayload::InnerMessage(message) = message.payload else { continue };
            match message {
                RouteNetlinkMessage::NewNeighbour(message) => {
                    Neighbour::from_message(&message).map(News::Neighbour).into_iter().for_each(&mut *tell);
                }
                RouteNetlinkMessage::DelNeighbour(message) => {
                    Neighbour::from_message(&message).map(News::NeighbourForgotten).into_iter().for_each(&mut *tell);
                }
                RouteNetlinkMessage::NewLink(message) => tell(News::Link(Link::from_message(&message))),
                RouteNetlinkMessage::DelLink(message) => tell(News::LinkGone(Link::from_message(&message))),
                RouteNetlinkMessage::NewAddress(_)
                | RouteNetlinkMessage::DelAddress(_)
                | RouteNetlinkMessage::NewRoute(_)
                | RouteNetlinkMessage::DelRoute(_) => tell(News::Tables),
                _ => {}
            }
        }
        Ok(true)
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
