//! The answering side, inside of `jump up`.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, os::unix::net::UnixStream as StdStream};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use super::{REQUEST_MAX, Request, Response};
use crate::report::{Event, EventLine};

/// Events that a slow listener may be behind before it misses some: a switch makes about ten.
const EVENT_BACKLOG: usize = 1024;
/// Orders that may wait for the driver; each asker waits for its answer, so this is the number of askers.
const ORDER_BACKLOG: usize = 16;

/// How long open connections may take to finish at the end; a listener that does not read is left behind then.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Why the control socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another client listens there.
    #[error("another client is running: it listens on {path}; stop it with `jump down`, or give this one its own client.control_socket", path = .0.display())]
    Taken(PathBuf),
    /// The system refused.
    #[error("cannot listen on {path}: {source}; choose a place this user can write to as client.control_socket", path = path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A request that the driver has to answer.
#[derive(Debug)]
pub struct Order {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Response>,
}

/// The listening socket. Dropping it removes the socket's file.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    orders: mpsc::Receiver<Order>,
    asks: mpsc::Sender<Order>,
    events: broadcast::Sender<String>,
    closing: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Control {
    /// Listens on `path`. A file that a killed run left there is replaced; a running client's is not.
    pub fn listen(path: &Path) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Io { path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        if StdStream::connect(path).is_ok() {
            return Err(ServerError::Taken(path.to_owned()));
        }
        match fs::symlink_metadata(path) {
            Ok(left) if left.file_type().is_socket() => fs::remove_file(path).map_err(failed)?,
            Ok(_) => {
                return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is there")));
            }
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let (order_sender, orders) = mpsc::channel(ORDER_BACKLOG);
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        let closing = Arc::new(Notify::new());
        let task = tokio::spawn(accept(listener, order_sender.clone(), events.clone(), closing.clone()));
        Ok(Self { path: path.to_owned(), orders, asks: order_sender, events, closing, task })
    }

    /// The next order.
    pub async fn next_order(&mut self) -> Order {
        match self.orders.recv().await {
            Some(order) => order,
            // This value holds a sender itself.
            None => std::future::pending().await,
        }
    }

    /// Where orders of others than the socket's askers go.
    pub fn orders(&self) -> mpsc::Sender<Order> {
        self.asks.clone()
    }

    /// Tells every listener.
    pub fn publish(&self, line: &EventLine) {
        if self.events.receiver_count() > 0
            && let Ok(text) = serde_json::to_string(line)
        {
            let _ = self.events.send(text);
        }
    }
}

impl Control {
    /// Takes no more connections, and lets those that are open finish: answers reach their askers, streams end.
    pub async fn close(mut self) {
        self.closing.notify_one();
        // The last sender of events goes, so listeners see the end after everything that came before it.
        self.events = broadcast::channel(1).0;
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, &mut self.task).await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.path);
    }
}

async fn accept(
    listener: UnixListener,
    orders: mpsc::Sender<Order>,
    events: broadcast::Sender<String>,
    closing: Arc<Notify>,
) {
    // Connections end with this task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, orders.clone(), events.subscribe()));
                }
            }
            Some(_) = connections.join_next() => {}
            () = closing.notified() => break,
        }
    }
    drop((orders, events));
    while connections.join_next().await.is_some() {}
}

/// One connection: one request, its answer, the end.
async fn serve(stream: UnixStream, orders: mpsc::Sender<Order>, events: broadcast::Receiver<String>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader).take(REQUEST_MAX);
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    let response = match serde_json::from_str(&line) {
        Ok(Request::Events) => return stream_events(writer, reader, events).await,
        Ok(request) => order(request, &orders).await,
        Err(error) => Response::Error(format!("not a request: {error}")),
    };
    write_line(&mut writer, &serde_json::to_string(&response)?).await
}

pub(crate) async fn order(request: Request, orders: &mpsc::Sender<Order>) -> Response {
    let (answer, answered) = oneshot::channel();
    let stopping = || Response::Error("the client is stopping".to_owned());
    if orders.send(Order { request, answer }).await.is_err() {
        return stopping();
    }
    answered.await.unwrap_or_else(|_| stopping())
}

