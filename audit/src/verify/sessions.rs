//! All live sessions of a trace, births and ends (V-BIRTH, V-END), and what gaps excuse (OB-06).

use std::collections::{HashMap, VecDeque};

use jumpgate_protocol::audit::Class;
use jumpgate_protocol::ident::SessionIdentity;
use jumpgate_protocol::machine::State;

use super::Code;
use super::schema::{Complaint, Seen, SessionFields};
use super::session::{Fate, Session, Slack};
use crate::chain::Role;

/// Ended sessions that are remembered, so that a name used again is noticed; 16 bytes and a little each. The oldest are
/// forgotten first.
const ENDED_MAX: usize = 1 << 20;

/// Follows every live session. Memory is bounded by their number.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    live: HashMap<(Role, SessionIdentity), Session>,
    /// With those of which a gap told the end: records of that end may have survived.
    ended: HashMap<(Role, SessionIdentity), Ending>,
    ended_order: VecDeque<(Role, SessionIdentity)>,
    /// Lost records that no session's own gap accounts for: any session may miss some of them.
    unaccounted: u64,
    /// Gaps of rings.
    ring_gaps: u64,
    /// A gateway wrote its sessions down for the next run, and that has not said yet what became of them.
    handed_over: bool,
    counts: Counts,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// With its SessionTerminated, or with its process.
    Told,
    /// Within a gap.
    InGap,
}

/// What a trace held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) sessions: u64,
    pub(super) ended: u64,
    /// Lost with a process that ended without ChainEnd.
    pub(super) lost: u64,
    pub(super) gaps: u64,
    pub(super) gap_records: u64,
    /// Known only from the middle of their life, since earlier records were not given.
    pub(super) begun_before: u64,
}

impl Sessions {
    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Sessions that have not ended.
    pub(super) fn open(&self) -> usize {
        self.live.len()
    }

    /// Judges a record that belongs to a session. `begins_late`: earlier files of the chain were not given.
    pub(super) fn record(
        &mut self,
        seen: &Seen<'_>,
        fields: SessionFields,
        begins_late: bool,
        slack: Slack,
        complaints: &mut Vec<Complaint>,
    ) {
        if self.handed_over {
            // The next run lives without them.
            self.crashed();
        }
        if seen.row.name == "AuditGap" {
            return self.session_gap(seen, fields, complaints);
        }
        let key = (seen.role, fields.id);
        let excused = self.unaccounted > 0;
        let Some(session) = self.live.get_mut(&key) else {
            if let Some(ending) = self.ended.get_mut(&key) {
                if *ending == Ending::InGap && fields.state == State::Terminated && !seen.is_change() {
                    if seen.row.name == "SessionTerminated" {
                        *ending = Ending::Told;
                    }
                    return;
                }
                let (code, expected) = match seen.row.name {
                    "SessionCreated" => (Code::Birth, "a name that was never used"),
                    _ => (Code::End, "no record after SessionTerminated"),
                };
                complaints.push(Complaint::new(code, expected, seen.row.name));
                return;
            }
            return self.first(seen, fields, begins_late || excused, slack, complaints);
        };
        if excused && session.gaps_before < self.ring_gaps && fields.version >= session.version() {
            // Its first record since: what it lost was before.
            session.skip_before(seen, fields);
            session.gaps_before = self.ring_gaps;
        }
        if session.record(seen, fields, slack, complaints) == Fate::Ends {
            self.live.remove(&key);
            self.counts.ended += 1;
            self.remember(key, Ending::Told);
        }
    }

    /// A gap of a whole ring.
    pub(super) fn ring_gap(&mut self, seen: &Seen<'_>) {
        let count = seen.object.number("count").unwrap_or(0);
        self.counts.gaps += 1;
        self.counts.gap_records = self.counts.gap_records.saturating_add(count);
        self.unaccounted = self.unaccounted.saturating_add(count);
        self.ring_gaps += 1;
    }

    /// A step of a planned restart (OW-8).
    pub(super) fn restart(&mut self, seen: &Seen<'_>) {
        match seen.object.text("action") {
            Some("handed_over") => self.handed_over = true,
            Some("refused") => self.crashed(),
            _ => {
                self.handed_over = false;
                // Limits that fell due while nobody ran fire now (OW-4).
                self.live.values_mut().for_each(|session| session.thawed(seen.ts_ms));
            }
        }
    }

