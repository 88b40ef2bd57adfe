//! The admin socket: one JSON line asks, one JSON line answers.
//!
//! Whoever may open the socket is an operator: it belongs to the user that runs the gateway, with mode 0600.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jumpgate_audit::sink::StatusView;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

/// Longest question, in bytes. All there are fit many times.
const MAX_QUESTION: u64 = 4096;
/// Operators' tools that may be connected at once.
const MAX_CONNECTIONS: usize = 32;
/// How long a tool waits for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an operator asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum Question {
    /// All sessions.
    Sessions,
    /// All counters that are not zero.
    Counters,
    /// How the audit trace stands.
    Audit,
    /// Everything for a monitoring system.
    Metrics,
    /// End a session (T19).
    Terminate {
        /// Its locator, 16 hexadecimal digits.
        locator: String,
    },
    /// Read the configuration file again (RL-2, RL-3).
    Reload,
    /// Hand all sessions over to the next run, and end (OW-8).
    Handover,
    /// Ask a session's client to move (T05).
    Move {
        /// Its locator, 16 hexadecimal digits.
        locator: String,
        /// Whether the client may prove the path again that it is on.
        same_path: bool,
    },
    /// The key of a client is in other hands (KY-10).
    Compromised {
        /// Its name, or its public key.
        client: String,
    },
    /// What each worker owns.
    Slots,
    /// Move slots, and all sessions in them, to other workers (SL-4).
    MoveSlots(SlotOrder),
}

/// Which slots are to go where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "lowercase")]
pub enum SlotOrder {
    /// A range, to one worker.
    Move {
        /// The first.
        first: u16,
        /// The last.
        last: u16,
        /// The worker.
        to: u16,
    },
    /// All that a worker has, to the others.
    Drain {
        /// The worker.
        worker: u16,
    },
    /// Spread as at the start.
    Balance,
}

/// What the gateway answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// All sessions.
    Sessions(Vec<SessionRow>),
    /// Counters by name.
    Counters(Vec<CounterRow>),
    /// How the audit trace stands; none if none is kept.
    Audit(Option<StatusView>),
    /// A page in the Prometheus text format.
    Metrics(String),
    /// It was done.
    Done,
    /// Another policy is in force.
    Reloaded {
        /// Profile, version and mode.
        policy: String,
        /// Clients that may connect now.
        clients: usize,
        /// Sessions that hear of it.
        sessions: usize,
    },
    /// The sessions wait for the next run; this one is about to end.
    HandedOver {
        /// How many.
        sessions: usize,
        /// The process that ends.
        process: u32,
    },
    /// The sessions of a client were ended.
    Ended {
        /// How many.
        sessions: usize,
    },
    /// What each worker owns.
    Slots(Vec<SlotRow>),
    /// Slots have moved.
    Moved {
        /// How many slots.
        slots: usize,
        /// Sessions in them.
        sessions: usize,
        /// Slots that are still to go: it takes longer than an operator waits.
        left: usize,
    },
    /// It was not done, and what to do about it.
    Refused {
        /// Why not.
        problem: String,
        /// What to do about it.
        cure: String,
    },
    /// It cannot be answered; why.
    Error(String),
}

/// A session as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The session id on the wire, 16 hexadecimal digits.
    pub locator: String,
    /// What audit records call it, 32 hexadecimal digits.
    pub session_id: String,
    /// Name of the client in the configuration.
    pub client: String,
    /// State of the machine.
    pub state: String,
    /// Primary reason of the last transition.
    pub reason: Option<String>,
    /// `binding_epoch`.
    pub epoch: u64,
    /// `state_version`.
    pub version: u64,
    /// Outer address of the client, while a transport is bound.
    pub peer: Option<SocketAddr>,
    /// Outer address of the gateway, while a transport is bound.
    pub local: Option<SocketAddr>,
    /// The client's number of the path.
    pub transport_id: Option<u16>,
    /// Whether the client has shown that it receives there.
    pub validated: bool,
    /// The worker that owns the session.
    pub worker: u16,
    /// The receive queue by which its last packet came.
    pub queue: u16,
    /// Inner address.
    pub inner_v4: Option<Ipv4Addr>,
    /// Inner address.
    pub inner_v6: Option<Ipv6Addr>,
    /// Packets from the client.
    pub rx_packets: u64,
    /// Inner bytes from the client.
    pub rx_bytes: u64,
    /// Packets to the client.
    pub tx_packets: u64,
    /// Inner bytes to the client.
    pub tx_bytes: u64,
    /// DATA lost lately on the active path, in permille, in the direction that loses more.
    pub loss_permille: u32,
    /// Committed switches.
    pub switches: u64,
    /// Age in milliseconds.
    pub age_ms: u64,
}

/// What a worker owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRow {
    /// The worker.
    pub worker: u16,
    /// Slots that are its own.
    pub slots: usize,
    /// Of these, slots that are about to leave it.
    pub leaving: usize,
    /// Sessions in its slots, half-open ones included.
    pub sessions: usize,
    /// Packets that it received outside.
    pub rx_packets: u64,
    /// Packets that it sent outside.
    pub tx_packets: u64,
    /// Packets that it dropped because another worker owned their slot.
    pub misdirected: u64,
}

/// A counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterRow {
    /// Who counts: `xdp`, `slow`, `worker 0` ...
    pub place: String,
    /// What is counted; reason codes by their name.
    pub name: String,
    /// How often.
    pub value: u64,
}

