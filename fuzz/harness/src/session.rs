//! The gateway's sessions: a live session whose keys the harness holds, and messages that are sealed as they should be
//! and say what they should not. Beside it stands a session that nobody talks to, which nothing may touch (INV-27).

use std::net::SocketAddr;

use jumpgate_protocol::gateway::{EventKind, SessionEvent};
use jumpgate_protocol::ident::{Arrival, Locator, TransportId, Tuple};
use jumpgate_protocol::keys::{EphemeralSecret, Side};
use jumpgate_protocol::policy::{Policy, Profile};
use jumpgate_protocol::reason::Reason;
use jumpgate_protocol::time::{Span, Time};
use jumpgate_protocol::wire::{
    self, Body, Cause, DATA_OVERHEAD, Header, Heartbeat, HelloConfirm, MessageType, PathProbe, PathProbeAck,
    ReattachRequest, RekeyAck, RekeyInit, Terminate, UDP,
};
use jumpgate_sim::{
    AmplificationOracle, Checker, Incoming, NonceOracle, ReplayOracle, Safety, Sealer, Work, fingerprint,
};

use crate::gateway::{GATEWAY, Gateway, Guest};
use crate::script::Script;
use crate::seal::{Ring, counter, plaintext, seal};

/// Operations of one script; more only repeats them.
const OPERATIONS_MAX: usize = 400;
/// Timers that one session may need in a second of virtual time: a heartbeat's worth of looks and some deadlines. More
/// is a timer that spins.
const TIMERS_A_SECOND: u64 = 150;
/// After that much silence every session has ended (L-2): TRANSPORT_DEAD, then the longest `transport_lost_ttl_ms` of
/// the profiles, and BIRTH long before.
const SILENCE: Span = Span::from_millis(60_000);
/// Addresses that packets come from.
const PLACES: u8 = 5;
/// Sent messages that are kept for replay.
const KEPT: usize = 64;

/// What a script can do; an operation code stands for one of them by its remainder.
pub(crate) mod operation {
    pub(crate) const COUNT: u8 = 10;
    pub(crate) const WAIT: u8 = 0;
    pub(crate) const CONTROL: u8 = 1;
    pub(crate) const DATA: u8 = 2;
    pub(crate) const RAW: u8 = 3;
    pub(crate) const REPLAY: u8 = 4;
    pub(crate) const SEND: u8 = 5;
    pub(crate) const TERMINATE: u8 = 6;
    pub(crate) const ROUTE: u8 = 7;
    pub(crate) const BURST: u8 = 8;
    pub(crate) const CONFIRM: u8 = 9;
}

/// Plays a script.
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut stage = Stage::new(script.byte());
    for _ in 0..OPERATIONS_MAX {
        let Some(code) = script.operation() else { break };
        stage.play(code % operation::COUNT, &mut script);
    }
    stage.fall_silent();
}

/// One end of a session that the harness plays.
struct Peer {
    locator: Locator,
    ring: Ring,
    handshake_hash: [u8; 32],
    inner: [u8; 4],
    inner_index: u32,
    control_sent: u64,
    data_sent: u64,
    /// The token that the gateway sent last to each place.
    tokens: [u64; PLACES as usize],
    /// A rekey that waits for its answer, if a message like that was sent.
    rekey: Option<(RekeyInit, EphemeralSecret)>,
}

impl From<Guest> for Peer {
    fn from(guest: Guest) -> Self {
        Self {
            locator: guest.locator,
            ring: Ring::new(guest.root, guest.identity, Side::Client),
            handshake_hash: guest.handshake_hash,
            inner: guest.inner_v4.octets(),
            inner_index: guest.inner_index,
            control_sent: 0,
            data_sent: 0,
            tokens: [0; PLACES as usize],
            rekey: None,
        }
    }
}

struct Stage {
    gateway: Gateway,
    born: Time,
    me: Peer,
    bystander: Peer,
    checker: Checker,
    nonces: NonceOracle,
    replays: ReplayOracle,
    amplification: AmplificationOracle,
    sent: Vec<(u8, Vec<u8>)>,
    last_control: Option<(u8, MessageType, Vec<u8>)>,
}

