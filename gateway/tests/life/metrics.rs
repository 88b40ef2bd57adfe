//! Metrics of a running gateway (R68): the page before and after a session, and what else may knock at its port.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use jumpgate::admin::{Answer, Question};
use jumpgate_protocol::crypto::StaticSecret;
use nix::sys::signal::Signal;

use crate::host::{Gateway, Host, PATIENCE, ip, on_a_host};
use crate::reload::Peer;

const ENDPOINT: &str = "127.0.0.1:9464";

/// A gateway that can be scraped.
fn start(host: &Host) -> Gateway {
    ip("link set lo up");
    let config = host.config().replace("[workers]", &format!("[metrics]\nlisten = \"{ENDPOINT}\"\n[workers]"));
    let gateway = host.spawn(&config);
    gateway.wait_for(&format!("metrics at http://{ENDPOINT}/metrics"));
    gateway.wait_for("ready");
    gateway
}

/// Sends a request and gives everything that comes back.
fn exchange(request: &[u8]) -> String {
    let mut stream = TcpStream::connect(ENDPOINT).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    // It may be refused before all of it is sent.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer and an end");
    String::from_utf8(answer).expect("text")
}

fn scrape() -> String {
    let answer = exchange(b"GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n");
    let (head, page) = answer.split_once("\r\n\r\n").expect("a header");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    page.to_owned()
}

/// The value of one series, by its text.
fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().expect("a number"))
}

/// The sum of all series of a metric that have that label.
fn sum(page: &str, name: &str, label: &str) -> f64 {
    let lines = page.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
    lines.map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")).sum()
}

