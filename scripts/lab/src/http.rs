//! A download that proves itself: a server of deterministic pseudo-random bytes at a steady rate, and a fetcher that
//! reads them over one TCP connection and compares the checksum.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tiny_http::{Response, Server};

use crate::namespace::Namespace;
use crate::run::lock;

/// Bytes written at once; at 5 MB/s one piece lasts 3 ms, so that the rate is even.
const PIECE: usize = 16 * 1024;
/// Longest silence on the connection before the download is given up: far beyond any jump.
const STALL_LIMIT: Duration = Duration::from_secs(30);
/// How long the connection may take to open.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// What is downloaded, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    /// How many bytes.
    pub bytes: u64,
    /// Seed of the bytes.
    pub seed: u64,
    /// Bytes per second that the server sends.
    pub rate: u64,
}

impl Content {
    /// The BLAKE3 hash of the content, computed without any network.
    pub fn checksum(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let mut bytes = self.reader();
        let mut piece = vec![0; PIECE];
        while let Some(len) = bytes.next_piece(&mut piece) {
            hasher.update(&piece[..len]);
        }
        hasher.finalize()
    }

    fn reader(&self) -> Bytes {
        let seed = blake3::Hasher::new().update(&self.seed.to_le_bytes()).finalize_xof();
        Bytes { stream: seed, left: self.bytes }
    }
}

/// The content's bytes: the output of BLAKE3's extendable mode.
struct Bytes {
    stream: blake3::OutputReader,
    left: u64,
}

impl Bytes {
    fn next_piece(&mut self, piece: &mut [u8]) -> Option<usize> {
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(piece.len());
        self.stream.fill(&mut piece[..len]);
        self.left -= len as u64;
        (len > 0).then_some(len)
    }
}

/// Reads no faster than a rate: sleeping is what paces the server.
struct Paced {
    bytes: Bytes,
    rate: u64,
    sent: u64,
    started: Instant,
}

impl Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let due = Duration::from_secs_f64(self.sent as f64 / self.rate as f64);
        thread::sleep(due.saturating_sub(self.started.elapsed()));
        let most = buffer.len().min(PIECE);
        let len = self.bytes.next_piece(&mut buffer[..most]).unwrap_or(0);
        self.sent += len as u64;
        Ok(len)
    }
}

/// Serves one content to everybody who asks, until dropped.
pub struct ContentServer {
    namespace: Namespace,
    server: Option<Arc<Server>>,
    serving: Option<JoinHandle<()>>,
    address: SocketAddr,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
}

impl ContentServer {
    /// Listens in `namespace` on `address`.
    pub fn start(namespace: &Namespace, address: SocketAddr, content: Content) -> Result<Self> {
        let listener = namespace.enter(|| TcpListener::bind(address))?.with_context(|| format!("binding {address}"))?;
        let address = listener.local_addr()?;
        let server = Server::from_listener(listener, None).map_err(|error| anyhow!("starting HTTP: {error}"))?;
        let server = Arc::new(server);
        let peers = Arc::new(Mutex::new(Vec::new()));
        let (answering, seen) = (server.clone(), peers.clone());
        let serving = thread::spawn(move || {
            for request in answering.incoming_requests() {
                lock(&seen).extend(request.remote_addr());
                let bytes = Paced { bytes: content.reader(), rate: content.rate, sent: 0, started: Instant::now() };
                let length = usize::try_from(content.bytes).ok();
                let response =
                    Response::new(200.into(), Vec::new(), bytes, length, None).with_chunked_threshold(usize::MAX);
                // A client that goes away ends its own download only.
                thread::spawn(move || request.respond(response));
            }
        });
        Ok(Self { namespace: namespace.clone(), server: Some(server), serving: Some(serving), address, peers })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The peer address of every request so far: one download over one connection leaves one entry.
    pub fn peers(&self) -> Vec<SocketAddr> {
        lock(&self.peers).clone()
    }
}

impl Drop for ContentServer {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.unblock();
        }
        if let Some(serving) = self.serving.take() {
            // It cannot have panicked: what it does per request runs elsewhere.
            let _ = serving.join();
        }
        // The server ends by connecting to itself, which only means itself inside the namespace.
        let mut server = self.server.take();
        let _ = self.namespace.enter(|| drop(server.take()));
        // If the namespace is gone already, so is the listener.
        std::mem::forget(server);
    }
}

/// A download under way.
pub struct Download {
    progress: Arc<Progress>,
    worker: Option<JoinHandle<Result<Downloaded>>>,
}

#[derive(Default)]
struct Progress {
    bytes: AtomicU64,
    connections: AtomicUsize,
    cancelled: AtomicBool,
}