    /// The process ended without ChainEnd, or what it handed over is lost: its sessions are gone with it (OW-9, OW-10).
    pub(super) fn crashed(&mut self) {
        self.handed_over = false;
        self.counts.lost += self.live.len() as u64;
        let keys: Vec<_> = self.live.drain().map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.remember(key, Ending::Told));
        self.unaccounted = 0;
    }

    /// The trace ends in good order: what its sessions still owe, and which are overdue.
    pub(super) fn finish(
        &mut self,
        now_ms: u64,
        slack: Slack,
        mut complain: impl FnMut(SessionIdentity, Vec<Complaint>),
    ) {
        if self.handed_over {
            // They wait for the next run, whose records are not given.
            return;
        }
        let mut open: Vec<_> = self.live.values_mut().collect();
        open.sort_by_key(|session| session.id.0);
        for session in open {
            let mut complaints = Vec::new();
            session.close(&mut complaints);
            session.in_time(now_ms, slack, &mut complaints);
            if !complaints.is_empty() {
                complain(session.id, complaints);
            }
        }
    }

    fn first(
        &mut self,
        seen: &Seen<'_>,
        fields: SessionFields,
        excused: bool,
        slack: Slack,
        complaints: &mut Vec<Complaint>,
    ) {
        self.counts.sessions += 1;
        let born = seen.row.name == "SessionCreated";
        let mut session = Session::adopt(seen, fields, born);
        session.gaps_before = self.ring_gaps;
        if born {
            let fresh = SessionFields { state: State::Birth, version: 0, epoch: 0, ..fields };
            if fields != fresh {
                let found = format!("{} version {} epoch {}", fields.state, fields.version, fields.epoch);
                complaints.push(Complaint::new(Code::Birth, "BIRTH, version 0, epoch 0", found));
            }
        } else {
            self.counts.begun_before += 1;
            if !excused && seen.row.class != Class::Audit {
                session.ahead = Some(fields.version);
            } else if !excused {
                complaints.push(Complaint::new(Code::Birth, "SessionCreated first", seen.row.name));
            }
            if session.record(seen, fields, slack, complaints) == Fate::Ends {
                self.counts.ended += 1;
                return self.remember((seen.role, fields.id), Ending::Told);
            }
        }
        self.live.insert((seen.role, fields.id), session);
    }

    fn session_gap(&mut self, seen: &Seen<'_>, fields: SessionFields, complaints: &mut Vec<Complaint>) {
        let count = seen.object.number("count").unwrap_or(0);
        self.counts.gaps += 1;
        // A ring's gap counts the same records; alone, a session's gap speaks for itself.
        if self.unaccounted == 0 {
            self.counts.gap_records = self.counts.gap_records.saturating_add(count);
        }
        self.unaccounted = self.unaccounted.saturating_sub(count);
        let key = (seen.role, fields.id);
        let (from, to) = (seen.object.number("from_version"), seen.object.number("to_version"));
        if to != Some(fields.version) || from > to {
            let found = format!("{} to {}", from.unwrap_or(0), to.unwrap_or(0));
            complaints.push(Complaint::new(Code::Version, format!("a gap up to version {}", fields.version), found));
        }
        if self.ended.contains_key(&key) {
            complaints.push(Complaint::new(Code::End, "no record after SessionTerminated", "AuditGap"));
            return;
        }
        let counts = &mut self.counts;
        let session = self.live.entry(key).or_insert_with(|| {
            counts.sessions += 1;
            counts.begun_before += 1;
            Session::adopt(seen, fields, false)
        });
        // What is lost is the version that it has, or later ones; a hole before the gap is not covered by it.
        let next = session.version().saturating_add(1);
        if from.is_some_and(|from| from > next) || fields.version < session.version() {
            let found = format!("from version {}", from.unwrap_or(0));
            complaints.push(Complaint::new(Code::Version, format!("a gap from version {next} at the latest"), found));
        }
        session.skip_to(fields);
        if fields.state == State::Terminated {
            self.live.remove(&key);
            self.counts.ended += 1;
            self.remember(key, Ending::InGap);
        }
    }

    fn remember(&mut self, key: (Role, SessionIdentity), ending: Ending) {
        if self.ended_order.len() == ENDED_MAX
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
        if self.ended.insert(key, ending).is_none() {
            self.ended_order.push_back(key);
        }
    }
}
