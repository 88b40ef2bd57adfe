//! POLICY_UPDATE from the client's side: taken once, told back, and put in force as its mode says (RL-3, PU-1).

use super::core::Shared;
use super::event::ClientEvent;
use super::live::Live;
use super::pulse::MAX_SUPPRESSED;
use crate::policy::{ApplyMode, Policy};
use crate::reason::Reason;
use crate::time::Time;
use crate::wire::{Header, PolicyUpdate};

/// The newest policy of a session at the client.
pub(super) struct Terms {
    /// Its number within the session; 1 is the one of HELLO_ACK. Every heartbeat reports it.
    pub(super) sequence: u32,
    /// Of mode grace: in force from the next transition on.
    waiting: Option<Box<Policy>>,
}

impl Default for Terms {
    fn default() -> Self {
        Self { sequence: 1, waiting: None }
    }
}

impl Live {
    /// POLICY_UPDATE. What is not valid never comes in force, whoever sends it (INV-24).
    pub(super) fn policy_update(
        &mut self,
        shared: &mut Shared,
        header: &Header,
        packet: &mut [u8],
        now: Time,
    ) -> Result<(), Reason> {
        let update: PolicyUpdate = self.open_control(header, packet, now)?;
        self.take_mutation(header)?;
        if update.sequence <= self.terms.sequence {
            return Err(Reason::ReplayDetected);
        }
        let policy = Policy::decode_snapshot(&update.snapshot).map_err(|_| Reason::PolicyInvalid)?;
        let mode = policy.apply_mode;
        if policy.hash() != update.hash || update.mode != mode as u8 {
            return Err(Reason::PolicyInvalid);
        }
        self.terms.sequence = update.sequence;
        self.terms.waiting = Some(Box::new(policy));
        if mode == ApplyMode::Strict {
            self.policy_in_force(shared, now);
        }
        // Told at once, so that no more copies come.
        self.next_heartbeat = now;
        self.suppressed = MAX_SUPPRESSED;
        self.heartbeat(shared, now);
        Ok(())
    }

    /// What waited is in force from now on: the step that made the transition was the last one under the old policy.
    pub(super) fn policy_in_force(&mut self, shared: &mut Shared, now: Time) {
        if let Some(policy) = self.terms.waiting.take() {
            self.policy = *policy;
            let (sequence, version) = (self.terms.sequence, self.policy.version);
            self.trail.policy_changed(&self.policy, sequence, now, &mut shared.journal);
            shared.events.push_back(ClientEvent::PolicyChanged { sequence, version });
        }
    }
}
