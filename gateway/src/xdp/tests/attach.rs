//! Attaching to interfaces of a network namespace that the test made, and what is left afterwards.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::Command;

use aya::TestRunOptions;
use jumpgate_common::Counter;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};
use nix::sched::{CloneFlags, unshare};

use super::frames::Frame;
use super::*;
use crate::net::Netlink;
use crate::xdp::{Leftover, Mode, ModeChoice, XdpError, unload};

/// Puts this test's thread into a network namespace with a veth pair of two queues, `jgt0` and `jgt1`.
fn in_namespace() -> Option<Kernel> {
    let kernel = Kernel::load()?;
    unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
    let queues = ["numrxqueues", "2", "numtxqueues", "2"];
    ip(&[&["link", "add", "jgt0"], &queues[..], &["type", "veth", "peer", "name", "jgt1"], &queues[..]].concat());
    for interface in ["jgt0", "jgt1"] {
        ip(&["link", "set", interface, "up"]);
    }
    Some(kernel)
}

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_veth_gets_the_program_in_native_mode_and_loses_it_with_its_owner() {
    let Some(mut kernel) = in_namespace() else { return };
    let attached = kernel.steering.attach(Side::Outside, "jgt0", ModeChoice::Auto).unwrap();
    assert_eq!((attached.mode, attached.fallback), (Mode::Native, None));
    let generic = kernel.steering.attach(Side::Inside, "jgt1", ModeChoice::Generic).unwrap();
    assert_eq!(generic.mode, Mode::Generic);
    assert!(ip(&["link", "show", "jgt0"]).contains("name jumpgate_out"));
    drop(kernel);
    for interface in ["jgt0", "jgt1"] {
        assert!(!ip(&["link", "show", interface]).contains("xdp"));
    }
}

#[test]
fn detaching_leaves_nothing_and_may_be_repeated() {
    let Some(mut kernel) = in_namespace() else { return };
    kernel.steering.attach(Side::Outside, "jgt0", ModeChoice::Native).unwrap();
    kernel.steering.detach().unwrap();
    assert!(!ip(&["link", "show", "jgt0"]).contains("xdp"));
    kernel.steering.detach().unwrap();
}

#[test]
fn a_driver_without_native_xdp_is_announced_or_refused_as_the_operator_chose() {
    let Some(mut kernel) = in_namespace() else { return };
    let refusal = kernel.steering.attach(Side::Outside, "lo", ModeChoice::Native).unwrap_err();
    assert!(matches!(refusal, XdpError::Refused { .. }), "{refusal}");
    assert!(refusal.to_string().contains("generic"), "it names the cure: {refusal}");
    let attached = kernel.steering.attach(Side::Outside, "lo", ModeChoice::Auto).unwrap();
    assert_eq!(attached.mode, Mode::Generic);
    assert!(attached.fallback.is_some_and(|cause| cause.contains("cannot attach to lo in native mode")));
}

#[test]
fn a_missing_or_occupied_interface_is_named() {
    let Some(mut kernel) = in_namespace() else { return };
    for name in ["jgt9", "", "a\0b"] {
        let error = kernel.steering.attach(Side::Outside, name, ModeChoice::Auto).unwrap_err();
        assert!(matches!(error, XdpError::NoInterface(_)), "{error}");
    }
    kernel.steering.attach(Side::Outside, "jgt0", ModeChoice::Auto).unwrap();
    let error = kernel.steering.attach(Side::Inside, "jgt0", ModeChoice::Auto).unwrap_err();
    assert!(matches!(&error, XdpError::Busy(name) if name == "jgt0"), "{error}");
}

#[test]
fn unload_removes_what_nobody_holds_and_spares_what_a_living_gateway_holds() {
    let Some(mut kernel) = in_namespace() else { return };
    assert_eq!(unload("jgt0").unwrap(), Leftover::Nothing);
    kernel.steering.attach(Side::Outside, "jgt0", ModeChoice::Auto).unwrap();
    assert_eq!(unload("jgt0").unwrap(), Leftover::InUse);
    attach_without_owner(&mut kernel, "jgt1");
    assert_eq!(unload("jgt1").unwrap(), Leftover::Removed);
    assert_eq!(unload("jgt1").unwrap(), Leftover::Nothing);
    assert!(matches!(unload("jgt9").unwrap_err(), XdpError::NoInterface(_)));
}

/// As an old kernel or `ip link set ... xdp` does it: the program stays when its process is gone.
fn attach_without_owner(kernel: &mut Kernel, interface: &str) {
    let index = nix::net::if_::if_nametoindex(interface).unwrap();
    let program = kernel.steering.program(Side::Inside).fd().unwrap().as_fd().as_raw_fd();
    let mut request = LinkMessage::default();
    request.header.index = index;
    request.attributes.push(LinkAttribute::Xdp(vec![LinkXdp::Fd(program)]));
    Netlink::open().unwrap().change("attach", RouteNetlinkMessage::SetLink(request), 0).unwrap();
}

#[test]
fn the_socket_is_chosen_by_receive_queue_and_worker() {
    let Some(mut kernel) = in_namespace() else { return };
    kernel.steering.attach(Side::Outside, "jgt0", ModeChoice::Native).unwrap();
    let frame = Frame::v4().build();
    let index = nix::net::if_::if_nametoindex("jgt0").unwrap();
    // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = |queue: u32| {
        let length = u32::try_from(frame.len()).unwrap();
        [0, length, 0, index, queue, 0].map(u32::to_ne_bytes).concat()
    };
    let run = |kernel: &mut Kernel, queue| {
        let context = context(queue);
        let options = TestRunOptions { data_in: Some(&frame), ctx_in: Some(&context), ..TestRunOptions::default() };
        kernel.run_with(Side::Outside, options)
    };
    assert_eq!(run(&mut kernel, 0), (Action::Redirect, Counter::OutsideSteered));
    assert_eq!(run(&mut kernel, 1), (Action::Drop, Counter::OutsideNoWorker), "no socket on that queue yet");
    kernel.add_socket(Side::Outside, 1, 0);
    assert_eq!(run(&mut kernel, 1), (Action::Drop, Counter::OutsideNoWorker), "another worker's socket");
    kernel.add_socket(Side::Outside, 1, WORKER);
    assert_eq!(run(&mut kernel, 1), (Action::Redirect, Counter::OutsideSteered));
}
