//! The configuration file of `jump up`: TOML, parsed into types that cannot hold an illegal value.
//!
//! Every complaint names the file, the line, the key and the cure. Keys that nobody knows are refused:
//! a misspelt key that is silently ignored is a setting that silently does not hold.

mod error;
mod policy;
mod values;

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use jumpgate_protocol::ident::{PublicKey, TransportId};
use jumpgate_protocol::policy::TransportClass;
use jumpgate_protocol::wire::RequestedPolicy;
use serde::Deserialize;
use toml::Spanned;
use zeroize::Zeroizing;

pub use self::error::ConfigError;
use crate::keys::{self, KEY_LEN, KeyError};

/// Most paths that one client holds, as in the protocol core: eight interfaces towards both address families.
pub const MAX_PATHS: usize = 16;
/// Largest configuration file that is read: far above any real one, and a wrong path (a disk image) is not swallowed.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Priority of an uplink that names none; smaller is preferred (PP55).
const DEFAULT_PRIORITY: u8 = 100;

/// A whole configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This end.
    pub client: ClientSection,
    /// The other end.
    pub gateway: GatewaySection,
    /// Interfaces that may carry the tunnel, in the order of their transport ids.
    #[serde(default, rename = "uplink")]
    pub uplinks: Vec<UplinkSection>,
    /// The client's own trace.
    #[serde(default)]
    pub audit: AuditSection,
    /// Who may scrape it.
    #[serde(default)]
    pub metrics: MetricsSection,
    #[serde(default)]
    policy: toml::Table,
    /// Policy values asked of the gateway, by number; it grants what narrows its own (§10).
    #[serde(skip)]
    pub requested_policy: RequestedPolicy,
}

/// `[client]`: this end.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientSection {
    /// File with the private key in base64.
    pub private_key_file: PathBuf,
    /// Directory for what outlives a run.
    #[serde(default = "values::state_dir")]
    pub state_dir: PathBuf,
    /// Unix socket for `jump status`, `move`, `events` and `down`.
    #[serde(default = "values::control_socket")]
    pub control_socket: PathBuf,
    /// Name of the TUN interface.
    #[serde(default = "values::tun_name", deserialize_with = "values::interface")]
    pub interface: String,
    /// Networks that are routed into the tunnel.
    #[serde(default, deserialize_with = "values::networks")]
    pub routes: Vec<IpNet>,
    /// Upper bound of the tunnel's MTU; the gateway's offer and the uplinks' MTUs may lower it further.
    #[serde(default, deserialize_with = "values::mtu")]
    pub mtu: Option<u16>,
}

/// `[audit]`: the client's own trace of its sessions.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSection {
    /// Whether one is kept.
    pub enabled: bool,
    /// Directory for it; by default `audit` in the state directory.
    pub path: Option<PathBuf>,
}

impl Default for AuditSection {
    fn default() -> Self {
        Self { enabled: true, path: None }
    }
}

/// `[metrics]`: an endpoint for a monitoring system.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsSection {
    /// Where `GET /metrics` is served by HTTP; nowhere by default.
    pub listen: Option<SocketAddr>,
}

/// `[gateway]`: the other end.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewaySection {
    /// The gateway's public key.
    #[serde(deserialize_with = "values::public_key")]
    pub public_key: PublicKey,
    /// File with a pre-shared key in base64.
    #[serde(default)]
    pub psk_file: Option<PathBuf>,
    /// Addresses and ports where the gateway listens. Addresses, not names: a name could only be resolved through a
    /// network that may be down, or through the tunnel itself.
    #[serde(deserialize_with = "values::endpoints")]
    pub endpoints: Vec<SocketAddr>,
}

/// `[[uplink]]`: an interface that may carry the tunnel.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UplinkSection {
    /// Its name, as `ip link` shows it. It need not exist yet.
    #[serde(deserialize_with = "values::spanned_interface")]
    pub interface: Spanned<String>,
    /// What kind of network it is, for the priorities of the gateway's policy (PP55): wired, wifi, cellular or other.
    #[serde(default = "default_class", deserialize_with = "values::class")]
    pub class: TransportClass,
    /// Rank among uplinks that policy ranks alike, smaller first.
    #[serde(default = "default_priority", deserialize_with = "values::priority")]
    pub priority: u8,
}

