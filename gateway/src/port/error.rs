//! Why a port cannot be opened, and what to do about it.

use nix::errno::Errno;

use super::PlaneConfig;
use crate::sys::SysError;

/// Why a port cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// No device of that name.
    #[error("interface {interface} does not exist here; `ip link` lists those that do")]
    NoSuchInterface {
        /// As configured.
        interface: String,
    },
    /// A worker without a queue of its own could not send.
    #[error(
        "interface {interface} has {queues} queue(s) for {workers} workers, and each worker sends on a queue of its own; \
         lower [workers] count, or raise the queues with `ethtool -L {interface} combined {workers}`"
    )]
    TooFewQueues {
        /// As configured.
        interface: String,
        /// Its queues.
        queues: u32,
        /// As configured.
        workers: u16,
    },
    /// More queues than a worker polls.
    #[error(
        "interface {interface} has {queues} queues, of which {max} can be served; lower them with `ethtool -L {interface} combined {max}`"
    )]
    TooManyQueues {
        /// As configured.
        interface: String,
        /// Its queues.
        queues: u32,
        /// The most.
        max: u32,
    },
    /// No worker, no gateway.
    #[error("the number of workers is 0; set [workers] count to at least 1")]
    NoWorkers,
    /// A packet would not fit into a frame.
    #[error("an MTU of {mtu} needs frames larger than AF_XDP has; lower the interface's MTU to {max} or less")]
    MtuTooLarge {
        /// The device's.
        mtu: u32,
        /// The largest that works.
        max: u32,
    },
    /// The packet memory could not be had.
    #[error("{source} ({megabytes} MB); free memory, or configure fewer queues or workers")]
    Memory {
        /// Its size.
        megabytes: u64,
        /// The kernel's answer.
        source: SysError,
    },
    /// A socket could not be made or bound.
    #[error("{interface} queue {queue}: {source}; {}", cure(.source, .config))]
    Socket {
        /// The device.
        interface: String,
        /// Its queue.
        queue: u32,
        /// The kernel's answer.
        source: SysError,
        /// What was asked for.
        config: Box<PlaneConfig>,
    },
}

/// What helps against the errors that are known to happen here.
fn cure(error: &SysError, config: &PlaneConfig) -> String {
    match error.errno {
        Errno::EPERM => "run as root, or grant CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF".into(),
        Errno::ENOBUFS | Errno::ENOMEM => {
            "the packet memory exceeds the limit on locked memory: grant CAP_IPC_LOCK or raise RLIMIT_MEMLOCK \
             (`LimitMEMLOCK=infinity` in a systemd unit)"
                .into()
        }
        Errno::EBUSY => "another program holds this queue by AF_XDP: stop it".into(),
        Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT => "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)".into(),
        Errno::EOPNOTSUPP => "the driver has no zero-copy: set zero_copy = \"auto\" or \"off\"".into(),
        Errno::ENETDOWN => "set the link up first".into(),
        Errno::EINVAL => format!(
            "does the interface have that queue? `ethtool -l` tells (outside {} has {}, inside {} has {} by configuration)",
            config.outside.interface, config.outside.queues, config.inside.interface, config.inside.queues
        ),
        _ => "the kernel log (`dmesg`) may tell more".into(),
    }
}
