//! Removes XDP programs of ours that nobody owns any more.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};
use nix::errno::Errno;

use super::XdpError;
use crate::net::Netlink;
use jumpgate_common::maps::{INSIDE_PROGRAM, OUTSIDE_PROGRAM};

/// File descriptor number that means "no program" to the kernel.
const NO_PROGRAM: i32 = -1;
/// The kernel's `XDP_FLAGS_SKB_MODE`: the program in generic mode.
const SKB_MODE: u32 = 1 << 1;
/// The kernel's `XDP_FLAGS_DRV_MODE`: the program in native mode.
const DRIVER_MODE: u32 = 1 << 2;

/// What [`unload`] found on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// No XDP program at all.
    Nothing,
    /// A program of ours, now gone.
    Removed,
    /// A program of ours that a living process holds: stop that gateway instead.
    InUse,
    /// A program of that name that is not ours; it was left alone.
    Foreign(String),
}

/// Detaches from the interface what a crashed gateway may have left.
///
/// A gateway attaches by BPF links, which the kernel removes with the process, so there usually is nothing.
pub fn unload(interface: &str) -> Result<Leftover, XdpError> {
    let mut netlink = Netlink::open()?;
    let link = find(&mut netlink, interface)?;
    let mut found = Leftover::Nothing;
    for (mode, id) in attached_programs(&link) {
        let name = program_name(id)?;
        if name != OUTSIDE_PROGRAM && name != INSIDE_PROGRAM {
            return Ok(Leftover::Foreign(name));
        }
        let mut request = LinkMessage::default();
        request.header.index = link.header.index;
        request.attributes.push(LinkAttribute::Xdp(vec![LinkXdp::Fd(NO_PROGRAM), LinkXdp::Flags(mode)]));
        let operation = format!("detach the XDP program from {interface}");
        match netlink.change(&operation, RouteNetlinkMessage::SetLink(request), 0) {
            Ok(()) => found = Leftover::Removed,
            // Only the holder of a BPF link may detach what is attached by it.
            Err(error) if error.errno() == Some(Errno::EBUSY) => return Ok(Leftover::InUse),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

fn find(netlink: &mut Netlink, interface: &str) -> Result<LinkMessage, XdpError> {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::IfName(interface.to_owned()));
    let operation = format!("look up {interface}");
    match netlink.ask(&operation, RouteNetlinkMessage::GetLink(request))? {
        Some(RouteNetlinkMessage::NewLink(link)) => Ok(link),
        _ => Err(XdpError::NoInterface(interface.to_owned())),
    }
}

/// Mode flag and id of every program on the interface.
fn attached_programs(link: &LinkMessage) -> Vec<(u32, u32)> {
    let attributes = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::Xdp(attributes) => Some(attributes),
        _ => None,
    });
    attributes
        .flatten()
        .filter_map(|attribute| match attribute {
            LinkXdp::DrvProgId(id) => Some((DRIVER_MODE, *id)),
            LinkXdp::SkbProgId(id) => Some((SKB_MODE, *id)),
            _ => None,
        })
        .collect()
}

fn program_name(id: u32) -> Result<String, XdpError> {
    for program in aya::programs::loaded_programs() {
        let program = program.map_err(XdpError::Inspect)?;
        if program.id() == id {
            return Ok(program.name_as_str().unwrap_or_default().to_owned());
        }
    }
    // It went away since we asked for its id; without a name it is not ours to touch.
    Ok(String::new())
}