impl Stage {
    fn new(choice: u8) -> Self {
        let policy = Policy::profile([Profile::Default, Profile::Mobile, Profile::Fast][usize::from(choice % 3)]);
        let mut gateway = Gateway::new(policy.clone(), 2);
        let me = gateway.handshake(0, place(0));
        let bystander = gateway.handshake(1, place(PLACES));
        let mut stage = Self {
            born: gateway.now,
            gateway,
            me: me.into(),
            bystander: bystander.into(),
            checker: Checker::new(&policy),
            nonces: NonceOracle::default(),
            replays: ReplayOracle::default(),
            amplification: AmplificationOracle::default(),
            sent: Vec::new(),
            last_control: None,
        };
        stage.collect(place(0), 0);
        let confirm = stage.honest(MessageType::HelloConfirm, 0);
        let header = header(MessageType::HelloConfirm, &stage.bystander, 1);
        let mut packet = seal(&stage.bystander.ring.keys(false).0.control_seal, &header, &{
            let mut body = confirm;
            body[8..40].copy_from_slice(&stage.bystander.handshake_hash);
            body
        });
        stage.checker.begin(Work::Datagram(incoming(place(PLACES), &packet, true, false)));
        let result = stage.gateway.shard.control_in(stage.gateway.now, &arrival(place(PLACES)), &mut packet);
        result.expect("the bystander is confirmed");
        stage.collect(place(PLACES), packet.len());
        stage.checker.begin(Work::Timer);
        if choice & 0x80 == 0 {
            stage.confirm();
        }
        stage
    }

    fn play(&mut self, code: u8, script: &mut Script<'_>) {
        match code {
            operation::WAIT => self.wait(Span::from_millis(u64::from(script.word()))),
            operation::CONTROL => self.control(script),
            operation::DATA => self.data(script),
            operation::RAW => {
                let (from, count) = (script.byte() % PLACES, usize::from(script.word() % 1_300));
                let packet = script.bytes(count).to_vec();
                self.deliver(from, packet, false);
            }
            operation::REPLAY => self.replay(script),
            operation::SEND => {
                let length = usize::from(script.word() % 1_500);
                let mut packet = vec![0x45; length];
                let (gateway, index) = (&mut self.gateway, self.me.inner_index);
                if let Ok(out) = gateway.shard.data_out(index, &mut packet) {
                    assert!(length >= DATA_OVERHEAD);
                    self.leaves(out.tuple.peer, &packet);
                }
            }
            operation::TERMINATE => {
                // Rare, since it ends the script's story.
                if script.word() == 0xdead {
                    self.checker.begin(Work::Operator);
                    self.gateway.shard.terminate(self.gateway.now, self.me.locator, Reason::OperatorTerminated);
                    self.collect(place(0), 0);
                    self.checker.begin(Work::Timer);
                }
            }
            operation::ROUTE => {
                self.gateway.shard.set_route(place(script.byte() % PLACES).ip(), u32::from(script.byte()));
            }
            operation::BURST => {
                for _ in 0..script.byte() & 31 {
                    let Some((from, kind, body)) = self.last_control.clone() else { break };
                    self.me.control_sent = self.me.control_sent.saturating_add(1);
                    let packet = self.sealed(kind, self.me.control_sent, &body);
                    self.deliver(from, packet, true);
                }
            }
            operation::CONFIRM => self.confirm(),
            _ => unreachable!("the remainder is below the count"),
        }
    }

    /// HELLO_CONFIRM as it should be.
    fn confirm(&mut self) {
        let body = self.honest(MessageType::HelloConfirm, 0);
        self.me.control_sent = self.me.control_sent.saturating_add(1);
        let packet = self.sealed(MessageType::HelloConfirm, self.me.control_sent, &body);
        self.deliver(0, packet, true);
    }

    /// A control message: mostly one that an honest client would send now, then defaced; under the right keys or not.
    fn control(&mut self, script: &mut Script<'_>) {
        let (choice, from) = (script.byte(), script.byte() % PLACES);
        let kind = kind(choice);
        let honest = self.honest(kind, from);
        let body = script.deface(honest);
        if kind == MessageType::RekeyInit {
            self.note_rekey(&body);
        }
        let counter = counter(script.byte(), self.me.control_sent);
        self.me.control_sent = self.me.control_sent.max(counter.min(u64::MAX - 1));
        self.last_control = Some((from, kind, body.clone()));
        let (packet, authentic) = self.seal_as(script.byte(), kind, counter, &body);
        self.deliver(from, packet, authentic);
    }

