//! The handshake: one round trip of Noise_IK between keys that know each other (§6.2).
//!
//! [`Initiator`] is the client's half, [`Responder`] the gateway's, which keeps nothing of a HELLO_INIT until its caller
//! decides to. In between stand the gate MAC, which answers nobody who does not know the gateway, and under load the
//! [`CookieJar`].

mod cookie;
mod gate;
mod initiator;
mod noise;
mod payload;
mod responder;
#[cfg(test)]
mod tests;

pub use cookie::CookieJar;
pub use initiator::{Answer, Established, Initiator};
pub use payload::{HelloReply, HelloRequest, SUITE_CHACHA20_POLY1305};
pub use responder::{HelloView, Opened, Responder};

pub use crate::crypto::StaticSecret;
