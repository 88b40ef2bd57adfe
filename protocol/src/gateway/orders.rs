//! What the slow path orders of a shard's sessions on behalf of an operator or of a changed policy.

use super::event::{CompromiseEvidence, EventKind};
use super::push::PolicyChange;
use super::session::Session;
use super::shard::{Context, Shard};
use crate::ident::Locator;
use crate::machine::{Input, TransitionId};
use crate::policy::Rate;
use crate::reason::Reason;
use crate::time::Time;

impl Shard {
    /// Another policy is in force (RL-3). Gives whether there is such a session.
    pub fn change_policy(&mut self, now: Time, locator: Locator, change: PolicyChange) -> bool {
        self.order(now, locator, |session, context| match change {
            PolicyChange::Apply { policy, sources } => session.change_policy(policy, sources, context),
            PolicyChange::Withdraw => session.apply(&[Input::PolicyHardLimit { admitted: false }], context),
            PolicyChange::Compromised => session.compromised(CompromiseEvidence::Operator, context),
        })
    }

    /// The operator wants the session to move (T05): its client is asked to, and may prove the same path again if that is
    /// allowed (SM-18). What is refused is told by an event (SM-05). Gives whether there is such a session.
    pub fn force_move(&mut self, now: Time, locator: Locator, same_path_ok: bool) -> bool {
        self.order(now, locator, |session, context| session.force_move(same_path_ok, context))
    }

    /// Most SESSION_RESETs a second from now on (PP78), this shard's share.
    pub const fn set_resets(&mut self, resets: Rate) {
        self.config.resets = resets;
    }

    fn order(&mut self, now: Time, locator: Locator, work: impl FnOnce(&mut Session, &mut Context<'_>)) -> bool {
        let Some(key) = self.by_locator.get(&locator).copied() else {
            return false;
        };
        self.with(now, key, work);
        true
    }
}

impl Session {
    fn force_move(&mut self, same_path_ok: bool, context: &mut Context<'_>) {
        let version = self.record.version();
        self.same_path_ok = same_path_ok;
        self.apply(&[Input::PolicyForceMove], context);
        if self.record.version() == version {
            self.emit(EventKind::MoveRefused { reason: Reason::InvalidStateTransition }, context);
        }
    }

    /// T20: nobody else may go on under that key, and whoever holds it is told nothing.
    pub(super) fn compromised(&mut self, evidence: CompromiseEvidence, context: &mut Context<'_>) {
        if evidence == CompromiseEvidence::Operator {
            self.trail.flagged();
        }
        self.emit(EventKind::CompromiseSuspected { evidence }, context);
        self.apply(&[Input::SecurityFailure], context);
    }

    /// What a transition means for the path: the client is asked to leave it (SM-18).
    pub(super) fn hint_after(&mut self, id: TransitionId, reason: Reason, context: &mut Context<'_>) {
        match id {
            TransitionId::T03 => self.hint(reason, false, context),
            TransitionId::T05 => self.hint(reason, self.same_path_ok, context),
            _ => {}
        }
    }
}
