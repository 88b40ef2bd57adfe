//! A small network for the tests: a client namespace with two uplinks to a gateway namespace.
//!
//! ```text
//!   client: wifi0 10.1.0.2 ---- wifi 10.1.0.1 :gateway   192.0.2.1 on its loopback
//!           lte0  10.2.0.2 ---- lte  10.2.0.1 :          10.66.0.1 on its TUN
//! ```
//! Both families. Namespaces have names of their own and go with the value, also when a test panics.

pub(crate) mod gateway;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Whether the tests may make namespaces; says why not.
pub(crate) fn is_possible() -> bool {
    let missing = if !geteuid().is_root() {
        Some("needs root for network namespaces")
    } else if Command::new("ip").arg("-V").stdout(Stdio::null()).status().is_err() {
        Some("needs the program ip (apt-get install iproute2)")
    } else if !Path::new("/dev/net/tun").exists() {
        Some("needs /dev/net/tun (modprobe tun)")
    } else {
        None
    };
    if let Some(missing) = missing {
        println!("SKIPPED: {missing}");
    }
    missing.is_none()
}

pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn create(role: &str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("jump-test-{}-{number}-{role}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `ip` inside; the words of `arguments` are its arguments.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let output = run(Command::new("ip").args(["-n", &self.name]).args(arguments.split(' ')));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A program that will run inside.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs something inside, as opening a socket, which stays there.
    pub(crate) fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let name = self.name.clone();
        let inside = move || {
            enter(&name);
            work()
        };
        thread::spawn(inside).join().unwrap()
    }
}

/// Moves the calling thread into a namespace.
pub(crate) fn enter(name: &str) {
    let file = File::open(format!("/run/netns/{name}")).unwrap();
    setns(file, CloneFlags::CLONE_NEWNET).unwrap();
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

pub(crate) struct Network {
    pub client: Namespace,
    pub gateway: Namespace,
}

pub(crate) const WIFI: &str = "wifi0";
pub(crate) const LTE: &str = "lte0";

impl Network {
    pub(crate) fn build() -> Self {
        let network = Self { client: Namespace::create("client"), gateway: Namespace::create("gateway") };
        network.gateway.ip("addr add 192.0.2.1/32 dev lo");
        network.gateway.ip("addr add 2001:db8::1/128 dev lo nodad");
        for (number, interface, peer) in [(1, WIFI, "wifi"), (2, LTE, "lte")] {
            let gateway = &network.gateway.name;
            network.client.ip(&format!("link add {interface} type veth peer name {peer} netns {gateway}"));
            network.client.ip(&format!("addr add 10.{number}.0.2/24 dev {interface}"));
            network.client.ip(&format!("addr add fd0{number}::2/64 dev {interface} nodad"));
            network.gateway.ip(&format!("addr add 10.{number}.0.1/24 dev {peer}"));
            network.gateway.ip(&format!("addr add fd0{number}::1/64 dev {peer} nodad"));
            network.gateway.ip(&format!("link set {peer} up"));
            network.client.ip(&format!("link set {interface} up"));
            network.add_default_route(number);
        }
        network
    }

    /// The route that a DHCP client would have set.
    pub(crate) fn add_default_route(&self, number: u8) {
        let interface = if number == 1 { WIFI } else { LTE };
        self.client.ip(&format!("route replace default via 10.{number}.0.1 dev {interface} metric {number}00"));
        self.client.ip(&format!("-6 route replace default via fd0{number}::1 dev {interface} metric {number}00"));
    }
}

/// `jump up` in a namespace, with its files.
pub(crate) struct Jump {
    child: Child,
    namespace: String,
    directory: tempfile::TempDir,
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_jump");

impl Jump {
    /// Starts it with this text below `[client]`'s files and `[gateway]`'s key; `wrapper` is what starts it, if anything.
    pub(crate) fn start(
        namespace: &Namespace,
        wrapper: &[&str],
        private_key: &str,
        gateway_key: &str,
        endpoints: &str,
        routes: &str,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key_file = directory.path().join("private.key");
        fs::write(&key_file, private_key).unwrap();
        fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let config = format!(
            "[client]\nprivate_key_file = \"private.key\"\nstate_dir = \"state\"\ncontrol_socket = \"control.sock\"\n\
             routes = [{routes}]\n[gateway]\npublic_key = \"{gateway_key}\"\nendpoints = [{endpoints}]\n\
             [[uplink]]\ninterface = \"{WIFI}\"\npriority = 10\n[[uplink]]\ninterface = \"{LTE}\"\npriority = 20\n"
        );
        fs::write(directory.path().join("jump.toml"), config).unwrap();
        let log = File::create(directory.path().join("log")).unwrap();
        let [program, arguments @ ..] = &[wrapper, &[PROGRAM]].concat()[..] else { unreachable!("one word at least") };
        let child = namespace
            .command(program)
            .args(arguments)
            .args(["up", "--config"])
            .arg(directory.path().join("jump.toml"))
            .env("JUMP_LOG", "debug")
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, namespace: namespace.name.clone(), directory }
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("jump.toml")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Asks it something on the command line.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Output {
        Command::new(PROGRAM).args(arguments).arg("--config").arg(self.config()).output().unwrap()
    }

    pub(crate) fn status(&self) -> Option<jump::report::Status> {
        serde_json::from_slice(&self.ask(&["status", "--json"]).stdout).ok()
    }

    /// Waits until its status is as wanted; panics with status and log if that does not happen.
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&jump::report::Status) -> bool) -> jump::report::Status {
        let started = Instant::now();
        loop {
            let status = self.status();
            if let Some(status) = status.as_ref().filter(|status| wanted(status)) {
                return status.clone();
            }
            if started.elapsed() > Duration::from_secs(15) {
                panic!("{what} did not happen\n{status:#?}\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // `ip netns exec` replaces itself by the program, so the child is the program.
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for its end and gives its exit code.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(10) {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("jump in {} did not end\n{}", self.namespace, self.log());
    }
}

impl Drop for Jump {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
