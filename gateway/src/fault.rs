//! Errors by whose fault they are: the operator's, with a cure, or ours.

use std::fmt;
use std::process::ExitCode;

use jumpgate_metrics::EndpointError;

use crate::admin::AdminError;
use crate::config::ConfigError;
use crate::net::{NetlinkError, VethError};
use crate::port::PortError;
use crate::slow::ListenError;
use crate::sys::SysError;
use crate::xdp::XdpError;

/// Why a command failed.
#[derive(Debug)]
pub enum Fault {
    /// Something about the configuration or this host that the operator can cure.
    Operator {
        /// What is wrong.
        problem: String,
        /// What to do about it; none if the problem says so itself.
        cure: Option<String>,
    },
    /// A defect of this program.
    Ours(String),
}

impl Fault {
    /// The operator's, with its cure.
    pub fn operator(problem: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::Operator { problem: problem.into(), cure: Some(cure.into()) }
    }

    /// The operator's, where the text says also what to do.
    fn told(problem: impl fmt::Display) -> Self {
        Self::Operator { problem: problem.to_string(), cure: None }
    }

    /// Ours.
    pub fn ours(problem: impl fmt::Display) -> Self {
        Self::Ours(problem.to_string())
    }

    /// 2 for the operator's, as for a wrong command line; 1 for ours.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Operator { .. } => ExitCode::from(2),
            Self::Ours(_) => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator { problem, cure: Some(cure) } => write!(f, "{problem}\n  cure: {cure}"),
            Self::Operator { problem, cure: None } => f.write_str(problem),
            Self::Ours(problem) => write!(f, "{problem}\n  this is a defect of jumpgate: please report it"),
        }
    }
}

impl std::error::Error for Fault {}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        Self::operator(error.place_and_problem(), error.cure)
    }
}

impl From<NetlinkError> for Fault {
    fn from(error: NetlinkError) -> Self {
        let cure = match error.errno() {
            Some(nix::errno::Errno::EPERM | nix::errno::Errno::EACCES) => "run as root or with CAP_NET_ADMIN",
            Some(nix::errno::Errno::EOPNOTSUPP) => "use a kernel with virtual Ethernet pairs (CONFIG_VETH)",
            _ => "look at `ip link` and `dmesg`: another program may have changed the interfaces meanwhile",
        };
        Self::operator(error.to_string(), cure)
    }
}

impl From<VethError> for Fault {
    fn from(error: VethError) -> Self {
        let problem = error.to_string();
        match error {
            VethError::Netlink(error) => error.into(),
            VethError::NameTaken(_) => {
                Self::operator(problem, "choose another inside.interface, or rename or remove that one")
            }
            VethError::InUse(_) => {
                Self::operator(problem, "stop that gateway, or choose another name as inside.interface")
            }
            VethError::Vanished(_) => Self::operator(problem, "stop whatever removes new interfaces, and start again"),
        }
    }
}

impl From<ListenError> for Fault {
    fn from(error: ListenError) -> Self {
        Self::operator(error.to_string(), error.cure())
    }
}

impl From<AdminError> for Fault {
    fn from(error: AdminError) -> Self {
        Self::operator(error.to_string(), error.cure())
    }
}

impl From<EndpointError> for Fault {
    fn from(error: EndpointError) -> Self {
        Self::operator(error.to_string(), error.cure())
    }
}

impl From<PortError> for Fault {
    fn from(error: PortError) -> Self {
        match error {
            PortError::NoWorkers => Self::ours(error),
            error => Self::told(error),
        }
    }
}

impl From<XdpError> for Fault {
    fn from(error: XdpError) -> Self {
        match error {
            XdpError::Map { .. } | XdpError::Object { .. } => Self::ours(error),
            XdpError::Netlink(error) => error.into(),
            error => Self::told(error),
        }
    }
}

impl From<SysError> for Fault {
    fn from(error: SysError) -> Self {
        Self::operator(error.to_string(), "look at `ethtool` for the interface, and at `dmesg`")
    }
}
