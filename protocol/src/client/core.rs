//! The client as its driver sees it: paths, time and datagrams in; datagrams and events out.

use std::collections::VecDeque;
use std::ops::Range;

use super::connect::Connecting;
use super::event::{ClientEvent, ClientStatus, PathRole, PathStatus, Transmit};
use super::live::Live;
use super::meter::Meter;
use super::path::{Path, PathInfo};
use crate::audit::{self, Disclosure, Journal};
use crate::entropy::Entropy;
use crate::handshake::StaticSecret;
use crate::health::{Measurement, Rtt};
use crate::ident::{Locator, PublicKey, TransportId};
use crate::keys::KeyLimits;
use crate::machine::{Evidence, State};
use crate::policy::{Policy, Profile};
use crate::reason::{Reason, ReasonCounters};
use crate::time::{Span, Time};
use crate::wire::RequestedPolicy;

/// Most paths a client handles; enough for eight interfaces towards both address families.
const MAX_PATHS: usize = 16;

/// What a client must know.
pub struct ClientConfig {
    /// The client's long-term secret.
    pub secret: StaticSecret,
    /// The gateway's long-term public key.
    pub gateway: PublicKey,
    /// Pre-shared key, if one is configured.
    pub psk: Option<[u8; 32]>,
    /// Policy values to ask for, narrower than the gateway's (RL-5).
    pub requested_policy: RequestedPolicy,
    /// Above every counter that this key ever sent; kept by the driver over restarts (HS-3).
    pub hello_counter: u64,
    /// A session of this key that the new one replaces (HS-8).
    pub replaces: Option<Locator>,
}

/// Everything that client and phases share.
pub(super) struct Shared {
    pub(super) config: ClientConfig,
    pub(super) entropy: Box<dyn Entropy + Send>,
    pub(super) paths: Vec<Path>,
    pub(super) transmits: VecDeque<Transmit>,
    pub(super) events: VecDeque<ClientEvent>,
    pub(super) journal: Journal,
    pub(super) counters: ReasonCounters,
    pub(super) meter: Meter,
    pub(super) key_limits: KeyLimits,
}

enum Phase {
    Idle,
    Connecting(Box<Connecting>),
    Live(Box<Live>),
}

/// A client: at most one session, over any number of paths.
pub struct Client {
    shared: Shared,
    phase: Phase,
}

impl Client {
    /// A client without paths and without session.
    pub fn new(config: ClientConfig, entropy: Box<dyn Entropy + Send>) -> Self {
        let shared = Shared {
            config,
            entropy,
            paths: Vec::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            journal: Journal::default(),
            counters: ReasonCounters::default(),
            meter: Meter::default(),
            key_limits: KeyLimits::SUITE_1,
        };
        Self { shared, phase: Phase::Idle }
    }

    /// Lower limits for the keys of sessions to come, so that a test can reach them (KY-6). They never rise.
    pub fn lower_key_limits(&mut self, limits: KeyLimits) {
        self.shared.key_limits = self.shared.key_limits.lower_of(limits);
    }

    /// Keeps audit records from now on: [`Client::poll_record`] gives them, and has to be asked.
    pub fn keep_records(&mut self, now: Time) {
        // Until a session brings its own policy there is none, and nothing to record.
        let policy = Policy::profile(Profile::Default);
        let disclosure = Disclosure::new(self.shared.config.secret.as_bytes(), &policy, 0);
        self.shared.journal.keep(disclosure, now);
    }

    /// A path can be used from now on. Of a path that is up already, what was measured is forgotten: it comes with
    /// another address.
    pub fn path_up(&mut self, now: Time, id: TransportId, info: PathInfo) {
        match self.shared.paths.iter_mut().find(|path| path.id == id) {
            Some(path) => {
                path.info = info;
                path.up = true;
                path.forget(now);
            }
            None => {
                if self.shared.paths.len() >= MAX_PATHS || id == TransportId::NONE {
                    return;
                }
                self.shared.paths.push(Path::new(id, info, now));
            }
        }
        match &mut self.phase {
            Phase::Idle => {}
            Phase::Connecting(connecting) => connecting.path_up(&mut self.shared, now),
            Phase::Live(live) => live.path_up(&mut self.shared, now),
        }
        self.settle(now);
    }

