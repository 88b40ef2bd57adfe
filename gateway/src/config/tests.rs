use std::fs;
use std::os::unix::fs::PermissionsExt;

use jumpgate_protocol::policy::Profile;

use super::*;

/// A configuration without a mistake; tests put one in.
const GOOD: &str = r#"
[gateway]
private_key_file = "private.key"

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

[[client]]
name = "alice"
public_key = "XUEwhz/9Gl4hq0s2rrZK0Uz2vTthFYNi1IzLmJqSyUo="
inner_v4 = "10.66.0.5"

[[client]]
name = "bob"
public_key = "nHWMCT7+tQ1wFAlu5kuQ0OUZfKFrN8oIu2QfmuiYuWI="
"#;

fn read(text: &str) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().expect("directory");
    keyfile::write_private(&directory.path().join("private.key"), &[7; 32]).expect("key");
    let file = directory.path().join("gateway.toml");
    fs::write(&file, text).expect("written");
    Config::read(&file)
}

/// Reads the good configuration with `from` replaced by `to`, and gives the complaint.
fn complaint(from: &str, to: &str) -> ConfigError {
    assert!(GOOD.contains(from), "{from:?} is in the good configuration");
    let Err(error) = read(&GOOD.replacen(from, to, 1)) else { panic!("{to:?} was accepted") };
    assert_eq!(error.file.file_name().and_then(|name| name.to_str()), Some("gateway.toml"));
    assert!(!error.problem.is_empty() && !error.cure.is_empty(), "{error}");
    error
}

/// Line of the first occurrence in the good configuration.
fn line(of: &str) -> Option<usize> {
    GOOD.lines().position(|line| line.contains(of)).map(|index| index + 1)
}

#[test]
fn a_good_configuration_is_what_it_says() {
    let config = read(GOOD).expect("good");
    assert_eq!(config.admin_socket, Path::new(DEFAULT_ADMIN_SOCKET));
    assert_eq!(config.outside.mode, ModeChoice::Auto);
    assert_eq!(config.outside.zero_copy, ZeroCopy::Auto);
    assert_eq!(config.workers.count, Some(2));
    assert_eq!(config.policy.profile, Profile::Mobile);
    assert_eq!(config.policy.volatility.heartbeat_interval.as_millis(), 200);
    assert_eq!(config.clients.len(), 2);
    assert_eq!(config.clients[0].index, Some(5));
    assert_eq!(config.clients[1].index, None);
}

#[test]
fn the_example_is_valid() {
    let directory = tempfile::tempdir().expect("directory");
    keyfile::write_private(&directory.path().join("private.key"), &[7; 32]).expect("key");
    let file = directory.path().join("gateway.toml");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/gateway.toml");
    fs::copy(example, &file).expect("copied");
    assert_eq!(Config::read(&file).expect("valid").clients.len(), 2);
}