async fn stream_events(
    mut writer: impl tokio::io::AsyncWrite + Unpin,
    mut reader: impl tokio::io::AsyncRead + Unpin,
    mut events: broadcast::Receiver<String>,
) -> io::Result<()> {
    let mut ignored = [0; 1];
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(text) => write_line(&mut writer, &text).await?,
                Err(broadcast::error::RecvError::Lagged(count)) => {
                    write_line(&mut writer, &serde_json::to_string(&EventLine::now(Event::Missed { count }))?).await?;
                }
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            // The listener has nothing more to say; that it hung up shows as end of file.
            read = reader.read(&mut ignored) => if read? == 0 { return Ok(()) },
        }
    }
}

async fn write_line(writer: &mut (impl tokio::io::AsyncWrite + Unpin), text: &str) -> io::Result<()> {
    writer.write_all(text.as_bytes()).await?;
    writer.write_all(b"\n").await
}

#[cfg(test)]
mod tests {
    use super::super::{ControlError, ask, listen};
    use super::*;

    fn socket(directory: &tempfile::TempDir) -> PathBuf {
        directory.path().join("deeper/control.sock")
    }

    #[tokio::test]
    async fn an_order_reaches_the_driver_and_its_answer_the_asker() {
        let directory = tempfile::tempdir().unwrap();
        let path = socket(&directory);
        let mut control = Control::listen(&path).unwrap();
        let asker = tokio::task::spawn_blocking(move || ask(&path, &Request::Move { to: "lte0".into() }));
        let order = control.next_order().await;
        assert_eq!(order.request, Request::Move { to: "lte0".into() });
        order.answer.send(Response::Error("lte0 is down".into())).unwrap();
        assert!(matches!(asker.await.unwrap(), Err(ControlError::Refused(text)) if text == "lte0 is down"));
    }

    #[tokio::test]
    async fn events_reach_a_listener_until_it_hangs_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = socket(&directory);
        let control = Control::listen(&path).unwrap();
        let listener = tokio::task::spawn_blocking(move || {
            let mut listener = listen(&path).unwrap();
            (listener.next().unwrap().unwrap(), listener.next().unwrap().unwrap())
        });
        while control.events.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        control.publish(&EventLine::now(Event::Retry { delay_ms: 7 }));
        control.publish(&EventLine::now(Event::ConnectFailed { reason: "X".into() }));
        let (first, second) = listener.await.unwrap();
        assert!(matches!(first.event, Event::Retry { delay_ms: 7 }));
        assert!(matches!(second.event, Event::ConnectFailed { .. }));
        assert!(first.boottime_us <= second.boottime_us);
    }

    #[tokio::test]
    async fn a_second_client_is_refused_but_a_stale_file_is_not_in_the_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = socket(&directory);
        let first = Control::listen(&path).unwrap();
        assert!(matches!(Control::listen(&path), Err(ServerError::Taken(_))));
        drop(first);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        Control::listen(&path).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_never_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("private.key");
        fs::write(&path, "precious").unwrap();
        let error = Control::listen(&path).unwrap_err().to_string();
        assert!(error.contains("no socket") && error.contains("client.control_socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn nonsense_and_endless_lines_are_answered_and_closed() {
        let directory = tempfile::tempdir().unwrap();
        let path = socket(&directory);
        let _control = Control::listen(&path).unwrap();
        for nonsense in [b"{\"command\":\"dance\"}\n".to_vec(), vec![b'x'; 4096]] {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            let _ = stream.write_all(&nonsense).await;
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer).await;
            assert!(answer.is_empty() || answer.contains("not a request"), "{answer}");
        }
    }

    #[test]
    fn without_a_client_the_asker_learns_what_to_do() {
        let error = ask(Path::new("/nonexistent/control.sock"), &Request::Status).unwrap_err().to_string();
        assert!(error.contains("jump up"), "{error}");
    }
}
