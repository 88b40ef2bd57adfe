//! The audit records of a run: every record of both ends is followed, session by session.

mod life;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use jumpgate_protocol::audit::{Class, EventType, Record};
use life::Life;

/// Which stream a record came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writer {
    /// The handshake desk of the gateway.
    Desk,
    /// A worker of the gateway.
    Worker(usize),
    /// A client.
    Client(usize),
}

/// Follows the records of a run.
#[derive(Default)]
pub struct Records {
    lives: HashMap<(bool, [u8; 16]), Life>,
    counts: HashMap<(bool, EventType), u64>,
    digest: u64,
    /// All of them, if asked for.
    kept: Option<Vec<(Writer, Record)>>,
}

impl Records {
    /// Keeps every record from now on.
    pub fn keep(&mut self) {
        self.kept.get_or_insert_default();
    }

    /// The records kept.
    pub fn kept(&self) -> &[(Writer, Record)] {
        self.kept.as_deref().unwrap_or_default()
    }

    /// How many records of that kind the gateway wrote.
    pub fn of_gateway(&self, event: EventType) -> u64 {
        self.counts.get(&(true, event)).copied().unwrap_or(0)
    }

    /// How many records of that kind the clients wrote.
    pub fn of_clients(&self, event: EventType) -> u64 {
        self.counts.get(&(false, event)).copied().unwrap_or(0)
    }

    /// A number over all records with their times: equal for equal runs.
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// The gateway crashed: its sessions end without a word.
    pub(crate) fn forget_gateway(&mut self) {
        self.lives.retain(|(gateway, _), _| !gateway);
    }

    /// INV-28: sessions that have begun and not ended.
    pub(crate) fn open_at_gateway(&self) -> usize {
        self.lives.iter().filter(|((gateway, _), life)| *gateway && !life.is_over()).count()
    }

    /// Takes one record; gives what is wrong with it.
    pub(crate) fn take(&mut self, writer: Writer, record: Record) -> Vec<String> {
        let mut hasher = DefaultHasher::new();
        (self.digest, writer, format!("{record:?}")).hash(&mut hasher);
        self.digest = hasher.finish();
        let gateway = !matches!(writer, Writer::Client(_));
        *self.counts.entry((gateway, record.event.event_type())).or_default() += 1;
        if let Some(kept) = &mut self.kept {
            kept.push((writer, record));
        }
        self.follow(gateway, &record)
    }

    fn follow(&mut self, gateway: bool, record: &Record) -> Vec<String> {
        let required = record.event.event_type().row().reason_required;
        if required && record.reason.is_none() {
            return vec![format!("V-REASON: no reason in {record:?}")];
        }
        let Some(standing) = record.standing().filter(|_| record.class() == Class::Audit) else {
            return Vec::new();
        };
        let id = (gateway, standing.session.0);
        match self.lives.get_mut(&id) {
            Some(life) => life.follow(record, standing, gateway),
            None => match Life::begin(record, standing) {
                Ok(life) => {
                    self.lives.insert(id, life);
                    Vec::new()
                }
                Err(wrong) => vec![wrong],
            },
        }
    }
}
