//! What no session may do, checked while it lives: from its transitions and from what it gives account of with each event,
//! by another way than the code that made them. Packets are not seen here, only what they add up to: a single replay that
//! got through while others were lost, for example, does not show. The trace verifier and the simulator check more.

use std::collections::VecDeque;
use std::sync::Arc;

use jumpgate_protocol::gateway::Account;
use jumpgate_protocol::ident::{SessionIdentity, TransportId};
use jumpgate_protocol::machine::{SWITCH_WINDOW, State, Transition, TransitionId};
use jumpgate_protocol::policy::Policy;
use jumpgate_protocol::time::{Span, Time};

/// How long a session may still stand in RECOVERING when it was seen there beyond its deadline. A timer is late by a
/// tick; a worker that gets no CPU, or wakes with the machine, is late by more and is no defect.
const LATE: Span = Span::from_millis(5_000);

/// Broken invariants that the slow path can see for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    /// A run-time check of a session failed, and it was ended (T23); or a worker refused a birth.
    CheckFailed,
    /// Another binding became active while one was (INV-01), or one was retired that was not active.
    DualBinding,
    /// A session began again under its name, or its epoch went back (INV-03, INV-06).
    SilentReset,
    /// A `state_version` that is not its predecessor's plus one (INV-05).
    VersionRegression,
    /// A transition of a session that has ended, or that nobody made (INV-10).
    PostEndActivity,
    /// A jump after the deadline of its recovery, or a session that stays in RECOVERING beyond it (INV-16).
    UnboundedRecovery,
    /// More commits within a minute than the session's policy allows (INV-15).
    SwitchLimitExceeded,
    /// A worker spoke for a session whose slot is another's, or two commits were proved for one epoch (INV-20, INV-38, T21).
    AmbiguousOwner,
    /// More DATA was opened under a key than counters were used (AR-3).
    ReplayAccepted,
    /// DATA passed while there was no binding that it could have come by (INV-26).
    UnboundAccepted,
    /// A sending counter went back under one key (INV-36).
    NonceReuse,
    /// A session's name speaks for another session than it was given to (INV-27).
    CrossSessionEffect,
}

impl Violation {
    /// Every kind.
    pub(super) const ALL: [Self; 12] = [
        Self::CheckFailed,
        Self::DualBinding,
        Self::SilentReset,
        Self::VersionRegression,
        Self::PostEndActivity,
        Self::UnboundedRecovery,
        Self::SwitchLimitExceeded,
        Self::AmbiguousOwner,
        Self::ReplayAccepted,
        Self::UnboundAccepted,
        Self::NonceReuse,
        Self::CrossSessionEffect,
    ];

    /// The label.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::CheckFailed => "check_failed",
            Self::DualBinding => "dual_binding",
            Self::SilentReset => "silent_reset",
            Self::VersionRegression => "version_regression",
            Self::PostEndActivity => "post_end_activity",
            Self::UnboundedRecovery => "unbounded_recovery",
            Self::SwitchLimitExceeded => "switch_limit_exceeded",
            Self::AmbiguousOwner => "ambiguous_owner",
            Self::ReplayAccepted => "replay_accepted",
            Self::UnboundAccepted => "unbound_accepted",
            Self::NonceReuse => "nonce_reuse",
            Self::CrossSessionEffect => "cross_session_effect",
        }
    }
}

/// What is remembered of one session to judge its next transition.
#[derive(Debug)]
pub(super) struct Conduct {
    /// The policy in force for it; none if it was not told, and then no limit is judged.
    pub(super) policy: Option<Arc<Policy>>,
    epoch: u64,
    /// Epoch of the active binding.
    bound: Option<u64>,
    /// Whether that is known: not of a session that was taken over, before its first transition.
    bound_known: bool,
    /// The transport that it is on, or was on last.
    transport: Option<TransportId>,
    /// None of a session that never left ATTACHED, as most.
    troubles: Option<Box<Troubles>>,
    last: Option<LastAccount>,
}

/// What is remembered of jumps and recoveries.
#[derive(Debug, Default)]
struct Troubles {
    /// Transports that jumps left, and when; those of one stability window.
    left: VecDeque<(TransportId, Time)>,
    /// Commits of the sliding minute.
    commits: VecDeque<Time>,
    /// When RECOVERING must be left.
    deadline: Option<Time>,
    /// When it was first seen there beyond that.
    overdue: Option<Time>,
}

