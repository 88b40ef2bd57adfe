//! `GET /metrics` by HTTP/1.1, for those who scrape: one request for each connection, within limits.
//!
//! It runs on the thread of whoever serves it without ever keeping it: a page is at most a [`FRESH`] old, so that no
//! number of scrapes makes anybody work more often than that. Connections that say nothing keep no scraper out: when
//! there are too many, the oldest of them goes.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::page::CONTENT_TYPE;

/// Connections at once: a monitoring system or two, and somebody who looks.
const MAX_CONNECTIONS: usize = 8;
/// Longest request, in bytes: a scraper's has some hundred.
const MAX_REQUEST: usize = 8 * 1024;
/// A connection is over after so long, whatever became of it.
const MAX_TIME: Duration = Duration::from_secs(5);
/// A connection that has not asked yet keeps its place so long: a scraper asks within moments.
const MAY_BE_SILENT: Duration = Duration::from_millis(250);
/// A connection that is being answered keeps its place so long; a scraper takes its page in milliseconds.
const KEEPS_PLACE: Duration = Duration::from_secs(1);
/// How often it is looked whether a place is free again, while all are being answered.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A page that is younger is given again.
const FRESH: Duration = Duration::from_millis(100);
/// What is read of a request that was refused, in bytes, so that the answer arrives before the end of the connection.
const MAX_REST: usize = 256 * 1024;

/// Nobody can scrape there.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at metrics.listen = \"{address}\": {source}")]
pub struct EndpointError {
    address: SocketAddr,
    source: io::Error,
}

impl EndpointError {
    /// What to do about it.
    pub fn cure(&self) -> String {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => "something else listens there: choose another port".to_owned(),
            io::ErrorKind::AddrNotAvailable => format!("no interface has {}: see `ip addr`", self.address.ip()),
            _ => "choose another address or port, as \"127.0.0.1:9464\"".to_owned(),
        }
    }
}

/// What the program says to a scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scraped {
    /// The page.
    Page(String),
    /// Why there is none now.
    Unavailable(&'static str),
}

/// The listening socket.
pub struct Endpoint {
    listener: TcpListener,
}

/// The last page and when it was made.
type LastPage = Arc<Mutex<Option<(Instant, Arc<str>)>>>;

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Response {
    Page(Arc<str>),
    Error(&'static str, &'static str),
}

/// How far a connection has come.
#[derive(Debug, Default)]
struct Progress {
    /// It was looked whether there is a request.
    looked: AtomicBool,
    /// There was one, and it is being answered.
    served: AtomicBool,
}

/// One connection.
struct Visitor {
    came: Instant,
    progress: Arc<Progress>,
    task: AbortHandle,
}

