//! Placeholder until the crate lands in this session.
fn main() {}