/// A path of the client: one uplink to one endpoint (§1, "transport").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathSpec {
    /// Stable number: position in the product of uplinks and endpoints, in the order of the file, from 1.
    pub id: TransportId,
    /// Interface.
    pub interface: String,
    /// The gateway's address and port on this path.
    pub endpoint: SocketAddr,
    /// Kind of its network.
    pub class: TransportClass,
    /// Rank among equals, smaller first.
    pub priority: u8,
}

/// The secrets that the configuration points to.
#[derive(Debug)]
pub struct Secrets {
    /// Private key of the client.
    pub private_key: Zeroizing<[u8; KEY_LEN]>,
    /// Pre-shared key with the gateway.
    pub psk: Option<Zeroizing<[u8; KEY_LEN]>>,
}

const fn default_priority() -> u8 {
    DEFAULT_PRIORITY
}

const fn default_class() -> TransportClass {
    TransportClass::Other
}

impl Config {
    /// Reads and checks the file. Relative paths inside count from the directory of the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let mut config = Self::parse(&text, path)?;
        let base = path.parent().unwrap_or(Path::new("."));
        for file in [
            Some(&mut config.client.private_key_file),
            Some(&mut config.client.state_dir),
            Some(&mut config.client.control_socket),
            config.gateway.psk_file.as_mut(),
            config.audit.path.as_mut(),
        ]
        .into_iter()
        .flatten()
        {
            *file = base.join(&*file);
        }
        Ok(config)
    }

    /// Checks a text; `path` only appears in complaints.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| ConfigError::from_toml(path, text, &error))?;
        config.requested_policy = policy::parse(&config.policy, text)
            .map_err(|fault| ConfigError::at(path, text, fault.offset, fault.message))?;
        config.check_uplinks(text, path)?;
        Ok(config)
    }

    /// What one value cannot show: uplinks against each other, against the tunnel and against the endpoints.
    fn check_uplinks(&self, text: &str, path: &Path) -> Result<(), ConfigError> {
        if self.uplinks.is_empty() {
            return Err(ConfigError::in_file(
                path,
                "uplink: none given; add an [[uplink]] with the interface that reaches the gateway",
            ));
        }
        for (position, uplink) in self.uplinks.iter().enumerate() {
            let name = uplink.interface.get_ref();
            let complain = |message: String| ConfigError::at(path, text, uplink.interface.span().start, message);
            if *name == self.client.interface {
                return Err(complain(format!(
                    "{name} is the tunnel itself (client.interface); name a physical interface"
                )));
            }
            if self.uplinks[..position].iter().any(|earlier| earlier.interface.get_ref() == name) {
                return Err(complain(format!("{name} is listed twice; keep one [[uplink]] per interface")));
            }
        }
        let paths = self.uplinks.len() * self.gateway.endpoints.len();
        if paths > MAX_PATHS {
            return Err(ConfigError::in_file(
                path,
                &format!("uplink: {paths} paths (uplinks x endpoints) are more than {MAX_PATHS}; list fewer of either"),
            ));
        }
        Ok(())
    }

    /// Where the trace is kept; none if it is switched off.
    pub fn audit_path(&self) -> Option<PathBuf> {
        let path = || self.audit.path.clone().unwrap_or_else(|| self.client.state_dir.join("audit"));
        self.audit.enabled.then(path)
    }

    /// Every path, in the order of its transport id.
    pub fn paths(&self) -> Vec<PathSpec> {
        let pairs = self
            .uplinks
            .iter()
            .flat_map(|uplink| self.gateway.endpoints.iter().map(move |endpoint| (uplink, *endpoint)));
        pairs
            .zip(1..)
            .map(|((uplink, endpoint), number)| PathSpec {
                id: TransportId(number),
                interface: uplink.interface.get_ref().clone(),
                endpoint,
                class: uplink.class,
                priority: uplink.priority,
            })
            .collect()
    }

    /// Whether the routes into the tunnel would swallow packets to that address.
    pub fn tunnel_covers(&self, address: IpAddr) -> bool {
        self.client.routes.iter().any(|network| network.contains(&address))
    }

    /// Reads the key files.
    pub fn secrets(&self) -> Result<Secrets, KeyError> {
        Ok(Secrets {
            private_key: keys::read_secret(&self.client.private_key_file)?,
            psk: self.gateway.psk_file.as_deref().map(keys::read_secret).transpose()?,
        })
    }
}

