//! What the gateway asks of, and sets on, a device by ethtool's ioctls.
//!
//! A link is named, as the ioctl wants it, in the calling thread's network namespace.

use std::ffi::c_char;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::SysError;

/// `SIOCETHTOOL` of `linux/sockios.h`.
const SIOCETHTOOL: libc::Ioctl = 0x8946;

// Commands of `linux/ethtool.h`.
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_SGSO: u32 = 0x24;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_SGRO: u32 = 0x2c;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_SCHANNELS: u32 = 0x3d;

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
        receive: raw.rx_count + raw.combined_count,
        transmit: raw.tx_count + raw.combined_count,
        receive_max: raw.max_rx.saturating_add(raw.max_combined),
    })
}

/// Has the device use `queues` receive and as many transmit queues.
pub fn set_channels(interface: &str, queues: u32) -> Result<(), SysError> {
    let mut raw = raw_channels(interface)?;
    raw.cmd = ETHTOOL_SCHANNELS;
    if raw.max_combined > 0 {
        raw.combined_count = queues;
    } else {
        (raw.rx_count, raw.tx_count) = (queues, queues);
    }
    request("setting the number of queues", interface, &mut raw)
}

/// Name of the device's driver.
pub fn driver(interface: &str) -> Result<String, SysError> {
    let mut info = DriverInfo { cmd: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    request("asking for the driver", interface, &mut info)?;
    let name: Vec<u8> = info.driver.iter().copied().take_while(|&byte| byte != 0).collect();
    Ok(String::from_utf8_lossy(&name).into_owned())
}

/// Has the kernel finish every packet itself before the device gets it: whole checksums, no segments to be cut later.
///
/// For the far end of a veth: what is left unfinished there is never finished, because no hardware follows.
pub fn finish_packets_in_software(interface: &str) -> Result<(), SysError> {
    set_value("switching segmentation offload off", interface, ETHTOOL_STSO, 0)?;
    set_value("switching generic segmentation off", interface, ETHTOOL_SGSO, 0)?;
    set_value("switching transmit checksum offload off", interface, ETHTOOL_STXCSUM, 0)
}

/// Has the kernel merge no received packets: a merged packet fits into no frame.
pub fn disable_receive_merging(interface: &str) -> Result<(), SysError> {
    set_value("switching receive offload off", interface, ETHTOOL_SGRO, 0)
}

/// Keeps VLAN tags in the packet, where XDP sees them.
pub fn keep_vlan_tags_in_packets(interface: &str) -> Result<(), SysError> {
    let mut value = Value { cmd: ETHTOOL_GFLAGS, data: 0 };
    request("reading the device's features", interface, &mut value)?;
    set_value(
        "switching VLAN offload off",
        interface,
        ETHTOOL_SFLAGS,
        value.data & !(ETH_FLAG_TXVLAN | ETH_FLAG_RXVLAN),
    )
}

fn raw_channels(interface: &str) -> Result<RawChannels, SysError> {
    let mut raw = RawChannels { cmd: ETHTOOL_GCHANNELS, ..RawChannels::default() };
    request("asking for the number of queues", interface, &mut raw)?;
    Ok(raw)
}

fn set_value(call: &'static str, interface: &str, cmd: u32, data: u32) -> Result<(), SysError> {
    request(call, interface, &mut Value { cmd, data })
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    cmd: u32,
    data: u32,
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct RawChannels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

/// `struct ethtool_drvinfo`, whose later fields we do not read.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// Structures that the ethtool commands above read and write.
///
/// # Safety
/// The type is `repr(C)`, begins with the command, has at least the size that the kernel has for that command, and is
/// valid for any bytes.
unsafe trait Command {}
// SAFETY: `struct ethtool_value` field by field; integers only.
unsafe impl Command for Value {}
// SAFETY: `struct ethtool_channels` field by field; integers only.
unsafe impl Command for RawChannels {}
// SAFETY: 196 bytes as `struct ethtool_drvinfo`; integers only.
unsafe impl Command for DriverInfo {}

/// Runs one ethtool command on the link of that name.
fn request<T: Command>(call: &'static str, interface: &str, command: &mut T) -> Result<(), SysError> {
    // SAFETY: a null-initialised `ifreq` is valid: it holds integers and one pointer, set below.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(SysError { call, errno: Errno::ENODEV });
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as c_char;
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(command).cast();

    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    let fd = SysError::check(call, fd)?;
    // SAFETY: the descriptor is new and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the kernel reads `request` and, through its pointer, reads and writes a `Command` of sufficient size.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    SysError::check(call, result).map(|_| ())
}

#[cfg(test)]
mod tests {
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
