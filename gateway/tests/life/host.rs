//! A host for a gateway: two network namespaces, a client's socket, and the program itself.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use jumpgate::admin::{AdminClient, Answer, CounterRow, Question, SessionRow};
use jumpgate::keyfile;
use jumpgate::net::Netlink;
use jumpgate::os_entropy::OsEntropy;
use jumpgate_protocol::crypto::StaticSecret;
use jumpgate_protocol::handshake::{self, HelloRequest, Initiator};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

/// What a loaded machine needs at most for what takes milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long silence must last to be taken for silence.
pub(crate) const SILENCE: Duration = Duration::from_millis(400);

/// A gateway's host, whose outside interface leads to a client's host.
pub(crate) struct Host {
    directory: tempfile::TempDir,
    pub(crate) gateway_key: StaticSecret,
    pub(crate) client_key: StaticSecret,
    pub(crate) client: UdpSocket,
}

/// A running gateway. Killed if a test forgets it.
pub(crate) struct Gateway {
    child: Child,
    lines: mpsc::Receiver<String>,
    socket: PathBuf,
}

/// Runs a test in two network namespaces of its own, or says why it cannot.
pub(crate) fn on_a_host(test: fn(&Host)) {
    let run = move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("SKIPPED: network namespaces need root: {error}");
            return;
        }
        test(&Host::new());
    };
    thread::spawn(run).join().expect("the test passes");
}

impl Host {
    /// The calling thread is in the client's namespace and ends in the gateway's.
    fn new() -> Self {
        let far = File::open("/proc/thread-self/ns/net").expect("own namespace");
        unshare(CloneFlags::CLONE_NEWNET).expect("a second namespace");
        let near = File::open("/proc/thread-self/ns/net").expect("own namespace");
        ip(&format!(
            "link add out0 numrxqueues 2 numtxqueues 2 type veth peer name up0 netns /proc/{}/fd/{}",
            getpid(),
            far.as_raw_fd()
        ));
        ip("addr add 192.0.2.1/24 dev out0");
        ip("link set out0 up");
        setns(&far, CloneFlags::CLONE_NEWNET).expect("entered");
        ip("addr add 192.0.2.9/24 dev up0");
        ip("link set up0 up");
        let client = UdpSocket::bind("192.0.2.9:0").expect("the client's socket");
        client.connect("192.0.2.1:51900").expect("connected");
        setns(&near, CloneFlags::CLONE_NEWNET).expect("entered");
        let host = Self {
            directory: tempfile::tempdir().expect("directory"),
            gateway_key: StaticSecret::generate(&mut OsEntropy),
            client_key: StaticSecret::generate(&mut OsEntropy),
            client,
        };
        keyfile::write_private(&host.path("private.key"), host.gateway_key.as_bytes()).expect("key");
        host
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn config(&self) -> String {
        format!(
            "[gateway]\nprivate_key_file = \"private.key\"\nadmin_socket = \"{}\"\n\
             [outside]\ninterface = \"out0\"\nlisten = [\"192.0.2.1:51900\"]\n\
             [inside]\nkind = \"veth\"\ninterface = \"jg0\"\npool_v4 = \"10.66.0.0/24\"\n\
             [workers]\ncount = 2\n\
             [audit]\npath = \"audit\"\n\
             [policy]\nversion = \"1.0\"\n\
             [[client]]\nname = \"alice\"\npublic_key = \"{}\"\n",
            self.path("admin.sock").display(),
            keyfile::text(&self.client_key.public().0),
        )
    }

    /// The configuration of another gateway, which shares no file with the first one.
    pub(crate) fn elsewhere(&self) -> String {
        self.config().replace("admin.sock", "other.sock").replace("\"audit\"", "\"other-audit\"")
    }

    pub(crate) fn spawn(&self, config: &str) -> Gateway {
        let file = self.path("gateway.toml");
        fs::write(&file, config).expect("configuration");
        let mut child = Command::new(env!("CARGO_BIN_EXE_jumpgate"))
            .args(["run", "--config"])
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("jumpgate starts");
        let stdout = child.stdout.take().expect("standard output");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Gateway { child, lines, socket: self.path("admin.sock") }
    }

    pub(crate) fn start(&self) -> Gateway {
        let gateway = self.spawn(&self.config());
        gateway.wait_for("ready");
        gateway
    }

    /// Sends HELLO_INIT with that key and gives what comes back, if anything does.
    pub(crate) fn hello(&self, secret: &StaticSecret) -> Option<handshake::Answer> {
        let request = HelloRequest {
            hello_counter: 1,
            client_time_ms: 0,
            replaces: None,
            capabilities: 0,
            requested_policy: Default::default(),
        };
        let gateway = self.gateway_key.public();
        let mut initiator = Initiator::new(secret, &gateway, None, &request, &mut OsEntropy).expect("initiator");
        self.client.send(initiator.packet()).expect("sent");
        self.client.set_read_timeout(Some(SILENCE)).expect("timeout");
        let mut buffer = [0; 2048];
        let len = self.client.recv(&mut buffer).ok()?;
        Some(initiator.on_ack(&buffer[..len]).expect("a HELLO_ACK"))
    }

    /// No interface, program or socket file of a gateway is there.
    pub(crate) fn assert_untouched(&self) {
        let mut netlink = Netlink::open().expect("netlink");
        assert_eq!(netlink.link("jg0").expect("asked"), None);
        assert_eq!(netlink.link("jg0-port").expect("asked"), None);
        let shown = Command::new("ip").args(["link", "show", "out0"]).output().expect("ip").stdout;
        assert!(!String::from_utf8_lossy(&shown).contains("xdp"), "a program is left on out0");
        assert!(!self.path("admin.sock").exists());
    }
}

impl Gateway {
    /// Waits for a start-up line.
    pub(crate) fn wait_for(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(rest).unwrap_or_else(|_| panic!("{text:?} was never said"));
            if line.contains(text) {
                return;
            }
        }
    }

