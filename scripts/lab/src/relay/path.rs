//! One path through the relay: two lanes, one NAT, and the frames that are under way.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;

use anyhow::{Result, anyhow, ensure};

use super::control::{Captured, Counters, Direction, PathCounters, Payload};
use super::frame::{self, Datagram};
use super::impair::{Fate, Impairment, Lost, Profile};
use super::rebind::Rebinding;

/// The headers of Ethernet, IPv6 and UDP: as much of a frame as a template needs.
const TEMPLATE_LEN: usize = 14 + 40 + 8;

/// What a path does, apart from reading and writing devices: so it can be tested with frames and times alone.
pub(crate) struct Path {
    up: Lane,
    down: Lane,
    nat: Rebinding,
}

struct Lane {
    impairment: Impairment,
    under_way: BinaryHeap<Reverse<Parcel>>,
    /// Parcels so far; keeps equal times in order.
    parcels: u64,
    capture: Option<Capture>,
    template: Option<Template>,
    counters: Counters,
}

/// A frame that waits for its time.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Parcel {
    at: u64,
    number: u64,
    frame: Vec<u8>,
}

struct Capture {
    message: Option<u8>,
    limit: usize,
    withhold: bool,
    datagrams: Vec<Captured>,
}

/// The last datagram of a lane, in which an injected one is dressed.
struct Template {
    headers: [u8; TEMPLATE_LEN],
    source: SocketAddr,
    destination: SocketAddr,
}

impl Path {
    pub(crate) fn new(seed: u64) -> Self {
        // Three sequences of one seed: neither lane nor NAT hears what the others draw.
        let mut seeds = fastrand::Rng::with_seed(seed);
        Self { up: Lane::new(seeds.u64(..)), down: Lane::new(seeds.u64(..)), nat: Rebinding::new(seeds.u64(..)) }
    }

    /// Takes a frame that arrived at `now` (microseconds). What is to be delivered at once goes to `deliver`.
    pub(crate) fn arrive(
        &mut self,
        direction: Direction,
        now: u64,
        frame: &mut [u8],
        deliver: &mut impl FnMut(&[u8]) -> bool,
    ) {
        let lane = match direction {
            Direction::Up => {
                self.nat.outward(frame);
                &mut self.up
            }
            Direction::Down => {
                if !self.nat.inward(frame) {
                    self.down.counters.unmapped += 1;
                    return;
                }
                &mut self.down
            }
        };
        lane.arrive(now, frame, deliver);
    }

    /// Delivers what is due at `now`.
    pub(crate) fn deliver_due(&mut self, direction: Direction, now: u64, deliver: &mut impl FnMut(&[u8]) -> bool) {
        self.lane(direction).deliver_due(now, deliver);
    }

    /// When the next frame is due.
    pub(crate) fn next_due(&self) -> Option<u64> {
        [&self.up, &self.down].into_iter().filter_map(Lane::next_due).min()
    }

    pub(crate) fn set(&mut self, direction: Option<Direction>, profile: &Profile) {
        let directions = direction.map_or(vec![Direction::Up, Direction::Down], |direction| vec![direction]);
        for direction in directions {
            self.lane(direction).impairment.set(profile.clone());
        }
    }

    pub(crate) fn rebind(&mut self, address: Option<std::net::IpAddr>) {
        self.nat.rebind(address);
    }

    pub(crate) fn capture(&mut self, direction: Direction, message: Option<u8>, limit: usize, withhold: bool) {
        self.lane(direction).capture = Some(Capture { message, limit, withhold, datagrams: Vec::new() });
    }

    pub(crate) fn captured(&mut self, direction: Direction) -> Vec<Captured> {
        self.lane(direction).capture.take().map(|capture| capture.datagrams).unwrap_or_default()
    }

