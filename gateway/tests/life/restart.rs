//! The planned restart of the program as it is: one process ends, the next one goes on (K09), or says why not (K11).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Output};

use jumpgate::admin::SessionRow;
use jumpgate_audit::verify::{self, Options, Verdict};
use jumpgate_protocol::crypto::DefaultAead;
use jumpgate_protocol::handshake::{Answer, Established};
use jumpgate_protocol::ident::TransportId;
use jumpgate_protocol::keys::{EpochKeys, Side};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::wire::{self, Body, Header, Heartbeat, HeartbeatAck, HelloConfirm, MessageType};
use nix::sys::signal::Signal;

use crate::host::{Gateway, Host, on_a_host};

/// A client's end of a session, as far as it is needed here.
struct Guest<'a> {
    host: &'a Host,
    session: Established,
    keys: EpochKeys<DefaultAead>,
    counter: u64,
}

impl<'a> Guest<'a> {
    /// A session that is ATTACHED.
    fn attached(host: &'a Host) -> Self {
        let Some(Answer::Established(session)) = host.hello(&host.client_key) else { panic!("no session") };
        let keys = EpochKeys::derive(&session.root, 0, &session.reply.identity, Side::Client);
        let mut guest = Self { host, session: *session, keys, counter: 0 };
        let handshake_hash = guest.session.hash;
        let confirm = HelloConfirm { binding_epoch: 1, handshake_hash, transport_id: TransportId(1) };
        guest.ask(&confirm).expect("HELLO_CONFIRM is answered");
        guest
    }

    /// Says something and gives the counter of the answer, if one comes.
    fn ask<B: Body>(&mut self, body: &B) -> Option<u64> {
        self.counter += 1;
        let (locator, counter) = (self.session.reply.locator, self.counter);
        let header = Header { kind: B::KIND, flags: 0, key_epoch: 0, tag: 0, locator, counter };
        self.host.client.send(&wire::seal(&self.keys.control_seal, header, body)).expect("sent");
        let mut buffer = [0; 2_048];
        let len = self.host.client.recv(&mut buffer).ok()?;
        let header = Header::parse(&buffer[..len]).ok().filter(|header| header.kind == MessageType::HeartbeatAck)?;
        let opened =
            wire::open(&self.keys.control_open, &header, &mut buffer[..len]).expect("under the session's keys");
        HeartbeatAck::parse(opened).expect("HEARTBEAT_ACK");
        Some(header.counter)
    }

    fn beat(&mut self) -> Option<u64> {
        let beat =
            Heartbeat { binding_epoch: 1, client_time_ms: 0, sent: 0, received: 0, highest: 0, policy_sequence: 1 };
        self.ask(&beat)
    }
}

fn file(host: &Host) -> PathBuf {
    host.path("admin.sock.handover/sessions")
}

fn hand_over(host: &Host) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jumpgate"));
    command.arg("handover").arg("--socket").arg(host.path("admin.sock")).output().expect("jumpgate starts")
}

/// What must not change.
fn lasting(gateway: &Gateway) -> Vec<(String, String, String, u64, u64)> {
    let keep = |row: SessionRow| (row.locator, row.session_id, row.state, row.epoch, row.version);
    gateway.sessions().into_iter().map(keep).collect()
}

