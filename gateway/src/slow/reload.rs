//! Another policy and another list of clients in a running gateway (RL-2, RL-3): read whole, checked whole, and then in
//! force at once, or not at all.

use std::sync::Arc;

use jumpgate_protocol::reason::Reason;

use super::SlowPath;
use crate::admin::Answer;
use crate::clock;
use crate::config::Config;
use crate::handover::Command;
use crate::run::resets_share;
use crate::sys::give_back_heap;

/// Sessions that hear of another policy in one turn: half of what a worker's queue holds, so that the messages of clients
/// find room between them.
const SESSIONS_PER_TURN: usize = 512;

impl SlowPath {
    /// Reads the configuration file again. Whatever is wrong with it, sessions that run keep their policy.
    pub(super) fn reload(&mut self) -> Answer {
        let config = match Config::read(&self.parts.config.file) {
            Ok(config) => config,
            Err(error) => {
                self.parts.desk.suspend(clock::now());
                self.counters.count(Reason::PolicyInvalid);
                let (problem, cure) = (error.place_and_problem(), error.cure);
                tracing::error!(
                    reason = Reason::PolicyInvalid.name(),
                    problem,
                    cure,
                    "not reloaded: sessions that run keep their policy, new ones are refused until a valid file is loaded"
                );
                let problem = format!("{problem}\n  running sessions keep their policy; new ones are refused");
                return Answer::Refused { problem, cure: format!("{cure}; then reload again") };
            }
        };
        let fixed = self.parts.config.fixed_differences(&config);
        if !fixed.is_empty() {
            let problem = format!("{} cannot change while the gateway runs; nothing was reloaded", fixed.join(", "));
            let cure = "change it back and reload again, or restart the gateway".to_owned();
            tracing::error!(problem, cure, "not reloaded");
            return Answer::Refused { problem, cure };
        }
        self.put_in_force(config)
    }

    fn put_in_force(&mut self, config: Config) -> Answer {
        let parts = &mut self.parts;
        let policy = Arc::new(config.policy.clone());
        let clients = config.clients.iter().map(|client| (client.public_key, client.entry())).collect();
        parts.desk.reload(clock::now(), Arc::clone(&policy), clients);
        parts.filter.set_limits(&policy.limits);
        parts.roster.reload(&config.clients, policy.observability.record_outer_addresses);
        let resets = resets_share(&policy, self.owners.count());
        self.owners.tell_all(|| Command::Resets(resets));
        if self.parts.records.are_kept() {
            let disclosure = self.parts.desk.disclosure();
            self.owners.tell_all(|| Command::Disclose(Box::new(disclosure.clone())));
        }
        self.counters.count(Reason::PolicyChanged);
        let sessions = self.parts.roster.count();
        tracing::info!(
            reason = Reason::PolicyChanged.name(),
            profile = %policy.profile,
            version = %policy.version,
            apply_mode = %policy.apply_mode,
            clients = config.clients.len(),
            sessions,
            "reloaded"
        );
        let answer = Answer::Reloaded {
            policy: format!("{} {}, {}", policy.profile, policy.version, policy.apply_mode),
            clients: config.clients.len(),
            sessions,
        };
        self.parts.config = Config { clients: Vec::new(), ..config };
        give_back_heap();
        answer
    }

    /// Tells the owners of some more sessions what the last reload means for them. True if there are still more.
    pub(super) fn tell_changes(&mut self) -> bool {
        for _ in 0..SESSIONS_PER_TURN {
            if self.owners.has_backlog() {
                break;
            }
            let Some((locator, change)) = self.parts.desk.poll_change() else { return false };
            self.owners.tell_owner(locator.slot(), Command::Policy { locator, change });
        }
        self.parts.desk.has_changes()
    }
}
