//! What a session with a secret in every place writes: none of it (INV-30, OB-12).

use jumpgate_protocol::audit::{Record, Value};
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::time::Span;

use crate::{World, WorldConfig};

/// Stands in every payload.
const CANARY: &[u8] = b"canary-in-the-payload";

/// Everything that a writer could make of a record: its fields, and whatever else its memory holds in words.
fn text(record: &Record) -> String {
    let mut text = format!("{record:?}");
    record.event.each_field(|name, value| {
        text += &format!(" {name}={value:?}");
        if let Value::Hex(bytes) = value {
            text += &hex(&bytes);
        }
    });
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How eight bytes would show: as text, in hexadecimal, as a list of numbers, as a number.
fn shapes(secret: &[u8]) -> Vec<String> {
    let mut shapes = Vec::new();
    for window in secret.windows(8) {
        let number: [u8; 8] = window.try_into().unwrap();
        shapes.push(hex(window));
        shapes.push(format!("{window:?}").trim_matches(['[', ']']).to_owned());
        shapes.push(u64::from_be_bytes(number).to_string());
        shapes.push(u64::from_le_bytes(number).to_string());
    }
    shapes.extend(std::str::from_utf8(secret).map(str::to_owned));
    shapes
}

#[test]
fn inv30_no_key_payload_identity_or_address_reaches_a_record() {
    let policy = Policy::profile(Profile::Fast);
    let config = WorldConfig { seed: 30, workers: 1, policy: policy.clone() };
    let mut world = World::new(&config, 1, 2);
    world.records.keep();
    world.connect_now(0);
    assert!(world.client(0).client.is_connected());
    for path in [1, 2, 1] {
        world.link_down(0, path);
        for _ in 0..20 {
            let _ = world.send_up(0, CANARY);
            let _ = world.send_down(0, CANARY);
            world.run_for(Span::from_millis(50));
        }
        world.link_up(0, path);
        world.run_for(Span::from_millis(1_000));
    }
    let mut forged = vec![0x15, 0x10];
    forged.extend_from_slice(CANARY);
    world.inject("198.51.100.99:4500".parse().unwrap(), &forged);
    world.run_for(Span::from_millis(100));
    world.disconnect(0);
    world.run_for(Span::from_millis(1_000));

    let mut secrets: Vec<Vec<u8>> = vec![CANARY.to_vec()];
    for secret in world.secrets() {
        secrets.push(secret.as_bytes().to_vec());
        secrets.push(secret.public().0.to_vec());
    }
    let shapes: Vec<String> = secrets.iter().flat_map(|secret| shapes(secret)).collect();
    let addresses = ["198.51.100", "192.0.2.1", "100.64.", "10.0.0."];
    let written: Vec<String> = world.records.kept().iter().map(|(_, record)| text(record)).collect();
    assert!(written.len() > 60, "{} records", written.len());
    for line in &written {
        let found = shapes.iter().find(|shape| line.contains(shape.as_str()));
        assert_eq!(found, None, "in {line}");
        assert!(!addresses.iter().any(|address| line.contains(address)), "an address in {line}");
    }
    // The search finds what is there.
    let planted = format!("{} {:?}", hex(&CANARY[..12]), &CANARY[..12]);
    assert!(shapes.iter().filter(|shape| planted.contains(shape.as_str())).count() >= 2);
}
