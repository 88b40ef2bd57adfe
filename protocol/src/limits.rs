//! A token bucket over virtual time: the one limiter of sessions, sources and the whole gateway.

use std::collections::VecDeque;
use std::net::IpAddr;

use hashbrown::HashMap;

use crate::policy::Rate;
use crate::stored::stored;
use crate::time::{Span, Time};

/// Tokens are kept in millionths, so that microseconds times tokens per second need no division.
const TOKEN: u64 = 1_000_000;

/// A token bucket. It starts full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    level: u64,
    filled_at: Time,
}

stored! { Bucket { level, filled_at } }

impl Bucket {
    /// A full bucket.
    pub fn full(rate: Rate, now: Time) -> Self {
        Self { level: u64::from(rate.burst) * TOKEN, filled_at: now }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// How long until the next token, if the bucket is empty.
    pub fn take(&mut self, rate: Rate, now: Time) -> Result<(), Span> {
        self.fill(rate, now);
        if self.level >= TOKEN {
            self.level -= TOKEN;
            return Ok(());
        }
        let per_second = u64::from(rate.per_second);
        Err(match (TOKEN - self.level).checked_div(per_second) {
            Some(micros) => Span::from_micros(micros + 1),
            None => Span::from_millis(1_000),
        })
    }

    /// Whether a token is there, without taking it.
    pub fn has_token(&mut self, rate: Rate, now: Time) -> bool {
        self.fill(rate, now);
        self.level >= TOKEN
    }

    fn fill(&mut self, rate: Rate, now: Time) {
        let gained = now.since(self.filled_at).as_micros().saturating_mul(u64::from(rate.per_second));
        self.level = self.level.saturating_add(gained).min(u64::from(rate.burst) * TOKEN);
        self.filled_at = self.filled_at.max(now);
    }
}

/// What counts as one unauthenticated source: an IPv4 address or an IPv6 /64 (PP74).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Source(u64);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        // An IPv4 client of a dual-stack socket is one source of its own, not one of ::ffff:0:0/96.
        match address.to_canonical() {
            // The upper 32 bits stay zero: no unicast IPv6 network begins with ::/32, so the two never meet.
            IpAddr::V4(ip) => Self(u64::from(u32::from(ip))),
            IpAddr::V6(ip) => Self((u128::from(ip) >> 64) as u64),
        }
    }
}

/// One bucket a source, in a table of fixed size; the oldest entry makes room (PP81, INV-22).
#[derive(Debug)]
pub struct SourceTable {
    rate: Rate,
    capacity: usize,
    buckets: HashMap<Source, Bucket>,
    order: VecDeque<Source>,
}

impl SourceTable {
    /// An empty table for that many sources.
    pub fn new(rate: Rate, capacity: usize) -> Self {
        Self { rate, capacity: capacity.max(1), buckets: HashMap::new(), order: VecDeque::new() }
    }

    /// Another rate and size from now on. A source keeps what it has used up; beyond the size the oldest are forgotten.
    pub fn set_limits(&mut self, rate: Rate, capacity: usize) {
        self.rate = rate;
        self.capacity = capacity.max(1);
        while self.buckets.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.buckets.remove(&oldest);
        }
    }

    /// Takes one token of that source.
    ///
    /// # Errors
    /// How long until its next one.
    pub fn take(&mut self, source: IpAddr, now: Time) -> Result<(), Span> {
        let source = Source::from(source);
        if let Some(bucket) = self.buckets.get_mut(&source) {
            return bucket.take(self.rate, now);
        }
        if self.buckets.len() >= self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.buckets.remove(&oldest);
        }
        self.order.push_back(source);
        self.buckets.entry(source).or_insert(Bucket::full(self.rate, now)).take(self.rate, now)
    }

    /// Sources in the table.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether no source is known.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a09_the_table_of_sources_never_grows_beyond_its_size() {
        let mut table = SourceTable::new(RATE, 16);
        for n in 0..10_000u32 {
            assert!(table.take(IpAddr::V4(n.into()), Time::ZERO).is_ok());
        }
        assert_eq!(table.len(), 16);
        assert_eq!(table.order.len(), 16);
    }

    #[test]
    fn one_source_cannot_use_the_tokens_of_another_and_an_ipv6_network_counts_as_one() {
        let mut table = SourceTable::new(RATE, 16);
        let (one, other): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        while table.take(one, Time::ZERO).is_ok() {}
        assert!(table.take(other, Time::ZERO).is_err());
        assert!(table.take("2001:db8:0:1::1".parse().unwrap(), Time::ZERO).is_ok());
        assert!(table.take("192.0.2.1".parse().unwrap(), Time::ZERO).is_ok());
        while table.take("::ffff:192.0.2.1".parse().unwrap(), Time::ZERO).is_ok() {}
        assert!(
            table.take("192.0.2.1".parse().unwrap(), Time::ZERO).is_err(),
            "the same host, seen by a dual-stack socket"
        );
        assert!(table.take("::ffff:192.0.2.2".parse().unwrap(), Time::ZERO).is_ok());
    }

    const RATE: Rate = Rate { per_second: 2, burst: 5 };

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut bucket = Bucket::full(RATE, Time::ZERO);
        assert!((0..5).all(|_| bucket.take(RATE, Time::ZERO).is_ok()));
        let wait = bucket.take(RATE, Time::ZERO).unwrap_err();
        assert_eq!(wait.as_millis(), 500);
        assert!(bucket.take(RATE, Time::ZERO + wait).is_ok());
        assert!(bucket.take(RATE, Time::ZERO + wait).is_err());
    }

    #[test]
    fn a_clock_that_stands_still_or_jumps_back_gives_no_tokens() {
        let mut bucket = Bucket::full(RATE, Time::from_millis(1_000));
        while bucket.take(RATE, Time::from_millis(1_000)).is_ok() {}
        assert!(bucket.take(RATE, Time::ZERO).is_err());
        assert!(bucket.take(RATE, Time::from_millis(1_000)).is_err());
    }

    #[test]
    fn a_long_rest_fills_to_the_burst_and_not_beyond() {
        let mut bucket = Bucket::full(RATE, Time::ZERO);
        let later = Time::from_millis(1_000_000_000);
        let taken = (0..100).filter(|_| bucket.take(RATE, later).is_ok()).count();
        assert_eq!(taken, 5);
    }
}