    fn data(&mut self, script: &mut Script<'_>) {
        let from = script.byte() % PLACES;
        let tag = match script.byte() {
            delta @ 224.. => delta.wrapping_sub(240),
            _ => 0,
        };
        let counter = counter(script.byte(), self.me.data_sent);
        self.me.data_sent = self.me.data_sent.max(counter.min(u64::MAX - 1));
        let payload = usize::from(script.byte());
        let inner = script.deface(inner_packet(self.me.inner, payload));
        let (keys, key_epoch) = self.me.ring.keys(script.byte() & 3 == 3);
        let header = Header {
            tag: (self.epoch() as u8).wrapping_add(tag),
            key_epoch,
            ..header(MessageType::Data, &self.me, counter)
        };
        let packet = seal(&keys.data_seal, &header, &inner);
        self.deliver(from, packet, true);
    }

    /// Something that was sent before, from there or from elsewhere, whole or with a bit changed.
    fn replay(&mut self, script: &mut Script<'_>) {
        let (index, from, flip) = (usize::from(script.byte()), script.byte(), script.word());
        if self.sent.is_empty() {
            return;
        }
        let (first_from, mut packet) = self.sent[index % self.sent.len()].clone();
        let from = if from & 1 == 0 { first_from } else { from % PLACES };
        let flipped = flip != 0 && !packet.is_empty();
        if flipped {
            let bit = usize::from(flip) % (packet.len() * 8);
            packet[bit / 8] ^= 1 << (bit % 8);
        }
        self.deliver(from, packet, !flipped);
    }

    /// What an honest client would say now.
    fn honest(&self, kind: MessageType, from: u8) -> Vec<u8> {
        let epoch = self.epoch();
        let transport_id = TransportId(u16::from(from) + 1);
        let client_time_ms = self.gateway.now.since(self.born).as_millis();
        match kind {
            MessageType::HelloConfirm => {
                plaintext(&HelloConfirm { binding_epoch: 1, handshake_hash: self.me.handshake_hash, transport_id })
            }
            MessageType::PathProbe => {
                plaintext(&PathProbe { transport_id, client_time_ms, token: self.me.tokens[usize::from(from)] })
            }
            MessageType::ReattachRequest => plaintext(&ReattachRequest {
                binding_epoch: epoch,
                client_time_ms,
                cause: if from & 1 == 0 { Cause::HardDead } else { Cause::Quality },
                transport_id,
                protocol: UDP,
            }),
            MessageType::RekeyInit => plaintext(&RekeyInit {
                next_epoch: self.me.ring.epoch() + 1,
                ephemeral: EphemeralSecret::generate(&mut crate::entropy(9)).public(),
                trigger: Reason::RekeyTimeElapsed,
            }),
            MessageType::Terminate => plaintext(&Terminate { reason: Reason::OperatorTerminated }),
            _ => plaintext(&Heartbeat {
                binding_epoch: epoch,
                client_time_ms,
                sent: self.me.data_sent,
                received: 0,
                highest: 0,
                policy_sequence: 1,
            }),
        }
    }

    /// Keeps what is needed to turn the keys, should the gateway agree.
    fn note_rekey(&mut self, body: &[u8]) {
        if let Ok(init) = RekeyInit::parse(body) {
            self.me.rekey = Some((init, EphemeralSecret::generate(&mut crate::entropy(9))));
        }
    }

    fn sealed(&self, kind: MessageType, counter: u64, body: &[u8]) -> Vec<u8> {
        self.seal_as(0, kind, counter, body).0
    }

    /// A message under the keys that `choice` says, and whether the gateway has to take it for authentic.
    fn seal_as(&self, choice: u8, kind: MessageType, counter: u64, body: &[u8]) -> (Vec<u8>, bool) {
        let (mine, key_epoch) = self.me.ring.keys(choice == 201);
        let header = Header { key_epoch, ..header(kind, &self.me, counter) };
        let is_proof = kind == MessageType::ReattachRequest;
        let right = if is_proof { &mine.proof } else { &mine.control_seal };
        let theirs = self.bystander.ring.keys(false).0;
        match choice {
            0..=201 => (seal(right, &header, body), true),
            202..=205 => (seal(if is_proof { &mine.control_seal } else { &mine.proof }, &header, body), false),
            206..=209 => (seal(&mine.control_open, &header, body), false),
            210..=219 => (seal(if is_proof { &theirs.proof } else { &theirs.control_seal }, &header, body), false),
            // A07: a valid proof under another session's name.
            220..=229 => (seal(right, &Header { locator: self.bystander.locator, ..header }, body), false),
            230..=239 => (seal(right, &Header { locator: Locator(u64::from(choice)), ..header }, body), false),
            240.. => {
                let key_epoch = key_epoch.wrapping_add(choice - 238);
                (seal(right, &Header { key_epoch, ..header }, body), false)
            }
        }
    }