    /// A path is gone: interface, address or socket lost. A local fact, so a session on it reacts in the same step
    /// (SM-13 c, TB-02).
    pub fn path_down(&mut self, now: Time, id: TransportId, evidence: Evidence) {
        let Some(path) = self.shared.paths.iter_mut().find(|path| path.id == id && path.up) else {
            return;
        };
        path.up = false;
        path.forget(now);
        match &mut self.phase {
            Phase::Idle => {}
            Phase::Connecting(connecting) => connecting.path_down(&mut self.shared, id, now),
            Phase::Live(live) => live.path_down(&mut self.shared, id, evidence, now),
        }
        self.settle(now);
    }

    /// Starts a handshake, if there is no session and none is under way.
    pub fn connect(&mut self, now: Time) {
        if matches!(self.phase, Phase::Idle) {
            self.phase = Phase::Connecting(Box::new(Connecting::new(&mut self.shared, now)));
            self.settle(now);
        }
    }

    /// Moves the session to that path, or to the best other one, as an operator's wish (T05). The session stays where
    /// it is until the new path is bound.
    ///
    /// # Errors
    /// NO_ACTIVE_BINDING without a session, NO_CANDIDATE_TRANSPORTS if the path is not up, ALREADY_BOUND if it is the
    /// active one.
    pub fn move_to(&mut self, now: Time, target: Option<TransportId>) -> Result<(), Reason> {
        let Phase::Live(live) = &mut self.phase else {
            return Err(Reason::NoActiveBinding);
        };
        live.move_to(&mut self.shared, target, now)?;
        self.settle(now);
        Ok(())
    }

    /// Ends the session and tells the gateway (T19, TM-1).
    pub fn terminate(&mut self, now: Time, reason: Reason) {
        match &mut self.phase {
            Phase::Idle => {}
            Phase::Connecting(_) => self.phase = Phase::Idle,
            Phase::Live(live) => live.terminate(&mut self.shared, reason, now),
        }
        self.settle(now);
    }

    /// One datagram that came in on a path, opened in place. Gives the place of the inner packet, if it holds one.
    ///
    /// # Errors
    /// Why it was dropped; counted.
    pub fn datagram_in(
        &mut self,
        now: Time,
        path: TransportId,
        packet: &mut [u8],
    ) -> Result<Option<Range<usize>>, Reason> {
        let result = match &mut self.phase {
            Phase::Idle => Err(Reason::SessionNotFound),
            Phase::Connecting(connecting) => connecting.datagram_in(&mut self.shared, path, packet, now).map(|live| {
                if let Some(live) = live {
                    self.phase = Phase::Live(Box::new(live));
                }
                None
            }),
            Phase::Live(live) => live.datagram_in(&mut self.shared, path, packet, now),
        };
        if let Err(reason) = result {
            self.shared.counters.count(reason);
            if let Phase::Live(live) = &self.phase {
                live.record_refusal(&mut self.shared, path, packet, reason, now);
            }
        }
        self.settle(now);
        result
    }

    /// One inner packet to the gateway, sealed in place: 20 bytes of room for the header, the packet, 16 bytes of room
    /// for the tag. Gives the path to send it on.
    ///
    /// # Errors
    /// Why it must be dropped; counted.
    pub fn data_out(&mut self, packet: &mut [u8]) -> Result<TransportId, Reason> {
        let result = match &mut self.phase {
            Phase::Live(live) => live.data_out(packet),
            Phase::Idle | Phase::Connecting(_) => Err(Reason::NoActiveBinding),
        };
        if let Err(reason) = result {
            self.shared.counters.count(reason);
        }
        result
    }

    /// Runs every timer that is due.
    pub fn timeout(&mut self, now: Time) {
        // A session has timers enough: recording asks for none of its own (INV-23).
        self.shared.journal.summarise(now);
        match &mut self.phase {
            Phase::Idle => {}
            Phase::Connecting(connecting) => connecting.timeout(&mut self.shared, now),
            Phase::Live(live) => live.timeout(&mut self.shared, now),
        }
        self.settle(now);
    }

    /// When [`Client::timeout`] must run next: always later than `now`, so that whoever asks again at that time runs it first.
    pub fn next_timeout(&self, now: Time) -> Option<Time> {
        let at = match &self.phase {
            Phase::Idle => return None,
            Phase::Connecting(connecting) => connecting.next_timeout(),
            Phase::Live(live) => live.next_timeout(&self.shared, now),
        };
        Some(at)
    }

