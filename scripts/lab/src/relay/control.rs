//! How a relay is steered while it runs: one JSON object per line on a unix socket, one answer per line.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use super::impair::Profile;

/// Longest wait for an answer; a relay answers between two batches of frames.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// A direction through the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the client towards the gateway.
    Up,
    /// From the gateway towards the client.
    Down,
}

/// What a relay can be asked to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Give a path another quality, in one direction or in both.
    Set {
        /// The path.
        path: String,
        /// The direction; both, if absent.
        direction: Option<Direction>,
        /// The quality from now on.
        profile: Profile,
    },
    /// Make the path's NAT forget its mappings.
    Rebind {
        /// The path.
        path: String,
        /// The public address from now on; unchanged, if absent.
        address: Option<IpAddr>,
    },
    /// Keep a copy of UDP datagrams, or keep them altogether.
    Capture {
        /// The path.
        path: String,
        /// The direction.
        direction: Direction,
        /// Only datagrams that begin with this byte.
        message: Option<u8>,
        /// Most datagrams kept; the first ones win.
        limit: usize,
        /// Whether captured datagrams are withheld from their receiver.
        withhold: bool,
    },
    /// Hand over what was captured and end the capture.
    Captured {
        /// The path.
        path: String,
        /// The direction.
        direction: Direction,
    },
    /// Send a datagram as if it came along the path; its headers are modelled on the last one that did.
    Inject {
        /// The path.
        path: String,
        /// The direction.
        direction: Direction,
        /// The sender's address; that of the last datagram, if absent.
        source: Option<SocketAddr>,
        /// What it carries.
        payload: Payload,
    },
    /// Make all paths perfect again: no impairment, no capture, no mapping, no template, counters at zero.
    Reset,
    /// Report the counters of all paths.
    Counters,
}

/// What a relay answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It is done.
    Done,
    /// It could not be done.
    Failed {
        /// Why, and what to do.
        error: String,
    },
    /// What was captured.
    Captured {
        /// In the order of their arrival.
        datagrams: Vec<Captured>,
    },
    /// The counters: path -> both directions.
    Counters {
        /// Path -> counters.
        paths: BTreeMap<String, PathCounters>,
    },
}

/// A captured datagram.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Captured {
    /// Its sender, as the far side of the relay sees it.
    pub source: SocketAddr,
    /// Its receiver.
    pub destination: SocketAddr,
    /// What it carries.
    pub payload: Payload,
}

/// Bytes, in base64 on the control socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Payload(pub Vec<u8>);

/// Counters of a path.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct PathCounters {
    /// Towards the gateway.
    pub up: Counters,
    /// Towards the client.
    pub down: Counters,
    /// How often its NAT forgot its mappings.
    pub rebindings: u32,
}

/// Counters of one direction of a path, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Delivered, copies included.
    pub delivered: u64,
    /// Lost by chance or in a burst.
    pub lost: u64,
    /// Dropped because the bottleneck's queue was full.
    pub queue_full: u64,
    /// Swallowed by a black hole.
    pub blackholed: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Delivered with a flipped bit.
    pub corrupted: u64,
    /// Dropped because the NAT had forgotten the mapping.
    pub unmapped: u64,
    /// Withheld by a capture.
    pub withheld: u64,
    /// Refused by the device it was written to.
    pub refused: u64,
}

impl From<Payload> for String {
    fn from(payload: Payload) -> Self {
        BASE64_STANDARD.encode(payload.0)
    }
}

impl TryFrom<String> for Payload {
    type Error = base64::DecodeError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        BASE64_STANDARD.decode(text).map(Self)
    }
}

/// Serves the control socket on threads of its own. Each request goes to `requests` with the place for its answer, and
/// a byte goes to `wake`.
pub(crate) fn serve(socket: &Path, requests: Sender<(Request, Sender<Answer>)>, wake: UnixStream) -> Result<()> {
    let listener = UnixListener::bind(socket).with_context(|| format!("binding {}", socket.display()))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Ok(wake) = wake.try_clone() {
                let requests = requests.clone();
                // The connection ends when its client goes or sends no line.
                thread::spawn(move || converse(&stream, &requests, wake).ok());
            }
        }
    });
    Ok(())
}

