//! The audit trace of Jumpgate: how it is written, and how it is judged.
//!
//! Records are made by the protocol core ([`jumpgate_protocol::audit`]). From there on it is this crate's:
//!
//! | Module | What is in it |
//! |---|---|
//! | [`chain`] | lines with numbers and hashes, in files of bounded size, over restarts and crashes |
//! | [`ring`] | from the threads that make records to the one that writes them |
//! | [`sink`] | the thread that writes |
//! | [`verify`] | the judgement of a trace by its bytes alone |
//! | [`timeline`] | the life of a session as people read it |
//! | [`cli`] | `jumpgate audit ...`, `jump audit ...` |
//! | [`text`] | one line of JSON, written and read |
//!
//! The verifier shares nothing with the writer but the catalogue, the transition table and the reason codes.

#![forbid(unsafe_code)]

pub mod chain;
pub mod cli;
mod record;
pub mod ring;
pub mod sink;
pub mod text;
pub mod timeline;
pub mod verify;
