//! The command line.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use jumpgate_audit::cli::Trace;
use jumpgate_audit::sink::StatusView;

use crate::config::Config;
use crate::control::{self, DEFAULT_SOCKET, Request, Response};
use crate::driver::Driver;
use crate::{keys, show};

/// Where `jump up` looks for its configuration.
const DEFAULT_CONFIG: &str = "/etc/jump/jump.toml";
/// Bytes that a pipe may hand to `pubkey`: one key and its line end.
const MAX_PIPED_KEY: u64 = 256;
/// Environment variable with the log filter, as in `JUMP_LOG=debug`.
const LOG_VARIABLE: &str = "JUMP_LOG";

/// Jumpgate client: one session over any network that happens to work.
#[derive(Debug, Parser)]
#[command(name = "jump", version, after_help = "Begin with: jump genkey | (umask 077; tee private.key) | jump pubkey")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Open the tunnel and keep it open until Ctrl-C
    Up {
        /// Configuration file (TOML)
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
    /// Show session, paths and the latest switches of the running client
    Status {
        #[command(flatten)]
        target: Target,
        /// As JSON; with --follow or --events one document a line
        #[arg(long)]
        json: bool,
        /// Print events as they happen
        #[arg(long, alias = "events")]
        follow: bool,
    },
    /// Print the running client's events as JSON, one a line, until it stops
    Events {
        #[command(flatten)]
        target: Target,
    },
    /// Print the metrics of the running client in the Prometheus text format
    Metrics {
        #[command(flatten)]
        target: Target,
    },
    /// Move the session of the running client to another uplink
    Move {
        #[command(flatten)]
        target: Target,
        /// Interface of the uplink, or `auto` for the best other one
        #[arg(long, value_name = "IFACE")]
        to: String,
    },
    /// Stop the running client
    Down {
        #[command(flatten)]
        target: Target,
    },
    /// Print a new private key (also good as a pre-shared key)
    Genkey,
    /// Read a private key from standard input and print its public key
    Pubkey,
    /// Read audit traces, of this client, of the gateway, or both together; and ask the running client for the state of its own
    #[command(subcommand)]
    Audit(Audit),
    /// Check a configuration and the key files it names
    CheckConfig {
        /// Configuration file (TOML)
        #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum Audit {
    #[command(flatten)]
    Trace(Trace),
    /// Print the head of the running client's trace, SEQ:HASH; keep it elsewhere, for `audit verify --head`
    Head {
        #[command(flatten)]
        target: Target,
    },
    /// Show where the running client's trace is, what it lost, and what is wrong with it
    Status {
        #[command(flatten)]
        target: Target,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which running client is meant.
#[derive(Debug, Args)]
struct Target {
    /// Control socket of the running client
    #[arg(long, value_name = "PATH", conflicts_with = "config", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Configuration of the running client, which names its control socket
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

type Failure = Box<dyn std::error::Error>;

impl Target {
    fn socket(&self) -> Result<PathBuf, Failure> {
        match &self.config {
            Some(config) => Ok(Config::load(config)?.client.control_socket),
            None => Ok(self.socket.clone()),
        }
    }
}

impl Cli {
    /// Runs the command. What goes wrong is printed with its cure.
    pub fn run(self) -> ExitCode {
        match self.execute() {
            Ok(code) => code,
            Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
            Err(error) => {
                jumpgate_logging::last_word(&format_args!("jump: {error}"));
                ExitCode::FAILURE
            }
        }
    }

    fn execute(self) -> Result<ExitCode, Failure> {
        let done = match self.command {
            Command::Up { config } => up(&config),
            Command::Status { target, json, follow: true } => follow(&target.socket()?, json),
            Command::Status { target, json, follow: false } => status(&target.socket()?, json),
            Command::Events { target } => follow(&target.socket()?, true),
            Command::Metrics { target } => metrics(&target.socket()?),
            Command::Move { target, to } => order(&target, &Request::Move { to }),
            Command::Down { target } => order(&target, &Request::Down),
            Command::Genkey => print(&format!("{}\n", *keys::generate())),
            Command::Pubkey => pubkey(),
            Command::CheckConfig { config } => check(&config),
            // Its exit code is its verdict.
            Command::Audit(Audit::Trace(trace)) => return Ok(read_trace(trace)),
            Command::Audit(Audit::Head { target }) => head(&target),
            Command::Audit(Audit::Status { target, json }) => {
                let status = audit_status(&target)?;
                if json {
                    print(&format!("{}\n", serde_json::to_string(&status)?))
                } else {
                    print(&status.show("client"))
                }
            }
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

fn read_trace(trace: Trace) -> ExitCode {
    match trace.run() {
        Ok(code) => code.into(),
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("jump: {error}");
            error.exit_code().into()
        }
    }
}

fn up(path: &Path) -> Result<(), Failure> {
    let _log = jumpgate_logging::start(LOG_VARIABLE);
    let config = Config::load(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { Driver::open(config).await?.run().await })?;
    Ok(())
}

fn check(path: &Path) -> Result<(), Failure> {
    let config = Config::load(path)?;
    config.secrets()?;
    print(&format!("{}: good; {} paths over {} uplinks\n", path.display(), config.paths().len(), config.uplinks.len()))
}

fn pubkey() -> Result<(), Failure> {
    if io::stdin().is_terminal() {
        eprintln!("reading a private key from the terminal; usual is `jump pubkey < private.key`");
    }
    let mut private = zeroize::Zeroizing::new(String::new());
    io::stdin().take(MAX_PIPED_KEY).read_to_string(&mut private)?;
    print(&format!("{}\n", keys::public_from_private(&private)?))
}

fn status(socket: &Path, json: bool) -> Result<(), Failure> {
    let Response::Status(status) = control::ask(socket, &Request::Status)? else {
        return Err("the client's answer is no status; is `jump` of the same version as the running client?".into());
    };
    if json { print(&format!("{}\n", serde_json::to_string(&*status)?)) } else { print(&show::status(&status)) }
}

fn head(target: &Target) -> Result<(), Failure> {
    match audit_status(target)?.head {
        Some(head) => print(&format!("{head}\n")),
        None => Err("the trace has no record yet; ask again in a moment".into()),
    }
}

fn audit_status(target: &Target) -> Result<StatusView, Failure> {
    match control::ask(&target.socket()?, &Request::Audit)? {
        Response::Audit(Some(status)) => Ok(*status),
        Response::Audit(None) => Err("that client keeps no audit trace; remove `enabled = false` from [audit]".into()),
        _ => Err("the client's answer is no audit status; is `jump` of the same version as the running client?".into()),
    }
}

fn metrics(socket: &Path) -> Result<(), Failure> {
    let Response::Metrics(page) = control::ask(socket, &Request::Metrics)? else {
        return Err(
            "the client's answer is no page of metrics; is `jump` of the same version as the running client?".into()
        );
    };
    print(&page)
}

fn follow(socket: &Path, json: bool) -> Result<(), Failure> {
    for line in control::listen(socket)? {
        let line = line?;
        let text = if json { serde_json::to_string(&line)? } else { show::event(&line) };
        print(&format!("{text}\n"))?;
    }
    Ok(())
}

fn order(target: &Target, request: &Request) -> Result<(), Failure> {
    control::ask(&target.socket()?, request)?;
    Ok(())
}

/// Prints at once, so that a reader of a pipe sees each line when it happens.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Whether the reader of our output has had enough, as in `jump events | head`.
fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_flag_is_refused() {
        assert!(Cli::try_parse_from(["jump", "up", "--confg", "x"]).is_err());
        assert!(Cli::try_parse_from(["jump", "move"]).is_err());
        assert!(Cli::try_parse_from(["jump", "audit"]).is_err());
        assert!(Cli::try_parse_from(["jump", "status", "--socket", "a", "--config", "b"]).is_err());
    }

    #[test]
    fn the_control_socket_can_be_named_by_the_configuration() {
        let parse = |arguments: &[&str]| match Cli::try_parse_from(arguments).unwrap().command {
            Command::Down { target } => target,
            other => panic!("{other:?}"),
        };
        assert_eq!(parse(&["jump", "down"]).socket().unwrap(), Path::new(DEFAULT_SOCKET));
        assert_eq!(parse(&["jump", "down", "--socket", "/x"]).socket().unwrap(), Path::new("/x"));
        assert!(parse(&["jump", "down", "--config", "/nonexistent"]).socket().is_err());
    }
}
