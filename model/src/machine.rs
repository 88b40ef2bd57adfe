//! The model of the session machine alone: every input in every state that some sequence of inputs and pauses leads to,
//! without a network, keys or a peer that behaves.

use std::fmt;

use jumpgate_protocol_woven::ident::{TransportId, Tuple};
use jumpgate_protocol_woven::machine::{
    Evidence, Input, NewBinding, Record, Side, State, Transition, TransitionId, due, reattach, run, step,
};
use jumpgate_protocol_woven::policy::Policy;
use jumpgate_protocol_woven::reason::Reason;
use jumpgate_protocol_woven::time::{Span, Time};
use stateright::{Model, Property};

use crate::world::policy;

/// Pauses between inputs in milliseconds: the cooldown is over, VOLATILE is, RECOVERING is, the transport limit is.
const PAUSES: &[u64] = &[200, 1_500, 2_000, 10_000];

/// The machine of one end, explored to a depth.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Which end.
    pub side: Side,
    /// Inputs and pauses of a run.
    pub depth: u8,
}

/// A record, and what was broken on the way to it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Progress {
    record: Record,
    now: Time,
    left: u8,
    /// The laws that the last action broke.
    pub broken: Vec<&'static str>,
}

/// One step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Milliseconds pass. No timer runs: a driver that is late must do no harm.
    Pass(u64),
    /// One input.
    Input(Input),
    /// The chain of a valid request (SM-08).
    Reattach(NewBinding),
}

impl Machine {
    /// Both ends, to the depth of the test of the workspace.
    pub const BOTH: [Self; 2] = [Self { side: Side::Gateway, depth: 6 }, Self { side: Side::Client, depth: 6 }];

    /// Its name on the command line.
    pub const fn name(&self) -> &'static str {
        match self.side {
            Side::Gateway => "machine-gateway",
            Side::Client => "machine-client",
        }
    }
}

impl Model for Machine {
    type State = Progress;
    type Action = Action;

    fn init_states(&self) -> Vec<Progress> {
        let now = Time::from_millis(1_000);
        vec![Progress { record: Record::new(self.side, now), now, left: self.depth, broken: Vec::new() }]
    }

    fn actions(&self, state: &Progress, actions: &mut Vec<Action>) {
        if state.left > 0 && state.broken.is_empty() {
            actions.extend(PAUSES.iter().map(|pause| Action::Pass(*pause)));
            actions.extend(inputs(&state.record, state.now).into_iter().map(Action::Input));
            if self.side == Side::Gateway {
                actions.extend(bindings().map(Action::Reattach));
            }
        }
    }

    fn next_state(&self, state: &Progress, action: Action) -> Option<Progress> {
        let mut next = Progress { left: state.left - 1, ..state.clone() };
        let (before, policy, now) = (&state.record, policy(), state.now);
        match action {
            Action::Pass(pause) => next.now += Span::from_millis(pause),
            Action::Input(input) => {
                let (after, transition) = step(before, &input, &policy, now).ok()?;
                next.broken = judge(before, &after, &[transition], &policy, now);
                if generation(&input).is_some_and(|of| before.active().is_none_or(|active| active.epoch != of)) {
                    next.broken.push("INV-32: what concerns an older generation touches no newer binding");
                }
                next.record = after;
            }
            Action::Reattach(binding) => match reattach(&mut next.record, binding, &policy, now) {
                Ok(links) => next.broken = judge(before, &next.record, &links, &policy, now),
                Err(_) if next.record == *before => return None,
                Err(_) => next.broken = vec!["INV-13: a chain that was refused changed the record"],
            },
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("every transition keeps the invariants", |_: &Self, state: &Progress| {
                state.broken.is_empty()
            }),
            Property::always("INV-02: the state says whether there is a binding", |_: &Self, state: &Progress| {
                let bound = state.record.active().is_some();
                match state.record.state() {
                    State::Attached => bound,
                    State::Birth | State::Terminated => !bound && state.record.retiring(Time::ZERO).is_none(),
                    _ => bound == state.record.transportless_since().is_none(),
                }
            }),
            Property::always("INV-10: TERMINATED takes no input", |_: &Self, state: &Progress| {
                state.record.state().is_live()
                    || inputs(&state.record, state.now)
                        .iter()
                        .all(|input| step(&state.record, input, &policy(), state.now).is_err())
            }),
            Property::always("L-2: every record ends by time alone, in one step", |_: &Self, state: &Progress| {
                let late = state.now + policy().session.max_lifetime;
                let mut record = state.record.clone();
                let inputs = due(&record, &policy(), late);
                run(&mut record, &inputs, &policy(), late);
                record.state() == State::Terminated
            }),
            Property::always("TB-05, TB-08, TB-09: a bound that is reached leads out", |_: &Self, state: &Progress| {
                left_in_time(state)
            }),
        ]
    }
}

