//! The lines of a chain: number, hash and time of each, so that no record has to care for them.

use std::fmt;

use jumpgate_protocol::audit::{PolicyRef, Record, Standing};
use jumpgate_protocol::ident::PublicKey;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{TICK_MS, Time};

use super::{Head, LineHash};
use crate::record;
use crate::text::LineWriter;

/// Version of the format. It rises when a meaning changes; new fields and codes do not change it (OB-13).
pub const SCHEMA_VERSION: u64 = 1;

/// Which end writes (OB-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The gateway: its trace is authoritative.
    Gateway,
    /// A client, with its own chain and its own local versions.
    Client,
}

/// Who writes a chain. A chain belongs to one node and role.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Author {
    /// Which end.
    pub role: Role,
    /// Which machine; no address and no person.
    pub node_id: String,
}

/// Turns times of the process into Unix milliseconds (OB-11): one look at the wall clock, when the process starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeAnchor {
    unix_us_at_zero: i128,
}

/// What the sink wants to be written beside the records of the cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Records of one session were lost (OB-06).
    SessionGap {
        /// Where it stood after the last one that was lost.
        standing: Standing,
        /// First version that may be missing.
        from_version: u64,
        /// Records lost.
        count: u64,
    },
    /// Records of one ring were lost (OB-06). Numbers count the records that were given to the ring.
    RingGap {
        /// The first one lost.
        first: u64,
        /// The last one lost.
        last: u64,
        /// How many of them.
        count: u64,
    },
    /// The file, or a ring, is impaired or well again.
    Degraded {
        /// What: the file, or a ring.
        part: &'static str,
        /// Records lost so far.
        lost: u64,
        /// Since when; none if well again.
        since: Option<Time>,
    },
}

/// Everything that a line says before the fields of its event.
#[derive(Clone, Copy, Default)]
struct Base<'a> {
    event_type: &'a str,
    worker: Option<u16>,
    policy: Option<PolicyRef>,
    standing: Option<Standing>,
    reason: Option<Reason>,
    detail: Option<Reason>,
}

/// Numbers and chains the lines of one author.
#[derive(Clone, Debug)]
pub struct ChainLines {
    author: Author,
    /// Names this run of the process: files of one run have the same.
    boot_id: String,
    anchor: TimeAnchor,
    next_seq: u64,
    prev_hash: LineHash,
    last_ts_ms: u64,
}

impl TimeAnchor {
    /// The process clock shows `now` while the wall clock shows `unix_ms`.
    pub const fn new(now: Time, unix_ms: u64) -> Self {
        Self { unix_us_at_zero: unix_ms as i128 * 1_000 - now.as_micros() as i128 }
    }

    /// Unix milliseconds at that time.
    pub fn unix_ms(&self, at: Time) -> u64 {
        u64::try_from((self.unix_us_at_zero + i128::from(at.as_micros())).div_euclid(1_000)).unwrap_or(0)
    }

    /// The same anchor, moved so that `now` is not before `floor_ms`: a wall clock that was set back must not make the
    /// chain's time stand still for as long.
    #[must_use]
    pub fn not_before(self, now: Time, floor_ms: u64) -> Self {
        let floor = Self::new(now, floor_ms);
        Self { unix_us_at_zero: self.unix_us_at_zero.max(floor.unix_us_at_zero) }
    }
}

impl ChainLines {
    /// A chain that begins.
    pub fn new(author: Author, boot_id: String, anchor: TimeAnchor) -> Self {
        Self { author, boot_id, anchor, next_seq: 0, prev_hash: LineHash::NONE, last_ts_ms: 0 }
    }

    /// The same, going on after `head`, whose line has the time `last_ts_ms`; `now` is the present.
    #[must_use]
    pub fn resuming(self, head: Head, last_ts_ms: u64, now: Time) -> Self {
        let anchor = self.anchor.not_before(now, last_ts_ms);
        Self { anchor, next_seq: head.seq + 1, prev_hash: head.hash, last_ts_ms, ..self }
    }

    /// The last line, if there is one.
    pub fn head(&self) -> Option<Head> {
        self.next_seq.checked_sub(1).map(|seq| Head { seq, hash: self.prev_hash })
    }

    /// `seq` of the next line.
    pub const fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Who writes.
    pub const fn author(&self) -> &Author {
        &self.author
    }

    /// Appends the line of a record; `worker` is the thread that made it, none for the control thread.
    pub fn record(&mut self, out: &mut Vec<u8>, worker: Option<u16>, record: &Record) {
        let policy = PolicyRef { version: record.policy_version, sequence: record.policy_sequence };
        let base = Base {
            event_type: record.event.event_type().name(),
            worker,
            policy: Some(policy),
            standing: record.standing(),
            reason: record.reason,
            detail: record.detail,
        };
        self.line(out, Some(record.at), base, |line, author| {
            record::write_fields(line, &record.event, &author.node_id)
        });
    }

