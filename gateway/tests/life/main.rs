//! The life of a gateway on a host: start, service, stop, failure, crash. The program as it is, in network namespaces
//! of the tests' own, which go with their threads.

mod host;
mod metrics;
mod reload;
mod restart;
mod trace;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use jumpgate::admin::{Answer, Question};
use jumpgate::net::Netlink;
use jumpgate::os_entropy::OsEntropy;
use jumpgate_protocol::crypto::StaticSecret;
use jumpgate_protocol::handshake;
use jumpgate_protocol::wire::MessageType;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use host::{Gateway, Host, SILENCE, ip, on_a_host, wait_for_main};

#[test]
fn a_gateway_that_is_told_to_stop_leaves_nothing_behind() {
    on_a_host(|host| {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let gateway = host.start();
            assert!(Netlink::open().and_then(|mut netlink| netlink.link("jg0")).expect("asked").is_some());
            assert!(gateway.sessions().is_empty());
            gateway.signal(Signal::SIGHUP);
            assert!(gateway.sessions().is_empty(), "a closing terminal does not end it");
            gateway.signal(signal);
            gateway.wait_for("stopped");
            let (status, errors) = gateway.end();
            assert_eq!(status.code(), Some(0), "{errors}");
            host.assert_untouched();
        }
    });
}

#[test]
fn a_signal_at_any_moment_of_the_start_leaves_nothing_behind() {
    on_a_host(|host| {
        for millis in [1, 3, 10, 20, 40, 70, 100, 150, 250] {
            let gateway = host.spawn(&host.config());
            thread::sleep(Duration::from_millis(millis));
            // Not SIGINT: where the tests run in the background it is ignored until the gateway listens to it.
            gateway.signal(Signal::SIGTERM);
            gateway.end();
            host.assert_untouched();
        }
    });
}

#[test]
fn a_sighup_at_any_moment_of_the_start_is_a_reload_and_never_the_end() {
    on_a_host(|host| {
        for micros in [0, 200, 500, 1_000, 2_000, 10_000, 70_000] {
            let gateway = host.spawn(&host.config());
            // Before its main, nothing that the program does can help.
            gateway.wait_for_main();
            thread::sleep(Duration::from_micros(micros));
            gateway.signal(Signal::SIGHUP);
            gateway.wait_for("ready");
            assert!(matches!(host.hello(&host.client_key), Some(handshake::Answer::Established(_))), "{micros} us");
            gateway.wait_for_reload();
            gateway.signal(Signal::SIGTERM);
            let (status, errors) = gateway.end();
            assert_eq!(status.code(), Some(0), "{micros} us: {errors}");
        }
    });
}

#[test]
fn a_command_that_is_no_gateway_ends_by_sighup_unless_it_was_started_by_nohup() {
    for (disposition, ends) in [("--default-signal=HUP", true), ("--ignore-signal=HUP", false)] {
        for millis in [0, 1, 50] {
            // It reads its standard input until that ends.
            let mut command = Command::new("env");
            command.args([disposition, env!("CARGO_BIN_EXE_jumpgate"), "pubkey"]).stdin(Stdio::piped());
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("env starts");
            wait_for_main(&child);
            thread::sleep(Duration::from_millis(millis));
            kill(Pid::from_raw(child.id() as i32), Signal::SIGHUP).expect("signalled");
            if !ends {
                thread::sleep(SILENCE);
                assert!(child.try_wait().expect("asked").is_none(), "a closing terminal ends what nohup protects");
                drop(child.stdin.take());
            }
            let status = child.wait().expect("ended");
            assert_eq!(status.signal(), ends.then_some(Signal::SIGHUP as i32), "{disposition}, {millis} ms: {status}");
        }
    }
}

/// A line of log or more for each: several times what a pipe holds.
const RELOADS: usize = 2_000;

/// Has it write more than the pipe behind its standard error holds, which nobody reads before the end.
fn fill_the_log(gateway: &Gateway) {
    for _ in 0..RELOADS {
        assert!(matches!(gateway.ask(&Question::Reload), Answer::Reloaded { .. }));
    }
}

