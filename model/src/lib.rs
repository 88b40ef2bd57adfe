//! Model checking of the real protocol code.
//!
//! | Module | What is in it |
//! |---|---|
//! | [`world`] | gateway core, client core and two paths, one clock |
//! | [`action`] | what can happen, and how often within the bounds |
//! | [`watch`] | an account of its own of states, bindings and times, from the events of both ends |
//! | [`probe`] | what is tried in every state and must change nothing: replays, forgeries, DATA from everywhere |
//! | [`outlook`] | what becomes of every state: recovery once the network is well, an end without one |
//! | [`law`] | what must hold, by the ids of the specification |
//! | [`jump`] | the model of the protocol and its scopes |
//! | [`machine`] | the model of the session machine alone |
//! | [`explore`] | runs them, hunts mutants |
//!
//! The code under test is `jumpgate-protocol-woven`: the sources of `jumpgate-protocol`, compiled once more.

#![forbid(unsafe_code)]

pub mod action;
pub mod explore;
pub mod jump;
pub mod law;
pub mod machine;
pub mod outlook;
pub mod packet;
pub mod probe;
pub mod watch;
pub mod world;