/// What is remembered of an [`Account`].
#[derive(Debug)]
struct LastAccount {
    identity: SessionIdentity,
    key_epoch: u32,
    sealed: u64,
    received: u64,
    drains: bool,
}

impl Conduct {
    /// Of a session that is in BIRTH, or was taken over from an earlier run.
    pub(super) const fn new(policy: Option<Arc<Policy>>, bound_known: bool) -> Self {
        Self { policy, epoch: 0, bound: None, bound_known, transport: None, troubles: None, last: None }
    }

    /// Judges what the session gives account of, before a transition that comes with it is followed.
    pub(super) fn hear(&mut self, account: &Account, mut tell: impl FnMut(Violation)) {
        let Account { identity, key_epoch, sealed, opened, highest, received, drains } = *account;
        if opened > highest {
            tell(Violation::ReplayAccepted);
        }
        let last = self.last.replace(LastAccount { identity, key_epoch, sealed, received, drains });
        let Some(last) = last else { return };
        if identity != last.identity {
            return tell(Violation::CrossSessionEffect);
        }
        if (key_epoch, sealed) < (last.key_epoch, last.sealed) {
            tell(Violation::NonceReuse);
        }
        let unbound = self.bound_known && self.bound.is_none() && !last.drains;
        if unbound && received != last.received {
            tell(Violation::UnboundAccepted);
        }
    }

    /// Judges a transition and remembers it. What is broken goes to `tell`.
    pub(super) fn follow(&mut self, transition: &Transition, mut tell: impl FnMut(Violation)) {
        let Transition { id, from, to, epoch, at, retired, active, .. } = *transition;
        if epoch < self.epoch || (id == TransitionId::T01 && self.epoch > 0) {
            tell(Violation::SilentReset);
        }
        self.epoch = epoch;
        let after = active.map(|binding| binding.epoch);
        let retired = retired.map(|binding| binding.epoch);
        let replaced = self.bound.is_some() && after.is_some() && after != self.bound;
        let foreign = retired.is_some() && retired != self.bound;
        if self.bound_known && ((replaced && retired.is_none()) || foreign) {
            tell(Violation::DualBinding);
        }
        self.bound = after;
        self.bound_known = true;
        // Of births, and of ends out of ATTACHED, nothing has to be remembered.
        if matches!(from, State::Birth | State::Attached) && matches!(to, State::Attached | State::Terminated) {
            return;
        }
        let troubles = self.troubles.get_or_insert_default();
        if id == TransitionId::T11 {
            if troubles.deadline.is_some_and(|deadline| at > deadline) {
                tell(Violation::UnboundedRecovery);
            }
            let commits = &mut troubles.commits;
            commits.push_back(at);
            while commits.pop_front_if(|commit| at.since(*commit) >= SWITCH_WINDOW).is_some() {}
            let most = self.policy.as_ref().map(|policy| usize::from(policy.switching.max_switches_per_min));
            if most.is_some_and(|most| commits.len() > most) {
                tell(Violation::SwitchLimitExceeded);
            }
        }
        if from != to {
            let window = self.policy.as_ref().map(|policy| policy.switching.recovery_window);
            troubles.deadline = window.filter(|_| to == State::Recovering).map(|window| at + window);
            troubles.overdue = None;
        }
    }

    /// Whether a commit took the session back to a transport that a jump left less than a stability window ago.
    pub(super) fn oscillates(&mut self, transition: &Transition) -> bool {
        let Some(to) = transition.active.map(|binding| binding.transport) else { return false };
        let Some(from) = self.transport.replace(to).filter(|from| *from != to) else { return false };
        let Some(policy) = &self.policy else { return false };
        let (at, window) = (transition.at, policy.volatility.stability_window);
        let left = &mut self.troubles.get_or_insert_default().left;
        while left.pop_front_if(|(_, left)| at.since(*left) >= window).is_some() {}
        let back = left.iter().any(|(transport, _)| *transport == to);
        left.push_back((from, at));
        back
    }

    /// Whether the session stays in RECOVERING although its time there is long over. Said once for each stay.
    pub(super) fn overstays(&mut self, now: Time) -> bool {
        let Some(troubles) = &mut self.troubles else { return false };
        if troubles.deadline.is_none_or(|deadline| now <= deadline) {
            return false;
        }
        let overstays = now.since(*troubles.overdue.get_or_insert(now)) >= LATE;
        if overstays {
            troubles.deadline = None;
        }
        overstays
    }
}