#[test]
fn o04_inv23_a_log_that_nobody_reads_holds_nothing_up() {
    on_a_host(|host| {
        let gateway = host.start();
        fill_the_log(&gateway);
        assert!(matches!(host.hello(&host.client_key), Some(handshake::Answer::Established(_))));
        gateway.signal(Signal::SIGTERM);
        let (status, errors) = gateway.end();
        assert_eq!(status.code(), Some(0));
        assert!(errors.lines().count() < RELOADS, "all of it fitted into the pipe");
    });
}

#[test]
fn o04_a_gateway_that_fails_ends_although_nobody_reads_why() {
    on_a_host(|host| {
        let gateway = host.start();
        fill_the_log(&gateway);
        ip("link del out0");
        let (status, errors) = gateway.end();
        assert_eq!(status.code(), Some(2));
        assert!(!errors.contains("\nerror:"), "the pipe was not full");
    });
}

#[test]
fn what_a_crash_left_does_not_hinder_the_next_start() {
    on_a_host(|host| {
        let gateway = host.start();
        gateway.signal(Signal::SIGKILL);
        gateway.end();
        assert!(host.path("admin.sock").exists(), "left over");
        let gateway = host.start();
        assert!(gateway.sessions().is_empty());
        gateway.signal(Signal::SIGTERM);
        gateway.end();
        host.assert_untouched();
    });
}

#[test]
fn a_gateway_whose_interface_is_removed_ends_and_says_so() {
    on_a_host(|host| ends_without(host, "out0", "out0"));
    on_a_host(|host| ends_without(host, "jg0", "jg0-port"));
}

fn ends_without(host: &Host, removed: &str, missed: &str) {
    let gateway = host.start();
    ip(&format!("link del {removed}"));
    let (status, errors) = gateway.end();
    assert_eq!(status.code(), Some(2), "{errors}");
    assert!(errors.contains(&format!("interface {missed} is gone")) && errors.contains("cure"), "{errors}");
    assert_eq!(Netlink::open().and_then(|mut netlink| netlink.link("jg0")).expect("asked"), None);
    assert!(!host.path("admin.sock").exists());
}

#[test]
fn unload_removes_what_a_crash_left() {
    on_a_host(|host| {
        let gateway = host.start();
        gateway.signal(Signal::SIGKILL);
        gateway.end();
        let unload = Command::new(env!("CARGO_BIN_EXE_jumpgate"))
            .args(["unload", "--interface", "out0", "--interface", "jg0"])
            .output()
            .expect("jumpgate starts");
        assert!(unload.status.success(), "{unload:?}");
        assert!(String::from_utf8_lossy(&unload.stdout).contains("jg0: pair removed"), "{unload:?}");
        fs::remove_file(host.path("admin.sock")).expect("left over");
        host.assert_untouched();
    });
}

#[test]
fn a_start_that_fails_names_cause_and_cure_and_undoes_itself() {
    on_a_host(|host| {
        let good = host.config();
        for (from, to, cause, cure) in [
            ("\"out0\"", "\"out9\"", "there is no interface out9", "ip link"),
            ("\"out0\"", "\"lo\"", "lo has no Ethernet address", "name an Ethernet interface"),
            ("count = 2", "count = 3", "out0 has 2 queue(s)", "ethtool -L out0 combined 3"),
            ("192.0.2.1:51900", "192.0.2.2:51900", "192.0.2.2:51900", "no interface has 192.0.2.2"),
            ("\"jg0\"", "\"lo\"", "an interface lo already", "choose another inside.interface"),
            ("\"out0\"", "\"out0\"\nzero_copy = \"require\"", "zero-copy", "zero_copy = \"auto\""),
        ] {
            let (status, errors) = host.spawn(&good.replace(from, to)).end();
            assert_eq!(status.code(), Some(2), "{to}: {errors}");
            assert!(errors.contains(cause) && errors.contains(cure), "{to}: {errors}");
            host.assert_untouched();
        }
        ip("link set out0 down");
        let (status, errors) = host.spawn(&good).end();
        assert_eq!(status.code(), Some(2));
        assert!(errors.contains("ip link set out0 up"), "{errors}");
    });
}

