//! What the verifier rejects, by code.

use std::fmt;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $Code:ident $text:literal,)+) => {
        /// Why a trace is INVALID.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $($(#[doc = $doc])+ $Code,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$Code,)+];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$Code => $text,)+
                }
            }
        }
    };
}

codes! {
    /// A record lacks a required field, has one of another form, or has a name that is not in the catalogue.
    Schema "V-SCHEMA",
    /// The chain is broken: a changed, inserted, removed, swapped or doubled line, or another head than the one given.
    Chain "V-CHAIN",
    /// A version is skipped, repeated or lowered, or a record carries another one than its session has.
    Version "V-VERSION",
    /// A state is left that was not entered, or a record names another state than its session has.
    State "V-STATE",
    /// An edge is not in the transition table.
    Edge "V-EDGE",
    /// A primary reason is missing, doubled, or none of its edge.
    Reason "V-REASON",
    /// A session has no birth, two, or that of another one.
    Birth "V-BIRTH",
    /// A session goes on after its end, ends without its last record, or with wrong totals.
    End "V-END",
    /// Bindings do not add up: two at once, none in ATTACHED, one that was never made, or an epoch that moved alone.
    Bind "V-BIND",
    /// A recovery attempt is not opened, not closed, or closed twice.
    Attempt "V-ATTEMPT",
    /// More switches than the limits allow.
    Rate "V-RATE",
    /// Time runs backwards, or a bound of time was not kept.
    Time "V-TIME",
    /// Two owners, or a superseded one.
    Owner "V-OWNER",
    /// A commit without both of its checks, or one that failed.
    Check "V-CHECK",
    /// A record claims that a live session was reset or renegotiated.
    Marker "V-MARKER",
    /// A text that must never be recorded.
    Leak "V-LEAK",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
