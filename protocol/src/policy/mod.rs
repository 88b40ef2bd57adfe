//! Policy (§10): parameters, profiles, validation, narrowing by the client, and the snapshot that a session carries.
//!
//! One table ([`PARAMETERS`]) says everything about a parameter. The typed fields of [`Policy`], the profiles, range
//! checks, requests of clients, the snapshot on the wire and the document are made from it.
//!
//! What is no parameter cannot be switched off: proof, replay protection, epoch check, single binding and audit
//! records have no key here (INV-24, P12).

mod build;
mod document;
mod error;
mod parameter;
mod rules;
mod snapshot;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod values;

pub use build::request;
pub use document::render_markdown;
pub use error::{PolicyError, Refusal};
pub use parameter::{Narrowing, Parameter, Range, Unit};
pub use snapshot::{SNAPSHOT_LEN, SNAPSHOT_MAX};
pub use table::{
    Access, Cluster, Limits, Observability, PARAMETERS, Policy, Security, Session, Switching, Transport, Volatility,
};
pub use text::PolicyValue;
pub use values::{ApplyMode, OnRecoveryTimeout, Priorities, Profile, Protocols, Rate, Store, TransportClass, Version};