    /// A datagram to send, if there is one.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.shared.transmits.pop_front()
    }

    /// Something that happened, if anything did.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.shared.events.pop_front()
    }

    /// The next audit record, if there is one.
    pub fn poll_record(&mut self) -> Option<audit::Record> {
        self.shared.journal.poll()
    }

    /// Whether there is a session.
    pub const fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Live(_))
    }

    /// Whether there is neither a session nor a handshake under way.
    pub const fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// Above every hello counter sent so far; to be kept over a restart (HS-3).
    pub const fn hello_counter(&self) -> u64 {
        self.shared.config.hello_counter
    }

    /// Refusals and drops by reason.
    pub const fn counters(&self) -> &ReasonCounters {
        &self.shared.counters
    }

    /// What was counted beside refusals and drops.
    pub const fn meter(&self) -> &Meter {
        &self.shared.meter
    }

    /// The client as the user sees it.
    pub fn status(&self, now: Time) -> ClientStatus {
        let live = match &self.phase {
            Phase::Live(live) => Some(live),
            Phase::Idle | Phase::Connecting(_) => None,
        };
        let active = live.and_then(|live| live.active_path());
        let measurement = live.and_then(|live| live.measurement(&self.shared, now));
        let paths = self.shared.paths.iter().map(|path| path_status(path, active, measurement.as_ref(), now)).collect();
        match live {
            Some(live) => live.status(active, measurement, paths, now),
            None => ClientStatus {
                locator: None,
                state: State::Birth,
                reason: None,
                epoch: 0,
                active: None,
                paths,
                sent: (0, 0),
                received: (0, 0),
                switches: 0,
                age: Span::ZERO,
                measurement: None,
            },
        }
    }

    /// A handshake that failed or a session that ended leaves the client idle.
    fn settle(&mut self, now: Time) {
        let over = match &self.phase {
            Phase::Idle => false,
            Phase::Connecting(connecting) => connecting.is_over(),
            Phase::Live(live) => live.is_over(),
        };
        if over {
            // A successor names the session that it replaces only if the gateway may still hold it (HS-8).
            if let Phase::Live(live) = &self.phase {
                self.shared.config.replaces = live.replaceable();
            }
            if let Phase::Live(live) = std::mem::replace(&mut self.phase, Phase::Idle) {
                let (trail, totals) = live.bury(now);
                self.shared.journal.summarise_all(now);
                trail.end(&totals, now, &mut self.shared.journal);
            }
        }
    }
}

/// Of the active path the loss of DATA counts too, where that is worse than the loss of questions.
fn path_status(path: &Path, active: Option<TransportId>, measurement: Option<&Measurement>, now: Time) -> PathStatus {
    let role = if !path.up {
        PathRole::Down
    } else if active == Some(path.id) {
        PathRole::Active
    } else if path.validated {
        PathRole::Validated
    } else if path.echoes.last_answer().is_some() {
        PathRole::Standby
    } else {
        PathRole::Unknown
    };
    let measured_loss = measurement.filter(|_| active == Some(path.id)).map(|found| found.loss_permille);
    let asked_loss = path.echoes.loss_permille();
    PathStatus {
        id: path.id,
        gateway: path.info.gateway,
        role,
        rtt: path.echoes.rtt().smoothed(),
        jitter: path.echoes.jitter(now),
        loss_permille: measured_loss.map_or(asked_loss, |loss| loss.max(asked_loss)),
        observed: path.observed,
    }
}

impl Shared {
    pub(super) fn path(&self, id: TransportId) -> Option<&Path> {
        self.paths.iter().find(|path| path.id == id)
    }

    pub(super) fn path_mut(&mut self, id: TransportId) -> Option<&mut Path> {
        self.paths.iter_mut().find(|path| path.id == id)
    }

    /// The retransmission timeout of a path (HS-6).
    pub(super) fn rto(&self, path: TransportId) -> Span {
        self.path(path).map_or(Rtt::default().rto(), Path::rto)
    }

    pub(super) fn send(&mut self, path: TransportId, packet: &[u8]) {
        self.transmits.push_back(Transmit { path, packet: packet.to_vec() });
    }
}