#[test]
fn a_second_gateway_is_refused_and_the_first_goes_on() {
    on_a_host(|host| {
        let first = host.start();
        let (status, errors) = host.spawn(&host.config()).end();
        assert_eq!(status.code(), Some(2));
        assert!(errors.contains("a gateway runs already"), "{errors}");
        let elsewhere = host.elsewhere().replace("jg0", "jg1");
        let (status, errors) = host.spawn(&elsewhere).end();
        assert_eq!(status.code(), Some(2));
        assert!(errors.contains("another program has the port"), "{errors}");
        assert!(first.sessions().is_empty());
    });
}

#[test]
fn neither_another_gateway_nor_unload_takes_the_pair_of_a_running_one() {
    on_a_host(|host| {
        let first = host.start();
        let pair =
            || Netlink::open().and_then(|mut netlink| netlink.link("jg0")).expect("asked").map(|link| link.index);
        let before = pair();
        let elsewhere = host.elsewhere().replace("51900", "51901");
        let (status, errors) = host.spawn(&elsewhere).end();
        assert_eq!(status.code(), Some(2), "{errors}");
        assert!(errors.contains("belongs to a gateway that is running"), "{errors}");
        for interface in ["jg0", "jg0-port", "out0"] {
            let unload =
                Command::new(env!("CARGO_BIN_EXE_jumpgate")).args(["unload", "--interface", interface]).output();
            let output = unload.expect("jumpgate starts");
            assert_eq!(output.status.code(), Some(2), "{interface}: {output:?}");
        }
        assert_eq!(pair(), before);
        assert!(first.sessions().is_empty());
    });
}

#[test]
fn hs4_a_known_client_gets_a_session_and_an_unknown_one_silence() {
    on_a_host(|host| {
        let gateway = host.start();
        assert!(host.hello(&StaticSecret::generate(&mut OsEntropy)).is_none());
        assert_eq!(gateway.counter("handshake", "PEER_UNKNOWN"), 1);
        assert!(gateway.sessions().is_empty());

        let Some(handshake::Answer::Established(session)) = host.hello(&host.client_key) else { panic!("no session") };
        assert_eq!(session.reply.mtu, 1500 - 84);
        assert_eq!(session.reply.inner_v4, Some(([10, 66, 0, 2].into(), 24)));
        assert_eq!(session.reply.endpoints.as_slice(), ["192.0.2.1:51900".parse().expect("address")]);
        let rows = gateway.sessions();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].client.as_str(), rows[0].state.as_str()), ("alice", "BIRTH"));
        assert_eq!(rows[0].locator, session.reply.locator.to_string());
        assert_eq!(usize::from(rows[0].worker), usize::from(session.reply.locator.slot().number()) % 2);
    });
}

#[test]
fn c00_datagrams_that_are_no_message_are_counted_by_reason_and_not_answered() {
    on_a_host(|host| {
        let gateway = host.start();
        let mut other_version = [0; 100];
        other_version[..2].copy_from_slice(&[MessageType::PathProbe as u8, 0x20]);
        let short = [MessageType::PathProbe as u8; 19];
        for bytes in [&b"\x00hello"[..], &[0x01; 148], &short, &other_version] {
            host.client.send(bytes).expect("sent");
        }
        host.client.set_read_timeout(Some(SILENCE)).expect("timeout");
        assert!(host.client.recv(&mut [0; 64]).is_err(), "silence");
        assert!(gateway.sessions().is_empty());
        let counted = |name: &str| gateway.counter("slow path", name);
        assert_eq!(counted("UNKNOWN_TYPE"), 2, "not of this protocol, and WireGuard's");
        assert_eq!(counted("MALFORMED"), 1, "cut short");
        assert_eq!(counted("UNSUPPORTED_VERSION"), 1);
    });
}
