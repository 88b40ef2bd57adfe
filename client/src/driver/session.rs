//! What follows from the core's events: addresses and routes of the tunnel, the log of switches, the next handshake.

use std::collections::VecDeque;

use ipnet::IpNet;
use jumpgate_protocol::client::ClientEvent;
use jumpgate_protocol::ident::TransportId;
use jumpgate_protocol::machine::State;
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use tracing::{error, info, warn};

use super::data::INNER_MAX;
use super::{Driver, DriverError};
use crate::clock;
use crate::report::{self, Event, Phase, SWITCH_LOG, SwitchReport};

/// First pause before another handshake: a gateway that was restarted is back in about that time.
const FIRST_RETRY: Span = Span::from_millis(100);
/// Longest pause. A gateway that comes back after an hour finds its clients within half a minute.
const LONGEST_RETRY: Span = Span::from_millis(30_000);
/// Smallest MTU that IPv4 demands of a host (RFC 791); nothing below is offered to the machine.
const SMALLEST_MTU: u16 = 576;

/// When the next handshake may begin.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    due: Option<Time>,
}

impl Backoff {
    /// When a handshake is due; none if it may begin at once.
    pub(super) fn due(&self) -> Option<Time> {
        self.due
    }

    fn is_over(&self, now: Time) -> bool {
        self.due.is_none_or(|due| now >= due)
    }

    /// A handshake failed or a session ended. Gives the pause until the next handshake.
    fn failed(&mut self, now: Time) -> Span {
        let pause = FIRST_RETRY.times(1 << self.failures.min(16)).min(LONGEST_RETRY);
        self.failures += 1;
        self.due = Some(now + pause);
        pause
    }

    fn succeeded(&mut self) {
        *self = Self::default();
    }
}

/// What is known of the present and former sessions beyond the core's own status.
#[derive(Debug, Default)]
pub(super) struct SessionLog {
    /// Addresses that the tunnel's interface has.
    pub(super) addresses: Vec<IpNet>,
    /// MTU that it has.
    pub(super) mtu: Option<u16>,
    /// MTU that the gateway offered.
    offered_mtu: Option<u16>,
    pub(super) routed: bool,
    pub(super) sessions: u64,
    pub(super) last_error: Option<String>,
    pub(super) switches: VecDeque<SwitchReport>,
    /// Why the session left ATTACHED last.
    trouble: Option<Reason>,
    /// The path that carried the session last, also after it died.
    carrier: Option<TransportId>,
}

impl Driver {
    /// Acts on an event of the core.
    pub(super) async fn follow(&mut self, event: ClientEvent) -> Result<(), DriverError> {
        self.log_event(&event);
        match event {
            ClientEvent::Connected { inner_v4, inner_v6, mtu, .. } => {
                let v4 = inner_v4.and_then(|(ip, length)| IpNet::new(ip.into(), length).ok());
                let v6 = inner_v6.and_then(|(ip, length)| IpNet::new(ip.into(), length).ok());
                self.session.offered_mtu = Some(mtu);
                self.session.sessions += 1;
                self.backoff.succeeded();
                self.phase = Phase::Connected;
                self.configure_tunnel(v4.into_iter().chain(v6).collect()).await?;
            }
            ClientEvent::ConnectFailed { reason } => self.retry_later(format!("{reason}: {}", cure(reason))),
            ClientEvent::Terminated { reason, detail } => {
                let why =
                    detail.map_or(reason.meaning().to_owned(), |detail| format!("{detail}, {}", detail.meaning()));
                self.retry_later(format!("session ended: {reason}: {why}; a new session follows"));
            }
            ClientEvent::Transition { transition, .. } => {
                if transition.from == State::Attached {
                    self.session.trouble = Some(transition.reason);
                }
            }
            ClientEvent::Switched { .. }
            | ClientEvent::Rekeyed { .. }
            | ClientEvent::PolicyChanged { .. }
            | ClientEvent::Refused { .. } => {}
        }
        Ok(())
    }