#[cfg(test)]
mod tests {
    use jumpgate_protocol::ident::Tuple;
    use jumpgate_protocol::machine::Binding;
    use jumpgate_protocol::policy::Profile;
    use jumpgate_protocol::reason::Reason;

    use super::*;

    fn conduct() -> Conduct {
        Conduct::new(Some(Arc::new(Policy::profile(Profile::Default))), true)
    }

    fn binding(epoch: u64, transport: u16) -> Binding {
        let peer = "192.0.2.1:1".parse().expect("an address");
        let (transport, tuple) = (TransportId(transport), Tuple { local: peer, peer });
        Binding { tuple, transport, epoch, validated: true, committed_at: Time::ZERO }
    }

    /// A transition at that millisecond, from one binding to another.
    fn transition(
        id: TransitionId,
        (from, to): (State, State),
        (retired, active): (Option<Binding>, Option<Binding>),
        ms: u64,
    ) -> Transition {
        let epoch = active.or(retired).map_or(0, |binding| binding.epoch);
        let at = Time::from_millis(ms);
        let (reason, version) = (Reason::ReattachSuccess, 1);
        Transition { id, from, to, reason, detail: None, evidence: None, version, epoch, at, retired, active }
    }

    const BORN: (State, State) = (State::Birth, State::Attached);
    const STARTED: (State, State) = (State::Volatile, State::Recovering);
    const JUMPED: (State, State) = (State::Recovering, State::Attached);

    fn account() -> Account {
        let identity = SessionIdentity([1; 16]);
        Account { identity, key_epoch: 1, sealed: 10, opened: 7, highest: 9, received: 20, drains: false }
    }

    /// What is wrong with the second of two accounts.
    fn heard(conduct: &mut Conduct, first: Account, second: Account) -> Vec<Violation> {
        let mut told = Vec::new();
        conduct.hear(&first, |violation| told.push(violation));
        assert!(told.is_empty(), "the first");
        conduct.hear(&second, |violation| told.push(violation));
        told
    }

    fn told(conduct: &mut Conduct, transition: &Transition) -> Vec<Violation> {
        let mut told = Vec::new();
        conduct.follow(transition, |violation| told.push(violation));
        told
    }

    #[test]
    fn inv01_a_second_binding_beside_an_active_one_is_a_violation_and_a_replaced_one_is_not() {
        let (first, second) = (binding(1, 1), binding(2, 2));
        let mut good = conduct();
        assert!(told(&mut good, &transition(TransitionId::T01, BORN, (None, Some(first)), 0)).is_empty());
        assert!(told(&mut good, &transition(TransitionId::T11, JUMPED, (Some(first), Some(second)), 1)).is_empty());
        let mut bad = conduct();
        let _ = told(&mut bad, &transition(TransitionId::T01, BORN, (None, Some(first)), 0));
        let beside = transition(TransitionId::T11, JUMPED, (None, Some(second)), 1);
        assert_eq!(told(&mut bad, &beside), [Violation::DualBinding]);
        let stranger = transition(TransitionId::T11, JUMPED, (Some(binding(7, 7)), Some(binding(8, 1))), 2);
        assert_eq!(told(&mut bad, &stranger), [Violation::DualBinding], "it was not the active one");
    }

    #[test]
    fn inv03_inv06_an_epoch_that_goes_back_or_a_second_birth_is_a_reset() {
        let mut conduct = conduct();
        let born = transition(TransitionId::T01, BORN, (None, Some(binding(1, 1))), 0);
        assert!(told(&mut conduct, &born).is_empty());
        let (old, new) = (binding(1, 1), binding(2, 2));
        let _ = told(&mut conduct, &transition(TransitionId::T11, JUMPED, (Some(old), Some(new)), 1));
        let back = transition(TransitionId::T11, JUMPED, (Some(new), Some(old)), 2);
        assert_eq!(told(&mut conduct, &back), [Violation::SilentReset]);
        let again = transition(TransitionId::T01, BORN, (None, Some(old)), 3);
        assert_eq!(told(&mut conduct, &again), [Violation::SilentReset]);
    }

