//! The handshake from the client's side (§6.2): HELLO_INIT until HELLO_ACK, one path after the other.

use super::core::Shared;
use super::event::ClientEvent;
use super::live::Live;
use crate::handshake::{Answer, HelloRequest, Initiator};
use crate::ident::TransportId;
use crate::reason::Reason;
use crate::time::{Span, Time};
use crate::wire::MessageType;

/// First retransmission timeout of HELLO_INIT; it doubles (HS-6).
const HELLO_RTO: Span = Span::from_millis(500);
/// Copies on one path before the next path gets its turn.
const COPIES_A_PATH: u32 = 2;
/// A handshake takes no longer than that. The policy, with its `handshake_timeout_ms`, is not known before HELLO_ACK:
/// this is the value of the profile `default` (PP12).
const HANDSHAKE_TIMEOUT: Span = Span::from_millis(5_000);

/// One HELLO_INIT, with its copies.
struct Hello {
    path: TransportId,
    initiator: Initiator,
    /// The time that it gave as zero of the client's session time (AR-5).
    origin: Time,
}

/// One attempt to get a session.
pub(super) struct Connecting {
    started: Time,
    /// The path whose turn it is, or was until it went down.
    path: Option<TransportId>,
    /// What is outstanding on it.
    hello: Option<Hello>,
    /// What was sent on the path before: where round trips are long, its answer comes after the turn of that path.
    former: Option<Hello>,
    copies: u32,
    rto: Span,
    next: Time,
    over: bool,
}

impl Connecting {
    pub(super) fn new(shared: &mut Shared, now: Time) -> Self {
        let mut connecting = Self {
            started: now,
            path: None,
            hello: None,
            former: None,
            copies: 0,
            rto: HELLO_RTO,
            next: now,
            over: false,
        };
        connecting.try_next_path(shared, now);
        connecting
    }

    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn next_timeout(&self) -> Time {
        self.next.min(self.started + HANDSHAKE_TIMEOUT)
    }

    pub(super) fn path_up(&mut self, shared: &mut Shared, now: Time) {
        if self.path.is_none() {
            self.try_next_path(shared, now);
        }
    }

    pub(super) fn path_down(&mut self, shared: &mut Shared, id: TransportId, now: Time) {
        if self.path == Some(id) {
            self.try_next_path(shared, now);
        }
    }

    pub(super) fn timeout(&mut self, shared: &mut Shared, now: Time) {
        if now.since(self.started) >= HANDSHAKE_TIMEOUT {
            self.fail(shared, Reason::HandshakeTimeout);
            return;
        }
        if now < self.next {
            return;
        }
        let others = shared.paths.iter().filter(|path| path.up && Some(path.id) != self.path).count();
        if self.hello.is_none() || (self.copies >= COPIES_A_PATH && others > 0) {
            self.try_next_path(shared, now);
        } else {
            self.rto = self.rto.times(2);
            self.transmit(shared, now);
        }
    }

    /// HELLO_ACK or HELLO_RETRY. Gives the session once there is one.
    pub(super) fn datagram_in(
        &mut self,
        shared: &mut Shared,
        path: TransportId,
        packet: &[u8],
        now: Time,
    ) -> Result<Option<Live>, Reason> {
        if MessageType::of(packet) == Ok(MessageType::HelloRetry) {
            let hello = self.hello.as_mut().filter(|hello| hello.path == path).ok_or(Reason::SessionNotFound)?;
            hello.initiator.on_retry(packet)?;
            self.transmit(shared, now);
            return Ok(None);
        }
        let (answer, origin) = self.answer(path, packet)?;
        let established = match answer {
            Answer::Established(established) => *established,
            Answer::Refused(reason) => {
                self.fail(shared, reason);
                return Ok(None);
            }
        };
        match Live::new(shared, established, path, origin, now) {
            Ok(live) => Ok(Some(live)),
            Err(reason) => {
                self.fail(shared, reason);
                Err(reason)
            }
        }
    }

    /// What a HELLO_ACK says to the present HELLO_INIT, or to the former. One that answers neither changes nothing.
    fn answer(&mut self, path: TransportId, packet: &[u8]) -> Result<(Answer, Time), Reason> {
        let mut refusal = Reason::SessionNotFound;
        let outstanding = [&mut self.hello, &mut self.former].into_iter().flatten();
        for hello in outstanding.filter(|hello| hello.path == path) {
            match hello.initiator.on_ack(packet) {
                Ok(answer) => return Ok((answer, hello.origin)),
                Err(reason) => refusal = reason,
            }
        }
        Err(refusal)
    }

    /// A fresh HELLO_INIT on the best path that comes after the present one: the gateway binds the session to the tuple
    /// that it came from, so another path needs another HELLO_INIT.
    fn try_next_path(&mut self, shared: &mut Shared, now: Time) {
        self.former = self.hello.take().or(self.former.take());
        self.rto = HELLO_RTO;
        self.copies = 0;
        self.next = now + HELLO_RTO;
        let mut up: Vec<_> =
            shared.paths.iter().filter(|path| path.up).map(|path| (path.info.priority, path.id)).collect();
        up.sort_unstable();
        let present = up.iter().position(|(_, id)| Some(*id) == self.path);
        let index = present.map_or(0, |index| (index + 1) % up.len());
        let Some((_, id)) = up.get(index).copied() else {
            self.path = None;
            return;
        };
        shared.config.hello_counter += 1;
        let request = HelloRequest {
            hello_counter: shared.config.hello_counter,
            client_time_ms: 0,
            replaces: shared.config.replaces,
            capabilities: 0,
            requested_policy: shared.config.requested_policy.clone(),
        };
        let config = &shared.config;
        let initiator =
            Initiator::new(&config.secret, &config.gateway, config.psk.as_ref(), &request, shared.entropy.as_mut());
        match initiator {
            Ok(initiator) => {
                self.path = Some(id);
                self.hello = Some(Hello { path: id, initiator, origin: now });
                self.transmit(shared, now);
            }
            Err(reason) => self.fail(shared, reason),
        }
    }

    fn transmit(&mut self, shared: &mut Shared, now: Time) {
        if let Some(hello) = &self.hello {
            shared.send(hello.path, hello.initiator.packet());
            self.copies += 1;
            self.next = now + self.rto;
        }
    }

    fn fail(&mut self, shared: &mut Shared, reason: Reason) {
        self.over = true;
        shared.events.push_back(ClientEvent::ConnectFailed { reason });
    }
}
