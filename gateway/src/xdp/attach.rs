//! Attaching in native mode where the driver can, in generic mode otherwise, and never in silence.

use std::fmt;

use aya::programs::{Xdp, XdpMode};
use serde::Deserialize;

use super::XdpError;

/// How the operator wants the programs to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModeChoice {
    /// Native, and generic if the driver refuses.
    #[default]
    Auto,
    /// Native or not at all.
    Native,
    /// Generic.
    Generic,
}

/// How a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel allocates anything.
    Native,
    /// In the kernel's receive path, on any device.
    Generic,
}

/// An attachment that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The mode it runs in.
    pub mode: Mode,
    /// Why it is not native although native was tried: to be announced.
    pub fallback: Option<String>,
}

impl Mode {
    /// The name, as in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    const fn flags(self) -> XdpMode {
        match self {
            Self::Native => XdpMode::Driver,
            Self::Generic => XdpMode::Skb,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

pub(super) fn attach(program: &mut Xdp, interface: &str, choice: ModeChoice) -> Result<Attached, XdpError> {
    match choice {
        ModeChoice::Native => attach_in(program, interface, Mode::Native),
        ModeChoice::Generic => attach_in(program, interface, Mode::Generic),
        ModeChoice::Auto => match attach_in(program, interface, Mode::Native) {
            Err(refusal @ XdpError::Refused { .. }) => {
                let attached = attach_in(program, interface, Mode::Generic)?;
                Ok(Attached { fallback: Some(refusal.to_string()), ..attached })
            }
            other => other,
        },
    }
}

fn attach_in(program: &mut Xdp, interface: &str, mode: Mode) -> Result<Attached, XdpError> {
    // An interior NUL would make aya panic; no interface has one in its name.
    if interface.contains('\0') {
        return Err(XdpError::NoInterface(interface.escape_default().to_string()));
    }
    match program.attach(interface, mode.flags()) {
        Ok(_) => Ok(Attached { mode, fallback: None }),
        Err(error) => Err(XdpError::attach(interface, mode.name(), &error)),
    }
}