    fn retry_later(&mut self, why: String) {
        let pause = self.backoff.failed(clock::now());
        error!(retry_in_ms = pause.as_millis(), "{why}");
        self.session.last_error = Some(why);
        self.phase = Phase::Waiting;
        self.publish(Event::Retry { delay_ms: pause.as_millis() });
    }

    /// Begins a handshake if there is no session, a path to try, and the pause is over.
    pub(super) fn connect_if_due(&mut self) {
        let now = clock::now();
        if self.phase == Phase::Stopping || !self.client.is_idle() {
            return;
        }
        if !self.any_path_up() {
            if self.phase != Phase::NoUplink {
                let causes: Vec<String> = self.uplinks.iter().map(ToString::to_string).collect();
                warn!("no uplink is usable, waiting for one: {}", causes.join("; "));
                self.phase = Phase::NoUplink;
            }
        } else if self.backoff.is_over(now) {
            self.phase = Phase::Connecting;
            self.client.connect(now);
        }
    }

    /// Gives the tunnel's interface what the session brought. Everything happens once; a further session only changes
    /// what differs.
    async fn configure_tunnel(&mut self, addresses: Vec<IpNet>) -> Result<(), DriverError> {
        let index = self.data.tun_index();
        self.follow_mtu().await?;
        for former in self.session.addresses.iter().filter(|former| !addresses.contains(former)) {
            self.routes.remove_address(index, *former).await;
        }
        for address in &addresses {
            self.routes.add_address(index, *address).await?;
        }
        self.session.addresses = addresses;
        if !self.session.routed {
            for network in &self.config.client.routes {
                let mut own = self.session.addresses.iter();
                if own.clone().any(|address| address.trunc() == *network) {
                    // The kernel has made this route with the address.
                } else if own.any(|address| address.addr().is_ipv4() == network.addr().is_ipv4()) {
                    self.routes.add_tunnel_route(index, *network).await?;
                } else {
                    warn!(%network, "not routed into the tunnel: the gateway gave no address of this family");
                }
            }
            self.session.routed = true;
        }
        Ok(())
    }

    /// Sets the tunnel's MTU to the smallest of what the gateway offers, the configuration allows and the uplinks carry.
    pub(super) async fn follow_mtu(&mut self) -> Result<(), DriverError> {
        let Some(offered) = self.session.offered_mtu else { return Ok(()) };
        let bounds = [self.config.client.mtu, self.uplinks.inner_mtu(), u16::try_from(INNER_MAX).ok()];
        let mtu = bounds.into_iter().flatten().fold(offered, u16::min).max(SMALLEST_MTU);
        if self.session.mtu != Some(mtu) {
            self.routes.enable_tunnel(self.data.tun_index(), mtu).await?;
            self.session.mtu = Some(mtu);
        }
        Ok(())
    }

