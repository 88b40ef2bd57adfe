//! What is in the steering maps, and what the kernel refused: for those who watch.

use jumpgate_common::maps;

/// The maps that the gateway changes while it runs, or fills at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SteeringMap {
    /// Slot of a session id to its worker.
    Slots,
    /// Client of the pool to its worker.
    Pool,
    /// The gateway's own addresses.
    LocalAddresses,
    /// Sockets of the outside port.
    OutsideSockets,
    /// Sockets of the inside port.
    InsideSockets,
}

impl SteeringMap {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Slots, Self::Pool, Self::LocalAddresses, Self::OutsideSockets, Self::InsideSockets];

    /// The label of metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slots => "slots",
            Self::Pool => "pool",
            Self::LocalAddresses => "local_addresses",
            Self::OutsideSockets => "outside_sockets",
            Self::InsideSockets => "inside_sockets",
        }
    }

    /// Its name in the kernel.
    pub(super) const fn kernel_name(self) -> &'static str {
        match self {
            Self::Slots => maps::SLOTS,
            Self::Pool => maps::POOL,
            Self::LocalAddresses => maps::LOCAL_ADDRESSES,
            Self::OutsideSockets => maps::OUTSIDE_XSKS,
            Self::InsideSockets => maps::INSIDE_XSKS,
        }
    }
}

/// Entries in use and refused changes of each map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapLedger {
    entries: [u64; SteeringMap::ALL.len()],
    errors: [u64; SteeringMap::ALL.len()],
}

impl MapLedger {
    /// Entries that are in use.
    pub const fn entries(&self, map: SteeringMap) -> u64 {
        self.entries[map as usize]
    }

    /// Changes that the kernel refused.
    pub const fn errors(&self, map: SteeringMap) -> u64 {
        self.errors[map as usize]
    }

    /// An entry was changed: whether it was in use before, and is now.
    pub(super) fn changed(&mut self, map: SteeringMap, was: bool, is: bool) {
        let entries = &mut self.entries[map as usize];
        *entries = (*entries + u64::from(is)).saturating_sub(u64::from(was));
    }

    /// A change was refused.
    pub(super) fn refused(&mut self, map: SteeringMap) {
        self.errors[map as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_set_twice_counts_once_and_one_that_is_cleared_no_more() {
        let mut ledger = MapLedger::default();
        for (was, is, entries) in [(false, true, 1), (true, true, 1), (true, false, 0), (false, false, 0)] {
            ledger.changed(SteeringMap::Pool, was, is);
            assert_eq!(ledger.entries(SteeringMap::Pool), entries);
        }
        ledger.refused(SteeringMap::Slots);
        assert_eq!((ledger.errors(SteeringMap::Slots), ledger.errors(SteeringMap::Pool)), (1, 0));
    }
}
