//! `[audit]`: where and how the trace is kept.

use jumpgate_audit::ring::RingSizes;
use jumpgate_audit::sink::SinkConfig;

use super::{ConfigError, Document, file};

/// Where traces are kept if the file does not say.
const DEFAULT_PATH: &str = "/var/log/jumpgate/audit";
/// Sizes that a file of the trace may have, in MiB: room for some seconds of records at least, and less than what tools
/// choke on at most.
const ROTATE_MIB: std::ops::RangeInclusive<u64> = 1..=65_536;
/// Records in a worker's ring: enough for one session's recoveries at least, half a GiB of memory at most.
const RING_RECORDS: std::ops::RangeInclusive<usize> = 1_024..=4_194_304;

/// Gives none if the operator wants no trace.
pub(super) fn check(document: &Document, raw: file::Audit) -> Result<Option<SinkConfig>, ConfigError> {
    if raw.enabled == Some(false) {
        return Ok(None);
    }
    let path = raw.path.map_or_else(|| DEFAULT_PATH.into(), |path| document.directory().join(path));
    let mut config = SinkConfig::at(path);
    if let Some(mib) = raw.rotate_mib {
        if !ROTATE_MIB.contains(&mib) {
            let cure = format!("write {} to {}", ROTATE_MIB.start(), ROTATE_MIB.end());
            return Err(document.complain("audit.rotate_mib", format!("files of {mib} MiB are not possible"), cure));
        }
        config.rotate_bytes = mib * 1024 * 1024;
    }
    if let Some(records) = raw.ring_records {
        if !RING_RECORDS.contains(&records) {
            let cure = format!("write {} to {}", RING_RECORDS.start(), RING_RECORDS.end());
            let problem = format!("a ring of {records} records is not possible");
            return Err(document.complain("audit.ring_records", problem, cure));
        }
        config.rings = RingSizes { audit: records, ..config.rings };
    }
    Ok(Some(config))
}
