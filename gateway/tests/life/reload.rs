//! Another policy, other clients, and operators' orders, at a gateway that runs: by signal and by the admin socket.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use jumpgate::admin::{Answer, Question, SessionRow};
use jumpgate::keyfile;
use jumpgate::os_entropy::OsEntropy;
use jumpgate_protocol::client::{Client, ClientConfig, ClientEvent, PathInfo};
use jumpgate_protocol::crypto::StaticSecret;
use jumpgate_protocol::handshake;
use jumpgate_protocol::ident::TransportId;
use jumpgate_protocol::policy::TransportClass;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::Time;
use nix::sys::signal::Signal;

use crate::host::{Gateway, Host, PATIENCE, on_a_host};

/// How long the client waits for one datagram before it looks at its timers.
const LOOK: Duration = Duration::from_millis(10);

/// Within that time all copies of TERMINATE have come (TM-1).
const FAREWELL: Duration = Duration::from_millis(700);

/// A client with a session, over the host's socket.
pub(crate) struct Peer<'a> {
    host: &'a Host,
    client: Client,
    begun: Instant,
    events: Vec<ClientEvent>,
}

impl<'a> Peer<'a> {
    pub(crate) fn connect(host: &'a Host) -> Self {
        let config = ClientConfig {
            secret: host.client_key.clone(),
            gateway: host.gateway_key.public(),
            psk: None,
            requested_policy: Default::default(),
            hello_counter: 0,
            replaces: None,
        };
        let client = Client::new(config, Box::new(OsEntropy));
        let mut peer = Self { host, client, begun: Instant::now(), events: Vec::new() };
        let gateway = host.client.peer_addr().expect("connected");
        let now = peer.now();
        peer.client.path_up(now, TransportId(1), PathInfo { gateway, class: TransportClass::Other, priority: 10 });
        peer.client.connect(now);
        peer.until("a session that is confirmed", |peer| {
            peer.events.iter().any(|event| matches!(event, ClientEvent::Connected { .. }))
        });
        peer
    }

    fn now(&self) -> Time {
        Time::from_micros(1_000_000 + self.begun.elapsed().as_micros() as u64)
    }

    /// Sends, hears and keeps time until that is so.
    fn until(&mut self, what: &str, mut reached: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        self.host.client.set_read_timeout(Some(LOOK)).expect("timeout");
        let mut buffer = [0; 2048];
        while !reached(self) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.events);
            while let Some(transmit) = self.client.poll_transmit() {
                self.host.client.send(&transmit.packet).expect("sent");
            }
            if let Ok(len) = self.host.client.recv(&mut buffer) {
                // What the client refuses, it counts.
                let _ = self.client.datagram_in(self.now(), TransportId(1), &mut buffer[..len]);
            }
            if self.client.next_timeout(self.now()).is_some_and(|due| due <= self.now()) {
                self.client.timeout(self.now());
            }
            self.events.extend(std::iter::from_fn(|| self.client.poll_event()));
        }
    }

    /// Waits until the gateway shows the session so.
    pub(crate) fn until_row(&mut self, gateway: &Gateway, what: &str, so: impl Fn(&SessionRow) -> bool) {
        self.until(what, |_| gateway.sessions().first().is_some_and(&so));
    }

    fn ended(&self) -> Option<(Reason, Option<Reason>)> {
        self.events.iter().find_map(|event| match event {
            ClientEvent::Terminated { reason, detail } => Some((*reason, *detail)),
            _ => None,
        })
    }
}

/// A gateway that also knows bob, and alice with a session that is confirmed.
fn served<'a>(host: &'a Host, bob: &StaticSecret) -> (Gateway, Peer<'a>) {
    let gateway = host.spawn(&config(host, bob));
    gateway.wait_for("ready");
    let mut peer = Peer::connect(host);
    peer.until_row(&gateway, "ATTACHED at the gateway", |row| row.state == "ATTACHED");
    (gateway, peer)
}

fn config(host: &Host, bob: &StaticSecret) -> String {
    let bob = keyfile::text(&bob.public().0);
    format!("{}[[client]]\nname = \"bob\"\npublic_key = \"{bob}\"\n", host.config())
}

fn write(host: &Host, config: &str) {
    fs::write(host.path("gateway.toml"), config).expect("configuration");
}

fn refusal(answer: Option<handshake::Answer>) -> Option<Reason> {
    match answer {
        Some(handshake::Answer::Refused(reason)) => Some(reason),
        _ => None,
    }
}

