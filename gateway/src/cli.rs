//! The command line.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use jumpgate_audit::cli::Trace;
use jumpgate_audit::sink::StatusView;
use jumpgate_protocol::handshake::StaticSecret;

use crate::admin::{AdminClient, Answer, Question, SlotOrder};
use crate::config::{Config, DEFAULT_ADMIN_SOCKET};
use crate::fault::Fault;
use crate::hangup::HeldHangup;
use crate::net::{InsideVeth, Netlink};
use crate::os_entropy::OsEntropy;
use crate::xdp::{self, Leftover};
use crate::{keyfile, run, tables};

/// Where the configuration is if nothing else is said.
const DEFAULT_CONFIG: &str = "/etc/jumpgate/gateway.toml";
/// A gateway that handed its sessions over ends within milliseconds.
const END_PATIENCE: Duration = Duration::from_secs(10);
const END_POLL: Duration = Duration::from_millis(5);
/// Lines that a pipe may hand to `pubkey`: one key and its line end.
const MAX_PIPED_KEY: u64 = 256;
/// Environment variable with the log filter, as in `JUMPGATE_LOG=debug`.
const LOG_VARIABLE: &str = "JUMPGATE_LOG";

/// The Jumpgate gateway: keeps sessions alive across networks that break.
#[derive(Debug, Parser)]
#[command(name = "jumpgate", version, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGINT or SIGTERM
    Run {
        #[command(flatten)]
        config: ConfigArgument,
        /// Check the configuration and this host, change nothing, and exit
        #[arg(long)]
        check: bool,
    },
    /// Check a configuration file and say what it means
    CheckConfig {
        #[command(flatten)]
        config: ConfigArgument,
    },
    /// Make a private key file (mode 0600) and print its public key
    Keygen {
        /// The file to make; an existing one is never overwritten
        file: PathBuf,
    },
    /// Print a new private key
    Genkey,
    /// Read a private key from standard input and print its public key
    Pubkey,
    /// Show the sessions of a running gateway
    Sessions {
        #[command(flatten)]
        gateway: GatewayArgument,
        /// Print JSON for other programs
        #[arg(long)]
        json: bool,
        /// Show again every so many seconds, with rates
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
              value_parser = clap::value_parser!(u64).range(1..=3600), conflicts_with = "json")]
        watch: Option<u64>,
    },
    /// Show what a running gateway counted: packets, refusals and drops by reason
    Counters {
        #[command(flatten)]
        gateway: GatewayArgument,
        /// Print JSON for other programs
        #[arg(long)]
        json: bool,
    },
    /// Read audit traces, and ask a running gateway for the state of its own
    #[command(subcommand)]
    Audit(Audit),
    /// Print the metrics of a running gateway in the Prometheus text format
    Metrics {
        #[command(flatten)]
        gateway: GatewayArgument,
    },
    /// End a session of a running gateway; its client is told
    Terminate {
        /// Session id as `jumpgate sessions` shows it
        locator: String,
        #[command(flatten)]
        gateway: GatewayArgument,
    },
    /// Read the configuration file of a running gateway again: policy and clients (as SIGHUP does)
    ///
    /// The file is checked whole first. If anything is wrong, sessions that run keep their policy, and new ones are
    /// refused until a valid file is loaded. Interfaces, addresses and threads need a restart.
    Reload {
        #[command(flatten)]
        gateway: GatewayArgument,
    },
    /// Hand all sessions of a running gateway over to the next one on this machine, and end it
    ///
    /// Returns when the process has ended. Start the next one at once: sessions, keys and bindings go on, and no client is
    /// told anything. What was handed over is sealed, for this boot of the machine, and used once.
    Handover {
        #[command(flatten)]
        gateway: GatewayArgument,
    },
    /// Ask the client of a session to move to another path
    Move {
        /// Session id as `jumpgate sessions` shows it
        locator: String,
        /// Let the client prove the path again that it is on, if it has no other
        #[arg(long)]
        same_path: bool,
        #[command(flatten)]
        gateway: GatewayArgument,
    },
    /// Show what each worker owns, or move slots, with all sessions in them, from worker to worker
    ///
    /// Sessions go on; packets that arrive in the moment between two workers are lost and counted
    /// (NOT_AUTHORITATIVE_OWNER). A restart spreads the slots evenly again.
    #[command(args_conflicts_with_subcommands = true)]
    Slots {
        #[command(subcommand)]
        order: Option<Slots>,
        #[command(flatten)]
        gateway: GatewayArgument,
        /// Print JSON for other programs
        #[arg(long)]
        json: bool,
    },
    /// The key of a client is in other hands: end its sessions now and let it in no more
    ///
    /// This holds until the gateway is restarted. To make it last, take the client's table out of the configuration, or
    /// set `compromised = true` in it.
    Compromised {
        /// Name of the client in the configuration, or its public key
        client: String,
        #[command(flatten)]
        gateway: GatewayArgument,
    },
    /// Remove what a crashed gateway left on interfaces: XDP programs, the inside pair
    Unload {
        /// Name of an interface; may be given several times
        #[arg(long = "interface", value_name = "NAME", required = true)]
        interfaces: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum Slots {
    /// Move slots to a worker
    Move {
        /// A slot, or a range of them, as 7, 0x1a3 or 0-99: the first three hexadecimal digits of a session id
        #[arg(value_name = "SLOTS", value_parser = slot_range)]
        slots: (u16, u16),
        /// The worker that is to own them
        #[arg(long, value_name = "WORKER")]
        to: u16,
        #[command(flatten)]
        gateway: GatewayArgument,
    },
    /// Move everything that a worker has to the others
    Drain {
        /// The worker
        worker: u16,
        #[command(flatten)]
        gateway: GatewayArgument,
    },
    /// Spread the slots evenly, as after a start
    Balance {
        #[command(flatten)]
        gateway: GatewayArgument,
    },
}

#[derive(Debug, Subcommand)]
enum Audit {
    #[command(flatten)]
    Trace(Trace),
    /// Print the head of the running gateway's trace, SEQ:HASH; keep it elsewhere, for `audit verify --head`
    Head {
        #[command(flatten)]
        gateway: GatewayArgument,
    },
    /// Show where the running gateway's trace is, what it lost, and what is wrong with it
    Status {
        #[command(flatten)]
        gateway: GatewayArgument,
        /// Print JSON for other programs
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct ConfigArgument {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

/// Which of the gateways of this host is meant.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct GatewayArgument {
    /// The gateway's admin socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The gateway's configuration file, which names the admin socket
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the command that was asked for.
pub fn main() -> ExitCode {
    // First of all: whoever starts a gateway may tell it at once to reload.
    let hangup = HeldHangup::hold();
    let cli = Cli::parse();
    match cli.command.execute(hangup) {
        Ok(code) => code,
        Err(fault) => {
            jumpgate_logging::last_word(&format_args!("error: {fault}"));
            fault.exit_code()
        }
    }
}

impl Command {
    fn execute(self, hangup: HeldHangup) -> Result<ExitCode, Fault> {
        // It ends all that are no gateway, as it does any program.
        let hangup = matches!(self, Self::Run { check: false, .. }).then_some(hangup);
        let done = match self {
            Self::Run { config, check } => {
                let _log = jumpgate_logging::start(LOG_VARIABLE);
                let read = || Config::read(&config.config).map_err(Fault::from);
                if check { run::check(&read()?) } else { run::run(read, hangup) }
            }
            Self::CheckConfig { config } => {
                let file = config.config;
                let config = Config::read(&file)?;
                print(&format!("{}: valid\n{}", file.display(), tables::summary(&config)))
            }
            Self::Keygen { file } => keygen(&file),
            Self::Genkey => {
                let secret = StaticSecret::generate(&mut OsEntropy);
                print(&format!("{}\n", keyfile::text(secret.as_bytes())))
            }
            Self::Pubkey => pubkey(),
            Self::Sessions { gateway, json, watch } => sessions(&gateway, json, watch),
            Self::Counters { gateway, json } => counters(&gateway, json),
            // Its exit code is its verdict.
            Self::Audit(Audit::Trace(trace)) => return read_trace(trace),
            Self::Audit(Audit::Head { gateway }) => {
                let head = audit_status(&gateway)?.head;
                let head =
                    head.ok_or_else(|| Fault::operator("the trace has no record yet", "ask again in a moment"))?;
                print(&format!("{head}\n"))
            }
            Self::Audit(Audit::Status { gateway, json }) => {
                let status = audit_status(&gateway)?;
                let text = if json {
                    serde_json::to_string(&status).map_err(Fault::ours)? + "\n"
                } else {
                    status.show("slow path")
                };
                print(&text)
            }
            Self::Metrics { gateway } => match gateway.ask(&Question::Metrics)? {
                Answer::Metrics(page) => print(&page),
                other => Err(unexpected(&other)),
            },
            Self::Terminate { locator, gateway } => match gateway.ask(&Question::Terminate { locator })? {
                Answer::Done => Ok(()),
                other => Err(unexpected(&other)),
            },
            Self::Reload { gateway } => match gateway.ask(&Question::Reload)? {
                Answer::Reloaded { policy, clients, sessions } => {
                    print(&format!("policy {policy}; {clients} client(s); {sessions} session(s) hear of it\n"))
                }
                other => Err(unexpected(&other)),
            },
            Self::Handover { gateway } => match gateway.ask(&Question::Handover)? {
                Answer::HandedOver { sessions, process } => {
                    await_end(process)?;
                    print(&format!("{sessions} session(s) wait for the next `jumpgate run`\n"))
                }
                other => Err(unexpected(&other)),
            },
            Self::Move { locator, same_path, gateway } => match gateway.ask(&Question::Move { locator, same_path })? {
                Answer::Done => print("its client was asked to move; `jumpgate sessions` shows where to\n"),
                other => Err(unexpected(&other)),
            },
            Self::Slots { order: None, gateway, json } => slots(&gateway, json),
            Self::Slots { order: Some(order), .. } => move_slots(&order),
            Self::Compromised { client, gateway } => match gateway.ask(&Question::Compromised { client })? {
                Answer::Ended { sessions } => print(&format!(
                    "{sessions} session(s) ended; to keep the key out after a restart as well, remove its [[client]] \
                     table or set compromised = true in it\n"
                )),
                other => Err(unexpected(&other)),
            },
            Self::Unload { interfaces } => unload(&interfaces),
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

impl GatewayArgument {
    fn ask(&self, question: &Question) -> Result<Answer, Fault> {
        let path = match (&self.socket, &self.config) {
            (Some(socket), _) => socket.clone(),
            (None, Some(config)) => Config::read(config)?.admin_socket,
            (None, None) => DEFAULT_ADMIN_SOCKET.into(),
        };
        let answer = AdminClient::connect(&path).and_then(|mut client| client.ask(question)).map_err(|error| {
            let cure = match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    "start it: jumpgate run; or name its socket with --socket or its file with --config"
                }
                io::ErrorKind::PermissionDenied => "ask as the user that runs the gateway, mostly root",
                _ => "see the gateway's log",
            };
            Fault::operator(format!("no gateway answers at {}: {error}", path.display()), cure)
        })?;
        match answer {
            Answer::Refused { problem, cure } => Err(Fault::operator(problem, cure)),
            Answer::Error(problem) => Err(Fault::operator(problem, "`jumpgate sessions` shows what there is")),
            answer => Ok(answer),
        }
    }
}

/// Waits for the end of a process that may be anybody's child: sockets, locks and interfaces are free then.
fn await_end(process: u32) -> Result<(), Fault> {
    let deadline = Instant::now() + END_PATIENCE;
    // The state stands behind the name, which ends with the last parenthesis. A zombie holds nothing any more.
    let runs = |stat: String| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']));
    while std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(runs) {
        if Instant::now() >= deadline {
            let problem = format!("the sessions are handed over, but process {process} does not end");
            return Err(Fault::operator(problem, format!("kill -9 {process}, then start the next one at once")));
        }
        std::thread::sleep(END_POLL);
    }
    Ok(())
}

fn keygen(file: &Path) -> Result<(), Fault> {
    let secret = StaticSecret::generate(&mut OsEntropy);
    keyfile::write_private(file, secret.as_bytes()).map_err(|error| {
        let cure = match error.kind() {
            io::ErrorKind::AlreadyExists => "choose another name, or delete the old key if nobody uses it any more",
            _ => "name a file in a directory that exists and may be written to",
        };
        Fault::operator(format!("{}: {error}", file.display()), cure)
    })?;
    print(&format!("{}\n", keyfile::text(&secret.public().0)))
}

fn pubkey() -> Result<(), Fault> {
    if io::stdin().is_terminal() {
        eprintln!("reading a private key from the terminal; usual: jumpgate pubkey < private.key");
    }
    let mut text = zeroize::Zeroizing::new(String::new());
    let read = io::stdin().take(MAX_PIPED_KEY).read_to_string(&mut text);
    read.map_err(|error| Fault::operator(format!("standard input: {error}"), "jumpgate genkey | jumpgate pubkey"))?;
    let secret = keyfile::parse(&text)
        .map_err(|error| Fault::operator(error.to_string(), "jumpgate genkey | jumpgate pubkey"))?;
    print(&format!("{}\n", keyfile::text(&StaticSecret::new(*secret).public().0)))
}

fn sessions(gateway: &GatewayArgument, json: bool, watch: Option<u64>) -> Result<(), Fault> {
    let ask = || match gateway.ask(&Question::Sessions)? {
        Answer::Sessions(rows) => Ok(rows),
        other => Err(unexpected(&other)),
    };
    if json {
        let rows = serde_json::to_string(&ask()?).map_err(|error| Fault::ours(error.to_string()))?;
        return print(&format!("{rows}\n"));
    }
    let mut rows = ask()?;
    print(&tables::sessions(&rows, None))?;
    while let Some(seconds) = watch {
        let pause = Duration::from_secs(seconds);
        std::thread::sleep(pause);
        let before = std::mem::replace(&mut rows, ask()?);
        print(&format!("\n{}", tables::sessions(&rows, Some((&before, pause)))))?;
    }
    Ok(())
}

fn counters(gateway: &GatewayArgument, json: bool) -> Result<(), Fault> {
    let rows = match gateway.ask(&Question::Counters)? {
        Answer::Counters(rows) => rows,
        other => return Err(unexpected(&other)),
    };
    if json {
        let rows = serde_json::to_string(&rows).map_err(|error| Fault::ours(error.to_string()))?;
        return print(&format!("{rows}\n"));
    }
    print(&tables::counters(&rows))
}

fn slots(gateway: &GatewayArgument, json: bool) -> Result<(), Fault> {
    let rows = match gateway.ask(&Question::Slots)? {
        Answer::Slots(rows) => rows,
        other => return Err(unexpected(&other)),
    };
    if json {
        let rows = serde_json::to_string(&rows).map_err(Fault::ours)?;
        return print(&format!("{rows}\n"));
    }
    print(&tables::slots(&rows))
}

fn move_slots(order: &Slots) -> Result<(), Fault> {
    let (order, gateway) = match order {
        Slots::Move { slots: (first, last), to, gateway } => {
            (SlotOrder::Move { first: *first, last: *last, to: *to }, gateway)
        }
        Slots::Drain { worker, gateway } => (SlotOrder::Drain { worker: *worker }, gateway),
        Slots::Balance { gateway } => (SlotOrder::Balance, gateway),
    };
    match gateway.ask(&Question::MoveSlots(order))? {
        Answer::Moved { slots: 0, left: 0, .. } => print("nothing to move: they are there already\n"),
        Answer::Moved { slots, sessions, left: 0 } => {
            print(&format!("{slots} slot(s) with {sessions} session(s) moved\n"))
        }
        Answer::Moved { slots, sessions, left } => print(&format!(
            "{slots} slot(s) with {sessions} session(s) moved so far, {left} to go; `jumpgate slots` shows when it is done\n"
        )),
        other => Err(unexpected(&other)),
    }
}

/// One slot or a range of them, decimal or with 0x.
fn slot_range(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    number(first).zip(number(last)).ok_or_else(|| "not a slot or a range of slots, as 7, 0x1a3 or 0-99".to_owned())
}

fn audit_status(gateway: &GatewayArgument) -> Result<StatusView, Fault> {
    match gateway.ask(&Question::Audit)? {
        Answer::Audit(Some(status)) => Ok(status),
        Answer::Audit(None) => {
            Err(Fault::operator("that gateway keeps no audit trace", "remove `enabled = false` from [audit]"))
        }
        other => Err(unexpected(&other)),
    }
}

fn read_trace(trace: Trace) -> Result<ExitCode, Fault> {
    match trace.run() {
        Ok(code) => Ok(ExitCode::from(code)),
        Err(error) if error.is_broken_pipe() => Ok(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("error: {error}");
            Ok(ExitCode::from(error.exit_code()))
        }
    }
}

fn unload(interfaces: &[String]) -> Result<(), Fault> {
    for interface in interfaces {
        match xdp::unload(interface)? {
            Leftover::Nothing => {}
            Leftover::Removed => print(&format!("{interface}: XDP program removed\n"))?,
            Leftover::InUse => {
                let problem = format!("{interface}: a running gateway holds its XDP program");
                return Err(Fault::operator(problem, "stop that gateway: it removes the program itself"));
            }
            Leftover::Foreign(name) => {
                let problem = format!("{interface}: the XDP program {name} is not jumpgate's and was left alone");
                return Err(Fault::operator(
                    problem,
                    format!("if nobody needs it: ip link set dev {interface} xdp off"),
                ));
            }
        }
        let removed = Netlink::open()
            .map_err(crate::net::VethError::from)
            .and_then(|mut netlink| InsideVeth::remove_leftover(&mut netlink, interface));
        match removed {
            Ok(true) => print(&format!("{interface}: pair removed\n"))?,
            // Somebody else's interface, as the outside one always is: only our program had to go.
            Ok(false) | Err(crate::net::VethError::NameTaken(_)) => {}
            Err(error) => return Err(Fault::from(error)),
        }
    }
    Ok(())
}

/// Prints to standard output. A reader that went away, as in `jumpgate sessions | head`, is no error.
fn print(text: &str) -> Result<(), Fault> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Fault::operator(format!("standard output: {error}"), "check where the output goes")),
        Ok(()) => Ok(()),
    }
}

fn unexpected(answer: &Answer) -> Fault {
    Fault::ours(format!("the gateway gave another answer than was asked for: {answer:?}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_gateway_is_named_by_its_socket_or_by_its_file_but_not_by_both() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("jumpgate sessions --socket /x --json").is_ok());
        assert!(parse("jumpgate sessions --config /x --watch").is_ok());
        assert!(parse("jumpgate sessions --socket /x --config /x").is_err());
        assert!(parse("jumpgate sessions --json --watch 2").is_err());
        assert!(parse("jumpgate unload").is_err());
    }

    #[test]
    fn slots_are_named_by_number_or_by_the_first_digits_of_a_session() {
        for (text, range) in [("7", (7, 7)), ("0x1a3", (419, 419)), ("0-99", (0, 99)), ("0x0-0xfff", (0, 4095))] {
            assert_eq!(slot_range(text), Ok(range), "{text}");
        }
        for text in ["", "-", "1-", "0x", "1a3", "70000", "1-2-3"] {
            assert!(slot_range(text).is_err(), "{text}");
        }
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("jumpgate slots --socket /x --json").is_ok());
        assert!(parse("jumpgate slots move 0-99 --to 1 --socket /x").is_ok());
        assert!(parse("jumpgate slots drain 0").is_ok() && parse("jumpgate slots balance").is_ok());
        assert!(parse("jumpgate slots move 0-99").is_err(), "to which worker?");
    }
}
