//! What the kernel says about the XDP abilities of network devices: its generic netlink family "netdev".
//!
//! Nothing is attached or bound to find out, so it can be asked at any time and without privileges.

use std::collections::HashMap;
use std::io;

use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};

/// Length of a netlink header, and of the generic netlink header behind it.
const HEADER_LEN: usize = 16;
const GENERIC_HEADER_LEN: usize = 4;
/// Messages and attributes start at multiples of this.
const ALIGNMENT: usize = 4;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// The family that knows the others.
const CONTROLLER: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

/// What a driver can do (the kernel's `enum netdev_xdp_act`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features(u64);

impl Features {
    /// XDP in the driver, with redirects.
    pub(crate) const fn native(self) -> bool {
        self.0 & 0b11 == 0b11
    }

    /// AF_XDP without a copy.
    pub(crate) const fn zero_copy(self) -> bool {
        self.0 & 1 << 3 != 0
    }

    /// Frames of several buffers, which a large MTU needs.
    pub(crate) const fn several_buffers(self) -> bool {
        self.0 & 1 << 5 != 0
    }
}

/// The abilities of all devices of this network namespace, by interface index. Kernels before 6.3 cannot tell.
pub(crate) fn features() -> io::Result<HashMap<u32, Features>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;

    let mut family = None;
    let name = attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    exchange(&socket, CONTROLLER, CTRL_CMD_GETFAMILY, &name, 0, &mut |attributes| {
        family = attributes.u16(CTRL_ATTR_FAMILY_ID);
    })?;
    let family = family.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;

    let mut devices = HashMap::new();
    exchange(&socket, family, NETDEV_CMD_DEV_GET, &[], NLM_F_DUMP, &mut |attributes| {
        if let Some(index) = attributes.u32(NETDEV_A_DEV_IFINDEX) {
            devices.insert(index, Features(attributes.u64(NETDEV_A_DEV_XDP_FEATURES).unwrap_or(0)));
        }
    })?;
    Ok(devices)
}

fn exchange(
    socket: &Socket,
    family: u16,
    command: u8,
    attributes: &[u8],
    flags: u16,
    visit: &mut dyn FnMut(Attributes<'_>),
) -> io::Result<()> {
    let length = u32::try_from(HEADER_LEN + GENERIC_HEADER_LEN + attributes.len()).expect("requests are short");
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(family.to_ne_bytes());
    request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    request.extend([0; 8]);
    request.extend([command, 1, 0, 0]);
    request.extend(attributes);
    socket.send(&request, 0)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while let Some((length, kind)) = header(rest) {
            let Some(body) = rest.get(HEADER_LEN..length) else { break };
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let number = body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                    return if number == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-number)) };
                }
                _ => visit(Attributes(body.get(GENERIC_HEADER_LEN..).unwrap_or_default())),
            }
            rest = rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        }
        if flags & NLM_F_DUMP == 0 {
            return Ok(());
        }
    }
}

fn header(message: &[u8]) -> Option<(usize, u16)> {
    let (length, rest) = message.split_first_chunk()?;
    let kind = rest.first_chunk()?;
    let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
    (length >= HEADER_LEN).then_some((length, u16::from_ne_bytes(*kind)))
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("attributes are short");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes
}

/// The attributes of one message.
#[derive(Clone, Copy)]
struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    fn find(self, wanted: u16) -> Option<&'a [u8]> {
        let mut rest = self.0;
        loop {
            let (length, behind) = rest.split_first_chunk()?;
            let kind = u16::from_ne_bytes(*behind.first_chunk()?);
            let length = usize::from(u16::from_ne_bytes(*length));
            let value = rest.get(4..length)?;
            if kind == wanted {
                return Some(value);
            }
            rest = rest.get(length.next_multiple_of(ALIGNMENT)..)?;
        }
    }

    fn u16(self, kind: u16) -> Option<u16> {
        self.find(kind)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
    }

    fn u32(self, kind: u16) -> Option<u32> {
        self.find(kind)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    fn u64(self, kind: u16) -> Option<u64> {
        self.find(kind)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_others_of_any_length() {
        let bytes =
            [attribute(9, b"odd"), attribute(1, &7_u32.to_ne_bytes()), attribute(3, &11_u64.to_ne_bytes())].concat();
        let attributes = Attributes(&bytes);
        assert_eq!((attributes.u32(1), attributes.u64(3), attributes.u32(2)), (Some(7), Some(11), None));
    }

    #[test]
    fn a_broken_length_ends_the_search() {
        for length in [0_u16, 3, 200] {
            let bytes = [length.to_ne_bytes(), 5_u16.to_ne_bytes()].concat();
            assert_eq!(Attributes(&bytes).u32(1), None, "{length}");
        }
    }
}
