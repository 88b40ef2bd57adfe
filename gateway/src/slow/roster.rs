//! Who is here: names for logs and tables, and the inner address that each session holds in the steering.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;

use jumpgate_protocol::gateway::{Birth, EventKind, Heir, SessionEvent, SessionView};
use jumpgate_protocol::ident::{Locator, PublicKey};
use jumpgate_protocol::machine::{State, Transition, TransitionId};
use jumpgate_protocol::reason::Reason;

use crate::admin::SessionRow;
use crate::config::Client;

/// A change of the inside steering: packets to the client with that index go to that worker, or to nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steer {
    /// Index in the address pool.
    pub index: u32,
    /// The owner of its session.
    pub worker: Option<usize>,
}

/// The sessions that the slow path knows.
pub struct Roster {
    names: HashMap<PublicKey, String>,
    sessions: HashMap<Locator, Entry>,
    /// Which session an inner address is steered to. A session that replaces another has the same address (HS-8).
    holders: HashMap<u32, Locator>,
    addresses: Addresses,
}

struct Entry {
    inner_index: u32,
}

/// How outer addresses stand in records (PP87).
enum Addresses {
    Plain,
    /// A keyed hash: the same address is recognised while this process runs, and means nothing afterwards.
    Hashed(RandomState),
}

impl Roster {
    /// A roster of these clients; `plain_addresses` as PP87 says.
    pub fn new(clients: &[Client], plain_addresses: bool) -> Self {
        Self {
            names: clients.iter().map(|client| (client.public_key, client.name.clone())).collect(),
            sessions: HashMap::new(),
            holders: HashMap::new(),
            addresses: if plain_addresses { Addresses::Plain } else { Addresses::Hashed(RandomState::new()) },
        }
    }

    /// The key of the client of that name.
    pub fn key_of(&self, name: &str) -> Option<PublicKey> {
        self.names.iter().find(|(_, known)| *known == name).map(|(key, _)| *key)
    }

    /// Other clients, and another word on addresses. The name of one that is gone stays until the next start: its sessions
    /// still have to end in the log.
    pub fn reload(&mut self, clients: &[Client], plain_addresses: bool) {
        self.names.extend(clients.iter().map(|client| (client.public_key, client.name.clone())));
        self.addresses = match (plain_addresses, std::mem::replace(&mut self.addresses, Addresses::Plain)) {
            (true, _) => Addresses::Plain,
            (false, hashed @ Addresses::Hashed(_)) => hashed,
            (false, Addresses::Plain) => Addresses::Hashed(RandomState::new()),
        };
    }

    /// How many sessions there are, half-open ones included.
    pub fn count(&self) -> usize {
        self.sessions.len()
    }

    /// Whether the session is known.
    pub fn knows(&self, locator: Locator) -> bool {
        self.sessions.contains_key(&locator)
    }

    /// Notes a session that is given to a worker.
    pub fn birth(&mut self, birth: &Birth) {
        self.sessions.insert(birth.locator, Entry { inner_index: birth.inner_index });
    }

    /// What it means for the steering that a session is that worker's now (SL-4).
    pub fn handed_over(&self, session: Locator, worker: usize) -> Option<Steer> {
        let index = self.sessions.get(&session)?.inner_index;
        let holds = self.holders.get(&index) == Some(&session);
        holds.then_some(Steer { index, worker: Some(worker) })
    }