/// A question that waits for its answer.
pub struct Pending {
    /// What was asked.
    pub question: Question,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Answer>,
}

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Another gateway answers there.
    #[error("a gateway runs already: it answers at {}", .0.display())]
    InUse(PathBuf),
    /// The socket cannot be made.
    #[error("cannot make the admin socket {}: {source}", path.display())]
    Unusable {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl AdminError {
    /// What to do about it.
    pub fn cure(&self) -> String {
        match self {
            Self::InUse(_) => "stop it first, or give this one its own gateway.admin_socket and interfaces".to_owned(),
            Self::Unusable { path, .. } => {
                format!("make {} writable, or set gateway.admin_socket", path.parent().unwrap_or(path).display())
            }
        }
    }
}

/// The listening socket. Its file is removed with it.
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Listens at `path`. Needs a tokio runtime. A socket file that nobody answers at is a crash's and replaced.
    pub fn open(path: &Path) -> Result<Self, AdminError> {
        if BlockingStream::connect(path).is_ok() {
            return Err(AdminError::InUse(path.to_path_buf()));
        }
        let open = || {
            if let Some(directory) = path.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
            }
            match fs::symlink_metadata(path) {
                Ok(metadata) if std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type()) => {
                    fs::remove_file(path)?;
                }
                Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is there")),
                Err(_) => {}
            }
            let listener = UnixListener::bind(path)?;
            let socket = Self { listener, path: path.to_path_buf() };
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
            Ok(socket)
        };
        open().map_err(|source| AdminError::Unusable { path: path.to_path_buf(), source })
    }

    /// Serves operators on this thread's runtime, for ever: questions go to `questions`.
    pub async fn serve(self, questions: mpsc::Sender<Pending>) {
        let places = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let questions = questions.clone();
                    tokio::spawn(async move {
                        if let Err(error) = converse(stream, questions).await {
                            tracing::debug!(%error, "an operator's connection broke");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin socket takes no connection");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // Whoever removed it before us had the same wish.
        let _ = fs::remove_file(&self.path);
    }
}

async fn converse(stream: UnixStream, questions: mpsc::Sender<Pending>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = tokio::io::BufReader::new(reader);
    loop {
        let mut line = String::new();
        if (&mut reader).take(MAX_QUESTION).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_str(&line) {
            Ok(question) => {
                let (answer, answered) = oneshot::channel();
                let asked = questions.send(Pending { question, answer }).await;
                match (asked, answered.await) {
                    (Ok(()), Ok(answer)) => answer,
                    _ => Answer::Error("the gateway is stopping".to_owned()),
                }
            }
            Err(error) => Answer::Error(format!("not a question: {error}")),
        };
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        writer.write_all(&line).await?;
    }
}

/// A connection of an operator's tool.
pub struct AdminClient {
    stream: BufReader<BlockingStream>,
}

impl AdminClient {
    /// Connects to a running gateway.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let stream = BlockingStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks and waits for the answer.
    pub fn ask(&mut self, question: &Question) -> io::Result<Answer> {
        let mut line = serde_json::to_vec(question)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        let mut answer = String::new();
        if self.stream.read_line(&mut answer)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the gateway closed the connection"));
        }
        Ok(serde_json::from_str(&answer)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An admin socket whose gateway answers every question with `Done`; `test` is the operator.
    fn with_gateway(path: &Path, test: impl FnOnce(&Path) + Send + 'static) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let socket = AdminSocket::open(path).expect("open");
            let (sender, mut questions) = mpsc::channel::<Pending>(4);
            let server = tokio::spawn(socket.serve(sender));
            let answers = tokio::spawn(async move {
                while let Some(pending) = questions.recv().await {
                    let _ = pending.answer.send(Answer::Done);
                }
            });
            let path = path.to_path_buf();
            tokio::task::spawn_blocking(move || test(&path)).await.expect("the operator is content");
            server.abort();
            answers.abort();
            let _ = server.await;
        });
    }

    #[test]
    fn questions_are_answered_one_line_each_and_nonsense_is_told_so() {
        let directory = tempfile::tempdir().expect("directory");
        with_gateway(&directory.path().join("deep/er/admin.sock"), |path| {
            let mut client = AdminClient::connect(path).expect("connected");
            assert_eq!(client.ask(&Question::Sessions).expect("answered"), Answer::Done);
            let question = Question::Terminate { locator: "0011223344556677".into() };
            assert_eq!(client.ask(&question).expect("answered"), Answer::Done);
            client.stream.get_mut().write_all(b"open sesame\n").expect("written");
            let mut answer = String::new();
            client.stream.read_line(&mut answer).expect("read");
            assert!(answer.contains("not a question"), "{answer}");
        });
    }

    #[test]
    fn one_socket_serves_one_gateway_and_is_gone_with_it() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("admin.sock");
        with_gateway(&path, |path| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            let second = runtime.block_on(async { AdminSocket::open(path).err() });
            assert!(matches!(second, Some(AdminError::InUse(_))), "{second:?}");
            assert_eq!(fs::metadata(path).expect("there").permissions().mode() & 0o777, 0o600);
        });
        assert!(!path.exists());
    }

    #[test]
    fn the_socket_of_a_crashed_gateway_is_replaced_and_any_other_file_is_not() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "left over");
        with_gateway(&path, |path| assert!(AdminClient::connect(path).is_ok()));
        fs::write(&path, "precious").expect("written");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        assert!(matches!(runtime.block_on(async { AdminSocket::open(&path) }), Err(AdminError::Unusable { .. })));
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
    }
}