    /// One packet arrives at the gateway, and everything that must hold is looked at.
    fn deliver(&mut self, from: u8, packet: Vec<u8>, authentic: bool) {
        let (place, bytes, print) = (place(from), packet.len(), fingerprint(&packet));
        let replay = self.replays.is_replay(print);
        let incoming = incoming(place, &packet, authentic, replay);
        // Why it asks is sealed in the request; for the checkers it may always say that nothing is bound.
        self.checker.may_be_unbound(incoming.locator, incoming.counter);
        self.checker.begin(Work::Datagram(incoming));
        let (mine, theirs) = (self.fixed_point(self.me.locator), self.fixed_point(self.bystander.locator));
        if authentic && !replay {
            self.amplification.received(incoming.locator, place, bytes);
        }
        let kind = MessageType::of(&packet);
        let before = self.epoch();
        let mut copy = packet.clone();
        let now = self.gateway.now;
        let result = if kind == Ok(MessageType::Data) {
            let result = self.gateway.shard.data_in(now, &arrival(place), &mut copy);
            if let Ok(inner) = result {
                let inner = &copy[inner.start..inner.start + inner.len];
                assert_eq!(inner[12..16], self.me.inner, "an inner packet has the address of its session");
            }
            result.map(|_| ())
        } else {
            self.gateway.shard.control_in(now, &arrival(place), &mut copy)
        };
        let reason = result.err();
        assert!(!matches!(reason, Some(Reason::InternalError | Reason::InvariantViolation)), "{reason:?}");
        let answered = self.collect(place, bytes);
        self.checker.end(&incoming, result, now);
        let unchanged = mine == self.fixed_point(self.me.locator);
        if !authentic {
            assert!(unchanged, "INV-31: a {kind:?} that is not authentic changed the session: {reason:?}");
            assert!(answered <= bytes, "INV-31: {answered} bytes in answer to {bytes}");
        }
        if replay {
            assert!(unchanged, "INV-12: a {kind:?} sent again changed the session: {reason:?}");
        }
        if kind == Ok(MessageType::Data) {
            assert_eq!(self.epoch(), before, "INV-26: DATA moved a binding");
        }
        if kind == Ok(MessageType::ReattachRequest) {
            assert!(answered <= bytes, "RF-2: {answered} bytes in answer to a request of {bytes}");
        }
        assert!(theirs == self.fixed_point(self.bystander.locator), "INV-27: a {kind:?} touched another session");
        // A rekey that is denied has used its counter as well: the same bytes get the same answer, and are no sign of life.
        if matches!(reason, None | Some(Reason::RekeyDenied)) {
            self.replays.accepted(print);
        }
        // One bit changed twice would be authentic again.
        if authentic && self.sent.len() < KEPT {
            self.sent.push((from, packet));
        }
    }

    /// What nothing but an accepted message may change of a session.
    fn fixed_point(&self, locator: Locator) -> impl PartialEq + use<> {
        let view = self.gateway.shard.view(self.gateway.now, locator);
        view.map(|view| (view.state, view.version, view.epoch, view.tuple, view.validated, view.received))
    }

    fn epoch(&self) -> u64 {
        self.gateway.shard.view(self.gateway.now, self.me.locator).map_or(1, |view| view.epoch)
    }

    /// Takes events and replies from the shard. Gives the bytes that were sent to `asker`.
    fn collect(&mut self, asker: SocketAddr, arrived: usize) -> usize {
        while let Some(event) = self.gateway.poll_event() {
            self.follow(&event, asker, arrived);
        }
        let mut answered = 0;
        while let Some(reply) = self.gateway.shard.poll_reply() {
            self.leaves(reply.tuple.peer, &reply.packet);
            self.hear(reply.tuple.peer, &reply.packet);
            answered += if reply.tuple.peer == asker { reply.packet.len() } else { 0 };
        }
        assert!(self.checker.violations().is_empty(), "{:#?}", self.checker.violations());
        answered
    }

    fn follow(&mut self, event: &SessionEvent, asker: SocketAddr, arrived: usize) {
        match &event.kind {
            EventKind::Created => self.checker.created(event.locator, event.client, 0, self.gateway.now),
            EventKind::Transition(transition) => {
                assert_ne!(transition.reason, Reason::InvariantViolation, "T23 is a defect of ours: {transition:?}");
                self.checker.transition(event.locator, event.client, 0, transition);
                self.amplification.transition(event.locator, transition, Some((asker, arrived)));
            }
            EventKind::Validated { epoch } => {
                self.checker.validated(event.locator, *epoch, self.gateway.now);
                self.amplification.validated(event.locator);
            }
            EventKind::Rekeyed { .. } => self.checker.rekeyed(event.locator, self.gateway.now),
            _ => {}
        }
    }

