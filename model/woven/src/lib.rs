//! The sources of `jumpgate-protocol`, compiled once more for the model checker.
//!
//! A model checker must clone a state and tell whether it has seen it. The product must not: keys that can be copied
//! and hashed have no place in it. So the build script copies the sources and adds what is needed ([`weave`]): `Clone`
//! and `Hash` on whatever holds state, the portable cipher (the same that serves as oracle in the product's tests; keys
//! of aws-lc-rs cannot be cloned), and the mutants of [`mutant`], each behind a switch that is off. The product is
//! compiled from the sources as they stand and has none of this.
//!
//! [`weave`]: ../build.rs

#![allow(missing_docs, clippy::all)]

pub mod mutant;
pub mod statistic;

include!(concat!(env!("OUT_DIR"), "/protocol/lib.rs"));
