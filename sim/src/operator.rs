//! What an operator does at the virtual gateway: another policy, moves, flagged keys.

use std::sync::Arc;

use jumpgate_protocol::gateway::{ClientEntry, PolicyChange};
use jumpgate_protocol::ident::Locator;
use jumpgate_protocol::keys::KeyLimits;
use jumpgate_protocol::machine::TransitionId;
use jumpgate_protocol::policy::Policy;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::wire::RequestedPolicy;

use crate::check::Work;
use crate::world::World;

impl World {
    /// A valid policy is loaded, with that entry for each client; none: the client is not in the list any more.
    pub fn reload(&mut self, policy: &Policy, entry: impl Fn(usize) -> Option<ClientEntry>) {
        let known = self.public_keys().into_iter().enumerate();
        let clients = known.filter_map(|(index, key)| Some((key, entry(index)?))).collect();
        self.desk.reload(self.now, Arc::new(policy.clone()), clients);
        self.checker.also_allow(policy);
        self.tell_changes();
    }

    /// Every session hears of the policy that is in force now.
    pub(crate) fn tell_changes(&mut self) {
        while let Some((locator, change)) = self.desk.poll_change() {
            self.order(locator, change);
        }
    }

    /// An invalid policy was to be loaded (RL-2).
    pub fn fail_reload(&mut self) {
        self.desk.suspend(self.now);
    }

    /// The operator of the gateway wants a session to move (T05).
    pub fn force_move(&mut self, locator: Locator, same_path_ok: bool) -> bool {
        let worker = self.worker_for_order(locator);
        let outer = self.checker.begin(Work::Operator);
        let known = self.shards[worker].force_move(self.now, locator, same_path_ok);
        self.flush_shard(worker);
        self.checker.begin(outer);
        known
    }

    /// The operator flags the key of a client (KY-10).
    pub fn flag_compromised(&mut self, client: usize) {
        let key = self.public_keys()[client];
        for locator in self.desk.flag_compromised(key) {
            self.order(locator, PolicyChange::Compromised);
        }
    }

    /// The operator of a client ends its session (T19).
    pub fn hang_up(&mut self, client: usize) {
        let now = self.local(client);
        self.clients[client].client.terminate(now, Reason::OperatorTerminated);
        self.flush_client(client);
    }

    /// Sessions that another client than their own named as the one to replace (HS-8), in their order.
    pub fn fixations(&self) -> &[Locator] {
        &self.fixations
    }

    /// Lower limits for the keys of sessions to come, at both ends (KY-6).
    pub fn lower_key_limits(&mut self, limits: KeyLimits) {
        self.shards.iter_mut().for_each(|shard| shard.lower_key_limits(limits));
        self.clients.iter_mut().for_each(|entry| entry.client.lower_key_limits(limits));
    }

    /// A client starts anew with another wish, and without the session that it had; the gateway is not told.
    pub fn replace_client(&mut self, client: usize, requested: RequestedPolicy, replaces: Option<Locator>) {
        let hello_counter = self.clients[client].client.hello_counter();
        let paths: Vec<u16> = self.clients[client].links.keys().copied().collect();
        self.clients[client].client = self.new_client(client, requested, hello_counter, replaces);
        self.checker.forget_mirror(client);
        paths.into_iter().for_each(|path| self.link_up(client, path));
    }

    /// How sessions ended at the gateway: which, by which transition, why.
    pub fn ends(&self) -> &[(Locator, TransitionId, Reason)] {
        &self.ended
    }

    /// Every POLICY_UPDATE that the gateway sent, also what the network swallowed.
    pub fn policy_updates(&self) -> &[Vec<u8>] {
        &self.updates
    }

    fn order(&mut self, locator: Locator, change: PolicyChange) {
        let worker = self.worker_for_order(locator);
        let outer = self.checker.begin(Work::Operator);
        self.shards[worker].change_policy(self.now, locator, change);
        self.flush_shard(worker);
        self.checker.begin(outer);
    }
}