/// The text of a file, if it is no larger than a configuration can be.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("more than {MAX_FILE_BYTES} bytes are no configuration")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The example that is shipped; the README points to it.
    const EXAMPLE: &str = include_str!("../../examples/jump.toml");

    const MINIMAL: &str = r#"
[client]
private_key_file = "private.key"
[gateway]
public_key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
endpoints = ["192.0.2.1:51900"]
[[uplink]]
interface = "wifi0"
"#;

    fn complaint(text: &str) -> String {
        Config::parse(text, Path::new("jump.toml")).unwrap_err().to_string()
    }

    #[test]
    fn the_shipped_example_is_valid() {
        let config = Config::parse(EXAMPLE, Path::new("jump.toml")).unwrap();
        assert_eq!(config.uplinks.len(), 2);
        assert!(!config.client.routes.is_empty());
    }

    #[test]
    fn the_comments_of_the_example_are_settings_that_work() {
        let uncommented: String = EXAMPLE
            .lines()
            .map(|line| line.strip_prefix("#= ").unwrap_or(line))
            .flat_map(|line| [line, "\n"])
            .collect();
        assert_ne!(uncommented, EXAMPLE);
        let config = Config::parse(&uncommented, Path::new("jump.toml")).unwrap();
        assert!(
            config.client.mtu.is_some() && config.gateway.psk_file.is_some() && !config.requested_policy.is_empty()
        );
    }

    #[test]
    fn a_minimal_file_gets_the_defaults() {
        let config = Config::parse(MINIMAL, Path::new("jump.toml")).unwrap();
        assert_eq!(config.client.interface, "jump0");
        assert_eq!((config.uplinks[0].priority, config.uplinks[0].class), (DEFAULT_PRIORITY, TransportClass::Other));
        assert!(config.client.routes.is_empty() && config.requested_policy.is_empty());
    }

    #[test]
    fn transport_ids_follow_the_order_of_the_file() {
        let text = MINIMAL.replace("[\"192.0.2.1:51900\"]", "[\"192.0.2.1:51900\", \"[2001:db8::1]:51900\"]")
            + "[[uplink]]\ninterface = \"lte0\"\npriority = 20\nclass = \"cellular\"\n";
        let paths = Config::parse(&text, Path::new("jump.toml")).unwrap().paths();
        let shown: Vec<_> =
            paths.iter().map(|path| (path.id.0, path.interface.as_str(), path.endpoint.is_ipv6())).collect();
        let class = |id: usize| paths[id - 1].class;
        assert_eq!((class(2), class(4)), (TransportClass::Other, TransportClass::Cellular));
        assert_eq!(shown, [(1, "wifi0", false), (2, "wifi0", true), (3, "lte0", false), (4, "lte0", true)]);
    }

    #[test]
    fn an_unknown_key_is_refused_with_file_line_key_and_cure() {
        let error = complaint(&MINIMAL.replace("[gateway]", "[gateway]\nendpoint = \"192.0.2.1:1\""));
        assert!(error.starts_with("jump.toml:5:"), "{error}");
        assert!(error.contains("gateway.endpoint") && error.contains("`endpoints`"), "{error}");
    }

    #[test]
    fn a_wrong_value_is_refused_with_file_line_key_and_cure() {
        let cases = [
            ("[\"192.0.2.1:51900\"]", "[\"192.0.2.1\"]", "jump.toml:6:", "gateway.endpoints", "192.0.2.1:51900"),
            ("[\"192.0.2.1:51900\"]", "[\"vpn.example.org:51900\"]", "jump.toml:6:", "gateway.endpoints", "resolve"),
            (
                "[\"192.0.2.1:51900\"]",
                "[\"192.0.2.1:51900\", \"192.0.2.1:51900\"]",
                "jump.toml:6:",
                "gateway.endpoints",
                "twice",
            ),
            ("[\"192.0.2.1:51900\"]", "[]", "jump.toml:6:", "gateway.endpoints", "at least one"),
            ("[\"192.0.2.1:51900\"]", "[\"0.0.0.0:51900\"]", "jump.toml:6:", "gateway.endpoints", "unicast"),
            ("\"hSDw", "\"hS", "jump.toml:5:", "gateway.public_key", "44 characters"),
            ("\"wifi0\"", "\"a-name-that-is-too-long\"", "jump.toml:8:", "uplink.interface", "15"),
            ("\"wifi0\"", "\"jump0\"", "jump.toml:8:", "uplink.interface", "physical"),
            ("\"wifi0\"", "\"wifi0\"\npriority = 300", "jump.toml:9:", "uplink.priority", "0 to 255"),
            ("\"wifi0\"", "\"wifi0\"\nclass = \"wlan\"", "jump.toml:9:", "uplink.class", "cellular"),
            ("\"private.key\"", "\"private.key\"\nmtu = 100", "jump.toml:4:", "client.mtu", "1280"),
            (
                "\"private.key\"",
                "\"private.key\"\nroutes = [\"10.0.0.1/8\"]",
                "jump.toml:4:",
                "client.routes",
                "10.0.0.0/8",
            ),
        ];
        for (old, new, place, key, cure) in cases {
            let error = complaint(&MINIMAL.replace(old, new));
            assert!(error.starts_with(place), "{new}: {error}");
            assert!(error.contains(key) && error.contains(cure), "{new}: {error}");
        }
    }

    #[test]
    fn a_missing_key_names_its_section() {
        let error = complaint(&MINIMAL.replace("private_key_file = \"private.key\"", ""));
        assert!(error.contains("private_key_file") && error.contains("client"), "{error}");
    }

    #[test]
    fn uplinks_must_exist_and_differ() {
        let (head, _) = MINIMAL.split_once("[[uplink]]").unwrap();
        assert!(complaint(head).contains("[[uplink]]"));
        let twice = format!("{MINIMAL}[[uplink]]\ninterface = \"wifi0\"\n");
        let error = complaint(&twice);
        assert!(error.starts_with("jump.toml:10:") && error.contains("twice"), "{error}");
    }

    #[test]
    fn relative_paths_count_from_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jump.toml");
        fs::write(&path, MINIMAL).unwrap();
        let config = Config::load(&path).unwrap();
        assert_eq!(config.client.private_key_file, directory.path().join("private.key"));
        assert_eq!(config.client.state_dir, Path::new("/var/lib/jump"));
    }

    #[test]
    fn a_missing_file_says_so() {
        let error = Config::load(Path::new("/nonexistent/jump.toml")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/jump.toml") && error.contains("--config"), "{error}");
    }

    #[test]
    fn a_file_without_end_is_not_read_to_its_end() {
        let error = Config::load(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(error.contains("no configuration") && error.contains("--config"), "{error}");
    }

    #[test]
    fn policy_keys_may_be_written_as_tables_or_dotted() {
        for text in
            ["[policy.volatility]\nheartbeat_interval_ms = 500\n", "[policy]\nvolatility.heartbeat_interval_ms = 500\n"]
        {
            let config = Config::parse(&format!("{MINIMAL}{text}"), Path::new("jump.toml")).unwrap();
            assert!(matches!(config.requested_policy.as_slice(), [(_, 500)]), "{:?}", config.requested_policy);
        }
    }

    #[test]
    fn a_wrong_policy_key_or_value_is_refused_at_its_line() {
        for (line, cure) in [
            ("volatility.heartbeat_intervall_ms = 500", "no such key"),
            ("volatility.heartbeat_interval_ms = \"x\"", "PR-0"),
        ] {
            let error = complaint(&format!("{MINIMAL}[policy]\n{line}\n"));
            assert!(error.starts_with("jump.toml:10:") && error.contains(cure), "{error}");
        }
    }
}
