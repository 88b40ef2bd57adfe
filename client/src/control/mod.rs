//! The control socket: a Unix socket that speaks JSON, one document a line.
//!
//! A request is one line; the answer is one line, but for `events`, which answers with a line per event until the
//! listener hangs up. Only the user who runs `jump up` may connect (mode 600).

mod client;
mod server;

use jumpgate_audit::sink::StatusView;
use serde::{Deserialize, Serialize};

pub use self::client::{ControlError, Listener, ask, listen};
pub(crate) use self::server::order;
pub use self::server::{Control, Order, ServerError};
use crate::report::Status;

/// Where `jump up` listens unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/jump/control.sock";
/// Longest request in bytes; the longest legal one is a move to an interface of 15 characters.
const REQUEST_MAX: u64 = 1024;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The present status.
    Status,
    /// Move the session to an uplink, or with `auto` let it go where the policy ranks best.
    Move {
        /// Interface, or `auto`.
        to: String,
    },
    /// Metrics in the Prometheus text format.
    Metrics,
    /// End the session and the program.
    Down,
    /// Every event from now on.
    Events,
    /// How the audit trace stands.
    Audit,
}

/// What is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// The status that was asked for.
    Status(Box<Status>),
    /// How the audit trace stands; none if none is kept.
    Audit(Option<Box<StatusView>>),
    /// The metrics that were asked for.
    Metrics(String),
    /// The order was taken.
    Done,
    /// The order was refused, and why.
    Error(String),
}