    /// A packet leaves the gateway.
    fn leaves(&mut self, peer: SocketAddr, packet: &[u8]) {
        let now = self.gateway.now;
        if let Some(words) = self.nonces.sealed(Sealer::Gateway, packet) {
            self.checker.violated(now, Safety::NonceReuse, &words);
        }
        if let Some(words) = self.amplification.sent(peer, packet) {
            self.checker.violated(now, Safety::Other, &words);
        }
    }

    /// The client reads an answer: tokens of standby paths, and the keys of a rekey.
    fn hear(&mut self, peer: SocketAddr, packet: &[u8]) {
        let Ok(header) = Header::parse(packet) else { return };
        let Some(keys) = self.me.ring.named(header.key_epoch).filter(|_| header.locator == self.me.locator) else {
            return;
        };
        let mut copy = packet.to_vec();
        let Ok(body) = wire::open(&keys.control_open, &header, &mut copy) else { return };
        match header.kind {
            MessageType::PathProbeAck => {
                let token = PathProbeAck::parse(body).expect("the gateway writes what can be read").token;
                if let Some(place) = (0..PLACES).find(|number| place(*number) == peer) {
                    self.me.tokens[usize::from(place)] = token;
                }
            }
            MessageType::RekeyAck => {
                let ack = RekeyAck::parse(body).expect("the gateway writes what can be read");
                if ack.status.is_none()
                    && let Some((init, secret)) = self.me.rekey.take()
                    && init.next_epoch == ack.next_epoch
                    && let Ok(shared) = secret.agree(&ack.ephemeral)
                {
                    let next = self.me.ring.root().next(&shared, &init, &ack);
                    self.me.ring.turn(next);
                }
            }
            _ => {}
        }
    }

    /// Time passes, and every timer runs when it is due.
    fn wait(&mut self, span: Span) {
        let end = self.gateway.now + span;
        let mut timers = 0;
        while let Some(due) = self.gateway.shard.next_timeout().filter(|due| *due <= end) {
            self.gateway.now = self.gateway.now.max(due);
            self.gateway.shard.timeout(self.gateway.now);
            self.collect(place(0), 0);
            timers += 1;
        }
        let bound = 20 + 2 * TIMERS_A_SECOND * (1 + span.as_millis() / 1_000);
        assert!(timers <= bound, "{timers} timers in {} ms: one of them spins", span.as_millis());
        self.gateway.now = end;
    }

    /// Without another packet every session ends by time alone (L-2), and nothing is left of it (INV-22, INV-28).
    fn fall_silent(&mut self) {
        let now = self.gateway.now;
        let views: Vec<_> = self.gateway.shard.views(now).into_iter().map(|view| (0, view)).collect();
        self.checker.audit(&views, self.gateway.desk.len(), now);
        self.wait(SILENCE);
        assert!(self.gateway.shard.is_empty(), "L-2: {:?}", self.gateway.shard.views(self.gateway.now));
        assert!(self.gateway.desk.is_empty(), "the desk remembers {} sessions that ended", self.gateway.desk.len());
        assert!(!self.gateway.shard.is_saying_farewell());
    }
}

/// A datagram as the checkers want to know it.
fn incoming(from: SocketAddr, packet: &[u8], authentic: bool, replay: bool) -> Incoming {
    let header = Header::parse(packet).ok();
    Incoming {
        kind: MessageType::of(packet).ok(),
        from,
        locator: header.map_or(Locator::default(), |header| header.locator),
        counter: header.map_or(0, |header| header.counter),
        tag: header.map_or(0, |header| header.tag),
        bytes: packet.len(),
        forged: !authentic,
        replay,
    }
}

/// The message that an operand stands for: mostly one that a client may send.
fn kind(choice: u8) -> MessageType {
    match choice % 16 {
        0..=3 => MessageType::Heartbeat,
        4..=6 => MessageType::PathProbe,
        7..=10 => MessageType::ReattachRequest,
        11..=12 => MessageType::RekeyInit,
        13 => MessageType::HelloConfirm,
        14 if choice > 240 => MessageType::Terminate,
        _ => MessageType::ALL[usize::from(choice / 16) % MessageType::ALL.len()],
    }
}

