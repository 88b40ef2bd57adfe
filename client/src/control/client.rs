//! The asking side: `jump status`, `move`, `down` and `events`.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Request, Response};
use crate::report::EventLine;

/// How long an answer may take. The client answers between two packets; only a stopped process takes longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("no client is running: nothing listens on {path}; start one with `jump up --config FILE`, or name its socket with --socket or --config", path = .0.display())]
    NotRunning(PathBuf),
    /// Not allowed.
    #[error("not allowed to talk to the client on {path}; use sudo, it listens to the user who started it", path = .0.display())]
    Privilege(PathBuf),
    /// The connection broke or took too long.
    #[error("the client on {path} does not answer: {source}", path = path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The answer is not what this version understands.
    #[error("the client's answer is not understood: {0}; is `jump` of the same version as the running client?")]
    Foreign(#[from] serde_json::Error),
    /// The client refused.
    #[error("{0}")]
    Refused(String),
}

/// Sends one request and gives the answer to it.
pub fn ask(socket: &Path, request: &Request) -> Result<Response, ControlError> {
    let mut reader = send(socket, request)?;
    let failed = |source| ControlError::Io { path: socket.to_owned(), source };
    reader.get_ref().set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(failed)?;
    let mut line = String::new();
    reader.read_line(&mut line).map_err(failed)?;
    match serde_json::from_str(&line)? {
        Response::Error(message) => Err(ControlError::Refused(message)),
        answer => Ok(answer),
    }
}

/// Events as they happen. Ends when the client does.
#[derive(Debug)]
pub struct Listener {
    reader: BufReader<UnixStream>,
}

/// Subscribes to the events of the client.
pub fn listen(socket: &Path) -> Result<Listener, ControlError> {
    Ok(Listener { reader: send(socket, &Request::Events)? })
}

impl Iterator for Listener {
    type Item = Result<EventLine, ControlError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(serde_json::from_str(&line).map_err(ControlError::from)),
        }
    }
}

fn send(socket: &Path, request: &Request) -> Result<BufReader<UnixStream>, ControlError> {
    let mut stream = UnixStream::connect(socket).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ControlError::NotRunning(socket.to_owned()),
        io::ErrorKind::PermissionDenied => ControlError::Privilege(socket.to_owned()),
        _ => ControlError::Io { path: socket.to_owned(), source },
    })?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(|source| ControlError::Io { path: socket.to_owned(), source })?;
    Ok(BufReader::new(stream))
}
