//! The programs under test, run as a user would run them: from their files, with configuration files, and asked by
//! their own commands.

mod client;
mod gateway;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jumpgate_protocol::handshake::StaticSecret;

pub use client::{Client, ClientOptions, Event, Events, Heard, PathReport, Status, Switch};
pub use gateway::{Gateway, GatewayOptions, METRICS, Peer, Session};

use crate::run::Run;

/// Lines of a log that an error message quotes.
const LOG_TAIL: usize = 12;

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The gateway, `jumpgate`.
    pub gateway: PathBuf,
    /// The client, `jump`.
    pub client: PathBuf,
}

/// A key pair in files' form.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// File with the private key.
    pub private_file: PathBuf,
    /// The public key in base64.
    pub public: String,
}

impl KeyPair {
    /// The private key itself, for a client of the lab's own making.
    pub fn secret(&self) -> Result<StaticSecret> {
        let text = fs::read_to_string(&self.private_file).context("reading a private key")?;
        let bytes: [u8; 32] =
            BASE64_STANDARD.decode(text.trim())?.try_into().map_err(|_| anyhow!("a key has 32 bytes"))?;
        Ok(StaticSecret::new(bytes))
    }
}

impl Programs {
    /// Finds the programs beside this one, as cargo builds them.
    pub fn find() -> Result<Self> {
        let own = std::env::current_exe().context("finding this program's own file")?;
        // Tests run from `deps`, one level below the programs.
        let directories = own.ancestors().skip(1).take(2);
        for directory in directories {
            let found = Self { gateway: directory.join("jumpgate"), client: directory.join("jump") };
            if found.gateway.is_file() && found.client.is_file() {
                return Ok(found);
            }
        }
        let profile = if cfg!(debug_assertions) { "" } else { " --release" };
        bail!("jumpgate and jump are not beside {}: run `cargo build{profile} -p jumpgate -p jump`", own.display())
    }

    /// Makes a key pair with `jump genkey` and `jump pubkey`; the private key goes to `<name>.key`.
    pub fn key_pair(&self, run: &Run, name: &str) -> Result<KeyPair> {
        let private = run.check(Command::new(&self.client).arg("genkey"), "")?;
        let public = run.check(Command::new(&self.client).arg("pubkey"), &private)?;
        let private_file = run.directory().join(format!("{name}.key"));
        write_private(&private_file, &private)?;
        Ok(KeyPair { private_file, public: public.trim().to_owned() })
    }
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| format!("writing {}", path.display()))
}

/// The last lines of a log file, indented, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LOG_TAIL)..];
    if last.is_empty() { "(it wrote nothing)".to_owned() } else { last.join("\n      | ") }
}
