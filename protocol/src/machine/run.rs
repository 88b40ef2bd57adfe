//! Several inputs at one instant, and the chain of a valid reattach request (SM-03, SM-04, SM-08).

use arrayvec::ArrayVec;

use super::record::{Binding, Record};
use super::{Evidence, Input, NewBinding, State, TransitionId, step};
use crate::policy::Policy;
use crate::reason::Reason;
use crate::time::Time;

/// More transitions than that in one step are a defect of ours (SM-04).
pub const MAX_TRANSITIONS_PER_STEP: usize = 4;

/// The transitions of one step, in order. One place more than the bound, for the T23 that breaks a runaway.
pub type Transitions = ArrayVec<Transition, { MAX_TRANSITIONS_PER_STEP + 1 }>;

/// An input was refused; nothing changed (SM-05).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(pub Reason);

impl Refusal {
    /// The pair (state, input) is not in the table.
    pub(super) const INVALID: Self = Self(Reason::InvalidStateTransition);
    /// It is, but its guard does not hold: an older generation, a bound not reached.
    pub(super) const GUARD: Self = Self(Reason::InternalError);
}

/// One transition as it happened: all that an event, a log line or an audit record needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Which row of the table.
    pub id: TransitionId,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// The primary reason.
    pub reason: Reason,
    /// A detail beside it.
    pub detail: Option<Reason>,
    /// Evidence of a transport's death.
    pub evidence: Option<Evidence>,
    /// `state_version` after it.
    pub version: u64,
    /// `binding_epoch` after it.
    pub epoch: u64,
    /// When.
    pub at: Time,
    /// The binding that it took out of use.
    pub retired: Option<Binding>,
    /// The active binding after it.
    pub active: Option<Binding>,
}

/// The timer inputs whose bound is reached at `now`.
pub fn due(record: &Record, policy: &Policy, now: Time) -> ArrayVec<Input, 8> {
    let mut inputs = ArrayVec::new();
    if !record.state.is_live() {
        return inputs;
    }
    if record.is_over_age(policy, now) {
        inputs.push(Input::SessionTtl);
    }
    if record.state == State::Birth {
        if now.since(record.created) >= policy.session.handshake_timeout {
            inputs.push(Input::HandshakeFailed { detail: None });
        }
        return inputs;
    }
    if record.has_expired_keys(now) {
        inputs.push(Input::KeyExpired);
    }
    if record.is_degraded_too_long(now) {
        inputs.push(Input::PolicyHardLimit { admitted: true });
    }
    if record.is_transportless_too_long(now) {
        inputs.push(Input::TransportTtl);
    }
    if record.state == State::Recovering && now >= record.deadline {
        inputs.push(Input::RecoveryTimeout);
    }
    if let Some(binding) = record.unvalidated_too_long(now) {
        inputs.push(Input::TransportDead { generation: binding.epoch, evidence: Evidence::PathUnvalidated });
    }
    if record.is_volatile_too_long(now) {
        inputs.push(Input::VolatileTimeout);
    }
    inputs
}

/// Applies simultaneous inputs to completion (SM-04): always the highest by priority that is listed for the state and
/// whose guard holds, then the rest against the new state. Arrival order is irrelevant (SM-03).
pub fn run(record: &mut Record, inputs: &[Input], policy: &Policy, now: Time) -> Transitions {
    let mut left: ArrayVec<Input, { Input::KINDS }> = inputs.iter().copied().take(Input::KINDS).collect();
    left.sort_by_key(Input::priority);
    let mut done = Transitions::new();
    loop {
        let Some((index, after, transition)) = left.iter().enumerate().find_map(|(index, input)| {
            step(record, input, policy, now).ok().map(|(after, transition)| (index, after, transition))
        }) else {
            return done;
        };
        if done.len() == MAX_TRANSITIONS_PER_STEP {
            let violation = Input::InvariantViolation { reason: Reason::InvariantViolation };
            if let Ok((after, transition)) = step(record, &violation, policy, now) {
                *record = after;
                done.push(transition);
            }
            return done;
        }
        left.remove(index);
        *record = after;
        done.push(transition);
    }
}

/// Runs the chain of a valid reattach request to its commit (SM-08): T06, T08b, T11 from ATTACHED; T08b, T11 from
/// VOLATILE; T15b, T11 from DEGRADED; T11 from RECOVERING. Whole or not at all (INV-13).
///
/// # Errors
/// The refusal of the first link that cannot run; the record is then unchanged.
pub fn reattach(record: &mut Record, binding: NewBinding, policy: &Policy, now: Time) -> Result<Transitions, Refusal> {
    let mut draft = record.clone();
    let mut done = Transitions::new();
    while draft.state != State::Recovering {
        let (after, transition) = step(&draft, &Input::PeerReattach, policy, now)?;
        draft = after;
        done.push(transition);
    }
    let valid = Input::ReattachValid { binding, granted_epoch: None };
    let (after, transition) = step(&draft, &valid, policy, now)?;
    if transition.id != TransitionId::T11 {
        // SM-19: the versions run out within the chain. The next transition of the record itself ends it.
        return Err(Refusal(Reason::InvariantViolation));
    }
    done.push(transition);
    *record = after;
    Ok(done)
}
