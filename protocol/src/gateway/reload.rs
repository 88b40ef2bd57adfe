//! The desk under another policy or another list of clients (RL-2, RL-3), and keys that are flagged as compromised (KY-10).

use std::sync::Arc;

use hashbrown::HashMap;

use super::desk::{ClientEntry, HandshakeDesk};
use super::push::PolicyChange;
use crate::audit::PolicyAction;
use crate::ident::{Locator, PublicKey};
use crate::policy::Policy;
use crate::time::Time;

impl HandshakeDesk {
    /// Puts a valid policy and a list of clients in force, at once for limits and new sessions (RL-3, RL-6). What it means
    /// for each running session comes from [`HandshakeDesk::poll_change`].
    pub fn reload(&mut self, now: Time, policy: Arc<Policy>, clients: HashMap<PublicKey, ClientEntry>) {
        self.record_policy(now, PolicyAction::Changed, &policy);
        let limits = &policy.limits;
        self.sources.set_limits(limits.handshakes_per_source, limits.source_table_entries as usize);
        self.cookies.set_rotation(limits.cookie_rotate);
        self.places.set_fixed(clients.values().filter_map(|entry| entry.inner_index));
        self.known.retain(|client, known| clients.contains_key(client) || known.has_sessions());
        self.compromised.retain(|client| clients.contains_key(client));
        self.config.policy = policy;
        self.config.clients = clients;
        self.suspended = false;
        // In the order of their names, so that equal runs stay equal.
        let mut locators: Vec<Locator> = self.entries.keys().copied().collect();
        locators.sort_unstable();
        self.changes = locators.into();
    }

    /// A policy that was to be loaded is invalid: until a valid one is, no session is made (RL-2, POLICY_INVALID). Those
    /// that run keep theirs.
    pub fn suspend(&mut self, now: Time) {
        let in_force = Arc::clone(&self.config.policy);
        self.record_policy(now, PolicyAction::Refused, &in_force);
        self.suspended = true;
    }

    /// Whether new sessions are refused because the policy last loaded was invalid.
    pub const fn is_suspended(&self) -> bool {
        self.suspended
    }

    /// The next session that is to hear of the last [`HandshakeDesk::reload`]. The driver takes as many at a time as it can
    /// hand on.
    pub fn poll_change(&mut self) -> Option<(Locator, PolicyChange)> {
        loop {
            let locator = self.changes.pop_front()?;
            // It may have ended meanwhile.
            if let Some(entry) = self.entries.get(&locator) {
                return Some((locator, self.change_for(&entry.client, &entry.requested)));
            }
        }
    }

    /// Whether sessions still are to hear of the last reload.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Flags the key of a client as compromised: no handshake under it succeeds any more. Gives its sessions, each of which
    /// ends by [`PolicyChange::Compromised`] (T20). The flag goes with the process, or when the client is taken out of the
    /// list.
    pub fn flag_compromised(&mut self, client: PublicKey) -> Vec<Locator> {
        self.compromised.insert(client);
        let mut sessions: Vec<Locator> =
            self.entries.iter().filter(|(_, entry)| entry.client == client).map(|(locator, _)| *locator).collect();
        sessions.sort_unstable();
        sessions
    }

    /// Whether a client of that key is configured.
    pub fn is_configured(&self, client: &PublicKey) -> bool {
        self.config.clients.contains_key(client)
    }

    /// Whether nobody may go on under that key.
    pub(super) fn is_compromised(&self, client: &PublicKey, entry: &ClientEntry) -> bool {
        entry.compromised || self.compromised.contains(client)
    }

    /// What the policy in force means for a session of that client which asked for these values.
    fn change_for(&self, client: &PublicKey, requested: &[(u16, u64)]) -> PolicyChange {
        let Some(entry) = self.config.clients.get(client) else {
            return PolicyChange::Withdraw;
        };
        if self.is_compromised(client, entry) {
            return PolicyChange::Compromised;
        }
        let base = entry.policy.as_ref().unwrap_or(&self.config.policy);
        if base.security.require_psk && entry.psk.is_none() {
            return PolicyChange::Withdraw;
        }
        let policy =
            if requested.is_empty() { Ok(Arc::clone(base)) } else { base.narrowed_again(requested).map(Arc::new) };
        match policy {
            Ok(policy) => PolicyChange::Apply { policy, sources: entry.sources.clone() },
            // Its terms can be kept no longer, and no others were agreed on; a new handshake is told POLICY_DENIED (RL-5).
            Err(_) => PolicyChange::Withdraw,
        }
    }
}
