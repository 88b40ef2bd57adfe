//! The six states of a session (§2).

use core::fmt;

use crate::stored::{Damaged, Reader, Stored, Writer};

/// Where a session stands (§2). The number is stable; it travels in HEARTBEAT_ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// Handshake under way, keys not yet confirmed; no binding, no DATA.
    Birth = 0,
    /// One transport, within its quality bounds.
    Attached = 1,
    /// Instability seen; a switch may be weighed. The binding may still carry traffic.
    Volatile = 2,
    /// Brake: trouble lasted, or switching was refused or failed. Still in service.
    Degraded = 3,
    /// A reattach attempt with a deadline is running; the old binding, if any, serves until the commit.
    Recovering = 4,
    /// Final: no binding, keys erased.
    Terminated = 5,
}

impl State {
    /// All states in the order of their number.
    pub const ALL: [Self; 6] =
        [Self::Birth, Self::Attached, Self::Volatile, Self::Degraded, Self::Recovering, Self::Terminated];

    /// The state with that number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Birth),
            1 => Some(Self::Attached),
            2 => Some(Self::Volatile),
            3 => Some(Self::Degraded),
            4 => Some(Self::Recovering),
            5 => Some(Self::Terminated),
            _ => None,
        }
    }

    /// The name as in the specification.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Birth => "BIRTH",
            Self::Attached => "ATTACHED",
            Self::Volatile => "VOLATILE",
            Self::Degraded => "DEGRADED",
            Self::Recovering => "RECOVERING",
            Self::Terminated => "TERMINATED",
        }
    }

    /// Every state but TERMINATED is live (§2).
    pub const fn is_live(self) -> bool {
        !matches!(self, Self::Terminated)
    }
}

impl Stored for State {
    fn store(&self, out: &mut Writer) {
        (*self as u8).store(out);
    }
    fn load(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Self::from_number(u8::load(from)?).ok_or(Damaged)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
