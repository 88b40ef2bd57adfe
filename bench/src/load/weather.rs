//! What a link does to packets on their way: it loses some and delays the others. The generator does this itself, in user
//! space, to what its clients send and hear.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

use jumpgate_protocol::machine::State;
use jumpgate_protocol::time::{Span, Time};

use super::chance::Chance;
use super::crowd::Crowd;
use super::member::Spike;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weather {
    /// Share of the packets that vanish, each way.
    pub loss: f64,
    /// How much later the others arrive, each way.
    pub delay: Span,
}

/// A packet that is on its way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delayed {
    at: Time,
    order: u64,
    /// From the client; else to it.
    pub(crate) up: bool,
    pub(crate) number: u32,
    pub(crate) path: usize,
    pub(crate) packet: Vec<u8>,
}

/// Everything that is on its way.
pub(crate) struct Sky {
    chance: Chance,
    under_way: BinaryHeap<Reverse<Delayed>>,
    order: u64,
    /// Packets that vanished.
    pub(crate) lost: u64,
}

impl Weather {
    /// Nothing is lost, nothing comes later.
    pub(crate) const FAIR: Self = Self { loss: 0.0, delay: Span::ZERO };
}

impl Sky {
    /// The same seed loses the same share of packets.
    pub(crate) fn new(seed: u64) -> Self {
        Self { chance: Chance::new(seed), under_way: BinaryHeap::new(), order: 0, lost: 0 }
    }

    /// Takes a packet that meets bad weather. True if it goes on at once.
    pub(crate) fn passes(
        &mut self,
        now: Time,
        weather: Weather,
        up: bool,
        (number, path): (u32, usize),
        packet: &[u8],
    ) -> bool {
        if weather == Weather::FAIR {
            return true;
        }
        if self.chance.happens(weather.loss) {
            self.lost += 1;
            return false;
        }
        if weather.delay == Span::ZERO {
            return true;
        }
        let (at, order) = (now + weather.delay, self.order);
        self.order += 1;
        self.under_way.push(Reverse(Delayed { at, order, up, number, path, packet: packet.to_vec() }));
        false
    }

    /// The next packet that has arrived by now.
    pub(crate) fn arrived(&mut self, now: Time) -> Option<Delayed> {
        self.next().filter(|at| *at <= now)?;
        self.under_way.pop().map(|Reverse(delayed)| delayed)
    }

    /// When the next arrives.
    pub(crate) fn next(&self) -> Option<Time> {
        self.under_way.peek().map(|Reverse(delayed)| delayed.at)
    }
}

impl Ord for Delayed {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What became of a client by a loss spike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It never left ATTACHED.
    Unmoved,
    /// It left, and came back without a jump.
    Healed,
    /// It went to another path.
    Switched,
    /// It became DEGRADED, or is still on its way.
    Degraded,
    /// Its session ended.
    Ended,
}

impl Crowd {
    /// The path that a client uses gets bad; those to whom it happens are watched from now on.
    pub fn spike(&mut self, now: Time, number: u32, weather: Weather) {
        let member = &mut self.members[number as usize];
        if let Some(active) = member.core.status(now).active {
            member.links[usize::from(active.0) - 1].weather = weather;
            member.spike = Some(Spike { began: now, left: false, degraded: false, switched: false });
        }
    }

    /// All paths are well again.
    pub fn clear_up(&mut self) {
        for link in self.members.iter_mut().flat_map(|member| &mut member.links) {
            link.weather = Weather::FAIR;
        }
    }

    /// What became of those who were watched; they are no more.
    pub fn outcomes(&mut self) -> BTreeMap<Outcome, u32> {
        let mut outcomes = BTreeMap::new();
        for member in &mut self.members {
            let Some(spike) = member.spike.take() else { continue };
            let outcome = match member.state {
                None => Outcome::Ended,
                Some(_) if spike.switched => Outcome::Switched,
                Some(State::Attached) if !spike.degraded && spike.left => Outcome::Healed,
                Some(State::Attached) if !spike.degraded => Outcome::Unmoved,
                Some(_) => Outcome::Degraded,
            };
            *outcomes.entry(outcome).or_default() += 1;
        }
        outcomes
    }

    /// Packets that vanished in bad weather.
    pub const fn lost_by_weather(&self) -> u64 {
        self.sky.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_millis(1_000);

    #[test]
    fn a_third_is_lost_and_the_rest_arrives_late_and_in_order() {
        let mut sky = Sky::new(1);
        let weather = Weather { loss: 0.33, delay: Span::from_millis(120) };
        for packet in 0..1_000_u16 {
            assert!(!sky.passes(NOW, weather, true, (7, 0), &packet.to_be_bytes()));
        }
        assert!((280..380).contains(&sky.lost), "{}", sky.lost);
        assert_eq!(sky.arrived(NOW + Span::from_millis(119)), None);
        assert_eq!(sky.next(), Some(NOW + Span::from_millis(120)));
        let mut last = None;
        let mut arrived = 0;
        while let Some(delayed) = sky.arrived(NOW + Span::from_millis(120)) {
            assert!(last < Some(delayed.packet.clone()), "order is kept");
            last = Some(delayed.packet);
            arrived += 1;
        }
        assert_eq!(arrived + sky.lost, 1_000);
    }

    #[test]
    fn fair_weather_does_nothing() {
        let mut sky = Sky::new(1);
        assert!((0..1_000).all(|_| sky.passes(NOW, Weather::FAIR, false, (0, 0), &[])));
        assert_eq!((sky.lost, sky.next()), (0, None));
    }
}
