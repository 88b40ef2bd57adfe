//! How many security records were written, and how many were left out, by type (OB-05).

use super::EventType;

/// The types of class S.
const TYPES: [EventType; 5] = [
    EventType::SecurityReplayDetected,
    EventType::SecurityValidationFailed,
    EventType::SecurityOwnershipAnomaly,
    EventType::SecurityAbuse,
    EventType::RateLimitEvent,
];

/// One pair of counters a type. Without an audit trace nothing is written, and nothing is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecurityCounts {
    written: [u64; TYPES.len()],
    suppressed: [u64; TYPES.len()],
}

impl SecurityCounts {
    /// Type, records written, records left out.
    pub fn iter(&self) -> impl Iterator<Item = (EventType, u64, u64)> {
        TYPES
            .into_iter()
            .zip(self.written.into_iter().zip(self.suppressed))
            .map(|(kind, (written, suppressed))| (kind, written, suppressed))
    }

    /// Counts all that another has counted.
    pub fn add(&mut self, other: &Self) {
        self.written.iter_mut().zip(other.written).for_each(|(sum, more)| *sum += more);
        self.suppressed.iter_mut().zip(other.suppressed).for_each(|(sum, more)| *sum += more);
    }

    /// A record was made; one of another class is not counted.
    pub(super) fn wrote(&mut self, kind: EventType) {
        if let Some(index) = index(kind) {
            self.written[index] += 1;
        }
    }

    /// A record was left out.
    pub(super) fn suppressed(&mut self, kind: EventType) {
        if let Some(index) = index(kind) {
            self.suppressed[index] += 1;
        }
    }
}

fn index(kind: EventType) -> Option<usize> {
    TYPES.iter().position(|of_security| *of_security == kind)
}

#[cfg(test)]
mod tests {
    use super::super::Class;
    use super::super::event::CORE_ROWS;
    use super::*;

    #[test]
    fn ob02_every_type_of_class_s_is_counted_and_no_other() {
        let security: Vec<_> =
            CORE_ROWS.iter().filter(|row| row.class == Class::Security).map(|row| row.name).collect();
        assert_eq!(TYPES.map(EventType::name).to_vec(), security);
        let mut counts = SecurityCounts::default();
        counts.wrote(EventType::SessionStateChange);
        counts.wrote(EventType::SecurityAbuse);
        counts.suppressed(EventType::RateLimitEvent);
        let counted: Vec<_> = counts.iter().filter(|(_, written, suppressed)| written + suppressed > 0).collect();
        assert_eq!(counted, [(EventType::SecurityAbuse, 1, 0), (EventType::RateLimitEvent, 0, 1)]);
    }
}
