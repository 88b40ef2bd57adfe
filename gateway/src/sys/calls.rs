//! Calls for which no library has a safe form.

use std::ffi::c_char;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `SIOCETHTOOL` of `linux/sockios.h`.
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// Room for the largest structure of the commands below, `struct ethtool_drvinfo`, as 32-bit words.
pub(super) const ETHTOOL_WORDS: usize = 49;

/// Commands of `linux/ethtool.h`. None of them reads or writes more than [`ETHTOOL_WORDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum EthtoolCommand {
    /// `struct ethtool_drvinfo`.
    GetDriver = 0x03,
    /// `struct ethtool_value`, as all but the channels.
    SetTransmitChecksum = 0x17,
    SetTso = 0x1f,
    SetGso = 0x24,
    GetFlags = 0x25,
    SetFlags = 0x26,
    SetGro = 0x2c,
    /// `struct ethtool_channels`.
    GetChannels = 0x3c,
    SetChannels = 0x3d,
}

/// Runs one ethtool command on the link of that name; `words` is its structure, whose first word is set here.
pub(super) fn ethtool(
    socket: BorrowedFd<'_>,
    interface: &str,
    command: EthtoolCommand,
    words: &mut [u32; ETHTOOL_WORDS],
) -> Result<(), Errno> {
    words[0] = command as u32;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: words.as_mut_ptr().cast() },
    };
    // The kernel wants the name to end with a zero.
    if interface.len() >= libc::IFNAMSIZ {
        return Err(Errno::ENODEV);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as c_char;
    }
    // SAFETY: the kernel reads `request` and, through its pointer, reads and writes the command's structure, which is no
    // longer than `words`; both outlive the call, and any bytes are valid integers.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    Errno::result(result).map(drop)
}

/// Tells when a descriptor can be read. It is duplicated, so its owner may do with its own what it likes; both are the
/// same open file. Needs a tokio runtime.
pub fn readable(descriptor: impl AsFd) -> io::Result<AsyncFd<OwnedFd>> {
    let own = descriptor.as_fd().try_clone_to_owned()?;
    // SAFETY: an `OwnedFd` is open for as long as it lives, always returns the same number, and is neither replaced nor
    // closed while the `AsyncFd` owns it.
    unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }.map_err(Into::into)
}

/// Gives free pages of the heap back to the system. Parsing a configuration of many clients leaves hundreds of megabytes
/// of them between what was kept; without this they would stay resident for the life of the process.
///
/// It walks the heap: for the start and for a reload, not for the packet path.
pub fn give_back_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes the allocator's own locks and touches free memory only; any thread may call it.
    unsafe {
        libc::malloc_trim(0);
    }
}
