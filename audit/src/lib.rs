//! The audit trace of Jumpgate: how it is written, and how it is judged.
//!
//! Records are made by the protocol core ([`jumpgate_protocol::audit`]). From there on it is this crate's:
//!
//! | Module | What is in it |
//! |---|---|
//! | [`chain`] | lines with numbers and hashes, in files of bounded size, over restarts and crashes |
//! | [`verify`] | the judgement of a trace by its bytes alone |
//! | [`text`] | one line of JSON, written and read |
//!
//! The verifier shares nothing with the writer but the catalogue, the transition table and the reason codes.

#![forbid(unsafe_code)]

pub mod chain;
mod record;
pub mod ring;
pub mod sink;
pub mod text;
pub mod verify;