#[test]
fn k09_ow8_a_session_goes_on_in_the_next_process_and_the_trace_over_both_is_valid() {
    on_a_host(|host| {
        let gateway = host.start();
        let mut guest = Guest::attached(host);
        let counter = guest.beat().expect("answered");
        let before = lasting(&gateway);
        let output = hand_over(host);
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 session(s) wait"), "{output:?}");
        let (status, errors) = gateway.end();
        assert_eq!(status.code(), Some(0), "{errors}");
        host.assert_untouched();
        let metadata = fs::metadata(file(host)).expect("handed over");
        assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o600, 1));
        let sealed = fs::read(file(host)).expect("read");
        let identity = guest.session.reply.identity.0;
        assert!(!sealed.windows(16).any(|window| window == identity), "nothing is in the clear (KY-9)");
        assert!(guest.beat().is_none(), "nobody is there, and no TERMINATE was left behind");

        let gateway = host.spawn(&host.config());
        gateway.wait_for("1 session(s) go on from the run before");
        gateway.wait_for("ready");
        assert!(!file(host).exists(), "used once");
        assert_eq!(lasting(&gateway), before);
        let later = guest.beat().expect("answered by the next process, under the same keys");
        assert!(later >= counter + (1 << 20), "INV-36, KY-9: {counter}, then {later}");
        gateway.signal(Signal::SIGTERM);
        let (status, errors) = gateway.end();
        assert_eq!(status.code(), Some(0), "{errors}");

        let files = verify::expand(&[host.path("audit")]).expect("a trace");
        assert_eq!(files.len(), 2);
        let mut violations = Vec::new();
        let inputs = files.iter().map(|file| verify::Input::open(file)).collect();
        let options = Options { closed: true, slack_ms: 500, ..Options::default() };
        let report = verify::verify(inputs, &options, |violation| violations.push(violation));
        assert_eq!((report.verdict, violations), (Verdict::Valid, vec![]), "{:?}", report.notes);
        assert_eq!((report.sessions.seen, report.sessions.ended), (1, 1), "one birth, one end");
    });
}

#[test]
fn k11_k12_what_was_changed_copied_or_exposed_leaves_no_session_and_a_critical_line() {
    on_a_host(|host| {
        type Spoil = fn(&Host);
        let cases: [(&str, Spoil); 4] = [
            ("its seal is broken", |host| {
                let mut bytes = fs::read(file(host)).expect("read");
                *bytes.last_mut().expect("not empty") ^= 1;
                fs::write(file(host), bytes).expect("written");
            }),
            ("its seal is broken", |host| {
                let half = fs::read(file(host)).expect("read").len() as u64 / 2;
                fs::OpenOptions::new().write(true).open(file(host)).and_then(|file| file.set_len(half)).expect("cut");
            }),
            ("it is a copy", |host| {
                let aside = host.path("aside");
                fs::copy(file(host), &aside).expect("copied");
                fs::rename(&aside, file(host)).expect("put back");
            }),
            ("others than this gateway", |host| {
                fs::set_permissions(file(host), fs::Permissions::from_mode(0o644)).expect("chmod");
            }),
        ];
        for (cause, spoil) in cases {
            let gateway = host.start();
            assert!(host.hello(&host.client_key).is_some());
            assert!(hand_over(host).status.success());
            gateway.end();
            spoil(host);
            let gateway = host.start();
            assert!(gateway.sessions().is_empty(), "{cause}: fail closed");
            assert!(!file(host).exists(), "{cause}: not to be used again");
            gateway.signal(Signal::SIGTERM);
            let (_, errors) = gateway.end();
            assert!(errors.contains("CRITICAL") && errors.contains(cause), "{cause}: {errors}");
            let trace = verify::expand(&[host.path("audit")]).expect("a trace");
            let last = fs::read_to_string(trace.last().expect("a file")).expect("read");
            assert!(last.contains("GatewayRestart") && last.contains("\"refused\""), "{cause}: {last}");
        }
    });
}

#[test]
fn k12_a_hand_over_that_cannot_be_written_is_aborted_and_the_gateway_goes_on() {
    on_a_host(|host| {
        let gateway = host.start();
        let mut guest = Guest::attached(host);
        // Something of somebody else is in its place.
        fs::write(host.path("admin.sock.handover"), "in the way").expect("written");
        let output = hand_over(host);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("the gateway runs on"), "{output:?}");
        assert!(guest.beat().is_some(), "the session goes on");
        assert_eq!(gateway.sessions()[0].state, "ATTACHED");
        fs::remove_file(host.path("admin.sock.handover")).expect("cleared");
        assert!(hand_over(host).status.success(), "and once more");
        gateway.end();
        let trace = verify::expand(&[host.path("audit")]).expect("a trace");
        let text = fs::read_to_string(&trace[0]).expect("read");
        assert!(text.contains("\"aborted\"") && text.contains(Reason::StoreUnavailable.name()), "{text}");
    });
}
