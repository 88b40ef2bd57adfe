//! Verdicts and counters of the kernel, frame by frame; and against the native build of the same decision.

use std::cell::RefCell;
use std::collections::HashSet;

use aya::TestRunOptions;
use jumpgate_common::steer::{self, InsideTables, OutsideTables};
use jumpgate_common::{Address, Counter, InsideConfig, NO_WORKER, OutsideConfig, PASS_TO_HOST, Verdict, maps};
use jumpgate_protocol::wire::MessageType;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::frames::{Frame, message};
use super::*;

/// Smallest frame that BPF_PROG_TEST_RUN takes: an Ethernet header.
const TEST_RUN_MIN: usize = 14;
/// Random frames for each program. Each costs three dozen system calls.
const RANDOM_FRAMES: u32 = 2000;

#[test]
fn data_and_heartbeat_go_to_the_worker_of_their_slot_over_every_encapsulation() {
    let Some(mut kernel) = Kernel::load() else { return };
    for kind in [0x15, 0x16] {
        for tags in 0..=2 {
            for options in [0, 4, 40] {
                let frame = Frame { tags, options, payload: message(kind, SLOT), ..Frame::v4() };
                assert_eq!(
                    kernel.run(Side::Outside, &frame.build()),
                    (Action::Redirect, Counter::OutsideSteered),
                    "{frame:?}"
                );
            }
            let frame = Frame { tags, payload: message(kind, SLOT), ..Frame::v6() };
            assert_eq!(
                kernel.run(Side::Outside, &frame.build()),
                (Action::Redirect, Counter::OutsideSteered),
                "{frame:?}"
            );
        }
    }
}

#[test]
fn every_other_message_passes_to_the_slow_path() {
    let Some(mut kernel) = Kernel::load() else { return };
    // WireGuard's types and nonsense as well: the slow path counts what it does not know.
    let control = MessageType::ALL.iter().filter(|kind| !matches!(kind, MessageType::Data | MessageType::Heartbeat));
    for kind in control.map(|&kind| kind as u8).chain([0, 1, 2, 3, 4, 0xff]) {
        for base in [Frame::v4(), Frame::v6()] {
            let frame = Frame { payload: message(kind, SLOT), ..base };
            assert_eq!(kernel.run(Side::Outside, &frame.build()), (Action::Pass, Counter::OutsideControl), "{kind:#x}");
        }
    }
}

#[test]
fn what_is_not_ours_passes_untouched() {
    let Some(mut kernel) = Kernel::load() else { return };
    let other = (Action::Pass, Counter::OutsideOther);
    assert_eq!(kernel.run(Side::Outside, &Frame { port: PORT + 1, ..Frame::v4() }.build()), other);
    assert_eq!(kernel.run(Side::Outside, &Frame { port: PORT + 1, ..Frame::v6() }.build()), other);

    let mut arp = Frame::v4().build();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(kernel.run(Side::Outside, &arp), other);

    let mut tcp = Frame::v4().build();
    tcp[Frame::v4().l3() + 9] = 6;
    assert_eq!(kernel.run(Side::Outside, &tcp), other);

    let mut extension = Frame::v6().build();
    extension[Frame::v6().l3() + 6] = 0;
    assert_eq!(kernel.run(Side::Outside, &extension), other, "IPv6 extension headers are not followed");

    let mapped = Frame { destination: "::ffff:192.0.2.1".parse().unwrap(), ..Frame::v6() };
    assert_eq!(kernel.run(Side::Outside, &mapped.build()), other, "an IPv4 address of ours, but in an IPv6 packet");

    let mut three_tags = Frame { tags: 2, ..Frame::v4() }.build();
    three_tags.splice(12..12, [0x81, 0, 0, 7]);
    assert_eq!(kernel.run(Side::Outside, &three_tags), other);
}

#[test]
fn our_port_on_another_hosts_address_passes() {
    let Some(mut kernel) = Kernel::load() else { return };
    for (base, address) in [(Frame::v4(), "192.0.2.2"), (Frame::v6(), "2001:db8::2")] {
        let frame = Frame { destination: address.parse().unwrap(), ..base };
        assert_eq!(
            kernel.run(Side::Outside, &frame.build()),
            (Action::Pass, Counter::OutsideOtherAddress),
            "{address}"
        );
    }
    kernel.steering.remove_local(LOCAL_V4.into()).unwrap();
    assert_eq!(kernel.run(Side::Outside, &Frame::v4().build()), (Action::Pass, Counter::OutsideOtherAddress));
    kernel.steering.remove_local(LOCAL_V4.into()).expect("removing it twice is no error");
}

