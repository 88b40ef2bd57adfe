//! `jump up` against a gateway, over two uplinks, in namespaces of its own. Needs root; says SKIPPED otherwise.

mod support;

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use base64::Engine as _;
use jump::report::{Event, EventLine, PathState, Phase, Status};
use jumpgate_audit::sink::StatusView;
use jumpgate_protocol::crypto::StaticSecret;
use nix::sys::signal::Signal;

use support::gateway::{ENDPOINTS, Gateway};
use support::{Jump, LTE, Network, WIFI};

const CLIENT_KEY: [u8; 32] = [7; 32];
const GATEWAY_KEY: [u8; 32] = [9; 32];
/// Everything through the tunnel: the case in which the gateway's own address must stay outside.
const EVERYTHING: &str = "\"0.0.0.0/0\", \"::/0\"";

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn gateway(network: &Network) -> Gateway {
    Gateway::start(&network.gateway, StaticSecret::new(GATEWAY_KEY), StaticSecret::new(CLIENT_KEY).public())
}

fn client(network: &Network, endpoint: &str, routes: &str) -> Jump {
    client_under(network, &[], endpoint, routes)
}

fn client_under(network: &Network, wrapper: &[&str], endpoint: &str, routes: &str) -> Jump {
    let public = StaticSecret::new(GATEWAY_KEY).public();
    Jump::start(&network.client, wrapper, &base64(&CLIENT_KEY), &base64(&public.0), &format!("\"{endpoint}\""), routes)
}

fn is_attached(status: &Status) -> bool {
    status.phase == Phase::Connected && status.state == "ATTACHED"
}

fn is_ready(status: &Status) -> bool {
    is_attached(status) && status.paths.iter().all(|path| path.validated)
}

/// Whether datagrams of the client reach that address of the gateway and their echoes come back.
fn reaches(network: &Network, address: &str) -> bool {
    let address: IpAddr = address.parse().unwrap();
    let server = network.gateway.within(move || UdpSocket::bind((address, 0)).unwrap());
    let target = server.local_addr().unwrap();
    let unspecified = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let client = network.client.within(move || UdpSocket::bind(unspecified).unwrap());
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    }
    (0..3u8).all(|number| {
        let mut buffer = [0; 8];
        let mut exchange = || -> std::io::Result<bool> {
            client.send_to(&[number; 5], target)?;
            let (length, peer) = server.recv_from(&mut buffer)?;
            server.send_to(&buffer[..length], peer)?;
            Ok(client.recv(&mut buffer)? == 5 && buffer[0] == number)
        };
        exchange().unwrap_or(false)
    })
}

fn leftovers(network: &Network) -> String {
    let client = &network.client;
    let links = client.ip("-br link");
    let tunnel: String = links.lines().filter(|line| line.starts_with("jump0")).collect();
    tunnel + &client.ip("route show proto 106") + &client.ip("-6 route show proto 106")
}

#[test]
fn a_session_carries_both_families_over_either_outer_family() {
    if !support::is_possible() {
        return;
    }
    for endpoint in ENDPOINTS {
        let network = Network::build();
        let _gateway = gateway(&network);
        let jump = client(&network, endpoint, "\"10.66.0.0/24\", \"fd66::/120\"");
        let status = jump.wait_for("a validated standby path", is_ready);
        assert_eq!(status.active_interface.as_deref(), Some(WIFI), "the smaller priority goes first");
        assert!(reaches(&network, "10.66.0.1"), "{}", jump.log());
        assert!(reaches(&network, "fd66::1"), "{}", jump.log());
        let after = jump.status().unwrap();
        assert!(after.tx.packets >= 6 && after.rx.packets >= 6 && after.tx.bytes > 0, "{after:#?}");
    }
}

