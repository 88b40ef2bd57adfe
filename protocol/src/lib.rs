//! The Jumpgate protocol: the session is the anchor, transports come and go.
//!
//! A session has one identity, one set of keys, one policy and one state. A transport is an attachment that may be
//! exchanged at any time, but at most one is active (CT-2), and only one message moves it: REATTACH_REQUEST (INV-26).
//!
//! The crate is pure. It takes time, randomness and packets as arguments and gives packets and events back; it opens no
//! socket, reads no clock, starts no thread. So the gateway, the client, the simulator and the fuzzers run the same
//! code.
//!
//! | Module | What is in it |
//! |---|---|
//! | [`machine`] | the session machine: one pure total function over six states |
//! | [`gateway`] | a worker's sessions ([`gateway::Shard`]) and the slow path's handshakes ([`gateway::HandshakeDesk`]) |
//! | [`client`] | a client with its paths ([`client::Client`]) |
//! | [`wire`] | every message: view, validated form, seal and open |
//! | [`handshake`] | Noise IK, gate MAC, cookies |
//! | [`keys`], [`crypto`], [`replay`] | derived keys, the AEAD behind one trait, anti-replay windows |
//! | [`policy`] | the parameters that bound everything |
//! | [`health`], [`limits`] | what is known of a path; token buckets |
//! | [`reason`] | stable reason codes |
//! | [`distribution`] | how often values of which size occurred |
//! | [`audit`] | the record of everything that happened |

#![forbid(unsafe_code)]

pub mod audit;
pub mod client;
pub mod crypto;
pub mod distribution;
pub mod entropy;
pub mod gateway;
pub mod handshake;
pub mod health;
pub mod ident;
mod key_ring;
pub mod keys;
pub mod limits;
pub mod machine;
pub mod policy;
pub mod reason;
pub mod replay;
mod stored;
pub mod time;
pub mod wire;