#[test]
fn a_first_fragment_to_our_port_is_dropped_and_a_later_one_passes() {
    let Some(mut kernel) = Kernel::load() else { return };
    let first = Frame { fragment: (true, 0), ..Frame::v4() };
    assert_eq!(kernel.run(Side::Outside, &first.build()), (Action::Drop, Counter::OutsideFragment));
    for fragment in [(true, 8), (false, 8)] {
        let later = Frame { fragment, ..Frame::v4() };
        assert_eq!(kernel.run(Side::Outside, &later.build()), (Action::Pass, Counter::OutsideOther));
    }
}

#[test]
fn a_frame_cut_at_any_length_passes_before_its_ports_and_is_dropped_behind_them() {
    let Some(mut kernel) = Kernel::load() else { return };
    for frame in [Frame::v4(), Frame { tags: 2, options: 12, ..Frame::v4() }, Frame { tags: 1, ..Frame::v6() }] {
        let bytes = frame.build();
        for length in TEST_RUN_MIN..bytes.len() {
            let expected = if length < frame.l4() + 8 {
                (Action::Pass, Counter::OutsideOther)
            } else {
                (Action::Drop, Counter::OutsideTruncated)
            };
            assert_eq!(kernel.run(Side::Outside, &bytes[..length]), expected, "{length} of {frame:?}");
        }
    }
}

#[test]
fn padding_behind_the_ip_packet_changes_nothing() {
    let Some(mut kernel) = Kernel::load() else { return };
    let short = Frame { payload: message(0x15, SLOT)[..36].to_vec(), ..Frame::v4() };
    let mut bytes = short.build();
    bytes.extend([0; 100]);
    assert_eq!(kernel.run(Side::Outside, &bytes), (Action::Redirect, Counter::OutsideSteered));
}

#[test]
fn a_message_shorter_than_header_and_tag_is_dropped_whatever_padding_follows() {
    let Some(mut kernel) = Kernel::load() else { return };
    for length in 0..36 {
        let frame = Frame { payload: message(0x15, SLOT)[..length].to_vec(), ..Frame::v4() };
        let mut bytes = frame.build();
        bytes.extend([0x15; 100]);
        assert_eq!(kernel.run(Side::Outside, &bytes), (Action::Drop, Counter::OutsideMalformed), "{length}");
    }
}

#[test]
fn lengths_that_contradict_are_dropped() {
    let Some(mut kernel) = Kernel::load() else { return };
    for frame in [Frame::v4(), Frame::v6()] {
        for udp_length in [0, 7, u16::try_from(frame.payload.len()).unwrap() + 9] {
            let mut bytes = frame.build();
            bytes[frame.l4() + 4..frame.l4() + 6].copy_from_slice(&udp_length.to_be_bytes());
            assert_eq!(kernel.run(Side::Outside, &bytes), (Action::Drop, Counter::OutsideMalformed), "{udp_length}");
        }
    }
}

#[test]
fn another_protocol_version_is_dropped() {
    let Some(mut kernel) = Kernel::load() else { return };
    for version in (0..16).filter(|&version| version != 1) {
        let mut payload = message(0x15, SLOT);
        payload[1] = version << 4;
        let frame = Frame { payload, ..Frame::v4() };
        assert_eq!(kernel.run(Side::Outside, &frame.build()), (Action::Drop, Counter::OutsideBadVersion));
    }
}

#[test]
fn a_slot_without_a_worker_is_dropped_until_it_gets_one() {
    let Some(mut kernel) = Kernel::load() else { return };
    let frame = Frame { payload: message(0x15, SLOT + 1), ..Frame::v4() }.build();
    assert_eq!(kernel.run(Side::Outside, &frame), (Action::Drop, Counter::OutsideUnknownSlot));
    kernel.steering.set_slot(SLOT + 1, Some(WORKER)).unwrap();
    assert_eq!(kernel.run(Side::Outside, &frame), (Action::Redirect, Counter::OutsideSteered));
    kernel.steering.set_slot(SLOT + 1, Some(WORKERS)).unwrap();
    assert_eq!(kernel.run(Side::Outside, &frame), (Action::Drop, Counter::OutsideUnknownSlot), "no such worker");
    kernel.steering.set_slot(SLOT + 1, None).unwrap();
    assert_eq!(kernel.run(Side::Outside, &frame), (Action::Drop, Counter::OutsideUnknownSlot));
}

