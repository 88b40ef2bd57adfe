//! The other side: what an attacker has beside the programs under test.
//!
//! [`Wire`] sends any frame on the gateway's link and sees all that pass there: powers A1 and A2 of the threat model.
//! [`frame`] makes frames as nobody sends them. [`Member`] has a valid client key and follows the protocol only where it
//! likes: A3.

pub(crate) mod frame;
mod member;
mod wire;

pub(crate) use member::{Answer, Member, Target, hello, request, reseal_gate};
pub(crate) use wire::{Overheard, Wire};
