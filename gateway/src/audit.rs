//! The audit trace of this gateway: where it is kept, who publishes, what an operator sees of it.
//!
//! Workers and the slow path publish records; the sink's thread writes them ([`jumpgate_audit::sink`]). Nobody waits for
//! it, so a full or stuck disk costs records at worst, and says so, but never a packet (INV-23).

use std::sync::Arc;
use std::time::Duration;

use jumpgate_audit::chain::{Author, RecoveryError, Role};
use jumpgate_audit::ring::{Publisher, RECORDS_PER_RECOVERY};
use jumpgate_audit::sink::{Sink, SinkConfig, SinkHandle, SinkStatus, StatusView};
use jumpgate_protocol::gateway::HandshakeDesk;
use jumpgate_protocol::time::Time;

use crate::admin::CounterRow;
use crate::clock;
use crate::config::Config;
use crate::fault::Fault;

/// How long the end of the gateway waits for the last records to be written.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// A sink that takes publishers until it is started.
pub struct Trace(Option<Sink>);

/// A sink that runs, or none if no trace is kept.
#[derive(Debug)]
pub struct RunningTrace(Option<SinkHandle>);

/// The slow path's share of the trace.
pub struct SlowRecords {
    publisher: Option<Publisher>,
    status: Option<Arc<SinkStatus>>,
}

impl Trace {
    /// Opens the trace where the configuration says. `sessions` is how many one worker may have.
    pub fn open(config: &Config, sessions: usize) -> Result<Self, Fault> {
        let Some(audit) = &config.audit else {
            tracing::warn!("no audit trace is kept: [audit] enabled = false");
            return Ok(Self(None));
        };
        if !audit.rings.outlast(sessions) {
            tracing::warn!(
                ring_records = audit.rings.audit,
                wanted = sessions * RECORDS_PER_RECOVERY,
                "while the audit file cannot be written, a recovery of all sessions would not fit into the ring"
            );
        }
        let author = Author::of(Role::Gateway, &config.secret.public());
        // A new key begins a new chain, beside the old one.
        let place = SinkConfig { path: audit.path.join(&author.node_id), ..audit.clone() };
        Ok(Self(Some(Sink::open(&place, author, clock::now)?)))
    }

    /// Rings for one worker; none if no trace is kept.
    pub fn attach_worker(&mut self, worker: u16) -> Option<Publisher> {
        self.0.as_mut().map(|sink| sink.attach(Some(worker)))
    }

    /// Starts the sink's thread, and gives the slow path its share.
    pub fn start(self) -> Result<(RunningTrace, SlowRecords), Fault> {
        let Some(mut sink) = self.0 else {
            return Ok((RunningTrace(None), SlowRecords { publisher: None, status: None }));
        };
        let publisher = sink.attach(None);
        let handle = sink.start().map_err(Fault::ours)?;
        let records = SlowRecords { publisher: Some(publisher), status: Some(Arc::clone(handle.status())) };
        Ok((RunningTrace(Some(handle)), records))
    }
}

impl RunningTrace {
    /// Ends the trace in good order, once nobody publishes any more.
    pub fn stop(self) {
        if let Some(handle) = self.0 {
            handle.stop(STOP_PATIENCE);
        }
    }
}

impl SlowRecords {
    /// Whether a trace is kept.
    pub const fn are_kept(&self) -> bool {
        self.publisher.is_some()
    }

    /// Publishes what the desk has recorded.
    pub fn take(&mut self, now: Time, desk: &mut HandshakeDesk) {
        if let Some(publisher) = &mut self.publisher {
            while let Some(record) = desk.poll_record() {
                publisher.publish(&record);
            }
            publisher.settle(now);
        }
    }

    /// How the sink stands; none if no trace is kept.
    pub fn status(&self) -> Option<StatusView> {
        self.status.as_ref().map(|status| status.view())
    }

    /// The same as counters; those that are zero are left out, but for the number of records.
    pub fn counters(&self) -> Vec<CounterRow> {
        let Some(view) = self.status() else { return Vec::new() };
        let mut rows = vec![("records".to_owned(), view.records)];
        let errors = view.errors.into_iter().map(|(operation, count)| (format!("sink_errors_{operation}"), count));
        let lost = view.rings.iter().flat_map(|ring| {
            let place = ring.worker.map_or_else(|| "slow".to_owned(), |worker| format!("worker_{worker}"));
            let [audit, security, telemetry] = ring.lost;
            [
                (format!("lost_audit_{place}"), audit),
                (format!("lost_security_{place}"), security),
                (format!("lost_telemetry_{place}"), telemetry),
            ]
        });
        let sometimes = [("gaps".to_owned(), view.gaps)].into_iter().chain(errors).chain(lost);
        rows.extend(sometimes.filter(|(_, value)| *value > 0));
        let row = |(name, value)| CounterRow { place: "audit".to_owned(), name, value };
        rows.into_iter().map(row).collect()
    }
}

impl From<RecoveryError> for Fault {
    fn from(error: RecoveryError) -> Self {
        Self::operator(format!("no audit trace can be kept: {error}"), error.cure())
    }
}