    /// Appends the line of a notice. `at` is none for what the writer says of itself: such a line has the time of the line
    /// before, so that records which waited do not come too late after it.
    pub fn notice(&mut self, out: &mut Vec<u8>, worker: Option<u16>, at: Option<Time>, notice: &Notice) {
        match *notice {
            Notice::SessionGap { standing, from_version, count } => {
                let base =
                    Base { worker, standing: Some(standing), reason: Some(Reason::AuditGap), ..Base::of("AuditGap") };
                self.line(out, at, base, |line, _| {
                    line.number("from_version", from_version).number("to_version", standing.version);
                    line.null("first_seq").null("last_seq").number("count", count);
                });
            }
            Notice::RingGap { first, last, count } => {
                let base = Base { worker, reason: Some(Reason::AuditGap), ..Base::of("AuditGap") };
                self.line(out, at, base, |line, _| {
                    line.null("from_version").null("to_version");
                    line.number("first_seq", first).number("last_seq", last).number("count", count);
                });
            }
            Notice::Degraded { part, lost, since } => {
                let since_ms = since.map(|since| self.anchor.unix_ms(since));
                let ring = (part != Self::FILE).then_some(part);
                self.line(out, at, Base { worker, ..Base::of("TelemetryDegraded") }, |line, _| {
                    line.text("sink", Self::FILE).text_or_null("ring", ring);
                    line.number("lost", lost).number_or_null("since_ms", since_ms);
                });
            }
        }
    }

    /// The sink that a [`Notice::Degraded`] speaks of if it speaks of no ring.
    pub const FILE: &'static str = "file";

    /// Appends the line that opens every file (OB-09). Its `prev_hash` is the last hash of the file before; `at` as for
    /// [`ChainLines::notice`].
    pub fn start(&mut self, out: &mut Vec<u8>, at: Option<Time>, truncated_bytes: u64) {
        let previous = self.prev_hash;
        let anchor_ms = self.anchor.unix_ms(Time::ZERO);
        let boot_id = self.boot_id.clone();
        self.line(out, at, Base::of("ChainStart"), |line, _| {
            line.number("schema_version", SCHEMA_VERSION)
                .text("software_version", env!("CARGO_PKG_VERSION"))
                .text("boot_id", &boot_id)
                .number("tick_ms", TICK_MS)
                .number("clock_anchor_ms", anchor_ms)
                .hex("previous_hash", previous.as_bytes())
                .number("truncated_bytes", truncated_bytes);
        });
    }

    /// Appends the line that closes a file in good order; `records` is the number of its lines, this one included.
    pub fn end(&mut self, out: &mut Vec<u8>, at: Option<Time>, records: u64) {
        self.line(out, at, Base::of("ChainEnd"), |line, _| {
            line.number("records", records);
        });
    }

    fn line(
        &mut self,
        out: &mut Vec<u8>,
        at: Option<Time>,
        base: Base<'_>,
        fill: impl FnOnce(&mut LineWriter<'_>, &Author),
    ) {
        let begin = out.len();
        // Non-decreasing, also where records of two threads meet (OB-11).
        self.last_ts_ms = self.last_ts_ms.max(at.map_or(0, |at| self.anchor.unix_ms(at)));
        let mut line = LineWriter::begin(out);
        line.number("seq", self.next_seq)
            .hex("prev_hash", self.prev_hash.as_bytes())
            .number("ts_ms", self.last_ts_ms)
            .text("event_type", base.event_type)
            .text("role", self.author.role.name())
            .text("node_id", &self.author.node_id)
            .number_or_null("worker", base.worker.map(u64::from));
        match base.policy {
            Some(PolicyRef { version, sequence }) => {
                line.display("policy_version", format_args!("{}.{}", version.major, version.minor));
                line.number("policy_sequence", sequence.into())
            }
            None => line.null("policy_version").null("policy_sequence"),
        };
        match base.standing {
            Some(standing) => line
                .hex("session_id", &standing.session.0)
                .text("state", standing.state.name())
                .number("state_version", standing.version)
                .number("binding_epoch", standing.epoch),
            None => line.null("session_id").null("state").null("state_version").null("binding_epoch"),
        };
        line.text_or_null("reason_code", base.reason.map(Reason::name));
        line.text_or_null("details", base.detail.map(Reason::name));
        fill(&mut line, &self.author);
        line.end();
        self.prev_hash = LineHash::of(&out[begin..out.len() - 1]);
        self.next_seq += 1;
    }
}

impl<'a> Base<'a> {
    fn of(event_type: &'a str) -> Self {
        Self { event_type, ..Self::default() }
    }
}

impl Author {
    /// The author whose long-term key has that public part: its name is 64 bits of a hash, since keys stand in no trace
    /// (INV-30).
    pub fn of(role: Role, key: &PublicKey) -> Self {
        let hash = blake3::Hasher::new_derive_key("jumpgate v1 node id").update(&key.0).finalize();
        let node_id = hash.as_bytes()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { role, node_id }
    }
}

impl Role {
    /// The name in the trace.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Client => "client",
        }
    }

    /// The role of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Gateway, Self::Client].into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.node_id)
    }
}