#[test]
fn every_commented_key_of_the_example_is_a_key() {
    let text = include_str!("../../examples/gateway.toml");
    let mut text: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            // A key: one word before the equals sign. `router` is only for the other kind of inside port.
            Some(key) if key.split(" = ").next().is_some_and(|word| !word.contains(' ')) && key.contains(" = ") => {
                format!("{key}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    text = text.replace("router = ", "# router = ").replace("psk_file = ", "# psk_file = ");
    if let Err(error) = read(&text) {
        panic!("{error}");
    }
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let error = complaint("count = 2", "cuont = 2");
    assert_eq!((error.line, error.key.as_str()), (line("count = 2"), "workers.cuont"));
    let error = complaint("profile = \"mobile\"", "profile = \"mobile\"\nheartbeat_interval = 5");
    assert_eq!(error.line, line("profile =").map(|line| line + 1));
    assert_eq!(error.key, "policy.heartbeat_interval");
    assert!(error.cure.contains("volatility.heartbeat_interval_ms"), "{error}");
}

#[test]
fn a_missing_key_says_what_to_add() {
    let error = complaint("interface = \"eth0\"\n", "");
    assert!(error.problem.contains("interface"), "{error}");
    assert_eq!(error.line, line("[outside]"));
    let error = complaint("version = \"1.0\"\n", "");
    assert_eq!(error.key, "policy.version");
}

#[test]
fn values_of_the_wrong_kind_are_named_with_their_line() {
    let error = complaint("count = 2", "count = \"two\"");
    assert_eq!((error.line, error.key.as_str()), (line("count = 2"), "workers.count"));
    let error = complaint("\"192.0.2.1:51900\"", "\"192.0.2.1\"");
    assert_eq!(error.line, line("listen ="));
    let error = complaint("kind = \"veth\"", "kind = \"tun\"");
    assert!(error.problem.contains("veth"), "{error}");
    let error = complaint("[workers]", "[workers");
    assert_eq!(error.line, line("[workers]"));
}

#[test]
fn listen_addresses_that_cannot_work_are_refused_one_by_one() {
    for (from, to, key) in [
        ("\"192.0.2.1:51900\"", "\"192.0.2.1:0\"", "outside.listen[0]"),
        ("\"192.0.2.1:51900\"", "\"239.0.0.1:51900\"", "outside.listen[0]"),
        ("\"[2001:db8::1]:51900\"", "\"[2001:db8::1]:51901\"", "outside.listen[1]"),
        ("\"[2001:db8::1]:51900\"", "\"192.0.2.1:51900\"", "outside.listen[1]"),
        ("\"192.0.2.1:51900\"", "\"10.66.1.1:51900\"", "outside.listen[0]"),
    ] {
        let error = complaint(from, to);
        assert_eq!((error.key.as_str(), error.line), (key, line("listen =")), "{error}");
    }
    assert_eq!(
        complaint("listen = [\"192.0.2.1:51900\", \"[2001:db8::1]:51900\"]", "listen = []").key,
        "outside.listen"
    );
}

#[test]
fn interfaces_and_pools_that_cannot_be_are_refused() {
    assert_eq!(complaint("\"jg0\"", "\"jumpgate-inside\"").key, "inside.interface");
    assert_eq!(complaint("\"jg0\"", "\"eth0\"").key, "inside.interface");
    assert_eq!(complaint("\"eth0\"", "\"e/0\"").key, "outside.interface");
    assert_eq!(complaint("10.66.0.0/16", "10.66.0.0/31").key, "inside.pool_v4");
    let without = "pool_v4 = \"10.66.0.0/16\"\npool_v6 = \"fd66::/112\"\n";
    assert_eq!(complaint(without, "").line, line("[inside]"));
    assert_eq!(complaint("kind = \"veth\"", "kind = \"nic\"").key, "inside.router");
    assert_eq!(complaint("kind = \"veth\"", "kind = \"veth\"\nrouter = \"10.1.0.1\"").key, "inside.router");
}

#[test]
fn workers_that_cannot_be_are_refused() {
    assert_eq!(complaint("count = 2", "count = 0").key, "workers.count");
    assert_eq!(complaint("count = 2", "count = 65").key, "workers.count");
    assert_eq!(complaint("count = 2", "count = 2\ncpus = [0]").key, "workers.cpus");
    assert_eq!(complaint("count = 2", "cpus = [1, 1]").key, "workers.cpus[1]");
}

#[test]
fn clients_are_told_apart_and_have_possible_addresses() {
    for (from, to, key) in [
        ("\"bob\"", "\"alice\"", "client[1].name"),
        ("\"bob\"", "\"\"", "client[1].name"),
        (
            "nHWMCT7+tQ1wFAlu5kuQ0OUZfKFrN8oIu2QfmuiYuWI=",
            "XUEwhz/9Gl4hq0s2rrZK0Uz2vTthFYNi1IzLmJqSyUo=",
            "client[1].public_key",
        ),
        ("nHWMCT7+tQ1wFAlu5kuQ0OUZfKFrN8oIu2QfmuiYuWI=", "nHWMCT7", "client[1].public_key"),
        ("\"10.66.0.5\"", "\"10.66.0.1\"", "client[0].inner_v4"),
        ("\"10.66.0.5\"", "\"10.67.0.5\"", "client[0].inner_v4"),
        ("\"10.66.0.5\"", "\"10.66.0.5\"\ninner_v6 = \"fd66::6\"", "client[0].inner_v6"),
        ("name = \"bob\"", "name = \"bob\"\ninner_v6 = \"fd66::5\"", "client[1].inner_v6"),
        ("name = \"bob\"", "name = \"bob\"\npsk_file = \"nowhere.psk\"", "client[1].psk_file"),
    ] {
        let error = complaint(from, to);
        assert_eq!(error.key, key, "{error}");
        assert!(error.line.is_some());
    }
    assert!(read(&GOOD.replace("\"10.66.0.5\"", "\"10.66.0.5\"\ninner_v6 = \"fd66::5\"")).is_ok());
}

#[test]
fn the_gateways_own_key_is_no_clients_key() {
    let own = keyfile::text(&StaticSecret::new([7; 32]).public().0);
    let error = complaint("nHWMCT7+tQ1wFAlu5kuQ0OUZfKFrN8oIu2QfmuiYuWI=", &own);
    assert_eq!(error.key, "client[1].public_key");
}

#[test]
fn rl1_an_invalid_policy_is_refused_with_rule_key_value_and_bound() {
    let error = complaint("heartbeat_interval_ms = 200", "heartbeat_interval_ms = 30");
    assert_eq!(
        (error.line, error.key.as_str()),
        (line("heartbeat_interval"), "policy.volatility.heartbeat_interval_ms")
    );
    assert!(error.problem.contains("PR-02"), "{error}");
    // Within its range, but too long for the silence that the profile allows.
    let error = complaint("heartbeat_interval_ms = 200", "heartbeat_interval_ms = 900");
    assert!(error.problem.contains("PR-0"), "{error}");
    assert_eq!(error.line, line("heartbeat_interval"), "the line of the key that the file states");
    assert_eq!(complaint("profile = \"mobile\"", "profile = 1979-05-27").key, "policy.profile");
}

#[test]
fn a_key_file_that_is_missing_or_open_to_all_comes_with_its_cure() {
    let error = complaint("\"private.key\"", "\"absent.key\"");
    assert_eq!((error.line, error.key.as_str()), (line("private.key"), "gateway.private_key_file"));
    assert!(error.cure.contains("jumpgate keygen"), "{error}");

    let directory = tempfile::tempdir().expect("directory");
    let key = directory.path().join("private.key");
    keyfile::write_private(&key, &[7; 32]).expect("key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("chmod");
    let file = directory.path().join("gateway.toml");
    fs::write(&file, GOOD).expect("written");
    let Err(error) = Config::read(&file) else { panic!("accepted") };
    assert_eq!(error.cure, format!("chmod 600 {}", key.display()));
}

#[test]
fn a_file_that_is_absent_or_no_text_says_so() {
    let Err(error) = Config::read(Path::new("/nowhere/gateway.toml")) else { panic!("accepted") };
    assert_eq!(error.line, None);
    assert!(error.to_string().starts_with("/nowhere/gateway.toml: "), "{error}");
    assert!(error.to_string().contains("\n  cure: "));
}

#[test]
fn a_file_without_end_is_not_read_to_its_end() {
    let Err(error) = Config::read(Path::new("/dev/zero")) else { panic!("accepted") };
    assert!(error.problem.contains("no configuration"), "{error}");
}

/// Adds lines to the table of bob, the last one.
fn of_bob(lines: &str) -> Result<Config, ConfigError> {
    read(&format!("{GOOD}{lines}\n"))
}

#[test]
fn a_client_may_have_a_policy_and_networks_of_its_own() {
    let config = of_bob(
        "allowed_sources = [\"198.51.100.0/24\", \"2001:db8:7::/48\"]\n\
         policy.switching.max_switches_per_min = 3\npolicy.apply_mode = \"strict\"",
    )
    .expect("good");
    let (alice, bob) = (&config.clients[0], &config.clients[1]);
    assert!(alice.policy.is_none() && alice.sources.allow([203, 0, 113, 1].into()));
    assert!(bob.sources.allow([198, 51, 100, 9].into()) && !bob.sources.allow([203, 0, 113, 1].into()));
    let own = bob.policy.as_ref().expect("its own");
    assert_eq!(own.switching.max_switches_per_min, 3);
    assert_eq!(own.volatility.heartbeat_interval.as_millis(), 200, "the rest is the gateway's");
    assert!(!bob.compromised && of_bob("compromised = true").expect("good").clients[1].compromised);
}

#[test]
fn a_mistake_in_a_clients_own_policy_names_client_key_value_and_rule_with_its_line() {
    let line = Some(GOOD.lines().count() + 1);
    for (mistake, key, rule, value) in [
        ("policy.switching.switch_cooldown_ms = 1", "switching.switch_cooldown_ms", "PR-02", "1"),
        ("policy.switching.switch_cooldown = 500", "switching.switch_cooldown", "PR-01", "500"),
        ("policy.limits.max_sessions = 500", "limits.max_sessions", "PR-01", "500"),
        ("policy.volatility.heartbeat_interval_ms = 600", "volatility.heartbeat_interval_ms", "PR-04", "600"),
        ("policy.access.client_to_client = true", "access.client_to_client", "PR-01", "true"),
    ] {
        let Err(error) = of_bob(mistake) else { panic!("{mistake} was accepted") };
        assert_eq!(error.line, line, "{error}");
        assert!(error.key.starts_with("client[1].policy."), "{error}");
        for part in ["client \"bob\"", rule, value] {
            assert!(error.problem.contains(part), "{part} is not in {error}");
        }
        assert!(error.to_string().contains(key), "{error}");
    }
}

#[test]
fn a_list_of_networks_from_which_nobody_can_come_is_refused() {
    let Err(error) = of_bob("allowed_sources = []") else { panic!("accepted") };
    assert_eq!(error.key, "client[1].allowed_sources");
    assert!(error.cure.contains("remove its table"), "{error}");
    assert!(of_bob("allowed_sources = [\"198.51.100.0/33\"]").is_err());
}

#[test]
fn what_a_running_gateway_cannot_take_over_is_named_key_by_key() {
    let old = read(GOOD).expect("good");
    let differences = |from: &str, to: &str| old.fixed_differences(&read(&GOOD.replace(from, to)).expect("good"));
    assert!(
        differences("heartbeat_interval_ms = 200", "heartbeat_interval_ms = 250").is_empty(),
        "policy and clients can change"
    );
    assert!(differences("name = \"bob\"", "name = \"carol\"").is_empty());
    assert_eq!(differences("\"eth0\"", "\"eth1\""), ["outside.interface"]);
    assert_eq!(differences("51900", "51901"), ["outside.listen"]);
    assert_eq!(differences("fd66::/112", "fd67::/112"), ["inside.pool_v6"]);
    assert_eq!(differences("count = 2", "count = 3"), ["workers.count"]);
}