/// What one step did wrong.
fn judge(before: &Record, after: &Record, links: &[Transition], policy: &Policy, now: Time) -> Vec<&'static str> {
    let commits = links.iter().filter(|link| matches!(link.id, TransitionId::T01 | TransitionId::T11)).count() as u64;
    let gateway = before.side() == Side::Gateway;
    let rising = |ordinal: fn(&Transition) -> u64, first: u64| {
        links.iter().zip(first..).all(|(link, expected)| ordinal(link) == expected)
    };
    let listed = links.iter().all(|link| {
        let row = link.id.row();
        row.from.contains(&link.from) && row.reasons.contains(&link.reason) && row.to.unwrap_or(link.from) == link.to
    });
    let moved = after.active().filter(|new| before.active().is_none_or(|old| old.epoch != new.epoch));
    let retired = after
        .retiring(now)
        .is_none_or(|old| old.validated && !(gateway && Some(old.epoch) == after.active().map(|new| new.epoch)));
    let made = moved.is_none_or(|_| commits == 1);
    let rate = !gateway
        || !links.iter().any(|link| link.id == TransitionId::T11)
        || after.commits_in_window(now) <= usize::from(policy.switching.max_switches_per_min);
    let unbound = match (before.transportless_since(), after.transportless_since()) {
        (Some(was), Some(is)) => was == is,
        _ => true,
    };
    let checks = [
        (before.state().is_live(), "INV-10: TERMINATED is final"),
        (rising(|link| link.version, before.version() + 1), "INV-05: the version rises by one with each transition"),
        (after.version() == before.version() + links.len() as u64, "INV-05: no change without a version"),
        (!gateway || after.epoch() == before.epoch() + commits, "INV-06: the epoch rises by one with each commit"),
        (after.epoch() >= before.epoch(), "INV-06: the epoch never falls"),
        (after.active().is_none_or(|new| new.epoch == after.epoch()), "INV-01: the binding is of the present epoch"),
        (listed, "INV-07: every transition is a row of the table"),
        (made, "INV-11: a binding is made by T01 or T11"),
        (rate, "INV-15: the switch rate holds"),
        (unbound, "SM-17: the time without a transport does not start anew"),
        (retired, "INV-34, PV-5: what retires was validated and is not active"),
    ];
    checks.into_iter().filter(|(holds, _)| !holds).map(|(_, law)| law).collect()
}

/// Whether the machine leaves RECOVERING, VOLATILE and the time without a transport as soon as their bound is reached.
fn left_in_time(state: &Progress) -> bool {
    let policy = policy();
    let mut record = state.record.clone();
    let before = record.state();
    let bound = match before {
        State::Recovering => policy.switching.recovery_window,
        State::Volatile => policy.volatility.volatile_to_degraded,
        _ => return true,
    };
    let at = state.now.max(record.entered() + bound);
    let inputs = due(&record, &policy, at);
    run(&mut record, &inputs, &policy, at);
    record.state() != before
}

/// Every input with every parameter that can make a difference.
fn inputs(record: &Record, now: Time) -> Vec<Input> {
    let mut inputs = vec![
        Input::SessionTtl,
        Input::OwnershipConflict,
        Input::InvariantViolation { reason: Reason::InvariantViolation },
        Input::SecurityFailure,
        Input::OperatorTerminate,
        Input::PeerTerminate { detail: None },
        Input::KeyExpired,
        Input::PolicyHardLimit { admitted: false },
        Input::PolicyHardLimit { admitted: true },
        Input::TransportTtl,
        Input::HandshakeFailed { detail: None },
        Input::RecoveryTimeout,
        Input::PeerReattach,
        Input::ReattachDeniedAuth { reason: Reason::PolicyDenied, detail: Reason::PolicyDenied },
        Input::AttemptsExhausted { reason: Reason::NoCandidateTransports },
        Input::PolicyForceMove,
        Input::SwitchDeniedRate,
        Input::VolatileTimeout,
        Input::RecoveryStart { exempt: false },
        Input::RecoveryStart { exempt: true },
    ];
    for binding in bindings() {
        inputs.push(Input::HandshakeComplete { binding });
        for ahead in 0..2 {
            let granted_epoch = Some(record.epoch() + ahead);
            inputs.push(Input::ReattachValid { binding, granted_epoch });
        }
    }
    // The present generation, and the one before.
    for generation in [record.epoch(), record.epoch().wrapping_sub(1)] {
        inputs.push(Input::TransportDead { generation, evidence: Evidence::Silence });
        inputs.push(Input::Instability { generation, reason: Reason::HeartbeatTimeout });
        inputs.push(Input::StabilityRestored { generation, calm_since: Time::ZERO });
        inputs.push(Input::StabilityRestored { generation, calm_since: now });
    }
    inputs
}

/// The generation that an input is about, if it is about one (SM-10).
const fn generation(input: &Input) -> Option<u64> {
    match input {
        Input::TransportDead { generation, .. }
        | Input::Instability { generation, .. }
        | Input::StabilityRestored { generation, .. } => Some(*generation),
        _ => None,
    }
}

/// Two paths, validated or not.
fn bindings() -> impl Iterator<Item = NewBinding> {
    [(1, true), (2, true), (2, false)].into_iter().map(|(number, validated)| {
        let peer = std::net::SocketAddr::from(([100, 64, 0, number], 1_024));
        let tuple = Tuple { local: crate::world::gateway(), peer };
        NewBinding { tuple, transport: TransportId(number.into()), validated }
    })
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = &self.record;
        write!(
            f,
            "{} version {} epoch {} at {} ms",
            record.state(),
            record.version(),
            record.epoch(),
            self.now.as_millis()
        )?;
        match record.active() {
            Some(active) => write!(f, ", path {}", active.transport),
            None => f.write_str(", no path"),
        }
    }
}