fn header(kind: MessageType, peer: &Peer, counter: u64) -> Header {
    Header { kind, flags: 0, key_epoch: peer.ring.epoch() as u8, tag: 0, locator: peer.locator, counter }
}

/// Where packets come from: the last place that a client uses is an address of the pool, which no tunnel comes from.
fn place(number: u8) -> SocketAddr {
    match number {
        4 => SocketAddr::from(([10, 0, 0, 9], 1_024)),
        _ => SocketAddr::from(([100, 64, 0, number + 1], 1_024 + u16::from(number))),
    }
}

fn arrival(peer: SocketAddr) -> Arrival {
    Arrival { tuple: Tuple { local: GATEWAY, peer }, route: 1, queue: 0 }
}

/// An IPv4 packet from that address to the network behind the gateway.
pub(crate) fn inner_packet(source: [u8; 4], payload: usize) -> Vec<u8> {
    let total = 20 + payload;
    let mut packet = vec![0; total];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    packet[8] = 64;
    packet[12..16].copy_from_slice(&source);
    packet[16..20].copy_from_slice(&[10, 0, 0, 1]);
    packet
}

/// Stories that a session lives through: calm, jumps, a rekey, a clone, replays, everything sealed wrong.
pub fn seeds() -> Vec<Vec<u8>> {
    use operation::{BURST, CONFIRM, CONTROL, DATA, RAW, REPLAY, ROUTE, SEND, TERMINATE, WAIT};
    const HONEST: [u8; 4] = [0, 0, 0, 0]; // nothing changed, same length, next counter, right key
    let say = |kind: u8, from: u8| [&[CONTROL, kind, from][..], &HONEST].concat();
    let data = |from: u8| vec![DATA, from, 0, 0, 40, 0, 0, 0];
    let wait = |ms: u16| [&[WAIT][..], &ms.to_be_bytes()].concat();
    let send = |length: u16| [&[SEND][..], &length.to_be_bytes()].concat();
    let (heartbeat, probe, reattach, rekey, terminate) = (0, 4, 7, 11, 254);
    let story = |profile: u8, steps: &[Vec<u8>]| [vec![profile], steps.concat()].concat();
    let mut seeds = vec![
        story(0, &[say(heartbeat, 0), data(0), send(200), wait(500), say(heartbeat, 0), wait(2_500)]),
        story(
            2,
            &[
                say(probe, 1),
                wait(100),
                say(probe, 1),
                say(reattach, 1),
                say(heartbeat, 1),
                data(1),
                data(0),
                send(400),
                vec![ROUTE, 1, 7],
                wait(900),
            ],
        ),
        story(
            1,
            &[
                wait(6_000),
                say(rekey, 0),
                say(heartbeat, 0),
                data(0),
                vec![CONTROL, heartbeat, 0, 0, 0, 0, 201],
                say(reattach, 2),
                say(heartbeat, 2),
            ],
        ),
        // A clone: the same counter, other bytes (A24).
        story(0, &[say(reattach, 2), vec![CONTROL, reattach, 3, 0, 0, 200, 0], wait(100)]),
        story(0x82, &[say(heartbeat, 0), data(0), vec![CONFIRM], vec![CONFIRM], data(0), wait(1_000)]),
        story(
            2,
            &[say(heartbeat, 0), vec![BURST, 31], say(reattach, 1), vec![BURST, 20], wait(30_000), say(reattach, 3)],
        ),
        story(0, &[say(terminate, 0), wait(100), say(reattach, 1)]),
        story(0, &[vec![TERMINATE, 0xde, 0xad], wait(600), say(heartbeat, 0)]),
        story(
            1,
            &[
                vec![RAW, 1, 0, 4, 0x1a, 0x10, 0, 0],
                vec![REPLAY, 0, 1, 0, 0],
                vec![REPLAY, 0, 0, 0, 99],
                say(reattach, 4),
            ],
        ),
    ];
    // The same request under every wrong key and counter.
    for choice in [202, 206, 210, 220, 230, 240] {
        seeds.push(story(0, &[vec![CONTROL, reattach, 1, 0, 0, 0, choice], say(heartbeat, 0)]));
    }
    for choice in [216, 245, 250, 251, 252, 253] {
        seeds.push(story(0, &[vec![CONTROL, reattach, 2, 0, 0, choice, 0], say(heartbeat, 2), say(reattach, 0)]));
    }
    seeds
}
