//! What waits to be written: the records of one core, in the order in which they were made.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::limiter::Limiter;
use super::outer::Disclosure;
use super::refusal;
use super::value::{LimitAction, LimitScope, Pattern};
use super::{Class, Event, EventType, Outer, PolicyRef, Record, SecurityCounts, Standing};
use crate::ident::TransportId;
use crate::reason::Reason;
use crate::time::{Span, Time};
use crate::wire::MessageType;

/// Records that a batch of packets can make before the driver takes them; more only grows the queue. A full recovery of
/// one session makes about 12.
const CAPACITY: usize = 1_024;

/// The records of one core that the driver has not yet taken. Without a [`Disclosure`] nothing is recorded at all: so
/// drivers that keep no audit, as benchmarks, pay nothing for it.
#[derive(Default)]
pub(crate) struct Journal(Option<Box<Open>>);

struct Open {
    records: VecDeque<Record>,
    disclosure: Disclosure,
    limiter: Limiter,
    security: SecurityCounts,
}

impl Open {
    fn push(&mut self, record: Record) {
        self.security.wrote(record.event.event_type());
        self.records.push_back(record);
    }
}

/// Input that was refused, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    pub(crate) reason: Reason,
    /// What it claimed to be.
    pub(crate) message: Option<MessageType>,
    /// Its counter, if it has one.
    pub(crate) marker: u64,
    /// Where it came from.
    pub(crate) peer: SocketAddr,
    /// The limiter that refused it, and how long until it admits again.
    pub(crate) limit: Option<(LimitScope, Span)>,
}

impl Journal {
    /// Keeps records from now on; if it does already, with another disclosure.
    pub(crate) fn keep(&mut self, disclosure: Disclosure, now: Time) {
        match &mut self.0 {
            Some(open) => open.disclosure = disclosure,
            None => {
                let records = VecDeque::with_capacity(CAPACITY);
                let (limiter, security) = (Limiter::new(now), SecurityCounts::default());
                self.0 = Some(Box::new(Open { records, disclosure, limiter, security }));
            }
        }
    }

    /// Whether records are kept.
    pub(crate) const fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Security records so far.
    pub(crate) fn security(&self) -> SecurityCounts {
        self.0.as_ref().map(|open| open.security).unwrap_or_default()
    }

    /// The next record to be written.
    pub(crate) fn poll(&mut self) -> Option<Record> {
        self.0.as_mut()?.records.pop_front()
    }

    /// Keeps a record of class A or T.
    pub(crate) fn write(&mut self, record: Record) {
        if let Some(open) = &mut self.0 {
            open.records.push_back(record);
        }
    }

    /// Keeps a record that concerns no session.
    pub(crate) fn write_of_node(&mut self, now: Time, reason: Reason, detail: Option<Reason>, event: Event) {
        let security = event.event_type().row().class == Class::Security;
        if let Some(open) = self.0.as_mut().filter(|open| !security || open.disclosure.security_records()) {
            open.push(Record::new(now, None, open.disclosure.policy(), (Some(reason), detail), event));
        }
    }

    /// An address as it may be written.
    pub(crate) fn outer(&self, address: SocketAddr) -> Option<Outer> {
        self.0.as_ref().map(|open| open.disclosure.outer(address))
    }

    /// Input was refused: a security record, unless that reason had too many of them lately; then it is counted. What
    /// is known of the session is asked for only if a record is made: a flood must cost nothing but the count.
    pub(crate) fn refused(&mut self, now: Time, refused: &Refused, context: impl FnOnce() -> Option<Context>) {
        let Some(open) = self.0.as_mut().filter(|open| open.disclosure.security_records()) else {
            return;
        };
        // A limiter that tells nothing of itself has told by a record of its own.
        let untold = refused.reason == Reason::RateLimited && refused.limit.is_none();
        if untold || !refusal::is_of_security(refused.reason) {
            return;
        }
        if !open.limiter.admits(refused.reason, now) {
            open.security.suppressed(refusal::event_type(refused.reason));
            return;
        }
        let context = context();
        let policy = context.map_or(open.disclosure.policy(), |context| context.policy);
        let standing = context.map(|context| context.standing);
        let (reasons, event) = refusal::event(refused, context.as_ref(), open.disclosure.outer(refused.peer));
        open.push(Record::new(now, standing, policy, reasons, event));
    }

    /// An authentic message names an epoch that this end never reached.
    pub(crate) fn anomaly(&mut self, now: Time, context: &Context, observed: u64) {
        let reason = Reason::FutureStateVersion;
        let Some(open) = self.0.as_mut().filter(|open| open.disclosure.security_records()) else {
            return;
        };
        if !open.limiter.admits(reason, now) {
            open.security.suppressed(EventType::SecurityOwnershipAnomaly);
            return;
        }
        let event = Event::SecurityOwnershipAnomaly { expected: context.standing.epoch, observed };
        let reasons = (Some(Reason::SecOwnershipAnomaly), Some(reason));
        open.push(Record::new(now, Some(context.standing), context.policy, reasons, event));
    }

    /// A limiter that refused for a while admits again.
    pub(crate) fn released(&mut self, now: Time, scope: LimitScope, context: Option<&Context>) {
        let Some(open) = self.0.as_mut().filter(|open| open.disclosure.security_records()) else {
            return;
        };
        let event = Event::RateLimitEvent { action: LimitAction::Released, scope, retry_after_ms: 0, peer: None };
        let policy = context.map_or(open.disclosure.policy(), |context| context.policy);
        let standing = context.map(|context| context.standing);
        open.push(Record::new(now, standing, policy, (Some(Reason::RateLimited), None), event));
    }

    /// Writes what was left out, once an interval is over (OB-05).
    pub(crate) fn summarise(&mut self, now: Time) {
        if self.next_summary().is_some_and(|due| now >= due) {
            self.summarise_all(now);
        }
    }

    /// Writes what was left out so far.
    pub(crate) fn summarise_all(&mut self, now: Time) {
        let Some(open) = &mut self.0 else { return };
        let Open { records, limiter, disclosure, security } = &mut **open;
        limiter.summarise(now, |reason, suppressed, interval_ms| {
            let event = Event::SecurityAbuse { pattern: Pattern::Suppressed, suppressed, interval_ms };
            let reasons = (Some(Reason::SecAbuseControlPlane), Some(reason));
            security.wrote(EventType::SecurityAbuse);
            records.push_back(Record::new(now, None, disclosure.policy(), reasons, event));
        });
    }

    /// When [`Journal::summarise`] has something to do.
    pub(crate) fn next_summary(&self) -> Option<Time> {
        self.0.as_ref().and_then(|open| open.limiter.due_at())
    }
}

/// What is known of the session that refused input concerns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) standing: Standing,
    pub(crate) policy: PolicyRef,
    /// The bound path that the input came by, if it did.
    pub(crate) transport: Option<TransportId>,
}