#[test]
fn p04_an_invalid_file_leaves_running_sessions_alone_and_refuses_new_ones_until_a_valid_one_is_loaded() {
    on_a_host(|host| {
        let bob = StaticSecret::generate(&mut OsEntropy);
        let (gateway, mut peer) = served(host, &bob);
        let good = config(host, &bob);
        write(host, &good.replace("version = \"1.0\"", "version = \"1.1\"\nswitching.switch_cooldown_ms = 1"));
        gateway.signal(Signal::SIGHUP);
        let deadline = Instant::now() + PATIENCE;
        while gateway.counter("slow path", "POLICY_INVALID") == 0 {
            assert!(Instant::now() < deadline, "SIGHUP is heard");
            thread::sleep(LOOK);
        }
        assert_eq!(refusal(host.hello(&bob)), Some(Reason::PolicyInvalid));
        let session = gateway.sessions()[0].locator.clone();

        let Answer::Refused { problem, cure } = gateway.ask(&Question::Reload) else { panic!("refused") };
        for part in ["gateway.toml:", "policy.switching.switch_cooldown_ms", "PR-02", "1", "new ones are refused"] {
            assert!(problem.contains(part), "{part:?} is not in {problem:?}");
        }
        assert!(cure.contains("reload again"), "{cure}");

        write(host, &good.replace("version = \"1.0\"", "version = \"1.1\"\napply_mode = \"strict\""));
        let answer = gateway.ask(&Question::Reload);
        assert_eq!(answer, Answer::Reloaded { policy: "default 1.1, strict".into(), clients: 2, sessions: 1 });
        peer.until("POLICY_UPDATE", |peer| {
            peer.events.iter().any(|event| matches!(event, ClientEvent::PolicyChanged { sequence: 2, .. }))
        });
        assert_eq!((gateway.sessions()[0].locator.clone(), peer.ended()), (session, None));
        assert!(matches!(host.hello(&bob), Some(handshake::Answer::Established(_))));
    });
}

#[test]
fn rl3_what_a_running_gateway_cannot_change_is_named_and_nothing_is_changed() {
    on_a_host(|host| {
        let bob = StaticSecret::generate(&mut OsEntropy);
        let (gateway, mut peer) = served(host, &bob);
        let other = config(host, &bob)
            .replace("count = 2", "count = 1")
            .replace("10.66.0.0/24", "10.67.0.0/24")
            .replace("\"bob\"", "\"carol\"");
        write(host, &other);
        let Answer::Refused { problem, cure } = gateway.ask(&Question::Reload) else { panic!("refused") };
        assert!(problem.contains("inside.pool_v4, workers.count cannot change"), "{problem}");
        assert!(cure.contains("restart"), "{cure}");
        assert!(matches!(host.hello(&bob), Some(handshake::Answer::Established(_))), "no policy was invalid");
        peer.until_row(&gateway, "still there", |row| row.client == "alice");
    });
}

#[test]
fn t22_a_client_that_is_removed_from_the_file_is_ended_and_told() {
    on_a_host(|host| {
        let bob = StaticSecret::generate(&mut OsEntropy);
        let (gateway, mut peer) = served(host, &bob);
        let alice = keyfile::text(&host.client_key.public().0);
        let without =
            config(host, &bob).replace(&format!("[[client]]\nname = \"alice\"\npublic_key = \"{alice}\"\n"), "");
        write(host, &without);
        assert!(matches!(gateway.ask(&Question::Reload), Answer::Reloaded { clients: 1, .. }));
        peer.until("TERMINATE", |peer| peer.ended().is_some());
        assert_eq!(peer.ended(), Some((Reason::PeerTerminated, Some(Reason::PolicyTermination))));
        assert!(gateway.sessions().is_empty());
        let told = Instant::now();
        peer.until("the last copy of TERMINATE", |_| told.elapsed() > FAREWELL);
        assert!(host.hello(&host.client_key).is_none(), "PEER_UNKNOWN: silence");
    });
}

#[test]
fn t05_an_operator_moves_a_session_and_hears_whether_its_client_was_asked() {
    on_a_host(|host| {
        let bob = StaticSecret::generate(&mut OsEntropy);
        let (gateway, mut peer) = served(host, &bob);
        let locator = gateway.sessions()[0].locator.clone();
        assert_eq!(gateway.ask(&Question::Move { locator: locator.clone(), same_path: true }), Answer::Done);
        let again = gateway.ask(&Question::Move { locator: locator.clone(), same_path: true });
        assert!(matches!(&again, Answer::Refused { problem, .. } if problem.contains("not ATTACHED")), "{again:?}");
        peer.until_row(&gateway, "the same path proved again", |row| row.switches == 1 && row.state == "ATTACHED");
        let nowhere = gateway.ask(&Question::Move { locator: "0011223344556677".into(), same_path: false });
        assert!(matches!(&nowhere, Answer::Refused { problem, .. } if problem.contains("no session")), "{nowhere:?}");
    });
}

#[test]
fn a25_a_flagged_key_ends_its_sessions_at_once_and_lets_nobody_in() {
    on_a_host(|host| {
        let bob = StaticSecret::generate(&mut OsEntropy);
        let (gateway, _peer) = served(host, &bob);
        let compromised = |client: &str| gateway.ask(&Question::Compromised { client: client.to_owned() });
        assert!(matches!(compromised("mallory"), Answer::Refused { .. }));
        assert_eq!(compromised("alice"), Answer::Ended { sessions: 1 });
        assert!(gateway.sessions().is_empty(), "T20");
        assert!(host.hello(&host.client_key).is_none());
        assert_eq!(compromised(&keyfile::text(&bob.public().0)), Answer::Ended { sessions: 0 }, "by its public key");
        write(host, &config(host, &bob));
        assert!(matches!(gateway.ask(&Question::Reload), Answer::Reloaded { .. }));
        assert!(host.hello(&bob).is_none(), "a reload does not take the flag away");
    });
}
