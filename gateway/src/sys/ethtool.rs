//! What the gateway asks of, and sets on, a device by ethtool's ioctls.
//!
//! A link is named, as the ioctl wants it, in the calling thread's network namespace.

use std::os::fd::AsFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::SysError;
use super::calls::{ETHTOOL_WORDS, EthtoolCommand, ethtool};

/// The structure of a command, as words; the first is the command.
type Words = [u32; ETHTOOL_WORDS];

// Words of `struct ethtool_channels`.
const MAX_RX: usize = 1;
const MAX_COMBINED: usize = 4;
const RX_COUNT: usize = 5;
const TX_COUNT: usize = 6;
const COMBINED_COUNT: usize = 8;

/// `ETH_FLAG_TXVLAN`: the device inserts VLAN tags itself, out of sight of XDP.
const ETH_FLAG_TXVLAN: u32 = 1 << 7;
/// `ETH_FLAG_RXVLAN`: the device strips VLAN tags before XDP sees them.
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

/// How many queues a device has, by `ETHTOOL_GCHANNELS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Receive queues in use.
    pub receive: u32,
    /// Transmit queues in use.
    pub transmit: u32,
    /// Receive queues that the device could use.
    pub receive_max: u32,
}

/// The device's queues.
pub fn channels(interface: &str) -> Result<Channels, SysError> {
    let raw = raw_channels(interface)?;
    Ok(Channels {
        receive: raw[RX_COUNT].saturating_add(raw[COMBINED_COUNT]),
        transmit: raw[TX_COUNT].saturating_add(raw[COMBINED_COUNT]),
        receive_max: raw[MAX_RX].saturating_add(raw[MAX_COMBINED]),
    })
}

/// Has the device use `queues` receive and as many transmit queues.
pub fn set_channels(interface: &str, queues: u32) -> Result<(), SysError> {
    let mut raw = raw_channels(interface)?;
    if raw[MAX_COMBINED] > 0 {
        raw[COMBINED_COUNT] = queues;
    } else {
        (raw[RX_COUNT], raw[TX_COUNT]) = (queues, queues);
    }
    request("setting the number of queues", interface, EthtoolCommand::SetChannels, raw).map(drop)
}

/// Name of the device's driver.
pub fn driver(interface: &str) -> Result<String, SysError> {
    let info = request("asking for the driver", interface, EthtoolCommand::GetDriver, [0; ETHTOOL_WORDS])?;
    // 32 bytes behind the command.
    let name = info[1..9].iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0);
    Ok(String::from_utf8_lossy(&name.collect::<Vec<_>>()).into_owned())
}

/// Has the kernel finish every packet itself before the device gets it: whole checksums, no segments to be cut later.
///
/// For the far end of a veth: what is left unfinished there is never finished, because no hardware follows.
pub fn finish_packets_in_software(interface: &str) -> Result<(), SysError> {
    set_value("switching segmentation offload off", interface, EthtoolCommand::SetTso, 0)?;
    set_value("switching generic segmentation off", interface, EthtoolCommand::SetGso, 0)?;
    set_value("switching transmit checksum offload off", interface, EthtoolCommand::SetTransmitChecksum, 0)
}

/// Has the kernel merge no received packets: a merged packet fits into no frame.
pub fn disable_receive_merging(interface: &str) -> Result<(), SysError> {
    set_value("switching receive offload off", interface, EthtoolCommand::SetGro, 0)
}

/// Keeps VLAN tags in the packet, where XDP sees them.
pub fn keep_vlan_tags_in_packets(interface: &str) -> Result<(), SysError> {
    let value = request("reading the device's features", interface, EthtoolCommand::GetFlags, [0; ETHTOOL_WORDS])?;
    set_value(
        "switching VLAN offload off",
        interface,
        EthtoolCommand::SetFlags,
        value[1] & !(ETH_FLAG_TXVLAN | ETH_FLAG_RXVLAN),
    )
}

fn raw_channels(interface: &str) -> Result<Words, SysError> {
    request("asking for the number of queues", interface, EthtoolCommand::GetChannels, [0; ETHTOOL_WORDS])
}

/// `struct ethtool_value` is the command and one word.
fn set_value(call: &'static str, interface: &str, command: EthtoolCommand, value: u32) -> Result<(), SysError> {
    let mut words = [0; ETHTOOL_WORDS];
    words[1] = value;
    request(call, interface, command, words).map(drop)
}

/// Runs one command on the link of that name; gives what the kernel made of its structure.
fn request(call: &'static str, interface: &str, command: EthtoolCommand, mut words: Words) -> Result<Words, SysError> {
    let refused = |errno| SysError { call, errno };
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map_err(refused)?;
    ethtool(socket.as_fd(), interface, command, &mut words).map_err(refused)?;
    Ok(words)
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn a_link_that_does_not_exist_is_named_as_the_cause() {
        for name in ["no-such-link", "a-name-that-is-far-too-long-for-a-link"] {
            let error = channels(name).expect_err("there is no such link");
            assert_eq!(error.errno, Errno::ENODEV);
            assert!(error.to_string().starts_with("asking for the number of queues"), "{error}");
        }
    }
}