impl Endpoint {
    /// Listens there. Needs a tokio runtime.
    ///
    /// # Errors
    /// The address is taken, or not this host's.
    pub fn open(address: SocketAddr) -> Result<Self, EndpointError> {
        let open = || {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        };
        open().map(|listener| Self { listener }).map_err(|source| EndpointError { address, source })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The socket has no address any more.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves on this thread's runtime, for ever; `ask` makes a page. Connections end with it.
    pub async fn serve<A>(self, ask: impl Fn() -> A + Send + Sync + 'static)
    where
        A: Future<Output = Scraped> + Send + 'static,
    {
        let (ask, last) = (Arc::new(ask), LastPage::default());
        let mut connections = JoinSet::new();
        let mut visitors = VecDeque::new();
        loop {
            make_room(&mut connections, &mut visitors).await;
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (ask, last, progress) = (ask.clone(), last.clone(), Arc::new(Progress::default()));
                    let told = progress.clone();
                    let task = connections.spawn(async move {
                        // Too slow, or gone: that is the scraper's affair.
                        let _ = timeout(MAX_TIME, converse(stream, &*ask, &last, &told)).await;
                    });
                    visitors.push_back(Visitor { came: Instant::now(), progress, task });
                }
                Err(error) => {
                    tracing::warn!(%error, "the metrics endpoint takes no connection");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// Waits until there is room for one more connection. Whoever has been silent for a moment makes it, the oldest first.
async fn make_room(connections: &mut JoinSet<()>, visitors: &mut VecDeque<Visitor>) {
    loop {
        while connections.try_join_next().is_some() {}
        visitors.retain(|visitor| !visitor.task.is_finished());
        if visitors.len() < MAX_CONNECTIONS {
            return;
        }
        let idle = |Visitor { came, progress, .. }: &Visitor| {
            let silent = progress.looked.load(Ordering::Relaxed) && !progress.served.load(Ordering::Relaxed);
            came.elapsed() >= if silent { MAY_BE_SILENT } else { KEEPS_PLACE }
        };
        match visitors.iter().position(idle).and_then(|oldest| visitors.remove(oldest)) {
            Some(oldest) => oldest.task.abort(),
            None => sleep(LOOK_AGAIN).await,
        }
    }
}

async fn converse<A: Future<Output = Scraped>>(
    mut stream: TcpStream,
    ask: &impl Fn() -> A,
    last: &LastPage,
    progress: &Progress,
) -> io::Result<()> {
    progress.looked.store(true, Ordering::Relaxed);
    let response = match read_request(&mut stream).await? {
        Ok(()) => {
            progress.served.store(true, Ordering::Relaxed);
            page(ask, last).await
        }
        Err(refusal) => refusal,
    };
    stream.write_all(response.to_http().as_bytes()).await?;
    stream.shutdown().await?;
    // What is unread when a socket is closed resets the connection, and the answer may be lost with it.
    let mut rest = [0; 4096];
    let mut left = MAX_REST;
    while left > 0 {
        match stream.read(&mut rest).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}

/// Reads up to the empty line that ends a request's header. A body would follow it; nobody reads one.
async fn read_request(stream: &mut TcpStream) -> io::Result<Result<(), Response>> {
    let mut request = Vec::with_capacity(1024);
    loop {
        if let Some(end) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            return Ok(judge(&request[..end]));
        }
        if request.len() >= MAX_REQUEST {
            return Ok(Err(Response::Error("431 Request Header Fields Too Large", "the request is too long")));
        }
        let room = (MAX_REQUEST - request.len()) as u64;
        if (&mut *stream).take(room).read_buf(&mut request).await? == 0 {
            return Ok(Err(Response::Error("400 Bad Request", "the request is not complete")));
        }
    }
}

/// Whether a request is for the page: its first line decides.
fn judge(header: &[u8]) -> Result<(), Response> {
    const MALFORMED: Response = Response::Error("400 Bad Request", "not an HTTP/1 request");
    let line = header.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| MALFORMED)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(MALFORMED);
    };
    if method.is_empty() || target.is_empty() || !version.starts_with("HTTP/1.") {
        return Err(MALFORMED);
    }
    // Scrapers may add parameters of their own.
    if target.split('?').next() != Some("/metrics") {
        return Err(Response::Error("404 Not Found", "what there is: /metrics"));
    }
    if method != "GET" {
        return Err(Response::Error("405 Method Not Allowed", "GET is allowed"));
    }
    Ok(())
}

/// The page of now, or of a moment ago. Who comes meanwhile waits for the same one.
async fn page<A: Future<Output = Scraped>>(ask: &impl Fn() -> A, last: &LastPage) -> Response {
    let mut last = last.lock().await;
    if let Some((made, page)) = &*last
        && made.elapsed() < FRESH
    {
        return Response::Page(page.clone());
    }
    match ask().await {
        Scraped::Page(text) => {
            let page: Arc<str> = text.into();
            *last = Some((Instant::now(), page.clone()));
            Response::Page(page)
        }
        Scraped::Unavailable(why) => Response::Error("503 Service Unavailable", why),
    }
}

impl Response {
    fn to_http(&self) -> String {
        let (status, kind, allow, body) = match self {
            Self::Page(page) => ("200 OK", CONTENT_TYPE, "", page.to_string()),
            Self::Error(status, problem) => {
                let allow = if status.starts_with("405") { "Allow: GET\r\n" } else { "" };
                (*status, "text/plain; charset=utf-8", allow, format!("{problem}\n"))
            }
        };
        let len = body.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n{allow}Connection: close\r\n\r\n{body}"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream as Blocking};
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// An endpoint whose program counts how often it was asked; `test` scrapes it.
    fn with_endpoint(test: impl FnOnce(SocketAddr) + Send + 'static) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let endpoint = Endpoint::open(SocketAddr::from(([127, 0, 0, 1], 0))).expect("open");
            let address = endpoint.address().expect("address");
            let asked = AtomicU64::new(0);
            let server = tokio::spawn(endpoint.serve(move || {
                let asked = asked.fetch_add(1, Ordering::Relaxed) + 1;
                async move { Scraped::Page(format!("asked {asked}\n")) }
            }));
            tokio::task::spawn_blocking(move || test(address)).await.expect("the scraper is content");
            server.abort();
        });
    }

    fn exchange(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = Blocking::connect(address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
        // It may be refused before all of it is sent.
        let _ = stream.write_all(request);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer and an end");
        answer
    }

    #[test]
    fn a_scrape_gets_the_page_and_the_connection_ends() {
        with_endpoint(|address| {
            let answer = exchange(address, b"GET /metrics?x=1 HTTP/1.1\r\nHost: gateway\r\n\r\n");
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.contains("Content-Type: text/plain; version=0.0.4"), "{answer}");
            assert!(answer.contains("Content-Length: 8\r\n") && answer.ends_with("\r\n\r\nasked 1\n"), "{answer}");
        });
    }

    #[test]
    fn what_is_no_scrape_is_refused_by_its_name() {
        with_endpoint(|address| {
            let long = [b"GET /metrics HTTP/1.1\r\nCookie: ".as_slice(), &[b'x'; 3 * MAX_REQUEST]].concat();
            let cases: [(&[u8], &str); 9] = [
                (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
                (b"GET / HTTP/1.1\r\n\r\n", "404"),
                (b"GET /metrics/../secret HTTP/1.1\r\n\r\n", "404"),
                (b"GET /metrics\r\n\r\n", "400"),
                (b"GET  /metrics HTTP/1.1\r\n\r\n", "400"),
                (b"\xff\xfe\x00\r\n\r\n", "400"),
                (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"),
                (b"GET /metrics HTTP/1.1\r\n", "400"),
                (&long, "431"),
            ];
            for (request, status) in cases {
                let answer = exchange(address, request);
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
                assert_eq!(answer.contains("Allow: GET"), status == "405", "{answer}");
            }
        });
    }

    #[test]
    fn many_scrapes_at_once_are_all_answered_and_idle_connections_keep_nobody_out() {
        with_endpoint(|address| {
            // They say nothing, or only half of it, and there are many more than places.
            let mut idle: Vec<_> =
                (0..5 * MAX_CONNECTIONS).map(|_| Blocking::connect(address).expect("connected")).collect();
            for half in idle.iter_mut().step_by(2) {
                // One that has made room already may not take it.
                let _ = half.write_all(b"GET /metrics HTTP/1.1\r\n");
            }
            let started = Instant::now();
            let scrapers: Vec<_> = (0..20)
                .map(|_| std::thread::spawn(move || exchange(address, b"GET /metrics HTTP/1.1\r\n\r\n")))
                .collect();
            let asked = |answer: String| answer.rsplit(' ').next().and_then(|n| n.trim().parse::<u64>().ok());
            let answers: Vec<_> = scrapers.into_iter().map(|one| asked(one.join().expect("answered"))).collect();
            assert!(answers.iter().all(Option::is_some), "{answers:?}");
            assert!(started.elapsed() < MAX_TIME, "they waited for silent ones to be over: {:?}", started.elapsed());
            drop(idle);
        });
    }

    #[tokio::test]
    async fn a_page_is_given_again_while_it_is_fresh() {
        let ask = || async { Scraped::Page("new".to_owned()) };
        let last = |made| LastPage::new(Mutex::new(Some((made, "old".into()))));
        // From the future, as it were: however slow this machine is, it stays fresh.
        let fresh = last(Instant::now() + Duration::from_secs(3600));
        assert_eq!(page(&ask, &fresh).await, Response::Page("old".into()));
        assert_eq!(page(&ask, &last(Instant::now() - FRESH)).await, Response::Page("new".into()));
        let busy = || async { Scraped::Unavailable("busy") };
        assert!(
            matches!(page(&busy, &LastPage::default()).await, Response::Error(status, "busy") if status.starts_with("503"))
        );
    }
}