/// What a download brought.
#[derive(Clone, Debug)]
pub struct Downloaded {
    /// Bytes received.
    pub bytes: u64,
    /// Their BLAKE3 hash.
    pub checksum: blake3::Hash,
    /// The connection's own address when it opened.
    pub local_at_start: SocketAddr,
    /// The same when it ended.
    pub local_at_end: SocketAddr,
    /// TCP connections opened: one, or the download is not what it says.
    pub connections: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// Longest time without a byte.
    pub longest_stall: Duration,
}

impl Download {
    /// Begins to fetch from `server`, over a connection made in `namespace`.
    pub fn start(namespace: &Namespace, server: SocketAddr) -> Result<Self> {
        let progress = Arc::new(Progress::default());
        let stream = namespace
            .enter(|| TcpStream::connect_timeout(&server, CONNECT_LIMIT))?
            .with_context(|| format!("connecting to {server}"))?;
        progress.connections.fetch_add(1, Ordering::Relaxed);
        let shared = progress.clone();
        let worker = thread::spawn(move || fetch(&stream, server, &shared));
        Ok(Self { progress, worker: Some(worker) })
    }

    /// Bytes received so far.
    pub fn bytes(&self) -> u64 {
        self.progress.bytes.load(Ordering::Relaxed)
    }

    /// Whether it has ended, well or not.
    pub fn is_finished(&self) -> bool {
        self.worker.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end.
    pub fn finish(mut self) -> Result<Downloaded> {
        let worker = self.worker.take().ok_or_else(|| anyhow!("the download was finished before"))?;
        worker.join().map_err(|_| anyhow!("the download panicked"))?
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.progress.cancelled.store(true, Ordering::Relaxed);
    }
}

fn fetch(stream: &TcpStream, server: SocketAddr, progress: &Progress) -> Result<Downloaded> {
    let started = Instant::now();
    let local_at_start = stream.local_addr()?;
    stream.set_read_timeout(Some(STALL_LIMIT))?;
    let mut writer = stream;
    write!(writer, "GET / HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
    let mut reader = BufReader::with_capacity(PIECE, stream);
    let length = read_head(&mut reader)?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE];
    let mut bytes = 0;
    let (mut last, mut longest_stall) = (Instant::now(), Duration::ZERO);
    while bytes < length {
        ensure!(!progress.cancelled.load(Ordering::Relaxed), "the download was cancelled");
        let len = reader.read(&mut piece).with_context(|| format!("the download stopped after {bytes} bytes"))?;
        ensure!(len > 0, "the server closed the connection after {bytes} of {length} bytes");
        longest_stall = longest_stall.max(last.elapsed());
        last = Instant::now();
        hasher.update(&piece[..len]);
        bytes += len as u64;
        progress.bytes.store(bytes, Ordering::Relaxed);
    }
    Ok(Downloaded {
        bytes,
        checksum: hasher.finalize(),
        local_at_start,
        local_at_end: stream.local_addr()?,
        connections: progress.connections.load(Ordering::Relaxed),
        elapsed: started.elapsed(),
        longest_stall,
    })
}

/// Reads the status line and the headers; returns the length of the body.
fn read_head(reader: &mut impl BufRead) -> Result<u64> {
    let mut status = String::new();
    reader.read_line(&mut status).context("waiting for the server's answer")?;
    ensure!(status.split_whitespace().nth(1) == Some("200"), "the server answered {status:?}");
    let mut length = None;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
    }
    length.ok_or_else(|| anyhow!("the server's answer has no Content-Length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: Content = Content { bytes: 300_000, seed: 5, rate: 3_000_000 };

    #[test]
    fn equal_seeds_give_equal_content_and_other_seeds_other_content() {
        assert_eq!(CONTENT.checksum(), CONTENT.checksum());
        assert_ne!(CONTENT.checksum(), Content { seed: 6, ..CONTENT }.checksum());
        assert_ne!(CONTENT.checksum(), Content { bytes: 299_999, ..CONTENT }.checksum());
    }

    #[test]
    fn the_reader_is_paced_by_its_rate() {
        let started = Instant::now();
        let mut reader = Paced { bytes: CONTENT.reader(), rate: CONTENT.rate, sent: 0, started };
        let len = io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!(len, CONTENT.bytes);
        assert!(started.elapsed() >= Duration::from_millis(90), "300 kB at 3 MB/s take 100 ms");
    }

    #[test]
    fn an_answer_without_a_length_or_with_another_status_is_an_error() {
        assert_eq!(read_head(&mut &b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"[..]).unwrap(), 7);
        assert!(read_head(&mut &b"HTTP/1.1 200 OK\r\n\r\n"[..]).is_err());
        assert!(read_head(&mut &b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\n"[..]).is_err());
    }
}