#[test]
fn a_link_that_goes_down_moves_the_session_at_once_and_its_return_restores_the_pin() {
    if !support::is_possible() {
        return;
    }
    let network = Network::build();
    let _gateway = gateway(&network);
    let jump = client(&network, ENDPOINTS[0], EVERYTHING);
    let before = jump.wait_for("a validated standby path", is_ready);
    let pins = network.client.ip("route show proto 106 192.0.2.1");
    assert_eq!(pins.lines().count(), 2, "{pins}");

    network.client.ip(&format!("link set {WIFI} down"));
    let moved = jump.wait_for("the jump", |status| status.active_interface.as_deref() == Some(LTE));
    assert_eq!((&moved.session, moved.epoch), (&before.session, before.epoch + 1));
    let switch = moved.switches.back().unwrap();
    assert_eq!(switch.reason.as_deref(), Some("TRANSPORT_DEAD"));
    assert_eq!(switch.from_interface.as_deref(), Some(WIFI));
    assert!(switch.switch_us < 500_000, "{switch:?}");
    assert_eq!(moved.paths[0].state, PathState::Down);
    assert!(reaches(&network, "10.66.0.1"), "{}", jump.log());

    // The kernel forgot the routes of the link; nobody brings the default route back.
    network.client.ip(&format!("link set {WIFI} up"));
    let back = jump.wait_for("the path's return", |status| status.paths[0].validated);
    assert_eq!(back.active_interface.as_deref(), Some(LTE), "a healthy session stays where it is (SM-11)");
    let pins = network.client.ip("route show proto 106 192.0.2.1");
    assert!(pins.contains("via 10.1.0.1") && pins.contains("via 10.2.0.1"), "{pins}");
}

