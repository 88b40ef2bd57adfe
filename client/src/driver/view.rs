//! Orders of the control socket: status, move, down.

use std::collections::BTreeMap;

use jumpgate_protocol::client::PathStatus;
use jumpgate_protocol::ident::TransportId;
use jumpgate_protocol::reason::Reason;
use tracing::info;

use super::Driver;
use crate::control::{Order, Request, Response};
use crate::report::{PathReport, PathState, Phase, Status, Traffic};
use crate::uplinks::Uplink;
use crate::{clock, metrics};

/// The word that leaves the choice of the uplink to the policy.
const AUTO: &str = "auto";

impl Driver {
    /// Carries out an order and answers it.
    pub(super) fn obey(&mut self, order: Order) {
        let response = match order.request {
            Request::Status => Response::Status(Box::new(self.status())),
            Request::Metrics => Response::Metrics(metrics::render(&self.status(), self.client.meter())),
            Request::Move { to } => match self.move_to(&to) {
                Ok(()) => Response::Done,
                Err(message) => Response::Error(message),
            },
            Request::Down => {
                info!("told to stop");
                self.phase = Phase::Stopping;
                self.told_to_stop.push(order.answer);
                return;
            }
            Request::Audit => Response::Audit(self.trace.as_ref().map(|trace| Box::new(trace.status()))),
            // The control socket serves these itself.
            Request::Events => Response::Error("events are streamed".to_owned()),
        };
        // Who asked may have gone; then nobody misses the answer.
        let _ = order.answer.send(response);
    }

    fn move_to(&mut self, to: &str) -> Result<(), String> {
        let target = if to == AUTO { None } else { Some(self.path_through(to)?) };
        self.client.move_to(clock::now(), target).map_err(|reason| match reason {
            Reason::NoActiveBinding => "there is no session to move; see `jump status`".to_owned(),
            Reason::AlreadyBound => format!("the session is on {to} already"),
            Reason::NoCandidateTransports => format!("no usable path for {to}; see the table of `jump status`"),
            other => format!("not moved: {other}: {}", other.meaning()),
        })
    }

    /// The best path through an interface: one that is up, of the address family in use if it can be.
    fn path_through(&self, interface: &str) -> Result<TransportId, String> {
        let status = self.client.status(clock::now());
        let active = status.active.and_then(|id| self.uplinks.get(id));
        let known: Vec<&Uplink> = self.uplinks.iter().filter(|uplink| uplink.spec.interface == interface).collect();
        if known.is_empty() {
            let mut names: Vec<&str> = self.uplinks.iter().map(|uplink| uplink.spec.interface.as_str()).collect();
            names.dedup();
            return Err(format!("{interface} is no uplink of this client; it has {}, or say {AUTO}", names.join(", ")));
        }
        let same_endpoint = |uplink: &Uplink| active.is_some_and(|active| active.spec.endpoint == uplink.spec.endpoint);
        let best =
            known.iter().filter(|uplink| uplink.is_up()).min_by_key(|uplink| (!same_endpoint(uplink), uplink.spec.id));
        match best {
            Some(uplink) => Ok(uplink.spec.id),
            None => {
                let cause = known[0].cause.map_or("not open yet", crate::link::Unusable::text);
                Err(format!("{interface} cannot be used: {cause}"))
            }
        }
    }

    /// The present status.
    pub(super) fn status(&self) -> Status {
        let core = self.client.status(clock::now());
        let mut drops: BTreeMap<String, u64> = BTreeMap::new();
        for (reason, count) in self.client.counters().iter().chain(self.data.drops()) {
            *drops.entry(reason.name().to_owned()).or_default() += count;
        }
        let paths = self
            .uplinks
            .iter()
            .map(|uplink| path_report(uplink, core.paths.iter().find(|path| path.id == uplink.spec.id)))
            .collect();
        let traffic = |(packets, bytes)| Traffic { packets, bytes };
        Status {
            phase: self.phase,
            session: core.locator.map(|locator| locator.to_string()),
            state: core.state.to_string(),
            reason: core.reason.map(|reason| reason.name().to_owned()),
            epoch: core.epoch,
            active: core.active.map(|id| id.0),
            active_interface: core.active.map(|id| self.uplinks.interface(id).to_owned()),
            age_ms: core.age.as_millis(),
            interface: self.config.client.interface.clone(),
            addresses: self.session.addresses.clone(),
            mtu: self.session.mtu,
            tx: traffic(core.sent),
            rx: traffic(core.received),
            sessions: self.session.sessions,
            last_error: self.session.last_error.clone(),
            paths,
            switches_total: core.switches,
            switches: self.session.switches.clone(),
            drops,
        }
    }
}

fn path_report(uplink: &Uplink, core: Option<&PathStatus>) -> PathReport {
    let (state, validated) = match core {
        Some(core) if uplink.is_up() => PathState::of(core.role),
        _ => (PathState::Down, false),
    };
    PathReport {
        id: uplink.spec.id.0,
        interface: uplink.spec.interface.clone(),
        priority: uplink.spec.priority,
        state,
        validated,
        cause: uplink.cause.filter(|_| !uplink.is_up()).map(|cause| cause.to_string()),
        local: uplink.local(),
        gateway: uplink.spec.endpoint,
        observed: core.and_then(|core| core.observed),
        rtt_us: core.and_then(|core| core.rtt).map(|rtt| rtt.as_micros()),
        jitter_us: core.filter(|core| core.rtt.is_some()).map(|core| core.jitter.as_micros()),
        loss_permille: core.map_or(0, |core| core.loss_permille),
    }
}
