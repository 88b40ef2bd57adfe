//! The tunnel's interface. It is not persistent: the kernel removes it, its addresses and its routes the moment this
//! process ends, however it ends.

use std::io;

use nix::errno::Errno;
use tun_rs::{AsyncDevice, DeviceBuilder};

/// Why there is no tunnel interface, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// Not allowed.
    #[error("not allowed to make the tunnel interface {name}; run as root or with CAP_NET_ADMIN")]
    Privilege {
        /// Wanted name.
        name: String,
    },
    /// The kernel has no TUN driver here.
    #[error("no /dev/net/tun; load the driver with `modprobe tun`, or pass the device into the container")]
    NoDriver,
    /// Somebody else has an interface of that name.
    #[error("the interface {name} exists already; stop whoever made it, or choose another name as client.interface")]
    Taken {
        /// Wanted name.
        name: String,
    },
    /// Somebody removed it while it was in use.
    #[error("the tunnel interface {name} was removed by somebody else; find out by whom, and run `jump up` again")]
    Removed {
        /// Its name.
        name: String,
    },
    /// Anything else.
    #[error("cannot make the tunnel interface {name}: {source}")]
    Other {
        /// Wanted name.
        name: String,
        /// What the system says.
        source: io::Error,
    },
}

/// An open tunnel interface. Its addresses, MTU and routes are set by [`Routes`](crate::link::Routes).
pub struct Tun {
    device: AsyncDevice,
    index: u32,
}

impl Tun {
    /// Makes the interface, still switched off and without addresses.
    ///
    /// No offload: every packet that is read is complete, checksum included, and fits the MTU, so it can be sealed in
    /// the buffer where it was read.
    pub fn open(name: &str) -> Result<Self, TunError> {
        let explain = |source: io::Error| match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM | Errno::EACCES) => TunError::Privilege { name: name.to_owned() },
            Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => TunError::NoDriver,
            Some(Errno::EBUSY | Errno::EEXIST | Errno::EINVAL) => TunError::Taken { name: name.to_owned() },
            _ => TunError::Other { name: name.to_owned(), source },
        };
        let device = DeviceBuilder::new().name(name).inherit_enable_state().build_async().map_err(explain)?;
        let index = device.if_index().map_err(explain)?;
        Ok(Self { device, index })
    }

    /// Index of the interface.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether that error of [`Self::read`] says that the interface is gone for good.
    pub fn is_removed(error: &io::Error) -> bool {
        matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EBADFD | Errno::EIO))
    }

    /// Waits until the machine has something to send.
    pub async fn readable(&self) -> io::Result<()> {
        self.device.readable().await
    }

    /// Reads the next packet, if there is one.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.device.try_recv(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hands a packet to the machine.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        self.device.try_send(packet).map(|_| ())
    }
}

impl std::fmt::Debug for Tun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tun").field("index", &self.index).finish_non_exhaustive()
    }
}