    /// Builds the frame of a datagram that pretends to come along this path.
    pub(crate) fn dress(&self, direction: Direction, source: Option<SocketAddr>, payload: &[u8]) -> Result<Vec<u8>> {
        let lane = match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        };
        let template = lane.template.as_ref().ok_or_else(|| anyhow!("no datagram has come along this path yet"))?;
        let source = source.unwrap_or(template.source);
        ensure!(source.is_ipv4() == template.destination.is_ipv4(), "{source} is not of the path's address family");
        frame::build(&template.headers, source, template.destination, payload)
            .ok_or_else(|| anyhow!("a datagram of {} bytes does not fit into a frame", payload.len()))
    }

    pub(crate) fn counters(&self) -> PathCounters {
        PathCounters { up: self.up.counters, down: self.down.counters, rebindings: self.nat.generation() }
    }

    fn lane(&mut self, direction: Direction) -> &mut Lane {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

impl Lane {
    fn new(seed: u64) -> Self {
        Self {
            impairment: Impairment::new(Profile::default(), seed),
            under_way: BinaryHeap::new(),
            parcels: 0,
            capture: None,
            template: None,
            counters: Counters::default(),
        }
    }

    fn arrive(&mut self, now: u64, frame: &mut [u8], deliver: &mut impl FnMut(&[u8]) -> bool) {
        let mut kind = None;
        if let Some(datagram) = Datagram::find(frame) {
            kind = datagram.payload(frame).first().copied();
            self.remember(&datagram, frame);
            if self.captures(&datagram, frame) {
                self.counters.withheld += 1;
                return;
            }
        }
        match self.impairment.decide(now, frame.len(), kind) {
            Fate::Lost(Lost::Chance | Lost::Burst) => self.counters.lost += 1,
            Fate::Lost(Lost::Queue) => self.counters.queue_full += 1,
            Fate::Lost(Lost::Blackhole) => self.counters.blackholed += 1,
            Fate::Delivered { at, copy_at, flip } => {
                if let Some(flip) = flip {
                    flip_a_bit(frame, flip);
                    self.counters.corrupted += 1;
                }
                self.hand_over(now, at, frame, deliver);
                if let Some(copy_at) = copy_at {
                    self.counters.duplicated += 1;
                    self.hand_over(now, copy_at, frame, deliver);
                }
            }
        }
    }

    fn hand_over(&mut self, now: u64, at: u64, frame: &[u8], deliver: &mut impl FnMut(&[u8]) -> bool) {
        if at <= now {
            self.count(deliver(frame));
        } else {
            self.under_way.push(Reverse(Parcel { at, number: self.parcels, frame: frame.to_vec() }));
            self.parcels += 1;
        }
    }

    fn deliver_due(&mut self, now: u64, deliver: &mut impl FnMut(&[u8]) -> bool) {
        while self.next_due().is_some_and(|at| at <= now) {
            if let Some(Reverse(parcel)) = self.under_way.pop() {
                self.count(deliver(&parcel.frame));
            }
        }
    }

    fn next_due(&self) -> Option<u64> {
        self.under_way.peek().map(|Reverse(parcel)| parcel.at)
    }

    fn count(&mut self, accepted: bool) {
        if accepted {
            self.counters.delivered += 1;
        } else {
            self.counters.refused += 1;
        }
    }

    fn remember(&mut self, datagram: &Datagram, frame: &[u8]) {
        let mut headers = [0; TEMPLATE_LEN];
        let len = frame.len().min(TEMPLATE_LEN);
        headers[..len].copy_from_slice(&frame[..len]);
        self.template = Some(Template { headers, source: datagram.source, destination: datagram.destination });
    }

    /// Whether a capture keeps the datagram for itself.
    fn captures(&mut self, datagram: &Datagram, frame: &[u8]) -> bool {
        let Some(capture) = &mut self.capture else { return false };
        let payload = datagram.payload(frame);
        let wanted = capture.message.is_none_or(|message| payload.first() == Some(&message));
        if !wanted || capture.datagrams.len() >= capture.limit {
            return false;
        }
        capture.datagrams.push(Captured {
            source: datagram.source,
            destination: datagram.destination,
            payload: Payload(payload.to_vec()),
        });
        capture.withhold
    }
}

/// Flips a bit in the last third of a frame: behind the outer headers, so that a checksum or a tag has to notice.
fn flip_a_bit(frame: &mut [u8], choice: u64) {
    let from = frame.len() - frame.len() / 3;
    let bits = (frame.len() - from) * 8;
    if bits > 0 {
        let bit = usize::try_from(choice % bits as u64).unwrap_or_default();
        frame[from + bit / 8] ^= 1 << (bit % 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 11;
    const TEMPLATE: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];

    fn frame(payload: &[u8]) -> Vec<u8> {
        let source = "198.51.100.2:40000".parse().unwrap();
        frame::build(&TEMPLATE, source, "192.0.2.1:51900".parse().unwrap(), payload).unwrap()
    }

    fn send(path: &mut Path, now: u64, payload: &[u8]) -> Vec<Vec<u8>> {
        let mut delivered = Vec::new();
        path.arrive(Direction::Up, now, &mut frame(payload), &mut |frame| {
            delivered.push(Datagram::find(frame).unwrap().payload(frame).to_vec());
            true
        });
        delivered
    }

    fn due(path: &mut Path, now: u64) -> Vec<Vec<u8>> {
        let mut delivered = Vec::new();
        path.deliver_due(Direction::Up, now, &mut |frame| {
            delivered.push(Datagram::find(frame).unwrap().payload(frame).to_vec());
            true
        });
        delivered
    }

    #[test]
    fn a_delayed_frame_is_delivered_at_its_time_and_not_before() {
        let mut path = Path::new(SEED);
        path.set(None, &Profile { delay_ms: 10.0, ..Profile::default() });
        assert!(send(&mut path, 0, b"a").is_empty());
        assert!(send(&mut path, 1, b"b").is_empty());
        assert_eq!(path.next_due(), Some(10_000));
        assert!(due(&mut path, 9_999).is_empty());
        assert_eq!(due(&mut path, 10_001), [b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(path.counters().up.delivered, 2);
    }

    #[test]
    fn a_withholding_capture_keeps_what_it_wants_and_lets_the_rest_pass() {
        let mut path = Path::new(SEED);
        path.capture(Direction::Up, Some(b'w'), 1, true);
        assert!(send(&mut path, 0, b"wanted").is_empty());
        assert_eq!(send(&mut path, 0, b"other").len(), 1);
        assert_eq!(send(&mut path, 0, b"wanted, but over the limit").len(), 1);
        let captured = path.captured(Direction::Up);
        assert_eq!(captured.len(), 1);
        assert_eq!(captured[0].payload.0, b"wanted");
        assert_eq!(send(&mut path, 0, b"wanted").len(), 1, "the capture is over");
    }

    #[test]
    fn an_injected_datagram_wears_the_headers_of_the_last_one() {
        let mut path = Path::new(SEED);
        assert!(path.dress(Direction::Up, None, b"x").is_err(), "nothing to model it on yet");
        send(&mut path, 0, b"a");
        assert_eq!(path.dress(Direction::Up, None, b"x").unwrap(), frame(b"x"));
        let source = "203.0.113.9:1".parse().unwrap();
        let forged = path.dress(Direction::Up, Some(source), b"x").unwrap();
        assert_eq!(Datagram::find(&forged).unwrap().source, source);
    }

    #[test]
    fn a_flipped_bit_is_exactly_one_bit_behind_the_headers() {
        let mut path = Path::new(SEED);
        path.set(None, &Profile { corrupt: 1.0, ..Profile::default() });
        let payload = [0; 900];
        let received = send(&mut path, 0, &payload).remove(0);
        let changed: u32 = received.iter().map(|byte| byte.count_ones()).sum();
        assert_eq!(changed, 1);
    }

    #[test]
    fn a_rebinding_drops_what_comes_for_the_old_mapping_and_counts_it() {
        let mut path = Path::new(SEED);
        send(&mut path, 0, b"a");
        path.rebind(None);
        let mut old =
            frame::build(&TEMPLATE, "192.0.2.1:51900".parse().unwrap(), "198.51.100.2:40000".parse().unwrap(), b"late")
                .unwrap();
        path.arrive(Direction::Down, 0, &mut old, &mut |_| panic!("delivered to a mapping that is gone"));
        assert_eq!(path.counters().down.unmapped, 1);
        assert_eq!(path.counters().rebindings, 1);
    }
}
