//! The planned restart of the gateway (OW-8): its sessions are handed over to the next run.

use jumpgate_protocol::gateway::{Circumstances, ClientEntry, HandoverError, Part};
use jumpgate_protocol::policy::Policy;
use jumpgate_protocol::time::Span;

use super::boot::boot;
use super::slots::SlotTable;
use super::{World, WorldConfig};
use crate::check::Work;

/// A boot that this world never sees the end of.
const BOOT: [u8; 16] = [1; 16];

impl World {
    /// The gateway hands its sessions over and ends; that much later the next run takes them over. In between the gateway
    /// hears nothing and says nothing.
    pub fn hand_over(&mut self, policy: &Policy, downtime: Span) {
        let sealed = self.freeze();
        self.run_for(downtime);
        let taken = self.thaw(policy, sealed);
        if let Err(error) = taken {
            self.checker.violated(self.now, crate::check::Safety::Other, &format!("K09: {error}"));
        }
    }

    /// The gateway hands its sessions over and ends. Gives what it sealed.
    pub fn freeze(&mut self) -> Vec<u8> {
        self.land_all();
        self.absent_since = Some(self.now);
        let parts: Vec<Part> = self.shards.iter().map(jumpgate_protocol::gateway::Shard::hand_over).collect();
        let circumstances = self.circumstances();
        let sealed = self.desk.hand_over(&circumstances, &parts);
        self.desk.record_hand_over(self.now, true, parts.iter().map(Part::sessions).sum());
        self.flush_desk();
        sealed
    }

    /// The next run of the gateway begins, with what the one before sealed.
    ///
    /// # Errors
    /// Why nothing was taken over: then the new run has no session.
    pub fn thaw(&mut self, policy: &Policy, sealed: Vec<u8>) -> Result<(), HandoverError> {
        let circumstances = self.circumstances();
        let since = self.absent_since.take().unwrap_or(self.now);
        let downtime = self.now.since(since);
        self.boots += 1;
        let config = WorldConfig { seed: self.seed, workers: self.shards.len(), policy: policy.clone() };
        (self.desk, self.shards) = boot(&config, &self.keys, self.boots, self.now, |_| ClientEntry::default());
        self.slots = SlotTable::new(self.shards.len());
        self.checker.also_allow(policy);
        // Limits that fell due meanwhile fire late.
        (0..self.shards.len()).for_each(|worker| self.checker.idle(worker, since, self.now));
        let taken = self.desk.take_over(&circumstances, sealed.into());
        self.flush_desk();
        let heirs = match taken {
            Ok(heirs) => heirs,
            Err(error) => {
                self.amplification = crate::oracle::AmplificationOracle::default();
                self.checker.forget_gateway();
                self.records.forget_gateway();
                return Err(error);
            }
        };
        let outer = self.checker.begin(Work::Timer);
        for heir in heirs {
            let worker = self.worker_of(heir.locator());
            self.checker.handed_over(heir.locator(), worker);
            self.checker.was_away(heir.locator(), downtime);
            self.shards[worker].take_over(self.now, heir);
            self.flush_shard(worker);
        }
        self.checker.begin(outer);
        self.tell_changes();
        Ok(())
    }

    /// The file of a run is used by the next one, and every run writes another one.
    fn circumstances(&self) -> Circumstances {
        let file = 2 * self.boots + u64::from(self.absent_since.is_some());
        Circumstances { boot: BOOT, file: (1, file), now: self.now }
    }
}
