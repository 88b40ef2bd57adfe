//! The records of all threads in the order of their time.

use jumpgate_protocol::time::{Span, Time};

use crate::ring::{Feed, Item};

/// A record is taken that late, so that an older one of another thread is not overtaken: longer than a worker takes from
/// looking at the clock until it has published.
const LAG: Span = Span::from_millis(20);

/// The consuming ends of all rings.
#[derive(Debug, Default)]
pub(super) struct Merge {
    pub(super) feeds: Vec<Feed>,
}

impl Merge {
    /// Whether anything waits.
    pub(super) fn has_entries(&mut self) -> bool {
        self.feeds.iter_mut().any(|feed| feed.next_at().is_some())
    }

    /// The next entry of all, with the thread it came from; `now` is the present, or none if nothing more will come.
    pub(super) fn pop(&mut self, now: Option<Time>) -> Option<(Option<u16>, Item)> {
        let limit = now.map_or(Time::NEVER, |now| now - LAG);
        let next = |(index, feed): (usize, &mut Feed)| Some((feed.next_at().filter(|at| *at <= limit)?, index));
        let (_, index) = self.feeds.iter_mut().enumerate().filter_map(next).min()?;
        let feed = &mut self.feeds[index];
        Some((feed.worker(), feed.pop()?.item))
    }
}

#[cfg(test)]
mod tests {
    use jumpgate_protocol::audit::{Event, LimitAction, LimitScope, PolicyRef, Record};
    use jumpgate_protocol::policy::Version;

    use super::*;
    use crate::ring::{RingSizes, rings};

    fn record(at_ms: u64) -> Record {
        let policy = PolicyRef { version: Version { major: 1, minor: 0 }, sequence: 1 };
        let event = Event::RateLimitEvent {
            action: LimitAction::Engaged,
            scope: LimitScope::Global,
            retry_after_ms: 0,
            peer: None,
        };
        Record::new(Time::from_millis(at_ms), None, policy, (None, None), event)
    }

    #[test]
    fn ob11_records_of_two_threads_come_in_the_order_of_their_time() {
        let (mut one, one_feed) = rings(Some(1), RingSizes::default());
        let (mut two, two_feed) = rings(Some(2), RingSizes::default());
        let mut merge = Merge { feeds: vec![one_feed, two_feed] };
        for at in [10, 30, 50] {
            one.publish(&record(at));
        }
        for at in [20, 40, 60] {
            two.publish(&record(at));
        }
        let mut taken = Vec::new();
        while let Some((worker, item)) = merge.pop(Some(Time::from_millis(70))) {
            taken.push((item.at().as_millis(), worker));
        }
        assert_eq!(taken, [(10, Some(1)), (20, Some(2)), (30, Some(1)), (40, Some(2)), (50, Some(1))]);
        assert_eq!(merge.pop(None).map(|(_, item)| item.at().as_millis()), Some(60), "too young until then");
        assert!(!merge.feeds.iter().any(Feed::is_over));
        drop((one, two));
        assert!(merge.feeds.iter().all(Feed::is_over));
    }
}
