//! One request to the kernel, one answer: a synchronous rtnetlink client.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// Length of a netlink message's header, and the smallest message.
const HEADER: usize = 16;
/// Netlink messages start at multiples of this.
const ALIGNMENT: usize = 4;

/// A request that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {source}")]
pub struct NetlinkError {
    /// What we wanted.
    pub operation: String,
    /// What the kernel said.
    pub source: io::Error,
}

impl NetlinkError {
    /// The system's error number, if there is one.
    pub fn errno(&self) -> Option<nix::errno::Errno> {
        self.source.raw_os_error().map(nix::errno::Errno::from_raw)
    }
}

/// A socket for requests.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(Self { socket, sequence: 0 })
        };
        open().map_err(|source| NetlinkError { operation: "open a netlink socket".into(), source })
    }

    /// Has the kernel change something; `operation` says what, for the error.
    pub fn change(&mut self, operation: &str, message: RouteNetlinkMessage, flags: u16) -> Result<(), NetlinkError> {
        self.exchange(message, flags | NLM_F_ACK, &mut |_| {}).map_err(|source| error(operation, source))
    }

    /// Asks for one object; `None` if there is no such device or entry.
    pub fn ask(
        &mut self,
        operation: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        let mut answer = None;
        match self.exchange(message, NLM_F_ACK, &mut |message| answer = Some(message)) {
            Ok(()) => Ok(answer),
            Err(source) if matches!(source.raw_os_error(), Some(libc_errno::ENODEV | libc_errno::ENOENT)) => Ok(None),
            Err(source) => Err(error(operation, source)),
        }
    }

    /// Asks for all objects of a kind and hands each to `visit`.
    pub fn dump(
        &mut self,
        operation: &str,
        message: RouteNetlinkMessage,
        visit: &mut dyn FnMut(RouteNetlinkMessage),
    ) -> Result<(), NetlinkError> {
        self.exchange(message, NLM_F_DUMP, visit).map_err(|source| error(operation, source))
    }

    fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        visit: &mut dyn FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for bytes in messages(&datagram) {
                // What this version of the parser does not understand is not for us.
                let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else { continue };
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => visit(inner),
                    NetlinkPayload::Error(answer) if answer.code.is_none() => return Ok(()),
                    NetlinkPayload::Error(answer) => return Err(answer.to_io()),
                    NetlinkPayload::Done(_) => return Ok(()),
                    _ => {}
                }
            }
        }
    }
}

/// The messages inside one datagram, each with its header.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, _) = datagram.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
        if length < HEADER || length > datagram.len() {
            return None;
        }
        let message = &datagram[..length];
        datagram = &datagram[length.next_multiple_of(ALIGNMENT).min(datagram.len())..];
        Some(message)
    })
}

fn error(operation: &str, source: io::Error) -> NetlinkError {
    NetlinkError { operation: operation.to_owned(), source }
}

/// The two error numbers that mean "there is no such thing", as constants for patterns.
mod libc_errno {
    pub(super) const ENODEV: i32 = nix::errno::Errno::ENODEV as i32;
    pub(super) const ENOENT: i32 = nix::errno::Errno::ENOENT as i32;
}

#[cfg(test)]
mod tests {
    use super::messages;

    fn message(length: u32, filler: usize) -> Vec<u8> {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.resize(filler, 0xaa);
        bytes
    }

    #[test]
    fn a_datagram_is_cut_at_the_lengths_that_it_states() {
        let datagram = [message(17, 20), message(16, 16)].concat();
        let lengths: Vec<_> = messages(&datagram).map(<[u8]>::len).collect();
        assert_eq!(lengths, [17, 16]);
    }

    #[test]
    fn a_length_beyond_the_datagram_or_below_a_header_ends_it() {
        for bad in [message(17, 16), message(15, 16), message(0, 16), message(u32::MAX, 16), vec![1, 0]] {
            assert_eq!(messages(&bad).count(), 0, "{bad:?}");
        }
    }
}
