//! What operators order of sessions: end, move, and that a key is in other hands.

use std::time::Duration;

use jumpgate_protocol::gateway::{EventKind, PolicyChange, SessionEvent};
use jumpgate_protocol::ident::{Locator, PublicKey};
use jumpgate_protocol::machine::{State, TransitionId};
use jumpgate_protocol::reason::Reason;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Parts, SlowPath};
use crate::admin::Answer;
use crate::handover::Command;
use crate::keyfile;

/// How long the owner of a session has to say whether it took an order.
const PATIENCE: Duration = Duration::from_secs(1);
/// What shows an operator the sessions that there are.
const CURE: &str = "`jumpgate sessions` shows what there is";

/// An operator who waits to hear whether a session took the order to move.
pub(super) struct Move {
    locator: Locator,
    answer: oneshot::Sender<Answer>,
    pub(super) until: Instant,
}

impl SlowPath {
    /// Ends a session (T19).
    pub(super) fn terminate(&mut self, session: &str) -> Answer {
        let Some(locator) = self.known(session) else { return unknown(session) };
        self.owners.tell_owner(locator.slot(), Command::Terminate { locator, reason: Reason::OperatorTerminated });
        Answer::Done
    }

    /// Wants a session to move (T05). Its owner's event answers the operator.
    pub(super) fn force_move(&mut self, session: &str, same_path_ok: bool, answer: oneshot::Sender<Answer>) {
        let Some(locator) = self.known(session) else {
            // Whoever asked may have gone.
            let _ = answer.send(unknown(session));
            return;
        };
        self.moves.push(Move { locator, answer, until: Instant::now() + PATIENCE });
        self.owners.tell_owner(locator.slot(), Command::Move { locator, same_path_ok });
    }

    /// Whether an event answers an order to move.
    pub(super) fn settle_moves(&mut self, event: &SessionEvent) {
        let answer = match &event.kind {
            EventKind::Transition(transition) if transition.id == TransitionId::T05 => Answer::Done,
            EventKind::Transition(transition) if transition.to == State::Terminated => {
                refused(event.locator, "has ended")
            }
            EventKind::MoveRefused { .. } => {
                refused(event.locator, "is not ATTACHED: it is looking for a path already")
            }
            _ => return,
        };
        for settled in self.moves.extract_if(.., |one| one.locator == event.locator) {
            let _ = settled.answer.send(answer.clone());
        }
    }

    /// Gives up waiting for owners that do not answer.
    pub(super) fn expire_moves(&mut self, now: Instant) {
        for late in self.moves.extract_if(.., |one| now >= one.until) {
            let _ =
                late.answer.send(Answer::Error("the owner of the session does not answer: it is overloaded".into()));
        }
    }

    /// The key of a client is in other hands: all its sessions end now (T20), and it is let in no more (KY-10).
    pub(super) fn compromised(&mut self, client: &str) -> Answer {
        let Parts { roster, desk, .. } = &self.parts;
        let key = roster.key_of(client).or_else(|| Some(PublicKey(*keyfile::parse(client).ok()?)));
        let Some(key) = key.filter(|key| desk.is_configured(key)) else {
            return Answer::Refused {
                problem: format!("no client has the name or the public key {client:?}"),
                cure: "name a [[client]] of the configuration".to_owned(),
            };
        };
        let sessions = self.parts.desk.flag_compromised(key);
        tracing::warn!(
            client,
            reason = Reason::KeyCompromiseSuspected.name(),
            sessions = sessions.len(),
            "the key is flagged as compromised: its sessions end, and it is let in no more"
        );
        for locator in &sessions {
            let command = Command::Policy { locator: *locator, change: PolicyChange::Compromised };
            self.owners.tell_owner(locator.slot(), command);
        }
        Answer::Ended { sessions: sessions.len() }
    }

    fn known(&self, session: &str) -> Option<Locator> {
        let locator = u64::from_str_radix(session, 16).ok().filter(|_| session.len() == 16).map(Locator);
        locator.filter(|locator| self.parts.roster.knows(*locator))
    }
}

fn unknown(session: &str) -> Answer {
    Answer::Refused { problem: format!("there is no session {session}"), cure: CURE.to_owned() }
}

fn refused(session: Locator, why: &str) -> Answer {
    Answer::Refused { problem: format!("session {session} {why}"), cure: CURE.to_owned() }
}