    /// Waits until the program is at its `main`.
    pub(crate) fn wait_for_main(&self) {
        wait_for_main(&self.child);
    }

    /// Waits until the configuration was read again.
    pub(crate) fn wait_for_reload(&self) {
        let deadline = Instant::now() + PATIENCE;
        let accepted = || {
            let Answer::Metrics(page) = self.ask(&Question::Metrics) else { panic!("no metrics") };
            page.lines().any(|line| line == "jumpgate_policy_reloads_total{result=\"accepted\"} 1")
        };
        while !accepted() {
            assert!(Instant::now() < deadline, "no reload");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn ask(&self, question: &Question) -> Answer {
        AdminClient::connect(&self.socket).and_then(|mut client| client.ask(question)).expect("answered")
    }

    pub(crate) fn sessions(&self) -> Vec<SessionRow> {
        let Answer::Sessions(rows) = self.ask(&Question::Sessions) else { panic!("no sessions") };
        rows
    }

    pub(crate) fn counter(&self, place: &str, name: &str) -> u64 {
        let Answer::Counters(rows) = self.ask(&Question::Counters) else { panic!("no counters") };
        let matches = |row: &&CounterRow| row.place == place && row.name == name;
        rows.iter().find(matches).map_or(0, |row| row.value)
    }

    /// Ends it without warning, as the kernel or a power failure would.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("signalled");
    }

    /// Waits for the end; gives the status and what was said on standard error.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().expect("waited").is_none() {
            assert!(Instant::now() < deadline, "the gateway does not end");
            thread::sleep(Duration::from_millis(5));
        }
        let mut text = String::new();
        self.child.stderr.take().expect("standard error").read_to_string(&mut text).expect("read");
        (self.child.wait().expect("ended"), text)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a program written in Rust is at its `main`: what runs before it has SIGPIPE ignored and SIGSEGV caught.
pub(crate) fn wait_for_main(child: &Child) {
    let file = format!("/proc/{}/status", child.id());
    let deadline = Instant::now() + PATIENCE;
    let has = |status: &str, set: &str, signal: Signal| {
        let digits = status.lines().find_map(|line| line.strip_prefix(set)).expect("a set of signals");
        u64::from_str_radix(digits.trim(), 16).expect("hexadecimal") & 1 << (signal as u64 - 1) != 0
    };
    let is_there = || {
        let status = fs::read_to_string(&file).expect("the status of a child");
        has(&status, "SigIgn:", Signal::SIGPIPE) && has(&status, "SigCgt:", Signal::SIGSEGV)
    };
    while !is_there() {
        assert!(Instant::now() < deadline, "the program never begins");
    }
}

pub(crate) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}");
}
