//! What the fuzzers run: one function over bytes for everything that reads what others wrote (A14).
//!
//! The functions know nothing of a fuzzer. `cargo fuzz` runs them with coverage feedback (`fuzz/fuzz_targets`); a plain
//! `cargo test` on stable Rust runs them over the seeds, over the corpus (`fuzz/corpus/TARGET`), and over mutations of
//! both. A function that returns has found nothing; what it finds is a panic, of the code or of an assertion here.
//!
//! | Module | What is fuzzed |
//! |---|---|
//! | [`wire`], [`frames`], [`policy`] | parsers: bytes in, a value or a refusal out |
//! | [`handshake`] | the gateway's half of the handshake, behind a valid gate MAC |
//! | [`handover`] | what a gateway reads of the run before, under a good seal and a broken one |
//! | [`session`] | the gateway's sessions, by a peer that holds the keys |
//! | [`client`] | the client, by a gateway that holds the keys |
//! | [`world`] | both, over a network that the script controls |
//! | [`files`] | what operators and users write |
//! | [`audit`] | traces that were cut or edited |
//!
//! Those with state read their bytes as a [`script`].

#![forbid(unsafe_code)]

pub mod audit;
pub mod client;
pub mod corpus;
pub mod files;
pub mod frames;
pub mod gateway;
pub mod handover;
pub mod handshake;
pub mod mutate;
pub mod policy;
pub mod script;
pub mod seal;
pub mod session;
pub mod wire;
pub mod world;

use jumpgate_protocol::entropy::SeededEntropy;

/// Something to be fuzzed.
pub struct Target {
    /// Its name, also of its corpus and its `cargo fuzz` target.
    pub name: &'static str,
    /// What it reads.
    pub about: &'static str,
    /// Runs one input.
    pub run: fn(&[u8]),
    /// Where fuzzing starts from: made by the real encoders, the same each time.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Longest input of use, in bytes.
    pub longest: usize,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("wire", "headers, bodies and handshake payloads", wire::run, wire::seeds, 1_400),
    target("frames", "Ethernet frames, as XDP and workers read them", frames::run, frames::seeds, 256),
    target("policy", "policy snapshots and requests to narrow", policy::run, policy::seeds, 700),
    target("handshake", "HELLO_INIT behind a valid gate MAC", handshake::run, handshake::seeds, 1_500),
    target("handover", "what a gateway hands over to its next run", handover::run, handover::seeds, 2_000),
    target("session", "a live session at the gateway", session::run, session::seeds, 2_000),
    target("client", "a live session at the client", client::run, client::seeds, 2_000),
    target("world", "both ends and the network between them", world::run, world::seeds, 600),
    target("keys", "key files and the hello counter", files::keys, files::key_seeds, 400),
    target("gateway_config", "gateway.toml", files::gateway_config, files::gateway_config_seeds, 4_096),
    target("client_config", "jump.toml", files::client_config, files::client_config_seeds, 4_096),
    target("requests", "what is asked at the control sockets", files::requests, files::request_seeds, 1_024),
    target("audit", "audit traces, as the verifier reads them", audit::run, audit::seeds, 8_192),
];

const fn target(
    name: &'static str,
    about: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
    longest: usize,
) -> Target {
    Target { name, about, run, seeds, longest }
}

/// Randomness that is the same each time.
pub fn entropy(seed: u64) -> SeededEntropy {
    SeededEntropy::new(seed)
}
