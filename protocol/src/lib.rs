//! x
#![forbid(unsafe_code)]
pub mod entropy;
pub mod ident;
pub mod reason;
pub mod time;
