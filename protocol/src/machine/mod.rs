//! The session machine (§2, §3): six states, 23 inputs, one pure total function.
//!
//! [`step`] takes a record, an input, the policy snapshot and the time, and gives either exactly one transition with
//! the record after it, or a refusal that changed nothing (SM-01, SM-05). It knows no socket, clock or randomness, so
//! the gateway, the client's mirror, the simulator and the model checker run the same code.
//!
//! [`run`] applies several simultaneous inputs by the fixed priority until none is left whose guard holds (SM-03,
//! SM-04). [`reattach`] runs the chain of a valid request to its commit, whole or not at all (SM-08).
//!
//! Only this module can write a [`Record`]: its fields are private, so the compiler holds INV-07 and SM-02.

mod input;
#[cfg(test)]
mod properties;
mod record;
#[cfg(test)]
mod rows;
mod run;
mod state;
mod step;
mod table;
#[cfg(test)]
mod tests;

pub use input::{Evidence, Input, NewBinding};
pub use record::{Binding, MAX_SWITCHES_IN_WINDOW, Record, Retiring, SWITCH_WINDOW};
pub use run::{MAX_TRANSITIONS_PER_STEP, Refusal, Transition, Transitions, due, reattach, run};
pub use state::State;
pub use step::step;
pub use table::{Row, RowSide, TABLE, TransitionId, render_markdown};

pub use crate::keys::Side;
