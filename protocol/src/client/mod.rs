//! The client's half of the protocol, without a socket or a thread.
//!
//! The driver tells [`Client`] which paths are up ([`Client::path_up`], [`Client::path_down`]), hands in datagrams and
//! time, and sends what [`Client::poll_transmit`] gives. The client handshakes, keeps a mirror of the session machine,
//! probes standby paths, and when the active path fails or is told to, asks the gateway to move: by REATTACH_REQUEST,
//! never by merely sending from elsewhere (INV-26).

mod candidates;
mod connect;
mod core;
mod event;
mod inbound;
mod live;
mod meter;
mod path;
mod policy;
mod pulse;
mod recovery;
mod rekey;
mod standby;
mod trace;

pub use self::core::{Client, ClientConfig};
pub use event::{ClientEvent, ClientStatus, PathRole, PathStatus, Transmit};
pub use meter::Meter;
pub use path::PathInfo;