#[test]
fn a_worker_without_a_socket_loses_its_packets_but_never_to_the_kernel() {
    let Some(mut kernel) = Kernel::load() else { return };
    kernel.steering.set_slot(SLOT, Some(0)).unwrap();
    assert_eq!(kernel.run(Side::Outside, &Frame::v4().build()), (Action::Drop, Counter::OutsideNoWorker));
    kernel.steering.set_client(CLIENT, Some(0)).unwrap();
    let inside = Frame { destination: pool_v4(CLIENT), ..Frame::v4() };
    assert_eq!(kernel.run(Side::Inside, &inside.build()), (Action::Drop, Counter::InsideNoWorker));
    kernel._sockets.clear();
    kernel.steering.set_slot(SLOT, Some(WORKER)).unwrap();
    assert_eq!(
        kernel.run(Side::Outside, &Frame::v4().build()),
        (Action::Drop, Counter::OutsideNoWorker),
        "it has died"
    );
}

#[test]
fn packets_for_clients_go_to_their_worker_and_all_else_passes() {
    let Some(mut kernel) = Kernel::load() else { return };
    let steered = (Action::Redirect, Counter::InsideSteered);
    let other = (Action::Pass, Counter::InsideOther);
    let unassigned = (Action::Drop, Counter::InsideUnassigned);
    for address in [pool_v4, pool_v6] {
        for tags in 0..=2 {
            let to = |index| Frame { tags, destination: address(index), ..Frame::v4() }.build();
            assert_eq!(kernel.run(Side::Inside, &to(CLIENT)), steered);
            assert_eq!(kernel.run(Side::Inside, &to(CLIENT + 1)), unassigned);
            assert_eq!(kernel.run(Side::Inside, &to(POOL_SIZE - 1)), unassigned);
            assert_eq!(kernel.run(Side::Inside, &to(HOST)), other);
            assert_eq!(kernel.run(Side::Inside, &to(POOL_SIZE)), other);
        }
    }
    for address in ["10.65.255.255", "fd65:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fd66::1:0:5", "::ffff:10.66.0.5"] {
        let frame = Frame { destination: address.parse().unwrap(), ..Frame::v4() };
        assert_eq!(kernel.run(Side::Inside, &frame.build()), other, "{address}");
    }
    let fragment = Frame { destination: pool_v4(CLIENT), fragment: (true, 64), ..Frame::v4() };
    assert_eq!(kernel.run(Side::Inside, &fragment.build()), steered, "fragments are the client's business");
}

#[test]
fn neighbour_discovery_for_a_pool_address_passes_and_a_ping_does_not() {
    let Some(mut kernel) = Kernel::load() else { return };
    let frame = Frame { destination: pool_v6(CLIENT), ..Frame::v4() };
    for (kind, expected) in [
        (135, (Action::Pass, Counter::InsideOther)),
        (136, (Action::Pass, Counter::InsideOther)),
        (128, (Action::Redirect, Counter::InsideSteered)),
    ] {
        let mut bytes = frame.build();
        bytes[frame.l3() + 6] = 58;
        bytes[frame.l4()] = kind;
        assert_eq!(kernel.run(Side::Inside, &bytes), expected, "type {kind}");
    }
}

#[test]
fn a_packet_for_a_client_cut_at_any_length_is_not_steered() {
    let Some(mut kernel) = Kernel::load() else { return };
    for destination in [pool_v4(CLIENT), pool_v6(CLIENT)] {
        let frame = Frame { destination, ..Frame::v4() };
        let bytes = frame.build();
        for length in TEST_RUN_MIN..bytes.len() {
            let header = if destination.is_ipv4() { 20 } else { 40 };
            let expected = if length < frame.l3() + header {
                (Action::Pass, Counter::InsideOther)
            } else {
                (Action::Drop, Counter::InsideTruncated)
            };
            assert_eq!(kernel.run(Side::Inside, &bytes[..length]), expected, "{length}");
        }
    }
}

