//! The virtual network: everything that paths do to datagrams, each direction on its own, all of it from one seed.

mod clock;
mod dice;
mod nat;
mod way;

pub use clock::LocalClock;
pub use dice::Dice;
pub use nat::Link;
pub use way::{Burst, Flap, Impairment};

pub(crate) use nat::FIRST_PORT;
pub(crate) use way::{Passage, WayState};
