//! What can go wrong with the XDP programs, and what to do about it.

use std::error::Error;

use aya::maps::MapError;
use aya::programs::ProgramError;
use nix::errno::Errno;

use crate::net::NetlinkError;

/// Why the programs cannot be loaded, attached or fed.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// The kernel does not let this user load BPF programs.
    #[error(
        "not permitted to load BPF programs: run as root, or give the process CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW \
         (setcap or AmbientCapabilities=)"
    )]
    NotPermitted,
    /// The kernel took the programs for invalid, or lacks something that they need.
    #[error(
        "the kernel refused the XDP programs ({0}): they need Linux 5.18 or newer with CONFIG_BPF_SYSCALL and \
             CONFIG_XDP_SOCKETS; `cargo xtask doctor` shows what is missing"
    )]
    Load(String),
    /// There is no such interface.
    #[error("there is no interface {0} here: `ip link` lists them (in this network namespace)")]
    NoInterface(String),
    /// Another XDP program is there already.
    #[error(
        "another XDP program is attached to {0}: `jumpgate unload --interface {0}` removes one that a crashed gateway left, `ip link \
         set dev {0} xdp off` any other"
    )]
    Busy(String),
    /// The interface refused the program.
    #[error("cannot attach to {interface} in {mode} mode: {cause}. {cure}")]
    Refused {
        /// The interface.
        interface: String,
        /// The mode that was asked for.
        mode: &'static str,
        /// What the kernel said.
        cause: String,
        /// What may help.
        cure: &'static str,
    },
    /// A map could not be read or written.
    #[error("BPF map {map}: {source}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// The embedded object lacks a program or map: it is not the one of this source.
    #[error("the embedded XDP object has no usable {name}: rebuild it with `cargo xtask build-ebpf`")]
    Object {
        /// The missing program or map.
        name: &'static str,
    },
    /// A program could not be detached.
    #[error("cannot detach the XDP programs: {}", causes(.0))]
    Detach(#[source] ProgramError),
    /// What is attached could not be found out or removed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The programs that the kernel has loaded could not be listed.
    #[error("cannot look at the loaded BPF programs: {}", causes(.0))]
    Inspect(#[source] ProgramError),
}

impl XdpError {
    /// Why loading failed.
    pub(super) fn load(error: impl Error + 'static) -> Self {
        match errno(&error) {
            Some(Errno::EPERM | Errno::EACCES) if !mentions_verifier(&error) => Self::NotPermitted,
            _ => Self::Load(causes(&error)),
        }
    }

    /// Why attaching failed.
    pub(super) fn attach(interface: &str, mode: &'static str, error: &ProgramError) -> Self {
        if matches!(error, ProgramError::UnknownInterface { .. }) {
            return Self::NoInterface(interface.into());
        }
        let cure = match errno(error) {
            Some(Errno::ENODEV) => return Self::NoInterface(interface.into()),
            Some(Errno::EBUSY | Errno::EEXIST) => return Self::Busy(interface.into()),
            Some(Errno::EPERM) => return Self::NotPermitted,
            Some(Errno::EOPNOTSUPP) => "The driver has no native XDP: use mode = \"generic\" or \"auto\".",
            Some(Errno::ERANGE | Errno::EINVAL) => {
                "Lower the MTU (of a veth's peer too), switch LRO off (`ethtool -K DEVICE lro off`), or use mode = \
                 \"generic\"."
            }
            Some(Errno::ENOMEM | Errno::ENOSPC) => {
                "The driver lacks queues for XDP: lower them with `ethtool -L DEVICE combined N`."
            }
            _ => "mode = \"generic\" works with every driver.",
        };
        Self::Refused { interface: interface.into(), mode, cause: causes(error), cure }
    }

    /// Why a map could not be used.
    pub(super) fn map(map: &'static str) -> impl Fn(MapError) -> Self {
        move |source| Self::Map { map, source }
    }
}

/// An error and all its causes on one line.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let text = next.to_string();
        // Transparent wrappers repeat the text of what they wrap.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = next.source();
    }
    line
}

/// The system's error number at the bottom of an error.
pub(super) fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(number) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            return Some(Errno::from_raw(number));
        }
        cause = error.source();
    }
    None
}

/// Whether the verifier looked at the program: then a refusal is no matter of privilege.
fn mentions_verifier(error: &(dyn Error + 'static)) -> bool {
    causes(error).contains("processed ")
}