    #[test]
    fn inv15_one_commit_more_within_a_minute_than_the_policy_allows_is_a_violation() {
        let mut conduct = conduct();
        let most = u64::from(Policy::profile(Profile::Default).switching.max_switches_per_min);
        let jump = |n: u64, ms| {
            let old = (n > 0).then(|| binding(n, 1));
            transition(TransitionId::T11, JUMPED, (old, Some(binding(n + 1, 1))), ms)
        };
        for n in 0..most {
            assert!(told(&mut conduct, &jump(n, n)).is_empty());
        }
        assert!(told(&mut conduct, &jump(most, 60_000)).is_empty(), "the first is out of the window");
        assert_eq!(told(&mut conduct, &jump(most + 1, 60_000)), [Violation::SwitchLimitExceeded]);
    }

    #[test]
    fn inv16_a_jump_after_the_deadline_and_a_stay_without_end_are_violations() {
        let window = Policy::profile(Profile::Default).switching.recovery_window.as_millis();
        let start = transition(TransitionId::T08, STARTED, (None, None), 0);
        let jump = |ms| transition(TransitionId::T11, JUMPED, (None, Some(binding(1, 1))), ms);
        for (ms, expected) in [(window, vec![]), (window + 1, vec![Violation::UnboundedRecovery])] {
            let mut conduct = conduct();
            assert!(told(&mut conduct, &start).is_empty());
            assert_eq!(told(&mut conduct, &jump(ms)), expected);
        }
        let mut conduct = conduct();
        let _ = told(&mut conduct, &start);
        let seen = window + 60_000;
        let late = LATE.as_millis();
        let looks = [window, seen, seen + late - 1, seen + late, seen + 2 * late];
        let found = looks.map(|ms| conduct.overstays(Time::from_millis(ms)));
        assert_eq!(found, [false, false, false, true, false], "a machine that slept is no defect, and once is enough");
    }

    #[test]
    fn ar3_inv36_counters_that_do_not_fit_their_packets_are_violations() {
        let (first, bound) = (account(), transition(TransitionId::T01, BORN, (None, Some(binding(1, 1))), 0));
        let cases = [
            (Account { sealed: 11, opened: 9, received: 22, ..first }, vec![]),
            (Account { key_epoch: 2, sealed: 0, opened: 0, highest: 0, ..first }, vec![]),
            (Account { sealed: 9, ..first }, vec![Violation::NonceReuse]),
            (Account { key_epoch: 0, sealed: 11, ..first }, vec![Violation::NonceReuse]),
            (Account { opened: 10, ..first }, vec![Violation::ReplayAccepted]),
        ];
        for (second, expected) in cases {
            let mut conduct = conduct();
            assert!(told(&mut conduct, &bound).is_empty());
            assert_eq!(heard(&mut conduct, first, second), expected, "{second:?}");
        }
    }

    #[test]
    fn inv26_data_that_passed_without_a_binding_is_a_violation_unless_the_former_one_still_drains() {
        let (bound, dead) = (Some(binding(1, 1)), (State::Attached, State::Volatile));
        let later = Account { received: 21, ..account() };
        for (bound_after, drains, expected) in
            [(bound, false, vec![]), (None, true, vec![]), (None, false, vec![Violation::UnboundAccepted])]
        {
            let mut conduct = conduct();
            let _ = told(&mut conduct, &transition(TransitionId::T01, BORN, (None, bound), 0));
            let retired = bound.filter(|_| bound_after.is_none());
            assert!(told(&mut conduct, &transition(TransitionId::T04, dead, (retired, bound_after), 1)).is_empty());
            assert_eq!(heard(&mut conduct, Account { drains, ..account() }, later), expected);
        }
    }

    #[test]
    fn inv27_a_name_that_speaks_for_another_session_is_a_violation() {
        let other = Account { identity: SessionIdentity([2; 16]), sealed: 0, ..account() };
        assert_eq!(heard(&mut conduct(), account(), other), [Violation::CrossSessionEffect], "and nothing is compared");
    }

    #[test]
    fn only_a_return_within_the_stability_window_is_an_oscillation() {
        let window = Policy::profile(Profile::Default).volatility.stability_window.as_millis();
        let on = |transport, ms| transition(TransitionId::T11, JUMPED, (None, Some(binding(1, transport))), ms);
        for (back_after, oscillates) in [(window - 1, true), (window, false)] {
            let mut conduct = conduct();
            assert!(!conduct.oscillates(&on(1, 0)), "the first one");
            assert!(!conduct.oscillates(&on(1, 1)), "the same path, proved again");
            assert!(!conduct.oscillates(&on(2, 10)), "left 1");
            assert_eq!(conduct.oscillates(&on(1, 10 + back_after)), oscillates);
        }
    }
}