    /// Tells the log and the listeners what happened, and keeps the record of switches.
    pub(super) fn log_event(&mut self, event: &ClientEvent) {
        let line = match event {
            ClientEvent::Connected { locator, inner_v4, inner_v6, mtu } => {
                let v4 = inner_v4.map(|(ip, length)| format!("{ip}/{length}"));
                let v6 = inner_v6.map(|(ip, length)| format!("{ip}/{length}"));
                let addresses: Vec<IpNet> = v4.into_iter().chain(v6).filter_map(|text| text.parse().ok()).collect();
                let path = self.client.status(clock::now()).active;
                self.session.carrier = path;
                let interface = path.map(|path| self.uplinks.interface(path).to_owned());
                info!(session = %locator, ?addresses, mtu, via = interface.as_deref(), "connected");
                Event::Connected {
                    session: locator.to_string(),
                    addresses,
                    mtu: *mtu,
                    path: path.map(|path| path.0),
                    interface,
                }
            }
            ClientEvent::ConnectFailed { reason } => Event::ConnectFailed { reason: report::name(*reason) },
            ClientEvent::Transition { transition, path } => {
                info!(
                    id = %transition.id,
                    reason = %transition.reason,
                    epoch = transition.epoch,
                    "{} -> {}",
                    transition.from,
                    transition.to
                );
                let interface = path.map(|path| self.uplinks.interface(path).to_owned());
                Event::transition(transition, *path, interface)
            }
            ClientEvent::Switched { from, to, epoch, detail, detected_after, switched_after } => {
                let carrier = self.session.carrier.replace(*to);
                let before = from.or(carrier);
                let switch = self.switch_report(before, *to, *epoch, *detail, *detected_after, *switched_after);
                info!(
                    from = switch.from_interface.as_deref().unwrap_or("none"),
                    to = %switch.to_interface,
                    epoch,
                    reason = switch.reason.as_deref(),
                    switch_ms = switched_after.as_millis(),
                    "moved"
                );
                if self.session.switches.len() == SWITCH_LOG {
                    self.session.switches.pop_front();
                }
                self.session.switches.push_back(switch.clone());
                Event::Switched { switch }
            }
            ClientEvent::Rekeyed { key_epoch, trigger } => {
                info!(key_epoch, reason = %trigger, "fresh keys");
                return;
            }
            ClientEvent::PolicyChanged { version, .. } => {
                info!(%version, "the gateway's policy has changed and is in force");
                return;
            }
            ClientEvent::Refused { reason, path } => {
                let interface = self.uplinks.interface(*path).to_owned();
                info!(%reason, %interface, "the gateway refused to move the session");
                Event::Refused { reason: report::name(*reason), path: path.0, interface }
            }
            ClientEvent::Terminated { reason, detail } => {
                Event::Terminated { reason: report::name(*reason), detail: detail.map(report::name) }
            }
        };
        self.publish(line);
    }

    fn switch_report(
        &self,
        from: Option<TransportId>,
        to: TransportId,
        epoch: u64,
        detail: Option<Reason>,
        detected_after: Span,
        switched_after: Span,
    ) -> SwitchReport {
        SwitchReport {
            time_ms: clock::unix_ms(),
            from: from.map(|path| path.0),
            from_interface: from.map(|path| self.uplinks.interface(path).to_owned()),
            to: to.0,
            to_interface: self.uplinks.interface(to).to_owned(),
            reason: self.session.trouble.map(report::name),
            detail: detail.map(report::name),
            epoch,
            detect_us: detected_after.as_micros(),
            switch_us: switched_after.as_micros(),
        }
    }
}

/// What to look at when a handshake ended that way.
fn cure(reason: Reason) -> &'static str {
    match reason {
        Reason::HandshakeTimeout => {
            "the gateway does not answer; check gateway.endpoints and gateway.public_key, that the gateway lists this \
             client's public key (`jump pubkey`), and that no firewall drops UDP on the way"
        }
        Reason::HelloReplayed => {
            "the gateway has seen a later handshake of this key; is the key in use on another machine, or the clock far back?"
        }
        Reason::CapacityExceeded => "the gateway has no room for another session of this client; stop another one",
        Reason::PolicyDenied => "the gateway does not grant what [policy] asks for; ask for less or remove it",
        Reason::PolicyInvalid => "the gateway's policy is not understood; are both ends of the same version?",
        Reason::SuiteUnsupported | Reason::UnsupportedVersion => {
            "the gateway speaks another version; update the older end"
        }
        _ => "the gateway refused; its log says more",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_between_handshakes_grow_to_a_bound_and_end_with_success() {
        let mut backoff = Backoff::default();
        assert!(backoff.is_over(Time::ZERO));
        let pauses: Vec<u64> = (0..10).map(|_| backoff.failed(Time::ZERO).as_millis()).collect();
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[9], 30_000);
        assert!(!backoff.is_over(Time::from_millis(29_999)) && backoff.is_over(Time::from_millis(30_000)));
        backoff.succeeded();
        assert!(backoff.is_over(Time::ZERO));
    }
}