    /// The names of all sessions.
    pub fn locators(&self) -> impl Iterator<Item = Locator> + '_ {
        self.sessions.keys().copied()
    }

    /// Notes a session that came from the run before.
    pub fn take_over(&mut self, heir: &Heir) {
        self.sessions.insert(heir.locator(), Entry { inner_index: heir.inner_index() });
    }

    /// Follows the life of a session of that worker, writes it to the log and says what it means for the steering.
    pub fn follow(&mut self, event: &SessionEvent, worker: usize) -> Option<Steer> {
        self.log(event);
        let transition = match &event.kind {
            EventKind::Transition(transition) => transition,
            EventKind::BirthRefused { .. } => {
                self.sessions.remove(&event.locator);
                return None;
            }
            EventKind::TakenOver { holds_address: true, .. } => return self.hold_address(event.locator, worker),
            _ => return None,
        };
        if transition.id == TransitionId::T01 {
            return self.hold_address(event.locator, worker);
        }
        if transition.to != State::Terminated {
            return None;
        }
        let entry = self.sessions.remove(&event.locator)?;
        let holds = self.holders.get(&entry.inner_index) == Some(&event.locator);
        holds.then(|| {
            self.holders.remove(&entry.inner_index);
            Steer { index: entry.inner_index, worker: None }
        })
    }

    fn hold_address(&mut self, session: Locator, worker: usize) -> Option<Steer> {
        let entry = self.sessions.get(&session)?;
        self.holders.insert(entry.inner_index, session);
        Some(Steer { index: entry.inner_index, worker: Some(worker) })
    }

    /// A session for an operator's table.
    pub fn row(&self, view: &SessionView, worker: usize) -> SessionRow {
        SessionRow {
            locator: view.locator.to_string(),
            session_id: view.identity.0.iter().map(|byte| format!("{byte:02x}")).collect(),
            client: self.name(&view.client).to_owned(),
            state: view.state.to_string(),
            reason: view.reason.map(|reason| reason.name().to_owned()),
            epoch: view.epoch,
            version: view.version,
            peer: view.tuple.map(|tuple| tuple.peer),
            local: view.tuple.map(|tuple| tuple.local),
            transport_id: view.transport.map(|id| id.0),
            validated: view.validated,
            worker: worker as u16,
            queue: view.queue,
            inner_v4: view.inner_v4,
            inner_v6: view.inner_v6,
            rx_packets: view.received.0,
            rx_bytes: view.received.1,
            tx_packets: view.sent.0,
            tx_bytes: view.sent.1,
            loss_permille: view.measurement.loss_permille,
            switches: view.switches,
            age_ms: view.age.as_millis(),
        }
    }

    fn name(&self, client: &PublicKey) -> &str {
        self.names.get(client).map_or("(unknown)", String::as_str)
    }

    fn log(&self, event: &SessionEvent) {
        let (session, client) = (event.locator, self.name(&event.client));
        match &event.kind {
            EventKind::Created => tracing::debug!(%session, client, "created"),
            EventKind::TakenOver { state, version, .. } => {
                tracing::debug!(%session, client, %state, version, "goes on from the run before");
            }
            EventKind::Transition(transition) => self.log_transition(session, client, transition),
            EventKind::Validated { epoch } => tracing::debug!(%session, client, epoch, "path validated"),
            EventKind::RecoveryComplete { epoch } => tracing::debug!(%session, client, epoch, "recovery complete"),
            EventKind::Rekeyed { key_epoch, trigger } => {
                tracing::info!(%session, client, key_epoch, %trigger, "rekeyed")
            }
            EventKind::Refused { message, reason, tuple } => {
                let peer = self.address(tuple.peer);
                tracing::info!(%session, client, message = message.name(), %reason, peer, "refused");
            }
            EventKind::PolicyChanged { sequence, policy, in_force } => {
                let (reason, version) = (Reason::PolicyChanged, policy.version);
                tracing::info!(%session, client, %reason, sequence, %version, in_force, "policy");
            }
            EventKind::PolicyAcknowledged { sequence } => {
                tracing::debug!(%session, client, sequence, "the client has the policy");
            }
            EventKind::MoveRefused { reason } => tracing::info!(%session, client, %reason, "not asked to move"),
            EventKind::CompromiseSuspected { evidence } => {
                let reason = Reason::KeyCompromiseSuspected;
                tracing::warn!(%session, client, %reason, ?evidence, "the key of this client may be in other hands");
            }
            EventKind::KeysUsedUp { key_epoch } => {
                let reason = Reason::CounterLimitReached;
                tracing::warn!(%session, client, %reason, key_epoch, "the keys have sealed all that they may");
            }
            EventKind::BirthRefused { reason } => {
                // A defect of ours, and the client finds out by its handshake's timeout.
                tracing::error!(%session, client, %reason, "a worker did not take a session");
            }
        }
    }

    fn log_transition(&self, session: Locator, client: &str, transition: &Transition) {
        let Transition { id, from, to, reason, epoch, .. } = transition;
        let detail = transition.detail.map(Reason::name);
        let peer = transition.active.map(|binding| self.address(binding.tuple.peer));
        if *reason == Reason::InvariantViolation {
            // A defect of ours: somebody should get up for it.
            tracing::error!(%session, client, ?id, %from, %to, %reason, detail, epoch, peer, "transition");
        } else if *id == TransitionId::T01 || *to == State::Terminated {
            // Jumps are not among these: when an uplink fails they come by the thousand, each line would cost a system
            // call, and the audit trail has them all.
            tracing::info!(%session, client, ?id, %from, %to, %reason, detail, epoch, peer, "transition");
        } else {
            tracing::debug!(%session, client, ?id, %from, %to, %reason, detail, epoch, peer, "transition");
        }
    }

    fn address(&self, address: SocketAddr) -> String {
        match &self.addresses {
            Addresses::Plain => address.to_string(),
            Addresses::Hashed(key) => format!("#{:016x}", key.hash_one(address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use jumpgate_protocol::ident::Slot;
    use jumpgate_protocol::time::Time;

    use super::*;

    const CLIENT: PublicKey = PublicKey([5; 32]);

    fn roster() -> Roster {
        let client = Client::new("alice", CLIENT);
        Roster::new(&[client], false)
    }

    fn locator(number: u64) -> Locator {
        Locator::new(Slot::new(1).expect("slot"), number)
    }

    fn transition(session: Locator, id: TransitionId, from: State, to: State) -> SessionEvent {
        let transition = Transition {
            id,
            from,
            to,
            reason: Reason::HandshakeOk,
            detail: None,
            evidence: None,
            version: 1,
            epoch: 1,
            at: Time::ZERO,
            retired: None,
            active: None,
        };
        SessionEvent { locator: session, client: CLIENT, account: None, kind: EventKind::Transition(transition) }
    }

    fn born(roster: &mut Roster, session: Locator, inner_index: u32) {
        roster.sessions.insert(session, Entry { inner_index });
    }

    fn confirmed(session: Locator) -> SessionEvent {
        transition(session, TransitionId::T01, State::Birth, State::Attached)
    }

    fn ended(session: Locator) -> SessionEvent {
        transition(session, TransitionId::T24, State::Attached, State::Terminated)
    }

    #[test]
    fn an_inner_address_is_steered_from_confirmation_to_the_end() {
        let mut roster = roster();
        born(&mut roster, locator(1), 7);
        assert!(roster.knows(locator(1)));
        assert_eq!(roster.follow(&confirmed(locator(1)), 1), Some(Steer { index: 7, worker: Some(1) }));
        assert_eq!(roster.follow(&ended(locator(1)), 1), Some(Steer { index: 7, worker: None }));
        assert_eq!(roster.count(), 0);
    }

    #[test]
    fn a_session_that_never_was_confirmed_steers_nothing() {
        let mut roster = roster();
        born(&mut roster, locator(1), 7);
        let over = transition(locator(1), TransitionId::T02, State::Birth, State::Terminated);
        assert_eq!(roster.follow(&over, 1), None);
        assert_eq!(roster.count(), 0);
    }

    #[test]
    fn hs8_the_end_of_a_replaced_session_leaves_the_address_to_its_successor() {
        let mut roster = roster();
        born(&mut roster, locator(1), 7);
        roster.follow(&confirmed(locator(1)), 0);
        born(&mut roster, locator(2), 7);
        assert_eq!(roster.follow(&confirmed(locator(2)), 1), Some(Steer { index: 7, worker: Some(1) }));
        assert_eq!(roster.follow(&ended(locator(1)), 0), None);
        assert_eq!(roster.follow(&ended(locator(2)), 1), Some(Steer { index: 7, worker: None }));
    }

    #[test]
    fn sl4_the_address_of_a_session_follows_it_to_another_worker_if_it_holds_it() {
        let mut roster = roster();
        born(&mut roster, locator(1), 7);
        assert_eq!(roster.handed_over(locator(1), 1), None, "in BIRTH it has no address yet");
        roster.follow(&confirmed(locator(1)), 0);
        assert_eq!(roster.handed_over(locator(1), 1), Some(Steer { index: 7, worker: Some(1) }));
        born(&mut roster, locator(2), 7);
        roster.follow(&confirmed(locator(2)), 0);
        assert_eq!(roster.handed_over(locator(1), 1), None, "HS-8: its successor has the address");
        roster.follow(&ended(locator(2)), 0);
        assert_eq!(roster.handed_over(locator(2), 1), None, "it ended on the way");
    }

    #[test]
    fn pp87_outer_addresses_stand_in_records_as_keyed_hashes_unless_allowed() {
        let address: SocketAddr = "198.51.100.7:4000".parse().expect("address");
        let hashed = roster();
        assert!(!hashed.address(address).contains("198"));
        assert_eq!(hashed.address(address), hashed.address(address));
        assert_ne!(hashed.address(address), roster().address(address), "the key is another in every run");
        assert_eq!(Roster::new(&[], true).address(address), "198.51.100.7:4000");
    }
}
