//! A numbered UDP echo at a steady interval: it measures how long and how thoroughly a path was interrupted.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::namespace::Namespace;
use crate::run::lock;

/// Time between two probes: outages are measured to that precision.
pub const INTERVAL: Duration = Duration::from_millis(5);
/// An answer that takes longer counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(2);
/// How long a receiver waits before it looks whether it should stop.
const RECEIVE_LIMIT: Duration = Duration::from_millis(100);
/// Bytes of a probe: its number, padded to a voice packet's size.
const PROBE_LEN: usize = 64;

/// A probe under way; dropping it ends it.
pub struct Probe {
    shared: Arc<Shared>,
}

struct Shared {
    stop: AtomicBool,
    probes: Mutex<Vec<Sent>>,
}

/// What is known of one probe.
#[derive(Clone, Copy)]
struct Sent {
    at: Instant,
    reached_server: bool,
    answered_at: Option<Instant>,
}

/// What a window of time looked like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Interruption {
    /// Probes sent in the window.
    pub sent: usize,
    /// Those that were not answered.
    pub lost: usize,
    /// Of the lost ones, those that did not even reach the server.
    pub lost_up: usize,
    /// Longest time for which no probe that was sent got an answer.
    pub outage: Duration,
    /// Median of the round trips.
    pub median_round_trip: Option<Duration>,
}

impl Probe {
    /// Starts an echo in the namespace of the server and the probing in that of the client.
    pub fn start(client: &Namespace, server: &Namespace, address: SocketAddr) -> Result<Self> {
        let echo = server.enter(|| UdpSocket::bind(address))?.with_context(|| format!("binding {address}"))?;
        let address = echo.local_addr()?;
        let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = client.enter(|| UdpSocket::bind(any))?.context("binding the probe")?;
        for socket in [&echo, &socket] {
            socket.set_read_timeout(Some(RECEIVE_LIMIT))?;
        }
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), probes: Mutex::default() });
        let receiving = socket.try_clone()?;
        let (for_echo, for_sender, for_receiver) = (shared.clone(), shared.clone(), shared.clone());
        thread::spawn(move || for_echo.echo(&echo));
        thread::spawn(move || for_sender.send(&socket, address));
        thread::spawn(move || for_receiver.receive(&receiving));
        Ok(Self { shared })
    }

    /// What happened to the probes sent between `from` and `to`. Wait for late answers first: see [`Probe::settle`].
    pub fn window(&self, from: Instant, to: Instant) -> Interruption {
        let probes = lock(&self.shared.probes);
        measure(probes.iter().filter(|probe| (from..to).contains(&probe.at)), to)
    }

    /// Whether answers come: `count` of them in the time of twice as many probes. However long they were under way.
    pub fn flows(&self, count: usize) -> bool {
        let since = Instant::now() - INTERVAL * u32::try_from(2 * count).unwrap_or(u32::MAX);
        let probes = lock(&self.shared.probes);
        probes.iter().filter(|probe| probe.answered_at.is_some_and(|at| at >= since)).count() >= count
    }

    /// Sleeps for as long as an answer may take on a living path.
    pub fn settle(&self) {
        thread::sleep(LOST_AFTER / 4);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn send(&self, socket: &UdpSocket, server: SocketAddr) {
        let mut next = Instant::now();
        while self.goes_on() {
            let number = {
                let mut probes = lock(&self.probes);
                probes.push(Sent { at: Instant::now(), reached_server: false, answered_at: None });
                probes.len() as u64 - 1
            };
            let mut packet = [0; PROBE_LEN];
            packet[..8].copy_from_slice(&number.to_be_bytes());
            // Without a route or a device the probe is lost, which is what it is there to find.
            let _ = socket.send_to(&packet, server);
            next += INTERVAL;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    fn echo(&self, socket: &UdpSocket) {
        let mut packet = [0; PROBE_LEN];
        while self.goes_on() {
            if let Some((number, from)) = receive(socket, &mut packet) {
                if let Some(probe) = lock(&self.probes).get_mut(number) {
                    probe.reached_server = true;
                }
                let _ = socket.send_to(&packet, from);
            }
        }
    }

    fn receive(&self, socket: &UdpSocket) {
        let mut packet = [0; PROBE_LEN];
        while self.goes_on() {
            if let Some((number, _)) = receive(socket, &mut packet)
                && let Some(probe) = lock(&self.probes).get_mut(number)
            {
                probe.answered_at.get_or_insert_with(Instant::now);
            }
        }
    }
}

fn receive(socket: &UdpSocket, packet: &mut [u8; PROBE_LEN]) -> Option<(usize, SocketAddr)> {
    match socket.recv_from(packet) {
        Ok((PROBE_LEN, from)) => {
            let number = u64::from_be_bytes(packet[..8].try_into().ok()?);
            Some((usize::try_from(number).ok()?, from))
        }
        Ok(_) => None,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(_) => {
            // The link may be gone for a while; do not spin until it is back.
            thread::sleep(INTERVAL);
            None
        }
    }
}

fn measure<'a>(probes: impl Iterator<Item = &'a Sent>, end: Instant) -> Interruption {
    let mut result = Interruption::default();
    let mut round_trips = Vec::new();
    let mut silent_since = None;
    for probe in probes {
        result.sent += 1;
        let round_trip = probe.answered_at.map(|at| at - probe.at).filter(|time| *time <= LOST_AFTER);
        if let Some(round_trip) = round_trip {
            round_trips.push(round_trip);
            if let Some(since) = silent_since.take() {
                result.outage = result.outage.max(probe.at - since);
            }
        } else {
            result.lost += 1;
            result.lost_up += usize::from(!probe.reached_server);
            silent_since.get_or_insert(probe.at);
        }
    }
    if let Some(since) = silent_since {
        result.outage = result.outage.max(end - since);
    }
    round_trips.sort();
    result.median_round_trip = round_trips.get(round_trips.len() / 2).copied();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probes 5 ms apart; each letter is one: `.` answered, `u` lost on the way up, `d` on the way down.
    fn window(pattern: &str) -> Interruption {
        let start = Instant::now();
        let probes: Vec<Sent> = pattern
            .chars()
            .enumerate()
            .map(|(number, fate)| {
                let at = start + INTERVAL * u32::try_from(number).unwrap();
                let answered_at = (fate == '.').then(|| at + Duration::from_millis(30));
                Sent { at, reached_server: fate != 'u', answered_at }
            })
            .collect();
        let end = start + INTERVAL * u32::try_from(pattern.len()).unwrap();
        measure(probes.iter(), end)
    }

    #[test]
    fn an_undisturbed_window_has_no_outage() {
        let quiet = window("......");
        assert_eq!((quiet.sent, quiet.lost, quiet.outage), (6, 0, Duration::ZERO));
        assert_eq!(quiet.median_round_trip, Some(Duration::from_millis(30)));
    }

    #[test]
    fn an_outage_lasts_from_the_first_lost_probe_to_the_next_answered_one() {
        let jump = window("..uud....d.");
        assert_eq!((jump.lost, jump.lost_up, jump.outage), (4, 2, Duration::from_millis(15)));
    }

    #[test]
    fn an_outage_that_does_not_end_lasts_to_the_end_of_the_window() {
        assert_eq!(window("..uuu").outage, Duration::from_millis(15));
    }
}
