//! What must hold: the invariants of the specification that can be seen from outside of both ends, by their ids.

macro_rules! laws {
    ($($name:ident $text:literal,)+) => {
        /// A law that a run can break.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the text says it")]
        pub enum Law { $($name,)+ }

        impl Law {
            /// Every law.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Ids and meaning.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

laws! {
    OneBinding "INV-01, INV-26, INV-34: DATA is taken from the active binding and, while it drains, the retiring one; from nowhere else",
    Attached "INV-02: ATTACHED has a binding; BIRTH and TERMINATED have none",
    Identity "INV-03, INV-04, INV-28: one session from beginning to end, never lost or made anew in silence",
    Version "INV-05: the version rises by one with each transition",
    Epoch "INV-06: the epoch rises by one with each commit; another epoch than the current one moves nothing",
    Explicit "INV-07, INV-08: every change is one listed transition with one event",
    Final "INV-10: TERMINATED is final",
    MadeByCommit "INV-11, INV-26, INV-35: only a confirmed handshake or a REATTACH_REQUEST makes a binding",
    Replay "INV-12: a replay changes nothing at all",
    Whole "INV-13: the chain of a reattach runs to its commit or not at all",
    Refusal "INV-14: a refusal leaves state, version, epoch and binding as they were",
    SwitchRate "INV-15: switch rate and cooldown hold",
    Recovering "INV-16, TB-05: RECOVERING is bounded",
    Volatile "TB-08: VOLATILE is bounded",
    Transportless "INV-17: the time without a transport is bounded",
    Lifetime "INV-18: the age is bounded",
    NoDeath "INV-19: no session ends before a limit is reached or an end wants it",
    Attempts "INV-25: every stay in RECOVERING closes once",
    Unauthenticated "INV-31: what is not authentic changes nothing and gets no longer answer than it was",
    Generation "INV-32: what concerns an older generation touches no newer binding",
    Amplification "INV-33: three bytes to an unvalidated binding for each from it",
    Outbound "INV-34, BD-2: DATA goes to the active binding and nowhere else",
    Nonces "INV-36: no counter seals twice",
    Validation "PV-3, TB-06: a binding is validated by its own path in time, or lost",
    Mirror "RS-7: the client is never ahead of its gateway, and where both are at one epoch they mean one path",
    Recovers "L-1, L-3, L-4: with the network well again, both ends get back together",
    Ends "L-2: every session ends by time alone",
}
