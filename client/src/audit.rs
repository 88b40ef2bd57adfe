//! The client's own audit trace: the mirror's records, in a chain of their own (OB-14).

use std::time::Duration;

use jumpgate_audit::chain::{Author, RecoveryError, Role};
use jumpgate_audit::ring::{Publisher, RingSizes};
use jumpgate_audit::sink::{Sink, SinkConfig, SinkHandle, StatusView};
use jumpgate_protocol::client::Client;
use jumpgate_protocol::ident::PublicKey;
use jumpgate_protocol::time::Time;

use crate::clock;
use crate::config::Config;

/// One session makes few records; these outlast hours of a full disk.
const RINGS: RingSizes = RingSizes { audit: 8_192, security: 1_024, telemetry: 1_024 };
/// A file grows to about so many bytes: some weeks of a laptop.
const ROTATE_BYTES: u64 = 8 * 1024 * 1024;
/// How long the end of the program waits for the last records.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// A trace that is being kept.
#[derive(Debug)]
pub struct Trace {
    publisher: Publisher,
    sink: SinkHandle,
}

/// Why no trace can be kept.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The directory or what is in it.
    #[error("no audit trace can be kept: {0}\n  cure: {cure}, or set [audit] enabled = false", cure = .0.cure())]
    Recovery(#[from] RecoveryError),
    /// The system has no thread for it.
    #[error("no thread for the audit trace: {0}")]
    Thread(std::io::Error),
}

impl Trace {
    /// Opens the trace where the configuration says; none if it is switched off.
    pub fn open(config: &Config, key: &PublicKey) -> Result<Option<Self>, TraceError> {
        let Some(path) = config.audit_path() else {
            tracing::warn!("no audit trace is kept: [audit] enabled = false");
            return Ok(None);
        };
        let author = Author::of(Role::Client, key);
        // A new key begins a new chain, beside the old one.
        let place = SinkConfig { path: path.join(&author.node_id), rotate_bytes: ROTATE_BYTES, rings: RINGS };
        let mut sink = Sink::open(&place, author, clock::now)?;
        let publisher = sink.attach(None);
        Ok(Some(Self { publisher, sink: sink.start().map_err(TraceError::Thread)? }))
    }

    /// Publishes what the core has recorded.
    pub fn take(&mut self, now: Time, client: &mut Client) {
        while let Some(record) = client.poll_record() {
            self.publisher.publish(&record);
        }
        self.publisher.settle(now);
    }

    /// How it stands.
    pub fn status(&self) -> StatusView {
        self.sink.status().view()
    }

    /// Ends the trace in good order.
    pub fn stop(self) {
        let Self { publisher, sink } = self;
        drop(publisher);
        sink.stop(STOP_PATIENCE);
    }
}
