//! A network laboratory in namespaces: a client with two uplinks, each behind its own NAT, a gateway and a server, on
//! one machine and without touching its own network.
//!
//! [`topology::Lab`] builds it and takes it down, [`run::Run`] makes sure that nothing of it stays behind,
//! [`relay`] spoils its paths on demand, [`http`] and [`probe`] measure what gets through.

#![forbid(unsafe_code)]
#![expect(clippy::cast_precision_loss, reason = "counts and times become floats only to be shown or drawn")]

/// Prints a line, as `println!` does. A reader that went away, as in `jumpgate-lab e2e | head`, misses the rest and
/// stops nothing: what was started is still brought to its end, and the exit code still tells.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

pub(crate) mod attacker;
pub mod demo;
pub mod e2e;
pub mod http;
pub mod namespace;
pub mod ping;
pub mod probe;
pub mod programs;
pub mod relay;
pub mod run;
pub mod topology;
