//! Audit traces as the verifier reads them: files that a crash cut, or somebody edited.

use std::net::SocketAddr;

use jumpgate_audit::chain::{Author, ChainLines, Role, TimeAnchor};
use jumpgate_audit::verify::{Options, verify_bytes};
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::time::{Span, Time};

use crate::gateway::Gateway;

/// The wall clock of the traces that are made here: 2026-01-01.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// Judges one file.
pub fn run(bytes: &[u8]) {
    for closed in [false, true] {
        let options = Options { closed, ..Options::default() };
        let (report, violations) = verify_bytes(bytes, &options);
        assert!(violations.iter().all(|violation| !violation.to_string().is_empty()));
        assert!(serde_json::to_string(&report).is_ok(), "a report can be written");
        assert_eq!(verify_bytes(bytes, &options), (report, violations), "the same bytes, the same judgement");
    }
}

/// Traces of sessions that the real gateway served, written by the real writer.
pub fn seeds() -> Vec<Vec<u8>> {
    let place = |number: u8| SocketAddr::from(([100, 64, 0, number], 1_024));
    let mut gateway = Gateway::new(Policy::profile(Profile::Fast), 2);
    let author = Author { role: Role::Gateway, node_id: "node-1".to_owned() };
    let mut lines = ChainLines::new(author, "boot-1".to_owned(), TimeAnchor::new(Time::ZERO, EPOCH_MS));
    let mut trace = Vec::new();
    lines.start(&mut trace, Some(gateway.now), 0);
    (0..2).for_each(|client| drop(gateway.handshake(client, place(client as u8))));
    // Unconfirmed, both end when their time is over.
    gateway.now += Span::from_millis(30_000);
    gateway.shard.timeout(gateway.now);
    while gateway.poll_event().is_some() {}
    while let Some(record) = gateway.desk.poll_record() {
        lines.record(&mut trace, None, &record);
    }
    while let Some(record) = gateway.shard.poll_record() {
        lines.record(&mut trace, Some(0), &record);
    }
    let records = trace.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
    let unfinished = trace.clone();
    lines.end(&mut trace, Some(gateway.now), records);
    let cut = trace[..trace.len() * 2 / 3].to_vec();
    vec![trace, unfinished, cut]
}