/// Scrapes until the page is as wanted.
fn scrape_until(wanted: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = scrape();
        if wanted(&page) {
            return page;
        }
        assert!(Instant::now() < deadline, "never came:\n{page}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn r68_a_scrape_shows_a_session_come_and_go_and_agrees_with_the_counters() {
    on_a_host(|host| {
        let gateway = start(host);
        let before = scrape();
        assert_eq!(value(&before, "jumpgate_sessions_created_total"), Some(0.0));
        assert_eq!(value(&before, "jumpgate_handshakes_total{result=\"refused\"}"), Some(0.0));
        assert!(before.contains("jumpgate_dataplane_info{port=\"outside\",driver=\"veth\""), "{before}");
        assert!(before.contains("jumpgate_policy_info{version=\"1.0\",profile=\"default\",hash=\""), "{before}");

        assert!(host.hello(&StaticSecret::generate(&mut jumpgate::os_entropy::OsEntropy)).is_none(), "a stranger");
        let mut peer = Peer::connect(host);
        peer.until_row(&gateway, "ATTACHED at the gateway", |row| row.state == "ATTACHED");
        let sessions = |page: &str| sum(page, "jumpgate_sessions", "state=");
        let born = "jumpgate_state_transitions_total{from=\"BIRTH\",to=\"ATTACHED\",reason=\"HANDSHAKE_OK\"}";
        let page = scrape_until(|page| value(page, born) == Some(1.0));
        assert_eq!(sessions(&page), 1.0, "in whatever state, since its client says nothing more");
        assert_eq!(value(&page, "jumpgate_sessions_created_total"), Some(1.0));
        assert_eq!(value(&page, "jumpgate_handshakes_total{result=\"ok\"}"), Some(1.0));
        assert_eq!(value(&page, "jumpgate_handshakes_total{result=\"refused\"}"), Some(1.0));
        let refused = "jumpgate_control_rejects_total{message=\"HELLO_INIT\",reason=\"PEER_UNKNOWN\"}";
        assert_eq!(value(&page, refused), Some(gateway.counter("handshake", "PEER_UNKNOWN") as f64));
        // Nothing moves on either port now: two looks at the same counters agree.
        let steered = gateway.counter("xdp", "outside_steered") + gateway.counter("xdp", "inside_steered");
        assert_eq!(value(&page, "jumpgate_xdp_packets_total{action=\"redirect\"}"), Some(steered as f64));
        let sent: u64 = (0..2).map(|n| gateway.counter(&format!("worker {n}"), "outside_sent_packets")).sum();
        assert_eq!(sum(&page, "jumpgate_packets_total", "direction=\"out\""), sent as f64);
        assert!(value(&page, "jumpgate_process_memory_bytes{kind=\"resident\"}").is_some_and(|bytes| bytes > 1e6));
        assert!(value(&page, "jumpgate_worker_cpu_seconds_total{worker=\"1\"}").is_some_and(|seconds| seconds > 0.0));

        let memory = |page: &str| sum(page, "jumpgate_session_memory_bytes", "kind=");
        let pool = "jumpgate_xdp_map_entries{map=\"pool\"}";
        assert_eq!(memory(&before), 0.0, "no session, no memory");
        assert!(memory(&page) > 500.0, "{}", memory(&page));
        assert_eq!(value(&page, pool), value(&before, pool).map(|entries| entries + 1.0));
        assert_eq!(value(&page, "jumpgate_xdp_map_entries{map=\"slots\"}"), Some(4096.0));
        assert_eq!(value(&page, "jumpgate_xdp_map_lag_seconds_count{map=\"pool\"}"), Some(1.0));
        assert_eq!(value(&page, "jumpgate_handshake_duration_seconds_count"), Some(1.0));
        assert!(sum(&page, "jumpgate_xsk_ring_occupancy", "ring=\"fill\"") > 0.0);

        let locator = gateway.sessions()[0].locator.clone();
        assert!(!page.contains(&locator) && !page.contains("alice") && !page.contains("192.0.2."), "OB-12");
        assert_eq!(gateway.ask(&Question::Terminate { locator }), Answer::Done);
        let page = scrape_until(|page| sessions(page) == 0.0);
        assert_eq!(value(&page, "jumpgate_sessions_terminated_total{reason=\"OPERATOR_TERMINATED\"}"), Some(1.0));
        assert_eq!(value(&page, "jumpgate_session_age_seconds_count{reason=\"OPERATOR_TERMINATED\"}"), Some(1.0));
        assert_eq!(value(&page, "jumpgate_tombstones"), Some(1.0));
        assert_eq!(value(&page, "jumpgate_eviction_duration_seconds_count"), Some(1.0));
        assert_eq!(memory(&page), 0.0, "all of it is given back");
        assert_eq!(value(&page, pool), value(&before, pool));
        assert_eq!(sum(&page, "jumpgate_safety_violations_total", "kind"), 0.0);

        assert!(matches!(gateway.ask(&Question::Reload), Answer::Reloaded { .. }));
        let mut command = Command::new(env!("CARGO_BIN_EXE_jumpgate"));
        let printed = command.arg("metrics").arg("--socket").arg(host.path("admin.sock")).output().expect("jumpgate");
        let printed = String::from_utf8(printed.stdout).expect("text");
        assert_eq!(value(&printed, "jumpgate_policy_reloads_total{result=\"accepted\"}"), Some(1.0), "{printed}");
        gateway.signal(Signal::SIGTERM);
        gateway.wait_for("stopped");
        assert!(TcpStream::connect(ENDPOINT).is_err(), "nobody listens any more");
    });
}

#[test]
fn whoever_knocks_at_the_metrics_port_keeps_neither_scrapers_nor_sessions_out() {
    on_a_host(|host| {
        let gateway = start(host);
        for (request, status) in [
            (b"POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\n{\"a\":\"b\"}".to_vec(), "405"),
            (b"GET /sessions HTTP/1.1\r\n\r\n".to_vec(), "404"),
            (b"{\"command\":\"reload\"}\r\n\r\n".to_vec(), "400"),
            (vec![0; 64], "400"),
            (vec![b'A'; 100_000], "431"),
        ] {
            let answer = exchange(&request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
        }
        // They say nothing and do not go: more than have room at once.
        let silent: Vec<_> = (0..40).map(|_| TcpStream::connect(ENDPOINT).expect("connected")).collect();
        assert!(gateway.sessions().is_empty(), "operators are served meanwhile");
        assert!(host.hello(&host.client_key).is_some(), "and clients");
        drop(silent);
        scrape_until(|page| value(page, "jumpgate_sessions_created_total") == Some(1.0));
    });
}

#[test]
fn a_metrics_address_that_is_not_to_be_had_stops_the_start_and_names_the_cure() {
    on_a_host(|host| {
        let config = host.config().replace("[workers]", "[metrics]\nlisten = \"192.0.2.77:9464\"\n[workers]");
        let (status, errors) = host.spawn(&config).end();
        assert_eq!(status.code(), Some(2), "{errors}");
        assert!(errors.contains("metrics.listen") && errors.contains("no interface has 192.0.2.77"), "{errors}");
        host.assert_untouched();
    });
}
