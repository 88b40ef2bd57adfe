//! Texts that operators and users write: key files, both configurations, what is asked at the control sockets.

use std::cell::OnceCell;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The key that the configurations of the seeds point to.
const KEY: &str = "cHJpdmF0ZSBrZXkgb2YgdGhlIGZ1enplcnMsIDMyIEI=\n";

/// A key as text and as a file, at both ends.
pub fn keys(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let (client, gateway) = (jump::keys::parse_key(text), jumpgate::keyfile::parse(text));
        match (&client, &gateway) {
            (Ok(client), Ok(gateway)) => {
                assert_eq!(**client, **gateway, "both ends read the same key");
                assert_eq!(*jump::keys::format_key(client), jumpgate::keyfile::text(gateway));
                assert_eq!(jump::keys::format_key(client).as_str(), text.trim());
            }
            (Err(client), Err(gateway)) => {
                assert!(!client.to_string().is_empty() && !gateway.to_string().is_empty());
            }
            _ => panic!("one end takes a key that the other refuses"),
        }
    }
    with_file("private.key", bytes, |file| {
        let (client, gateway) = (jump::keys::read_secret(file), jumpgate::keyfile::read_private(file));
        assert_eq!(client.is_ok(), gateway.is_ok(), "both ends take the same files");
        if let Err(error) = gateway {
            assert!(!error.to_string().is_empty() && !error.cure(file).is_empty());
        }
    });
    with_file("hello-counter", bytes, |file| {
        let directory = file.parent().expect("a file lies in a directory");
        if let Ok(counter) = jump::state::HelloCounter::open(directory) {
            let _ = counter.floor();
        }
    });
}

/// The gateway's configuration. The key file that it names is there.
pub fn gateway_config(bytes: &[u8]) {
    with_file("gateway.toml", bytes, |file| match jumpgate::config::Config::read(file) {
        Ok(config) => {
            config.policy.validate().expect("INV-24: only a valid policy is in force");
            assert!(!config.outside.listen.is_empty());
        }
        Err(error) => assert!(!error.problem.is_empty() && !error.cure.is_empty(), "cause and cure: {error:?}"),
    });
}

/// The client's configuration.
pub fn client_config(bytes: &[u8]) {
    with_file("jump.toml", bytes, |file| match jump::config::Config::load(file) {
        Ok(config) => {
            let paths = config.paths();
            assert!(!paths.is_empty() && paths.len() <= jump::config::MAX_PATHS);
            assert!(config.requested_policy.len() <= config.requested_policy.capacity());
        }
        Err(error) => assert!(error.to_string().contains("jump.toml"), "a complaint names the file: {error}"),
    });
}

/// What can be asked at the sockets, and the answers that the tools read.
pub fn requests(bytes: &[u8]) {
    if let Ok(question) = serde_json::from_slice::<jumpgate::admin::Question>(bytes) {
        let again = serde_json::to_vec(&question).expect("a question can be written");
        assert_eq!(serde_json::from_slice::<jumpgate::admin::Question>(&again).ok(), Some(question));
    }
    if let Ok(answer) = serde_json::from_slice::<jumpgate::admin::Answer>(bytes) {
        assert!(serde_json::to_vec(&answer).is_ok());
    }
    if let Ok(request) = serde_json::from_slice::<jump::control::Request>(bytes) {
        let again = serde_json::to_vec(&request).expect("a request can be written");
        assert_eq!(serde_json::from_slice::<jump::control::Request>(&again).ok(), Some(request));
    }
    if let Ok(response) = serde_json::from_slice::<jump::control::Response>(bytes) {
        assert!(serde_json::to_vec(&response).is_ok());
    }
    if let Ok(event) = serde_json::from_slice::<jump::report::EventLine>(bytes) {
        assert!(serde_json::to_vec(&event).is_ok());
    }
}

/// Lends a file with that content, readable by its owner only, in a directory that holds a key as well.
fn with_file(name: &str, content: &[u8], read: impl FnOnce(&Path)) {
    thread_local!(static DIRECTORY: OnceCell<TempDir> = const { OnceCell::new() });
    DIRECTORY.with(|directory| {
        let directory = directory.get_or_init(|| {
            let directory = tempfile::tempdir().expect("a temporary directory");
            write(&directory.path().join("gateway.key"), KEY.as_bytes());
            directory
        });
        let file = directory.path().join(name);
        write(&file, content);
        read(&file);
    });
}

fn write(file: &PathBuf, content: &[u8]) {
    fs::write(file, content).expect("a file in a temporary directory");
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("its permissions");
}

/// Keys, and what is nearly one.
pub fn key_seeds() -> Vec<Vec<u8>> {
    [KEY, " \t", &KEY[..40], "1700000000000\n", &KEY.repeat(8)].map(|text| text.as_bytes().to_vec()).to_vec()
}

/// The example that is shipped, and a small one.
pub fn gateway_config_seeds() -> Vec<Vec<u8>> {
    let example = include_str!("../../../gateway/examples/gateway.toml");
    let small = r#"
[gateway]
private_key_file = "gateway.key"
[outside]
interface = "eth0"
listen = ["192.0.2.1:51900", "[2001:db8::1]:51900"]
[inside]
kind = "veth"
interface = "jg0"
pool_v4 = "10.66.0.0/16"
pool_v6 = "fd66::/112"
[workers]
count = 2
[policy]
version = "1.0"
profile = "mobile"
volatility.heartbeat_interval_ms = 200
limits.control_per_source = [200, 400]
transport.priority.wifi = 20
[[client]]
name = "alice"
public_key = "XUEwhz/9Gl4hq0s2rrZK0Uz2vTthFYNi1IzLmJqSyUo="
inner_v4 = "10.66.0.5"
"#;
    vec![example.into(), small.into()]
}

/// The example that is shipped, with its comments as settings too, and a small one.
pub fn client_config_seeds() -> Vec<Vec<u8>> {
    let example = include_str!("../../../client/examples/jump.toml");
    let small = r#"
[client]
private_key_file = "gateway.key"
routes = ["10.0.0.0/8", "::/0"]
mtu = 1400
[gateway]
public_key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
endpoints = ["192.0.2.1:51900", "[2001:db8::1]:51900"]
[[uplink]]
interface = "wifi0"
priority = 10
[[uplink]]
interface = "lte0"
[policy]
switching.max_switches_per_min = 4
"#;
    vec![example.into(), example.replace("#= ", "").into_bytes(), small.into()]
}

/// Every request that there is.
pub fn request_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"command":"sessions"}"#,
        r#"{"command":"counters"}"#,
        r#"{"command":"terminate","locator":"0011223344556677"}"#,
        r#"{"command":"status"}"#,
        r#"{"command":"move","to":"lte0"}"#,
        r#"{"command":"down"}"#,
        r#"{"command":"events"}"#,
        r#"{"error":"no"}"#,
        r#""done""#,
        r#"{"counters":[{"place":"slow","name":"x","value":1}]}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