#[test]
fn an_order_moves_the_session_and_a_wrong_one_says_what_is_possible() {
    if !support::is_possible() {
        return;
    }
    let network = Network::build();
    let _gateway = gateway(&network);
    let jump = client(&network, ENDPOINTS[0], "");
    jump.wait_for("a validated standby path", is_ready);
    assert!(jump.ask(&["move", "--to", LTE]).status.success());
    jump.wait_for("the move", |status| is_attached(status) && status.active_interface.as_deref() == Some(LTE));
    let refused = jump.ask(&["move", "--to", "eth7"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains(WIFI), "{text}");
    let refused = jump.ask(&["move", "--to", LTE]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("already"));
}

#[test]
fn ob10_the_running_client_tells_the_head_of_its_trace_and_how_it_stands() {
    if !support::is_possible() {
        return;
    }
    let network = Network::build();
    let _gateway = gateway(&network);
    let jump = client(&network, ENDPOINTS[0], "");
    jump.wait_for("a session", is_attached);
    // The sink is some tens of milliseconds behind what is recorded.
    std::thread::sleep(Duration::from_millis(300));
    let text = |arguments: &[&str]| String::from_utf8(jump.ask(arguments).stdout).unwrap();
    let head = text(&["audit", "head"]);
    let (seq, hash) = head.trim().split_once(':').expect("SEQ:HASH");
    assert!(seq.parse::<u64>().is_ok_and(|seq| seq > 0) && hash.len() == 64, "{head}");
    let status: StatusView = serde_json::from_str(&text(&["audit", "status", "--json"])).unwrap();
    assert_eq!((status.head.as_deref(), status.lost, &status.problem), (Some(head.trim()), 0, &None));
    assert!(status.directory.starts_with(jump.config().parent().unwrap()), "{status:?}");
    assert!(text(&["audit", "status"]).contains("state      well"));
}

#[test]
fn a_changed_address_is_a_new_socket_and_the_session_goes_on() {
    if !support::is_possible() {
        return;
    }
    let network = Network::build();
    let _gateway = gateway(&network);
    let jump = client(&network, ENDPOINTS[0], "");
    let before = jump.wait_for("a validated standby path", is_ready);
    network.client.ip(&format!("addr add 10.1.0.77/24 dev {WIFI}"));
    network.client.ip(&format!("addr del 10.1.0.2/24 dev {WIFI}"));
    network.client.ip(&format!("addr replace 10.1.0.77/24 dev {WIFI}"));
    network.add_default_route(1);
    let after = jump.wait_for("the new address", |status| {
        is_attached(status) && status.paths[0].local.is_some_and(|local| local.ip().to_string() == "10.1.0.77")
    });
    assert_eq!(after.session, before.session);
}

#[test]
fn a_gateway_that_lost_its_sessions_gets_a_new_one_over_the_same_tunnel() {
    if !support::is_possible() {
        return;
    }
    let network = Network::build();
    let first = gateway(&network);
    let jump = client(&network, ENDPOINTS[0], "\"10.66.0.0/24\"");
    let before = jump.wait_for("the first session", is_ready);
    let tunnel = network.client.ip("-br link show jump0");
    drop(first);
    let _second = gateway(&network);
    let after = jump.wait_for("the second session", |status| is_attached(status) && status.session != before.session);
    assert_eq!(after.sessions, 2);
    assert!(after.last_error.unwrap().contains("SESSION_LOST"));
    assert_eq!(network.client.ip("-br link show jump0"), tunnel);
    assert!(reaches(&network, "10.66.0.1"), "{}", jump.log());
}

#[test]
fn events_are_streamed_in_order_with_their_times() {
    if !support::is_possible() {
        return;
    }
    let network = Network::build();
    let _gateway = gateway(&network);
    let jump = client(&network, ENDPOINTS[0], "");
    let ready = jump.wait_for("a validated standby path", is_ready);
    // On a busy machine it may have moved already.
    let to = if ready.active_interface.as_deref() == Some(WIFI) { LTE } else { WIFI };
    let from = if to == LTE { WIFI } else { LTE };
    let config = jump.config();
    let listener = std::thread::spawn(move || {
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_jump")).arg("events").arg("--config").arg(config).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    });
    std::thread::sleep(Duration::from_millis(300));
    network.client.ip(&format!("link set {from} down"));
    jump.wait_for("the jump", |status| status.active_interface.as_deref() == Some(to));
    assert!(jump.ask(&["down"]).status.success());
    let lines: Vec<EventLine> =
        listener.join().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.is_sorted_by_key(|line| line.boottime_us));
    let position = |wanted: &dyn Fn(&Event) -> bool| lines.iter().position(|line| wanted(&line.event));
    let dead = position(&|event| matches!(event, Event::Transition { transition, .. } if transition == "T04"));
    let moved = position(&|event| matches!(event, Event::Switched { switch } if switch.to_interface == to));
    assert!(dead.is_some() && dead < moved, "{lines:#?}");
}

#[test]
fn every_way_to_end_leaves_nothing_behind() {
    if !support::is_possible() {
        return;
    }
    let network = Network::build();
    let _gateway = gateway(&network);
    type End = fn(&Jump);
    let ends: [(&str, End, &[i32]); 5] = [
        ("jump down", |jump| assert!(jump.ask(&["down"]).status.success()), &[0]),
        ("SIGINT", |jump| jump.signal(Signal::SIGINT), &[0]),
        ("SIGTERM", |jump| jump.signal(Signal::SIGTERM), &[0]),
        ("SIGHUP", |jump| jump.signal(Signal::SIGHUP), &[0]),
        (
            "an impatient user",
            |jump| {
                jump.signal(Signal::SIGINT);
                std::thread::sleep(Duration::from_micros(300));
                jump.signal(Signal::SIGINT);
            },
            &[0, 130],
        ),
    ];
    for (name, end, codes) in ends {
        let mut jump = client(&network, ENDPOINTS[0], EVERYTHING);
        jump.wait_for("a validated standby path", is_ready);
        assert!(leftovers(&network).contains("jump0"));
        end(&jump);
        let code = jump.exit_code();
        assert!(code.is_some_and(|code| codes.contains(&code)), "{name}: {code:?}\n{}", jump.log());
        assert_eq!(leftovers(&network), "", "{name}");
    }
}

#[test]
fn a_hangup_that_is_ignored_from_the_start_as_nohup_has_it_ends_nothing() {
    if !support::is_possible() {
        return;
    }
    let network = Network::build();
    let _gateway = gateway(&network);
    let mut jump = client_under(&network, &["env", "--ignore-signal=HUP"], ENDPOINTS[0], EVERYTHING);
    jump.wait_for("a session", is_attached);
    jump.signal(Signal::SIGHUP);
    std::thread::sleep(Duration::from_millis(300));
    jump.wait_for("the session, still there", is_attached);
    jump.signal(Signal::SIGTERM);
    assert_eq!(jump.exit_code(), Some(0), "{}", jump.log());
    assert!(!jump.log().contains("SIGHUP"), "{}", jump.log());
}

#[test]
fn inv23_a_log_that_nobody_reads_holds_nothing_up() {
    // Standard error is a pipe that is full from the start, and whose one reader, the program itself, never reads.
    const FULL_PIPE: &str = r#"mkfifo "$0" && exec 3<>"$0" 2>&3 && head -c 65536 /dev/zero >&3 && exec "$@""#;
    if !support::is_possible() {
        return;
    }
    let network = Network::build();
    let _gateway = gateway(&network);
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    let wrapper = ["sh", "-c", FULL_PIPE, fifo.to_str().unwrap()];
    let mut jump = client_under(&network, &wrapper, ENDPOINTS[0], EVERYTHING);
    jump.wait_for("a session over two paths", is_ready);
    assert!(jump.ask(&["move", "--to", "auto"]).status.success());
    jump.wait_for("a jump", |status| is_attached(status) && status.switches_total == 1);
    assert!(jump.ask(&["down"]).status.success());
    assert_eq!(jump.exit_code(), Some(0));
}

#[test]
fn a_killed_run_leaves_only_pins_and_the_next_run_takes_them_over() {
    if !support::is_possible() {
        return;
    }
    let network = Network::build();
    let _gateway = gateway(&network);
    let mut killed = client(&network, ENDPOINTS[0], EVERYTHING);
    killed.wait_for("a validated standby path", is_ready);
    killed.signal(Signal::SIGKILL);
    killed.exit_code();
    assert!(!leftovers(&network).contains("jump0"));
    assert!(leftovers(&network).contains("192.0.2.1"));
    let mut next = client(&network, ENDPOINTS[0], EVERYTHING);
    next.wait_for("a validated standby path", is_ready);
    next.signal(Signal::SIGINT);
    next.exit_code();
    assert_eq!(leftovers(&network), "");
}

#[test]
fn without_a_gateway_it_says_what_to_check_and_ctrl_c_still_ends_it() {
    if !support::is_possible() {
        return;
    }
    let network = Network::build();
    let mut jump = client(&network, ENDPOINTS[0], EVERYTHING);
    let status = jump.wait_for("a failed handshake", |status| status.last_error.is_some());
    assert!(status.last_error.unwrap().contains("gateway.endpoints"));
    jump.signal(Signal::SIGINT);
    assert_eq!(jump.exit_code(), Some(0));
    assert_eq!(leftovers(&network), "");
}

#[test]
fn a_second_client_on_the_same_socket_and_a_taken_interface_are_refused_with_the_cure() {
    if !support::is_possible() {
        return;
    }
    let network = Network::build();
    let jump = client(&network, ENDPOINTS[0], "");
    jump.wait_for("the start", |_| true);
    let second =
        network.client.command(env!("CARGO_BIN_EXE_jump")).args(["up", "--config"]).arg(jump.config()).output();
    let text = String::from_utf8(second.unwrap().stderr).unwrap();
    assert!(text.contains("jump down"), "{text}");
    let mut third = client(&network, ENDPOINTS[0], "");
    assert_eq!(third.exit_code(), Some(1));
    assert!(third.log().contains("client.interface"), "{}", third.log());
}

#[test]
fn a_tunnel_that_somebody_removes_ends_the_program_with_its_cause() {
    if !support::is_possible() {
        return;
    }
    let network = Network::build();
    let _gateway = gateway(&network);
    let mut jump = client(&network, ENDPOINTS[0], EVERYTHING);
    jump.wait_for("a session", is_attached);
    network.client.ip("link del jump0");
    assert_eq!(jump.exit_code(), Some(1));
    assert!(jump.log().contains("was removed by somebody else"), "{}", jump.log());
    assert_eq!(leftovers(&network), "");
}
