//! The hand-over of a planned restart: what is read under a good seal may still be anything (INV-29, OW-10).

use std::sync::OnceLock;

use jumpgate_protocol::crypto::DefaultAead;
use jumpgate_protocol::gateway::Circumstances;
use jumpgate_protocol::ident::{Arrival, TransportId, Tuple};
use jumpgate_protocol::keys::{EpochKeys, Side};
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::time::Span;
use jumpgate_protocol::wire::{Body, Header, HelloConfirm};

use crate::gateway::{GATEWAY, Gateway};
use crate::script::Script;
use crate::seal::{plaintext, seal};

/// Sessions of the gateway that ends: one confirmed, one not.
const SESSIONS: usize = 2;
/// Most places that are changed in what it wrote.
const CHANGES_MAX: u8 = 4;
/// How the next run goes on: times at which it looks at its timers, in milliseconds.
const LOOKS: [u64; 4] = [10, 2_000, 30_000, 100_000_000];
/// What a script begins with if the bytes after it are to be the file itself.
const RAW: u8 = 255;

/// The gateway that ends: without anything random of its own.
fn gateway() -> Gateway {
    let mut gateway = Gateway::new(Policy::profile(Profile::Default), SESSIONS);
    let from = |port| ([100, 64, 0, 1], port).into();
    let guest = gateway.handshake(0, from(4_001));
    let keys = EpochKeys::<DefaultAead>::derive(&guest.root, 0, &guest.identity, Side::Client);
    let confirm = HelloConfirm { binding_epoch: 1, handshake_hash: guest.handshake_hash, transport_id: TransportId(1) };
    let header =
        Header { kind: HelloConfirm::KIND, flags: 0, key_epoch: 0, tag: 0, locator: guest.locator, counter: 1 };
    let mut packet = seal(&keys.control_seal, &header, &plaintext(&confirm));
    let arrival = Arrival { tuple: Tuple { local: GATEWAY, peer: from(4_001) }, route: 1, queue: 0 };
    gateway.shard.control_in(gateway.now, &arrival, &mut packet).expect("keys are confirmed");
    gateway.handshake(1, from(4_002));
    while gateway.poll_event().is_some() {}
    gateway
}

fn here(gateway: &Gateway) -> Circumstances {
    Circumstances { boot: [1; 16], file: (2, 3), now: gateway.now }
}

/// What it writes, in the clear.
fn written() -> &'static [u8] {
    static WRITTEN: OnceLock<Vec<u8>> = OnceLock::new();
    WRITTEN.get_or_init(|| plain(&mut gateway()))
}

fn plain(gateway: &mut Gateway) -> Vec<u8> {
    let here = here(gateway);
    let part = gateway.shard.hand_over();
    let mut sealed = gateway.desk.hand_over(&here, &[part]);
    here.open(&gateway.secret, Span::ZERO, &mut sealed).expect("just sealed").0.to_vec()
}

/// Places and values to be written over the honest bytes; or the file itself.
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut next = Gateway::new(Policy::profile(Profile::Default), SESSIONS);
    let here = here(&next);
    let sealed = match script.byte() {
        RAW => script.bytes(usize::MAX).to_vec(),
        changes => {
            let mut plain = written().to_vec();
            for _ in 0..changes % (CHANGES_MAX + 1) {
                let (at, value) = (usize::from(script.word()), script.byte());
                let len = plain.len();
                plain[at % len] = value;
            }
            let plain = script.deface(plain);
            here.seal(&next.secret, &plain, &mut crate::entropy(5))
        }
    };
    match next.desk.take_over(&here, sealed.into()) {
        Err(error) => {
            assert!(next.desk.is_empty(), "whole or not at all");
            assert!(!error.to_string().is_empty());
        }
        Ok(heirs) => {
            assert_eq!(heirs.len(), next.desk.len());
            heirs.into_iter().for_each(|heir| next.shard.take_over(next.now, heir));
            go_on(&mut next);
        }
    }
}

/// Whatever came out is a gateway that runs, and that can hand over what it took.
fn go_on(next: &mut Gateway) {
    while let Some((locator, change)) = next.desk.poll_change() {
        next.shard.change_policy(next.now, locator, change);
    }
    for look in LOOKS {
        next.now += Span::from_millis(look);
        next.shard.timeout(next.now);
        while next.poll_event().is_some() {}
        while next.shard.poll_reply().is_some() {}
        let _views = next.shard.views(next.now);
        let again = here(next);
        let part = next.shard.hand_over();
        let sealed = next.desk.hand_over(&again, &[part]);
        let mut third = Gateway::new(Policy::profile(Profile::Default), SESSIONS);
        third.now = next.now;
        let heirs = third.desk.take_over(&again, sealed.into());
        assert_eq!(heirs.map(|heirs| heirs.len()), Ok(next.shard.len()), "what was taken over can be handed on");
    }
}

/// The honest one, cut and changed ones, and files that are none.
pub fn seeds() -> Vec<Vec<u8>> {
    let sealed = here(&gateway()).seal(&gateway().secret, written(), &mut crate::entropy(5));
    let mut other = sealed.clone();
    other[9] = 9;
    vec![
        vec![0],
        vec![1, 0, 40, 1],
        vec![2, 1, 0, 255, 2, 0, 128],
        vec![3, 0, 3, 2, 0, 90, 7, 4, 0, 1],
        vec![0, 0, crate::script::CUT, 200],
        vec![0, 0, crate::script::GROW, 3],
        [&[RAW][..], &sealed[..100]].concat(),
        [&[RAW][..], &other[..120]].concat(),
        [&[RAW][..], b"JGHANDOV"].concat(),
    ]
}
