//! The records of one session, followed one after the other: what every trace must hold, whoever wrote it.

use std::collections::VecDeque;

use jumpgate_protocol::audit::{CheckResult, Event, EventType, Record, Standing, Status};
use jumpgate_protocol::machine::{State, TransitionId};

/// What must come next, and whether it may be missing.
type Expected = (EventType, bool);

/// One session as its records tell it.
pub(super) struct Life {
    standing: Standing,
    bound: Option<u16>,
    /// A recovery that is not closed (INV-25).
    recovery: bool,
    /// What belongs to the last transition and has not come yet.
    expected: VecDeque<Expected>,
    ended: bool,
}

impl Life {
    /// The life that a first record begins.
    pub(super) fn begin(record: &Record, standing: Standing) -> Result<Self, String> {
        let born = matches!(record.event, Event::SessionCreated { .. });
        if !born || (standing.state, standing.version, standing.epoch) != (State::Birth, 0, 0) {
            return Err(format!("V-BIRTH: the first record is {record:?}"));
        }
        Ok(Self { standing, bound: None, recovery: false, expected: VecDeque::new(), ended: false })
    }

    /// Whether the last record was written.
    pub(super) const fn is_over(&self) -> bool {
        self.ended
    }

    /// Takes one record of class A; gives what is wrong with it.
    pub(super) fn follow(&mut self, record: &Record, standing: Standing, gateway: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut check = |holds: bool, what: &str| {
            if !holds {
                wrong.push(format!("{what}: {record:?}"));
            }
        };
        check(!self.ended, "V-END: a record after SessionTerminated");
        check(self.is_due(record.event.event_type()), "OB-07: out of order inside its version");
        if let Event::SessionStateChange { transition, previous_state, new_state, active_transport, .. } = record.event
        {
            let commit = matches!(transition, TransitionId::T01 | TransitionId::T11);
            check(standing.version == self.standing.version + 1, "INV-08: the version rises by one");
            check(previous_state == self.standing.state, "V-STATE: a state is left that was not entered");
            let row = transition.row();
            check(row.from.contains(&previous_state) && row.to.is_none_or(|to| to == new_state), "V-EDGE");
            check(record.reason.is_some_and(|reason| row.reasons.contains(&reason)), "V-REASON");
            if gateway {
                check(standing.epoch == self.standing.epoch + u64::from(commit), "V-BIND: the epoch rises by a commit");
            } else {
                check(standing.epoch >= self.standing.epoch, "V-BIND: the epoch of the mirror falls");
            }
            self.expected = companions(transition, self.bound.is_some(), self.recovery);
            self.recovery |= new_state == State::Recovering;
            self.bound = active_transport.map(|transport| transport.0);
            self.standing = Standing { state: new_state, ..standing };
        }
        check(standing == self.standing, "V-VERSION: a companion of another version, state or epoch");
        match record.event {
            Event::SessionCreated { .. } => check(false, "V-BIRTH: created twice"),
            Event::ReattachAttempt { .. } => self.recovery = true,
            Event::ReattachResult { status, .. } => {
                check(self.recovery, "V-ATTEMPT: an answer without an attempt");
                let refused = matches!(status, Status::Denied);
                check(refused || self.expects(EventType::TransportSwitch), "V-ATTEMPT: SUCCESS without a switch");
            }
            Event::TransportSwitch { new_transport, .. } => {
                check(std::mem::take(&mut self.recovery), "INV-25: a switch without a recovery");
                check(self.bound == Some(new_transport.0), "V-BIND: another path is bound");
            }
            Event::TransportSwitchFailed { .. } => {
                check(std::mem::take(&mut self.recovery), "INV-25: a failure without a recovery");
            }
            // T10 is refused before anything was tried.
            Event::TransportSwitchDenied { .. } => self.recovery = false,
            Event::AuditCheck { result, .. } => check(result == CheckResult::Pass, "V-CHECK: a check failed"),
            Event::SessionTerminated { keys_erased, .. } => {
                check(self.standing.state == State::Terminated, "V-END: terminated without the transition");
                check(!self.recovery, "INV-25: a recovery was never closed");
                check(keys_erased, "INV-10: keys are left");
                self.ended = true;
            }
            _ => {}
        }
        let closed_outside = self.standing.state == State::Recovering || !self.recovery || self.expects_close();
        let asked = matches!(record.event, Event::ReattachAttempt { .. } | Event::ReattachResult { .. });
        check(closed_outside || asked, "INV-25: a recovery is left open outside RECOVERING");
        wrong
    }

    fn expects(&self, event: EventType) -> bool {
        self.expected.iter().any(|(expected, _)| *expected == event)
    }

    fn expects_close(&self) -> bool {
        use EventType::{TransportSwitch, TransportSwitchDenied, TransportSwitchFailed};
        [TransportSwitch, TransportSwitchDenied, TransportSwitchFailed].into_iter().any(|event| self.expects(event))
    }

    /// Whether that kind may come now; takes it off what is expected.
    fn is_due(&mut self, event: EventType) -> bool {
        while let Some((expected, may_miss)) = self.expected.pop_front() {
            if expected == event {
                return true;
            }
            if !may_miss {
                return false;
            }
        }
        true
    }
}

/// What follows a SessionStateChange, in the order of the catalogue.
fn companions(transition: TransitionId, bound: bool, recovery: bool) -> VecDeque<Expected> {
    use EventType as E;
    let must = |event| (event, false);
    let may = |event| (event, true);
    let mut list = match transition {
        TransitionId::T01 => vec![must(E::TransportAttached)],
        TransitionId::T03 => vec![must(E::VolatilitySignal)],
        TransitionId::T04 => vec![must(E::TransportDead), must(E::TransportRetired)],
        TransitionId::T16 => vec![must(E::TransportDead), must(E::TransportRetired)],
        TransitionId::T10 | TransitionId::T13 => vec![may(E::ReattachResult), must(E::TransportSwitchDenied)],
        TransitionId::T11 => {
            let retired = bound.then_some(must(E::TransportRetired));
            let begin = [must(E::ReattachResult), must(E::TransportSwitch)];
            begin.into_iter().chain(retired).chain([must(E::AuditCheck), must(E::AuditCheck)]).collect()
        }
        TransitionId::T12 | TransitionId::T14 => vec![must(E::TransportSwitchFailed)],
        TransitionId::T20 => vec![must(E::SecurityKeyCompromiseSuspected)],
        TransitionId::T22 => vec![must(E::PolicyEvent)],
        TransitionId::T25 => vec![must(E::KeyExpired)],
        _ => Vec::new(),
    };
    if transition.row().to == Some(State::Terminated) {
        list.push(may(E::ReattachResult));
        list.extend(recovery.then_some(must(E::TransportSwitchFailed)));
        // The mirror takes over a policy that waited with any transition, also the last.
        list.push(may(E::PolicyEvent));
        list.push(must(E::SessionTerminated));
    }
    list.into()
}