#[test]
fn the_kernel_and_the_native_build_decide_alike_on_any_frame() {
    let Some(mut kernel) = Kernel::load() else { return };
    let config = Config { cases: RANDOM_FRAMES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let kernel = RefCell::new(&mut kernel);
    let seen = RefCell::new(HashSet::new());
    runner
        .run(&any_frame(), |bytes| {
            let mut kernel = kernel.borrow_mut();
            let outside = outcome(steer::outside(&bytes[..], &Native), Counter::OutsideSteered);
            prop_assert_eq!(kernel.run(Side::Outside, &bytes), outside);
            let inside = outcome(steer::inside(&bytes[..], &Native), Counter::InsideSteered);
            prop_assert_eq!(kernel.run(Side::Inside, &bytes), inside);
            seen.borrow_mut().extend([outside.1, inside.1]);
            Ok(())
        })
        .unwrap();
    let seen = seen.into_inner();
    // A worker without a socket is not in this set-up; the others need two bytes that are wrong in the right way.
    let rare = [Counter::OutsideNoWorker, Counter::InsideNoWorker, Counter::OutsideFragment, Counter::InsideMalformed];
    let never: Vec<_> =
        Counter::ALL.iter().filter(|counter| !seen.contains(counter) && !rare.contains(counter)).collect();
    assert!(never.is_empty(), "the frames are too tame: nothing was counted as {never:?}");
}

/// A frame far larger than one page arrives in several buffers; only its length lies behind the first.
#[test]
fn a_jumbo_frame_is_steered_as_a_small_one_is() {
    let Some(mut kernel) = Kernel::load() else { return };
    let mut payload = message(0x15, SLOT);
    payload.resize(8900, 0);
    let options = |frame| TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
    let frame = Frame { payload, ..Frame::v4() }.build();
    assert_eq!(kernel.run_with(Side::Outside, options(&frame)), (Action::Redirect, Counter::OutsideSteered));
    let cut = &frame[..frame.len() - 1];
    assert_eq!(kernel.run_with(Side::Outside, options(cut)), (Action::Drop, Counter::OutsideTruncated));
}

/// The tables of [`Kernel::load`], for the native build.
struct Native;

impl OutsideTables for Native {
    fn config(&self) -> OutsideConfig {
        OutsideConfig { port: PORT, workers: WORKERS }
    }

    fn is_local(&self, address: &Address) -> bool {
        [LOCAL_V4.into(), Address::from(IpAddr::from(LOCAL_V6))].contains(address)
    }

    fn slot_entry(&self, slot: u16) -> u32 {
        if slot == SLOT { maps::entry_of_worker(WORKER) } else { NO_WORKER }
    }
}

impl InsideTables for Native {
    fn config(&self) -> InsideConfig {
        InsideConfig {
            workers: WORKERS,
            v4_size: POOL_SIZE,
            v6_size: POOL_SIZE,
            v4_base: POOL_V4.to_bits(),
            v6_base: POOL_V6.to_bits(),
        }
    }

    fn client_entry(&self, index: u32) -> u32 {
        match index {
            CLIENT => maps::entry_of_worker(WORKER),
            HOST => PASS_TO_HOST,
            _ => NO_WORKER,
        }
    }
}

/// What the kernel should do on a verdict, given that [`WORKER`], the only one in the tables, has a socket.
fn outcome(verdict: Verdict, steered: Counter) -> (Action, Counter) {
    match verdict {
        Verdict::Steer(_) => (Action::Redirect, steered),
        Verdict::Pass(counter) => (Action::Pass, counter),
        Verdict::Drop(counter) => (Action::Drop, counter),
    }
}

/// Frames that are right but for a few bytes and their end, of all kinds; and noise.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let destination = prop_oneof![
        Just(IpAddr::from(LOCAL_V4)),
        Just(IpAddr::from(LOCAL_V6)),
        (0..POOL_SIZE + 2).prop_map(pool_v4),
        (0..POOL_SIZE + 2).prop_map(pool_v6),
        Just(pool_v4(CLIENT)),
        Just(pool_v6(CLIENT)),
    ];
    let kind = prop_oneof![Just(0x15_u8), Just(0x16), any::<u8>()];
    let slot = prop_oneof![Just(SLOT), 0..4096_u16];
    let frame =
        (0..3_usize, 0..11_usize, destination, kind, slot).prop_map(|(tags, words, destination, kind, slot)| {
            Frame { tags, options: words * 4, destination, payload: message(kind, slot), ..Frame::v4() }.build()
        });
    let changes = proptest::collection::vec((0..110_usize, any::<u8>()), 0..4);
    let cut = prop_oneof![3 => Just(usize::MAX), 1 => TEST_RUN_MIN..200];
    let mutated = (frame, changes, cut).prop_map(|(mut bytes, changes, cut)| {
        for (position, value) in changes {
            if let Some(byte) = bytes.get_mut(position) {
                *byte = value;
            }
        }
        bytes.truncate(cut);
        bytes
    });
    prop_oneof![9 => mutated, 1 => proptest::collection::vec(any::<u8>(), TEST_RUN_MIN..200)]
}