fn converse(stream: &UnixStream, requests: &Sender<(Request, Sender<Answer>)>, mut wake: UnixStream) -> Result<()> {
    for line in BufReader::new(stream).lines() {
        let answer = match serde_json::from_str(&line?) {
            Ok(request) => {
                let (sender, receiver) = channel();
                requests.send((request, sender))?;
                wake.write_all(&[0])?;
                receiver.recv()?
            }
            Err(error) => Answer::Failed { error: format!("not a request: {error}") },
        };
        let mut text = serde_json::to_string(&answer)?;
        text.push('\n');
        (&*stream).write_all(text.as_bytes())?;
    }
    Ok(())
}

/// The lab's end of the control socket.
#[derive(Clone, Debug)]
pub struct RelayControl {
    socket: PathBuf,
}

impl RelayControl {
    /// Names the control socket; it is opened for each request.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Whether the relay listens.
    pub fn is_up(&self) -> bool {
        self.counters().is_ok()
    }

    /// Gives both directions of a path another quality.
    pub fn set(&self, path: &str, profile: Profile) -> Result<()> {
        self.done(&Request::Set { path: path.to_owned(), direction: None, profile })
    }

    /// Gives one direction of a path another quality.
    pub fn set_direction(&self, path: &str, direction: Direction, profile: Profile) -> Result<()> {
        self.done(&Request::Set { path: path.to_owned(), direction: Some(direction), profile })
    }

    /// Makes the path's NAT forget its mappings; flows get another port and, if given, another address.
    pub fn rebind(&self, path: &str, address: Option<IpAddr>) -> Result<()> {
        self.done(&Request::Rebind { path: path.to_owned(), address })
    }

    /// Begins to copy datagrams, or to withhold them.
    pub fn capture(
        &self,
        path: &str,
        direction: Direction,
        message: Option<u8>,
        limit: usize,
        withhold: bool,
    ) -> Result<()> {
        self.done(&Request::Capture { path: path.to_owned(), direction, message, limit, withhold })
    }

    /// Ends a capture and returns what it holds.
    pub fn captured(&self, path: &str, direction: Direction) -> Result<Vec<Captured>> {
        match self.ask(&Request::Captured { path: path.to_owned(), direction })? {
            Answer::Captured { datagrams } => Ok(datagrams),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends a datagram along a path.
    pub fn inject(&self, path: &str, direction: Direction, source: Option<SocketAddr>, payload: &[u8]) -> Result<()> {
        self.done(&Request::Inject { path: path.to_owned(), direction, source, payload: Payload(payload.to_vec()) })
    }

    /// Makes all paths perfect again and forgets everything about them.
    pub fn reset(&self) -> Result<()> {
        self.done(&Request::Reset)
    }

    /// The counters of all paths.
    pub fn counters(&self) -> Result<BTreeMap<String, PathCounters>> {
        match self.ask(&Request::Counters)? {
            Answer::Counters { paths } => Ok(paths),
            other => Err(unexpected(&other)),
        }
    }

    fn done(&self, request: &Request) -> Result<()> {
        match self.ask(request)? {
            Answer::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn ask(&self, request: &Request) -> Result<Answer> {
        let stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("connecting to the relay at {}", self.socket.display()))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut text = serde_json::to_string(request)?;
        text.push('\n');
        (&stream).write_all(text.as_bytes())?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).context("waiting for the relay's answer")?;
        match serde_json::from_str(&line).with_context(|| format!("reading the relay's answer {line:?}"))? {
            Answer::Failed { error } => bail!("the relay refused: {error}"),
            answer => Ok(answer),
        }
    }
}

fn unexpected(answer: &Answer) -> anyhow::Error {
    anyhow!("the relay answered out of turn: {answer:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_as_a_person_would_write_it() {
        let text = r#"{"do":"set","path":"lte","profile":{"loss":0.02,"delay_ms":25}}"#;
        let Ok(Request::Set { path, direction: None, profile }) = serde_json::from_str(text) else { panic!("{text}") };
        assert_eq!(path, "lte");
        assert_eq!(profile, Profile { loss: 0.02, delay_ms: 25.0, ..Profile::default() });
    }

    #[test]
    fn a_misspelt_field_is_refused() {
        let text = r#"{"do":"set","path":"lte","profile":{"los":0.02}}"#;
        assert!(serde_json::from_str::<Request>(text).is_err());
    }

    #[test]
    fn bytes_survive_the_control_socket() {
        let payload = Payload((0..=255).collect());
        let text = serde_json::to_string(&payload).unwrap();
        assert_eq!(serde_json::from_str::<Payload>(&text).unwrap(), payload);
    }
}
